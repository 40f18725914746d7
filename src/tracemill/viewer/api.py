"""What the page asks: the run and how far its index is, a part of a list, one record, the figures of the charts.

GET /api/run
GET /api/list?part=traces&kind=tool_call&flag=masked&q=refund&from=0&limit=100[&near=RECORD]
GET /api/record?name=RECORD
GET /api/charts
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from tracemill.errors import DatasetError
from tracemill.stats import is_import, read_run
from tracemill.trace import Json
from tracemill.viewer.charts import charts
from tracemill.viewer.entry import FACETS, FLAGS, NUMBERS, PARTS
from tracemill.viewer.index import Index, Snapshot
from tracemill.viewer.record import shown
from tracemill.viewer.selection import Wanted, fields, select
from tracemill.viewer.server import application, reply, serve

if TYPE_CHECKING:
    import numpy as np

PAGE = Path(__file__).with_name("page")
AGAIN = 2.0  # seconds between two looks for new shards
MOST = 200  # rows of a list in one answer
RECENT = 16  # searches whose hits are kept
_TERM = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')

T = TypeVar("T")


def view(out: Path, *, port: int, open_browser: bool) -> None:
    """Serve the page until Ctrl-C. Raises DatasetError if there is no run, ConfigError if the port is taken."""
    read_run(out)
    serve(viewer(out), port=port, open_browser=open_browser, title=f"{out} in the browser:")


def viewer(out: Path, index: Path | None = None) -> web.Application:
    """The application; `index` is where its index lies, if not in the user's cache."""
    view = _View(out, Index(out, index))
    app = application(view.routes(), PAGE)
    app.cleanup_ctx.append(view.watch)
    return app


