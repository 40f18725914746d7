"""Success, pass@k and pass^k, and the intervals around them."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracemill.errors import DatasetError
from tracemill.generators.scenario import Mix, scenario
from tracemill.trace import Outcome
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.interval import Estimate, bootstrap, estimate, rate, wilson
from tracemill.train.evaluate.task import pass_at_k, pass_hat_k, passes, task_summary

ROOT = Path(__file__).resolve().parents[1]
AIRLINE = next((path for base in (ROOT, ROOT.parent) if (path := base / "shared/data/tau-bench-airline-gpt-4o.json").is_file()), None)
DRAWN = scenario(0, 0, Mix())
GOOD = Outcome(state=True, untouched=True, allowed=True, grounded=True, confirmed=True, told=True)


def episode(
    number: int, sample: int = 0, *, arm: str = "seeds", mode: str = "", outcome: Outcome | None = GOOD, stop: Any = "done"
) -> Episode:
    return Episode(index=0, arm=arm, mode=mode, number=number, sample=sample, scenario=DRAWN, stop=stop, outcome=outcome)


def bad(check: str) -> Outcome:
    return GOOD.model_copy(update={check: False})


# --- the estimators -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_both_estimators_are_the_share_among_all_choices_of_k_rollouts(n: int) -> None:
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        chosen = list(itertools.combinations([one < c for one in range(n)], k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(any(one) for one in chosen) / len(chosen))
        assert pass_hat_k(n, c, k) == pytest.approx(sum(all(one) for one in chosen) / len(chosen))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 1, 0), (3, 4, 1), (3, -1, 1)])
def test_what_cannot_be_estimated_is_refused(n: int, c: int, k: int) -> None:
    for chance in (pass_at_k, pass_hat_k):
        with pytest.raises(DatasetError, match=f"n={n} rollouts, c={c} successes, k={k}"):
            chance(n, c, k)


@pytest.mark.skipif(AIRLINE is None, reason="shared/data/tau-bench-airline-gpt-4o.json is not here")
def test_the_published_numbers_of_gpt_4o_on_tau_bench_airline_come_out() -> None:
    assert AIRLINE is not None
    trials: dict[int, list[bool]] = defaultdict(list)
    for one in json.loads(AIRLINE.read_text(encoding="utf-8")):
        trials[one["task_id"]].append(abs(one["reward"] - 1) <= 1e-6)
    assert len(trials) == 50 and {len(came) for came in trials.values()} == {4}
    at, hat = passes([(task, len(came), sum(came)) for task, came in trials.items()])
    assert [f"{hat[k].value:.3f}" for k in (1, 2, 3, 4)] == ["0.420", "0.273", "0.220", "0.200"]
    assert at[1].value == pytest.approx(0.42) and at[4].value == sum(any(came) for came in trials.values()) / 50
    assert hat[1].low < 0.35 and hat[1].high > 0.49, "over 50 tasks, not over 200 conversations"


# --- intervals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("c", "n", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
)
def test_wilson_gives_what_newcombe_printed(c: int, n: int, low: float, high: float) -> None:
    """The four examples of R. G. Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I."""
    assert wilson(c, n) == pytest.approx((low, high), abs=6e-5)
    assert wilson(n - c, n) == pytest.approx((1 - high, 1 - low), abs=6e-5)


def test_one_rollout_of_each_scenario_gets_wilsons_interval() -> None:
    found = rate((number, number < 7) for number in range(10))
    assert found == Estimate(0.7, *wilson(7, 10), 10)


def test_a_perfect_score_is_not_certain() -> None:
    found = rate((number, True) for number in range(8) for _ in range(4))
    assert found is not None and found.high == 1 and found.low == pytest.approx(0.6756, abs=1e-4)


def test_a_scenario_counts_once_however_often_it_was_played() -> None:
    found = rate([("a", 1.0)] * 30 + [("b", 0.0), ("c", 0.5)])
    assert found is not None and (found.value, found.n) == (0.5, 3)


def test_more_rollouts_of_the_same_scenarios_do_not_narrow_the_interval() -> None:
    rates = [0.0, 0.25, 0.5, 0.5, 0.75, 1.0, 1.0, 0.25]
    few, many = (rate((at, chance) for at, chance in enumerate(rates) for _ in range(times)) for times in (1, 50))
    assert few == many


def test_the_interval_does_not_depend_on_the_order_and_comes_out_the_same_again() -> None:
    values = np.random.default_rng(2).random(30).tolist()
    assert bootstrap(values) == bootstrap(values[::-1]) == bootstrap(values)


def test_drawing_in_blocks_gives_the_interval_of_theory() -> None:
    values = np.random.default_rng(1).normal(10, 2, 3000)
    low, high = bootstrap(values.tolist())
    half = 1.96 * values.std() / 3000**0.5
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


@pytest.mark.parametrize("values", [[1.0] * 20, [0.0] * 20, [0.0, 1.0, 1.0, 0.0, 1.0]])
def test_counts_that_happen_to_be_0_and_1_are_no_shares(values: list[float]) -> None:
    found = estimate(enumerate(values))
    assert found is not None and (found.low, found.high) == bootstrap(values) != wilson(int(sum(values)), len(values))


def test_nothing_has_no_estimate() -> None:
    assert estimate([]) is None and rate([]) is None


def covered(rollouts: int, *, cluster: bool) -> float:
    """How often the interval holds the true rate, 1/2, in 300 evaluations of 40 scenarios whose own rates differ widely."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(300):
        rates = rng.beta(0.6, 0.6, 40)
        came = rng.random((40, rollouts)) < rates[:, None]
        found = rate(((at if cluster else (at, number)), bool(one)) for at, row in enumerate(came) for number, one in enumerate(row))
        assert found is not None
        hits += found.low <= 0.5 <= found.high
    return hits / 300


