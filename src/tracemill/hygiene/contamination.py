"""Whether a benchmark has found its way into the data: by its words, or by its tools.

Words: T. B. Brown et al., "Language Models are Few-Shot Learners" (2020), appendix C, take a document as contaminated that
has 13 words in a row in common with a test, punctuation and case ignored; where a test's examples are shorter, fewer
words, but no less than 8. So here: 13 words in a row of a longer text, all of a text of 8 to 12 words; shorter ones
('Yes, please go ahead.') say nothing and are passed over.

Tools: the same name with the same names of arguments. Where there is one argument or none, which many a `calculate` or
`search` has, the description must be the same too.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tracemill.hygiene.benchmarks import Benchmark, Tool, read_tool
from tracemill.hygiene.minhash import WORD

if TYPE_CHECKING:
    import numpy as np

LONGEST, SHORTEST = 13, 8  # words
TELLING = 2  # arguments from which on a tool is known by their names
K = TypeVar("K")
Place = tuple[str, str]
"""Name of a benchmark, and where in it."""


@dataclass(frozen=True)
class Match:
    """One meeting of a record with a benchmark."""

    benchmark: str
    by: str
    """'text' or 'tool'."""
    there: str
    """Where in the benchmark."""
    here: str
    """Where in the record, such as `messages[1].content`."""
    what: str
    """The words, or the name of the tool."""


class Contamination:
    """The n-grams and tools of all benchmarks, to be looked up."""

    def __init__(self, benchmarks: Sequence[Benchmark]) -> None:
        self.passed_over = {one.name: 0 for one in benchmarks}
        """Texts that are too short to tell anything, by benchmark."""
        grams: dict[int, dict[int, tuple[Place, ...]]] = {}
        self._tools: dict[Tool, tuple[Place, ...]] = {}
        for one in benchmarks:
            for text, place in one.texts.items():
                spoken = _words(text)
                if len(spoken) < SHORTEST:
                    self.passed_over[one.name] += 1
                    continue
                size = min(LONGEST, len(spoken))
                known = grams.setdefault(size, {})
                for _, numbers in _hashes(spoken, size, size):
                    for gram in numbers.tolist():
                        _note(known, gram, (one.name, place))
            for tool, place in one.tools.items():
                _note(self._tools, _telling(tool), (one.name, place))
        self._grams = {size: (_sorted(known), known) for size, known in grams.items()}

    def matches(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[str]) -> list[Match]:
        """`messages` as JSON values; `tools` as JSON texts. Of each text of a benchmark and each tool the first meeting."""
        found = [match for text in dict.fromkeys(tools) for match in self._tool_matches(text)]
        return [*found, *self._text_matches(list(spoken_texts(messages)))] if self._grams else found

    def _tool_matches(self, text: str) -> Iterator[Match]:
        tool = _offered(text)
        if tool is not None:
            for benchmark, there in self._tools.get(_telling(tool), ()):
                yield Match(benchmark, "tool", there, "tools", tool.name)

    def _text_matches(self, texts: Sequence[tuple[str, str]]) -> list[Match]:
        import numpy as np

        spoken, places = _joined(texts)
        found: dict[tuple[str, str], Match] = {}
        for size, mine in _hashes(spoken, SHORTEST, LONGEST):
            if size not in self._grams:
                continue
            grams, known = self._grams[size]
            for at in np.flatnonzero(grams[np.searchsorted(grams, mine).clip(max=len(grams) - 1)] == mine).tolist():
                for benchmark, there in known[int(mine[at])]:
                    found.setdefault((benchmark, there), Match(benchmark, "text", there, places[at], " ".join(spoken[at : at + size])))
        return list(found.values())


def _note(known: dict[K, tuple[Place, ...]], what: K, place: Place) -> None:
    """The first place of each benchmark: what several of them hold counts for each."""
    there = known.get(what, ())
    if all(benchmark != place[0] for benchmark, _ in there):
        known[what] = (*there, place)


def spoken_texts(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Every text of a conversation with its place, but for the system prompt, which is the environment's."""
    for at, message in enumerate(messages):
        if message["role"] == "system":
            continue
        yield f"messages[{at}].content", message["content"]
        if message.get("reasoning_content"):
            yield f"messages[{at}].reasoning_content", message["reasoning_content"]
        for place, call in enumerate(message.get("tool_calls") or ()):
            for name, value in call["function"]["arguments"].items():
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                yield f"messages[{at}].tool_calls[{place}].{name}", text


def _telling(tool: Tool) -> Tool:
    return Tool(tool.name, tool.arguments, "" if len(tool.arguments) >= TELLING else tool.description)


@functools.lru_cache(maxsize=4096)
def _offered(text: str) -> Tool | None:
    return read_tool(json.loads(text))


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


@functools.lru_cache(maxsize=1 << 18)
def _number(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest())


def _joined(texts: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """All words with the place of each; between two texts stands one that no text has, so that no n-gram spans both."""
    spoken: list[str] = []
    places: list[str] = []
    for here, text in texts:
        mine = [*_words(text), ""]
        spoken += mine
        places += [here] * len(mine)
    return spoken, places


def _hashes(spoken: Sequence[str], shortest: int, longest: int) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """For each size a number of 64 bits for each run of so many words: a polynomial of the words' own, modulo 2**64."""
    import numpy as np

    numbers = np.fromiter(map(_number, spoken), dtype=np.uint64, count=len(spoken))
    total = np.zeros(len(spoken) + 1, dtype=np.uint64)
    for size in range(1, min(longest, len(spoken)) + 1):
        total = total[:-1] * np.uint64(0x9E3779B97F4A7C15) + numbers[size - 1 :]
        if size >= shortest:
            yield size, total


def _sorted(grams: Iterable[int]) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.sort(np.fromiter(grams, dtype=np.uint64))
