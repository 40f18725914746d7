"""Goals of an environment of MCP servers: drawn from the YAML file, where other goals are drawn from a world.

Drawing is synchronous and pure, so the reference calls are written down and not made; `gate.py` makes them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from tracemill.generators.environments.goal import difficulty, leaves
from tracemill.generators.environments.mcp_config import (
    SANDBOX,
    CallConfig,
    ExpectConfig,
    FactConfig,
    GoalConfig,
    choices,
    fill,
    fill_text,
    groups,
    slots_in,
    slots_of_wording,
)  # fmt: skip
from tracemill.generators.environments.tool import Tool
from tracemill.generators.words import Grammar
from tracemill.trace import (
    KINDS,
    Assertion,
    Call,
    Effect,
    Fact,
    Forbidden,
    Json,
    Kind,
    Persona,
    Scenario,
    Slot,
    Step,
    Subgoal,
)  # fmt: skip


def kinds(goal: GoalConfig, tools: Mapping[str, Tool]) -> tuple[Kind, ...]:
    """The kinds that the file names, or all that the calls suit."""
    if goal.kinds is not None:
        return tuple(goal.kinds)
    suited: dict[Kind, bool] = {
        "tool_call": True,
        "goal_decomposition": len(set(groups(goal))) >= 3,
        "error_recovery": any(tools[call.tool].effect != "read" for call in goal.calls),
    }
    return tuple(kind for kind in KINDS if suited[kind])


def scenario(
    goal: GoalConfig,
    tools: Mapping[str, Tool],
    grammar: Grammar,
    rules: Mapping[str, list[str]],
    rng: random.Random,
    persona: Persona,
    **given: Any,
) -> Scenario:
    """`given` are the fields that the caller has settled: index, seed, kind, environment, world."""
    slots: dict[str, Json] = {"sandbox": SANDBOX}
    for alternatives in choices(goal):
        slots |= rng.choice(alternatives)
    opening = grammar.expand(f"{goal.name}.opening", rng, slots, persona.tone)
    mentioned = slots_of_wording(f"{goal.name}.opening", rules) - {"sandbox"}
    said = {name for name in mentioned if str(slots[name]) in opening}
    known = [name for name in slots if name in said or name in goal.withheld]
    steps = _steps(goal, tools, slots)
    return Scenario(
        template=goal.name,
        difficulty=difficulty(len(steps)),
        persona=persona,
        opening=opening,
        slots=tuple(
            Slot(name=name, label=goal.labels.get(name, name.replace("_", " ")), value=str(slots[name]), withheld=name in goal.withheld)
            for name in known
        ),
        steps=steps,
        subgoals=_subgoals(goal, slots),
        assertions=tuple(_assertion(one, slots) for one in goal.expect),
        facts=tuple(_fact(one, slots, {str(slots[name]).lower() for name in known}, goal.refuse) for one in goal.facts),
        forbidden=tuple(
            Forbidden(tool=bad.tool, arguments=fill(bad.arguments, slots), reason=fill_text(bad.reason, slots)) for bad in goal.forbidden
        ),
        touches=_touches(goal, slots),
        ending="refused" if goal.refuse else "done",
        answer=grammar.expand(f"{goal.name}.answer", rng, slots),
        **given,
    )


def _steps(goal: GoalConfig, tools: Mapping[str, Tool], slots: Mapping[str, Json]) -> tuple[Step, ...]:
    steps: list[Step] = []
    asked: set[str] = set()
    numbers = groups(goal)
    for call, number in zip(goal.calls, numbers, strict=True):
        together = [one for one, other in zip(goal.calls, numbers, strict=True) if other == number]
        asks = [name for name in goal.withheld if name not in asked and any(name in slots_in(one.arguments) for one in together)]
        asked.update(asks)
        effect: Effect = tools[call.tool].effect
        made = _call(call, slots)
        check = _call(call.check, slots) if call.check else None
        steps.append(
            Step(
                call=made,
                effect=effect,
                why=fill_text(call.why, slots),
                group=number,
                subgoal=number,
                confirm=fill_text(call.confirm, slots),
                check=check or (_look_up(made, steps) if effect != "read" else None),
                fallback=_call(call.fallback, slots) if call.fallback else None,
                asks=tuple(asks),
            )
        )
    return tuple(steps)


def _subgoals(goal: GoalConfig, slots: Mapping[str, Json]) -> tuple[Subgoal, ...]:
    """One for each group of calls, worded by its first call, after the one before."""
    found: list[Subgoal] = []
    for call, number in zip(goal.calls, groups(goal), strict=True):
        if number == len(found):
            wanted = fill_text(call.subgoal or call.why, slots)
            success = fill_text(call.success, slots) or f"{call.tool} has answered without an error"
            found.append(Subgoal(goal=wanted, success=success, depends_on=(number - 1,) if number else ()))
    return tuple(found)


def _look_up(write: Call, before: Sequence[Step]) -> Call | None:
    """The latest read of the reference that names the same path."""
    paths = {text for text in leaves(write.arguments) if isinstance(text, str) and text.startswith(f"{SANDBOX}/")}
    for step in reversed(before):
        if step.effect == "read" and paths.intersection(text for text in leaves(step.call.arguments) if isinstance(text, str)):
            return step.call
    return None


def _assertion(one: ExpectConfig, slots: Mapping[str, Json]) -> Assertion:
    if one.tool is not None:
        call = Call(tool=one.tool, arguments=fill(one.arguments, slots))
        return Assertion(op="contains", value=fill_text(one.shows or "", slots), call=call)
    path = fill_text(one.file or "", slots)
    if one.equals is not None:
        return Assertion(table="files", id=path, field="content", op="equals", value=fill_text(one.equals, slots))
    if one.contains is not None:
        return Assertion(table="files", id=path, field="content", op="contains", value=fill_text(one.contains, slots))
    return Assertion(table="files", id=path, op="exists" if one.exists else "absent")


def _touches(goal: GoalConfig, slots: Mapping[str, Json]) -> tuple[str, ...]:
    """What the assertions speak of, with the folders on the way there, and what the file adds."""
    paths = {fill_text(one, slots) for one in (*goal.touches, *(one.file for one in goal.expect if one.file))}
    folders = {f"{parent}/" for path in paths for parent in PurePosixPath(path).parents if str(parent) != "."}
    return tuple(sorted(f"files/{path}" for path in paths | folders))


def _fact(one: FactConfig, slots: Mapping[str, Json], known: set[str], refused: bool) -> Fact:
    """By default a fact has to be seen in a result, unless the user said it, or the goal is refused."""
    number = fill(one.number, slots)
    spellings = [fill(text, slots) for text in one.any_of]
    if len(spellings) == 1 and isinstance(spellings[0], int | float):
        number = spellings.pop()
    told = {str(number).lower()} if number is not None else {str(text).lower() for text in spellings}
    observed = one.observed if one.observed is not None else not (refused or told & known)
    if number is not None:
        return Fact(number=float(number), observed=observed)
    return Fact(spellings=tuple(map(str, spellings)), observed=observed)


def _call(call: CallConfig, slots: Mapping[str, Json]) -> Call:
    return Call(tool=call.tool, arguments=fill(call.arguments, slots))
