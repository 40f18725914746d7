"""MinHash: which of many texts are nearly alike, without comparing each with each.

A. Z. Broder, "On the resemblance and containment of documents", Compression and Complexity of Sequences, 1997: the
share of places at which two signatures agree estimates the Jaccard similarity of the two sets; with 128 places the
standard error at 0.8 is 0.035. Candidates are pairs that agree in a whole band of places (locality-sensitive hashing:
P. Indyk and R. Motwani, "Approximate nearest neighbors", STOC 1998).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from datasketch import MinHash

    Signatures = np.ndarray[Any, Any]
    """uint32, a row of PLACES for each text."""

SIMILAR = 0.8
# 16 bands of 8 rows find a pair of that similarity with a chance of 95 %, one of 0.85 with 99 %. datasketch's own index
# would choose 9 bands of 13 rows (40 % and 69 %), and takes ten times the memory of the signatures.
BANDS, BAND_ROWS = 16, 8
PLACES = BANDS * BAND_ROWS
FOUND = 0.9  # chance with which a pair at the threshold should be a candidate
CROWD = 64  # how many of a bucket a text is compared with
SEED = 1
_SIGNS = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{_SIGNS}]|[^\W{_SIGNS}]+")
"""Chinese and Japanese stand without spaces: there each sign is one."""
_DIGITS = re.compile(r"\d+")


def words(text: str) -> list[str]:
    """Case ignored, and every run of digits taken as one '0'."""
    return WORD.findall(_DIGITS.sub("0", text.casefold()))


def three_grams(spoken: Sequence[str]) -> set[str]:
    """Of fewer than three words, the one gram that they are."""
    return {" ".join(spoken[at : at + 3]) for at in range(max(1, len(spoken) - 2))}


def signature(text: str, start: MinHash | None = None) -> Signatures:
    """The MinHash signature of a text's word 3-grams."""
    return sign(three_grams(words(text)), start)


def sign(grams: Iterable[str], start: MinHash | None = None) -> Signatures:
    hashed = blank(start)
    hashed.update_batch([gram.encode("utf-8", "replace") for gram in grams])
    return hashed.hashvalues  # type: ignore[no-any-return]


def blank(other: MinHash | None = None) -> MinHash:
    """An empty MinHash; the permutations of another one spare drawing them anew."""
    from datasketch import MinHash

    if other is None:
        return MinHash(PLACES, seed=SEED, scheme="affine32")
    return MinHash(PLACES, seed=SEED, scheme="affine32", permutations=other.permutations)


def buckets(signatures: Signatures, rows: int = BAND_ROWS) -> Iterator[list[Signatures]]:
    """Band by band: the numbers of the texts that agree in it, in their order. Each text is in one bucket of every band."""
    import numpy as np

    for start in range(0, signatures.shape[1], rows):
        band = signatures[:, start : start + rows]
        order = np.lexsort(band.T)  # stable, so earlier texts come first among equals
        alike = (band[order[1:]] == band[order[:-1]]).all(axis=1)
        yield np.split(order, np.flatnonzero(~alike) + 1)


def repeats(signatures: Signatures) -> list[bool]:
    """For each signature, whether an earlier one agrees with it in SIMILAR of its places or more.

    A crowd of texts that are all alike is compared with its first 64 only.
    """
    found = [False] * len(signatures)
    for band in buckets(signatures):
        for bucket in band:
            for place in range(1, len(bucket)):
                one = bucket[place]
                if not found[one]:
                    earlier = signatures[bucket[: min(place, CROWD)]]
                    found[one] = bool(((earlier == signatures[one]).mean(axis=1) >= SIMILAR).any())
    return found


def band_rows(similar: float) -> int:
    """The longest bands that find a pair of this similarity with a chance of 90 %: 1 - (1 - s**rows)**bands."""
    longest = (rows for rows in (16, 8, 4, 2) if 1 - (1 - similar**rows) ** (PLACES // rows) >= FOUND)
    return next(longest, 1)
