"""What a teacher is: something that writes the next message of one of the roles in a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tracemill.trace import Call, Json, Message, OfferedTool, Scenario, Usage

Role = Literal["agent", "user", "critic"]


@dataclass(frozen=True, slots=True)
class Request:
    """One reply is wanted. `scenario` is for the built-in teacher alone, which plans from the reference; a teacher
    that asks a model puts none of it into a prompt, except the user's side when it plays the user."""

    role: Role
    messages: Sequence[Message]
    tools: Sequence[OfferedTool]
    scenario: Scenario
    revision: int = 0
    """How often this conversation was sent back by a critique."""
    critique: str = ""
    """What the critique found, where the next reply replaces the criticised one."""
    sibling: int = 0
    """Which of several rollouts of the same scenario this is."""
    redo: int = 0
    """How many replies at this place could not be used."""
    schema: dict[str, Json] | None = None
    """JSON Schema of the reply, for a critic."""


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
    problem: str = ""
    """Why it cannot be used as it is, in words for its author. `text` is then what may stay in the conversation as a
    wrong step; empty if nothing of it can."""
    raw: str = ""
    """With a problem: all that was written, for the ledger."""


class Teacher(Protocol):
    """Plays one or more of the roles."""

    @property
    def name(self) -> str:
        """What the records call it."""

    async def start(self) -> None:
        """Get ready. Raises ConfigError for what the user can mend, TeacherError for what may pass."""

    async def close(self) -> None:
        """Let go of what it holds."""

    async def reply(self, request: Request) -> Reply:
        """Raises TeacherError where no reply can be had now, TeacherDied where none will be had any more."""
