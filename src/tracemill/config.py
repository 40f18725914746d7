"""The config of a run: a YAML file, with command-line flags on top.

Problems are reported all at once, each with its path and, for an unknown name, the nearest valid one.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, ValidationInfo, field_validator, model_validator

from tracemill import __version__
from tracemill.errors import ConfigError, EnvironmentMissing
from tracemill.licence import licence_of
from tracemill.trace import KINDS, Json, Kind, fingerprint

DEFAULT_ENVIRONMENTS = ("store", "calendar", "travel", "bank", "helpdesk", "workspace")


class BudgetConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    turns: int = Field(default=40, ge=1, description="Agent turns after which a conversation is cut off.")
    calls: int = Field(default=40, ge=0, description="Tool calls after which a conversation is cut off.")
    repairs: int = Field(default=3, ge=0, description="Replies that cannot be used before a conversation is given up.")


class Prices(BaseModel):
    """What a million tokens cost, in whatever currency you reckon in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: float = Field(default=0.0, ge=0, description="Of a million tokens read.")
    completion: float = Field(default=0.0, ge=0, description="Of a million tokens written.")


class Mode(BaseModel):
    """A preset of how much care is taken over each message."""

    model_config = ConfigDict(frozen=True)

    temperature: float
    max_tokens: int
    reasoning_steps: int


MODES: dict[str, Mode] = {
    "fast": Mode(temperature=0.7, max_tokens=256, reasoning_steps=1),
    "balanced": Mode(temperature=0.5, max_tokens=512, reasoning_steps=2),
    "thorough": Mode(temperature=0.3, max_tokens=1024, reasoning_steps=3),
}


