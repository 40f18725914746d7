"""The processes that tests start, look for, and kill. Any of them may be gone at any moment, and that is no failure."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any

import psutil


def descendants(of: int | None = None, name: str = "") -> list[psutil.Process]:
    """The living ones below a process (by default this one) whose name, program or script holds `name`.

    A process that has ended and waits to be reaped is not living.
    """
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(of).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if lives(process) and any(name in part for part in (process.name(), *process.cmdline()[:2])):
                    found.append(process)
    return found


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    return False


def kill(process: psutil.Process) -> bool:
    """With SIGKILL; whether it was still there to be killed."""
    there = lives(process)
    with contextlib.suppress(psutil.Error):
        process.kill()
        return there
    return False


@contextlib.contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process that does not outlive the block, and what it has started at that time neither."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        below = descendants(process.pid) if process.poll() is None else []
        process.kill()
        process.communicate()  # also closes its pipes
        for one in below:
            kill(one)
