"""Disguises: the policy sees other names, everybody else the true ones, and whoever reads descriptions gets along."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Sequence

import pytest

from tracemill.generators.environments.catalogue import BUILT_IN, environment
from tracemill.generators.environments.goal import judge
from tracemill.generators.replay import fresh, moves
from tracemill.generators.rollout import Rollout, rollout
from tracemill.generators.scenario import Mix, scenario
from tracemill.generators.teachers.base import Reply, Request, Teacher
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.trace import AssistantMessage, Call, Message, OfferedTool, Scenario, ToolMessage, UserMessage, is_error
from tracemill.train.evaluate.adversary import ADVERSARIES
from tracemill.train.evaluate.disguise import Disguise, Masks, common

ARMS = {name: one.masks for name, one in ADVERSARIES.items() if one.masks}
RENAMING = ("misleading_names", "scrambled_arguments")
EXPERT = ScriptedTeacher()
MasksOf = Callable[[Scenario], Masks]


@functools.cache
def drawn() -> tuple[Scenario, ...]:
    mixes = [Mix(environments={name: 1.0}, worlds=6, mistakes=False) for name in BUILT_IN]
    return tuple(scenario(57, index, mix) for mix in mixes for index in range(6))


class Policy:
    """A policy that is no built-in teacher, and what it was shown."""

    name = "policy"

    def __init__(self, of: Callable[[Request, Reply], Reply] = lambda request, reply: reply) -> None:
        self._expert = ScriptedTeacher()
        self._of = of
        self.seen: list[Request] = []

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def reply(self, request: Request) -> Reply:
        """What the expert would do, from what it reads in the conversation as it is shown, said in other words."""
        self.seen.append(dataclasses.replace(request, messages=list(request.messages)))
        return self._of(request, await self._expert.reply(request))


def by_description(request: Request, reply: Reply) -> Reply:
    """Each call by the name of the shown tool whose description fits, with the arguments in the places where its schema
    has what the true one has."""
    toolbox = environment(request.scenario.environment).toolbox()

    def told(call: Call) -> Call:
        true = toolbox[call.tool].definition
        shown = next(one.function for one in request.tools if one.function.description == true.description)
        names = dict(zip(true.parameters["properties"], shown.parameters["properties"], strict=True))
        arguments = {names.get(key, key): value for key, value in call.arguments.items()}
        for subgoal in arguments.get("subgoals", ()):
            subgoal["tools"] = [told(Call(tool=one, arguments={})).tool for one in subgoal["tools"]]
        return Call(tool=shown.name, arguments=arguments)

    return dataclasses.replace(reply, calls=tuple(told(call) for call in reply.calls))


async def played(one: Scenario, agent: Teacher) -> tuple[Rollout, bool]:
    """The rollout, and whether its goal is reached."""
    cls = environment(one.environment)
    env = await cls.reset(one)
    made = await rollout(one, env, agent, EXPERT)
    await env.close()
    env, done = await fresh(cls, one, moves(made.messages))
    answer = made.messages[-1].content if isinstance(made.messages[-1], AssistantMessage) else ""
    outcome = await judge(one, env, done, answer)
    return made, made.stop == "done" and outcome.score == 1


def calls(messages: Sequence[Message]) -> list[Call]:
    return [move.call for move in moves(messages)]


def names(tools: Sequence[OfferedTool]) -> list[str]:
    return [one.function.name for one in tools]


# --- playable -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
async def test_who_reads_the_descriptions_reaches_the_goal_and_the_record_has_the_true_names(arm: str) -> None:
    for one in drawn():
        bare, reached = await played(one, EXPERT)
        assert reached
        made, reached = await played(one, Disguise(Policy(by_description), ARMS[arm]))
        assert reached, (one.environment, one.template, made.stop, made.why)
        assert calls(made.messages) == calls(bare.messages)
        assert [m.name for m in made.messages if isinstance(m, ToolMessage)] == [call.tool for call in calls(bare.messages)]


async def test_who_goes_by_misleading_names_misses_the_goal() -> None:
    wanted = [one for one in drawn() if not one.faults and any(step.effect != "read" for step in one.steps)]
    reached = [(await played(one, Disguise(Policy(), ARMS["misleading_names"])))[1] for one in wanted]
    assert sum(reached) == 0


async def test_to_the_built_in_teacher_nothing_is_changed() -> None:
    for one in drawn()[::4]:
        for masks_of in ARMS.values():
            assert (await played(one, Disguise(EXPERT, masks_of)))[0] == (await played(one, EXPERT))[0]


async def test_to_a_simulated_user_nothing_is_changed() -> None:
    one, user = drawn()[0], Policy()
    tools = environment(one.environment).offered(one.kind)
    talk: list[Message] = [UserMessage(content="hi"), AssistantMessage(content="Anything else?")]
    await Disguise(user, ARMS["misleading_names"]).reply(Request("user", talk, tools, one))
    assert user.seen == [Request("user", talk, tools, one)]


# --- what the policy is shown -------------------------------------------------------------------------------


def test_masks_are_permutations_and_the_same_for_the_same_scenario() -> None:
    for one in drawn():
        for masks_of in ARMS.values():
            masks = masks_of(one)
            assert masks == masks_of(one)
            assert set(masks.tools) == set(masks.tools.values())
            assert set(masks.arguments) == set(masks.arguments.values())
    assert len({tuple(ARMS["misleading_names"](one).tools.items()) for one in drawn()}) > len(drawn()) / 2


def test_misleading_names_change_every_tool_of_the_environment_within_looking_and_changing() -> None:
    for one in drawn():
        toolbox = environment(one.environment).toolbox()
        masks = ARMS["misleading_names"](one)
        assert set(masks.tools) == set(toolbox) - set(common())
        for true, shown in masks.tools.items():
            assert true != shown
            assert (toolbox[true].effect == "read") == (toolbox[shown].effect == "read")


@pytest.mark.parametrize("arm", RENAMING)
def test_tools_keep_descriptions_and_schemas_but_for_the_names(arm: str) -> None:
    for one in drawn():
        tools = environment(one.environment).offered(one.kind)
        for true, shown in zip(tools, ARMS[arm](one).offered(tools), strict=True):
            before, after = true.function, shown.function
            assert before.description == after.description
            assert [*map(_kept, before.parameters["properties"].values())] == [*map(_kept, after.parameters["properties"].values())]
            assert len(before.parameters.get("required", [])) == len(after.parameters.get("required", []))
            assert set(after.parameters.get("required", [])) <= set(after.parameters["properties"])
            if before.name in common():
                assert true == shown
            elif arm == "scrambled_arguments" and before.parameters["properties"]:
                assert not set(before.parameters["properties"]) & set(after.parameters["properties"])


def _kept(schema: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in schema.items() if key != "description"}


def test_a_description_that_names_another_tool_names_it_as_it_is_shown() -> None:
    one = next(one for one in drawn() if one.environment == "bank")
    masks = ARMS["misleading_names"](one)
    tools = environment("bank").offered(one.kind)
    shown = dict(zip(names(tools), masks.offered(tools), strict=True))["transfer_money"]
    assert f"as {masks.tools['list_payees']} returns it" in shown.function.parameters["properties"]["payee_id"]["description"]


@pytest.mark.parametrize("arm", RENAMING)
async def test_earlier_calls_and_plans_are_shown_as_the_policy_made_them(arm: str) -> None:
    for one in drawn()[::2]:
        made: list[Call] = []

        def told(request: Request, reply: Reply, made: list[Call] = made) -> Reply:
            said = by_description(request, reply)
            made += said.calls
            return said

        policy = Policy(told)
        await played(one, Disguise(policy, ARMS[arm]))
        last = policy.seen[-1].messages
        assert calls(last) == made
        assert [m.name for m in last if isinstance(m, ToolMessage)] == [call.tool for call in made]


async def test_results_that_are_no_errors_and_the_instructions_stay_as_they_are() -> None:
    for one in drawn():
        made, _ = await played(one, EXPERT)
        for arm in ARMS:
            masks = ARMS[arm](one)
            for message in made.messages:
                if not isinstance(message, ToolMessage) or not is_error(message.content):
                    assert masks.message(message).content == message.content


# --- errors -------------------------------------------------------------------------------------------------


async def shown_result(one: Scenario, arm: str, call: Call) -> tuple[str, str]:
    """What a policy is shown of a call that it makes first of all, and what there is in the record."""
    policy = Policy(lambda request, reply: Reply(calls=(call,)) if len(request.messages) == 2 else Reply("Bye."))
    made, _ = await played(one, Disguise(policy, ARMS[arm]))
    (shown,) = [message.content for message in policy.seen[-1].messages if isinstance(message, ToolMessage)]
    (true,) = [message.content for message in made.messages if isinstance(message, ToolMessage)]
    return shown, true


async def test_an_argument_that_is_missing_is_named_as_it_is_shown() -> None:
    one = drawn()[0]
    assert one.environment == "store"
    name = ARMS["scrambled_arguments"](one).arguments["order_id"]
    shown, true = await shown_result(one, "scrambled_arguments", Call(tool="get_order", arguments={}))
    assert f"'{name}' is a required property" in shown and "order_id" not in shown
    assert "'order_id' is a required property" in true
    shown, _ = await shown_result(one, "scrambled_arguments", Call(tool="get_order", arguments={name: 3}))
    assert f"$.{name}: 3 is not" in shown and "order_id" not in shown


async def test_an_argument_by_its_true_name_is_refused_in_the_policys_own_words() -> None:
    shown, true = await shown_result(drawn()[0], "scrambled_arguments", Call(tool="get_order", arguments={"order_id": "W10234"}))
    assert "('order_id' was unexpected)" in shown
    assert "'order_id' is a required property" in true


@pytest.mark.parametrize("name", BUILT_IN)
async def test_no_refusal_of_arguments_names_one_by_its_true_name(name: str) -> None:
    cls = environment(name)
    one = next(one for one in drawn() if one.environment == name)
    env = await cls.reset(one)
    calls = [Call(tool=tool, arguments=bad) for tool, own in _own_arguments(name).items() for bad in ({}, dict.fromkeys(own, -5))]
    if name == "helpdesk":
        (employee, *_), (ticket, *_) = env.employees, [row for row in env.tickets if row.status == "new"]  # type: ignore[attr-defined]
        opened = {"employee_id": employee.id, "subject": "It does not work"}
        calls += [Call(tool="create_ticket", arguments={**opened, "category": category}) for category in ("hardware", "service")]
        calls.append(Call(tool="update_ticket", arguments={"ticket_id": ticket.id}))
    refused = [(call, await env.call(call.tool, call.arguments)) for call in calls]
    masks = ARMS["scrambled_arguments"](one)
    for call, result in refused:
        if result.code == "invalid_arguments":
            shown = masks.message(ToolMessage(tool_call_id="call_1", name=call.tool, content=result.text)).content
            true = set(_own_arguments(name)[call.tool]) - set(call.arguments.values())  # 'a service ticket' speaks of a category
            assert not [key for key in true if re.search(rf"(?<!\w){key}(?!\w)", shown)], shown
    assert all(result.code == "invalid_arguments" for call, result in refused[-3:]) or name != "helpdesk"


def _own_arguments(name: str) -> dict[str, list[str]]:
    own = {tool: one for tool, one in environment(name).toolbox().items() if tool not in common()}
    return {tool: list(one.definition.parameters["properties"]) for tool, one in own.items()}


async def test_the_tool_that_an_error_speaks_of_goes_by_its_shown_name() -> None:
    one = drawn()[0]
    masks = ARMS["misleading_names"](one)
    shown, true = await shown_result(one, "misleading_names", Call(tool=masks.tools["get_order"], arguments={}))
    assert f"{masks.tools['get_order']} was not called" in shown
    assert "get_order was not called" in true


async def test_an_unheard_of_tool_does_not_exist_in_disguise_either() -> None:
    for arm in ARMS:
        shown, _ = await shown_result(drawn()[0], arm, Call(tool="make_tea", arguments={"sugar": 2}))
        assert json.loads(shown)["error"]["code"] == "unknown_tool" and "'make_tea'" in shown


async def test_a_plan_of_nonsense_harms_nobody() -> None:
    one = next(one for one in drawn() if one.kind == "goal_decomposition")
    for subgoals in (3, [None], [{"tools": 3}], [{"tools": [None, ["x"], {}]}]):
        for arm in ARMS:
            shown, _ = await shown_result(one, arm, Call(tool="update_plan", arguments={"subgoals": subgoals}))
            assert is_error(shown)


# --- distractors --------------------------------------------------------------------------------------------


async def test_ten_to_thirty_tools_of_other_domains_stand_among_the_real_ones() -> None:
    for one in drawn():
        cls = environment(one.environment)
        tools = cls.offered(one.kind)
        shown = names(ARMS["distractors"](one).offered(tools))
        added = set(shown) - set(names(tools))
        assert set(names(tools)) <= set(shown) and len(shown) == len(set(shown))
        assert 10 <= len(added) <= 30
        assert not added & set(cls.toolbox())
        assert shown == sorted(shown)


async def test_a_distractor_refuses_and_is_an_unknown_tool_in_the_record() -> None:
    one = drawn()[0]
    added = ARMS["distractors"](one).added[0].function.name
    shown, true = await shown_result(one, "distractors", Call(tool=added, arguments={"anything": 1}))
    assert json.loads(shown)["error"]["code"] == "not_allowed"
    assert json.loads(true)["error"]["code"] == "unknown_tool"
