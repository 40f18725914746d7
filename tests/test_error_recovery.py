"""error_recovery: every kind of trouble, what gets past it, and the proof that this was needed."""

from __future__ import annotations

import asyncio
import functools
import random
import re
from collections import Counter
from typing import get_args

import pytest

from tracemill.constitution.constitution import load_constitution
from tracemill.generators import error_recovery
from tracemill.generators import trouble as trouble_of
from tracemill.generators.environments.catalogue import BUILT_IN, environment
from tracemill.generators.environments.goal import draw, leaves
from tracemill.generators.replay import Move, moves
from tracemill.generators.rollout import rollout
from tracemill.generators.scenario import Mix, scenario
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.generators.trouble import FAULTS, MISTAKES
from tracemill.inspection import Finding, Passed, inspect
from tracemill.pipeline import Job, Pipeline
from tracemill.trace import (
    AssistantMessage,
    Fault,
    FaultKind,
    Message,
    MistakeKind,
    Persona,
    Scenario,
    Trace,
    is_error,
)  # fmt: skip

MIX = Mix(kinds={"error_recovery": 1.0})
JOB = Job(0, MIX, "recoveries")
KINDS: tuple[str, ...] = (*FAULTS, *MISTAKES)


@functools.cache
def drawn() -> tuple[Scenario, ...]:
    return tuple(scenario(JOB.seed, index, MIX) for index in range(600))


def trouble(one: Scenario) -> str:
    kinds: list[str] = [*(fault.kind for fault in one.faults), *(mistake.kind for mistake in one.mistakes)]
    (kind,) = kinds
    return kind


@functools.cache
def accepted(kind: str) -> tuple[Trace, ...]:
    """Three traces with this trouble, as the pipeline accepts them."""
    teacher = ScriptedTeacher()
    pipeline = Pipeline(JOB, teacher, teacher, load_constitution())
    indices = [one.index for one in drawn() if trouble(one) == kind][:3]
    made = [asyncio.run(pipeline.mill(index)) for index in indices]
    assert all(one.trace is not None and not one.rejections for one in made)
    return tuple(one.trace for one in made if one.trace is not None)


def examined(trace: Trace) -> Passed | Finding:
    return asyncio.run(inspect(trace, environment(trace.environment), load_constitution()))


def proven(trace: Trace) -> list[str]:
    return error_recovery.problems(asyncio.run(error_recovery.prove(trace, environment(trace.environment))))


def with_messages(trace: Trace, messages: list[Message]) -> Trace:
    return trace.model_copy(update={"messages": tuple(messages)})


def without(trace: Trace, places: tuple[int, ...]) -> Trace:
    """The trace without these assistant messages and the results of their calls."""
    gone = {*places, *(move.at for move in moves(trace.messages) if move.at in places)}
    ids = {move.id for move in moves(trace.messages) if move.at in places}
    kept = [m for at, m in enumerate(trace.messages) if at not in gone and getattr(m, "tool_call_id", None) not in ids]
    return with_messages(trace, kept)


def mistaken(trace: Trace) -> Move:
    """The first wrong step."""
    return next(move for move in moves(trace.messages) if move.wrong)


def recovering(trace: Trace) -> list[Move]:
    assert trace.recovery is not None
    return [move for move in moves(trace.messages) if move.at in trace.recovery.recovery]


def test_all_kinds_of_faults_and_mistakes_come_up_in_all_environments() -> None:
    kinds = Counter(trouble(one) for one in drawn())
    assert set(kinds) == set(KINDS)
    assert {one.environment for one in drawn()} == set(BUILT_IN)
    assert set(get_args(FaultKind)) == {*FAULTS, "injection"}, "an injection is no failure: it comes with tool_call"
    assert set(get_args(MistakeKind)) == set(MISTAKES)
    planted = [scenario(0, index, Mix(kinds={"tool_call": 1.0})) for index in range(120)]
    assert any(fault.kind == "injection" for one in planted for fault in one.faults)


