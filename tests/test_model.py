"""A model as teacher: whatever it writes ends in a trace, as a wrong step that was set right, or in the ledger."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import re
from collections.abc import Callable

import pytest
from fake_chat import FakeChat

from tracemill.columns import to_row
from tracemill.config import Config, Prices
from tracemill.constitution.constitution import Constitution, load_constitution
from tracemill.errors import ContextTooLong, TeacherDied, TeacherError
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.rollout import NOTICE
from tracemill.generators.scenario import scenario
from tracemill.generators.teachers.base import Reply, Request
from tracemill.generators.teachers.chat import Ask, Completion, RawCall, Sampling
from tracemill.generators.teachers.model import GLIMPSE, KEPT, LONGEST, MOST_CALLS, SILENCE, ModelTeacher, seed_of
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.inspection import Passed, inspect
from tracemill.job import build_job
from tracemill.pipeline import MOST_RAW, Milled, Pipeline
from tracemill.trace import KINDS, AssistantMessage, Call, Kind, Message, Scenario, SystemMessage, Trace, Usage, UserMessage
from tracemill.verify import check_row
from tracemill.writer import pack

JOB = build_job(Config(teacher="fake model", environments=["store"]))
BALANCED = Sampling(0.5, 512)


@functools.cache
def constitution() -> Constitution:
    return load_constitution()


@functools.cache
def first(kind: Kind, steps: int = 2) -> Scenario:
    """A scenario of the kind that takes some calls."""
    drawn = (scenario(JOB.seed, index, JOB.mix) for index in range(400))
    return next(one for one in drawn if one.kind == kind and len(one.steps) >= steps and not one.interjections)


def model(chat: FakeChat, *, steps: int = 2, prices: Prices = Prices()) -> ModelTeacher:  # noqa: B008 - frozen
    return ModelTeacher(chat, BALANCED, reasoning_steps=steps, prices=prices)


async def milled(chat: FakeChat, index: int) -> Milled:
    return await Pipeline(JOB, model(chat), ScriptedTeacher(), constitution()).mill(index)


def at_turn(wanted: int, said: Completion) -> Callable[[int], Completion | None]:
    return lambda turn: said if turn == wanted else None


def always(said: Completion) -> Callable[[int], Completion | None]:
    return lambda turn: said


async def faults(trace: Trace) -> list[object]:
    """What the checks of a finished dataset find."""
    found: list[object] = []
    now = await inspect(trace, environment(trace.environment), constitution())
    if not isinstance(now, Passed):
        found += now.problems
    return found + await check_row(to_row(trace), "trace", JOB, constitution(), {})


# --- replies that cannot be used ----------------------------------------------------------------------------


def call(arguments: str, name: str = "get_order") -> Completion:
    return Completion("", "so I look", (RawCall(name, arguments),))


def noise(length: int) -> str:
    rng = random.Random(0)
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=length))


def opened(depth: int) -> str:
    """Objects in objects, no key twice: else it would be taken for a loop."""
    return "".join(f'{{"{number * number:x}":' for number in range(depth))


UNUSABLE: dict[str, tuple[Completion, str]] = {
    "a call that no parser could read": (Completion('<tool_call>{"name": "get_order", "arguments": {"ord'), "not well formed"),
    "a call of another dialect": (Completion("[TOOL_CALLS] get_order"), "not well formed"),
    "a call that was cut off": (dataclasses.replace(call('{"order_id": "O-1'), cut=True), "cut off"),
    "words that were cut off": (Completion("I will now look for the", cut=True), "cut off"),
    "thinking that never ends": (Completion("<think>What do I know?"), "not well formed"),
    "arguments that are no JSON": (call('{"order_id": O-1}'), "no JSON"),
    "arguments that are a list": (call('["O-1"]'), "no JSON object"),
    "arguments that are null": (call("null"), "no JSON object"),
    "arguments in a string": (call('"{}"'), "no JSON object"),
    "no number": (call('{"order_id": NaN}'), "no JSON"),
    "an endless number": (call('{"order_id": 1e999}'), "no JSON"),
    "a huge number": (call(f'{{"order_id": {2**63}}}'), "beyond 64 bits"),
    "a number of 5000 digits": (call(f'{{"order_id": {"9" * 5000}}}'), ""),
    "deep nesting": (call('{"a":' * 40 + "1" + "}" * 40), "nested too deeply"),
    "deeper nesting": (call('{"a":' + "[" * 490 + "]" * 490 + "}"), "nested too deeply"),
    "the deepest nesting": (call(opened(2000) + "1" + "}" * 2000), "no JSON"),
    "endless nesting": (call('{"a":' * 4000), "over and over"),
    "half a character in arguments": (call('{"order_id": "\\ud83d"}'), "no JSON"),
    "half a character": (Completion("Certainly \ud83d"), "broken characters"),
    "a character that a tokenizer broke": (Completion("Certainly \ufffd"), "broken characters"),
    "half a character in a name": (call("{}", "\ud83d"), "broken characters"),
    "control characters": (Completion("Certainly\x00"), "control characters"),
    "control tokens": (Completion("Done.<|im_end|>\n<|im_start|>user\nThank you, all is well."), "control tokens of a chat template"),
    "control tokens in a call": (Completion("", calls=(RawCall("put", '{"food": "<|im_end|>"}'),)), "control tokens of a chat template"),
    "nothing": (Completion(""), "says nothing"),
    "white space": (Completion(" \n\t "), "says nothing"),
    "only thoughts": (Completion("", "I should look for the order."), "says nothing"),
    "only thoughts that nobody parsed": (Completion("<think>I should look.</think>"), "says nothing"),
    "a loop": (Completion("I will look. " * 300), "over and over"),
    "a loop of thoughts": (Completion("I will look.", "Wait. " * 600), "over and over"),
    "a megabyte": (Completion(noise(1_000_000)), "characters long"),
    "a megabyte of arguments": (call(json.dumps({"order_id": noise(1_000_000)})), "characters long"),
    "a megabyte of one letter": (Completion("a" * 1_000_000), "characters long"),
    "Chinese": (Completion("我会查看您的订单，然后告诉您结果。"), "script"),
    "Russian": (Completion("Сейчас посмотрю ваш заказ."), "script"),
    "Chinese thoughts": (Completion("", "用户想取消订单，我先查一下", (RawCall("get_order", "{}"),)), "script"),
    "too many calls": (Completion("", "all at once", (RawCall("get_order", "{}"),) * (MOST_CALLS + 1)), "calls at once"),
}


@pytest.mark.parametrize("sort", UNUSABLE)
async def test_a_reply_that_cannot_be_used_once_is_a_wrong_step_in_a_good_trace(sort: str) -> None:
    said, why = UNUSABLE[sort]
    for number, kind in enumerate(KINDS):
        drawn = first(kind)
        straight = FakeChat(drawn)
        assert (await milled(straight, drawn.index)).trace is not None
        turn = (0, 1, len(straight.asks) - 1)[number]  # at the first message, in the middle, at the answer
        one = await milled(FakeChat(drawn, at_turn(turn, said)), drawn.index)
        assert one.trace is not None, one.rejections[-1].evidence
        assert one.rejections == () and pack(one)
        messages = one.trace.messages
        (at,) = [at for at, m in enumerate(messages) if isinstance(m, AssistantMessage) and not m.train]
        wrong, notice, good = messages[at : at + 3]
        assert isinstance(wrong, AssistantMessage) and wrong.tool_calls is None and 0 < len(wrong.content) <= KEPT + 1
        assert isinstance(notice, UserMessage) and notice.content.startswith(NOTICE) and why in notice.content
        assert isinstance(good, AssistantMessage) and good.train
        assert await faults(one.trace) == []


@pytest.mark.parametrize("sort", UNUSABLE)
async def test_a_reply_that_cannot_be_used_time_and_again_is_in_the_ledger_with_its_reason_and_raw(sort: str) -> None:
    said, why = UNUSABLE[sort]
    drawn = first("tool_call")
    one = await milled(FakeChat(drawn, always(said)), drawn.index)
    (rejection,) = one.rejections
    assert (rejection.stage, rejection.blame, rejection.final) == ("rollout", "agent", True) and not one.lost
    assert rejection.reason.startswith("4 replies could not be used") and why in rejection.reason
    written = said.text or (said.calls[0].arguments if said.calls else said.reasoning or "")
    assert rejection.raw[:MOST_RAW].count(written.encode(errors="backslashreplace").decode()[:1000]) or not written
    assert pack(one)["rejections"]


async def test_what_would_only_be_taken_up_again_is_shown_in_little_and_an_empty_reply_by_a_word() -> None:
    drawn = first("tool_call")
    for sort, longest in (("a loop", GLIMPSE), ("a megabyte", GLIMPSE), ("words that were cut off", KEPT)):
        trace = (await milled(FakeChat(drawn, at_turn(0, UNUSABLE[sort][0])), drawn.index)).trace
        assert trace is not None and len(trace.messages[2].content) <= longest + 1
        assert trace.messages[2].content[:20] == UNUSABLE[sort][0].text[:20]
    trace = (await milled(FakeChat(drawn, at_turn(0, Completion(""))), drawn.index)).trace
    assert trace is not None and trace.messages[2].content == SILENCE


async def test_a_reply_is_given_up_for_the_number_of_slips_not_for_one_after_another() -> None:
    drawn = first("tool_call", 3)
    slips = [UNUSABLE[sort][0] for sort in ("nothing", "half a character", "arguments that are no JSON")]
    one = await milled(FakeChat(drawn, lambda turn: slips[turn // 2] if turn in (0, 2, 4) else None), drawn.index)
    assert one.trace is not None
    assert [m.train for m in one.trace.messages if isinstance(m, AssistantMessage)][:6] == [False, True] * 3
    assert await faults(one.trace) == []


@pytest.mark.parametrize("sort", [sort for sort, (said, _) in UNUSABLE.items() if said.calls and "name" not in sort])
async def test_a_notice_holds_no_word_of_the_models_own(sort: str) -> None:
    """Else a made-up identifier would stand in a message of the user, and count as known from then on."""
    said, _ = UNUSABLE[sort]
    named = dataclasses.replace(said, calls=tuple(dataclasses.replace(one, name="O-4711") for one in said.calls))
    problem = (await reply_to(named)).problem
    assert problem and "O-4711" not in problem


ASKS = re.compile(r"shall I|is that all right\?|do you agree\?|do you want me to", re.IGNORECASE)


class FakePushy(FakeChat):
    """Garbles its question whether to go on, and goes on as if it had been asked and agreed to."""

    async def complete(self, ask: Ask) -> Completion:
        found = await super().complete(dataclasses.replace(ask, messages=[_as_if(one) for one in ask.messages]))
        return Completion(found.text + " <tool_call>") if ASKS.search(found.text) else found


def _as_if(message: Message) -> Message:
    if isinstance(message, UserMessage) and message.content.startswith(NOTICE):
        return UserMessage(content="Yes.")
    return message.model_copy(update={"content": message.content.removesuffix(" <tool_call>")})


async def test_a_notice_is_no_answer_of_the_user() -> None:
    """A question that was not carried out has not been asked, and nobody has agreed to what came after it."""
    drawn = next(
        one for one in (scenario(JOB.seed, index, JOB.mix) for index in range(400)) if one.kind == "tool_call" and irreversible(one)
    )
    one = await milled(FakePushy(drawn), drawn.index)
    assert one.trace is None and "confirm_irreversible" in one.rejections[0].reason


def irreversible(one: Scenario) -> bool:
    return [step.effect for step in one.steps].count("irreversible") == 1 and not one.interjections


CARELESS = {
    "an unknown tool": RawCall("fetch_order", "{}"),
    "a tool without a name": RawCall("", "{}"),
    "a tool of another kind of trace": RawCall("wait", '{"seconds": 5}'),
    "missing arguments": RawCall("get_order", ""),
    "unknown arguments": RawCall("get_order", '{"number": "O-1"}'),
    "arguments of another type": RawCall("get_order", '{"order_id": 7}'),
    "arguments with a control character": RawCall("get_order", '{"order_id": 7, "x": "\\u0000"}'),
}


@pytest.mark.parametrize("sort", CARELESS)
async def test_a_call_that_no_tool_could_take_is_answered_and_kept_out_of_training(sort: str) -> None:
    said = Completion("", "I call it", (CARELESS[sort],))
    for kind in KINDS[: 2 if sort == "a tool of another kind of trace" else 3]:
        drawn = first(kind)
        one = await milled(FakeChat(drawn, at_turn(1, said)), drawn.index)
        assert one.trace is not None, one.rejections[-1].evidence
        (wrong,) = [m for m in one.trace.messages if isinstance(m, AssistantMessage) and not m.train]
        assert wrong.tool_calls is not None and wrong.tool_calls[0].name == CARELESS[sort].name
        assert not any(isinstance(m, UserMessage) and m.content.startswith(NOTICE) for m in one.trace.messages)
        assert await faults(one.trace) == [] and pack(one)


async def test_plain_chatter_ends_in_the_ledger_with_all_that_was_said() -> None:
    drawn = first("tool_call")
    chatter = "What a lovely day to be of help! I am sure that everything will be fine."
    one = await milled(FakeChat(drawn, always(Completion(chatter))), drawn.index)
    (rejection,) = one.rejections
    assert (rejection.stage, rejection.blame) == ("goal", "agent")
    assert rejection.messages[-1].content == chatter


async def test_the_same_call_over_and_over_ends_in_the_ledger_with_all_that_was_done() -> None:
    drawn = first("tool_call")
    same = drawn.steps[0].call
    said = Completion("", "again", (RawCall(same.tool, json.dumps(same.arguments)),))
    (rejection,) = (await milled(FakeChat(drawn, always(said)), drawn.index)).rejections
    assert (rejection.stage, rejection.blame) == ("rollout", "agent")
    assert "the same calls with the same results" in rejection.reason
    assert len(rejection.messages) == 2 + 4 * 2


class FakeNarrow(FakeChat):
    """Takes no more than so many messages."""

    limit = 6

    async def complete(self, ask: Ask) -> Completion:
        if len(ask.messages) > self.limit:
            raise ContextTooLong("4,210 tokens, and the model takes 4,096")
        return await super().complete(ask)


async def test_a_conversation_that_is_too_long_for_the_model_ends_in_the_ledger() -> None:
    drawn = first("tool_call", 4)
    one = await milled(FakeNarrow(drawn), drawn.index)
    (rejection,) = one.rejections
    assert (rejection.stage, rejection.blame, one.lost) == ("rollout", "agent", False)
    assert "4,210 tokens" in rejection.reason and len(rejection.messages) > FakeNarrow.limit


async def test_a_model_that_does_not_answer_costs_the_index_and_one_that_is_gone_the_process() -> None:
    class Failing(FakeChat):
        error: TeacherError = TeacherError("429 for ten minutes")

        async def complete(self, ask: Ask) -> Completion:
            raise self.error

    drawn = first("tool_call")
    one = await milled(Failing(drawn), drawn.index)
    assert one.lost and one.rejections[0].stage == "infrastructure"
    Failing.error = TeacherDied("the engine is gone")
    with pytest.raises(TeacherDied):
        await milled(Failing(drawn), drawn.index)


# --- what the model is told ---------------------------------------------------------------------------------


def request(**changes: object) -> Request:
    drawn = first("tool_call")
    messages = [SystemMessage(content="Be good."), UserMessage(content=drawn.opening)]
    tools = environment("store").offered("tool_call")
    return dataclasses.replace(Request("agent", messages, tools, drawn), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("steps", "told"), [(1, "at most one short step"), (3, "at most three short steps"), (7, "at most 7 short steps")])
async def test_the_steps_of_thinking_are_asked_for_in_the_prompt_and_nowhere_else(steps: int, told: str) -> None:
    chat = FakeChat(first("tool_call"))
    one = await Pipeline(JOB, model(chat, steps=steps), ScriptedTeacher(), constitution()).mill(first("tool_call").index)
    assert one.trace is not None
    assert all(told in ask.messages[0].content for ask in chat.asks)
    assert told not in one.trace.json_text()


async def test_without_steps_of_thinking_the_prompt_is_the_trace() -> None:
    chat = FakeChat(first("tool_call"))
    await model(chat, steps=0).reply(request())
    assert list(chat.asks[0].messages) == list(request().messages)


async def test_what_a_critique_says_is_told_the_model_and_is_no_part_of_the_trace() -> None:
    drawn = first("tool_call", 3)

    class Thoughtless(FakeChat):
        """Thinks only when it has been told to."""

        told = False

        async def complete(self, ask: Ask) -> Completion:
            found = await super().complete(ask)
            self.told |= "A review" in ask.messages[0].content
            return found if self.told else dataclasses.replace(found, reasoning=None)

    chat = Thoughtless(drawn)
    one = await milled(chat, drawn.index)
    assert one.trace is not None and one.trace.revisions == 1 and len(one.preferences) == 1
    reviewed = [ask for ask in chat.asks if "A review" in ask.messages[0].content]
    assert len(reviewed) == 1, "of the one message that is written anew"
    assert constitution().principle("transparent_reasoning").revision in reviewed[0].messages[0].content
    assert "A review" not in one.trace.json_text() and "A review" not in one.preferences[0].json_text()
    assert await faults(one.trace) == []


async def test_the_model_gets_the_tools_the_sampling_and_none_of_the_reference() -> None:
    chat = FakeChat(first("tool_call"))
    await model(chat).reply(request())
    (ask,) = chat.asks
    assert ask.tools == environment("store").offered("tool_call") and ask.sampling == BALANCED and ask.schema is None
    assert all(step.why not in str(ask.messages) for step in first("tool_call").steps)


async def test_a_critic_is_asked_without_chance_and_a_user_for_an_object() -> None:
    chat = FakeChat(first("tool_call"), always(Completion('{"say": "Yes.", "done": false}')))
    schema = {"type": "object"}
    reply = await model(chat).reply(request(role="critic", messages=[UserMessage(content="Judge it.")], schema=schema))
    assert reply.text and chat.asks[0].sampling == Sampling(0.0, 512) and chat.asks[0].schema == schema
    messages = [*request().messages, AssistantMessage(content="Shall I?")]
    heard = await model(chat).reply(request(role="user", messages=messages))
    assert (heard.text, heard.done, heard.problem) == ("Yes.", False, "")
    assert chat.asks[1].sampling == BALANCED and chat.asks[1].schema is not None


@pytest.mark.parametrize(
    "said",
    [
        Completion("Certainly!"),
        Completion(""),
        Completion('{"say": "Yes.", "done": false}', cut=True),
        Completion('{"say": "\\ud83d", "done": false}'),
        Completion("\ud83d"),
        Completion("a" * 1_000_000),
        Completion("{" * 1_000_000),
    ],
    ids=lambda said: repr(said.text[:40]),
)
async def test_a_user_that_makes_no_sense_ends_in_the_ledger_and_is_the_one_to_blame(said: Completion) -> None:
    drawn = first("tool_call")
    user = model(FakeChat(drawn, always(said)))
    one = await Pipeline(JOB, model(FakeChat(drawn)), user, constitution()).mill(drawn.index)
    (rejection,) = one.rejections
    assert (rejection.stage, rejection.blame, one.lost) == ("rollout", "user", False)
    assert "the simulated user's reply" in rejection.reason
    assert rejection.raw == said.text.encode(errors="backslashreplace").decode()[:MOST_RAW] and pack(one)


async def test_a_critique_that_cannot_be_one_is_not_even_read() -> None:
    for said, why in ((Completion("{" * 1_000_000), "characters long"), (Completion('{"verdicts": [', cut=True), "cut off")):
        reply = await model(FakeChat(first("tool_call"), always(said))).reply(
            request(role="critic", messages=[UserMessage(content="Judge.")])
        )
        assert why in reply.problem and reply.raw == said.text


# --- what is made of its words ------------------------------------------------------------------------------


async def reply_to(said: Completion) -> Reply:
    return await model(FakeChat(first("tool_call"), always(said))).reply(request())


async def test_thinking_that_nobody_parsed_is_taken_out_of_the_text() -> None:
    for text in ("<think>I look first.</think>\n\nOne moment.", "I look first.\n</think>\nOne moment."):
        reply = await reply_to(Completion(text))
        assert (reply.reasoning, reply.text, reply.problem) == ("I look first.", "One moment.", "")
    reply = await reply_to(Completion("One moment.", "I look first."))
    assert (reply.reasoning, reply.text) == ("I look first.", "One moment.")
    assert (await reply_to(Completion("One moment.", "  "))).reasoning is None


async def test_calls_keep_their_order_and_words_beside_them_stay() -> None:
    reply = await reply_to(Completion(" Both. ", "hm", (RawCall("a", '{"x": [1, 2.5, null]}'), RawCall("b", ""))))
    assert reply.calls == (Call(tool="a", arguments={"x": [1, 2.5, None]}), Call(tool="b", arguments={}))
    assert (reply.text, reply.reasoning, reply.problem) == ("Both.", "hm", "")


async def test_good_replies_of_all_sorts_are_no_problem() -> None:
    for text in (
        "Très bien, Zoë! 😀 That's 5 € — “done”.",
        "x" * 900,
        " ".join(str(number) for number in range(2000)),
        "a < b, c > d",
        "The name is 王.",
    ):
        assert (await reply_to(Completion(text))).problem == ""
    limit = noise(LONGEST)
    assert (await reply_to(Completion(limit))).problem == "" and (await reply_to(Completion(limit + "."))).problem


async def test_a_script_that_the_user_writes_in_is_not_foreign() -> None:
    chat = FakeChat(first("tool_call"), always(Completion("Сейчас посмотрю ваш заказ.")))
    messages = [SystemMessage(content="Be good."), UserMessage(content="Где мой заказ?")]
    assert (await model(chat).reply(request(messages=messages))).problem == ""
    assert (await model(chat).reply(request())).problem


async def test_tokens_have_their_price() -> None:
    chat = FakeChat(first("tool_call"), always(Completion("Hello.", usage=Usage(prompt_tokens=2_000_000, completion_tokens=500_000))))
    reply = await model(chat, prices=Prices(prompt=0.5, completion=4)).reply(request())
    assert reply.usage == Usage(prompt_tokens=2_000_000, completion_tokens=500_000, cost=3.0)
    broken = FakeChat(first("tool_call"), always(Completion("", usage=Usage(prompt_tokens=1_000_000))))
    assert (await model(broken, prices=Prices(prompt=2)).reply(request())).usage.cost == 2.0, "what cannot be used is paid for too"


async def test_what_a_trace_has_cost_holds_all_that_was_thrown_away() -> None:
    drawn = first("tool_call")
    slip = dataclasses.replace(UNUSABLE["nothing"][0], usage=Usage(prompt_tokens=3_000_000))
    teacher = model(FakeChat(drawn, at_turn(0, slip)), prices=Prices(prompt=1))
    trace = (await Pipeline(JOB, teacher, ScriptedTeacher(), constitution()).mill(drawn.index)).trace
    assert trace is not None and trace.usage.cost > 3.0 and trace.usage.prompt_tokens > 3_000_000


# --- seeds --------------------------------------------------------------------------------------------------


def test_a_seed_differs_by_whatever_tells_one_request_from_another() -> None:
    longer = [*request().messages, AssistantMessage(content="Shall I?"), UserMessage(content="Yes.")]
    other = request().scenario.model_copy(update={"seed": 7})
    asked = [UserMessage(content="Judge it.")]
    requests = [
        request(),
        request(messages=longer),
        request(sibling=1),
        request(redo=1),
        request(revision=1),
        request(role="user"),
        request(scenario=other),
        request(role="critic", messages=asked),
        request(role="critic", messages=[UserMessage(content="Judge that.")]),
        request(role="critic", messages=asked, redo=1),
    ]
    seeds = [seed_of(one) for one in requests]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_seed_is_the_same_for_the_same_place_whatever_has_been_said() -> None:
    said = [*request().messages, AssistantMessage(content="Shall I?"), UserMessage(content="Yes.")]
    also = [*request().messages, AssistantMessage(content="May I?"), UserMessage(content="No.")]
    assert seed_of(request(messages=said)) == seed_of(request(messages=also, critique="be brief"))
