"""The dataset on disk: shards, ledger, spool, resume.

    OUT/README.md             dataset card with `configs:`
    OUT/data/KIND/*.parquet   accepted traces
    OUT/preferences/*.parquet
    OUT/rejects/*.parquet     the ledger
    OUT/run.json              the resolved config, versions, counts
    OUT/.spool/*.jsonl        finished, not yet in a shard

A shard appears by rename, after fsync; what is done is what the shards say. Records are committed in index order,
so that the accepted set is the first N acceptable indices, whatever finished first. Every finished record goes to
the spool as it comes, so that a crash loses nothing that was made. Preferences and rejections are written before the
traces they belong to: a crash in between leaves rows whose index is milled again and whose ids are then known.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tracemill import card
from tracemill.columns import Row, table, to_row
from tracemill.errors import DatasetError
from tracemill.pipeline import Milled
from tracemill.stopping import tidied_up
from tracemill.trace import KINDS, Json, Kind, Preference, Record, Rejection, Trace

SHARD_ROWS = 1000
FIRST_FLUSH = 5.0  # seconds; then doubled up to LAST_FLUSH, so that a long run does not end in a thousand small shards
LAST_FLUSH = 120.0

Parcel = dict[str, Any]
"""What one index came to, encoded: {index, reason: str, lost: bool, trace: row or None, rejections: [row], preferences: [row]}.

