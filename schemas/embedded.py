"""JSON inside of what a model wrote."""

from __future__ import annotations

import json

from tracemill.trace import Json


def last_object(text: str, key: str) -> dict[str, Json] | None:
    """The last JSON object with the key: what comes before it may be thinking, with drafts of it. None if there is none."""
    decoder = json.JSONDecoder()
    found: dict[str, Json] | None = None
    start = text.find("{")
    while start >= 0:
        try:
            content, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            if isinstance(content, dict) and key in content:
                found = content
        start = text.find("{", end)
    return found
