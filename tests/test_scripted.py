"""The scripted teacher: right when it means to be, wrong in the way it is told to be, and without memory."""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter
from collections.abc import Sequence
from typing import get_args

import pytest

from tracemill.constitution.constitution import load_constitution
from tracemill.errors import TeacherError
from tracemill.generators.environments.catalogue import BUILT_IN, environment
from tracemill.generators.environments.goal import draw, leaves
from tracemill.generators.scenario import Mix, scenario
from tracemill.generators.teachers.base import Reply, Request, Teacher
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.generators.words import common_rules
from tracemill.pipeline import Job, Milled, Pipeline
from tracemill.trace import (
    KINDS,
    AssistantMessage,
    Call,
    FlawKind,
    Message,
    Persona,
    Scenario,
    Slot,
    SystemMessage,
    ToolMessage,
    Trace,
    UserMessage,
)  # fmt: skip

SOUND = Job(0, Mix(flaws=0.0), "sound")
SPOILED = Job(1, Mix(flaws=1.0), "spoiled")
RETRIES = Job(1, Mix(kinds={"error_recovery": 1.0}, flaws=1.0), "retries")
STORE = Job(1, Mix(kinds={"tool_call": 1.0}, environments={"store": 1.0}, flaws=1.0), "store")


def pipeline(job: Job) -> Pipeline:
    teacher: Teacher = ScriptedTeacher()
    return Pipeline(job, teacher, teacher, load_constitution())


def milled(job: Job, indices: Sequence[int]) -> list[Milled]:
    mill = pipeline(job)

    async def run() -> list[Milled]:
        return [await mill.mill(index) for index in indices]

    return asyncio.run(run())


@functools.cache
def sound() -> tuple[Trace, ...]:
    made = milled(SOUND, range(240))
    assert [one.rejections for one in made if one.rejections] == []
    return tuple(one.trace for one in made if one.trace is not None)


def test_nothing_that_it_plays_without_flaws_is_rejected() -> None:
    assert len(sound()) == 240
    places = Counter((trace.kind, trace.environment) for trace in sound())
    assert len(places) == len(KINDS) * len(BUILT_IN)
    assert all(trace.revisions == 0 for trace in sound())


@pytest.mark.slow
def test_nothing_is_rejected_over_nine_hundred_indices_either() -> None:
    for number, one in enumerate(milled(SOUND, range(240, 1140)), 240):
        assert one.trace is not None and not one.rejections, (number, one.rejections[-1].evidence)


# --- without memory ----------------------------------------------------------------------------------------


def replies(trace: Trace, scenario: Scenario, teacher: Teacher | None = None) -> list[Reply]:
    """What a teacher says at each place of a trace where the agent spoke: a fresh one each time, if none is given."""
    tools = environment(trace.environment).tools(trace.kind)
    found = []
    for at, message in enumerate(trace.messages):
        if isinstance(message, AssistantMessage):
            request = Request("agent", list(trace.messages[:at]), tools, scenario, revision=trace.revisions)
            found.append(asyncio.run((teacher or ScriptedTeacher()).reply(request)))
    return found


def same(reply: Reply, message: Message) -> bool:
    assert isinstance(message, AssistantMessage)
    calls = tuple(Call(tool=call.name, arguments=call.arguments) for call in message.tool_calls or ())
    return (reply.text, reply.reasoning, reply.calls, reply.wrong) == (message.content, message.reasoning_content, calls, not message.train)


def test_a_fresh_teacher_says_the_same_in_the_same_conversation() -> None:
    for trace in sound()[:36]:
        spoken = [m for m in trace.messages if isinstance(m, AssistantMessage)]
        for teacher in (None, ScriptedTeacher()):
            found = replies(trace, trace.scenario, teacher)
            assert all(same(reply, message) for reply, message in zip(found, spoken, strict=True))


def test_a_teacher_that_is_asked_twice_says_the_same_twice() -> None:
    teacher = ScriptedTeacher()
    trace = next(one for one in sound() if one.difficulty >= 4)
    messages: list[Message] = []
    tools = environment(trace.environment).tools(trace.kind)
    for message in trace.messages:
        if isinstance(message, AssistantMessage):
            request = Request("agent", messages, tools, trace.scenario)
            first, second = asyncio.run(teacher.reply(request)), asyncio.run(teacher.reply(request))
            assert first == second and same(first, message)
        messages.append(message)


