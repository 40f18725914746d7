"""The local server under `tracemill view` and `tracemill annotate`: who may ask, what a browser may do, files, errors.

A page shows what models and tools have written, so nothing of it is trusted, and the server answers nobody but the one
who started it:

- It listens on 127.0.0.1 only. A request whose Host is another name is refused: it comes from a page that has pointed
  its own name at this machine (DNS rebinding).
- All under /api needs the token as `Authorization: Bearer TOKEN`. No foreign page can make a browser send that header,
  so that nothing can be forged across sites, and it is no cookie, which every server of this host would be sent.
- The address that is opened carries the token after `#`, which stays in the browser.
- The Content-Security-Policy lets scripts and styles come from here alone, as files, and forbids to make markup of text.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import signal
import sys
import traceback
import webbrowser
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from rich.console import Console
from rich.text import Text

from tracemill.errors import ConfigError, TracemillError

HOST = "127.0.0.1"
NAMES = frozenset({HOST, "localhost"})
TOKEN = web.AppKey("token", str)
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(api: Iterable[web.RouteDef], pages: Path | Sequence[Path]) -> web.Application:
    """An application that answers `api`, whose paths begin with /api/, to holders of its token, and serves page files.

    `pages` are folders; `/` is index.html. The first folder that has a file of the name gives it, so that a page can use
    the scripts of another. The token is made here and stands under the key TOKEN.
    """
    app = web.Application(middlewares=[_guarded, _errors_as_json])
    app[TOKEN] = secrets.token_urlsafe(32)
    app.add_routes(api)
    app.router.add_get("/{name:.*}", _files([pages] if isinstance(pages, Path) else pages))
    app.on_response_prepare.append(_add_headers)
    return app


def reply(value: Any, status: int = 200) -> web.Response:
    """A JSON answer. All beyond ASCII is escaped: a lone surrogate in a record cannot be sent otherwise."""
    return web.Response(text=json.dumps(value), status=status, content_type="application/json")


def refusal(message: str, status: int, problems: Sequence[str] = ()) -> web.Response:
    """The answer that the pages show as an error."""
    return reply({"error": message, "problems": list(problems)}, status)


def serve(app: web.Application, *, port: int, open_browser: bool, title: str) -> None:
    """Answer until Ctrl-C or SIGTERM; port 0 is any free one. Raises ConfigError where the port is taken."""
    asyncio.run(_serve(app, port, open_browser, title))


async def _serve(app: web.Application, port: int, open_browser: bool, title: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, port).start()
        except (OSError, OverflowError) as reason:
            raise ConfigError(f"cannot listen on port {port} of {HOST}: {reason}", ["choose another --port, or leave it out"]) from reason
        address = f"http://{HOST}:{runner.addresses[0][1]}/#token={app[TOKEN]}"
        _announce(address, title)
        if open_browser:
            # Not waited for: a browser of the terminal would hold the server up.
            asyncio.get_running_loop().run_in_executor(None, webbrowser.open, address)
        await stop.wait()
    finally:
        await runner.cleanup()
    Console(stderr=True, highlight=False).print("Stopped.")


def _announce(address: str, title: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(title))
    console.print(Text(address, "bold"))
    console.print(Text("It is for you alone: the address holds a key. Ctrl-C ends it.", "dim"))
    sys.stdout.flush()


# --- who may ask --------------------------------------------------------------------------------------------


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    if _name(request.host) not in NAMES:
        return refusal(f"this server is {HOST}, not {request.host[:100]!r}", 403)
    if not request.path.startswith("/api/"):
        return await handler(request)
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return refusal("asked by a page of another site", 403)
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), request.app[TOKEN].encode()):
        return refusal("the key is missing or of an earlier start: open the address that the terminal shows", 401)
    return await handler(request)


def _name(host: str) -> str:
    """Without the port, which is another one behind `ssh -L`."""
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except TracemillError as reason:
        return refusal(reason.message, 400, reason.problems)
    except web.HTTPException as reason:
        return refusal(reason.reason, reason.status)
    except Exception as reason:  # noqa: BLE001 - one answer that fails must not end the others; the terminal has it whole
        traceback.print_exc()
        return refusal(f"the server failed: {type(reason).__name__}; the terminal says more", 500)


# --- files --------------------------------------------------------------------------------------------------


def _files(folders: Sequence[Path]) -> Handler:
    """Serves the files that are there now, by name: no path of a request is ever joined to a folder."""
    known = {
        path.relative_to(folder).as_posix(): path for folder in reversed(folders) for path in folder.rglob("*") if path.suffix in TYPES
    }

    async def file(request: web.Request) -> web.StreamResponse:
        path = known.get(request.match_info["name"] or "index.html")
        if path is None:
            return refusal(f"there is no {request.path[:100]!r} here", 404)
        return web.Response(body=path.read_bytes(), content_type=TYPES[path.suffix], charset="utf-8")

    return file
