"""What an imported conversation must pass. The import and `tracemill verify` run the same code.

structure -> arguments. There is no replay, no goal and no proof: the tools and the world they worked on are not here.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tracemill.generators.environments.tool import Tool
from tracemill.generators.environments.tool_files import Loaded, read_tools
from tracemill.inspection import turn_problems
from tracemill.trace import AssistantMessage, ImportStage, Json, Message, OfferedTool, SystemMessage, ToolCall, ToolMessage, UserMessage

Found = tuple[ImportStage, str]

# Between the word and the colon stands nothing, a number or a bracket, or what went wrong where. Other words make it a report of
# something: 'Error rate: 0.5%', 'Error budget remaining: 43%', 'Exception policy (2024): …'.
_FAILED = re.compile(
    r"\s*(?:\w*(?:error|exception)\b(?: ?[\d(\[#][^\n:]{0,60}| code(?=:? ?[45]\d\d\b)[^\n:]{0,10}"
    r"| (?:executing|calling|running|invoking|performing|processing|handling request|fetching|getting|loading|reading|writing|parsing"
    r"|validating|connecting|trying|occurred|encountered|raised|while|when|during|in|on|at|from|for|with|to|message)\b[^\n:]{0,60})? ?:"
    r"|traceback \(most recent call last\))",
    re.IGNORECASE,
)
_NO_ERROR = ("none", "no", "no error", "null", "nil", "n/a", "false", "ok", "0")
_PASSING = re.compile(
    r"time[ds]?[ -]?out|rate[ -]?limit|too many requests|(?:service|temporarily) unavailable|internal (?:server )?error"
    r"|connection (?:refused|reset|error|closed)|\b(?:http|status|code)\W{0,2}(?:429|5\d\d)\b",
    re.IGNORECASE,
)


def failed(result: str) -> bool:
    """Whether a result is that of a failed call: it begins like 'Error: …', 'ValueError: …' or 'Error calling get_order: …', is a
    traceback, or is a JSON object with an `error` that says something."""
    if _FAILED.match(result):
        return True
    if not result.lstrip().startswith("{") or '"error"' not in result:
        return False
    try:
        error = json.loads(result).get("error")
    except (ValueError, RecursionError):
        return False
    return bool(error) and str(error).strip(" .").lower() not in _NO_ERROR


def blundered(result: str) -> bool:
    """Whether the call failed by its own fault: not by one of the network or the server, which calling again may mend."""
    return failed(result) and not _PASSING.search(result)


def answers(messages: Sequence[Message]) -> Iterator[tuple[int, int, ToolCall, str]]:
    """Each call that was answered: index of its message, its place there, the call, the result."""
    results = {message.tool_call_id: message.content for message in messages if isinstance(message, ToolMessage)}
    for at, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            for place, call in enumerate(message.tool_calls or ()):
                if call.id in results:
                    yield at, place, call, results[call.id]


def without_blunders(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages with a call that failed by its own fault are wrong steps: they stay, and are kept out of the loss."""
    wrong = {at for at, _, _, result in answers(messages) if blundered(result)}
    return tuple(message.model_copy(update={"train": False}) if at in wrong else message for at, message in enumerate(messages))


def structure_problems(messages: Sequence[Message]) -> list[str]:
    """Who speaks when. A system message may be missing; the end may be the agent's words, its calls, or the results of all of them."""
    found: list[str] = []
    start = int(bool(messages) and isinstance(messages[0], SystemMessage))
    if len(messages) <= start or not isinstance(messages[start], UserMessage):
        found.append("messages: the user must speak first, after at most one system message")
    spoken = [message for message in messages if isinstance(message, AssistantMessage)]
    if not spoken:
        found.append("messages: the agent says nothing")
    elif not any(message.train for message in spoken):
        found.append("messages: nothing is left to learn, as every message of the agent is a wrong step")
    elif isinstance(messages[-1], UserMessage):
        found.append("messages: the last one is the user's")
    return found + _left_waiting(messages) + turn_problems(messages)


def _left_waiting(messages: Sequence[Message]) -> list[str]:
    """Calls of the last message that lack the results which others of it have; of all earlier ones `turn_problems` speaks.

    A conversation that ends with calls alone is whole: many sets for function calling hold nothing else.
    """
    last = next((at for at in reversed(range(len(messages))) if not isinstance(messages[at], ToolMessage)), None)
    speaker = messages[last] if last is not None else None
    if last is None or last == len(messages) - 1 or not isinstance(speaker, AssistantMessage):
        return []
    answered = {message.tool_call_id for message in messages[last + 1 :] if isinstance(message, ToolMessage)}
    return [f"messages[{last}]: {call.id} ({call.name}) is never answered" for call in speaker.tool_calls or () if call.id not in answered]


def argument_problems(messages: Sequence[Message], tools: Mapping[str, Tool], unread: Collection[str] = ()) -> Iterator[str]:
    """Calls of tools that were not offered, and arguments that are not what a tool takes.

    Those that failed are passed over: they are wrong steps and known as such. So are calls in `unread`, by their ids.
    """
    results = {call.id: result for _, _, call, result in answers(messages)}
    calls = [
        (f"messages[{at}].tool_calls[{place}].function", call)
        for at, message in enumerate(messages)
        if isinstance(message, AssistantMessage)
        for place, call in enumerate(message.tool_calls or ())
        if not blundered(results.get(call.id, ""))
    ]
    if calls and not tools:
        yield f"{calls[0][0]}.name: {calls[0][1].name!r} is called, but no tools are given, neither in the row nor by --tools"
        return
    for path, call in calls:
        if call.name not in tools:
            yield f"{path}.name: {call.name!r} is none of the tools"
        elif call.id not in unread:
            for problem in tools[call.name].problems(call.arguments):
                yield f"{path}.arguments{problem.path.removeprefix('$')}: {problem.message}"


@dataclass(frozen=True)
class Offer:
    """The tools of a row. Rows share them, so the same list is loaded once."""

    tools: dict[str, Tool]
    offered: tuple[OfferedTool, ...]
    refused: tuple[str, ...]
    """Definitions that are no tools, each with what is wrong with it."""

    @classmethod
    def of(cls, loaded: Sequence[Loaded]) -> Offer:
        tools = {one.tool.name: one.tool for one in loaded if one.tool is not None}
        offered = tuple(tool.definition.offered() for tool in tools.values())
        return cls(tools, offered, tuple(str(one) for one in loaded if one.tool is None))


def load(definitions: Json) -> Offer:
    """Raises TypeError or RecursionError for what is no JSON."""
    return _load(json.dumps(definitions))


@functools.lru_cache(maxsize=256)
def _load(text: str) -> Offer:
    return Offer.of(read_tools(json.loads(text)))
