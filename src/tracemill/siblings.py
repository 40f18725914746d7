"""Preference pairs from several rollouts of one scenario: where they part, and one way led to the goal more often.

The conversations of siblings form a tree: they do the same and get the same results up to a point. What the agent does there
is a decision; its rate of success is that of the siblings that took it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tracemill.trace import AssistantMessage, Message, ToolMessage, canonical


@dataclass(frozen=True, slots=True)
class Sibling:
    """One rollout of the scenario, checked."""

    messages: tuple[Message, ...]
    success: bool
    troubled: tuple[str, ...] = ()
    """Ids of the calls that a fault spoiled."""
    counts: bool = True
    """False where it failed for a reason that is not the agent's: it says nothing about the agent's decisions."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """A point where siblings part, with a better and a worse message for it."""

    prompt: tuple[Message, ...]
    chosen: AssistantMessage
    rejected: AssistantMessage
    source: str
    """What the pair teaches: recovery, ask, call, refuse, or siblings where it is none of these."""
    margin: float
    """Difference of the two decisions' rates of success, above 0 and at most 1."""


def pairs(accepted: Sibling, others: Sequence[Sibling]) -> Iterator[Divergence]:
    """Where others part from the accepted one, the earliest points first; at most one pair for each point.

    Chosen is always what the accepted one did, so that a pair can be checked against the trace it came from.
    """
    group = [accepted, *sorted((one for one in others if one.counts), key=lambda one: canonical([m.plain() for m in one.messages]))]
    for at, chosen in enumerate(accepted.messages):
        branches: dict[str, list[Sibling]] = {}
        for one in group:
            if at < len(one.messages):
                branches.setdefault(move(one.messages[at]), []).append(one)
        group = branches.pop(move(chosen))
        ways = [branch for branch in branches.values() if isinstance(branch[0].messages[at], AssistantMessage)]
        if isinstance(chosen, AssistantMessage) and chosen.train and ways:
            worst = min(ways, key=lambda branch: (_rate(branch), -len(branch)))  # of equal ones the surer
            if _rate(worst) < _rate(group):
                rejected = next(one for one in worst if not one.success).messages[at]
                assert isinstance(rejected, AssistantMessage)
                troubled = {id for branch in (group, *ways) for one in branch for id in one.troubled}
                prompt = accepted.messages[:at]
                margin = float(_rate(group) - _rate(worst))
                yield Divergence(prompt, chosen, rejected, _source(prompt, troubled, chosen, rejected), margin)


def same_way(one: Sequence[Message], other: Sequence[Message]) -> bool:
    """Whether two beginnings are of the same decisions with the same results, whatever was thought along with them."""
    return len(one) == len(other) and all(move(a) == move(b) for a, b in zip(one, other, strict=True))


def move(message: Message) -> str:
    """What a message does. What the agent thinks along with it does not set it apart: two samples hardly ever think in the same
    words, and most chat templates drop the thinking of earlier turns."""
    return _decision(message) if isinstance(message, AssistantMessage) else canonical(message.plain())


def _decision(message: AssistantMessage) -> str:
    """What the agent does, whatever it thinks or says along with it: its calls, or its words where it makes none."""
    if message.tool_calls:
        return canonical([[call.name, call.arguments] for call in message.tool_calls])
    return " ".join(message.content.split())


def _rate(siblings: Sequence[Sibling]) -> Fraction:
    return Fraction(sum(one.success for one in siblings), len(siblings))


SOURCES = ("recovery", "ask", "call", "refuse", "siblings")


def _source(prompt: tuple[Message, ...], troubled: set[str], chosen: AssistantMessage, rejected: AssistantMessage) -> str:
    if troubled & set(_last_results(prompt)):
        return "recovery"
    if chosen.tool_calls:
        return "siblings" if rejected.tool_calls else "call"
    if "?" in chosen.content:
        return "siblings" if _asks(rejected) else "ask"
    return "refuse" if rejected.tool_calls else "siblings"


def _asks(message: AssistantMessage) -> bool:
    return not message.tool_calls and "?" in message.content


def _last_results(prompt: tuple[Message, ...]) -> Iterator[str]:
    """Ids of the calls that the agent made in its last message."""
    for message in reversed(prompt):
        if isinstance(message, AssistantMessage):
            return
        if isinstance(message, ToolMessage):
            yield message.tool_call_id
