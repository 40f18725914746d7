"""ShareGPT conversations: `tracemill import sharegpt FILE`.

A row holds `conversations` (or `messages`), turns of `from` and `value` (or `role` and `content`), and if it likes `system`, `tools` (JSON text
as a rule), `reward` and `id`. Two dialects are read, which may be mixed:

LLaMA-Factory: calls are turns `function_call` whose value is JSON, an object with `name` and `arguments` or a list of them; results are turns
`observation`, one for each call or one for all, joined by `</tool_response>` and `<tool_response>`.

Hermes: calls stand in the words of `gpt` between `<tool_call>` and `</tool_call>`, results in turns `tool` between `<tool_response>` and
`</tool_response>`.

In both a thought stands in front of all else, between `<think>` and `</think>`. Results have no ids: they answer the calls before them in order.
What comes of it are messages in the OpenAI chat format, which are read, and found wrong, as those are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from tracemill.importing.check import Found
from tracemill.importing.openai import REASONING, unpacked
from tracemill.importing.openai import read_row as read_openai
from tracemill.importing.write import MIN_REWARD, Given, import_file
from tracemill.trace import Json

MEDIA = ("images", "videos", "audios")
"""Columns of LLaMA-Factory whose files stand for <image> and the like in the turns."""
COLUMNS = ("conversations", "messages", "system", "tools", "reward", "id", *MEDIA)
ROLES = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "function_call": "assistant",
    "tool_call": "assistant", "observation": "tool", "tool": "tool", "tool_response": "tool", "function_response": "tool",
}  # fmt: skip
CALLING = ("function_call", "tool_call")
CHAT_KEYS = ("tool_calls", "function_call", "tool_call_id", *REASONING)
"""What messages of the chat API hold beside their text, and turns never."""

_THOUGHT = re.compile(r"\s*<think>\n?(.*?)\n?</think>(?:\n\n|\n)?", re.DOTALL)
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_CALLS = re.compile(r"\n?<tool_call>.*?</tool_call>(?:\s*<tool_call>.*?</tool_call>)*\n?", re.DOTALL)
_RESULTS = re.compile(r"\s*<tool_response>\n?(.*?)\n?</tool_response>\s*", re.DOTALL)
_NEXT_RESULT = re.compile(r"\n?</tool_response>\s*<tool_response>\n?")


def import_sharegpt(file: Path, out: Path, *, tools: Path | None = None, min_reward: float = MIN_REWARD) -> int:
    """Import a file into a new folder and print what came of it; 0 if a conversation was accepted, else 1.

    `tools` is a file with the tools of the rows that name none. Raises ConfigError, DatasetError.
    """
    return import_file(file, out, name="sharegpt", columns=COLUMNS, read=read_row, tools=tools, min_reward=min_reward)


def read_row(row: dict[str, Json]) -> Given:
    """What the row holds, in our types, and all that cannot be read of it."""
    given = next((unpacked(row[name]) for name in COLUMNS[:2] if row.get(name) is not None), None)
    if given is None:
        shown = ", ".join(ascii(name)[:60] for name in list(row)[:9]) or "nothing"
        return Given(problems=[("row", f"it holds neither `conversations` nor `messages`, but {shown}")])
    messages, reading = given, _Reading()
    if isinstance(given, list):
        turns = [unpacked(turn) for turn in given]
        if any(map(_is_of_chat, turns)):
            return Given(problems=[("row", "these are messages of the chat API, not turns: tracemill import openai reads them")])
        messages = _with_system(row.get("system"), list(reading.messages(turns)), reading)
    made = read_openai({**{name: row.get(name) for name in ("tools", "reward", "id")}, "messages": messages})
    made.problems += reading.problems
    made.problems += [("schema", f"{name}: only text can be imported") for name in MEDIA if row.get(name)]
    return made


def _is_of_chat(turn: Json) -> bool:
    """Whether it holds what a turn has no place for: a call, a thought, or whose result it is."""
    if not isinstance(turn, dict):
        return False
    named = turn.get("name") if "from" not in turn and turn.get("role") == "tool" else None
    return bool(named) or any(turn.get(key) for key in CHAT_KEYS)


def _with_system(system: Json, messages: list[Json], reading: _Reading) -> list[Json]:
    """The system message of the column, where there is one, in front; it may also be the first turn."""
    if not system:
        return messages
    first = messages[0] if messages and isinstance(messages[0], dict) and messages[0].get("role") == "system" else None
    if first is None:
        return [{"role": "system", "content": system}, *messages]
    if str(first["content"]).strip() != str(system).strip():
        reading.problem("system: it says something else than the system message among the turns")
    return messages


class _Reading:
    """Turns one after the other; what is no turn is passed on, for the chat format to refuse."""

    def __init__(self) -> None:
        self.problems: list[Found] = []
        self._calls = 0
        self._waiting: list[str] = []
        """Ids of the calls that no result has answered yet."""

    def messages(self, turns: list[Json]) -> Iterator[Json]:
        held: dict[str, Json] | None = None  # words of the agent, which a turn with calls may follow
        for at, turn in enumerate(turns):
            calling = isinstance(turn, dict) and _said(turn)[0] in CALLING
            made = list(self._turn(turn, f"turns[{at}]"))
            if held is not None:
                if calling and not held.get("tool_calls") and _is_text(held) and _is_text(made[0]):
                    made = [_joined(held, made[0])]
                else:
                    yield held
                held = None
            if len(made) == 1 and isinstance(made[0], dict) and made[0].get("role") == "assistant":
                held = made[0]
            else:
                yield from made
        if held is not None:
            yield held

    def problem(self, problem: str) -> None:
        self.problems.append(("schema", problem))

    def _turn(self, turn: Json, path: str) -> Iterator[Json]:
        if not isinstance(turn, dict):
            yield turn
            return
        role, text = _said(turn)
        speaker = ROLES.get(role) if isinstance(role, str) else None
        if speaker == "tool" and isinstance(text, str):
            yield from self._results(text)
        elif speaker == "assistant" and isinstance(text, str):
            marks = {name: turn[name] for name in ("train", "weight") if name in turn}
            yield {**self._agent(text, path, calling=role in CALLING), **marks}
        else:
            yield {"role": speaker or role, "content": text}

    def _agent(self, text: str, path: str, *, calling: bool) -> dict[str, Json]:
        thought = _THOUGHT.match(text)
        rest = text[thought.end() :] if thought else text
        texts = _CALL.findall(rest) or ([rest] if calling else [])
        made = [list(self._called(one)) for one in texts]
        calls = [call for some in made for call in some]
        self._waiting = [call["id"] for call in calls]
        content = "" if texts == [rest] else _CALLS.sub(lambda one: _gap(one, len(rest)), rest)
        if not all(made):
            self.problem(f"{path}: where a call should stand there is none")
        for tag in _unmatched(content):
            self.problem(f"{path}: {tag} without its counterpart")
        return {
            "role": "assistant",
            "content": content,
            **({"reasoning_content": thought[1]} if thought else {}),
            **({"tool_calls": calls} if calls else {}),
        }

    def _called(self, text: str) -> Iterator[dict[str, Json]]:
        """The calls of a JSON text. One that cannot be read has that text as its arguments, which are then found to be none."""
        if not text.strip():
            return
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = {"name": "unknown", "arguments": text}
        for one in value if isinstance(value, list) else [value]:
            self._calls += 1
            yield {"id": f"call_{self._calls}", "type": "function", "function": one}

    def _results(self, text: str) -> Iterator[Json]:
        whole = _RESULTS.fullmatch(text)
        inside = whole[1] if whole else text
        for one in _NEXT_RESULT.split(inside):
            yield {"role": "tool", "content": one, **({"tool_call_id": self._waiting.pop(0)} if self._waiting else {})}


def _said(turn: dict[str, Json]) -> tuple[Json, Json]:
    """Who speaks, and what."""
    return (turn.get("from"), turn.get("value")) if "from" in turn else (turn.get("role"), turn.get("content"))


def _is_text(message: Json) -> bool:
    return isinstance(message["content"], str)


def _joined(words: dict[str, Json], calls: dict[str, Json]) -> dict[str, Json]:
    """One message of the agent: what it says in one turn and calls in the next. It is learnt if both are."""
    texts = {name: "\n".join(one[name] for one in (words, calls) if one.get(name)) for name in ("content", "reasoning_content")}
    wrong = any(one.get("train") is False or one.get("weight") == 0 for one in (words, calls))
    return {**words, **calls, **texts, **({"train": False} if wrong else {})}


def _gap(calls: re.Match[str], end: int) -> str:
    """What is left where calls stood: the words before and after them stay on lines of their own."""
    between = calls.start() > 0 and calls.end() < end
    return "\n" if between and "\n" in (calls[0][0], calls[0][-1]) else ""


def _unmatched(text: str) -> Iterator[str]:
    """Tags of calls that none was read between, and tags of thoughts that do not come in pairs: broken, and no words to learn."""
    yield from (tag for tag in ("<tool_call>", "</tool_call>") if tag in text)
    opened, closed = text.count("<think>"), text.count("</think>")
    if opened != closed:
        yield "<think>" if opened > closed else "</think>"
