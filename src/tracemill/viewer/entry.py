"""What the index keeps of a row: labels to filter by, numbers to draw, a title to list and words to find."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tracemill.columns import Row
from tracemill.stats import reason_class
from tracemill.trace import Json, is_error

Part = Literal["traces", "rejects", "preferences"]
PARTS: tuple[Part, ...] = ("traces", "rejects", "preferences")
FACETS = ("kind", "environment", "template", "difficulty", "ending", "trouble", "teacher", "stage", "reason", "blame", "source")
FLAGS = ("revised", "fault", "masked", "failed", "lost", "broken")
"""revised after a critique; a fault of a tool struck; a step is kept out of the loss; a verdict failed; no further attempt was made."""
NUMBERS = ("index", "attempt", "messages", "calls", "characters", "revisions")
COLUMNS: Mapping[Part, tuple[str, ...]] = {
    "traces": ("id", "index", "kind", "environment", "template", "difficulty", "messages", "scenario", "verdicts", "teacher", "revisions"),
    "rejects": (
        "id",
        "index",
        "attempt",
        "kind",
        "environment",
        "template",
        "stage",
        "reason",
        "blame",
        "final",
        "messages",
        "raw",
        "verdicts",
    ),
    "preferences": ("id", "index", "trace", "prompt", "chosen", "rejected", "source"),
}
IMPORT_COLUMNS: Mapping[Part, tuple[str, ...]] = {
    "traces": ("id", "index", "source", "messages"),
    "rejects": ("id", "index", "source", "stage", "reason", "messages", "raw"),
    "preferences": COLUMNS["preferences"],
}
TITLE = 160  # characters


@dataclass
class Entry:
    name: str
    """The record's id."""
    labels: dict[str, str] = field(default_factory=dict)
    """By facet; what does not apply is left out."""
    flags: set[str] = field(default_factory=set)
    numbers: dict[str, int] = field(default_factory=dict)
    title: str = ""
    text: str = ""
    """What a search finds, without the system prompt, which many records share."""
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often a tool was called, and was so in vain: (name, 'calls' or 'failed')."""


def entry(part: Part, row: Row) -> Entry:
    """Raises ValueError, KeyError, TypeError or AttributeError for a row that is no record."""
    if part == "preferences":
        prompt, chosen, rejected = (_parsed(row[name]) for name in ("prompt", "chosen", "rejected"))
        made = _of_messages(row, [*prompt, *chosen, *rejected])
        made.numbers["messages"] = len(prompt)
        made.text += f"\n{row['trace']}"
    else:
        made = _of_messages(row, _parsed(row["messages"]))
    made.labels |= {name: str(row[name]) for name in FACETS if row.get(name) not in (None, "")}
    made.numbers |= {name: int(row[name]) for name in NUMBERS if isinstance(row.get(name), int)}
    if "stage" in row:
        _add_rejection(made, row)
    if "scenario" in row:
        _add_scenario(made, json.loads(row["scenario"]))
    if any('"passed":false' in text.replace(" ", "") for text in row.get("verdicts") or ()):
        made.flags.add("failed")
    if row.get("revisions"):
        made.flags.add("revised")
    return made


def _parsed(texts: Iterable[str] | None) -> list[Json]:
    return [json.loads(text) for text in texts or ()]


def _of_messages(row: Row, messages: Sequence[Mapping[str, Any]]) -> Entry:
    made = Entry(row["id"])
    parts = [row["id"]]
    for message in messages:
        if message["role"] == "tool" and is_error(message["content"]):
            made.calls[message.get("name", ""), "failed"] += 1
        if message.get("train") is False:
            made.flags.add("masked")
        if message["role"] != "system":
            parts += _words(message)
        for call in message.get("tool_calls") or ():
            made.calls[call["function"]["name"], "calls"] += 1
    asked = next((message["content"] for message in messages if message["role"] == "user"), "")
    made.title = " ".join((asked or row.get("raw") or "")[: 2 * TITLE].split())[:TITLE]
    made.text = "\n".join(parts)
    made.numbers |= {
        "messages": len(messages),
        "calls": sum(number for (_, what), number in made.calls.items() if what == "calls"),
        "characters": sum(len(message["content"]) for message in messages if message["role"] == "system") + len(made.text),
    }
    return made


def _words(message: Mapping[str, Any]) -> Iterator[str]:
    yield message["content"]
    if message.get("reasoning_content"):
        yield message["reasoning_content"]
    for call in message.get("tool_calls") or ():
        yield call["function"]["name"]
        yield from _leaves(call["function"]["arguments"])


def _leaves(value: Json) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield str(value)


def _add_rejection(made: Entry, row: Row) -> None:
    made.labels["reason"] = reason_class(row["stage"], row["reason"])
    made.text += f"\n{row['reason']}\n{row.get('raw') or ''}"
    if row.get("final", True):
        made.flags.add("lost")


def _add_scenario(made: Entry, scenario: Mapping[str, Json]) -> None:
    trouble = [one["kind"] for sort in ("faults", "mistakes") for one in scenario.get(sort) or ()]
    if trouble:
        made.labels["trouble"] = trouble[0]
    if scenario.get("faults"):
        made.flags.add("fault")
    made.labels["ending"] = "handed_over" if scenario.get("honest_end") else scenario["ending"]
