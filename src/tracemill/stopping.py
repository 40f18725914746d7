"""How a long run ends before its end, or goes on after Ray's: signals, and a new process in place of the old one."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

RESTARTS = "TRACEMILL_RESTARTS"  # how often this run has already begun again in the same process
MOST_RESTARTS = 5


def begin_again(stop: Stop) -> None:
    """Ray has died under a run whose main thread hangs in it: continue the run in a fresh process, in place of this.

    A signal to the whole process group ends Ray too; then the run was to stop.
    """
    time.sleep(0.2)  # the signal may reach Ray first
    if stop.is_set():
        print("Stopped. Nothing is lost; run the same command again to continue.", file=sys.stderr, flush=True)
        os._exit(130)
    times = int(os.environ.get(RESTARTS, "0")) + 1
    if times > MOST_RESTARTS:
        print(f"error: Ray has died {times} times. Nothing is lost: run the same command again.", file=sys.stderr, flush=True)
        os._exit(1)
    print("Ray has died; continuing with a new one …", file=sys.stderr, flush=True)
    os.environ[RESTARTS] = str(times)
    os.execv(sys.executable, [sys.executable, "-m", "tracemill.cli", *sys.argv[1:]])  # noqa: S606 - our own command again


class Stop:
    def __init__(self) -> None:
        self._asked = False

    def is_set(self) -> bool:
        return self._asked

    def ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt  # a second Ctrl-C means now
        self._asked = True


@contextmanager
def stoppable(stop: Stop) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run after the batch at hand."""
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def tidied_up() -> Iterator[None]:
    """SIGTERM ends the block as an exception does, so that what is half made is taken away. For the main thread; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
