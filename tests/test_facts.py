"""Facts: what tells them, however it is written, and what does not."""

from __future__ import annotations

from datetime import date, time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracemill.generators.environments.facts import CANNOT, FAILED, fact_text, tells
from tracemill.trace import Fact


def told(fact: str | float, text: str) -> bool:
    return tells(Fact(spellings=(fact,)) if isinstance(fact, str) else Fact(number=fact), text)


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        ("15:30", "It starts at 3:30 PM."),
        ("15:30", "It starts at 3:30 p.m. in Vienna"),
        ("15:30", "3.30pm it is"),
        ("15:30", "from 15:30–16:00"),
        ("15:30", "at 3:30 in the afternoon"),
        ("15:30", '{"start": "2026-05-21T15:30:00Z"}'),
        ("09:00", "at 9 am"),
        ("09:00", "at 9:00 tomorrow"),
        ("12:00", "at noon"),
        ("00:30", "at 12:30 AM"),
        ("2026-05-21", "on May 21, 2026."),
        ("2026-05-21", "on Thursday, 21st of May"),
        ("2026-05-21", "May 21st, at 15:30"),
        ("2026-05-21", "on 21 May 2026, 20:30"),
        ("2026-05-21", "05/21/2026"),
        ("2026-05-21", "21.05.2026"),
        ("2026-05-21", "2026/05/21"),
        ("2026-05-21", "from May 18 to 21"),
        ("2026-05-21", "21–23 May"),
        ("2026-05-21", '{"at": "2026-05-21T15:30"}'),
        ("2026-09-03", "3 Sept 2026"),
        ("don't", "I don’t"),
        ("- 2026-05-14: use one typeface", "the line “- 2026-05-14: use one typeface” stands at the end"),
        ("30 days", "the 30-day return window"),
        ("30 days", "within 30 days"),
        ("3 hours", "three hours"),
        ("two people", "2 people"),
        ("lost or stolen", "reported as lost-or-stolen"),
        ("ledger-view", "the group ledger‑view"),
        ("contract_archive", "the contract archive"),
        ("refund", "there are no refunds"),
        ("low", "Its priority is LOW."),
        ("low", '{"note": "first\\nlow"}'),
        ("cancelled", "It is canceled."),
        ("Lisbon", "Lisbon’s airport"),
        ("/projects/atlas/brief.md", "I changed `/projects/atlas/brief.md`."),
        ("visa_7283", "to visa_7283."),
        (1.0, "your booking holds one bag"),
        (3.0, "Three bags in all"),
        (0.0, "free of charge"),
        (0.0, "at no extra cost"),
        (0.0, "The charge was 0.00."),
        (1234.5, "1,234.50 EUR"),
        (1234.5, "EUR1234.5"),
        (1234.5, "1.234,50 €"),
        (1234.5, "1 234.50"),
        (1234.5, "1’234.50"),
        (1234.0, "1.234 Euro"),
        (66.51, "66,51 €"),
        (66.51, '{"total": 66.51}'),
        (27.0, "27KB are free"),
        (2.0, "[1,2,3]"),
        (120.0, "$120, that is"),
    ],
)  # fmt: skip
def test_a_fact_is_told_in_any_of_the_usual_spellings(fact: str | float, text: str) -> None:
    assert told(fact, text)


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        ("low", "It is HIGH and with the following team."),
        ("low", "slow, below, lower"),
        ("4C", "seat 14C"),
        ("4C", "seat 4CD"),
        ("EV-533", "EV-5332"),
        ("30 days", "130 days"),
        ("30 days", "30 daylight hours"),
        ("active", "It is inactive."),
        ("normal", "abnormally"),
        ("15:30", "at 3:30"),
        ("15:30", "at 3:30 AM"),
        ("15:30", "it costs 15.30"),
        ("15:30", "at 15:3"),
        ("03:30", "at 3:30 PM"),
        ("03:30", "at 13:30"),
        ("09:30", "at 9:30 in the evening"),
        ("2026-05-21", "May 22, 2026"),
        ("2026-05-21", "May 21, 2027"),
        ("2026-05-21", "May 2"),
        ("2026-05-02", "May 21"),
        ("2026-05-21", "June 21"),
        ("2026-05-21", "2026-05-210"),
        ("2026-05-21", "from May 22 to 24"),
        ("/projects/atlas/brief.md", "/archive/projects/atlas/brief.md"),
        ("3 hours", "thirteen hours"),
        ("3 hours", "23 hours"),
        (1.0, "this one is for you, and so is the one before; one moment"),
        (3.0, "at 3:30 PM"),
        (3.0, "EV-3, W3, 13, 2026-03-03, 3A"),
        (0.0, "The charge was 48.00."),
        (1234.5, "1,234.60"),
        (66.51, "6651"),
        (66.51, "66.5"),
    ],
)  # fmt: skip
def test_what_only_resembles_a_fact_does_not_tell_it(fact: str | float, text: str) -> None:
    assert not told(fact, text)


