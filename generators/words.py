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

_INNER_START = re.compile(r"([.!?] +)([a-z])")
_PART = re.compile(r"<([a-z_][\w.]*)>|\{([a-z_]\w*)\}")
COMMON = Path(__file__).parent / "prompts" / "words.yaml"

Part = tuple[str, str]  # ("text" | "symbol" | "slot", what)


class Prose(str):
    """A value that is part of the sentence: it may get a capital letter where a sentence begins with it."""

    __slots__ = ()


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
        out: list[Part] = []
        self._walk(symbol, rng, values, tone, out)
        return _joined(out)

    def _walk(self, symbol: str, rng: random.Random, values: Mapping[str, object], tone: str, out: list[Part]) -> None:
        toned = f"{symbol}@{tone}"
        texts = self._rules[toned if toned in self._rules else symbol]
        for part in texts[int(rng.random() * len(texts))]:
            kind, what = part
            if kind == "text":
                out.append(part)
            elif kind == "symbol":
                self._walk(what, rng, values, tone, out)
            elif what in values:
                value = values[what]
                out.append(("text" if isinstance(value, Prose) else "value", str(value)))
            else:
                raise ScenarioError(f"wording {symbol!r} needs a value for {{{what}}}; there are {sorted(values)}")


def _joined(parts: Sequence[Part]) -> str:
    """The parts as prose: sentences begin with a capital, no doubled spaces. Values stay as they are to the letter,
    but for the first letter of the whole text: what an agent must repeat exactly may be among them."""
    out: list[str] = []
    begins = True
    for kind, text in parts:
        if kind == "text":
            if out and out[-1].endswith(" "):
                text = text.lstrip(" ")
        if begins and text.strip() and (kind == "text" or not out):
            text = _capitalised(text)
        if text:
            out.append(text)
        begins = "".join(out[-2:]).rstrip(" ").endswith((".", "!", "?")) or not "".join(out).strip()
    return "".join(out).strip()


@functools.cache
def common_rules() -> dict[str, list[str]]:
    return read_rules(COMMON)


def read_rules(path: Path) -> dict[str, list[str]]:
    """The rules of one file. Raises ScenarioError if it is no map of symbols to lists of texts."""
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(loaded, dict) or not all(isinstance(texts, list) for texts in loaded.values()):
        raise ScenarioError(f"{path.name}: expected a map from symbols to lists of texts")
    return {str(symbol): [str(text) for text in texts] for symbol, texts in loaded.items()}


def _capitalised(text: str) -> str:
    """With a capital first letter, unless the first word is a name of code (get_order, /a/path)."""
    at = len(text) - len(text.lstrip())
    word = text[at:].split(" ", 1)[0].rstrip(".,:;!?")
    return text[:at] + text[at : at + 1].upper() + text[at + 1 :] if word.replace("'", "").replace("-", "").isalpha() else text


def _sentences(text: str) -> str:
    return _INNER_START.sub(lambda match: match[1] + match[2].upper(), text)


def _parse(text: str) -> list[Part]:
    parts: list[Part] = []
    end = 0
    for match in _PART.finditer(text):
        if match.start() > end:
            parts.append(("text", _sentences(text[end : match.start()])))
        parts.append(("symbol", match[1]) if match[1] else ("slot", match[2]))
        end = match.end()
    if end < len(text):
        parts.append(("text", _sentences(text[end:])))
    return parts
