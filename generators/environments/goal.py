"""Goals: templates that draw a job from a world, and the check that says whether it was done.

A template is a method marked `@goal`. It picks rows, says what the user wants and knows, and *makes the reference
calls*, which run at once on a world of their own, so that ids, prices and refunds are the real ones:

    @goal()
    def stop_order(self, g: Draft) -> None:
        order = g.pick(o for o in self.orders if o.status == "pending")
        g.know(order_id=order.id)                       # {order_id} in the wording; add label="order number"
        g.call("get_order", order_id=order.id, why="the order has to be looked at first")
        g.call("cancel_order", order_id=order.id, why="...", confirm=f"cancel order {order.id}")
        g.expect("orders", order.id, status="cancelled")
        g.tell(order.total)                             # the answer must contain it

The user's first message and the model answer come from the environment's words, under `stop_order.opening` and
`stop_order.answer`. A goal must not have the name of a tool.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tracemill.errors import ScenarioError
from tracemill.generators.environments.base import Environment, Result, remembered
from tracemill.generators.environments.facts import CANNOT, fact_text, tells
from tracemill.generators.faults import FaultPlan
from tracemill.trace import (
    KINDS,
    Assertion,
    Call,
    Constraint,
    Ending,
    Fact,
    Forbidden,
    Interjection,
    Json,
    Kind,
    Outcome,
    Persona,
    Scenario,
    Slot,
    Step,
    Subgoal,
)  # fmt: skip

F = TypeVar("F", bound=Callable[..., None])
T = TypeVar("T")


class Unfit(Exception):
    """This world, with these random numbers, has nothing that the template can use: draw again."""


def goal(*, kinds: tuple[Kind, ...] = KINDS) -> Callable[[F], F]:
    """Make a method a goal template. Give `kinds` where it does not suit all three: a plan wants three or more
    groups of calls, a recovery a call whose failure matters."""

    def mark(function: F) -> F:
        function.__tracemill_goal__ = kinds  # type: ignore[attr-defined]
        return function

    return mark


@remembered
def templates(cls: type[Environment]) -> dict[str, tuple[Kind, ...]]:
    """Names of an environment's goal templates, each with the trace kinds it suits.

    A class whose goals are no methods (`mcp.py`) says so itself, by `goal_templates` and `draw_goal`.
    """
    if hasattr(cls, "goal_templates"):
        listed: dict[str, tuple[Kind, ...]] = cls.goal_templates()
        return listed
    found: dict[str, tuple[Kind, ...]] = {}
    for base in cls.__mro__:
        for name, function in vars(base).items():
            if hasattr(function, "__tracemill_goal__") and name not in found:
                found[name] = function.__tracemill_goal__
    return found


@dataclass
class Draft:
    """A goal being drawn. Everything random comes from `rng`."""

    env: Environment
    template: str
    rng: random.Random
    persona: Persona
    values: dict[str, object] = field(default_factory=dict)
    slots: list[Slot] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    subgoals: list[Subgoal] = field(default_factory=list)
    interjections: list[Interjection] = field(default_factory=list)
    constraints: list[Constraint] = field(default_factory=list)
    assertions: list[Assertion] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    forbidden: list[Forbidden] = field(default_factory=list)
    ending: Ending = "done"
    _variant: str = ""
    _named: dict[str, int] = field(default_factory=dict)
    _parallel: bool = False
    _group: int = -1

    # --- drawing ---

    def pick(self, rows: Iterable[T]) -> T:
        """One of the rows. Raises Unfit when there is none."""
        found = list(rows)
        if not found:
            raise Unfit(self.template)
        return self.rng.choice(found)

    def some(self, rows: Iterable[T], count: int) -> list[T]:
        """`count` different rows, in random order. Raises Unfit when there are fewer."""
        found = list(rows)
        if len(found) < count:
            raise Unfit(self.template)
        return self.rng.sample(found, count)

    def need(self, condition: object) -> None:
        """Draw again unless this holds."""
        if not condition:
            raise Unfit(self.template)

    # --- what the user knows and says ---

    def know(self, *, label: str | None = None, withheld: bool = False, **values: object) -> None:
        """Things the user knows, usable as {slot} in the wording. A withheld one is told only when the agent asks
        for it by its label; leave it out of the opening (see `variant`)."""
        for name, value in values.items():
            self.values[name] = value
            self.slots.append(Slot(name=name, label=label or name.replace("_", " "), value=str(value), withheld=withheld))

    def put(self, **values: object) -> None:
        """Values for the wording that are not the user's to be asked for."""
        self.values.update(values)

    def variant(self, name: str) -> None:
        """Take `TEMPLATE.opening.NAME` for the first message, where that is defined."""
        self._variant = name

    def constraint(self, text: str, *keywords: object) -> int:
        """Something the solution must respect; a plan that addresses it names all keywords. Its index."""
        self.constraints.append(Constraint(text=text, keywords=tuple(str(word) for word in keywords)))
        return len(self.constraints) - 1

    def interject(self, says: str, *, constraint: int | None = None, changes_goal: bool = False) -> None:
        """After the last call the user adds something: a constraint, or another wish altogether."""
        if not self.steps:
            raise ScenarioError(f"{self.template}: interject() comes after a call")
        self.interjections.append(Interjection(after=len(self.steps) - 1, says=says, constraint=constraint, changes_goal=changes_goal))

    # --- the reference ---

    def subgoal(self, goal: str, success: str, *, after: Sequence[str] | None = None, constraints: Sequence[int] = ()) -> None:
        """The calls that follow serve this sub-goal. It depends on the one before, or on those named in `after`
        (by their `goal`). Without this, each call or parallel group is a sub-goal of its own."""
        depends = tuple(self._named[name] for name in after) if after is not None else self._before()
        self._named[goal] = len(self.subgoals)
        self.subgoals.append(Subgoal(goal=goal, success=success, depends_on=depends, constraints=tuple(constraints)))

    @contextmanager
    def parallel(self) -> Iterator[None]:
        """The calls in this block do not depend on each other: they are made in one message."""
        self._group += 1
        self._parallel = True
        yield
        self._parallel = False

    def call(
        self,
        tool: str,
        *,
        why: str,
        confirm: str = "",
        check: tuple[str, dict[str, Json]] | None = None,
        fallback: tuple[str, dict[str, Json]] | None = None,
        **arguments: Json,
    ) -> Any:
        """Make a reference call and get its content. `confirm` says what the user must agree to first ('cancel order
        W1'); `check` names a read that shows whether a write took place, if no earlier look-up does; `fallback`
        another call for the same information. Raises ScenarioError if the call fails."""
        result = self.env.run(tool, arguments)
        if not result.ok:
            raise ScenarioError(f"{self.env.name}.{self.template}: reference call {tool}({arguments}) failed: {result.text}")
        first_of_group = not self._parallel or not self.steps or self.steps[-1].group != self._group
        if not self._parallel:
            self._group += 1
        if not self._named and first_of_group:
            self.subgoals.append(Subgoal(goal=why, success=f"{tool} has answered without an error", depends_on=self._before()))
        self.steps.append(
            Step(
                call=Call(tool=tool, arguments=arguments),
                effect=result.effect,
                why=why,
                group=self._group,
                subgoal=len(self.subgoals) - 1,
                confirm=confirm,
                check=_as_call(check) or (self._look_up(arguments) if result.effect != "read" else None),
                fallback=_as_call(fallback),
            )
        )
        self.results.append(result)
        return result.content

    # --- what must be so at the end ---

    def expect(self, table: str, id: str, **fields: Json) -> None:
        """At the end the row exists and its fields equal these."""
        if not fields:
            self.assertions.append(Assertion(table=table, id=id, op="exists"))
        for name, value in fields.items():
            self.assertions.append(Assertion(table=table, id=id, field=name, value=value))

    def expect_absent(self, table: str, id: str) -> None:
        """At the end there is no such row."""
        self.assertions.append(Assertion(table=table, id=id, op="absent"))

    def tell(self, *facts: float | str | Sequence[str]) -> None:
        """The answer must contain each: a number, a text, or one of several texts; see `facts.py` for what counts."""
        for fact in facts:
            if isinstance(fact, int | float):
                self.facts.append(Fact(number=float(fact)))
            else:
                self.facts.append(Fact(spellings=(fact,) if isinstance(fact, str) else tuple(fact)))

    def forbid(self, tool: str, reason: str, **arguments: Json) -> None:
        """A successful call of this tool with these arguments (any, if none are given) spoils the goal."""
        self.forbidden.append(Forbidden(tool=tool, arguments=arguments, reason=reason))

    def refuse(self) -> None:
        """The right end is to decline, with the reason, and to change nothing."""
        self.ending = "refused"

    # --- done ---

    def scenario(self, *, index: int, seed: int, kind: Kind) -> Scenario:
        """The drawn goal as a scenario without trouble. Raises ScenarioError where wording or slots do not fit."""
        grammar = self.env.grammar()
        wanted = f"{self.template}.opening.{self._variant}" if self._variant else f"{self.template}.opening"
        tone = self.persona.tone
        opening = grammar.expand(wanted, self.rng, self.values, tone)
        answer = grammar.expand(f"{self.template}.answer", self.rng, self.values)
        texts = [result.text for result in self.results]
        facts = tuple(
            fact.model_copy(update={"observed": fact.spellings != CANNOT and any(tells(fact, text) for text in texts)})
            for fact in self.facts
        )
        return Scenario(
            index=index,
            seed=seed,
            kind=kind,
            environment=self.env.name,
            template=self.template,
            world=self.env.world,
            difficulty=difficulty(len(self.steps)),
            persona=self.persona,
            opening=opening,
            slots=tuple(self.slots),
            steps=self._steps_with_questions(),
            interjections=tuple(self.interjections),
            constraints=tuple(self.constraints),
            subgoals=tuple(self.subgoals),
            assertions=tuple(self.assertions),
            facts=facts,
            forbidden=tuple(self.forbidden),
            touches=tuple(sorted(self.env.changes())),
            ending=self.ending,
            answer=answer,
        )

    def _before(self) -> tuple[int, ...]:
        return (len(self.subgoals) - 1,) if self.subgoals else ()

    def _look_up(self, arguments: Mapping[str, Json]) -> Call | None:
        """The latest read of the reference that shares an identifier with these arguments."""
        ids = {value for value in leaves(arguments) if isinstance(value, str) and self.env.is_identifier(value)}
        for step in reversed(self.steps):
            if step.effect == "read" and ids & {v for v in leaves(step.call.arguments) if isinstance(v, str)}:
                return step.call
        return None

    def _steps_with_questions(self) -> tuple[Step, ...]:
        steps = list(self.steps)
        for slot in self.slots:
            if not slot.withheld:
                continue
            users = (at for at, step in enumerate(steps) if slot.value in map(str, leaves(step.call.arguments)))
            at = next(users, None)
            if at is None:
                raise ScenarioError(f"{self.env.name}.{self.template}: withheld {slot.name!r} is used by no call")
            first = next(number for number, step in enumerate(steps) if step.group == steps[at].group)
            steps[first] = steps[first].model_copy(update={"asks": (*steps[first].asks, slot.name)})
        return tuple(steps)


