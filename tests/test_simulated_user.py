"""A user played by a model: what it is shown, and which of its replies can be used."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracemill.generators.environments.catalogue import environment
from tracemill.generators.rollout import rollout
from tracemill.generators.scenario import Mix, scenario
from tracemill.generators.teachers.base import Reply, Request
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.generators.teachers.simulated_user import MOST_CHARACTERS, USER_SCHEMA, read_user, user_messages
from tracemill.generators.teachers.slots import asks_for
from tracemill.schemas.check import Checker
from tracemill.trace import (
    AssistantMessage,
    Constraint,
    FunctionCall,
    Interjection,
    Message,
    Persona,
    Scenario,
    Slot,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)  # fmt: skip

LATE = Interjection(after=0, says="Oh, and it must be there by the 14th.", constraint=1)
ORDER = Slot(name="order_id", label="order number", value="W10234", withheld=True)
STREET = Slot(name="street", label="new street address", value="184 Mill Road", withheld=True)
EMAIL = Slot(name="email", label="e-mail address", value="ada@example.com")
SCENARIO = Scenario(
    index=0, seed=1, kind="tool_call", environment="store", template="t", world=0, difficulty=1, persona=Persona(tone="worried"),
    opening="My $order has to go to Oslo, please. I am ada@example.com.", slots=(ORDER, STREET, EMAIL), interjections=(LATE,),
    constraints=(Constraint(text="it costs no more than 20 EUR", keywords=()), Constraint(text="there on Friday", keywords=())),
    answer="Done.",
)  # fmt: skip
POLICY = SystemMessage(content="The policy.")
OPENING = UserMessage(content=SCENARIO.opening)


def agent(text: str, **more: Any) -> AssistantMessage:
    return AssistantMessage(content=text, **more)


def after(*messages: Message, **changed: Any) -> Request:
    return Request("user", [POLICY, OPENING, *messages], (), SCENARIO.model_copy(update=changed))


def says(text: str, done: bool = False) -> str:
    return json.dumps({"say": text, "done": done})


def problem(text: str, *messages: Message, **changed: Any) -> str:
    return read_user(text, after(*messages, **changed))[2]


# --- what it is shown ---------------------------------------------------------------------------------------


def instructions(request: Request) -> str:
    first = user_messages(request)[0]
    assert isinstance(first, SystemMessage)
    return first.content


def section(text: str, head: str) -> str:
    return text.split(head, 1)[1].split("\n\n", 1)[0]


def test_the_model_is_told_who_it_is_and_what_it_knows() -> None:
    text = instructions(after(agent("Hello.")))
    assert SCENARIO.opening in text, "dollar signs in it are no placeholders"
    assert "Your tone is worried." in text
    assert "order number: W10234" in section(text, "tell only when the agent asks for it:")
    assert "e-mail address: ada@example.com" in section(text, "What you know:")
    assert LATE.says in section(text, "against what you wanted before:")
    assert "20 EUR" in section(text, "What has to be respected in it:")
    assert "Friday" not in text, "what an interjection brings is not known before it"


def test_what_a_user_has_none_of_is_said_to_be_nothing() -> None:
    text = instructions(after(agent("Hello."), slots=(), constraints=(), interjections=()))
    assert text.count("- nothing") == 4


def test_the_instructions_stay_the_same_throughout_a_conversation() -> None:
    early, late = after(agent("Which order?")), after(agent("Which order?"), UserMessage(content=LATE.says), agent("Done."))
    assert user_messages(early) == user_messages(late)[:-2]


def test_the_user_hears_the_agents_words_and_nothing_else_of_it() -> None:
    made = ToolCall(id="call_1", function=FunctionCall(name="get_order", arguments={"id": "SECRET-1"}))
    seen = user_messages(
        after(
            agent("One moment.", reasoning_content="SECRET-2", tool_calls=(made,)),
            ToolMessage(tool_call_id="call_1", name="get_order", content="SECRET-3"),
            agent("", reasoning_content="SECRET-4", tool_calls=(made.model_copy(update={"id": "call_2"}),)),
            ToolMessage(tool_call_id="call_2", name="get_order", content="SECRET-5"),
            agent("Which street?"),
        )
    )
    assert [one.role for one in seen] == ["system", "user", "assistant", "user"]
    assert seen[-1] == UserMessage(content="One moment.\n\nWhich street?")
    assert not any("SECRET" in one.content or "The policy" in one.content for one in seen)


def test_roles_are_flipped_and_alternate_from_the_agents_greeting_to_its_last_words() -> None:
    seen = user_messages(after(UserMessage(content=LATE.says), agent("Which street?"), UserMessage(content="Mill Road."), agent("Done.")))
    assert [one.role for one in seen] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert seen[1].content == "Hello, how can I help you?"
    assert json.loads(seen[2].content) == {"say": f"{SCENARIO.opening}\n\n{LATE.says}", "done": False}
    assert json.loads(seen[4].content)["say"] == "Mill Road."
    assert [one.content for one in seen[3::2]] == ["Which street?", "Done."]


def test_what_could_not_be_used_and_the_notice_about_it_are_no_part_of_the_users_conversation() -> None:
    broken = (agent("<tool_call> W10234", train=False), UserMessage(content="[runtime] Write the message again: A-77."))
    request = after(agent("Which street?"), UserMessage(content="Mill Road."), *broken, agent("Shall I?"))
    assert [one.content for one in user_messages(request)[3:]] == ["Which street?", says("Mill Road."), "Shall I?"]
    assert "before the agent has asked" in read_user(says("W10234."), request)[2]
    assert "makes up 'a-77'" in read_user(says("It is A-77."), request)[2]


def test_an_agent_that_says_nothing_has_the_last_word_all_the_same() -> None:
    assert user_messages(after(agent("")))[-1] == UserMessage(content="")


# --- what its reply is worth --------------------------------------------------------------------------------


def test_the_reply_schema_is_a_valid_schema() -> None:
    assert Checker(USER_SCHEMA).problems(json.loads(says("Yes."))) == []


def test_a_plain_reply_is_read() -> None:
    assert read_user(says(" Yes, please. "), after(agent("Shall I?"))) == ("Yes, please.", False, "")
    assert read_user(says("", done=True), after(agent("Done."))) == ("", True, "")


def test_thinking_and_fences_around_a_reply_are_passed_over() -> None:
    text = f"<think>maybe {says('No.')}</think>\n```json\n{says('Yes.')}\n```"
    assert read_user(text, after(agent("Shall I?"))) == ("Yes.", False, "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Yes, please.", "no JSON object"),
        ("", "no JSON object"),
        ("{" * 5000, "no JSON object"),
        ('{"done": true}', "no JSON object"),
        ('{"say": 5, "done": false}', "$.say"),
        ('{"say": "Yes.", "done": "no"}', "$.done"),
        ('{"say": "Yes."}', "done"),
        ('{"say": "Yes.", "done": false, "mood": "good"}', "mood"),
        (says("  \n"), "says nothing"),
        (says("a" * (MOST_CHARACTERS + 1)), "2001 characters"),
        ('{"say": "Yes \\ud83d", "done": false}', "broken"),
        (says("Yes \N{REPLACEMENT CHARACTER}"), "broken"),
    ],
)
def test_a_reply_that_does_not_fit_gives_a_problem(text: str, why: str) -> None:
    assert why in problem(text, agent("Shall I?"))


def test_a_withheld_fact_may_be_told_when_it_is_asked_for_and_not_before() -> None:
    assert "order number before" in problem(says("It is W10234."), agent("Hello, what can I do?"))
    assert problem(says("It is W10234."), agent("Could you tell me the order number?")) == ""
    assert "new street address" in problem(says("W10234, and 184 Mill Road."), agent("Could you tell me the order number?"))
    assert problem(says("W10234, and 184 Mill Road."), agent("What are the order number and the new street address?")) == ""


@pytest.mark.parametrize(
    "question",
    ["Which order is it?", "Could you share your order ID?\nThank you!", "Please provide the number of the order.", "**Order number**?"],
)
def test_asking_in_other_words_is_asking(question: str) -> None:
    assert problem(says("W10234."), agent(question)) == ""


@pytest.mark.parametrize("spoken", ["my number is w10234", "it goes to 184\n mill ROAD.", "(W10234)"])
def test_spelling_a_withheld_fact_in_another_way_is_telling_it(spoken: str) -> None:
    assert "before the agent has asked" in problem(says(spoken), agent("Hello."))


def test_what_was_asked_told_or_named_before_may_be_said_again() -> None:
    asked = agent("What is the order number?")
    assert problem(says("W10234."), asked, UserMessage(content="One moment."), agent("Yes?")) == ""
    assert problem(says("W10234, as I said."), asked, UserMessage(content="W10234."), agent("Yes?")) == ""
    assert problem(says("Yes, W10234."), agent("I found W10234.")) == ""


def test_what_only_the_agent_has_seen_is_not_known_to_the_user() -> None:
    made = ToolCall(id="call_1", function=FunctionCall(name="list_orders", arguments={"order": "W10234"}))
    messages = (agent("", tool_calls=(made,)), ToolMessage(tool_call_id="call_1", name="list_orders", content="W10234 A-77"), agent("Yes?"))
    assert "before the agent has asked" in problem(says("W10234."), *messages)
    assert "makes up 'a-77'" in problem(says("It is A-77."), *messages)


@pytest.mark.parametrize("invented", ["W1023", "W10235", "bob@example.com", "12.50", "2026-05-14", "/orders/7"])
def test_an_identifier_from_nowhere_is_made_up(invented: str) -> None:
    assert "makes up" in problem(says(f"I mean {invented}."), agent("Which order?"))


@pytest.mark.parametrize("known", ["ada@example.com", "ADA@example.com.", "20", "the 14th", "(A-77)", "A-77's", "W10234", "€31.50?"])
def test_what_the_user_knows_or_was_told_may_be_said(known: str) -> None:
    assert problem(says(f"I mean {known}, no?"), agent("Order A-77 is 31.50. What is the order number?")) == ""


async def test_all_that_the_scripted_user_says_can_be_used() -> None:
    heard: list[tuple[str, str]] = []

    class Overheard(ScriptedTeacher):
        async def reply(self, request: Request) -> Reply:
            reply = await super().reply(request)
            if request.role == "user":
                assert user_messages(request)[-1].role == "user"
                heard.append((reply.text, read_user(says(reply.text, reply.done), request)[2]))
            return reply

    teacher = Overheard()
    for index in range(80):
        drawn = scenario(3, index, Mix())
        env = await environment(drawn.environment).reset(drawn)
        try:
            await rollout(drawn, env, teacher, teacher)
        finally:
            await env.close()
    assert sum(bool(text) for text, _ in heard) > 40
    assert [(text, found) for text, found in heard if found] == []


# --- whatever it writes -------------------------------------------------------------------------------------

texts = st.text(max_size=60)
leaks = st.sampled_from([ORDER.value, STREET.value, STREET.value.upper(), ORDER.value.lower()])
replies = st.one_of(
    texts,
    st.builds(lambda value: json.dumps(value), st.dictionaries(st.sampled_from(["say", "done", "more"]), st.one_of(texts, st.booleans()))),
    st.builds(lambda before, say, done: before + says(say, done), texts, texts, st.booleans()),
)


@given(replies)
@settings(max_examples=300)
def test_no_text_raises_and_none_that_passes_is_empty_or_long_or_broken(text: str) -> None:
    say, done, found = read_user(text, after(agent("Hello.")))
    if not found:
        assert (say or done) and len(say) <= MOST_CHARACTERS
        assert say.encode().decode() == say


@given(
    texts, leaks, texts, st.booleans(), st.sampled_from(["Hello.", "Is there anything else?", "What is your e-mail, my friend?", "Done."])
)
@settings(max_examples=300)
def test_no_reply_passes_that_tells_what_was_not_asked_for(before: str, leak: str, behind: str, done: bool, heard: str) -> None:
    assert not any(asks_for(slot, heard) for slot in (ORDER, STREET))
    assert problem(says(f"{before} {leak} {behind}", done), agent(heard))
