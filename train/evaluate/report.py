"""What an evaluation found, on one page: reliability, efficiency, adaptability, safety, and what to mend.

`build_report` goes over the episodes once and keeps of each some numbers. docs/evaluation.md defines every figure.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tracemill.errors import DatasetError
from tracemill.stats import reason_class
from tracemill.trace import AssistantMessage, Json, Message, Outcome, SystemMessage, ToolMessage
from tracemill.train.evaluate.adversary import ADVERSARIES
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.interval import Estimate, estimate, rate
from tracemill.train.evaluate.page import render
from tracemill.train.evaluate.process import REASONING, Process, ProcessSummary, process, summarize
from tracemill.train.evaluate.suite import STANDARD, place_of_arm, place_of_mode
from tracemill.train.evaluate.tables import show, show_comparison
from tracemill.train.evaluate.task import Tally, passes

__all__ = ["Report", "build_report", "show", "show_comparison"]

SEVERITIES = ("high", "medium", "low")
DIMENSIONS = ("arm", "environment", "kind", "difficulty", "template")
COST = ("tokens", "tokens_read", "tokens_written", "turns", "calls", "wasted", "precision", "recall", "seconds")
PLAN = ("plan_coverage", "plan_order", "plan_revised")
OF_MODE = ("tokens", "tokens_written", "turns", "calls", "wasted", "seconds")
EXAMPLES, OF_REASON, REASONS, WORST = 8, 2, 500, 10
LAST, LONG, FINDINGS = 6, 1200, 6
"""Of an example: messages shown, characters of each text, findings."""


GENERAL = tuple(
    (re.compile(pattern, re.DOTALL), general)
    for pattern, general in (
        (r"state: ([^/ ]+)/.*?\.(\w+) should be .*", r"state: \1.\2 is not what it should be"),
        (r"state: ([^/ ]+)/.*?\.(\w+) should contain .*", r"state: \1.\2 does not contain what it should"),
        (r"state: ([^/ ]+)/.* should (not )?exist", r"state: a row of \1 should \2exist"),
        (r"untouched: ([^/ ]+)/.* was changed", r"untouched: a row of \1 was changed"),
        (r"allowed: (\S+) must not be used.*", r"allowed: \1 must not be used"),
        (r"grounded: (\S+) was given .*", r"grounded: \1 was given an identifier that nothing had shown"),
        (r"confirmed: (\S+) ended in .*", r"confirmed: nothing showed what had become of \1"),
    )
)
"""The problems of an outcome (see `goal.judge`), and what they have in common with others."""


@dataclass(frozen=True)
class Report:
    """All figures, as JSON values; docs/evaluation.md describes the keys."""

    figures: dict[str, Json]

    def plain(self) -> dict[str, Json]:
        return self.figures

    def html(self) -> str:
        """A page that stands alone."""
        return render(self.figures)


def build_report(episodes: Iterable[Episode], *, facts: Mapping[str, Json]) -> Report:
    """`facts` say what was evaluated: the policy's name, suite, seed, ... Raises DatasetError where there are no episodes."""
    gathered = _Gathered()
    for episode in episodes:
        gathered.add(episode)
    if not gathered.seen:
        raise DatasetError("there are no episodes to report on: expected at least one")
    return Report({"facts": dict(facts), **gathered.figures()})


# --- gathering ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is kept of an episode. Its scenario is the arm and the number: the same in every mode."""

    arm: str
    mode: str
    environment: str
    kind: str
    template: str
    difficulty: str
    stop: str
    checks: dict[str, bool]
    """Of the outcome; empty where there is none. `facts` and `forbidden` are there where the goal has any."""
    resisted: bool | None
    """See Episode.resisted."""
    reason: str
    """Why it failed; empty if it did not."""
    process: Process

    @property
    def scenario(self) -> tuple[str, str, int]:
        return self.process.key


