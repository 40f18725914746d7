"""What people have said, in SQLite: one row for each act, nothing is ever changed.

    OUT/.annotations/messages.sqlite        next messages that were judged
    OUT/.annotations/trajectories.sqlite    whole trajectories, with --whole

Several processes may write at once. An act is on disk before it is answered (WAL with synchronous=FULL). That nobody judges a
pair twice, the database itself sees to: an act is refused while one of the same ticket stands.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

from tracemill.annotating.pairs import Rank
from tracemill.errors import ConfigError, DatasetError
from tracemill.trace import fingerprint

Press = Literal["left", "right", "tie", "skip"]
Choice = Literal["first", "second", "tie", "skip"]
VERSION = 1
PATIENCE = 10.0  # seconds to wait for another writer
CLAIM = 15 * 60.0  # seconds for which a pair that is open before somebody counts as being judged
LONGEST_NAME, LONGEST_NOTE = 64, 4000  # characters
TABLES = """
CREATE TABLE shown (
    ticket INTEGER PRIMARY KEY AUTOINCREMENT,
    annotator TEXT NOT NULL,
    pair TEXT NOT NULL,
    "left" TEXT NOT NULL CHECK ("left" IN ('first', 'second')),
    at REAL NOT NULL, -- when it was last shown, in seconds since 1970
    act INTEGER REFERENCES acts (id), -- the judgement that stands, with what was pressed: kept up by triggers alone
    press TEXT,
    UNIQUE (annotator, pair)
) STRICT;
CREATE INDEX shown_pair ON shown (pair, annotator, press, at);
CREATE INDEX shown_act ON shown (annotator, act, at);
CREATE TABLE acts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ticket INTEGER NOT NULL REFERENCES shown (ticket),
    press TEXT NOT NULL CHECK (press IN ('left', 'right', 'tie', 'skip', 'undo')),
    undoes INTEGER UNIQUE REFERENCES acts (id) CHECK ((undoes IS NULL) = (press != 'undo')),
    reasons TEXT NOT NULL, -- JSON list of texts
    note TEXT NOT NULL,
    at TEXT NOT NULL -- UTC
) STRICT;
CREATE VIEW judgements AS
    SELECT acts.id AS act, annotator, pair, acts.press AS press,
        CASE acts.press WHEN 'left' THEN "left" WHEN 'right' THEN iif("left" = 'first', 'second', 'first') ELSE acts.press END AS choice,
        reasons, note, acts.at AS at
    FROM shown JOIN acts ON acts.id = shown.act;
CREATE TRIGGER once BEFORE INSERT ON acts
    WHEN NEW.press != 'undo' AND (SELECT act FROM shown WHERE ticket = NEW.ticket) IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'judged already'); END;
CREATE TRIGGER standing AFTER INSERT ON acts BEGIN
    UPDATE shown SET act = iif(NEW.press = 'undo', NULL, NEW.id), press = nullif(NEW.press, 'undo') WHERE ticket = NEW.ticket;
END;
CREATE TRIGGER kept BEFORE UPDATE ON acts BEGIN SELECT RAISE(ABORT, 'acts are never changed'); END;
CREATE TRIGGER all_kept BEFORE DELETE ON acts BEGIN SELECT RAISE(ABORT, 'acts are never deleted'); END;
"""


class Refused(Exception):
    """An act that comes too late: another window was faster. The message is for the person."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A pair before one person, with the side on which they see its first candidate: the same however often it is shown."""

    number: int
    pair: str
    left: Rank


@dataclass(frozen=True, slots=True)
class Judgement:
    """What stands: acts that were undone do not."""

    act: int
    annotator: str
    pair: str
    press: Press
    choice: Choice
    reasons: tuple[str, ...]
    note: str
    at: str


