"""Two policies on the same scenarios, B against A."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from tracemill.errors import DatasetError
from tracemill.trace import Json
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.interval import bootstrap
from tracemill.train.evaluate.process import REASONING, Process, process
from tracemill.train.evaluate.suite import place_of_arm, place_of_mode

Key = tuple[str, str, int]
MEASURES = ("tokens", "turns", "calls", "violated", "recovered")
MOST = 5
"""Scenarios that an error names."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Means over the `n` scenarios that both have a value of, and the mean difference B - A with its 95% interval:
    the percentile bootstrap over scenarios, each with both its values (see interval.bootstrap)."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class McNemar:
    """How many scenarios are solved by both, by one alone, by neither, and the two-sided p-value."""

    both: int
    only_a: int
    only_b: int
    neither: int
    p: float


@dataclass(frozen=True)
class Part:
    """The comparison over some of the scenarios. A scenario counts as solved in McNemar's test if more than half of its
    rollouts succeed: the test wants independent pairs, and rollouts of one scenario are none. Where one side has more
    rollouts of it, only its first are counted there: with other numbers the same policy would solve other shares."""

    success: Paired
    mcnemar: McNemar
    measures: dict[str, Paired]
    """By name of the process measure, where it arose on both sides."""

    def plain(self) -> dict[str, Json]:
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    overall: Part
    arms: dict[str, Part]
    modes: dict[str, Part]
    """Empty where there is but one."""
    only_a: int
    """Scenarios (of an arm, in a mode) that only A has; they are left out, as are those that only B has."""
    only_b: int
    notes: list[str]
    """What to know of the figures, as sentences."""

    def plain(self) -> dict[str, Json]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For the terminal."""
        parts = [("all", self.overall), *self.arms.items(), *((f"mode {name}", part) for name, part in self.modes.items())]
        found = [line for name, part in parts for line in _part_lines(name, part)]
        if self.only_a or self.only_b:
            found.append(f"left out, as the other side has not played them: {self.only_a} scenarios of A, {self.only_b} of B")
        return [*found, *self.notes]


def compare(a: Sequence[Episode], b: Sequence[Episode]) -> Comparison:
    """Paired by scenario (Episode.key). Raises DatasetError where one key stands for different scenarios, where a rollout
    comes twice, or where nothing pairs."""
    first, second = _by_key(a, "A"), _by_key(b, "B")
    shared = [key for key in first if key in second]
    _check(first, second, shared)
    pairs = {key: ([process(one) for one in first[key]], [process(one) for one in second[key]]) for key in shared}
    arms = sorted({arm for _, arm, _ in shared}, key=place_of_arm)
    modes = sorted({mode for mode, _, _ in shared}, key=place_of_mode)
    notes = [*_uneven(pairs)]
    if mute := _mute(pairs):
        pairs = {key: ([one.without(REASONING) for one in a], [one.without(REASONING) for one in b]) for key, (a, b) in pairs.items()}
        notes.append(f"{mute} no reasoning in any episode: transparent reasoning is left out of the violations of both.")
    return Comparison(
        overall=_part(pairs, lambda key: True),
        arms={arm: _part(pairs, lambda key, arm=arm: key[1] == arm) for arm in arms},  # type: ignore[misc]
        modes={mode: _part(pairs, lambda key, mode=mode: key[0] == mode) for mode in modes} if len(modes) > 1 else {},  # type: ignore[misc]
        only_a=len(first) - len(shared),
        only_b=len(second) - len(shared),
        notes=notes,
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value: of the pairs that differ, either side wins with chance 1/2, and the binomial tail of
    the rarer outcome is doubled, at most 1.

    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947), 153-157; exact form: A. Agresti, "Categorical Data Analysis", section 10.1.
    """
    differing = only_a + only_b
    ways = tail = 1  # C(differing, 0), and the sum so far
    for one in range(min(only_a, only_b)):
        ways = ways * (differing - one) // (one + 1)
        tail += ways
    return min(1.0, tail / 2 ** (differing - 1)) if differing else 1.0


# --- pairing ------------------------------------------------------------------------------------------------


def _by_key(episodes: Iterable[Episode], side: str) -> dict[Key, list[Episode]]:
    found: dict[Key, list[Episode]] = {}
    twice: list[str] = []
    for one in episodes:
        of_key = found.setdefault(one.key, [])
        twice += [f"{_named(one.key)}, sample {one.sample}" for other in of_key if other.sample == one.sample]
        of_key.append(one)
    if twice:
        raise DatasetError(
            f"{side} has rollouts twice: expected each sample of a scenario once; give one evaluation's episodes", _first(twice)
        )
    return {key: sorted(of_key, key=lambda one: one.sample) for key, of_key in found.items()}


