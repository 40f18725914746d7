"""The writer: exactly N, in index order, whatever order records come in and wherever it is cut off."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from processes import PATIENCE, running

from tracemill.columns import arrow_schema, from_row, to_row
from tracemill.config import Config
from tracemill.errors import DatasetError
from tracemill.generators.scenario import kind_of
from tracemill.job import build_job, build_pipeline, run_record
from tracemill.trace import KINDS, Preference, Rejection, Trace
from tracemill.writer import Parcel, Shards, Writer, pack

CONFIG = Config(accept=24, seed=5, environments={"store": 1.0}, flaws=0.6, worlds=2)


@pytest.fixture(scope="module")
def parcels() -> list[Parcel]:
    pipeline = build_pipeline(CONFIG)

    async def mill() -> list[Parcel]:
        return [pack(await pipeline.mill(index)) for index in range(90)]

    return asyncio.run(mill())


def writer(out: Path, config: Config = CONFIG) -> Writer:
    job = build_job(config)
    return Writer(out, quotas=config.quotas(), kind_of=lambda index: kind_of(job.seed, index, job.mix), run=run_record(config))


def abandon(one: Writer) -> None:
    """What a kill leaves: no flush, and the lock gone."""
    if one._spool._file is not None:
        one._spool._file.close()
    one._lock.close()


def content(out: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for path in [*out.glob("data/*/*.parquet"), *out.glob("rejects/*.parquet"), *out.glob("preferences/*.parquet")]:
        for row in pq.read_table(path, partitioning=None).to_pylist():
            key = f"{path.parent.relative_to(out)}/{row['id']}"
            assert key not in found, f"{key} twice"
            found[key] = row
    return found


@pytest.fixture(scope="module")
def expected(parcels: list[Parcel], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    out = tmp_path_factory.mktemp("writer") / "out"
    one = writer(out)
    for parcel in parcels:
        one.add(parcel)
    assert one.full
    one.close()
    return content(out)


def test_exactly_as_many_as_asked_of_each_kind(expected: dict[str, dict[str, object]]) -> None:
    counts = {kind: sum(key.startswith(f"data/{kind}/") for key in expected) for kind in KINDS}
    assert counts == dict.fromkeys(KINDS, 8)


def test_the_order_of_arrival_does_not_matter(parcels: list[Parcel], expected: dict[str, dict[str, object]], tmp_path: Path) -> None:
    for seed in range(5):
        out = tmp_path / str(seed)
        one = writer(out)
        for parcel in random.Random(seed).sample(parcels, len(parcels)):
            one.add(parcel)
        one.close()
        assert content(out) == expected


def test_the_accepted_are_the_first_acceptable_indices(parcels: list[Parcel], expected: dict[str, dict[str, object]]) -> None:
    for kind in KINDS:
        good = [parcel["trace"]["id"] for parcel in parcels if parcel["trace"] and parcel["trace"]["kind"] == kind]
        assert {key.rpartition("/")[2] for key in expected if key.startswith(f"data/{kind}/")} == set(good[:8])


@pytest.mark.parametrize("seed", range(20))
def test_an_index_that_comes_back_when_enough_is_done_beyond_it_is_still_wanted(
    seed: int, parcels: list[Parcel], expected: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    """An actor dies with the oldest index after the others have filled the quotas, or the run is killed then and continued."""
    rng = random.Random(seed)
    out = tmp_path / "out"
    accepted = sorted(row["index"] for key, row in expected.items() if key.startswith("data/"))
    late = set(rng.sample(accepted, 3))
    one = writer(out)
    for parcel in parcels:
        if parcel["index"] not in late:
            one.add(parcel)
    assert not one.full
    if seed % 2:
        abandon(one)
        one = writer(out)
    assert {index for index in range(len(parcels)) if one.wants(index)} == late
    for index in sorted(late):
        one.add(parcels[index])
    one.close()
    assert content(out) == expected


class Cut(Exception):
    pass


@pytest.mark.parametrize("seed", range(40))
def test_cut_off_anywhere_and_continued_it_ends_the_same(
    seed: int, parcels: list[Parcel], expected: dict[str, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cuts come between parcels and in the middle of a flush, after any of its files; the spool may lose its last line."""
    rng = random.Random(seed)
    out = tmp_path / "out"
    flush = Shards.flush
    fuse = [0]

    def flush_or_cut(self: Shards) -> None:
        fuse[0] -= 1
        if fuse[0] == 0:
            raise Cut
        flush(self)

    monkeypatch.setattr(Shards, "flush", flush_or_cut)
    for _ in range(12):
        one = writer(out)
        fuse[0] = rng.randint(1, 9)
        wanted = [parcel for parcel in parcels if one.wants(parcel["index"])]
        try:
            for parcel in rng.sample(wanted, min(len(wanted), rng.randint(1, 30))):
                one.add(parcel)
                if rng.random() < 0.15:
                    one.flush()
        except Cut:
            pass
        abandon(one)
        if rng.random() < 0.5:
            tear(out, rng)
    fuse[0] = 0
    one = writer(out)
    for parcel in parcels:
        one.add(parcel)
    one.close()
    assert content(out) == expected
    assert one.tally.accepted.total() == 24
    assert one.tally.plain() == json.loads((out / "run.json").read_text())["counts"]


