"""The index of a run: what is asked of all records at once. The records themselves stay in the shards.

It lies in the user's cache folder, one SQLite file for each output folder, so that nothing is ever written beside the data:

    shards   each indexed shard: where its rows begin among all ids, its cells (labels, flags, numbers of each row, as int64)
    labels   what the numbers in the cells of labels mean
    records  id -> id of the record, title
    words    full text (FTS5, contentless), by id

Shards are added one by one, each in one transaction, while others read. A shard that has changed, or is gone, starts the
index anew: runs only grow. Two processes may share an index: one adds, the other reads along.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracemill.errors import DatasetError
from tracemill.stats import part_files, read_rows, row_count
from tracemill.trace import KINDS
from tracemill.viewer.entry import COLUMNS, FACETS, FLAGS, IMPORT_COLUMNS, NUMBERS, PARTS, Entry, Part, entry

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1  # of the file; another one is made anew
CELLS = (*FACETS, *NUMBERS, "flags", "part")
FOLDERS: dict[Part, tuple[str, ...]] = {
    "traces": (*(f"data/{kind}" for kind in KINDS), "data/imported"),
    "rejects": ("rejects",),
    "preferences": ("preferences",),
}
TABLES = """
    CREATE TABLE made (name TEXT);
    CREATE TABLE shards (number INTEGER PRIMARY KEY, first INTEGER, part TEXT, path TEXT UNIQUE, stamp TEXT, rows INTEGER, cells BLOB, calls TEXT, problem TEXT);
    CREATE TABLE labels (code INTEGER PRIMARY KEY, label TEXT UNIQUE);
    CREATE TABLE records (id INTEGER PRIMARY KEY, name TEXT, title TEXT);
    CREATE INDEX by_name ON records (name);
    CREATE VIRTUAL TABLE words USING fts5 (text, content='', tokenize="unicode61 remove_diacritics 2");
    INSERT INTO labels VALUES (0, '');
    INSERT INTO made VALUES (hex(randomblob(8)));
"""


def cache_path(out: Path) -> Path:
    """Where the index of an output folder lies: in $XDG_CACHE_HOME, or ~/.cache."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tracemill" / "view"
    return folder / f"{hashlib.sha256(str(out.resolve()).encode(errors='surrogateescape')).hexdigest()[:24]}.sqlite"


@dataclass(frozen=True)
class Shard:
    first: int
    """Id of its first row."""
    part: Part
    path: Path
    rows: int
    problem: str
    """Why it could not be read."""


@dataclass(frozen=True)
class Snapshot:
    """All that is indexed at one time; it never changes, so that an answer needs no lock."""

    made: str
    """Which making of the index: it changes when it starts anew."""
    shards: tuple[Shard, ...]
    cells: np.ndarray  # (len(CELLS), rows) int64; the row of an id is its column, as ids count from 0 without gaps
    labels: tuple[str, ...]
    calls: Counter[tuple[str, str]]

    @property
    def version(self) -> str:
        return f"{self.made}.{len(self.shards)}"

    def column(self, name: str) -> np.ndarray:
        return self.cells[CELLS.index(name)]  # type: ignore[no-any-return]

    def shard_of(self, id: int) -> Shard:
        return next(shard for shard in reversed(self.shards) if shard.first <= id)


