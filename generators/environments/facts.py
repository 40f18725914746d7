"""Facts: whether a text tells what it has to, in whichever of the usual ways it is written.

A fact names one spelling, or a few. What is only another way of writing the same is told too: 15:30 as '3:30 PM', 2026-05-21 as
'May 21st', 1 as 'one', 1234.5 as '1,234.50', '30 days' as '30-day', and typographic apostrophes and dashes. Part of a longer word or
number tells nothing: 'low' is not in 'following', nor '4C' in '14C'.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from calendar import month_name
from collections.abc import Iterator

from tracemill.trace import Fact

CANNOT = (
    "can't", "cannot", "can not", "could not", "couldn't", "unable", "not able", "won't be able", "not possible", "isn't possible",
    "impossible", "no longer possible", "may not", "must not", "mustn't", "not allowed", "isn't allowed", "aren't allowed", "allows no",
    "doesn't allow", "does not allow", "don't allow", "do not allow", "not permitted", "isn't permitted", "doesn't permit",
    "does not permit", "prohibited", "forbidden", "not eligible", "isn't eligible", "ineligible", "against the policy",
    "against our policy", "against policy", "have to decline", "must decline", "have to refuse", "not available", "isn't available",
    "unavailable", "don't offer", "do not offer", "not supported", "isn't supported", "don't have access", "refused", "rejected", "denied",
)  # fmt: skip
"""Ways to say that something cannot be done."""
FAILED = (
    *CANNOT, "failed", "did not", "didn't", "was not", "wasn't", "were not", "weren't", "has not", "hasn't", "have not", "haven't",
    "not been", "not yet", "not done", "not finished", "unsuccessful", "went wrong",
)  # fmt: skip
"""Ways to say that something has not been done."""


def tells(fact: Fact, text: str) -> bool:
    """Whether a text contains the fact: one of its spellings, whatever the case, or its number."""
    folded = fold(text)
    if fact.number is None:
        return _pattern(fact.spellings).search(folded) is not None
    if any(abs(number - fact.number) < 0.005 for number in _figures(folded)):
        return True
    return fact.number in range(len(_WORDS)) and _in_words(fact.number).search(folded) is not None


def fact_text(fact: Fact) -> str:
    if fact.spellings in (CANNOT, FAILED):
        return "that it cannot be done" if fact.spellings == CANNOT else "that it has not been done"
    return str(fact.number) if fact.number is not None else " or ".join(repr(spelling) for spelling in fact.spellings)


def spellings(fact: Fact) -> tuple[str, ...]:
    """How a fact is likely to be written."""
    if fact.number is None:
        return fact.spellings
    return tuple(dict.fromkeys((f"{fact.number:.2f}", f"{fact.number:,.2f}", f"{fact.number:g}", str(fact.number))))


_TYPOGRAPHY = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "—": " - ", **dict.fromkeys("‐‑‒–−", "-")})


@functools.lru_cache(maxsize=128)
def fold(text: str) -> str:
    """In lower case and plain typography, with single spaces: what makes no difference to what is said."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY)
    return " ".join(text.lower().split()).replace("cancell", "cancel")


# --- numbers ------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_FIGURE = re.compile(
    r"(?:(?<![a-z0-9_])|(?<=\\[ntr])|(?<=eur)|(?<=usd)|(?<=gbp)|(?<=chf))(?<![a-z]-)(?<!\d[:.,])"  # not in 'W19959', 'EV-20', '15:30'
    r"(?:(?<!\w)-)?(?:\d{1,3}(?: \d{3})+(?:[.,]\d+)?|\d+(?:[.,']\d+)*)"
    r"(?!\d|:\d|_|(?![dghkmsx])[a-z](?![a-z]))"  # nor in '14C', a seat
)
_ENGLISH = re.compile(r"-?(?:\d+|\d{1,3}(?:[,' ]\d{3})+)(?:\.\d+)?")
_CONTINENTAL = re.compile(r"-?(?:\d+,\d\d?|\d{1,3}(?:[.' ]\d{3})+(?:,\d+)?)")
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_ONE = r"(?<!this )(?<!that )(?<!the )(?<!no )(?<!which )(?<!each )(?<!every )(?<!any )(?<!other )one(?! (?:of|moment|thing|more thing)\b)"
_FREE = r"zero|free of charge|for free|no (?:extra |additional |further )?(?:charge|cost|fee)s?"


@functools.cache
def _in_words(number: float) -> re.Pattern[str]:
    word = {0: _FREE, 1: _ONE}.get(int(number), _WORDS[int(number)])
    return re.compile(rf"(?<![a-z])(?:{word})(?![a-z])")