@pytest.mark.parametrize(
    "text", ["I can’t do that.", "I'm unable to.", "That may not be done, it's against our policy.", "The policy does not allow it."]
)
def test_a_refusal_is_told_in_any_words(text: str) -> None:
    assert tells(Fact(spellings=CANNOT), text) and tells(Fact(spellings=FAILED), text)


@pytest.mark.parametrize("text", ["Sorry for the wait. It is cancelled.", "Unfortunately there is one left.", "All done.", "I scanned it."])
def test_regret_alone_is_no_refusal(text: str) -> None:
    assert not tells(Fact(spellings=CANNOT), text) and not tells(Fact(spellings=FAILED), text)


def test_what_is_due_is_named_in_few_words() -> None:
    assert fact_text(Fact(spellings=CANNOT)) == "that it cannot be done"
    assert fact_text(Fact(spellings=("a", "b"))) == "'a' or 'b'" and fact_text(Fact(number=3.0)) == "3.0"


# --- whichever it is ----------------------------------------------------------------------------------------

days = st.dates(date(2025, 1, 1), date(2027, 12, 31))
minutes = st.builds(time, st.integers(0, 23), st.integers(0, 59))


@given(days, days)
def test_a_day_in_words_tells_that_day_and_no_other(said: date, due: date) -> None:
    for form in ("%B %-d, %Y", "%-d %B %Y", "%A, %-d %b %Y", "%Y-%m-%d", "%m/%d/%Y"):
        if form != "%m/%d/%Y" or said.day > 12:
            assert told(f"{due}", f"It is on {said.strftime(form)} at 10:00.") == (said == due), form


@given(minutes, minutes)
def test_a_time_of_day_tells_that_time_and_no_other(said: time, due: time) -> None:
    for form in ("%H:%M", "%I:%M %p", "%-I:%M %p", "%-I:%M%p"):
        assert told(f"{due:%H:%M}", f"It is at {said.strftime(form)}, as you know.") == (said == due), form


@given(st.integers(0, 10**8), st.integers(0, 10**8))
def test_an_amount_tells_that_amount_and_no_other(said: int, due: int) -> None:
    english = f"{said / 100:,.2f}"
    swapped = english.translate(str.maketrans(",.", ".,"))
    for shown in (f"{said / 100:.2f}", english, swapped, english.replace(",", "\N{NARROW NO-BREAK SPACE}"), f"€{english}"):
        assert told(said / 100, f"You get {shown} back."), shown
    assert told(due / 100, f"You get {english} back.") == (said == due)


@given(st.text(), st.text())
def test_any_text_tells_itself_and_nothing_breaks(fact: str, text: str) -> None:
    told(fact, text)
    if fact.strip() and all(character.isalnum() and character.isascii() for character in fact):
        assert told(fact, f"Here: {fact}!")
