"""How far a critic agrees with the rules."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracemill.constitution.agreement import Agreement, Confusion
from tracemill.trace import Verdict


def verdict(by: Literal["rule", "critic"], *, passed: bool, principle: str = "no_loops", at: int | None = None) -> Verdict:
    return Verdict(principle=principle, passed=passed, by=by, severity="low", at=at)


def judged(rule: bool, critic: bool, principle: str = "no_loops") -> list[Verdict]:
    return [verdict("rule", passed=rule, principle=principle), verdict("critic", passed=critic, principle=principle)]


def test_each_trace_counts_once_for_a_principle_however_many_findings_there_are() -> None:
    agreement = Agreement()
    agreement.add([verdict("rule", passed=False, at=2), verdict("rule", passed=False, at=4), verdict("critic", passed=False, at=4)])
    agreement.add([verdict("rule", passed=False, at=2), verdict("critic", passed=True), verdict("rule", passed=True)])
    agreement.add([verdict("rule", passed=True), verdict("critic", passed=False, at=2), verdict("critic", passed=False, at=6)])
    agreement.add(judged(True, True))
    assert agreement.principles == {"no_loops": Confusion(both=1, critic_only=1, rule_only=1, neither=1)}
    assert (agreement.overall.judged, agreement.overall.disagreements) == (4, 2)


def test_what_only_one_of_them_judged_is_passed_over() -> None:
    agreement = Agreement()
    agreement.add([verdict("rule", passed=False), verdict("critic", passed=False, principle="be_kind")])
    agreement.add([verdict("rule", passed=False)])
    agreement.add([])
    assert agreement.principles == {}


def test_principles_are_counted_apart_and_taken_together() -> None:
    agreement = Agreement()
    agreement.add([*judged(False, False, "no_loops"), *judged(True, False, "least_privilege")])
    assert agreement.principles["no_loops"] == Confusion(both=1)
    assert agreement.principles["least_privilege"] == Confusion(critic_only=1)
    assert agreement.overall == Confusion(both=1, critic_only=1)


def test_precision_and_recall_take_the_rule_for_the_truth() -> None:
    counts = Confusion(both=6, critic_only=2, rule_only=4, neither=8)
    assert counts.precision == 6 / 8
    assert counts.recall == 6 / 10


@pytest.mark.parametrize(
    ("counts", "kappa"),
    [
        # observed 35/50, expected (25·30 + 25·20)/50² = 1/2
        (Confusion(both=20, critic_only=5, rule_only=10, neither=15), 0.4),
        # observed 3/5 in both, expected 0.54 and 0.46: the same agreement, worth more where it was less likely
        (Confusion(both=45, critic_only=15, rule_only=25, neither=15), 0.06 / 0.46),
        (Confusion(both=25, critic_only=35, rule_only=5, neither=35), 0.14 / 0.54),
        # observed 1/2, expected 1/2
        (Confusion(both=1, critic_only=1, rule_only=1, neither=1), 0.0),
        # observed 0, expected 1/2
        (Confusion(critic_only=3, rule_only=3), -1.0),
        # the critic always passes: observed 9/10, expected 9/10
        (Confusion(rule_only=1, neither=9), 0.0),
    ],
)
def test_kappa_is_as_computed_by_hand(counts: Confusion, kappa: float) -> None:
    assert counts.kappa == pytest.approx(kappa, abs=1e-12)


def test_what_is_not_defined_is_none() -> None:
    assert (Confusion().precision, Confusion().recall, Confusion().kappa) == (None, None, None)
    assert Confusion(neither=5).kappa is None and Confusion(both=5).kappa is None
    assert Confusion(rule_only=1).precision is None
    assert Confusion(critic_only=1).recall is None


def test_the_plain_form_is_json_with_principles_by_name() -> None:
    agreement = Agreement(unreadable=2)
    agreement.add([*judged(False, False, "b"), *judged(True, False, "a")])
    plain = json.loads(json.dumps(agreement.plain()))
    assert plain["unreadable"] == 2
    assert list(plain["principles"]) == ["a", "b"]
    assert plain["principles"]["a"] == {
        "judged": 1, "disagreements": 1, "both_failed": 0, "critic_only": 1, "rule_only": 0, "both_passed": 0,
        "precision": 0.0, "recall": None, "kappa": 0.0,
    }  # fmt: skip
    assert plain["overall"]["precision"] == 0.5


# --- whatever they said -------------------------------------------------------------------------------------

counts_ = st.integers(0, 10**6)
confusions = st.builds(Confusion, counts_, counts_, counts_, counts_)
Said = list[tuple[str, bool, bool]]
said = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.booleans(), st.booleans()), max_size=12)


def counted(verdicts: Said) -> Agreement:
    agreement = Agreement()
    for principle, rule, critic in verdicts:
        agreement.add(judged(rule, critic, principle))
    return agreement


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_full_agreement_has_kappa_one_and_full_disagreement_none_above_zero(some: int, others: int) -> None:
    assert Confusion(both=some, neither=others).kappa == 1
    opposed = Confusion(critic_only=some, rule_only=others).kappa
    assert opposed is not None and -1 <= opposed < 0


@given(confusions)
def test_kappa_does_not_mind_who_is_who_or_which_label_is_which(counts: Confusion) -> None:
    raters = Confusion(counts.both, counts.rule_only, counts.critic_only, counts.neither)
    labels = Confusion(counts.neither, counts.rule_only, counts.critic_only, counts.both)
    assert counts.kappa == raters.kappa == labels.kappa
    assert counts.kappa is None or -1 <= counts.kappa <= 1


@given(confusions)
def test_kappa_is_the_observed_beyond_the_expected_agreement(counts: Confusion) -> None:
    total = counts.judged
    if counts.kappa is None:
        assert total == 0 or total in (counts.both, counts.neither)
        return
    critic, rule = (counts.both + counts.critic_only) / total, (counts.both + counts.rule_only) / total
    observed, expected = (counts.both + counts.neither) / total, critic * rule + (1 - critic) * (1 - rule)
    if expected < 0.999:
        assert counts.kappa == pytest.approx((observed - expected) / (1 - expected), abs=1e-9)


@given(said, said)
def test_two_that_are_merged_are_as_one_that_saw_all(first: Said, second: Said) -> None:
    whole, part, rest = counted(first + second), counted(first), counted(second)
    whole.unreadable, part.unreadable, rest.unreadable = 5, 2, 3
    before = rest.plain()
    part.merge(rest)
    assert part.plain() == whole.plain()
    assert rest.plain() == before
