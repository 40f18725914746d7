"""The rollout: teacher, tools and simulated user, until done or out of budget."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tracemill.generators.environments.base import Environment, remembered
from tracemill.generators.faults import renamed
from tracemill.generators.teachers.base import Reply, Request, Teacher
from tracemill.trace import (
    AssistantMessage,
    Call,
    FunctionCall,
    Message,
    Scenario,
    Step,
    SystemMessage,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)  # fmt: skip

PROMPTS = Path(__file__).parent / "prompts"
Stop = Literal["done", "budget"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Where a conversation is cut off; one that is cut off is rejected."""

    turns: int = 40
    calls: int = 40


@dataclass(frozen=True, slots=True)
class Rollout:
    messages: tuple[Message, ...]
    troubled: tuple[str, ...]
    """Ids of the calls that a fault spoiled."""
    usage: Usage
    stop: Stop


async def rollout(
    scenario: Scenario,
    env: Environment,
    agent: Teacher,
    user: Teacher,
    *,
    budget: Budget = Budget(),
    prefix: Sequence[Message] = (),
    revision: int = 0,
    critique: str = "",
) -> Rollout:
    """Play a scenario from the start, or on from a prefix whose calls are made again first. Closes nothing.

    Raises TeacherError where a teacher has no reply.
    """
    tools = env.tools(scenario.kind)
    messages: list[Message] = [SystemMessage(content=system_prompt(type(env), scenario.kind)), UserMessage(content=scenario.opening)]
    talk = _Talk(scenario, env, messages)
    for message in prefix[2:]:
        if isinstance(message, AssistantMessage):
            await talk.act(message)
        elif isinstance(message, UserMessage) and messages[-1] != message:
            messages.append(message)
    usage = Usage()
    for _ in range(budget.turns):
        request = Request("agent", messages, tools, scenario, revision, critique)
        reply = await agent.reply(request)
        usage += reply.usage
        await talk.act(talk.message(reply))
        if talk.made > budget.calls:
            break
        if reply.calls:
            continue
        heard = await user.reply(Request("user", messages, tools, scenario))
        usage += heard.usage
        if heard.done:
            return Rollout(tuple(messages), tuple(talk.troubled), usage, "done")
        messages.append(UserMessage(content=heard.text))
    return Rollout(tuple(messages), tuple(talk.troubled), usage, "budget")


class _Talk:
    """The conversation so far, with what it takes to know when the user speaks up."""

    def __init__(self, scenario: Scenario, env: Environment, messages: list[Message]) -> None:
        self._env = env
        self._messages = messages
        self._pending = list(scenario.interjections)
        self._awaited = {one.after: _ways(scenario, scenario.steps[one.after]) for one in scenario.interjections}
        self.made = 0
        self.troubled: list[str] = []

    def message(self, reply: Reply) -> AssistantMessage:
        calls = tuple(
            ToolCall(id=f"call_{self.made + number}", function=FunctionCall(name=call.tool, arguments=call.arguments))
            for number, call in enumerate(reply.calls, 1)
        )
        return AssistantMessage(content=reply.text, reasoning_content=reply.reasoning, tool_calls=calls or None, train=not reply.wrong)

    async def act(self, message: AssistantMessage) -> None:
        """Append the message, make its calls, and let the user speak up where it is time."""
        self._messages.append(message)
        succeeded: list[Call] = []
        for made in message.tool_calls or ():
            self.made += 1
            hits = self._env.faults.hits
            result = await self._env.call(made.name, made.arguments)
            self._messages.append(ToolMessage(tool_call_id=made.id, name=made.name, content=result.text))
            if self._env.faults.hits > hits:
                self.troubled.append(made.id)
            if result.ok:
                succeeded.append(Call(tool=made.name, arguments=made.arguments))
        for one in list(self._pending):
            if any(call in succeeded for call in self._awaited[one.after]):
                self._pending.remove(one)
                self._messages.append(UserMessage(content=one.says))


def _ways(scenario: Scenario, step: Step) -> list[Call]:
    """The calls by which a reference step can be made."""
    ways = [step.call, *([step.fallback] if step.fallback else [])]
    return ways + [renamed(step.call, fault) for fault in scenario.faults if fault.kind == "schema_drift"]


@functools.cache
def _instructions(kind: str) -> str:
    return (PROMPTS / f"{kind}.txt").read_text(encoding="utf-8")


@remembered
def system_prompt(cls: type[Environment], kind: str) -> str:
    """What the agent is told first: how to work on this kind of trace, and the environment's policy."""
    return _instructions(kind) + cls.policy_text()
