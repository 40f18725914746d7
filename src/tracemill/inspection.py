"""Inspection: everything a trace must pass, in order. The pipeline and `tracemill verify` run the same code.

schema -> replay -> goal -> proof (of a recovery) -> constitution. The first stage that finds something ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracemill.constitution.constitution import Constitution
from tracemill.generators import error_recovery, goal_decomposition, tool_call
from tracemill.generators.environments.base import Environment
from tracemill.generators.environments.goal import Done, judge
from tracemill.generators.replay import Move, drift, moves, replay
from tracemill.schemas.check import record_checker
from tracemill.trace import (
    AssistantMessage,
    Blame,
    Message,
    Outcome,
    Recovery,
    Stage,
    SystemMessage,
    ToolMessage,
    Trace,
    UserMessage,
    Verdict,
)  # fmt: skip

KIND_PROBLEMS = {"tool_call": tool_call.problems, "goal_decomposition": goal_decomposition.problems}


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a trace failed, and on what evidence."""

    stage: Stage
    blame: Blame
    problems: tuple[str, ...]
    passed: Passed | None = None
    """At the stage `constitution`: what the checks before it computed, and all verdicts."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What the checks computed of a trace that passed."""

    outcome: Outcome
    state_digest: str
    recovery: Recovery | None
    verdicts: tuple[Verdict, ...]


async def inspect(trace: Trace, cls: type[Environment], constitution: Constitution, *, conforms: bool = False) -> Passed | Finding:
    """Run all checks. `conforms` says that the record is known to conform to its schema."""
    problems = [] if conforms else [str(problem) for problem in record_checker("trace").problems(trace.plain())]
    problems += structure_problems(trace.messages)
    if problems:
        return Finding("schema", "agent", tuple(problems))
    recorded = moves(trace.messages)
    env = await cls.reset(trace.scenario)
    try:
        done, troubled = await _again(env, recorded)
        problems = drift(recorded, done)
        digest = await env.digest()
        if problems:
            return Finding("replay", "tool", tuple(problems))
        outcome = await judge(trace.scenario, env, done, trace.answer)
    finally:
        await env.close()
    problems = list(outcome.problems) + _unfit(trace, recorded, done)
    if problems:
        return Finding("goal", "agent", tuple(problems))
    recovery = None
    if trace.kind == "error_recovery":
        located = error_recovery.locate(trace.scenario, trace.messages, troubled)
        recovery = await error_recovery.prove(trace.model_copy(update={"recovery": located}), cls)
        problems = error_recovery.problems(recovery)
        if problems:
            return Finding("proof", "tool", tuple(problems))
    verdicts = constitution.judge(trace)
    broken = tuple(verdict for verdict in verdicts if not verdict.passed)
    passed = Passed(outcome, digest, recovery, verdicts)
    return unconstitutional(passed, broken) if broken else passed


def unconstitutional(passed: Passed, broken: Sequence[Verdict]) -> Finding:
    """All was well but for these principles."""
    found = tuple(f"{verdict.principle} (messages[{verdict.at}]): {verdict.why}" for verdict in broken)
    return Finding("constitution", "agent", found, passed)


async def _again(env: Environment, recorded: Sequence[Move]) -> tuple[list[Done], list[str]]:
    """The calls made again, and the ids of those that a fault spoils."""
    done: list[Done] = []
    troubled: list[str] = []
    for move in recorded:
        hits = env.faults.hits
        done += await replay(env, [move])
        if env.faults.hits > hits:
            troubled.append(move.id)
    return done, troubled


def structure_problems(messages: Sequence[Message]) -> list[str]:
    """Where the conversation of a trace is not well formed: how it begins and ends, and what `turn_problems` finds."""
    found: list[str] = []
    if not isinstance(messages[0], SystemMessage) or not isinstance(messages[1], UserMessage):
        found.append("messages: a system message and the user's first message must come first")
    last = messages[-1]
    if not isinstance(last, AssistantMessage) or last.tool_calls:
        found.append("messages: the last one must be the agent's answer")
    return found + turn_problems(messages)


def turn_problems(messages: Sequence[Message]) -> list[str]:
    """Where it is not well formed who speaks when, and which result answers which call."""
    found: list[str] = []
    waiting: list[tuple[str, str]] = []
    used: set[str] = set()
    for at, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if not waiting or waiting[0] != (message.tool_call_id, message.name):
                found.append(f"messages[{at}]: answers no call that is waiting")
            else:
                waiting.pop(0)
            continue
        if waiting:
            found.append(f"messages[{at}]: comes before {waiting[0][0]} ({waiting[0][1]}) was answered")
            waiting = []
        if isinstance(message, SystemMessage) and at:
            found.append(f"messages[{at}]: a second system message")
        before = messages[at - 1]
        if at and isinstance(before, AssistantMessage) and not before.tool_calls and not isinstance(message, UserMessage):
            found.append(f"messages[{at}]: the agent had the word, and the user has not answered")
        if isinstance(message, AssistantMessage):
            if not message.content and not message.tool_calls:
                found.append(f"messages[{at}]: says nothing and calls nothing")
            for call in message.tool_calls or ():
                if call.id in used:
                    found.append(f"messages[{at}]: call id {call.id!r} was used before")
                used.add(call.id)
                waiting.append((call.id, call.name))
    return found


def _unfit(trace: Trace, recorded: Sequence[Move], done: Sequence[Done]) -> list[str]:
    """What keeps it from being a trace of its kind, and calls that are wrong without being marked as wrong."""
    of_kind = KIND_PROBLEMS.get(trace.kind)
    found = of_kind(trace) if of_kind else []
    drifting = {fault.tool for fault in trace.scenario.faults if fault.kind == "schema_drift"}
    for move, now in zip(recorded, done, strict=True):
        careless = move.call.tool not in trace.effects or (now.result.code == "invalid_arguments" and move.call.tool not in drifting)
        if careless and not move.wrong:
            found.append(f"messages[{move.at}]: {move.call.tool} is a wrong call and not marked as one")
    return found