def test_conversations_that_go_on_side_by_side_do_not_mix() -> None:
    mill = pipeline(SOUND)

    async def together() -> list[Milled]:
        return list(await asyncio.gather(*(mill.mill(index) for index in range(24))))

    assert [one.trace for one in asyncio.run(together())] == list(sound()[:24])


def test_it_plays_no_critic() -> None:
    one = sound()[0].scenario
    with pytest.raises(TeacherError, match="a critic must be a model"):
        asyncio.run(ScriptedTeacher().reply(Request("critic", [], (), one)))


# --- as the agent ------------------------------------------------------------------------------------------


def test_every_call_has_a_thought_before_it_and_every_reply_its_tokens() -> None:
    for trace in sound():
        for message in trace.messages:
            if isinstance(message, AssistantMessage):
                assert message.reasoning_content
        assert trace.usage.prompt_tokens > 0 and trace.usage.completion_tokens > 0


def test_what_must_be_agreed_to_is_asked_right_before() -> None:
    asked = 0
    for trace in sound():
        confirms = [step for step in trace.scenario.steps if step.confirm]
        made = [(at, Call(tool=call.name, arguments=call.arguments)) for at, call, _ in trace.calls() if trace.messages[at].train]  # type: ignore[union-attr]
        for step in confirms:
            first = next((at for at, call in made if call == step.call), None)
            if first is None:
                continue
            question, reply = trace.messages[first - 2], trace.messages[first - 1]
            between = [at for at, _ in made if at == first]
            if len(between) == 1 and isinstance(reply, UserMessage):
                assert isinstance(question, AssistantMessage) and step.confirm in question.content
                asked += 1
    assert asked > 40


def test_what_the_user_kept_back_is_asked_for_before_it_is_used() -> None:
    asked = 0
    for trace in sound():
        for slot in trace.scenario.slots:
            if not slot.withheld:
                continue
            said = [at for at, m in enumerate(trace.messages) if isinstance(m, UserMessage) and at > 1]
            told = next(at for at in said if slot.value in trace.messages[at].content)
            question = trace.messages[told - 1]
            assert isinstance(question, AssistantMessage) and slot.label in question.content
            before = [call for at, call, _ in trace.calls() if at < told]
            assert all(slot.value not in map(str, leaves(call.arguments)) for call in before)
            asked += 1
    assert asked >= 10


def test_a_write_that_took_place_after_all_is_recognised_as_done() -> None:
    found = [trace for trace in sound() if any(fault.kind == "timeout_written" for fault in trace.scenario.faults)]
    assert found
    for trace in found:
        assert trace.recovery is not None
        last = max(trace.recovery.recovery)
        following = next(m for m in trace.messages[last + 1 :] if isinstance(m, AssistantMessage))
        assert any((following.reasoning_content or "").startswith(words) for words in common_rules()["notice.there"])


def test_the_way_round_is_explained_before_the_user_is_asked_for_what_it_takes() -> None:
    rng = random.Random("way round")
    cls = environment("store")
    persona = Persona(tone="plain")
    while True:
        one = draw(cls, "stop_order", index=0, seed=1, kind="error_recovery", world=2, persona=persona, rng=rng)
        if one.steps[0].call.tool == "find_customer_by_name" and not any(slot.withheld for slot in one.slots):
            break
    failed = '{"error": {"code": "server_error", "message": "down", "retryable": false}}'
    from tracemill.trace import Fault, FunctionCall, ToolCall

    fault = Fault(kind="server_down", tool="find_customer_by_name", explicit=True, transient=False)
    one = one.model_copy(update={"faults": (fault,)})
    call = one.steps[0].call
    messages: list[Message] = [
        SystemMessage(content="x"),
        UserMessage(content=one.opening),
        AssistantMessage(content="", tool_calls=(ToolCall(id="call_1", function=FunctionCall(name=call.tool, arguments=call.arguments)),)),
        ToolMessage(tool_call_id="call_1", name=call.tool, content=failed),
    ]
    reply = asyncio.run(ScriptedTeacher().reply(Request("agent", messages, (), one)))
    assert "e-mail address" in reply.text and not reply.calls
    assert "find_customer_by_name" in (reply.reasoning or ""), "why it asks is part of the thought"


# --- flaws -------------------------------------------------------------------------------------------------