def draw(
    cls: type[Environment], template: str, *, index: int, seed: int, kind: Kind, world: int, persona: Persona, rng: random.Random
) -> Scenario:
    """Draw a scenario from a template. Raises ScenarioError if twenty draws find nothing fit."""
    own: Callable[..., Scenario] | None = getattr(cls, "draw_goal", None)
    if own is not None:
        return own(template, index=index, seed=seed, kind=kind, world=world, persona=persona, rng=rng)
    for _ in range(20):
        draft = Draft(cls(world), template, rng, persona)
        try:
            getattr(draft.env, template)(draft)
        except Unfit:
            continue
        return draft.scenario(index=index, seed=seed, kind=kind)
    raise ScenarioError(f"{cls.name}.{template}: nothing fits in world {world} after 20 draws")


def difficulty(calls: int) -> int:
    """1 to 5, by the number of reference calls."""
    return 1 + sum(calls >= bound for bound in (2, 4, 6, 9))


# --- the check ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """One executed call, in order, with the user's words that came before it and since the last one."""

    call: Call
    result: Result
    heard: str = ""
    wrong: bool = False


async def judge(scenario: Scenario, env: Environment, done: Sequence[Done], answer: str, *, heard_last: str = "") -> Outcome:
    """Check a finished rollout against its goal, or against the honest end that a permanent fault has left of it.

    `env` is the live instance; `heard_last` is what the user said last.
    """
    end = scenario.honest_end
    if end is not None:
        changed = {"assertions": end.assertions, "touches": end.touches, "facts": end.facts}
        scenario = scenario.model_copy(update=changed)
    problems: list[str] = []

    def check(name: str, found: list[str]) -> bool:
        problems.extend(f"{name}: {one}" for one in found)
        return not found

    return Outcome(
        state=check("state", await _state_problems(scenario, env)),
        untouched=check("untouched", [f"{key} was changed" for key in env.changes() if key not in scenario.touches]),
        allowed=check("allowed", _forbidden_effects(scenario, done)),
        grounded=check("grounded", _ungrounded(scenario, env, done, heard_last)),
        confirmed=check("confirmed", _unconfirmed(env, done)),
        told=check("told", [f"the answer does not tell {fact_text(fact)}" for fact in scenario.facts if not tells(fact, answer)]),
        problems=tuple(problems),
    )


