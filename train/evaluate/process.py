"""How the task was done: plan, calls, trouble, adaptation, and what it cost. Everything is read off the episode.

What the reference (`scenario.steps`) has is right in every form: the call itself, its fallback, the read that checks a
write, and each of them with the parameter names that a schema drift has brought. Arguments are compared as JSON values;
left-out defaults are filled in, and a free text (four words or more) may have other words.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

from tracemill.constitution.rules import AMBIGUOUS, BROKEN, HAND_OVER, HOUSEKEEPING, Act, Story
from tracemill.generators.faults import renamed
from tracemill.trace import AssistantMessage, Call, Fault, Json, OfferedTool, Scenario, Step, Trace, canonical
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.interval import Estimate, estimate, rate

FREE_TEXT = 4
"""An argument of so many words is a text that everyone words in their own way."""
OWN = "own error"
REASONING = "transparent_reasoning"
"""The principle that a policy cannot keep which gives no reasoning, such as one whose endpoint does not pass it on."""
MEASURES = (
    "plan_coverage", "plan_order", "plan_revised", "precision", "recall", "wasted", "blind_retries", "invented", "recovered", "adapted",
    "violated", "tokens_read", "tokens_written", "tokens", "turns", "calls", "seconds",
)  # fmt: skip
"""The numbers of a Process that are averaged."""
EVENTS = frozenset({"plan_revised", "recovered", "adapted"})
"""Those of them that happened or not."""


class Trouble(NamedTuple):
    """Something that went wrong. Its group is 'explicit transient' (or implicit, permanent) of a fault, else OWN."""

    kind: str
    group: str


@dataclass(frozen=True)
class Process:
    """One episode's process. None where a question does not arise."""

    key: tuple[str, str, int]
    sample: int
    success: bool
    plan_coverage: float | None = None
    """Share of the reference's sub-goals that a plan provides for: its open calls' tools are planned."""
    plan_order: float | None = None
    """Share of the reference's dependencies, among sub-goals that one plan covers, whose order all such plans keep."""
    plan_revised: bool | None = None
    """Whether a new plan followed each change (the user's word, a tool that is gone) before anything else was done."""
    precision: float | None = None
    """Share of right calls. Right are the reference's, and the same again where it failed, was spoiled or may show
    something new (a read after a write). Plans, waiting, and reads that verify a write, are not counted either way."""
    recall: float | None = None
    """Share of the reference's calls that were made, whether or not a fault let them through."""
    wasted: int = 0
    """Calls that failed by the agent's own fault, and reads repeated with the same result though nothing was written
    and nobody waited in between."""
    blind_retries: int = 0
    """The same write again after a timeout or a server error, without a look at what had become of it."""
    invented: int = 0
    """Different identifiers in arguments that nothing had shown before."""
    troubles: tuple[Trouble, ...] = ()
    """What went wrong: faults that struck (an injection too), and errors of the agent's own, each kind once."""
    recovered: bool | None = None
    """Whether the goal was reached although something went wrong."""
    adapted: bool | None = None
    """Whether what the user said midway was heeded: nothing forbidden came after it, and either the goal was reached
    or the reference's later calls were made. Later calls that had all been made before the user spoke heed nothing."""
    violations: dict[str, int] = field(default_factory=dict)
    """Findings by principle of the constitution, with 0 for those that were kept."""
    reasoned: bool = False
    """Whether any message of the agent has reasoning."""
    tokens_read: int | None = 0
    """As the episode's usage counts: by all requests together. None where an endpoint does not tell: nobody answers without reading."""
    tokens_written: int | None = 0
    turns: int = 0
    """Messages of the agent."""
    calls: int = 0
    seconds: float = 0.0

    @property
    def violated(self) -> int:
        return sum(self.violations.values())

    @property
    def tokens(self) -> int | None:
        return None if self.tokens_read is None or self.tokens_written is None else self.tokens_read + self.tokens_written

    def without(self, principle: str) -> Process:
        """As if the principle had not been judged."""
        return replace(self, violations={name: count for name, count in self.violations.items() if name != principle})

    def plain(self) -> dict[str, Json]:
        return {**asdict(self), "key": list(self.key), "troubles": [one._asdict() for one in self.troubles]}


