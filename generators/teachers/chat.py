"""A chat model: messages and tools in, one message out, as the model wrote it.

The two that there are, an engine of our own (`vllm.py`) and an endpoint (`openai.py`), know nothing of roles; what a
teacher asks of them and what its reply is worth is in `model.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tracemill.trace import AssistantMessage, Json, Message, OfferedTool, Usage


@dataclass(frozen=True, slots=True)
class Sampling:
    temperature: float
    """0 is greedy."""
    max_tokens: int
    """Tokens after which a reply is cut off."""
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One message is wanted."""

    messages: Sequence[Message]
    sampling: Sampling
    seed: int
    """The same ask with the same seed gives the same message, as far as the engine can promise it."""
    tools: Sequence[OfferedTool] = ()
    schema: dict[str, Json] | None = None
    """JSON Schema that the text is held to, where the engine can do that. It has to be checked all the same."""


@dataclass(frozen=True, slots=True)
class RawCall:
    """A tool call as the model wrote it."""

    name: str
    arguments: str
    """Meant to be the JSON text of an object."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote. Nothing of it is to be trusted."""

    text: str
    reasoning: str | None = None
    calls: tuple[RawCall, ...] = ()
    usage: Usage = Usage()  # noqa: RUF009 - frozen
    cut: bool = False
    """It ended because `max_tokens` were written."""


class ChatModel(Protocol):
    @property
    def name(self) -> str:
        """What the records call it."""

    async def start(self) -> None:
        """Get ready. Raises ConfigError for what the user can mend, TeacherError for what may pass."""

    async def close(self) -> None: ...

    async def complete(self, ask: Ask) -> Completion:
        """Raises TeacherError where no reply can be had now, TeacherDied where none will be had any more."""


def wire_message(message: Message, *, text_arguments: bool, reasoning_key: str | None) -> dict[str, Json]:
    """A message in the OpenAI chat format.

    Endpoints want the arguments of a call as JSON text, chat templates as an object. Earlier reasoning goes under
    `reasoning_key`, or nowhere.
    """
    wire: dict[str, Json] = message.model_dump(mode="json", exclude_none=True, exclude={"train", "reasoning_content"})
    if isinstance(message, AssistantMessage):
        if message.reasoning_content and reasoning_key:
            wire[reasoning_key] = message.reasoning_content
        if text_arguments:
            for call in wire.get("tool_calls", ()):
                call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return wire
