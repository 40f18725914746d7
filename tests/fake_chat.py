"""A chat model that plays the scripted expert, and says something else where it is told to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from tracemill.generators.teachers.base import Reply, Request
from tracemill.generators.teachers.chat import Ask, Completion, RawCall
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.trace import AssistantMessage, Message, Scenario, ToolMessage, UserMessage, canonical

Astray = Callable[[int], Completion | None]
"""What it says in place of the expert when it is asked for the nth time (from 0), if anything."""


class FakeChat:
    """Of one scenario: a chat model is not told which it plays, so this one has to know."""

    name = "fake model"

    def __init__(self, scenario: Scenario, astray: Astray = lambda turn: None) -> None:
        self._scenario = scenario
        self._astray = astray
        self._good: set[str] = set()
        self.asks: list[Ask] = []

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def complete(self, ask: Ask) -> Completion:
        found = self._astray(len(self.asks))
        self.asks.append(ask)
        return found or await self._expert(ask)

    async def _expert(self, ask: Ask) -> Completion:
        request = Request("agent", self._without_slips(ask.messages), ask.tools, self._scenario)
        reply = await ScriptedTeacher().reply(request)
        self._good.add(_key(reply.text, [(one.tool, one.arguments) for one in reply.calls]))
        return completion(reply)

    def _without_slips(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation as the expert knows it: its own messages, and what came of them."""
        asides = {one.says for one in self._scenario.interjections}
        kept: list[Message] = []
        slipped = False
        for message in messages:
            if isinstance(message, AssistantMessage):
                slipped = _key(message.content, [(one.name, one.arguments) for one in message.tool_calls or ()]) not in self._good
            if not slipped or (isinstance(message, UserMessage) and message.content in asides):
                kept.append(message)
        return kept


def completion(reply: Reply) -> Completion:
    """A reply as a model would have written it."""
    calls = tuple(RawCall(one.tool, json.dumps(one.arguments)) for one in reply.calls)
    return Completion(reply.text, reply.reasoning, calls, reply.usage)


def _key(text: str, calls: list[tuple[str, object]]) -> str:
    return canonical([text, calls])


def results(messages: Sequence[Message]) -> list[str]:
    return [one.content for one in messages if isinstance(one, ToolMessage)]