def process(episode: Episode) -> Process:
    """The process of one episode; of one without a conversation only what it cost."""
    failed = Counter(verdict.principle for verdict in episode.verdicts if not verdict.passed)
    told = bool(episode.usage.prompt_tokens) or not episode.messages
    common = Process(
        key=episode.key,
        sample=episode.sample,
        success=episode.success,
        violations={verdict.principle: failed[verdict.principle] for verdict in episode.verdicts},
        reasoned=any(isinstance(one, AssistantMessage) and bool((one.reasoning_content or "").strip()) for one in episode.messages),
        tokens_read=episode.usage.prompt_tokens if told else None,
        tokens_written=episode.usage.completion_tokens if told else None,
        seconds=episode.seconds,
    )
    return _Reading(episode).onto(common) if episode.messages else common


class _Reading:
    """An episode, read once for all measures."""

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        self.scenario = episode.scenario
        self.story = Story(_trace(episode))
        agent = [message for message in episode.messages if isinstance(message, AssistantMessage)]
        ids = [call.id for message in agent for call in message.tool_calls or ()]
        self.turns = len(agent)
        self.acts = self.story.acts
        self.spoiled = [id in episode.troubled for id in ids]
        self.own_fault = [_own_fault(act, spoiled) for act, spoiled in zip(self.acts, self.spoiled, strict=True)]
        self.matching = _Matching(self)

    def onto(self, common: Process) -> Process:
        troubles = tuple(dict.fromkeys(_troubles(self)))
        return replace(
            common,
            **_plan_quality(self),
            precision=self.matching.precision(),
            recall=self.matching.recall(),
            wasted=_wasted(self),
            blind_retries=_blind_retries(self.acts),
            invented=_invented(self),
            troubles=troubles,
            recovered=self.episode.success if troubles else None,
            adapted=_adapted(self),
            turns=self.turns,
            calls=len(self.acts),
        )


def _trace(episode: Episode) -> Trace:
    """The episode as the constitution's rules read it."""
    of = episode.scenario
    return Trace.model_construct(
        id="", kind=of.kind, environment=of.environment, template=of.template, index=of.index, seed=of.seed, difficulty=of.difficulty,
        messages=episode.messages, tools=episode.tools, effects=episode.effects, scenario=of, state_digest="", teacher="",
    )  # fmt: skip


def _own_fault(act: Act, spoiled: bool) -> bool:
    return not act.ok and not spoiled and act.code not in BROKEN


# --- calls --------------------------------------------------------------------------------------------------


class _Target:
    """A call of the reference in all its forms, and what became of the last try at it."""

    def __init__(self, forms: Sequence[Call], defaults: Mapping[str, Mapping[str, Json]]) -> None:
        self.forms = [(one.tool, _filled(one.arguments, defaults.get(one.tool, {}))) for one in forms]
        self.at: int | None = None
        """Number of the first call that made it."""
        self.unsettled = False
        """The last try failed, or a fault spoiled it."""
        self.last = -1

    def fits(self, tool: str, arguments: Mapping[str, Json]) -> bool:
        return any(tool == name and _same(wanted, arguments) for name, wanted in self.forms)


