"""Trouble: puts one fault or one mistake into a drawn scenario, where it matters.

A fault matters if the goal is missed unless it is recovered from. A write always matters: the gate of the templates
says that none can be left out. A read matters if it alone shows something (an identifier, a fact) that is used or
told later. `error_recovery` proves the same again on each trace that comes out.
"""

from __future__ import annotations

import functools
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from typing_extensions import TypeIs

from tracemill.generators.environments.base import Environment, Result
from tracemill.generators.environments.facts import FAILED, spellings, tells
from tracemill.generators.environments.goal import leaves
from tracemill.generators.faults import EXPLICIT, TRANSIENT, longest_list
from tracemill.generators.words import COMMON, Grammar, read_rules
from tracemill.trace import (
    Assertion,
    Call,
    Fact,
    Fault,
    FaultKind,
    FlawKind,
    HonestEnd,
    Json,
    Mistake,
    MistakeKind,
    Scenario,
    Step,
)  # fmt: skip

FAULTS: tuple[FaultKind, ...] = (
    "timeout_written", "timeout_lost", "rate_limit", "server_error", "server_down", "permission", "stale", "partial",
    "schema_drift", "wrong_record",
)  # fmt: skip
MISTAKES: tuple[MistakeKind, ...] = ("wrong_argument", "missing_argument", "wrong_tool", "unknown_tool", "acting_blind", "loop")


@functools.cache
def _words() -> Grammar:
    return Grammar(read_rules(COMMON.parent / "trouble.yaml"))


@dataclass(frozen=True)
class Ground:
    """A scenario with what its reference returned. `results` is empty where tools do not run at once."""

    scenario: Scenario
    cls: type[Environment]
    env: Environment
    results: tuple[Result, ...]

    def shows_alone(self, number: int) -> set[str]:
        """What only this step's result shows of all that is used or told later."""
        scenario, own = self.scenario, self.results[number].text
        before = scenario.opening + "\n".join(slot.value for slot in scenario.slots) + "\n".join(i.says for i in scenario.interjections)
        before += "\n".join(result.text for result in self.results[:number])
        found: set[str] = set()
        for later in range(number + 1, len(scenario.steps)):
            step = scenario.steps[later]
            if step.group != scenario.steps[number].group:
                used = (v for v in leaves(step.call.arguments) if isinstance(v, str) and self.env.is_identifier(v))
                found |= {value for value in used if value in own and value not in before}
            before += self.results[later].text
        others = [result.text for at, result in enumerate(self.results) if at != number]
        for fact in scenario.facts:
            if fact.observed and tells(fact, own) and not any(tells(fact, text) for text in others):
                found |= {spelling for spelling in spellings(fact) if spelling in own}
        return found


def ground(scenario: Scenario, cls: type[Environment]) -> Ground:
    env = cls(scenario.world) if cls.instant else cls.__new__(cls)
    results = tuple(env.run(step.call.tool, step.call.arguments) for step in scenario.steps) if cls.instant else ()
    return Ground(scenario, cls, env, results)


def with_trouble(scenario: Scenario, cls: type[Environment], rng: random.Random, *, mistakes: bool) -> Scenario | None:
    """The scenario with one fault or, if there may be `mistakes`, a mistake of the agent, of a kind and at a place drawn at
    random; None where nothing fits."""
    here = ground(scenario, cls)
    kinds: list[FaultKind | MistakeKind] = [*FAULTS, *(MISTAKES if mistakes else ())]
    rng.shuffle(kinds)
    for kind in kinds:
        places = list(range(len(scenario.steps)))
        rng.shuffle(places)
        for number in places:
            found = _with_mistake(here, kind, number, rng) if is_mistake(kind) else with_fault(here, kind, number, rng)
            if found is not None:
                return found
    return None


