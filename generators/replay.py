"""Replay: a conversation's calls, run again in a fresh environment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tracemill.generators.environments.base import Environment
from tracemill.generators.environments.goal import Done
from tracemill.trace import AssistantMessage, Call, Message, Scenario, ToolMessage, UserMessage


@dataclass(frozen=True, slots=True)
class Move:
    """A recorded call: where it stands, what it returned then, and what the user had said since the call before."""

    at: int
    id: str
    call: Call
    text: str
    heard: str
    wrong: bool


def moves(messages: Sequence[Message]) -> list[Move]:
    """The calls of a conversation, in order. A call without an answer has the text ''."""
    answers = {m.tool_call_id: m.content for m in messages if isinstance(m, ToolMessage)}
    found: list[Move] = []
    heard: list[str] = []
    for at, message in enumerate(messages):
        if isinstance(message, UserMessage):
            heard.append(message.content)
        elif isinstance(message, AssistantMessage):
            for made in message.tool_calls or ():
                call = Call(tool=made.name, arguments=made.arguments)
                found.append(Move(at, made.id, call, answers.get(made.id, ""), "\n".join(heard), not message.train))
                heard.clear()
    return found


async def replay(env: Environment, calls: Iterable[Move]) -> list[Done]:
    """Make the calls in a fresh environment, which the caller closes."""
    return [Done(move.call, await env.call(move.call.tool, move.call.arguments), move.heard, move.wrong) for move in calls]


def drift(recorded: Sequence[Move], done: Sequence[Done]) -> list[str]:
    """Per call: where the observation is not the recorded one."""
    return [
        f"messages[{move.at}]: {move.call.tool} returned {_cut(now.result.text)}, recorded {_cut(move.text)}"
        for move, now in zip(recorded, done, strict=True)
        if now.result.text != move.text
    ]


async def fresh(
    cls: type[Environment], scenario: Scenario, calls: Iterable[Move], *, faults: bool = True
) -> tuple[Environment, list[Done]]:
    """A fresh environment with the calls made in it; the caller closes it."""
    env = await cls.reset(scenario, faults=faults)
    try:
        return env, await replay(env, calls)
    except BaseException:
        await env.close()
        raise


def _cut(text: str, limit: int = 160) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "…")
