"""What a model that plays the user is asked, and what its reply is worth.

This module builds texts and reads texts; sending them is the business of the teachers. What a model wrote is never
trusted: a reply that does not fit gives a problem, not an exception.

Interjections are none of the model's words. It is told of them so that its answers fit, but the caller says them
verbatim: each when its step is done, and those still waiting when the model says that it is done, before that is
accepted.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from string import Template

from tracemill.generators.teachers.base import Request
from tracemill.generators.teachers.slots import asking, asks_for, names
from tracemill.schemas.check import Checker
from tracemill.schemas.embedded import last_object
from tracemill.trace import AssistantMessage, Json, Message, Scenario, Slot, SystemMessage, UserMessage

PROMPT = Path(__file__).parents[1] / "prompts" / "user.txt"
MOST_CHARACTERS = 2000

USER_SCHEMA: dict[str, Json] = {
    "type": "object",
    "properties": {"say": {"type": "string"}, "done": {"type": "boolean"}},
    "required": ["say", "done"],
    "additionalProperties": False,
}
"""Of the model's reply; servers that can hold a model to a schema may be given it."""


# --- what it is asked ---------------------------------------------------------------------------------------


def user_messages(request: Request) -> list[Message]:
    """The conversation as the user lives through it: the agent's words come from a `user`, their own are an `assistant`'s.

    The last message must be the agent's. Of the agent they see its words alone: no calls, no results, no thinking. Roles alternate, as many chat templates
    demand, and the system message stays the same throughout a conversation, so that an engine reads it once.
    """
    instructions, greeting = _prompt()
    said: list[Message] = [SystemMessage(content=instructions.substitute(_part(request.scenario))), UserMessage(content=greeting)]
    for by_user, texts in groupby(_words(request), key=lambda one: one[0]):
        text = "\n\n".join(text for _, text in texts)
        said.append(AssistantMessage(content=_as_reply(text)) if by_user else UserMessage(content=text))
    return said


def _as_reply(text: str) -> str:
    """What the user said before, in the shape and order that is asked of the next reply."""
    return json.dumps({"say": text, "done": False}, ensure_ascii=False)


def _words(request: Request) -> Iterator[tuple[bool, str]]:
    """Each thing said, with whether the user said it. The agent's last turn stands there even if it is silence.

    Words of the agent that could not be used are left out, and with them the notice that the runtime gives in the user's
    place: neither was said to, or by, the user.
    """
    last = len(request.messages) - 1
    unusable = False
    for at, message in enumerate(request.messages):
        if isinstance(message, UserMessage):
            if not unusable:
                yield True, message.content
            unusable = False
        elif isinstance(message, AssistantMessage):
            unusable = not message.train and not message.tool_calls
            if not unusable and (message.content or at == last):
                yield False, message.content


def _part(scenario: Scenario) -> dict[str, str]:
    """What fills the instructions."""
    later = {one.constraint for one in scenario.interjections}
    return {
        "opening": scenario.opening,
        "tone": scenario.persona.tone,
        "constraints": _listed(one.text for number, one in enumerate(scenario.constraints) if number not in later),
        "facts": _listed(f"{slot.label}: {slot.value}" for slot in scenario.slots if not slot.withheld),
        "withheld": _listed(f"{slot.label}: {slot.value}" for slot in scenario.slots if slot.withheld),
        "later": _listed(one.says for one in scenario.interjections),
    }


def _listed(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts) or "- nothing"


@functools.cache
def _prompt() -> tuple[Template, str]:
    """The instructions, whose placeholders are `$name`, and the agent's first words, below a line of three dashes."""
    instructions, _, greeting = PROMPT.read_text(encoding="utf-8").partition("\n---\n")
    return Template(instructions), greeting.strip()


# --- what its reply is worth --------------------------------------------------------------------------------


def read_user(text: str, request: Request) -> tuple[str, bool, str]:
    """What the user says, whether they are done, and the problem: why that cannot be used; empty if it can.

    What stands around the JSON object, such as thinking or a code fence, is passed over. This is about the model's words
    only: a waiting interjection has to be said before `done` is accepted.
    """
    content = last_object(text, "say")
    if content is None:
        return "", False, "the reply holds no JSON object with the key 'say'"
    problems = _checker().problems(content)
    if problems:
        return "", False, str(problems[0])
    say, done = content["say"].strip(), content["done"]
    return say, done, next(_problems(say, done, request), "")


@functools.cache
def _checker() -> Checker:
    return Checker(USER_SCHEMA)


def _problems(say: str, done: bool, request: Request) -> Iterator[str]:
    if not say and not done:
        yield "it says nothing and is not done"
    if len(say) > MOST_CHARACTERS:
        yield f"it has {len(say)} characters; at most {MOST_CHARACTERS} are read"
    if any("\ud800" <= character <= "\udfff" or character == "\N{REPLACEMENT CHARACTER}" for character in say):
        yield "it holds characters that are broken"
    said = _folded(say)
    exchanged = _folded("\n".join(text for _, text in _words(request)))
    heard = [text for by_user, text in _words(request) if not by_user]
    for slot in request.scenario.slots:
        value = _folded(slot.value)
        if slot.withheld and names(said, value) and not names(exchanged, value) and not any(_asked(slot, one) for one in heard):
            yield f"it tells the {slot.label} before the agent has asked for it"
    known = "\n".join([exchanged, *map(_folded, _knowledge(request.scenario))])
    for token in _identifiers(said):
        if not names(known, token):
            yield f"it makes up {token!r}, which stands nowhere in what the user knows"


def _asked(slot: Slot, heard: str) -> bool:
    """Whether the agent asks for it, also in its own words: where the label is 'order number', 'Which order is it?' will do."""
    telling = set(re.findall(r"[^\W_]{4,}", _folded(f"{slot.label} {slot.name}")))
    return asks_for(slot, heard) or any(names(_folded(one), word) for one in asking(heard) for word in telling)


def _knowledge(scenario: Scenario) -> Iterator[str]:
    """All that a user may speak of before the agent does."""
    yield scenario.opening
    yield from (slot.value for slot in scenario.slots)
    yield from (one.says for one in scenario.interjections)
    yield from (one.text for one in scenario.constraints)


def _identifiers(text: str) -> Iterator[str]:
    """The words with a digit or an @, without the punctuation around them."""
    for word in re.findall(r"[\w@][\w@.,:/+%-]*", text):
        if "@" in word or any(character.isdigit() for character in word):
            yield word.rstrip(".,:/+-")


def _folded(text: str) -> str:
    """Case and white space make no difference to what a text gives away."""
    return " ".join(text.casefold().split())
