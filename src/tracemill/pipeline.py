"""The way of one scenario, end to end: drawn, played, inspected, revised at most twice, accepted or rejected.

Plain asyncio: no Ray, no files.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tracemill.constitution.constitution import Constitution
from tracemill.criticism import asked, criticize
from tracemill.errors import ScenarioError, TeacherDied, TeacherError
from tracemill.generators import error_recovery
from tracemill.generators.environments.base import Environment
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.rollout import Budget, Rollout, rollout
from tracemill.generators.scenario import Mix, kind_of, scenario
from tracemill.generators.teachers.base import Teacher
from tracemill.inspection import Finding, Passed, inspect, unconstitutional
from tracemill.siblings import Sibling, pairs
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
    Verdict,
    canonical,
    fingerprint,
)  # fmt: skip

REVISIONS = 2
MOST_RAW = 100_000  # characters of a reply that could not be used which the ledger keeps


@dataclass(frozen=True)
class Job:
    """What decides the content of a run: the same job gives the same records, index by index."""

    seed: int
    mix: Mix
    digest: str
    """Fingerprint of the config as far as it decides the content; part of every id."""
    budget: Budget = field(default_factory=Budget)
    siblings: int = 1
    """Rollouts of each scenario, from which the first that passes is taken."""
    agreement: float = 0.0
    """Share of traces on which a critic is asked also for what rules decide."""

    def id_of(self, index: int) -> str:
        return "tm-" + fingerprint([self.digest, self.seed, index])[:20]

    def rejection_id(self, index: int, attempt: int = 0, sibling: int = 0) -> str:
        of_sibling = f"s{sibling}." if sibling else ""
        return f"{self.id_of(index)}.{of_sibling}{attempt}"


@dataclass(frozen=True)
class Milled:
    """All that came of one index. Without a trace the last rejection is final."""

    index: int
    trace: Trace | None
    rejections: tuple[Rejection, ...] = ()
    preferences: tuple[Preference, ...] = ()
    lost: bool = False
    """For a reason that may pass, such as an endpoint that does not answer: it is worth another try."""


@dataclass(frozen=True)
class _Back:
    """Why a draft goes back: the message to replace, the principle it breaks, and what the reviser is told."""

    at: int
    principle: str
    critique: str


@dataclass(frozen=True)
class _Draft:
    """One rollout and what the checks found. A rollout that did not end well has no trace."""

    played: Rollout
    sibling: int
    attempt: int
    trace: Trace | None
    found: Passed | Finding


class Pipeline:
    """Starting and closing it starts and closes its teachers."""

    def __init__(self, job: Job, agent: Teacher, user: Teacher, constitution: Constitution, critic: Teacher | None = None) -> None:
        self.job = job
        self._agent = agent
        self._user = user
        self._critic = critic
        self._constitution = constitution

    async def start(self) -> None:
        """Raises ConfigError or TeacherError where a teacher does not get ready."""
        for teacher in self._teachers():
            await teacher.start()

    async def close(self) -> None:
        for teacher in self._teachers():
            await teacher.close()

    def _teachers(self) -> list[Teacher]:
        teachers = [self._agent, self._user, *([self._critic] if self._critic else [])]
        return list({id(one): one for one in teachers}.values())

    async def mill(self, index: int) -> Milled:
        """Everything that becomes of one index. Bad rollouts are data: what goes wrong is a rejection.

        Raises TeacherDied where a teacher can do nothing more.
        """
        try:
            return await self._mill(index)
        except ScenarioError as error:
            return Milled(index, None, (self._lost(index, "rollout", error.message, error.problems),))
        except TeacherDied:
            raise
        except TeacherError as error:
            return Milled(index, None, (self._lost(index, "infrastructure", error.message, error.problems),), lost=True)
        except Exception as error:  # noqa: BLE001 - a bug in a user's own teacher or environment costs one index, not its neighbours
            where = traceback.extract_tb(error.__traceback__)[-1]
            evidence = (f"{Path(where.filename).name}, line {where.lineno}, in {where.name}",)
            return Milled(index, None, (self._lost(index, "infrastructure", f"{type(error).__name__}: {error}", evidence),))

    async def _mill(self, index: int) -> Milled:
        drawn = scenario(self.job.seed, index, self.job.mix)
        cls = environment(drawn.environment)
        drafts = await self._drafts(drawn, cls)
        usage = sum((one.played.usage for one in drafts), Usage())
        best = _best(drafts)
        preferences = self._sibling_pairs(drawn, best, drafts)
        failed = [one for one in drafts if one is not best and isinstance(one.found, Finding)]
        rejections = [self._reject(drawn, one, final=False) for one in failed]
        while isinstance(best.found, Finding):
            revisable = best.found.stage == "constitution" and best.attempt < REVISIONS
            rejections.append(self._reject(drawn, best, final=not revisable))
            if not revisable:
                rejections[-1] = rejections[-1].model_copy(update={"usage": usage})
                return Milled(index, None, tuple(rejections), tuple(preferences))
            back = self._send_back(best.found)
            before, best = best, await self._draft(drawn, cls, best.sibling, best.attempt + 1, best.played.messages, back)
            usage += best.played.usage
            if best.trace and isinstance(best.found, Passed) and _mended(best.found, best.trace.messages, before.played.messages, back):
                preferences.append(self._pair(best.trace, before.played.messages, back, best.attempt))
        assert best.trace is not None
        checked = {
            "outcome": best.found.outcome,
            "state_digest": best.found.state_digest,
            "recovery": best.found.recovery,
            "verdicts": best.found.verdicts,
        }
        accepted = best.trace.model_copy(update={**checked, "usage": usage}).sealed()
        return Milled(index, accepted, tuple(rejections), tuple(preferences))

    async def _drafts(self, drawn: Scenario, cls: type[Environment]) -> list[_Draft]:
        """All siblings' first drafts, side by side."""
        if self.job.siblings == 1:
            return [await self._draft(drawn, cls, 0)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._draft(drawn, cls, sibling)) for sibling in range(self.job.siblings)]
        except* Exception as several:  # noqa: BLE001 - raised on, bare
            raise several.exceptions[0] from None  # the others were cancelled for it
        return [task.result() for task in tasks]

    async def _draft(
        self, drawn: Scenario, cls: type[Environment], sibling: int, attempt: int = 0, before: tuple[Message, ...] = (), back: _Back | None = None
    ) -> _Draft:  # fmt: skip
        played = await self._play(drawn, cls, sibling, attempt, before, back)
        if played.stop != "done":
            blame: Blame = "user" if played.stop == "user" else "agent"
            return _Draft(played, sibling, attempt, None, Finding("rollout", blame, (played.why,)))
        trace = trace_of(drawn, cls, played, id=self.job.id_of(drawn.index), teacher=self._agent.name, revisions=attempt)
        found = await inspect(trace, cls, self._constitution)
        if self._critic is not None:
            found, spent = await self._criticized(self._critic, trace, found)
            played = replace(played, usage=played.usage + spent)
        return _Draft(played, sibling, attempt, trace, found)

    async def _play(
        self, drawn: Scenario, cls: type[Environment], sibling: int, attempt: int, before: tuple[Message, ...], back: _Back | None
    ) -> Rollout:
        env = await cls.reset(drawn)
        try:
            played = await rollout(
                drawn, env, self._agent, self._user, budget=self.job.budget, sibling=sibling, revision=attempt,
                prefix=before[: back.at] if back else (), critique=back.critique if back else "",
            )  # fmt: skip
        finally:
            await env.close()
        problem = unwritable(played.messages)
        if problem:
            return replace(played, messages=(), stop="unusable", why=problem, raw=_escaped(played.messages))
        return played

    async def _criticized(self, critic: Teacher, trace: Trace, found: Passed | Finding) -> tuple[Passed | Finding, Usage]:
        """The finding with the critic's verdicts beside those of the rules, for a trace that has come so far."""
        passed = found if isinstance(found, Passed) else found.passed
        if passed is None:
            return found, Usage()
        principles = asked(self._constitution, trace.scenario, self.job.agreement)
        verdicts, usage = await criticize(critic, trace, principles, trace.revisions)
        both = replace(passed, verdicts=passed.verdicts + verdicts)
        broken = _broken(both.verdicts)
        return (unconstitutional(both, broken) if broken else both), usage

    def _sibling_pairs(self, drawn: Scenario, best: _Draft, drafts: Sequence[_Draft]) -> list[Preference]:
        """Pairs of what the best one did and what others did in its place, if it was accepted."""
        if isinstance(best.found, Finding):
            return []
        id = self.job.id_of(drawn.index)
        tools = environment(drawn.environment).offered(drawn.kind)
        others = [_sibling(one) for one in drafts if one is not best]
        return [
            Preference(
                id=f"{id}.s{number}", trace=id, index=drawn.index, prompt=one.prompt, chosen=(one.chosen,), rejected=(one.rejected,),
                tools=tools, source=one.source, margin=one.margin,
            )
            for number, one in enumerate(pairs(_sibling(best), others), 1)
        ]  # fmt: skip

    def _send_back(self, found: Finding) -> _Back:
        """Back to the first message that breaks a principle."""
        assert found.passed is not None
        broken = _broken(found.passed.verdicts)
        worst = min((v for v in broken if v.at is not None), key=lambda v: v.at or 0, default=broken[0])
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

    def _reject(self, drawn: Scenario, draft: _Draft, *, final: bool) -> Rejection:
        found = draft.found
        assert isinstance(found, Finding)
        return Rejection(
            id=self.job.rejection_id(drawn.index, draft.attempt, draft.sibling),
            index=drawn.index,
            attempt=draft.attempt,
            sibling=draft.sibling,
            kind=drawn.kind,
            environment=drawn.environment,
            template=drawn.template,
            stage=found.stage,
            reason=found.problems[0],
            blame=found.blame,
            final=final,
            evidence=found.problems,
            messages=draft.played.messages,
            raw=_escape(draft.played.raw[:MOST_RAW]),
            verdicts=found.passed.verdicts if found.passed else (),
        )

    def _lost(self, index: int, stage: Stage, reason: str, evidence: tuple[str, ...]) -> Rejection:
        """An index of which nothing came, not even a conversation."""
        kind = kind_of(self.job.seed, index, self.job.mix)
        return Rejection(
            id=self.job.rejection_id(index), index=index, attempt=0, kind=kind, environment="", template="",
            stage=stage, reason=_escape(reason), blame="infrastructure", final=True, evidence=tuple(map(_escape, evidence)),
        )  # fmt: skip


