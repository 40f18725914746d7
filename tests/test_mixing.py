"""Other data beside the main data: shares, shapes and sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, IterableDataset
from tiny import build_tokenizer
from typer.testing import CliRunner

from tracemill.cli import app
from tracemill.errors import ConfigError, DatasetError
from tracemill.train.data import Encoder, sft_dataset
from tracemill.train.mixing import Mix, Mixture, files, old_examples, one_pass, parse_mixes, trained_tokens


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


@pytest.fixture
def encoder(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer, max_length=512)


def written(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def texts(path: Path, count: int = 50) -> str:
    return written(path, *({"text": f"Old words number {at}. " * (at % 7 + 1)} for at in range(count)))


def main_data(count: int = 40) -> Dataset:
    rows = [{"input_ids": [7] * (20 + at), "labels": [-100] * 10 + [7] * (10 + at), "trace": f"m{at}"} for at in range(count)]
    return Dataset.from_list(rows)


def share(rows: Any, source: str) -> float:
    counts = [(row["trace"].startswith(Path(source).name), trained_tokens(row["labels"])) for row in rows]
    return sum(tokens for old, tokens in counts if old) / sum(tokens for _, tokens in counts)


def read(encoder: Encoder, ids: list[int], labels: list[int]) -> tuple[str, str]:
    """All that is shown, and what of it is trained."""
    trained = [label for label in labels if label != -100]
    return encoder.tokenizer.decode(ids), encoder.tokenizer.decode(trained)


# --- shares -------------------------------------------------------------------------------------------------


def test_each_source_has_its_share_of_the_trained_tokens_and_the_main_data_is_all_there(encoder: Encoder, tmp_path: Path) -> None:
    first, second = texts(tmp_path / "a.jsonl"), texts(tmp_path / "b.jsonl", 8)
    mixture = Mixture([Mix(first, 0.2), Mix(second, 0.3)], encoder)
    rows = mixture.dataset(main_data())
    assert share(rows, first) == pytest.approx(0.2, abs=0.01)
    assert share(rows, second) == pytest.approx(0.3, abs=0.01)
    assert [row["trace"] for row in rows if row["trace"].startswith("m")] == [f"m{at}" for at in range(40)]
    assert rows.features == main_data().features
    (one, two) = mixture.lines()
    assert f"({share(rows, first):.1%})" in one
    assert "gone through" in two and "gone through" not in one  # the second is too small


def test_the_share_holds_all_the_way(encoder: Encoder, tmp_path: Path) -> None:
    source = texts(tmp_path / "a.jsonl")
    longest = max(trained_tokens(one.labels) for one in one_pass(source, encoder, seed=0))
    old = new = 0
    for row in Mixture([Mix(source, 0.25)], encoder).dataset(main_data()):
        if row["trace"].startswith("m"):
            assert abs(old - new / 3) <= longest / 2 + 1e-9
            new += trained_tokens(row["labels"])
        else:
            old += trained_tokens(row["labels"])


def test_the_same_seed_gives_the_same_mix(encoder: Encoder, tmp_path: Path) -> None:
    source = texts(tmp_path / "a.jsonl")

    def mixed(seed: int) -> list[Any]:
        return Mixture([Mix(source, 0.2)], encoder, seed=seed).dataset(main_data())[:]["input_ids"]

    assert mixed(1) == mixed(1) != mixed(2)


def test_a_source_that_is_gone_through_again_comes_in_another_order(encoder: Encoder, tmp_path: Path) -> None:
    source = texts(tmp_path / "a.jsonl", 6)
    rows = Mixture([Mix(source, 0.7)], encoder).dataset(main_data())
    replayed = [row["input_ids"] for row in rows if row["trace"].startswith(Path(source).name)]
    first, second = replayed[:6], replayed[6:12]
    assert sorted(first) == sorted(second)
    assert first != second


def test_a_stream_is_mixed_as_it_comes(encoder: Encoder, tmp_path: Path) -> None:
    source, taken = texts(tmp_path / "a.jsonl"), []

    def endless() -> Any:
        for at, row in enumerate(list(main_data()) * 1000):
            taken.append(at)
            yield row

    stream = Mixture([Mix(source, 0.5)], encoder).stream(IterableDataset.from_generator(endless, features=main_data().features))
    rows = list(stream.take(60))
    assert share(rows, source) == pytest.approx(0.5, abs=0.05)
    assert len(taken) < 60
    assert set(rows[0]) == {"input_ids", "labels", "trace"}


def test_a_stream_that_is_looked_at_and_gone_through_again_is_counted_once(encoder: Encoder, tmp_path: Path) -> None:
    source = texts(tmp_path / "a.jsonl")
    mixture = Mixture([Mix(source, 0.3)], encoder)
    stream = mixture.stream(main_data().to_iterable_dataset())
    assert "0 examples, 0 trained tokens (0.0%)" in mixture.lines()[0]  # nothing was read yet
    passes = [list(stream.take(3)), list(stream), list(stream), list(stream.take(3))]
    assert passes[1] == passes[2]
    trained = sum(trained_tokens(row["labels"]) for row in passes[1] if row["trace"].startswith(Path(source).name))
    assert f"{trained:,} trained tokens ({share(passes[1], source):.1%})" in mixture.lines()[0]


def test_a_share_of_less_than_half_an_example_adds_none_and_says_so(encoder: Encoder, tmp_path: Path) -> None:
    source = texts(tmp_path / "a.jsonl")
    mixture = Mixture([Mix(source, 0.0001)], encoder)
    assert mixture.dataset(main_data())[:] == main_data()[:]
    assert mixture.lines() == [f"{Path(source).name}: 0 examples, 0 trained tokens (0.0%): less than half of one was due"]


def test_what_is_left_out_of_other_data_is_told_once(encoder: Encoder, tmp_path: Path) -> None:
    long = {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "word " * 600}]}
    source = written(tmp_path / "a.jsonl", {"text": "Short."}, long, {"text": ""})
    mixture = Mixture([Mix(source, 0.5)], encoder)
    mixture.dataset(main_data())  # the source is gone through several times
    assert {line.partition(" (")[0] for line in mixture.lines()[1:]} == {
        "left out: 1, a message that does not fit into 512 tokens with its turn",
        "left out: 1, no text to train on",
    }
    assert any("(a.jsonl:2[1])" in line for line in mixture.lines())  # without the folder: it goes into the card
    for _ in range(2):  # as EWC and KL may read the same data
        old_examples(source, encoder, 9)
    assert sorted(encoder.report.losses()) == sorted(mixture.lines()[1:])
    with pytest.raises(DatasetError, match="no row with a token to train on") as caught:
        old_examples(written(tmp_path / "b.jsonl", long), encoder, 9)
    assert "does not fit into 512 tokens" in caught.value.problems[0]


def test_the_first_token_of_an_example_is_never_predicted_and_not_counted() -> None:
    assert trained_tokens([5, 5, -100, 5]) == 2


# --- what is asked for --------------------------------------------------------------------------------------


def test_a_mix_is_a_source_and_a_share() -> None:
    assert parse_mixes(["general=0.2", "a/b:config=0.1", "dir=x/file.jsonl=.3"]) == (
        Mix("general", 0.2), Mix("a/b:config", 0.1), Mix("dir=x/file.jsonl", 0.3),
    )  # fmt: skip


def test_all_that_is_wrong_with_mixes_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_mixes(["general", "=0.2", "a=much", "b=1.5", "c=0"])
    assert len(caught.value.problems) == 5
    with pytest.raises(ConfigError, match=r"add up to 1\.1"):
        parse_mixes(["a=0.5", "b=0.6"])


# --- shapes -------------------------------------------------------------------------------------------------

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome", "days": 2}'}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells.", "parameters": {"type": "object", "properties": {}}}}


def test_conversations_are_trained_on_what_the_assistant_says(encoder: Encoder, tmp_path: Path) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
        {"role": "tool", "tool_call_id": "c1", "content": "Sunny."},
        {"role": "assistant", "content": "A sunny day."},
    ]
    (example,) = one_pass(written(tmp_path / "a.jsonl", {"messages": messages, "tools": [TOOL]}), encoder, seed=0)
    shown, trained = read(encoder, example.input_ids, example.labels)
    assert '{"city": "Rome", "days": 2}' in trained  # an object, not a string in quotes
    assert "A sunny day.<|im_end|>" in trained
    assert not {"Sunny.", "Weather?", "Be brief."} & set(trained.split("\n"))
    assert all(text in shown for text in ("Be brief.", "Weather?", "Sunny.", "Tells."))


def test_ids_and_names_that_were_left_out_are_filled_in(encoder: Encoder, tmp_path: Path) -> None:
    call = {"function": {"name": "weather", "arguments": None}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "Sunny."},
        {"role": "assistant", "content": "Sunny."},
    ]
    (example,) = one_pass(written(tmp_path / "a.jsonl", {"messages": messages}), encoder, seed=0)
    assert '"arguments": {}' in read(encoder, example.input_ids, example.labels)[1]


def test_of_prompt_and_completion_only_the_completion_is_trained(encoder: Encoder, tmp_path: Path) -> None:
    chat = {
        "prompt": [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Hi."}],
        "completion": [{"role": "assistant", "content": "Good day."}],
    }
    (told,) = one_pass(written(tmp_path / "a.jsonl", chat), encoder, seed=0)
    shown, trained = read(encoder, told.input_ids, told.labels)
    assert "Hello." in shown and trained.strip() == "Good day.<|im_end|>"
    (plain,) = one_pass(written(tmp_path / "b.jsonl", {"prompt": "2 + 2 =", "completion": " 4"}), encoder, seed=0)
    assert read(encoder, plain.input_ids, plain.labels) == ("2 + 2 = 4<|im_end|>", " 4<|im_end|>")


def test_text_is_trained_whole_and_what_is_too_long_goes_on_in_another_example(tokenizer: Any, tmp_path: Path) -> None:
    short = Encoder(tokenizer, max_length=16)
    words = " ".join(f"word{at}" for at in range(40))
    ids = [*tokenizer(words).input_ids, tokenizer.eos_token_id]
    pieces = list(one_pass(written(tmp_path / "a.jsonl", {"text": words}), short, seed=0))
    assert all(len(one.input_ids) <= 16 and one.labels == one.input_ids for one in pieces)
    assert [ids[0]] + [token for one in pieces for token in one.labels[1:]] == ids  # each is predicted, and once


@pytest.mark.parametrize("mark", [{"train": False}, {"weight": 0}])
def test_what_is_marked_as_not_to_be_learnt_is_context(mark: dict[str, Any], encoder: Encoder, tmp_path: Path) -> None:
    """By our own mark, and by OpenAI's, which `tracemill export --format openai` writes."""
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Rain.", **mark},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Sun.", "weight": 1},
    ]
    (example,) = one_pass(written(tmp_path / "a.jsonl", {"messages": messages}), encoder, seed=0)
    shown, trained = read(encoder, example.input_ids, example.labels)
    assert "Rain." in shown and trained.strip() == "Sun.<|im_end|>"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"conversations": [{"from": "human", "value": "Hi."}]}, "found columns conversations"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "found image_url"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}, "OpenAI chat format"),
        ({"prompt": "Hi.", "completion": [{"role": "assistant", "content": "x"}]}, "one of each"),
        ({"prompt": [3], "completion": [{"role": "assistant", "content": "x"}]}, "OpenAI chat format"),
        ({"messages": [{"role": "user", "content": "Hi."}], "tools": "["}, "OpenAI chat format"),
        ({"text": None}, r"found columns text \(NoneType\)"),
        ({"text": 3}, r"found columns text \(int\)"),
    ],
)
def test_rows_of_another_shape_are_refused(row: dict[str, Any], said: str, encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"a\.jsonl:2: .*{said}"):
        list(one_pass(written(tmp_path / "a.jsonl", {"text": "Good."}, row), encoder, seed=0))


