"""The environment: typed state, tools that really run on it, and goals that say when it is well.

A subclass declares tables, fills them in `build`, marks methods as tools with `@tool` and as goal templates with
`@goal` (see `goal.py`). Class attributes and class methods describe the environment; an instance is one live
rollout, whose state no other rollout sees.

Order of a call: the tool exists -> the arguments match its schema -> the fault plan -> the function -> the
invariants. A function that raises leaves the state as it was.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NotRequired,  # pydantic wants it from here before Python 3.12
    ParamSpec,
    Self,
    TypeVar,
    cast,
)

from pydantic import Field
from typing_extensions import TypedDict

from tracemill.errors import ScenarioError
from tracemill.generators import plan
from tracemill.generators.environments.tool import Tool, method_tool, tool
from tracemill.generators.faults import REFUSING, FaultPlan, bend, failure
from tracemill.generators.words import Grammar, common_rules, read_rules
from tracemill.trace import Effect, Json, Kind, OfferedTool, Scenario, ToolDefinition, fingerprint

Code = Literal[
    "unknown_tool", "invalid_arguments", "not_found", "not_allowed", "conflict", "invariant",
    "timeout", "rate_limited", "server_error", "permission_denied", "failed",
]  # fmt: skip


class ToolError(Exception):
    """A tool says no. The agent sees code and message as the call's result; nothing is changed."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Row:
    """One row of a table. Subclasses are frozen dataclasses whose first field is the row's id.

    Fields named in `volatile` (free text, for one) are left out when states are compared.
    """

    volatile: ClassVar[tuple[str, ...]] = ()

    @property
    def key(self) -> str:
        key: str = getattr(self, _fields(type(self))[0])
        return key


R = TypeVar("R", bound=Row)
P = ParamSpec("P")
V = TypeVar("V")


def remembered(function: Callable[P, V]) -> Callable[P, V]:
    """functools.lru_cache for functions of a class, typed as what it wraps (mypy takes type[C] for unhashable).

    It holds a few hundred values: enough for the worlds of a run, and no more of them than memory can bear.
    """
    return cast("Callable[P, V]", functools.lru_cache(maxsize=512)(function))


class Base(Generic[R]):
    """The rows of a table as a world begins: never changed, shared by all rollouts, indexed when asked."""

    __slots__ = ("_indices", "_largest", "_places", "rows")

    def __init__(self, rows: dict[str, R]) -> None:
        self.rows = rows
        self._largest: dict[str, int] = {}
        self._places: dict[str, int] = {}
        self._indices: dict[str, dict[object, list[R]]] = {}

    def having(self, field: str, value: object) -> Iterable[R]:
        """Rows whose field has this value, in the table's order."""
        if field not in self._indices:
            index: dict[object, list[R]] = {}
            for row in self.rows.values():
                index.setdefault(getattr(row, field), []).append(row)
            self._indices[field] = index
        return self._indices[field].get(value, ())

    def place(self, key: str) -> int:
        """Where a row stands in the table; new ones come last."""
        if not self._places:
            self._places = {key: place for place, key in enumerate(self.rows)}
        return self._places.get(key, len(self.rows))

    def largest(self, prefix: str) -> int:
        """The largest number that follows this prefix in an id, or -1."""
        if prefix not in self._largest:
            self._largest[prefix] = largest(prefix, self.rows)
        return self._largest[prefix]


def largest(prefix: str, keys: Iterable[str]) -> int:
    tails = (key[len(prefix) :] for key in keys if key.startswith(prefix))
    return max((int(tail) for tail in tails if tail.isdigit()), default=-1)


