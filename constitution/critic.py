"""What a model critic is asked, and what its reply is worth.

This module builds texts and reads texts; sending them is the business of the teachers. What a model wrote is never
trusted: a reply that does not fit gives problems, not exceptions, and no verdicts.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from string import Template

from tracemill.constitution.constitution import MOST_FINDINGS, Principle
from tracemill.schemas.check import Checker
from tracemill.schemas.embedded import last_object
from tracemill.trace import AssistantMessage, Json, ToolMessage, Trace, Verdict

PROMPT = Path(__file__).parent / "prompts" / "critique.md"

CRITIQUE_SCHEMA: dict[str, Json] = {
    "type": "object",
    "properties": {
        "verdicts": {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_FINDINGS,
            "items": {
                "type": "object",
                "properties": {
                    "principle": {"type": "string"},
                    "verdict": {"enum": ["pass", "fail"]},
                    "severity": {"enum": ["low", "medium", "high"]},
                    "at": {"type": ["integer", "null"], "minimum": 0},
                    "reason": {"type": "string", "maxLength": 1000},
                },
                "required": ["principle", "verdict", "severity", "at", "reason"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["verdicts"],
    "additionalProperties": False,
}
"""Of a critic's reply; servers that can hold a model to a schema may be given it."""


@dataclass(frozen=True)
class Critique:
    """A critic's reply, read. Where there are problems, there are no verdicts."""

    verdicts: tuple[Verdict, ...] = ()
    problems: tuple[str, ...] = ()


def critique_request(trace: Trace, principle: Principle) -> str:
    """The text that asks a model whether the trace keeps to the principle.

    What is the same for all principles comes first, so that an engine reads a trace once for all its critiques.
    """
    shape = {"verdicts": [{"principle": principle.id, "verdict": "fail", "severity": principle.severity, "at": 4, "reason": "..."}]}
    return _template().substitute(
        principle=principle.id,
        text=principle.text,
        why=principle.why,
        critique=principle.critique,
        tools=_tools(trace),
        transcript=transcript(trace),
        shape=json.dumps(shape),
        most=MOST_FINDINGS,
    )


def transcript(trace: Trace) -> str:
    """The messages, numbered. Each line begins with a bar, so that no message can end the section it stands in."""
    lines: list[str] = []
    for at, message in enumerate(trace.messages):
        if isinstance(message, AssistantMessage):
            lines.append(f"[{at}] assistant" + ("" if message.train else " (wrong step)"))
            if message.reasoning_content:
                lines.append(f"thinking: {message.reasoning_content}")
            lines += [f"calls {call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in message.tool_calls or ()]
        elif isinstance(message, ToolMessage):
            lines.append(f"[{at}] result of {message.name}")
        else:
            lines.append(f"[{at}] {message.role}")
        if message.content:
            lines.append(message.content)
    return _barred("\n".join(lines))


def _tools(trace: Trace) -> str:
    return _barred(
        "\n".join(
            f"{one.name} ({trace.effects.get(one.name, 'write')}): {' '.join(one.description.split())}"
            for one in (t.function for t in trace.tools)
        )
    )


def _barred(text: str) -> str:
    return "\n".join(f"| {line}" for line in text.splitlines())


@functools.cache
def _template() -> Template:
    """Placeholders are `$name`; what is put in is never expanded again, and a literal dollar sign is `$$`."""
    return Template(PROMPT.read_text(encoding="utf-8"))


@functools.cache
def _checker() -> Checker:
    return Checker(CRITIQUE_SCHEMA)


def parse_critique(reply: str, trace: Trace, principle: Principle) -> Critique:
    """The verdicts in a reply. What stands around the JSON object, such as thinking or a code fence, is passed over."""
    content = last_object(reply, "verdicts")
    if content is None:
        return Critique(problems=("the reply holds no JSON object with the key 'verdicts'",))
    problems = [str(problem) for problem in _checker().problems(content)]
    if problems:
        return Critique(problems=tuple(problems))
    entries = content["verdicts"]
    for number, one in enumerate(entries):
        where, at = f"$.verdicts[{number}]", one["at"]
        if one["principle"] != principle.id:
            problems.append(f"{where}.principle: asked for {principle.id!r}, got {one['principle']!r}")
        if one["verdict"] == "pass":
            if len(entries) > 1:
                problems.append(f"{where}.verdict: a pass stands alone")
            continue
        if not one["reason"].strip():
            problems.append(f"{where}.reason: a failed verdict needs a reason")
        if at is None:
            problems.append(f"{where}.at: a failed verdict names a message")
        elif at >= len(trace.messages):
            problems.append(f"{where}.at: there are messages 0 to {len(trace.messages) - 1}, got {at}")
        elif not isinstance(judged := trace.messages[at], AssistantMessage) or not judged.train:
            problems.append(f"{where}.at: message {at} is not one of the assistant's to be judged")
    if problems:
        return Critique(problems=tuple(problems))
    return Critique(
        tuple(
            Verdict(
                principle=principle.id,
                passed=one["verdict"] == "pass",
                by="critic",
                severity=one["severity"],
                at=one["at"] if one["verdict"] == "fail" else None,
                why=one["reason"].strip() if one["verdict"] == "fail" else "",
            )
            for one in entries
        )
    )
