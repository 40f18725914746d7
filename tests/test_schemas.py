"""The published schemas, and the two validators that read them."""

from __future__ import annotations

import copy
import json
import random
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tracemill.errors import SchemaError
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.environments.goal import draw, templates
from tracemill.schemas import write
from tracemill.schemas.check import (
    DIALECTS,
    FORMATS,
    MAX_DEPTH,
    RECORD_KINDS,
    Checker,
    dialect_uri,
    record_checker,
    record_schema,
    schema_problems,
)
from tracemill.trace import (
    AssistantMessage,
    FunctionCall,
    Json,
    Outcome,
    Persona,
    Preference,
    Rejection,
    SystemMessage,
    ToolCall,
    ToolMessage,
    Trace,
    UserMessage,
    Verdict,
)

ROOT = Path(__file__).resolve().parents[1]
WILD = next((path for base in (ROOT, ROOT.parent) if (path := base / "shared/data/mcp-tools.jsonl").is_file()), None)
needs_wild = pytest.mark.skipif(WILD is None, reason="shared/data/mcp-tools.jsonl is not here")

TEXTS = [
    "", "a", "abc", "12", "12\n", "é", "\U0001f600", "٣", "²", "a b", "true", "null", "a.b", "-", "xn--", "{a}", "{", "[", "%", "%zz",
    "2026-05-14", "2026-02-30", "2026-05-14T09:00:00Z", "2026-05-14 09:00", "09:00:00Z", "09:00", "P1D", "P", "/a/b", "~2", "1/²", "#",
    "a@b.example", "@", "https://a.example/b?c=d", "10.0.0.1", "256.1.1.1", "::1",
    "5e8d3d0e-7f2b-4c86-9d5f-1a2b3c4d5e6f", "5e8d3d0e7f2b4c869d5f1a2b3c4d5e6f",
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 7, 1.0, 0.0, -0.0, 0.5, 0.1, 0.3, 4.35, 1e16, 2**53 + 1, 2**64, 10**30, 1e300, 1e-300]
ODD: list[Json] = [None, True, False, *NUMBERS, *TEXTS, [], [None], [1, 1.0], [True, 1], {}, {"a": None}, {"": {"a": []}}]


# --- instances ----------------------------------------------------------------------------------------------


def sampled(schema: Json, root: Json, rng: random.Random) -> Json:
    """Something that a schema without surprises accepts; nearly so where it has some."""
    if not isinstance(schema, dict) or not schema:
        return rng.choice(ODD)
    if "$ref" in schema:
        target = root
        for part in schema["$ref"].removeprefix("#").split("/")[1:]:
            target = target[part]
        return sampled(target, root, rng)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return sampled(rng.choice(schema[key]), root, rng)
    if "if" in schema:
        return rng.choice([None, sampled(schema["then"], root, rng)])
    if "allOf" in schema:
        return sampled(rng.choice(schema["allOf"]).get("then", schema["allOf"][0]), root, rng)
    kind = schema.get("type", "string")
    return _of_type(rng.choice(kind) if isinstance(kind, list) else kind, schema, root, rng)


def _of_type(kind: str, schema: dict[str, Json], root: Json, rng: random.Random) -> Json:
    if kind == "object":
        fields, needed = schema.get("properties", {}), schema.get("required", [])
        made = {name: sampled(one, root, rng) for name, one in fields.items() if name in needed or rng.random() < 0.6}
        more = schema.get("additionalProperties")
        return {**made, "extra": sampled(more, root, rng)} if isinstance(more, dict) and rng.random() < 0.5 else made
    if kind == "array":
        if "prefixItems" in schema:
            return [sampled(one, root, rng) for one in schema["prefixItems"]]
        least = schema.get("minItems", 0)
        return [sampled(schema.get("items", {}), root, rng) for _ in range(rng.randint(least, least + 2))]
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        return rng.randint(int(low) + ("exclusiveMinimum" in schema), max(int(low), int(schema.get("maximum", low + 9))))
    if kind == "string":
        return (
            "https://a.example/"
            if schema.get("format") == "uri"
            else rng.choice(["some text", "12", "é"]) * max(1, schema.get("minLength", 1))
        )
    return {"boolean": rng.random() < 0.5, "null": None}[kind]


