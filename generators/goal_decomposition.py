"""goal_decomposition: a plan first, carried out in an order that respects it, and revised when things change."""

from __future__ import annotations

from typing import Any

from tracemill.generators import plan
from tracemill.trace import Constraint, ToolMessage, Trace, UserMessage, is_error


def problems(trace: Trace) -> list[str]:
    """What keeps a trace from being of this kind: no plan, a plan that is not followed, not revised, or incomplete."""
    made = [(at, call, answer) for at, call, answer in trace.calls() if trace.messages[at].train]  # type: ignore[union-attr]
    if not made or made[0][1].name != "update_plan":
        return ["the first call is not update_plan"]
    plans = [(number, call.arguments) for number, (_, call, answer) in enumerate(made) if call.name == "update_plan" and accepted(answer)]
    if not plans:
        return ["no plan was accepted"]
    found: list[str] = []
    for place, (number, written) in enumerate(plans):
        until = plans[place + 1][0] if place + 1 < len(plans) else len(made)
        names = [call.name for _, call, answer in made[number + 1 : until] if accepted(answer)]
        found += plan.execution_problems(written, names)
        if written.get("revision", 0) != place:
            found.append(f"plan {place} says it is revision {written.get('revision', 0)}")
    found += [f"no sub-goal addresses: {one.text}" for one in trace.scenario.constraints if not any(addresses(p, one) for _, p in plans)]
    found += _unrevised(trace, [made[number][0] for number, _ in plans])
    return found


def accepted(answer: ToolMessage | None) -> bool:
    return answer is not None and not is_error(answer.content)


def addresses(written: dict[str, Any], constraint: Constraint) -> bool:
    """Whether one sub-goal of a plan names all keywords of the constraint."""
    for one in written["subgoals"]:
        text = " ".join([one["goal"], one["success_criterion"], *one.get("constraints", [])]).lower()
        if all(word.lower() in text for word in constraint.keywords):
            return True
    return False


def _unrevised(trace: Trace, planned_at: list[int]) -> list[str]:
    """Changes after which calls went on without a new plan."""
    said = {one.says for one in trace.scenario.interjections}
    changes = [at for at, m in enumerate(trace.messages) if isinstance(m, UserMessage) and m.content in said]
    down = [fault.tool for fault in trace.scenario.faults if fault.kind == "server_down"]
    changes += [at for at, call, answer in trace.calls() if call.name in down and not accepted(answer)][:1]
    found = []
    for at in changes:
        later = [place for place, call, _ in trace.calls() if place > at]
        if later and later[0] not in planned_at:
            found.append(f"the plan was not revised after messages[{at}]")
    return found
