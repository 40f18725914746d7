"""Tool definitions as they are found in the wild: MCP listings, OpenAI functions, JSON lines of servers.

    load_tools("tools.json")          a file
    read_tools(reply["tools"])        what is already JSON

What may stand in a file, or on each line of one:

    {"tools": [{"name", "description", "inputSchema", "annotations"}]}            an MCP listing, or its bare list
    [{"type": "function", "function": {"name", "description", "parameters"}}]     OpenAI, or the bare functions
    {"server": "...", "tools": [{"name", "description", "input_schema"}]}         one of many servers

Each definition either becomes a Tool, whose argument check copes with any JSON, or is refused with what is wrong
and where. Nothing here raises. What is untidy but can mean only one thing is mended, and a note says how; what
would have to be guessed, such as the type "float", is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from tracemill.errors import SchemaError
from tracemill.generators.environments.tool import Tool
from tracemill.schemas.check import DEFAULT_DIALECT, KEYWORDS, LISTS, MAPS, MAX_DEPTH, SINGLE, TYPES, dialect_uri, json_path, nested_deeper
from tracemill.trace import Effect, Json, ToolDefinition, canonical

Way = tuple[str | int, ...]
Note = Callable[[Way, str], None]

# What MCP servers may use. OpenAI-style APIs stop at 64 characters and know no '.', '/' or ':', but the models
# behind them do not mind; a space, a quote or a bracket, though, breaks the parsers of tool calls.
NAME = re.compile(r"[A-Za-z0-9_./:-]{1,128}")
MAX_SIZE = 262_144  # characters of one definition: more fits into no prompt beside a conversation
SCHEMA_KEYS = ("inputSchema", "input_schema", "parameters")


@dataclass(frozen=True)
class Loaded:
    """What became of one definition: a tool, or the problems for which it was refused."""

    at: str  # where the definition stands: "$.tools[3]", or "line 7: $.tools[3]"
    server: str  # "" where the file names none
    name: str  # "" where the definition has none
    tool: Tool | None
    problems: tuple[str, ...] = ()  # each with its path inside the definition
    notes: tuple[str, ...] = ()  # what was mended or is odd, likewise

    def __str__(self) -> str:
        who = "/".join(part for part in (self.server, self.name) if part) or "a definition"
        return f"{who} ({self.at}): " + ("; ".join(self.problems) or "loaded")


def load_tools(path: str | Path) -> list[Loaded]:
    """All definitions of a file, in its order. A file that cannot be read is one refusal."""
    try:
        data = Path(path).read_bytes()
        text = data.decode(json.detect_encoding(data)).removeprefix("\ufeff")
    except OSError as reason:
        return [_refused("$", f"the file cannot be read: {reason.strerror or reason}")]
    except UnicodeDecodeError as reason:
        return [_refused("$", f"the file is not {reason.encoding} text: {reason.reason} at byte {reason.start}")]
    except ValueError as reason:  # a path that can be no path
        return [_refused("$", f"the file cannot be read: {reason}")]
    if not text.strip():
        return [_refused("$", "the file is empty")]
    whole, problem = _parse(text)
    if problem is None:
        return read_tools(whole)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    is_lines = Path(path).suffix in (".jsonl", ".ndjson") or _parse(lines[0][1])[1] is None
    if len(lines) == 1 or not is_lines:
        return [_refused("$", problem)]
    found: list[Loaded] = []
    names: set[str] = set()
    for number, line in lines:
        listing, problem = _parse(line)
        prefix = f"line {number}: "
        found += _read(listing, prefix, names) if problem is None else [_refused(f"{prefix}$", problem)]
    return found


def read_tools(listing: Json) -> list[Loaded]:
    """All definitions of a listing, of a list, or the single one."""
    return _read(listing, "", set())


def _parse(text: str) -> tuple[Json, str | None]:
    try:
        return json.loads(text, parse_constant=_no_constant), None
    except ValueError as reason:  # among others, a JSONDecodeError
        return None, f"not JSON: {_short(str(reason))}"
    except RecursionError:
        return None, "nested too deeply to be read"


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is no JSON value")


def _read(listing: Json, prefix: str, names: set[str]) -> list[Loaded]:
    """`names` are those of earlier definitions that belong to no server of their own."""
    if isinstance(listing, dict) and "tools" in listing:
        return _read_server(listing, prefix, ())
    if not isinstance(listing, list):
        return [_load(listing, f"{prefix}$", "", names)]
    found: list[Loaded] = []
    for at, one in enumerate(listing):
        if isinstance(one, dict) and "tools" in one:
            found += _read_server(one, prefix, (at,))
        else:
            found.append(_load(one, prefix + json_path((at,)), "", names))
    return found


def _read_server(listing: dict[str, Json], prefix: str, way: Way) -> list[Loaded]:
    named = listing.get("server")
    server = named if isinstance(named, str) else ""
    tools, way = listing["tools"], (*way, "tools")
    if not isinstance(tools, list):
        return [_refused(prefix + json_path(way), f"expected a list of tools, got {_kind(tools)}", server)]
    names: set[str] = set()
    return [_load(one, prefix + json_path((*way, at)), server, names) for at, one in enumerate(tools)]


def _refused(at: str, problem: str, server: str = "") -> Loaded:
    return Loaded(at, server, "", None, (f"$: {problem}",))


# --- one definition -----------------------------------------------------------------------------------------


def _load(definition: Json, at: str, server: str, names: set[str]) -> Loaded:
    reading = _Reading()
    tool = reading.tool(definition)
    if tool is not None and tool.name in names:
        reading.problem((), f"{tool.name!r} is the name of an earlier tool of this server")
        tool = None
    if tool is not None:
        names.add(tool.name)
    return Loaded(at, server, reading.name, tool, tuple(reading.problems), tuple(reading.notes))


class _Reading:
    """What is found on the way from a definition to its tool."""

    def __init__(self) -> None:
        self.name = ""
        self.problems: list[str] = []
        self.notes: list[str] = []

    def problem(self, way: Way, message: str) -> None:
        self.problems.append(f"{json_path(way)}: {_short(message)}")

    def note(self, way: Way, message: str) -> None:
        self.notes.append(f"{json_path(way)}: {_short(message)}")

    def tool(self, definition: Json) -> Tool | None:
        """None where there are problems."""
        if not self._sound(definition):
            return None
        way: Way = ("function",) if "function" in definition else ()
        inner = definition["function"] if way else definition
        if not isinstance(inner, dict):
            self.problem(way, f"expected an object, got {_kind(inner)}")
            return None
        self._read_name(inner.get("name"), (*way, "name"))
        description = self._described(inner.get("description"), (*way, "description"))
        schema, way = self._schema(inner, way)
        if self.problems:
            return None
        try:
            return Tool(ToolDefinition(name=self.name, description=description, parameters=schema, effect=self._effect(definition)))
        except SchemaError as refused:
            self.problems += [json_path(way) + line.removeprefix("$") for line in refused.problems]
            return None

    def _sound(self, definition: Json) -> bool:
        """An object that is JSON through and through, and neither endlessly deep nor long."""
        deepest = MAX_DEPTH + 2  # of the schema, and what it stands in
        if not isinstance(definition, dict):
            self.problem((), f"expected a tool definition, got {_kind(definition)}")
        elif nested_deeper(definition, deepest):
            self.problem((), f"nested deeper than {deepest} levels")
        else:
            for way, message in _not_json(definition, ()):
                self.problem(way, message)
            size = 0 if self.problems else len(canonical(definition))
            if size > MAX_SIZE:
                self.problem((), f"{size:,} characters long; at most {MAX_SIZE:,} are of use")
        return not self.problems

    def _read_name(self, name: Json, way: Way) -> None:
        if not isinstance(name, str) or not name.strip():
            self.problem(way, f"a tool needs a name, got {_kind(name) if not isinstance(name, str) else 'an empty one'}")
            return
        self.name = name if len(name) <= 128 else name[:127] + "…"
        if len(name) > 128:
            self.problem(way, f"{len(name)} characters long; at most 128 are allowed")
        elif not NAME.fullmatch(name):
            odd = ", ".join(sorted({repr(one) for one in name if not NAME.fullmatch(one)}))
            self.problem(way, f"{odd} cannot stand in a name; letters from A to Z, digits and _ - . / : can")

    def _described(self, description: Json, way: Way) -> str:
        if isinstance(description, str):
            return description
        if description is None:
            self.note(way, "there is none; taken as empty")
        else:
            self.problem(way, f"expected a string, got {_kind(description)}")
        return ""

    def _schema(self, inner: dict[str, Json], way: Way) -> tuple[dict[str, Json], Way]:
        """The mended schema of the arguments, and where it stands."""
        given = [key for key in SCHEMA_KEYS if inner.get(key) is not None]
        if not given and inner.get("type", "function") != "function":
            self.problem((*way, "type"), f"{inner['type']!r} is not a function with parameters")
            return {}, way
        if len(given) > 1 and any(inner[key] != inner[given[0]] for key in given):
            self.problem(way, f"{' and '.join(given)} say different things")
        way = (*way, given[0] if given else next((key for key in SCHEMA_KEYS if key in inner), SCHEMA_KEYS[0]))
        schema = mended(inner[given[0]] if given else {}, way, self.note)
        if not isinstance(schema, dict):
            self.problem(way, f"expected a JSON Schema object, got {_kind(schema)}")
            return {}, way
        if not schema:
            self.note(way, "there is none; taken as a tool without parameters")
            return {"type": "object", "properties": {}}, way
        if not schema.keys() & KEYWORDS:
            self.problem(way, "none of its keys is a keyword of JSON Schema; are they parameters that lack `properties` around them?")
        if "type" not in schema:
            self.note(way, "no `type`; taken as 'object', as arguments always are")
            return {"type": "object", **schema}, way
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if types and "object" not in types and all(one in TYPES for one in types):
            self.problem((*way, "type"), f"arguments are always an object, and this says {schema['type']!r}")
        return schema, way

    def _effect(self, definition: dict[str, Json]) -> Effect:
        """From our own `effect`, or from MCP's hints; nobody knowing better, a tool writes."""
        own: Json = definition.get("effect")
        if own in get_args(Effect):
            return cast(Effect, own)
        hints = definition.get("annotations")
        if not isinstance(hints, dict):
            return "write"
        if hints.get("readOnlyHint") is True:
            return "read"
        return "irreversible" if hints.get("destructiveHint") is True else "write"


