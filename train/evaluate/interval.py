"""95% intervals over scenarios.

The scenario is what was drawn at random; rollouts of one scenario resemble each other. So every scenario is first
averaged over its rollouts and then counts once, and intervals resample scenarios, not rollouts (clustered).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt

import numpy as np

from tracemill.trace import Json

DRAWS = 10_000
_BLOCK = 2_000_000  # indices drawn at once: 16 MB
_Z = 1.959963984540054  # the 97.5% quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` scenarios with its 95% interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def plain(self) -> dict[str, Json]:
        return asdict(self)


def estimate(observations: Iterable[tuple[Hashable, float]]) -> Estimate | None:
    """The mean of (scenario, value) pairs over scenarios, with the percentile bootstrap; None of none."""
    means = _means(observations)
    return _estimate(means, bootstrap(means)) if means else None


def rate(observations: Iterable[tuple[Hashable, float]]) -> Estimate | None:
    """The same of what did or did not happen in a rollout: each value is a bool, or a chance estimated from rollouts.

    Where every scenario's mean is 0 or 1 (one rollout each that succeeds or not, or rollouts that agree) this is a
    binomial proportion, and Wilson's interval holds also where all are 0 or all are 1. Else the percentile bootstrap.
    """
    means = _means(observations)
    if not means:
        return None
    return _estimate(means, wilson(round(sum(means)), len(means)) if set(means) <= {0, 1} else bootstrap(means))


def _means(observations: Iterable[tuple[Hashable, float]]) -> list[float]:
    """Of each scenario."""
    of_scenario: dict[Hashable, list[float]] = {}
    for scenario, value in observations:
        of_scenario.setdefault(scenario, []).append(value)
    return [sum(values) / len(values) for values in of_scenario.values()]


def _estimate(means: Sequence[float], interval: tuple[float, float]) -> Estimate:
    return Estimate(float(np.mean(means)), *interval, len(means))


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The score interval of a proportion: E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", JASA 22 (1927), 209-212."""
    share, weight = successes / n, _Z**2 / n
    middle = (share + weight / 2) / (1 + weight)
    half = sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == n else middle + half)


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """The percentile interval of a mean: B. Efron, "Bootstrap methods: another look at the jackknife", Annals of
    Statistics 7 (1979), 1-26. 10,000 draws, seeded; the order of the values does not matter.

    It is somewhat narrow for few values, and a point where they are all alike, which says nothing: look at their number.
    """
    drawn = np.sort(np.asarray(values, dtype=np.float64))
    rng = np.random.default_rng(0)
    rows = max(1, _BLOCK // len(drawn))
    sizes = [min(rows, DRAWS - begin) for begin in range(0, DRAWS, rows)]
    means = np.concatenate([drawn[rng.integers(0, len(drawn), (size, len(drawn)))].mean(axis=1) for size in sizes])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
