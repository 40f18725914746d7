"""Which records pass the filters, and how many would with another choice of one filter (facets)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracemill.trace import Json
from tracemill.viewer.entry import FACETS, FLAGS, PARTS, Part
from tracemill.viewer.index import Snapshot

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Wanted:
    part: Part
    labels: Mapping[str, Sequence[str]]
    """By facet; one of several is enough."""
    flags: Collection[str] = ()
    """All must be set."""


@dataclass(frozen=True)
class Selection:
    ids: np.ndarray
    """In the order in which scenarios were drawn, attempts in theirs."""
    of: int
    """How many records there are without any filter."""
    facets: dict[str, list[tuple[str, int]]]
    """Labels with how many records they would give, most first."""
    flags: dict[str, int]


def select(snapshot: Snapshot, wanted: Wanted, hits: np.ndarray | None = None) -> Selection:
    """`hits` are the ids that a search has found; None is no search."""
    import numpy as np

    part = snapshot.column("part") == PARTS.index(wanted.part)
    base = part
    if hits is not None:
        found = np.zeros(len(part), dtype=bool)
        found[hits] = True
        base = base & found
    mask = sum(1 << FLAGS.index(flag) for flag in wanted.flags)
    if mask:
        base = base & ((snapshot.column("flags") & mask) == mask)
    passing = {name: _passing(snapshot, name, labels) for name, labels in wanted.labels.items() if labels}
    full = np.logical_and.reduce([base, *passing.values()])
    ids = np.flatnonzero(full)
    order = np.lexsort((snapshot.column("attempt")[ids], snapshot.column("index")[ids]))
    facets = {}
    for name in FACETS:
        others = np.logical_and.reduce([base, *(one for key, one in passing.items() if key != name)]) if name in passing else full
        facets[name] = counted(snapshot, name, others)
    flags = snapshot.column("flags")[ids]
    held = {flag: int(np.count_nonzero(flags & (1 << place))) for place, flag in enumerate(FLAGS)}
    return Selection(ids[order], int(part.sum()), facets, held)


def counted(snapshot: Snapshot, name: str, mask: np.ndarray) -> list[tuple[str, int]]:
    """The labels of one facet among the rows of a mask, with their counts, most first."""
    import numpy as np

    counts = np.bincount(snapshot.column(name)[mask], minlength=len(snapshot.labels))
    counts[0] = 0  # the empty label: it does not apply
    codes = np.flatnonzero(counts)
    return sorted(((snapshot.labels[code], int(counts[code])) for code in codes), key=lambda one: (-one[1], one[0]))


def _passing(snapshot: Snapshot, name: str, labels: Sequence[str]) -> np.ndarray:
    import numpy as np

    codes = [snapshot.labels.index(label) for label in labels if label in snapshot.labels]
    return np.isin(snapshot.column(name), codes)


def fields(selection: Selection) -> dict[str, Json]:
    return {"total": len(selection.ids), "of": selection.of, "facets": selection.facets, "flags": selection.flags}