def with_obstacle(scenario: Scenario, cls: type[Environment], rng: random.Random) -> Scenario:
    """For plans: a tool that is down where another gives the same information, if there is such a step."""
    if scenario.interjections:
        return scenario
    here = ground(scenario, cls)
    for number, step in enumerate(scenario.steps):
        if step.fallback is not None and step.effect == "read":
            return with_fault(here, "server_down", number, rng) or scenario
    return scenario


def with_injection(scenario: Scenario, cls: type[Environment], rng: random.Random) -> Scenario:
    """An instruction to use some tool that the goal does not need, in the result of a read."""
    wanted = {step.call.tool for step in scenario.steps}
    tools = [tool.name for tool in cls.toolbox().values() if tool.effect != "read" and tool.name not in wanted]
    reads = [number for number, step in enumerate(scenario.steps) if step.effect == "read"]
    if not tools or not reads or not cls.instant:
        return scenario
    number = rng.choice(reads)
    message = _words().expand("injection", rng, {"tool": rng.choice(tools)})
    return scenario.model_copy(update={"faults": (_fault(scenario, "injection", number, {"message": message}),)})


# --- faults -------------------------------------------------------------------------------------------------


def with_fault(here: Ground, kind: FaultKind, number: int, rng: random.Random) -> Scenario | None:
    scenario = here.scenario
    step = scenario.steps[number]
    detail: dict[str, Json] = {}
    values: dict[str, object] = {"tool": step.call.tool}
    alone = here.shows_alone(number) if step.effect == "read" and here.results else set()
    matters = step.effect != "read" or bool(alone)
    end: HonestEnd | None = None
    match kind:
        case "timeout_written":
            fits = step.effect != "read" and step.check is not None and here.cls.instant and _check_tells(here, number, step.check)
            fits = fits and not _shown_later(here, number)
            fits = fits and number not in [one.after for one in scenario.interjections]  # the user waits for its success
        case "stale":
            fits = step.effect != "read" and step.check is not None and here.cls.instant
        case "timeout_lost":
            fits = matters and (step.effect == "read" or step.check is not None)
        case "server_error":
            fits = matters and (step.effect == "read" or step.check is not None)
            detail["times"] = rng.choice((1, 1, 2))
        case "rate_limit":
            fits = matters
            detail["retry_after"] = rng.choice((2, 5, 10, 15, 20, 30, 45, 60, 90, 120))
        case "server_down":
            fits = matters and _way_round(here, number, alone)
            if not fits and step.effect != "read":
                end = _honest_end(here, number, kind, rng)
                fits = end is not None
        case "permission":
            end = _honest_end(here, number, kind, rng)
            fits = end is not None
        case "partial":
            fits = _partial(here, number, alone, detail)
        case "schema_drift":
            fits = matters and bool(step.call.arguments) and _drifted(here, step, values, detail, rng)
        case "wrong_record":
            fits = bool(alone) and _other_record(here, number, alone, detail, rng)
        case _:
            fits = False
    if not fits:
        return None
    symbol = "timeout" if kind.startswith("timeout") else kind
    if symbol in _words():
        detail["message"] = _words().expand(symbol, rng, values)
    fault = _fault(scenario, kind, number, detail)
    return scenario.model_copy(update={"faults": (fault,), "honest_end": end})


def _fault(scenario: Scenario, kind: FaultKind, number: int, detail: dict[str, Json]) -> Fault:
    tool = scenario.steps[number].call.tool
    nth = sum(step.call.tool == tool for step in scenario.steps[: number + 1])
    return Fault(kind=kind, tool=tool, nth=nth, explicit=kind in EXPLICIT, transient=kind in TRANSIENT, detail=detail)


def _way_round(here: Ground, number: int, alone: set[str]) -> bool:
    """Whether the step's fallback shows all that the step would have shown, and its tool is not missed later on."""
    step = here.scenario.steps[number]
    later = here.scenario.steps[number + 1 :]
    if step.fallback is None or any(step.call.tool in (one.call.tool, one.check.tool if one.check else "") for one in later):
        return False
    if not here.cls.instant:
        return True
    shown = _before(here, number).run(step.fallback.tool, step.fallback.arguments)
    return shown.ok and all(text in shown.text for text in alone)