async def _state_problems(scenario: Scenario, env: Environment) -> list[str]:
    found: list[str] = []
    env.faults = FaultPlan()  # what the assertions read is not part of the conversation
    for one in scenario.assertions:
        if one.call is not None:
            result = await env.call(one.call.tool, one.call.arguments)
            if not (result.ok and str(one.value) in result.text):
                found.append(f"{one.call.tool}{one.call.arguments} should show {one.value!r}, got {result.text[:200]!r}")
            continue
        row = await env.row(one.table, one.id)
        where = f"{one.table}/{one.id}"
        if one.op == "absent":
            if row is not None:
                found.append(f"{where} should not exist")
        elif row is None:
            found.append(f"{where} should exist")
        elif one.op == "equals" and row.get(one.field) != one.value:
            found.append(f"{where}.{one.field} should be {one.value!r}, is {row.get(one.field)!r}")
        elif one.op == "contains" and str(one.value) not in str(row.get(one.field)):
            found.append(f"{where}.{one.field} should contain {one.value!r}")
    return found


def _forbidden_effects(scenario: Scenario, done: Sequence[Done]) -> list[str]:
    return [
        f"{one.call.tool} must not be used: {bad.reason}"
        for one in done
        for bad in scenario.forbidden
        if one.call.tool == bad.tool and one.result.ok and bad.arguments.items() <= one.call.arguments.items()
    ]


