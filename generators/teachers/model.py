"""A teacher that asks a chat model: what each role is told, and what its reply is worth.

Nothing that a model writes is trusted. A reply that cannot be used comes back with its problem in words that its author
can act on; whether there is another try is the rollout's business.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Sequence

from tracemill.config import Prices
from tracemill.generators.teachers.base import Reply, Request
from tracemill.generators.teachers.chat import Ask, ChatModel, Completion, RawCall, Sampling
from tracemill.generators.teachers.simulated_user import USER_SCHEMA, read_user, user_messages
from tracemill.schemas.check import nested_deeper
from tracemill.trace import AssistantMessage, Call, Json, Message, SystemMessage, Usage, canonical, fingerprint

LONGEST = 40_000  # characters of one message; a reply beyond that is no message
MOST_CALLS = 16  # in one message
KEPT = 2_000  # characters of a reply that cannot be used which stay in the conversation
GLIMPSE = 200  # the same of one that is better not seen again: it would only be taken up
SILENCE = "(no content)"  # what stands for a reply that is empty
UNWRITABLE = re.compile(r"[\ud800-\udfff\x00-\x08\x0e-\x1f]")
TOKENS = re.compile(r"<\|[A-Za-z0-9_]{1,40}\|>|<｜[^｜<>]{1,40}｜>")
"""What begins and ends messages in chat templates: shown again, it would be read as such."""
MARKUP = re.compile(r"</?tool_call>|<\|tool_call|<\|python_tag\|>|\[TOOL_CALLS\]|<function=|<invoke |<｜tool▁call|</?think>")
"""What is left in a text when a parser could not read a tool call, or thinking that never ended."""
NUMBERS = {1: "one short step", 2: "two short steps", 3: "three short steps"}


class ModelTeacher:
    """`sampling` is for agent and user; a critic is asked without chance. `reasoning_steps` are asked for before each action."""

    def __init__(self, chat: ChatModel, sampling: Sampling, *, reasoning_steps: int, prices: Prices) -> None:
        self._chat = chat
        self._sampling = sampling
        self._steps = reasoning_steps
        self._prices = prices

    @property
    def name(self) -> str:
        return self._chat.name

    async def start(self) -> None:
        await self._chat.start()

    async def close(self) -> None:
        await self._chat.close()

    async def reply(self, request: Request) -> Reply:
        completion = await self._chat.complete(self._ask(request))
        read = {"agent": _agent_reply, "user": _user_reply, "critic": _critic_reply}[request.role]
        reply = read(completion, request)
        return dataclasses.replace(reply, usage=self._priced(completion))

    def _ask(self, request: Request) -> Ask:
        if request.role == "agent":
            return Ask(self._agent_messages(request), self._sampling, seed_of(request), request.tools)
        if request.role == "user":
            return Ask(user_messages(request), self._sampling, seed_of(request), schema=USER_SCHEMA)
        certain = dataclasses.replace(self._sampling, temperature=0.0)
        return Ask(request.messages, certain, seed_of(request), schema=request.schema)

    def _agent_messages(self, request: Request) -> list[Message]:
        """The conversation, with a word to the teacher that is no part of the trace: the student does without it."""
        first, *rest = request.messages
        assert isinstance(first, SystemMessage)
        notes = [f"Before each action, think in at most {NUMBERS.get(self._steps, f'{self._steps} short steps')}."] if self._steps else []
        if request.critique:
            notes.append(f"A review of the message that you write next has this to say of an earlier draft: {request.critique}")
        return [SystemMessage(content="\n\n".join([first.content, *notes])), *rest]

    def _priced(self, completion: Completion) -> Usage:
        usage, prices = completion.usage, self._prices
        cost = (usage.prompt_tokens * prices.prompt + usage.completion_tokens * prices.completion) / 1e6
        return usage.model_copy(update={"cost": cost})


def seed_of(request: Request) -> int:
    """Follows from the scenario and the place in it, so that a rollout can be repeated. 31 bits: what every engine takes."""
    place: list[str | int] = [request.scenario.seed, request.role, len(request.messages), request.revision, request.sibling, request.redo]
    if request.role == "critic":
        place.append(request.messages[-1].content)
    return int(fingerprint(place)[:8], 16) & 0x7FFFFFFF


def _agent_reply(completion: Completion, request: Request) -> Reply:
    text, reasoning = _thought(completion)
    raw = _raw(completion)
    problem = _unwritable(raw) or _unreasonable(raw)
    if problem:
        glimpse = TOKENS.sub("", UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", _shortened(raw, GLIMPSE)))
        return Reply(text=glimpse if glimpse.strip() else SILENCE, problem=problem, raw=raw)
    if completion.cut:
        problem = "it was cut off before its end: write less"
    calls, wrong_calls = _calls(completion.calls)
    problem = problem or wrong_calls
    if not problem and (left := MARKUP.search(text)):
        problem = f"it holds {left.group()!r} in its text: a tool call, or thinking, that is not well formed"
    if not problem and (script := _foreign_script(f"{reasoning or ''}\n{text}", request.messages)):
        problem = f"it is written in a script that nobody here uses ({script})"
    if not problem and not text and not calls:
        problem = "it says nothing and calls nothing"
    if problem:
        return Reply(text=_shortened(raw) if raw.strip() else SILENCE, problem=problem, raw=raw)
    return Reply(text=text, reasoning=reasoning, calls=calls)


def _user_reply(completion: Completion, request: Request) -> Reply:
    raw = _raw(completion)
    problem = "it was cut off before its end" if completion.cut else _unwritable(raw) or _unreasonable(raw)
    if problem:
        return Reply(problem=problem, raw=raw)
    text, _ = _thought(completion)
    say, done, problem = read_user(text, request)
    if problem:
        return Reply(problem=problem, raw=raw)
    return Reply(text=say, done=done)


def _critic_reply(completion: Completion, request: Request) -> Reply:
    raw = _raw(completion)
    problem = "it was cut off before its end" if completion.cut else _unreasonable(raw)
    return Reply(text="" if problem else _thought(completion)[0], problem=problem, raw=raw)


def _thought(completion: Completion) -> tuple[str, str | None]:
    """Text and reasoning, also where the thinking still stands in the text because nobody has parsed it."""
    text, reasoning = completion.text, completion.reasoning
    if not reasoning and "</think>" in text:
        reasoning, _, text = text.partition("</think>")
        reasoning = reasoning.replace("<think>", "", 1)
    return text.strip(), (reasoning or "").strip() or None


def _raw(completion: Completion) -> str:
    """All that was written, for the ledger."""
    parts = [f"<think>{completion.reasoning}</think>"] if completion.reasoning else []
    parts += [completion.text] if completion.text else []
    parts += [f"{call.name} {call.arguments}" for call in completion.calls]
    return "\n".join(parts)


def _calls(raw: Iterable[RawCall]) -> tuple[tuple[Call, ...], str]:
    """The calls, and what is wrong with them, in none of the model's words: what a notice says, the agent may take for known.

    Whether there is such a tool and the arguments suit it, its environment says.
    """
    calls: list[Call] = []
    for number, one in enumerate(raw, 1):
        try:
            arguments = json.loads(one.arguments or "{}", parse_constant=_no_constant)
            canonical(arguments).encode()
        except (ValueError, RecursionError) as reason:
            return (), f"the arguments of call {number} are no JSON: {_shortened(str(reason), 120)}"
        if not isinstance(arguments, dict):
            return (), f"the arguments of call {number} are no JSON object"
        if nested_deeper(arguments, 32) or not _in_range(arguments):
            return (), f"the arguments of call {number} are nested too deeply, or hold numbers beyond 64 bits"
        calls.append(Call(tool=one.name, arguments=arguments))
    if len(calls) > MOST_CALLS:
        return (), f"it makes {len(calls)} calls at once; {MOST_CALLS} is the most"
    return tuple(calls), ""


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is no JSON")


def _in_range(value: Json) -> bool:
    if isinstance(value, dict | list):
        return all(_in_range(one) for one in (value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _unwritable(raw: str) -> str:
    """Text that no file can hold and no model can be shown again."""
    if re.search("[\ud800-\udfff\N{REPLACEMENT CHARACTER}]", raw):
        return "it holds broken characters"
    if UNWRITABLE.search(raw):
        return "it holds control characters"
    return "it holds control tokens of a chat template" if TOKENS.search(raw) else ""


def _unreasonable(raw: str) -> str:
    if len(raw) > LONGEST:
        return f"it is {len(raw):,} characters long; {LONGEST:,} is the most"
    if len(raw) > 1000 and len(zlib.compress(raw.encode(), 1)) < len(raw) / 20:
        return "it says the same thing over and over"
    return ""


def _foreign_script(text: str, messages: Sequence[Message]) -> str:
    """The script that most of the letters are of, if nobody but the agent has written a letter of it."""
    counts: dict[str, int] = {}
    for letter in text:
        if letter.isalpha():
            script = _script(letter)
            counts[script] = counts.get(script, 0) + 1
    script = max(counts, key=lambda one: counts[one], default="LATIN")
    heard = (one.content for one in messages if not isinstance(one, AssistantMessage))
    if script == "LATIN" or any(_script(letter) == script for text in heard for letter in text if letter.isalpha()):
        return ""
    return script.capitalize()


@functools.lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    return "LATIN" if letter.isascii() else unicodedata.name(letter, "unknown").split()[0]


def _shortened(text: str, limit: int = KEPT) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
