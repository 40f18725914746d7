"""The scenario gate: every template of every environment, over many seeds."""

from __future__ import annotations

import random

import pytest

from tracemill.generators.environments.base import Environment
from tracemill.generators.environments.catalogue import BUILT_IN, environment
from tracemill.generators.environments.goal import Done, draw, judge, templates
from tracemill.generators.words import Grammar
from tracemill.trace import Persona, Scenario, Step

SEEDS = 30
TONES = ("plain", "terse", "chatty", "formal", "worried")


def every_template() -> list[tuple[str, str]]:
    return [(name, template) for name in BUILT_IN for template in templates(environment(name))]


def drawn(name: str, template: str, seed: int, kind: str | None = None) -> Scenario:
    cls = environment(name)
    rng = random.Random(f"gate/{name}/{template}/{seed}")
    persona = Persona(name="Ada", tone=TONES[seed % 5])
    chosen = kind or templates(cls)[template][seed % len(templates(cls)[template])]
    return draw(cls, template, index=seed, seed=1, kind=chosen, world=seed % 7, persona=persona, rng=rng)


async def play(scenario: Scenario, steps: list[Step], answer: str) -> tuple[list[Done], Environment]:
    env = await environment(scenario.environment).reset(scenario)
    said = {i.after: i.says for i in scenario.interjections}
    known = " ".join(slot.value for slot in scenario.slots)
    done: list[Done] = []
    heard = known
    for step in steps:
        done.append(Done(step.call, await env.call(step.call.tool, step.call.arguments), heard))
        heard = said.get(scenario.steps.index(step), "")
    return done, env


@pytest.mark.parametrize(("name", "template"), every_template())
async def test_reference_passes_and_every_write_is_needed(name: str, template: str) -> None:
    for seed in range(SEEDS):
        scenario = drawn(name, template, seed)
        steps = list(scenario.steps)
        done, env = await play(scenario, steps, scenario.answer)
        outcome = await judge(scenario, env, done, scenario.answer)
        assert outcome.score, (seed, outcome.problems)
        nothing = await judge(scenario, await environment(name).reset(scenario), [], "")
        assert scenario.ending == "refused" or not nothing.score
        for gone, step in enumerate(steps):
            if step.effect == "read":
                continue
            rest = steps[:gone] + steps[gone + 1 :]
            done, env = await play(scenario, rest, scenario.answer)
            outcome = await judge(scenario, env, done, scenario.answer)
            assert not outcome.score, f"seed {seed}: passes without {step.call}"


@pytest.mark.parametrize(("name", "template"), every_template())
def test_a_drawn_scenario_is_a_pure_function_of_its_seed(name: str, template: str) -> None:
    for seed in range(5):
        assert drawn(name, template, seed) == drawn(name, template, seed)


@pytest.mark.parametrize(("name", "template"), every_template())
def test_one_goal_has_twenty_wordings(name: str, template: str) -> None:
    cls = environment(name)
    grammar: Grammar = cls.grammar()
    scenario_values = _values(name, template)
    for symbol in (f"{template}.opening", f"{template}.answer"):
        made = {grammar.expand(symbol, random.Random(n), scenario_values, TONES[n % 5]) for n in range(300)}
        assert len(made) >= 20, (symbol, len(made))


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_an_environment_is_rich_enough(name: str) -> None:
    cls = environment(name)
    rows = sum(len(table) for table in cls(0).tables())
    own = [tool for tool in cls.toolbox().values() if tool.name not in ("wait", "update_plan", "transfer_to_human")]
    assert rows >= 200
    assert len(own) >= 8
    assert {tool.effect for tool in own} == {"read", "write", "irreversible"}
    assert all(tool.definition.description for tool in own)
    assert len(templates(cls)) >= 8
    drawn_all = [drawn(name, template, seed) for template in templates(cls) for seed in range(10)]
    assert min(len(s.steps) for s in drawn_all) <= 1
    assert max(len(s.steps) for s in drawn_all) >= 7
    assert any(s.ending == "refused" for s in drawn_all)
    assert any(slot.withheld for s in drawn_all for slot in s.slots)
    assert any(s.interjections for s in drawn_all)
    assert any(i.changes_goal for s in drawn_all for i in s.interjections)
    assert any(s.constraints for s in drawn_all)
    assert any(a.group == b.group for s in drawn_all for a, b in zip(s.steps, s.steps[1:], strict=False))


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_plans_have_three_groups_and_recoveries_a_call(name: str) -> None:
    cls = environment(name)
    for template, kinds in templates(cls).items():
        for seed in range(10):
            if "goal_decomposition" in kinds:
                scenario = drawn(name, template, seed, "goal_decomposition")
                assert len({step.subgoal for step in scenario.steps}) >= 3, template
                addressed = {c for subgoal in scenario.subgoals for c in subgoal.constraints}
                assert addressed == set(range(len(scenario.constraints))), template
                for subgoal in scenario.subgoals:
                    text = f"{subgoal.goal} {subgoal.success}"
                    assert text.strip()
            if "error_recovery" in kinds:
                assert drawn(name, template, seed, "error_recovery").steps, template


def _values(name: str, template: str) -> dict[str, object]:
    from tracemill.generators.environments.goal import Draft, Unfit

    cls = environment(name)
    for seed in range(200):
        draft = Draft(cls(1), template, random.Random(seed), Persona(name="Ada", tone="plain"))
        try:
            getattr(draft.env, template)(draft)
        except Unfit:
            continue
        return draft.values
    raise AssertionError("no draw fits")