class Table(Generic[R]):
    """Rows by id: a base that all rollouts of a world share, and this rollout's own changes on top.

    That makes a fresh state cost nothing, whatever its size, and the difference between two states plain to see.
    """

    __slots__ = ("_base", "_rows", "changes", "name")

    def __init__(self, name: str, base: Base[R] | None = None) -> None:
        self.name = name
        self._base: Base[R] = base or Base({})
        self._rows: Mapping[str, R] = self._base.rows
        self.changes: dict[str, R | None] = {}

    def get(self, key: str) -> R | None:
        return self.changes[key] if key in self.changes else self._rows.get(key)

    def __getitem__(self, key: str) -> R:
        """Raises ToolError `not_found`, so that a tool can simply look up what it was given."""
        row = self.get(key)
        if row is None:
            raise ToolError("not_found", f"no {self.name.rstrip('s').replace('_', ' ')} with id {key!r}")
        return row

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def __iter__(self) -> Iterator[R]:
        return self._with_changes() if self.changes else iter(self._rows.values())

    def _with_changes(self) -> Iterator[R]:
        """The rows of the base as they are now, then the new ones."""
        changes = self.changes
        for key, row in self._rows.items():
            now = changes.get(key, row)
            if now is not None:
                yield now
        for key, new in changes.items():
            if key not in self._rows and new is not None:
                yield new

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def where(self, **fields: object) -> list[R]:
        """Rows whose fields equal these values, in the table's order."""
        wanted = list(fields.items())
        changes = self.changes
        found = [
            row
            for row in self._base.having(*wanted[0])
            if not (changes and row.key in changes) and all(getattr(row, name) == value for name, value in wanted[1:])
        ]
        if changes:
            found += [row for row in changes.values() if row is not None and all(getattr(row, n) == v for n, v in wanted)]
            found.sort(key=lambda row: self._base.place(row.key))
        return found

    def put(self, row: R) -> R:
        """Insert or replace."""
        self.changes[row.key] = row
        return row

    def update(self, row: R, **fields: Any) -> R:
        """Replace some fields of a row."""
        return self.put(dataclasses.replace(row, **fields))

    def remove(self, key: str) -> None:
        self.changes[key] = None

    def next_id(self, prefix: str, start: int = 1) -> str:
        """A new id: the prefix and the first free number from `start`, or from the largest in use."""
        return f"{prefix}{max(start - 1, self._base.largest(prefix), largest(prefix, self.changes)) + 1}"

    def difference(self) -> dict[str, R | None]:
        """Rows that are not what they were, volatile fields apart; None where one was removed."""
        found: dict[str, R | None] = {}
        for key, row in self.changes.items():
            before = self._rows.get(key)
            if row is before or (row is not None and before is not None and solid(row) == solid(before)):
                continue
            found[key] = row
        return found

    def freeze(self) -> Base[R]:
        return Base({row.key: row for row in self})


@dataclass(frozen=True)
class Handover(Row):
    """A case given to a human colleague."""

    id: str
    department: str
    summary: str
    volatile = ("summary",)


