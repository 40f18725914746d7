"""The figures of a run's charts, from its index."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tracemill.trace import Json
from tracemill.viewer.entry import FACETS, FLAGS, PARTS, Part
from tracemill.viewer.index import Snapshot
from tracemill.viewer.selection import counted
from tracemill.writer import Tally

if TYPE_CHECKING:
    import numpy as np

BINS = 24
LENGTHS = ("messages", "calls", "characters")


def charts(snapshot: Snapshot) -> dict[str, Json]:
    """Counts by facet of traces and of lost scenarios, the funnel of stages, histograms of lengths, use of tools."""
    traces, rejects = _rows(snapshot, "traces"), _rows(snapshot, "rejects")
    lost = rejects & ((snapshot.column("flags") & (1 << FLAGS.index("lost"))) != 0)
    return {
        "traces": int(traces.sum()),
        "rejects": int(rejects.sum()),
        "lost": int(lost.sum()),
        "preferences": int(_rows(snapshot, "preferences").sum()),
        "accepted": {name: counted(snapshot, name, traces) for name in FACETS},
        "reasons": counted(snapshot, "reason", rejects),
        "blame": counted(snapshot, "blame", lost),
        "sources": counted(snapshot, "source", _rows(snapshot, "preferences")),
        "funnel": _funnel(snapshot, traces, lost),
        "lengths": {name: _histogram(snapshot.column(name)[traces]) for name in LENGTHS},
        "revisions": _whole_counts(snapshot.column("revisions")[traces]),
        "tools": _tools(snapshot),
    }


def _rows(snapshot: Snapshot, part: Part) -> np.ndarray:
    mask: np.ndarray = snapshot.column("part") == PARTS.index(part)
    return mask


def _funnel(snapshot: Snapshot, traces: np.ndarray, lost: np.ndarray) -> list[Json]:
    """[stage, how many scenarios reached it, how many were lost there]; the stages of an import are not in it."""
    tally = Tally(accepted=Counter(all=int(traces.sum())), rejected=Counter(dict(counted(snapshot, "stage", lost))))
    stages = [[stage, reached, ended] for stage, reached, ended in tally.stages()]
    known = {stage for stage, _, _ in stages}
    return stages if set(tally.rejected) <= known else [[stage, tally.finished, ended] for stage, ended in tally.rejected.most_common()]


def _histogram(values: np.ndarray) -> dict[str, Json]:
    """Bins of equal width up to the 99th percentile; the last one holds all beyond as well."""
    import numpy as np

    if not len(values):
        return {"edges": [], "counts": [], "median": 0, "p90": 0, "max": 0}
    low, high = int(values.min()), max(int(np.percentile(values, 99)), int(values.min()) + 1)
    width = max(1, -(-(high - low + 1) // BINS))
    edges = list(range(low, high + width + 1, width))
    counts = np.histogram(np.minimum(values, edges[-1] - 1), bins=edges)[0]
    middle, most = (int(np.percentile(values, share)) for share in (50, 90))
    return {"edges": edges, "counts": counts.tolist(), "median": middle, "p90": most, "max": int(values.max())}


def _whole_counts(values: np.ndarray) -> list[Json]:
    return [[str(value), number] for value, number in sorted(Counter(values.tolist()).items())]


def _tools(snapshot: Snapshot) -> list[Json]:
    """[name, calls, failed calls], most called first."""
    names = {name for name, _ in snapshot.calls}
    found = [[name, snapshot.calls[name, "calls"], snapshot.calls[name, "failed"]] for name in names]
    return sorted(found, key=lambda one: (-one[1], one[0]))