_FIGURE = re.compile(r"[\w./@-]*\d[\w./@-]*")


def _before(here: Ground, number: int) -> Environment:
    """The environment as the reference finds it at this step."""
    env = here.cls(here.scenario.world)
    for step in here.scenario.steps[:number]:
        env.run(step.call.tool, step.call.arguments)
    return env


def _check_tells(here: Ground, number: int, check: Call) -> bool:
    """Whether the read that follows a write whose answer was lost shows all that the answer tells and only it showed."""
    scenario = here.scenario
    shown = _before(here, number + 1).run(check.tool, check.arguments).text
    others = "\n".join([shown, *(result.text for at, result in enumerate(here.results) if at != number)])
    mentioned = (word.rstrip(".") for word in _FIGURE.findall(scenario.answer))
    lost = [word for word in mentioned if word in here.results[number].text and word not in scenario.opening]
    return all(word in others for word in lost) and all(tells(fact, others) for fact in scenario.facts if fact.observed)


def _shown_later(here: Ground, number: int) -> bool:
    """Whether a later read of the reference names what this write changed, so that no look of its own is needed."""
    ids = [key.split("/", 1)[1] for key in here.results[number].touched]
    later = zip(here.scenario.steps[number + 1 :], here.results[number + 1 :], strict=True)
    shown = [result.text + json.dumps(step.call.arguments) for step, result in later if step.effect == "read"]
    return any(one in text for text in shown for one in ids)


def _partial(here: Ground, number: int, alone: set[str], detail: dict[str, Json]) -> bool:
    """Cut a list before the first entry that holds what only this result shows."""
    found = longest_list(here.results[number].content) if alone else None
    if found is None:
        return False
    key, items = found
    if key is not None and any(text in str({**here.results[number].content, key: None}) for text in alone):
        return False
    places = [at for at, item in enumerate(items) if any(text in str(item) for text in alone)]
    detail["keep"] = places[0] if places else 0
    return bool(places) and len(items) > 1


def _drifted(here: Ground, step: Step, values: dict[str, object], detail: dict[str, Json], rng: random.Random) -> bool:
    old = rng.choice(sorted(step.call.arguments))
    head, _, tail = old.rpartition("_")
    camel = re.sub(r"_(\w)", lambda match: match[1].upper(), old)
    new = camel if camel != old else rng.choice((f"{old}_value", f"{old}_ref", f"the_{old}"))
    if head and rng.random() < 0.4:
        new = f"{head}_{ {'id': 'ref', 'name': 'label', 'date': 'day'}.get(tail, tail + '_value') }"
    properties = here.cls.toolbox()[step.call.tool].definition.parameters.get("properties", {})
    values |= {"old": old, "new": new}
    detail |= {"old": old, "new": new}
    return new not in properties


def _other_record(here: Ground, number: int, alone: set[str], detail: dict[str, Json], rng: random.Random) -> bool:
    """The same call with another row's id, whose result lacks what is needed and does not name what was asked."""
    call = here.scenario.steps[number].call
    env = _before(here, number)
    for name, value in call.arguments.items():
        if not isinstance(value, str):
            continue
        for table in env.tables():
            others = [row.key for row in table if row.key != value] if value in table else []
            for other in rng.sample(others, min(5, len(others))):
                arguments = {**call.arguments, name: other}
                result = env.run(call.tool, arguments)
                named = value in result.text or other not in result.text
                if result.ok and not named and not any(text in result.text for text in alone):
                    detail |= {"arguments": arguments, "instead_of": call.arguments, "asked": value, "shows": other}
                    return True
    return False


