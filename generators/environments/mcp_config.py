"""The YAML file that makes an environment of MCP servers: its shape, and everything that can be wrong with it.

Two passes, each of which reports all that it finds: the shape of the file (`read`), which starts nothing, and what
only makes sense together with the servers' tools (`problems`). docs/mcp.md describes the file for its authors.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tracemill.errors import ConfigError, ScenarioError
from tracemill.generators.environments.tool import Tool
from tracemill.generators.words import Grammar, common_rules
from tracemill.trace import Effect, Json, Kind

SANDBOX = "/sandbox"
"""What the sandbox folder of every rollout is called wherever an agent sees it."""

_SLOT = re.compile(r"\{([a-z_]\w*)\}")
_SYMBOL = re.compile(r"<([a-z_][\w.]*)>")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerConfig(_Strict):
    command: str = Field(min_length=1)
    args: list[str] = []
    env: dict[str, str] = {}
    tools: list[str] | None = None


class CommandConfig(_Strict):
    """A command of the set-up; in the file a bare list of arguments will do."""

    run: list[str] = Field(min_length=1)
    env: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"run": given} if isinstance(given, list) else given


class SetupConfig(_Strict):
    """One stage of the set-up: the files first, then the commands."""

    files: dict[str, str] = {}
    commands: list[CommandConfig] = []


class CallConfig(_Strict):
    tool: str
    arguments: dict[str, Any] = {}


class StepConfig(CallConfig):
    why: str = Field(min_length=1)
    subgoal: str = ""
    success: str = ""
    confirm: str = ""
    parallel: bool = False
    check: CallConfig | None = None
    fallback: CallConfig | None = None


class ExpectConfig(_Strict):
    """What must be so at the end: of a file, or of what a read shows."""

    file: str | None = None
    exists: bool = False
    absent: bool = False
    equals: str | None = None
    contains: str | None = None
    tool: str | None = None
    arguments: dict[str, Any] = {}
    shows: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> ExpectConfig:
        said = [self.exists, self.absent, self.equals is not None, self.contains is not None]
        of_file = self.file is not None and sum(said) == 1 and self.tool is None and self.shows is None
        of_call = self.tool is not None and self.shows is not None and self.file is None and not any(said)
        if not (of_file or of_call):
            raise ValueError("give 'file' with one of exists, absent, equals, contains, or 'tool' with 'arguments' and 'shows'")
        return self


class FactConfig(_Strict):
    """What the answer must tell; in the file a bare text, number or list of spellings will do."""

    any_of: list[str] = []
    number: float | str | None = None
    observed: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"any_of": [given]}
        if isinstance(given, list):
            return {"any_of": given}
        return {"number": given} if isinstance(given, int | float) and not isinstance(given, bool) else given

    @model_validator(mode="after")
    def _one_of_two(self) -> FactConfig:
        if bool(self.any_of) == (self.number is not None):
            raise ValueError("give 'any_of' or 'number'")
        return self


class ForbidConfig(_Strict):
    tool: str
    arguments: dict[str, Any] = {}
    reason: str


class GoalConfig(_Strict):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kinds: list[Kind] | None = None
    opening: list[str] = Field(min_length=1)
    answer: list[str] = Field(min_length=1)
    values: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    labels: dict[str, str] = {}
    withheld: list[str] = []
    calls: list[StepConfig] = []
    expect: list[ExpectConfig] = []
    touches: list[str] = []
    facts: list[FactConfig] = []
    forbidden: list[ForbidConfig] = []
    refuse: bool = False


class McpConfig(_Strict):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    policy: str = Field(min_length=1)
    servers: dict[str, ServerConfig] = Field(min_length=1)
    env: dict[str, str] = {}
    effects: dict[str, Effect] = {}
    setup: list[SetupConfig] = []
    ignore: list[str] = [".git"]
    volatile: list[str] = []
    time_limit: float = Field(default=30.0, gt=0, le=3600)
    words: dict[str, list[str]] = {}
    goals: list[GoalConfig] = Field(min_length=1)

    @field_validator("setup", mode="before")
    @classmethod
    def _one_stage(cls, given: Any) -> Any:
        return [given] if isinstance(given, dict) else given

    @field_validator("volatile")
    @classmethod
    def _compile(cls, given: list[str]) -> list[str]:
        for pattern in given:
            try:
                re.compile(pattern)
            except re.error as reason:
                raise ValueError(f"{pattern!r} is no regular expression: {reason}") from reason
        return given

    def rules(self) -> dict[str, list[str]]:
        """The grammar of the file: its own symbols, and opening and answer of each goal."""
        found = dict(self.words)
        for goal in self.goals:
            found[f"{goal.name}.opening"] = goal.opening
            found[f"{goal.name}.answer"] = goal.answer
        return found


# --- reading ------------------------------------------------------------------------------------------------


def read(path: Path) -> McpConfig:
    """Raises ConfigError with everything that is wrong with the file's shape."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} cannot be read: no such file", ["a relative path is looked for where the command is run"]) from None
    except (OSError, UnicodeDecodeError) as reason:
        raise ConfigError(f"{path} cannot be read: {reason}") from reason
    except yaml.YAMLError as reason:
        raise ConfigError(f"{path} is not YAML: {reason}") from reason
    try:
        return McpConfig.model_validate(loaded)
    except ValidationError as reason:
        raise refused(path, [_worded(error) for error in reason.errors(include_url=False)]) from None


