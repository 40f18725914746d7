"""What the agent has asked the user for, and what of it the user has told."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tracemill.trace import Message, Slot, UserMessage


def asks_for(slot: Slot, said: str) -> bool:
    """Whether the agent asks for it: a question, a request or a need that names it and does not already give its value."""
    return any(slot.label in one for one in asking(said)) and not names(said, slot.value)


def asking(said: str) -> list[str]:
    """The sentences that are a question, a request, or tell a need."""
    sentences = re.split(r"(?<=[.?!])\s+", said.strip())
    return [one for one in sentences if one.endswith("?") or re.search(r"need|\bplease\b|\blet me know\b", one, re.IGNORECASE)]


def told(slot: Slot, messages: Sequence[Message]) -> bool:
    """Whether the user has given it: in the first message if it was not withheld, or in an answer."""
    said = [m.content for m in messages if isinstance(m, UserMessage)]
    return any(names(text, slot.value) for text in (said[1:] if slot.withheld else said))


def names(text: str, value: str) -> bool:
    """Whether a text contains a value, not merely as a part of a longer word."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None