def trace_of(drawn: Scenario, cls: type[Environment], played: Rollout, *, id: str, teacher: str, revisions: int = 0) -> Trace:
    """A rollout as a trace that nothing has checked yet."""
    recovery = error_recovery.locate(drawn, played.messages, played.troubled) if drawn.kind == "error_recovery" else None
    return Trace(
        id=id,
        kind=drawn.kind,
        environment=drawn.environment,
        template=drawn.template,
        index=drawn.index,
        seed=drawn.seed,
        difficulty=drawn.difficulty,
        messages=played.messages,
        tools=cls.offered(drawn.kind),
        effects={tool.name: tool.effect for tool in cls.tools(drawn.kind)},
        scenario=drawn,
        recovery=recovery,
        state_digest="",
        teacher=teacher,
        revisions=revisions,
    )


def _broken(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """What was not kept. Where a rule has decided, a critic's word beside it counts for nothing."""
    decided = {one.principle for one in verdicts if one.by == "rule"}
    return [one for one in verdicts if not one.passed and (one.by == "rule" or one.principle not in decided)]


def _best(drafts: Sequence[_Draft]) -> _Draft:
    """The first that passes; else the first that a revision may mend; else the first."""
    passed = next((one for one in drafts if isinstance(one.found, Passed)), None)
    return passed or next((one for one in drafts if isinstance(one.found, Finding) and one.found.stage == "constitution"), drafts[0])


def _mended(found: Passed, messages: Sequence[Message], draft: Sequence[Message], back: _Back) -> bool:
    """Whether the principle is kept now by another message, and by one that had not to be written anew itself."""
    kept = any(one.principle == back.principle and one.passed for one in found.verdicts)
    new = messages[back.at]
    return kept and isinstance(new, AssistantMessage) and new.train and new != draft[back.at]


def _sibling(draft: _Draft) -> Sibling:
    success = isinstance(draft.found, Passed)
    failed = isinstance(draft.found, Finding) and draft.found.blame == "agent" and bool(draft.played.messages)
    return Sibling(draft.played.messages, success, draft.played.troubled, counts=success or failed)


def unwritable(messages: Sequence[Message]) -> str:
    """What is wrong with text that no file can hold, such as the half surrogate pairs that some models write."""
    for at, message in enumerate(messages):
        texts = [message.content]
        try:
            if isinstance(message, AssistantMessage):
                texts.append(message.reasoning_content or "")
                texts += [canonical(call.arguments) for call in message.tool_calls or ()]
            "".join(texts).encode()
        except ValueError as error:  # UnicodeEncodeError, or a number that is none
            return f"messages[{at}] cannot be written down: {error}"
    return ""


def _escaped(messages: Sequence[Message]) -> str:
    return "\n".join(repr(message) for message in messages)


def _escape(text: str) -> str:
    """The text with what no file can hold spelled out."""
    return text.encode(errors="backslashreplace").decode()