def tear(out: Path, rng: random.Random) -> None:
    """Cut the newest spool file in the middle of a line, as a lost machine may."""
    files = sorted(out.glob(".spool/*.jsonl"))
    if files and files[-1].stat().st_size > 10:
        with files[-1].open("r+b") as file:
            file.truncate(rng.randint(1, files[-1].stat().st_size - 1))


def test_what_was_spooled_is_not_made_again(parcels: list[Parcel], tmp_path: Path) -> None:
    one = writer(tmp_path / "out")
    for parcel in parcels[3:12]:  # index 0 to 2 are missing, so nothing can be committed
        one.add(parcel)
    abandon(one)
    two = writer(tmp_path / "out")
    assert [index for index in range(12) if two.wants(index)] == [0, 1, 2]
    abandon(two)


def test_a_dataset_loads_at_any_moment(parcels: list[Parcel], tmp_path: Path) -> None:
    out = tmp_path / "out"
    one = writer(out)
    seen = 0
    for number, parcel in enumerate(parcels[:40]):
        one.add(parcel)
        if number % 13 == 12:
            one.flush()
            data = load_dataset(str(out), split="train", cache_dir=str(tmp_path / f"cache{number}"))
            assert len(data) == one.tally.accepted.total() > seen
            seen = len(data)
    streamed = next(iter(load_dataset(str(out), split="train", streaming=True)))
    assert isinstance(streamed["messages"][1]["content"], str)
    abandon(one)


def test_rows_come_back_as_the_records_they_were(parcels: list[Parcel]) -> None:
    for parcel in parcels:
        rows = [(Trace, parcel["trace"])] if parcel["trace"] else []
        rows += [(Rejection, row) for row in parcel["rejections"]] + [(Preference, row) for row in parcel["preferences"]]  # type: ignore[misc]
        for cls, row in rows:
            assert to_row(from_row(cls, row)) == row


def test_null_arguments_survive(tmp_path: Path, parcels: list[Parcel]) -> None:
    """Arrow would fill missing keys and drop null ones; JSON columns must do neither."""
    row = dict(next(parcel["trace"] for parcel in parcels if parcel["trace"]))
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"days": None}}}
    row["messages"] = [json.dumps({"role": "assistant", "content": "", "tool_calls": [call]}), *row["messages"]]
    shards = Shards(tmp_path, Trace)
    shards.rows = [row]
    shards.flush()
    loaded = load_dataset("parquet", data_files=str(tmp_path / "*.parquet"), split="train", cache_dir=str(tmp_path / "c"))
    assert loaded[0]["messages"][0]["tool_calls"][0]["function"]["arguments"] == {"days": None}
    assert pq.read_schema(tmp_path / "part-00000.parquet").metadata == arrow_schema(Trace).metadata


def test_a_folder_of_another_config_is_refused(parcels: list[Parcel], tmp_path: Path) -> None:
    one = writer(tmp_path / "out")
    one.add(parcels[0])
    abandon(one)
    with pytest.raises(DatasetError) as refused:
        writer(tmp_path / "out", CONFIG.model_copy(update={"seed": 6}))
    assert "seed: 5 before, 6 now" in str(refused.value)


def test_a_folder_of_another_config_that_nothing_was_made_for_is_taken(tmp_path: Path) -> None:
    """A run whose model did not load, say, is given again with other settings."""
    abandon(writer(tmp_path / "out"))
    abandon(writer(tmp_path / "out", CONFIG.model_copy(update={"seed": 6})))
    assert json.loads((tmp_path / "out" / "run.json").read_text())["config"]["seed"] == 6


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DatasetError, match="not empty"):
        writer(tmp_path)


FILLS = """
import signal
import sys
from pathlib import Path
from tracemill.writer import whole_folder

with whole_folder(Path(sys.argv[1])) as hidden:
    (hidden / "half").touch()
    print("begun", flush=True)
    signal.pause()
"""


def test_nothing_is_left_of_a_folder_whose_writer_is_told_to_end(tmp_path: Path) -> None:
    with running([sys.executable, "-c", FILLS, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.terminate()
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())


def test_two_writers_cannot_hold_a_folder(tmp_path: Path) -> None:
    one = writer(tmp_path / "out")
    with pytest.raises(DatasetError, match="another process"):
        writer(tmp_path / "out")
    abandon(one)


def cards(out: Path) -> Iterator[str]:
    yield (out / "README.md").read_text(encoding="utf-8")


def test_the_card_tells_what_is_there(parcels: list[Parcel], tmp_path: Path) -> None:
    out = tmp_path / "out"
    one = writer(out)
    for parcel in parcels:
        one.add(parcel)
    one.close()
    card = next(cards(out))
    assert "license: apache-2.0" in card
    assert "| tool_call | 8 |" in card
    assert "| goal |" in card and "| constitution |" in card
    assert '"role": "user"' in card
    assert "load_dataset(" in card and "SFTTrainer(" in card
    assert not list(out.glob(".spool/*"))