FOUND_BY: dict[FlawKind, set[tuple[str, str]]] = {
    "no_reasoning": {("constitution", "transparent_reasoning")},
    "unconfirmed": {("constitution", "confirm_irreversible")},
    "skipped_lookup": {("constitution", "verify_before_irreversible")},
    "blind_retry": {("constitution", "no_blind_write_retry")},
    "wrong_fact": {("goal", "told")},
    "false_claim": {("goal", "told")},
}
"""Where each flaw is found, and by what."""


@functools.cache
def spoiled() -> dict[FlawKind, list[Milled]]:
    """Up to four of each flaw: of all kinds and environments, and where rare flaws are likely."""
    found: dict[FlawKind, list[Milled]] = {}
    for job, count in ((SPOILED, 250), (RETRIES, 250), (STORE, 160)):
        chosen: dict[FlawKind, list[int]] = {}
        for one in (scenario(job.seed, index, job.mix) for index in range(count)):
            if one.flaw is not None and len(chosen.setdefault(one.flaw, [])) < 4:
                chosen[one.flaw].append(one.index)
        for flaw, indices in chosen.items():
            if flaw not in found:
                found[flaw] = milled(job, indices)
    return found


def test_every_flaw_comes_up() -> None:
    assert set(spoiled()) == set(get_args(FlawKind)) == set(FOUND_BY)


@pytest.mark.parametrize("flaw", get_args(FlawKind))
def test_each_flaw_is_found_by_the_right_check(flaw: FlawKind) -> None:
    for one in spoiled()[flaw]:
        first = one.rejections[0]
        assert first.attempt == 0 and first.blame == "agent"
        by = {(first.stage, evidence.split(":")[0].split(" ")[0]) for evidence in first.evidence}
        assert by & FOUND_BY[flaw], first.evidence
        assert by <= FOUND_BY[flaw] or first.stage == "goal", "a flaw breaks one principle, and no other"


@pytest.mark.parametrize("flaw", get_args(FlawKind))
def test_a_draft_that_breaks_a_principle_is_revised_and_one_that_misses_the_goal_is_not(flaw: FlawKind) -> None:
    for one in spoiled()[flaw]:
        first = one.rejections[0]
        if first.stage == "goal":
            assert first.final and one.trace is None and one.preferences == ()
            continue
        assert not first.final
        assert len(one.rejections) == 1 and one.trace is not None and one.trace.revisions == 1
        (pair,) = one.preferences
        at = len(pair.prompt)
        assert pair.prompt == one.trace.messages[:at] == first.messages[:at]
        assert pair.chosen == (one.trace.messages[at],) and pair.rejected == (first.messages[at],)
        assert pair.chosen != pair.rejected
        assert pair.source.removeprefix("revision:") == first.evidence[0].split(" ")[0]


def test_a_revision_says_the_same_whoever_takes_it_up() -> None:
    for one in spoiled()["unconfirmed"]:
        assert one.trace is not None
        found = replies(one.trace, one.trace.scenario)
        at = sum(isinstance(m, AssistantMessage) for m in one.preferences[0].prompt)
        spoken = [m for m in one.trace.messages if isinstance(m, AssistantMessage)]
        assert all(same(reply, message) for reply, message in list(zip(found, spoken, strict=True))[at:])


# --- as the user -------------------------------------------------------------------------------------------


def user_says(one: Scenario, *messages: Message) -> Reply:
    said = [SystemMessage(content="x"), UserMessage(content=one.opening), *messages]
    return asyncio.run(ScriptedTeacher().reply(Request("user", said, (), one)))


def agent(text: str) -> AssistantMessage:
    return AssistantMessage(content=text)


@functools.cache
def buyer() -> Scenario:
    one = next(trace.scenario for trace in sound() if trace.environment == "store" and trace.template == "stop_order")
    slots = (
        Slot(name="order_id", label="order number", value="W10234", withheld=True),
        Slot(name="reason", label="reason", value="no longer needed", withheld=True),
        Slot(name="email", label="e-mail address", value="ada@example.com"),
    )
    return one.model_copy(update={"slots": slots, "interjections": (), "opening": "Hi, I am ada@example.com. Please stop my order."})