class _Matching:
    """Which calls the reference has. `steps[i].at` is the number of the call that made step i."""

    def __init__(self, reading: _Reading) -> None:
        scenario = reading.scenario
        self._defaults = _defaults(reading.episode.tools)
        drifts = [fault for fault in scenario.faults if fault.kind == "schema_drift"]
        self.steps = [_Target(_forms((step.call, step.fallback), drifts), self._defaults) for step in scenario.steps]
        checks = [_Target(_forms((step.check,), drifts), self._defaults) for step in scenario.steps if step.check is not None]
        known = [form for step in self.steps for form in step.forms]
        self._checks = [one for one in checks if not any(form in known for form in one.forms)]
        self._hands_over = scenario.honest_end is not None or scenario.ending == "handed_over"
        self._written: list[tuple[int, Act]] = []
        self.right: list[bool | None] = []
        """Of each call; None where it counts neither way."""
        for number, act in enumerate(reading.acts):
            self.right.append(self._judge(number, act, reading.own_fault[number], reading.spoiled[number]))
            if act.effect != "read" and not reading.own_fault[number]:
                self._written.append((number, act))

    def precision(self) -> float | None:
        counted = [one for one in self.right if one is not None]
        return sum(counted) / len(counted) if counted else None

    def recall(self) -> float | None:
        return sum(step.at is not None for step in self.steps) / len(self.steps) if self.steps else None

    def _judge(self, number: int, act: Act, own_fault: bool, spoiled: bool) -> bool | None:
        if act.name in HOUSEKEEPING and not own_fault:
            return None
        if own_fault:
            return False
        arguments = _filled(act.arguments, self._defaults.get(act.name, {}))
        fitting = [one for one in (*self.steps, *self._checks) if one.fits(act.name, arguments)]
        target = self._target(fitting, act)
        if target is not None:
            target.at = number if target.at is None else target.at
            target.unsettled, target.last = spoiled or not act.ok, number
            return True
        if act.name == HAND_OVER:
            return self._hands_over
        return None if not fitting and self._verifies(act) else False

    def _target(self, fitting: Sequence[_Target], act: Act) -> _Target | None:
        """What this call is a try at: one whose last try came to nothing, else a new one, else a read worth repeating."""
        again = [one for one in fitting if one.unsettled]
        new = [one for one in fitting if one.at is None]
        last_write = self._written[-1][0] if self._written else -1
        worth = [one for one in fitting if act.effect == "read" and one.last < last_write]
        return next(iter((*again, *new, *worth)), None)

    def _verifies(self, act: Act) -> bool:
        """Whether a read that the reference lacks looks at what a write before it was done to, or has made."""
        named = [one.lower() for one in act.ids]
        shown = (write.text.lower() + canonical(write.arguments).lower() for _, write in self._written)
        return act.look and bool(named) and any(one in text for text in shown for one in named)


def _forms(calls: Iterable[Call | None], drifts: Sequence[Fault]) -> list[Call]:
    plain = [call for call in calls if call is not None]
    return plain + [renamed(call, drift) for call in plain for drift in drifts if call.tool == drift.tool]


def _defaults(tools: Iterable[OfferedTool]) -> dict[str, dict[str, Json]]:
    properties = {tool.function.name: tool.function.parameters.get("properties") or {} for tool in tools}
    # a property's schema may be a plain true, as in tools of MCP servers
    return {
        tool: {name: one["default"] for name, one in of.items() if isinstance(one, dict) and "default" in one}
        for tool, of in properties.items()
    }


def _filled(arguments: Mapping[str, Json], defaults: Mapping[str, Json]) -> dict[str, Json]:
    return {**defaults, **arguments}


def _same(wanted: Mapping[str, Json], given: Mapping[str, Json]) -> bool:
    return wanted.keys() == given.keys() and all(value == given[name] or _both_free(value, given[name]) for name, value in wanted.items())


def _both_free(wanted: Json, given: Json) -> bool:
    return isinstance(wanted, str) and isinstance(given, str) and len(wanted.split()) >= FREE_TEXT and bool(given.strip())


def _wasted(reading: _Reading) -> int:
    fresh: set[tuple[str, str, str]] = set()
    repeated = 0
    for act in reading.acts:
        if act.name == "wait" or act.effect != "read":
            fresh.clear()
        elif act.look:
            read = (act.name, canonical(act.arguments), act.text)
            repeated += read in fresh
            fresh.add(read)
    return sum(reading.own_fault) + repeated


def _blind_retries(acts: Sequence[Act]) -> int:
    return sum(
        act.code in AMBIGUOUS and act.effect != "read" and _repeated_before_a_look(act, acts[number + 1 :])
        for number, act in enumerate(acts)
    )


def _repeated_before_a_look(failed: Act, later: Sequence[Act]) -> bool:
    for act in later:
        if act.look:
            return False
        if act.name == failed.name and act.arguments == failed.arguments:
            return True
    return False


def _invented(reading: _Reading) -> int:
    """As the rule `never_invent_identifiers` has it, but wrong steps count too, and each identifier once."""
    unseen = {(act.name, one) for act in reading.acts for one in act.ids if not reading.story.known(one, act.at)}
    return len({one for name, one in unseen if not _offers(reading.episode.tools, name, one)})


