"""What every peer is asked to do, and how each of their scripts is called.

    python with_PEER.py generate URL ROWS CONCURRENCY OUT
    python with_PEER.py check URL ROWS CONCURRENCY OUT

The first sends one single-turn prompt a row and writes the dataset under OUT as the peer does it; the second, outside of
the measurement, reads the dataset back and counts the rows that are right. Each prints one JSON line as its last.
The scripts run in environments of their own, so this module needs the standard library alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "fixed"
MARK = "question number"
"""In every prompt of a row, and in no probe that a peer sends on its own account."""
ANSWER: dict[str, Any] = {"question": "What is the capital of France?", "answer": "Paris, on the river Seine.", "score": 7}
"""What the endpoint says every time."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "answer": {"type": "string"}, "score": {"type": "integer"}},
    "required": ["question", "answer", "score"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Job:
    url: str
    """Of the endpoint, ending in /v1."""
    rows: int
    concurrency: int
    """Requests in flight at once, at most."""
    out: Path

    def prompts(self) -> list[str]:
        return [f"Write {MARK} {row} of a quiz about the world, its answer, and how hard it is from 1 to 10." for row in range(self.rows)]


def main(generate: Callable[[Job], float | None], answers: Callable[[Path], Iterable[Any]]) -> None:
    """`generate` may return the `time.monotonic()` at which the last row was written, where it goes on after that.
    `answers` reads the value of the structured column of each row that was written."""
    what, url, rows, concurrency, out = sys.argv[1:]
    job = Job(url, int(rows), int(concurrency), Path(out))
    if what == "generate":
        written = generate(job) or time.monotonic()
        print(json.dumps({"written": written}), flush=True)
    else:
        right = sum(answer == ANSWER for answer in answers(job.out))
        print(json.dumps({"right": right}), flush=True)
