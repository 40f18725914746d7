"""The pipeline: one index from its scenario to a trace, a pair, or a rejection, whatever teachers and tools do."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import pytest

from tracemill.constitution.constitution import load_constitution
from tracemill.errors import TeacherDied, TeacherError
from tracemill.generators.environments.base import Environment
from tracemill.generators.environments.goal import Draft, goal
from tracemill.generators.environments.tool import tool
from tracemill.generators.rollout import NOTICE, Budget
from tracemill.generators.scenario import Mix, place_of, scenario
from tracemill.generators.teachers.base import Reply, Request, Teacher
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.pipeline import REVISIONS, Job, Milled, Pipeline
from tracemill.trace import KINDS, AssistantMessage, Blame, Call, Json, Rejection, Scenario, Stage, Usage
from tracemill.writer import pack

SOUND = Job(0, Mix(), "pipeline")
SPOILED = Job(3, Mix(flaws=1.0), "pipeline")


class FakeTeacher:
    """Answers every request by a function."""

    name = "fake"

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self._answer = answer

    async def reply(self, request: Request) -> Reply:
        return self._answer(request)


class FakeReviser:
    """The scripted teacher, but it leaves out its thoughts until it has been sent back so many times."""

    name = "fake reviser"

    def __init__(self, stubborn_for: int, *, from_message: int = 0) -> None:
        self._scripted = ScriptedTeacher()
        self._from_message = from_message
        self._stubborn_for = stubborn_for
        self.critiques: list[tuple[int, str]] = []
        self.heard: list[tuple[int, int]] = []  # revision, and how much of the conversation there was

    async def reply(self, request: Request) -> Reply:
        self.critiques.append((request.revision, request.critique))
        self.heard.append((request.revision, len(request.messages)))
        found = await self._scripted.reply(request)
        if request.revision >= self._stubborn_for or len(request.messages) < self._from_message:
            return found
        return Reply(found.text, None, found.calls, found.usage, found.wrong)


@functools.cache
def constitution() -> Any:
    return load_constitution()


def mill(index: int, agent: Teacher | None = None, user: Teacher | None = None, *, job: Job = SOUND) -> Milled:
    return asyncio.run(Pipeline(job, agent or ScriptedTeacher(), user or ScriptedTeacher(), constitution()).mill(index))


def first(job: Job, fits: Callable[[Scenario], bool]) -> int:
    return next(index for index in range(400) if fits(scenario(job.seed, index, job.mix)))


# --- the good way -------------------------------------------------------------------------------------------


def test_an_accepted_trace_is_checked_sealed_and_signed() -> None:
    for index in range(9):
        one = mill(index)
        trace = one.trace
        assert trace is not None and one.rejections == () and one.preferences == ()
        assert trace.digest == trace.seal() and trace.digest
        assert trace.id == SOUND.id_of(index) and (trace.index, one.index) == (index, index)
        assert (trace.kind, trace.environment) == place_of(SOUND.seed, index, SOUND.mix)
        assert trace.outcome is not None and trace.outcome.score == 1
        assert trace.verdicts and all(verdict.passed for verdict in trace.verdicts)
        assert trace.state_digest and trace.teacher == "scripted" and trace.revisions == 0
        assert (trace.recovery is not None) == (trace.kind == "error_recovery")
        assert trace.usage.completion_tokens > 0
        assert set(trace.effects) == {offered.function.name for offered in trace.tools}


def test_the_same_index_comes_out_the_same_alone_and_among_others() -> None:
    pipeline = Pipeline(SPOILED, ScriptedTeacher(), ScriptedTeacher(), constitution())

    async def together() -> list[Milled]:
        return list(await asyncio.gather(*(pipeline.mill(index) for index in reversed(range(16)))))

    assert asyncio.run(together())[::-1] == [mill(index, job=SPOILED) for index in range(16)]


def test_ids_depend_on_what_decides_the_content() -> None:
    ids = {Job(seed, Mix(), digest).id_of(index) for seed in (0, 1) for digest in ("a", "b") for index in (0, 1)}
    assert len(ids) == 8
    assert Job(0, Mix(), "a").id_of(0) == Job(0, Mix(flaws=1.0), "a", Budget(1, 1)).id_of(0)


# --- revisions ----------------------------------------------------------------------------------------------


@functools.cache
def revised() -> tuple[Milled, ...]:
    made = [mill(index, job=SPOILED) for index in range(24)]
    return tuple(one for one in made if one.trace is not None and one.trace.revisions)


def test_a_revised_draft_gives_a_pair_of_one_message_each_after_the_same_prompt() -> None:
    assert len(revised()) >= 8
    for one in revised():
        trace, (draft,), (pair,) = one.trace, one.rejections, one.preferences
        assert trace is not None and trace.revisions == 1
        at = len(pair.prompt)
        assert pair.prompt == trace.messages[:at] == draft.messages[:at]
        assert pair.chosen == (trace.messages[at],) and pair.rejected == (draft.messages[at],)
        assert pair.chosen != pair.rejected
        assert all(isinstance(message, AssistantMessage) for message in (*pair.chosen, *pair.rejected))
        assert pair.prompt[-1].role in ("user", "tool")
        assert (pair.id, pair.trace, pair.index) == (f"{trace.id}.p1", trace.id, trace.index)
        assert pair.tools == trace.tools and pair.margin == 1.0
        principle = pair.source.removeprefix("revision:")
        assert any(verdict.principle == principle and verdict.passed for verdict in trace.verdicts)


def test_the_draft_that_was_sent_back_is_kept_among_the_rejections() -> None:
    for one in revised():
        (draft,) = one.rejections
        assert one.trace is not None
        assert (draft.stage, draft.blame, draft.final, draft.attempt) == ("constitution", "agent", False, 0)
        assert draft.id == f"{one.trace.id}.0"
        assert draft.messages and draft.messages != one.trace.messages
        assert draft.reason == draft.evidence[0]
        assert draft.usage == Usage(), "tokens are counted once, on what came of it in the end"
        alone = mill(one.index, job=Job(SPOILED.seed, SPOILED.mix, SPOILED.digest))
        assert alone.trace is not None and alone.trace.usage == one.trace.usage


def test_a_trace_counts_the_tokens_of_its_drafts() -> None:
    index = first(SOUND, lambda one: one.kind == "tool_call" and len(one.steps) >= 3)
    straight = mill(index).trace
    detour = mill(index, FakeReviser(1)).trace
    assert straight is not None and detour is not None
    assert detour.revisions == 1
    assert detour.usage.prompt_tokens > 1.5 * straight.usage.prompt_tokens


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_teacher_that_never_learns_is_sent_back_twice_and_no_more(index: int) -> None:
    teacher = FakeReviser(99)
    one = mill(first(SOUND, lambda s: s.index >= index and bool(s.steps)), teacher)
    assert one.trace is None and one.preferences == ()
    assert [(r.attempt, r.final, r.stage) for r in one.rejections] == [
        (0, False, "constitution"),
        (1, False, "constitution"),
        (2, True, "constitution"),
    ]
    assert REVISIONS == 2 and max(revision for revision, _ in teacher.critiques) == 2
    assert [r.usage.completion_tokens > 0 for r in one.rejections] == [False, False, True]


def test_a_teacher_that_learns_the_second_time_gives_a_pair_of_its_last_two_drafts() -> None:
    teacher = FakeReviser(2)
    one = mill(first(SOUND, lambda s: len(s.steps) > 2), teacher)
    assert one.trace is not None and one.trace.revisions == 2
    assert [(r.attempt, r.final) for r in one.rejections] == [(0, False), (1, False)]
    (pair,) = one.preferences
    assert pair.id == f"{one.trace.id}.p2"
    at = len(pair.prompt)
    assert pair.rejected == (one.rejections[1].messages[at],)
    assert one.rejections[1].messages[:at] == one.trace.messages[:at]


def test_a_revision_takes_up_the_draft_at_the_message_that_was_found_fault_with() -> None:
    for template in ("stop_order", "swap_item", "keep_after_all"):
        teacher = FakeReviser(1, from_message=4)
        one = mill(first(SOUND, lambda s, template=template: s.template == template), teacher)  # type: ignore[misc]
        (pair,) = one.preferences
        assert next(length for revision, length in teacher.heard if revision) == len(pair.prompt) > 2
        later = one.rejections[0].messages[4:]
        unspoken = next(m for m in later if isinstance(m, AssistantMessage) and m.tool_calls)
        assert pair.rejected == (unspoken,), "the first call without a thought"


def test_what_is_sent_back_comes_with_the_principle_and_what_was_found() -> None:
    teacher = FakeReviser(1)
    mill(first(SOUND, lambda s: len(s.steps) > 2), teacher)
    first_draft = [critique for revision, critique in teacher.critiques if revision == 0]
    second = [critique for revision, critique in teacher.critiques if revision == 1]
    assert set(first_draft) == {""}
    critique, *later = second
    assert set(later) == {""}, "it is about one message: the next ones are written without it"
    assert critique.startswith(constitution().principle("transparent_reasoning").revision)
    assert "without saying why" in critique


# --- teachers and tools that fail ---------------------------------------------------------------------------


def raising(error: Exception) -> Callable[[Request], Reply]:
    def answer(request: Request) -> Reply:
        raise error

    return answer


def calls(name: str, **arguments: Json) -> Callable[[Request], Reply]:
    return lambda request: Reply(reasoning="hm", calls=(Call(tool=name, arguments=arguments),))


def first_tool(**arguments: Json) -> Callable[[Request], Reply]:
    return lambda request: Reply(reasoning="hm", calls=(Call(tool=request.tools[0].function.name, arguments=arguments),))


NONSENSE: dict[str, tuple[Callable[[Request], Reply], Stage, Blame]] = {
    "no reply": (raising(TeacherError("the server is gone")), "infrastructure", "infrastructure"),
    "a bug": (raising(KeyError("oops")), "infrastructure", "infrastructure"),
    "nothing": (lambda request: Reply(), "schema", "agent"),
    "only thoughts": (lambda request: Reply(reasoning="hm"), "schema", "agent"),
    "a premature end": (lambda request: Reply("All done.", "done"), "goal", "agent"),
    "unknown tools": (calls("no_such_tool"), "rollout", "agent"),
    "wrong arguments": (first_tool(x=[1, {"y": None}]), "rollout", "agent"),
    "no number": (first_tool(x=float("nan")), "rollout", "agent"),
    "half a character": (lambda request: Reply("\ud83d"), "rollout", "agent"),
    "half a character in a call": (first_tool(x="\ud83d"), "rollout", "agent"),
    "a hundred calls": (
        lambda request: Reply(reasoning="hm", calls=tuple(Call(tool="x", arguments={}) for _ in range(100))),
        "rollout",
        "agent",
    ),
    "a plan in circles": (
        calls(
            "update_plan",
            goal="g",
            constraints=[],
            subgoals=[{"id": "a", "goal": "b", "depends_on": ["a"], "tools": [], "success_criterion": "s"}],
        ),
        "rollout",
        "agent",
    ),
}


@functools.cache
def one_of_each_kind() -> tuple[int, ...]:
    return tuple(first(SOUND, lambda s, kind=kind: s.kind == kind and s.ending == "done") for kind in KINDS)  # type: ignore[misc]


@pytest.mark.parametrize("sort", NONSENSE)
def test_an_agent_that_makes_no_sense_ends_in_a_rejection(sort: str) -> None:
    answer, stage, blame = NONSENSE[sort]
    for index in one_of_each_kind():
        one = mill(index, FakeTeacher(answer))
        assert one.trace is None and one.preferences == ()
        (rejection,) = one.rejections
        assert (rejection.stage, rejection.blame, rejection.final, rejection.attempt) == (stage, blame, True, 0)
        assert rejection.reason and rejection.id == f"{SOUND.id_of(index)}.0" and rejection.index == index
        assert rejection.kind == place_of(SOUND.seed, index, SOUND.mix)[0]
        assert pack(one)["index"] == index, "and it can be written"


def test_a_bug_in_a_teacher_is_told_with_the_place_where_it_is() -> None:
    (rejection,) = mill(0, FakeTeacher(raising(KeyError("oops")))).rejections
    assert rejection.reason == "KeyError: 'oops'"
    assert rejection.evidence[0].startswith("test_pipeline.py, line ") and rejection.evidence[0].endswith("in answer")


def test_a_user_who_never_stops_talking_ends_in_a_rejection_at_the_budget() -> None:
    (rejection,) = mill(0, user=FakeTeacher(lambda request: Reply("And another thing."))).rejections
    assert (rejection.stage, rejection.final) == ("rollout", True)
    assert "within its budget" in rejection.reason
    assert len(rejection.messages) > 2 * 38


def test_a_user_who_fails_ends_in_a_rejection() -> None:
    one = mill(0, user=FakeTeacher(raising(TeacherError("gone"))))
    (rejection,) = one.rejections
    assert (rejection.stage, rejection.blame, rejection.reason) == ("infrastructure", "infrastructure", "gone")
    assert one.lost


def test_the_budget_of_the_job_is_the_one_that_counts() -> None:
    index = first(SOUND, lambda one: len(one.steps) >= 4)
    for budget in (Budget(2, 40), Budget(40, 2)):
        (rejection,) = mill(index, job=Job(0, Mix(), "pipeline", budget)).rejections
        assert rejection.stage == "rollout" and rejection.final


def test_a_teacher_that_fails_while_it_revises_loses_the_index_with_all_its_drafts() -> None:
    """It is made again from the start, and then a draft that had been kept would be there twice."""

    class FakeQuitter(FakeReviser):
        async def reply(self, request: Request) -> Reply:
            if request.revision:
                raise TeacherError("no more")
            return await super().reply(request)

    one = mill(first(SOUND, lambda s: len(s.steps) > 2), FakeQuitter(1))
    assert one.trace is None and one.lost
    (rejection,) = one.rejections
    assert (rejection.attempt, rejection.stage, rejection.blame, rejection.final) == (0, "infrastructure", "infrastructure", True)
    assert rejection.reason == "no more"


def test_only_what_may_pass_is_worth_another_try() -> None:
    assert mill(0, FakeTeacher(raising(TeacherError("gone")))).lost
    assert not mill(0, FakeTeacher(raising(KeyError("a bug")))).lost
    assert not mill(0, FakeTeacher(lambda request: Reply("All done."))).lost
    assert not mill(0).lost


def test_a_teacher_that_has_died_is_no_matter_of_one_index() -> None:
    for agent, user in ((FakeTeacher(raising(TeacherDied("the engine is gone"))), None), (None, FakeTeacher(raising(TeacherDied("gone"))))):
        with pytest.raises(TeacherDied):
            mill(0, agent, user)


def test_what_could_not_be_written_down_is_in_the_ledger_spelled_out() -> None:
    (rejection,) = mill(0, FakeTeacher(lambda request: Reply("\ud83d"))).rejections
    assert rejection.messages == () and "\\ud83d" in rejection.raw
    assert rejection.reason == "messages[2] cannot be written down: 'utf-8' codec can't encode character '\\ud83d' in position 0: " + (
        "surrogates not allowed"
    )


@pytest.mark.parametrize("error", [TeacherError("it says \ud83d", ["and \ud83d"]), ValueError("it says \ud83d")], ids=repr)
def test_an_error_with_words_that_no_file_can_hold_is_written_all_the_same(error: Exception) -> None:
    one = mill(0, FakeTeacher(raising(error)))
    assert "it says \\ud83d" in one.rejections[0].reason
    assert pack(one)["rejections"]


def test_a_teacher_that_plays_several_roles_is_started_and_closed_once() -> None:
    class Ready(ScriptedTeacher):
        def __init__(self) -> None:
            super().__init__()
            self.log: list[str] = []

        async def start(self) -> None:
            self.log.append("start")

        async def close(self) -> None:
            self.log.append("close")

    async def run(pipeline: Pipeline) -> None:
        await pipeline.start()
        await pipeline.close()

    one, other = Ready(), Ready()
    asyncio.run(run(Pipeline(SOUND, one, one, constitution(), one)))
    asyncio.run(run(Pipeline(SOUND, one, other, constitution())))
    assert one.log == ["start", "close"] * 2 and other.log == ["start", "close"]


def test_a_revision_that_had_to_be_repaired_itself_is_no_chosen_message() -> None:
    """What stands where the draft was found fault with is then a wrong step."""

    class Clumsy(FakeReviser):
        async def reply(self, request: Request) -> Reply:
            if request.critique and NOTICE not in request.messages[-1].content:
                return Reply("<tool_call>{", problem="it is no call", raw="<tool_call>{")
            mended = [m for m in request.messages if m.content != "<tool_call>{" and not m.content.startswith(NOTICE)]
            return await super().reply(replace(request, messages=mended))

    one = mill(first(SOUND, lambda s: len(s.steps) > 2), Clumsy(1))
    assert one.trace is not None and one.trace.revisions == 1
    assert [m.train for m in one.trace.messages if isinstance(m, AssistantMessage)].count(False) == 1
    assert one.preferences == ()


class Shaky(Environment):
    """One tool, which has a bug in world 1, and one goal, which has a bug in world 2."""

    name = "shaky"
    policy = "Look things up."
    words = {"look.opening": ["please look"], "look.answer": ["it is there"]}  # noqa: RUF012
    open = 0

    @classmethod
    async def reset(cls, scenario: Scenario, *, faults: bool = True) -> Self:
        Shaky.open += 1
        return await super().reset(scenario, faults=faults)

    async def close(self) -> None:
        Shaky.open -= 1

    @tool("read")
    def peek(self) -> Json:
        """Look."""
        return {"there": True}

    @tool("write")
    def poke(self) -> Json:
        """Fail by a bug."""
        return [][0]

    @goal(kinds=("tool_call",))
    def look(self, g: Draft) -> None:
        """Look."""
        if self.world == 2:
            raise ZeroDivisionError("a template's bug")
        g.call("peek", why="it has to be seen")
        g.tell("there")


SHAKY = Job(0, Mix(kinds={"tool_call": 1.0}, environments={f"{__name__}:Shaky": 1.0}, worlds=3), "shaky")


def test_a_bug_in_an_environment_costs_the_index_and_nothing_else() -> None:
    worlds: dict[str, Milled] = {}
    for index in range(12):
        one = mill(index, job=SHAKY)
        worlds["sound" if one.trace else one.rejections[0].reason] = one
    assert set(worlds) == {"sound", "ZeroDivisionError: a template's bug"}
    broken = worlds["ZeroDivisionError: a template's bug"].rejections[0]
    assert (broken.stage, broken.blame, broken.final) == ("infrastructure", "infrastructure", True)
    assert broken.evidence[0].endswith("in look")
    index = next(one.index for one in worlds.values() if one.trace)
    (rejection,) = mill(index, FakeTeacher(calls("poke")), job=SHAKY).rejections
    assert (rejection.stage, rejection.reason) == ("infrastructure", "IndexError: list index out of range")


def test_an_environment_is_closed_whatever_happens() -> None:
    sound = next(index for index in range(12) if mill(index, job=SHAKY).trace)
    before = Shaky.open
    for agent in (
        None,
        FakeTeacher(raising(TeacherError("gone"))),
        FakeTeacher(calls("poke")),
        FakeTeacher(calls("nope")),
        FakeReviser(99),
    ):
        mill(sound, agent, job=SHAKY)
    assert Shaky.open == before == 0


def test_an_index_for_which_nothing_can_be_drawn_is_a_rejection_of_its_own() -> None:
    job = Job(0, Mix(kinds={"error_recovery": 1.0}, environments={f"{__name__}:Shaky": 1.0}), "shaky")
    (rejection,) = mill(7, job=job).rejections
    assert isinstance(rejection, Rejection)
    assert (rejection.stage, rejection.blame, rejection.final) == ("rollout", "infrastructure", True)
    assert rejection.reason == "no environment of the mix has a template for error_recovery"
    assert (rejection.index, rejection.kind) == (7, "error_recovery")
