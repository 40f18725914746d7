"""What a repository on the Hub holds, and whether a file is there."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Remote:
    """What the repository holds: its last commit, and for each file the sha256 (large ones) or the id of git's blob."""

    head: str | None
    files: dict[str, str]

    def has(self, name: str, what: Path | bytes) -> bool:
        there = self.files.get(name)
        return there is not None and there == (sha256(what) if len(there) == 64 else blob_id(what))


def sha256(what: Path | bytes) -> str:
    if isinstance(what, bytes):
        return hashlib.sha256(what).hexdigest()
    state = what.stat()
    return _file_sha256(what, state.st_size, state.st_mtime_ns)


@functools.cache
def _file_sha256(path: Path, size: int, modified: int) -> str:
    """Remembered: a long run is looked through again and again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def blob_id(what: Path | bytes) -> str:
    """As git names a file's content."""
    content = what if isinstance(what, bytes) else what.read_bytes()
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content), usedforsecurity=False).hexdigest()
