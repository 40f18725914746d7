"""What a chat template makes of a conversation: the prompt that a model gets, and what it has to write next.

Any template is taken as it is. What it can show of an agent's work (tools, calls, several calls at once, thoughts), under
which key it reads thoughts, and where a message of the agent ends is found out by rendering samples.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracemill.errors import ConfigError
from tracemill.generators.teachers.chat import wire_message
from tracemill.trace import AssistantMessage, Json, Message, ToolMessage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Wire = dict[str, Json]
"""A message in the OpenAI chat format, with the arguments of calls as objects."""

THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the agent."""

    prompt: str
    """What inference renders for it."""
    written: str
    """What the model has to write after that, up to and with the token at which generation stops."""

    @property
    def text(self) -> str:
        return self.prompt + self.written


class ChatTemplate:
    """The chat template of a tokenizer. Raises ConfigError where it cannot take the work of an agent with tools."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer: Any = tokenizer
        self._stops: dict[bool, str] = {}
        self._blocks: dict[int, tuple[Sequence[Json], _Block | None]] = {}
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                "the tokenizer has no chat template", ["take that of the model's instruct variant: tokenizer.chat_template = ..."]
            )
        self.ends = tuple(sorted(_ends(tokenizer), key=len, reverse=True))
        self.short_ids = self._wants_short_ids()
        """It wants ids of calls as Mistral's models write them: nine letters or digits."""
        self._check()
        self.one_call = not self._shows_two_calls()
        """It shows one call in a message, so that several are to be told one after the other."""
        for number in (3, 5):
            self.turn(self._sample(number), [STUB])
        self.bare_calls = not self._takes_words_beside_calls()
        """It cannot show words beside a call: Gemma 4 writes them after the result, where it ends the turn."""
        self.thought_key = next(filter(self._shows_thought, THOUGHT_KEYS), None)
        """Where it reads thoughts; None: it has no place for them."""

    def wire(self, messages: Sequence[Message], *, thoughts: bool) -> list[Wire]:
        """Messages as the template takes them."""
        wires = [wire_message(one, text_arguments=False, reasoning_key=self.thought_key if thoughts else None) for one in messages]
        if self.bare_calls:
            wires = [{**one, "content": ""} if "tool_calls" in one else one for one in wires]
        return _with_short_ids(wires) if self.short_ids else wires

    def turn(self, messages: Sequence[Wire], tools: Sequence[Json]) -> Turn:
        """The last message, which is the agent's. Raises ConfigError with the template's own words where it refuses them."""
        prompt, text = self.render(messages[:-1], tools, ask=True), self.render(messages, tools)
        shared = _shared(prompt, text)
        # Where the prompt opens a thought ("<think>\n") that the template writes as an empty one ("<think></think>"), white space
        # is all that sets them apart, and what follows it is what a model would write.
        written = self._rest(messages, tools, prompt, text) if prompt[shared:].strip() else text[shared:]
        return Turn(prompt, self._stopped(written, calls="tool_calls" in messages[-1]))

    def thought(self, messages: Sequence[Wire], tools: Sequence[Json], turn: Turn) -> tuple[int, int] | None:
        """Where in `turn.written` the thought of the last message stands; None if it is not shown. Raises ConfigError where the
        template changes its words."""
        *before, last = messages
        key = self.thought_key or ""
        thought = last.get(key, "").strip()
        if not thought:
            return None
        other = self.turn([*before, {**last, key: _changed(thought)}], tools).written
        if other == turn.written:
            return None
        rest = turn.written[_shared(other, turn.written) :].lstrip()
        if not rest.startswith(thought):
            raise ConfigError("the chat template changes the words of thoughts, so that they cannot be found and kept out of the loss")
        start = len(turn.written) - len(rest)
        return start, start + len(thought)

    def render(self, messages: Sequence[Wire], tools: Sequence[Json], *, ask: bool = False) -> str:
        """The text of a conversation; `ask` for the agent's next message. Raises ConfigError where the template refuses it."""
        if len(tools) < 2:
            return self._render(messages, tools, ask)
        block = self._block(tools)
        if block is None:
            return self._render(messages, tools, ask)
        text = self._render(messages, [STUB], ask)
        if text.count(block.stub) != 1:
            return self._render(messages, tools, ask)
        return text.replace(block.stub, block.tools)

    def _render(self, messages: Sequence[Wire], tools: Sequence[Json], ask: bool) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                list(messages), tools=list(tools) or None, tokenize=False, add_generation_prompt=ask
            )
        except Exception as reason:  # a template is a program of others: it may raise anything
            raise ConfigError(f"the chat template refuses the conversation: {_words(reason)}") from reason
        return text

    # --- tools take most of the text and of the time to render it, and are the same in thousands of conversations ---

    def _block(self, tools: Sequence[Json]) -> _Block | None:
        """What stands for these tools, or None where that is not one piece of text."""
        known = self._blocks.get(id(tools))
        if known is None:
            if len(self._blocks) >= 256:
                self._blocks.clear()
            known = self._blocks[id(tools)] = tools, self._found_block(tools)  # it holds the tools, so that the id stays theirs
        return known[1]

    def _found_block(self, tools: Sequence[Json]) -> _Block | None:
        full, stub = (self._render(self._sample(2), some, True) for some in (tools, [STUB]))
        start = _shared(full, stub)
        end = _shared(full[start:][::-1], stub[start:][::-1])
        block = _Block(stub[start : len(stub) - end], full[start : len(full) - end])
        sample = self._sample()
        same = block.stub and self._render(sample, [STUB], False).replace(block.stub, block.tools) == self._render(sample, tools, False)
        return block if same else None

    # --- what a model writes ---

    def _rest(self, messages: Sequence[Wire], tools: Sequence[Json], prompt: str, text: str) -> str:
        """What stands after the generation prompt of the last message, where the template shows earlier messages otherwise once
        it is there: GPT-OSS leaves out earlier thoughts as soon as the answer is given."""
        *before, last = messages
        asked = prompt.removeprefix(self.render(before, tools))
        at = text.rfind(asked, 0, _shared(text, self.render([*before, _other(last)], tools)))
        written = text[at + len(asked) :]
        # It begins with the last message if it stays the same whatever the message before says.
        same = at >= 0 and self.render([*before[:-1], _other(before[-1]), last], tools).endswith(asked + written)
        if asked in ("", prompt) or not same:
            raise ConfigError(f"the chat template asks for a message with {prompt[-40:]!r}, and then writes none that begins so")
        return written

    def _stopped(self, written: str, *, calls: bool) -> str:
        """With the token at which generation stops, without what comes after it."""
        short = written.rstrip()
        if short.endswith(self.ends):
            return short
        if calls not in self._stops:
            self._stops[calls] = self._stop(calls=calls)
        return written + self._stops[calls]

    def _stop(self, *, calls: bool) -> str:
        """Where messages of the agent end with no token of their own (GLM), generation stops at the one that opens the next."""
        number = 3 if calls else 5
        text, longer = (self.render(self._sample(some), [STUB]) for some in (number, number + 1))
        rest = longer.removeprefix(text)
        stop = re.match(r"\s*(?:" + "|".join(map(re.escape, self.ends)) + ")", rest) if self.ends and rest != longer else None
        if stop is None:
            raise ConfigError(f"the chat template ends a message of the agent with {text[-30:]!r}, which is no token to stop at")
        return stop[0]

    # --- what it can show ---

    def _wants_short_ids(self) -> bool:
        try:
            self._render(SAMPLE, [STUB], False)
        except ConfigError as reason:
            try:
                self._render(_with_short_ids(SAMPLE), [STUB], False)
            except ConfigError:
                raise ConfigError("the chat template cannot take an agent's conversation with tools", [reason.message]) from reason
            return True
        return False

    def _check(self) -> None:
        shown = {
            "the tools": (2, STUB["function"]["name"]),
            "calls of tools": (3, CALL["function"]["arguments"]["zqkey"]),
            "results of tools": (4, SAMPLE[3]["content"]),
        }
        missing = [what for what, (number, mark) in shown.items() if mark not in self._render(self._sample(number), [STUB], False)]
        if missing:
            hint = "take a template that does, such as that of the model's instruct variant (tokenizer.chat_template = ...)"
            raise ConfigError(f"the chat template does not show {' and '.join(missing)}", [hint])

    def _sample(self, number: int = 6) -> list[Wire]:
        return (_with_short_ids(SAMPLE) if self.short_ids else SAMPLE)[:number]

    def _shows_two_calls(self) -> bool:
        second = {**CALL, "id": "call_2", "function": {**CALL["function"], "arguments": {"zqkey": "zqsecond"}}}
        result = {**SAMPLE[3], "tool_call_id": "call_2"}
        messages = [*SAMPLE[:2], {**SAMPLE[2], "tool_calls": [CALL, second]}, SAMPLE[3], result]
        try:
            return "zqsecond" in self._render(_with_short_ids(messages) if self.short_ids else messages, [STUB], False)
        except ConfigError:
            return False

    def _takes_words_beside_calls(self) -> bool:
        try:
            self.turn([{**one, "content": "zqwords"} if "tool_calls" in one else one for one in self._sample(5)], [STUB])
        except ConfigError:
            return False
        return True

    def _shows_thought(self, key: str) -> bool:
        """A template whose prompt closes the thought before the model writes anything has no place for one either."""
        for number in (3, 5):
            *before, last = self._sample(number)
            try:
                turn = self.turn([*before, {**last, key: "zqthought"}], [STUB])
            except ConfigError:
                continue
            if "zqthought" in turn.written:
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Block:
    """Text that stands for the tools of a conversation, and for `STUB` in their place."""

    stub: str
    tools: str


