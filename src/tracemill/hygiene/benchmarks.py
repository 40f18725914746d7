"""What a benchmark asks, and with which tools, from a file of any shape: JSON, JSON lines or Parquet, nested as it likes.

Asked is what a user says (`role: user`, or `from: human`), and whatever stands under a key that speaks of a question,
such as `question`, `instruction`, `user_query` or `task`. Tools are known by their form: OpenAI's functions, or MCP's
tools with an `inputSchema`. JSON that is stored as text is looked into.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tracemill.errors import DatasetError
from tracemill.hygiene.minhash import WORD
from tracemill.importing.rows import check_unpacked
from tracemill.trace import Json

ASKED = frozenset({
    "question", "query", "instruction", "prompt", "problem", "task", "goal", "input", "request", "utterance", "user", "human", "turn",
})  # fmt: skip
NOT_ASKED = frozenset({"answer", "output", "response", "solution", "target", "system", "policy", "id", "tool", "call", "action"})
SCHEMAS = ("parameters", "inputSchema", "input_schema")
ROLES, USERS = ("role", "from"), ("user", "human")
LATER = 13  # words of what a user says after the first message: a shorter reply ('Yes, please cancel the first of them.') is no question
BATCH = 256  # rows of Parquet read at a time
_KEY = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


@dataclass(frozen=True)
class Tool:
    """What is compared of a tool."""

    name: str
    arguments: frozenset[str]
    description: str


@dataclass
class Benchmark:
    """Where each text and each tool stands in the file, by a path such as `[3].question`. Of equal ones the first."""

    name: str
    texts: dict[str, str] = field(default_factory=dict)
    tools: dict[Tool, str] = field(default_factory=dict)

    def take(self, value: Json, path: str, *, asked: bool = False, least: int = 1) -> None:
        """Gather from a JSON value texts of at least so many words. Raises RecursionError for one that is nested too deeply."""
        if isinstance(value, str):
            inside = _unpacked(value)
            if inside is not None:
                self.take(inside, path, asked=asked, least=least)
            elif asked and len(WORD.findall(value)) >= least:
                self.texts.setdefault(value, path)
        elif isinstance(value, list | tuple):
            for at, one in enumerate(value):
                self.take(one, f"{path}[{at}]", asked=asked, least=least)
                if _speaker(one) in USERS:
                    least = LATER
        elif isinstance(value, dict):
            self._take_object(value, path, asked, least)

    def _take_object(self, value: Mapping[str, Json], path: str, asked: bool, least: int) -> None:
        tool = read_tool(value)
        if tool is not None:
            self.tools.setdefault(tool, path)
            return
        speaker = _speaker(value)
        if speaker:
            asked = speaker in USERS
        for key, one in value.items():
            about = {word.casefold().rstrip("s") for word in _KEY.findall(str(key))}
            inside = key not in ROLES and not about & NOT_ASKED and (asked or (not speaker and bool(about & ASKED)))
            self.take(one, f"{path}.{key}" if path else str(key), asked=inside, least=least)


def read_benchmark(path: Path, name: str) -> Benchmark:
    """Raises DatasetError where the file cannot be read, or nothing in it is a question or a tool."""
    found = Benchmark(name)
    keys: dict[str, None] = {}
    try:
        for place, value in _documents(path):
            found.take(value, place)
            keys |= dict.fromkeys(value if isinstance(value, dict) else ())
    except OSError as reason:
        raise DatasetError(f"{path} cannot be read: {reason.strerror or reason}") from reason
    except (ValueError, RecursionError) as reason:
        raise DatasetError(f"{path} is neither JSON, nor JSON lines, nor Parquet", [" ".join(str(reason).split())[:200]]) from reason
    if not found.texts and not found.tools:
        there = f"its keys are {', '.join(map(repr, list(keys)[:12]))}" if keys else "it holds no objects"
        raise DatasetError(
            f"{path} holds nothing to compare with: neither questions nor tools",
            [there, f"asked is what stands under {', '.join(sorted(ASKED))}"],
        )
    return found


def read_tool(value: Mapping[str, Json]) -> Tool | None:
    """The tool that an object defines, in the form of OpenAI or of MCP; None for any other object."""
    function = value.get("function")
    spec = function if isinstance(function, dict) and "arguments" not in function else value
    name, schema = spec.get("name"), next((spec[key] for key in SCHEMAS if key in spec), None)
    if isinstance(schema, str):
        schema = _unpacked(schema)
    if not isinstance(name, str) or not (isinstance(schema, dict) or (spec is function and value.get("type") == "function")):
        return None
    properties = schema.get("properties") if isinstance(schema, dict) else None
    told = spec.get("description")
    names = [key for key, one in properties.items() if one is not None] if isinstance(properties, dict) else []
    return Tool(_plain(name), frozenset(map(_plain, names)), _plain(told) if isinstance(told, str) else "")


def _speaker(value: Json) -> str:
    """Whose message it is, in lower case; empty for what is no message."""
    role = next((value[key] for key in ROLES if isinstance(value.get(key), str)), "") if isinstance(value, dict) else ""
    return str(role).casefold()


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def _unpacked(text: str) -> Json:
    """The object or list that a text holds as JSON; None for any other text."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _documents(path: Path) -> Iterator[tuple[str, Json]]:
    with path.open("rb") as file:
        magic = file.read(4)
    check_unpacked(path, magic)
    if magic == b"PAR1":
        yield from _parquet(path)
        return
    try:
        whole = json.loads(path.read_bytes())
    except ValueError:
        with path.open("rb") as file:
            for at, line in enumerate(line for line in file if line.strip()):
                yield f"[{at}]", json.loads(line)
        return
    if isinstance(whole, list):
        yield from ((f"[{at}]", one) for at, one in enumerate(whole))
    else:
        yield "", whole


def _parquet(path: Path) -> Iterator[tuple[str, Json]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            at = 0
            for batch in file.iter_batches(BATCH):
                for row in batch.to_pylist():
                    yield f"[{at}]", row
                    at += 1
    except pa.ArrowException as reason:
        raise ValueError(str(reason)) from reason