def _offers(tools: Iterable[OfferedTool], name: str, value: str) -> bool:
    """Whether the tool's own schema names the value, as an enum does."""
    return any(one.function.name == name and f'"{value}"' in json.dumps(one.function.parameters, ensure_ascii=False) for one in tools)


# --- plans --------------------------------------------------------------------------------------------------


def _plan_quality(reading: _Reading) -> dict[str, Json]:
    """Coverage and order against the reference, where a plan can be made and the reference has sub-goals with calls."""
    scenario = reading.scenario
    wanted = {step.subgoal for step in scenario.steps}
    if "update_plan" not in reading.episode.effects or not wanted:
        return {}
    made = [(number, act) for number, act in enumerate(reading.acts) if act.name == "update_plan" and act.ok]
    plans = [_Plan(act.arguments["subgoals"], _open_steps(reading, number)) for number, act in made]
    covered = {place for plan in plans for place in plan.covered}
    edges = [(before, place) for place in wanted for before in scenario.subgoals[place].depends_on if before in wanted]
    kept = [all(one) for edge in edges if (one := [plan.keeps(*edge) for plan in plans if plan.covered.issuperset(edge)])]
    return {
        "plan_coverage": len(covered) / len(wanted),
        "plan_order": sum(kept) / len(kept) if kept else None,
        "plan_revised": _revised(reading),
    }


def _open_steps(reading: _Reading, number: int) -> list[Step]:
    """What a plan made at this point has to provide for: the steps that no call before it has made."""
    made_at = (target.at for target in reading.matching.steps)
    return [step for step, at in zip(reading.scenario.steps, made_at, strict=True) if at is None or at > number]


class _Plan:
    """A plan laid against the steps that are open: each takes the first place in it where its tool, or its fallback's, stands.

    However the plan cuts the work into sub-goals, a sub-goal of the reference is covered if all its open steps found a place.
    """

    def __init__(self, subgoals: Sequence[Mapping[str, Json]], steps: Sequence[Step]) -> None:
        self._ids = [one["id"] for one in subgoals]
        self._needs = {one["id"]: _ancestors(one["id"], subgoals) for one in subgoals}
        free = [(place, at, tool) for place, one in enumerate(subgoals) for at, tool in enumerate(one["tools"])]
        self._places: dict[int, list[tuple[int, int]]] = {}
        missed: set[int] = set()
        for step in steps:
            tools = [step.call.tool, *([step.fallback.tool] if step.fallback else [])]
            slot = next((one for tool in tools for one in free if one[2] == tool), None)
            if slot is None:
                missed.add(step.subgoal)
            else:
                free.remove(slot)
                self._places.setdefault(step.subgoal, []).append(slot[:2])
        self.covered = self._places.keys() - missed

    def keeps(self, before: int, after: int) -> bool:
        return all(self._precedes(one, other) for one in self._places[before] for other in self._places[after])

    def _precedes(self, one: tuple[int, int], other: tuple[int, int]) -> bool:
        """By the dependencies if they say, else by the order in which the plan is written."""
        first, second = self._ids[one[0]], self._ids[other[0]]
        if first in self._needs[second] or second in self._needs[first]:
            return first in self._needs[second]
        return one < other


def _ancestors(id: str, subgoals: Sequence[Mapping[str, Json]]) -> set[str]:
    needs = {one["id"]: one["depends_on"] for one in subgoals}
    found: set[str] = set()
    ahead = list(needs[id])
    while ahead:
        one = ahead.pop()
        if one not in found:
            found.add(one)
            ahead += needs.get(one, ())
    return found


def _revised(reading: _Reading) -> bool | None:
    """Waiting, another try of what is gone, a plan that is refused and handing over are free."""
    gone = {fault.tool for fault in reading.scenario.faults if fault.kind == "server_down"}
    changes = [(at, "") for at, _ in reading.story.interjected()]
    changes += [(act.at, act.name) for act in reading.acts if act.name in gone and not act.ok][:1]
    answers = [one for change in changes if (one := _answered(change, reading.acts)) is not None]
    return all(answers) if answers else None


