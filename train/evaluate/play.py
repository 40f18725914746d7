"""Playing an evaluation: each try is a rollout by the policy, judged by the checks that traces go through.

Here nothing is rejected: what goes wrong is what is measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tracemill.columns import to_row
from tracemill.config import MODES, Config, Mode, ModelConfig
from tracemill.constitution.constitution import load_constitution
from tracemill.errors import ContextTooLong, ScenarioError, TeacherDied, TeacherError
from tracemill.generators import error_recovery
from tracemill.generators.environments.base import Environment
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.environments.goal import judge
from tracemill.generators.replay import fresh, moves
from tracemill.generators.rollout import Rollout, rollout
from tracemill.generators.teachers.base import Teacher
from tracemill.generators.teachers.chat import ChatModel
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.inspection import KIND_PROBLEMS
from tracemill.job import build_job, chat_model, model_teacher
from tracemill.pipeline import trace_of, unwritable
from tracemill.trace import Scenario, Usage
from tracemill.train.evaluate.adversary import ADVERSARIES, Disguise
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.suite import Plan, SuiteConfig, Try
from tracemill.writer import Parcel

MOST_TOKENS = 1024  # of one message, where nothing else is said
CHANCE = 0.7  # temperature where a scenario is tried more than once: greedy, all tries would be the same


@dataclass(frozen=True)
class Played:
    """What came of one try: an episode, or the reason why there is none."""

    index: int
    episode: Episode | None
    reason: str = ""
    lost: bool = False
    left_out: bool = False
    """There is no scenario for it, and there never will be."""


@dataclass(frozen=True)
class Evaluation:
    """What the actors of an evaluation do."""

    config: Config
    suite: SuiteConfig

    def build(self, actors: int) -> Player:
        return Player(self.config, self.suite, actors)

    def pack(self, played: Played) -> Parcel:
        return {
            "index": played.index,
            "reason": played.reason,
            "lost": played.lost,
            "left_out": played.left_out,
            "episode": to_row(played.episode) if played.episode else None,
        }

    def quarantined(self, index: int, reason: str) -> Parcel:
        return self.pack(Played(index, None, reason))


def plain_temperature(samples: int) -> float:
    """Of a policy that is in no mode and has none of its own."""
    return CHANCE if samples > 1 else 0.0


class Player:
    """Plays tries by index. Starting and closing it starts and closes the models behind the policy and the user."""

    def __init__(self, config: Config, suite: SuiteConfig, actors: int = 1) -> None:
        self._plan = Plan(config, suite)
        self._budget = build_job(config).budget
        self._constitution = load_constitution(config.constitution)
        self._policies: dict[str, Teacher] = {mode: ScriptedTeacher() for mode in self._plan.modes}
        self._models: list[ChatModel] = []
        if isinstance(config.teacher, ModelConfig):
            chat = chat_model(config, config.teacher, actors)
            plain = Mode(temperature=plain_temperature(suite.samples), max_tokens=MOST_TOKENS, reasoning_steps=0)
            self._policies = {mode: model_teacher(config.teacher, chat, MODES.get(mode, plain)) for mode in self._plan.modes}
            self._models = [chat]
        self._user: Teacher = ScriptedTeacher() if config.user == "scripted" else next(iter(self._policies.values()))
        if isinstance(config.user, ModelConfig):
            chat = chat_model(config, config.user, actors)
            self._user = model_teacher(config.user, chat, MODES[config.mode])
            self._models.append(chat)

    async def start(self) -> None:
        """Raises ConfigError or TeacherError where a model does not get ready."""
        for model in self._models:
            await model.start()

    async def close(self) -> None:
        for model in self._models:
            await model.close()

    async def mill(self, index: int) -> Played:
        """Raises TeacherDied where the policy can do nothing more."""
        this = self._plan[index]
        try:
            drawn = self._plan.scenario(this.arm, this.number)
        except ScenarioError as error:
            return Played(index, None, error.message, left_out=True)
        try:
            return Played(index, await self._episode(index, this, drawn, environment(drawn.environment)))
        except ScenarioError as error:
            return Played(index, None, error.message)
        except TeacherDied:
            raise
        except TeacherError as error:
            return Played(index, None, error.message, lost=True)

    async def _episode(self, index: int, this: Try, drawn: Scenario, cls: type[Environment]) -> Episode:
        started = time.perf_counter()
        env = await cls.reset(drawn)
        try:
            played = await rollout(drawn, env, self._policy(this), self._user, budget=self._budget, sibling=this.sample)
        except ContextTooLong as error:  # not even the instructions fit: who cannot take them in does not do the job
            played = Rollout((), (), Usage(), "too_long", error.message)
        finally:
            await env.close()
        seconds = time.perf_counter() - started
        episode = Episode(
            index=index, arm=this.arm, mode=this.mode, number=this.number, sample=this.sample, scenario=drawn,
            stop=played.stop, why=played.why, usage=played.usage, seconds=seconds,
        )  # fmt: skip
        problem = unwritable(played.messages)
        if problem:
            return episode.model_copy(update={"stop": "unusable", "why": problem})
        if not played.messages:
            return episode
        return episode.model_copy(update=await self._judged(drawn, cls, played))

    def _policy(self, this: Try) -> Teacher:
        policy, adversary = self._policies[this.mode], ADVERSARIES.get(this.arm)
        return Disguise(policy, adversary.masks) if adversary and adversary.masks else policy

    async def _judged(self, drawn: Scenario, cls: type[Environment], played: Rollout) -> dict[str, Any]:
        trace = trace_of(drawn, cls, played, id="", teacher="")
        env, done = await fresh(cls, drawn, moves(played.messages))
        try:
            outcome = await judge(drawn, env, done, trace.answer)
        finally:
            await env.close()
        return {
            "messages": played.messages,
            "tools": trace.tools,
            "effects": trace.effects,
            "troubled": played.troubled,
            "outcome": outcome,
            "problems": tuple(KIND_PROBLEMS[drawn.kind](trace)) if drawn.kind in KIND_PROBLEMS else (),
            "verdicts": self._constitution.judge(trace),
            "recovery": await error_recovery.prove(trace, cls),
        }
