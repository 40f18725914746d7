"""Tool definitions from the wild: what loads, what is mended, what is refused and why."""

from __future__ import annotations

import copy
import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tracemill.generators.environments.tool import Tool
from tracemill.generators.environments.tool_files import Loaded, load_tools, read_tools
from tracemill.schemas.check import MAX_DEPTH
from tracemill.trace import Json

ROOT = Path(__file__).resolve().parents[1]
WILD = next((path for base in (ROOT, ROOT.parent) if (path := base / "shared/data/mcp-tools.jsonl").is_file()), None)
needs_wild = pytest.mark.skipif(WILD is None, reason="shared/data/mcp-tools.jsonl is not here")

ARGUMENTS: list[Json] = [
    {}, {"a": None}, {"a": 1e300, "b": -(10**40)}, {"": ""}, {"a": [[], {}, "\U0001f600"]}, {"x": {"x": {"x": {}}}},
    [], "text", None, 3, True,
]  # fmt: skip


def one(definition: Json) -> Loaded:
    (loaded,) = read_tools(definition)
    return loaded


def tool(definition: Json) -> Tool:
    loaded = one(definition)
    assert loaded.tool is not None, str(loaded)
    return loaded.tool


def with_schema(schema: Json) -> Json:
    return {"name": "t", "description": "d", "inputSchema": schema}


def with_parameter(schema: Json) -> Json:
    return with_schema({"type": "object", "properties": {"a": schema}})


def is_well_formed(loaded: Loaded) -> bool:
    """Either a tool that copes with any arguments, or reasons that say where."""
    if loaded.tool is None:
        return bool(loaded.problems) and all(problem.startswith("$") and ": " in problem for problem in loaded.problems)
    for arguments in ARGUMENTS:
        assert all("cannot be applied" not in problem.message for problem in loaded.tool.problems(arguments))
    loaded.tool.definition.json_text()
    return not loaded.problems


# --- what loads ---------------------------------------------------------------------------------------------


@needs_wild
def test_every_definition_of_the_wild_file_loads_and_is_usable() -> None:
    assert WILD is not None
    found = load_tools(WILD)
    assert len(found) == 737
    assert [str(loaded) for loaded in found if loaded.tool is None] == []
    assert all(map(is_well_formed, found))
    assert len({loaded.server for loaded in found}) == 103, "several servers may have one name"
    assert found[0].at == "line 1: $.tools[0]"


@needs_wild
def test_damaged_definitions_load_or_are_refused_without_a_traceback() -> None:
    assert WILD is not None
    rng = random.Random(3)
    odd: list[Json] = [
        None,
        True,
        0,
        -1,
        1.5,
        "",
        "str",
        "float",
        [],
        [{}],
        ["a", "a"],
        {},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"type": "any"},
    ]
    for line in WILD.read_text(encoding="utf-8").splitlines():
        listing = json.loads(line)
        damaged = copy.deepcopy(listing["tools"])
        for definition in damaged:
            holders = [definition]
            for holder in holders:
                holders += [
                    inside for inside in (holder.values() if isinstance(holder, dict) else holder) if isinstance(inside, dict | list)
                ]
            holder = rng.choice(holders)
            if isinstance(holder, dict) and holder:
                holder[rng.choice([*holder, "type", "required", "items"])] = rng.choice(odd)
            else:
                holder = definition["input_schema"]
                holder[rng.choice(["properties", "pattern", "anyOf", "$schema"])] = rng.choice(odd)
        assert all(map(is_well_formed, read_tools({"server": "s", "tools": damaged})))


FUNCTION = {"name": "find", "description": "Find it.", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}
MCP = {"name": "find", "description": "Find it.", "inputSchema": FUNCTION["parameters"]}


@pytest.mark.parametrize(
    ("listing", "at"),
    [
        ({"tools": [MCP]}, "$.tools[0]"),
        ({"tools": [MCP], "nextCursor": None}, "$.tools[0]"),
        ([MCP], "$[0]"),
        (MCP, "$"),
        ([{"type": "function", "function": FUNCTION}], "$[0]"),
        ({"type": "function", "function": {**FUNCTION, "strict": True}}, "$"),
        ([{"type": "function", **FUNCTION}], "$[0]"),
        (FUNCTION, "$"),
        ({"server": "s", "tools": [{"name": "find", "description": "Find it.", "input_schema": FUNCTION["parameters"]}]}, "$.tools[0]"),
        ([{"server": "s", "tools": [MCP]}], "$[0].tools[0]"),
    ],
)
def test_every_usual_shape_of_a_listing_gives_the_same_tool(listing: Json, at: str) -> None:
    loaded = one(listing)
    assert loaded.at == at
    assert loaded.notes == ()
    assert loaded.tool is not None
    assert loaded.tool.definition.model_dump(exclude={"effect"}) == FUNCTION
    assert [str(problem) for problem in loaded.tool.problems({"q": 1})] == ["$.q: 1 is not of type 'string'"]


