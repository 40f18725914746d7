"""How far a critic agrees with the rules, on the principles that both have judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tracemill.trace import Json, Verdict


@dataclass(frozen=True, slots=True)
class Confusion:
    """Critic against rule; one count for each trace and principle, whatever the number of findings."""

    both: int = 0
    """Rule and critic found the principle broken."""
    critic_only: int = 0
    rule_only: int = 0
    neither: int = 0

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(
            self.both + other.both,
            self.critic_only + other.critic_only,
            self.rule_only + other.rule_only,
            self.neither + other.neither,
        )

    @property
    def judged(self) -> int:
        return self.both + self.critic_only + self.rule_only + self.neither

    @property
    def disagreements(self) -> int:
        return self.critic_only + self.rule_only

    @property
    def precision(self) -> float | None:
        """Share of the critic's failures that the rule found too; None if the critic failed nothing."""
        return _ratio(self.both, self.both + self.critic_only)

    @property
    def recall(self) -> float | None:
        """Share of the rule's failures that the critic found too; None if the rule failed nothing."""
        return _ratio(self.both, self.both + self.rule_only)

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa: (observed - expected) / (1 - expected), -1 to 1, 0 for an agreement that chance would bring.

        Observed is the share of judgements that agree; expected is the share that would agree if the critic failed
        as many as it did, but at random. None where that is all of them: nothing judged, or both always said the same
        one thing. J. Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement
        20 (1), 1960.
        """
        broken = (self.both + self.critic_only) * (self.both + self.rule_only)
        kept = (self.neither + self.critic_only) * (self.neither + self.rule_only)
        expected = broken + kept  # times judged squared, as all below: whole numbers have no rounding
        return _ratio(self.judged * (self.both + self.neither) - expected, self.judged**2 - expected)

    def plain(self) -> dict[str, Json]:
        """Counts, and shares rounded to six places."""
        counts = {"judged": self.judged, "disagreements": self.disagreements}
        cells = {"both_failed": self.both, "critic_only": self.critic_only, "rule_only": self.rule_only, "both_passed": self.neither}
        shares = {"precision": self.precision, "recall": self.recall, "kappa": self.kappa}
        return {**counts, **cells, **{name: None if share is None else round(share, 6) for name, share in shares.items()}}


@dataclass(slots=True)
class Agreement:
    """Counts over many traces."""

    principles: dict[str, Confusion] = field(default_factory=dict)
    unreadable: int = 0
    """Critiques that could not be read: they judge nothing."""

    @property
    def overall(self) -> Confusion:
        """All principles taken together."""
        return sum(self.principles.values(), Confusion())

    def add(self, verdicts: Iterable[Verdict]) -> None:
        """Take in the verdicts on one trace: what only rules or only the critic judged is passed over."""
        failed: dict[str, dict[str, bool]] = {}
        for one in verdicts:
            by = failed.setdefault(one.principle, {})
            by[one.by] = by.get(one.by, False) or not one.passed
        for principle, by in failed.items():
            if len(by) == 2:
                self._count(principle, _cell(rule=by["rule"], critic=by["critic"]))

    def merge(self, other: Agreement) -> None:
        """Take in what another one has counted on other traces."""
        for principle, counts in other.principles.items():
            self._count(principle, counts)
        self.unreadable += other.unreadable

    def _count(self, principle: str, counts: Confusion) -> None:
        self.principles[principle] = self.principles.get(principle, Confusion()) + counts

    def plain(self) -> dict[str, Json]:
        """As JSON values, principles by name."""
        return {
            "unreadable": self.unreadable,
            "overall": self.overall.plain(),
            "principles": {principle: self.principles[principle].plain() for principle in sorted(self.principles)},
        }


def _cell(*, rule: bool, critic: bool) -> Confusion:
    return Confusion(
        both=int(rule and critic),
        critic_only=int(critic and not rule),
        rule_only=int(rule and not critic),
        neither=int(not rule and not critic),
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
