"""The OpenAI chat format: `tracemill import openai FILE`.

A row holds `messages` (or `traj`), and if it likes `tools`, `reward` and `id`. What is spelled in several ways in the
wild becomes one: arguments become objects, `null` contents empty, parts of text one text, `developer` is `system`,
thinking is `reasoning_content`, and call ids are `call_1`, `call_2`, … in order. What could mean two things is a problem.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tracemill.importing.check import Found
from tracemill.importing.write import MIN_REWARD, Given, import_file, kind_named, unstorable
from tracemill.trace import AssistantMessage, FunctionCall, Json, Message, SystemMessage, ToolCall, ToolMessage, UserMessage

COLUMNS = ("messages", "traj", "tools", "reward", "id")
REASONING = ("reasoning_content", "reasoning", "thinking")
TEXT_PARTS = ("text", "input_text", "output_text")
ARGUMENTS = ("arguments", "parameters", "input", "args")
"""How the arguments of a call are named; `parameters` is Llama's word, `input` Anthropic's."""
BESIDE_ARGUMENTS = ("name", "id", "type", "index", "description", "strict")

_OUR_ID = re.compile(r"call_\d+")


def import_openai(file: Path, out: Path, *, tools: Path | None = None, min_reward: float = MIN_REWARD) -> int:
    """Import a file into a new folder and print what came of it; 0 if a conversation was accepted, else 1.

    `tools` is a file with the tools of the rows that name none. Raises ConfigError, DatasetError.
    """
    return import_file(file, out, name="openai", columns=COLUMNS, read=read_row, tools=tools, min_reward=min_reward)


def read_row(row: dict[str, Json]) -> Given:
    """What the row holds, in our types, and all that cannot be read of it."""
    row_id = _id(row.get("id"))
    given = Given(row_id="" if unstorable(row_id) else row_id)
    key = next((name for name in COLUMNS[:2] if row.get(name) is not None), None)
    if key is None:
        given.problems.append(("row", f"it holds neither `messages` nor `traj`, but {', '.join(map(_shown, list(row)[:9])) or 'nothing'}"))
    else:
        _read_messages(unpacked(row[key]), given)
    tools = unpacked(row.get("tools")) or None
    given.tools = [unpacked(one) for one in tools] if isinstance(tools, list) else tools
    reward = row.get("reward")
    if isinstance(reward, int | float) and abs(reward) <= sys.float_info.max:
        given.reward = float(reward)
    elif reward is not None:
        given.problems.append(("row", f"reward: expected a finite number, got {_shown(reward)}"))
    return given


def _read_messages(values: Json, given: Given) -> None:
    if not isinstance(values, list):
        given.problems.append(("schema", f"messages: expected a list, got {kind_named(values)}"))
        return
    reading = _Reading()
    for at, value in enumerate(values):
        reading.message(at, unpacked(value))
    reading.end_of_results()
    given.problems += reading.problems
    given.unread = reading.unread
    given.messages = tuple(reading.messages) if reading.complete else None


def unpacked(value: Json) -> Json:
    """JSON that is stored as text, as Parquet files often have it; anything else, and text that is no JSON, as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


@dataclass
class _Waiting:
    """A call with the id that it has in the file, until its result is found."""

    given_id: str
    call: ToolCall
    result: ToolMessage | None = None


