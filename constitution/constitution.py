"""The constitution: principles in a file, judged by rules where a rule can decide and by a critic elsewhere."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError

from tracemill.constitution.rules import RULES, Finding, Story
from tracemill.errors import ConfigError
from tracemill.trace import KINDS, Json, Kind, Record, Trace, Verdict, fingerprint

BUNDLED = Path(__file__).parent / "principles.yaml"
MOST_FINDINGS = 3
"""So many failed verdicts a principle gives for one trace; more would only repeat them."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Principle(Record):
    id: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
    text: Text
    why: Text
    severity: Literal["low", "medium", "high"]
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = KINDS
    rule: str | None = Field(default=None, description="A key of RULES; absent where no rule can decide.")
    critique: Text = Field(description="What a critic is asked.")
    revision: Text = Field(description="What the agent is told when the critique found something.")


class Constitution(Record):
    principles: Annotated[tuple[Principle, ...], Field(min_length=1)]

    def digest(self) -> str:
        """Fingerprint of all that the principles say; two runs with the same one judged by the same standard."""
        return fingerprint(self.plain())

    def principle(self, id: str) -> Principle:
        """Raises KeyError where there is none of that id."""
        for one in self.principles:
            if one.id == id:
                return one
        raise KeyError(id)

    def judge(self, trace: Trace) -> tuple[Verdict, ...]:
        """The rules' verdicts: for each principle with a rule one that is passed, or one for each finding."""
        story = Story(trace)
        verdicts: list[Verdict] = []
        for principle in self.principles:
            if principle.rule is None or trace.kind not in principle.kinds:
                continue
            findings = _first(RULES[principle.rule](story))
            if findings:
                verdicts += [
                    Verdict(principle=principle.id, passed=False, by="rule", severity=principle.severity, at=at, why=why)
                    for at, why in findings
                ]
            else:
                verdicts.append(_passed(principle.id, principle.severity))
        return tuple(verdicts)


def _first(findings: Iterable[Finding]) -> list[Finding]:
    found: list[Finding] = []
    for one in findings:
        found.append(one)
        if len(found) == MOST_FINDINGS:
            break
    return found


@functools.lru_cache(maxsize=1024)
def _passed(principle: str, severity: Literal["low", "medium", "high"]) -> Verdict:
    return Verdict(principle=principle, passed=True, by="rule", severity=severity)


def load_constitution(path: str | Path | None = None) -> Constitution:
    """The bundled constitution, or a user's own file. Raises ConfigError with everything that is wrong with it."""
    source = BUNDLED if path is None else Path(path)
    try:
        loaded = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as reason:
        raise ConfigError(f"the constitution {source} cannot be read", [str(reason)]) from reason
    except yaml.YAMLError as reason:
        raise ConfigError(f"the constitution {source} is not valid YAML", [" ".join(str(reason).split())]) from reason
    if not isinstance(loaded, dict):
        raise ConfigError(f"the constitution {source} should be a map with the key 'principles'", [f"got {type(loaded).__name__}"])
    problems: list[str] = []
    constitution: Constitution | None = None
    try:
        constitution = Constitution.model_validate(loaded)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
        # a list whose entries are all wrong is called too short as well; that says nothing new
        within = {error["loc"][:depth] for error in errors for depth in range(len(error["loc"]))}
        problems += [_problem(error) for error in errors if not (error["type"] == "too_short" and error["loc"] in within)]
    problems += _beyond_types(loaded.get("principles"))
    if problems or constitution is None:
        raise ConfigError(f"the constitution {source} has {len(problems)} problem{'s' if len(problems) > 1 else ''}", problems)
    return constitution


def _problem(error: Any) -> str:
    """One finding of pydantic, with its path and, for a field that does not exist, the nearest that does."""
    where = error["loc"]
    path = _path(where)
    match error["type"]:
        case "extra_forbidden":
            fields = Constitution.model_fields if len(where) == 1 else Principle.model_fields
            return f"{path}: there is no such field{_nearest(str(where[-1]), fields)}"
        case "missing":
            return f"{path}: is required"
        case "literal_error":
            return f"{path}: expected {error['ctx']['expected']}, got {_shown(error['input'])}"
        case "string_pattern_mismatch":
            return f"{path}: expected snake_case, such as 'ask_first', got {_shown(error['input'])}"
        case "model_type" | "model_attributes_type":
            return f"{path}: expected a map with the fields of a principle, got {_shown(error['input'])}"
        case "tuple_type":
            return f"{path}: expected a list, got {_shown(error['input'])}"
        case "string_too_short" | "too_short":
            return f"{path}: must not be empty"
        case _:
            return f"{path}: {error['msg']}, got {_shown(error['input'])}"


def _beyond_types(principles: Json) -> Iterable[str]:
    """What the types cannot say: rules that do not exist, and ids that come twice."""
    first: dict[str, int] = {}
    for number, one in enumerate(principles if isinstance(principles, list) else ()):
        if not isinstance(one, dict):
            continue
        rule, id = one.get("rule"), one.get("id")
        if isinstance(rule, str) and rule not in RULES:
            yield f"principles[{number}].rule: there is no rule {rule!r}{_nearest(rule, RULES)}"
        if isinstance(id, str) and first.setdefault(id, number) != number:
            yield f"principles[{number}].id: {id!r} is the id of principles[{first[id]}] too"


def _path(where: Iterable[int | str]) -> str:
    path = ""
    for part in where:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _nearest(name: str, names: Iterable[str]) -> str:
    listed = list(names)
    near = difflib.get_close_matches(name, listed, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(listed)}"


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