def _check(first: dict[Key, list[Episode]], second: dict[Key, list[Episode]], shared: Sequence[Key]) -> None:
    if not shared:
        has = [f"{side} has {_arms(of)}" for side, of in (("A", first), ("B", second))]
        raise DatasetError("the two have no scenario in common: evaluate both with the same suite and modes", has)
    differing = [_named(key) for key in shared if any(one.scenario != first[key][0].scenario for one in (*first[key], *second[key]))]
    if differing:
        raise DatasetError(
            "scenarios of the same mode, arm and number differ: evaluate both with the same suite, seed, holdout, --data and version",
            _first(differing),
        )


def _first(found: Sequence[str]) -> list[str]:
    return [*found[:MOST], f"and {len(found) - MOST:,} more"] if len(found) > MOST else list(found)


def _arms(episodes: dict[Key, list[Episode]]) -> str:
    arms = sorted({f"{arm} ({mode})" if mode else arm for mode, arm, _ in episodes})
    return f"{len(episodes)} scenarios of {', '.join(arms)}" if arms else "no episodes"


def _named(key: Key) -> str:
    mode, arm, number = key
    return f"{arm} {number}" + (f" ({mode})" if mode else "")


# --- statistics ---------------------------------------------------------------------------------------------

Sides = tuple[list[Process], list[Process]]


def _part(pairs: dict[Key, Sides], wanted: Callable[[Key], bool]) -> Part:
    """One scenario in several modes stays one scenario: arm and number are what is drawn."""
    of_scenario: dict[Hashable, Sides] = {}
    tested: dict[Hashable, Sides] = {}
    for key, (a, b) in pairs.items():
        if wanted(key):
            even = min(len(a), len(b))
            for found, sides in ((of_scenario, (a, b)), (tested, (a[:even], b[:even]))):
                for all_modes, side in zip(found.setdefault(key[1:], ([], [])), sides, strict=True):
                    all_modes.extend(side)
    scenarios = list(of_scenario.values())
    success = _paired(scenarios, "success")
    assert success is not None
    measures = {name: one for name in MEASURES if (one := _paired(scenarios, name)) is not None}
    return Part(success, _table(tested.values()), measures)


def _mute(pairs: Mapping[Key, Sides]) -> str:
    """Who never reasons and is blamed for it, and so would be compared by that alone."""
    sides = [[one for sides in pairs.values() for one in sides[at]] for at in (0, 1)]
    blamed = any(one.violations.get(REASONING) for side in sides for one in side)
    mute = [name for name, side in zip("AB", sides, strict=True) if not any(one.reasoned for one in side)] if blamed else []
    return f"{' and '.join(mute)} {'give' if len(mute) > 1 else 'gives'}" if mute else ""


def _uneven(pairs: Mapping[Key, Sides]) -> Iterator[str]:
    uneven = sum(len(a) != len(b) for a, b in pairs.values())
    if uneven:
        yield (
            f"In {uneven:,} of the scenarios the sides have different numbers of rollouts: McNemar's test takes the first of both, "
            "as many as the side with fewer has."
        )


def _paired(scenarios: Iterable[Sides], name: str) -> Paired | None:
    both = [(a, b) for sides in scenarios for a, b in [[_mean(side, name) for side in sides]] if a is not None and b is not None]
    if not both:
        return None
    n = len(both)
    low, high = bootstrap([b - a for a, b in both])
    a, b = sum(one for one, _ in both) / n, sum(one for _, one in both) / n
    return Paired(a, b, b - a, low, high, n)


def _mean(processes: Iterable[Process], name: str) -> float | None:
    values = [float(value) for one in processes if (value := getattr(one, name)) is not None]
    return sum(values) / len(values) if values else None


def _table(scenarios: Iterable[Sides]) -> McNemar:
    solved = [tuple(2 * sum(one.success for one in side) > len(side) for side in sides) for sides in scenarios]
    both, only_a, only_b, neither = (solved.count(one) for one in ((True, True), (True, False), (False, True), (False, False)))
    return McNemar(both, only_a, only_b, neither, mcnemar(only_a, only_b))


# --- in words -----------------------------------------------------------------------------------------------


def _part_lines(name: str, part: Part) -> Iterator[str]:
    test = part.mcnemar
    yield f"{name}: {part.success.n} scenarios"
    yield f"  success    {_paired_text(part.success, 3)}"
    yield f"  solved by both {test.both}, only A {test.only_a}, only B {test.only_b}, neither {test.neither}; McNemar p = {test.p:.3g}"
    for measure, one in part.measures.items():
        yield f"  {measure:<10} {_paired_text(one, 3 if measure == 'recovered' else 1)}" + (
            f", {one.n} scenarios" * (one.n < part.success.n)
        )


def _paired_text(one: Paired, digits: int) -> str:
    a, b, *rest = (
        f"{value:{sign}.{digits}f}" for value, sign in ((one.a, ""), (one.b, ""), (one.difference, "+"), (one.low, "+"), (one.high, "+"))
    )
    return f"{a} -> {b}, {rest[0]} [{rest[1]}, {rest[2]}]"
