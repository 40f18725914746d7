"""The processes that tests start, look for, and kill. Any of them may be gone at any moment, and that is no failure."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

PATIENCE = 900.0
"""Seconds to wait for what must come. Only a hang takes that long: nothing is measured by it."""


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


def engines(of: int | None = None) -> list[psutil.Process]:
    """The living vLLM engines just below a process (by default this one).

    They are told by how multiprocessing starts them. Their title, VLLM::EngineCore, cannot be relied on: setproctitle finds no place for
    it where the variable that stands first in the environment is changed before, as cv2, which vLLM imports, changes LD_LIBRARY_PATH.
    """
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(of).children():
            with contextlib.suppress(psutil.Error):
                if lives(process) and any(name in " ".join(process.cmdline()) for name in ("spawn_main", "EngineCore")):
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
        for one in below:  # before its pipes are read to their end: they may hold them too
            kill(one)
        process.communicate()  # also closes its pipes


def until(come: Callable[[], bool], meanwhile: subprocess.Popen[Any] | None = None) -> None:
    """Wait for what must come, if a process is named before that has ended."""
    deadline = time.monotonic() + PATIENCE
    while not come():
        assert meanwhile is None or meanwhile.poll() is None or come(), f"the process ended with {meanwhile.returncode}"
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