@pytest.mark.parametrize("kind", KINDS)
def test_both_halves_of_the_proof_hold_for_every_accepted_trace(kind: str) -> None:
    for trace in accepted(kind):
        found = trace.recovery
        assert found is not None
        assert found.faults == (kind,)
        assert found.without_fault_holds is True and found.without_recovery_fails is True
        assert found.recovery, "something was done about it"
        assert min(found.recovery) > min(found.wrong, default=0)
        assert proven(trace) == []
        for at in found.recovery:
            message = trace.messages[at]
            assert isinstance(message, AssistantMessage) and message.train and message.tool_calls


@pytest.mark.parametrize("kind", ["timeout_written", "wrong_record", "partial", "acting_blind"])
def test_trouble_whose_place_is_hard_to_find_is_never_put_where_it_does_no_harm(kind: str) -> None:
    teacher = ScriptedTeacher()
    pipeline = Pipeline(JOB, teacher, teacher, load_constitution())
    for one in drawn():
        if trouble(one) == kind:
            made = asyncio.run(pipeline.mill(one.index))
            assert made.trace is not None, made.rejections[-1].evidence


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_steps_are_masked_and_only_they(kind: str) -> None:
    for trace in accepted(kind):
        assert trace.recovery is not None
        masked = {at for at, m in enumerate(trace.messages) if isinstance(m, AssistantMessage) and not m.train}
        assert masked == set(trace.recovery.wrong)
        mistaken = [mistake.call for mistake in trace.scenario.mistakes for _ in range(mistake.times)]
        assert [move.call for move in moves(trace.messages) if move.at in masked] == mistaken
        assert bool(masked) == (kind in MISTAKES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_whose_recovery_is_taken_out_is_rejected(kind: str) -> None:
    for trace in accepted(kind):
        assert trace.recovery is not None
        cut = without(trace, trace.recovery.recovery)
        assert isinstance(examined(cut), Finding)
        none = trace.recovery.model_copy(update={"recovery": ()})
        found = proven(trace.model_copy(update={"recovery": none}))
        assert found[0] == "the trouble was followed by no recovery"
        assert "it was not needed" in found[-1], "with all calls left in, the goal is reached"


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_that_is_not_marked_as_one_is_rejected(kind: str) -> None:
    for trace in accepted(kind):
        opened = [m.model_copy(update={"train": True}) if isinstance(m, AssistantMessage) else m for m in trace.messages]
        found = examined(with_messages(trace, opened))
        assert isinstance(found, Finding)
        careless = '"code": "unknown_tool"' in mistaken(trace).text or '"code": "invalid_arguments"' in mistaken(trace).text
        if careless:
            assert found.stage == "goal" and found.problems[-1].endswith("is a wrong call and not marked as one")
        else:
            assert found.stage in ("goal", "proof")


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_needed_step_that_is_marked_as_wrong_is_rejected(kind: str) -> None:
    for trace in accepted(kind):
        needed = trace.scenario.steps[trace.scenario.mistakes[0].step].call
        at = next(move.at for move in moves(trace.messages) if move.call == needed and not move.wrong)
        masked = [m.model_copy(update={"train": False}) if place == at else m for place, m in enumerate(trace.messages)]
        assert isinstance(examined(with_messages(trace, masked)), Finding)


def test_a_step_that_is_taken_blindly_knows_nothing_that_nobody_has_told() -> None:
    blind = [one for one in drawn() if trouble(one) == "acting_blind"]
    assert len(blind) >= 6
    for one in blind:
        (mistake,) = one.mistakes
        asked = {name for step in one.steps[mistake.step + 1 :] for name in step.asks}
        untold = {slot.value for slot in one.slots if slot.name in asked}
        assert not untold & set(map(str, leaves(mistake.call.arguments)))
        right = next(step.call for step in one.steps[mistake.step :] if step.call.tool == mistake.call.tool)
        assert mistake.call != right


# --- trouble that does not matter, or never comes -----------------------------------------------------------


def sound(name: str, template: str, seed: int = 0) -> Scenario:
    """A recovery before anything goes wrong."""
    rng = random.Random(f"recovery/{seed}")
    cls = environment(name)
    return draw(cls, template, index=0, seed=1, kind="error_recovery", world=2, persona=Persona(tone="plain"), rng=rng)


def played(fault: Fault, template: str = "redirect_order") -> Trace:
    """A job at the store, with a fault put in by hand; to change an address, the look at the order is not needed."""
    cls = environment("store")
    troubled = sound("store", template).model_copy(update={"faults": (fault,)})
    teacher = ScriptedTeacher()

    async def play() -> Trace:
        env = await cls.reset(troubled)
        result = await rollout(troubled, env, teacher, teacher)
        return Trace(
            id="t", kind="error_recovery", environment="store", template=template, index=0, seed=1, difficulty=2,
            messages=result.messages, tools=cls.offered("error_recovery"),
            effects={one.name: one.effect for one in cls.tools("error_recovery")}, scenario=troubled,
            recovery=error_recovery.locate(troubled, result.messages, result.troubled), state_digest="", teacher="scripted",
        )  # fmt: skip

    return asyncio.run(play())


def test_a_fault_that_did_not_matter_is_rejected_by_the_proof() -> None:
    trace = played(Fault(kind="server_error", tool="get_order", explicit=True, transient=True, detail={"message": "500"}))
    assert trace.recovery is not None and trace.recovery.recovery
    found = examined(trace)
    assert isinstance(found, Finding)
    assert (found.stage, found.blame) == ("proof", "tool")
    assert found.problems == ("with the fault and without the recovery, the goal is reached all the same: it was not needed",)


def test_the_same_fault_where_it_matters_passes() -> None:
    found = examined(played(Fault(kind="server_error", tool="change_address", explicit=True, transient=True, detail={"message": "500"})))
    assert isinstance(found, Passed)
    assert found.recovery is not None and found.recovery.without_recovery_fails


@pytest.mark.parametrize("fault", [("get_product", 1), ("change_address", 2)])
def test_a_fault_that_never_struck_is_rejected_by_the_proof(fault: tuple[str, int]) -> None:
    found = examined(played(Fault(kind="server_error", tool=fault[0], nth=fault[1], explicit=True, transient=True)))
    assert isinstance(found, Finding)
    assert found.stage == "proof" and found.problems == ("nothing went wrong: the fault never struck",)


# --- where it is put ----------------------------------------------------------------------------------------


def tried(one: Scenario, kind: FaultKind, tool: str) -> Scenario | None:
    """The scenario with this fault at the first call of a tool, if it can be put there."""
    number = next(at for at, step in enumerate(one.steps) if step.call.tool == tool)
    here = trouble_of.ground(one, environment(one.environment))
    return trouble_of.with_fault(here, kind, number, random.Random(0))


def test_an_answer_is_not_lost_where_a_later_step_shows_all_the_same_that_the_write_took_place() -> None:
    for seed in range(8):
        assert tried(sound("workspace", "bring_back", seed), "timeout_written", "restore_file") is None


def test_an_answer_is_not_lost_where_it_alone_showed_what_the_user_is_told() -> None:
    lost = 0
    for seed in range(24):
        one = sound("travel", "fly_out", seed)
        found = tried(one, "timeout_written", "book_flight")
        assert found is None or not re.search(r"(visa|mastercard|paypal)_", one.answer)
        lost += found is not None
    assert lost, "where nothing is lost for good, the fault fits"


def test_a_record_that_is_mixed_up_is_one_that_was_there_at_the_time() -> None:
    mixed = 0
    for seed in range(24):
        found = tried(sound("workspace", "archive_reports", seed), "wrong_record", "find_files")
        if found is not None:
            detail = found.faults[0].detail
            shown = environment("workspace")(found.world).run("find_files", detail["arguments"]).text
            assert detail["shows"] in shown and detail["asked"] not in shown
            mixed += 1
    assert mixed


# --- what gets past each ------------------------------------------------------------------------------------


def looks(trace: Trace, found: list[Move]) -> bool:
    return all(trace.effects[move.call.tool] == "read" for move in found)


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_got_past_in_its_own_way(kind: FaultKind) -> None:
    for trace in accepted(kind):
        (fault,) = trace.scenario.faults
        steps = recovering(trace)
        calls = [move.call for move in steps]
        hit = [move for move in moves(trace.messages) if move.call.tool == fault.tool][fault.nth - 1]
        assert hit.at < steps[0].at
        write = trace.effects[fault.tool] != "read"
        match kind:
            case "timeout_written":
                assert hit.call not in calls and looks(trace, steps[:1]), "looked at, not written again"
            case "timeout_lost" | "server_error" if not write:
                assert set(map(str, calls)) == {str(hit.call)}
            case "timeout_lost" | "server_error" | "stale":
                assert looks(trace, steps[:1]) and calls[-1] == hit.call, "looked at first, then written again"
            case "rate_limit":
                assert [call.tool for call in calls] == ["wait", *[fault.tool] * (len(calls) - 1)], "one pause for all"
                assert calls[0].arguments == {"seconds": fault.detail["retry_after"]} and calls[1] == hit.call
            case "partial" | "wrong_record":
                assert calls == [hit.call]
            case "schema_drift":
                old, new = fault.detail["old"], fault.detail["new"]
                assert calls[0].arguments == {new if key == old else key: value for key, value in hit.call.arguments.items()}
                assert all(old not in call.arguments for call in calls if call.tool == fault.tool)
            case "permission" | "server_down" if trace.scenario.honest_end is not None:
                assert [call.tool for call in calls] == ["transfer_to_human"]
                assert [move.call.tool for move in moves(trace.messages)].count(fault.tool) == fault.nth, "and not tried again"
            case _:
                step = next(one for one in trace.scenario.steps if one.call == hit.call)
                assert calls == [step.fallback]


def test_one_pause_is_enough_for_all_calls_of_a_message() -> None:
    detail = {"retry_after": 20, "message": "slow down"}
    trace = played(Fault(kind="rate_limit", tool="get_order", explicit=True, transient=True, detail=detail), "compare_orders")
    orders = [move for move in moves(trace.messages) if move.call.tool == "get_order"]
    refused = [move for move in orders if is_error(move.text)]
    assert len(refused) >= 2 and len({move.at for move in refused}) == 1 and len(orders) == 2 * len(refused)
    assert [move.call.tool for move in moves(trace.messages)].count("wait") == 1
    assert isinstance(examined(trace), Passed)


@pytest.mark.parametrize("kind", ["permission", "server_down"])
def test_an_honest_end_tells_what_was_not_done_and_who_takes_over(kind: str) -> None:
    ended = [trace for trace in accepted(kind) if trace.scenario.honest_end is not None]
    assert ended or kind == "server_down"
    for trace in ended:
        end = trace.scenario.honest_end
        assert end is not None
        assert "CASE-" in trace.answer and end.department in trace.answer
        assert end.problem.lower() in trace.answer.lower()
        boast = trace.messages[-1].model_copy(update={"content": trace.scenario.answer})
        found = examined(with_messages(trace, [*trace.messages[:-1], boast]))
        assert isinstance(found, Finding) and found.stage == "goal"
        assert any(problem.startswith("told:") for problem in found.problems)


def test_what_was_changed_before_an_honest_end_is_told_to_the_user_and_to_the_colleague() -> None:
    ended = [one.index for one in drawn() if one.honest_end and any(step.effect != "read" for step in one.steps[:-1])][:4]
    assert ended
    teacher = ScriptedTeacher()
    pipeline = Pipeline(JOB, teacher, teacher, load_constitution())
    for index in ended:
        trace = asyncio.run(pipeline.mill(index)).trace
        assert trace is not None
        handed = next(call for _, call, _ in trace.calls() if call.name == "transfer_to_human")
        for step in trace.scenario.steps[:-1]:
            if step.effect == "read":
                continue
            named = step.call.tool.replace("_", " ")
            for text in (trace.answer, str(handed.arguments["summary"])):
                assert named in text or step.confirm in text, (named, text)