def test_the_user_tells_what_is_asked_for_and_nothing_else() -> None:
    reply = user_says(buyer(), agent("Could you tell me the order number?"))
    assert "W10234" in reply.text and "no longer needed" not in reply.text and not reply.done
    both = user_says(buyer(), agent("I need the order number and the reason to go on."))
    assert "W10234" in both.text and "no longer needed" in both.text
    unknown = user_says(buyer(), agent("What is your favourite colour?"))
    assert unknown.text in common_rules()["user.unknown"] and not unknown.done


def test_the_user_repeats_what_is_asked_for_again_but_no_third_time_for_the_same_words() -> None:
    asked, told = agent("What is the order number?"), UserMessage(content="The order number is W10234.")
    assert "W10234" in user_says(buyer(), asked, told, agent("And what is the order number?")).text
    assert "W10234" in user_says(buyer(), asked, told, asked).text
    assert user_says(buyer(), asked, told, asked, told, asked).done
    assert "ada@example.com" in user_says(buyer(), agent("May I have the e-mail address?")).text


def test_the_user_answers_all_that_one_message_asks() -> None:
    both = user_says(buyer(), agent("Could you give me the order number? And shall I cancel it?"))
    assert "W10234" in both.text and any(both.text.endswith(yes) for yes in _yeses())
    only = user_says(buyer(), agent("Could you please confirm the order number?"))
    assert "W10234" in only.text and not any(only.text.endswith(yes) for yes in _yeses())


def _yeses() -> list[str]:
    return [yes for symbol, ways in common_rules().items() if symbol.startswith("user.yes") for yes in ways]


def test_the_user_does_not_agree_to_what_they_are_about_to_take_back() -> None:
    late = next(trace.scenario for trace in sound() if any(one.changes_goal for one in trace.scenario.interjections))
    spoken = next(one.says for one in late.interjections if one.changes_goal)
    assert user_says(late, agent("Shall I cancel it?")).text == spoken
    assert user_says(late, agent("Aha."), UserMessage(content=spoken), agent("Shall I keep it?")).text in _yeses()


def test_the_user_who_has_all_that_is_due_lets_no_offer_hold_them() -> None:
    one = next(trace for trace in sound() if trace.scenario.facts and trace.scenario.steps and not trace.scenario.interjections)
    said = list(one.messages[2:-1])
    offer = f"{one.answer} Would you like me to send it by e-mail?"
    assert user_says(one.scenario, *said, agent(offer)).done
    assert not user_says(one.scenario, *said, agent("Would you like me to send it by e-mail?")).done, "it tells nothing"
    lost = next(trace for trace in sound() if trace.scenario.facts and any(f.kind == "timeout_written" for f in trace.scenario.faults))
    assert user_says(lost.scenario, *lost.messages[2:-1], agent(f"{lost.answer} Shall I send it by e-mail?")).done
    changing = next(trace for trace in sound() if trace.scenario.facts and any(s.effect != "read" for s in trace.scenario.steps))
    assert not user_says(changing.scenario, agent(f"{changing.answer} Shall I go ahead?")).done, "nothing has been changed"


def test_the_user_agrees_to_what_is_proposed() -> None:
    for question in ("I would cancel it. Shall I go ahead?", "Is that all right?", "Do you agree?", "Do you want me to cancel it?"):
        reply = user_says(buyer(), agent(question))
        assert reply.text and not reply.done and "W10234" not in reply.text
    named = user_says(buyer(), agent("Do you want me to cancel the order with the order number W10234?"))
    assert named.text and "W10234" not in named.text, "what the agent names already need not be told"


def test_the_user_is_done_when_nothing_is_asked() -> None:
    assert user_says(buyer(), agent("It is done. Is there anything else?")).done


def test_the_user_speaks_up_at_the_end_where_there_was_no_occasion_before() -> None:
    late = next(trace.scenario for trace in sound() if trace.scenario.interjections)
    spoken = late.interjections[0].says
    assert user_says(late, agent("All done.")).text == spoken
    assert user_says(late, agent("Aha."), UserMessage(content=spoken), agent("All done.")).done


def test_users_answer_in_their_own_tone() -> None:
    def answers(tone: str) -> set[str]:
        found = set()
        for seed in range(30):
            one = buyer().model_copy(update={"persona": Persona(tone=tone), "seed": seed})
            found.add(user_says(one, agent("I would cancel it. Shall I go ahead?")).text)
        return found

    rules = common_rules()
    assert answers("formal") == set(rules["user.yes@formal"])
    assert answers("plain") <= set(rules["user.yes"]) and len(answers("plain")) > 4