def test_a_server_without_tools_gives_none() -> None:
    assert read_tools({"tools": []}) == [] == read_tools([])


@pytest.mark.parametrize("name", ["a", "get_x", "get-x", "files.read", "files/read", "figma:get", "X" * 128, "2fa"])
def test_a_name_that_mcp_allows_is_allowed(name: str) -> None:
    assert tool({**MCP, "name": name}).name == name


@pytest.mark.parametrize(
    ("more", "effect"),
    [
        ({}, "write"),
        ({"annotations": None}, "write"),
        ({"annotations": "read"}, "write"),
        ({"annotations": {"readOnlyHint": True}}, "read"),
        ({"annotations": {"readOnlyHint": True, "destructiveHint": True}}, "read"),
        ({"annotations": {"readOnlyHint": False, "destructiveHint": True}}, "irreversible"),
        ({"annotations": {"destructiveHint": True}}, "irreversible"),
        ({"annotations": {"readOnlyHint": False, "destructiveHint": False}}, "write"),
        ({"annotations": {"readOnlyHint": "yes"}}, "write"),
        ({"effect": "irreversible"}, "irreversible"),
        ({"effect": ["read"]}, "write"),
    ],
)
def test_the_effect_comes_from_the_hints_and_is_else_a_write(more: dict[str, Json], effect: str) -> None:
    assert tool({**MCP, **more}).effect == effect


def test_a_recursive_schema_loads_and_checks_all_the_way_down() -> None:
    tree = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["name"],
    }
    recursive = tool(with_schema(tree))
    assert not recursive.problems({"name": "a", "children": [{"name": "b", "children": []}]})
    assert [problem.path for problem in recursive.problems({"name": "a", "children": [{"name": 1}]})] == ["$.children[0].name"]


def test_definitions_and_references_of_any_age_load() -> None:
    for key in ("$defs", "definitions"):
        schema = {"type": "object", "properties": {"p": {"$ref": f"#/{key}/P"}}, key: {"P": {"type": "integer"}}}
        assert tool(with_schema(schema)).problems({"p": "x"})
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}, "b": {"$ref": "#/properties/a/items"}}}
    assert tool(with_schema(schema)).problems({"b": "x"})


def test_unusual_formats_and_keywords_are_remarks() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "format": "int64", "x-order": 1, "nullable": True, "example": 3}}}
    assert not tool(with_schema(schema)).problems({"a": 1})


# --- what is mended -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "mended", "note"),
    [
        ({"properties": {}}, {"type": "object", "properties": {}}, "$.inputSchema: no `type`"),
        ({}, {"type": "object", "properties": {}}, "without parameters"),
        ([], {"type": "object", "properties": {}}, "[] stands for an empty object"),
        (None, {"type": "object", "properties": {}}, "without parameters"),
        ({"type": "object", "properties": []}, {"type": "object", "properties": {}}, "$.inputSchema.properties: []"),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string", "enum": None, "default": None, "description": None}},
                "required": None,
            },
            {"type": "object", "properties": {"a": {"type": "string", "default": None}}},
            "$.inputSchema.properties.a.enum: null",
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string", "required": True}, "b": {"required": False}}},
            {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]},
            "$.inputSchema.properties.a.required: a boolean",
        ),
        (
            {"type": "object", "properties": {"a": {"required": True}}, "required": ["a", "b", "b"]},
            {"type": "object", "properties": {"a": {}}, "required": ["a", "b"]},
            "$.inputSchema.required: some entries are repeated",
        ),
        (
            {"type": "object", "properties": {"a": {"minimum": 1, "exclusiveMinimum": True, "maximum": 5, "exclusiveMaximum": False}}},
            {"type": "object", "properties": {"a": {"exclusiveMinimum": 1, "maximum": 5}}},
            "$.inputSchema.properties.a.exclusiveMinimum: a boolean",
        ),
        (
            {"type": "object", "properties": {"a": {"items": [{"type": "string"}], "additionalItems": False}}},
            {"type": "object", "properties": {"a": {"prefixItems": [{"type": "string"}], "items": False}}},
            "$.inputSchema.properties.a.items: a list",
        ),
        (
            {"type": "object", "$schema": "https://example.com/mine"},
            {"type": "object"},
            "$.inputSchema['$schema']: 'https://example.com/mine' is no known dialect",
        ),
        (
            {"type": "object", "properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#"}}},
            {"type": "object", "properties": {"a": {}}},
            "$.inputSchema.properties.a['$schema']: inside",
        ),
    ],
)
def test_what_is_untidy_but_clear_is_mended_with_a_note(schema: Json, mended: Json, note: str) -> None:
    before = copy.deepcopy(schema)
    loaded = one(with_schema(schema))
    assert loaded.tool is not None, str(loaded)
    assert loaded.tool.definition.parameters == mended
    assert any(note in said for said in loaded.notes), loaded.notes
    assert schema == before, "the given definition is left as it was"


