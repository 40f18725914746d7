"""What there is to judge: the preference pairs of a run, without a word of which one its maker holds for better."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from tracemill.columns import Row, from_row, shapes
from tracemill.errors import DatasetError
from tracemill.siblings import same_way
from tracemill.stats import part_files, read_rows, read_run, trace_files
from tracemill.trace import Message, Preference, Record, Rejection, Trace, fingerprint

Rank = Literal["first", "second"]
T = TypeVar("T", bound=Record)
LIGHT = ("id", "index", "source", "chosen", "rejected")
"""What of every pair is read at the start."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Where a pair lies, and under which names its candidates are judged."""

    key: str
    """Its id and a fingerprint of its candidates: what is judged is the text, whatever comes to bear that id later."""
    index: int
    source: str
    chosen: Rank
    """Which of the two the run holds for better. Which is first has nothing to do with that: the fingerprints decide."""
    path: Path
    row: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """A pair in full. One message each, or with `whole` all that came after the shared ones."""

    preference: Preference
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]


class Pairs:
    """The pairs of a run in the order in which everybody is given them: that of a hash, so that any beginning is a fair sample.

    Raises DatasetError where the folder holds no run, or no pairs that can be read.
    """

    problems: tuple[str, ...] = ()
    """Shards that cannot be read. What is in them cannot be judged, all else can; each is tried again at every `refresh`."""

    def __init__(self, out: Path, *, whole: bool = False) -> None:
        read_run(out)
        self.out = out
        self.whole = whole
        self._by_key: dict[str, Pair] = {}
        self._read: set[Path] = set()
        self._traces, self._rejects = _Places(), _Places()
        self.refresh()
        if not self._by_key and self.problems:
            raise DatasetError(f"{out} holds no preference pairs that can be read", self.problems)
        if not self._by_key:
            raise DatasetError(
                f"{out} holds no preference pairs{' with both trajectories' if whole else ''}: there is nothing to judge",
                [
                    "with a model as the teacher, tracemill generate --siblings 4 makes some: rollouts of one scenario that part ways",
                    "with the scripted teacher, tracemill generate --flaws 0.3 does: drafts that are revised",
                ],
            )

    @property
    def keys(self) -> KeysView[str]:
        """In the common order."""
        return self._by_key.keys()

    def __getitem__(self, key: str) -> Pair:
        return self._by_key[key]

    def refresh(self) -> None:
        """Take in the shards that a run has written since."""
        new = [path for path in part_files(self.out / "preferences") if path not in self._read]
        problems: list[str] = []
        if self.whole and new:
            problems += self._traces.refresh(trace_files(self.out)) + self._rejects.refresh(part_files(self.out / "rejects"))
        places_known = not problems  # else what was left out for want of a trajectory is looked at again
        found: list[Pair] = []
        for path in new:
            try:
                found += [pair for pair in _pairs(path) if not self.whole or self._has_both(pair)]
            except (DatasetError, UnicodeDecodeError) as reason:
                problems.append(_told(path, reason))
                continue
            if places_known:
                self._read.add(path)
        self.problems = tuple(problems)
        if any(pair.key not in self._by_key for pair in found):
            ordered = sorted([*self._by_key.values(), *found], key=lambda pair: fingerprint(pair.key))
            self._by_key = {pair.key: pair for pair in ordered}

    def load(self, pair: Pair) -> Candidates:
        """Raises DatasetError where the files do not hold what they should."""
        preference = _record(Preference, pair.path, pair.row)
        if not self.whole:
            return Candidates(preference, preference.chosen, preference.rejected)
        at = len(preference.prompt)
        traces = (_record(Trace, *place).messages for place in self._traces.of(pair.index))
        drafts = (_record(Rejection, *place).messages for place in self._rejects.of(pair.index))
        chosen = _going_on(preference.prompt, preference.chosen, traces)
        rejected = _going_on(preference.prompt, preference.rejected, drafts)
        if not chosen or not rejected:
            raise DatasetError(
                f"{self.out}: traces and ledger do not hold both trajectories of {preference.id}", [f"they part at message {at}"]
            )
        return Candidates(preference, chosen, rejected)

    def _has_both(self, pair: Pair) -> bool:
        return bool(self._traces.of(pair.index) and self._rejects.of(pair.index))


class _Places:
    """Where the records of each index lie."""

    def __init__(self) -> None:
        self._read: set[Path] = set()
        self._places: dict[int, list[tuple[Path, int]]] = {}

    def refresh(self, files: Sequence[Path]) -> list[str]:
        """Take in files that are new; why some cannot be read."""
        problems = []
        for path in files:
            if path in self._read:
                continue
            try:
                indices = [row["index"] for some in read_rows(path, ("index",)) for row in some]
            except DatasetError as reason:
                problems.append(_told(path, reason))
                continue
            for at, index in enumerate(indices):
                self._places.setdefault(index, []).append((path, at))
            self._read.add(path)
        return problems

    def of(self, index: int) -> list[tuple[Path, int]]:
        return self._places.get(index, [])


def _told(path: Path, reason: Exception) -> str:
    return reason.message if isinstance(reason, DatasetError) else f"{path} cannot be read: {reason}"


def _pairs(path: Path) -> Iterator[Pair]:
    rows = (row for some in read_rows(path, LIGHT) for row in some)
    for at, row in enumerate(rows):
        chosen, rejected = fingerprint(row["chosen"]), fingerprint(row["rejected"])
        first, second = sorted((chosen, rejected))
        key = f"{row['id']}:{fingerprint([first, second])[:12]}"
        yield Pair(key, row["index"], row["source"], "first" if chosen == first else "second", path, at)


def _record(cls: type[T], path: Path, at: int) -> T:
    try:
        rows: list[Row] = [row for some in read_rows(path, tuple(shapes(cls)), only=[at]) for row in some]
        return from_row(cls, rows[0])
    except DatasetError:
        raise
    except (IndexError, ValueError) as reason:
        raise DatasetError(f"{path}: row {at} cannot be read: {' '.join(str(reason).split())[:300]}") from reason


def _going_on(prompt: tuple[Message, ...], last: tuple[Message, ...], conversations: Iterator[tuple[Message, ...]]) -> tuple[Message, ...]:
    """What came of a message, from it on: of the first conversation that took the same way up to it; empty if none did."""
    at = len(prompt)
    return next((one[at:] for one in conversations if one[at : at + 1] == last and same_way(prompt, one[:at])), ())