def broken(instance: Json, rng: random.Random) -> Json:
    """A copy with one to three things wrong in it, most likely."""
    made = copy.deepcopy(instance)
    for _ in range(rng.randint(1, 3)):
        holders = list(_holders(made))
        if not holders:
            return rng.choice(ODD)
        holder = rng.choice(holders)
        if isinstance(holder, dict):
            name = rng.choice([*holder, "unknown"])
            if name in holder and rng.random() < 0.3:
                del holder[name]
            else:
                holder[name] = copy.deepcopy(rng.choice(ODD))
        elif holder and rng.random() < 0.7:
            holder[rng.randrange(len(holder))] = copy.deepcopy(rng.choice(ODD))
        else:
            holder.append(copy.deepcopy(rng.choice([*ODD, *holder])))
    return made


def _holders(value: Json) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for inside in value.values() if isinstance(value, dict) else value:
            yield from _holders(inside)


def verdicts(schema: Json) -> tuple[Callable[[Json], bool] | None, Callable[[Json], bool]]:
    """What the fast validator says (None where it is not used), and what jsonschema alone says."""
    exact = Checker(schema, exact=True)
    return Checker(schema)._fast, lambda instance: not exact.problems(instance)


# --- both validators say the same ---------------------------------------------------------------------------


@needs_wild
def test_both_validators_agree_on_broken_arguments_of_every_real_tool() -> None:
    assert WILD is not None
    rng = random.Random(1)
    valid = invalid = 0
    for line in WILD.read_text(encoding="utf-8").splitlines():
        for tool in json.loads(line)["tools"]:
            schema = tool["input_schema"]
            fast, exact = verdicts(schema)
            assert fast is not None, tool["name"]
            for _ in range(4):
                instance = sampled(schema, schema, rng)
                for one in (instance, broken(instance, rng)):
                    said = fast(one)
                    assert said == exact(one), (tool["name"], one)
                    valid, invalid = valid + said, invalid + (not said)
    assert valid > 2000 and invalid > 1000


@pytest.mark.parametrize("kind", RECORD_KINDS)
def test_both_validators_agree_on_broken_records(kind: str) -> None:
    rng = random.Random(2)
    schema = record_schema(kind)
    fast, exact = verdicts(schema)
    assert fast is not None
    said = []
    for _ in range(60):
        instance = sampled(schema, schema, rng)
        for one in (instance, *(broken(instance, rng) for _ in range(4))):
            said.append(fast(one))
            assert said[-1] == exact(one), one
    assert said.count(True) >= 60
    assert said.count(False) >= 60


@pytest.mark.parametrize("name", sorted(FORMATS.checkers))
def test_both_validators_check_a_format_alike(name: str) -> None:
    for dialect in DIALECTS:
        fast, exact = verdicts({"$schema": dialect, "format": name})
        assert fast is not None
        assert [fast(one) for one in ODD] == [exact(one) for one in ODD]
    assert not all(map(exact, TEXTS)), "some text has to be wrong in every format"


def test_every_standard_format_is_checked_and_others_are_remarks() -> None:
    standard = """date-time date time duration email idn-email hostname idn-hostname ipv4 ipv6 uri uri-reference iri iri-reference
        uuid uri-template json-pointer relative-json-pointer regex"""
    assert set(standard.split()) == set(FORMATS.checkers)
    assert not Checker({"format": "int32"}).problems("x")


@pytest.mark.parametrize("pattern", [r"^\d+$", r"^[a-z]+$", r"\w\s", r"^.$", r"(?i)^A", r"^(?P<y>\d{4})-"])
def test_both_validators_read_a_pattern_alike(pattern: str) -> None:
    fast, exact = verdicts({"pattern": pattern})
    assert fast is not None
    assert [fast(one) for one in ODD] == [exact(one) for one in ODD]


def test_a_price_is_a_multiple_of_a_cent() -> None:
    fast, exact = verdicts({"type": "number", "multipleOf": 0.01})
    assert fast is not None
    for price in (4.35, 0.07, 1.1, 19.99, 100):
        assert fast(price) and exact(price)
    for price in (4.355, 0.001):
        assert not fast(price) and not exact(price)


