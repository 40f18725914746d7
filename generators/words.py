"""Grammar files: one meaning, many wordings.

A grammar is a YAML map from a symbol to its alternatives. In an alternative `<symbol>` stands for one alternative
of another symbol and `{slot}` for a value. Where `symbol@tone` exists it replaces `symbol` for users of that tone.
Values are put in last and never expanded again, so what a model or a tool wrote cannot act as a template.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from tracemill.errors import ScenarioError

_PART = re.compile(r"<([a-z_][\w.]*)>|\{([a-z_]\w*)\}")
COMMON = Path(__file__).parent / "prompts" / "words.yaml"

Part = tuple[str, str]  # ("text" | "symbol" | "slot", what)


class Grammar:
    """Compiled alternatives. Raises ScenarioError where a symbol is used that no rule defines."""

    def __init__(self, rules: Mapping[str, Sequence[str]]) -> None:
        self._rules = {symbol: [_parse(text) for text in texts] for symbol, texts in rules.items()}
        wanted = {what for texts in self._rules.values() for parts in texts for kind, what in parts if kind == "symbol"}
        missing = sorted(symbol for symbol in wanted if symbol not in self._rules)
        empty = sorted(symbol for symbol, texts in self._rules.items() if not texts)
        if missing or empty:
            problems = [f"<{symbol}> is used but not defined" for symbol in missing]
            problems += [f"{symbol!r} has no alternatives" for symbol in empty]
            raise ScenarioError("a grammar is incomplete", problems)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._rules

    def expand(self, symbol: str, rng: random.Random, values: Mapping[str, object], tone: str = "plain") -> str:
        """One wording, beginning with a capital letter. Raises ScenarioError for an unknown symbol or slot."""
        if symbol not in self._rules:
            raise ScenarioError(f"no wording for {symbol!r}: add it to the environment's words")
        out: list[str] = []
        self._walk(symbol, rng, values, tone, out)
        text = re.sub(r"[ \t]{2,}", " ", "".join(out)).strip()
        return text[:1].upper() + text[1:]

    def _walk(
        self, symbol: str, rng: random.Random, values: Mapping[str, object], tone: str, out: list[str]
    ) -> None:
        toned = f"{symbol}@{tone}"
        texts = self._rules[toned if toned in self._rules else symbol]
        for kind, what in texts[int(rng.random() * len(texts))]:
            if kind == "text":
                out.append(what)
            elif kind == "symbol":
                self._walk(what, rng, values, tone, out)
            elif what in values:
                out.append(str(values[what]))
            else:
                raise ScenarioError(f"wording {symbol!r} needs a value for {{{what}}}; there are {sorted(values)}")


@functools.cache
def common_rules() -> dict[str, list[str]]:
    return read_rules(COMMON)


def read_rules(path: Path) -> dict[str, list[str]]:
    """The rules of one file. Raises ScenarioError if it is no map of symbols to lists of texts."""
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(loaded, dict) or not all(isinstance(texts, list) for texts in loaded.values()):
        raise ScenarioError(f"{path.name}: expected a map from symbols to lists of texts")
    return {str(symbol): [str(text) for text in texts] for symbol, texts in loaded.items()}


def _parse(text: str) -> list[Part]:
    parts: list[Part] = []
    end = 0
    for match in _PART.finditer(text):
        if match.start() > end:
            parts.append(("text", text[end : match.start()]))
        parts.append(("symbol", match[1]) if match[1] else ("slot", match[2]))
        end = match.end()
    if end < len(text):
        parts.append(("text", text[end:]))
    return parts