def test_intervals_over_scenarios_hold_the_truth_in_95_of_100_evaluations() -> None:
    assert 0.91 <= covered(4, cluster=True) <= 0.98
    assert 0.91 <= covered(1, cluster=True) <= 0.98


def test_intervals_over_rollouts_would_not() -> None:
    assert covered(4, cluster=False) < 0.88


# --- the summary --------------------------------------------------------------------------------------------


def test_a_summary_counts_checks_stops_and_scenarios() -> None:
    episodes = [
        episode(0), episode(0, 1),
        episode(1, outcome=bad("told")), episode(1, 1),
        episode(2, outcome=bad("state"), stop="budget"), episode(2, 1, outcome=None, stop="too_long"),
        episode(0, arm="templates"), episode(0, 1, arm="templates", stop="budget"),
    ]  # fmt: skip
    found = task_summary(episodes)
    assert (found.episodes, found.scenarios, found.success.value) == (8, 4, 0.5)
    assert {k: one.value for k, one in found.pass_at.items()} == {1: 0.5, 2: 0.75}
    assert {k: one.value for k, one in found.pass_hat.items()} == {1: 0.5, 2: 0.25}
    checks = {name: one.value for name, one in found.checks.items() if one}
    assert checks == {"state": 0.75, "untouched": 1, "allowed": 1, "grounded": 1, "confirmed": 1, "told": 0.875}
    assert list(found.stops.items()) == [("done", 5), ("budget", 2), ("too_long", 1)]


def test_pass_hat_k_is_of_the_scenarios_that_were_played_k_times() -> None:
    found = task_summary([episode(0), episode(0, 1), episode(1, outcome=bad("state"))])
    assert {k: (one.value, one.n) for k, one in found.pass_hat.items()} == {1: (0.5, 2), 2: (1.0, 1)}


def test_a_scenario_in_several_modes_is_one_scenario_but_its_rollouts_are_counted_apart() -> None:
    def in_modes(modes: Sequence[str]) -> list[Episode]:
        return [episode(n, mode=mode, outcome=GOOD if n % 3 else bad("state")) for n in range(9) for mode in modes]

    one, three = task_summary(in_modes(["fast"])), task_summary(in_modes(["fast", "balanced", "thorough"]))
    assert three.success == one.success and three.scenarios == 9 and three.pass_hat == one.pass_hat


def test_checks_of_episodes_that_have_no_outcome_are_left_open() -> None:
    found = task_summary([episode(0, outcome=None, stop="unusable")])
    assert found.success.value == 0 and set(found.checks.values()) == {None}


def test_a_summary_is_json() -> None:
    plain = task_summary([episode(0), episode(1, outcome=None, stop="budget")]).plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["success"]["value"] == plain["pass_hat"]["1"]["value"] == 0.5


def test_no_episodes_are_refused() -> None:
    with pytest.raises(DatasetError, match="no episodes"):
        task_summary([])