def _schemas() -> st.SearchStrategy[Json]:
    value = st.sampled_from(ODD)
    small = st.integers(0, 3)

    def keywords(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
        several = st.lists(inner, min_size=1, max_size=2)
        named = st.dictionaries(st.sampled_from(["a", "b", ""]), inner, max_size=2)
        kinds = st.sampled_from(["string", "integer", "number", "boolean", "object", "array", "null"])
        return st.fixed_dictionaries(
            {},
            optional={
                "type": kinds | st.lists(kinds, min_size=1, max_size=2, unique=True),
                "enum": st.lists(value, min_size=1, max_size=3),
                "const": value,
                "minimum": st.sampled_from(NUMBERS),
                "exclusiveMaximum": st.sampled_from(NUMBERS),
                "multipleOf": st.sampled_from([1, 0.1, 0.01, 2.5, 3]),
                "minLength": small,
                "maxLength": small,
                "pattern": st.sampled_from([r"^\d+$", r"\W", "a|b"]),
                "format": st.sampled_from(sorted(FORMATS.checkers)),
                "items": inner,
                "contains": inner,
                "maxItems": small,
                "uniqueItems": st.booleans(),
                "properties": named,
                "patternProperties": st.dictionaries(st.sampled_from(["^a", r"\w"]), inner, max_size=1),
                "additionalProperties": inner,
                "propertyNames": inner,
                "required": st.sampled_from([["a"], ["a", "b"]]),
                "dependentRequired": st.just({"a": ["b"]}),
                "dependencies": named,
                "anyOf": several,
                "oneOf": several,
                "allOf": several,
                "not": inner,
                "if": inner,
                "then": inner,
                "else": inner,
                "contentEncoding": st.just("base64"),
                "additionalItems": inner,
                "unevaluatedProperties": inner,
                "unevaluatedItems": inner,
                "$ref": st.sampled_from(["#", "#/$defs/x"]),
            },
        )

    return st.recursive(st.booleans() | st.just({}), keywords, max_leaves=6)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(_schemas(), _schemas(), st.sampled_from(sorted(DIALECTS)), st.randoms(use_true_random=False))
def test_both_validators_agree_on_any_schema(schema: Json, definition: Json, dialect: str, rng: random.Random) -> None:
    whole = {"allOf": [schema], "$defs": {"x": definition}, "$schema": dialect}
    try:
        exact, quick = Checker(whole, exact=True), Checker(whole)
    except SchemaError:
        return
    for one in [*ODD, *(broken({"a": [1, "a"], "b": {"a": 0.3}}, rng) for _ in range(10))]:
        assert quick.problems(one) == exact.problems(one)


# --- a schema that is none ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "path", "says"),
    [
        ({"type": "str"}, "$.type", "'str' is no JSON Schema type; 'string' is"),
        ({"properties": {"a": {"type": ["float", "null"]}}}, "$.properties.a.type", "'number' is"),
        ({"properties": {"a": {"type": "any"}}}, "$.properties.a.type", "leave `type` out"),
        ({"properties": {"a": {"type": "thing"}}}, "$.properties.a.type", "there are string, integer"),
        ({"properties": {"a": "string"}}, "$.properties.a", "not of type 'object'"),
        ({"items": {"pattern": "(["}}, "$.items.pattern", "no regular expression"),
        ({"patternProperties": {"(": {}}}, "$.patternProperties['(']", "no regular expression"),
        ({"$ref": "#/$defs/x"}, "$['$ref']", "leads nowhere"),
        ({"$ref": "#anchor"}, "$['$ref']", "leads nowhere"),
        ({"$ref": "http://["}, "$['$ref']", "leads nowhere"),
        ({"enum": [1], "not": {"$ref": "#/enum"}}, "$.not['$ref']", "is no schema"),
        ({"$ref": "#"}, "$", "only back to itself"),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "$['$defs'].a", "only back to itself"),
        ({"$ref": "#/x/y", "x": {"y": {"type": "list"}}}, "$.x.y.type", "'array' is"),
        ({"$schema": "urn:mine"}, "$['$schema']", "not a dialect"),
        ({"$schema": ["a"]}, "$['$schema']", "not a dialect"),
        ({"not": {"$schema": "http://json-schema.org/draft-07/schema#"}}, "$.not['$schema']", "another dialect"),
        ("object", "$", "expected a JSON Schema object, got str"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_the_place(schema: Json, path: str, says: str) -> None:
    problems = list(schema_problems(schema))
    assert any(problem.path == path and says in problem.message for problem in problems), problems
    with pytest.raises(SchemaError):
        Checker(schema)


def test_a_reference_is_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    there = tmp_path / "there.json"
    there.write_text('{"type": "integer"}')
    for reference in (there.as_uri(), str(there), "http://localhost/s.json", "https://json-schema.org/nothing"):
        for schema in (
            {"$ref": reference},
            {"properties": {"a": {"$ref": reference}}},
            {"$id": there.as_uri(), "not": {"$ref": "other.json"}},
        ):
            assert [problem.message for problem in schema_problems(schema) if "leads nowhere" in problem.message]


def test_a_meta_schema_may_be_referred_to() -> None:
    checker = Checker({"properties": {"schema": {"$ref": "http://json-schema.org/draft-07/schema#"}}})
    assert not checker.problems({"schema": {"type": "string"}})
    assert checker.problems({"schema": {"type": "text"}})


def test_a_recursive_schema_works_at_any_depth() -> None:
    tree = {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False}
    for checker in (Checker(tree), Checker(tree, exact=True)):
        deep: Json = {}
        for _ in range(MAX_DEPTH - 1):
            deep = {"next": deep}
        assert not checker.problems(deep)
        wrong = {"next": {"next": {"other": 1}}}
        assert [problem.path for problem in checker.problems(wrong)] == ["$.next.next"]
        for _ in range(100_000):
            deep = {"next": deep}
        assert "nested deeper" in checker.problems(deep)[0].message


def test_problems_come_in_the_order_of_the_instance() -> None:
    found = Checker({"items": {"type": "string"}}).problems([0] * 12)
    assert [problem.path for problem in found] == [f"$[{at}]" for at in range(12)]


def test_a_dialect_is_known_by_its_usual_spellings() -> None:
    for spelling in (
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-07/schema",
    ):
        assert dialect_uri(spelling) == "http://json-schema.org/draft-07/schema"
    assert dialect_uri("http://json-schema.org/draft-03/schema#") is None


# --- the published files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RECORD_KINDS)
def test_the_published_schema_is_what_the_types_generate(kind: str) -> None:
    assert (write.FOLDER / f"{kind}.schema.json").read_text(encoding="utf-8") == write.text(kind), "run make schemas"


@pytest.mark.parametrize("kind", RECORD_KINDS)
def test_a_published_schema_says_what_it_is(kind: str) -> None:
    schema = record_schema(kind)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:tracemill:{kind}:{write.FORMAT}"
    assert schema["title"] and schema["description"]
    for key, inside in _pairs(schema):
        assert key not in ("oneOf", "anyOf"), "a union must be decided by its tag"
        if key == "properties" and isinstance(inside, dict):
            assert all(isinstance(one, dict) for one in inside.values())
    for name, one in {"": schema, **schema.get("$defs", {})}.items():
        assert one["additionalProperties"] is False, name


def _pairs(value: Json) -> Iterator[tuple[str, Json]]:
    for inside in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _pairs(inside)
    if isinstance(value, dict):
        yield from value.items()


# Names that need no more words, whatever the record.
PLAIN = {"content", "description", "id", "index", "kind", "name", "reason", "role", "template", "text", "tone", "tool", "type", "why"}
# Fields that are still without a description. The list may only get shorter.


@pytest.mark.parametrize("kind", RECORD_KINDS)
def test_every_field_that_does_not_speak_for_itself_is_described(kind: str) -> None:
    schema = record_schema(kind)
    for name, one in {schema["title"]: schema, **schema.get("$defs", {})}.items():
        for field, inside in one["properties"].items():
            types = [schema["$defs"][value.rpartition("/")[2]] for key, value in _pairs(inside) if key == "$ref"]
            described = "description" in inside or (types and all("description" in target for target in types))
            assert described or field in PLAIN, f"{name}.{field} has no description"


def test_checking_the_files_says_which_are_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(write, "FOLDER", tmp_path)
    assert write.main(["--check"]) == 1
    assert not list(tmp_path.iterdir())
    assert write.main([]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{kind}.schema.json" for kind in RECORD_KINDS)
    assert write.main(["--check"]) == 0
    (tmp_path / "plan.schema.json").write_text("{}")
    capsys.readouterr()
    assert write.main(["--check"]) == 1
    assert capsys.readouterr().out.startswith("plan.schema.json is out of date")


# --- records ------------------------------------------------------------------------------------------------


def hand_made() -> Trace:
    store = environment("store")
    template, kinds = next(iter(templates(store).items()))
    scenario = draw(
        store,
        template,
        index=3,
        seed=1,
        kind=kinds[0],
        world=0,
        persona=Persona(tone="plain"),
        rng=random.Random(5),
    )
    call = ToolCall(id="c1", function=FunctionCall(name="find", arguments={"city": "Łódź", "days": None}))
    offered = tuple(definition.offered() for definition in store.tools(kinds[0]))
    return Trace(
        id="t1",
        kind=kinds[0],
        environment="store",
        template=template,
        index=3,
        seed=1,
        difficulty=scenario.difficulty,
        messages=(
            SystemMessage(content="Be helpful."),
            UserMessage(content=scenario.opening),
            AssistantMessage(content="", reasoning_content="It has to be found.", tool_calls=(call,)),
            ToolMessage(tool_call_id="c1", name="find", content="{}"),
            AssistantMessage(content=scenario.answer, train=False),
        ),
        tools=offered,
        effects={definition.name: definition.effect for definition in store.tools(kinds[0])},
        scenario=scenario,
        outcome=Outcome(state=True, untouched=True, allowed=True, grounded=True, confirmed=True, told=True),
        verdicts=(Verdict(principle="honest", passed=True, by="rule", severity="high"),),
        state_digest="0" * 32,
        teacher="scripted",
    )


def test_records_conform_to_their_schemas() -> None:
    trace = hand_made()
    messages = trace.messages
    preference = Preference(
        id="p",
        trace="t1",
        index=3,
        prompt=messages[:2],
        chosen=(messages[4],),
        rejected=(messages[2],),
        tools=trace.tools,
        source="revision:x",
        margin=1,
    )
    rejection = Rejection(
        id="r",
        index=3,
        attempt=0,
        kind=trace.kind,
        environment="store",
        template="t",
        stage="goal",
        reason="no",
        blame="agent",
        final=True,
        messages=messages,
    )
    plan = {
        "goal": "g",
        "constraints": [],
        "subgoals": [{"id": "g1", "goal": "find", "depends_on": [], "tools": ["find"], "success_criterion": "found"}],
    }
    records = {"trace": trace, "preference": preference, "rejection": rejection, "scenario": trace.scenario}
    for exact in (False, True):
        for kind, record in records.items():
            assert not record_checker(kind, exact=exact).problems(record.plain())
            assert not record_checker(kind, exact=exact).problems(json.loads(record.json_text()))
            assert not record_checker(kind, exact=exact).problems(record.model_dump(mode="json")), "null may stand for what is left out"
        assert not record_checker("plan", exact=exact).problems(plan)


@pytest.mark.parametrize("kind", sorted(write.TYPES))
def test_what_the_schema_accepts_the_type_accepts(kind: str) -> None:
    rng = random.Random(4)
    schema = record_schema(kind)
    accepted = 0
    for _ in range(150):
        instance = sampled(schema, schema, rng)
        for one in (instance, broken(instance, rng)):
            if not record_checker(kind).problems(one):
                accepted += 1
                write.TYPES[kind].model_validate_json(json.dumps(one))
    assert accepted >= 150


def _set(*way: str | int, to: Json) -> Callable[[Json], None]:
    def change(record: Json) -> None:
        for part in way[:-1]:
            record = record[part]
        record[way[-1]] = to

    return change


def _drop(*way: str | int) -> Callable[[Json], None]:
    def change(record: Json) -> None:
        for part in way[:-1]:
            record = record[part]
        del record[way[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        (_set("messages", 2, "role", to="robot"), "$.messages[2].role", "'robot' is not one of"),
        (_drop("messages", 2, "role"), "$.messages[2]", "'role' is a required property"),
        (_drop("messages", 1, "content"), "$.messages[1]", "'content' is a required property"),
        (_set("messages", 1, "content", to=None), "$.messages[1].content", "None is not of type 'string'"),
        (_set("messages", 1, "train", to=True), "$.messages[1]", "'train' was unexpected"),
        (_set("messages", 2, "tool_calls", to=[]), "$.messages[2].tool_calls", "non-empty"),
        (
            _set("messages", 2, "tool_calls", 0, "function", "arguments", to="{}"),
            "$.messages[2].tool_calls[0].function.arguments",
            "'object'",
        ),
        (_drop("messages", 3, "tool_call_id"), "$.messages[3]", "'tool_call_id' is a required property"),
        (_set("messages", to=[]), "$.messages", "too short"),
        (_set("difficulty", to=6), "$.difficulty", "greater than the maximum"),
        (_set("index", to="3"), "$.index", "not of type 'integer'"),
        (_set("kind", to="chat"), "$.kind", "'chat' is not one of"),
        (_set("notes", to=""), "$", "'notes' was unexpected"),
        (_set("tools", 0, "function", "name", to=""), "$.tools[0].function.name", "non-empty"),
        (_set("tools", 0, "type", to="custom"), "$.tools[0].type", "'function' was expected"),
        (_set("scenario", "steps", 0, "group", to=-1), "$.scenario.steps[0].group", "less than the minimum"),
        (_set("outcome", "state", to="yes"), "$.outcome.state", "not of type 'boolean'"),
        (_set("outcome", to=3), "$.outcome", "not of type 'object'"),
        (_set("verdicts", 0, "by", to="me"), "$.verdicts[0].by", "'me' is not one of"),
        (_drop("state_digest"), "$", "'state_digest' is a required property"),
    ],
)
def test_a_broken_trace_is_refused_by_the_schema_and_by_the_type(change: Callable[[Json], None], path: str, says: str) -> None:
    record = hand_made().plain()
    change(record)
    for exact in (False, True):
        problems = record_checker("trace", exact=exact).problems(record)
        assert [(problem.path, says in problem.message) for problem in problems] == [(path, True)], problems
    with pytest.raises(ValidationError) as refused:
        Trace.model_validate_json(json.dumps(record), strict=True)
    places = [[str(part) for part in error["loc"]] for error in refused.value.errors()]
    wanted = path.removeprefix("$").replace("[", ".").replace("]", "").removesuffix(".role").split(".")[1:]  # it names the message
    assert any(_is_within(wanted, place) for place in places), (wanted, places)


def _is_within(wanted: list[str], place: list[str]) -> bool:
    """Whether the parts occur in this order; pydantic also names the branch of a union."""
    rest = iter(place)
    return all(part in rest for part in wanted)


# --- docs/records.md ----------------------------------------------------------------------------------------

DOCUMENT = (ROOT / "docs/records.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", sorted({*RECORD_KINDS} - {"scenario"}))
def test_the_documented_example_conforms(kind: str) -> None:
    (example,) = re.findall(rf"```json {kind}\n(.*?)\n```", DOCUMENT, re.DOTALL)
    record = json.loads(example)
    for exact in (False, True):
        assert record_checker(kind, exact=exact).problems(record) == []
    if kind in write.TYPES:
        write.TYPES[kind].model_validate(record)


@pytest.mark.parametrize("kind", sorted({*RECORD_KINDS} - {"scenario", "plan"}))
def test_the_document_names_every_column(kind: str) -> None:
    section = DOCUMENT.split(f"## {kind.title()}\n")[1].split("\n## ")[0]
    assert set(record_schema(kind)["properties"]) <= set(re.findall(r"`(\w+)`", section))


def test_the_documented_code_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    digests, validating = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    trace = hand_made().sealed()
    names: dict[str, Any] = {}
    exec(digests, names)
    assert names["digest"](trace.plain()) == trace.digest
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trace.schema.json").write_text(write.text("trace"), encoding="utf-8")
    (tmp_path / "traces.jsonl").write_text(trace.json_text() + '\n{"kind": "chat"}\n', encoding="utf-8")
    exec(validating, {})
    printed = capsys.readouterr().out.splitlines()
    assert "$.kind 'chat' is not one of ['tool_call', 'goal_decomposition', 'error_recovery']" in printed
    assert all(line.startswith("$ '") and line.endswith("is a required property") for line in printed if "$.kind" not in line)
