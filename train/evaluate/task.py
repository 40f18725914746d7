"""Whether the task was done: success, pass@k and pass^k, and which checks of the goal failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import comb

from tracemill.errors import DatasetError
from tracemill.trace import Json, Outcome
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.interval import Estimate, rate

Tally = tuple[Hashable, int, int]
"""A scenario, how often it was played, and how often with success."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that at least one of k rollouts succeeds, unbiased from c successes in n rollouts: 1 - C(n-c, k) / C(n, k).

    M. Chen et al., "Evaluating Large Language Models Trained on Code", arXiv 2107.03374 (2021), section 2.1. Raises
    DatasetError unless 1 <= k <= n and 0 <= c <= n.
    """
    _check(n, c, k)
    return 1 - comb(n - c, k) / comb(n, k)


def pass_hat_k(n: int, c: int, k: int) -> float:
    """The chance that all of k rollouts succeed (pass^k), unbiased from c successes in n rollouts: C(c, k) / C(n, k).

    S. Yao et al., "tau-bench: A Benchmark for Tool-Agent-User Interaction in Real-World Domains", arXiv 2406.12045
    (2024), section 3. Raises DatasetError unless 1 <= k <= n and 0 <= c <= n.
    """
    _check(n, c, k)
    return comb(c, k) / comb(n, k)


def _check(n: int, c: int, k: int) -> None:
    if not (1 <= k <= n and 0 <= c <= n):
        raise DatasetError(f"pass@k and pass^k want 1 <= k <= n and 0 <= c <= n; there are n={n} rollouts, c={c} successes, k={k}")


@dataclass(frozen=True)
class TaskSummary:
    """Rates over scenarios. A check's rate is over the episodes that came far enough to have an outcome, None where none did."""

    episodes: int
    scenarios: int
    success: Estimate
    pass_at: dict[int, Estimate]
    """By k: at least one of k succeeds."""
    pass_hat: dict[int, Estimate]
    """By k: all of k succeed."""
    checks: dict[str, Estimate | None]
    """By check: state, untouched (no collateral change), allowed (no forbidden effect), grounded, confirmed, told."""
    stops: dict[str, int]
    """How many episodes ended in which way; 'done' first, then the most frequent."""

    def plain(self) -> dict[str, Json]:
        return {
            "episodes": self.episodes,
            "scenarios": self.scenarios,
            "success": self.success.plain(),
            "pass_at": {str(k): one.plain() for k, one in self.pass_at.items()},
            "pass_hat": {str(k): one.plain() for k, one in self.pass_hat.items()},
            "checks": {name: one.plain() if one else None for name, one in self.checks.items()},
            "stops": dict(self.stops),
        }


def task_summary(episodes: Sequence[Episode]) -> TaskSummary:
    """Rollouts in different modes are counted apart for pass@k and pass^k. Raises DatasetError where there are no episodes."""
    success = rate((one.key[1:], float(one.success)) for one in episodes)
    if success is None:
        raise DatasetError("there are no episodes to summarize: expected at least one")
    tallies = list(_tallies(episodes))
    pass_at, pass_hat = passes(tallies)
    judged = [(one.key[1:], one.outcome) for one in episodes if one.outcome is not None]
    return TaskSummary(
        episodes=len(episodes),
        scenarios=success.n,
        success=success,
        pass_at=pass_at,
        pass_hat=pass_hat,
        checks={name: rate((key, float(getattr(outcome, name))) for key, outcome in judged) for name in Outcome.CHECKS},
        stops=_stops(episodes),
    )


def passes(tallies: Sequence[Tally]) -> tuple[dict[int, Estimate], dict[int, Estimate]]:
    """pass@k and pass^k for each k up to the largest number of rollouts, each as the mean over the scenarios that were
    played k times or more; the estimate's `n` says how many these are."""
    at: dict[int, Estimate] = {}
    hat: dict[int, Estimate] = {}
    for k in range(1, max((n for _, n, _ in tallies), default=0) + 1):
        enough = [one for one in tallies if one[1] >= k]
        for found, chance in ((at, pass_at_k), (hat, pass_hat_k)):
            mean = rate((scenario, chance(n, c, k)) for scenario, n, c in enough)
            assert mean is not None
            found[k] = mean
    return at, hat


def _tallies(episodes: Iterable[Episode]) -> Iterator[Tally]:
    successes: dict[tuple[str, str, int], list[bool]] = {}
    for one in episodes:
        successes.setdefault(one.key, []).append(one.success)
    for key, came in successes.items():
        yield key[1:], len(came), sum(came)


def _stops(episodes: Iterable[Episode]) -> dict[str, int]:
    counts = Counter(one.stop for one in episodes)
    return dict(sorted(counts.items(), key=lambda item: (item[0] != "done", -item[1], item[0])))
