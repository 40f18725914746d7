"""What a teacher is: something that writes the next message of one of the roles in a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tracemill.trace import Call, Message, Scenario, ToolDefinition, Usage

Role = Literal["agent", "user", "critic"]


@dataclass(frozen=True, slots=True)
class Request:
    """One reply is wanted. `scenario` is for the built-in teacher alone, which plans from the reference; a teacher
    that asks a model puts none of it into a prompt, except the user's side when it plays the user."""

    role: Role
    messages: Sequence[Message]
    tools: Sequence[ToolDefinition]
    scenario: Scenario
    revision: int = 0
    """How often this conversation was sent back by a critique; the next reply replaces the criticised one."""
    critique: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """One message. Tool calls get their ids from the rollout."""

    text: str = ""
    reasoning: str | None = None
    calls: tuple[Call, ...] = ()
    usage: Usage = Usage()  # noqa: RUF009 - frozen
    wrong: bool = False
    """The author knows this step to be wrong (a mistake made on purpose): keep it out of the loss."""
    done: bool = False
    """Said by the user: there is nothing left to say."""


class Teacher(Protocol):
    """Raises TeacherError where no usable reply can be had."""

    name: str

    async def reply(self, request: Request) -> Reply: ...