class ModelConfig(BaseModel):
    """What is the same for an engine of one's own and for an endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float | None = Field(default=None, ge=0, le=2, description="0 is greedy; the mode's if not given.")
    max_tokens: int | None = Field(default=None, ge=1, description="After which a message is cut off; the mode's if not given.")
    reasoning_steps: int | None = Field(default=None, ge=0, le=20, description="Asked for before each action; the mode's if not given.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling.")
    template_kwargs: dict[str, Any] = Field(default={}, description="For the chat template, such as enable_thinking.")
    timeout: float = Field(default=600.0, gt=0, description="Seconds after which one reply is given up.")
    prices: Prices = Field(default=Prices(), description="What a million tokens cost: prompt and completion.")

    def care(self, preset: Mode) -> Mode:
        """What the mode presets, as far as nothing else is said here."""
        own = {name: value for name in Mode.model_fields if (value := getattr(self, name)) is not None}
        return preset.model_copy(update=own)


class VllmConfig(ModelConfig):
    """A vLLM engine in each actor."""

    model: str = Field(min_length=1, description="Folder or Hub name of the model.")
    tool_parser: str | None = Field(default=None, description="vLLM's parser of tool calls; found by trial if not given.")
    reasoning_parser: str | None = Field(default=None, description="vLLM's parser of thinking, such as qwen3; none if not given.")
    chat_template: Path | None = Field(default=None, description="File with a chat template, in place of the model's own.")
    tensor_parallel: int = Field(default=1, ge=1, le=64, description="GPUs that share one engine.")
    gpus: float | None = Field(default=None, ge=0, description="GPUs of each actor; as many as tensor_parallel where there are any.")
    guided_calls: bool = Field(default=False, description="Hold tool calls to their schemas by a structural tag.")
    adapters: dict[str, Path] = Field(default={}, description="LoRA adapters by name.")
    adapter: str | None = Field(default=None, description="Name of the adapter to use.")
    engine: dict[str, Any] = Field(default={}, description="Any argument of vLLM's AsyncEngineArgs, such as max_model_len.")

    @model_validator(mode="after")
    def _there(self) -> VllmConfig:
        if self.adapter is not None and self.adapter not in self.adapters:
            raise ValueError(f"adapter: there is no {self.adapter!r} among the adapters {sorted(self.adapters)}")
        missing = [str(path) for path in self.adapters.values() if not path.is_dir()]
        if missing:
            raise ValueError(f"adapters: no such folder: {', '.join(missing)}")
        if self.chat_template is not None and not self.chat_template.is_file():
            raise ValueError(f"chat_template: no file {str(self.chat_template)!r}")
        return self


class EndpointConfig(ModelConfig):
    """An endpoint that speaks the OpenAI chat API."""

    url: str = Field(pattern=r"^https?://", description="Base URL, such as http://127.0.0.1:8000/v1.")
    model: str | None = Field(default=None, description="Name of the model there; the only one it lists if not given.")
    key_env: str = Field(default="OPENAI_API_KEY", description="Environment variable that holds the key; the key itself is stored nowhere.")
    requests_per_minute: float | None = Field(default=None, gt=0, description="Limit of the endpoint, over all actors.")
    tokens_per_minute: float | None = Field(default=None, gt=0, description="Limit of the endpoint, over all actors.")
    retries: int = Field(default=6, ge=0, le=100, description="How often a request that failed is sent again.")
    reasoning_key: str | None = Field(default=None, description="Key under which earlier reasoning is sent back; not at all if not given.")


WORDS = {"teacher": ("scripted",), "user": ("scripted", "teacher"), "critic": ("none", "teacher")}
"""What a role can be given to besides a model."""
MODELS: dict[str, type[ModelConfig]] = {"vllm": VllmConfig, "endpoint": EndpointConfig}
Model = Annotated[VllmConfig, Tag("vllm")] | Annotated[EndpointConfig, Tag("endpoint")]


def _teacher_kind(value: Any) -> str:
    if isinstance(value, dict):
        return "endpoint" if "url" in value else "vllm"
    return next((tag for tag, model in MODELS.items() if isinstance(value, model)), "word")


TeacherKind = Discriminator(_teacher_kind)


class Config(BaseModel):
    """Everything that `tracemill generate` can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accept: int | dict[Kind, int] = Field(default=300, description="How many accepted traces: in all, or for each kind.")
    seed: int = Field(default=0, ge=0, description="Same seed and config, same accepted set.")
    kinds: dict[Kind, float] = Field(default_factory=lambda: dict.fromkeys(KINDS, 1.0), description="Weights of the trace kinds.")
    environments: dict[str, float] = Field(
        default_factory=lambda: dict.fromkeys(DEFAULT_ENVIRONMENTS, 1.0),
        description="Weights by environment: a built-in name, module:Class, or an MCP file. A list weighs all alike.",
    )
    teacher: Annotated[Annotated[Literal["scripted"], Tag("word")] | Model, TeacherKind] = Field(
        default="scripted", description="Who plays the agent: 'scripted', a vLLM model, or an endpoint (which has a `url`)."
    )
    user: Annotated[Annotated[Literal["scripted", "teacher"], Tag("word")] | Model, TeacherKind] = Field(
        default="scripted", description="Who plays the user: 'scripted', 'teacher' (the agent's own model), or a model of its own."
    )
    critic: Annotated[Annotated[Literal["none", "teacher"], Tag("word")] | Model, TeacherKind] = Field(
        default="none", description="Who judges principles that no rule decides: 'none', 'teacher', or a model of its own."
    )
    agreement: float = Field(default=0.2, ge=0, le=1, description="Share of traces on which the critic is measured against the rules.")
    mode: Literal["fast", "balanced", "thorough"] = Field(
        default="balanced", description="Preset of temperature, max_tokens and reasoning_steps: .7/256/1, .5/512/2, .3/1024/3."
    )
    siblings: int = Field(default=1, ge=1, le=64, description="Rollouts of each scenario; where they part, preference pairs are made.")
    flaws: float = Field(default=0.1, ge=0, le=1, description="Share of first drafts that the scripted teacher spoils.")
    worlds: int = Field(default=32, ge=1, le=100_000, description="Initial states for each environment.")
    holdout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of each environment's goal templates that is never used, but for evaluation."
    )
    constitution: Path | None = Field(default=None, description="Your own constitution; the bundled one if not given.")
    budget: BudgetConfig = Field(
        default=BudgetConfig(), description="`turns`, `calls` and `repairs` after which a conversation is cut off."
    )
    license: str = Field(
        default="", validate_default=True, description="Licence of the dataset, as the Hub writes it; follows from the models if not given."
    )
    name: str = Field(default="agent-traces", description="Title of the dataset card.")
    actors: int = Field(default=0, ge=0, le=4096, description="Ray actors; 0 means one for each CPU.")
    concurrency: int = Field(default=32, ge=1, le=65536, description="Rollouts in flight in each actor.")

    @field_validator("environments", mode="before")
    @classmethod
    def _as_weights(cls, value: Any) -> Any:
        return dict.fromkeys(value, 1.0) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value

    @field_validator("kinds", "environments")
    @classmethod
    def _weighed(cls, value: dict[str, float]) -> dict[str, float]:
        if not value or not all(0 <= weight < math.inf for weight in value.values()) or not sum(value.values()):
            raise ValueError("expected at least one positive weight, and none below zero or without end")
        return {name: weight for name, weight in value.items() if weight}

    @field_validator("accept")
    @classmethod
    def _counted(cls, value: int | dict[Kind, int]) -> int | dict[Kind, int]:
        numbers = value.values() if isinstance(value, dict) else [value]
        if any(number < 0 for number in numbers) or not sum(numbers):
            raise ValueError("expected at least 1")
        return value

    @field_validator("license")
    @classmethod
    def _licensed(cls, value: str, info: ValidationInfo) -> str:
        roles = [info.data.get(role) for role in WORDS]  # None where it is wrong, which is said of it
        return value or licence_of([one.model_dump() if isinstance(one, ModelConfig) else one for one in roles]).id

    @field_validator("teacher", "user", "critic", mode="before")
    @classmethod
    def _as_teacher(cls, value: Any, info: ValidationInfo) -> Any:
        """A word of our own, the URL of an endpoint, or the folder or name of a model; a map with a `url` is an endpoint."""
        words = WORDS[str(info.field_name)]
        slip = isinstance(value, str) and "/" not in value and difflib.get_close_matches(value, words, n=1, cutoff=0.75)
        if isinstance(value, str) and not slip and value not in words:
            value = {"url": value} if value.startswith(("http://", "https://")) else {"model": value}
        return value

    @model_validator(mode="after")
    def _suited(self) -> Config:
        if self.teacher == "scripted":
            if self.siblings > 1:
                raise ValueError("siblings: the scripted teacher always says the same; siblings take a model as the teacher")
            for role in ("user", "critic"):
                if getattr(self, role) == "teacher":
                    raise ValueError(f"{role}: 'teacher' takes a model as the teacher; the scripted one cannot play the {role} so")
        return self

    def quotas(self) -> dict[Kind, int]:
        """How many of each kind: as given, or the total shared out by the weights (largest remainders first)."""
        if isinstance(self.accept, dict):
            return {kind: number for kind, number in self.accept.items() if number}
        total = sum(self.kinds.values())
        exact = {kind: self.accept * weight / total for kind, weight in self.kinds.items()}
        shares = {kind: int(number) for kind, number in exact.items()}
        rest = sorted(exact, key=lambda kind: (shares[kind] - exact[kind], kind))
        for kind in rest[: self.accept - sum(shares.values())]:
            shares[kind] += 1
        return {kind: number for kind, number in shares.items() if number}

    def weights(self) -> dict[Kind, float]:
        """Weights of the kinds that are wanted; numbers for each kind are their own weights."""
        if isinstance(self.accept, dict):
            return {kind: float(number) for kind, number in self.accept.items() if number}
        return dict(self.kinds)

    def content(self, constitution_digest: str) -> dict[str, Json]:
        """What decides the content of the records; not where they go, how many, or how fast. Files count by content."""
        plain = self.model_dump(mode="json", include={"seed", "environments", "teacher", "user", "critic", "flaws", "worlds", "budget"})
        if any(isinstance(getattr(self, role), ModelConfig) for role in WORDS):
            plain |= {"mode": self.mode, "siblings": self.siblings}
        if self.holdout:
            plain["holdout"] = self.holdout
        if self.critic != "none":
            plain["agreement"] = self.agreement
        for role in WORDS:
            if isinstance(plain[role], dict):
                plain[role] = _deciding(plain[role])
        sources = {ref: source for ref in self.environments if (source := _source(ref)) is not None}
        files = {ref: fingerprint(source.read_text(encoding="utf-8")) for ref, source in sources.items()}
        return {**plain, "kinds": self.weights(), "files": files, "constitution": constitution_digest, "version": __version__}