def _answered(change: tuple[int, str], acts: Sequence[Act]) -> bool | None:
    at, gone = change
    free = {"wait", HAND_OVER, gone}
    later = [act for act in acts if act.at > at and act.name not in free and (act.ok or act.name != "update_plan")]
    return later[0].name == "update_plan" if later else None


# --- trouble and change -------------------------------------------------------------------------------------


def _troubles(reading: _Reading) -> Iterator[Trouble]:
    struck = {act.name for act, spoiled in zip(reading.acts, reading.spoiled, strict=True) if spoiled}
    for fault in reading.scenario.faults:
        if fault.tool in struck:
            ways = ("explicit" if fault.explicit else "implicit", "transient" if fault.transient else "permanent")
            yield Trouble(fault.kind, " ".join(ways))
    for act, own_fault in zip(reading.acts, reading.own_fault, strict=True):
        if act.wrong or own_fault:
            yield Trouble(_mistake(reading.scenario, act), OWN)
    if any(isinstance(one, AssistantMessage) and not one.train and not one.tool_calls for one in reading.episode.messages):
        yield Trouble("unusable_reply", OWN)


def _mistake(scenario: Scenario, act: Act) -> str:
    """What kind of error a call is: as the scenario names it, else the code with which it failed."""
    named = (one.kind for one in scenario.mistakes if one.call.tool == act.name and one.call.arguments == act.arguments)
    return next(named, None) or act.code or "wrong_step"


def _adapted(reading: _Reading) -> bool | None:
    heard = list(reading.story.interjected())
    if not heard:
        return None
    first = heard[0][0]
    if any(_is_forbidden(reading.scenario, act) for act in reading.acts if act.at > first):
        return False
    later = [(step, at) for at, one in heard for step in reading.matching.steps[one.after + 1 :]]
    made_after = [step.at is not None and reading.acts[step.last].at > at for step, at in later]
    if later and not any(made_after) and all(step.at is not None for step, _ in later):
        return False  # all of it had been done before the user spoke
    return reading.episode.success or (bool(later) and all(made_after))


def _is_forbidden(scenario: Scenario, act: Act) -> bool:
    return act.ok and any(one.tool == act.name and one.arguments.items() <= act.arguments.items() for one in scenario.forbidden)


# --- many episodes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProcessSummary:
    """Means over scenarios, each of the episodes in which the question arises; what arose nowhere is left out."""

    episodes: int
    measures: dict[str, Estimate]
    """By name of the measure: see MEASURES."""
    recovery_by_kind: dict[str, Estimate]
    """Share of success where this kind of fault or error came up."""
    recovery_by_group: dict[str, Estimate]
    """The same by group of kinds: 'explicit transient', ..., 'own error'."""
    violations: dict[str, Estimate]
    """By principle: share of episodes that break it."""

    def plain(self) -> dict[str, Json]:
        groups = ("measures", "recovery_by_kind", "recovery_by_group", "violations")
        return {"episodes": self.episodes, **{name: {key: one.plain() for key, one in getattr(self, name).items()} for name in groups}}


def summarize(processes: Sequence[Process]) -> ProcessSummary:
    """One scenario in several modes stays one scenario: arm and number are what is drawn."""
    return ProcessSummary(
        episodes=len(processes),
        measures={name: mean for name in MEASURES if (mean := _measure(name, processes)) is not None},
        recovery_by_kind=_rates((kind, one, one.success) for one in processes for kind in sorted({t.kind for t in one.troubles})),
        recovery_by_group=_rates((group, one, one.success) for one in processes for group in sorted({t.group for t in one.troubles})),
        violations=_rates((name, one, count > 0) for one in processes for name, count in one.violations.items()),
    )


def _measure(name: str, processes: Iterable[Process]) -> Estimate | None:
    pairs = ((one.key[1:], value) for one in processes if (value := getattr(one, name)) is not None)
    return rate(pairs) if name in EVENTS else estimate(pairs)


def _rates(values: Iterable[tuple[str, Process, bool]]) -> dict[str, Estimate]:
    grouped: dict[str, list[tuple[tuple[str, int], bool]]] = {}
    for name, one, value in values:
        grouped.setdefault(name, []).append((one.key[1:], value))
    return {name: share for name, pairs in grouped.items() if (share := rate(pairs)) is not None}
