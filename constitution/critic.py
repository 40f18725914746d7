"""What a model critic is asked, and what its reply is worth.

This module builds texts and reads texts; sending them is the business of the teachers. What a model wrote is never
trusted: a reply that does not fit gives problems, not exceptions, and no verdicts.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from tracemill.constitution.constitution import MOST_FINDINGS, Principle
from tracemill.schemas.check import Checker
from tracemill.trace import AssistantMessage, Json, ToolMessage, Trace, Verdict

PROMPTS = Path(__file__).parent / "prompts"

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
    """The text that asks a model whether the trace keeps to the principle."""
    shape = {"verdicts": [{"principle": principle.id, "verdict": "fail", "severity": principle.severity, "at": 4, "reason": "..."}]}
    return _template("critique").substitute(
        principle=principle.id,
        text=principle.text,
        why=principle.why,
        critique=principle.critique,
        tools=_tools(trace),
        transcript=transcript(trace),
        shape=json.dumps(shape),
        most=MOST_FINDINGS,
    )


def revision_request(trace: Trace, principle: Principle, findings: Sequence[Verdict]) -> str:
    """The text that asks for the first message that was found at fault to be written again."""
    at = first_fault(trace, findings)
    return _template("revision").substitute(
        principle=principle.id,
        text=principle.text,
        why=principle.why,
        revision=principle.revision,
        findings="\n".join(f"- {'' if one.at is None else f'message [{one.at}]: '}{one.why}" for one in findings),
        at=at,
        tools=_tools(trace),
        transcript=transcript(trace, at + 1),
    )


def first_fault(trace: Trace, findings: Sequence[Verdict]) -> int:
    """The message to begin with: the first that a finding points at, or else the last of the assistant."""
    pointed = [one.at for one in findings if one.at is not None]
    last = max((at for at, one in enumerate(trace.messages) if isinstance(one, AssistantMessage)), default=len(trace.messages) - 1)
    return min(pointed, default=last)


def transcript(trace: Trace, until: int | None = None) -> str:
    """The messages, numbered. Each line begins with a bar, so that no message can end the section it stands in."""
    lines: list[str] = []
    for at, message in enumerate(trace.messages[:until]):
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
def _template(name: str) -> Template:
    """Placeholders are `$name`; what is put in is never expanded again, and a literal dollar sign is `$$`."""
    return Template((PROMPTS / f"{name}.md").read_text(encoding="utf-8"))


@functools.cache
def _checker() -> Checker:
    return Checker(CRITIQUE_SCHEMA)


def parse_critique(reply: str, trace: Trace, principle: Principle) -> Critique:
    """The verdicts in a reply. What stands around the JSON object, such as thinking or a code fence, is passed over."""
    content = _object(reply)
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


def _object(reply: str) -> dict[str, Json] | None:
    """The last JSON object with the key 'verdicts': what comes before it may be thinking, with drafts of it."""
    decoder = json.JSONDecoder()
    found: dict[str, Json] | None = None
    start = reply.find("{")
    while start >= 0:
        try:
            content, end = decoder.raw_decode(reply, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            if isinstance(content, dict) and "verdicts" in content:
                found = content
        start = reply.find("{", end)
    return found
