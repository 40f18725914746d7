"""A critic's word beside the rules, and several rollouts of one scenario."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import re
from collections.abc import Callable

import pytest

from tracemill.columns import from_row, to_row
from tracemill.constitution.constitution import Constitution, load_constitution
from tracemill.criticism import TRIES, asked
from tracemill.errors import ContextTooLong, TeacherDied, TeacherError
from tracemill.generators.scenario import Mix, scenario
from tracemill.generators.teachers.base import Reply, Request, Teacher
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.pipeline import Job, Milled, Pipeline
from tracemill.trace import AssistantMessage, Json, Scenario, Trace, Usage
from tracemill.writer import pack

MIX = Mix(environments={"store": 1.0})
SOUND = Job(0, MIX, "criticism")
UNRULED = "user_goal_within_policy"  # the one principle that no rule decides
ONE = Usage(prompt_tokens=1000, completion_tokens=1)


@functools.cache
def constitution() -> Constitution:
    return load_constitution()


@functools.cache
def drawn(steps: int = 3) -> Scenario:
    found = (scenario(0, index, MIX) for index in range(400))
    return next(one for one in found if one.kind == "tool_call" and len(one.steps) >= steps and not one.interjections)


Judge = Callable[[Request, str], str | list[int]]
"""What the critic says of a principle: messages that break it (none: it is kept), or a text of its own."""


class FakeCritic:
    name = "fake critic"

    def __init__(self, judge: Judge = lambda request, principle: []) -> None:
        self._judge = judge
        self.asked: list[tuple[int, str, int]] = []  # revision, principle, which try

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def reply(self, request: Request) -> Reply:
        assert request.role == "critic" and request.schema is not None
        (message,) = request.messages
        principle = re.findall(r"^## The principle: (\w+)", message.content, re.MULTILINE)[-1]
        self.asked.append((request.revision, principle, request.redo))
        found = self._judge(request, principle)
        return Reply(found if isinstance(found, str) else critique(principle, found), usage=ONE)


def critique(principle: str, broken: list[int], reason: str = "that is not what was wanted") -> str:
    passed: dict[str, Json] = {"principle": principle, "verdict": "pass", "severity": "low", "at": None, "reason": ""}
    failed = [{**passed, "verdict": "fail", "at": at, "reason": reason} for at in broken]
    return json.dumps({"verdicts": failed or [passed]})


class FakeReviser(ScriptedTeacher):
    """Takes leave of the user in another way in each revision."""

    def __init__(self) -> None:
        super().__init__()
        self.critiques: list[str] = []

    async def reply(self, request: Request) -> Reply:
        self.critiques += [request.critique] if request.critique else []
        found = await super().reply(request)
        ending = f" Have {request.revision} good days." if request.revision and found.text else ""
        return dataclasses.replace(found, text=found.text + ending)


def mill(critic: Teacher | None, agent: Teacher | None = None, *, agreement: float = 0.0, index: int | None = None) -> Milled:
    job = dataclasses.replace(SOUND, agreement=agreement)
    pipeline = Pipeline(job, agent or FakeReviser(), ScriptedTeacher(), constitution(), critic)
    one = asyncio.run(pipeline.mill(drawn().index if index is None else index))
    assert pack(one)["index"] == one.index
    return one


@functools.cache
def undisturbed() -> Trace:
    trace = mill(None).trace
    assert trace is not None
    return trace


def last() -> int:
    return len(undisturbed().messages) - 1


# --- verdicts -----------------------------------------------------------------------------------------------


def test_the_critics_verdicts_stand_in_the_trace_beside_those_of_the_rules() -> None:
    critic = FakeCritic()
    trace = mill(critic).trace
    assert trace is not None and trace.revisions == 0
    assert critic.asked == [(0, UNRULED, 0)]
    assert [one for one in trace.verdicts if one.by == "rule"] == list(undisturbed().verdicts)
    (verdict,) = [one for one in trace.verdicts if one.by == "critic"]
    assert (verdict.principle, verdict.passed) == (UNRULED, True)
    assert trace.usage == undisturbed().usage + ONE, "the critic's tokens count"
    assert from_row(Trace, to_row(trace)) == trace


def test_a_draft_that_the_critic_finds_fault_with_goes_back_and_gives_a_pair() -> None:
    critic = FakeCritic(lambda request, principle: [] if request.revision else [last()])
    agent = FakeReviser()
    one = mill(critic, agent)
    assert one.trace is not None and one.trace.revisions == 1
    assert critic.asked == [(0, UNRULED, 0), (1, UNRULED, 0)]
    (draft,) = one.rejections
    assert (draft.stage, draft.blame, draft.final) == ("constitution", "agent", False)
    assert draft.reason == f"{UNRULED} (messages[{last()}]): that is not what was wanted"
    assert [(v.by, v.at) for v in draft.verdicts if not v.passed] == [("critic", last())]
    (told,) = agent.critiques
    assert constitution().principle(UNRULED).revision in told and "that is not what was wanted" in told
    (pair,) = one.preferences
    assert pair.source == f"revision:{UNRULED}" and len(pair.prompt) == last()
    assert pair.rejected == (undisturbed().messages[-1],)
    assert pair.chosen == (one.trace.messages[-1],) and pair.chosen[0].content.endswith("Have 1 good days.")
    assert one.trace.usage.prompt_tokens > undisturbed().usage.prompt_tokens + 2000


def test_a_draft_goes_back_to_the_first_message_that_was_found_fault_with() -> None:
    (at,) = [at for at, m in enumerate(undisturbed().messages) if isinstance(m, AssistantMessage) and not m.tool_calls][:1]
    critic = FakeCritic(lambda request, principle: [] if request.revision else [last(), at])
    (pair,) = mill(critic).preferences
    assert len(pair.prompt) == at


def test_a_critic_that_is_never_content_ends_in_the_ledger() -> None:
    critic = FakeCritic(lambda request, principle: [last()])
    one = mill(critic)
    assert one.trace is None and one.preferences == ()
    assert [(r.attempt, r.final, r.stage) for r in one.rejections] == [(n, n == 2, "constitution") for n in range(3)]
    assert one.rejections[-1].usage.prompt_tokens > 3000


def test_a_revision_that_changes_nothing_gives_no_pair() -> None:
    critic = FakeCritic(lambda request, principle: [] if request.revision else [last()])
    one = mill(critic, ScriptedTeacher())
    assert one.trace is not None and one.trace.messages == undisturbed().messages
    assert len(one.rejections) == 1 and one.preferences == ()


def test_a_critic_that_disagrees_with_a_rule_is_heard_and_changes_nothing() -> None:
    critic = FakeCritic(lambda request, principle: [last()] if principle == "no_loops" else [])
    one = mill(critic, agreement=1.0)
    assert one.trace is not None and one.trace.revisions == 0 and one.rejections == ()
    both = {verdict.by: verdict.passed for verdict in one.trace.verdicts if verdict.principle == "no_loops"}
    assert both == {"rule": True, "critic": False}


def test_a_critic_that_sees_nothing_in_what_a_rule_found_changes_nothing_either() -> None:
    class Thoughtless(ScriptedTeacher):
        async def reply(self, request: Request) -> Reply:
            found = await super().reply(request)
            return found if request.revision else dataclasses.replace(found, reasoning=None)

    one = mill(FakeCritic(), Thoughtless(), agreement=1.0)
    assert one.trace is not None and one.trace.revisions == 1
    (draft,) = one.rejections
    assert {(v.by, v.passed) for v in draft.verdicts if v.principle == "transparent_reasoning"} == {("rule", False), ("critic", True)}
    assert one.preferences[0].source == "revision:transparent_reasoning"


def test_a_rollout_that_failed_before_is_not_shown_to_the_critic() -> None:
    class Hasty(ScriptedTeacher):
        async def reply(self, request: Request) -> Reply:
            return Reply("It is done.") if request.role == "agent" else await super().reply(request)

    critic = FakeCritic()
    assert mill(critic, Hasty()).rejections[0].stage == "goal"
    assert critic.asked == []


# --- critiques that cannot be read --------------------------------------------------------------------------

UNREADABLE = {
    "chatter": lambda request, principle: "It looks fine to me.",
    "nothing": lambda request, principle: "",
    "another principle": lambda request, principle: critique("no_loops", []),
    "a message that is not there": lambda request, principle: critique(principle, [99]),
    "a message of the user": lambda request, principle: critique(principle, [1]),
    "half a character": lambda request, principle: critique(principle, [last()], "half a \ud83d"),
    "broken JSON": lambda request, principle: critique(principle, [])[:-3],
    "half a character outside": lambda request, principle: "\ud83d",
    "a megabyte": lambda request, principle: "x" * 1_000_000,
}


@pytest.mark.parametrize("sort", UNREADABLE)
def test_a_critique_that_cannot_be_read_is_asked_for_once_more_and_then_there_is_none(sort: str) -> None:
    critic = FakeCritic(UNREADABLE[sort])
    trace = mill(critic).trace
    assert trace is not None and trace.revisions == 0
    assert critic.asked == [(0, UNRULED, 0), (0, UNRULED, 1)] and TRIES == 2
    assert trace.verdicts == undisturbed().verdicts
    assert trace.usage == undisturbed().usage + ONE + ONE


def test_a_critique_that_can_be_read_the_second_time_counts() -> None:
    critic = FakeCritic(lambda request, principle: [] if request.redo else "Well ...")
    trace = mill(critic).trace
    assert trace is not None and [v.passed for v in trace.verdicts if v.by == "critic"] == [True]


def test_a_critique_with_a_problem_of_its_own_is_not_read() -> None:
    class Cut(FakeCritic):
        async def reply(self, request: Request) -> Reply:
            return dataclasses.replace(await super().reply(request), problem="it was cut off before its end")

    trace = mill(Cut(lambda request, principle: [last()])).trace
    assert trace is not None and not any(v.by == "critic" for v in trace.verdicts)


def failing(error: Exception) -> FakeCritic:
    def judge(request: Request, principle: str) -> str:
        raise error

    return FakeCritic(judge)


def test_a_critic_that_fails_costs_the_index_but_a_trace_that_is_too_long_for_it_only_its_verdict() -> None:
    one = mill(failing(TeacherError("gone")))
    assert one.trace is None and one.lost and one.rejections[0].stage == "infrastructure"
    trace = mill(failing(ContextTooLong("5000 of 4096 tokens"))).trace
    assert trace is not None and trace.verdicts == undisturbed().verdicts
    with pytest.raises(TeacherDied):
        mill(failing(TeacherDied("gone")))


# --- who is asked what --------------------------------------------------------------------------------------


def test_what_rules_decide_the_critic_is_asked_on_a_share_of_the_scenarios() -> None:
    scenarios = [scenario(0, index, MIX) for index in range(200)]
    for share in (0.0, 0.3, 1.0):
        numbers = [len(asked(constitution(), one, share)) for one in scenarios]
        everything = [number > 1 for number in numbers]
        assert abs(sum(everything) / len(scenarios) - share) < 0.1
        assert numbers == [len(asked(constitution(), one, share)) for one in scenarios], "it follows from the scenario alone"


def test_only_principles_of_the_kind_are_asked_about() -> None:
    for one in (scenario(0, index, MIX) for index in range(12)):
        found = asked(constitution(), one, 1.0)
        assert [p.id for p in found] == [p.id for p in constitution().principles if one.kind in p.kinds]
        assert [p.id for p in asked(constitution(), one, 0.0)] == [UNRULED]


def test_the_critic_is_asked_about_each_principle_by_itself() -> None:
    critic = FakeCritic()
    trace = mill(critic, agreement=1.0).trace
    assert trace is not None
    principles = [p.id for p in constitution().principles if "tool_call" in p.kinds]
    assert sorted(critic.asked) == sorted((0, principle, 0) for principle in principles)
    assert [v.principle for v in trace.verdicts if v.by == "critic"] == principles, "in the order of the constitution"


# --- siblings -----------------------------------------------------------------------------------------------

Ways = dict[int, str]
"""How a sibling goes astray: 'at once', 'in the end', 'in silence' (thinks nothing in its first draft), or in an error."""


class FakeSiblings(ScriptedTeacher):
    """Each takes leave in its own way, and some go astray."""

    def __init__(self, ways: Ways) -> None:
        super().__init__()
        self._ways = ways

    async def reply(self, request: Request) -> Reply:
        if request.role != "agent":
            return await super().reply(request)
        way = self._ways.get(request.sibling, "")
        if way == "lost" and len(request.messages) > 2:
            raise TeacherError("no answer")
        if way == "dead":
            raise TeacherDied("the engine is gone")
        if way == "bug":
            raise KeyError("oops")
        if way == "at once":
            return Reply("It is done.", "easy")
        found = await super().reply(request)
        if not found.calls and found.text == drawn().answer:
            ending = "I could not do it." if way == "in the end" else f"{found.text} Greetings from {request.sibling}."
            return dataclasses.replace(found, text=ending, reasoning="I answer")
        return dataclasses.replace(found, reasoning=None) if way == "in silence" and not request.revision else found


def siblings(ways: Ways, number: int = 4, user: Teacher | None = None) -> Milled:
    job = dataclasses.replace(SOUND, siblings=number)
    pipeline = Pipeline(job, FakeSiblings(ways), user or ScriptedTeacher(), constitution())
    one = asyncio.run(pipeline.mill(drawn().index))
    assert pack(one)["index"] == one.index
    ids = [record.id for record in (*one.rejections, *one.preferences)]
    assert len(set(ids)) == len(ids)
    return one


def test_the_first_sibling_that_passes_is_the_trace() -> None:
    for ways, taken in (({}, 0), ({0: "at once"}, 1), ({0: "in silence", 1: "in the end"}, 2)):
        trace = siblings(ways).trace
        assert trace is not None and trace.revisions == 0
        assert trace.answer.endswith(f"Greetings from {taken}."), ways


def test_siblings_with_different_outcomes_give_pairs_where_they_part() -> None:
    one = siblings({0: "in the end", 3: "at once"})
    assert one.trace is not None
    start, end = one.preferences
    assert len(start.prompt) == 2 and len(end.prompt) == len(one.trace.messages) - 1
    assert (start.source, end.source) == ("call", "siblings")
    assert start.chosen[0].tool_calls and start.rejected[0].content == "It is done."
    assert end.chosen[0].content.endswith(("Greetings from 1.", "Greetings from 2.")) and end.rejected[0].content == "I could not do it."
    assert (start.margin, end.margin) == (pytest.approx(2 / 3), 1.0), "two of the three that began with the call"
    assert [pair.id for pair in one.preferences] == [f"{one.trace.id}.s1", f"{one.trace.id}.s2"]
    assert all(pair.trace == one.trace.id and pair.tools == one.trace.tools for pair in one.preferences)


def test_siblings_that_failed_are_in_the_ledger_beside_the_trace() -> None:
    one = siblings({1: "at once", 2: "in silence"})
    assert one.trace is not None
    assert [(r.sibling, r.attempt, r.stage, r.final) for r in one.rejections] == [
        (1, 0, "goal", False),
        (2, 0, "constitution", False),
    ]
    assert [r.id for r in one.rejections] == [f"{one.trace.id}.s1.0", f"{one.trace.id}.s2.0"]
    assert all(r.usage == Usage() for r in one.rejections)


def test_where_no_sibling_passes_one_that_can_be_mended_is_revised() -> None:
    one = siblings({0: "at once", 1: "in silence", 2: "in the end", 3: "at once"})
    assert one.trace is not None and one.trace.revisions == 1
    assert one.trace.answer.endswith("Greetings from 1.")
    assert [(r.sibling, r.final) for r in one.rejections] == [(0, False), (2, False), (3, False), (1, False)]
    assert [pair.source for pair in one.preferences] == ["revision:transparent_reasoning"]


def test_where_all_siblings_fail_one_rejection_is_final() -> None:
    one = siblings({0: "at once", 1: "in the end", 2: "at once", 3: "at once"})
    assert one.trace is None and one.preferences == () and not one.lost
    assert [r.final for r in one.rejections] == [False, False, False, True]
    assert {r.sibling for r in one.rejections} == {0, 1, 2, 3}
    assert one.rejections[-1].usage.completion_tokens > 0


def test_a_trace_counts_the_tokens_of_all_siblings() -> None:
    alone, four = siblings({}, 1).trace, siblings({}, 4).trace
    assert alone is not None and four is not None
    assert four.usage.prompt_tokens == pytest.approx(4 * alone.usage.prompt_tokens, rel=0.01)


def test_a_sibling_that_a_teacher_fails_loses_the_whole_index() -> None:
    one = siblings({2: "lost"})
    assert one.trace is None and one.lost and one.preferences == ()
    (rejection,) = one.rejections
    assert (rejection.stage, rejection.reason, rejection.final) == ("infrastructure", "no answer", True)
    with pytest.raises(TeacherDied):
        siblings({2: "dead"})
    one = siblings({2: "bug"})
    assert not one.lost and one.rejections[0].reason == "KeyError: 'oops'"


def test_a_sibling_that_failed_by_the_users_fault_says_nothing_of_the_agent() -> None:
    class FakeUser(ScriptedTeacher):
        async def reply(self, request: Request) -> Reply:
            return Reply(problem="it is babble", raw="blah") if request.sibling == 1 else await super().reply(request)

    one = siblings({1: "at once"}, 2, FakeUser())
    assert one.trace is not None and one.preferences == ()
    assert [(r.sibling, r.blame) for r in one.rejections] == [(1, "user")]


def test_the_same_scenario_with_the_same_siblings_comes_out_the_same() -> None:
    assert siblings({0: "in the end", 3: "at once"}) == siblings({0: "in the end", 3: "at once"})
