"""Commands that are printed for the user, so that they work in the shell at hand as they are."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def command(*words: str | Path) -> str:
    """A command of ours: by its bare name only where the shell finds this very installation by it."""
    ours, found = Path(sys.executable).with_name("tracemill"), shutil.which("tracemill")
    if not ours.is_file():
        called = ["tracemill"] if found else [python(), "-m", "tracemill"]
    else:
        called = ["tracemill"] if found and ours.samefile(found) else [_near(ours)]
    return shlex.join([*called, *map(str, words)])


def python() -> str:
    """The Python that has us."""
    found = shutil.which("python")
    return "python" if found and Path(found).absolute() == Path(sys.executable) else _near(Path(sys.executable))


def _near(program: Path) -> str:
    """Seen from the working folder, if it is inside of that."""
    return os.path.relpath(program) if program.is_relative_to(Path.cwd()) else str(program)
