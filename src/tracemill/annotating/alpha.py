"""Krippendorff's alpha: how far people agree beyond what chance would give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import permutations


def nominal_alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Alpha for nominal data; each unit holds the values that it was given, one for each person who judged it.

    With m values in a unit, each ordered pair of values of two persons adds 1/(m-1) to the coincidence o[c, k]; n[c] is the
    sum of row c, n that of all:

        alpha = 1 - (n - 1) * sum(o[c, k] for c != k) / sum(n[c] * n[k] for c != k)

    1 is full agreement, 0 what chance gives, below 0 people contradict each other. Units with fewer than two values say nothing
    and are left out. None where alpha is not defined: no unit has two values, or all values are the same.

    Source: K. Krippendorff, Computing Krippendorff's Alpha-Reliability, University of Pennsylvania, 2011, section C.
    """
    coincidences: Counter[tuple[Hashable, Hashable]] = Counter()
    for values in units:
        for pair in permutations(values, 2):
            coincidences[pair] += 1 / (len(values) - 1)  # type: ignore[assignment]
    totals: Counter[Hashable] = Counter()
    for (value, _), weight in coincidences.items():
        totals[value] += weight
    everything = totals.total()
    observed = sum(weight for (one, other), weight in coincidences.items() if one != other)
    expected = sum(totals[one] * totals[other] for one, other in permutations(totals, 2))
    return 1 - (everything - 1) * observed / expected if expected else None
