"""Preference pairs from siblings: where they part, what is chosen, and what the pair teaches."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracemill.siblings import Divergence, Sibling, pairs
from tracemill.trace import (
    AssistantMessage,
    FunctionCall,
    Message,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
    canonical,
)  # fmt: skip

HEAD: tuple[Message, ...] = (SystemMessage(content="You help."), UserMessage(content="Cancel my order."))
ASK = AssistantMessage(content="Which order is it?")
GUESS = AssistantMessage(content="It is cancelled.")
REFUSE = AssistantMessage(content="I may not cancel that.")
DONE = AssistantMessage(content="Done.")
YES = UserMessage(content="W1, please.")


def call(tool: str, *, at: int = 1, think: str | None = None, say: str = "", train: bool = True, **arguments: Any) -> AssistantMessage:
    made = ToolCall(id=f"call_{at}", function=FunctionCall(name=tool, arguments=arguments))
    return AssistantMessage(content=say, reasoning_content=think, tool_calls=(made,), train=train)


def result(tool: str, text: str = "{}", at: int = 1) -> ToolMessage:
    return ToolMessage(tool_call_id=f"call_{at}", name=tool, content=text)


def went(*messages: Message, success: bool, troubled: tuple[str, ...] = (), counts: bool = True) -> Sibling:
    return Sibling((*HEAD, *messages), success, troubled, counts)


def good(*messages: Message, **more: Any) -> Sibling:
    return went(*messages, success=True, **more)


def bad(*messages: Message, **more: Any) -> Sibling:
    return went(*messages, success=False, **more)


def only(*siblings: Sibling) -> Divergence:
    (found,) = pairs(siblings)
    return found


LOOK, CANCEL = call("get_order", order="W1"), call("cancel_order", order="W1")


def test_the_message_that_led_to_the_goal_is_chosen_after_what_was_shared() -> None:
    found = only(good(LOOK, result("get_order"), DONE), bad(CANCEL, result("cancel_order"), DONE))
    assert (found.prompt, found.chosen, found.rejected, found.margin) == (HEAD, LOOK, CANCEL, 1.0)


def test_siblings_that_all_succeed_or_all_fail_or_never_part_teach_nothing() -> None:
    assert list(pairs([])) == []
    assert list(pairs([good(LOOK, DONE)])) == []
    assert list(pairs([good(LOOK, DONE), good(CANCEL, DONE)])) == []
    assert list(pairs([bad(LOOK, DONE), bad(CANCEL, DONE)])) == []
    assert list(pairs([good(LOOK, DONE), bad(LOOK, DONE)])) == []


def test_the_margin_is_the_difference_of_the_rates_of_success() -> None:
    """Two of three after a look-up, none of one after a cancellation, half of those that ask."""
    siblings = [good(LOOK, DONE), good(LOOK, DONE), bad(LOOK, DONE), bad(CANCEL, DONE), good(ASK, YES, DONE), bad(ASK, YES, DONE)]
    found = only(*siblings)
    assert (found.chosen, found.rejected) == (LOOK, CANCEL)
    assert found.margin == pytest.approx(2 / 3)


def test_thinking_and_wording_beside_the_same_calls_make_no_decision_of_their_own() -> None:
    same = [call("get_order", order="W1", think=think, say=say) for think, say in (("Look first.", ""), ("Hm.", "One moment."))]
    assert list(pairs([good(same[0], DONE), bad(same[1], DONE)])) == []
    found = only(good(same[0], DONE), bad(same[1], DONE), bad(CANCEL, DONE))
    assert found.margin == 0.5, "both wordings are the one decision to look"
    assert found.chosen == same[0], "the wording that led to the goal"


def test_white_space_is_no_difference_in_words() -> None:
    assert list(pairs([good(AssistantMessage(content="Done. ")), bad(AssistantMessage(content="Done."))])) == []


def test_the_order_of_arguments_is_no_difference_in_a_call() -> None:
    one, other = call("move", a=1, b=2), call("move", b=2, a=1)
    later = [good(one, result("move"), LOOK, DONE), bad(other, result("move"), CANCEL, DONE)]
    assert [(len(found.prompt), found.chosen) for found in pairs(later)] == [(4, LOOK)]


def test_every_point_where_siblings_part_gives_one_pair_the_earliest_first() -> None:
    seen = result("get_order")
    siblings = [good(LOOK, seen, ASK, YES, DONE), bad(LOOK, seen, GUESS), bad(CANCEL, DONE), bad(REFUSE)]
    assert [(len(found.prompt), found.chosen) for found in pairs(siblings)] == [(2, LOOK), (4, ASK)]


def test_the_earliest_point_comes_first_in_whichever_way_it_lies() -> None:
    first, second = (LOOK, result("get_order")), (CANCEL, result("cancel_order"))
    for short, long in ((first, second), (second, first)):
        siblings = [good(*short, ASK), bad(*short, GUESS), good(*long, YES, ASK), bad(*long, YES, GUESS)]
        assert [len(found.prompt) for found in pairs(siblings)] == [4, 5]


def test_of_equal_decisions_the_one_that_more_siblings_took_is_paired() -> None:
    for often, seldom in ((LOOK, CANCEL), (CANCEL, LOOK)):
        assert only(good(often, DONE), good(often, DONE), good(seldom, DONE), bad(GUESS)).chosen == often
        assert only(bad(often, DONE), bad(often, DONE), bad(seldom, DONE), good(ASK)).rejected == often


def test_of_the_wordings_of_a_decision_the_better_is_chosen_and_the_worse_rejected() -> None:
    for better, worse in (("a", "b"), ("b", "a")):
        good_way, bad_way = ([call(tool, think=think) for think in (better, worse)] for tool in ("get_order", "cancel_order"))
        siblings = [
            *(good(good_way[0]), good(good_way[0]), good(good_way[1]), bad(good_way[1])),
            *(good(bad_way[0]), bad(bad_way[0]), bad(bad_way[0]), bad(bad_way[1])),
        ]
        found = only(*siblings)
        assert (found.chosen, found.rejected, found.margin) == (good_way[0], bad_way[1], 0.5)


def test_of_messages_that_count_as_equal_the_same_one_is_taken_in_whatever_order_they_come() -> None:
    one, other = call("move", a=1, b=2), call("move", b=2, a=1)
    siblings = [good(one, result("move"), LOOK), bad(other, result("move"), CANCEL), good(other, result("move"), LOOK)]
    texts = {json.dumps([m.plain() for m in only(*some).prompt]) for some in itertools.permutations(siblings)}
    assert len(texts) == 1


def test_what_the_user_or_a_tool_said_differently_parts_siblings_without_a_pair() -> None:
    assert list(pairs([good(ASK, YES, DONE), bad(ASK, UserMessage(content="No idea."), DONE)])) == []
    assert list(pairs([good(LOOK, result("get_order", "1"), DONE), bad(LOOK, result("get_order", "2"), GUESS)])) == []


def test_a_sibling_that_does_not_count_is_left_out() -> None:
    assert list(pairs([good(LOOK, DONE), bad(CANCEL, DONE, counts=False)])) == []
    assert only(good(LOOK, DONE), bad(LOOK, DONE, counts=False), bad(CANCEL, DONE)).margin == 1.0


def test_a_message_that_was_marked_wrong_can_be_rejected_and_never_chosen() -> None:
    wrong = call("get_order", order="W9", train=False)
    assert only(good(LOOK, DONE), bad(wrong, DONE)).rejected == wrong
    assert list(pairs([good(wrong, DONE), bad(CANCEL, DONE)])) == []
    found = only(good(wrong, DONE), good(LOOK, DONE), bad(LOOK, DONE), bad(CANCEL, DONE))
    assert (found.chosen, found.margin) == (LOOK, 0.5), "the best that may be chosen"


STRUCK = (LOOK, result("get_order", '{"error": {"code": "timeout"}}'))
AGAIN = call("get_order", at=2, order="W1")
WAIT = call("wait", at=2, seconds=5)


@pytest.mark.parametrize(
    ("source", "siblings"),
    [
        ("recovery", [good(*STRUCK, WAIT, DONE, troubled=("call_1",)), bad(*STRUCK, AGAIN, DONE, troubled=("call_1", "call_2"))]),
        ("recovery", [good(*STRUCK, YES, WAIT, DONE, troubled=("call_1",)), bad(*STRUCK, YES, GUESS, troubled=("call_1",))]),
        ("siblings", [good(*STRUCK, WAIT, DONE), bad(*STRUCK, AGAIN, DONE)]),
        ("siblings", [good(*STRUCK, WAIT, result("wait", at=2), LOOK, troubled=("call_1",)),
                      bad(*STRUCK, WAIT, result("wait", at=2), CANCEL, troubled=("call_1",))]),
        ("ask", [good(ASK, YES, DONE), bad(LOOK, DONE)]),
        ("ask", [good(ASK, YES, DONE), bad(GUESS)]),
        ("siblings", [good(ASK, YES, DONE), bad(AssistantMessage(content="What?"), YES, DONE)]),
        ("call", [good(LOOK, DONE), bad(GUESS)]),
        ("call", [good(LOOK, DONE), bad(ASK, YES, DONE)]),
        ("refuse", [good(REFUSE), bad(CANCEL, DONE)]),
        ("siblings", [good(REFUSE), bad(GUESS)]),
        ("siblings", [good(LOOK, DONE), bad(CANCEL, DONE)]),
    ],
)  # fmt: skip
def test_the_source_names_what_the_pair_teaches(source: str, siblings: list[Sibling]) -> None:
    assert only(*siblings).source == source


# --- whatever the siblings ----------------------------------------------------------------------------------

TURNS: list[Message] = [
    LOOK,
    CANCEL,
    call("get_order", order="W1", think="Hm."),
    call("get_order", order="W1", train=False),
    ASK,
    GUESS,
    result("get_order"),
    YES,
]


@st.composite
def families(draw: st.DrawFn) -> list[Sibling]:
    drawn = draw(st.lists(st.tuples(st.lists(st.sampled_from(TURNS), max_size=4), st.booleans(), st.booleans()), max_size=7))
    return [went(*messages, success=success, counts=counts) for messages, success, counts in drawn]


def decision(message: AssistantMessage) -> str:
    return canonical([[one.name, one.arguments] for one in message.tool_calls or ()]) if message.tool_calls else message.content


def took(siblings: Sequence[Sibling], prompt: tuple[Message, ...], message: AssistantMessage) -> list[Sibling]:
    return [one for one in siblings if one.counts and one.messages[: len(prompt) + 1] == (*prompt, message)]


@given(families(), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_every_pair_stands_between_a_success_and_a_failure_that_share_its_prompt(siblings: list[Sibling], rng: random.Random) -> None:
    found = list(pairs(siblings))
    for one in found:
        assert any(sibling.success for sibling in took(siblings, one.prompt, one.chosen))
        assert any(not sibling.success for sibling in took(siblings, one.prompt, one.rejected))
        assert 0 < one.margin <= 1
        assert one.chosen.train and decision(one.chosen) != decision(one.rejected)
    assert len({canonical([message.plain() for message in one.prompt]) for one in found}) == len(found), "one pair for each point"
    shuffled = list(siblings)
    rng.shuffle(shuffled)
    assert list(pairs(shuffled)) == found


@given(families())
@settings(max_examples=200, deadline=None)
def test_two_messages_that_always_and_never_led_to_the_goal_are_not_overlooked(siblings: list[Sibling]) -> None:
    """Wherever one decision always fails and another, that may be chosen, always succeeds, there is a pair of margin 1."""
    found = {canonical([message.plain() for message in one.prompt]): one for one in pairs(siblings)}
    counted = [one for one in siblings if one.counts]
    for sibling in counted:
        for at in range(2, len(sibling.messages)):
            prompt = sibling.messages[:at]
            ways: dict[str, list[tuple[bool, bool]]] = {}
            for one in counted:
                if one.messages[:at] == prompt and len(one.messages) > at and isinstance(message := one.messages[at], AssistantMessage):
                    ways.setdefault(decision(message), []).append((one.success, message.train))
            sure = any(all(success for success, _ in way) and any(train for _, train in way) for way in ways.values())
            if sure and any(not any(success for success, _ in way) for way in ways.values()):
                assert found[canonical([message.plain() for message in prompt])].margin == 1