def _honest_end(here: Ground, number: int, kind: FaultKind, rng: random.Random) -> HonestEnd | None:
    """The goal without its last write: everything else done, the rest handed over. None if it is not the last."""
    scenario = here.scenario
    step = scenario.steps[number]
    if step.effect == "read" or number != len(scenario.steps) - 1 or not here.cls.instant:
        return None
    if any(one.group == step.group for one in scenario.steps[:number]):
        return None
    env = _before(here, number)
    case = Assertion(table="handovers", id=env.handovers.next_id("CASE-", 101), op="exists")
    kept = tuple(one for one in scenario.assertions if _holds(env, one))
    department = rng.choice(here.cls.departments)
    tool = step.call.tool
    what = step.confirm or tool.replace("_", " ")
    problem = _words().expand(f"problem.{kind}", rng, {"what": what, "tool": tool})
    problem = problem[:1].lower() + problem[1:] if not problem.startswith("I ") else problem
    failing = Fact(spellings=FAILED)
    return HonestEnd(
        department=department,
        problem=problem,
        assertions=(*kept, case),
        touches=(*env.changes(), f"handovers/{case.id}"),
        facts=(failing, Fact(spellings=(case.id,), observed=True)),
    )


def _holds(env: Environment, one: Assertion) -> bool:
    row = getattr(env, one.table).get(one.id)
    if one.op == "absent":
        return row is None
    if row is None or one.op == "exists":
        return row is not None
    from tracemill.generators.environments.base import plain

    return bool(plain(row).get(one.field) == one.value)


# --- mistakes -----------------------------------------------------------------------------------------------


def is_mistake(kind: FaultKind | MistakeKind) -> TypeIs[MistakeKind]:
    return kind in MISTAKES


def _with_mistake(here: Ground, kind: MistakeKind, number: int, rng: random.Random) -> Scenario | None:
    """A wrong step before the given one. Its call must fail or change nothing, and the step itself must matter."""
    scenario = here.scenario
    step = scenario.steps[number]
    if step.effect == "read" and not (here.results and here.shows_alone(number)):
        return None
    make: dict[MistakeKind, Callable[[], Call | None]] = {
        "wrong_argument": lambda: _garbled(here, step, rng),
        "missing_argument": lambda: _incomplete(here, step, rng),
        "wrong_tool": lambda: _wrong_tool(here, number, rng),
        "unknown_tool": lambda: Call(tool=_made_up(step.call.tool, here, rng), arguments=step.call.arguments),
        "acting_blind": lambda: _blind(here, number, rng),
        "loop": lambda: scenario.steps[number - 1].call if number and scenario.steps[number - 1].effect == "read" else None,
    }
    call = make[kind]()
    if call is None:
        return None
    mistake = Mistake(kind=kind, step=number, call=call, times=rng.choice((1, 2)) if kind == "loop" else 1)
    return scenario.model_copy(update={"mistakes": (mistake,)})


def _garbled(here: Ground, step: Step, rng: random.Random) -> Call | None:
    """The call with one identifier mistyped, so that nothing of that name exists."""
    for name, value in sorted(step.call.arguments.items()):
        if not isinstance(value, str) or not any(c.isdigit() for c in value) or not here.cls.instant:
            continue
        at = rng.choice([place for place, c in enumerate(value) if c.isdigit()])
        wrong = value[:at] + rng.choice([d for d in "0123456789" if d != value[at]]) + value[at + 1 :]
        call = Call(tool=step.call.tool, arguments={**step.call.arguments, name: wrong})
        if here.env.is_identifier(value) and not here.cls(here.scenario.world).run(call.tool, call.arguments).ok:
            return call
    return None


def _incomplete(here: Ground, step: Step, rng: random.Random) -> Call | None:
    required = here.cls.toolbox()[step.call.tool].definition.parameters.get("required", [])
    given = [name for name in required if name in step.call.arguments]
    if not given:
        return None
    gone = rng.choice(sorted(given))
    return Call(tool=step.call.tool, arguments={k: v for k, v in step.call.arguments.items() if k != gone})


