"""The fine-tuning API of OpenAI: JSON lines for the supervised method and for preferences (DPO).

A line is `messages`, `tools` and `parallel_tool_calls`; arguments are JSON text, and `weight: 0` keeps a message of the
assistant out of the loss (FineTuneChatRequestInput and FineTunePreferenceRequestInput in OpenAI's OpenAPI description;
names of functions: `FunctionDefinition` of the `openai` package). There is no field for thoughts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from tracemill.exporting.form import LAST_RESULTS, WRONG_STEPS, Example, Form, Line, Message, Notes, Pair, ends_with_result, wrong
from tracemill.trace import Json

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BAD_NAME = "left out: the name of a tool is not of the letters, digits, - and _ (64 at most) that the API takes"


class OpenAI(Form):
    name = "openai"
    files: ClassVar = {"train.jsonl": "a conversation", "preferences.jsonl": "a preference pair"}
    following = (
        "python -c \"import openai; print(openai.OpenAI().files.create(file=open('{file}', 'rb'), purpose='fine-tune').id)\""
        "  # then as in its README"
    )

    def example(self, one: Example, notes: Notes) -> Iterator[Line]:
        if not _names_fit(one.messages, one.tools):
            notes[f"conversations {_BAD_NAME}"] += 1
            return
        end = max(at for at, message in enumerate(one.messages) if message["role"] == "assistant") + 1
        yield "train.jsonl", _input(one.messages[:end], one.tools, weights=True)
        notes[WRONG_STEPS] += sum(map(wrong, one.messages))
        notes[LAST_RESULTS] += ends_with_result(one.messages)
        notes["thoughts left out: the API has no field for them"] += sum(bool(message.get("reasoning_content")) for message in one.messages)

    def pair(self, one: Pair, notes: Notes) -> Iterator[Line]:
        chosen, rejected = to_openai(one.chosen), to_openai(one.rejected)
        if not _names_fit([*one.prompt, one.chosen, one.rejected], one.tools):
            notes[f"preference pairs {_BAD_NAME}"] += 1
        elif _said(chosen) == _said(rejected):
            notes["preference pairs left out: without their thoughts both sides are the same"] += 1
        else:
            yield (
                "preferences.jsonl",
                {"input": _input(one.prompt, one.tools), "preferred_output": [chosen], "non_preferred_output": [rejected]},
            )


def to_openai(message: Message) -> Message:
    """One message as the chat API takes it."""
    if message["role"] == "tool":
        return {"role": "tool", "tool_call_id": message["tool_call_id"], "content": message["content"]}
    calls = [_call(call) for call in message.get("tool_calls") or ()]
    if not calls:
        return {"role": message["role"], "content": message["content"]}
    words = {"content": message["content"]} if message["content"] else {}
    return {"role": "assistant", **words, "tool_calls": calls}


def _call(call: Json) -> Json:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {"id": call["id"], "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _input(messages: Sequence[Message], tools: list[Json], *, weights: bool = False) -> dict[str, Json]:
    made = [{**to_openai(message), "weight": 0} if weights and wrong(message) else to_openai(message) for message in messages]
    return {"messages": made, **({"tools": tools, "parallel_tool_calls": True} if tools else {})}


def _names_fit(messages: Sequence[Message], tools: list[Json]) -> bool:
    called = [call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()]
    return all(_NAME.fullmatch(name) for name in [*called, *(tool["function"]["name"] for tool in tools)])


def _said(message: Message) -> Json:
    """What it says and does, whatever the ids of its calls."""
    return [message.get("content"), [call["function"] for call in message.get("tool_calls", ())]]