class _View:
    def __init__(self, out: Path, index: Index) -> None:
        self._out = out
        self._index = index
        self._db = index.connect()
        self._lock = threading.Lock()  # of the connection
        self._problem = ""
        self._settled = False
        self._charts: tuple[str, Json] = ("", None)
        self._recent: dict[tuple[str, str], np.ndarray] = {}
        """What searches have found; a list that is scrolled asks again and again."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/run", self._run), web.get("/api/list", self._list),
            web.get("/api/record", self._record), web.get("/api/charts", self._figures),
        ]  # fmt: skip

    async def watch(self, app: web.Application) -> AsyncIterator[None]:
        """Index what is there and what comes, beside the answers."""
        stop = threading.Event()
        task = asyncio.create_task(asyncio.to_thread(self._keep_up, stop))
        yield
        stop.set()
        self._index.stop()
        await task
        self._db.close()

    def _keep_up(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._index.update()
                self._problem, self._settled = "", True
            except Exception as reason:  # noqa: BLE001 - whatever it is, the page tells it, and the next round may do better
                self._problem = f"the index cannot be brought up to date: {str(reason) or type(reason).__name__}"
            stop.wait(AGAIN)

    async def _run(self, request: web.Request) -> web.Response:
        snapshot = self._index.snapshot
        run: dict[str, Json] = {}
        problems = [f"{shard.path.relative_to(self._out)}: {shard.problem}" for shard in snapshot.shards if shard.problem]
        try:
            run = read_run(self._out)
        except DatasetError as reason:  # it is gone since, or being replaced
            problems.insert(0, reason.message)
        return reply(
            {
                "name": self._out.resolve().name,
                "imported": is_import(run),
                "complete": run.get("complete"),
                "facts": _facts(run),
                "version": snapshot.version,
                "rows": snapshot.cells.shape[1],
                "total": self._index.total,
                "settled": self._settled,
                "parts": {part: int((snapshot.column("part") == place).sum()) for place, part in enumerate(PARTS)},
                "problems": [self._problem, *problems] if self._problem else problems,
            }
        )

    async def _list(self, request: web.Request) -> web.Response:
        asked = request.query
        part = asked.get("part", "traces")
        flags = asked.getall("flag", [])
        if part not in PARTS or not set(flags) <= set(FLAGS):
            raise DatasetError(f"part should be one of {', '.join(PARTS)}, and flag of {', '.join(FLAGS)}")
        start, limit = (_whole(asked.get(name, default), name) for name, default in (("from", "0"), ("limit", "100")))
        wanted = Wanted(part, {name: asked.getall(name) for name in FACETS if name in asked}, flags)
        return reply(await asyncio.to_thread(self._page, wanted, asked.get("q", ""), start, min(limit, MOST), asked.get("near", "")))

    def _page(self, wanted: Wanted, query: str, start: int, limit: int, near: str) -> Json:
        snapshot = self._index.snapshot
        found = select(snapshot, wanted, self._hits(query, snapshot))
        ids = found.ids[start : start + limit].tolist()
        with self._lock:
            texts = {id: self._db.execute("SELECT name, title FROM records WHERE id = ?", (id,)).fetchone() or ("", "") for id in ids}
        rows = [{"name": texts[id][0], "title": texts[id][1], **_cells(snapshot, id)} for id in ids]
        place = [at for at in self._ids(near) for at in (found.ids == at).nonzero()[0].tolist()] if near else []
        return {**fields(found), "from": start, "rows": rows, "at": place[0] if place else None, "version": snapshot.version}

    def _hits(self, query: str, snapshot: Snapshot) -> np.ndarray | None:
        """Ids of the records that hold all words of a search; None where none is asked for."""
        match, but = terms(query)
        if not match and not but:
            return None
        key = (query, snapshot.version)
        if key not in self._recent:
            self._recent = dict([*self._recent.items()][1 - RECENT :])
            self._recent[key] = self._searched(match, but, snapshot.cells.shape[1])
        return self._recent[key]

    def _searched(self, match: str, but: str, count: int) -> np.ndarray:
        import numpy as np

        hits = self._found(match) if match else np.arange(count)
        hits = hits[hits < count]  # not what was added after the snapshot
        return np.setdiff1d(hits, self._found(but), assume_unique=True) if but else hits

    def _found(self, match: str) -> np.ndarray:
        import numpy as np

        with self._lock:  # as one text: a common word has more rows than can be fetched one by one in time
            (found,) = self._db.execute("SELECT group_concat(rowid) FROM words WHERE words MATCH ?", (match,)).fetchone()
        return np.fromstring(found or "", dtype=np.int64, sep=",")

    def _ids(self, name: str) -> list[int]:
        with self._lock:
            return [id for (id,) in self._db.execute("SELECT id FROM records WHERE name = ? ORDER BY id", (name,))]

    async def _record(self, request: web.Request) -> web.Response:
        return reply(await asyncio.to_thread(self._shown, request.query.get("name", "")))

    def _shown(self, name: str) -> Json:
        snapshot = self._index.snapshot
        ids = [id for id in self._ids(name) if id < snapshot.cells.shape[1]]
        if not ids:
            raise DatasetError(f"there is no record {name[:80]!r} here, or none yet")
        shard = snapshot.shard_of(ids[0])
        linked = shard.part == "preferences" and self._index.has("traces")
        return {"part": shard.part, "linked": linked, **shown(shard.part, shard.path, ids[0] - shard.first)}

    async def _figures(self, request: web.Request) -> web.Response:
        snapshot = self._index.snapshot
        if self._charts[0] != snapshot.version:
            self._charts = (snapshot.version, await asyncio.to_thread(charts, snapshot))
        return reply(self._charts[1])


def terms(query: str) -> tuple[str, str]:
    """A search as two of FTS5: what all must be found, and what none of it may. "Words in quotes" are a phrase, word* a
    beginning of at least three letters, -word is left out."""
    found: tuple[list[str], list[str]] = ([], [])
    for minus, phrase, word in _TERM.findall(query.encode(errors="replace").decode().replace("\0", " ")):
        text = phrase or word.replace('"', "").rstrip("*")
        if re.search(r"[^\W_]", text):  # FTS5 has no word of less, and would find nothing
            star = "*" if word.endswith("*") and len(word) > 3 else ""
            found[bool(minus)].append(f'"{text}"{star}')
    return " AND ".join(found[0]), " OR ".join(found[1])


def _cells(snapshot: Snapshot, id: int) -> dict[str, Json]:
    labels = {name: snapshot.labels[code] for name in FACETS if (code := int(snapshot.column(name)[id]))}
    bits = int(snapshot.column("flags")[id])
    flags = [flag for place, flag in enumerate(FLAGS) if bits & (1 << place)]
    return {**labels, **{name: int(snapshot.column(name)[id]) for name in NUMBERS}, "flags": flags}


def _facts(run: dict[str, Json]) -> list[Json]:
    """[name, text] of what a run is, as far as its record says."""
    imported = run.get("import") or {}
    config: dict[str, Any] = run.get("config") or {}
    teacher = config.get("teacher")
    model = (teacher.get("model") or teacher.get("kind") or teacher.get("url")) if isinstance(teacher, dict) else teacher
    facts = {
        "seed": config.get("seed"),
        "teacher": model,
        "tracemill": run.get("tracemill") or run.get("version"),
        "file": imported.get("file"),
    }
    return [[name, str(value)] for name, value in facts.items() if value is not None]


def _whole(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise DatasetError(f"{name} should be a whole number, got {text[:40]!r}")
    return int(text)