def numbers(text: str) -> list[float]:
    """All numbers of a text; '1,234.50' is one."""
    return [float(match.replace(",", "").rstrip(".")) for match in _NUMBER.findall(text) if match.strip("-,")]


def _figures(folded: str) -> Iterator[float]:
    """The numbers of a text that are no part of a name, a time or a date. '1.234' may be more than a thousand, or little more than one."""
    for figure in _FIGURE.findall(_ISO_DATE.sub(" ", folded)):
        if _ENGLISH.fullmatch(figure):
            yield float(re.sub("[,' ]", "", figure))
        if _CONTINENTAL.fullmatch(figure):
            yield float(re.sub("[.' ]", "", figure).replace(",", "."))
        if " " in figure or not _ENGLISH.fullmatch(figure):  # several numbers, after all
            yield from map(float, re.findall(r"\d+(?:\.\d+)?", figure))


# --- texts --------------------------------------------------------------------------------------------------

_START = r"(?:(?<![a-z0-9])|(?<=\\[ntr])|(?<=\\u[0-9a-f]{4})|(?<=\dt)(?=\d))"  # results are JSON: the letter before may be an escape's
_END = r"(?![a-z0-9]|[.,:]?\d)"
_SUFFIX = r"(?:'?e?s|e?d|ing)?"  # 'refunds', 'shared'
_PART = re.compile(
    r"(?P<date>\b\d{4}-\d\d-\d\d\b)|(?P<time>\b\d\d:\d\d\b(?!:))|(?P<gap>\s|(?<=[a-z])[-_](?=[a-z]))|[a-z]+(?=[\s_-]|$)|[\w.:/+@#-]+|."
)
_DIGITS = {word: str(number) for number, word in enumerate(_WORDS)}


@functools.lru_cache(maxsize=4096)
def _pattern(texts: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(_text_pattern(fold(text)) for text in texts))


def _text_pattern(text: str) -> str:
    parts = "".join(_part_pattern(match) for match in _PART.finditer(text))
    counted = re.fullmatch(r"\d+ [a-z]+s", text)
    if counted:
        parts += "?"  # 'within 30 days', 'a 30-day period'
    plain = re.search(r"[a-z]{4}$", text) is not None and "@" not in text and "/" not in text
    return f"{_START}{parts}{_SUFFIX if plain and not counted else ''}{_END}"


def _part_pattern(match: re.Match[str]) -> str:
    part = match[0]
    if match["date"]:
        return _date_pattern(part)
    if match["time"]:
        return _time_pattern(int(part[:2]), part[3:])
    if match["gap"]:
        return "[ _-]" if part == "_" else "[ -]"
    digits = _DIGITS.get(part, part)
    if digits.isdecimal() and int(digits) < len(_WORDS):
        return f"(?:{digits}|{_WORDS[int(digits)]})"
    return re.escape(part)


def _time_pattern(hour: int, minute: str) -> str:
    shown = f"0?{hour}" if hour < 10 else str(hour)
    morning, evening = r" ?a\.?m\b| in the morning", r" ?p\.?m\b| in the (?:afternoon|evening)| at night"
    this, other = (morning, evening) if hour < 12 else (evening, morning)
    on_the_dot = "?" if minute == "00" else ""
    ways = [rf"{shown}[:h]{minute}(?::00z?)?(?!{other})", rf"0?{(hour - 1) % 12 + 1}(?:[:.]{minute}){on_the_dot}(?:{this})"]
    if (hour, minute) in ((0, "00"), (12, "00")):
        ways.append("midnight" if hour == 0 else "noon|midday")
    return f"(?:{'|'.join(ways)})"


def _date_pattern(day: str) -> str:
    year, month, number = day[:4], int(day[5:7]), int(day[8:])
    if not 1 <= month <= 12:
        return re.escape(day)
    name = month_name[month].lower()
    named = rf"(?:{name}|{name[:3]}{'t?' if month == 9 else ''}\.?)"
    nth = rf"0?{number}(?:st|nd|rd|th)?"
    to = r" ?(?:-|to|and|until|through) ?"
    tail = rf"(?:,? ?(?:of )?{year}|(?!,? ?(?:of )?(?:19|20)\d\d\b))"  # without the year, but with no other
    ways = (
        rf"{day}(?:t(?=\d\d:)\d\d:\d\d(?::\d\d)?z?)?",
        rf"{nth}(?:{to}\d\d?(?:st|nd|rd|th)?)?[ -](?:of )?{named}{tail}",
        rf"{named}[ -](?:the )?(?:\d\d?(?:st|nd|rd|th)?{to})?{nth}{tail}",
        rf"0?{number}[./]0?{month}[./]{year}",
        rf"0?{month}/0?{number}/{year}",
        rf"{year}/{month:02}/{number:02}",
    )
    return f"(?:{'|'.join(ways)})"
