"""Plans: sub-goals with dependencies, as the tool `update_plan` takes them (schemas/plan.schema.json)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any


def problems(plan: Mapping[str, Any]) -> list[str]:
    """What keeps a plan, schema apart, from holding together: repeated ids, unknown ones, cycles."""
    subgoals: Sequence[Mapping[str, Any]] = plan["subgoals"]
    ids = [subgoal["id"] for subgoal in subgoals]
    found = [f"sub-goal id {one!r} is used twice" for one in sorted({one for one in ids if ids.count(one) > 1})]
    for subgoal in subgoals:
        found += [f"{subgoal['id']} depends on {one!r}, which is no sub-goal" for one in subgoal["depends_on"] if one not in ids]
    if not found:
        try:
            order(subgoals)
        except CycleError as error:
            found.append("the dependencies form a cycle: " + " -> ".join(error.args[1]))
    return found


def order(subgoals: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sub-goal ids, dependencies first. Raises graphlib.CycleError."""
    return list(TopologicalSorter({one["id"]: one["depends_on"] for one in subgoals}).static_order())


def execution_problems(plan: Mapping[str, Any], calls: Sequence[str]) -> list[str]:
    """Where executed calls (tool names in order) leave the plan's order.

    Each call is taken by the first sub-goal, in the plan's order, that still expects a call of that tool; a call that
    no sub-goal expects (a check, a retry) is free. A call must not come before the calls of a sub-goal that its own
    depends on.
    """
    subgoals: Sequence[Mapping[str, Any]] = plan["subgoals"]
    left = {one["id"]: list(one["tools"]) for one in subgoals}
    found: list[str] = []
    for tool in calls:
        for one in subgoals:
            if tool not in left[one["id"]]:
                continue
            waiting = [before for before in one["depends_on"] if left.get(before)]
            if waiting:
                found.append(f"{tool} ({one['id']}) was called before {', '.join(waiting)} was reached")
            left[one["id"]].remove(tool)
            break
    return found
