"""What in a text is a place of this machine or network: a path or an address, which is nobody's business elsewhere."""

from __future__ import annotations

import re

_PLACE = re.compile(r"(?:[/~\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\])")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_WITHIN = re.compile(
    r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+"
    r"|(?<=connect to host )\S+"  # in aiohttp's words
    r"|(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?(?![\w.])"
    r"|(?<![\w./\\~-])(?:~|[a-z]:(?=\\))?(?:[/\\][\w.@-]*[\w@-]){2,}",
    re.IGNORECASE,
)


def is_place(text: str) -> bool:
    """Whether a text is a path that begins at the root, the home or the working folder, or an address. `org/name` is neither."""
    return len(text) > 1 and (is_address(text) or bool(_PLACE.match(text)))


def is_address(text: str) -> bool:
    return bool(_ADDRESS.match(text))


def name_of(text: str) -> str:
    """What is left of a place: the last part of a path, nothing of an address."""
    if is_address(text):
        return "(not published)"
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1] or "(not published)"


def place_within(text: str) -> str | None:
    """The first address or absolute path in a sentence, such as that of an error."""
    found = _WITHIN.search(text)
    return found.group() if found else None