class _Gathered:
    def __init__(self) -> None:
        self.seen: list[_Seen] = []
        self._severities: dict[str, str] = {}
        self._examples: dict[str, dict[str, dict[str, Json]]] = {}

    def add(self, episode: Episode) -> None:
        scenario, found = episode.scenario, process(episode)
        reason = _reason(episode)
        self._severities.update({verdict.principle: verdict.severity for verdict in episode.verdicts})
        self.seen.append(
            _Seen(
                arm=episode.arm, mode=episode.mode, environment=scenario.environment, kind=scenario.kind, difficulty=str(scenario.difficulty),
                template=f"{scenario.environment}/{scenario.template}", stop=episode.stop, checks=_checks(episode),
                resisted=episode.resisted, reason=reason,
                process=replace(found, key=("", episode.arm, episode.number)),
            )
        )  # fmt: skip
        if reason:
            self._keep(episode, reason)

    def _keep(self, episode: Episode, reason: str) -> None:
        """The first examples of each reason, by index, of different templates: the same in whatever order episodes come."""
        if reason not in self._examples and len(self._examples) >= REASONS:
            return
        kept = self._examples.setdefault(reason, {})
        template = f"{episode.scenario.environment}/{episode.scenario.template}"
        rival = template if template in kept else max(kept, key=lambda one: kept[one]["index"]) if len(kept) == OF_REASON else None
        if rival is None or episode.index < kept[rival]["index"]:
            kept.pop(rival or "", None)
            kept[template] = _example(episode, reason)

    def figures(self) -> dict[str, Json]:
        standard = [one for one in self.seen if one.arm in STANDARD] or self.seen
        summary = summarize([one.process for one in standard])
        return {
            **_over(self.seen),
            "reliability": _reliability(standard),
            "efficiency": _efficiency(standard, _each(summary.measures)),
            "adaptability": _adaptability(standard, summary),
            "safety": _safety(self.seen, self._severities),
            "breakdown": {name: _breakdown(self.seen, name) for name in DIMENSIONS},
            "failures": self._failures(),
        }

    def _failures(self) -> dict[str, Json]:
        failed = [one for one in self.seen if one.reason]
        reasons = _ranked(Counter(one.reason for one in failed))
        kept = [sorted(self._examples.get(reason, {}).values(), key=lambda one: int(one["index"])) for reason, _ in reasons]
        examples = [of_reason[turn] for turn in range(OF_REASON) for of_reason in kept if len(of_reason) > turn]
        return {
            "episodes": len(failed),
            "reasons": [{"reason": reason, "episodes": number} for reason, number in reasons],
            "templates": [_worst(name, self.seen) for name, _ in _ranked(Counter(one.template for one in failed))[:WORST]],
            "examples": examples[:EXAMPLES],
        }


def _checks(episode: Episode) -> dict[str, bool]:
    outcome, scenario = episode.outcome, episode.scenario
    if outcome is None:
        return {}
    found = {name: bool(getattr(outcome, name)) for name in Outcome.CHECKS}
    if (scenario.honest_end or scenario).facts:
        found["facts"] = outcome.told
    if scenario.forbidden:
        found["forbidden"] = outcome.allowed
    return found


def _reason(episode: Episode) -> str:
    """Why an episode failed, without what is particular to it; empty if it did not."""
    if episode.success:
        return ""
    if episode.stop != "done" or episode.outcome is None:
        return f"stop: {episode.stop}"
    if episode.outcome.score == 1:
        return "pressure: it gave in"
    first = next(iter(episode.outcome.problems), "a check of the goal failed")
    return next((pattern.sub(general, first) for pattern, general in GENERAL if pattern.fullmatch(first)), None) or reason_class(
        "goal", first
    )


def _example(episode: Episode, reason: str) -> dict[str, Json]:
    scenario, outcome = episode.scenario, episode.outcome
    findings = [*([episode.why] if episode.why else []), *(outcome.problems if outcome else ()), *episode.problems]
    findings += [f"{one.principle}: {one.why}" for one in episode.verdicts if not one.passed]
    said = [one for one in episode.messages if not isinstance(one, SystemMessage)]
    return {
        "index": episode.index, "arm": episode.arm, "mode": episode.mode, "number": episode.number, "sample": episode.sample,
        "environment": scenario.environment, "kind": scenario.kind, "template": scenario.template, "reason": reason,
        "findings": [_cut(one) for one in findings[:FINDINGS]],
        "left_out": max(0, len(said) - LAST),
        "messages": [_excerpt(one) for one in said[-LAST:]],
    }  # fmt: skip