@pytest.mark.parametrize(
    "schema",
    [
        {
            "type": "object",
            "properties": {"a": {"type": "array", "items": [{"type": "string"}]}},
            "$schema": "http://json-schema.org/draft-07/schema#",
        },
        {
            "type": "object",
            "properties": {"a": {"minimum": 1, "exclusiveMinimum": True}},
            "$schema": "http://json-schema.org/draft-04/schema#",
        },
        {"type": "object", "properties": {"required": {"type": "boolean"}, "type": {"type": "string"}, "enum": {"type": "null"}}},
        {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"a": {"default": None, "const": None, "enum": [None, []]}}},
        {"type": "object", "properties": {}, "additionalProperties": False, "$schema": "https://json-schema.org/draft/2020-12/schema"},
    ],
)
def test_what_is_in_order_is_left_alone(schema: Json) -> None:
    loaded = one(with_schema(schema))
    assert loaded.tool is not None, str(loaded)
    assert loaded.tool.definition.parameters == schema
    assert loaded.notes == ()


def test_a_missing_description_is_empty_and_a_note_says_so() -> None:
    for definition in ({**MCP, "description": None}, {key: value for key, value in MCP.items() if key != "description"}):
        loaded = one(definition)
        assert loaded.tool is not None
        assert loaded.tool.definition.description == ""
        assert loaded.notes == ("$.description: there is none; taken as empty",)


def test_a_default_that_is_not_allowed_is_noted() -> None:
    loaded = one(with_schema({"type": "object", "properties": {"a": {"enum": ["x"], "default": "y"}}}))
    assert loaded.tool is not None
    assert loaded.notes == ("$.inputSchema.properties.a.default: 'y' is not in `enum`",)


# --- what is refused ----------------------------------------------------------------------------------------


