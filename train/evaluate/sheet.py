"""The folder of an evaluation, and the sink of its actors.

OUT/evaluation.json        the configs, versions
OUT/episodes/*.parquet     one row for each rollout
OUT/report.json, .html     what came out
OUT/.spool/*.jsonl         finished, not yet in a shard
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from tracemill.columns import from_row
from tracemill.errors import DatasetError
from tracemill.trace import Json
from tracemill.train.evaluate.episode import Episode
from tracemill.writer import SHARD_ROWS, Parcel, Shards, Spool, changes, lock, write_whole


class Sheet:
    """Takes parcels in any order until every try is there. What was lost on the way is tried again by the next process.

    Raises DatasetError if another process holds the folder, or if it belongs to another evaluation.
    """

    def __init__(self, out: Path, total: int, record: Mapping[str, Json]) -> None:
        self.out = out
        self.successes = 0
        """Of those that came in now."""
        self._done: set[int] = set()
        self.lost: dict[int, str] = {}
        """Tries without an episode, by index, each with its reason."""
        self._total = total
        out.mkdir(parents=True, exist_ok=True)
        _check_owner(out, record)
        self._lock = lock(out)
        write_whole(out / "evaluation.json", json.dumps(record, indent=2) + "\n")
        self._shards = Shards(out / "episodes", Episode)
        for row in self._shards.read(["index"]):
            self._done.add(row["index"])
        self._spool = Spool(out / ".spool")
        for parcel in self._spool.read():
            self._take(parcel)
        self.frontier = 0
        self._advance()

    @property
    def done(self) -> int:
        return len(self._done) + len(self.lost)

    @property
    def full(self) -> bool:
        return self.done == self._total

    def wants(self, index: int) -> bool:
        return index < self._total and index not in self._done and index not in self.lost

    def add(self, parcel: Parcel) -> None:
        if not self.wants(parcel["index"]):
            return
        if parcel["episode"] is None:
            self.lost[parcel["index"]] = parcel["reason"]
        else:
            self._spool.add(parcel)
            self._take(parcel)
        self._advance()
        if len(self._shards.rows) >= SHARD_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._spool.clear()
        self._lock.close()

    def _take(self, parcel: Parcel) -> None:
        if parcel["index"] not in self._done:
            self._done.add(parcel["index"])
            self.successes += parcel["success"]
            self._shards.rows.append(parcel["episode"])

    def _advance(self) -> None:
        while self.frontier < self._total and not self.wants(self.frontier):
            self.frontier += 1

    def _flush(self) -> None:
        self._shards.flush()
        self._spool.settle(self._total)


def episodes(out: Path) -> Iterator[Episode]:
    """The episodes of an evaluation, shard by shard. Raises DatasetError where there are none."""
    import pyarrow.parquet as pq

    shards = sorted((out / "episodes").glob("part-*.parquet"))
    if not shards:
        raise DatasetError(
            f"{out} holds no evaluation", ["expected OUT/episodes/part-*.parquet, as tracemill evaluate --out OUT writes them"]
        )
    for path in shards:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=64):
            for row in batch.to_pylist():
                yield from_row(Episode, row)


def _check_owner(out: Path, record: Mapping[str, Json]) -> None:
    path = out / "evaluation.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["digest"] != record["digest"]:
            raise DatasetError(
                f"{out} holds another evaluation: continue it with its own settings, or choose another --out",
                changes(before["content"], record["content"]),
            )
    elif stray := sorted(entry.name for entry in out.iterdir() if not entry.name.startswith(".")):
        raise DatasetError(f"{out} is not empty and holds no evaluation: choose another --out", [f"found {name}" for name in stray[:5]])
