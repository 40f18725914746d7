"""Preference pairs from siblings: where they part, what is chosen, and what the pair teaches."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracemill.siblings import Divergence, Sibling, pairs, same_way
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


def parted(*siblings: Sibling) -> list[Divergence]:
    """The first is the accepted one."""
    return list(pairs(siblings[0], siblings[1:]))


def only(*siblings: Sibling) -> Divergence:
    (found,) = parted(*siblings)
    return found


LOOK, CANCEL = call("get_order", order="W1"), call("cancel_order", order="W1")


def test_the_message_that_led_to_the_goal_is_chosen_after_what_was_shared() -> None:
    found = only(good(LOOK, result("get_order"), DONE), bad(CANCEL, result("cancel_order"), DONE))
    assert (found.prompt, found.chosen, found.rejected, found.margin) == (HEAD, LOOK, CANCEL, 1.0)


def test_siblings_that_all_succeed_or_never_part_teach_nothing() -> None:
    assert parted(good(LOOK, DONE)) == []
    assert parted(good(LOOK, DONE), good(CANCEL, DONE)) == []
    assert parted(good(LOOK, DONE), bad(LOOK, DONE)) == []


def test_the_margin_is_the_difference_of_the_rates_of_success() -> None:
    """Two of three after a look-up, none of one after a cancellation, half of those that ask."""
    siblings = [good(LOOK, DONE), good(LOOK, DONE), bad(LOOK, DONE), bad(CANCEL, DONE), good(ASK, YES, DONE), bad(ASK, YES, DONE)]
    found = only(*siblings)
    assert (found.chosen, found.rejected) == (LOOK, CANCEL)
    assert found.margin == pytest.approx(2 / 3)


def test_thinking_and_wording_beside_the_same_calls_part_nobody() -> None:
    """Two samples hardly ever think in the same words: siblings go on together, and part where they do something else."""
    same = [call("get_order", order="W1", think=think, say=say) for think, say in (("Look first.", ""), ("Hm.", "One moment."))]
    assert parted(good(same[0], DONE), bad(same[1], DONE)) == []
    seen = result("get_order")
    found = only(good(same[0], seen, ASK, YES, DONE), bad(same[1], seen, GUESS))
    assert (found.prompt, found.chosen, found.rejected) == ((*HEAD, same[0], seen), ASK, GUESS), "after the accepted one's own words"
    assert only(good(same[0], DONE), bad(same[1], DONE), bad(CANCEL, DONE)).margin == 0.5


def test_white_space_is_no_difference_in_words() -> None:
    assert parted(good(AssistantMessage(content="Done. ")), bad(AssistantMessage(content="Done."))) == []


def test_the_order_of_arguments_is_no_difference_in_a_call() -> None:
    one, other = call("move", a=1, b=2), call("move", b=2, a=1)
    found = only(good(one, result("move"), LOOK, DONE), bad(other, result("move"), CANCEL, DONE))
    assert (len(found.prompt), found.chosen) == (4, LOOK)


def test_every_point_where_others_leave_the_accepted_way_gives_one_pair_the_earliest_first() -> None:
    seen = result("get_order")
    found = parted(good(LOOK, seen, ASK, YES, DONE), bad(LOOK, seen, GUESS), bad(CANCEL, DONE), bad(REFUSE))
    assert [(len(one.prompt), one.chosen) for one in found] == [(2, LOOK), (4, ASK)]


def test_the_decision_that_failed_most_often_is_rejected() -> None:
    assert only(good(ASK), bad(LOOK, DONE), good(LOOK, DONE), bad(CANCEL, DONE)).rejected == CANCEL
    for often, seldom in ((LOOK, CANCEL), (CANCEL, LOOK)):
        assert only(good(ASK), bad(often, DONE), bad(often, DONE), bad(seldom, DONE)).rejected == often, "of equal ones the surer"


def test_what_the_accepted_one_did_is_chosen_only_if_it_did_better() -> None:
    assert parted(good(LOOK, DONE), bad(LOOK, DONE), good(CANCEL, DONE)) == []
    assert parted(good(LOOK, DONE), bad(LOOK, DONE), good(CANCEL, DONE), bad(CANCEL, DONE)) == [], "as often as the other"


def test_what_the_user_or_a_tool_said_differently_parts_siblings_without_a_pair() -> None:
    assert parted(good(ASK, YES, DONE), bad(ASK, UserMessage(content="No idea."), DONE)) == []
    assert parted(good(LOOK, result("get_order", "1"), DONE), bad(LOOK, result("get_order", "2"), GUESS)) == []


def test_a_sibling_that_does_not_count_is_left_out() -> None:
    assert parted(good(LOOK, DONE), bad(CANCEL, DONE, counts=False)) == []
    assert only(good(LOOK, DONE), bad(LOOK, DONE, counts=False), bad(CANCEL, DONE)).margin == 1.0


def test_a_message_that_was_marked_wrong_can_be_rejected_and_never_chosen() -> None:
    wrong = call("get_order", order="W9", train=False)
    assert only(good(LOOK, DONE), bad(wrong, DONE)).rejected == wrong
    assert parted(good(wrong, DONE), bad(CANCEL, DONE)) == []


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


@given(families(), st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_every_pair_stands_between_the_accepted_one_and_a_failure_that_came_the_same_way(
    siblings: list[Sibling], rng: random.Random
) -> None:
    accepted = next((one for one in siblings if one.success and one.counts), None)
    if accepted is None:
        return
    others = [one for one in siblings if one is not accepted]
    found = list(pairs(accepted, others))
    for one in found:
        at = len(one.prompt)
        assert accepted.messages[: at + 1] == (*one.prompt, one.chosen)
        assert any(
            other.counts and not other.success and other.messages[at] == one.rejected and same_way(other.messages[:at], one.prompt)
            for other in others
            if len(other.messages) > at
        )
        assert 0 < one.margin <= 1
        assert one.chosen.train and decision(one.chosen) != decision(one.rejected)
    assert len({len(one.prompt) for one in found}) == len(found), "one pair for each point"
    rng.shuffle(others)
    assert list(pairs(accepted, others)) == found


@given(families())
@settings(max_examples=200)
def test_a_decision_that_always_failed_beside_one_that_never_did_is_not_overlooked(siblings: list[Sibling]) -> None:
    accepted = next((one for one in siblings if one.success and one.counts), None)
    if accepted is None:
        return
    found = {len(one.prompt): one for one in pairs(accepted, [one for one in siblings if one is not accepted])}
    for at in range(2, len(accepted.messages)):
        chosen = accepted.messages[at]
        ways: dict[str, list[bool]] = {}
        for one in siblings:
            if one.counts and len(one.messages) > at and same_way(one.messages[:at], accepted.messages[:at]):
                if isinstance(message := one.messages[at], AssistantMessage):
                    ways.setdefault(decision(message), []).append(one.success)
        if isinstance(chosen, AssistantMessage) and chosen.train and all(ways[decision(chosen)]):
            if any(not any(successes) for successes in ways.values()):
                assert found[at].margin == 1
