"""What the agent has asked the user for, and what of it the user has told."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from tracemill.generators.environments.facts import fold
from tracemill.trace import Message, Slot, UserMessage

_REQUEST = re.compile(
    r"need|\bplease\b|\blet me know\b|\brequire|\bmissing\b|\b(?:tell|give|send) me\b|\b(?:would|'d) like (?:to know|to have|you to|your)\b"
    r"|\b(?:want|have) to know\b"
)
_OF = r"(?:of|in|for|on|at|to|from|with)"
_WHOSE = r"(?:the|your|my|a|an|this|that|which|what|its|their)"


def asks_for(slot: Slot, said: str, among: Sequence[Slot] = ()) -> bool:
    """Whether the agent asks for it: a question, a request or a need that names it and does not already give its value.

    Its label names it, in whatever case, and so does the label's noun alone, or with some of what goes with it, where none of
    the slots `among` which it stands has the same noun: 'which address?', 'your account number'.
    """
    alone = sum(_noun(one.label) == _noun(slot.label) for one in among) <= 1
    named = _naming(slot.label, alone=alone)
    return any(named.search(one) for one in asking(said)) and not names(fold(said), fold(slot.value))


def asking(said: str) -> list[str]:
    """The sentences that are a question, a request, or tell a need, folded."""
    return [one for one in sentences(said) if one.endswith("?") or _REQUEST.search(one)]


def sentences(said: str) -> list[str]:
    """The sentences, folded, without marks of emphasis. The number before an item of a list ends none."""
    plain = re.sub(r"[*_`]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}(?!\w)", "", said.strip())
    return [fold(one) for one in re.split(r"(?<=[.?!])(?<!\n\d\.)\s+", plain)]


def told(slot: Slot, messages: Sequence[Message]) -> bool:
    """Whether the user has given it: in the first message if it was not withheld, or in an answer."""
    said = [m.content for m in messages if isinstance(m, UserMessage)]
    return any(names(text, slot.value) for text in (said[1:] if slot.withheld else said))


def names(text: str, value: str) -> bool:
    """Whether a text contains a value, not merely as a part of a longer word."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def _words(label: str) -> list[str]:
    return re.sub(rf"^{_WHOSE} ", "", fold(label)).split(" ")


def _noun(label: str) -> str:
    """The noun that the label is about: 'number' of 'order number', 'length' of 'length in minutes'."""
    words = _words(label)
    return words[_head(words)]


def _head(words: Sequence[str]) -> int:
    return next((at - 1 for at, word in enumerate(words) if at and re.fullmatch(_OF, word)), len(words) - 1)


@functools.lru_cache(maxsize=1024)
def _naming(label: str, *, alone: bool) -> re.Pattern[str]:
    words = [re.escape(word) for word in _words(label)]
    ways = [r"[ _-]".join(words)]
    if words[:2] == ["number", "of"]:
        ways.append(f"how many {' '.join(words[2:])}")
    elif alone:
        head = _head(words)
        noun, before = words[head], "|".join(words[:head])
        with_it = rf"(?:(?:{before})[ -])*" if before else ""
        ways.append(rf"(?:(?<!\w){_WHOSE} |^\W*){with_it}{noun}s?(?! {_OF}\b)")
        if before:
            ways.append(rf"{noun} {_OF} (?:{_WHOSE} )?(?:{before})")
    return re.compile(rf"(?<!\w)(?:{'|'.join(ways)})s?(?!\w)")
