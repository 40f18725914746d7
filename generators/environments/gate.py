"""The gate: what each goal of an environment must pass before scenarios are made of it, checked by running it.

For each draw of a template: the reference reaches the goal, and does so again with the same results; doing nothing does
not reach it, nor does the reference without any one of its writes; every check and fallback works where it would be
made. For each kind that a template names: there is what that kind takes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import get_args

from tracemill.errors import ScenarioError
from tracemill.generators import trouble
from tracemill.generators.environments.base import Environment, Result
from tracemill.generators.environments.goal import Done, draw, judge, templates
from tracemill.trace import Call, Persona, Scenario, Tone

TONES: tuple[Tone, ...] = get_args(Tone)
WORDINGS = 20
"""Of one opening or answer, whatever the values: fewer make a dataset repeat itself."""


async def gate(cls: type[Environment], *, draws: int | None = None) -> list[str]:
    """What is wrong with the goals of an environment; empty if all is well.

    `draws` scenarios of each template are tried: by default thirty, or one where each rollout has to start something.
    """
    jobs = [asyncio.create_task(template_problems(cls, name, draws=draws)) for name in templates(cls)]
    try:
        found = [problem for problems in await asyncio.gather(*jobs) for problem in problems]
    finally:  # where one could not start, the others are not left running
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    return found if jobs else [f"{cls.name} has no goals: mark a method with @goal()"]


async def template_problems(cls: type[Environment], template: str, *, draws: int | None = None) -> list[str]:
    """What is wrong with one template: of all draws, the first that fails in a certain way."""
    found: dict[str, str] = dict(_wording_problems(cls, template))
    troubled = "error_recovery" not in templates(cls)[template]
    number = -1
    for number in range(draws or (30 if cls.instant else 1)):
        try:
            scenario = drawn(cls, template, number)
        except ScenarioError as reason:
            found.setdefault("draw", str(reason))
            continue
        if drawn(cls, template, number) != scenario:
            found.setdefault("pure", "drawn twice with the same numbers it differs: take everything random from `rng`, and sort sets")
        for check, problem in _kind_problems(cls, scenario):
            found.setdefault(check, problem)
        async for check, problem in _run_problems(cls, scenario):
            found.setdefault(check, problem)
        troubled = troubled or trouble.with_trouble(scenario, cls, random.Random(number), mistakes=True) is not None
    if not troubled:
        why = "a recovery needs a write with a `check`, or a look-up that alone shows what is used or told later"
        found["trouble"] = f"it suits error_recovery, but in {number + 1} draws there was no place for a fault: {why}"
    return [f"{template}: {problem}" for problem in found.values()]


def drawn(cls: type[Environment], template: str, number: int) -> Scenario:
    """The scenario that the gate looks at: kinds, tones and worlds take turns."""
    kinds = templates(cls)[template]
    persona = Persona(tone=TONES[number % len(TONES)])
    rng = random.Random(f"gate/{cls.name}/{template}/{number}")
    return draw(cls, template, index=number, seed=1, kind=kinds[number % len(kinds)], world=number % 7, persona=persona, rng=rng)


# --- what needs no run --------------------------------------------------------------------------------------


class _AnySlot(dict[str, object]):
    """Values for a wording of which only the wording counts."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"


def _wording_problems(cls: type[Environment], template: str) -> Iterator[tuple[str, str]]:
    grammar = cls.grammar()
    for symbol in (f"{template}.opening", f"{template}.answer"):
        if symbol not in grammar:
            yield symbol, f"the environment's words lack {symbol!r}"
            continue
        made = {grammar.expand(symbol, random.Random(n), _AnySlot(), TONES[n % len(TONES)]) for n in range(300)}
        if len(made) < WORDINGS:
            yield (
                symbol,
                f"{symbol!r} has {len(made)} wordings and needs {WORDINGS}: add alternatives, or symbols such as <greet> and <tail>",
            )


def _kind_problems(cls: type[Environment], scenario: Scenario) -> Iterator[tuple[str, str]]:
    kinds = templates(cls)[scenario.template]
    if "goal_decomposition" in kinds:
        parts = len({step.subgoal for step in scenario.steps})
        if parts < 3:
            yield "parts", f"it suits goal_decomposition, which takes three sub-goals with calls or more, and has {parts}"
        addressed = {constraint for subgoal in scenario.subgoals for constraint in subgoal.constraints}
        for number, constraint in enumerate(scenario.constraints):
            if number not in addressed:
                yield "constraints", f"no sub-goal has the constraint {constraint.text!r}"
    if "error_recovery" in kinds and not scenario.steps:
        yield "steps", "it suits error_recovery, which takes a call that can go wrong, and has none"


# --- what is found by running it ----------------------------------------------------------------------------


async def _run_problems(cls: type[Environment], scenario: Scenario) -> AsyncIterator[tuple[str, str]]:
    env = await cls.reset(scenario, faults=False)
    try:
        done = await _play(env, scenario)
        for one in done:
            if not one.result.ok:
                yield f"call {one.call.tool}", f"reference call {_worded(one.call)} fails: {one.result.text}"
        outcome = await judge(scenario, env, done, scenario.answer)
        for problem in outcome.problems:
            yield problem.partition(":")[0], f"the reference misses the goal: {problem}"
    finally:
        await env.close()
    env = await cls.reset(scenario, faults=False)
    try:
        if scenario.ending != "refused" and (await judge(scenario, env, [], "")).score:
            yield "idle", "doing nothing reaches the goal"
        async for check, problem in _second_time(env, scenario, [one.result for one in done]):
            yield check, problem
    finally:
        await env.close()
    for number, step in enumerate(scenario.steps):
        if step.effect == "read":
            continue
        env = await cls.reset(scenario, faults=False)
        try:
            rest = await _play(env, scenario, left_out=number)
            if (await judge(scenario, env, rest, scenario.answer)).score:
                yield f"without {step.call.tool}", f"the goal is reached without {_worded(step.call)}"
        finally:
            await env.close()


async def _play(env: Environment, scenario: Scenario, *, left_out: int | None = None) -> list[Done]:
    said = {one.after: one.says for one in scenario.interjections}
    heard = " ".join(slot.value for slot in scenario.slots)
    done: list[Done] = []
    for number, step in enumerate(scenario.steps):
        if number != left_out:
            done.append(Done(step.call, await env.call(step.call.tool, step.call.arguments), heard))
            heard = said.get(number, "")
    return done


async def _second_time(env: Environment, scenario: Scenario, before: list[Result]) -> AsyncIterator[tuple[str, str]]:
    """The reference again, with the calls that are made only when something goes wrong."""
    for step, first in zip(scenario.steps, before, strict=True):
        again = await env.call(step.call.tool, step.call.arguments)
        if again.text != first.text:
            told = f"first {first.text[:200]!r}, then {again.text[:200]!r}"
            yield f"again {step.call.tool}", f"{_worded(step.call)} does not return the same each time: {told}"
        for call, what in ((step.check, "check"), (step.fallback, "fallback")):
            result = await env.call(call.tool, call.arguments) if call is not None else None
            if call is not None and result is not None and not (result.ok and result.effect == "read"):
                why = f"fails: {result.text}" if not result.ok else "is no read"
                yield f"{what} {call.tool}", f"the {what} {_worded(call)} {why}"


def _worded(call: Call) -> str:
    return f"{call.tool}({', '.join(f'{name}={value!r}' for name, value in call.arguments.items())})"
