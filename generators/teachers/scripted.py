"""The built-in teacher: an expert that plays agent and user from the scenario's reference.

As the agent it asks for what is missing, looks before it acts, confirms what matters, plans and revises, notices
trouble and recovers. When the scenario says so it makes a mistake (marked as wrong), or its first draft has a flaw
that the checks must find. What it does is decided by the scenario; how it says it comes from grammar files.

The expert is written as a generator: it yields what it wants to do and is sent what came of it. It can be
run over any conversation so far, so that one can be taken up anywhere.
"""

from __future__ import annotations

import calendar
import json
import random
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from tracemill.errors import TeacherError
from tracemill.generators.environments.base import Environment
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.environments.facts import spellings, tells
from tracemill.generators.environments.goal import leaves
from tracemill.generators.teachers.base import Reply, Request
from tracemill.generators.teachers.consent import wants_answer, wants_consent
from tracemill.generators.teachers.slots import asks_for, names, told
from tracemill.generators.words import Prose
from tracemill.trace import (
    AssistantMessage,
    Call,
    Fault,
    Interjection,
    Json,
    Message,
    Mistake,
    Scenario,
    Step,
    ToolMessage,
    Usage,
    UserMessage,
    is_error,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a turn: the results of its calls, in order, and what the user said."""

    results: tuple[str, ...] = ()
    said: str = ""

    def failed(self, number: int) -> bool:
        return is_error(self.results[number])

    def error(self, number: int) -> dict[str, Json]:
        error: dict[str, Json] = json.loads(self.results[number])["error"]
        return error


@dataclass(frozen=True, slots=True)
class Turn:
    """What the expert wants to do next. `think` and `say` name symbols of the grammar; `text` is said as it is."""

    think: tuple[str, ...] = ()
    say: str = ""
    text: str = ""
    calls: tuple[Call, ...] = ()
    values: dict[str, object] = field(default_factory=dict)
    wrong: bool = False


Play = Generator[Turn, Seen, None]
Part = Generator[Turn, Seen, Seen]


class Performance:
    """An expert at play in one conversation, and how far it has got."""

    def __init__(self, request: Request) -> None:
        self.messages = request.messages
        self.revision = request.revision
        self.expert = Expert(request.scenario, revised=request.revision > 0)
        self.turns = 0
        self._play = self.expert.play()
        self._read = 0
        self.turn = next(self._play)

    def catch_up(self) -> None:
        """Play on over what has been said since the last reply."""
        for seen in _history(self.messages[self._read :]):
            self.turns += 1
            self.expert.hear(seen)
            try:
                self.turn = self._play.send(seen)
            except StopIteration:
                self.turn = Turn(say="closing_line")
        self._read = len(self.messages)


class ScriptedTeacher:
    """Keeps the performances that are going on, so as not to begin each from the start for every reply; one that it
    does not know is played again over the conversation so far, with the same outcome."""

    name = "scripted"

    def __init__(self) -> None:
        self._performances: dict[int, Performance] = {}

    def _performance(self, request: Request) -> Performance:
        found = self._performances.pop(id(request.messages), None)
        if found is None or found.messages is not request.messages or found.revision != request.revision:
            found = Performance(request)
        found.catch_up()
        if found.turn.calls or found.turn.say:  # more is to come
            if len(self._performances) >= 1024:
                self._performances.clear()
            self._performances[id(request.messages)] = found
        return found

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def reply(self, request: Request) -> Reply:
        if request.role == "user":
            return _user_reply(request)
        if request.role == "agent":
            return self._agent_reply(request)
        raise TeacherError("the scripted teacher plays agent and user; a critic must be a model")

    def _agent_reply(self, request: Request) -> Reply:
        scenario = request.scenario
        performance = self._performance(request)
        turn, turns, expert = performance.turn, performance.turns, performance.expert
        rng = random.Random(f"{scenario.seed}/agent/{turns}")
        grammar = expert.cls.grammar()
        thoughts = [grammar.expand(symbol, rng, turn.values) for symbol in turn.think]
        text = turn.text or (grammar.expand(turn.say, rng, turn.values) if turn.say else "")
        reasoning = " ".join(thoughts) or None
        written = len(text) + len(reasoning or "") + sum(len(str(call.arguments)) for call in turn.calls)
        return Reply(text, reasoning, turn.calls, _usage(request.messages, written), wrong=turn.wrong)


def _user_reply(request: Request) -> Reply:
    """Tells what is asked for, agrees to what is proposed, speaks up where the scenario says so, and is done when nothing is asked."""
    last = request.messages[-1]
    said = last.content if isinstance(last, AssistantMessage) else ""
    heard = {m.content for m in request.messages if isinstance(m, UserMessage)}
    waiting = [one for one in request.scenario.interjections if one.says not in heard]
    answer = _user_answer(request, said, waiting)
    if answer:
        return Reply(answer)
    return Reply(waiting[0].says) if waiting else Reply(done=True)


def _user_answer(request: Request, said: str, waiting: Sequence[Interjection]) -> str:
    """The answer to what is asked; empty if nothing is, or nothing more has to be."""
    scenario = request.scenario
    asked = [slot for slot in scenario.slots if asks_for(slot, said, scenario.slots)]
    new = [slot for slot in asked if not told(slot, request.messages)]
    agrees = wants_consent(said, scenario.slots)
    if not (asked or agrees or wants_answer(said)) or (not new and (_served(request, said) or _asked_in_vain(request, said))):
        return ""
    objection = next((one.says for one in waiting if one.changes_goal), "")
    if agrees and objection:
        return objection  # what is proposed is about to be no longer wanted
    rng = random.Random(f"{scenario.seed}/user/{len(request.messages)}")
    grammar, tone = environment(scenario.environment).grammar(), scenario.persona.tone
    parts: list[str] = []
    given = new if agrees else new or asked
    if given:
        facts = " ".join(grammar.expand("user.fact", rng, {"label": slot.label, "value": slot.value}) for slot in given)
        parts.append(grammar.expand("user.reveal", rng, {"facts": facts}, tone))
    if agrees:
        parts.append(grammar.expand("user.yes", rng, {}, tone))
    return " ".join(parts) or grammar.expand("user.unknown", rng, {}, tone)


def _served(request: Request, said: str) -> bool:
    """Whether all changes are made and this message tells all that is due: what it still offers is not what the user came for."""
    scenario = request.scenario
    if scenario.honest_end is not None and all(tells(fact, said) for fact in scenario.honest_end.facts):
        return True
    due = Counter(step.call.tool for step in scenario.steps if step.effect != "read")
    results = [m for m in request.messages if isinstance(m, ToolMessage)]
    due.subtract(m.name for m in results if not is_error(m.content) or '"code": "timeout"' in m.content)  # which may have done it
    goal = bool(scenario.facts) or any(step.effect != "read" for step in scenario.steps)
    return goal and not +due and all(tells(fact, said) for fact in scenario.facts)


def _asked_in_vain(request: Request, said: str) -> bool:
    """Whether the agent has said the very same twice before: no answer gets it any further."""
    return sum(isinstance(m, AssistantMessage) and m.content == said for m in request.messages[:-1]) >= 2


class Expert:
    """Plays one scenario well, but for the mistakes and the flaw that it names."""

    def __init__(self, scenario: Scenario, *, revised: bool) -> None:
        self.scenario = scenario
        self.cls: type[Environment] = environment(scenario.environment)
        self._revised = revised
        self._flaw = None if revised else scenario.flaw
        self._fault: Fault | None = next((f for f in scenario.faults if f.kind != "injection"), None)
        self._renamed: dict[str, tuple[str, str]] = {}
        self._changed = ""  # what the user has just added
        self._injected = False
        self._noticed: Mistake | None = None
        self._settled = False  # a write whose answer was lost was seen to have taken place
        self._waited = False
        self._plans = 0
        self._done: set[int] = set()
        self._heard = [scenario.opening]

    def hear(self, seen: Seen) -> None:
        """Take in what came of a turn, before the play goes on."""
        self._heard += (*seen.results, seen.said)

    def play(self) -> Play:
        scenario = self.scenario
        if scenario.kind == "goal_decomposition":
            yield self._plan("")
        for group in _groups(scenario.steps):
            steps = [scenario.steps[number] for number in group]
            yield from self._ask(steps)
            for mistake in scenario.mistakes:
                if mistake.step in group:
                    yield from self._blunder(mistake)
            if not self._left_out(group):
                yield from self._confirm(steps)
                if self._left_out_before(group):
                    yield from self._act(self._before(group))
                seen = yield from self._act(steps)
                handed_over = yield from self._mend(group, seen)
                if handed_over:
                    yield self._honest_answer(handed_over)
                    return
                self._done.update(group)
                yield from self._adapt(group[-1], seen.said)
        yield self._answer()

    # --- the good way ---

    def _act(self, steps: Sequence[Step]) -> Part:
        effect = max((step.effect for step in steps), key=("read", "write", "irreversible").index)
        symbol = {"read": "think.call", "write": "think.write", "irreversible": "think.irreversible"}[effect]
        if len(steps) > 1 and effect == "read":
            symbol = "think.parallel"
        whys = list(dict.fromkeys(step.why for step in steps))
        tools = list(dict.fromkeys(step.call.tool for step in steps))
        values: dict[str, object] = {"why": Prose("; ".join(whys)), "tool": " and ".join(tools)}
        think = (*self._preface(values), symbol)
        if self._flaw == "no_reasoning":
            think = ()
        seen = yield Turn(think, calls=tuple(self._named(step.call) for step in steps), values=values)
        self._injected = any(f.kind == "injection" and f.detail["message"] in text for f in self.scenario.faults for text in seen.results)
        return seen

    def _ask(self, steps: Sequence[Step]) -> Iterator[Turn]:
        yield from self._ask_for([name for step in steps for name in step.asks])

    def _ask_for(self, names: Sequence[str], *thoughts: str, **slots: object) -> Iterator[Turn]:
        labels = [slot.label for slot in self.scenario.slots if slot.name in names]
        if labels:
            values: dict[str, object] = {"labels": " and the ".join(labels), **slots}
            yield Turn((*self._preface(values), *thoughts, "think.ask"), say="ask", values=values)

    def _confirm(self, steps: Sequence[Step]) -> Iterator[Turn]:
        what = next((step.confirm for step in steps if step.confirm), "")
        if what and not (self._flaw == "unconfirmed" and any(step.effect == "irreversible" for step in steps)):
            values: dict[str, object] = {"what": what, "act": _of_the_user(what)}
            yield Turn((*self._preface(values), "think.confirm"), say="confirm", values=values)

    def _answer(self) -> Turn:
        refused = self.scenario.ending == "refused"
        values: dict[str, object] = {}
        text = self.scenario.answer
        if self._flaw == "wrong_fact":
            text = _falsified(self.scenario, text)
        return Turn((*self._preface(values), "think.refuse" if refused else "think.answer"), text=text, values=values)

    def _preface(self, values: dict[str, object]) -> tuple[str, ...]:
        """Thoughts about what has just happened, before those about the next step."""
        found: list[str] = []
        if self._noticed:
            found.append(self._notice(self._noticed, values))
            self._noticed = None
        if self._settled:
            found.append("notice.there")
            self._settled = False
        if self._changed:
            values["says"] = _quoted(self._changed)
            found.append("think.changed")
            self._changed = ""
        if self._injected:
            found.append("think.injection")
            self._injected = False
        return tuple(found)

    # --- plans ---

    def _plan(self, reason: str, *, detour: dict[int, Call] | None = None) -> Turn:
        """The plan for what is left: all of it at first; later without what is done, and with what came up."""
        scenario = self.scenario
        spoken = [one for one in scenario.interjections if one.says in self._heard]
        turned = next((one for one in scenario.interjections if one.changes_goal and one not in spoken), None)
        unknown = {one.constraint for one in scenario.interjections if one not in spoken}
        keep = [c for number, c in enumerate(scenario.constraints) if number not in unknown]
        last = turned.after if turned else len(scenario.steps) - 1
        pending = {number: step for number, step in enumerate(scenario.steps) if number not in self._done and number <= last}
        wanted = sorted({step.subgoal for step in pending.values()})
        subgoals: list[dict[str, Json]] = []
        for place in wanted:
            one = scenario.subgoals[place]
            tools = [(detour or {}).get(n, s.call).tool for n, s in pending.items() if s.subgoal == place]
            names = list(dict.fromkeys(tools))
            in_words = " and ".join(names)
            written: dict[str, Json] = {
                "id": f"g{place + 1}",
                "goal": one.goal if self._can_know(one.goal) else _in_words(names),
                "depends_on": [f"g{d + 1}" for d in one.depends_on if d in wanted],
                "tools": tools,
                "success_criterion": one.success if self._can_know(one.success) else f"the results of {in_words} show that it is done",
            }
            respected = [scenario.constraints[c].text for c in one.constraints if c not in unknown]
            if respected:
                written["constraints"] = respected
            subgoals.append(written)
        if turned:
            subgoals.append(self._old_wish(wanted))
        since = "".join(f" Since then the user has said: {_quoted(one.says)}." for one in spoken)
        arguments: dict[str, Json] = {
            "goal": f"Serve the request: {scenario.opening}{since}",
            "constraints": [c.text for c in keep],
            "subgoals": subgoals,
        }
        values: dict[str, object] = {}
        think: tuple[str, ...] = ("plan.think",)
        if self._plans:
            arguments |= {"revision": self._plans, "reason": reason}
            values["reason"] = reason
            self._changed = ""
            think = ("plan.rethink",)
        self._plans += 1
        return Turn(think, calls=(Call(tool="update_plan", arguments=arguments),), values=values)

    def _old_wish(self, wanted: Sequence[int]) -> dict[str, Json]:
        """What the user wanted before they changed their mind: part of the first plan, gone from the next."""
        tools = sorted({bad.tool for bad in self.scenario.forbidden})
        return {
            "id": f"g{len(self.scenario.subgoals) + 1}",
            "goal": f"{_in_words(tools)}, as the user asked" if tools else "do what the user asked for",
            "depends_on": [f"g{wanted[-1] + 1}"] if wanted else [],
            "tools": tools,
            "success_criterion": "the result shows that it was done",
        }

    def _can_know(self, text: str) -> bool:
        """Whether nothing in a sub-goal's text gives away what has not come up yet: a figure, or a name."""
        heard = "\n".join((self.cls.policy_text(), *self._heard))
        telling = (word.strip(".,:;'()") for word in _TELLING.findall(text))
        return all(word in _CALENDAR or names(heard, word) for word in telling)

    def _adapt(self, after: int, said: str) -> Iterator[Turn]:
        spoken = [one for one in self.scenario.interjections if one.says == said]
        if spoken:
            self._changed = said
            if self.scenario.kind == "goal_decomposition" and after < len(self.scenario.steps) - 1:
                yield self._plan(f"the user said {_quoted(said)}")

    # --- mistakes and flaws ---

    def _blunder(self, mistake: Mistake) -> Iterator[Turn]:
        """The wrong step, then the first thought of the recovery goes to the next turn."""
        symbol = "wrong.loop" if mistake.kind == "loop" else "wrong.think"
        for _ in range(mistake.times):
            yield Turn((symbol,), calls=(mistake.call,), values={"tool": mistake.call.tool}, wrong=True)
        self._noticed = mistake

    def _notice(self, mistake: Mistake, values: dict[str, object]) -> str:
        right = self.scenario.steps[mistake.step].call.arguments
        changed = [key for key, value in mistake.call.arguments.items() if key in right and right[key] != value]
        values["mistool"] = mistake.call.tool
        if changed:
            values |= {"wrong": mistake.call.arguments[changed[0]], "right": right[changed[0]]}
        return f"notice.{mistake.kind}"

    def _left_out(self, group: Sequence[int]) -> bool:
        """Flaw: the look-up before the irreversible call is skipped (and made late when the draft is revised)."""
        return self.scenario.flaw == "skipped_lookup" and bool(group) and group[0] == skippable_lookup(self.scenario)

    def _left_out_before(self, group: Sequence[int]) -> bool:
        skipped = skippable_lookup(self.scenario) if self.scenario.flaw == "skipped_lookup" else None
        return self._revised and skipped is not None and group[0] == skipped + 1

    def _before(self, group: Sequence[int]) -> list[Step]:
        return [self.scenario.steps[group[0] - 1]]

    # --- trouble ---

    def _mend(self, group: Sequence[int], seen: Seen) -> Generator[Turn, Seen, dict[str, Json] | None]:
        """Get past whatever is wrong with the results. The handover's result if that was the only way."""
        fault = self._fault
        if fault is None:
            return None
        self._done.update(at for number, at in enumerate(group) if not seen.failed(number))
        for number, at in enumerate(group):
            step = self.scenario.steps[at]
            if fault.tool != step.call.tool:
                continue
            text = seen.results[number]
            if seen.failed(number):
                handed = yield from self._recover(step, fault, seen.error(number))
                if handed is not None:
                    return handed
            elif fault.kind == "partial" and '"partial": true' in text:
                content = json.loads(text)
                values: dict[str, object] = {"returned": content["returned"], "total": content["total"], "tool": step.call.tool}
                yield Turn(("notice.partial",), calls=(step.call,), values=values)
            elif fault.kind == "wrong_record" and step.call.arguments == fault.detail["instead_of"] and fault.detail["shows"] in text:
                yield Turn(("notice.wrong_record",), calls=(step.call,), values={"asked": fault.detail["asked"], "tool": step.call.tool})
        return None

    def _recover(self, step: Step, fault: Fault, error: dict[str, Json]) -> Generator[Turn, Seen, dict[str, Json] | None]:
        call = step.call
        values: dict[str, object] = {"tool": call.tool}
        again = (call,)
        match fault.kind:
            case "rate_limit":
                values["seconds"] = error["retry_after"]
                pause = Call(tool="wait", arguments={"seconds": error["retry_after"]})
                if not self._waited:  # once is enough for all calls of one message
                    yield Turn(("notice.rate_limit",), calls=(pause,), values=values)
                self._waited = True
                yield Turn(("notice.rate_limit_over",), calls=again, values=values)
            case "schema_drift":
                old, new = str(fault.detail["old"]), str(fault.detail["new"])
                self._renamed[call.tool] = (old, new)
                yield Turn(("notice.schema_drift",), calls=(self._named(call),), values=values | {"old": old, "new": new})
            case "server_down" if step.fallback is not None:
                if self.scenario.kind == "goal_decomposition":
                    yield self._plan(f"{call.tool} is down", detour={self.scenario.steps.index(step): step.fallback})
                used = set(map(str, leaves(step.fallback.arguments)))
                heard = "\n".join(self._heard)
                unknown = [s.name for s in self.scenario.slots if s.value in used and s.value not in heard]
                yield from self._ask_for(unknown, "notice.server_down_ask", tool=call.tool)
                yield Turn(("notice.other_way" if unknown else "notice.server_down",), calls=(step.fallback,), values=values)
            case "server_down" | "permission":
                return (yield from self._hand_over(step, fault))
            case _ if step.effect == "read":
                symbol = "notice.timeout_read" if fault.kind == "timeout_lost" else "notice.server_error"
                for _ in range(int(fault.detail.get("times", 1))):
                    yield Turn((symbol,), calls=again, values=values)
            case _ if self._flaw == "blind_retry":
                yield Turn(("notice.server_error",), calls=again, values=values)
            case _:
                yield from self._look_then_write(step, fault, values)
        return None

    def _look_then_write(self, step: Step, fault: Fault, values: dict[str, object]) -> Iterator[Turn]:
        """A write whose outcome is not known: read first, and repeat it only if it did not take place."""
        look = step.check
        if look is None:
            raise TeacherError(f"{step.call.tool} has no check, so {fault.kind} must not hit it")
        symbol = {"server_error": "notice.server_error_write", "stale": "notice.stale"}.get(fault.kind, "notice.timeout")
        for _ in range(int(fault.detail.get("times", 1))):
            yield Turn((symbol,), calls=(self._named(look),), values=values)
            if fault.kind == "timeout_written":
                self._settled = True
                return
            seen = "notice.stale_fresh" if fault.kind == "stale" else "notice.not_there"
            yield Turn((seen,), calls=(step.call,), values=values)

    def _hand_over(self, step: Step, fault: Fault) -> Generator[Turn, Seen, dict[str, Json]]:
        end = self.scenario.honest_end
        if end is None:
            raise TeacherError(f"{fault.kind} is permanent and the scenario names no honest end")
        agreed = next((s.confirm for s in reversed(self.scenario.steps) if s.confirm), "")
        asked = f"Agreed with the user: {_of_the_user(agreed)}." if agreed else f"The user's request: {self.scenario.opening}"
        done = _of_the_user(self._changes_made())
        left = end.problem if step.confirm else f"{_described(step.call)}; {end.problem}"
        summary = f"{asked} Done: {done or 'nothing has been changed'}. Left to do: {_of_the_user(left)}."
        call = Call(tool="transfer_to_human", arguments={"department": end.department, "summary": summary})
        symbol = "notice.permission" if fault.kind == "permission" else "notice.give_up"
        seen = yield Turn((symbol,), calls=(call,), values={"tool": fault.tool})
        content: dict[str, Json] = json.loads(seen.results[0])
        return content

    def _honest_answer(self, handed: dict[str, Json]) -> Turn:
        end = self.scenario.honest_end
        problem = end.problem if end else ""
        if self._flaw == "false_claim":
            return Turn(("think.answer",), text=self.scenario.answer)
        done = self._changes_made()
        values: dict[str, object] = {"problem": Prose(problem), "done": done, **handed}
        return Turn(("think.answer_honest",), say="honest" if done else "honest.untouched", values=values)

    def _changes_made(self) -> str:
        """The changes made so far, as a list in words: as they were agreed to, where that was for this change alone."""
        steps = self.scenario.steps
        found: list[str] = []
        for number in sorted(self._done):
            step = steps[number]
            if step.effect == "read":
                continue
            after = next((one for one in steps[number + 1 :] if one.effect != "read"), None)
            alone = step.confirm and (after is None or after.confirm)
            found.append(step.confirm if alone else _described(step.call))
        return "; ".join(found)

    def _named(self, call: Call) -> Call:
        """The call with the parameter names that the tool has by now."""
        if call.tool not in self._renamed:
            return call
        old, new = self._renamed[call.tool]
        return Call(tool=call.tool, arguments={new if key == old else key: value for key, value in call.arguments.items()})


def skippable_lookup(scenario: Scenario) -> int | None:
    """The step that the flaw `skipped_lookup` leaves out: a lone read right before a lone irreversible call that has
    no other look-up of the same record."""
    for number in range(len(scenario.steps) - 1):
        look, act = scenario.steps[number], scenario.steps[number + 1]
        if look.effect == "read" and act.effect == "irreversible" and act.confirm and act.check == look.call and not act.asks:
            return number
    return None


_TELLING = re.compile(r"\S*\d\S*|(?<=\S )[A-Z][a-z]+")
"""Words that say something in particular: with a digit, or a name within a sentence."""
_CALENDAR = frozenset((*calendar.month_name, *calendar.day_name))


def _quoted(said: str) -> str:
    """What someone said, in quotation marks, to be followed by whatever the sentence around it needs."""
    return f"“{said.removesuffix('.')}”"


def _of_the_user(what: str) -> str:
    """What is said to the user, as it is said of the user."""
    if "'" in what or '"' in what:  # may be somebody's wording
        return what
    return re.sub(r"\byour\b", "the user's", re.sub(r"\byou\b", "the user", what))


def _in_words(tools: Sequence[str]) -> str:
    return " and ".join(tool.replace("_", " ") for tool in tools)


def _described(call: Call) -> str:
    """A change in words: the tool, and what it was done to."""
    values = (v for key, value in call.arguments.items() if "session" not in key for v in leaves(value) if isinstance(v, str))
    names = ", ".join(value for value in values if " " not in value and re.search(r"[\d/@]", value))
    return _in_words([call.tool]) + (f" ({names})" if names else "")


def _groups(steps: Sequence[Step]) -> Iterator[list[int]]:
    group: list[int] = []
    for number, step in enumerate(steps):
        if group and steps[group[-1]].group != step.group:
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def _history(messages: Sequence[Message]) -> Iterator[Seen]:
    """What came of each of the agent's turns so far."""
    results: list[str] = []
    said = ""
    begun = False
    for message in messages:
        if isinstance(message, AssistantMessage):
            if begun:
                yield Seen(tuple(results), said)
            begun, results, said = True, [], ""
        elif isinstance(message, ToolMessage):
            results.append(message.content)
        elif isinstance(message, UserMessage):
            said = message.content
    if begun:
        yield Seen(tuple(results), said)


def _falsified(scenario: Scenario, text: str) -> str:
    """The answer with one fact changed."""
    for fact in scenario.facts:
        for spelling in fact.spellings:
            if any(c.isdigit() for c in spelling) and spelling in text:
                return text.replace(spelling, spelling[:-1] + ("7" if spelling[-1] != "7" else "3"))
        for shown in spellings(fact) if fact.number is not None else ():
            if shown in text:
                return text.replace(shown, f"{(fact.number or 0) + 12:.2f}")
    return "It is all taken care of."


def _usage(messages: Sequence[Message], written: int) -> Usage:
    """Tokens as if by a common tokenizer, at four characters each: the scripted teacher counts no real ones."""
    read = sum(len(message.content) for message in messages)
    return Usage(prompt_tokens=read // 4, completion_tokens=written // 4)
