"""The folder of an evaluation: nothing lost, nothing twice, and never two evaluations in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracemill.config import Config
from tracemill.errors import DatasetError
from tracemill.train.evaluate import sheet as sheets
from tracemill.train.evaluate.play import Evaluation, Player
from tracemill.train.evaluate.sheet import Sheet, episodes
from tracemill.train.evaluate.suite import SuiteConfig
from tracemill.writer import Parcel

CONFIG, SUITE = Config(environments={"store": 1}), SuiteConfig(scenarios=4)
RECORD = {"digest": "a", "content": {"seed": 0}}


@pytest.fixture
async def parcels() -> list[Parcel]:
    player = Player(CONFIG, SUITE)
    return [Evaluation(CONFIG, SUITE).pack(await player.mill(index)) for index in range(4)]


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


def test_another_evaluation_does_not_get_in(tmp_path: Path) -> None:
    Sheet(tmp_path, 4, RECORD).close()
    with pytest.raises(DatasetError, match=r"another evaluation[\s\S]*seed: 0 before, 1 now"):
        Sheet(tmp_path, 4, {"digest": "b", "content": {"seed": 1}})


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
