"""The way of one scenario, end to end: drawn, played, inspected, revised at most twice, accepted or rejected.

Plain asyncio: no Ray, no files.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tracemill.constitution.constitution import Constitution
from tracemill.errors import ScenarioError, TeacherError
from tracemill.generators import error_recovery
from tracemill.generators.environments.base import Environment
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.rollout import Budget, Rollout, rollout
from tracemill.generators.scenario import Mix, kind_of, scenario
from tracemill.generators.teachers.base import Teacher
from tracemill.inspection import Finding, inspect
from tracemill.trace import (
    AssistantMessage,
    Blame,
    Message,
    Preference,
    Rejection,
    Scenario,
    Stage,
    Trace,
    Usage,
    canonical,
    fingerprint,
)  # fmt: skip

REVISIONS = 2


@dataclass(frozen=True)
class Job:
    """What decides the content of a run: the same job gives the same records, index by index."""

    seed: int
    mix: Mix
    digest: str
    """Fingerprint of the config as far as it decides the content; part of every id."""
    budget: Budget = field(default_factory=Budget)

    def id_of(self, index: int) -> str:
        return "tm-" + fingerprint([self.digest, self.seed, index])[:20]


@dataclass(frozen=True)
class Milled:
    """All that came of one index. Without a trace the last rejection is final."""

    index: int
    trace: Trace | None
    rejections: tuple[Rejection, ...] = ()
    preferences: tuple[Preference, ...] = ()


@dataclass(frozen=True)
class _Back:
    """Why a draft goes back: the message to replace, the principle it breaks, and what the reviser is told."""

    at: int
    principle: str
    critique: str


class Pipeline:
    def __init__(self, job: Job, agent: Teacher, user: Teacher, constitution: Constitution) -> None:
        self.job = job
        self._agent = agent
        self._user = user
        self._constitution = constitution

    async def mill(self, index: int) -> Milled:
        """Everything that becomes of one index. Bad rollouts are data: what goes wrong is a rejection."""
        try:
            return await self._mill(index)
        except ScenarioError as error:
            return Milled(index, None, (self._lost(index, "rollout", error.message, error.problems),))
        except Exception as error:  # noqa: BLE001 - a bug in a user's own teacher or environment costs one index, not its neighbours
            where = traceback.extract_tb(error.__traceback__)[-1]
            evidence = (f"{Path(where.filename).name}, line {where.lineno}, in {where.name}",)
            return Milled(index, None, (self._lost(index, "infrastructure", f"{type(error).__name__}: {error}", evidence),))

    async def _mill(self, index: int) -> Milled:
        drawn = scenario(self.job.seed, index, self.job.mix)
        cls = environment(drawn.environment)
        rejections: list[Rejection] = []
        preferences: list[Preference] = []
        usage = Usage()
        messages: tuple[Message, ...] = ()
        back: _Back | None = None
        for attempt in range(REVISIONS + 1):
            try:
                played = await self._play(drawn, cls, messages, attempt, back)
            except TeacherError as error:
                rejections.append(self._reject(drawn, attempt, "rollout", "teacher", [str(error)], messages, final=True))
                break
            usage += played.usage
            if played.stop != "done":
                why = "the conversation did not end within its budget of turns and calls"
                rejections.append(self._reject(drawn, attempt, "rollout", "agent", [why], played.messages, final=True))
                break
            trace = self._trace(drawn, cls, played, attempt)
            found = await inspect(trace, cls, self._constitution)
            if not isinstance(found, Finding):
                if back is not None and any(v.principle == back.principle and v.passed for v in found.verdicts):
                    preferences.append(self._pair(trace, messages, back, attempt))
                checked = {
                    "outcome": found.outcome,
                    "state_digest": found.state_digest,
                    "recovery": found.recovery,
                    "verdicts": found.verdicts,
                }
                accepted = trace.model_copy(update={**checked, "usage": usage}).sealed()
                return Milled(index, accepted, tuple(rejections), tuple(preferences))
            last = attempt == REVISIONS
            revisable = found.stage == "constitution" and not last
            rejections.append(self._reject(drawn, attempt, found.stage, found.blame, found.problems, played.messages, final=not revisable))
            if not revisable:
                break
            messages = played.messages
            back = self._send_back(found)
        rejections[-1] = rejections[-1].model_copy(update={"usage": usage})
        return Milled(index, None, tuple(rejections))

    async def _play(
        self, drawn: Scenario, cls: type[Environment], before: tuple[Message, ...], attempt: int, back: _Back | None
    ) -> Rollout:
        env = await cls.reset(drawn)
        try:
            if back is None:
                played = await rollout(drawn, env, self._agent, self._user, budget=self.job.budget)
            else:
                played = await rollout(
                    drawn, env, self._agent, self._user, budget=self.job.budget,
                    prefix=before[: back.at], revision=attempt, critique=back.critique,
                )  # fmt: skip
            _check_writable(played.messages)
            return played
        finally:
            await env.close()

    def _trace(self, drawn: Scenario, cls: type[Environment], played: Rollout, attempt: int) -> Trace:
        tools = cls.tools(drawn.kind)
        recovery = error_recovery.locate(drawn, played.messages, played.troubled) if drawn.kind == "error_recovery" else None
        return Trace(
            id=self.job.id_of(drawn.index),
            kind=drawn.kind,
            environment=drawn.environment,
            template=drawn.template,
            index=drawn.index,
            seed=drawn.seed,
            difficulty=drawn.difficulty,
            messages=played.messages,
            tools=cls.offered(drawn.kind),
            effects={tool.name: tool.effect for tool in tools},
            scenario=drawn,
            recovery=recovery,
            state_digest="",
            teacher=self._agent.name,
            revisions=attempt,
        )

    def _send_back(self, found: Finding) -> _Back:
        """Back to the first message that breaks a principle."""
        worst = min((v for v in found.verdicts if v.at is not None), key=lambda v: v.at or 0, default=found.verdicts[0])
        principle = self._constitution.principle(worst.principle)
        at = worst.at if worst.at is not None else 2
        return _Back(at, principle.id, f"{principle.revision}\n\nWhat was found: {worst.why}")

    def _pair(self, trace: Trace, draft: tuple[Message, ...], back: _Back, attempt: int) -> Preference:
        chosen, rejected = trace.messages[back.at], draft[back.at]
        assert isinstance(chosen, AssistantMessage) and isinstance(rejected, AssistantMessage)
        return Preference(
            id=f"{trace.id}.p{attempt}",
            trace=trace.id,
            index=trace.index,
            prompt=trace.messages[: back.at],
            chosen=(chosen,),
            rejected=(rejected,),
            tools=trace.tools,
            source=f"revision:{back.principle}",
            margin=1.0,
        )

    def _reject(
        self, drawn: Scenario, attempt: int, stage: Stage, blame: Blame, problems: tuple[str, ...] | list[str],
        messages: tuple[Message, ...], *, final: bool,
    ) -> Rejection:  # fmt: skip
        return Rejection(
            id=f"{self.job.id_of(drawn.index)}.{attempt}",
            index=drawn.index,
            attempt=attempt,
            kind=drawn.kind,
            environment=drawn.environment,
            template=drawn.template,
            stage=stage,
            reason=problems[0],
            blame=blame,
            final=final,
            evidence=tuple(problems),
            messages=messages,
        )

    def _lost(self, index: int, stage: Stage, reason: str, evidence: tuple[str, ...]) -> Rejection:
        """An index of which nothing came, not even a conversation."""
        kind = kind_of(self.job.seed, index, self.job.mix)
        return Rejection(
            id=f"{self.job.id_of(index)}.0", index=index, attempt=0, kind=kind, environment="", template="",
            stage=stage, reason=reason, blame="infrastructure", final=True, evidence=evidence,
        )  # fmt: skip


def _check_writable(messages: Sequence[Message]) -> None:
    """Raises TeacherError for text that no file can hold, such as the half surrogate pairs that some models write."""
    for at, message in enumerate(messages):
        texts = [message.content]
        try:
            if isinstance(message, AssistantMessage):
                texts.append(message.reasoning_content or "")
                texts += [canonical(call.arguments) for call in message.tool_calls or ()]
            "".join(texts).encode()
        except ValueError as error:  # UnicodeEncodeError, or a number that is none
            raise TeacherError(f"messages[{at}] cannot be written down: {error}") from error
