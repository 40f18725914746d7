"""Suites: what they draw is held out, suits the arm, and is the same for every policy."""

from __future__ import annotations

import pytest

from tracemill.config import Config
from tracemill.errors import ConfigError
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.environments.goal import templates
from tracemill.generators.scenario import held_out, scenario
from tracemill.job import build_job
from tracemill.train.evaluate.adversary import ADVERSARIES
from tracemill.train.evaluate.suite import FIRST_WORLD, Plan, SuiteConfig

HOLDOUT = Config(environments={"store": 1, "calendar": 1}, holdout=0.3)


def test_the_tries_are_all_modes_arms_scenarios_and_samples_each_once() -> None:
    plan = Plan(HOLDOUT, SuiteConfig(suite="all", scenarios=3, samples=2, modes=("fast", "thorough")))
    tries = {plan[index] for index in range(len(plan))}
    assert len(tries) == len(plan) == 2 * (2 + len(ADVERSARIES)) * 3 * 2
    assert {one.arm for one in tries} == {"seeds", "templates", *ADVERSARIES}
    first = {plan[index].number for index in range(len(plan) // 3)}
    assert first == {0}, "an evaluation that is stopped has a little of every arm"


def test_held_out_templates_are_in_no_run_and_the_others_in_no_scenario_of_that_arm() -> None:
    mix = build_job(HOLDOUT).mix
    kept_back = {(name, one) for name in mix.environments for one in held_out(environment(name), 0.3)}
    trained = {(one.environment, one.template) for one in (scenario(0, index, mix) for index in range(150))}
    assert kept_back and trained and not trained & kept_back
    plan = Plan(HOLDOUT, SuiteConfig(scenarios=30))
    assert {(one.environment, one.template) for one in (plan.scenario("templates", n) for n in range(30))} <= kept_back
    assert not {(one.environment, one.template) for one in (plan.scenario("seeds", n) for n in range(30))} & kept_back


def test_a_growing_holdout_keeps_the_same_templates_and_more() -> None:
    store = environment("store")
    assert held_out(store, 0.0) == frozenset()
    assert held_out(store, 0.2) < held_out(store, 0.5) < frozenset(templates(store))


def test_worlds_and_seeds_are_those_of_no_run() -> None:
    plan = Plan(Config(worlds=100_000), SuiteConfig(scenarios=5))
    mine = [plan.scenario("seeds", number) for number in range(5)]
    assert all(one.world >= FIRST_WORLD for one in mine)
    mix = build_job(Config(worlds=100_000)).mix
    assert not {one.seed for one in mine} & {scenario(0, index, mix).seed for index in range(300)}


def test_every_policy_gets_the_same_scenarios() -> None:
    suite = SuiteConfig(suite="all", scenarios=2)
    scripted, model = Plan(HOLDOUT, suite), Plan(Config.model_validate({**HOLDOUT.model_dump(), "teacher": "some/model"}), suite)
    for arm in scripted.arms:
        assert scripted.scenario(arm, 1) == Plan(HOLDOUT, suite).scenario(arm, 1) == model.scenario(arm, 1)


def test_without_a_holdout_there_is_no_arm_of_held_out_templates() -> None:
    assert Plan(Config(), SuiteConfig()).arms == ("seeds",)


def test_a_suite_with_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to evaluate on"):
        Plan(Config(environments={"store": 1}, kinds={"tool_call": 1}, holdout=0.999), SuiteConfig())
