"""Plain text: what the agent was told so far, and what it thought and did next.

One row for each good message of the agent, so that a trainer which learns the whole output learns the thought, the call and the
reasoning over a result, and never a result or a wrong step: those are input.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import ClassVar

from tracemill.exporting.form import LAST_RESULTS, WRONG_STEPS, Example, Form, Line, Message, Notes, Pair, ends_with_result, wrong
from tracemill.trace import Json


class Instruct(Form):
    name = "instruct"
    files: ClassVar = {
        "train.jsonl": "a message of the agent (`output`: thought, then call or words), and all before it (`input`)",
        "preferences.jsonl": "two messages after the same `input`: `chosen` and `rejected`",
    }
    following = "python -c \"from datasets import load_dataset; print(load_dataset('json', data_files='{file}'))\""

    def example(self, one: Example, notes: Notes) -> Iterator[Line]:
        before = opening(one.tools)
        for at, message in enumerate(one.messages):
            if message["role"] == "assistant" and not wrong(message):
                yield "train.jsonl", {"id": f"{one.id}.{at}", "input": before + "\n\n# Agent\n", "output": said(message)}
            before += section(message)
        notes[WRONG_STEPS] += sum(map(wrong, one.messages))
        notes[LAST_RESULTS] += ends_with_result(one.messages)

    def pair(self, one: Pair, notes: Notes) -> Iterator[Line]:
        before = opening(one.tools) + "".join(map(section, one.prompt)) + "\n\n# Agent\n"
        yield "preferences.jsonl", {"id": one.id, "input": before, "chosen": said(one.chosen), "rejected": said(one.rejected)}


def opening(tools: Sequence[Json]) -> str:
    """The tools, one JSON object a line."""
    return "# Tools\n" + ("\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools) or "none")


def section(message: Message) -> str:
    heading = {"system": "System", "user": "User", "assistant": "Agent", "tool": f"Result of {message.get('name')}"}[message["role"]]
    return f"\n\n# {heading}\n" + (said(message) if message["role"] == "assistant" else message["content"])


def said(message: Message) -> str:
    """The thought, the words, and the calls in the spelling of Hermes and Qwen: JSON between <tool_call> tags."""
    thought = [f"<think>\n{message['reasoning_content']}\n</think>"] if message.get("reasoning_content") else []
    words = [message["content"]] if message["content"] else []
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    acts = [
        f"<tool_call>\n{json.dumps({'name': one['name'], 'arguments': one['arguments']}, ensure_ascii=False)}\n</tool_call>"
        for one in calls
    ]
    return "\n\n".join([*thought, *words, *(["\n".join(acts)] if acts else [])])
