"""error_recovery: something goes wrong, and the agent notices, diagnoses, and recovers or ends honestly.

`locate` says which messages are the trouble and which the recovery; `prove` cuts the trace along these lines and
runs what is left, so that a recovery is shown to have been needed and to be what made the difference.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from tracemill.generators.environments.base import Environment
from tracemill.generators.environments.goal import judge
from tracemill.generators.faults import renamed
from tracemill.generators.replay import Move, fresh, moves
from tracemill.trace import AssistantMessage, Call, Message, Recovery, Scenario, Trace, is_error


def locate(scenario: Scenario, messages: Sequence[Message], troubled: Collection[str]) -> Recovery | None:
    """The recovery of a finished rollout: from the first message after the trouble to the one that sets it right.

    `troubled` are the ids of the calls that a fault spoiled. None if nothing went wrong.
    """
    made = moves(messages)
    wrong = tuple(at for at, m in enumerate(messages) if isinstance(m, AssistantMessage) and not m.train)
    # A wrong step that the scenario does not name, such as a call that is none, is no part of the trouble.
    spoiled = {*(wrong if scenario.mistakes else ()), *(move.at for move in made if move.id in troubled)}
    if not spoiled:
        return None
    begin = min(spoiled)
    open_ends = [_right_calls(scenario, move) for move in made if move.id in troubled]
    open_ends += [[scenario.steps[mistake.step].call] for mistake in scenario.mistakes if wrong]
    recovery: list[int] = []
    for at, message in enumerate(messages):
        if at <= begin or at in wrong or not isinstance(message, AssistantMessage) or not message.tool_calls:
            continue
        recovery.append(at)
        for move in made:
            if move.at == at and move.id not in troubled and not is_error(move.text):
                handed = scenario.honest_end is not None and move.call.tool == "transfer_to_human"
                open_ends = [right for right in open_ends if not handed and move.call not in right]
        if not open_ends and at > max(spoiled):
            break
    kinds = (*(fault.kind for fault in scenario.faults), *(mistake.kind for mistake in scenario.mistakes))
    return Recovery(faults=kinds, wrong=wrong, recovery=tuple(recovery))


async def prove(trace: Trace, cls: type[Environment]) -> Recovery | None:
    """The trace's recovery with both halves of the proof.

    Without the fault, the wrong steps and the recovery, the goal is reached; with them but without the recovery, it is
    missed. Calls that an honest end could not make are taken from the reference.
    """
    found, scenario = trace.recovery, trace.scenario
    if found is None:
        return None
    made = moves(trace.messages)
    reference = [step.call for step in scenario.steps]
    base = [m for m in made if m.at not in found.wrong and (m.at not in found.recovery or (scenario.mistakes and m.call in reference))]
    for fault in scenario.faults:
        if fault.kind == "schema_drift":  # without it, the names are the old ones
            base = [replace(move, call=renamed(move.call, fault, back=True)) for move in base]
    healthy = scenario.model_copy(update={"honest_end": None})
    without_fault = await _reaches(healthy, cls, base, faults=False)
    crippled = [move for move in made if move.at not in found.recovery]
    without_recovery = await _reaches(scenario, cls, crippled, faults=True)
    return found.model_copy(update={"without_fault_holds": without_fault, "without_recovery_fails": not without_recovery})


async def _reaches(scenario: Scenario, cls: type[Environment], calls: Sequence[Move], *, faults: bool) -> bool:
    env, done = await fresh(cls, scenario, calls, faults=faults)
    try:
        return (await judge(scenario, env, done, "")).holds_without_answer
    finally:
        await env.close()


def _right_calls(scenario: Scenario, spoiled: Move) -> list[Call]:
    """Calls whose success means that the trouble with this one is over."""
    right = [spoiled.call]
    right += [renamed(spoiled.call, fault) for fault in scenario.faults if fault.kind == "schema_drift"]
    for step in scenario.steps:
        if spoiled.call == step.call and step.fallback is not None:
            right.append(step.fallback)
        if spoiled.call == step.call and step.check is not None and any(f.kind == "timeout_written" for f in scenario.faults):
            right.append(step.check)
    return right


def problems(found: Recovery | None) -> list[str]:
    """What keeps a trace from being of this kind: nothing went wrong, nothing was recovered, or the proof fails."""
    if found is None:
        return ["nothing went wrong: the fault never struck"]
    missing = [] if found.recovery else ["the trouble was followed by no recovery"]
    if not found.without_fault_holds:
        missing.append("without the fault and the recovery, the goal is not reached")
    if not found.without_recovery_fails:
        missing.append("with the fault and without the recovery, the goal is reached all the same: it was not needed")
    return missing
