"""From a config to what runs it: constitution, mix, teachers, pipeline."""

from __future__ import annotations

import platform
from importlib.metadata import version

from tracemill import __version__
from tracemill.config import Config
from tracemill.constitution.constitution import load_constitution
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.rollout import Budget
from tracemill.generators.scenario import Mix, kind_of
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.pipeline import Job, Milled, Pipeline
from tracemill.trace import Json, Rejection, fingerprint


def build_job(config: Config) -> Job:
    """Raises ConfigError for a broken constitution and EnvironmentMissing for an environment that does not load."""
    constitution = load_constitution(config.constitution)
    names = {environment(ref).name: weight for ref, weight in config.environments.items()}
    mix = Mix(kinds=config.weights(), environments=names, flaws=config.flaws, worlds=config.worlds)
    content = config.content(constitution.digest())
    return Job(config.seed, mix, fingerprint(content), Budget(config.budget.turns, config.budget.calls))


def build_pipeline(config: Config) -> Pipeline:
    teacher = ScriptedTeacher()
    return Pipeline(build_job(config), teacher, teacher, load_constitution(config.constitution))


def run_record(config: Config) -> dict[str, Json]:
    """What run.json says of a run, but for its counts."""
    constitution = load_constitution(config.constitution)
    names = ("ray", "datasets", "pyarrow", "jsonschema", "pydantic")
    return {
        "tracemill": __version__,
        "digest": build_job(config).digest,
        "config": config.model_dump(mode="json", exclude={"actors", "concurrency"}),
        "content": config.content(constitution.digest()),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
    }


def quarantined(config: Config, index: int, deaths: int) -> Milled:
    """The ledger's word on a scenario that took down every actor it ran in."""
    job = build_job(config)
    kind = kind_of(job.seed, index, job.mix)
    reason = f"the actor died {deaths} times while it ran this scenario, the last times with nothing beside it"
    rejection = Rejection(
        id=f"{job.id_of(index)}.0", index=index, attempt=0, kind=kind, environment="", template="",
        stage="infrastructure", reason=reason, blame="infrastructure", final=True,
    )  # fmt: skip
    return Milled(index, None, (rejection,))
