"""`tracemill compare`: the folders of two evaluations side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

from tracemill.config import MODES
from tracemill.errors import DatasetError
from tracemill.trace import Json
from tracemill.train.evaluate.compare import compare as compare_episodes
from tracemill.train.evaluate.play import plain_temperature
from tracemill.train.evaluate.sheet import episodes, recorded
from tracemill.train.evaluate.tables import show_comparison
from tracemill.writer import changes

SAME = ("seed", "environments", "kinds", "holdout", "worlds", "files", "budget", "user", "constitution", "version", "suite")
"""Settings that two evaluations should share: all but the policy's own."""
OWN = frozenset({"scenarios", "samples"})
"""Of a suite: these may differ."""


def compare(first: Path, second: Path, *, as_json: bool = False) -> None:
    """Print how two policies did on the same scenarios. Raises DatasetError where these are not the same."""
    a, b = _settings(first), _settings(second)
    differing = changes(_to_share(a), _to_share(b), names=("in A", "in B"))
    try:
        comparison = compare_episodes(*([one for one in episodes(out) if one.counts] for out in (first, second)))
    except DatasetError as error:
        raise DatasetError(error.message, [*error.problems, *differing]) from error
    plain = {"a": str(first), "b": str(second), **comparison.plain()}
    plain["notes"] += _notes(differing, _temperatures(a), _temperatures(b))
    if as_json:
        print(json.dumps(plain, indent=2))
    else:
        show_comparison(plain, Console())


def _settings(out: Path) -> dict[str, Json]:
    """Empty where there are none: the episodes can be compared without."""
    return recorded(out)["content"] if (out / "evaluation.json").is_file() else {}


def _to_share(settings: Mapping[str, Json]) -> dict[str, Json]:
    found = {name: settings.get(name) for name in SAME}
    return {**found, "suite": {name: value for name, value in settings.get("suite", {}).items() if name not in OWN}}


def _temperatures(settings: Mapping[str, Json]) -> list[float]:
    """The policy's own, in each mode; none of a scripted one."""
    policy, suite = settings.get("teacher"), settings.get("suite", {})
    if not isinstance(policy, dict):
        return []
    usual = [MODES[mode].temperature for mode in suite["modes"]] or [plain_temperature(suite["samples"])]
    return usual if policy.get("temperature") is None else [policy["temperature"]] * len(usual)


def _notes(differing: list[str], a: list[float], b: list[float]) -> Iterator[str]:
    if differing:
        yield f"The two differ in more than the policy: {'; '.join(differing)}."
    if a and b and a != b:
        of_a, of_b = (", ".join(map(str, one)) for one in (a, b))
        yield f"The policies were sampled at different temperatures, A at {of_a}, B at {of_b}: part of the difference may be theirs."
