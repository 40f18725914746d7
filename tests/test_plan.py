"""Plans: whether one holds together, and whether calls follow it."""

from __future__ import annotations

import random
from graphlib import CycleError
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracemill.generators.plan import execution_problems, order, problems


def step(id: str, *tools: str, after: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"id": id, "goal": f"reach {id}", "depends_on": list(after), "tools": list(tools), "success_criterion": "it is seen"}


def plan(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"goal": "all of it", "constraints": [], "subgoals": list(steps)}


CHAIN = plan(step("g1", "find"), step("g2", "read", "read", after=("g1",)), step("g3", "write", after=("g2",)))


def test_a_plan_that_holds_together_has_no_problems() -> None:
    assert problems(CHAIN) == []
    assert problems(plan(step("a"))) == []
    assert order(CHAIN["subgoals"]) == ["g1", "g2", "g3"]


def test_an_id_that_is_used_twice_is_named_once() -> None:
    assert problems(plan(step("g1"), step("g2"), step("g1"), step("g1"))) == ["sub-goal id 'g1' is used twice"]


def test_a_dependency_on_nothing_is_named_with_who_has_it() -> None:
    found = problems(plan(step("g1", after=("g0",)), step("g2", after=("g1", "g9"))))
    assert found == ["g1 depends on 'g0', which is no sub-goal", "g2 depends on 'g9', which is no sub-goal"]


@pytest.mark.parametrize(
    "steps",
    [
        [step("g1", after=("g1",))],
        [step("g1", after=("g2",)), step("g2", after=("g1",))],
        [step("g0"), step("g1", after=("g3",)), step("g2", after=("g1", "g0")), step("g3", after=("g2",))],
    ],
)
def test_a_cycle_is_shown_as_a_way_round(steps: list[dict[str, Any]]) -> None:
    (found,) = problems(plan(*steps))
    assert found.startswith("the dependencies form a cycle: ")
    way = found.split(": ")[1].split(" -> ")
    assert way[0] == way[-1] and "g0" not in way
    with pytest.raises(CycleError):
        order(steps)


def test_calls_in_the_plans_order_have_no_problems() -> None:
    assert execution_problems(CHAIN, ["find", "read", "read", "write"]) == []
    assert execution_problems(CHAIN, []) == []


def test_a_call_before_what_it_depends_on_is_named() -> None:
    assert execution_problems(CHAIN, ["read", "find", "read", "write"]) == ["read (g2) was called before g1 was reached"]
    assert execution_problems(CHAIN, ["find", "read", "write", "read"]) == ["write (g3) was called before g2 was reached"]
    assert len(execution_problems(CHAIN, ["write", "read", "read", "find"])) == 3


def test_a_call_that_no_subgoal_expects_is_free() -> None:
    assert execution_problems(CHAIN, ["check", "find", "find", "read", "check", "read", "write", "write", "read"]) == []


def test_subgoals_that_do_not_depend_on_each_other_may_come_in_any_order() -> None:
    both = plan(step("g1", "a"), step("g2", "b", after=("g1",)), step("g3", "c", after=("g1",)), step("g4", "d", after=("g2", "g3")))
    assert execution_problems(both, ["a", "c", "b", "d"]) == []
    assert execution_problems(both, ["a", "b", "d", "c"]) == ["d (g4) was called before g3 was reached"]


def test_a_tool_of_two_subgoals_counts_for_the_first_that_still_expects_it() -> None:
    twice = plan(step("g1", "read"), step("g2", "write", after=("g1",)), step("g3", "read", after=("g2",)))
    assert execution_problems(twice, ["read", "write", "read"]) == []
    assert execution_problems(twice, ["read", "read", "write"]) == ["read (g3) was called before g2 was reached"]


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 7))
    steps = []
    for number in range(count):
        after = draw(st.lists(st.integers(0, number - 1), unique=True, max_size=3)) if number else []
        tools = [f"tool_{number}_{part}" for part in range(draw(st.integers(0, 3)))]
        steps.append(step(f"g{number}", *tools, after=tuple(f"g{one}" for one in after)))
    return plan(*draw(st.permutations(steps)))


@given(plans(), st.integers(0, 1000))
@settings(max_examples=100)
def test_every_order_that_respects_the_dependencies_is_followed_and_its_reverse_is_not(made: dict[str, Any], seed: int) -> None:
    assert problems(made) == []
    by_id = {one["id"]: one for one in made["subgoals"]}
    left, calls = dict(by_id), []
    dice = random.Random(seed)
    while left:
        free = [one for one in left.values() if not set(one["depends_on"]) & set(left)]
        chosen = dice.choice(free)
        calls += chosen["tools"]
        del left[chosen["id"]]
    assert execution_problems(made, calls) == []
    direct = [one for one in made["subgoals"] if one["tools"] and any(by_id[before]["tools"] for before in one["depends_on"])]
    assert bool(execution_problems(made, calls[::-1])) == bool(direct)