def refused(path: Path, found: list[str]) -> ConfigError:
    return ConfigError(f"{path}: {len(found)} problem{'s' if len(found) > 1 else ''} with this environment of MCP servers", found)


def _worded(error: Mapping[str, Any]) -> str:
    where = _path(error["loc"])
    if error["type"] == "extra_forbidden":
        model = _model_at(error["loc"][:-1])
        return f"{where}: unknown key{_nearest(str(error['loc'][-1]), model.model_fields if model else ())}"
    message = str(error["msg"]).removeprefix("Value error, ")
    hint = ""
    if error["type"] == "literal_error":
        hint = _nearest(str(error["input"]), re.findall(r"'(\w+)'", str(error["ctx"]["expected"])))
    return f"{where or 'the file'}: {message}{hint}"


def _path(parts: Iterable[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def _model_at(parts: Iterable[str | int]) -> type[BaseModel] | None:
    """The model that the value at this place is read as."""
    at: Any = McpConfig
    for part in parts:
        at = _bare(at)
        if isinstance(at, type) and issubclass(at, BaseModel):
            field = at.model_fields.get(str(part))
            if field is None:
                return None
            at = field.annotation
        else:
            at = get_args(at)[-1] if get_args(at) else None
    at = _bare(at)
    return at if isinstance(at, type) and issubclass(at, BaseModel) else None


def _bare(annotation: Any) -> Any:
    """Without `Annotated` and without `| None`."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    others = [one for one in get_args(annotation) if one is not type(None)]
    return others[0] if type(None) in get_args(annotation) and len(others) == 1 else annotation


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


# --- slots --------------------------------------------------------------------------------------------------


def fill(value: Json, slots: Mapping[str, Json]) -> Json:
    """Put values in for `{slot}` in all texts of a JSON value.

    A text that is nothing but one slot becomes the slot's value, whatever its type. What is put in is not looked at
    again, and nothing but the names in `slots` is replaced.
    """
    if isinstance(value, dict):
        return {key: fill(item, slots) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, slots) for item in value]
    if not isinstance(value, str):
        return value
    whole = _SLOT.fullmatch(value)
    return slots[whole[1]] if whole and whole[1] in slots else fill_text(value, slots)


def fill_text(text: str, slots: Mapping[str, Json]) -> str:
    return _SLOT.sub(lambda match: str(slots[match[1]]) if match[1] in slots else match[0], text)


def slots_in(value: Json) -> Iterator[str]:
    """Names of the slots that the texts of a JSON value mention."""
    if isinstance(value, dict):
        for item in value.values():
            yield from slots_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from slots_in(item)
    elif isinstance(value, str):
        yield from _SLOT.findall(value)


def slots_of_wording(symbol: str, rules: Mapping[str, list[str]]) -> set[str]:
    """Slots that some expansion of a symbol mentions, whatever the user's tone."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [symbol]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for name, texts in rules.items():
            if name.split("@")[0] == one:
                for text in texts:
                    found.update(_SLOT.findall(text))
                    waiting += _SYMBOL.findall(text)
    return found


def choices(goal: GoalConfig) -> list[list[dict[str, Json]]]:
    """For each entry of `values` the alternatives, each as slots with their values."""
    return [
        [{str(key): item for key, item in one.items()} if isinstance(one, dict) else {name: one} for one in alternatives]
        for name, alternatives in goal.values.items()
    ]


# --- what is wrong with it, given the tools -----------------------------------------------------------------


def problems(config: McpConfig, tools: Mapping[str, Tool], own: Iterable[str], offered: Mapping[str, Iterable[str]]) -> list[str]:
    """Everything the file gets wrong about names, slots, arguments and kinds.

    `tools` are all tools by name, `own` those of tracemill among them, `offered` the names that each server lists.
    """
    found: list[str] = []
    for server, names in offered.items():
        for wanted in config.servers[server].tools or ():
            if wanted not in names:
                found.append(f"servers.{server}.tools: no tool {wanted!r}{_nearest(wanted, names)}")
    owners: dict[str, list[str]] = {name: ["tracemill"] for name in own}
    for server, names in offered.items():
        limited = config.servers[server].tools
        for name in names:
            if limited is None or name in limited:
                owners.setdefault(name, []).append(server)
    found += [
        f"servers: tool {name!r} comes from {' and '.join(both)}; list the ones to use under `tools`"
        for name, both in owners.items()
        if len(both) > 1
    ]
    found += [f"effects.{name}: no such tool{_nearest(name, tools)}" for name in config.effects if name not in tools]
    for at, stage in enumerate(config.setup):
        found += [f"setup[{at}].files: {name!r} is not a path inside the sandbox" for name in stage.files if not inside(name)]
    rules = {**common_rules(), **config.rules()}
    try:
        Grammar(rules)
    except ScenarioError as reason:
        found += [f"words: {one}" for one in reason.problems]
    names = [goal.name for goal in config.goals]
    for at, goal in enumerate(config.goals):
        where = f"goals[{at}]"
        if names.index(goal.name) != at:
            found.append(f"{where}.name: {goal.name!r} is used twice")
        if goal.name in tools:
            found.append(f"{where}.name: {goal.name!r} is the name of a tool")
        found += [f"{where}.{one}" for one in _goal_problems(goal, tools, rules)]
    return found


def inside(path: str) -> bool:
    """Whether a path is relative and stays below where it starts."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not PurePosixPath(path).is_absolute() and ".." not in parts


def groups(goal: GoalConfig) -> list[int]:
    """The group of each call: those marked `parallel` belong to the one before."""
    numbers: list[int] = []
    for call in goal.calls:
        numbers.append(numbers[-1] + (not call.parallel) if numbers else 0)
    return numbers


def _goal_problems(goal: GoalConfig, tools: Mapping[str, Tool], rules: Mapping[str, list[str]]) -> Iterator[str]:
    slots: dict[str, Json] = {"sandbox": SANDBOX}
    for name, alternatives in zip(goal.values, choices(goal), strict=True):
        if len({tuple(sorted(one)) for one in alternatives}) > 1:
            yield f"values.{name}: the records differ in their fields"
        for slot in alternatives[0]:
            if not _SLOT.fullmatch(f"{{{slot}}}"):
                yield f"values.{name}: {slot!r} cannot be a slot; use small letters, digits and _"
            if slot in slots:
                yield f"values.{name}: there is a slot {slot!r} already"
        slots |= alternatives[0]
    for field, given in (("labels", goal.labels), ("withheld", goal.withheld)):
        for slot in given:
            if slot not in slots or slot == "sandbox":
                yield f"{field}: no slot {slot!r}{_nearest(slot, slots)}"
    for field in ("opening", "answer"):
        for slot in sorted(slots_of_wording(f"{goal.name}.{field}", rules) - set(slots)):
            yield f"{field}: no value for {{{slot}}}{_nearest(slot, slots)}"
    said = slots_of_wording(f"{goal.name}.opening", rules)
    for slot in goal.withheld:
        if slot in said:
            yield f"withheld: {slot!r} is told in the opening"
        if slot in slots and not any(slot in slots_in(call.arguments) for call in goal.calls):
            yield f"withheld: {slot!r} is used by no call"
    for at, call in enumerate(goal.calls):
        yield from _call_problems(f"calls[{at}]", call, tools, slots)
        for name, other in (("check", call.check), ("fallback", call.fallback)):
            if other is not None:
                yield from _call_problems(f"calls[{at}].{name}", other, tools, slots, reads=True)
        if call.tool in tools and tools[call.tool].effect == "irreversible" and not call.confirm:
            yield f"calls[{at}].confirm: {call.tool} is irreversible, so say what the user must agree to"
        if goal.refuse and call.tool in tools and tools[call.tool].effect != "read":
            yield f"calls[{at}].tool: the goal is refused, yet {call.tool} changes something"
        for text in ("why", "subgoal", "success", "confirm"):
            yield from _slot_problems(f"calls[{at}].{text}", getattr(call, text), slots)
    if goal.calls and goal.calls[0].parallel:
        yield "calls[0].parallel: there is no call before it"
    for at, one in enumerate(goal.expect):
        if one.tool is not None:
            shown = CallConfig(tool=one.tool, arguments=one.arguments)
            yield from _call_problems(f"expect[{at}]", shown, tools, slots, reads=True)
        yield from _slot_problems(f"expect[{at}]", [one.file, one.equals, one.contains, one.shows], slots)
        if one.file is not None and not inside(one.file):
            yield f"expect[{at}].file: {one.file!r} is not a path inside the sandbox"
    for at, fact in enumerate(goal.facts):
        yield from _slot_problems(f"facts[{at}]", [*fact.any_of, fact.number], slots)
        if isinstance(fact.number, str) and not _is_number(fill(fact.number, slots)):
            yield f"facts[{at}].number: {fact.number!r} is no number"
    for at, bad in enumerate(goal.forbidden):
        if bad.tool not in tools:
            yield f"forbidden[{at}].tool: no tool {bad.tool!r}{_nearest(bad.tool, tools)}"
        yield from _slot_problems(f"forbidden[{at}]", [bad.arguments, bad.reason], slots)
    yield from _slot_problems("touches", goal.touches, slots)
    writes = any(call.tool in tools and tools[call.tool].effect != "read" for call in goal.calls)
    for kind in goal.kinds or ():
        if kind == "goal_decomposition" and len(set(groups(goal))) < 3:
            yield "kinds: goal_decomposition wants three groups of calls or more"
        if kind == "error_recovery" and not writes:
            yield "kinds: error_recovery wants a call that changes something"


def _call_problems(
    where: str, call: CallConfig, tools: Mapping[str, Tool], slots: Mapping[str, Json], *, reads: bool = False
) -> Iterator[str]:
    found = tools.get(call.tool)
    if found is None:
        yield f"{where}.tool: no tool {call.tool!r}{_nearest(call.tool, tools)}"
        return
    if reads and found.effect != "read":
        yield f"{where}.tool: {call.tool} is no read, it changes something"
    wrong = list(_slot_problems(f"{where}.arguments", call.arguments, slots))
    yield from wrong
    if not wrong:
        for problem in found.problems(fill(call.arguments, slots)):
            yield f"{where}.arguments: {problem}"


def _slot_problems(where: str, value: Json, slots: Mapping[str, Json]) -> Iterator[str]:
    for slot in sorted(set(slots_in(value)) - set(slots)):
        yield f"{where}: no value for {{{slot}}}{_nearest(slot, slots)}"


def _is_number(value: Json) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