def _not_json(value: Json, way: Way) -> Iterator[tuple[Way, str]]:
    if isinstance(value, dict):
        for key, inside in value.items():
            if not isinstance(key, str):
                yield way, f"a key is of type {type(key).__name__}; JSON has only strings there"
            elif not _is_text(key):
                yield way, f"the key {key!a} is no Unicode text"
            else:
                yield from _not_json(inside, (*way, key))
    elif isinstance(value, list):
        for at, inside in enumerate(value):
            yield from _not_json(inside, (*way, at))
    elif isinstance(value, str):
        if not _is_text(value):
            yield way, "a lone surrogate: this is no Unicode text"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield way, f"{value} is no JSON number"
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            yield way, "a number larger than any of 64 bits, which load_dataset cannot read back"
    elif value is not None:
        yield way, f"a {type(value).__name__} is no JSON value"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Json) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def _short(message: str, limit: int = 300) -> str:
    return message if len(message) <= limit else message[: limit - 1] + "…"


# --- mending ------------------------------------------------------------------------------------------------


def mended(schema: Json, way: Way, note: Note) -> Json:
    """A schema without what is untidy and yet clear; the given one is left as it is.

    - null for a keyword says that the keyword is not used
    - `[]` where an object belongs is how PHP spells the empty object
    - `required: true` inside a property is draft-03 for naming it in the `required` around it
    - `exclusiveMinimum: true` is draft-04 for making the `minimum` beside it the exclusive one
    - a list of `items` is older than 2020-12, which calls it `prefixItems`
    - a `$schema` that names no known dialect, or stands inside, has no effect
    - repeated entries of `required`, `enum` and `type` say nothing new
    """
    named = schema.get("$schema") if isinstance(schema, dict) else None
    uri = dialect_uri(named)
    if named is not None and uri is None:
        note((*way, "$schema"), f"{named!r} is no known dialect; left out")
        schema = {key: value for key, value in schema.items() if key != "$schema"}
    return _Mender(note, uri or DEFAULT_DIALECT).schema(schema, way, root=True)


