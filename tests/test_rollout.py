"""The rollout: who speaks when, when the user speaks up, and where it is cut off."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Sequence

import pytest

from tracemill.errors import ContextTooLong, TeacherError
from tracemill.generators.environments.goal import draw
from tracemill.generators.environments.store.goals import Store
from tracemill.generators.faults import FaultPlan
from tracemill.generators.rollout import NOTICE, SAME, Budget, Rollout, rollout
from tracemill.generators.teachers.base import Reply, Request
from tracemill.inspection import structure_problems
from tracemill.trace import (
    AssistantMessage,
    Call,
    Fault,
    Kind,
    Message,
    Persona,
    Scenario,
    SystemMessage,
    ToolMessage,
    Usage,
    UserMessage,
)  # fmt: skip

ONE = Usage(prompt_tokens=10, completion_tokens=1)


class FakeTeacher:
    """Says what it was given to say, one reply after another, and keeps the requests it was sent."""

    name = "fake"

    def __init__(self, replies: Iterable[Reply]) -> None:
        self._replies = iter(replies)
        self.requests: list[Request] = []

    async def reply(self, request: Request) -> Reply:
        self.requests.append(request)
        found = next(self._replies, None)
        if found is None:
            raise TeacherError("nothing left to say")
        return found


class FakeUser:
    """Has nothing to add, ever."""

    name = "fake user"

    async def reply(self, request: Request) -> Reply:
        return Reply(done=True, usage=ONE)


@functools.cache
def drawn(template: str, kind: Kind = "tool_call") -> Scenario:
    rng = random.Random(f"rollout/{template}")
    return draw(Store, template, index=0, seed=1, kind=kind, world=2, persona=Persona(tone="plain"), rng=rng)


def calling(*calls: Call, wrong: bool = False) -> Reply:
    return Reply(reasoning="so I call it", calls=calls, usage=ONE, wrong=wrong)


def answer(text: str = "That is all.") -> Reply:
    return Reply(text, "done", usage=ONE)


async def played(scenario: Scenario, replies: Sequence[Reply], **options: object) -> tuple[Rollout, Store, FakeTeacher]:
    env = await Store.reset(scenario)
    teacher = FakeTeacher(replies)
    return await rollout(scenario, env, teacher, FakeUser(), **options), env, teacher  # type: ignore[arg-type]


def roles(messages: Sequence[Message]) -> str:
    """One letter for each message: system, user, assistant, tool."""
    return "".join(message.role[0] for message in messages)


def reference(scenario: Scenario) -> list[Call]:
    return [step.call for step in scenario.steps]


async def test_a_conversation_begins_with_instructions_and_policy_and_the_users_words() -> None:
    scenario = drawn("stop_order")
    result, _, teacher = await played(scenario, [answer()])
    first, second, last = result.messages
    assert isinstance(first, SystemMessage) and first.content.endswith(Store.policy_text())
    assert "Decline what the policy or the tools do not allow" in first.content
    assert second == UserMessage(content=scenario.opening)
    assert last == AssistantMessage(content="That is all.", reasoning_content="done")
    (request,) = teacher.requests
    assert request.role == "agent" and request.tools == Store.offered("tool_call")
    assert "wait" not in [one.function.name for one in request.tools]


async def test_each_kind_has_its_own_instructions() -> None:
    texts = set()
    for kind in ("tool_call", "goal_decomposition", "error_recovery"):
        result, _, _ = await played(drawn("stop_order", kind), [answer()])
        texts.add(result.messages[0].content)
    assert len(texts) == 3


async def test_calls_get_ids_of_their_own_and_results_in_their_order() -> None:
    find, look, cancel = reference(drawn("stop_order"))
    result, env, _ = await played(drawn("stop_order"), [calling(find, look), calling(cancel), answer()])
    assert roles(result.messages) == "suattata"
    made = [call for m in result.messages if isinstance(m, AssistantMessage) for call in m.tool_calls or ()]
    assert [call.id for call in made] == ["call_1", "call_2", "call_3"]
    answers = [m for m in result.messages if isinstance(m, ToolMessage)]
    assert [(m.tool_call_id, m.name) for m in answers] == [(call.id, call.name) for call in made]
    assert structure_problems(result.messages) == []
    assert env.orders[str(cancel.arguments["order_id"])].status == "cancelled"
    assert result.troubled == () and result.stop == "done"


async def test_tokens_of_agent_and_user_add_up() -> None:
    find, look, _ = reference(drawn("stop_order"))
    result, _, _ = await played(drawn("stop_order"), [calling(find), calling(look), answer()])
    assert result.usage == Usage(prompt_tokens=40, completion_tokens=4)


async def test_a_step_that_is_known_to_be_wrong_is_kept_out_of_training() -> None:
    find, look, _ = reference(drawn("stop_order"))
    result, _, _ = await played(drawn("stop_order"), [calling(find), calling(look, wrong=True), answer()])
    assert [m.train for m in result.messages if isinstance(m, AssistantMessage)] == [True, False, True]


@pytest.mark.parametrize(("turns", "calls", "made"), [(2, 40, "suatat"), (40, 1, "suatat"), (40, 0, "suat"), (1, 40, "suat")])
async def test_what_goes_on_for_too_long_is_cut_off(turns: int, calls: int, made: str) -> None:
    find, look, cancel = reference(drawn("stop_order"))
    replies = [calling(find), calling(look), calling(cancel), answer()]
    result, _, _ = await played(drawn("stop_order"), replies, budget=Budget(turns, calls))
    assert result.stop == "budget"
    assert roles(result.messages) == made


async def test_just_enough_of_a_budget_is_enough() -> None:
    find, look, cancel = reference(drawn("stop_order"))
    replies = [calling(find), calling(look), calling(cancel), answer()]
    result, _, _ = await played(drawn("stop_order"), replies, budget=Budget(4, 3))
    assert result.stop == "done"


async def test_a_teacher_without_a_reply_ends_the_rollout_with_its_error() -> None:
    with pytest.raises(TeacherError, match="nothing left to say"):
        await played(drawn("stop_order"), [calling(reference(drawn("stop_order"))[0])])


async def test_the_user_answers_whatever_calls_no_tool() -> None:
    class Talkative(FakeUser):
        said = 0

        async def reply(self, request: Request) -> Reply:
            assert request.role == "user" and request.critique == "" and request.revision == 0
            self.said += 1
            return Reply("go on" if self.said == 1 else "", done=self.said > 1)

    scenario = drawn("stop_order")
    env = await Store.reset(scenario)
    teacher = FakeTeacher([answer("Shall I?"), calling(reference(scenario)[0]), answer()])
    result = await rollout(scenario, env, teacher, Talkative(), revision=1, critique="be brief")
    assert roles(result.messages) == "suauata"
    assert [(request.revision, request.critique) for request in teacher.requests] == [(1, "be brief"), (1, ""), (1, "")]


# --- the user speaks up -------------------------------------------------------------------------------------


async def test_the_user_speaks_up_once_right_after_the_call_that_it_is_about() -> None:
    scenario = drawn("keep_after_all")
    find, look, move = reference(scenario)
    (spoken,) = scenario.interjections
    result, _, _ = await played(scenario, [calling(find), calling(look), calling(look), calling(move), answer()])
    assert roles(result.messages) == "suatatuatata"
    assert result.messages[6] == UserMessage(content=spoken.says)


async def test_the_user_waits_for_the_results_of_all_calls_of_the_message() -> None:
    scenario = drawn("keep_after_all")
    find, look, _ = reference(scenario)
    result, _, _ = await played(scenario, [calling(look, find), answer()])
    assert roles(result.messages) == "suattua"
    assert structure_problems(result.messages) == []


async def test_a_call_that_fails_or_asks_for_something_else_does_not_make_the_user_speak() -> None:
    scenario = drawn("keep_after_all")
    find, look, _ = reference(scenario)
    other = next(order.id for order in Store(2).orders if order.id != look.arguments["order_id"])
    wrong = Call(tool=look.tool, arguments={"order_id": other})
    bad = Call(tool=look.tool, arguments={"order": other})
    result, _, _ = await played(scenario, [calling(find), calling(wrong), calling(bad), answer(), answer()])
    assert roles(result.messages) == "suatatataua", "only at the end, as they have not said it before"


async def test_the_user_speaks_up_after_a_call_by_its_new_parameter_name_as_well() -> None:
    fault = Fault(
        kind="schema_drift", tool="get_order", explicit=True, transient=True, detail={"old": "order_id", "new": "orderId", "message": "m"}
    )
    scenario = drawn("keep_after_all").model_copy(update={"faults": (fault,)})
    find, look, _ = reference(scenario)
    renamed = Call(tool=look.tool, arguments={"orderId": look.arguments["order_id"]})
    result, _, _ = await played(scenario, [calling(find), calling(look), calling(renamed), answer()])
    assert roles(result.messages) == "suatatatua"
    assert result.troubled == ("call_2",)


async def test_the_user_speaks_up_after_the_way_round_a_call_as_well() -> None:
    scenario = drawn("keep_after_all")
    early = scenario.interjections[0].model_copy(update={"after": 0})
    scenario = scenario.model_copy(update={"interjections": (early,)})
    fallback = scenario.steps[0].fallback
    assert fallback is not None
    result, _, _ = await played(scenario, [calling(fallback), answer()])
    assert roles(result.messages) == "suatua"


async def test_what_the_user_has_not_said_yet_they_say_before_they_are_done() -> None:
    """A model that plays the user is told of it, but its words are never taken for it."""
    scenario = drawn("keep_after_all")
    (spoken,) = scenario.interjections
    result, _, _ = await played(scenario, [answer("Done."), answer("Now it is.")])
    assert result.stop == "done" and roles(result.messages) == "suaua"
    assert result.messages[3] == UserMessage(content=spoken.says)


async def test_what_the_user_says_as_an_answer_is_not_said_again_where_it_would_have_been_due() -> None:
    scenario = drawn("keep_after_all")
    find, look, _ = reference(scenario)
    (spoken,) = scenario.interjections

    class Early(FakeUser):
        said = False

        async def reply(self, request: Request) -> Reply:
            found = Reply(done=True) if self.said else Reply(spoken.says)
            self.said = True
            return found

    env = await Store.reset(scenario)
    teacher = FakeTeacher([answer("Shall I?"), calling(find), calling(look), answer()])
    result = await rollout(scenario, env, teacher, Early())
    assert roles(result.messages) == "suauatata"


# --- replies that cannot be used ----------------------------------------------------------------------------


def unusable(text: str = "<tool_call>", problem: str = "it is broken") -> Reply:
    return Reply(text, problem=problem, raw=f"all of {text}", usage=ONE)


async def test_a_reply_that_cannot_be_used_stays_as_a_wrong_step_and_is_written_anew() -> None:
    find, look, cancel = reference(drawn("stop_order"))
    replies = [calling(find), unusable(), calling(look), calling(cancel), answer()]
    result, _, _ = await played(drawn("stop_order"), replies)
    assert result.stop == "done" and roles(result.messages) == "suatauatata"
    wrong, notice = result.messages[4:6]
    assert wrong == AssistantMessage(content="<tool_call>", train=False)
    assert isinstance(notice, UserMessage) and notice.content.startswith(NOTICE) and "it is broken" in notice.content
    assert [m.train for m in result.messages if isinstance(m, AssistantMessage)] == [True, False, True, True, True]
    assert structure_problems(result.messages) == []
    assert result.usage == Usage(prompt_tokens=60, completion_tokens=6), "what was thrown away has cost its tokens too"


async def test_what_cannot_be_shown_again_is_asked_for_anew_at_the_same_place() -> None:
    result, _, teacher = await played(drawn("stop_order"), [unusable(""), unusable(""), answer()])
    assert roles(result.messages) == "sua"
    assert [request.redo for request in teacher.requests] == [0, 1, 2]


async def test_a_teacher_that_cannot_mend_its_replies_is_given_up_with_the_last_one_kept_whole() -> None:
    budget = Budget(repairs=2)
    result, _, _ = await played(drawn("stop_order"), [unusable("a"), unusable("b"), unusable("c", "it is c")], budget=budget)
    assert (result.stop, result.raw) == ("unusable", "all of c")
    assert result.why == "3 replies could not be used, the last because it is c"
    assert roles(result.messages) == "suauau", "the last one is in `raw`, and no notice waits for an answer"


async def test_the_critique_is_told_until_the_message_it_is_about_can_be_used() -> None:
    scenario = drawn("stop_order")
    _, _, teacher = await played(scenario, [unusable(), answer("Shall I?")], critique="be brief")
    assert [request.critique for request in teacher.requests] == ["be brief", "be brief"]


async def test_the_user_hears_nothing_of_messages_that_were_not_carried_out() -> None:
    heard: list[str] = []

    class Listener(FakeUser):
        async def reply(self, request: Request) -> Reply:
            heard.append(roles(request.messages))
            assert not any("<tool_call>" in one.content or NOTICE in one.content for one in request.messages)
            return await super().reply(request)

    scenario = drawn("stop_order")
    env = await Store.reset(scenario)
    result = await rollout(scenario, env, FakeTeacher([unusable(), answer()]), Listener())
    assert roles(result.messages) == "suaua" and heard == ["sua"]


@pytest.mark.parametrize("call", [Call(tool="no_such_tool", arguments={}), Call(tool="get_order", arguments={"x": 1})], ids=str)
async def test_a_call_that_no_tool_could_take_is_kept_out_of_training(call: Call) -> None:
    result, _, _ = await played(drawn("stop_order"), [calling(call), answer()])
    assert [m.train for m in result.messages if isinstance(m, AssistantMessage)] == [False, True]


async def test_a_tool_that_the_agent_was_not_offered_is_no_tool_of_its() -> None:
    waiting = Call(tool="wait", arguments={"seconds": 5})
    for kind, right in (("tool_call", False), ("error_recovery", True)):
        result, _, _ = await played(drawn("stop_order", kind), [calling(waiting), answer()])  # type: ignore[arg-type]
        assert [m.train for m in result.messages if isinstance(m, AssistantMessage)] == [right, True]


async def test_a_call_that_a_fault_spoiled_was_not_wrong() -> None:
    fault = Fault(
        kind="schema_drift", tool="get_order", explicit=True, transient=True, detail={"old": "order_id", "new": "orderId", "message": "m"}
    )
    scenario = drawn("stop_order").model_copy(update={"faults": (fault,)})
    find, look, _ = reference(scenario)
    result, _, _ = await played(scenario, [calling(find), calling(look), answer()])
    assert result.troubled == ("call_2",)
    assert all(m.train for m in result.messages if isinstance(m, AssistantMessage))


async def test_a_teacher_that_goes_round_in_circles_is_stopped() -> None:
    find, look, _ = reference(drawn("stop_order"))
    result, _, _ = await played(drawn("stop_order"), [calling(find), *[calling(look)] * 9])
    assert result.stop == "loop" and roles(result.messages) == "suat" + "at" * SAME
    again, _, _ = await played(drawn("stop_order"), [*[calling(look)] * (SAME - 1), calling(find), calling(look), answer()])
    assert again.stop == "done"


async def test_a_user_whose_reply_cannot_be_used_is_asked_again_and_then_given_up() -> None:
    class Babbler(FakeUser):
        def __init__(self, until: int) -> None:
            self.until = until
            self.redone: list[int] = []

        async def reply(self, request: Request) -> Reply:
            self.redone.append(request.redo)
            if request.redo < self.until:
                return Reply(problem="it is babble", raw="blah", usage=ONE)
            return await super().reply(request)

    scenario = drawn("stop_order")
    for until, stop in ((2, "done"), (9, "user")):
        user = Babbler(until)
        env = await Store.reset(scenario)
        result = await rollout(scenario, env, FakeTeacher([answer()]), user, budget=Budget(repairs=2))
        assert result.stop == stop and user.redone == [0, 1, 2]
        assert roles(result.messages) == "sua"
        assert result.usage.completion_tokens == 4
    assert result.raw == "blah" and "it is babble" in result.why


async def test_a_conversation_that_outgrows_the_model_ends_there() -> None:
    class Narrow(FakeTeacher):
        async def reply(self, request: Request) -> Reply:
            if len(request.messages) > 3:
                raise ContextTooLong("5000 of 4096 tokens")
            return await super().reply(request)

    scenario = drawn("stop_order")
    result = await rollout(scenario, await Store.reset(scenario), Narrow([calling(reference(scenario)[0])]), FakeUser())
    assert (result.stop, result.why) == ("too_long", "5000 of 4096 tokens")
    with pytest.raises(ContextTooLong):  # not even its beginning fits: no conversation would
        await rollout(scenario, await Store.reset(scenario), Raising(), FakeUser())
    result = await rollout(scenario, await Store.reset(scenario), FakeTeacher([answer()]), Raising())
    assert result.stop == "user" and "5000" in result.why


class Raising(FakeUser):
    async def reply(self, request: Request) -> Reply:
        raise ContextTooLong("5000 of 4096 tokens")


async def test_each_request_says_which_sibling_it_is_for() -> None:
    _, _, teacher = await played(drawn("stop_order"), [answer()], sibling=3)
    assert [request.sibling for request in teacher.requests] == [3]


# --- taken up from a prefix ---------------------------------------------------------------------------------


async def test_a_rollout_taken_up_from_a_prefix_makes_its_calls_again_and_goes_on() -> None:
    scenario = drawn("keep_after_all")
    find, look, move = reference(scenario)
    whole, before, _ = await played(scenario, [calling(find), calling(look), answer("Shall I?"), calling(move), answer()])
    assert whole.stop == "done" and roles(whole.messages) == "suatatua"
    again, after, teacher = await played(scenario, [calling(move), answer()], prefix=whole.messages[:7])
    assert again.messages[:7] == whole.messages[:7], "and the user does not say it twice"
    assert roles(again.messages) == "suatatuata"
    call = again.messages[7]
    assert isinstance(call, AssistantMessage) and call.tool_calls is not None
    assert call.tool_calls[0].id == "call_3", "ids go on where they were"
    assert len(teacher.requests) == 2
    assert before.changes() == {}
    assert after.orders[str(move.arguments["order_id"])].street == move.arguments["street"]


async def test_answers_of_the_user_in_a_prefix_are_kept() -> None:
    scenario = drawn("stop_order")
    find, look, cancel = reference(scenario)
    prefix = [
        SystemMessage(content="x"),
        UserMessage(content=scenario.opening),
        AssistantMessage(content="Which one?"),
        UserMessage(content="This one."),
    ]
    result, _, _ = await played(scenario, [calling(find), calling(look), calling(cancel), answer()], prefix=prefix)
    assert roles(result.messages) == "suauatatata"
    assert result.messages[3] == UserMessage(content="This one.")
    assert result.messages[0].content != "x", "the instructions are always those of the environment"


async def test_calls_that_a_fault_spoils_are_told_by_their_ids_also_in_a_prefix() -> None:
    fault = Fault(kind="server_error", tool="get_order", explicit=True, transient=True, detail={"times": 2, "message": "m"})
    scenario = drawn("stop_order").model_copy(update={"faults": (fault,)})
    find, look, cancel = reference(scenario)
    result, _, _ = await played(scenario, [calling(find, look), calling(look), calling(look), calling(cancel), answer()])
    assert result.troubled == ("call_2", "call_3")
    again, env, _ = await played(scenario, [calling(look), calling(look), answer()], prefix=result.messages[:5])
    assert again.troubled == ("call_2", "call_3")
    assert isinstance(env.faults, FaultPlan) and env.faults.hits == 2


async def test_a_prefix_with_a_message_that_was_written_anew_is_taken_up_as_it_stands() -> None:
    scenario = drawn("stop_order")
    find, look, cancel = reference(scenario)
    whole, _, _ = await played(scenario, [unusable(), calling(find), calling(look), answer("Shall I?"), calling(cancel), answer()])
    again, _, _ = await played(scenario, [calling(look), answer()], prefix=whole.messages[:6])
    assert again.messages[:6] == whole.messages[:6] and roles(again.messages) == "suauatata"
    assert structure_problems(again.messages) == []