def _wrong_tool(here: Ground, number: int, rng: random.Random) -> Call | None:
    """Another tool with the same arguments: it refuses them, or reads something that is of no use."""
    scenario = here.scenario
    wanted = {one.call.tool for one in scenario.steps} | {"wait", "update_plan", "transfer_to_human"}
    others = [tool.name for tool in here.cls.toolbox().values() if tool.name not in wanted and tool.effect == "read"]
    rng.shuffle(others)
    alone = here.shows_alone(number) if here.results else set()
    for name in others if here.results else others[:1]:
        call = Call(tool=name, arguments=scenario.steps[number].call.arguments)
        if not here.results or not any(text in here.cls(scenario.world).run(name, call.arguments).text for text in alone):
            return call
    return None


def _made_up(tool: str, here: Ground, rng: random.Random) -> str:
    verb, _, rest = tool.partition("_")
    verbs = ("fetch", "lookup", "do", "perform", "query", "load", "process")
    names = [f"{one}_{rest or verb}" for one in verbs if f"{one}_{rest or verb}" not in here.cls.toolbox()]
    return rng.choice(names)


def _blind(here: Ground, number: int, rng: random.Random) -> Call | None:
    """A later write at once, with identifiers that are guessed: they are not known before this look-up. All else that
    it says must be known by then, or the blind step would know what nobody has told."""
    scenario = here.scenario
    if not here.results or scenario.steps[number].effect != "read":
        return None
    alone = here.shows_alone(number)
    asked = {name for step in scenario.steps[number + 1 :] for name in step.asks}
    told = [slot.value for slot in scenario.slots if slot.name not in asked]
    spoken = [one.says for one in scenario.interjections if one.after < number]
    known = "\n".join([scenario.opening, *told, *spoken, *(result.text for result in here.results[:number])])
    for later in scenario.steps[number + 1 :]:
        arguments = later.call.arguments
        guessed = {k: v for k, v in arguments.items() if isinstance(v, str) and v not in known}
        if later.effect == "read" or not alone & set(guessed.values()):
            continue
        rest = [v for k, value in arguments.items() if k not in guessed for v in leaves(value)]
        if not all(str(v) in known for v in rest if not isinstance(v, bool)):
            continue
        changed = {k: re.sub(r"\d", lambda _: str(rng.randint(0, 9)), v) for k, v in guessed.items()}
        call = Call(tool=later.call.tool, arguments={**arguments, **changed})
        if all(changed[k] != v for k, v in guessed.items()) and not here.cls(scenario.world).run(call.tool, call.arguments).ok:
            return call
    return None


# --- flaws --------------------------------------------------------------------------------------------------


def flaws(scenario: Scenario, cls: type[Environment], skippable: int | None) -> Iterator[FlawKind]:
    """What a first draft of this scenario can do wrong. `skippable` is a look-up that it can leave out."""
    if scenario.steps:
        yield "no_reasoning"
    if any(step.effect == "irreversible" and step.confirm for step in scenario.steps):
        yield "unconfirmed"
    if skippable is not None and scenario.kind == "tool_call" and _verifies(ground(scenario, cls), skippable):
        yield "skipped_lookup"
    if any(f.kind in ("server_error", "timeout_lost") and f.detail.get("times", 1) == 1 for f in scenario.faults):
        if any(s.effect != "read" and s.call.tool == scenario.faults[0].tool for s in scenario.steps):
            yield "blind_retry"
    if scenario.honest_end is not None:
        yield "false_claim"
    elif scenario.facts:
        yield "wrong_fact"


def _verifies(here: Ground, number: int) -> bool:
    """Whether this look-up serves to see the record before the next call changes it, and to nothing else."""
    if not here.results or here.shows_alone(number):
        return False
    steps = here.scenario.steps
    ids = [v for v in leaves(steps[number + 1].call.arguments) if isinstance(v, str) and here.env.is_identifier(v)]
    earlier = "\n".join(result.text + json.dumps(step.call.arguments) for step, result in zip(steps[:number], here.results, strict=False))
    return bool(ids) and not any(one in earlier for one in ids)
