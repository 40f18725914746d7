"""Runs and imported conversations in other formats: each is read as its consumer reads it, and no wrong step is ever learnt."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import PATIENCE
from typer.testing import CliRunner

from tracemill.annotating.export import Trajectories
from tracemill.cli import app
from tracemill.columns import from_row, table, to_row
from tracemill.errors import ConfigError, DatasetError
from tracemill.exporting.driver import FORMS, export
from tracemill.exporting.form import Example, Notes, before_wrong, spans
from tracemill.exporting.sharegpt import BETWEEN_RESULTS, TAGS
from tracemill.exporting.sts import acts, similarity
from tracemill.importing.openai import import_openai
from tracemill.importing.openai import read_row as read_openai
from tracemill.importing.sharegpt import import_sharegpt
from tracemill.importing.sharegpt import read_row as read_sharegpt
from tracemill.importing.tau import import_tau
from tracemill.trace import Conversation, Json, Preference

ROOT = Path(__file__).resolve().parents[1]
TAU = next((base / "shared/data" for base in (ROOT, ROOT.parent) if (base / "shared/data/tau-bench-airline-gpt-4o.json").is_file()), None)
needs_tau = pytest.mark.skipif(TAU is None, reason="shared/data/tau-bench-airline-gpt-4o.json is not here")

SCHEMA = {"type": "object", "properties": {"order": {"type": "string"}, "note": {"type": "string"}}, "required": ["order"]}
TOOLS = [{"type": "function", "function": {"name": name, "description": "", "parameters": SCHEMA}} for name in ("look", "cancel")]
SYSTEM = {"role": "system", "content": "You work for a shop."}
SPOILT = "BLUNDER"


def ask(text: str = "Cancel W1.") -> dict[str, Json]:
    return {"role": "user", "content": text}


def act(*calls: tuple[str, dict[str, Json]], words: str = "", thought: str = "", **more: Json) -> dict[str, Json]:
    made = [{"id": f"c{at}", "type": "function", "function": {"name": name, "arguments": given}} for at, (name, given) in enumerate(calls)]
    return {"role": "assistant", "content": words, "reasoning_content": thought or None, **({"tool_calls": made} if made else {}), **more}


def told(text: str = "{}", at: int = 0) -> dict[str, Json]:
    return {"role": "tool", "tool_call_id": f"c{at}", "content": text}


LOOK = ("look", {"order": "W1"})
BLUNDER = act(("cancel", {"order": SPOILT}), thought=SPOILT, weight=0)
PLAIN = [SYSTEM, ask(), act(LOOK, thought="It must be found."), told('{"status": "open"}'), act(words="It is open.")]
PARALLEL = [ask("Both!"), act(LOOK, ("cancel", {"order": "W2"}), words="I look."), told("A"), told("B", 1), act(words="Done.")]
LATE_WRONG = [
    ask("Look, then."),
    act(LOOK),
    told(),
    BLUNDER,
    told("Error: no"),
    act(("cancel", {"order": "W1"})),
    told("ok"),
    act(words="Gone."),
]
FIRST_WRONG = [ask("Go on."), BLUNDER, told("Error: no"), act(LOOK, thought="Look first."), told(), act(words="Here it is.")]
ENDING = [ask("Hand me over."), act(("cancel", {"order": "W3"})), told("handed over")]
SPEAKS_UP = [ask("Look."), act(LOOK), told("open"), ask("Quick!"), act(words="It is open.")]
TAGGED = [ask("Say it."), act(words="I write <tool_call> for a call.")]
ALL = [PLAIN, PARALLEL, LATE_WRONG, FIRST_WRONG, ENDING, SPEAKS_UP, TAGGED]
WRONG_STEPS = "wrong steps of the agent: context, never learnt"


def write_lines(path: Path, rows: list[Json]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def imported(out: Path) -> list[Conversation]:
    made = [from_row(Conversation, row) for path in out.glob("data/imported/*.parquet") for row in pq.read_table(path).to_pylist()]
    return sorted(made, key=lambda one: one.index)


def pair(number: int, prompt: list[Json], chosen: Json, rejected: Json) -> Preference:
    def ours(messages: list[Json]) -> tuple[Any, ...]:
        return tuple(one.model_dump() for one in read_openai({"messages": messages}).messages or ())

    (good,), (bad,) = ours([ask(), chosen])[1:], ours([ask(), rejected])[1:]
    values = {"prompt": ours(prompt), "chosen": (good,), "rejected": (bad,), "tools": tuple(TOOLS), "source": "siblings", "margin": 1.0}
    return Preference.model_validate({"id": f"p{number}", "trace": "t", "index": number, **values})


PAIRS = [
    pair(0, [SYSTEM, ask()], act(words="Shall I?", thought="Ask first."), act(("cancel", {"order": "W1"}))),
    pair(1, [SYSTEM, ask()], act(LOOK, thought="It must be found."), act(LOOK)),
    pair(2, SPEAKS_UP[:4], act(words="It is open."), act(LOOK)),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven conversations and three pairs, among them all that a format may have no place for."""
    folder = tmp_path_factory.mktemp("source")
    out = folder / "run"
    assert import_openai(write_lines(folder / "rows.jsonl", [{"messages": one, "tools": TOOLS} for one in ALL]), out) == 0
    assert len(imported(out)) == len(ALL)
    (out / "preferences").mkdir()
    pq.write_table(table(Preference, [to_row(one) for one in PAIRS]), out / "preferences/part-00000.parquet")
    return out


