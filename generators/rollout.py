"""The rollout: teacher, tools and simulated user, until done or out of budget.

A reply that cannot be used ends nothing: as far as it can be shown again it stays in the conversation as a wrong step, the
runtime says what is wrong with it, and its author writes it anew. How often that may happen is part of the budget.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tracemill.errors import ContextTooLong
from tracemill.generators.environments.base import Environment, remembered
from tracemill.generators.faults import renamed
from tracemill.generators.teachers.base import Reply, Request, Teacher
from tracemill.trace import (
    AssistantMessage,
    Call,
    FunctionCall,
    Json,
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
Stop = Literal["done", "budget", "loop", "unusable", "too_long", "user"]
SAME = 4  # calls in a row that are the same and get the same result: nothing more will come of it
NOTICE = "[runtime] "
REPAIR = NOTICE + (
    "Your last message was not carried out: {problem}. This notice is from the system that runs your tools, not from the user. "
    "Write the message again."
)


@dataclass(frozen=True, slots=True)
class Budget:
    """Where a conversation is cut off; one that is cut off is rejected."""

    turns: int = 40
    calls: int = 40
    repairs: int = 3
    """Replies that cannot be used, of the agent in all and of the user at one place, before it is given up."""


@dataclass(frozen=True, slots=True)
class Rollout:
    messages: tuple[Message, ...]
    troubled: tuple[str, ...]
    """Ids of the calls that a fault spoiled."""
    usage: Usage
    stop: Stop
    why: str = ""
    """Of a stop other than done."""
    raw: str = ""
    """Of a stop by a reply that cannot be used: all of it."""


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
    sibling: int = 0,
) -> Rollout:
    """Play a scenario from the start, or on from a prefix whose calls are made again first. Closes nothing.

    The critique is told with the first new message, which takes the place of the criticised one. Raises TeacherError where a
    teacher has no reply, TeacherDied where it will have no other.
    """
    tools = env.offered(scenario.kind)
    messages: list[Message] = [SystemMessage(content=system_prompt(type(env), scenario.kind)), UserMessage(content=scenario.opening)]
    talk = _Talk(scenario, env, messages)
    for message in prefix[2:]:
        if isinstance(message, AssistantMessage):
            await talk.act(message)
        elif isinstance(message, UserMessage) and not talk.spoke_up(message.content):
            talk.hear(message.content)
    usage = Usage()

    def end(stop: Stop, why: str = "", raw: str = "") -> Rollout:
        return Rollout(tuple(messages), tuple(talk.troubled), usage, stop, why, raw)

    unusable = redo = 0
    for _ in range(budget.turns):
        try:
            reply = await agent.reply(Request("agent", messages, tools, scenario, revision, critique, sibling, redo))
        except ContextTooLong as error:
            if talk.made or usage.completion_tokens:
                return end("too_long", error.message)
            raise  # not the agent's doing: not even the instructions fit
        usage += reply.usage
        if reply.problem:
            unusable += 1
            if unusable > budget.repairs:
                return end("unusable", f"{unusable} replies could not be used, the last because {reply.problem}", reply.raw)
            redo = talk.repair(reply, redo)
            continue
        redo, critique = 0, ""
        await talk.act(talk.message(reply))
        if talk.same >= SAME:
            return end("loop", f"the same calls with the same results {SAME} times in a row")
        if talk.made > budget.calls:
            break
        if reply.calls:
            continue
        for again in range(budget.repairs + 1):
            try:
                heard = await user.reply(Request("user", talk.between_the_two(), tools, scenario, sibling=sibling, redo=again))
            except ContextTooLong as error:
                return end("user", f"the simulated user cannot follow any more: {error.message}")
            usage += heard.usage
            if not heard.problem:
                break
        else:
            return end("user", f"the simulated user's reply could not be used: {heard.problem}", heard.raw)
        waiting = talk.waiting()
        if heard.done and not waiting:
            return end("done")
        talk.hear(waiting if heard.done else heard.text)
    return end("budget", "the conversation did not end within its budget of turns and calls")


class _Talk:
    """The conversation so far, with what it takes to know when the user speaks up."""

    def __init__(self, scenario: Scenario, env: Environment, messages: list[Message]) -> None:
        self._env = env
        self._messages = messages
        self._offered = {tool.name for tool in env.tools(scenario.kind)}
        self._asides = {one.says for one in scenario.interjections}
        self._pending = list(scenario.interjections)
        self._awaited = {one.after: _ways(scenario, scenario.steps[one.after]) for one in scenario.interjections}
        self.made = 0
        self.same = 0
        """How often in a row the same calls have had the same results."""
        self.troubled: list[str] = []
        self._last: list[tuple[str, dict[str, Json], str]] = []

    def message(self, reply: Reply) -> AssistantMessage:
        calls = tuple(
            ToolCall(id=f"call_{self.made + number}", function=FunctionCall(name=call.tool, arguments=call.arguments))
            for number, call in enumerate(reply.calls, 1)
        )
        return AssistantMessage(content=reply.text, reasoning_content=reply.reasoning, tool_calls=calls or None, train=not reply.wrong)

    def repair(self, reply: Reply, redo: int) -> int:
        """Show the author what cannot be used, as far as it can be shown; the number of tries at this place."""
        if not reply.text:
            return redo + 1
        self._messages.append(AssistantMessage(content=reply.text, train=False))
        self._messages.append(UserMessage(content=REPAIR.format(problem=reply.problem)))
        return 0

    def hear(self, text: str) -> None:
        """The user says something. What they say of their own accord they say once."""
        self._pending = [one for one in self._pending if one.says != text]
        self._messages.append(UserMessage(content=text))

    def spoke_up(self, text: str) -> bool:
        """Whether the user has said this of their own accord."""
        return text in self._asides and all(one.says != text for one in self._pending)

    def waiting(self) -> str:
        """What the user still has to say before they are done; empty if nothing."""
        return self._pending[0].says if self._pending else ""

    def between_the_two(self) -> list[Message]:
        """The conversation as the user has it: without messages that were not carried out, and the notices about them."""
        notices = {at for at, one in enumerate(self._messages) if isinstance(one, UserMessage) and one.content.startswith(NOTICE)}
        return [one for at, one in enumerate(self._messages) if at not in notices and at + 1 not in notices]

    async def act(self, message: AssistantMessage) -> None:
        """Append the message, make its calls, and let the user speak up where it is time.

        A message with a call that no tool could take is a wrong step, whether its author knows it or not.
        """
        at = len(self._messages)
        self._messages.append(message)
        succeeded: list[Call] = []
        came: list[tuple[str, dict[str, Json], str]] = []
        careless = False
        for made in message.tool_calls or ():
            self.made += 1
            hits = self._env.faults.hits
            result = await self._env.call(made.name, made.arguments)
            self._messages.append(ToolMessage(tool_call_id=made.id, name=made.name, content=result.text))
            struck = self._env.faults.hits > hits
            if struck:
                self.troubled.append(made.id)
            if result.ok:
                succeeded.append(Call(tool=made.name, arguments=made.arguments))
            careless |= made.name not in self._offered or (result.code == "invalid_arguments" and not struck)
            came.append((made.name, made.arguments, result.text))
        if careless and message.train:
            self._messages[at] = message.model_copy(update={"train": False})
        if came:
            self.same = self.same + 1 if came == self._last else 1
            self._last = came
        for one in list(self._pending):
            if any(call in succeeded for call in self._awaited[one.after]):
                self.hear(one.says)


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
