"""What counts as a near-duplicate of a trace, and which of two stays."""

from __future__ import annotations

from typing import Any

import pytest

from tracemill.hygiene.minhash import PLACES, band_rows
from tracemill.hygiene.near_duplicates import Sketches, sketch

ASK = "Hello, please tell me when flight {} leaves and how much it costs in the standard fare, with one suitcase."


def conversation(says: str, *calls: tuple[str, dict[str, Any], str]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Work."}, {"role": "user", "content": says}]
    for number, (name, arguments, result) in enumerate(calls, 1):
        call = {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"call_{number}", "name": name, "content": result})
    return [*messages, {"role": "assistant", "content": "At nine."}]


def flight(number: str, result: str = "{}", says: str = ASK) -> list[dict[str, Any]]:
    return conversation(says.format(number), ("get_flight", {"flight": number}, result))


def repeats(*conversations: list[dict[str, Any]], similar: float = 0.8, scenarios: list[Any] | None = None) -> dict[int, int]:
    """Number of each near-duplicate, with that of the one it is like."""
    sketches = Sketches()
    for at, one in enumerate(conversations):
        sketches.add(sketch(one, scenarios[at] if scenarios else None))
    found = sketches.repeats(range(len(conversations)), similar)
    return {at: one.other for at, one in found.items()}


def test_traces_that_differ_by_a_number_are_near_duplicates_and_the_first_stays() -> None:
    assert repeats(flight("WF100"), flight("WF200"), flight("WF300")) == {1: 0, 2: 0}


def test_without_spaces_each_sign_is_a_word() -> None:
    asked = "请帮我查询一下明天上午从北京飞往上海的航班，并且告诉我最便宜的那一班的价格是多少"
    assert repeats(conversation(asked), conversation(f"{asked}，谢谢"), conversation("请问怎样才能退掉我上周在你们店里买的那双鞋子")) == {
        1: 0
    }


def test_another_wish_or_another_call_is_no_near_duplicate() -> None:
    other = conversation(ASK.format("WF1"), ("find_hotel", {"flight": "WF1"}, "{}"))
    more = conversation(ASK.format("WF1"), ("get_flight", {"flight": "WF1"}, "{}"), ("get_flight", {"flight": "WF1"}, "{}"))
    assert repeats(flight("WF1"), other, more, flight("WF1", says="Cancel {} and give me all of my money back at once.")) == {}


def test_a_trace_that_recovers_from_a_failed_call_is_not_like_one_in_which_it_did_not_fail() -> None:
    assert repeats(flight("WF1"), flight("WF2", '{"error": {"code": "timeout"}}')) == {}


def test_trouble_that_leaves_no_mark_in_the_calls_sets_traces_apart() -> None:
    calm: dict[str, Any] = {"kind": "tool_call", "ending": "done"}
    troubled = {**calm, "faults": [{"kind": "injection", "tool": "get_flight"}]}
    assert repeats(flight("WF1"), flight("WF2"), scenarios=[calm, troubled]) == {}
    assert repeats(flight("WF1"), flight("WF2"), scenarios=[troubled, troubled]) == {1: 0}


def test_what_is_like_a_removed_one_stays_if_it_is_like_none_that_stays() -> None:
    words = [f"w{chr(97 + at)}" for at in range(26)]
    a, b, c = (conversation(" ".join(words[at : at + 20])) for at in (0, 3, 6))  # neighbours share 15 of 21 grams, the ends 12 of 24
    assert repeats(a, b, c, similar=0.6) == {1: 0}
    assert repeats(b, a, c, similar=0.6) == {1: 0, 2: 0}


def test_similarity_is_exact_not_that_of_the_signatures() -> None:
    words = [f"w{chr(97 + at // 20)}{chr(97 + at % 20)}" for at in range(102)]
    a, b = conversation(" ".join(words)), conversation(" ".join([*words[:97], "v", "v", "v", "v", "v"]))
    sketches = Sketches()
    for one in (a, b):
        sketches.add(sketch(one))
    (like,) = sketches.repeats([0, 1], 0.8).values()
    first, second = (sketch(one).grams for one in (a, b))
    assert like.similarity == len(first & second) / len(first | second)
    assert not sketches.repeats([0, 1], like.similarity + 1e-9)


@pytest.mark.parametrize("similar", [0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_find_a_pair_at_any_threshold(similar: float) -> None:
    rows = band_rows(similar)
    assert PLACES % rows == 0
    assert 1 - (1 - similar**rows) ** (PLACES // rows) >= 0.9