def _ungrounded(scenario: Scenario, env: Environment, done: Sequence[Done], heard_last: str) -> list[str]:
    found: list[str] = []
    seen = scenario.opening
    told: list[str] = []
    for one in done:
        seen += "\n" + one.heard
        if not one.wrong:
            for value in leaves(one.call.arguments):
                if isinstance(value, str) and value and value not in seen and env.is_identifier(value):
                    found.append(f"{one.call.tool} was given {value!r}, which nothing had shown before")
        seen += "\n" + one.result.text  # a refusal shows what it names, and is evidence of nothing
        if one.result.ok:
            told.append(one.result.text)
    evidence = "\n".join(told)
    found += [f"{fact_text(fact)} was not seen in any result" for fact in scenario.facts if fact.observed and not tells(fact, evidence)]
    return found


def _unconfirmed(env: Environment, done: Sequence[Done]) -> list[str]:
    """Writes whose success nothing showed: neither their own answer nor a later read that names a row they changed."""
    found: list[str] = []
    changed: dict[str, Json] | None = None
    for at, one in enumerate(done):
        if one.result.ok or not one.result.touched:
            continue
        changed = env.changes() if changed is None else changed
        ids = [key.split("/", 1)[1] for key in one.result.touched if key in changed]
        later = [d.result.text + json.dumps(d.call.arguments) for d in done[at + 1 :] if d.result.ok and d.result.effect == "read"]
        if ids and not any(row_id in text for text in later for row_id in ids):
            found.append(f"{one.call.tool} ended in {one.result.code!r} and nothing showed whether {ids[0]} was changed")
    return found


# --- parts --------------------------------------------------------------------------------------------------


def leaves(value: Json) -> Iterator[Json]:
    """The scalars inside a JSON value."""
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def _as_call(pair: tuple[str, dict[str, Json]] | None) -> Call | None:
    return None if pair is None else Call(tool=pair[0], arguments=pair[1])