class PlannedSubgoal(TypedDict):
    id: Annotated[str, Field(description="Short id, such as 'g1'.")]
    goal: Annotated[str, Field(description="What is to be reached.")]
    depends_on: Annotated[list[str], Field(description="Ids of sub-goals that must be reached first.")]
    tools: Annotated[list[str], Field(description="Names of the tools it will take, one for each call.")]
    success_criterion: Annotated[str, Field(description="How one sees that it is reached.")]
    constraints: NotRequired[Annotated[list[str], Field(description="Constraints it has to respect.")]]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a call. `touched` names the rows it changed ('table/id'), also when the answer is an error."""

    content: Json
    text: str
    ok: bool
    effect: Effect
    code: str | None = None
    touched: tuple[str, ...] = ()


class Environment:
    """Base class; see the module's head. `name`, `policy` and `words` are for the subclass to set."""

    name: ClassVar[str]
    policy: ClassVar[str | Path]
    words: ClassVar[Path | dict[str, list[str]]] = {}
    departments: ClassVar[tuple[str, ...]] = ("support",)
    instant: ClassVar[bool] = True
    """Tools run at once, in this process, so that a reference can be tried out while a scenario is drawn."""

    handovers: Table[Handover]

    def __init__(self, world: int, faults: FaultPlan | None = None) -> None:
        self.world = world
        self.faults = faults or FaultPlan()
        self.clock = 0  # seconds since the conversation began
        self._all: list[Table[Any]] = []
        for name, base in _world(type(self), world).items():
            table: Table[Any] = Table(name, base)
            setattr(self, name, table)
            self._all.append(table)

    # --- for the subclass ---

    def build(self, rng: random.Random) -> None:
        """Fill the tables. Everything random comes from `rng`."""

    def invariants(self, changed: list[Row]) -> Iterator[str]:
        """Say what is wrong with the state, given the rows that a call has changed. Nothing said: all is well."""
        yield from ()

    # --- what it is ---

    @classmethod
    def toolbox(cls) -> Mapping[str, Tool]:
        """All tools by name."""
        return _toolbox(cls)

    @classmethod
    def tools(cls, kind: Kind) -> tuple[ToolDefinition, ...]:
        """The tools that are at hand in a trace of this kind."""
        return _offered(cls, kind)

    @classmethod
    def offered(cls, kind: Kind) -> tuple[OfferedTool, ...]:
        """The same tools as a model is told of them."""
        return _told(cls, kind)

    @classmethod
    def policy_text(cls) -> str:
        return _policy(cls)

    @classmethod
    def grammar(cls) -> Grammar:
        return _grammar(cls)

    # --- one rollout ---

    @classmethod
    async def reset(cls, scenario: Scenario, *, faults: bool = True) -> Self:
        """A live instance in the scenario's initial state, with or without its faults."""
        return cls(scenario.world, FaultPlan(scenario.faults if faults else ()))

    async def close(self) -> None:
        """Free what the instance holds."""

    async def call(self, name: str, arguments: Json) -> Result:
        """Run one tool call. Never raises for what an agent may do: whatever is wrong comes as the result."""
        return self.run(name, arguments)

    def run(self, name: str, arguments: Json) -> Result:
        """`call`, for environments whose tools do not wait for anything."""
        prepared = self.admit(name, arguments)
        if isinstance(prepared, Result):
            return prepared
        marked, arguments, fault = prepared
        before = [(table, dict(table.changes)) for table in self._all] if marked.effect != "read" else []
        try:
            if fault is not None and fault.kind == "wrong_record":
                content = plain(self.perform(name, fault.detail["arguments"]))
            else:
                content = plain(self.perform(name, arguments))
            touched = self._settle(before) if marked.effect != "read" else ()
        except ToolError as error:
            for table, changes in before:
                table.changes = changes
            return refusal(marked.effect, error.code, error.message)
        return self.report(marked, content, touched, fault)

    def perform(self, name: str, arguments: dict[str, Json]) -> Any:
        """The tool itself. Raises ToolError."""
        return getattr(self, name)(**arguments)

    def admit(self, name: str, arguments: Json) -> Result | tuple[Tool, dict[str, Json], Any]:
        """All that comes before the tool itself: its result if the call ends there, else what to go on with."""
        marked = self.toolbox().get(name)
        if marked is None:
            near = difflib.get_close_matches(name, self.toolbox(), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return refusal("read", "unknown_tool", f"there is no tool named {name!r}{hint}")
        drift = self.faults.renamed(name)
        if drift is not None and isinstance(arguments, dict):
            old, new = str(drift.detail["old"]), str(drift.detail["new"])
            if old in arguments:
                self.faults.hits += 1
                return refusal(marked.effect, "invalid_arguments", str(drift.detail["message"]))
            if new in arguments:
                arguments = {old if key == new else key: value for key, value in arguments.items()}
        problems = marked.problems(arguments)
        if problems:
            listed = "; ".join(str(problem) for problem in problems)
            return refusal(marked.effect, "invalid_arguments", f"{name} was not called: {listed}")
        fault = self.faults.strike(name, self.clock)
        if fault is not None and fault.kind in REFUSING:
            return failed(marked.effect, failure(fault))
        return marked, arguments, fault

    def report(self, marked: Tool, content: Json, touched: tuple[str, ...], fault: Any) -> Result:
        """The result of a call that was carried out, as the fault plan lets the agent see it."""
        if fault is not None:
            if fault.kind == "timeout_written":
                return failed(marked.effect, failure(fault), touched)
            content = bend(fault, content)
        if marked.effect == "read" and (fault is None or fault.kind == "injection"):
            self.faults.saw_read()
        return Result(content, as_text(content), True, marked.effect, None, touched)

    def changes(self) -> dict[str, Json]:
        """Rows that differ from the initial state, by 'table/id'; None where one was removed."""
        return {
            f"{table.name}/{key}": None if row is None else solid(row) for table in self._all for key, row in table.difference().items()
        }

    async def digest(self) -> str:
        """Fingerprint of the state. The initial state is a function of (environment, world), so these stand for it."""
        return fingerprint([self.name, self.world, self.changes()])

    async def row(self, table: str, key: str) -> dict[str, Json] | None:
        """A row as JSON, for assertions; None where there is none."""
        found = getattr(self, table).get(key)
        return None if found is None else plain(found)

    def is_identifier(self, text: str) -> bool:
        """Whether a string names a row, so that using it without having seen it would be inventing it."""
        return text in _ids(type(self), self.world) or any(text in table.changes for table in self._all if table.changes)

    def _settle(self, before: list[tuple[Table[Any], dict[str, Any]]]) -> tuple[str, ...]:
        touched: list[str] = []
        rows: list[Row] = []
        for table, changes in before:
            for key, row in table.changes.items():
                if key not in changes or changes[key] is not row:
                    touched.append(f"{table.name}/{key}")
                    if row is not None:
                        rows.append(row)
        for broken in self.invariants(rows):
            raise ToolError("invariant", broken)
        return tuple(touched)

    def tables(self) -> list[Table[Any]]:
        """All tables, in the order in which they are declared."""
        return self._all

    # --- tools that every environment has ---

    @tool("read", kinds=("error_recovery",))
    def wait(self, seconds: Annotated[int, Field(ge=1, le=3600, description="How long to wait.")]) -> Json:
        """Wait before the next call, for instance when a tool asked for a pause."""
        self.clock += seconds
        return {"waited_seconds": seconds}

    @tool("read", kinds=("goal_decomposition",))
    def update_plan(
        self,
        goal: Annotated[str, Field(description="What the user wants, in one sentence.")],
        constraints: Annotated[list[str], Field(description="Every constraint the user or the policy sets.")],
        subgoals: Annotated[list[PlannedSubgoal], Field(min_length=1, description="In the order of execution.")],
        revision: Annotated[int, Field(ge=0, description="0 for the first plan, then 1, 2, ...")] = 0,
        reason: Annotated[str, Field(description="Why the plan had to be revised.")] = "",
    ) -> Json:
        """Write down the plan before acting, and again whenever new information or an obstacle changes it."""
        written = {"goal": goal, "constraints": constraints, "subgoals": subgoals, "revision": revision}
        problems = plan.problems(written)
        if problems:
            raise ToolError("invalid_arguments", "the plan does not hold together: " + "; ".join(problems))
        return {"accepted": True, "order": plan.order(subgoals)}

    @tool("write")
    def transfer_to_human(
        self,
        department: Annotated[str, Field(description="Who should take over.")],
        summary: Annotated[str, Field(min_length=10, description="What was asked, done, and is left to do.")],
    ) -> Json:
        """Hand the case to a human colleague when it cannot be finished with the tools at hand."""
        if department not in self.departments:
            raise ToolError("not_found", f"no department {department!r}; there are {', '.join(self.departments)}")
        case = Handover(self.handovers.next_id("CASE-", 101), department, summary)
        return {"case": self.handovers.put(case).id, "department": department}


def refusal(effect: Effect, code: Code, message: str) -> Result:
    return failed(effect, {"code": code, "message": message, "retryable": False})


def failed(effect: Effect, error: dict[str, Json], touched: tuple[str, ...] = ()) -> Result:
    content = {"error": error}
    return Result(content, as_text(content), False, effect, str(error["code"]), touched)


_PLAIN = json.JSONEncoder(ensure_ascii=False)


def as_text(content: Json) -> str:
    """A result as the tool message carries it."""
    return content if isinstance(content, str) else _PLAIN.encode(content)


_SCALARS = frozenset({str, int, float, bool, type(None)})


def plain(value: Any) -> Json:
    """Rows and tuples as JSON values."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Row):
        return {name: one if type(one := getattr(value, name)) in _SCALARS else plain(one) for name in _fields(type(value))}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    raise TypeError(f"a tool returned {type(value).__name__}; expected rows, dicts, lists, strings, numbers or None")


def solid(row: Row) -> dict[str, Json]:
    """A row without its volatile fields."""
    return {name: plain(getattr(row, name)) for name in _fields(type(row)) if name not in row.volatile}


@remembered
def _fields(cls: type[Row]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


@remembered
def _table_names(cls: type[Environment]) -> tuple[str, ...]:
    names: list[str] = []
    for base in reversed(cls.__mro__):
        for name, hint in vars(base).get("__annotations__", {}).items():
            text = hint if isinstance(hint, str) else getattr(getattr(hint, "__origin__", None), "__name__", "")
            if text.startswith("Table") and name not in names:
                names.append(name)
    return tuple(names)


@remembered
def _world(cls: type[Environment], world: int) -> dict[str, Base[Row]]:
    blank = object.__new__(cls)
    blank.world, blank.faults, blank.clock = world, FaultPlan(), 0
    blank._all = [Table[Any](name) for name in _table_names(cls)]
    for table in blank._all:
        setattr(blank, table.name, table)
    blank.build(random.Random(f"{cls.name}/{world}"))
    return {name: getattr(blank, name).freeze() for name in _table_names(cls)}


@remembered
def _ids(cls: type[Environment], world: int) -> frozenset[str]:
    return frozenset(key for base in _world(cls, world).values() for key in base.rows)


@remembered
def _toolbox(cls: type[Environment]) -> dict[str, Tool]:
    found: dict[str, Tool] = {}
    for base in cls.__mro__:  # a subclass's own tools first, the common ones last
        for name, function in vars(base).items():
            if isinstance(function, Callable) and hasattr(function, "__tracemill_tool__") and name not in found:  # type: ignore[arg-type]
                found[name] = method_tool(function)
    return found


@remembered
def _offered(cls: type[Environment], kind: Kind) -> tuple[ToolDefinition, ...]:
    return tuple(marked.definition for marked in cls.toolbox().values() if kind in marked.kinds)


@remembered
def _told(cls: type[Environment], kind: Kind) -> tuple[OfferedTool, ...]:
    return tuple(one.offered() for one in cls.tools(kind))


@remembered
def _policy(cls: type[Environment]) -> str:
    text = cls.policy.read_text(encoding="utf-8") if isinstance(cls.policy, Path) else cls.policy
    if not text.strip():
        raise ScenarioError(f"environment {cls.name!r} has an empty policy")
    return text.strip()


@remembered
def _grammar(cls: type[Environment]) -> Grammar:
    own = read_rules(cls.words) if isinstance(cls.words, Path) else cls.words
    return Grammar({**common_rules(), **own})