def test_rows_of_one_source_may_have_different_shapes(encoder: Encoder, tmp_path: Path) -> None:
    chat = {"prompt": [{"role": "user", "content": "Weather?"}], "completion": [{"role": "assistant", "content": "Sun."}]}
    found = list(one_pass(written(tmp_path / "a.jsonl", {"text": "Words."}, chat | {"tools": json.dumps([TOOL])}), encoder, seed=0))
    shown = [read(encoder, one.input_ids, one.labels)[0] for one in found]
    assert sum("Words." in text for text in shown) == sum("Tells." in text for text in shown) == 1  # tools may be JSON text here too


# --- sources ------------------------------------------------------------------------------------------------


def test_a_run_can_be_replayed(encoder: Encoder, milled: Path) -> None:
    ours = sft_dataset(milled, Encoder(encoder.tokenizer, max_length=512))
    assert sum(trained_tokens(one.labels) for one in one_pass(str(milled), encoder, seed=0)) == sum(map(trained_tokens, ours["labels"]))


def test_parquet_and_json_lists_are_read_too(encoder: Encoder, tmp_path: Path) -> None:
    Dataset.from_list([{"text": "One."}, {"text": "Two."}]).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.json").write_text(json.dumps([{"text": "Three."}]), encoding="utf-8")
    assert len(old_examples(str(tmp_path / "a.parquet"), encoder, 9)) == 2
    assert len(old_examples(str(tmp_path / "b.json"), encoder, 9)) == 1
    assert len(old_examples(str(tmp_path), encoder, 1)) == 1


