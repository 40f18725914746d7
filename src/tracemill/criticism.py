"""What a model critic says of one trace: each principle asked for by itself, all of them at once.

A rule decides where there is one. There the critic is asked only on a share of the traces, so that it can be told how far
its word can be trusted where no rule decides.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from tracemill.constitution.constitution import Constitution, Principle
from tracemill.constitution.critic import CRITIQUE_SCHEMA, Critique, critique_request, parse_critique
from tracemill.errors import ContextTooLong
from tracemill.generators.teachers.base import Request, Teacher
from tracemill.trace import Scenario, Trace, Usage, UserMessage, Verdict

TRIES = 2  # at a critique that can be read


def asked(constitution: Constitution, scenario: Scenario, share: float) -> list[Principle]:
    """The principles that the critic is asked about this scenario's trace: those that no rule decides, and on a share of the
    scenarios the others too."""
    all_of_them = random.Random(f"{scenario.seed}/critic").random() < share
    return [one for one in constitution.principles if scenario.kind in one.kinds and (all_of_them or one.rule is None)]


async def criticize(critic: Teacher, trace: Trace, principles: Sequence[Principle], revision: int) -> tuple[tuple[Verdict, ...], Usage]:
    """The critic's verdicts, in the order of the principles, and what they took. A critique that cannot be read gives none.

    Raises TeacherError where the critic has no reply.
    """
    critiques = await asyncio.gather(*(_one(critic, trace, principle, revision) for principle in principles))
    usage = Usage()
    for _, spent in critiques:
        usage += spent
    return tuple(verdict for verdicts, _ in critiques for verdict in verdicts), usage


async def _one(critic: Teacher, trace: Trace, principle: Principle, revision: int) -> tuple[tuple[Verdict, ...], Usage]:
    messages = [UserMessage(content=critique_request(trace, principle))]
    usage = Usage()
    for redo in range(TRIES):
        request = Request("critic", messages, (), trace.scenario, revision, redo=redo, schema=CRITIQUE_SCHEMA)
        try:
            reply = await critic.reply(request)
        except ContextTooLong:
            break
        usage += reply.usage
        critique = Critique() if reply.problem else parse_critique(reply.text, trace, principle)
        if critique.verdicts and _writable(critique):
            return critique.verdicts, usage
    return (), usage


def _writable(critique: Critique) -> bool:
    """Whether a file can hold it: JSON may spell out half a character."""
    return not any("\ud800" <= character <= "\udfff" for verdict in critique.verdicts for character in verdict.why)
