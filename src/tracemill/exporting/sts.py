"""Semantic textual similarity: `sentence1`, `sentence2`, `score`, as sentence-transformers trains embeddings on.

Its collator takes a column named `score` as the label (`DEFAULT_LABEL_COLUMNS`, sentence-transformers 6.2), and `CoSENTLoss` and
`CosineSimilarityLoss` want two texts and a similarity from 0 to 1.

The texts are what users first ask. Two requests are as similar as what was done for them (wrong steps left out): the score is the mean of two
Jaccard indices, common / all, one of the tools that were called, and one of their arguments with values. Both count the same, because
ids that an environment deals out differ even between requests for the same thing, and would drown the tools.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tracemill.exporting.form import Example, Form, Line, Notes, Pair, wrong
from tracemill.trace import canonical

Acts = frozenset[tuple[str, ...]]
Request = tuple[str, Acts]


class Sts(Form):
    name = "sts"
    files: ClassVar = {"pairs.jsonl": "two requests, and how much of what was done for them is the same, from 0 to 1"}
    following = "python -c \"from datasets import load_dataset; print(load_dataset('json', data_files='{file}'))\""

    def __init__(self) -> None:
        self._before: Request | None = None
        self._by_tools: dict[frozenset[str], Request] = {}
        """The last request of each set of tools: all that is kept, however long the run."""

    def example(self, one: Example, notes: Notes) -> Iterator[Line]:
        request = _asked(one), acts(one)
        if not request[1]:
            notes["conversations left out: nothing was called, so nothing can be compared"] += 1
            return
        tools = frozenset(act[0] for act in request[1])
        for other in dict.fromkeys((self._by_tools.get(tools), self._before)):  # of the same tools, and just any: often the same one
            if other is None:
                continue
            if other[0] == request[0]:
                notes["pairs left out: both requests are the same text"] += 1
            else:
                yield "pairs.jsonl", {"sentence1": other[0], "sentence2": request[0], "score": similarity(other[1], request[1])}
        self._before = self._by_tools[tools] = request

    def pair(self, one: Pair, notes: Notes) -> Iterator[Line]:
        notes["preference pairs left out: they are no pairs of texts that are alike or not"] += 1
        return iter(())


def acts(one: Example) -> Acts:
    """(tool,) of each call, and (tool, argument, value) of each of its arguments."""
    calls = [call["function"] for message in one.messages if not wrong(message) for call in message.get("tool_calls") or ()]
    given = {(call["name"], name, canonical(value)) for call in calls for name, value in call["arguments"].items()}
    return frozenset({(call["name"],) for call in calls} | given)


def similarity(one: Acts, other: Acts) -> float:
    """From 0 to 1, to four places; of the tools alone where no call has an argument."""
    shares = []
    for length in (1, 3):
        mine, theirs = ({act for act in acts if len(act) == length} for acts in (one, other))
        if mine | theirs:
            shares.append(len(mine & theirs) / len(mine | theirs))
    return round(sum(shares) / len(shares), 4)


def _asked(one: Example) -> str:
    return next(str(message["content"]) for message in one.messages if message["role"] == "user")