class Store:
    """One file of judgements, made if it is not there. Raises DatasetError where it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._told():
            path.parent.mkdir(exist_ok=True)
            self._db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._file = path.stat()
            with self._transaction():
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in _statements(TABLES):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {VERSION}")
        if version not in (0, VERSION):
            raise DatasetError(f"{path} was written by another version of tracemill: expected format {VERSION}, found {version}")

    def close(self) -> None:
        self._db.close()

    # --- what is judged next ---

    def next(self, annotator: str, order: Collection[str], *, judges: int) -> Ticket | None:
        """What this person has open, else the first pair of the order that is theirs to judge; None if there is none.

        A pair wants `judges` judgements; those who have it open now count as judges, and who skipped it does not.
        """
        now = time.time()
        with self._transaction():
            pair = self._open(annotator, order) or self._first(annotator, order, judges, now)
            if pair is None:
                return None
            self._db.execute(
                'INSERT INTO shown (annotator, pair, "left", at) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at',
                (annotator, pair, _toss(annotator, pair), now),
            )
            row = self._db.execute('SELECT ticket, pair, "left" FROM shown WHERE annotator = ? AND pair = ?', (annotator, pair)).fetchone()
            return Ticket(*row)

    def _open(self, annotator: str, order: Collection[str]) -> str | None:
        """The pair that was last put before this person and that they have not judged, or whose judgement they took back."""
        rows = self._db.execute("SELECT pair FROM shown WHERE annotator = ? AND act IS NULL ORDER BY at DESC", (annotator,))
        return next((pair for (pair,) in rows if pair in order), None)

    def _first(self, annotator: str, order: Collection[str], judges: int, now: float) -> str | None:
        settled = self.settled(annotator, judges, now)
        return next((pair for pair in order if pair not in settled), None)

    def settled(self, annotator: str, judges: int, now: float | None = None) -> set[str]:
        """The pairs that this person need not judge: they have, or enough others have, or are about to if `now` is given."""
        since = float("inf") if now is None else now - CLAIM
        rows = self._db.execute(
            "SELECT pair FROM shown GROUP BY pair HAVING max(annotator = :me AND press IS NOT NULL) "
            "OR sum(annotator != :me AND iif(press IS NULL, at > :since, press != 'skip')) >= :judges",
            {"me": annotator, "since": since, "judges": judges},
        )
        return {pair for (pair,) in rows}

    # --- acts ---

    def judge(self, annotator: str, ticket: int, press: Press, reasons: Sequence[str] = (), note: str = "") -> int:
        """The number of the act, which is on disk then. Raises Refused where the pair is judged already or not theirs, DatasetError
        where it cannot be kept."""
        row = self._db.execute("SELECT 1 FROM shown WHERE ticket = ? AND annotator = ?", (ticket, annotator)).fetchone()
        if row is None:
            raise Refused("This pair was not put before you.")
        try:
            with self._transaction():
                return self._act(ticket, press, None, reasons, note)
        except sqlite3.IntegrityError as reason:
            raise Refused("You have judged this pair already, in another window.") from reason

    def undo(self, annotator: str, act: int) -> Judgement:
        """Take back a judgement, and return it; its pair comes next. Raises Refused where it is not the person's last one that stands."""
        with self._transaction():
            last = self.last(annotator)
            if last is None or last.act != act:
                raise Refused("What you want to take back is no longer your last judgement: you went on in another window.")
            (ticket,) = self._db.execute("SELECT ticket FROM acts WHERE id = ?", (act,)).fetchone()
            self._act(ticket, "undo", act)
            self._db.execute("UPDATE shown SET at = ? WHERE ticket = ?", (time.time(), ticket))
            return last

    def _act(self, ticket: int, press: str, undoes: int | None, reasons: Sequence[str] = (), note: str = "") -> int:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        told = json.dumps(list(reasons), ensure_ascii=False)
        values = (ticket, press, undoes, told, note, at)
        added = self._db.execute("INSERT INTO acts (ticket, press, undoes, reasons, note, at) VALUES (?, ?, ?, ?, ?, ?)", values)
        return cast(int, added.lastrowid)

    # --- reading ---

    def judgements(self) -> Iterator[Judgement]:
        """All that stand, in the order in which they were made."""
        yield from map(_judgement, self._db.execute(f"SELECT {_COLUMNS} FROM judgements ORDER BY act"))  # noqa: S608 - a constant

    def last(self, annotator: str) -> Judgement | None:
        """The person's last judgement that stands."""
        ((act,),) = self._db.execute("SELECT max(act) FROM shown WHERE annotator = ?", (annotator,))
        row = self._db.execute(f"SELECT {_COLUMNS} FROM judgements WHERE act = ?", (act,)).fetchone()  # noqa: S608 - a constant
        return row and _judgement(row)

    def judged(self, annotator: str) -> dict[str, int]:
        """How often the person has pressed what, as far as it stands."""
        return dict(
            self._db.execute("SELECT press, count(*) FROM shown WHERE annotator = ? AND press IS NOT NULL GROUP BY press", (annotator,))
        )

    def annotators(self) -> list[str]:
        """Everybody who was shown a pair."""
        return [name for (name,) in self._db.execute("SELECT DISTINCT annotator FROM shown ORDER BY annotator")]

    # --- inside ---

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """One writer at a time, from the first reading on. Raises DatasetError where the file was deleted or replaced: SQLite would go on
        writing into what nobody finds again."""
        if not self._is_there():
            raise DatasetError(f"{self.path} is gone, or another: nothing is saved until tracemill annotate is started again")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(self.path.stat(), self._file)
        except OSError:
            return False

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as reason:
            raise DatasetError(
                f"{self.path} cannot be opened: {reason}", ["it should be a file of judgements on a local disk that can be written"]
            ) from reason


_COLUMNS = "act, annotator, pair, press, choice, reasons, note, at"


def store_path(out: Path, *, whole: bool) -> Path:
    return out / ".annotations" / ("trajectories.sqlite" if whole else "messages.sqlite")


def named(name: str, known: Sequence[str]) -> str:
    """The name under which somebody judges: composed, as é can be written in two ways that look the same. Raises ConfigError where it is
    none, or differs in case alone from a known one."""
    plain = _composed(" ".join(name.split()))
    if not plain or len(plain) > LONGEST_NAME or not plain.isprintable():
        raise ConfigError(f"--name should be the name of who judges, of 1 to {LONGEST_NAME} printable characters; got {name!r}")
    same = [one for one in known if _composed(one) == plain]
    if same:
        return plain if plain in same else same[0]
    near = [one for one in known if _composed(one).casefold() == plain.casefold()]
    if near:
        raise ConfigError(f"--name {plain!r} is {near[0]!r} but for its case: use that, or another name for another person")
    return plain


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _judgement(row: tuple[int, str, str, Press, Choice, str, str, str]) -> Judgement:
    act, annotator, pair, press, choice, reasons, note, at = row
    return Judgement(act, annotator, pair, press, choice, tuple(json.loads(reasons)), note, at)


def _toss(annotator: str, pair: str) -> Rank:
    return "first" if int(fingerprint([annotator, pair]), 16) % 2 else "second"


def _statements(script: str) -> Iterator[str]:
    """One by one, since `executescript` commits before it begins."""
    statement = ""
    for line in script.strip().splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