The reason says why there is no trace."""


def pack(milled: Milled) -> Parcel:
    """Encode where the record was made; the driver only passes rows on."""
    return {
        "index": milled.index,
        "reason": "" if milled.trace else milled.rejections[-1].reason,
        "trace": to_row(milled.trace) if milled.trace else None,
        "rejections": [to_row(one) for one in milled.rejections],
        "preferences": [to_row(one) for one in milled.preferences],
        "lost": milled.lost,
    }


@dataclass
class Tally:
    """What has been committed so far."""

    accepted: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    """Final rejections by stage."""
    blamed: Counter[str] = field(default_factory=Counter)
    """Final rejections by who is to blame."""
    revised: int = 0
    """Drafts and siblings that were rejected without that being the end of the scenario."""
    preferences: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    @property
    def finished(self) -> int:
        return self.accepted.total() + self.rejected.total()

    def stages(self) -> Iterator[tuple[str, int, int]]:
        """For each stage how many scenarios reached it, and how many ended there."""
        left = self.finished
        for stage in ("infrastructure", "rollout", "schema", "replay", "goal", "proof", "constitution"):
            yield stage, left, self.rejected[stage]
            left -= self.rejected[stage]

    @property
    def agent_yield(self) -> float | None:
        """Share of accepted traces among those that the agent alone decided: what its users and its machines spoiled does not
        count. None before the first."""
        decided = self.accepted.total() + self.blamed["agent"]
        return self.accepted.total() / decided if decided else None

    def spend(self, usage: Mapping[str, Any]) -> None:
        self.prompt_tokens += usage.get("prompt_tokens", 0)
        self.completion_tokens += usage.get("completion_tokens", 0)
        self.cost += usage.get("cost", 0.0)

    def plain(self) -> dict[str, Json]:
        return {
            "accepted": dict(self.accepted), "rejected": dict(self.rejected), "revised": self.revised,
            "preferences": self.preferences, "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
            "blamed": dict(self.blamed), "cost": round(self.cost, 6),
        }  # fmt: skip


class Shards:
    """One folder of shards of one record kind, and the rows that wait to be written."""

    def __init__(self, folder: Path, record: type[Record]) -> None:
        self.folder = folder
        self._record = record
        self.rows: list[Row] = []
        for stale in folder.glob(".*.tmp"):
            stale.unlink()

    def flush(self) -> None:
        """Write the waiting rows as one shard, visible only when it is whole and on disk."""
        if not self.rows:
            return
        import pyarrow.parquet as pq

        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(path.stem.rpartition("-")[2]) for path in self.folder.glob("part-*.parquet")]
        name = f"part-{max(numbers, default=-1) + 1:05}.parquet"
        hidden = self.folder / f".{name}.tmp"
        with hidden.open("wb") as file:
            pq.write_table(table(self._record, self.rows), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(self.folder / name)
        _sync_folder(self.folder)
        self.rows = []

    def read(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        """The named columns of all rows on disk, shard by shard."""
        import pyarrow.parquet as pq

        for path in sorted(self.folder.glob("part-*.parquet")):
            with readable(path):
                rows = pq.read_table(path, columns=columns, partitioning=None).to_pylist()
            yield from rows


class Writer:
    """Commits parcels in index order until every kind has its number. One process at a time may hold a folder.

    Raises DatasetError if another does, or if the folder belongs to another job.
    """

    def __init__(self, out: Path, *, quotas: Mapping[Kind, int], kind_of: Callable[[int], Kind], run: Mapping[str, Json]) -> None:
        self.out = out
        self.quotas = dict(quotas)
        self.tally = Tally()
        self._kind_of = kind_of
        self._run = dict(run)
        out.mkdir(parents=True, exist_ok=True)
        self._check_owner()
        self._lock = lock(out)
        self._traces = {kind: Shards(out / "data" / kind, Trace) for kind in KINDS}
        self._rejects = Shards(out / "rejects", Rejection)
        self._preferences = Shards(out / "preferences", Preference)
        self._pending: dict[int, Parcel | None] = {}
        self._waiting: dict[str, list[int]] = {kind: [] for kind in KINDS}  # accepted, but not yet committed; in order
        self._present: set[str] = set()
        self.frontier = 0
        """Every index below is committed, or its kind was full."""
        self._load()
        self._spool = Spool(out / ".spool")
        for parcel in self._spool.read():
            self._take(parcel)
        self._next_flush = time.monotonic() + FIRST_FLUSH
        self._interval = FIRST_FLUSH
        self._advance()
        self.write_run()

    # --- what is wanted ---

    @property
    def full(self) -> bool:
        return all(self.tally.accepted[kind] >= number for kind, number in self.quotas.items())

    def wants(self, index: int) -> bool:
        """Whether the index still has to be milled: not done, and its kind not filled by what is done before it.

        What is accepted beyond it does not count, since it would take that one's place. Once False, it stays so.
        """
        if index < self.frontier or index in self._pending:
            return False
        kind = self._kind_of(index)
        return self.tally.accepted[kind] + bisect_left(self._waiting[kind], index) < self.quotas.get(kind, 0)

    # --- what comes in ---

    def add(self, parcel: Parcel) -> None:
        """Take a finished index, in any order, twice at will."""
        if parcel["index"] < self.frontier or parcel["index"] in self._pending:
            return
        self._spool.add(parcel)
        self._take(parcel)
        self._advance()
        if self._due():
            self.flush()

    def flush(self) -> None:
        """Write what is committed."""
        self._preferences.flush()
        self._rejects.flush()
        for shards in self._traces.values():
            shards.flush()
        self._spool.settle(self.frontier)
        self._interval = min(LAST_FLUSH, self._interval * 2)
        self._next_flush = time.monotonic() + self._interval
        self.write_run()

    def close(self) -> None:
        self.flush()
        if self.full:
            self._spool.clear()
        self._lock.close()

    def write_run(self) -> None:
        write_whole(self.out / "run.json", json.dumps({**self._run, "counts": self.tally.plain(), "complete": self.full}, indent=2) + "\n")
        write_whole(self.out / "README.md", card.render(self.out, self._run, self.tally, complete=self.full))

    # --- inside ---

    def _due(self) -> bool:
        if any(len(shards.rows) >= SHARD_ROWS for shards in self._traces.values()):
            return True
        return time.monotonic() >= self._next_flush

    def _take(self, parcel: Parcel) -> None:
        index = parcel["index"]
        if index < self.frontier or index in self._pending:
            return
        self._pending[index] = parcel
        if parcel["trace"]:
            insort(self._waiting[parcel["trace"]["kind"]], index)

    def _advance(self) -> None:
        """Commit in index order as far as it goes."""
        while not self.full:
            kind = self._kind_of(self.frontier)
            if self.tally.accepted[kind] >= self.quotas.get(kind, 0):
                self._drop(self.frontier)
            elif self.frontier not in self._pending:
                return
            else:
                self._commit(self._pending.pop(self.frontier))
            self.frontier += 1

    def _drop(self, index: int) -> None:
        """Its kind is full: whatever came of it does not count."""
        parcel = self._pending.pop(index, None)
        if parcel and parcel["trace"]:
            self._waiting[parcel["trace"]["kind"]].remove(index)

    def _commit(self, parcel: Parcel | None) -> None:
        if parcel is None:  # on disk already, and counted when it was read
            return
        for row in parcel["preferences"]:
            self.tally.preferences += row["id"] not in self._present
            if row["id"] not in self._present:
                self._preferences.rows.append(row)
        for row in parcel["rejections"]:
            if row["id"] not in self._present:
                self._rejects.rows.append(row)
                self._count_rejection(row)
        trace = parcel["trace"]
        if trace:
            self._waiting[trace["kind"]].remove(parcel["index"])  # the first
            self._traces[trace["kind"]].rows.append(trace)
            self.tally.accepted[trace["kind"]] += 1
            self.tally.spend(json.loads(trace["usage"]))

    def _count_rejection(self, row: Row) -> None:
        if row["final"]:
            self.tally.rejected[row["stage"]] += 1
            self.tally.blamed[row["blame"]] += 1
            self.tally.spend(json.loads(row["usage"]))
        else:
            self.tally.revised += 1

    def _load(self) -> None:
        """What the shards say is done. Ids are remembered only from the first gap on: that is all that can come again."""
        done: dict[int, str] = {}
        for kind, shards in self._traces.items():
            for row in shards.read(["index", "usage"]):
                done[row["index"]] = kind
                self.tally.spend(json.loads(row["usage"]))
        loose: list[tuple[int, str]] = []
        for row in self._rejects.read(["index", "id", "final", "stage", "blame", "usage"]):
            self._count_rejection(row)
            if row["final"]:
                done[row["index"]] = ""
            loose.append((row["index"], row["id"]))
        for row in self._preferences.read(["index", "id"]):
            self.tally.preferences += 1
            loose.append((row["index"], row["id"]))
        while not self.full:
            kind = self._kind_of(self.frontier)
            if self.tally.accepted[kind] < self.quotas.get(kind, 0):
                if self.frontier not in done:
                    break
                if done[self.frontier]:
                    self.tally.accepted[kind] += 1
            self.frontier += 1
        self._present = {id for index, id in loose if index >= self.frontier}
        for index, kind_or_none in done.items():
            if index >= self.frontier:
                self._pending[index] = None
                if kind_or_none:
                    self.tally.accepted[kind_or_none] += 1  # on disk, so it stays

    def _check_owner(self) -> None:
        path = self.out / "run.json"
        if not path.exists():
            stray = [entry.name for entry in self.out.iterdir() if not entry.name.startswith(".")]
            if stray:
                raise DatasetError(
                    f"{self.out} is not empty and holds no run: choose another --out", [f"found {name}" for name in sorted(stray)[:5]]
                )
            return
        before = json.loads(path.read_text(encoding="utf-8"))
        if "cleaned" in before:
            raise DatasetError(
                f"{self.out} holds a cleaned run: continue {before['cleaned']['of']}, which it was made from, and clean that"
            )
        if anything_made(self.out) and before.get("digest") != self._run.get("digest"):
            raise DatasetError(
                f"{self.out} holds a run of another config: continue it with that config, or choose another --out",
                changes(before.get("config", {}), self._run.get("config", {})),
            )


class Spool:
    """Finished parcels that no shard holds yet: JSON lines, a new file after each flush."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._last: dict[Path, int] = {}  # the largest index that a file holds
        self._number = max((int(path.stem) for path in folder.glob("*.jsonl")), default=-1) + 1
        self._file: IO[str] | None = None

    def read(self) -> Iterator[Parcel]:
        """What earlier processes left. A line that a crash has cut is passed over: its index is milled again."""
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    with contextlib.suppress(json.JSONDecodeError):
                        parcel = json.loads(line)
                        self._last[path] = max(self._last.get(path, -1), parcel["index"])
                        yield parcel
            self._last.setdefault(path, -1)

    def add(self, parcel: Parcel) -> None:
        if self._file is None:
            path = self._folder / f"{self._number:06}.jsonl"
            self._file = path.open("a", encoding="utf-8")
            self._number += 1
        path = Path(self._file.name)
        self._last[path] = max(self._last.get(path, -1), parcel["index"])
        self._file.write(json.dumps(parcel, ensure_ascii=False) + "\n")
        self._file.flush()  # to the system: a killed process loses nothing, a lost machine loses what is milled again

    def settle(self, frontier: int) -> None:
        """Everything below the frontier is in a shard: drop the files that hold nothing else."""
        if self._file is not None:
            self._file.close()
            self._file = None
        for path, last in list(self._last.items()):
            if last < frontier:
                path.unlink(missing_ok=True)
                del self._last[path]

    def clear(self) -> None:
        self.settle(max(self._last.values(), default=0) + 1)
        with contextlib.suppress(OSError):
            self._folder.rmdir()