class _Mender:
    def __init__(self, note: Note, dialect: str) -> None:
        self._note = note
        self._newest = dialect == DEFAULT_DIALECT
        self._oldest = "draft-04" in dialect

    def schema(self, schema: Json, way: Way, *, root: bool = False) -> Json:
        if schema == [] and isinstance(schema, list):
            self._note(way, "[] stands for an empty object")
            return {}
        if not isinstance(schema, dict):
            return schema
        kept: dict[str, Json] = {}
        for key, value in schema.items():
            here = (*way, key)
            if value is None and key in KEYWORDS - {"default", "const", "type"}:
                self._note(here, "null; left out")
            elif key == "$schema" and not root:
                self._note(here, "inside of a schema; left out")
            elif key == "required" and isinstance(value, bool):
                self._note(here, "a boolean; read as in draft-03")
            else:
                kept[key] = self._inside(key, value, here)
        self._require(schema, kept)
        if not self._oldest:
            self._exclude(kept, "minimum", "exclusiveMinimum", way)
            self._exclude(kept, "maximum", "exclusiveMaximum", way)
        if self._newest and isinstance(kept.get("items"), list) and "prefixItems" not in kept:
            self._note((*way, "items"), "a list; read as `prefixItems`")
            kept["prefixItems"] = kept.pop("items")
            if "additionalItems" in kept:
                kept["items"] = kept.pop("additionalItems")
        if kept.get("default") is not None and isinstance(kept.get("enum"), list) and kept["default"] not in kept["enum"]:
            self._note((*way, "default"), f"{kept['default']!r} is not in `enum`")
        return kept

    def _inside(self, key: str, value: Json, here: Way) -> Json:
        if key in MAPS:
            if value == []:
                self._note(here, "[] stands for an empty object")
                return {}
            if isinstance(value, dict):
                return {name: one if isinstance(one, list) else self.schema(one, (*here, name)) for name, one in value.items()}
        if key in LISTS and isinstance(value, list) and (value or key not in SINGLE or not self._newest):
            return [self.schema(one, (*here, at)) for at, one in enumerate(value)]
        if key in SINGLE:
            return self.schema(value, here)
        if key in ("required", "enum", "type") and isinstance(value, list):
            once = list({canonical(one): one for one in value}.values())
            if len(once) < len(value):
                self._note(here, "some entries are repeated; each is kept once")
            return once
        return value

    def _require(self, schema: dict[str, Json], kept: dict[str, Json]) -> None:
        inside, required = schema.get("properties"), kept.get("required", [])
        if isinstance(inside, dict) and isinstance(required, list):
            named = [name for name, one in inside.items() if isinstance(one, dict) and one.get("required") is True]
            if named:
                kept["required"] = [*required, *(name for name in named if name not in required)]

    def _exclude(self, kept: dict[str, Json], bound: str, exclusive: str, way: Way) -> None:
        if isinstance(kept.get(exclusive), bool):
            self._note((*way, exclusive), "a boolean; read as in draft-04")
            if kept.pop(exclusive) and bound in kept:
                kept[exclusive] = kept.pop(bound)
