"""`tracemill clean`: what goes and what stays, with nothing lost, and a run again that every other command takes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import mill

from tracemill.columns import Row, table
from tracemill.errors import ConfigError, DatasetError
from tracemill.hygiene.clean import Cleaning, clean
from tracemill.importing.openai import import_openai
from tracemill.stats import measure, measure_import
from tracemill.trace import Preference, Record, Rejection, Trace
from tracemill.verify import verify

ROOT = Path(__file__).resolve().parents[1]
TAU = next((base / "shared/data" for base in (ROOT, ROOT.parent) if (base / "shared/data/tau-bench-airline-gpt-4o.json").is_file()), None)
KEY = "ghp_" + "aB3dE5gH7jK9mN2pQ4sT6vW8yZ1cF0iLkRuX"


def rows(out: Path, pattern: str) -> list[Row]:
    return [row for path in sorted(out.glob(pattern)) for row in pq.read_table(path, partitioning=None).to_pylist()]


def fingerprints(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.rglob("*")) if path.is_file()}


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "hygiene.json").read_text(encoding="utf-8"))
    return found


def planted(milled: Path, copy: Path, pattern: str, cls: type[Record], change: Callable[[Row], None]) -> str:
    """A copy of the run in which the first row of these files is changed; its id."""
    shutil.copytree(milled, copy)
    path = sorted(copy.glob(pattern))[0]
    changed = pq.read_table(path, partitioning=None).to_pylist()
    change(changed[0])
    pq.write_table(table(cls, changed), path)
    return str(changed[0]["id"])


def says(column: str, at: int, words: str) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        message = json.loads(row[column][at])
        row[column][at] = json.dumps({**message, "content": f"{message['content']} {words}"})

    return change


def test_a_cleaned_run_is_a_run_and_nothing_is_lost(milled: Path, tmp_path: Path) -> None:
    before, out = fingerprints(milled), tmp_path / "clean"
    assert clean(Cleaning(milled, out, similar=0.25)) == 0
    assert fingerprints(milled) == before
    kept, removed, made = ({row["id"] for row in rows(one, pattern)} for one, pattern in (
        (out, "data/*/*.parquet"), (out, "removed/*.parquet"), (milled, "data/*/*.parquet")))  # fmt: skip
    pairs = {row["id"] for row in rows(milled, "preferences/*.parquet")}
    assert 0 < len(removed - pairs) < len(made) and kept | (removed - pairs) == made and not kept & removed
    gone = {row["id"]: row for row in rows(out, "removed/*.parquet")}
    assert all(gone[id]["like"] in kept and gone[id]["evidence"] for id in removed - pairs), "the one that stays does stay"
    assert {row["trace"] for row in rows(out, "preferences/*.parquet")} <= kept
    assert verify(out) == 0
    assert measure(out)["traces"] == len(kept) == report(out)["kept"]
    counts = json.loads((out / "run.json").read_text())["counts"]
    assert sum(counts["accepted"].values()) == len(kept) and counts["preferences"] == len(rows(out, "preferences/*.parquet"))
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "## Cleaning" in card and f"Near-duplicates: {len(removed - pairs)} removed" in card
    first = next(row for row in rows(milled, "data/*/*.parquet") if row["id"] in removed)
    assert json.loads(gone[first["id"]]["record"])["messages"] == [json.loads(text) for text in first["messages"]]


def test_a_cleaned_run_is_missed_what_is_in_neither_place(milled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean(Cleaning(milled, tmp_path / "clean", similar=0.25))
    shutil.rmtree(tmp_path / "clean/removed")
    assert verify(tmp_path / "clean") == 1
    assert "the config asks for" in capsys.readouterr().out


def test_the_same_again_is_done_already_and_makes_the_same_elsewhere(
    milled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert clean(Cleaning(milled, one)) == clean(Cleaning(milled, other)) == 0
    assert fingerprints(one) == fingerprints(other)
    capsys.readouterr()
    assert clean(Cleaning(milled, one)) == 0
    assert "holds this cleaning already" in capsys.readouterr().out.replace("\n", " ")


def test_what_cannot_be_done_is_refused_and_nothing_is_written(milled: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("Dear Ada")
    clean(Cleaning(milled, tmp_path / "clean"))
    for job, expected in (
        (Cleaning(milled, tmp_path / "full"), "something else"),
        (Cleaning(milled, tmp_path / "clean", similar=0.5), "another cleaning"),
        (Cleaning(tmp_path / "clean", tmp_path / "x"), "cleaned run already"),
        (Cleaning(milled, tmp_path / "x", earlier=(milled, tmp_path / "full")), r"is the run that is cleaned|holds no traces"),
        (Cleaning(milled, milled / "x"), "never changed"),
        (Cleaning(milled, tmp_path / "x", similar=1.5), "--similar"),
        (Cleaning(milled, tmp_path / "x", benchmarks=(tmp_path / "full/letter.txt",)), "neither JSON"),
    ):
        with pytest.raises((ConfigError, DatasetError), match=expected):
            clean(job)
    assert {path.name for path in tmp_path.iterdir()} == {"full", "clean"} and len(list((tmp_path / "full").iterdir())) == 1


def test_a_trace_with_a_secret_goes_and_the_secret_is_written_nowhere(
    milled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    id = planted(milled, tmp_path / "run", "data/*/*.parquet", Trace, says("messages", -1, f"Your key is {KEY}."))
    assert clean(Cleaning(tmp_path / "run", tmp_path / "clean")) == 0
    (gone,) = (row for row in rows(tmp_path / "clean", "removed/*.parquet") if row["id"] == id)
    assert gone["why"] == "finding" and "github_token" in gone["evidence"][0] and "Your key is ghp…" in gone["record"]
    everything = json.dumps([rows(tmp_path / "clean", "**/*.parquet")]) + "".join(
        path.read_text() for path in tmp_path.glob("clean/*.*") if path.is_file()
    )
    assert KEY not in everything + capfd.readouterr().out and KEY[8:] not in everything
    assert verify(tmp_path / "clean") == 0


def test_findings_can_be_kept_and_are_reported(milled: Path, tmp_path: Path) -> None:
    id = planted(milled, tmp_path / "run", "data/*/*.parquet", Trace, says("messages", -1, "Call +43 664 8213907."))
    assert clean(Cleaning(tmp_path / "run", tmp_path / "clean", keep_findings=True)) == 0
    assert id in {row["id"] for row in rows(tmp_path / "clean", "data/*/*.parquet")}
    assert [one["id"] for one in report(tmp_path / "clean")["findings"]["found"]] == [id]


def test_a_secret_in_a_draft_is_masked_in_the_ledger_and_its_pair_goes(milled: Path, tmp_path: Path) -> None:
    pair = planted(milled, tmp_path / "run", "preferences/*.parquet", Preference, says("rejected", 0, KEY))
    path = sorted((tmp_path / "run").glob("rejects/*.parquet"))[0]
    changed = pq.read_table(path, partitioning=None).to_pylist()
    says("messages", -1, KEY)(changed[0])
    pq.write_table(table(Rejection, changed), path)
    assert clean(Cleaning(tmp_path / "run", tmp_path / "clean")) == 0
    assert pair not in {row["id"] for row in rows(tmp_path / "clean", "preferences/*.parquet")}
    assert KEY not in json.dumps(rows(tmp_path / "clean", "**/*.parquet"))
    assert len(rows(tmp_path / "clean", "rejects/*.parquet")) == len(rows(milled, "rejects/*.parquet"))
    assert report(tmp_path / "clean")["masked_rejections"] == 1
    assert verify(tmp_path / "clean") == 0


def test_nothing_is_left_of_a_run_that_an_earlier_one_has(milled: Path, tmp_path: Path) -> None:
    shutil.copytree(milled, tmp_path / "earlier")
    assert clean(Cleaning(milled, tmp_path / "clean", earlier=(tmp_path / "earlier",))) == 1
    found = report(tmp_path / "clean")
    assert (found["kept"], found["near_duplicates"]["earlier"]) == (0, {"earlier": found["read"]})


def test_a_run_is_clean_of_a_benchmark_made_of_its_own_openings(milled: Path, tmp_path: Path) -> None:
    made = rows(milled, "data/*/*.parquet")
    asked = [json.loads(row["messages"][1])["content"] for row in made[:5]]
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps({"question": one}) + "\n" for one in asked))
    clean(Cleaning(milled, tmp_path / "clean", benchmarks=(tmp_path / "bench.jsonl",)))
    long = {row["id"] for row, one in zip(made, asked, strict=False) if len(one.split()) >= 13}
    gone = {row["id"] for row in rows(tmp_path / "clean", "removed/*.parquet")}
    assert long and long <= gone
    assert report(tmp_path / "clean")["contamination"]["bench.jsonl"]["traces_by_text"] >= len(long)
    assert verify(tmp_path / "clean") == 0


def test_a_cleaned_run_is_not_continued(milled: Path, tmp_path: Path) -> None:
    """It would be filled up with what was removed."""
    clean(Cleaning(milled, tmp_path / "clean"))
    with pytest.raises(DatasetError, match="holds a cleaned run: continue run"):
        mill(tmp_path / "clean", accept=60, environments=["store", "bank"], flaws=0.3)


def test_load_dataset_reads_a_cleaned_run(milled: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    clean(Cleaning(milled, tmp_path / "clean", similar=0.25))
    loaded = load_dataset(str(tmp_path / "clean"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == report(tmp_path / "clean")["kept"]


def test_an_import_is_cleaned_too(tmp_path: Path) -> None:
    def talk(number: int, says: str = "Please cancel order {} for me and send the money back to my card.") -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": says.format(number)}, {"role": "assistant", "content": f"Done, W{number}."}]}

    other = talk(3, "Write me a poem of four lines.")
    other["messages"][1]["content"] = "Ask ada.lovelace@gmail.com for one."
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (talk(1), talk(2), other, {"messages": 3})))
    import_openai(tmp_path / "talks.jsonl", tmp_path / "run")
    assert clean(Cleaning(tmp_path / "run", tmp_path / "clean")) == 0
    assert [row["index"] for row in rows(tmp_path / "clean", "data/imported/*.parquet")] == [0]
    assert sorted((row["index"], row["why"]) for row in rows(tmp_path / "clean", "removed/*.parquet")) == [
        (1, "near_duplicate"),
        (2, "finding"),
    ]
    assert verify(tmp_path / "clean") == 0
    assert measure_import(tmp_path / "clean")["traces"] == 1
    assert "## Cleaning" in (tmp_path / "clean/README.md").read_text(encoding="utf-8")


def test_the_ledger_of_an_import_holds_no_personal_data_of_its_users(tmp_path: Path) -> None:
    said = "I am jane.roe@acme.io, IBAN AT61 1904 3002 3457 3201."
    refused: list[Any] = [
        {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": "Noted."}], "reward": 0},
        {"messages": [{"role": "customer", "content": said}, {"role": "assistant", "content": "Noted."}]},
        {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."}]},
    ]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in refused) + f"broken: {said}\n")
    import_openai(tmp_path / "talks.jsonl", tmp_path / "run")
    assert clean(Cleaning(tmp_path / "run", tmp_path / "clean")) == 0
    ledger = json.dumps(rows(tmp_path / "clean", "rejects/*.parquet"), ensure_ascii=False)
    assert "jane.roe" not in ledger and "1904" not in ledger and ledger.count("jan…[email, 16 characters]") == 3
    assert report(tmp_path / "clean")["masked_rejections"] == 3
    assert verify(tmp_path / "clean") == 0


@pytest.mark.parametrize("damage", ["no card", "card", "counts"])
def test_an_import_that_is_damaged_is_refused_before_it_is_read(tmp_path: Path, damage: str) -> None:
    import_openai(talk_file(tmp_path / "talks.jsonl", "Which of them is it?"), tmp_path / "run")
    card, record = tmp_path / "run/README.md", tmp_path / "run/run.json"
    if damage == "counts":
        record.write_text(json.dumps({**json.loads(record.read_text()), "counts": None}))
    else:
        card.unlink() if damage == "no card" else card.write_text("# My talks\n")
    with pytest.raises(DatasetError, match="has no counts" if damage == "counts" else "README.md"):
        clean(Cleaning(tmp_path / "run", tmp_path / "clean"))
    assert not (tmp_path / "clean").exists()


def test_of_a_run_that_is_not_complete_it_is_said(milled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = shutil.copytree(milled, tmp_path / "run") / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "complete": False}))
    clean(Cleaning(tmp_path / "run", tmp_path / "clean"))
    assert "The run was not complete: clean it again" in capsys.readouterr().out
    clean(Cleaning(milled, tmp_path / "whole"))
    assert "not complete" not in capsys.readouterr().out


def talk_file(path: Path, *asked: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    talks = [{"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": "Done."}]} for one in asked]
    path.write_text("".join(json.dumps(one) + "\n" for one in talks))
    return path


def test_runs_and_benchmarks_of_one_name_are_told_apart_wherever_the_command_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [
        "Which of the three bridges over the river is closed to heavy traffic this winter, and until when will it be?",
        "Please write to all of the members that the meeting of the choir begins an hour later than it says in the plan.",
        "How much flour do I need for two loaves of bread and a tray of rolls if the oven is a small one?",
    ]
    import_openai(talk_file(tmp_path / "talks.jsonl", *asked), tmp_path / "run")
    for folder, one in (("a", asked[0]), ("b", asked[1])):
        import_openai(talk_file(tmp_path / folder / "q.jsonl", one), tmp_path / folder / "old")
    monkeypatch.chdir(tmp_path / "b" / "old")
    benchmarks = (tmp_path / "a/q.jsonl", tmp_path / "b/q.jsonl")
    clean(Cleaning(tmp_path / "run", tmp_path / "clean", earlier=(tmp_path / "a/old", Path())))
    clean(Cleaning(tmp_path / "run", tmp_path / "met", benchmarks=benchmarks))
    assert report(tmp_path / "clean")["near_duplicates"]["earlier"] == {"old": 1, "old (2)": 1}
    assert report(tmp_path / "clean")["kept"] == 1
    met = report(tmp_path / "met")["contamination"]
    assert {name: one["traces_by_text"] for name, one in met.items()} == {"q.jsonl": 1, "q.jsonl (2)": 1}


def test_the_words_of_a_text_that_holds_personal_data_and_meets_a_benchmark_are_not_told(tmp_path: Path) -> None:
    asked = "Please send the bill of last month to jane.roe@acme.io and tell me when that is done, thank you."
    file = talk_file(tmp_path / "q.jsonl", asked)
    import_openai(file, tmp_path / "run")
    clean(Cleaning(tmp_path / "run", tmp_path / "clean", benchmarks=(file,)))
    assert report(tmp_path / "clean")["contamination"]["q.jsonl"]["traces_by_text"] == 1
    told = (tmp_path / "clean/hygiene.json").read_text() + json.dumps(rows(tmp_path / "clean", "removed/*.parquet"))
    assert "jane roe acme" not in told and "jane.roe" not in told


@pytest.mark.skipif(TAU is None, reason="shared/data/tau-bench-airline-gpt-4o.json is not here")
def test_real_conversations_meet_the_benchmark_that_they_are_from(tmp_path: Path, milled: Path) -> None:
    assert TAU is not None
    talks, tools = TAU / "tau-bench-airline-gpt-4o.json", TAU / "tau-bench-airline-tools.json"
    import_openai(talks, tmp_path / "run", tools=tools)
    assert clean(Cleaning(tmp_path / "run", tmp_path / "clean", benchmarks=(talks, tools))) == 1
    met = report(tmp_path / "clean")
    assert met["kept"] == 0 and met["contamination"][talks.name]["traces_by_text"] == met["read"]
    assert met["contamination"][tools.name]["traces_by_tool"] == met["read"]
    assert verify(tmp_path / "clean") == 0
    assert clean(Cleaning(milled, tmp_path / "ours", benchmarks=(talks, tools))) == 0
    assert [one["matches"] for one in report(tmp_path / "ours")["contamination"].values()] == [[], []]