STUB: Json = {
    "type": "function",
    "function": {
        "name": "zqtool",
        "description": "zqdescription",
        "parameters": {"type": "object", "properties": {"zqkey": {"type": "string", "description": "zqtext"}}, "required": ["zqkey"]},
    },
}
CALL: Json = {"id": "call_1", "type": "function", "function": {"name": "zqtool", "arguments": {"zqkey": "zqvalue"}}}
SAMPLE: list[Wire] = [
    {"role": "system", "content": "zqsystem"},
    {"role": "user", "content": "zquser"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "name": "zqtool", "content": "zqresult"},
    {"role": "assistant", "content": "zqanswer"},
    {"role": "user", "content": "zqmore"},
]


def one_by_one(messages: Sequence[Message]) -> Iterator[Message]:
    """Several calls of one message as several messages, each with its result."""
    answers = {one.tool_call_id: one for one in messages if isinstance(one, ToolMessage)}
    told: set[str] = set()
    for message in messages:
        if isinstance(message, ToolMessage) and message.tool_call_id in told:
            continue
        calls = message.tool_calls or () if isinstance(message, AssistantMessage) else ()
        if not isinstance(message, AssistantMessage) or len(calls) < 2:
            yield message
            continue
        for place, call in enumerate(calls):
            alone = {"content": "", "reasoning_content": None} if place else {}
            yield message.model_copy(update={**alone, "tool_calls": (call,)})
            if call.id in answers:
                yield answers[call.id]
                told.add(call.id)


