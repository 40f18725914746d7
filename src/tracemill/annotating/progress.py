"""How far people have come, how far they agree with each other, and how often they agree with the run's own labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tracemill.annotating.alpha import nominal_alpha
from tracemill.annotating.pairs import Pair, Pairs
from tracemill.annotating.store import Choice, Judgement

Outcome = Literal["chosen", "rejected", "tie", "split"]


@dataclass(frozen=True, slots=True)
class Votes:
    """What people said of one pair; skips are no votes."""

    pair: Pair
    judgements: tuple[Judgement, ...]

    @property
    def counts(self) -> Counter[Choice]:
        return Counter(one.choice for one in self.judgements if one.choice != "skip")

    @property
    def outcome(self) -> Outcome | None:
        """What more people said than said any other thing: the run's chosen, its rejected, or a tie; split where none has most.
        None without a vote."""
        ranked = self.counts.most_common(2)
        if not ranked:
            return None
        if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
            return "split"
        best = ranked[0][0]
        return "tie" if best == "tie" else "chosen" if best == self.pair.chosen else "rejected"

    @property
    def margin(self) -> float:
        """By how much one candidate is better: the difference of the shares of votes that each has, ties counted as votes for
        neither. From 0 to 1."""
        counts = self.counts
        return abs(counts["first"] - counts["second"]) / counts.total() if counts else 0.0


@dataclass
class Person:
    """What one annotator did."""

    presses: Counter[str] = field(default_factory=Counter)
    with_run: int = 0
    """Judgements for the one that the run holds for better."""

    @property
    def sided(self) -> int:
        return self.presses["left"] + self.presses["right"]


@dataclass
class Report:
    """All figures, over the pairs that the run holds now."""

    pairs: int
    votes: list[Votes]
    people: dict[str, Person]
    gone: int
    """Judgements of pairs that the run holds no longer."""

    @property
    def alpha(self) -> float | None:
        """Krippendorff's, nominal, over first, second and tie. Which candidate is first is random: what the run thinks of them has
        no part in what agreement by chance would be."""
        return nominal_alpha([one.choice for one in votes.judgements if one.choice != "skip"] for votes in self.votes)

    @property
    def compared(self) -> int:
        """Pairs with at least two votes: those on which agreement is measured."""
        return sum(votes.counts.total() > 1 for votes in self.votes)

    @property
    def outcomes(self) -> Counter[Outcome]:
        return Counter(votes.outcome for votes in self.votes if votes.outcome)

    def depth(self) -> Counter[int]:
        """How many pairs have how many votes."""
        found = Counter(votes.counts.total() for votes in self.votes)
        found[0] += self.pairs - len(self.votes)
        return found

    def sources(self) -> dict[str, Counter[Outcome]]:
        """Outcomes by where the pair came from."""
        found: dict[str, Counter[Outcome]] = {}
        for votes in self.votes:
            if votes.outcome:
                found.setdefault(votes.pair.source, Counter())[votes.outcome] += 1
        return dict(sorted(found.items()))


def measure(pairs: Pairs, judgements: Iterable[Judgement]) -> Report:
    by_pair: dict[str, list[Judgement]] = {}
    people: dict[str, Person] = {}
    gone = 0
    for one in judgements:
        if one.pair not in pairs.keys:
            gone += 1
            continue
        by_pair.setdefault(one.pair, []).append(one)
        person = people.setdefault(one.annotator, Person())
        person.presses[one.press] += 1
        person.with_run += one.choice == pairs[one.pair].chosen
    votes = [Votes(pairs[key], tuple(some)) for key, some in by_pair.items()]
    return Report(len(pairs.keys), votes, dict(sorted(people.items())), gone)


def share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def agreement(report: Report) -> str:
    """Alpha in a sentence."""
    if not report.compared:
        return "no pair has two judgements yet, so agreement cannot be measured"
    if report.alpha is None:
        return f"not defined: all judgements of the {report.compared:,} pairs with two or more are the same"
    return f"{report.alpha:.3f} over {report.compared:,} pairs with two or more judgements"


def print_progress(report: Report, *, left: Mapping[str, int]) -> None:
    """`left`: how many pairs are left for each person."""
    console = Console(highlight=False)
    depth = report.depth()
    console.print(
        Text(f"{report.pairs:,} pairs: " + ", ".join(f"{depth[votes]:,} with {_votes(votes)}" for votes in sorted(depth) if depth[votes]))
    )
    console.print(_people(report, left))
    console.print(Text.assemble(("Agreement ", "bold"), "of people, Krippendorff's alpha: ", agreement(report), "."), soft_wrap=True)
    decided = report.outcomes["chosen"] + report.outcomes["rejected"]
    console.print(
        Text.assemble(
            ("With the run ", "bold"), f"{share(report.outcomes['chosen'], decided)} of {decided:,} decided pairs; "
            f"{report.outcomes['tie']:,} ties, {report.outcomes['split']:,} split.",
        ),
        soft_wrap=True,
    )  # fmt: skip
    if report.outcomes:
        console.print(_sources(report))
    if report.gone:
        console.print(
            Text(f"{report.gone:,} judgements are of pairs that the run holds no longer; they are kept, and not counted."), soft_wrap=True
        )


def _votes(number: int) -> str:
    return "no judgement" if number == 0 else "1 judgement" if number == 1 else f"{number} judgements"


def _people(report: Report, left: Mapping[str, int]) -> Table:
    table = _table("annotator", "judged", "ties", "skipped", "to do", "left side", "with the run")
    for name, person in report.people.items():
        judged = person.sided + person.presses["tie"]
        sides = (share(person.presses["left"], person.sided), share(person.with_run, person.sided))
        table.add_row(
            Text(name), *(f"{number:,}" for number in (judged, person.presses["tie"], person.presses["skip"], left[name])), *sides
        )
    return table


def _sources(report: Report) -> Table:
    table = _table("source", "with the run", "against", "tie", "split")
    for source, outcomes in report.sources().items():
        table.add_row(Text(source), *(f"{outcomes[one]:,}" for one in ("chosen", "rejected", "tie", "split")))
    return table


def _table(first: str, *heads: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, overflow="fold")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table