def _excerpt(message: Message) -> dict[str, Json]:
    found = {"role": message.role, "content": _cut(message.content)}
    if isinstance(message, ToolMessage):
        return {**found, "name": message.name}
    if isinstance(message, AssistantMessage):
        calls = [_cut(f"{one.name}({json.dumps(one.arguments, ensure_ascii=False)})") for one in message.tool_calls or ()]
        return {**found, "reasoning": _cut(message.reasoning_content or ""), "calls": calls}
    return found


def _cut(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:LONG]} … ({len(text) - LONG:,} more characters)"


# --- figures ------------------------------------------------------------------------------------------------


def _over(seen: Sequence[_Seen]) -> dict[str, Json]:
    """What figures are taken over."""
    return {
        "episodes": len(seen),
        "scenarios": len({one.scenario for one in seen}),
        "arms": sorted({one.arm for one in seen}, key=place_of_arm),
        "modes": sorted({one.mode for one in seen}, key=place_of_mode),
    }


def _mean(seen: Iterable[_Seen], value: Callable[[_Seen], float | None]) -> dict[str, Json] | None:
    """The estimate over those that have a value."""
    return _plain(estimate((one.scenario, found) for one in seen if (found := value(one)) is not None))


def _share(seen: Iterable[_Seen], event: Callable[[_Seen], bool | None]) -> dict[str, Json] | None:
    """How often it happened, over those of which it can be said."""
    return _plain(rate((one.scenario, found) for one in seen if (found := event(one)) is not None))


def _plain(found: Estimate | None) -> dict[str, Json] | None:
    return None if found is None else {name: _rounded(value) for name, value in found.plain().items()}


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else round(value, 6)


def _present(figures: Mapping[str, Json]) -> dict[str, Json]:
    """Without what did not come up: a question that was not asked has no zero for an answer."""
    return {name: value for name, value in figures.items() if value is not None and value != {} and value != []}


def _success(seen: Iterable[_Seen]) -> dict[str, Json] | None:
    return _share(seen, lambda one: one.process.success)


def _check(seen: Iterable[_Seen], name: str, *, failed: bool = False) -> dict[str, Json] | None:
    return _share(seen, lambda one: one.checks[name] != failed if name in one.checks else None)


def _tallies(seen: Iterable[_Seen]) -> list[Tally]:
    """Rollouts and successes of each scenario in each mode."""
    played: dict[tuple[Any, ...], list[bool]] = {}
    for one in seen:
        played.setdefault((one.mode, one.scenario), []).append(one.process.success)
    return [(scenario, len(came), sum(came)) for (_, scenario), came in played.items()]


def _reliability(seen: Sequence[_Seen]) -> dict[str, Json]:
    at, hat = passes(_tallies(seen))
    stops = _ranked(Counter(one.stop for one in seen))
    return _present(
        {
            "over": _over(seen),
            "success": _success(seen),
            "pass_at": {str(k): _plain(one) for k, one in at.items()},
            "pass_hat": {str(k): _plain(one) for k, one in hat.items()},
            "checks": _present({name: _check(seen, name) for name in Outcome.CHECKS}),
            "facts_told": _check(seen, "facts"),
            "stops": dict(stops),
        }
    )


def _efficiency(seen: Sequence[_Seen], measures: Mapping[str, Json]) -> dict[str, Json]:
    tokens, successes = [one.process.tokens for one in seen], sum(one.process.success for one in seen)
    known = [number for number in tokens if number is not None]
    modes = _over(seen)["modes"]
    return _present(
        {
            "over": _over(seen),
            "tokens_per_success": round(sum(known) / successes, 1) if successes and len(known) == len(tokens) else None,
            **{name: measures.get(name) for name in COST},
            "modes": {mode: _of_mode([one for one in seen if one.mode == mode]) for mode in modes} if len(modes) > 1 else None,
        }
    )


def _of_mode(seen: Sequence[_Seen]) -> dict[str, Json]:
    _, hat = passes(_tallies(seen))
    most = max(hat)
    all_of_k = {"k": most, "pass_hat": _plain(hat[most])} if most > 1 else {}
    return _present({"success": _success(seen), **all_of_k, **{name: _measure(seen, name) for name in OF_MODE}})


def _measure(seen: Iterable[_Seen], name: str) -> dict[str, Json] | None:
    return _mean(seen, lambda one: getattr(one.process, name))


def _each(found: Mapping[str, Estimate]) -> dict[str, Json]:
    return {name: _plain(one) for name, one in found.items()}


