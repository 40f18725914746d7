"""A real Chromium for tests of the local pages, and a server in this process for it to ask.

In a test module: `from browser import chromium, page` gives the fixtures; tests are plain functions.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from processes import PATIENCE

from tracemill.viewer.server import HOST, TOKEN

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 800}

# All controls that a mouse can use, and how to name them: each must be reachable by Tab.
CONTROLS = "a[href], button:not(:disabled), input, select, textarea, summary"
_NAME = "one => `${one.tagName} ${one.id} ${(one.getAttribute('aria-label') ?? one.textContent).trim().slice(0, 40)}`"


@pytest.fixture(scope="module")  # not of the session: while it runs, no other test of this thread can start an event loop
def chromium() -> Iterator[Browser]:
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if executable is None:
        pytest.skip("there is no chromium: install it, or set CHROMIUM to its path")
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=executable, args=ARGUMENTS, timeout=1000 * PATIENCE)
        yield browser
        browser.close()


@contextmanager
def window(chromium: Browser, **options: Any) -> Iterator[Page]:
    """A page of a context of its own, which both end with the block. It waits until what is waited for comes."""
    context = chromium.new_context(**options)
    context.set_default_timeout(1000 * PATIENCE)
    try:
        yield context.new_page()
    finally:
        context.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A fresh page of wide size. The test fails if the page logs an error, or asks another host than this one."""
    problems: list[str] = []
    with window(chromium, viewport=WIDE) as page:
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if not request.url.startswith(f"http://{HOST}:") else None)
        yield page
    assert problems == []


@contextmanager
def served(make: Callable[[], web.Application]) -> Iterator[str]:
    """The address, with its token, of an application that another thread serves; it is made in that thread's loop."""
    ready: list[str] = []
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        app = make()
        runner = web.AppRunner(app, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        ready.append(f"http://{HOST}:{runner.addresses[0][1]}/#token={app[TOKEN]}")
        started.set()
        await stop.wait()
        await runner.cleanup()

    def answer() -> None:
        try:
            loop.run_until_complete(run())
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            started.set()

    thread = threading.Thread(target=answer)
    thread.start()
    started.wait()  # it is set when that failed, too
    try:
        yield ready[0]
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join()


def until(page: Page, condition: str) -> None:
    """Wait for a JavaScript expression to be true. Playwright's own wait_for_function is an eval, which the pages forbid."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"it never came true: {condition}"
        page.wait_for_timeout(30)


def unreachable(page: Page, most: int = 400) -> set[str]:
    """The visible controls of a page that Tab does not come to."""
    visible = {one.evaluate(_NAME) for one in page.query_selector_all(CONTROLS) if one.is_visible()}
    seen: set[str] = set()
    page.evaluate("document.activeElement?.blur()")
    for _ in range(most):
        page.keyboard.press("Tab")
        seen.add(page.evaluate(f"({_NAME})(document.activeElement)"))
        if visible <= seen:
            break
    return visible - seen
