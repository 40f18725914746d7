"""What there is to export in an output folder, read a few hundred rows at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tracemill.columns import Row, plain_tools
from tracemill.errors import ConfigError, DatasetError
from tracemill.exporting.form import Example, Pair
from tracemill.stats import file_sha256, is_import, part_files, read_rows, read_run, row_count
from tracemill.trace import KINDS, Json, fingerprint

EXAMPLE_COLUMNS = ("id", "messages", "tools")
T = TypeVar("T", Example, Pair)
PAIR_COLUMNS = ("id", "trace", "prompt", "chosen", "rejected", "tools")


@dataclass
class Source:
    """The shards of a run or of an import, of some kinds or of all. Raises ConfigError, DatasetError."""

    out: Path
    kinds: Sequence[str] = ()
    run: dict[str, Json] = field(init=False)
    shards: list[Path] = field(init=False)
    """Of conversations."""
    pairs: list[Path] = field(init=False)
    trajectories: list[Path] = field(init=False)
    """Of whole ways to go on, as people judged them: no format takes more than one message a side, so they are only counted."""

    def __post_init__(self) -> None:
        self.run = read_run(self.out)
        unknown = [f"no kind {kind!r}; there are {', '.join(KINDS)}" for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ConfigError("--kind names what is no kind of trace", unknown)
        if self.kinds and is_import(self.run):
            raise ConfigError(f"{self.out} holds imported conversations, which have no kind: leave --kind out")
        folders = ["imported"] if is_import(self.run) else [kind for kind in KINDS if not self.kinds or kind in self.kinds]
        self.shards = [path for folder in folders for path in part_files(self.out / "data" / folder)]
        self.pairs = part_files(self.out / "preferences")
        self.trajectories = part_files(self.out / "trajectories")
        if not self.shards and not self.pairs:
            raise DatasetError(f"{self.out} holds nothing to export: no {'conversation' if is_import(self.run) else 'trace'} is there")

    def digest(self) -> str:
        """Fingerprint of what would be read. Sizes would not do: a pair that is turned round is as long as it was."""
        files = [*self.shards, *self.pairs, *self.trajectories]
        return fingerprint([[path.relative_to(self.out).as_posix(), file_sha256(path)] for path in files] + [sorted(set(self.kinds))])

    def count(self) -> int:
        return sum(map(row_count, [*self.shards, *self.pairs]))

    def examples(self) -> Iterator[Example]:
        for path, row in _rows(self.shards, EXAMPLE_COLUMNS):
            yield _read(path, row, _example)

    def preferences(self) -> Iterator[tuple[str, Pair]]:
        """Each with the id of the trace that it belongs to."""
        for path, row in _rows(self.pairs, PAIR_COLUMNS):
            yield row["trace"], _read(path, row, _pair)


def _rows(paths: Sequence[Path], columns: Sequence[str]) -> Iterator[tuple[Path, Row]]:
    for path in paths:
        for rows in read_rows(path, columns):
            for row in rows:
                yield path, row


def _example(row: Row) -> Example:
    return Example(row["id"], [json.loads(text) for text in row["messages"]], plain_tools(tuple(row["tools"])))


def _pair(row: Row) -> Pair:
    (chosen,), (rejected,) = row["chosen"], row["rejected"]
    prompt = [json.loads(text) for text in row["prompt"]]
    return Pair(row["id"], prompt, json.loads(chosen), json.loads(rejected), plain_tools(tuple(row["tools"])))


def _read(path: Path, row: Row, make: Callable[[Row], T]) -> T:
    try:
        return make(row)
    except (ValueError, KeyError, TypeError) as reason:
        raise DatasetError(f"{path}: record {row['id']} is broken: {reason!r}", ["tracemill verify says what is wrong"]) from reason
