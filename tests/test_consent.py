"""What asks the user to agree, what asks for a fact, and what asks for nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable

import pytest

from tracemill.config import load_config
from tracemill.generators.teachers.base import Reply, Request
from tracemill.generators.teachers.consent import wants_answer, wants_consent
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.generators.teachers.slots import asks_for
from tracemill.trace import Slot
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.play import Player
from tracemill.train.evaluate.suite import SuiteConfig

NUMBER = Slot(name="order_id", label="order number", value="W10234", withheld=True)
PAYEE = Slot(name="number", label="payee's account number", value="XB-931370", withheld=True)
STREET = Slot(name="street", label="new street address", value="9 Hill Lane", withheld=True)
BAGS = Slot(name="bags", label="number of bags", value="2", withheld=True)
LENGTH = Slot(name="minutes", label="length in minutes", value="45", withheld=True)
EMAIL = Slot(name="email", label="e-mail address", value="ada@example.com")


@pytest.mark.parametrize(
    "said",
    [
        "Would you like me to cancel order W1?",
        "Should I cancel it?",
        "Please confirm that I should cancel it.",
        "Do you confirm that I cancel it?",
        "Is it OK if I cancel it?",
        "I would cancel it. May I?",
        "I can cancel order W1 and refund 42.50. Ready?",
        "Do I have your permission to cancel it?",
        "I need your confirmation before I cancel it.",
        "I'll cancel it once you confirm.",
        "If that’s okay, I will cancel it.",
        "Let me know if I should go ahead.",
        "Can I go ahead, or is there anything else?",
        "Is there anything else, or shall I cancel it?",
        "Is there anything else before I cancel it?",
        "Just reply with yes/no.",
        "Type 'YES' to continue.",
        "Please verify that this is correct.",
        "Please let me know how you would like to proceed.",
        "**Shall I go ahead?**",
        "How does that sound?",
    ],
)
def test_this_asks_the_user_to_agree(said: str) -> None:
    assert wants_consent(said) and wants_answer(said)


@pytest.mark.parametrize(
    "said",
    [
        "It is cancelled. Is there anything else?",
        "Shall I help with anything else?",
        "Would you like me to do anything else for you?",
        "Can I help you with anything further, or answer other questions?",
        "Does that answer your question?",
        "How else may I help you?",
        "Is there any other way I can help?",
        "Will that be all?",
        "Is everything clear?",
        "Do you have any questions?",
        "It's all confirmed; anything else I can do?",
        "Please let me know if you need anything more.",
        "All right, I confirm that it is cancelled.",
        "I will go ahead and cancel it now.",
        "Please change it when you sign in; your order is confirmed.",
        "",
    ],
)
def test_this_is_courtesy_or_tells_something(said: str) -> None:
    assert not wants_consent(said) and not wants_answer(said)


@pytest.mark.parametrize(
    "said",
    [
        "What is your favourite colour?",
        "Which order is it?",
        "To go on, which order is it?",
        "Could you tell me the order number?",
        "Do you know when it was placed?",
        "Please tell me the order number.",
        "I would like to know your reason.",
        "Could you confirm the order number?",
        "To proceed I need your order number.",
    ],
)
def test_this_asks_for_a_fact_and_not_for_consent(said: str) -> None:
    assert wants_answer(said) and not wants_consent(said, (NUMBER, EMAIL))


@pytest.mark.parametrize(
    ("slot", "said"),
    [
        (PAYEE, "Payee's account number, please?"),
        (PAYEE, "I need the payee’s account number."),
        (PAYEE, "I would like to know your payee's account number."),
        (PAYEE, "What is the account number?"),
        (NUMBER, "Order Number?"),
        (NUMBER, "Which number?"),
        (NUMBER, "Please give me the following:\n1. **Order number**\n2. The reason"),
        (NUMBER, "Please provide the number of the order."),
        (STREET, "What is the new address?"),
        (STREET, "Could you give me your street address?"),
        (BAGS, "How many bags would you like to add?"),
        (LENGTH, "What length should the meeting have?"),
    ],
)
def test_a_fact_is_asked_for_by_its_label_or_by_the_noun_of_it(slot: Slot, said: str) -> None:
    assert asks_for(slot, said, (slot, Slot(name="name", label="name", value="Ada")))


@pytest.mark.parametrize(
    ("slot", "said"),
    [
        (NUMBER, "What is your phone number?"),
        (NUMBER, "What is the number of bags?"),
        (NUMBER, "Your order number is on the invoice."),
        (NUMBER, "Is it order number W10234?"),
        (STREET, "What is your e-mail address?"),
        (STREET, "Which address?"),  # it may be the e-mail address
        (BAGS, "What is your booking number?"),
        (LENGTH, "How many minutes are left?"),
    ],
)
def test_another_fact_or_none_is_asked_for(slot: Slot, said: str) -> None:
    assert not asks_for(slot, said, (slot, EMAIL))


# --- whoever asks, in whatever words -------------------------------------------------------------------------


def played(how: Callable[[str], str]) -> list[Episode]:
    """Episodes of an agent that does all as the expert does and says it in other words."""
    expert = ScriptedTeacher()

    class Reworded(ScriptedTeacher):
        async def reply(self, request: Request) -> Reply:
            said = await expert.reply(request)
            return said if said.calls else dataclasses.replace(said, text=how(said.text))

    player = Player(load_config(None, {"flaws": 0.0}), SuiteConfig(suite="standard", scenarios=20))
    player._policies = {mode: Reworded() for mode in player._policies}

    async def run() -> list[Episode]:
        return [one.episode for index in range(len(player._plan)) if (one := await player.mill(index)).episode is not None]

    return asyncio.run(run())


def asking_by(question: str) -> Callable[[str], str]:
    """The expert's words with this question in place of those by which it asks for consent."""

    def reworded(text: str) -> str:
        text = re.sub(r"(?i)\bshall I ([^?.]*)\?|\bdo you want me to ([^?]*)\?", lambda m: question.format(m[1] or m[2]), text)
        return re.sub(r"(?i)is that all right\?|do you agree\?", question.format("go ahead"), text)

    return reworded


@pytest.mark.parametrize("question", ["Would you like me to {}?", "Please confirm that I should {}.", "Is it OK if I {}?"])
def test_consent_is_given_and_counts_however_it_is_asked_for(question: str) -> None:
    episodes = played(asking_by(question))
    confirmed = [one for one in episodes if any(step.confirm for step in one.scenario.steps)]
    assert len(confirmed) >= 10
    for one in episodes:
        assert one.success, (one.scenario.template, one.outcome, one.messages[-1].content)
        assert [verdict.principle for verdict in one.verdicts if not verdict.passed] == []


ASKING = re.compile(r"(?i)shall I|is that all right\?|do you agree\?|do you want me to|\?\s*$|\bneed the\b")


@pytest.mark.parametrize("closing", [" Shall I help with anything else?", " Would you like me to send you a summary?"])
def test_a_right_answer_stays_the_answer_whatever_courtesy_or_offer_ends_it(closing: str) -> None:
    episodes = played(lambda text: text if ASKING.search(text) else text + closing)
    assert sum(one.messages[-1].content.endswith(closing) for one in episodes) >= 10
    assert all(one.success for one in episodes)
