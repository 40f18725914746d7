"""Conversations from elsewhere: each row is imported, or refused with its reasons, and what is imported is checked again."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tracemill.columns import from_row, table
from tracemill.errors import ConfigError, DatasetError
from tracemill.importing.check import blundered, failed
from tracemill.importing.openai import import_openai, read_row
from tracemill.importing.write import Given
from tracemill.schemas.check import record_checker
from tracemill.show import show_traces
from tracemill.stats import measure_import, show_stats
from tracemill.trace import AssistantMessage, Conversation, Json, Refusal, ToolMessage
from tracemill.verify import verify

ROOT = Path(__file__).resolve().parents[1]
TAU = next((base / "shared/data" for base in (ROOT, ROOT.parent) if (base / "shared/data/tau-bench-airline-gpt-4o.json").is_file()), None)
needs_tau = pytest.mark.skipif(TAU is None, reason="shared/data/tau-bench-airline-gpt-4o.json is not here")

SCHEMA = {"type": "object", "properties": {"order_id": {"type": "string"}, "count": {"type": "integer"}}, "required": ["order_id"]}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": SCHEMA}} for name in ("get_order", "cancel_order")
]
SYSTEM = {"role": "system", "content": "You work for a shop."}
ASK = {"role": "user", "content": "Cancel W1."}
DONE = {"role": "assistant", "content": "It is cancelled."}


def call(name: str = "get_order", arguments: Json = '{"order_id": "W1"}', id: str | None = "a") -> dict[str, Json]:
    return {**({"id": id} if id else {}), "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: Json) -> dict[str, Json]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def result(content: Json = "{}", id: str | None = "a", **more: Json) -> dict[str, Json]:
    return {"role": "tool", "content": content, **({"tool_call_id": id} if id else {}), **more}


def good(**more: Json) -> dict[str, Json]:
    return {"messages": [SYSTEM, ASK, calling(call()), result(), DONE], "tools": TOOLS, **more}


def row(*messages: Json) -> dict[str, Json]:
    return {"messages": list(messages), "tools": TOOLS}


def imported(out: Path) -> list[Conversation]:
    return [from_row(Conversation, one) for path in sorted(out.glob("data/imported/*.parquet")) for one in pq.read_table(path).to_pylist()]


def refused(out: Path) -> list[Refusal]:
    return [from_row(Refusal, one) for path in sorted(out.glob("rejects/*.parquet")) for one in pq.read_table(path).to_pylist()]


def write_lines(path: Path, *rows: Json) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows), encoding="utf-8")
    return path


Take = Callable[..., tuple[list[Conversation], list[Refusal]]]


@pytest.fixture
def take(tmp_path: Path) -> Take:
    """Imports rows; gives what was accepted and what was refused. Nothing is ever lost, and all of it is found sound."""

    def run(*rows: Json, **settings: Any) -> tuple[list[Conversation], list[Refusal]]:
        out = tmp_path / "out"
        code = import_openai(write_lines(tmp_path / "rows.jsonl", *rows), out, **settings)
        accepted, ledger = imported(out), refused(out)
        assert sorted(one.index for one in [*accepted, *ledger]) == list(range(len(rows)))
        assert code == (0 if accepted else 1)
        assert verify(out) == 0
        for kind, one in [("conversation", one) for one in accepted] + [("refusal", one) for one in ledger]:
            assert record_checker(kind, exact=True).problems(one.plain()) == []
        return accepted, ledger

    return run


# --- what is read -------------------------------------------------------------------------------------------


def test_what_is_spelled_differently_becomes_one(take: Take) -> None:
    parts = [{"type": "text", "text": "Cancel"}, {"type": "input_text", "text": "W1."}]
    messages = [
        {"role": "developer", "content": "You work for a shop."},
        {"role": "user", "content": parts, "name": "ann"},
        {**calling(call(id="xyz")), "reasoning": "It must be found.", "refusal": None, "annotations": []},
        result("{}", "xyz"),
        {"role": "assistant", "content": [{"type": "text", "text": "Done."}], "thinking": "All is well."},
        {"role": "user", "content": "Thanks."},
        {"role": "user", "content": "###STOP###"},
    ]
    ((made,), _) = take({"traj": messages, "tools": json.dumps(TOOLS), "reward": True, "id": 7})
    assert [message.role for message in made.messages] == ["system", "user", "assistant", "tool", "assistant"]
    _, ask, lookup, answer, end = made.messages
    assert ask.content == "Cancel\nW1."
    assert isinstance(lookup, AssistantMessage) and isinstance(answer, ToolMessage) and isinstance(end, AssistantMessage)
    assert (lookup.content, lookup.reasoning_content, end.reasoning_content) == ("", "It must be found.", "All is well.")
    assert lookup.tool_calls is not None and lookup.tool_calls[0].arguments == {"order_id": "W1"}
    assert (lookup.tool_calls[0].id, answer.tool_call_id, answer.name) == ("call_1", "call_1", "get_order")
    assert (made.reward, made.row_id, made.source, made.index) == (1.0, "7", "rows.jsonl", 0)
    assert [tool.function.name for tool in made.tools] == ["get_order", "cancel_order"]


def test_a_conversation_may_lack_a_system_message_and_end_with_a_result(take: Take) -> None:
    accepted, _ = take(row(ASK, DONE), row(ASK, calling(call()), result()))
    assert [one.messages[-1].role for one in accepted] == ["assistant", "tool"]


@pytest.mark.parametrize("nothing", [None, "", {}, "{}"])
def test_a_call_without_arguments_may_be_written_in_many_ways(take: Take, nothing: Json) -> None:
    free = {"type": "function", "function": {"name": "list_orders", "parameters": {"type": "object", "properties": {}}}}
    ((made,), _) = take({"messages": [ASK, calling(call("list_orders", nothing)), result(), DONE], "tools": [free]})
    assert [one.arguments for message in made.messages for one in getattr(message, "tool_calls", None) or ()] == [{}]


@pytest.mark.parametrize("name", ["parameters", "input", "args"])
@pytest.mark.parametrize("given", [{"order_id": "W1"}, '{"order_id": "W1"}'])
def test_arguments_may_have_other_names(take: Take, name: str, given: Json) -> None:
    named = {"id": "a", "type": "function", "function": {"name": "get_order", name: given}}
    ((made,), _) = take(row(ASK, calling(named), result(), DONE))
    assert [one.arguments for one in getattr(made.messages[1], "tool_calls", ())] == [{"order_id": "W1"}]


def test_results_without_ids_find_their_calls_by_name(take: Take) -> None:
    both = calling(call(id=None), call("cancel_order", id=None))
    ((made,), _) = take(row(ASK, both, result("C", None, name="cancel_order"), result("G", None, name="get_order"), DONE))
    answers = [(one.tool_call_id, one.name, one.content) for one in made.messages if isinstance(one, ToolMessage)]
    assert answers == [("call_1", "get_order", "G"), ("call_2", "cancel_order", "C")], "in the order of the calls"


def test_ids_that_come_again_in_a_later_turn_are_told_apart(take: Take) -> None:
    ((made,), _) = take(row(ASK, calling(call()), result("1"), calling(call("cancel_order")), result("2"), DONE))
    assert [one.tool_call_id for one in made.messages if isinstance(one, ToolMessage)] == ["call_1", "call_2"]


def test_the_weights_of_openai_and_our_own_marks_keep_messages_out_of_the_loss(take: Take) -> None:
    ((made,), _) = take(row(ASK, {**calling(call()), "weight": 0}, result(), {**calling(call()), "train": False}, result(), DONE))
    assert [one.train for one in made.messages if isinstance(one, AssistantMessage)] == [False, False, True]


def test_tools_come_from_the_row_or_else_from_the_file(take: Take, tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS), encoding="utf-8")
    own = {"type": "function", "function": {"name": "get_order", "parameters": {"type": "object"}}}
    accepted, _ = take(good(tools=None), good(tools=[own]), tools=tmp_path / "tools.json")
    assert [len(one.tools) for one in accepted] == [2, 1]


def test_a_file_of_tools_that_are_none_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps([*TOOLS, {"name": "x", "parameters": {"type": "float"}}]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"1 definition.*\n.*'float' is no JSON Schema type"):
        import_openai(write_lines(tmp_path / "rows.jsonl", good()), tmp_path / "out", tools=tmp_path / "tools.json")
    assert not (tmp_path / "out").exists()


# --- wrong steps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fails", "by_its_own_fault"),
    [
        ("Error: no such order", True, True),
        ("ValueError: no such order", True, True),
        ("Error executing tool get_order: not found", True, True),
        ('{"error": {"code": "not_found"}}', True, True),
        ('{"status": 404, "error": "not found"}', True, True),
        ("Traceback (most recent call last):\n  File", True, True),
        ("Error: payment does not add up, total price is 504, but paid 1", True, True),
        ("Error: request timed out", True, False),
        ('{"error": "rate limit exceeded"}', True, False),
        ("Error: HTTP 503", True, False),
        ('{"error": null, "orders": []}', False, False),
        ('{"error": broken', False, False),
        ("The errors of the past are forgiven: all fine", False, False),
        ("", False, False),
        ("12.0", False, False),
        ("Error 404: not found", True, True),
        ("Error (404): not found", True, True),
        ("Error code: 404 - not found", True, True),
        ("HTTPError while calling get_order: not found", True, True),
        ("Exception in thread main: no such order", True, True),
        ("Error rate: 0.5%", False, False),
        ("Error budget remaining: 43%", False, False),
        ("Error log for host a:\n(empty)", False, False),
        ("Error codes: E1 paper jam, E2 no toner", False, False),
        ("Exception policy (2024): employees may", False, False),
        ('{"error": "none"}', False, False),
        ('{"error": "No error."}', False, False),
    ],
)
def test_a_failed_call_is_told_by_its_result(text: str, fails: bool, by_its_own_fault: bool) -> None:
    assert (failed(text), blundered(text)) == (fails, by_its_own_fault)


def test_wrong_steps_are_counted_as_such_whether_they_called_or_not(take: Take, capsys: pytest.CaptureFixture[str]) -> None:
    take(row(ASK, {**DONE, "train": False}, ASK, calling(call()), result("Error: no such order"), DONE))
    told = capsys.readouterr().out
    assert "2 of 3 agent messages are wrong steps" in told and "made a call that failed" not in told


def test_the_next_command_has_all_that_it_needs(take: Take, capsys: pytest.CaptureFixture[str]) -> None:
    take(row(ASK, DONE))
    (command,) = re.findall(r"tracemill (train sft .*)", capsys.readouterr().out)
    assert not {"--model", "--out"} - set(command.split())


def test_calls_that_failed_stay_in_the_context_and_out_of_the_loss(take: Take) -> None:
    wrong = calling(call("get_ordr", '{"id": 1}'))
    ((made,), _) = take(
        row(ASK, wrong, result("Error: unknown tool"), calling(call()), result("Error: timed out"), calling(call()), result(), DONE)
    )
    assert [one.train for one in made.messages if isinstance(one, AssistantMessage)] == [False, True, True, True]


# --- what is refused ----------------------------------------------------------------------------------------

TWO = calling(call(id="a"), call(id="b"))
FLAWS: list[tuple[Json, str, str]] = [
    ("{broken", "row", "not JSON: Expecting property name"),
    ([1], "row", "expected an object, got a list"),
    (None, "row", "expected an object, got nothing"),
    (7, "row", "expected an object, got a number"),
    ({}, "row", "it holds neither `messages` nor `traj`, but nothing"),
    ({"conversations": []}, "row", "neither `messages` nor `traj`, but 'conversations'"),
    ({**good(), "chosen": [DONE], "rejected": [DONE]}, "row", "it is a preference pair, with `chosen` and `rejected`"),
    ({"prompt": "Hi.", "chosen": "Ho.", "rejected": "He."}, "row", "it is a preference pair, with `chosen` and `rejected`"),
    (good(reward="high"), "row", "reward: expected a finite number, got 'high'"),
    ({"messages": "hello"}, "schema", "messages: expected a list, got text"),
    (row(ASK, "hello"), "schema", "messages[1]: expected an object, got text"),
    (row(ASK, {"role": "bot", "content": "Hi"}), "schema", "messages[1].role: expected system, developer"),
    (row({"role": "user", "content": {"a": 1}}, DONE), "schema", "messages[0].content: expected text, got an object"),
    (
        row({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, DONE),
        "schema",
        "messages[0].content[0]: only parts of text can be imported, got one of type 'image_url'",
    ),
    (row(ASK, {"role": "assistant", "content": "\ud800"}), "schema", "messages[1].content: it cannot be written"),
    (row(ASK, calling(call(arguments="{'order_id': 1}")), result(), DONE), "schema", "messages[1].tool_calls[0].function.arguments: not JSON"),
    (row(ASK, calling(call(arguments="[1]")), result(), DONE), "schema", "function.arguments: expected an object, got a list"),
    (row(ASK, calling(call(arguments='{"order_id": NaN}')), result(), DONE), "schema", "arguments: it cannot be written as JSON"),
    (row(ASK, calling(call(arguments={"order_id": "W", "count": 2**70})), result(), DONE), "schema", "a number beyond 64 bits"),
    (row(ASK, calling({"id": "a"}), result(), DONE), "schema", "messages[1].tool_calls[0]: expected an object with a `function`"),
    (
        row(ASK, calling({"id": "a", "function": {"name": "get_order", "order_id": "W1"}}), result(), DONE),
        "schema",
        "messages[1].tool_calls[0].function.arguments: there are none, but there is 'order_id'",
    ),
    (row(ASK, calling({"function": {"name": "get_order"}, "args": {"order_id": "W1"}}), result(), DONE), "schema", "arguments: there are none, but there is 'args'"),
    (
        row(ASK, calling({"id": "a", "function": {"name": "get_order", "arguments": {}, "parameters": {"order_id": "W1"}}}), result(), DONE),
        "schema",
        "function.arguments: there are none, but there is 'parameters'",
    ),
    (row(ASK, calling(call(name="")), result(), DONE), "schema", "tool_calls[0].function.name: expected the name of a tool, got ''"),
    (row(ASK, {**DONE, "function_call": {"name": "x"}}), "schema", "messages[1].function_call: this older form is not read"),
    (row(ASK, TWO, result(id=None), result(id=None), DONE), "schema", "messages[2]: it could answer each of call_1 (get_order), call_2"),
    (row(ASK, calling(call()), result(name="cancel_order"), DONE), "schema", "messages[2].name: 'cancel_order', but the call"),
    (row(), "structure", "messages: the user must speak first"),
    (row(SYSTEM, DONE), "structure", "messages: the user must speak first"),
    (row(SYSTEM, ASK), "structure", "messages: the agent says nothing"),
    (row(ASK, {**DONE, "train": False}), "structure", "messages: nothing is left to learn"),
    (row(ASK, SYSTEM, DONE), "structure", "messages[1]: a second system message"),
    (row(ASK, DONE, DONE), "structure", "messages[2]: the agent had the word"),
    (row(ASK, {"role": "assistant", "content": None}), "structure", "messages[1]: says nothing and calls nothing"),
    (row(ASK, calling(call()), DONE), "structure", "messages[2]: comes before call_1 (get_order) was answered"),
    (row(ASK, TWO, result(id="b")), "structure", "messages[1]: call_1 (get_order) is never answered"),
    (row(ASK, calling(call()), result(id="z"), DONE), "structure", "messages[2]: answers no call that is waiting"),
    (row(ASK, calling(call()), result(id="call_1", name="get_order"), DONE), "structure", "messages[2]: answers no call that is waiting"),
    (row(ASK, DONE, ASK, result(), DONE), "structure", "messages[3]: answers no call that is waiting"),
    (row(ASK, calling(call("get_ordr")), result(), DONE), "arguments", "messages[1].tool_calls[0].function.name: 'get_ordr' is none of the tools"),
    (
        row(ASK, calling(call(arguments={"order_id": 1})), result(), DONE),
        "arguments",
        "messages[1].tool_calls[0].function.arguments.order_id: 1 is not of type 'string'",
    ),
    (row(ASK, calling(call(arguments={})), result(), DONE), "arguments", "function.arguments: 'order_id' is a required property"),
    ({**good(), "tools": None}, "arguments", "'get_order' is called, but no tools are given, neither in the row nor by --tools"),
    (good(tools=[{"type": "function"}]), "arguments", "tools: a definition ($[0])"),
    (good(tools=[*TOOLS, {"name": "x", "parameters": {"maximum": 2**64}}]), "arguments", "$.parameters.maximum: a number larger than any of 64 bits"),
    (good(tools="all of them"), "arguments", "tools: a definition ($): $: expected a tool definition"),
    (good(reward=0), "goal", "reward 0 is below 1"),
    (good(), "duplicate", "messages and tools are those of row 0"),
]  # fmt: skip


def test_a_conversation_may_end_with_a_call(take: Take) -> None:
    """As sets for function calling have it: the call is all that is to be learnt."""
    (one,), refused = take(row(ASK, calling(call())))
    assert one.messages[-1].tool_calls and one.messages[-1].train
    assert not refused


@pytest.mark.parametrize(("flawed", "stage", "says"), FLAWS, ids=[f"{stage}: {says[-50:]}" for _, stage, says in FLAWS])
def test_a_flawed_row_lands_in_the_ledger_with_its_reason(take: Take, flawed: Json, stage: str, says: str) -> None:
    accepted, (refusal,) = take(good(), flawed)
    assert [one.index for one in accepted] == [0]
    assert (refusal.stage, refusal.index) == (stage, 1)
    assert says in refusal.reason and refusal.reason == refusal.evidence[0]
    assert bool(refusal.messages) != bool(refusal.raw), "what stood there can be looked up"


def test_all_that_is_wrong_with_a_row_is_told(take: Take) -> None:
    bad = calling(call(arguments="{"), call("get_ordr", id="b"))
    _, (refusal,) = take({**row(ASK, bad, result(), result(id="b"), {"role": "user"}, SYSTEM, DONE), "reward": 0.5})
    assert [re.sub(r": (not JSON).*", r": \1", one) for one in refusal.evidence] == [
        "messages[1].tool_calls[0].function.arguments: not JSON",
        "messages[5]: a second system message",
        "messages[1].tool_calls[1].function.name: 'get_ordr' is none of the tools",
        "reward 0.5 is below 1",
    ]


def test_failures_are_kept_if_they_are_wanted(take: Take) -> None:
    accepted, ledger = take(good(reward=0), row(ASK, DONE), min_reward=0)
    assert [one.reward for one in accepted] == [0, None] and not ledger


# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.parquet", "lines.json", "one.json"])
def test_every_kind_of_file_gives_the_same(tmp_path: Path, name: str) -> None:
    path, rows = tmp_path / name, [good(reward=1.0), good(reward=0.0), row(ASK, DONE)]
    if name == "rows.parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name == "one.json":
        rows = rows[:1]
        path.write_text(json.dumps(rows[0], indent=2), encoding="utf-8-sig")
    elif name == "rows.json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        write_lines(path, *rows)
    import_openai(path, tmp_path / "out")
    import_openai(write_lines(tmp_path / "as.jsonl", *rows), tmp_path / "as")
    assert [one.id for one in imported(tmp_path / "out")] == [one.id for one in imported(tmp_path / "as")]
    assert [one.index for one in refused(tmp_path / "out")] == [1][: len(rows) - 1]


def test_the_nulls_that_parquet_puts_into_arguments_are_none(tmp_path: Path) -> None:
    rows = [
        {"messages": [ASK, calling(call(arguments=arguments)), result(), DONE], "tools": json.dumps(TOOLS)}
        for arguments in ({"order_id": "W1"}, {"order_id": "W2", "count": 2})
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    import_openai(tmp_path / "rows.parquet", tmp_path / "out")
    calls = [one.arguments for made in imported(tmp_path / "out") for one in getattr(made.messages[1], "tool_calls", ())]
    assert calls == [{"order_id": "W1"}, {"order_id": "W2", "count": 2}]


@pytest.mark.parametrize("more", [{}, {"id": "a"}])
def test_a_parquet_file_without_conversations_is_refused_with_what_its_rows_hold(tmp_path: Path, more: dict[str, Json]) -> None:
    pq.write_table(pa.Table.from_pylist([{**more, "prompt": "Hi.", "response": "Ho."}]), tmp_path / "rows.parquet")
    assert import_openai(tmp_path / "rows.parquet", tmp_path / "out") == 1
    (refusal,) = refused(tmp_path / "out")
    assert "'prompt', 'response'" in refusal.reason and json.loads(refusal.raw) == {**more, "prompt": "Hi.", "response": "Ho."}


def test_the_sides_of_a_pair_are_seen_in_parquet_too(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"messages": [ASK, DONE], "chosen": [DONE], "rejected": [DONE]}]), tmp_path / "rows.parquet")
    assert import_openai(tmp_path / "rows.parquet", tmp_path / "out") == 1
    assert "preference pair" in refused(tmp_path / "out")[0].reason


def test_our_own_shards_can_be_imported(tmp_path: Path) -> None:
    import_openai(write_lines(tmp_path / "rows.jsonl", good(), row(ASK, DONE)), tmp_path / "first")
    (shard,) = (tmp_path / "first").glob("data/imported/*.parquet")
    import_openai(shard, tmp_path / "second")
    assert [one.id for one in imported(tmp_path / "second")] == [one.id for one in imported(tmp_path / "first")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00", "neither a JSON list of rows, nor JSON lines, nor Parquet"),
        (b"[{", "neither a JSON list of rows"),
        (b"3", "should hold a list of rows, and holds a single value"),
        (b'{"data":\n []}', "should hold a list of rows, and holds an object"),
        (b"[]", "holds no rows"),
        (b"PAR1nonsense", "is no Parquet file that can be read"),
        (gzip.compress(b"{}"), "is compressed: unpack it first, with gunzip -k .*file.json"),
    ],
)
def test_a_file_that_holds_no_rows_is_told_and_leaves_nothing_behind(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(DatasetError, match=says):
        import_openai(tmp_path / "file.json", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_a_line_that_is_no_text_is_one_refusal(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", good())
    path.write_bytes(path.read_bytes() + b'\xff\xfe{"a": 1}\n\n' + b"[" * 100_000 + b"\n")
    assert import_openai(path, tmp_path / "out") == 0
    assert ["decode" in one.reason or "deep" in one.reason for one in refused(tmp_path / "out")] == [True, True]


def test_many_rows_fill_many_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracemill.importing.write.SHARD_ROWS", 4)
    rows = [row({"role": "user", "content": f"Cancel W{number // 2}."}, DONE) for number in range(20)]
    import_openai(write_lines(tmp_path / "rows.jsonl", *rows), tmp_path / "out")
    assert len(list(tmp_path.glob("out/data/imported/*"))) == 3 and len(list(tmp_path.glob("out/rejects/*"))) == 3
    assert [one.index for one in imported(tmp_path / "out")] == list(range(0, 20, 2))
    assert verify(tmp_path / "out") == 0


# --- the folder ---------------------------------------------------------------------------------------------


def test_the_same_import_again_changes_nothing_and_another_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write_lines(tmp_path / "rows.jsonl", good(reward=0), row(ASK, DONE)), tmp_path / "out"
    out.mkdir()
    import_openai(path, out)
    before = {one: one.stat().st_mtime_ns for one in out.rglob("*")}
    told = capsys.readouterr().out
    assert import_openai(path, out) == 0
    assert told in capsys.readouterr().out
    assert {one: one.stat().st_mtime_ns for one in out.rglob("*")} == before
    with pytest.raises(DatasetError, match="holds another import"):
        import_openai(path, out, min_reward=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DatasetError, match="holds something else"):
        import_openai(path, tmp_path / "mine")


def test_the_commands_to_run_next_can_be_pasted_into_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_openai(write_lines(tmp_path / "rows.jsonl", good(), good(reward=0)), tmp_path / "it's here")
    told = capsys.readouterr().out
    for command in ("tracemill show", "tracemill verify"):
        assert shlex.split(told.partition(command)[2])[0].rstrip(",") == str(tmp_path / "it's here")


def test_a_run_is_never_overwritten(milled: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds a run: choose another --out"):
        import_openai(write_lines(tmp_path / "rows.jsonl", good()), milled)


def test_an_import_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(row: dict[str, Json]) -> Given:
        raise KeyboardInterrupt

    monkeypatch.setattr("tracemill.importing.openai.read_row", broken)
    with pytest.raises(KeyboardInterrupt):
        import_openai(write_lines(tmp_path / "rows.jsonl", good()), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_datasets_loads_what_was_imported(tmp_path: Path) -> None:
    from datasets import load_dataset

    bound = {"name": "count", "parameters": {"type": "object", "properties": {"n": {"minimum": -(2**63), "maximum": 2**64 - 1}}}}
    import_openai(write_lines(tmp_path / "rows.jsonl", good(tools=[*TOOLS, bound]), good(reward=0)), tmp_path / "out")
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows[0]["tools"][2]["function"]["parameters"] == bound["parameters"]
    assert rows[0]["messages"][2]["tool_calls"][0]["function"]["arguments"] == {"order_id": "W1"}
    assert load_dataset(str(tmp_path / "out"), "rejects", split="train", cache_dir=str(tmp_path / "cache"))["stage"] == ["goal"]


# --- the other commands -------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    failing = row(ASK, calling(call()), result("Error: no such order"), calling(call("cancel_order")), result(), DONE)
    out = tmp_path / "small"
    import_openai(write_lines(tmp_path / "rows.jsonl", good(reward=1), failing, "{broken", good(reward=0)), out)
    return out


def test_show_pages_through_conversations_and_refusals(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    show = {"id": None, "kind": None, "environment": None, "template": None, "limit": 20}
    show_traces(small, rejects=False, **show)  # type: ignore[arg-type]
    told = capsys.readouterr().out
    assert "rows.jsonl, row 1" in told and "wrong step, not trained" in told and "it was not replayed" in told
    show_traces(small, rejects=True, **show)  # type: ignore[arg-type]
    told = capsys.readouterr().out
    assert "failed  at row" in told and "{broken" in told and "reward 0 is below 1" in told
    with pytest.raises(DatasetError, match="imported conversations, which have no kind"):
        show_traces(small, rejects=False, **{**show, "kind": "tool_call"})  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="add --rejects"):
        show_traces(small, rejects=False, **{**show, "id": refused(small)[0].id})  # type: ignore[arg-type]


def test_stats_counts_what_is_known_of_them(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = measure_import(small)
    assert (report["traces"], report["tools"]["calls"], report["tools"]["failed_calls"]) == (2, 3, 1)
    assert [one["stage"] for one in report["refused"]] == ["row", "goal"]
    capsys.readouterr()
    show_stats(small, as_json=False)
    assert "2 conversations imported from rows.jsonl" in " ".join(capsys.readouterr().out.split())


def _reseal(row: dict[str, Any]) -> None:
    """A forger who knows how ids and digests are made."""
    sealed = from_row(Conversation, row).sealed()
    row.update(id=sealed.id, digest=sealed.digest)


def _say(row: dict[str, Any], at: int, **changed: Json) -> None:
    row["messages"][at] = json.dumps({**json.loads(row["messages"][at]), **changed})


@pytest.mark.parametrize(
    ("check", "change", "forged"),
    [
        ("digest", lambda row: _say(row, 0, content="Be rude."), False),
        ("digest", lambda row: row.update(reward=2.0), False),
        ("id", lambda row: row.update(id="im-0"), False),
        ("schema", lambda row: row["messages"].append("{"), False),
        ("schema", lambda row: _say(row, 1, role="bot"), False),
        ("structure", lambda row: row["messages"].pop(3), True),
        ("arguments", lambda row: row["tools"].clear(), True),
        ("structure", lambda row: _say(row, 3, content="Error: no"), True),
    ],
)
def test_verify_finds_what_was_changed(small: Path, check: str, change: Callable[[dict[str, Any]], None], forged: bool) -> None:
    assert verify(small) == 0
    (shard,) = small.glob("data/imported/*.parquet")
    rows = pq.read_table(shard).to_pylist()
    change(rows[0])
    if forged:
        _reseal(rows[0])
    pq.write_table(table(Conversation, rows), shard)
    report = small.parent / "report.jsonl"
    assert verify(small, report=report) == 1
    assert check in {json.loads(line)["check"] for line in report.read_text(encoding="utf-8").splitlines()}


def test_verify_misses_rows_that_are_gone(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shard,) = small.glob("rejects/*.parquet")
    rows = pq.read_table(shard).to_pylist()
    pq.write_table(table(Refusal, rows[1:]), shard)
    assert verify(small) == 1
    assert "of the rows 2" in capsys.readouterr().out
    shard.unlink()
    assert verify(small) == 1
    (small / "data/imported/part-00000.parquet").write_bytes(b"PAR1")
    assert verify(small) == 1


# --- anything at all ----------------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=()), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | WORDS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6)
NAMES = st.sampled_from(["get_order", "cancel_order", "no_such"]) | VALUES
CALLS = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": NAMES, "arguments": st.sampled_from(['{"order_id": "W1"}', "{", ""]) | VALUES}) | VALUES},
    optional={"id": st.sampled_from(["a", "b"]) | VALUES},
)
MESSAGES = VALUES | st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "assistant", "tool"]) | VALUES},
    optional={
        "content": st.sampled_from(["Hi", "Error: no"]) | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": WORDS}) | VALUES) | VALUES,
        "tool_calls": st.lists(CALLS | VALUES, max_size=3) | VALUES,
        "tool_call_id": st.sampled_from(["a", "b"]) | VALUES,
        "name": NAMES, "reasoning": VALUES, "refusal": VALUES, "weight": VALUES, "function_call": VALUES,
    },
)  # fmt: skip
ROWS = VALUES | st.fixed_dictionaries(
    {"messages": st.lists(MESSAGES, max_size=6) | VALUES},
    optional={"tools": st.just(TOOLS) | st.lists(VALUES, max_size=2) | VALUES, "reward": VALUES, "id": VALUES, "traj": VALUES},
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(ROWS, min_size=1, max_size=6))
@example([good(reward=10**400), good(reward=float("nan")), good(id="\ud800"), good(tools={"server": "\ud800", "tools": 3})])
@example([good(tools=[{"function": {"name": "x", "parameters": {"maximum": 10**400}}}])])
def test_whatever_the_rows_hold_none_is_lost(tmp_path_factory: pytest.TempPathFactory, rows: list[Json]) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    import_openai(folder / "rows.json", folder / "out")
    assert sorted(one.index for one in [*imported(folder / "out"), *refused(folder / "out")]) == list(range(len(rows)))
    assert verify(folder / "out") == 0


@settings(max_examples=150)
@given(st.lists(MESSAGES, max_size=6))
def test_each_message_becomes_one_or_the_conversation_is_not_taken(messages: list[Json]) -> None:
    given = read_row({"messages": messages})
    assert given.problems if given.messages is None else len(given.messages) == len(messages)


# --- the conversations of tau-bench -------------------------------------------------------------------------


@needs_tau
def test_the_airline_conversations_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert TAU is not None
    file, tools, out = TAU / "tau-bench-airline-gpt-4o.json", TAU / "tau-bench-airline-tools.json", tmp_path / "out"
    assert import_openai(file, out, tools=tools) == 0
    told = capsys.readouterr().out
    assert "200 rows, 84 accepted, 116 refused" in told
    accepted, ledger = imported(out), refused(out)
    assert Counter((one.stage, one.reason) for one in ledger) == {("goal", "reward 0 is below 1"): 116}
    assert Counter(one.messages[-1].role for one in accepted) == {"assistant": 49, "tool": 35}
    spoken = [message for one in accepted for message in one.messages if isinstance(message, AssistantMessage)]
    assert (len(spoken), sum(not message.train for message in spoken)) == (829, 13)
    assert {len(one.tools) for one in accepted} == {14}
    assert verify(out) == 0


@needs_tau
def test_with_their_failures_all_airline_conversations_import_and_all_73_errors_are_wrong_steps(tmp_path: Path) -> None:
    assert TAU is not None
    import_openai(TAU / "tau-bench-airline-gpt-4o.json", tmp_path / "out", tools=TAU / "tau-bench-airline-tools.json", min_reward=0)
    accepted = imported(tmp_path / "out")
    wrong = [sum(not message.train for message in one.messages if isinstance(message, AssistantMessage)) for one in accepted]
    assert (len(accepted), sum(wrong), sum(map(bool, wrong))) == (200, 73, 36)


@needs_tau
def test_without_their_tools_the_airline_conversations_say_what_is_missing(tmp_path: Path) -> None:
    assert TAU is not None
    import_openai(TAU / "tau-bench-airline-gpt-4o.json", tmp_path / "out")
    assert Counter(one.stage for one in refused(tmp_path / "out")) == {"arguments": 182, "goal": 14}
    assert len(imported(tmp_path / "out")) == 4, "those that call nothing"