class _Reading:
    """Messages one after the other, each of which becomes one of ours, and the problems on the way."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.problems: list[Found] = []
        self.unread: set[str] = set()
        """Ids of the calls whose arguments could not be read."""
        self.complete = True
        self._waiting: list[_Waiting] = []
        self._number = 0

    def message(self, at: int, value: Json) -> None:
        path = f"messages[{at}]"
        role = value.get("role") if isinstance(value, dict) else None
        if role != "tool":
            self.end_of_results()
        if not isinstance(value, dict):
            self._unknown(path, f"expected an object, got {kind_named(value)}")
        elif role in ("system", "developer"):
            self.messages.append(SystemMessage(content=self._text(value.get("content"), f"{path}.content")))
        elif role == "user":
            self.messages.append(UserMessage(content=self._text(value.get("content"), f"{path}.content")))
        elif role == "assistant":
            self.messages.append(self._assistant(value, path))
        elif role == "tool":
            self.messages.append(self._result(value, path))
        else:
            self._unknown(f"{path}.role", f"expected system, developer, user, assistant or tool, got {_shown(role)}")

    def end_of_results(self) -> None:
        """The results of parallel calls in the order of the calls: by that alone most chat templates tell them apart."""
        results = [one.result for one in self._waiting if one.result is not None]
        if results and self.messages[-len(results) :] != results and all(one in results for one in self.messages[-len(results) :]):
            self.messages[-len(results) :] = results
        self._waiting = []

    def _unknown(self, path: str, problem: str) -> None:
        self._problem(path, problem)
        self.complete = False

    def _problem(self, path: str, problem: str) -> None:
        self.problems.append(("schema", f"{path}: {problem}"))

    # --- the agent ---

    def _assistant(self, value: dict[str, Json], path: str) -> AssistantMessage:
        if value.get("function_call"):
            self._problem(f"{path}.function_call", "this older form is not read: write it as `tool_calls`")
        calls = value.get("tool_calls") or []
        if not isinstance(calls, list):
            self._problem(f"{path}.tool_calls", f"expected a list, got {kind_named(calls)}")
            calls = []
        self._waiting = [self._call(unpacked(call), f"{path}.tool_calls[{place}]") for place, call in enumerate(calls)]
        content = value.get("refusal") if value.get("content") in (None, "") else value["content"]
        reasoning = next(((name, value[name]) for name in REASONING if value.get(name)), None)
        return AssistantMessage(
            content=self._text(content, f"{path}.content"),
            reasoning_content=self._text(reasoning[1], f"{path}.{reasoning[0]}") or None if reasoning else None,
            tool_calls=tuple(one.call for one in self._waiting) or None,
            train=value.get("train") is not False and value.get("weight") != 0,
        )

    def _call(self, value: Json, path: str) -> _Waiting:
        self._number += 1
        id = f"call_{self._number}"
        function = value.get("function") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(function, dict):
            self._problem(path, "expected an object with a `function` that has a name and arguments")
            value, function = {}, {"name": "unknown"}
            self.unread.add(id)
        name = function.get("name")
        if not isinstance(name, str) or not name or unstorable(name):
            self._problem(f"{path}.function.name", f"expected the name of a tool, got {_shown(name)}")
            name = "unknown"
            self.unread.add(id)
        arguments = self._given(function, {name: value.get(name) for name in ARGUMENTS}, f"{path}.function")
        if arguments is None:
            self.unread.add(id)
        call = ToolCall(id=id, function=FunctionCall(name=name, arguments=arguments or {}))
        return _Waiting(_id(value.get("id")), call)

    def _given(self, function: dict[str, Json], beside: dict[str, Json], path: str) -> dict[str, Json] | None:
        """The arguments, also under one of their other names; None where they cannot be read.

        Nothing at all is how some write a call without arguments. But what stands under a name that is not known may be arguments.
        """
        stated = function.get("arguments")
        if stated not in (None, "", "{}", {}):
            return self._arguments(stated, f"{path}.arguments")
        absent = stated in (None, "")
        others = {key: value for key, value in (beside | function).items() if value not in (None, "", "{}", [], {})}
        named = [name for name in ARGUMENTS if name in others]
        if absent and len(named) == 1 and named[0] in function:
            return self._arguments(function[named[0]], f"{path}.{named[0]}")
        lost = [_shown(key) for key in others if key not in BESIDE_ARGUMENTS] if absent else list(map(_shown, named))
        if lost:
            self._problem(f"{path}.arguments", f"there are none, but there is {', '.join(lost[:9])}")
        return None if lost else {}

    def _arguments(self, value: Json, path: str) -> dict[str, Json] | None:
        """None where they are no object that can be stored."""
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as reason:
                self._problem(path, f"not JSON: {reason}")
                return None
        problem = unstorable(value) if isinstance(value, dict) else f"expected an object, got {kind_named(value)}"
        if problem:
            self._problem(path, problem)
        return None if problem else value

    # --- results ---

    def _result(self, value: dict[str, Json], path: str) -> ToolMessage:
        given_id, name = _id(value.get("tool_call_id")), value.get("name")
        name = name if isinstance(name, str) and not unstorable(name) else ""
        content = self._text(value.get("content"), f"{path}.content")
        fits = list(self._fitting(given_id, name))
        if len(fits) > 1:
            could = ", ".join(f"{one.call.id} ({one.call.name})" for one in fits)
            self._problem(path, f"it could answer each of {could}: a `tool_call_id` must say which")
        if len(fits) != 1:  # that it answers no call is for the structure to say, which sees our ids alone
            strange = "" if unstorable(given_id) or _OUR_ID.fullmatch(given_id) else given_id
            return ToolMessage(tool_call_id=strange, name=name, content=content)
        (answered,) = fits
        if name and name != answered.call.name:
            self._problem(f"{path}.name", f"{name!r}, but the call that it answers is of {answered.call.name!r}")
        answered.result = ToolMessage(tool_call_id=answered.call.id, name=answered.call.name, content=content)
        return answered.result

    def _fitting(self, given_id: str, name: str) -> Iterator[_Waiting]:
        """The calls that wait and bear the id; or, where one side bears none, the name."""
        waiting = [one for one in self._waiting if one.result is None]
        exact = [one for one in waiting if given_id and one.given_id == given_id]
        yield from exact or (one for one in waiting if not (given_id and one.given_id) and (not name or one.call.name in (name, "unknown")))

    # --- text ---

    def _text(self, value: Json, path: str) -> str:
        if isinstance(value, list):
            value = "\n".join(self._part(part, f"{path}[{at}]") for at, part in enumerate(value))
        if value is None:
            return ""
        problem = unstorable(value) if isinstance(value, str) else f"expected text, got {kind_named(value)}"
        if problem:
            self._problem(path, problem)
            return ""
        return str(value)

    def _part(self, part: Json, path: str) -> str:
        if isinstance(part, dict) and part.get("type") in TEXT_PARTS and isinstance(part.get("text"), str):
            return str(part["text"])
        of = f"of type {_shown(part.get('type'))}" if isinstance(part, dict) else f"that is {kind_named(part)}"
        self._problem(path, f"only parts of text can be imported, got one {of}")
        return ""


def _id(value: Json) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _shown(value: Json) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:59] + "…"