def _deciding(teacher: dict[str, Json]) -> dict[str, Json]:
    """What of a model's settings decides what it says; the rest may change between a run and its continuation."""
    decides = {key: value for key, value in teacher.items() if key not in OPERATIONAL}
    if "engine" in decides:
        decides["engine"] = {key: value for key, value in decides["engine"].items() if key not in OPERATIONAL}
    return decides


OPERATIONAL = frozenset({
    "timeout", "prices", "tensor_parallel", "gpus", "url", "key_env", "requests_per_minute", "tokens_per_minute", "retries",
    "gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens", "enforce_eager", "disable_log_stats", "kv_cache_memory_bytes",
})  # fmt: skip


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, unchecked. Raises ConfigError where it holds no map of them."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as reason:
        raise ConfigError(f"cannot read the config {path}: {reason}") from reason
    except yaml.YAMLError as reason:
        raise ConfigError(f"{path} is not valid YAML", [" ".join(str(reason).split())]) from reason
    if not isinstance(loaded, dict | None):
        raise ConfigError(f"{path}: expected a map of settings, got {type(loaded).__name__}")
    return {str(key): value for key, value in (loaded or {}).items()}


def load_config(path: Path | None, flags: Mapping[str, Any]) -> Config:
    """Read a YAML file, put the flags that were given (not None) on top, and check it all. Raises ConfigError."""
    given = read_config(path) if path else {}
    given |= {key: value for key, value in flags.items() if value is not None}
    problems: list[str] = []
    config: Config | None = None
    try:
        config = Config.model_validate(given)
    except ValidationError as errors:
        problems = validation_problems(errors, Config)
    problems += _file_problems(given)
    if config is not None and not problems:
        problems = _unsuited_kinds(config)
    if problems or config is None:
        raise ConfigError(f"the config{f' {path}' if path else ''} has {len(problems)} problem(s)", problems)
    return config


