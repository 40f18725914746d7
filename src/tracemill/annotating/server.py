"""The page of `tracemill annotate`, for one person; what they do is on disk before it is answered."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console

from tracemill import viewer
from tracemill.annotating.export import export
from tracemill.annotating.pairs import Pairs
from tracemill.annotating.progress import Report, measure, print_progress
from tracemill.annotating.session import Session
from tracemill.annotating.store import LONGEST_NOTE, Refused, Store, named, store_path
from tracemill.calling import command
from tracemill.errors import DatasetError, TracemillError
from tracemill.trace import Json
from tracemill.viewer.server import Handler, application, refusal, reply, serve

PAGES = (Path(__file__).with_name("page"), Path(viewer.__file__).with_name("page"))


class Judged(BaseModel):
    """What the page sends of a judgement."""

    model_config = ConfigDict(extra="forbid", strict=True)
    ticket: int
    press: Literal["left", "right", "tie", "skip"]
    reasons: list[str] = Field(default=[], max_length=20)
    note: str = Field(default="", max_length=LONGEST_NOTE)


class Undone(BaseModel):
    """What the page sends to take a judgement back."""

    model_config = ConfigDict(extra="forbid", strict=True)
    act: int


def annotate(out: Path, name: str, *, whole: bool, judges: int, port: int, open_browser: bool) -> None:
    """Serve the page until Ctrl-C, then say how far this person has come. Raises ConfigError, DatasetError."""
    pairs = Pairs(out, whole=whole)
    store = Store(store_path(out, whole=whole))
    try:
        annotator = named(name, store.annotators())
        serve(
            pages(Session(store, pairs, annotator, judges)),
            port=port,
            open_browser=open_browser,
            title=f"{annotator} judges the pairs of {out}",
        )
        pressed = store.judged(annotator)
    finally:
        store.close()
    Console(stderr=True, highlight=False).print(
        f"{annotator} has judged {sum(pressed.values()) - pressed.get('skip', 0):,} of {len(pairs.keys):,} pairs. "
        f"Next: {_again(out, whole)}, which shows progress and agreement",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def show_progress(out: Path, *, whole: bool, judges: int) -> None:
    """Print how far everybody has come and how far they agree. Raises DatasetError."""
    pairs, store = _kept(out, whole)
    report = measure(pairs, store.judgements())
    settled = {name: store.settled(name, judges) for name in report.people}
    left = {name: sum(key not in done for key in pairs.keys) for name, done in settled.items()}
    store.close()
    print_progress(report, left=left)
    Console(highlight=False).print(
        f"Next: {_again(out, whole)} --name NAME to judge more, or --export FOLDER", markup=False, soft_wrap=True
    )


def export_judgements(out: Path, folder: Path, *, whole: bool, names: bool) -> None:
    """Write what is decided, and say what was left out. Raises DatasetError."""
    pairs, store = _kept(out, whole)
    report: Report = measure(pairs, store.judgements())
    store.close()
    counts = export(pairs, report, folder, names=names)["counts"]
    Console(highlight=False).print(
        f"{folder}: {counts['preferences']:,} preference pairs, {counts['against_the_run']:,} of them against the run's own label; "
        f"left out: {counts['ties']:,} ties, {counts['split']:,} split. {counts['skips']:,} skips.\n"
        f"Next: {command('train', 'dpo', folder, '--model', 'MODEL', '--out', 'OUT')}",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def _again(out: Path, whole: bool) -> str:
    return command("annotate", out, *["--whole"] * whole)


def _kept(out: Path, whole: bool) -> tuple[Pairs, Store]:
    """Raises DatasetError where nobody has judged yet."""
    path = store_path(out, whole=whole)
    pairs = Pairs(out, whole=whole)
    if pairs.problems:  # judgements of what is in there would count as those of pairs that are gone
        raise DatasetError(f"{out} has pairs that cannot be read", pairs.problems)
    if not path.is_file():
        raise DatasetError(f"nobody has judged {out} yet", [f"begin: {_again(out, whole)} --name YOUR_NAME"])
    return pairs, Store(path)


# --- answers ------------------------------------------------------------------------------------------------


def pages(session: Session) -> web.Application:
    """The application: its page, and three answers, all of which end with what comes next."""

    async def following(request: web.Request) -> web.Response:
        return reply(session.view())

    async def judge(request: web.Request) -> web.Response:
        told = Judged.model_validate(await _body(request))
        session.judge(told.ticket, told.press, told.reasons, told.note)
        return _next(session, {})

    async def undo(request: web.Request) -> web.Response:
        back = session.undo(Undone.model_validate(await _body(request)).act)
        return _next(session, {"reasons": list(back.reasons), "note": back.note})

    routes = [
        web.get("/api/next", _safely(following, "The judgements cannot be read")),
        web.post("/api/judge", _safely(judge, "This was not saved")),
        web.post("/api/undo", _safely(undo, "This was not saved")),
    ]
    return application(routes, PAGES)


def _next(session: Session, more: Mapping[str, Json]) -> web.Response:
    """What comes after an act. The act is on disk: where the rest fails, that is told as what it is."""
    try:
        return reply({**session.view(), **more})
    except (TracemillError, OSError, sqlite3.Error) as reason:
        return reply({"trouble": f"Saved. But what comes next cannot be read: {reason}"})


async def _body(request: web.Request) -> Json:
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(reason="expected JSON")
    try:
        return await request.json()
    except ValueError as reason:
        raise web.HTTPBadRequest(reason="expected JSON") from reason


def _safely(handler: Callable[[web.Request], Awaitable[web.Response]], failed: str) -> Handler:
    """Refusals as such, and what has failed where the database does."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as reason:
            return refusal(str(reason), 409)
        except ValidationError as reason:
            return refusal("not what this page sends", 422, [str(one["msg"]) for one in reason.errors()])
        except sqlite3.Error as reason:
            return refusal(f"{failed}: {reason}. Try again.", 503)

    return answer
