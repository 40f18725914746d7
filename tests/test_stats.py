"""What `tracemill stats` counts, and how it says it."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Rewrite

from tracemill.errors import DatasetError
from tracemill.stats import (
    BAND_ROWS,
    BANDS,
    SIMILAR,
    evenness,
    measure,
    part_files,
    read_rows,
    reason_class,
    repeats,
    shape,
    show_stats,
    signature,
    trace_files,
)
from tracemill.trace import KINDS, Json


@pytest.fixture(scope="module")
def report(milled: Path) -> dict[str, Json]:
    return measure(milled)


def words(rng: random.Random, count: int) -> list[str]:
    return ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(count)]


def found(*texts: str) -> list[bool]:
    return repeats(np.array([signature(text) for text in texts]).reshape(len(texts), BANDS * BAND_ROWS))


# --- counting ---


def test_every_breakdown_adds_up_to_the_number_of_traces(report: dict[str, Json]) -> None:
    assert report["traces"] == 60
    for counts in (report["kinds"], report["templates"]["traces"], report["difficulties"], report["tones"], report["endings"]):
        assert sum(counts.values()) == 60
    assert set(report["kinds"]) == set(KINDS)
    assert set(report["environments"]) == {"store", "bank"}
    assert sum(one["traces"] for one in report["environments"].values()) == 60
    for one in report["environments"].values():
        assert sum(one["kinds"].values()) == one["traces"]
    assert all("/" in name for name in report["templates"]["traces"])


def test_calls_are_those_of_the_messages(milled: Path, report: dict[str, Json]) -> None:
    rows = [row for path in trace_files(milled) for some in read_rows(path, ("messages", "effects")) for row in some]
    messages = [[json.loads(text) for text in row["messages"]] for row in rows]
    calls = [call["function"]["name"] for trace in messages for one in trace for call in one.get("tool_calls", ())]
    offered = {tool for row in rows for tool in json.loads(row["effects"])}
    tools = report["tools"]
    assert tools["calls"] == len(calls)
    assert tools["offered"] == len(offered)
    assert set(tools["never_called"]) == offered - set(calls)
    assert {name: one["calls"] for name, one in tools["by_tool"].items()} == {name: calls.count(name) for name in offered & set(calls)}
    assert tools["calls_of_unknown_tools"] == sum(name not in offered for name in calls)
    assert report["lengths"]["messages"]["max"] == max(map(len, messages))
    assert report["lengths"]["calls"]["mean"] == pytest.approx(len(calls) / 60, abs=0.01)


def test_trouble_is_in_every_recovery(report: dict[str, Json]) -> None:
    assert report["trouble"]["traces"] >= report["kinds"]["error_recovery"]
    assert {one["sort"] for one in report["trouble"]["kinds"]} == {"fault", "mistake"}


def test_rejections_are_those_of_run_json(milled: Path, report: dict[str, Json]) -> None:
    counts = json.loads((milled / "run.json").read_text())["counts"]
    assert report["rejections"]["stages"] == counts["rejected"]
    assert report["rejections"]["revised"] == counts["revised"] > 0
    assert report["preference_pairs"] == counts["preferences"]
    reasons = report["rejections"]["reasons"]
    assert sum(one["final"] for one in reasons) == report["rejections"]["final"]
    assert {"transparent_reasoning"} <= {one["reason"] for one in reasons if one["stage"] == "constitution"}


def test_the_same_traces_give_the_same_figures(milled: Path, report: dict[str, Json]) -> None:
    assert measure(milled) == report


def test_reading_in_small_portions_changes_nothing(milled: Path, report: dict[str, Json], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracemill.stats.BATCH", 7)
    assert measure(milled) == report


@pytest.mark.parametrize(
    ("groups", "written"),
    [
        ([], ""),
        ([["a"], ["b"]], "a > b"),
        ([["a"], ["b"], ["b"], ["a"]], "a > b x2 > a"),
        ([["a"], ["b", "b", "c"]], "a > [b x2, c]"),
        ([["b", "b"], ["b", "b"]], "[b x2] x2"),
    ],
)
def test_a_shape_tells_order_and_parallel_calls(groups: list[list[str]], written: str) -> None:
    assert shape(groups) == written


def test_entropy_is_one_for_an_even_spread_and_zero_for_a_single_shape() -> None:
    even = evenness(Counter(a=5, b=5, c=5, d=5))
    assert (even["distinct"], even["entropy_bits"], even["normalised_entropy"], even["effective"]) == (4, 2.0, 1.0, 4.0)
    assert evenness(Counter(a=9))["normalised_entropy"] == 0.0
    assert 0 < evenness(Counter(a=99, b=1))["normalised_entropy"] < 0.1
    assert evenness(Counter())["effective"] == 0.0


@pytest.mark.parametrize(
    ("stage", "reason", "general"),
    [
        ("constitution", "confirm_irreversible (messages[8]): cancel_order cannot be undone", "confirm_irreversible"),
        ("goal", "told: the answer does not tell 'VC-4555'", "told: the answer does not tell …"),
        ("goal", "told: the answer does not tell 'could not' or \"couldn't\" or 'unable'", "told: the answer does not tell …"),
        ("goal", "grounded: 246.0 was not seen in any result", "grounded: … was not seen in any result"),
        ("goal", "find_slots (g2) was called before g1 was reached", "… was called before … was reached"),
        ("rollout", "store: nothing fits error_recovery at index 8 after 12 attempts", "store: nothing fits … at index … after … attempts"),
    ],
)
def test_reasons_of_one_class_are_counted_together(stage: str, reason: str, general: str) -> None:
    assert reason_class(stage, reason) == general


# --- near-duplicates ---


def test_texts_that_differ_only_in_digits_and_case_are_near_duplicates() -> None:
    text = "Please cancel order W1042 and refund 12.50 to my card, I ordered it by mistake"
    assert found(text, text.replace("1042", "77").replace("12.50", "3.99").upper(), "Where is my parcel, it should be here by now") == [
        False,
        True,
        False,
    ]


def test_near_duplicates_are_told_by_the_share_of_common_3_grams() -> None:
    rng = random.Random(3)
    for tail, alike in ((3, True), (60, False)):  # of 100 words
        hits = 0
        for _ in range(20):
            kept = words(rng, 100 - tail)
            hits += found(" ".join(kept + words(rng, tail)), " ".join(kept + words(rng, tail)))[1]
        assert hits == (20 if alike else 0), tail


def test_near_duplicates_agree_with_the_exact_similarity() -> None:
    """LSH and 128 places together: next to nothing is missed at 0.9, and next to nothing is taken at 0.65."""
    rng = random.Random(5)

    def share_found(similarity: float) -> float:
        changed = round(200 * (1 - similarity) / (1 + similarity))  # last words that differ, of 200
        pairs = ((words(rng, 200 - changed), words(rng, changed), words(rng, changed)) for _ in range(60))
        return sum(found(" ".join(kept + one), " ".join(kept + other))[1] for kept, one, other in pairs) / 60

    assert share_found(0.92) > 0.95
    assert share_found(0.65) < 0.05
    assert 0.2 < share_found(SIMILAR) < 0.8


def test_only_later_copies_count_as_near_duplicates() -> None:
    assert found(*["the same words in the same order as before"] * 5) == [False, True, True, True, True]
    assert found() == []
    assert found("") == [False]


def test_a_dataset_written_twice_is_half_near_duplicates(milled: Path, tmp_path: Path, report: dict[str, Json]) -> None:
    for path in trace_files(milled):
        folder = tmp_path / path.relative_to(milled).parent
        folder.mkdir(parents=True, exist_ok=True)
        for copy in (0, 500):
            (folder / f"part-{copy + int(path.stem[-5:]):05}.parquet").write_bytes(path.read_bytes())
    twice = measure(tmp_path)
    assert twice["traces"] == 120
    assert twice["near_duplicates"]["traces"] == 60 + report["near_duplicates"]["traces"]
    assert twice["openings"]["distinct_share"] == pytest.approx(report["openings"]["distinct_share"] / 2)
    assert sum(one["traces"] for one in twice["near_duplicates"]["by_template"].values()) == twice["near_duplicates"]["traces"]


# --- what is printed ---


def test_json_is_the_report(milled: Path, report: dict[str, Json], capsys: pytest.CaptureFixture[str]) -> None:
    show_stats(milled, as_json=True)
    assert json.loads(capsys.readouterr().out) == report


def test_tables_fit_into_a_hundred_columns_and_name_what_was_counted(milled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_stats(milled, as_json=False)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    for title in ("Environments and kinds", "Trouble", "Templates", "Tools", "Call sequences", "Lengths", "Repetition", "Rejections"):
        assert f"\n{title}" in printed
    for word in ("goal_decomposition", "store", "bank", "update_plan", "near-duplicates", "transparent_reasoning", "60 traces"):
        assert word in printed


def test_names_are_printed_as_they_are(rewritten: Rewrite, capsys: pytest.CaptureFixture[str]) -> None:
    def nasty(row: dict[str, Json]) -> None:
        row["template"] = "[bold]x[/bold]"
        row["environment"] = "[/]\x1b[2J"

    show_stats(rewritten(nasty), as_json=False)
    printed = capsys.readouterr().out
    assert "[bold]x[/bold]" in printed
    assert "[/]␛[2J" in printed
    assert "\x1b" not in printed


# --- what cannot be read ---


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no run"):
        measure(tmp_path)


def test_a_run_without_traces_says_so(milled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text((milled / "run.json").read_text())
    show_stats(tmp_path, as_json=False)
    assert "no traces yet" in capsys.readouterr().out
    assert measure(tmp_path)["traces"] == 0


def test_rejections_are_told_where_nothing_was_accepted(milled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rejects").mkdir()
    for path in part_files(milled / "rejects"):
        (tmp_path / "rejects" / path.name).write_bytes(path.read_bytes())
    show_stats(tmp_path, as_json=False)
    printed = capsys.readouterr().out
    assert "no traces yet" in printed and "Rejections" in printed


def test_shards_are_enough_without_run_json(rewritten: Rewrite, report: dict[str, Json]) -> None:
    copied = measure(rewritten(lambda row: None))
    assert copied["run"]["complete"] is None
    assert copied["call_sequences"] == report["call_sequences"]


def test_a_damaged_shard_is_named(milled: Path, rewritten: Rewrite) -> None:
    out = rewritten(lambda row: None)
    path = trace_files(out)[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"part-00000\.parquet cannot be read"):
        measure(out)
    pq.write_table(pq.read_table(trace_files(milled)[0]).drop_columns(["scenario"]), path)
    with pytest.raises(DatasetError, match="no column 'scenario'"):
        measure(out)


def test_a_broken_trace_is_named(rewritten: Rewrite) -> None:
    def broken(row: dict[str, Json]) -> None:
        row["scenario"] = "{}"

    with pytest.raises(DatasetError, match=r"trace tm-[0-9a-f]+ is broken"):
        measure(rewritten(broken))


def test_what_is_still_being_written_is_left_alone(rewritten: Rewrite, report: dict[str, Json]) -> None:
    out = rewritten(lambda row: None)
    waiting = out / "data" / "tool_call" / ".part-00009.parquet.tmp"
    waiting.write_bytes(b"half")
    assert measure(out)["traces"] == report["traces"]
    assert waiting.exists()


def test_shards_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (100000, 99999, 2):
        (tmp_path / f"part-{number:05}.parquet").touch()
    assert [path.stem for path in part_files(tmp_path)] == ["part-00002", "part-99999", "part-100000"]
