"""Which traces teach nothing that an earlier one does not.

Two traces are near-duplicates when they do the same and are asked nearly the same: the same tools in the same order with
the same calls failing, under the same trouble; and a Jaccard similarity of at least the threshold between the word
3-grams of what the user said and what the tools were called with, every run of digits taken as one '0'.

So a template's traces stay, as far as names, wishes or wording set them apart; those that differ by an order number do
not. What the agent was told by tools and what it thought and said follow from the rest, and are not compared.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracemill.hygiene.minhash import BAND_ROWS, BANDS, CROWD, band_rows, blank, buckets, sign, three_grams, words
from tracemill.importing.check import failed
from tracemill.trace import Json

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Sketch:
    """What is compared of a trace."""

    deeds: str
    """What must be the same."""
    grams: frozenset[str]
    """What may differ a little."""


def sketch(messages: Sequence[Mapping[str, Any]], scenario: Mapping[str, Any] | None = None) -> Sketch:
    """`messages` in our form, as JSON values; the scenario of a trace, none for an imported conversation."""
    results = {one["tool_call_id"]: one["content"] for one in messages if one["role"] == "tool"}
    calls = [call for one in messages for call in one.get("tool_calls") or ()]
    deeds: list[Json] = [[call["function"]["name"], failed(results.get(call["id"], ""))] for call in calls]
    said = [word for one in messages if one["role"] == "user" for word in words(one["content"])]
    grams = three_grams(said) | {gram for call in calls for gram in _call_grams(call["function"])}
    return Sketch(json.dumps([deeds, _circumstances(scenario or {})]), frozenset(grams))


def _call_grams(function: Mapping[str, Any]) -> Iterator[str]:
    for name, value in function["arguments"].items():
        told = words(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        yield from (f"{function['name']} {name} {gram}" for gram in three_grams(told))


def _circumstances(scenario: Mapping[str, Any]) -> list[Json]:
    """What a trace shows besides its calls: a wrong result, or an order slipped into one, leaves no trace in them if all went well."""
    trouble = [[one["kind"], one["tool"]] for one in scenario.get("faults", ())]
    return [scenario.get("kind"), scenario.get("ending"), scenario.get("honest_end") is not None, trouble]


@dataclass(frozen=True)
class Likeness:
    """The earlier trace that one is like: its place in the order of adding, and how much."""

    other: int
    similarity: float


@dataclass
class Sketches:
    """Sketches of many traces, some 800 bytes each."""

    _signatures: array[int] = field(default_factory=lambda: array("I"))
    _grams: list[array[int]] = field(default_factory=list)
    _deeds: array[int] = field(default_factory=lambda: array("I"))
    _blank: Any = field(default_factory=blank)

    def add(self, one: Sketch) -> None:
        self._signatures.frombytes(sign(one.grams, self._blank).astype("uint32").tobytes())
        self._grams.append(array("I", sorted({zlib.crc32(gram.encode("utf-8", "replace")) for gram in one.grams})))
        self._deeds.append(zlib.crc32(one.deeds.encode()))

    def __len__(self) -> int:
        return len(self._grams)

    def repeats(self, order: Sequence[int], similar: float) -> dict[int, Likeness]:
        """Those of `order` that are like one before them there that stays. What is like them stays if they do not.

        MinHash only proposes pairs; the similarity of each is then computed exactly, from hashes of the 3-grams. Among
        the texts of a bucket that stay, one is compared with the first 64.
        """
        mine = self._buckets(order, band_rows(similar))
        stay: dict[int, list[int]] = {}
        found: dict[int, Likeness] = {}
        for place, one in enumerate(order):
            crowds = [crowd for crowd in mine[:, place].tolist() if crowd >= 0]
            candidates = sorted({other for crowd in crowds for other in stay.get(crowd, ())})
            likeness = max((self._like(one, order[other]) for other in candidates), key=lambda it: it.similarity, default=None)
            if likeness is not None and likeness.similarity >= similar:
                found[one] = likeness
                continue
            for crowd in crowds:
                members = stay.setdefault(crowd, [])
                if len(members) < CROWD:
                    members.append(place)
        return found

    def _buckets(self, order: Sequence[int], rows: int) -> np.ndarray[Any, Any]:
        """For each band and each place in the order the number of its bucket; -1 where it is alone in it."""
        import numpy as np

        signatures = np.frombuffer(self._signatures, dtype=np.uint32).reshape(len(self), BANDS * BAND_ROWS)[list(order)]
        deeds = np.frombuffer(self._deeds, dtype=np.uint32)[list(order)]
        numbers: list[Any] = []
        count = 0
        for start in range(0, signatures.shape[1], rows):
            band = np.column_stack([deeds, signatures[:, start : start + rows]])
            number = np.full(len(order), -1, dtype=np.int64)
            for bucket in next(buckets(band, rows + 1)):
                if len(bucket) > 1:
                    number[bucket] = count
                    count += 1
            numbers.append(number)
        return np.stack(numbers)

    def _like(self, one: int, other: int) -> Likeness:
        a, b = set(self._grams[one]), self._grams[other]
        common = sum(gram in a for gram in b)
        return Likeness(other, common / (len(a) + len(b) - common))