def _nested(levels: int) -> Json:
    made: Json = {"type": "object"}
    for _ in range(levels):
        made = {"type": "object", "properties": {"a": made}}
    return made


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        (None, "$: expected a tool definition, got nothing"),
        ("find", "$: expected a tool definition, got a string"),
        (3, "$: expected a tool definition, got a number"),
        ({}, "$.name: a tool needs a name, got nothing"),
        ({**MCP, "name": None}, "$.name: a tool needs a name, got nothing"),
        ({**MCP, "name": 7}, "$.name: a tool needs a name, got a number"),
        ({**MCP, "name": " "}, "$.name: a tool needs a name, got an empty one"),
        ({**MCP, "name": "find it"}, "$.name: ' ' cannot stand in a name"),
        ({**MCP, "name": 'a"b\n'}, "$.name: '\"', '\\n' cannot stand in a name"),
        ({**MCP, "name": "suche_größe"}, "$.name: 'ß', 'ö' cannot stand"),
        ({**MCP, "name": "x" * 129}, "$.name: 129 characters long"),
        ({**MCP, "description": ["Find"]}, "$.description: expected a string, got a list"),
        ({**MCP, "description": "x" * 10_000_000}, "characters long; at most 262,144 are of use"),
        ({**MCP, "description": "\ud800"}, "$.description: a lone surrogate"),
        ({**MCP, "parameters": {"type": "object"}}, "$: inputSchema and parameters say different things"),
        ({"type": "function", "function": "find"}, "$.function: expected an object, got a string"),
        ({"type": "function", "function": {**FUNCTION, "name": ""}}, "$.function.name: a tool needs a name"),
        ({"type": "web_search", "name": "web_search"}, "$.type: 'web_search' is not a function"),
        ({"tools": None}, "$: expected a list of tools, got nothing"),
        (with_schema(True), "$.inputSchema: expected a JSON Schema object, got a boolean"),
        (with_schema("{}"), "$.inputSchema: expected a JSON Schema object, got a string"),
        (with_schema({"q": {"type": "string"}}), "$.inputSchema: none of its keys is a keyword"),
        (with_schema({"type": "string"}), "$.inputSchema.type: arguments are always an object, and this says 'string'"),
        (with_parameter({"type": "float"}), "properties.a.type: 'float' is no JSON Schema type; 'number' is"),
        (with_parameter({"type": "any"}), "leave `type` out to allow any"),
        (with_parameter({"type": ["dict", "null"]}), "properties.a.type: 'dict' is no"),
        (with_parameter({"type": None}), "properties.a.type: None is no JSON Schema type"),
        (with_schema({"type": "dict"}), "$.inputSchema.type: 'dict' is no JSON Schema type; 'object' is"),
        (with_parameter("string"), "properties.a: 'string' is not of type"),
        (with_schema({"type": "object", "properties": [{"name": "a"}]}), "$.inputSchema.properties: [{'name': 'a'}] is not"),
        (with_schema({"type": "object", "required": "a"}), "$.inputSchema.required: 'a' is not of type 'array'"),
        (with_parameter({"minLength": -1}), "properties.a.minLength: -1 is less than"),
        (with_parameter({"$ref": "#/$defs/A"}), "properties.a['$ref']: the reference '#/$defs/A' leads nowhere"),
        (with_parameter({"$ref": "file:///etc/hostname"}), "leads nowhere"),
        (with_parameter({"$ref": "https://example.com/s.json"}), "leads nowhere"),
        (with_schema({"$ref": "#"}), "only back to itself"),
        (with_parameter({"pattern": "^[a"}), "properties.a.pattern: '^[a' is no regular expression"),
        (with_parameter({"default": math.nan}), "properties.a.default: nan is no JSON number"),
        (with_parameter({"maximum": math.inf}), "properties.a.maximum: inf is no JSON number"),
        (with_parameter({"maximum": 10**5000}), "a number larger than any"),
        (with_parameter({"maximum": 2**64}), "a number larger than any"),
        (with_parameter({"minimum": -(2**63) - 1}), "a number larger than any"),
        (with_schema({"type": "object", "properties": {1: {}}}), "$.inputSchema.properties: a key is of type int"),
        (with_parameter({"default": {1, 2}}), "a set is no JSON value"),
        (with_schema(_nested(MAX_DEPTH)), f"$: nested deeper than {MAX_DEPTH + 2} levels"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_the_place_and_the_reason(definition: Json, reason: str) -> None:
    loaded = one(definition)
    assert loaded.tool is None
    assert any(reason in problem for problem in loaded.problems), loaded.problems
    assert all(len(problem) < 500 for problem in loaded.problems)


def test_the_second_tool_of_one_name_in_one_server_is_refused() -> None:
    other = {**MCP, "description": "Another."}
    first, second, third = read_tools({"server": "s", "tools": [MCP, other, {**MCP, "name": "Find"}]})
    assert first.tool is not None
    assert third.tool is not None
    assert second.tool is None
    assert str(second) == "s/find ($.tools[1]): $: 'find' is the name of an earlier tool of this server"
    assert all(loaded.tool for loaded in read_tools([{"server": "s", "tools": [MCP]}, {"server": "s2", "tools": [MCP]}]))
    assert [loaded.tool is None for loaded in read_tools([{**MCP, "description": 1}, MCP, other])] == [True, False, True]


def test_all_problems_of_a_definition_are_told_at_once() -> None:
    loaded = one({"name": "a b", "description": 1, "inputSchema": 3})
    assert [problem.split(":")[0] for problem in loaded.problems] == ["$.name", "$.description", "$.inputSchema"]


# --- files --------------------------------------------------------------------------------------------------


def _file(tmp_path: Path, data: bytes | str, name: str = "tools.json") -> list[Loaded]:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return load_tools(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "$: the file is empty"),
        (" \n\n", "$: the file is empty"),
        ("# Tools\n\nnone\n", "$: not JSON: Expecting value: line 1 column 1"),
        ('{\n  "tools": [\n    {"name": "a",}\n  ]\n}\n', "$: not JSON: Expecting property name enclosed in double quotes: line 3"),
        ("[" * 100_000, "$: nested too deeply to be read"),
        ('{"a":' * 100_000, "$: nested too deeply to be read"),
        (json.dumps([{**MCP, "extra": math.nan}]), "$: not JSON: NaN is no JSON value"),
        ("[" + "9" * 5000 + "]", "$: not JSON: Exceeds the limit"),
        ("ä".encode("latin-1"), "$: the file is not utf-8 text"),
        (b"\x80\x81\x82\x83", "$: the file is not utf-8 text"),
        (bytes(64), "$: not JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_refusal(tmp_path: Path, data: bytes | str, reason: str) -> None:
    (loaded,) = _file(tmp_path, data)
    assert loaded.tool is None
    assert loaded.problems[0].startswith(reason), loaded.problems


def test_a_file_that_is_not_there_is_one_refusal(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path, "a\0b"):
        (loaded,) = load_tools(path)
        assert loaded.problems[0].startswith("$: the file cannot be read: ")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_file_in_any_encoding_of_json_is_read(tmp_path: Path, encoding: str) -> None:
    (loaded,) = _file(tmp_path, json.dumps([{**MCP, "description": "größer"}], ensure_ascii=False).encode(encoding))
    assert loaded.tool is not None
    assert loaded.tool.definition.description == "größer"


def test_each_line_stands_for_itself(tmp_path: Path) -> None:
    lines = [
        json.dumps({"server": "one", "tools": [MCP]}),
        "",
        '{"server": "two", "tools": [',
        json.dumps({"server": "three", "tools": [{**MCP, "description": "a\u2028b"}, {"name": ""}]}, ensure_ascii=False),
        json.dumps(MCP),
        json.dumps(MCP),
        "[" * 100_000,
    ]
    found = _file(tmp_path, "\r\n".join(lines), "tools.jsonl")
    assert [(loaded.at, loaded.server, loaded.tool is not None) for loaded in found] == [
        ("line 1: $.tools[0]", "one", True),
        ("line 3: $", "", False),
        ("line 4: $.tools[0]", "three", True),
        ("line 4: $.tools[1]", "three", False),
        ("line 5: $", "", True),
        ("line 6: $", "", False),
        ("line 7: $", "", False),
    ]
    assert found == found
    assert [loaded.at for loaded in _file(tmp_path, "\n".join(lines))] == [loaded.at for loaded in found]


def test_lines_are_told_from_a_broken_file_by_the_first_line_or_the_name(tmp_path: Path) -> None:
    broken_first = "{\n" + json.dumps(MCP) + "\n"
    assert [loaded.at for loaded in _file(tmp_path, broken_first, "tools.jsonl")] == ["line 1: $", "line 2: $"]
    assert [loaded.at for loaded in _file(tmp_path, broken_first, "tools.json")] == ["$"]


# --- anything at all ----------------------------------------------------------------------------------------

FUZZ = settings(max_examples=100, suppress_health_check=list(HealthCheck))
KEYS = st.sampled_from(
    [
        "tools", "server", "name", "description", "inputSchema", "parameters", "function", "type", "properties", "required", "items",
        "$ref", "$id", "$schema", "enum", "anyOf", "allOf", "not", "pattern", "format", "default", "minimum", "multipleOf", "$defs", "a",
        "additionalProperties", "annotations", "prefixItems", "uniqueItems", "exclusiveMinimum",
    ]
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["object", "string", "str", "#", "#/properties/a", "#/$defs/a", "http://[", "(", "uuid", "function", "t"])
)
ANY = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4), max_leaves=10
)


@FUZZ
@given(ANY)
@example(float("nan"))
@example({"tools": {"tools": []}})
@example([[MCP]])
def test_any_json_gives_tools_or_refusals(value: Json) -> None:
    assert all(map(is_well_formed, read_tools(value)))


@FUZZ
@given(st.dictionaries(KEYS, ANY, max_size=5), ANY)
def test_any_json_in_place_of_a_schema_or_a_parameter_gives_a_tool_or_a_refusal(schema: dict[str, Json], parameter: Json) -> None:
    loaded = read_tools([with_schema(schema), with_schema({"type": "object", "properties": {"a": parameter}})])
    assert len(loaded) == 2
    assert all(map(is_well_formed, loaded))


@FUZZ
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_in_a_file_give_tools_or_refusals(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    assert all(map(is_well_formed, _file(tmp_path_factory.getbasetemp(), data, "fuzz.json")))