def validation_problems(errors: ValidationError, model: type[BaseModel]) -> list[str]:
    """Pydantic's findings as 'path: what was expected, what came', with the nearest name for an unknown one."""
    found: dict[str, str] = {}
    for error in errors.errors(include_url=False):
        loc = error["loc"]
        owner = MODELS.get(str(loc[1])) if len(loc) > 1 and loc[0] in WORDS else None
        if len(loc) > 1 and loc[0] in WORDS:
            loc = (loc[0], *loc[2:])  # without the tag of the union
        place = [part for part in loc if not (isinstance(part, str) and ("[" in part or part in ("int", "float")))]
        path = ".".join(str(part) for part in place if part != "[key]")
        if error["type"] == "extra_forbidden":
            known = _names_at(owner, place[1:-1]) if owner else _names_at(model, place[:-1])
            found[path] = unknown_key(path, str(place[-1]), known)
        elif error["type"] == "literal_error":
            expected = [word.strip("' ") for word in str(error.get("ctx", {}).get("expected", "")).replace(" or ", ", ").split(",")]
            near = difflib.get_close_matches(str(error["input"]), expected, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            found[path] = f"{path}: expected one of {', '.join(expected)}; got {error['input']!r}{hint}"
        else:
            message = error["msg"].removeprefix("Value error, ")
            if error["type"] == "value_error" and ": " in message:  # about several settings: it names the one to change
                path = f"{path}.{message}" if path else message
                found[path] = path
                continue
            found.setdefault(path, f"{path}: {message[:1].lower()}{message[1:]}; got {_cut(repr(error['input']))}")
    return list(found.values())


def unknown_key(path: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{path}: unknown key" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")


def _names_at(model: type[BaseModel], place: list[int | str]) -> list[str]:
    for part in place:
        hint = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        inner = next((one for one in (hint, *get_args(hint)) if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _file_problems(given: Mapping[str, Any]) -> list[str]:
    """Missing files and environments that do not load, also when other settings are wrong."""
    from tracemill.generators.environments.catalogue import environment

    found: list[str] = []
    constitution = given.get("constitution")
    if isinstance(constitution, str | Path) and not Path(constitution).is_file():
        found.append(f"constitution: no file {str(constitution)!r}")
    names = given.get("environments")
    for name in names if isinstance(names, dict | list) else []:
        if not isinstance(name, str):
            continue
        if _is_file(name) and not Path(name).is_file():
            found.append(f"environments.{name}: no such file")
            continue
        try:
            environment(name)
        except EnvironmentMissing as missing:
            evidence = missing.problems if _is_file(name) or ":" in name else ()
            found.append("\n      ".join([f"environments.{name}: {missing.message}", *evidence]))
        except ConfigError as broken:
            found += [f"environments.{name}: {problem}" for problem in (broken.problems or [broken.message])]
    return found


def _unsuited_kinds(config: Config) -> list[str]:
    """Kinds that are wanted and that no environment of the run has a goal for: they would never be complete."""
    from tracemill.generators.environments.catalogue import environment
    from tracemill.generators.scenario import Mix, suiting

    mix = Mix(holdout=config.holdout)
    suited = {kind for name in config.environments for kind in KINDS if suiting(environment(name), kind, mix)}
    there = ", ".join(kind for kind in KINDS if kind in suited)
    names = ", ".join(config.environments)
    return [
        f"kinds.{kind}: no goal of {names} suits it; there are goals for {there}: name the ones you want (--kind)"
        for kind in config.weights()
        if kind not in suited
    ]


def _source(reference: str) -> Path | None:
    """The file that an environment of the user's own is written in."""
    if _is_file(reference):
        return Path(reference)
    module, colon, _ = reference.partition(":")
    found = inspect.getsourcefile(importlib.import_module(module)) if colon else None
    return Path(found) if found else None


def _is_file(reference: str) -> bool:
    return reference.endswith((".yaml", ".yml"))


def _cut(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