def anything_made(out: Path) -> bool:
    """Whether a folder holds a finished record; where it does not, other settings may have it."""
    return next(out.glob("**/part-*.parquet"), None) is not None or any(path.stat().st_size for path in out.glob(".spool/*.jsonl"))


@contextlib.contextmanager
def readable(shard: Path) -> Iterator[None]:
    """Raises DatasetError where a shard is broken."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as reason:
        raise DatasetError(
            f"{shard} cannot be read: {reason}", ["remove it and run the same command again: what it held is made anew"]
        ) from reason


def write_whole(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old text or the new, never half of it."""
    hidden = path.with_name(f".{path.name}.tmp")
    hidden.write_text(text, encoding="utf-8")
    hidden.replace(path)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `folder` (empty, or not there) when that is done: there is never half of it, and nothing
    is left of an attempt that fails. Raises DatasetError where it cannot be written."""
    target = folder.resolve()
    hidden = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with tidied_up():
        try:
            hidden.mkdir(parents=True)
            yield hidden
            hidden.replace(target)
        except OSError as reason:
            raise DatasetError(f"{folder} cannot be written: {reason.strerror or reason}") from reason
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def changes(before: Json, now: Json, path: str = "", *, names: tuple[str, str] = ("before", "now")) -> list[str]:
    """Where two configs differ: 'path: was, is now'."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted({*before, *now})
        return [line for key in keys for line in changes(before.get(key), now.get(key), f"{path}.{key}" if path else key, names=names)]
    return [] if before == now else [f"{path}: {before!r} {names[0]}, {now!r} {names[1]}"]


def lock(out: Path) -> IO[str]:
    """Hold a folder until the file is closed, or the process ends in whatever way. Raises DatasetError if another process holds it."""
    file = (out / ".lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as reason:
        file.close()
        raise DatasetError(f"{out} is being written by another process: wait for it, or choose another --out") from reason
    return file


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