def _with_short_ids(wires: Sequence[Wire]) -> list[Wire]:
    numbers: dict[str, str] = {}

    def short(known: str) -> str:
        return numbers.setdefault(known, f"{len(numbers) + 1:09}")

    found = []
    for wire in wires:
        if "tool_calls" in wire:
            wire = {**wire, "tool_calls": [{**call, "id": short(call["id"])} for call in wire["tool_calls"]]}
        if "tool_call_id" in wire:
            wire = {**wire, "tool_call_id": short(wire["tool_call_id"])}
        found.append(wire)
    return found


def _other(message: Wire) -> Wire:
    """The same message with other words."""
    texts = {key: _changed(value) for key, value in message.items() if isinstance(value, str) and value}
    return {**message, **texts, "role": message["role"], "content": texts.get("content", "~")}


def _changed(text: str) -> str:
    """Another text, from its first character on."""
    return ("=" if text.startswith("~") else "~") + text


def _ends(tokenizer: Any) -> set[str]:
    """Tokens at which generation may stop. One that closes a block, such as </tool_call>, is none even where it is special."""
    special = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return {token for token in special if not token.startswith("</")} | ({tokenizer.eos_token} - {None})


def _shared(one: str, other: str) -> int:
    """Length of the common beginning."""
    shorter = min(len(one), len(other))
    return bisect.bisect_left(range(shorter), True, key=lambda last: one[: last + 1] != other[: last + 1])


def _words(reason: Exception) -> str:
    return " ".join((str(reason) or type(reason).__name__).split())[:300]
