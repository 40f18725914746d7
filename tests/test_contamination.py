"""Benchmarks in the data: found by words and by tools, wherever in a file they stand; and nothing found that is not there."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracemill.errors import DatasetError
from tracemill.hygiene.benchmarks import Benchmark, read_benchmark
from tracemill.hygiene.contamination import Contamination, Match

LONG = "How many of the seven bridges over the river were still closed to heavy traffic at the end of last winter?"
SHORT = "Which city has the oldest bridge over the Danube?"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city.", "parameters": PARAMETERS}}


def benchmark(value: Any) -> Benchmark:
    made = Benchmark("b.json")
    made.take(value, "")
    return made


def found(asked: Any, *said: str, tools: tuple[Any, ...] = ()) -> list[Match]:
    messages = [{"role": "system", "content": LONG}, *({"role": "user", "content": one} for one in said)]
    return Contamination([benchmark(asked)]).matches(messages, [json.dumps(one) for one in tools])


SHAPES: list[Any] = [
    {"question": LONG},
    {"data": [{"id": 3, "user_query": LONG, "answer": "Two."}]},
    {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": LONG}]},
    {"conversations": [{"from": "human", "value": LONG}, {"from": "gpt", "value": "Two."}]},
    {"question": [[{"role": "user", "content": [{"type": "text", "text": LONG}]}]]},
    {"info": {"task": {"instruction": LONG, "user_id": "mia_1"}}},
    {"user_scenario": {"instructions": {"reason": LONG}}},
    {"messages": [json.dumps({"role": "user", "content": LONG})]},
    {"prompt": json.dumps([{"role": "user", "content": LONG}])},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_asked_is_found_in_any_shape(shape: Any) -> None:
    assert list(benchmark(shape).texts) == [LONG] or LONG in benchmark(shape).texts
    (match,) = found(shape, f"Hi! {LONG.upper()} Thanks.")
    assert (match.by, match.here) == ("text", "messages[1].content")
    assert match.what == " ".join(LONG.lower().split()[:13])


@pytest.mark.parametrize("shape", [{"answer": LONG}, {"messages": [{"role": "assistant", "content": LONG}]}, {"system_prompt": LONG}])
def test_what_is_answered_or_prescribed_is_not_asked(shape: Any) -> None:
    assert not benchmark(shape).texts


@pytest.mark.parametrize("file", ["b.json", "b.jsonl", "b.parquet"])
def test_each_kind_of_file_is_read_and_says_where_things_are(file: str, tmp_path: Path) -> None:
    rows: list[Any] = [{"question": SHORT, "tools": [TOOL]}, {"question": LONG, "tools": [TOOL]}]
    path = tmp_path / file
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    read = read_benchmark(path, path.name)
    assert read.texts == {SHORT: "[0].question", LONG: "[1].question"}
    assert list(read.tools.values()) == ["[0].tools[0]"]


@pytest.mark.parametrize(("text", "expected"), [("", "nothing to compare with"), ("{'a'", "neither JSON"), ('[{"label": 3}]', "'label'")])
def test_a_file_that_says_nothing_is_refused_with_what_was_found(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(DatasetError, match=expected):
        read_benchmark(tmp_path / "b.json", "b.json")


def test_a_compressed_file_is_refused_with_how_to_unpack_it(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps({"question": LONG}).encode()))
    with pytest.raises(DatasetError, match="gunzip -k"):
        read_benchmark(tmp_path / "b.jsonl.gz", "b.jsonl.gz")


@pytest.mark.parametrize("asked", ["请帮我查询一下明天上午从北京飞往上海的航班", "明日の東京の天気を教えてください。傘は必要ですか"])
def test_without_spaces_each_sign_is_a_word(asked: str) -> None:
    assert len(found({"question": asked}, f"你好！{asked}，谢谢。")) == 1
    assert found({"question": asked}, "你好！请问这件事情怎么办，谢谢。") == []
    assert found({"messages": [{"role": "user", "content": "Hi."}, {"role": "user", "content": asked}]}, asked) != []


def test_thirteen_words_in_a_row_are_enough_and_twelve_are_not() -> None:
    words = LONG.split()
    asked = {"question": LONG}
    assert found(asked, " ".join(["So", *words[3:16], "then"]))
    assert not found(asked, " ".join(["So", *words[3:15], "then"]))
    assert not found(asked, " ".join(words[:10]), " ".join(words[10:])), "not across messages"


def test_a_short_question_counts_as_a_whole_and_a_very_short_one_not_at_all() -> None:
    assert found({"question": SHORT}, f"Tell me: {SHORT.lower()}")
    assert not found({"question": SHORT}, SHORT.replace("oldest", "newest"))
    assert not found({"question": "Are you quite sure?"}, "Are you quite sure?")


def test_a_short_reply_later_in_a_benchmark_is_no_question() -> None:
    reply = "Yes, please go on and cancel both of them."
    talk = {"messages": [{"role": "user", "content": SHORT}, {"role": "assistant", "content": "?"}, {"role": "user", "content": reply}]}
    assert list(benchmark(talk).texts) == [SHORT]


MCP = {"name": "get-weather", "description": "Other words.", "inputSchema": PARAMETERS}


@pytest.mark.parametrize(
    "form", [TOOL, TOOL["function"], MCP, {"name": "getWeather", "input_schema": PARAMETERS} | {"name": "Get_Weather"}]
)
def test_a_tool_is_known_in_each_form_by_name_and_arguments(form: Any) -> None:
    (match,) = found({"tools": [form]}, tools=(TOOL,))
    assert (match.by, match.what, match.there) == ("tool", "get weather", "tools[0]")


def test_another_argument_makes_another_tool() -> None:
    other = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {}, "hours": {}}}}
    assert not found([other], tools=(TOOL,))


def test_a_tool_of_one_argument_needs_the_same_description() -> None:
    def one(description: str) -> Any:
        return {"name": "calculate", "description": description, "parameters": {"type": "object", "properties": {"expression": {}}}}

    assert found([one("Compute it.")], tools=(one("compute it"),))
    assert not found([one("Compute it.")], tools=(one("Evaluates a formula."),))


def test_a_call_in_a_benchmark_is_no_tool() -> None:
    assert not benchmark({"tool_calls": [{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Linz"}}}]}).tools


def test_what_two_benchmarks_hold_counts_for_both() -> None:
    both = [Benchmark("one"), Benchmark("two")]
    for one in both:
        one.take({"question": LONG, "tools": [TOOL]}, "")
    met = Contamination(both).matches([{"role": "user", "content": LONG}], [json.dumps(TOOL)])
    assert sorted((one.benchmark, one.by) for one in met) == [("one", "text"), ("one", "tool"), ("two", "text"), ("two", "tool")]
