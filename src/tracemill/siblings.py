"""Preference pairs from several rollouts of one scenario: where they part, and one way led to the goal more often.

The conversations of siblings form a tree: they share their messages up to a point. What the agent does there is a
decision; its rate of success is that of the siblings that took it.
"""

from __future__ import annotations

import json
from collections import deque
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


Branch = list[Sibling]  # siblings that go the same way


def pairs(siblings: Sequence[Sibling]) -> Iterator[Divergence]:
    """At most one pair for each point where siblings part, the earliest points first, whatever order they are given in."""
    counted = sorted((one for one in siblings if one.counts), key=_text)
    parting = deque([(0, counted)])
    while parting:
        at, group = parting.popleft()
        branches = _branches(group, at)
        found = _pair(branches, at)
        if found is not None:
            yield found
        parting += [(at + 1, branch) for branch in branches if len(branch) > 1]


def _text(one: Sibling) -> str:
    """Orders siblings by what was said, to the last key: of messages that count as equal the first is taken."""
    return json.dumps([message.plain() for message in one.messages])


def _branches(group: Branch, at: int) -> list[Branch]:
    """The siblings by their whole message there."""
    found: dict[str, Branch] = {}
    for one in group:
        if at < len(one.messages):
            found.setdefault(canonical(one.messages[at].plain()), []).append(one)
    return list(found.values())


def _pair(branches: list[Branch], at: int) -> Divergence | None:
    """The best decision that may be chosen against the worst, each in its most telling wording."""
    decisions: dict[str, list[tuple[AssistantMessage, Branch]]] = {}
    for branch in branches:
        message = branch[0].messages[at]
        if isinstance(message, AssistantMessage):
            decisions.setdefault(_decision(message), []).append((message, branch))
    if len(decisions) < 2:
        return None
    takers = {key: [one for _, branch in wordings for one in branch] for key, wordings in decisions.items()}
    rates = {key: _rate(siblings) for key, siblings in takers.items()}
    # of equal ones the decision that more siblings took: its rate is the surer
    ranked = sorted(decisions, key=lambda key: (-rates[key], -len(takers[key]), key))
    good = next((key for key in ranked if any(_may_be_chosen(*wording) for wording in decisions[key])), None)
    bad = min(decisions, key=lambda key: (rates[key], -len(takers[key]), key))
    if good is None or rates[good] <= rates[bad]:
        return None
    chosen, taken = max((one for one in decisions[good] if _may_be_chosen(*one)), key=lambda one: _rate(one[1]))
    rejected, _ = min(decisions[bad], key=lambda one: _rate(one[1]))
    prompt = taken[0].messages[:at]
    troubled = {id for branch in branches for one in branch for id in one.troubled}
    return Divergence(prompt, chosen, rejected, _source(prompt, troubled, chosen, rejected), float(rates[good] - rates[bad]))


def _decision(message: AssistantMessage) -> str:
    """What the agent does, whatever it thinks or says along with it: its calls, or its words where it makes none."""
    if message.tool_calls:
        return canonical([[call.name, call.arguments] for call in message.tool_calls])
    return " ".join(message.content.split())


def _rate(siblings: Branch) -> Fraction:
    return Fraction(sum(one.success for one in siblings), len(siblings))


def _may_be_chosen(message: AssistantMessage, branch: Branch) -> bool:
    return message.train and any(one.success for one in branch)


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