Made = Callable[..., Path]


@pytest.fixture
def made(source: Path, tmp_path: Path) -> Made:
    """Exports; gives the folder."""

    def run(form: str, out: Path = source) -> Path:
        folder = tmp_path / f"{out.name}-{form}"
        assert export(out, folder, form=form) == 0
        return folder

    return run


def noted(folder: Path) -> Counter[str]:
    return Counter(json.loads((folder / "export.json").read_text(encoding="utf-8"))["notes"])


# --- what may be learnt -----------------------------------------------------------------------------------------


def test_runs_of_good_messages_lie_between_wrong_steps() -> None:
    marked = [{**one, "train": one.get("weight") != 0} for one in LATE_WRONG]
    assert spans(marked) == [(1, 2), (5, 8)]
    assert before_wrong(marked) == marked[:3]
    assert before_wrong([{**one, "train": one.get("weight") != 0} for one in FIRST_WRONG]) == []


@pytest.mark.parametrize("form", FORMS)
def test_every_format_says_what_it_read_wrote_and_left_out(made: Made, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(form)
    record, readme, said = json.loads((folder / "export.json").read_text()), (folder / "README.md").read_text(), capsys.readouterr().out
    assert record["read"] == {"conversations": 7, "preference pairs": 3} and "7 conversations" in readme and "3 preference pairs" in readme
    for name, number in record["rows"].items():
        there = pq.read_metadata(folder / name).num_rows if name.endswith(".parquet") else len(lines(folder / name))
        assert there == number and f"| `{name}` | {number:,} |" in readme and name in said
    for note, number in record["notes"].items():
        assert number > 0 and f"| {number:,} | {note} |" in readme and note in said
    assert "Next: " in said and "$" not in readme
    assert {one.name for one in folder.iterdir()} >= {"README.md", "export.json", *record["rows"]}


# --- trl: read by TRL itself ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import CHAT_TEMPLATE, build_tiny_model
    from transformers import AutoTokenizer

    folder = build_tiny_model(tmp_path_factory.mktemp("tiny"))
    start = '{%- if message.reasoning_content -%}{{- "<think>'
    marked = CHAT_TEMPLATE.replace(start, "{%- generation -%}" + start, 1)
    end = '{{- "<|im_end|>\n" -}}\n    {%- elif message.role == "tool" -%}'
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = marked.replace(end, '{{- "<|im_end|>\n" -}}{%- endgeneration -%}\n    {%- elif message.role == "tool" -%}', 1)
    assert tokenizer.chat_template.count("generation") == 3
    tokenizer.save_pretrained(folder)
    return folder


def test_trl_learns_every_good_message_once_and_nothing_else(made: Made, source: Path, tiny: Path, tmp_path: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    folder, tokenizer = made("trl"), AutoTokenizer.from_pretrained(tiny)
    rows = load_dataset(str(folder), "sft", split="train", cache_dir=str(tmp_path / "cache"))
    config = SFTConfig(output_dir=str(tmp_path / "out"), assistant_only_loss=True, max_length=None, use_cpu=True, bf16=False, report_to=[])
    trainer = SFTTrainer(model=str(tiny), args=config, train_dataset=rows, processing_class=tokenizer)
    learnt = [tokenizer.decode([one for one in row["labels"] if one != -100]) for row in trainer.train_dataset]
    seen = [tokenizer.decode(row["input_ids"]) for row in trainer.train_dataset]
    expected = [body(one) for told in imported(source) for one in told.plain()["messages"] if one["role"] == "assistant" and one["train"]]
    assert len(rows) == 8, "the conversation with a wrong step in its midst is two rows"
    assert "".join(learnt) == "".join(expected)
    assert SPOILT not in "".join(learnt) and SPOILT in "".join(seen)
    assert rows[0]["completion"][0]["tool_calls"][0]["function"]["arguments"] == {"order": "W1"}, "no key is filled in"
    assert noted(folder)[WRONG_STEPS] == 2


def test_trl_is_offered_no_tools_where_there_are_none(made: Made, tiny: Path, tmp_path: Path) -> None:
    import trl
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    talks = [{"messages": [ask("Hi."), act(words="Ho.")]}, {"messages": PLAIN, "tools": TOOLS}]
    assert import_openai(write_lines(tmp_path / "talks.jsonl", talks), tmp_path / "talks") == 0
    rows = load_dataset(str(made("trl", tmp_path / "talks")), "sft", split="train", cache_dir=str(tmp_path / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = Path(trl.__file__).with_name("chat_templates").joinpath("llama3_1.jinja").read_text()
    config = SFTConfig(output_dir=str(tmp_path / "out"), max_length=None, use_cpu=True, bf16=False, report_to=[])
    trainer = SFTTrainer(model=str(tiny), args=config, train_dataset=rows, processing_class=tokenizer)
    seen = [tokenizer.decode(row["input_ids"]) for row in trainer.train_dataset]
    assert ["Given the following functions" in one for one in seen] == [False, True]


def body(message: dict[str, Json]) -> str:
    """What the tiny template writes for the agent, with the token at which it stops."""
    thought = f"<think>\n{message['reasoning_content']}\n</think>\n" if message.get("reasoning_content") else ""
    calls = [
        f'<tool_call>\n{{"name": "{one["function"]["name"]}", "arguments": {json.dumps(one["function"]["arguments"])}}}\n</tool_call>'
        for one in message.get("tool_calls") or ()
    ]
    return thought + "\n".join([*([message["content"]] if message["content"] else []), *calls]) + "<|im_end|>\n"


def test_trl_reads_the_pairs(made: Made, tiny: Path, tmp_path: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    rows = load_dataset(str(made("trl")), "dpo", split="train", cache_dir=str(tmp_path / "cache"))
    config = DPOConfig(output_dir=str(tmp_path / "out"), max_length=None, use_cpu=True, bf16=False, report_to=[])
    trainer = DPOTrainer(model=str(tiny), args=config, train_dataset=rows, processing_class=tokenizer)
    sides = [(tokenizer.decode(row["chosen_ids"]), tokenizer.decode(row["rejected_ids"])) for row in trainer.train_dataset]
    plain = [one.plain() for one in PAIRS]
    assert sides == [(body(one["chosen"][0]), body(one["rejected"][0])) for one in plain]
    assert '"name": "cancel"' in tokenizer.decode(trainer.train_dataset[0]["prompt_ids"]), "the tools are told"


def alone(source: Path, part: str, folder: Path) -> Path:
    """A copy of a run that has only its conversations (`data`), or only its pairs (`preferences`)."""
    out = folder / f"only-{part}"
    shutil.copytree(source / part, out / part)
    shutil.copy(source / "run.json", out)
    return out


@pytest.mark.parametrize(("part", "name", "number"), [("data", "sft", 8), ("preferences", "dpo", 3)])
def test_trl_is_told_of_no_file_that_was_not_written(made: Made, source: Path, tmp_path: Path, part: str, name: str, number: int) -> None:
    from datasets import get_dataset_config_names, load_dataset

    folder = str(made("trl", alone(source, part, tmp_path)))
    assert get_dataset_config_names(folder) == [name]
    assert len(load_dataset(folder, name, split="train", cache_dir=str(tmp_path / "cache"))) == number


# --- openai: read by the types of its package -------------------------------------------------------------------


def test_openai_takes_every_line(made: Made) -> None:
    from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
    from pydantic import TypeAdapter

    messages, tools = TypeAdapter(list[ChatCompletionMessageParam]), TypeAdapter(list[ChatCompletionToolParam])
    folder = made("openai")
    rows = lines(folder / "train.jsonl")
    assert len(rows) == 7
    for row in rows:
        assert set(row) == {"messages", "tools", "parallel_tool_calls"} and row["messages"][-1]["role"] == "assistant"
        assert tools.validate_python(row["tools"], strict=True) == row["tools"] == TOOLS
        unweighted = [{key: value for key, value in one.items() if key != "weight"} for one in row["messages"]]
        taken = [
            {**one, **({"tool_calls": list(one["tool_calls"])} if "tool_calls" in one else {})}
            for one in messages.validate_python(unweighted)
        ]
        assert taken == unweighted, "no key that the API does not know"
    weights = [[one.get("weight", 1) for one in row["messages"]] for row in rows]
    assert weights[2] == [1, 1, 1, 0, 1, 1, 1, 1] and all(
        any(one["role"] == "assistant" and one.get("weight") != 0 for one in row["messages"]) for row in rows
    )
    assert json.loads(rows[0]["messages"][2]["tool_calls"][0]["function"]["arguments"]) == {"order": "W1"}
    assert noted(folder)["conversations without the results after the agent's last message, from which nothing is learnt"] == 1


def test_openai_gets_no_pair_whose_sides_are_the_same_without_their_thoughts(made: Made) -> None:
    folder = made("openai")
    rows = lines(folder / "preferences.jsonl")
    assert [set(row) for row in rows] == [{"input", "preferred_output", "non_preferred_output"}] * 2
    assert rows[0]["preferred_output"] == [{"role": "assistant", "content": "Shall I?"}]
    assert rows[0]["non_preferred_output"][0]["tool_calls"][0]["function"] == {"name": "cancel", "arguments": '{"order": "W1"}'}
    assert noted(folder)["preference pairs left out: without their thoughts both sides are the same"] == 1


def test_openai_gets_no_tool_whose_name_it_refuses() -> None:
    notes: Notes = Counter()
    tools = [{"type": "function", "function": {"name": "shop.look", "parameters": {}}}]
    assert list(FORMS["openai"]().example(Example("a", [ask(), act(words="Hi.")], tools), notes)) == []
    assert "the name of a tool" in next(iter(notes))


# --- llama-factory: its rules, restated -------------------------------------------------------------------------


def llama_factory_reads(row: dict[str, Any], *, ranking: bool = False) -> list[list[dict[str, Json]]]:
    """The calls of each function_call turn, as LLaMA-Factory 0.9.5 reads the row, which it must not skip.

    data/converter.py, SharegptDatasetConverter: human or observation at even places, gpt or function_call at odd ones; an even number of
    turns, with `ranking` an odd one. data/formatter.py, FunctionFormatter: what stands between <tool_call> tags, or else all but the
    thought, is JSON, an object or a list, each with `name` and `arguments`. data/processor/supervised.py learns every odd place.
    """
    turns = row["conversations"]
    assert len(turns) % 2 == (1 if ranking else 0) and turns
    for at, turn in enumerate(turns):
        assert turn["from"] in (("gpt", "function_call") if at % 2 else ("human", "observation"))
    found = []
    for turn in [*turns, *([row["chosen"], row["rejected"]] if ranking else [])]:
        assert set(turn) == {"from", "value"} and isinstance(turn["value"], str)
        if turn["from"] == "function_call":
            between = re.search(r"<tool_call>(.*?)</tool_call>", turn["value"], re.DOTALL)
            said = json.loads(between[1] if between else re.sub(r"<think>\n.*?\n</think>\n\n", "", turn["value"], flags=re.DOTALL))
            found.append([{"name": one["name"], "arguments": one["arguments"]} for one in (said if isinstance(said, list) else [said])])
    for tool in json.loads(row["tools"]):
        assert isinstance(tool["parameters"]["properties"], dict), "data/tool_utils.py, DefaultToolUtils reads it"
    assert isinstance(row["system"], str)
    return found


def test_llama_factory_skips_no_row_and_learns_no_wrong_step(made: Made) -> None:
    folder = made("llama-factory")
    rows, after = lines(folder / "sft.jsonl"), lines(folder / "after_wrong_steps.jsonl")
    calls = [llama_factory_reads(row) for row in rows]
    assert SPOILT not in json.dumps(rows)
    assert calls[1] == [[{"name": "look", "arguments": {"order": "W1"}}, {"name": "cancel", "arguments": {"order": "W2"}}]]
    assert rows[1]["conversations"][1]["value"].startswith("I look.\n<tool_call>[")
    assert rows[1]["conversations"][2] == {"from": "observation", "value": f"A{BETWEEN_RESULTS}B"}
    assert [[turn["from"] for turn in row["conversations"]] for row in rows[2:]] == [["human", "function_call"]] * 3
    assert rows[0]["conversations"][1]["value"] == '<think>\nIt must be found.\n</think>\n\n{"name": "look", "arguments": {"order": "W1"}}'
    for row in after:
        llama_factory_reads(row)
        assert SPOILT not in row["conversations"][-1]["value"] and SPOILT in json.dumps(row), "only the last turn is learnt"
    assert len(after) == 4, "two good messages after the wrong step of each of two conversations"
    notes = noted(folder)
    assert notes["conversations left out: a message or a result holds a tag of the format, such as <tool_call>"] == 1
    assert notes["conversations cut where somebody speaks before the agent has answered: the form alternates strictly"] == 1


def test_llama_factory_is_told_of_its_files_and_masks_history_where_wrong_steps_are(made: Made) -> None:
    folder = made("llama-factory")
    info = json.loads((folder / "dataset_info.json").read_text())
    assert {one["file_name"] for one in info.values()} == {one.name for one in folder.glob("*.jsonl")}
    for one in info.values():
        row = lines(folder / one["file_name"])[0]
        assert one["formatting"] == "sharegpt" and set(one["columns"].values()) <= set(row)
        assert one["columns"]["messages"] == "conversations", "parser.py sets what is not named to None"
    recipes = {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")}
    assert {name: recipe.get("mask_history", False) for name, recipe in recipes.items()} == {
        "sft": False, "after_wrong_steps": True, "preferences": False,
    }  # fmt: skip
    assert all(recipe["dataset"] in info for recipe in recipes.values())


def test_llama_factory_says_of_a_conversation_without_a_row_that_it_is_left_out() -> None:
    notes: Notes = Counter()
    assert list(FORMS["llama-factory"]().example(Example("a", [ask("One."), ask("Two."), act(words="Yes.")], []), notes)) == []
    assert dict(+notes) == {"conversations left out: somebody speaks before the agent has answered, and the form alternates strictly": 1}


def test_llama_factory_ranks_the_pairs(made: Made) -> None:
    folder = made("llama-factory")
    rows = lines(folder / "preferences.jsonl")
    assert [[len(calls) for calls in llama_factory_reads(row, ranking=True)] for row in rows] == [[1], [1, 1]]
    assert rows[1]["chosen"]["value"] != rows[1]["rejected"]["value"], "a thought sets them apart"
    assert noted(folder)["preference pairs left out: somebody speaks before the agent has answered, and the form alternates strictly"] == 1


# --- axolotl: its rules, restated -------------------------------------------------------------------------------


def test_axolotl_learns_what_is_marked(made: Made, tmp_path: Path) -> None:
    """axolotl 0.19, prompt_strategies/chat_template.py: `message_field_training` decides where it is given, the role else; nulls are taken away;
    `tool_calls[].function.arguments` and `tools` are parsed where they are text; all other keys go to the template as they are."""
    from datasets import load_dataset

    folder = made("axolotl")
    (data,) = yaml.safe_load((folder / "axolotl.yaml").read_text())["datasets"]
    assert (data["type"], data["message_field_training"], data["roles_to_train"]) == ("chat_template", "train", ["assistant"])
    rows = load_dataset("json", data_files=str(folder / data["path"]), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 7
    for row, messages in zip(rows, ALL, strict=True):
        assert json.loads(row["tools"]) == TOOLS
        for one, went_out in zip(row[data["field_messages"]], messages, strict=True):
            learnt = one["role"] in data["roles_to_train"] if one.get("train") is None else one["train"]
            assert learnt == (went_out["role"] == "assistant" and went_out.get("weight") != 0)
            calls = [json.loads(call["function"]["arguments"]) for call in one.get("tool_calls") or ()]
            assert calls == [call["function"]["arguments"] for call in went_out.get("tool_calls", ())]
            assert isinstance(one["content"], str) and one.get("reasoning_content") == went_out.get("reasoning_content")


# --- instruct, sharegpt, sts ------------------------------------------------------------------------------------


def test_instruct_outputs_hold_thoughts_calls_and_words_and_never_a_result_or_a_wrong_step(made: Made) -> None:
    rows = lines(made("instruct") / "train.jsonl")
    first, second = rows[:2]
    assert (
        first["output"]
        == '<think>\nIt must be found.\n</think>\n\n<tool_call>\n{"name": "look", "arguments": {"order": "W1"}}\n</tool_call>'
    )
    assert second["output"] == "It is open." and second["input"].endswith('# Result of look\n{"status": "open"}\n\n# Agent\n')
    assert second["input"].startswith(first["input"] + first["output"])
    learnt = [one for told in ALL for one in told if one["role"] == "assistant" and one.get("weight") != 0]
    assert len(rows) == len(learnt) and SPOILT not in json.dumps([row["output"] for row in rows]) and SPOILT in json.dumps(rows)


def test_sharegpt_holds_no_wrong_step_at_all(made: Made) -> None:
    folder = made("sharegpt")
    rows = lines(folder / "conversations.jsonl")
    assert SPOILT not in json.dumps(rows)
    assert [turn["from"] for turn in rows[1]["conversations"]] == ["human", "function_call", "observation", "observation", "gpt"]
    assert len(rows) == 5 and sum(noted(folder).values()) == 3 + 3


def test_a_score_is_the_mean_of_the_shares_of_tools_and_of_arguments_in_common(made: Made) -> None:
    one, other = Example("a", [act(LOOK, ("cancel", {"order": "W1", "note": "n"}))], []), Example("b", [act(LOOK)], [])
    assert acts(other) == {("look",), ("look", "order", '"W1"')}
    assert similarity(acts(one), acts(other)) == 0.4167 and similarity(acts(one), acts(one)) == 1.0
    rows = lines(made("sts") / "pairs.jsonl")
    assert {tuple(row) for row in rows} == {("sentence1", "sentence2", "score")} and all(0 <= row["score"] <= 1 for row in rows)
    assert len({(row["sentence1"], row["sentence2"]) for row in rows}) == len(rows)


def test_two_requests_are_compared_once_though_the_last_one_is_also_the_last_for_its_tools() -> None:
    form, notes = FORMS["sts"](), Counter[str]()
    texts = ["Look.", "Look.", "Look again.", "Look again."]
    rows = [row for text in texts for _, row in form.example(Example("a", [ask(text), act(LOOK)], []), notes)]
    assert [(row["sentence1"], row["sentence2"]) for row in rows] == [("Look.", "Look again.")]
    assert dict(+notes) == {"pairs left out: both requests are the same text": 2}


def test_requests_of_a_run_are_more_alike_when_they_ask_for_the_same(milled: Path, made: Made) -> None:
    scores = [row["score"] for row in lines(made("sts", milled) / "pairs.jsonl")]
    assert min(scores) == 0.0 and 0.5 <= max(scores) <= 1.0, "0.5 where the same tools were called"


# --- there and back ---------------------------------------------------------------------------------------------

BACK: dict[str, tuple[str, Callable[..., int]]] = {
    "openai": ("train.jsonl", import_openai),
    "axolotl": ("train.jsonl", import_openai),
    "sharegpt": ("conversations.jsonl", import_sharegpt),
    "llama-factory": ("sft.jsonl", import_sharegpt),
}


def there_and_back(out: Path, form: str, work: Path) -> tuple[int, int, int]:
    """Rows written, rows taken in again, and those whose messages and tools are just the ones that went out.

    Results at the end, from which nothing is learnt, do not go out in some formats.
    """
    file, take = BACK[form]
    assert export(out, work / form, form=form) == 0
    take(work / form / file, work / f"{form}-back", min_reward=0)
    kept = {as_text(one, form) for one in records(out)}
    back = [as_text(one, form) for one in imported(work / f"{form}-back")]
    return len(lines(work / form / file)), len(back), sum(one in kept for one in back)


def records(out: Path) -> Iterator[dict[str, Json]]:
    for path in sorted(out.glob("data/*/*.parquet")):
        for row in pq.read_table(path, columns=["messages", "tools"], partitioning=None).to_pylist():
            yield {name: [json.loads(one) for one in row[name]] for name in ("messages", "tools")}


def as_text(one: Conversation | dict[str, Json], form: str) -> str:
    """Messages and tools; without thoughts where the format has no place for them, and without marks: an import makes its own."""
    plain = one.plain() if isinstance(one, Conversation) else one
    lost = {"train", "reasoning_content"} if form == "openai" else {"train"}
    return json.dumps(
        [[{key: value for key, value in message.items() if key not in lost} for message in plain["messages"]], plain["tools"]],
        sort_keys=True,
    )


@pytest.mark.parametrize(
    ("form", "expected"), [("openai", (7, 7, 6)), ("axolotl", (7, 7, 7)), ("sharegpt", (5, 5, 4)), ("llama-factory", (5, 5, 2))]
)
def test_what_a_format_can_hold_comes_back_as_it_was(source: Path, tmp_path: Path, form: str, expected: tuple[int, int, int]) -> None:
    assert there_and_back(source, form, tmp_path) == expected


@pytest.mark.parametrize("form", BACK)
def test_a_run_comes_back_as_it_was(milled: Path, tmp_path: Path, form: str) -> None:
    written, back, same = there_and_back(milled, form, tmp_path)
    assert written > 50 and same > 35 and (same == back or form in ("sharegpt", "llama-factory")), "cut ones come back cut"


@needs_tau
@pytest.mark.parametrize(
    ("form", "expected"),
    [("openai", (200, 200, 149)), ("axolotl", (200, 200, 200)), ("sharegpt", (200, 200, 164)), ("llama-factory", (200, 200, 119))],
)
def test_the_airline_conversations_go_in_and_out_and_in_again(
    airline: Path, tmp_path: Path, form: str, expected: tuple[int, int, int]
) -> None:
    assert there_and_back(airline, form, tmp_path) == expected


@needs_tau
@pytest.mark.parametrize(("form", "expected"), [("trl", 266), ("instruct", 2381), ("sts", 266)])
def test_the_airline_conversations_go_out_where_nothing_comes_back(airline: Path, tmp_path: Path, form: str, expected: int) -> None:
    assert export(airline, tmp_path / form, form=form) == 0
    record = json.loads((tmp_path / form / "export.json").read_text())
    assert record["read"]["conversations"] == 200 and sum(record["rows"].values()) == expected


@pytest.fixture(scope="module")
def airline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert TAU is not None
    out = tmp_path_factory.mktemp("airline") / "all"
    assert import_tau(TAU / "tau-bench-airline-gpt-4o.json", out, tools=TAU / "tau-bench-airline-tools.json", min_reward=0) == 0
    return out


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.lists(
    st.sampled_from(["\n", " ", "{", '"', "\\", *TAGS[:2], "a"]), max_size=5
).map("".join)
WORDS = TEXT.filter(bool)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
    lambda one: st.lists(one, max_size=2) | st.dictionaries(TEXT, one, max_size=2),
    max_leaves=4,
)
CALLS = st.lists(st.tuples(st.sampled_from(["look", "cancel"]), st.dictionaries(TEXT, VALUES, max_size=2)), min_size=1, max_size=3)


@settings(max_examples=150)
@given(TEXT, TEXT, WORDS, st.lists(st.tuples(CALLS, TEXT, TEXT, st.lists(TEXT, min_size=3, max_size=3)), max_size=2))
def test_whatever_the_texts_hold_they_come_back_or_the_conversation_is_left_out(
    asked: str, thought: str, answer: str, turns: list[Any]
) -> None:
    messages = [SYSTEM, ask(asked)]
    for calls, words, thinking, results in turns:
        messages += [
            act(*calls, words=words, thought=thinking),
            *(told(text, at) for at, text in zip(range(len(calls)), results, strict=False)),
        ]
    read = read_openai({"messages": [*messages, act(words=answer, thought=thought)]})
    plain = [one.plain() for one in read.messages or ()]
    assert not read.problems
    for form, back in (("openai", read_openai), ("axolotl", read_openai), ("sharegpt", read_sharegpt), ("llama-factory", read_sharegpt)):
        notes: Notes = Counter()
        rows = [row for _, row in FORMS[form]().example(Example("a", plain, TOOLS), notes)]
        if not rows:
            assert form in ("sharegpt", "llama-factory") and any("holds a tag" in one for one in notes)
            continue
        again = back(json.loads(json.dumps(rows[0])))
        assert not again.problems and again.messages is not None
        lost = {"reasoning_content"} if form == "openai" else set()
        assert [one.plain() for one in again.messages] == [{key: value for key, value in one.items() if key not in lost} for one in plain]


# --- the folder -------------------------------------------------------------------------------------------------


def test_only_some_kinds_go_out_and_only_the_pairs_of_their_traces(milled: Path, tmp_path: Path) -> None:
    export(milled, tmp_path / "all", form="trl")
    export(milled, tmp_path / "some", form="trl", kinds=["tool_call"])
    whole, some = (json.loads((tmp_path / name / "export.json").read_text()) for name in ("all", "some"))
    assert some["read"]["conversations"] == 20 < whole["read"]["conversations"] == 60
    left_out = some["notes"]["preference pairs left out: they belong to no trace of these kinds"]
    assert 0 < left_out == whole["rows"]["dpo.parquet"] - some["rows"].get("dpo.parquet", 0)


def test_what_cannot_be_exported_is_refused(source: Path, milled: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no kind 'toolcall'; there are tool_call"):
        export(milled, tmp_path / "out", form="trl", kinds=["toolcall"])
    with pytest.raises(ConfigError, match="imported conversations, which have no kind"):
        export(source, tmp_path / "out", form="trl", kinds=["tool_call"])
    with pytest.raises(DatasetError, match="holds no run"):
        export(tmp_path, tmp_path / "out", form="trl")
    assert not (tmp_path / "out").exists()


def test_the_same_export_again_changes_nothing_and_what_else_is_there_is_never_touched(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export(source, out, form="openai")
    before = {one: one.stat().st_mtime_ns for one in out.iterdir()}
    assert export(source, out, form="openai") == 0
    assert "holds this export already" in capsys.readouterr().out
    with pytest.raises(DatasetError, match="holds another export"):
        export(source, out, form="trl")
    assert {one: one.stat().st_mtime_ns for one in out.iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine", encoding="utf-8")
    for folder in (tmp_path / "mine", source):
        with pytest.raises(DatasetError, match="holds something else"):
            export(source, folder, form="trl")


def test_pairs_that_were_turned_round_are_another_export_though_no_longer_than_before(source: Path, tmp_path: Path) -> None:
    shard, out = tmp_path / "run/preferences/part-00000.parquet", tmp_path / "out"
    shard.parent.mkdir(parents=True)
    shutil.copy(source / "run.json", tmp_path / "run")
    sizes = set()
    for chosen, rejected in (("A", "B"), ("B", "A")):
        made = pair(0, [ask()], act(words=chosen), act(words=rejected))
        pq.write_table(table(Preference, [to_row(made)]), shard)
        sizes.add(shard.stat().st_size)
        if chosen == "A":
            assert export(tmp_path / "run", out, form="trl") == 0
    assert len(sizes) == 1
    with pytest.raises(DatasetError, match="holds another export"):
        export(tmp_path / "run", out, form="trl")


def test_a_run_that_was_completed_without_another_row_makes_another_export(
    milled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = tmp_path / "run", tmp_path / "made"
    shutil.copytree(milled, run)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"complete": False}))
    assert export(run, folder, form="trl") == 0
    assert "was not complete" in capsys.readouterr().out
    (run / "run.json").write_text(json.dumps(record | {"complete": True}))
    with pytest.raises(DatasetError, match="one of an earlier state"):
        export(run, folder, form="trl")
    assert export(run, tmp_path / "whole", form="trl") == 0
    assert "not complete" not in capsys.readouterr().out


def test_trajectories_that_people_judged_whole_are_counted_as_left_out(source: Path, tmp_path: Path) -> None:
    out = alone(source, "preferences", tmp_path)
    (out / "trajectories").mkdir()
    plain = [one.plain() for one in PAIRS[:2]]
    made = [Trajectories.model_validate({key: value for key, value in one.items() if key != "source"}) for one in plain]
    pq.write_table(table(Trajectories, [to_row(one) for one in made]), out / "trajectories/part-00000.parquet")
    assert export(out, tmp_path / "out", form="trl") == 0
    left_out = {said: number for said, number in noted(tmp_path / "out").items() if "trajectories" in said}
    assert list(left_out.values()) == [2]


def test_the_order_of_the_kinds_makes_no_other_export(milled: Path, tmp_path: Path) -> None:
    export(milled, tmp_path / "out", form="sts", kinds=["tool_call", "error_recovery"])
    assert export(milled, tmp_path / "out", form="sts", kinds=["error_recovery", "tool_call"]) == 0


@pytest.mark.parametrize("form", ["trl", "openai"])
def test_an_export_that_breaks_off_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    def broken(*args: object) -> Iterator[Any]:
        yield from itertools.islice(whole(*args), 1)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    whole = FORMS[form].example
    monkeypatch.setattr(FORMS[form], "example", broken)
    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path / "out", form=form)
    assert list(tmp_path.iterdir()) == []


def test_rows_are_read_and_written_a_few_at_a_time(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracemill.exporting.sink.BATCH", 3)
    seen: list[int] = []
    whole = FORMS["trl"].example

    def watched(self: Any, one: Example, notes: Notes) -> Iterator[Any]:
        seen.append((next(tmp_path.glob(".out.*/sft.parquet"), tmp_path)).stat().st_size if seen else 0)
        return whole(self, one, notes)

    monkeypatch.setattr(FORMS["trl"], "example", watched)
    export(source, tmp_path / "out", form="trl")
    assert pq.ParquetFile(tmp_path / "out/sft.parquet").num_row_groups == 3
    assert seen[-1] > seen[1], "the file grows while the source is read"


def test_a_broken_record_is_named(source: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    (shard,) = copy.glob("data/imported/*.parquet")
    rows = pq.read_table(shard).to_pylist()
    rows[1]["messages"][0] = "{"
    pq.write_table(table(Conversation, rows), shard)
    with pytest.raises(DatasetError, match=f"record {rows[1]['id']} is broken"):
        export(copy, tmp_path / "out", form="sts")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["data", "preferences"])
@pytest.mark.parametrize("form", FORMS)
def test_the_command_to_run_next_names_what_is_there(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, part: str
) -> None:
    folder = tmp_path / "it's here"
    if export(alone(source, part, tmp_path), folder, form=form):
        return
    command = capsys.readouterr().out.partition("Next: ")[2].strip()
    cd, path, then, *words = shlex.split(command, comments=True)
    assert (cd, path, then) == ("cd", str(folder), "&&")
    files = [name for word in words for name in re.findall(r"[\w./]+\.(?:jsonl|yaml)", word)]
    assert files or form == "trl"
    assert all((folder / name).is_file() for name in files)


@pytest.mark.parametrize("part", ["data", "preferences"])
def test_the_command_to_run_next_runs(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    assert export(alone(source, part, tmp_path), tmp_path / "it's here", form="trl") == 0
    command = capsys.readouterr().out.partition("Next: ")[2].strip()
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HF_HOME": str(tmp_path / "cache")}
    ran = subprocess.run(command, shell=True, env={**os.environ, **paths}, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == 0 and "num_rows: " in ran.stdout, ran.stderr[-2000:]


def test_the_command_exports_and_says_what_is_next(source: Path, tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["export", str(source), "--format", "axolotl", "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0 and "axolotl preprocess" in ran.output and (tmp_path / "out/axolotl.yaml").is_file()
    ran = CliRunner().invoke(app, ["export", str(source), "--format", "alpaca", "--out", str(tmp_path / "other")])
    assert ran.exit_code == 2
