"""goal_decomposition: planned, carried out in that order, revised when things change; and what is no such trace."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from tracemill.constitution.constitution import load_constitution
from tracemill.generators import goal_decomposition, plan
from tracemill.generators.scenario import Mix, scenario
from tracemill.generators.teachers.base import Request
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.pipeline import Job, Pipeline
from tracemill.schemas.check import record_checker
from tracemill.trace import AssistantMessage, Message, Scenario, SystemMessage, ToolCall, ToolMessage, Trace, UserMessage

JOB = Job(2, Mix(kinds={"goal_decomposition": 1.0}), "plans")
SORTS: dict[str, Callable[[Scenario], bool]] = {
    "plain": lambda one: not one.interjections and not one.faults,
    "constraint": lambda one: any(spoken.constraint is not None and not spoken.changes_goal for spoken in one.interjections),
    "change of mind": lambda one: any(spoken.changes_goal for spoken in one.interjections),
    "obstacle": lambda one: any(fault.kind == "server_down" for fault in one.faults),
}


@functools.cache
def drawn() -> tuple[Scenario, ...]:
    return tuple(scenario(JOB.seed, index, JOB.mix) for index in range(120))


@functools.cache
def traces(sort: str) -> tuple[Trace, ...]:
    """Eight accepted traces of a sort."""
    teacher = ScriptedTeacher()
    pipeline = Pipeline(JOB, teacher, teacher, load_constitution())
    indices = [one.index for one in drawn() if SORTS[sort](one)][:8]
    made = [asyncio.run(pipeline.mill(index)) for index in indices]
    assert len(made) >= 5 and all(one.trace is not None and not one.rejections for one in made), sort
    return tuple(one.trace for one in made if one.trace is not None)


def every_trace() -> list[Trace]:
    return [trace for sort in SORTS for trace in traces(sort)]


def plans(trace: Trace) -> list[tuple[int, dict[str, Any]]]:
    return [(at, call.arguments) for at, call, _ in trace.calls() if call.name == "update_plan"]


def problems(trace: Trace) -> list[str]:
    return goal_decomposition.problems(trace)


def with_messages(trace: Trace, messages: list[Message]) -> Trace:
    return trace.model_copy(update={"messages": tuple(messages)})


def without_turn(trace: Trace, at: int) -> Trace:
    """The trace without the assistant message at this place and the results of its calls."""
    message = trace.messages[at]
    assert isinstance(message, AssistantMessage)
    ids = {call.id for call in message.tool_calls or ()}
    return with_messages(
        trace, [m for place, m in enumerate(trace.messages) if place != at and getattr(m, "tool_call_id", None) not in ids]
    )


def rewritten(trace: Trace, at: int, **changes: object) -> Trace:
    """The trace with other arguments in the plan at this place."""
    message = trace.messages[at]
    assert isinstance(message, AssistantMessage) and message.tool_calls is not None
    (call,) = message.tool_calls
    arguments = {**call.arguments, **changes}
    new = ToolCall(id=call.id, function=call.function.model_copy(update={"arguments": arguments}))
    messages = list(trace.messages)
    messages[at] = message.model_copy(update={"tool_calls": (new,)})
    return with_messages(trace, messages)


# --- what an accepted one is like --------------------------------------------------------------------------


def test_an_accepted_trace_begins_with_a_plan_that_conforms_and_holds_together() -> None:
    checker = record_checker("plan", exact=True)
    for trace in every_trace():
        assert trace.messages[2].role == "assistant" and plans(trace)[0][0] == 2
        for _, written in plans(trace):
            assert checker.problems(written) == []
            assert plan.problems(written) == []
        assert len(plans(trace)[0][1]["subgoals"]) >= 2
        assert problems(trace) == []


def test_a_plan_says_for_every_subgoal_what_it_takes_and_how_one_sees_that_it_is_reached() -> None:
    for trace in every_trace():
        offered = {tool.function.name for tool in trace.tools}
        for _, written in plans(trace):
            for one in written["subgoals"]:
                assert one["goal"] and one["success_criterion"] and one["tools"]
                assert set(one["tools"]) <= offered


def test_calls_are_made_in_the_order_of_the_plan_in_force() -> None:
    for trace in every_trace():
        made = [(at, call.name) for at, call, answer in trace.calls() if goal_decomposition.accepted(answer)]
        places = [at for at, _ in plans(trace)]
        for number, (at, written) in enumerate(plans(trace)):
            until = places[number + 1] if number + 1 < len(places) else len(trace.messages)
            names = [name for place, name in made if at < place < until]
            assert plan.execution_problems(written, names) == []
        planned = [tool for one in plans(trace)[-1][1]["subgoals"] for tool in one["tools"]]
        after = [name for place, name in made if place > places[-1]]
        assert sorted(planned) == sorted(after), "what was planned last is what was done, no more and no less"


@pytest.mark.parametrize("sort", ["constraint", "change of mind", "obstacle"])
def test_a_plan_is_revised_after_news_and_obstacles_before_anything_else_is_done(sort: str) -> None:
    revised = 0
    for trace in traces(sort):
        assert [written.get("revision", 0) for _, written in plans(trace)] == list(range(len(plans(trace))))
        for spoken in trace.scenario.interjections:
            said = next(at for at, m in enumerate(trace.messages) if isinstance(m, UserMessage) and m.content == spoken.says)
            if spoken.after == len(trace.scenario.steps) - 1:
                continue
            following = min(at for at, _, _ in trace.calls() if at > said)
            (written,) = [written for at, written in plans(trace) if at == following]
            assert spoken.says.removesuffix(".") in written["reason"] and spoken.says.removesuffix(".") in written["goal"]
            revised += 1
        for fault in trace.scenario.faults:
            failed = next(at for at, call, answer in trace.calls() if call.name == fault.tool and not goal_decomposition.accepted(answer))
            following = min(at for at, _, _ in trace.calls() if at > failed)
            (written,) = [written for at, written in plans(trace) if at == following]
            assert fault.tool in written["reason"]
            assert fault.tool not in [tool for one in written["subgoals"] for tool in one["tools"]]
            revised += 1
    assert revised >= 4


def test_the_first_plan_follows_the_wish_that_the_user_gives_up_later() -> None:
    for trace in traces("change of mind"):
        given_up = {bad.tool for bad in trace.scenario.forbidden}
        first, last = plans(trace)[0][1], plans(trace)[-1][1]
        tools = [{tool for one in written["subgoals"] for tool in one["tools"]} for written in (first, last)]
        assert given_up <= tools[0] and not given_up & tools[1]


def test_every_constraint_is_in_a_plan_but_none_before_it_was_said() -> None:
    constrained = 0
    for trace in every_trace():
        for one in trace.scenario.constraints:
            assert any(goal_decomposition.addresses(written, one) for _, written in plans(trace)), one.text
            constrained += 1
        for spoken in trace.scenario.interjections:
            if spoken.constraint is None:
                continue
            said = next(at for at, m in enumerate(trace.messages) if isinstance(m, UserMessage) and m.content == spoken.says)
            text = trace.scenario.constraints[spoken.constraint].text
            assert all((text in str(written)) == (at > said) for at, written in plans(trace))
    assert constrained >= 10


def test_a_plan_names_no_figure_and_no_identifier_before_it_has_come_up() -> None:
    for trace in every_trace():
        for at, written in plans(trace):
            before = "\n".join(m.content for m in trace.messages[:at])
            for one in written["subgoals"]:
                told = f"{one['goal']} {one['success_criterion']}".replace(",", " ").split()
                figures = [word.strip(".'();:") for word in told if any(letter.isdigit() for letter in word)]
                assert all(figure in before for figure in figures), (figures, one)


def test_a_subgoal_that_gives_away_what_is_not_known_yet_is_put_in_other_words() -> None:
    one = traces("plain")[0].scenario
    last = one.subgoals[-1].model_copy(update={"goal": "pay 9876.54 for it", "success": "it is with Zebulon"})
    altered = one.model_copy(update={"subgoals": (*one.subgoals[:-1], last)})

    def planned(scenario: Scenario) -> dict[str, Any]:
        messages: list[Message] = [SystemMessage(content="x"), UserMessage(content=scenario.opening)]
        reply = asyncio.run(ScriptedTeacher().reply(Request("agent", messages, (), scenario)))
        arguments: dict[str, Any] = reply.calls[0].arguments
        return arguments

    hidden = planned(altered)["subgoals"][-1]
    assert "9876" not in hidden["goal"] and "Zebulon" not in hidden["success_criterion"]
    assert hidden["goal"] and hidden["tools"][0] in hidden["success_criterion"]
    known = planned(altered.model_copy(update={"opening": one.opening + " It is 9876.54 to Zebulon."}))["subgoals"][-1]
    assert (known["goal"], known["success_criterion"]) == (last.goal, last.success)


# --- what is none ------------------------------------------------------------------------------------------


def test_without_a_plan_it_is_no_such_trace() -> None:
    for sort in SORTS:
        trace = traces(sort)[0]
        for at, _ in reversed(plans(trace)):
            trace = without_turn(trace, at)
        assert problems(trace) == ["the first call is not update_plan"]


def test_a_plan_after_the_first_call_comes_too_late() -> None:
    for trace in traces("plain"):
        messages = list(trace.messages)
        first = [messages[2], messages[3]]
        late = with_messages(trace, [*messages[:2], *messages[4:6], *first, *messages[6:]])
        if isinstance(messages[5], ToolMessage) and not isinstance(messages[6], ToolMessage):
            assert problems(late) == ["the first call is not update_plan"]


def test_a_plan_that_was_refused_is_none() -> None:
    trace = traces("plain")[0]
    messages = list(trace.messages)
    refused = messages[3].model_copy(update={"content": '{"error": {"code": "invalid_arguments", "message": "m", "retryable": false}}'})
    assert problems(with_messages(trace, [*messages[:3], refused, *messages[4:]])) == ["no plan was accepted"]


def test_calls_out_of_the_plans_order_are_found() -> None:
    found = 0
    for trace in traces("plain"):
        (at, written) = plans(trace)[0]
        subgoals = written["subgoals"]
        turned = [{**one, "depends_on": [later["id"] for later in subgoals[number + 1 :]]} for number, one in enumerate(subgoals)]
        shown = problems(rewritten(trace, at, subgoals=turned))
        assert shown and all("was called before" in problem for problem in shown)
        found += 1
    assert found >= 5


def test_a_revision_with_the_wrong_number_is_found() -> None:
    for sort in ("constraint", "change of mind", "obstacle"):
        trace = next(one for one in traces(sort) if len(plans(one)) > 1)
        at, _ = plans(trace)[1]
        assert problems(rewritten(trace, at, revision=0)) == ["plan 1 says it is revision 0"]
        assert problems(rewritten(trace, at, revision=2)) == ["plan 1 says it is revision 2"]


@pytest.mark.parametrize("sort", ["constraint", "change of mind", "obstacle"])
def test_a_plan_that_was_not_revised_is_found(sort: str) -> None:
    for trace in traces(sort):
        if len(plans(trace)) < 2:
            continue
        at, _ = plans(trace)[1]
        shown = problems(without_turn(trace, at))
        assert any(problem.startswith("the plan was not revised after messages[") for problem in shown), shown


def test_a_constraint_that_no_plan_addresses_is_found() -> None:
    for trace in every_trace():
        for one in trace.scenario.constraints:
            stripped = trace
            for at, written in plans(trace):
                bare = [
                    {"id": s["id"], "goal": "go on", "depends_on": s["depends_on"], "tools": s["tools"], "success_criterion": "seen"}
                    for s in written["subgoals"]
                ]
                stripped = rewritten(stripped, at, subgoals=bare)
            assert f"no sub-goal addresses: {one.text}" in problems(stripped)


def test_a_constraint_is_addressed_only_where_one_subgoal_has_all_its_keywords() -> None:
    trace = next(trace for trace in traces("constraint") if trace.scenario.constraints)
    one = trace.scenario.constraints[0].model_copy(update={"keywords": ("alpha", "Beta 7")})
    base = {"id": "g1", "depends_on": [], "tools": []}
    both = {**base, "goal": "do Alpha", "success_criterion": "it is beta 7"}
    listed = {**base, "goal": "x", "success_criterion": "y", "constraints": ["ALPHA and BETA 7"]}
    split = [{**base, "goal": "alpha", "success_criterion": "y"}, {**base, "goal": "beta 7", "success_criterion": "y"}]
    assert goal_decomposition.addresses({"subgoals": [both]}, one)
    assert goal_decomposition.addresses({"subgoals": [listed]}, one)
    assert not goal_decomposition.addresses({"subgoals": split}, one)


def test_a_wrong_step_before_the_plan_does_not_count_as_the_first_call() -> None:
    trace = traces("plain")[0]
    messages = list(trace.messages)
    first = messages[4]
    assert isinstance(first, AssistantMessage)
    slip = [first.model_copy(update={"train": False}), messages[5].model_copy()]
    assert problems(with_messages(trace, [*messages[:2], *slip, *messages[2:]])) == []
