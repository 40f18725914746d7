"""What a format is to the driver, and what a format is given: one conversation or one pair at a time, as JSON values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tracemill.trace import Json

Message = dict[str, Json]
Line = tuple[str, dict[str, Json]]
"""Name of a file, and a row for it."""
Notes = Counter[str]
"""What was left out or changed, in words, with how often: printed, and written into the README."""

WRONG_STEPS = "wrong steps of the agent: context, never learnt"
LAST_RESULTS = "conversations without the results after the agent's last message, from which nothing is learnt"


@dataclass(frozen=True)
class Example:
    """An accepted trace or an imported conversation. Not to be changed: rows with the same tools share them."""

    id: str
    messages: Sequence[Message]
    tools: list[Json]


@dataclass(frozen=True)
class Pair:
    """A better and a worse next message after the same prompt."""

    id: str
    prompt: Sequence[Message]
    chosen: Message
    rejected: Message
    tools: list[Json]


class Form(ABC):
    """One format."""

    name: ClassVar[str]
    files: ClassVar[Mapping[str, str]]
    """Each file that it may write, with what a row of it is. A name ends in .jsonl or .parquet."""
    columns: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Of each Parquet file: its columns, each 'text' or 'records' (a list of JSON values)."""
    configs: ClassVar[Mapping[str, str]] = {}
    """Of each file that `load_dataset` finds by a name: that name."""
    following: ClassVar[str]
    """The command to run next, in the folder; `{file}` and `{stem}` stand for the first file that was written, with its ending and without."""

    @abstractmethod
    def example(self, one: Example, notes: Notes) -> Iterator[Line]:
        """The rows that a conversation becomes."""

    def pair(self, one: Pair, notes: Notes) -> Iterator[Line]:
        """The rows that a preference pair becomes."""
        notes["preference pairs left out: the format has no form for them"] += 1
        return iter(())

    def settings(self, written: Collection[str]) -> dict[str, str]:
        """Name and text of the files that tell a trainer of those that were written."""
        return {}


# --- who may be learnt ----------------------------------------------------------------------------------------


def wrong(message: Message) -> bool:
    return message["role"] == "assistant" and message.get("train") is False


def spans(messages: Sequence[Message]) -> list[tuple[int, int]]:
    """The runs without a wrong step, each as (index of the first message to learn, index after the last one)."""
    found: list[tuple[int, int]] = []
    after_wrong = True
    for at, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        if wrong(message):
            after_wrong = True
        elif after_wrong:
            found.append((at, at + 1))
            after_wrong = False
        else:
            found[-1] = (found[-1][0], at + 1)
    return found


def before_wrong(messages: Sequence[Message]) -> Sequence[Message]:
    """What stands before the first wrong step: the agent's messages with their results; empty where the agent has none there."""
    end = next((at for at, message in enumerate(messages) if wrong(message)), len(messages))
    while end and messages[end - 1]["role"] in ("user", "system"):
        end -= 1
    return messages[:end]


def ends_with_result(messages: Sequence[Message]) -> bool:
    return bool(messages[-1]["role"] == "tool")


def bare(message: Message) -> Message:
    """Without our mark, which no chat template knows."""
    return {key: value for key, value in message.items() if key != "train"}
