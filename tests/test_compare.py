"""Two policies side by side: what is paired, the intervals, McNemar's test, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
import pytest

from tracemill.errors import DatasetError
from tracemill.generators.scenario import Mix, scenario
from tracemill.trace import AssistantMessage, Outcome, SystemMessage, Usage, UserMessage, Verdict
from tracemill.train.evaluate.compare import Comparison, compare, mcnemar
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.interval import bootstrap

DRAWN = scenario(0, 0, Mix())
GOOD = Outcome(state=True, untouched=True, allowed=True, grounded=True, confirmed=True, told=True)
BAD = GOOD.model_copy(update={"state": False})
TALK = (SystemMessage(content="You help."), UserMessage(content="Please."), AssistantMessage(content="Done."))


def episode(number: int, success: bool, *, sample: int = 0, arm: str = "seeds", mode: str = "", **of: Any) -> Episode:
    this = DRAWN.model_copy(update={"index": number})
    plain: dict[str, Any] = {"messages": TALK, "stop": "done", "outcome": GOOD if success else BAD}
    return Episode.model_construct(**{**plain, **of}, index=0, arm=arm, mode=mode, number=number, sample=sample, scenario=this)


def played(rates: Sequence[Sequence[bool]], **of: Any) -> list[Episode]:
    """Each scenario with its rollouts."""
    return [episode(number, one, sample=sample, **of) for number, came in enumerate(rates) for sample, one in enumerate(came)]


# --- McNemar's test -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"), [(6, 16, 0.0525), (1, 8, 0.0391), (0, 5, 0.0625), (0, 6, 0.03125), (7, 7, 1.0), (0, 0, 1.0)]
)
def test_known_p_values_come_out(only_a: int, only_b: int, p: float) -> None:
    """6 against 16 is the worked example of the encyclopedias (exact p 0.053); the others follow by hand."""
    assert mcnemar(only_a, only_b) == pytest.approx(p, abs=5e-5)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


def test_the_p_value_is_the_chance_of_what_is_at_most_as_likely_under_a_fair_coin() -> None:
    for n in range(1, 25):
        chances = [Fraction(comb(n, one), 2**n) for one in range(n + 1)]
        for one in range(n + 1):
            assert mcnemar(one, n - one) == pytest.approx(float(sum(other for other in chances if other <= chances[one])))


def test_thousands_of_scenarios_do_not_overflow() -> None:
    assert 0 < mcnemar(2400, 2600) < 0.01


def test_policies_that_are_alike_differ_significantly_in_at_most_5_of_100_comparisons() -> None:
    """Four rollouts of each of 60 scenarios, whose rates differ widely: episode by episode it would be many more."""
    rng = np.random.default_rng(3)
    by_scenario = by_episode = 0
    for _ in range(400):
        rates = rng.beta(0.4, 0.4, (60, 2)) > 0.5  # each policy can do some scenarios and not others
        a, b = (np.repeat(side[:, None], 4, axis=1) ^ (rng.random((60, 4)) < 0.05) for side in rates.T)
        solved_a, solved_b = a.mean(1) > 0.5, b.mean(1) > 0.5
        by_scenario += mcnemar(int((solved_a & ~solved_b).sum()), int((~solved_a & solved_b).sum())) < 0.05
        by_episode += mcnemar(int((a & ~b).sum()), int((~a & b).sum())) < 0.05
    assert by_scenario / 400 <= 0.05 < 0.15 < by_episode / 400


def test_the_table_counts_scenarios_by_the_majority_of_their_rollouts() -> None:
    a = played([[True, True, False], [True, True, True], [False, False, True], [False, False, False], [True, False, True]])
    b = played([[True, True, True], [False, True, False], [True, True, False], [False, True, False], [True, True, True]])
    test = compare(a, b).overall.mcnemar
    assert (test.both, test.only_a, test.only_b, test.neither, test.p) == (2, 1, 1, 1, 1.0)


def test_a_policy_against_itself_with_other_numbers_of_rollouts_is_told_apart_in_at_most_5_of_100() -> None:
    """Of two rollouts both have to succeed, of one just that one: the same policy would solve 25% and 50%."""
    rng = np.random.default_rng(5)
    told = 0
    for _ in range(60):
        a, b = (played((rng.random((60, samples)) < 0.5).tolist()) for samples in (2, 1))
        found = compare(a, b)
        told += found.overall.mcnemar.p < 0.05
        assert found.notes and "different numbers of rollouts" in found.lines()[-1]
    assert told / 60 <= 0.05


def test_the_first_rollouts_are_tested_whatever_their_order() -> None:
    a, b = played([[True, False, False, False]]), played([[True]])
    assert compare(a[::-1], b).overall.mcnemar.both == compare(a, b).overall.mcnemar.both == 1
    assert compare(a, b).overall.success.difference == 0.75, "all rollouts count in the rates"
    assert compare(b, b).notes == []


def test_half_of_the_rollouts_is_no_majority() -> None:
    test = compare(played([[True, False]]), played([[True, True]])).overall.mcnemar
    assert (test.only_b, test.both) == (1, 0)


# --- differences --------------------------------------------------------------------------------------------


def test_a_difference_is_that_of_the_scenarios_rates() -> None:
    a = played([[True, False], [False, False], [True, True]])
    b = played([[True, True], [True, False], [False, True]])
    found = compare(a, b).overall.success
    assert (found.a, found.n) == (0.5, 3) and [found.b, found.difference] == pytest.approx([2 / 3, 1 / 6])
    assert found.low == -0.5 and found.high == 0.5


def test_the_number_of_rollouts_may_differ_and_a_scenario_counts_once() -> None:
    found = compare(played([[True] * 8, [False]]), played([[True], [True] * 5])).overall.success
    assert (found.a, found.b) == (0.5, 1.0)


def test_pairing_makes_the_interval_narrower_than_two_separate_ones() -> None:
    hard = [[number % 2 == 0] for number in range(60)]
    better = [[one or number in (1, 3, 5)] for number, (one,) in enumerate(hard)]
    found = compare(played(hard), played(better)).overall.success
    assert found.difference == pytest.approx(0.05) and found.high - found.low < 0.12


def test_the_interval_is_that_of_the_differences_whatever_the_scenarios_have_in_common() -> None:
    a, b = [[True, False], [False, False], [True, True], [True, True]], [[True, True], [True, False], [False, True], [True, True]]
    found = compare(played(a), played(b)).overall.success
    assert (found.low, found.high) == bootstrap([0.5, 0.5, -0.5, 0.0])


def test_the_interval_holds_the_true_difference_in_95_of_100_comparisons() -> None:
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(300):
        easy = rng.beta(1, 1, (50, 1))  # B does 0.2 of what A does not: a mean difference of 0.1
        a, b = rng.random((50, 3)) < easy, rng.random((50, 3)) < easy + 0.2 * (1 - easy)
        low, high = bootstrap((b.mean(1) - a.mean(1)).tolist())
        hits += low <= 0.1 <= high
    assert 0.92 <= hits / 300 <= 0.98


def test_tokens_turns_calls_violations_and_recovery_are_compared() -> None:
    def costing(tokens: int, broken: int) -> dict[str, Any]:
        verdict = Verdict(principle="no_loops", passed=False, by="rule", severity="low")
        return {"usage": Usage(prompt_tokens=tokens, completion_tokens=10), "verdicts": (verdict,) * broken}

    same = Usage(prompt_tokens=50)

    unusable = (*TALK[:2], AssistantMessage(content="{", train=False), UserMessage(content="[runtime] again"), TALK[2])
    a = [episode(0, True, **costing(100, 1)), episode(1, False, **costing(200, 1)), episode(2, True, messages=unusable, usage=same)]
    b = [episode(0, True, **costing(80, 0)), episode(1, False, **costing(120, 1)), episode(2, False, messages=unusable, usage=same)]
    found = compare(a, b).overall.measures
    assert {name: (round(one.difference, 3), one.n) for name, one in found.items()} == {
        "tokens": (round(-100 / 3, 3), 3), "turns": (0, 3), "calls": (0, 3), "violated": (round(-1 / 3, 3), 3), "recovered": (-1, 1),
    }  # fmt: skip
    assert found["tokens"].low == -80 and found["tokens"].high == 0


def test_reasoning_is_not_counted_where_one_side_never_has_any() -> None:
    mute = Verdict(principle="transparent_reasoning", passed=False, by="rule", severity="low", at=2, why="it does not say why")
    other = mute.model_copy(update={"principle": "no_loops"})
    thought = (*TALK[:2], AssistantMessage(content="Done.", reasoning_content="This was asked for."))
    silent = [episode(number, True, verdicts=(mute, mute, mute)) for number in range(3)]
    reasoning = [episode(number, True, verdicts=(other,), messages=thought) for number in range(3)]
    found = compare(silent, reasoning)
    assert (found.overall.measures["violated"].a, found.overall.measures["violated"].b) == (0, 1)
    assert found.notes == ["A gives no reasoning in any episode: transparent reasoning is left out of the violations of both."]
    once = compare([*silent, episode(3, True, verdicts=(mute,), messages=thought)], [*reasoning, episode(3, True)])
    assert once.overall.measures["violated"].a == 2.5 and once.notes == []


def test_what_went_wrong_on_one_side_only_is_no_pair_of_recoveries() -> None:
    unusable = (*TALK[:2], AssistantMessage(content="{", train=False), UserMessage(content="[runtime] again"), TALK[2])
    found = compare([episode(0, True)], [episode(0, True, messages=unusable)]).overall.measures
    assert "recovered" not in found and found["turns"].difference == 1


# --- pairing ------------------------------------------------------------------------------------------------


def several(numbers: Sequence[int], success: bool, arm: str = "seeds", mode: str = "") -> list[Episode]:
    return [episode(number, success, arm=arm, mode=mode) for number in numbers]


def test_what_one_side_alone_has_is_left_out_and_reported() -> None:
    found = compare(several(range(6), True), several(range(2, 12), False))
    assert (found.overall.success.n, found.only_a, found.only_b) == (4, 2, 6)
    assert "2 scenarios of A, 6 of B" in found.lines()[-1]


def test_every_arm_has_a_comparison_of_its_own() -> None:
    a = several(range(3), True) + several(range(2), False, "templates") + several(range(2), True, "injection")
    b = several(range(3), False) + several(range(2), True, "templates")
    found = compare(a, b)
    assert {arm: (part.success.n, part.success.difference) for arm, part in found.arms.items()} == {"seeds": (3, -1), "templates": (2, 1)}
    assert found.arms["seeds"].mcnemar.only_a == 3 and found.arms["templates"].mcnemar.only_b == 2
    assert found.overall.success.n == 5 and found.only_a == 2 and found.modes == {}


def test_a_scenario_in_several_modes_is_one_scenario() -> None:
    a = several(range(4), False, mode="fast") + several(range(4), True, mode="thorough")
    b = several(range(4), True, mode="fast") + several(range(4), True, mode="thorough")
    found = compare(a, b)
    assert (found.overall.success.n, found.overall.success.difference) == (4, 0.5)
    assert {mode: (part.success.n, part.success.difference) for mode, part in found.modes.items()} == {"fast": (4, 1), "thorough": (4, 0)}


def test_a_policy_against_itself_shows_no_difference() -> None:
    rates = [[True, False], [True, True], [False, False]]
    found = compare(played(rates), played(rates)).overall
    assert (found.success.difference, found.success.low, found.success.high, found.mcnemar.p) == (0, 0, 0, 1)


def test_the_order_of_the_episodes_does_not_matter() -> None:
    a, b = played([[True, False], [False, True], [True, True]]), played([[True, True], [False, True], [False, True]])
    assert compare(a, b) == compare(a[::-1], b[::-1])


def test_different_scenarios_under_one_key_are_refused_all_at_once() -> None:
    other = [
        one.model_copy(update={"scenario": one.scenario.model_copy(update={"world": 99})}) for one in several((1, 3), True, mode="fast")
    ]
    with pytest.raises(DatasetError, match="same suite") as caught:
        compare(several(range(4), True, mode="fast"), [*several((0, 2), True, mode="fast"), *other])
    assert caught.value.problems == ("seeds 1 (fast)", "seeds 3 (fast)")


def test_of_many_scenarios_that_differ_five_are_named() -> None:
    other = [one.model_copy(update={"scenario": one.scenario.model_copy(update={"world": 99})}) for one in several(range(60), True)]
    with pytest.raises(DatasetError, match="the same suite, seed, holdout, --data and version") as caught:
        compare(several(range(60), True), other)
    assert caught.value.problems == (*(f"seeds {number}" for number in range(5)), "and 55 more")


def test_arms_and_modes_come_in_the_order_of_the_suite_in_whatever_order_they_arrived() -> None:
    made = [
        one for mode in ("thorough", "fast", "balanced") for arm in ("worst_moment", "templates", "injection", "seeds")
        for one in several(range(2), True, arm, mode)
    ]  # fmt: skip
    found = compare(made, made)
    assert list(found.arms) == ["seeds", "templates", "injection", "worst_moment"] and list(found.modes) == ["fast", "balanced", "thorough"]


def test_a_rollout_that_comes_twice_is_refused() -> None:
    with pytest.raises(DatasetError, match="B has rollouts twice") as caught:
        compare(several(range(2), True), several((0, 1, 1), True))
    assert caught.value.problems == ("seeds 1, sample 0",)


def test_two_evaluations_with_nothing_in_common_are_refused() -> None:
    with pytest.raises(DatasetError, match="no scenario in common") as caught:
        compare(several(range(2), True, mode="fast"), several(range(3), True, arm="templates"))
    assert caught.value.problems == ("A has 2 scenarios of seeds (fast)", "B has 3 scenarios of templates")
    with pytest.raises(DatasetError, match="no scenario in common"):
        compare([], [])


# --- told ---------------------------------------------------------------------------------------------------


@pytest.fixture
def told() -> Comparison:
    return compare(played([[True], [False], [True]]), played([[True], [True], [True]]))


def test_a_comparison_is_json(told: Comparison) -> None:
    plain = told.plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["overall"]["mcnemar"] == {"both": 2, "only_a": 0, "only_b": 1, "neither": 0, "p": 1.0}


def test_its_lines_tell_both_sides_the_difference_and_the_test(told: Comparison) -> None:
    lines = told.lines()
    assert lines[0] == "all: 3 scenarios" and "seeds: 3 scenarios" in lines
    assert lines[1] == "  success    0.667 -> 1.000, +0.333 [+0.000, +1.000]"
    assert lines[2] == "  solved by both 2, only A 0, only B 1, neither 0; McNemar p = 1"
