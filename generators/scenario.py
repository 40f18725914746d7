"""Scenarios: a pure function of (run seed, mix, index).

Kind, environment and template come from a sequence that fills space evenly instead of from dice, so that a mix is
met closely by any run of indices, not only in the long run. Everything else is drawn from a generator seeded by
(run seed, index).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from tracemill.errors import ScenarioError
from tracemill.generators import trouble
from tracemill.generators.environments.base import Environment, remembered
from tracemill.generators.environments.catalogue import BUILT_IN, environment
from tracemill.generators.environments.goal import draw, templates
from tracemill.generators.teachers.scripted import skippable_lookup
from tracemill.trace import KINDS, Kind, Persona, Scenario, Tone

Name = TypeVar("Name", bound=str)
TONES: tuple[Tone, ...] = ("plain", "plain", "terse", "chatty", "formal", "worried")
# Steps of the three-dimensional additive recurrence R3 (M. Roberts, "The unreasonable effectiveness of quasirandom
# sequences", 2018): powers of 1/g, g the root of x^4 = x + 1.
_G = 1.2207440846057596
_STEPS = (1 / _G, 1 / _G**2, 1 / _G**3)


@dataclass(frozen=True)
class Mix:
    """What scenarios are drawn from. Weights need not sum to one; `flaws` is the share of scenarios whose first draft
    the scripted teacher spoils; `worlds` how many initial states each environment has, from `first_world` on; without
    `mistakes` all trouble is the tools' (a model makes mistakes of its own). `holdout` is the share of each environment's
    templates that is kept back; `held_out` draws from just these."""

    kinds: Mapping[Kind, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 1.0))
    environments: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(BUILT_IN, 1.0))
    flaws: float = 0.0
    worlds: int = 32
    mistakes: bool = True
    first_world: int = 0
    holdout: float = 0.0
    held_out: bool = False


def kind_of(seed: int, index: int, mix: Mix) -> Kind:
    """The kind alone, without drawing the scenario."""
    return _share(_point(seed, index, 0), mix.kinds)


def place_of(seed: int, index: int, mix: Mix) -> tuple[Kind, str]:
    """Kind and environment, without drawing the scenario. Raises ScenarioError where no environment suits the kind."""
    kind = kind_of(seed, index, mix)
    suited = {name: weight for name, weight in mix.environments.items() if suiting(environment(name), kind, mix)}
    if not suited:
        raise ScenarioError(f"no environment of the mix has a template for {kind}", sorted(mix.environments))
    return kind, _share(_point(seed, index, 1), suited)


def scenario(seed: int, index: int, mix: Mix) -> Scenario:
    """Raises ScenarioError where no template of the environment suits the kind or nothing fits."""
    kind, place = place_of(seed, index, mix)
    cls = environment(place)
    names = suiting(cls, kind, mix)
    first = int(_point(seed, index, 2) * len(names))
    number = int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:6])
    rng = random.Random(number)
    for attempt in range(12):
        template = names[(first + attempt // 4) % len(names)]
        found = _attempt(cls, template, index, number, kind, mix, rng)
        if found is not None:
            return found
    raise ScenarioError(f"{cls.name}: nothing fits {kind} at index {index} after 12 attempts, the last with {template}")


def _attempt(cls: type[Environment], template: str, index: int, number: int, kind: Kind, mix: Mix, rng: random.Random) -> Scenario | None:
    persona = Persona(tone=rng.choice(TONES))
    world = mix.first_world + rng.randrange(mix.worlds)
    try:
        drawn = draw(cls, template, index=index, seed=number, kind=kind, world=world, persona=persona, rng=rng)
    except ScenarioError:
        if mix.worlds == 1:
            raise
        return None
    if kind == "error_recovery":
        troubled = trouble.with_trouble(drawn, cls, rng, mistakes=mix.mistakes)
        if troubled is None:
            return None
        drawn = troubled
    elif kind == "goal_decomposition" and rng.random() < 0.5:
        drawn = trouble.with_obstacle(drawn, cls, rng)
    elif kind == "tool_call" and rng.random() < 0.06:
        drawn = trouble.with_injection(drawn, cls, rng)
    if rng.random() < mix.flaws:
        possible = list(trouble.flaws(drawn, cls, skippable_lookup(drawn)))
        if possible:
            drawn = drawn.model_copy(update={"flaw": rng.choice(possible)})
    return drawn


def suiting(cls: type[Environment], kind: Kind, mix: Mix) -> list[str]:
    """Names of the environment's templates for this kind that the mix draws from."""
    kept_back = held_out(cls, mix.holdout)
    return [name for name, kinds in templates(cls).items() if kind in kinds and (name in kept_back) == mix.held_out]


@remembered
def held_out(cls: type[Environment], share: float) -> frozenset[str]:
    """The templates that a holdout of this share keeps back: of a growing share the same ones and more."""
    names = sorted(templates(cls), key=lambda name: hashlib.sha256(f"{cls.name}/{name}".encode()).digest())
    return frozenset(names[: round(share * len(names))])


def _point(seed: int, index: int, dimension: int) -> float:
    start = random.Random(f"{seed}/{dimension}").random() if (seed, dimension) not in _STARTS else _STARTS[seed, dimension]
    _STARTS[seed, dimension] = start
    return (start + index * _STEPS[dimension]) % 1.0


_STARTS: dict[tuple[int, int], float] = {}


def _share(point: float, weights: Mapping[Name, float]) -> Name:
    total = sum(weights.values())
    names = sorted(weights)  # equal mixes give equal scenarios, in whatever order they were written
    for name in names:
        point -= weights[name] / total
        if point < 0:
            return name
    return names[-1]
