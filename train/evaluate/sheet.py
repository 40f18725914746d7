"""The folder of an evaluation, and the sink of its actors.

OUT/evaluation.json        the configs, the models, versions, what was left out
OUT/episodes/*.parquet     one row for each rollout
OUT/report.json, .html     what came out
OUT/.spool/*.jsonl         finished, not yet in a shard
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tracemill.columns import Row, from_row
from tracemill.errors import DatasetError
from tracemill.trace import Json, Outcome, Scenario, Verdict
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.suite import in_its_words
from tracemill.writer import SHARD_ROWS, Parcel, Shards, Spool, anything_made, changes, lock, readable, write_whole


class Sheet:
    """Takes parcels in any order until every try is there. What was lost on the way is tried again by the next process.

    Raises DatasetError if another process holds the folder, if it belongs to another evaluation, or if it cannot be written.
    """

    def __init__(self, out: Path, total: int, record: Mapping[str, Json]) -> None:
        self.out = out
        self.successes = 0
        self.spoiled: dict[int, str] = {}
        """Tries that say nothing of the policy (see Episode.counts), by index, each with its reason."""
        self.left_out: dict[int, str] = {}
        """Tries that there is no scenario for."""
        self.lost: dict[int, str] = {}
        """Tries without an episode."""
        self.frontier = 0
        self._done: set[int] = set()
        self._total = total
        try:
            out.mkdir(parents=True, exist_ok=True)
            _check_strangers(out)
            self._lock = lock(out)
            try:
                self.record = _owned(out, record)
                self._load()
            except BaseException:
                self._lock.close()
                raise
        except OSError as reason:
            raise DatasetError(f"{out} cannot be written: {reason.strerror or reason}") from reason

    @property
    def done(self) -> int:
        return len(self._done) + len(self.left_out) + len(self.lost)

    @property
    def counted(self) -> int:
        """Episodes that say something of the policy."""
        return len(self._done) - len(self.spoiled)

    @property
    def full(self) -> bool:
        return self.done == self._total

    def wants(self, index: int) -> bool:
        return index < self._total and not any(index in settled for settled in (self._done, self.left_out, self.lost))

    def add(self, parcel: Parcel) -> None:
        if not self.wants(parcel["index"]):
            return
        if parcel["episode"] is None:
            (self.left_out if parcel["left_out"] else self.lost)[parcel["index"]] = parcel["reason"]
        else:
            self._spool.add(parcel)
            self._take(parcel)
        self._advance()
        if len(self._shards.rows) >= SHARD_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._write_record()
        self._spool.clear()
        self._lock.close()

    def _load(self) -> None:
        self._write_record()
        self.left_out = {index: reason for reason, indices in self.record.get("left_out", {}).items() for index in indices}
        self._shards = Shards(self.out / "episodes", Episode)
        for row in self._shards.read(["index", "arm", "scenario", "stop", "why", "outcome", "verdicts"]):
            self._count(row)
        self._spool = Spool(self.out / ".spool")
        for parcel in self._spool.read():
            self._take(parcel)
        self._advance()

    def _write_record(self) -> None:
        """With what was left out, so that a complete evaluation is known to be complete."""
        left_out: dict[str, list[int]] = {}
        for index, reason in sorted(self.left_out.items()):
            left_out.setdefault(reason, []).append(index)
        self.record |= {"left_out": left_out} if left_out else {}
        write_whole(self.out / "evaluation.json", json.dumps(self.record, indent=2) + "\n")

    def _take(self, parcel: Parcel) -> None:
        if parcel["index"] not in self._done:
            self._count(parcel["episode"])
            self._shards.rows.append(parcel["episode"])

    def _count(self, row: Row) -> None:
        known: dict[str, Any] = {
            "arm": row["arm"],
            "scenario": Scenario.model_validate_json(row["scenario"]),
            "stop": row["stop"],
            "outcome": row["outcome"] and Outcome.model_validate_json(row["outcome"]),
            "verdicts": tuple(map(Verdict.model_validate_json, row["verdicts"])),
        }
        episode = Episode.model_construct(**known)
        self._done.add(row["index"])
        self.successes += episode.counts and episode.success
        if not episode.counts:
            self.spoiled[row["index"]] = row["why"]

    def _advance(self) -> None:
        while self.frontier < self._total and not self.wants(self.frontier):
            self.frontier += 1

    def _flush(self) -> None:
        self._shards.flush()
        self._spool.settle(self._total)


def episodes(out: Path) -> Iterator[Episode]:
    """The episodes of an evaluation, shard by shard. Raises DatasetError where there are none, or where a shard is broken."""
    import pyarrow.parquet as pq

    shards = sorted((out / "episodes").glob("part-*.parquet"))
    if not shards:
        raise DatasetError(
            f"{out} holds no evaluation", ["expected OUT/episodes/part-*.parquet, as tracemill evaluate --out OUT writes them"]
        )
    for path in shards:
        with readable(path):
            for batch in pq.ParquetFile(path).iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    yield from_row(Episode, row)


def _check_strangers(out: Path) -> None:
    stray = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith("."))
    if stray and "evaluation.json" not in stray:
        raise DatasetError(f"{out} is not empty and holds no evaluation: choose another --out", [f"found {name}" for name in stray[:5]])


def recorded(out: Path) -> dict[str, Json]:
    """What an evaluation noted of its settings and models. Raises DatasetError where that cannot be read."""
    try:
        record: dict[str, Json] = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
        if not record.keys() >= {"digest", "content"}:
            raise ValueError("it has no digest or no content")
    except (OSError, ValueError, AttributeError) as reason:
        raise DatasetError(f"{out / 'evaluation.json'} cannot be read, so nobody knows what was played: choose another --out") from reason
    return record


def _owned(out: Path, record: Mapping[str, Json]) -> dict[str, Json]:
    """The record of what the folder holds, which is this one where nothing was played yet. Raises DatasetError if it is another's."""
    if not anything_made(out):
        return dict(record)
    before = recorded(out)
    if before["digest"] != record["digest"]:
        raise DatasetError(
            f"{out} holds another evaluation: continue it with its own settings, or choose another --out",
            [in_its_words(line) for line in changes(before["content"], record["content"])],
        )
    if others := _others(before.get("models", {}), record.get("models", {})):
        raise DatasetError(f"{out} holds the evaluation of another model: choose another --out", others)
    return before


def _others(before: dict[str, dict[str, Json]], now: dict[str, dict[str, Json]]) -> list[str]:
    """Where models differ, of what is known of both: a folder may be gone meanwhile, or an endpoint down."""
    known = [(role, key) for role in before if role in now for key in before[role] if key in now[role]]
    return [f"{role}.{key}: {before[role][key]} before, {now[role][key]} now" for role, key in known if before[role][key] != now[role][key]]
