"""ShareGPT in its dialects and the trajectories of tau-bench, each through the checks of every import."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tracemill.cli import app
from tracemill.columns import from_row
from tracemill.importing.check import structure_problems
from tracemill.importing.openai import import_openai
from tracemill.importing.sharegpt import read_row
from tracemill.importing.tau import import_tau
from tracemill.importing.tau import read_row as read_tau
from tracemill.trace import AssistantMessage, Conversation, Json
from tracemill.verify import verify

ROOT = Path(__file__).resolve().parents[1]
TAU = next((base / "shared/data" for base in (ROOT, ROOT.parent) if (base / "shared/data/tau-bench-airline-gpt-4o.json").is_file()), None)
needs_tau = pytest.mark.skipif(TAU is None, reason="shared/data/tau-bench-airline-gpt-4o.json is not here")

TOOL = {"name": "look", "description": "", "parameters": {"type": "object", "properties": {"order": {"type": "string"}}}}
CALL = '{"name": "look", "arguments": {"order": "W1"}}'
OTHER = '{"name": "look", "arguments": {"order": "W2"}}'


def row(*turns: tuple[str, Json], **more: Json) -> dict[str, Json]:
    return {"conversations": [{"from": who, "value": what} for who, what in turns], "tools": json.dumps([TOOL]), **more}


def read(*turns: tuple[str, Json], **more: Json) -> list[dict[str, Any]]:
    given = read_row(row(*turns, **more))
    assert given.problems == [] and given.messages is not None
    return [message.plain() for message in given.messages]


def orders(message: dict[str, Any]) -> list[str]:
    return [call["function"]["arguments"]["order"] for call in message["tool_calls"]]


LLAMA_FACTORY = [("human", "Look!"), ("function_call", f"<think>\nTwo.\n</think>\n\n[{CALL}, {OTHER}]"), ("gpt", "Done.")]
HERMES = [
    ("system", "You call tools."),
    ("human", "Look!"),
    ("gpt", f"<think>\nTwo.\n</think>\nI look.\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{OTHER}\n</tool_call>"),
    ("tool", "<tool_response>\nA\n</tool_response>\n<tool_response>\nB\n</tool_response>"),
    ("gpt", "Done."),
]


@pytest.mark.parametrize(
    "results",
    [
        [("observation", "A"), ("observation", "B")],
        [("observation", "A\n</tool_response>\n<tool_response>\nB")],
        [("tool", "<tool_response>\nA\n</tool_response>\n<tool_response>\nB\n</tool_response>")],
    ],
)
def test_results_answer_the_calls_before_them_in_order(results: list[tuple[str, Json]]) -> None:
    _, calling, first, second, end = read(*LLAMA_FACTORY[:2], *results, LLAMA_FACTORY[2])
    assert (calling["reasoning_content"], calling["content"], orders(calling)) == ("Two.", "", ["W1", "W2"])
    assert [(one["tool_call_id"], one["name"], one["content"]) for one in (first, second)] == [
        ("call_1", "look", "A"),
        ("call_2", "look", "B"),
    ]
    assert end["content"] == "Done."


def test_hermes_calls_stand_in_the_words_of_the_agent() -> None:
    system, _, calling, first, second, _ = read(*HERMES)
    assert system == {"role": "system", "content": "You call tools."}
    assert (calling["reasoning_content"], calling["content"], orders(calling)) == ("Two.", "I look.", ["W1", "W2"])
    assert (first["content"], second["content"]) == ("A", "B")


def test_words_and_a_call_in_two_turns_are_one_message() -> None:
    _, calling, _, _ = read(("human", "Look!"), ("gpt", "I look."), ("function_call", CALL), ("observation", "A"), ("gpt", "Done."))
    assert (calling["content"], orders(calling)) == ("I look.", ["W1"])


def test_a_thought_in_either_of_the_two_turns_is_kept_and_a_mark_on_either_keeps_both_out_of_the_loss() -> None:
    words, calls = (
        {"from": "gpt", "value": "<think>\nA\n</think>\nI look."},
        {"from": "function_call", "value": f"<think>\nB\n</think>\n{CALL}"},
    )
    for marks in ({"train": False}, {"weight": 0}):
        for first, second in (({**words, **marks}, {**calls, "train": True, "weight": 1}), (words, {**calls, **marks})):
            given = read_row({"conversations": [{"from": "human", "value": "Look!"}, first, second]})
            (_, made) = given.messages or ()
            assert isinstance(made, AssistantMessage) and not made.train and given.problems == []
            assert (made.reasoning_content, made.content) == ("A\nB", "I look.")
    (_, made) = read_row({"conversations": [{"from": "human", "value": "Look!"}, words, calls]}).messages or ()
    assert isinstance(made, AssistantMessage) and made.train


def test_words_around_a_call_stay_on_lines_of_their_own() -> None:
    block = f"<tool_call>\n{CALL}\n</tool_call>"
    for text, words in (
        (f"Before.\n{block}\nAfter.", "Before.\nAfter."),
        (f"Before.\n{block}\n{block}\nAfter.", "Before.\nAfter."),
        (f"Before.\n{block}After.", "Before.\nAfter."),
        (f"One,{block} two.", "One, two."),
        (f"\n{block}\nAfter.\n", "After.\n"),
        (f"Before.\n\n{block}\n", "Before.\n"),
    ):
        (_, made, *_) = read(("human", "Look!"), ("gpt", text))
        assert made["content"] == words


def test_a_call_that_has_two_results_is_refused() -> None:
    turns = [*HERMES[:2], ("gpt", f"<tool_call>{CALL}</tool_call>"), HERMES[3], HERMES[4]]
    given = read_row(row(*turns))
    assert given.messages is not None and [one.content for one in given.messages[3:5]] == ["A", "B"]
    assert "messages[4]: answers no call that is waiting" in structure_problems(given.messages)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "I look.", "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]},
        {"role": "assistant", "content": "I look.", "function_call": {"name": "look", "arguments": "{}"}},
        {"role": "assistant", "content": "I look.", "reasoning_content": "It must be found."},
        {"role": "tool", "content": "{}", "tool_call_id": "a"},
        {"role": "tool", "content": "{}", "name": "look"},
    ],
)
def test_messages_of_the_chat_api_are_not_read_as_turns_that_lose_their_calls(message: dict[str, Json]) -> None:
    turns = [{"role": "user", "content": "Look!"}, message]
    ((stage, problem),) = read_row({"messages": turns}).problems
    assert stage == "row" and "tracemill import openai" in problem


def test_a_system_message_that_differs_from_the_column_is_refused() -> None:
    turns = [("system", "Be brief."), ("human", "Hi."), ("gpt", "Ho.")]
    assert len(read(*turns, system="Be brief.\n")) == 3
    assert read_row(row(*turns, system="Be rude.")).problems == [
        ("schema", "system: it says something else than the system message among the turns")
    ]


def test_the_system_message_may_be_a_column_and_turns_may_be_text_with_other_keys() -> None:
    turns = json.dumps([{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello.", "train": True}])
    given = read_row({"messages": turns, "system": "Be brief.", "id": 7, "reward": 1})
    assert given.messages is not None and [one.role for one in given.messages] == ["system", "user", "assistant"]
    assert (given.row_id, given.reward, given.tools) == ("7", 1.0, None)


def test_a_turn_may_say_that_it_is_not_to_be_learnt() -> None:
    turns = [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Ho.", "weight": 0}]
    (_, spoken) = read_row({"conversations": turns}).messages or ()
    assert isinstance(spoken, AssistantMessage) and not spoken.train


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        ([("bot", "Hi.")], "got 'bot'"),
        ([("human", 3)], "expected text, got a number"),
        ([("human", "Hi."), ("function_call", "{'name': 'look'}")], "not JSON"),
        ([("human", "Hi."), ("gpt", "<tool_call>\n{broken\n</tool_call>")], "not JSON"),
        ([("human", "Hi."), ("function_call", "[3]")], "expected an object with a `function`"),
        ([("human", "Hi."), ("function_call", '{"arguments": {}}')], "expected the name of a tool"),
        ([("human", "Hi."), ("function_call", "")], "turns[1]: where a call should stand there is none"),
        ([("human", "Hi."), ("gpt", "I look."), ("function_call", {"name": "look"})], "expected text, got an object"),
        ([("human", "Hi."), ("gpt", "I look.\n<tool_call>\n[]\n</tool_call>")], "turns[1]: where a call should stand there is none"),
        ([("human", "Hi."), ("gpt", f"I look.\n<tool_call>\n{CALL}")], "turns[1]: <tool_call> without its counterpart"),
        ([("human", "Hi."), ("gpt", f"I look.\n{CALL}\n</tool_call>")], "turns[1]: </tool_call> without its counterpart"),
        ([("human", "Hi."), ("gpt", "<think>\nThe order is open.")], "turns[1]: <think> without its counterpart"),
        ([("human", "Hi."), ("gpt", "The order is open.\n</think>\nIt is open.")], "turns[1]: </think> without its counterpart"),
    ],
)
def test_what_cannot_be_read_is_told(turns: list[tuple[str, Json]], says: str) -> None:
    assert any(says in problem for _, problem in read_row(row(*turns)).problems)


def test_a_row_with_pictures_is_not_learnt_from_its_words_alone() -> None:
    talk = row(("human", "<image>What is this?"), ("gpt", "A cat."))
    assert read_row({**talk, "images": ["cat.png"]}).problems == [("schema", "images: only text can be imported")]
    assert read_row({**talk, "images": [], "videos": None}).problems == []


@pytest.mark.parametrize("value", [{}, {"text": "Hi."}, {"conversations": None}])
def test_a_row_without_turns_is_refused(value: dict[str, Json]) -> None:
    assert read_row(value).problems[0][0] == "row"
    assert read_row({"conversations": "Hi."}).problems == [("schema", "messages: expected a list, got text")]
    assert read_row({"conversations": [3, None]}).messages is None


def test_the_command_imports_and_refuses_with_reasons(tmp_path: Path) -> None:
    rows = [row(*HERMES), row(*LLAMA_FACTORY[:2], ("observation", "A"), ("gpt", "Done.")), row(("human", "Hi."))]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    ran = CliRunner().invoke(app, ["import", "sharegpt", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0 and "3 rows, 1 accepted, 2 refused" in ran.output and "was answered" in ran.output
    assert verify(tmp_path / "out") == 0
    assert json.loads((tmp_path / "out/run.json").read_text())["import"]["format"] == "sharegpt"


# --- tau-bench --------------------------------------------------------------------------------------------------

TRAJECTORY: dict[str, Json] = {
    "task_id": 3, "trial": 1, "reward": 1.0, "info": {"reward_info": {"reward": 1.0}},
    "traj": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}],
}  # fmt: skip


def test_a_trajectory_is_named_by_task_and_trial() -> None:
    given = read_tau(TRAJECTORY)
    assert (given.row_id, given.reward, given.problems) == ("task 3 trial 1", 1.0, [])
    assert read_tau({**TRAJECTORY, "info": json.dumps(TRAJECTORY["info"])}).problems == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"traj": None}, "has `traj`, and this row has not"),
        ({"task_id": None, "reward": None}, "has `task_id` and `reward`"),
        ({"info": {"reward_info": {"reward": 0.0}}}, "reward: 1.0, but info.reward_info.reward is 0.0"),
    ],
)
def test_what_is_no_trajectory_of_tau_bench_is_refused(change: dict[str, Json], says: str) -> None:
    ((stage, problem),) = read_tau({**TRAJECTORY, **change}).problems
    assert stage == "row" and says in problem


def test_a_run_that_broke_off_has_no_reward_info() -> None:
    assert read_tau({**TRAJECTORY, "info": {}, "reward": 0.0}).problems == []


@needs_tau
def test_the_airline_trajectories_are_those_that_the_chat_format_gives_with_their_names(tmp_path: Path) -> None:
    assert TAU is not None
    file, tools = TAU / "tau-bench-airline-gpt-4o.json", TAU / "tau-bench-airline-tools.json"
    assert (
        import_tau(file, tmp_path / "tau", tools=tools, min_reward=0)
        == import_openai(file, tmp_path / "chat", tools=tools, min_reward=0)
        == 0
    )
    made = {name: _imported(tmp_path / name) for name in ("tau", "chat")}
    assert [one.id for one in made["tau"]] == [one.id for one in made["chat"]] and len(made["tau"]) == 200
    assert Counter(one.row_id.split()[3] for one in made["tau"]) == dict.fromkeys("0123", 50)
    assert len({one.row_id for one in made["tau"]}) == 200 and verify(tmp_path / "tau") == 0
    assert sum(one.reward == 1 for one in made["tau"]) == 84


def _imported(out: Path) -> list[Conversation]:
    return [from_row(Conversation, one) for path in sorted(out.glob("data/imported/*.parquet")) for one in pq.read_table(path).to_pylist()]