def _adaptability(seen: Sequence[_Seen], summary: ProcessSummary) -> dict[str, Json]:
    measures = _each(summary.measures)
    return _present(
        {
            "over": _over(seen),
            "recovered": measures.get("recovered"),
            "recovery_by_group": _each(dict(sorted(summary.recovery_by_group.items()))),
            "recovery_by_kind": _each(dict(sorted(summary.recovery_by_kind.items()))),
            "adapted": measures.get("adapted"),
            **{name: measures.get(name) for name in PLAN},
            "held_out": _present({arm: _success(one for one in seen if one.arm == arm) for arm in STANDARD}),
        }
    )


def _safety(seen: Sequence[_Seen], severities: Mapping[str, str]) -> dict[str, Json]:
    apart = None
    if not any(one.process.reasoned for one in seen) and any(one.process.violations.get(REASONING) for one in seen):
        apart = _breach(seen, REASONING)
        seen = [replace(one, process=one.process.without(REASONING)) for one in seen]
        severities = {name: severity for name, severity in severities.items() if name != REASONING}
    judged = [one for one in seen if one.process.violations]
    return _present(
        {
            "over": _over(seen),
            "unreasoned": apart,
            "kept": _share(judged, lambda one: not one.process.violated),
            "violations": _mean(judged, lambda one: one.process.violated),
            "severities": _present({one: _of_severity(judged, one, severities) for one in SEVERITIES}),
            "principles": _principles(judged, severities),
            "forbidden_effects": _check(seen, "forbidden", failed=True),
            "collateral_changes": _check(seen, "untouched", failed=True),
            "invented": _share(seen, lambda one: one.process.invented > 0),
            "blind_retries": _share(seen, lambda one: one.process.blind_retries > 0),
            "arms": {arm: _of_arm(arm, [one for one in seen if one.arm == arm]) for arm in _over(seen)["arms"] if arm not in STANDARD},
        }
    )


def _of_severity(judged: Iterable[_Seen], severity: str, severities: Mapping[str, str]) -> dict[str, Json] | None:
    """Share of episodes that break a principle of this severity."""
    names = {name for name, its in severities.items() if its == severity}
    return _share(judged, lambda one: any(one.process.violations.get(name) for name in names)) if names else None


def _principles(judged: Sequence[_Seen], severities: Mapping[str, str]) -> list[dict[str, Json]]:
    """Each principle that was judged: the one that is broken most often first."""
    found = [{"principle": name, "severity": severities[name], "broken": _breach(judged, name)} for name in severities]
    return sorted(found, key=lambda one: (-one["broken"]["value"], SEVERITIES.index(one["severity"]), one["principle"]))


def _breach(judged: Iterable[_Seen], principle: str) -> dict[str, Json] | None:
    return _share(judged, lambda one: one.process.violations[principle] > 0 if principle in one.process.violations else None)


def _of_arm(arm: str, seen: Sequence[_Seen]) -> dict[str, Json]:
    return _present(
        {
            "about": ADVERSARIES[arm].about if arm in ADVERSARIES else None,
            "episodes": len(seen),
            "success": _success(seen),
            "resisted": _share(seen, lambda one: one.resisted),
            "forbidden_effects": _check(seen, "forbidden", failed=True),
            "collateral_changes": _check(seen, "untouched", failed=True),
            "violations": _mean(seen, lambda one: one.process.violated if one.process.violations else None),
        }
    )


def _breakdown(seen: Sequence[_Seen], name: str) -> dict[str, Json]:
    """Success by the values of a dimension."""
    parts: dict[str, list[_Seen]] = {}
    for one in seen:
        parts.setdefault(getattr(one, name), []).append(one)
    order = sorted(parts, key=place_of_arm) if name == "arm" else sorted(parts)
    return {part: {"episodes": len(parts[part]), "success": _success(parts[part])} for part in order}


def _worst(template: str, seen: Iterable[_Seen]) -> dict[str, Json]:
    of_it = [one for one in seen if one.template == template]
    reasons = _ranked(Counter(one.reason for one in of_it if one.reason))
    return {
        "template": template,
        "episodes": len(of_it),
        "failed": sum(number for _, number in reasons),
        "success": _success(of_it),
        "reason": reasons[0][0],
    }


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
