"""The config of a run: a YAML file, with command-line flags on top.

Problems are reported all at once, each with its path and, for an unknown name, the nearest valid one.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tracemill import __version__
from tracemill.errors import ConfigError, EnvironmentMissing
from tracemill.trace import KINDS, Json, Kind, fingerprint

DEFAULT_ENVIRONMENTS = ("store", "calendar", "travel", "bank", "helpdesk", "workspace")


class BudgetConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    turns: int = Field(default=40, ge=1, description="Agent turns after which a conversation is cut off.")
    calls: int = Field(default=40, ge=0, description="Tool calls after which a conversation is cut off.")


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
    teacher: str = Field(default="scripted", description="Who plays the agent and the user.")
    flaws: float = Field(default=0.1, ge=0, le=1, description="Share of first drafts that the scripted teacher spoils.")
    worlds: int = Field(default=32, ge=1, le=100_000, description="Initial states for each environment.")
    constitution: Path | None = Field(default=None, description="Your own constitution; the bundled one if not given.")
    budget: BudgetConfig = Field(default=BudgetConfig(), description="`turns` and `calls` after which a conversation is cut off.")
    license: str = Field(default="apache-2.0", description="Licence of the dataset, as the Hub writes it.")
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

    @field_validator("teacher")
    @classmethod
    def _known_teacher(cls, value: str) -> str:
        if value != "scripted":
            raise ValueError(f"no teacher {value!r}; there is 'scripted'")
        return value

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
        plain = self.model_dump(mode="json", include={"seed", "environments", "teacher", "flaws", "worlds", "budget"})
        sources = {ref: source for ref in self.environments if (source := _source(ref)) is not None}
        files = {ref: fingerprint(source.read_text(encoding="utf-8")) for ref, source in sources.items()}
        return {**plain, "kinds": self.weights(), "files": files, "constitution": constitution_digest, "version": __version__}


def load_config(path: Path | None, flags: Mapping[str, Any]) -> Config:
    """Read a YAML file, put the flags that were given (not None) on top, and check it all. Raises ConfigError."""
    given: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as reason:
            raise ConfigError(f"cannot read the config {path}: {reason}") from reason
        except yaml.YAMLError as reason:
            raise ConfigError(f"{path} is not valid YAML", [" ".join(str(reason).split())]) from reason
        if not isinstance(loaded, dict | None):
            raise ConfigError(f"{path}: expected a map of settings, got {type(loaded).__name__}")
        given = {str(key): value for key, value in (loaded or {}).items()}
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
        place = [part for part in error["loc"] if not (isinstance(part, str) and ("[" in part or part in ("int", "float")))]
        path = ".".join(str(part) for part in place if part != "[key]")
        if error["type"] == "extra_forbidden":
            known = _names_at(model, place[:-1])
            near = difflib.get_close_matches(str(place[-1]), known, n=1)
            found[path] = f"{path}: unknown key" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
        elif error["type"] == "literal_error":
            expected = [word.strip("' ") for word in str(error.get("ctx", {}).get("expected", "")).replace(" or ", ", ").split(",")]
            near = difflib.get_close_matches(str(error["input"]), expected, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            found[path] = f"{path}: expected one of {', '.join(expected)}; got {error['input']!r}{hint}"
        else:
            message = error["msg"].removeprefix("Value error, ")
            found.setdefault(path, f"{path}: {message[:1].lower()}{message[1:]}; got {_cut(repr(error['input']))}")
    return list(found.values())


def _names_at(model: type[BaseModel], place: list[int | str]) -> list[str]:
    for part in place:
        hint = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(hint, type) and issubclass(hint, BaseModel)):
            return []
        model = hint
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
    from tracemill.generators.environments.goal import templates

    suited = {kind for name in config.environments for kinds in templates(environment(name)).values() for kind in kinds}
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