def test_json_lines_end_at_line_feeds_alone_and_may_begin_with_a_mark(encoder: Encoder, tmp_path: Path) -> None:
    rows = [{"text": "One\u2028line\u0085still."}, {"text": "Two."}]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows), encoding="utf-8-sig", newline="")
    assert len(old_examples(str(file), encoder, 9)) == 2


@pytest.mark.parametrize("form", ["openai", "trl"])
def test_of_an_exports_folder_what_is_for_sft_is_read(form: str, encoder: Encoder, milled: Path, tmp_path: Path) -> None:
    """Beside pairs, which are no old data."""
    out = tmp_path / form
    assert CliRunner().invoke(app, ["export", str(milled), "--format", form, "--out", str(out)]).exit_code == 0
    rows = json.loads((out / "export.json").read_text())["rows"]
    written(out / "preferences.jsonl", {"input": {}, "preferred_output": [], "non_preferred_output": []})
    found = list(one_pass(str(out), Encoder(encoder.tokenizer, max_length=100_000), seed=0))
    assert len(found) == rows[files(str(out))[0].name] > 0


def test_an_export_in_another_format_is_refused(encoder: Encoder, milled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert CliRunner().invoke(app, ["export", str(milled), "--format", "sharegpt", "--out", str(out)]).exit_code == 0
    with pytest.raises(ConfigError, match="an export in the format sharegpt has no rows that can be mixed in"):
        list(one_pass(str(out), encoder, seed=0))


def test_sources_that_cannot_be_used_are_told(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected a file or folder of"):
        list(one_pass(str(tmp_path), encoder, seed=0))
    for name, content, said in (
        ("bad.jsonl", b'{"text": "Good."}\n{', "bad.jsonl is not JSON lines: line 2"),
        ("latin.jsonl", b'{"text": "\xe9"}', "latin.jsonl is not UTF-8"),
        ("list.jsonl", b'["text"]', "list.jsonl:1: expected an object, found str"),
        ("broken.parquet", b"abc", "broken.parquet cannot be read as parquet"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=said):
            list(one_pass(str(tmp_path / name), encoder, seed=0))
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError("no such dataset")))
    with pytest.raises(ConfigError, match="neither a local path nor a dataset"):
        list(one_pass("no/where:config", encoder, seed=0))


def test_a_source_with_nothing_to_train_ends_the_mixing(encoder: Encoder, tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", {"messages": [{"role": "user", "content": "Hi."}]})
    with pytest.raises(DatasetError, match="no row with a token to train on"):
        Mixture([Mix(source, 0.5)], encoder).dataset(main_data(2))
    with pytest.raises(DatasetError, match="no row with a token to train on"):
        old_examples(source, encoder, 5)