class Index:
    def __init__(self, out: Path, path: Path | None = None) -> None:
        """Opens the index, or makes an empty one. Raises DatasetError if its folder cannot be written."""
        self.out = out
        self.path = path or cache_path(out)
        self.total = 0
        """Rows in all shards, as far as known."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._open()
        except (OSError, sqlite3.Error) as reason:
            raise DatasetError(
                f"the index {self.path} cannot be written: {reason}", ["XDG_CACHE_HOME names another folder for it"]
            ) from reason
        self._stopped = False
        self.snapshot = _empty()
        self._load()

    def has(self, part: Part) -> bool:
        """Whether there are shards of it, be they indexed or not."""
        return bool(_files(self.out, part))

    def stop(self) -> None:
        """Make `update` end before the next row; what it has of a shard is dropped."""
        self._stopped = True

    def _open(self) -> None:
        try:
            with closing(self.connect()) as db:
                known = db.execute("PRAGMA user_version").fetchone()[0]
                if known not in (0, FORMAT):
                    raise sqlite3.DatabaseError("of another version")
        except sqlite3.DatabaseError as reason:
            if isinstance(reason, sqlite3.OperationalError):  # no permission, a full disk: not a file that is broken
                raise
            self.path.unlink(missing_ok=True)
        with closing(self.connect()) as db:
            if not db.execute("PRAGMA user_version").fetchone()[0]:
                with _writing(self.path):
                    _make(db)

    def connect(self) -> sqlite3.Connection:
        """A connection that any thread may use, one at a time."""
        db = sqlite3.connect(self.path, timeout=30, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")  # what a power failure spoils is made again
        return db

    def update(self) -> bool:
        """Index the shards that are new, one by one; whether there were any. To be called again and again by one thread."""
        before = self.snapshot.version
        with closing(self.connect()) as db, _writing(self.path) as may_write:
            if may_write:
                missing = self._missing(db)
                counts = {path: _rows(path) for _, path in missing}
                self.total = sum(shard.rows for shard in self.snapshot.shards) + sum(counts.values())
                for part, path in missing:
                    self._add(db, part, path)
                    self._load()
        self._load()
        self.total = max(self.total, self.snapshot.cells.shape[1])
        return self.snapshot.version != before

    def _missing(self, db: sqlite3.Connection) -> list[tuple[Part, Path]]:
        there = {path.relative_to(self.out).as_posix(): (part, path) for part in PARTS for path in _files(self.out, part)}
        known = dict(db.execute("SELECT path, stamp FROM shards"))
        if any(name not in there or _stamp(there[name][1]) != stamp for name, stamp in known.items()):
            _make(db)
            self.snapshot, known = _empty(), {}
        return [one for name, one in there.items() if name not in known]

    def _add(self, db: sqlite3.Connection, part: Part, path: Path) -> None:
        stamp = _stamp(path)
        db.execute("BEGIN IMMEDIATE")
        (first,) = db.execute("SELECT coalesce(max(first + rows), 0) FROM shards").fetchone()
        labels = {label: code for code, label in db.execute("SELECT code, label FROM labels")}
        cells: list[list[int]] = []
        calls: Counter[tuple[str, str]] = Counter()
        problem = ""
        try:
            for at, made in enumerate(_entries(part, path), first):
                if self._stopped:
                    db.execute("ROLLBACK")
                    return
                db.execute("INSERT INTO records VALUES (?, ?, ?)", (at, _clean(made.name), _clean(made.title)))
                db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (at, _clean(made.text)))
                cells.append(_cells(part, made, labels))
                if part == "traces":
                    calls += made.calls
        except (DatasetError, FileNotFoundError, ValueError) as reason:  # the last of a text that is no UTF-8
            problem = str(reason)
            if not path.exists():
                db.execute("ROLLBACK")
                return
        db.executemany("INSERT OR IGNORE INTO labels VALUES (?, ?)", ((code, label) for label, code in labels.items()))
        counted = json.dumps([[*key, number] for key, number in calls.items()])
        values = (first, part, path.relative_to(self.out).as_posix(), stamp, len(cells), _packed(cells), counted, problem)
        db.execute("INSERT INTO shards (first, part, path, stamp, rows, cells, calls, problem) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        db.execute("COMMIT")

    def _load(self) -> None:
        """Take up what has been added, by this process or another."""
        import numpy as np

        old = self.snapshot
        with closing(self.connect()) as db:
            db.execute("BEGIN")  # one state of all tables
            (made,) = db.execute("SELECT name FROM made").fetchone()
            old = old if old.made == made else _empty(made)
            new = db.execute(_SHARDS, (len(old.shards),)).fetchall()
            labels = tuple(label for (label,) in db.execute("SELECT label FROM labels ORDER BY code"))
        shards = [Shard(first, part, self.out / path, rows, problem) for first, part, path, rows, problem, _, _ in new]
        cells = [np.frombuffer(packed, dtype=np.int64).reshape(len(CELLS), -1) for *_, packed, _ in new]
        calls = old.calls.copy()
        for *_, text in new:
            calls.update({(tool, what): number for tool, what, number in json.loads(text)})
        self.snapshot = Snapshot(made, (*old.shards, *shards), np.concatenate([old.cells, *cells], axis=1), labels, calls)


_SHARDS = "SELECT first, part, path, rows, problem, cells, calls FROM shards WHERE number > ? ORDER BY number"


def _empty(made: str = "") -> Snapshot:
    import numpy as np

    return Snapshot(made, (), np.zeros((len(CELLS), 0), dtype=np.int64), ("",), Counter())


def _make(db: sqlite3.Connection) -> None:
    """Empty tables, whatever was there."""
    db.execute("BEGIN IMMEDIATE")
    for (table,) in db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('made', 'shards', 'labels', 'records', 'words')"
    ).fetchall():
        db.execute(f"DROP TABLE {table}")
    for statement in TABLES.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {FORMAT}")
    db.execute("COMMIT")


@contextmanager
def _writing(path: Path) -> Iterator[bool]:
    """Whether this process may write: only one at a time does."""
    with path.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


# --- shards -------------------------------------------------------------------------------------------------


def _files(out: Path, part: Part) -> list[Path]:
    return [path for folder in FOLDERS[part] for path in part_files(out / folder)]


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except FileNotFoundError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def _rows(path: Path) -> int:
    try:
        return row_count(path)
    except DatasetError:
        return 0  # why is told when it is read


def _entries(part: Part, path: Path) -> Iterator[Entry]:
    """One for each row, in order; a row that is no record says so in its title."""
    imported = path.parent.name == "imported" or "source" in _names(path)
    columns = (IMPORT_COLUMNS if imported else COLUMNS)[part]
    for rows in read_rows(path, columns):
        for row in rows:
            try:
                yield entry(part, row)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as reason:
                yield Entry(str(row.get("id")), title=f"(broken: {reason!r})", flags={"broken"})


def _names(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as reason:
        raise DatasetError(f"{path} cannot be read: {reason}") from reason


def _clean(text: str) -> str:
    """Without lone surrogates, which JSON may hold and SQLite does not."""
    return text.encode(errors="replace").decode()


def _cells(part: Part, made: Entry, labels: dict[str, int]) -> list[int]:
    codes = [labels.setdefault(label, len(labels)) for label in (_clean(made.labels.get(name, "")) for name in FACETS)]
    flags = sum(1 << place for place, flag in enumerate(FLAGS) if flag in made.flags)
    return [*codes, *(made.numbers.get(name, 0) for name in NUMBERS), flags, PARTS.index(part)]


def _packed(cells: Sequence[Sequence[int]]) -> bytes:
    import numpy as np

    return np.array(cells, dtype=np.int64).reshape(-1, len(CELLS)).T.tobytes()
