"""Process metrics: on real rollouts, and on such that were broken by hand and played again: each measure moves when, and
only when, its cause is there."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tracemill.constitution.constitution import load_constitution
from tracemill.generators import error_recovery
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.environments.goal import judge
from tracemill.generators.replay import fresh, moves
from tracemill.generators.rollout import Budget, Rollout, rollout
from tracemill.generators.scenario import Mix, scenario
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.generators.trouble import FAULTS, MISTAKES
from tracemill.pipeline import trace_of
from tracemill.trace import (
    AssistantMessage,
    Call,
    FunctionCall,
    FunctionSpec,
    Interjection,
    Json,
    Kind,
    Message,
    OfferedTool,
    Scenario,
    Step,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
    Verdict,
)  # fmt: skip
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.process import MEASURES, OWN, Process, Trouble, process, summarize

COSTS = {"tokens_read", "tokens_written", "tokens", "turns", "calls", "seconds"}
CONSTITUTION = load_constitution()


# --- episodes -----------------------------------------------------------------------------------------------


@functools.cache
def drawn(kind: Kind, index: int) -> Scenario:
    return scenario(3, index, Mix(kinds={kind: 1.0}))


def find(kind: Kind, fits: Callable[[Scenario], bool]) -> Scenario:
    return next(one for one in (drawn(kind, index) for index in range(600)) if fits(one))


async def _play(one: Scenario, prefix: Sequence[Message], budget: Budget) -> Episode:
    cls, teacher = environment(one.environment), ScriptedTeacher()
    env = await cls.reset(one)
    played: Rollout = await rollout(one, env, teacher, teacher, prefix=prefix, budget=budget)
    await env.close()
    trace = trace_of(one, cls, played, id="", teacher="")
    env, done = await fresh(cls, one, moves(played.messages))
    outcome = await judge(one, env, done, trace.answer)
    await env.close()
    return Episode(
        index=0, arm="seeds", mode="", number=one.index, sample=0, scenario=one, messages=played.messages, tools=trace.tools,
        effects=trace.effects, stop="done", outcome=outcome, verdicts=CONSTITUTION.judge(trace), troubled=played.troubled,
        recovery=error_recovery.locate(one, played.messages, played.troubled), usage=played.usage, seconds=1.5,
    )  # fmt: skip


@functools.cache
def _played(kind: Kind, index: int) -> Episode:
    return asyncio.run(_play(drawn(kind, index), (), Budget()))


def played(one: Scenario) -> Episode:
    return _played(one.kind, one.index)


def again(episode: Episode, messages: Sequence[Message], *, of: Scenario | None = None) -> Episode:
    """The same conversation with other messages of the agent: its calls are made anew, what the user said stays."""
    numbered: list[Message] = []
    count = 0
    for message in messages:
        if isinstance(message, AssistantMessage) and message.tool_calls:
            calls = tuple(call.model_copy(update={"id": f"call_{count + at}"}) for at, call in enumerate(message.tool_calls, 1))
            count += len(calls)
            message = message.model_copy(update={"tool_calls": calls})
        numbered.append(message)
    return asyncio.run(_play(of or episode.scenario, numbered, Budget(turns=0)))


def says(tool: str, arguments: Json) -> AssistantMessage:
    made = ToolCall(id="call_0", function=FunctionCall(name=tool, arguments=arguments))
    return AssistantMessage(content="", reasoning_content="This has to be done now.", tool_calls=(made,))


def made_at(episode: Episode, tool: str) -> list[int]:
    return [move.at for move in moves(episode.messages) if move.call.tool == tool]


def without(episode: Episode, *places: int) -> Episode:
    return again(episode, [message for at, message in enumerate(episode.messages) if at not in places])


def with_call(episode: Episode, at: int, tool: str, arguments: Json, times: int = 1) -> Episode:
    """With a call made before the message at this place."""
    return again(episode, [*episode.messages[:at], *[says(tool, arguments)] * times, *episode.messages[at:]])


def alter(episode: Episode, tool: str, change: Callable[[dict[str, Json]], dict[str, Json]], *, nth: int = 0) -> Episode:
    """With other arguments in the nth message that calls the tool."""
    place = made_at(episode, tool)[nth]
    message = episode.messages[place]
    assert isinstance(message, AssistantMessage) and message.tool_calls
    calls = [
        says(call.name, change(json.loads(json.dumps(call.arguments))) if call.name == tool else call.arguments)
        for call in message.tool_calls
    ]
    made = tuple(call for one in calls for call in one.tool_calls or ())
    return again(
        episode, [*episode.messages[:place], message.model_copy(update={"tool_calls": made, "train": True}), *episode.messages[place + 1 :]]
    )


def moved(before: Episode, after: Episode) -> set[str]:
    """Which measures differ, costs apart."""
    was, now = process(before), process(after)
    return {name for name in MEASURES if getattr(was, name) != getattr(now, name)} - COSTS


def alone(step: Step, one: Scenario) -> bool:
    """Whether its message makes no other call."""
    return sum(other.group == step.group for other in one.steps) == 1


def plain_call(one: Scenario) -> bool:
    """A read of its own by an identifier, and at the end a write of its own; nothing goes wrong."""
    steps = one.steps
    if len(steps) < 2 or one.faults or one.interjections or steps[-1].effect == "read" or not all(alone(step, one) for step in steps):
        return False
    return steps[-2].effect == "read" and "_id" in "".join(steps[-2].call.arguments) and steps[-2].call not in [s.call for s in steps[:-2]]


@pytest.fixture(scope="module")
def simple() -> Episode:
    return played(find("tool_call", plain_call))


@pytest.fixture(scope="module")
def planned() -> Episode:
    """A plan of three sub-goals or more, each with other tools, and nothing in its way."""

    def fits(one: Scenario) -> bool:
        return (
            not one.faults and not one.interjections and len(one.subgoals) >= 3 and len({s.call.tool for s in one.steps}) == len(one.steps)
        )

    return played(find("goal_decomposition", fits))


# --- what is right ------------------------------------------------------------------------------------------


def flaws(episode: Episode) -> Iterator[str]:
    one, found = episode.scenario, process(episode)
    for name in ("recall", "precision", "plan_coverage", "plan_order", "plan_revised", "adapted", "recovered"):
        if getattr(found, name) not in (None, 1):
            yield f"{name} is {getattr(found, name)}"
    for name in ("wasted", "blind_retries", "invented", "violated"):
        if getattr(found, name):
            yield f"{name} is {getattr(found, name)}"
    applies = {"recall": one.steps, "precision": one.steps, "plan_coverage": one.kind == "goal_decomposition", "adapted": one.interjections}
    yield from (f"{name} should be told" for name, due in applies.items() if bool(due) != (getattr(found, name) is not None))
    if {trouble.kind for trouble in found.troubles} != {fault.kind for fault in one.faults}:
        yield f"the troubles are {found.troubles}"


@pytest.mark.parametrize("kind", ["tool_call", "goal_decomposition", "error_recovery"])
def test_a_rollout_by_the_reference_is_flawless(kind: Kind) -> None:
    """With its retries, its checks, its ways round, its renamed arguments, its plans and their revisions."""
    scenarios = [one for one in (drawn(kind, index) for index in range(60)) if not one.mistakes]
    found = {one.index: list(flaws(played(one))) for one in scenarios}
    assert len(found) > 30 and {index: flaw for index, flaw in found.items() if flaw} == {}


def test_costs_are_those_of_the_episode(simple: Episode) -> None:
    found = process(simple.model_copy(update={"usage": Usage(prompt_tokens=70, completion_tokens=8), "seconds": 2.5}))
    turns = sum(isinstance(message, AssistantMessage) for message in simple.messages)
    calls = len(moves(simple.messages))
    assert (found.tokens_read, found.tokens_written, found.tokens, found.seconds, found.turns, found.calls) == (
        70,
        8,
        78,
        2.5,
        turns,
        calls,
    )


def test_tokens_are_not_known_where_a_conversation_took_none(simple: Episode) -> None:
    untold = process(simple.model_copy(update={"usage": Usage()}))
    assert (untold.tokens_read, untold.tokens_written, untold.tokens) == (None, None, None)
    assert process(simple.model_copy(update={"usage": Usage(), "messages": ()})).tokens == 0, "nothing was said, and nothing read"


def test_an_episode_without_a_conversation_has_costs_only(simple: Episode) -> None:
    empty = simple.model_copy(update={"messages": (), "outcome": None, "verdicts": (), "stop": "too_long"})
    found = process(empty)
    assert found == Process(
        simple.key, 0, False, tokens_read=simple.usage.prompt_tokens, tokens_written=simple.usage.completion_tokens, seconds=1.5
    )


# --- calls --------------------------------------------------------------------------------------------------


def test_a_call_that_is_left_out_is_missed_by_recall_alone(simple: Episode) -> None:
    steps = simple.scenario.steps
    broken = without(simple, made_at(simple, steps[-1].call.tool)[-1])
    assert moved(simple, broken) == {"recall"} | ({"violated"} if process(broken).violated else set())
    assert process(broken).recall == pytest.approx(1 - 1 / len(steps))


def test_a_read_that_is_repeated_is_wasted_and_not_right(simple: Episode) -> None:
    look = simple.scenario.steps[-2].call
    at = made_at(simple, look.tool)[-1]
    broken = with_call(simple, at, look.tool, look.arguments)
    assert moved(simple, broken) == {"precision", "wasted"}
    assert process(broken).wasted == 1


def test_a_read_that_is_repeated_after_a_write_is_neither_wasted_nor_wrong(simple: Episode) -> None:
    look = simple.scenario.steps[-2].call
    assert moved(simple, with_call(simple, len(simple.messages) - 1, look.tool, look.arguments)) == set()


def other_look(one: Scenario) -> Call | None:
    """A look-up that the reference does not make, at something that its last write is given."""
    given = one.steps[-1].call.arguments if plain_call(one) else {}
    used = {call.tool for step in one.steps for call in (step.call, step.check, step.fallback) if call}
    for tool in environment(one.environment).tools(one.kind):
        required = tool.parameters.get("required", [])
        if tool.effect == "read" and tool.name not in used and len(required) == 1 and required[0].endswith("_id") and required[0] in given:
            return Call(tool=tool.name, arguments={required[0]: given[required[0]]})
    return None


def test_another_look_at_what_was_written_counts_neither_way_and_before_the_write_it_is_wrong() -> None:
    episode = played(find("tool_call", lambda one: other_look(one) is not None))
    look = other_look(episode.scenario)
    assert look is not None
    after = with_call(episode, len(episode.messages) - 1, look.tool, look.arguments)
    before = with_call(episode, made_at(episode, episode.scenario.steps[-1].call.tool)[-1], look.tool, look.arguments)
    assert process(before).wasted == process(after).wasted == 0
    assert moved(episode, after) == set()
    assert moved(episode, before) == {"precision"}


def test_another_argument_makes_the_call_a_wrong_one_and_the_right_one_missing() -> None:
    """A search with another filter is a call that succeeds."""

    def fits(one: Scenario) -> bool:
        return (
            not one.faults
            and not one.interjections
            and any(step.call.tool == "search_flights" and step.effect == "read" for step in one.steps)
        )

    episode = played(find("tool_call", fits))
    broken = alter(episode, "search_flights", lambda arguments: {**arguments, "last_day": "2026-12-24"})
    assert {"precision", "recall"} <= moved(episode, broken) <= {"precision", "recall", "wasted", "recovered", "invented", "violated"}


def test_a_default_that_is_spelled_out_is_the_same_call() -> None:
    def fits(one: Scenario) -> bool:
        calls = [step.call for step in one.steps if step.call.tool == "search_flights"]
        return not one.faults and bool(calls) and all("last_day" not in call.arguments for call in calls)

    episode = played(find("tool_call", fits))
    assert moved(episode, alter(episode, "search_flights", lambda arguments: {**arguments, "last_day": None})) == set()


def test_a_free_text_may_have_other_words_and_a_name_may_not(simple: Episode) -> None:
    step = simple.scenario.steps[0]
    for given, wanted, right in (
        ("Sorry that you had to wait.", "For the late arrival, with our apologies.", True),
        ("Vera Olsen", "Nadia Popov", False),
        (" ", "For the late arrival, with our apologies.", False),
    ):
        call = Call(tool=step.call.tool, arguments={"note": wanted})
        other = simple.scenario.model_copy(update={"steps": (step.model_copy(update={"call": call, "fallback": None}),)})
        changed = simple.model_copy(update={"scenario": other, "messages": (*simple.messages[:2], says(call.tool, {"note": given}))})
        assert process(changed).recall == right


def test_only_with_the_drift_is_the_new_name_right() -> None:
    one = find("error_recovery", lambda one: any(fault.kind == "schema_drift" for fault in one.faults))
    episode = played(one)
    assert process(episode).precision == 1
    healthy = episode.model_copy(update={"scenario": one.model_copy(update={"faults": ()})})
    assert (process(healthy).precision or 0) < 1


def test_a_call_of_a_tool_that_is_not_there_is_wasted_wrong_and_an_error_of_its_own(simple: Episode) -> None:
    broken = with_call(simple, 2, "look_it_up", {})
    assert moved(simple, broken) == {"precision", "wasted", "recovered"}
    assert process(broken).troubles == (Trouble("unknown_tool", OWN),) and process(broken).recovered is True


def test_a_server_that_fails_of_its_own_accord_is_no_fault_of_the_agent(simple: Episode) -> None:
    at = next(at for at, message in enumerate(simple.messages) if isinstance(message, ToolMessage))
    call = next(move.call for move in moves(simple.messages))
    failing = ToolMessage(tool_call_id="call_0", name=call.tool, content='{"error": {"code": "failed", "message": "the server is gone"}}')
    twice = simple.model_copy(
        update={"messages": (*simple.messages[: at - 1], says(call.tool, call.arguments), failing, *simple.messages[at - 1 :])}
    )
    assert moved(simple, twice) == set() and process(twice).calls == process(simple).calls + 1


def test_schemas_as_found_in_the_wild_are_no_obstacle(simple: Episode) -> None:
    first = simple.scenario.steps[0].call.tool
    for parameters in ({"properties": {"id": True}}, {"properties": None}, {}):
        tools = [OfferedTool(function=FunctionSpec(name=first, parameters=parameters))]
        assert moved(simple, simple.model_copy(update={"tools": tuple(tools)})) == set()


def test_an_identifier_that_nothing_showed_is_invented_once_however_often_it_is_used(simple: Episode) -> None:
    look = simple.scenario.steps[-2].call
    name, value = next((name, value) for name, value in look.arguments.items() if name.endswith("_id"))
    wrong = value[:-2] + ("73" if value[-2:] != "73" else "37")
    assert process(simple).invented == 0 and wrong not in str(simple.messages)
    broken = with_call(simple, 2, look.tool, {**look.arguments, name: wrong}, times=2)
    assert (process(broken).invented, process(broken).wasted, process(broken).troubles) == (1, 2, (Trouble("not_found", OWN),))
    assert moved(simple, broken) == {"invented", "precision", "wasted", "recovered", "violated"}


def write_that_is_tried_again(one: Scenario) -> bool:
    (fault,) = one.faults or (None,)
    return fault is not None and fault.kind in ("timeout_lost", "server_error") and fault.detail.get("times", 1) == 1 and any(
        step.call.tool == fault.tool and step.effect != "read" and alone(step, one) for step in one.steps
    )  # fmt: skip


def test_a_write_that_is_repeated_without_a_look_is_a_blind_retry() -> None:
    episode = played(find("error_recovery", write_that_is_tried_again))
    (struck,) = [move.at for move in moves(episode.messages) if move.id in episode.troubled]
    broken = without(episode, next(move.at for move in moves(episode.messages) if move.at > struck))
    assert moved(episode, broken) == {"blind_retries", "violated"}
    assert process(broken).blind_retries == 1


def test_a_read_that_is_repeated_after_an_error_is_no_blind_retry() -> None:
    def fits(one: Scenario) -> bool:
        kinds = [fault.kind for fault in one.faults]
        return "server_error" in kinds and any(step.call.tool == one.faults[0].tool and step.effect == "read" for step in one.steps)

    assert process(played(find("error_recovery", fits))).blind_retries == 0


# --- plans --------------------------------------------------------------------------------------------------


def replanned(episode: Episode, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Episode:
    return alter(episode, "update_plan", lambda plan: {**plan, "subgoals": change(plan["subgoals"])})


def reverse(subgoals: list[dict[str, Any]]) -> list[dict[str, Any]]:
    turned = subgoals[::-1]
    return [{**one, "depends_on": [turned[at - 1]["id"]] if at else []} for at, one in enumerate(turned)]


def merge(subgoals: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**subgoals[0], "depends_on": [], "tools": [tool for one in subgoals for tool in one["tools"]]}]


def test_without_a_plan_nothing_is_covered(planned: Episode) -> None:
    broken = without(planned, *made_at(planned, "update_plan"))
    assert moved(planned, broken) == {"plan_coverage", "plan_order", "violated"}
    assert (process(broken).plan_coverage, process(broken).plan_order) == (0, None)


def test_a_plan_that_lacks_a_sub_goal_covers_less(planned: Episode) -> None:
    broken = replanned(planned, lambda subgoals: subgoals[:-1])
    assert moved(planned, broken) - {"violated"} == {"plan_coverage"}
    assert process(broken).plan_coverage == pytest.approx(1 - 1 / len(planned.scenario.subgoals))


def test_a_plan_that_is_turned_round_covers_as_much_in_the_wrong_order(planned: Episode) -> None:
    broken = replanned(planned, reverse)
    assert moved(planned, broken) - {"violated"} == {"plan_order"}
    assert process(broken).plan_order == 0


def test_the_order_in_which_a_plan_is_written_counts_where_it_names_no_dependencies(planned: Episode) -> None:
    loose = replanned(planned, lambda subgoals: [{**one, "depends_on": []} for one in subgoals])
    turned = replanned(planned, lambda subgoals: [{**one, "depends_on": []} for one in subgoals[::-1]])
    assert (process(loose).plan_order, process(turned).plan_order) == (1, 0)


def test_how_finely_a_plan_is_cut_does_not_matter(planned: Episode) -> None:
    assert moved(planned, replanned(planned, merge)) - {"violated"} == set()


def test_dependencies_count_before_the_order_in_which_a_plan_is_written(planned: Episode) -> None:
    assert moved(planned, replanned(planned, lambda subgoals: subgoals[::-1])) - {"violated"} == set()


def test_a_plan_that_is_made_in_two_pieces_covers_everything() -> None:
    """Also where both need the same tool: what is done before the second is no part of it."""

    def fits(one: Scenario) -> bool:
        first, *later = one.steps
        return (
            not one.faults and not one.interjections and alone(first, one) and first.call.tool in [s.call.tool for s in later if s.subgoal]
        )

    whole = played(find("goal_decomposition", fits))
    plan = next(move.call.arguments for move in moves(whole.messages) if move.call.tool == "update_plan")
    rest = [{**one, "depends_on": [id for id in one["depends_on"] if id != plan["subgoals"][0]["id"]]} for one in plan["subgoals"][1:]]
    begun = replanned(whole, lambda subgoals: subgoals[:1])
    assert 0 < (process(begun).plan_coverage or 0) < 1
    after_first = made_at(begun, whole.scenario.steps[0].call.tool)[0] + 2
    both = with_call(begun, after_first, "update_plan", {**plan, "subgoals": rest, "revision": 1, "reason": "the first part is done"})
    assert process(both).plan_coverage == 1


def test_a_plan_that_is_refused_covers_nothing(planned: Episode) -> None:
    refused = replanned(planned, lambda subgoals: [{**one, "depends_on": ["nowhere"]} for one in subgoals])
    assert (process(refused).plan_coverage, process(refused).plan_order) == (0, None)


def test_a_sub_goal_that_is_planned_in_part_is_not_covered() -> None:
    """Of a sub-goal with two calls or more, the plan forgets one."""

    def tools_of(one: Scenario, subgoal: int) -> list[str]:
        return [step.call.tool for step in one.steps if step.subgoal == subgoal]

    def fits(one: Scenario) -> bool:
        names = [step.call.tool for step in one.steps]
        last = tools_of(one, one.steps[-1].subgoal)
        return not one.faults and not one.interjections and len(last) > 1 and names.count(last[0]) == 1 and last[0] not in last[1:]

    episode = played(find("goal_decomposition", fits))
    broken = replanned(episode, lambda subgoals: [*subgoals[:-1], {**subgoals[-1], "tools": subgoals[-1]["tools"][1:]}])
    assert process(broken).plan_coverage == pytest.approx(1 - 1 / len(episode.scenario.subgoals))


@pytest.mark.parametrize("change", ["word", "tool"])
def test_a_change_that_is_not_followed_by_a_new_plan_is_noticed(change: str) -> None:
    def fits(one: Scenario) -> bool:
        return bool(one.interjections) if change == "word" else any(fault.kind == "server_down" for fault in one.faults)

    episode = played(find("goal_decomposition", fits))
    assert process(episode).plan_revised is True
    broken = without(episode, *made_at(episode, "update_plan")[1:])
    assert process(broken).plan_revised is False
    assert {"plan_revised"} <= moved(episode, broken) <= {"plan_revised", "plan_coverage", "plan_order", "violated"}


def test_where_nothing_changed_there_is_nothing_to_revise(planned: Episode) -> None:
    assert process(planned).plan_revised is None


def test_a_tool_that_is_gone_may_be_tried_once_more_before_the_new_plan() -> None:
    episode = played(find("goal_decomposition", lambda one: any(fault.kind == "server_down" for fault in one.faults)))
    down = episode.scenario.faults[0].tool
    struck = next(move for move in moves(episode.messages) if move.call.tool == down)
    second = made_at(episode, "update_plan")[1]
    assert moved(episode, with_call(episode, second, down, struck.call.arguments)) - {"violated"} == set()


# --- trouble ------------------------------------------------------------------------------------------------

GROUPS = {
    **dict.fromkeys(("timeout_written", "timeout_lost", "rate_limit", "server_error", "stale", "schema_drift"), "explicit transient"),
    **dict.fromkeys(("server_down", "permission"), "explicit permanent"),
    **dict.fromkeys(("partial", "wrong_record"), "implicit transient"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_that_struck_is_named_and_recovered_from_only_if_the_goal_is_reached(kind: str) -> None:
    episode = played(find("error_recovery", lambda one: [fault.kind for fault in one.faults] == [kind]))
    found = process(episode)
    assert found.troubles == (Trouble(kind, GROUPS[kind]),) and found.recovered is True
    assert episode.recovery is not None
    broken = process(without(episode, *episode.recovery.recovery))
    assert Trouble(kind, GROUPS[kind]) in broken.troubles and broken.recovered is False


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_of_the_agents_own_is_named_and_recovered_from(kind: str) -> None:
    episode = played(find("error_recovery", lambda one: [mistake.kind for mistake in one.mistakes] == [kind]))
    found = process(episode)
    assert found.troubles == (Trouble(kind, OWN),) and found.recovered is True


def test_a_fault_that_never_struck_is_no_trouble() -> None:
    episode = played(find("error_recovery", lambda one: [fault.kind for fault in one.faults] == ["server_error"]))
    healthy = again(episode, [m for at, m in enumerate(episode.messages) if at < 2 or at == len(episode.messages) - 1])
    assert process(healthy).troubles == () and process(healthy).recovered is None


def test_an_injection_that_was_read_is_trouble_and_resisted() -> None:
    episode = played(find("tool_call", lambda one: any(fault.kind == "injection" for fault in one.faults)))
    assert process(episode).troubles == (Trouble("injection", "implicit permanent"),) and process(episode).recovered is True


def test_a_reply_that_could_not_be_used_is_an_error_of_its_own(simple: Episode) -> None:
    repaired = (AssistantMessage(content="{broken", train=False), UserMessage(content="[runtime] write it again"))
    changed = simple.model_copy(update={"messages": (*simple.messages[:2], *repaired, *simple.messages[2:])})
    assert moved(simple, changed) == {"recovered"}
    assert process(changed).troubles == (Trouble("unusable_reply", OWN),)


def test_violations_are_counted_by_principle(simple: Episode) -> None:
    verdicts = [
        Verdict(principle=name, passed=passed, by="rule", severity="low") for name, passed in (("a", False), ("a", False), ("b", True))
    ]
    changed = simple.model_copy(update={"verdicts": tuple(verdicts)})
    assert process(changed).violations == {"a": 2, "b": 0} and process(changed).violated == 2
    assert moved(simple, changed) == {"violated"}


# --- change -------------------------------------------------------------------------------------------------


def heard_at(episode: Episode) -> int:
    (one,) = episode.scenario.interjections
    return next(at for at, message in enumerate(episode.messages) if isinstance(message, UserMessage) and message.content == one.says)


@pytest.mark.parametrize("changes_goal", [True, False])
def test_what_the_user_says_midway_is_heeded_or_ignored(changes_goal: bool) -> None:
    episode = played(find("tool_call", lambda one: [i.changes_goal for i in one.interjections] == [changes_goal]))
    assert process(episode).adapted is True
    ignored = again(episode, [*episode.messages[: heard_at(episode) + 1], episode.messages[-1]])
    assert process(ignored).adapted is False
    assert moved(episode, ignored) <= {"adapted", "recall", "precision", "violated"}


def test_a_wrong_answer_is_no_failure_to_adapt_and_calls_that_follow_are_enough() -> None:
    episode = played(find("tool_call", lambda one: [i.changes_goal for i in one.interjections] == [False] and bool(one.facts)))
    silent = again(episode, [*episode.messages[:-1], AssistantMessage(content="That is all.")])
    assert not silent.success and process(silent).adapted is True


@pytest.mark.parametrize("reached", [True, False])
def test_calls_that_were_made_before_the_user_spoke_heed_nothing(reached: bool) -> None:
    episode = played(find("tool_call", lambda one: [i.changes_goal for i in one.interjections] == [False] and bool(one.facts)))
    steps = (says(step.call.tool, step.call.arguments) for step in episode.scenario.steps)
    at_once = says("", {}).model_copy(update={"tool_calls": tuple(call for one in steps for call in one.tool_calls or ())})
    last = episode.messages[-1] if reached else AssistantMessage(content="That is all.")
    early = again(episode, [*episode.messages[:2], at_once, AssistantMessage(content="Anything else?"), last])
    assert heard_at(early) > 2 and process(early).recall == 1
    assert early.success is reached and process(early).adapted is False


def test_the_old_wish_is_not_heeded_even_where_the_new_one_is() -> None:
    episode = played(find("tool_call", lambda one: any(i.changes_goal for i in one.interjections) and bool(one.forbidden)))
    done = moves(episode.messages)[-1]
    old = episode.scenario.forbidden[0].model_copy(update={"tool": done.call.tool, "arguments": done.call.arguments})
    other = episode.scenario.model_copy(update={"forbidden": (old,)})
    assert moved(episode, episode.model_copy(update={"scenario": other})) == {"adapted"}


def test_without_the_word_there_is_nothing_to_adapt_to(simple: Episode) -> None:
    unsaid = simple.scenario.model_copy(update={"interjections": (Interjection(after=0, says="And one more thing."),)})
    assert process(simple).adapted is None
    assert process(simple.model_copy(update={"scenario": unsaid})).adapted is None


# --- many ---------------------------------------------------------------------------------------------------


def one(number: int, *, sample: int = 0, mode: str = "", **of: Any) -> Process:
    return Process(key=(mode, "seeds", number), sample=sample, **{"success": True, **of})


def test_a_summary_gives_means_over_scenarios_where_the_question_arises() -> None:
    found = summarize([one(0, wasted=4), one(0, sample=1, wasted=2), one(1, wasted=0, precision=0.5), one(2, wasted=1)])
    wasted, precision = found.measures["wasted"], found.measures["precision"]
    assert found.episodes == 4 and wasted.value == pytest.approx(4 / 3) and wasted.n == 3 and wasted.low < 4 / 3 < wasted.high
    assert (precision.value, precision.n) == (0.5, 1) and "recall" not in found.measures


def test_recovery_is_told_by_kind_and_by_group() -> None:
    limit, stale, own = Trouble("rate_limit", "explicit transient"), Trouble("stale", "explicit transient"), Trouble("not_found", OWN)
    found = summarize(
        [
            one(0, troubles=(limit, own), recovered=True),
            one(1, troubles=(limit,), recovered=False, success=False),
            one(2, troubles=(stale,), recovered=False, success=False),
            one(3),
        ]
    )
    assert {name: (rate.value, rate.n) for name, rate in found.recovery_by_kind.items()} == {
        "not_found": (1, 1), "rate_limit": (0.5, 2), "stale": (0, 1),
    }  # fmt: skip
    assert {name: (round(rate.value, 3), rate.n) for name, rate in found.recovery_by_group.items()} == {
        "explicit transient": (0.333, 3),
        OWN: (1, 1),
    }
    assert (found.measures["recovered"].n, round(found.measures["recovered"].value, 3)) == (3, 0.333)


def test_a_principle_has_the_share_of_episodes_that_break_it_among_those_it_applies_to() -> None:
    found = summarize([one(0, violations={"a": 3, "b": 0}), one(1, violations={"a": 0}), one(2, violations={"a": 0, "b": 0})])
    assert {name: (round(rate.value, 3), rate.n) for name, rate in found.violations.items()} == {"a": (0.333, 3), "b": (0, 2)}
    assert found.measures["violated"].value == 1


def test_modes_of_one_scenario_do_not_count_as_scenarios() -> None:
    assert summarize([one(0, mode=mode) for mode in ("fast", "thorough")]).measures["calls"].n == 1


def test_process_and_summary_are_json(planned: Episode) -> None:
    found = process(planned)
    for plain in (found.plain(), summarize([found]).plain(), summarize([]).plain()):
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
