"""Suites: which scenarios a policy is tried on, and what makes them hard.

Nothing of an evaluation occurs in training data: its seeds lie beyond those that runs have, its worlds beyond those that runs
draw, and the arm `templates` draws from goal templates that a run with a holdout never used.
"""

from __future__ import annotations

import contextlib
import functools
import random
import re
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tracemill.config import MODES, Config
from tracemill.errors import ConfigError, ScenarioError
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.scenario import Mix, scenario, suiting
from tracemill.job import build_job
from tracemill.trace import Kind, Scenario
from tracemill.train.evaluate.adversary import ADVERSARIES

STANDARD = ("seeds", "templates")
"""Arms without an adversary. Where a suite has one of them, all but safety is measured on them alone."""
ARMS = (*STANDARD, *ADVERSARIES)
NOT_HERE = frozenset({"accept", "teacher", "critic", "agreement", "siblings", "flaws", "license", "name"})
"""Settings of a run that an evaluation has nothing to do with."""
FIRST_SEED = 1 << 40  # of evaluation; runs count their seeds from 0
FIRST_WORLD = 100_000  # the most worlds that a run can have
DRAWS = 40  # tries to find a scenario that an adversary can use


def place_of_arm(arm: str) -> tuple[int, str]:
    """To sort by."""
    return (ARMS.index(arm) if arm in ARMS else len(ARMS), arm)


def place_of_mode(mode: str) -> tuple[int, str]:
    """From fast to thorough; what is no mode goes first."""
    modes = list(MODES)
    return (modes.index(mode) if mode in modes else -1, mode)


class SuiteConfig(BaseModel):
    """What a policy is tried on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: Literal["standard", "adversarial", "all"] = Field(
        default="standard", description="standard: held-out seeds and held-out templates; adversarial: seven kinds of trouble; all: both."
    )
    scenarios: int = Field(default=50, ge=1, description="Of each arm of the suite.")
    samples: int = Field(default=1, ge=1, le=64, description="Rollouts of each scenario, for pass@k and pass^k.")
    modes: tuple[Literal["fast", "balanced", "thorough"], ...] = Field(
        default=(), description="Execution modes to compare; without any, the policy is told nothing that its training did not tell it."
    )


def in_its_words(text: str) -> str:
    """What is said of a setting: where a run has a teacher, an evaluation has the policy."""
    return re.sub(r"^teacher\b", "policy", text)


@dataclass(frozen=True)
class Try:
    """One rollout of an evaluation."""

    mode: str
    arm: str
    number: int
    sample: int


class Plan:
    """All tries of an evaluation, and the scenario of each: pure functions of the two configs."""

    def __init__(self, config: Config, suite: SuiteConfig) -> None:
        """Raises ConfigError where there is nothing to draw from."""
        mix = build_job(config).mix
        # The same scenarios for every policy: mistakes are the policy's own, also where it is the scripted one.
        mix = replace(mix, flaws=0.0, mistakes=False, first_world=FIRST_WORLD)
        seen, held_out = _drawable(mix), _drawable(replace(mix, held_out=True))
        if not seen.kinds:
            raise ConfigError("there is nothing to evaluate on", ["no goal template of these environments suits these kinds"])
        standard = {"seeds": seen} | ({"templates": held_out} if held_out.kinds else {})
        adversarial = dict.fromkeys(ADVERSARIES, seen)
        self._mixes = {"standard": standard, "adversarial": adversarial, "all": standard | adversarial}[suite.suite]
        self._seed = FIRST_SEED + config.seed
        self._suite = suite
        self.modes: tuple[str, ...] = suite.modes or ("",)
        self.arms = tuple(self._mixes)

    def __len__(self) -> int:
        return len(self.modes) * len(self.arms) * self._suite.scenarios * self._suite.samples

    def __getitem__(self, index: int) -> Try:
        """Scenario by scenario, so that an evaluation that was stopped has a little of every arm."""
        number, rest = divmod(index, len(self) // self._suite.scenarios)
        sample, rest = divmod(rest, len(self.arms) * len(self.modes))
        arm, mode = divmod(rest, len(self.modes))
        return Try(self.modes[mode], self.arms[arm], number, sample)

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - a plan lives as long as its process
    def scenario(self, arm: str, number: int) -> Scenario:
        """Raises ScenarioError where nothing is found that suits the arm."""
        for index in range(number * DRAWS, (number + 1) * DRAWS):
            with contextlib.suppress(ScenarioError):
                drawn = _altered(arm, scenario(self._seed, index, self._mixes[arm]))
                if drawn is not None:
                    return drawn
        raise ScenarioError(f"{arm}: none of the {DRAWS} scenarios that were drawn for it suits it")


def _drawable(mix: Mix) -> Mix:
    """The mix without the kinds for which it has no template."""
    kinds: dict[Kind, float] = {
        kind: weight for kind, weight in mix.kinds.items() if any(suiting(environment(name), kind, mix) for name in mix.environments)
    }
    return replace(mix, kinds=kinds)


def _altered(arm: str, drawn: Scenario) -> Scenario | None:
    adversary = ADVERSARIES.get(arm)
    if adversary is None or adversary.alter is None:
        return drawn
    return adversary.alter(drawn, environment(drawn.environment), random.Random(f"{arm}/{drawn.seed}"))
