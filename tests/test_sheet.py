"""The folder of an evaluation: nothing lost, nothing twice, and never two evaluations in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tracemill.config import Config
from tracemill.errors import DatasetError
from tracemill.train.evaluate import sheet as sheets
from tracemill.train.evaluate.play import Evaluation, Played, Player
from tracemill.train.evaluate.sheet import Sheet, episodes
from tracemill.train.evaluate.suite import SuiteConfig
from tracemill.writer import Parcel

CONFIG, SUITE = Config(environments={"store": 1}), SuiteConfig(scenarios=4)
RECORD: dict[str, Any] = {"digest": "a", "content": {"seed": 0, "teacher": {"model": "a"}}}


@pytest.fixture
async def parcels() -> list[Parcel]:
    player = Player(CONFIG, SUITE)
    return [Evaluation(CONFIG, SUITE).pack(await player.mill(index)) for index in range(4)]


def begun(out: Path, parcels: list[Parcel], record: dict[str, Any] = RECORD) -> None:
    """Half of it, in a shard."""
    sheet = Sheet(out, 4, record)
    for parcel in parcels[:2]:
        sheet.add(parcel)
    sheet.close()


def test_every_try_is_there_once_in_whatever_order_it_came(tmp_path: Path, parcels: list[Parcel]) -> None:
    sheet = Sheet(tmp_path, 4, RECORD)
    for index in (2, 0, 2, 3, 0, 1):
        assert not sheet.full
        sheet.add(parcels[index])
    assert sheet.full and sheet.frontier == 4 and sheet.successes == 4
    sheet.close()
    assert sorted(one.index for one in episodes(tmp_path)) == [0, 1, 2, 3]


def test_a_process_that_was_killed_has_lost_nothing(tmp_path: Path, parcels: list[Parcel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "SHARD_ROWS", 2)
    killed = Sheet(tmp_path, 4, RECORD)
    for index in (3, 1, 0):  # two of them in a shard, one in the spool
        killed.add(parcels[index])
    killed._lock.close()  # what the end of a process does
    assert killed._spool._file
    killed._spool._file.close()
    again = Sheet(tmp_path, 4, RECORD)
    assert again.done == 3 and [index for index in range(4) if again.wants(index)] == [2]
    again.add(parcels[2])
    again.close()
    assert sorted(one.index for one in episodes(tmp_path)) == [0, 1, 2, 3]


def test_what_was_lost_on_the_way_is_tried_again_by_the_next_process(tmp_path: Path, parcels: list[Parcel]) -> None:
    lost = Evaluation(CONFIG, SUITE).quarantined(1, "the engine died")
    sheet = Sheet(tmp_path, 2, RECORD)
    sheet.add(lost)
    sheet.add(parcels[0])
    assert sheet.full and sheet.lost == {1: "the engine died"}
    sheet.close()
    again = Sheet(tmp_path, 2, RECORD)
    assert not again.full and again.wants(1)
    again.close()


def test_another_evaluation_does_not_get_in(tmp_path: Path, parcels: list[Parcel]) -> None:
    begun(tmp_path, parcels)
    with pytest.raises(DatasetError, match=r"another evaluation[\s\S]*seed: 0 before, 1 now\n  - policy\.model: 'a' before, 'b' now"):
        Sheet(tmp_path, 4, {"digest": "b", "content": {"seed": 1, "teacher": {"model": "b"}}})
    Sheet(tmp_path, 4, RECORD).close()  # what was refused holds nothing


@pytest.mark.parametrize("before", [None, "{", '{"tracemill": "0.1.0"}'])
def test_a_folder_in_which_nothing_was_played_is_taken_over(tmp_path: Path, before: str | None, parcels: list[Parcel]) -> None:
    Sheet(tmp_path, 4, RECORD)._lock.close()
    if before is not None:
        (tmp_path / "evaluation.json").write_text(before)
    other = {"digest": "b", "content": {"seed": 1}}
    sheet = Sheet(tmp_path, 4, other)
    assert not sheet.done and json.loads((tmp_path / "evaluation.json").read_text()) == other
    sheet.add(parcels[0])
    sheet.close()
    with pytest.raises(DatasetError, match="another evaluation"):
        Sheet(tmp_path, 4, RECORD)


def test_another_model_by_the_same_name_does_not_get_in(tmp_path: Path, parcels: list[Parcel]) -> None:
    def record(**models: dict[str, str]) -> dict[str, Any]:
        return {**RECORD, "models": models}

    first = record(policy={"name": "m", "weights": "1"})
    begun(tmp_path, parcels, first)
    for models, what in (
        ({"policy": {"name": "m", "weights": "2"}}, r"policy\.weights: 1 before, 2 now"),
        ({"policy": {"name": "n", "weights": "1"}}, r"policy\.name: m before, n now"),
    ):
        with pytest.raises(DatasetError, match=rf"another model[\s\S]*{what}"):
            Sheet(tmp_path, 4, record(**models))
    for known in (first, record(policy={"name": "m"}), record()):  # as far as it is known now
        sheet = Sheet(tmp_path, 4, known)
        assert sheet.done == 2 and sheet.record == first
        sheet.close()
    assert json.loads((tmp_path / "evaluation.json").read_text()) == first


def test_an_evaluation_that_does_not_tell_its_models_goes_on_and_goes_on_not_telling(tmp_path: Path, parcels: list[Parcel]) -> None:
    begun(tmp_path, parcels)
    Sheet(tmp_path, 4, {**RECORD, "models": {"policy": {"name": "m"}}}).close()
    assert "models" not in json.loads((tmp_path / "evaluation.json").read_text())


def test_successes_are_counted_over_all_that_counts_whoever_played_it(tmp_path: Path, parcels: list[Parcel]) -> None:
    begun(tmp_path, parcels)
    again = Sheet(tmp_path, 4, RECORD)
    assert (again.successes, again.counted) == (2, 2)
    again.add(Evaluation(CONFIG, SUITE).quarantined(2, "the engine died"))
    spoiled = {**parcels[3], "episode": {**parcels[3]["episode"], "stop": "user", "why": "it told too much"}}
    again.add(spoiled)
    assert (again.successes, again.counted, again.done) == (2, 2, 4)
    again.close()
    last = Sheet(tmp_path, 4, RECORD)
    assert (last.successes, last.counted, last.spoiled) == (2, 2, {3: "it told too much"})
    last.close()


def test_what_suits_nothing_is_left_out_for_good(tmp_path: Path, parcels: list[Parcel]) -> None:
    sheet = Sheet(tmp_path, 4, RECORD)
    for index in range(4):
        sheet.add(parcels[index] if index % 2 else Evaluation(CONFIG, SUITE).pack(Played(index, None, "nothing suits it", left_out=True)))
    sheet.close()
    again = Sheet(tmp_path, 4, RECORD)
    assert again.full and not again.lost and again.left_out == {0: "nothing suits it", 2: "nothing suits it"}
    again.close()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DatasetError, match=f"{out} cannot be written"):
            Sheet(out, 4, RECORD)


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"tracemill": "0.1.0"}'])
def test_a_broken_record_is_named_where_something_was_played(tmp_path: Path, text: str, parcels: list[Parcel]) -> None:
    begun(tmp_path, parcels)
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(DatasetError, match=r"evaluation\.json cannot be read"):
        Sheet(tmp_path, 4, RECORD)


def test_a_broken_shard_is_named(tmp_path: Path, parcels: list[Parcel]) -> None:
    begun(tmp_path, parcels)
    shard = tmp_path / "episodes" / "part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:500])
    with pytest.raises(DatasetError, match=rf"{shard} cannot be read[\s\S]*remove it"):
        Sheet(tmp_path, 4, RECORD)
    with pytest.raises(DatasetError, match=f"{shard} cannot be read"):
        list(episodes(tmp_path))
    shard.unlink()
    again = Sheet(tmp_path, 4, RECORD)
    assert not again.done
    again.close()


def test_two_processes_do_not_write_at_once(tmp_path: Path) -> None:
    held = Sheet(tmp_path, 4, RECORD)
    with pytest.raises(DatasetError, match="another process"):
        Sheet(tmp_path, 4, RECORD)
    held.close()


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(DatasetError, match=r"letters\.txt"):
        Sheet(tmp_path, 4, RECORD)


def test_a_folder_without_episodes_is_no_evaluation(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no evaluation"):
        list(episodes(tmp_path))
