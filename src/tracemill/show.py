"""`tracemill show`, `environments` and `tools`: what is there, for a person to read.

What a trace, a tool or a file says is only ever put into `Text`, as it is: none of it is read as markup.
"""

from __future__ import annotations

import difflib
import heapq
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tracemill.columns import from_row, shapes
from tracemill.errors import DatasetError, ScenarioError
from tracemill.generators.environments.base import Environment
from tracemill.generators.environments.base import Table as StateTable
from tracemill.generators.environments.catalogue import BUILT_IN, environment
from tracemill.generators.environments.goal import draw, templates
from tracemill.generators.environments.tool import Tool
from tracemill.generators.environments.tool_files import Loaded, load_tools
from tracemill.generators.faults import FaultPlan
from tracemill.stats import clean, count_of, is_import, open_console, part_files, read_rows, read_run, trace_files
from tracemill.trace import (
    KINDS,
    AssistantMessage,
    Conversation,
    Effect,
    Fault,
    Json,
    Kind,
    Message,
    Mistake,
    Outcome,
    Persona,
    Refusal,
    Rejection,
    Scenario,
    SystemMessage,
    ToolCall,
    ToolMessage,
    Trace,
    is_error,
)

KEYS = ("kind", "environment", "template")
EFFECT_STYLES: Mapping[Effect, str] = {"read": "green", "write": "yellow", "irreversible": "red"}
ROLE_STYLES = {"system": "dim", "user": "bold green", "assistant": "bold cyan", "tool": "magenta"}
ROLE_NAMES = {"assistant": "agent", "tool": "result"}
RESULT_LINES, SYSTEM_LINES = 3, 1
INDENT = 12  # of a message's text, in columns
_DOT = Text.assemble((" · ", "dim"))
_SENTENCE_END = re.compile(r"(?<=[.!?])\s(?=\W?[A-Z])")
_BLOCK_START = re.compile(r"\s*([-*+#|>]|\d+\.)\s")
_AT = re.compile(r"messages\[(\d+)\]")

Shown = Trace | Rejection | Conversation | Refusal


# --- traces and the ledger ----------------------------------------------------------------------------------


def show_traces(
    out: Path, *, id: str | None, kind: str | None, environment: str | None, template: str | None, rejects: bool, limit: int
) -> None:
    """Page through the records that all given filters let pass, in the order of their indices.

    A record that is asked for by its id is shown whole. Raises DatasetError where there is no run or nothing passes.
    """
    imported = is_import(read_run(out))
    files = part_files(out / "rejects") if rejects else part_files(out / "data" / "imported") if imported else trace_files(out)
    wanted = {key: value for key, value in zip(KEYS, (kind, environment, template), strict=True) if value is not None}
    if imported and wanted:
        raise DatasetError(f"{out} holds imported conversations, which have no {' and no '.join(wanted)}: choose by id, or --rejects")
    prefix = (id or "").rstrip("….")
    places = list(_places(files, wanted, prefix))
    if not places:
        raise _nothing_imported(out, prefix, rejects) if imported else _nothing(out, files, wanted, prefix, rejects)
    chosen = heapq.nsmallest(limit, places)
    cls: type[Shown] = (Refusal if rejects else Conversation) if imported else Rejection if rejects else Trace
    console = open_console()
    with _paged(console):
        for place, record in enumerate(_records(cls, chosen), 1):
            console.print(_record(record, f"{place:,} of {len(places):,}", whole=bool(prefix), width=console.width))
        if len(places) > limit:
            what = ("refused rows" if rejects else "conversations") if imported else "rejections" if rejects else "traces"
            choose = "by id" if imported else "by id, --kind, --environment, --template"
            console.print(Text(f"{len(places) - limit:,} more {what}: raise --limit, or choose {choose}", "dim"))


@dataclass(frozen=True, order=True, slots=True)
class _Place:
    """Where a record lies, ordered the way records are shown."""

    index: int
    attempt: int
    path: Path
    row: int


def _places(files: Sequence[Path], wanted: Mapping[str, str], prefix: str) -> Iterator[_Place]:
    for path in files:
        number = 0
        for rows in read_rows(path, ("id", "index", *wanted)):
            for row in rows:
                if row["id"].startswith(prefix) and all(row[key] == value for key, value in wanted.items()):
                    attempt = row["id"].rpartition(".")[2]
                    yield _Place(row["index"], int(attempt) if attempt.isdigit() else 0, path, number)
                number += 1


def _records(cls: type[Shown], places: Sequence[_Place]) -> list[Shown]:
    """The records at these places, in their order; each shard is read once."""
    found: dict[_Place, Shown] = {}
    for path in sorted({place.path for place in places}):
        here = sorted(place for place in places if place.path == path)
        by_row = {place.row: place for place in here}
        rows = [row for some in read_rows(path, tuple(shapes(cls)), by_row) for row in some]
        for at, row in zip(sorted(by_row), rows, strict=True):
            try:
                found[by_row[at]] = from_row(cls, row)
            except ValueError as reason:  # JSON that is none, or a ValidationError
                problem = " ".join(str(reason).splitlines()[:3])
                raise DatasetError(f"{path}: {row['id']} is broken: {problem}", ["tracemill verify says what is wrong"]) from reason
    return [found[place] for place in places]


def _nothing(out: Path, files: Sequence[Path], wanted: Mapping[str, str], prefix: str, rejects: bool) -> DatasetError:
    """Why nothing passes the filters: what there is, and what may have been meant."""
    what = "rejection" if rejects else "trace"
    seen: dict[str, Counter[str]] = {key: Counter() for key in KEYS}
    ids: list[str] = []
    together: Counter[str] = Counter()  # what passes all filters but the last
    last = list(wanted)[-1] if wanted else ""
    for path in files:
        for rows in read_rows(path, ("id", *KEYS)):
            for row in rows:
                for key in KEYS:
                    seen[key][row[key]] += 1
                ids.append(row["id"])
                if last and all(row[key] == value for key, value in wanted.items() if key != last):
                    together[row[last]] += 1
    if not ids:
        hint = "its first ones are written some seconds after a run has begun"
        return DatasetError(f"{out} holds no {what}s" if rejects else f"{out} holds no traces yet", [] if rejects else [hint])
    for key, value in wanted.items():
        if value not in seen[key]:
            near = difflib.get_close_matches(value, seen[key], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return DatasetError(f"no {what} in {out} is of {key} {value!r}{hint}", [f"there are: {_listed(seen[key])}"])
    if prefix and not any(one.startswith(prefix) for one in ids):
        near_id = max(ids, key=lambda one: (_common(one, prefix), one))
        problems = [f"the nearest is {near_id}"]
        if not rejects and next(_places(part_files(out / "rejects"), {}, prefix), None):
            problems = ["it was rejected: add --rejects to see it"]
        elif rejects and next(_places(trace_files(out), {}, prefix.partition(".")[0]), None):
            problems = ["it was accepted: leave out --rejects to see it"]
        return DatasetError(f"no {what} in {out} has an id that begins with {prefix!r}", problems)
    asked = [("id", prefix)] * bool(prefix) + list(wanted.items())
    said = [f"{key} {value!r}" for key, value in asked]
    there = [f"of {' and '.join(said[:-1])} there are: {_listed(together)}"] if together and not prefix else []
    return DatasetError(f"no {what} in {out} is of {' and '.join(said)}", there)


def _nothing_imported(out: Path, prefix: str, rejects: bool) -> DatasetError:
    other = next(_places(part_files(out / ("data/imported" if rejects else "rejects")), {}, prefix), None)
    hints = {True: "it was imported: leave out --rejects to see it", False: "it was refused: add --rejects to see it"}
    what = "refused row" if rejects else "conversation"
    told = f"no {what} in {out} has an id that begins with {prefix!r}" if prefix else f"{out} holds no {what}s"
    return DatasetError(told, [hints[rejects]] if prefix and other else [])


def _common(one: str, other: str) -> int:
    """Length of the common beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _listed(counts: Counter[str], most: int = 24) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{name or '(none)'} ({number:,})" for name, number in ranked[:most])
    return named + (f" and {len(ranked) - most} more" if len(ranked) > most else "")


def _paged(console: Console) -> AbstractContextManager[Any]:
    if not console.is_terminal:
        return nullcontext()
    # What git does: colours pass, and what fits on the screen stays there.
    os.environ.setdefault("LESS", "-FRX")
    return console.pager(styles=True)


def _record(record: Shown, place: str, *, whole: bool, width: int) -> RenderableType:
    head, remarks = _head_and_remarks(record)
    title = Text.assemble(
        ("── ", "dim"), (clean(record.id), "bold"), (" " + "─" * max(2, width - len(record.id) - len(place) - 6), "dim"), f" {place}"
    )
    parts: list[RenderableType] = [title, *head]
    if record.messages:
        parts += [Text(), _conversation(record.messages, remarks, whole=whole, width=width)]
    elif isinstance(record, Refusal):
        parts += [Text(), _shortened(record.raw, None if whole else RESULT_LINES, width, "dim")]
    return Group(*parts, Text())


def _head_and_remarks(record: Shown) -> tuple[Iterator[Text], dict[int, list[Text]]]:
    match record:
        case Trace():
            return _trace_head(record), _trace_remarks(record)
        case Rejection():
            return _rejection_head(record), _rejection_remarks(record)
        case Conversation():
            return _conversation_head(record, "its form was checked; it was not replayed"), _unlearnt(record.messages)
        case Refusal():
            return _refusal_head(record), _rejection_remarks(record)


def _conversation_head(record: Conversation | Refusal, state: str) -> Iterator[Text]:
    yield _about("imported", f"{record.source}, row {record.index}", *([f"id {record.row_id}"] if record.row_id else []))
    reward = "no reward" if record.reward is None else f"reward {record.reward:g}"
    yield _facts(("", reward), ("", state))


def _refusal_head(refusal: Refusal) -> Iterator[Text]:
    yield from _conversation_head(refusal, "refused")
    yield Text.assemble(("failed  ", "dim"), (f"at {refusal.stage}", "bold red"))
    for problem in refusal.evidence:
        yield _bullet(problem, "red")


def _trace_head(trace: Trace) -> Iterator[Text]:
    persona = trace.scenario.persona
    ending = "handed over" if trace.scenario.honest_end else trace.scenario.ending.replace("_", " ")
    revised = count_of(trace.revisions, "revision") if trace.revisions else "no revision"
    yield _about(trace.kind, trace.environment, trace.template, f"difficulty {trace.difficulty}", f"ends {ending}")
    yield _facts(("index", str(trace.index)), ("teacher", trace.teacher), ("user", persona.tone), ("", revised))
    checks = Text.assemble(("checks  ", "dim"))
    if trace.outcome is None:
        checks.append("none made", "yellow")
    else:
        for name in Outcome.CHECKS:
            checks.append(f"{name} ").append(
                "✓  " if getattr(trace.outcome, name) else "✗  ", "green" if getattr(trace.outcome, name) else "bold red"
            )
    kept = sum(verdict.passed for verdict in trace.verdicts)
    checks.append(f"principles {kept} of {len(trace.verdicts)} kept", "" if kept == len(trace.verdicts) else "bold red")
    yield checks
    for problem in trace.outcome.problems if trace.outcome else ():
        yield _bullet(problem, "red")
    for verdict in trace.verdicts:
        if not verdict.passed:
            at = f" (messages[{verdict.at}])" if verdict.at is not None else ""
            yield _bullet(f"{verdict.principle}{at}: {verdict.why} ({verdict.severity}, by {verdict.by})", "red")
    yield from map(_fault, trace.scenario.faults)
    yield from map(_mistake, trace.scenario.mistakes)
    if trace.scenario.flaw:
        yield Text.assemble(("flaw    ", "dim"), (f"{trace.scenario.flaw}, put into the first draft on purpose", "yellow"))
    if trace.recovery:
        proof = Text.assemble(("proof   ", "dim"))
        for said, holds in (
            ("without the trouble the goal is reached", trace.recovery.without_fault_holds),
            ("without the recovery it is missed", trace.recovery.without_recovery_fails),
        ):
            proof.append(f"{said} ").append(*{True: ("✓  ", "green"), False: ("✗  ", "bold red"), None: ("not tried  ", "yellow")}[holds])
        yield proof


def _rejection_head(rejection: Rejection) -> Iterator[Text]:
    names = [rejection.kind, *(name for name in (rejection.environment, rejection.template) if name)]
    yield _about(*names, *([] if rejection.environment else ["not drawn"]))
    what = "first draft" if rejection.attempt == 0 else f"revision {rejection.attempt}"
    then = "the scenario is lost" if rejection.final else "sent back for revision"
    yield _facts(("index", str(rejection.index)), ("", what), ("", then))
    yield Text.assemble(("failed  ", "dim"), (f"at {rejection.stage}", "bold red"), (" · to blame: ", "dim"), (rejection.blame, "red"))
    for problem in rejection.evidence or (rejection.reason,):
        yield _bullet(problem, "red")


def _about(kind: str, *rest: str) -> Text:
    line = Text.assemble((clean(kind), "bold"))
    if len(rest) > 1 and rest[0]:
        line.append(" · ", "dim").append(clean(f"{rest[0]} / {rest[1]}"), "bold")
        rest = rest[2:]
    for one in rest:
        line.append(" · ", "dim").append(clean(one))
    return line


def _facts(*facts: tuple[str, str]) -> Text:
    return _DOT.join(Text.assemble((f"{name} " if name else "", "dim"), clean(value)) for name, value in facts)


def _bullet(text: str, style: str) -> Text:
    return Text(f"        {clean(text)}", style)


def _fault(fault: Fault) -> Text:
    where = f"call {fault.nth} of {fault.tool}" + ("" if fault.transient else " and all later ones")
    how = f"{'explicit' if fault.explicit else 'implicit'}, {'transient' if fault.transient else 'permanent'}"
    return Text.assemble(("fault   ", "dim"), (fault.kind, "yellow"), clean(f", {where}"), (f" · {how}", "dim"))


def _mistake(mistake: Mistake) -> Text:
    times = f", {mistake.times} times" if mistake.times > 1 else ""
    return Text.assemble(("mistake ", "dim"), (mistake.kind, "yellow"), clean(f", {mistake.call.tool}{times}"))


# --- a conversation -----------------------------------------------------------------------------------------


def _trace_remarks(trace: Trace) -> dict[int, list[Text]]:
    """What there is to say of single messages, by their index."""
    remarks = _unlearnt(trace.messages)
    recovery = trace.recovery
    for at, message in enumerate(trace.messages):
        if recovery and at in recovery.recovery:
            remarks.setdefault(at, []).append(Text("recovery", "bold green"))
        if message.role == "user" and any(message.content == one.says for one in trace.scenario.interjections):
            remarks.setdefault(at, []).append(Text("speaks up", "yellow"))
    for at, kind in struck(trace):
        remarks.setdefault(at, []).append(Text(f"fault: {kind}", "bold yellow"))
    for verdict in trace.verdicts:
        if not verdict.passed and verdict.at is not None:
            remarks.setdefault(verdict.at, []).append(Text(f"breaks {verdict.principle}", "bold red"))
    return remarks


def _unlearnt(messages: Sequence[Message]) -> dict[int, list[Text]]:
    wrong = [at for at, message in enumerate(messages) if isinstance(message, AssistantMessage) and not message.train]
    return {at: [Text("wrong step, not trained", "bold yellow")] for at in wrong}


def _rejection_remarks(rejection: Rejection | Refusal) -> dict[int, list[Text]]:
    remarks = _unlearnt(rejection.messages)
    for problem in rejection.evidence or (rejection.reason,):
        for at in {int(number) for number in _AT.findall(problem)}:
            remarks.setdefault(at, []).append(Text("rejected for this", "bold red"))
    return remarks


def struck(trace: Trace) -> Iterator[tuple[int, str]]:
    """Results that a fault has spoiled, found by letting the scenario's faults strike the recorded calls again. Some
    leave no mark in the result itself: the record of another person, half of a list."""
    plan, clock = FaultPlan(trace.scenario.faults), 0
    places = {message.tool_call_id: at for at, message in enumerate(trace.messages) if isinstance(message, ToolMessage)}
    for _, call, answer in trace.calls():
        if answer is None:
            continue
        code = _error(answer.content).get("code")
        drift = plan.renamed(call.name)
        if drift is not None and drift.detail.get("old") in call.arguments:
            yield places[call.id], drift.kind
        if code in ("unknown_tool", "invalid_arguments"):
            continue
        fault = plan.strike(call.name, clock)
        if fault is not None:
            yield places[call.id], fault.kind
        if code is None and trace.effects.get(call.name) == "read" and (fault is None or fault.kind == "injection"):
            plan.saw_read()
        if code is None and call.name == "wait":
            clock += int(call.arguments.get("seconds", 0))


def _error(content: str) -> dict[str, Json]:
    """The error that a result is; empty if it is none."""
    if not is_error(content):
        return {}
    try:
        error = json.loads(content)["error"]
    except (ValueError, KeyError, RecursionError):
        return {}
    return error if isinstance(error, dict) else {"message": str(error)}


def _conversation(messages: Sequence[Message], remarks: Mapping[int, Sequence[Text]], *, whole: bool, width: int) -> Table:
    """One row for each message: its index, as rules name it, who speaks, and what is said or done."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", style="dim", width=2 if len(messages) < 100 else 3)
    table.add_column(width=6)
    table.add_column(overflow="fold")
    for at, message in enumerate(messages):
        remark = _DOT.join(remarks.get(at, ()))
        role = Text(ROLE_NAMES.get(message.role, message.role), ROLE_STYLES[message.role])
        table.add_row(str(at), role, Group(*_said(message, remark, whole=whole, width=width - INDENT)))
    return table


def _said(message: Message, remark: Text, *, whole: bool, width: int) -> Iterator[RenderableType]:
    if isinstance(message, ToolMessage):
        error = _error(message.content)
        short = f"{error['code']}: {error.get('message', '')}" if "code" in error and not whole else message.content
        yield Text.assemble((clean(message.name), "dim"), "  ", remark)
        yield _shortened(short, None if whole else RESULT_LINES, width, "red" if error else "")
    elif isinstance(message, SystemMessage):
        yield _shortened(message.content, None if whole else SYSTEM_LINES, width, "dim")
    else:
        if remark:
            yield remark
        if isinstance(message, AssistantMessage):
            yield from _acts(message)
        else:
            yield Text(clean(message.content))


def _acts(message: AssistantMessage) -> Iterator[RenderableType]:
    if message.reasoning_content:
        yield Text.assemble(("thinks  ", "dim"), (clean(message.reasoning_content), "dim italic"))
    if message.content:
        yield Text(clean(message.content))
    calls = message.tool_calls or ()
    if len(calls) > 1:
        yield Text(f"{len(calls)} calls at once:", "dim")
    for call in calls:
        if call.name == "update_plan" and isinstance(call.arguments.get("subgoals"), list):
            yield from _plan(call.arguments)
        else:
            yield _call(call)


def _call(call: ToolCall) -> Text:
    line = Text.assemble(("→ ", "dim"), (clean(call.name), "bold blue"), ("(", "dim"))
    for place, (name, value) in enumerate(call.arguments.items()):
        line.append(", " if place else "", "dim").append(clean(name)).append("=", "dim")
        line.append(clean(json.dumps(value, ensure_ascii=False)), "blue")
    return line.append(")", "dim")


def _plan(plan: Mapping[str, Json]) -> Iterator[RenderableType]:
    """The plan as a list of sub-goals. Anything may stand in it: a call is recorded before its arguments are checked."""
    revision = plan.get("revision")
    yield Text.assemble(("→ ", "dim"), (f"plan, revision {revision}" if revision else "plan", "bold blue"), f"  {_plain(plan.get('goal'))}")
    for name, said in (("because", [plan["reason"]] if plan.get("reason") else []), ("respecting", plan.get("constraints"))):
        for one in _items(said):
            yield Padding(Text.assemble((f"{name} ", "dim"), _plain(one)), (0, 0, 0, 2))
    for subgoal in _items(plan["subgoals"]):
        if not isinstance(subgoal, dict):
            yield Padding(Text(_plain(subgoal)), (0, 0, 0, 2))
            continue
        line = Text.assemble((f"{_plain(subgoal.get('id'))}  ", "bold"), _plain(subgoal.get("goal")))
        if before := _items(subgoal.get("depends_on")):
            line.append(f"  after {', '.join(map(_plain, before))}", "dim")
        yield Padding(line, (0, 0, 0, 2))
        how = Text.assemble((", ".join(map(_plain, _items(subgoal.get("tools")))), "blue"))
        how.append(f"{' ' if how else ''}until ", "dim").append(_plain(subgoal.get("success_criterion")))
        for one in _items(subgoal.get("constraints")):
            how.append(", respecting ", "dim").append(_plain(one))
        yield Padding(how, (0, 0, 0, 6))


def _items(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _plain(value: Json) -> str:
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _shortened(text: str, lines: int | None, width: int, style: str) -> Text:
    """As much of a text as goes on some lines, and how much is left out; all of it where `lines` is None."""
    if lines is None or (len(text) <= lines * width + 40 and text.count("\n") < lines):
        return Text(clean(text), style)
    kept = "\n".join(text.split("\n")[:lines])[: lines * (width - 12)].rstrip()
    return Text.assemble((clean(kept), style), (f" … {len(text) - len(kept):,} more characters", "dim italic"))


# --- environments -------------------------------------------------------------------------------------------


def show_environments(name: str | None) -> None:
    """List the built-in environments, or show one in detail. Raises EnvironmentMissing, or ConfigError for an MCP file."""
    console = open_console()
    if name is None:
        console.print(_overview())
        console.print(Text("\ntracemill environments NAME shows one; NAME may also be module:Class or an MCP file", "dim"))
        return
    cls = environment(name)
    with _paged(console):
        console.print(Group(*_details(cls)))


def _overview() -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("environment", no_wrap=True)
    for title in ("rows", "tools", "read", "write", "irreversible", "goals"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("what the agent does there")
    for name in BUILT_IN:
        cls = environment(name)
        effects = Counter(tool.effect for tool in cls.toolbox().values())
        by_effect = (Text(str(effects[effect]), style) for effect, style in EFFECT_STYLES.items())
        numbers = (Text(f"{_row_count(cls):,}"), Text(str(effects.total())), *by_effect, Text(str(len(templates(cls)))))
        table.add_row(Text(name, "bold"), *numbers, Text(_first_sentence(cls.policy_text())))
    return table


def _row_count(cls: type[Environment]) -> int:
    return sum(len(table) for table in vars(cls(0)).values() if isinstance(table, StateTable))


def _first_sentence(text: str) -> str:
    return clean(_SENTENCE_END.split(" ".join(text.split()), maxsplit=1)[0])


def _details(cls: type[Environment]) -> Iterator[RenderableType]:
    rows = f"{count_of(_row_count(cls), 'row')} of state in world 0" if cls.instant else "state outside of this process"
    tools, goals = cls.toolbox(), templates(cls)
    yield Text.assemble((clean(cls.name), "bold"), f"  {rows}, {count_of(len(tools), 'tool')}, {count_of(len(goals), 'goal template')}")
    yield _heading("Policy")
    yield from _policy(cls.policy_text())
    yield _heading("Tools")
    grid = Table.grid(padding=(0, 2, 0, 0))
    for tool in sorted(tools.values(), key=lambda one: list(EFFECT_STYLES).index(one.effect)):
        signature = _signature(tool)
        if tool.kinds != KINDS:
            signature.append(f"  only in {', '.join(tool.kinds)}", "dim")
        told = Text(_first_sentence(tool.definition.description), "dim")
        grid.add_row(Text(f"  {tool.effect}", EFFECT_STYLES[tool.effect]), Group(signature, told))
    yield grid
    yield _heading("Goal templates", "each with an opening as a user might word it")
    for template, kinds in goals.items():
        suits = "all kinds" if set(kinds) == set(KINDS) else ", ".join(kinds)
        drawn = _example(cls, template, kinds[0])
        calls = f", {count_of(len(drawn.steps), 'call')}" if drawn else ""
        yield Text.assemble(f"  {clean(template)}", (f"  {suits}{calls}", "dim"))
        yield Padding(Text(clean(drawn.opening), "green") if drawn else Text("nothing fits in the first worlds", "yellow"), (0, 0, 0, 6))


def _heading(title: str, about: str = "") -> Text:
    return Text.assemble("\n", (title, "bold cyan"), (f"  {about}" if about else "", "dim"))


def _policy(text: str) -> Iterator[RenderableType]:
    """Its blocks, filled anew: its own lines may be longer than those of the terminal."""
    blocks: list[str] = []
    for line in text.splitlines():
        if not line.strip() or not blocks or not blocks[-1] or _BLOCK_START.match(line):
            blocks.append(line.rstrip())
        else:
            blocks[-1] += " " + line.strip()
    for block in blocks:
        mark = _BLOCK_START.match(block)
        grid = Table.grid(padding=(0, 1, 0, 0))
        if mark:
            grid.add_row(" ", Text(clean(mark[1])), Text(clean(block[mark.end() :])))
        else:
            grid.add_row(" ", Text(clean(block)))
        yield grid


def _signature(tool: Tool) -> Text:
    """name(required: type, optional?: type)"""
    schema = tool.definition.parameters
    parameters, required = schema.get("properties", {}), schema.get("required", [])
    line = Text.assemble((clean(tool.name), "bold"), ("(", "dim"))
    for place, (name, about) in enumerate(parameters.items() if isinstance(parameters, dict) else ()):
        line.append(", " if place else "", "dim").append(clean(name))
        line.append("" if name in required else "?", "yellow").append(f": {clean(_type(about))}", "dim")
    return line.append(")", "dim")


def _type(schema: Json) -> str:
    """A parameter's type in a word or two."""
    if not isinstance(schema, dict):
        return "any"
    if "enum" in schema:
        values = [str(one) for one in schema["enum"]]
        return "|".join(values) if len("|".join(values)) <= 40 else f"one of {len(values)}"
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            return "|".join(dict.fromkeys(_type(one) for one in schema[key]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"[{_type(schema.get('items'))}]"
    named = schema.get("type", "object" if "$ref" in schema else "any")
    return str(schema.get("format") or ("|".join(map(str, named)) if isinstance(named, list) else named))


def _example(cls: type[Environment], template: str, kind: Kind) -> Scenario | None:
    """Always the same draw, from the first world that has one."""
    persona = Persona(tone="plain")
    for world in range(8):
        with suppress(ScenarioError):
            return draw(cls, template, index=0, seed=0, kind=kind, world=world, persona=persona, rng=random.Random(f"{template}/{world}"))
    return None


# --- tool definitions ---------------------------------------------------------------------------------------


def show_tools(file: Path, *, only_refused: bool) -> None:
    """Say of each definition in a file whether it loads, what was mended, and why it is refused."""
    found = load_tools(file)
    refused = [one for one in found if one.tool is None]
    console = open_console()
    with _paged(console):
        for server, group in groupby(refused if only_refused else found, key=lambda one: one.server):
            if server:
                console.print(Text(clean(server), "bold"))
            grid = Table.grid(padding=(0, 2, 0, 0))
            for one in group:
                grid.add_row(*_loaded(one))
            console.print(Padding(grid, (0, 0, 0, 2), expand=False))
        noted = sum(1 for one in found if one.tool is not None and one.notes)
        servers = {one.server for one in found if one.server}
        of = f" of {count_of(len(servers), 'server')}" if servers else ""
        total = Text.assemble((f"{count_of(len(found), 'definition')}{of}: ", "bold"))
        total.append(f"{len(found) - len(refused):,} load", "green").append(f" ({noted:,} with a note)" if noted else "")
        console.print(total.append(", ").append(f"{len(refused):,} refused", "red" if refused else "default"))


def _loaded(one: Loaded) -> tuple[Text, Group]:
    """Its effect, or that it is refused; and what it looks like, with all that was found."""
    if one.tool is not None:
        mark, head = Text(one.tool.effect, EFFECT_STYLES[one.tool.effect]), _signature(one.tool)
    else:
        mark = Text("refused", "bold red")
        head = Text.assemble((clean(one.name) or "a definition without a name", "bold"), (f"  at {clean(one.at)}", "dim"))
    problems = [Padding(Text(clean(problem), "red"), (0, 0, 0, 2)) for problem in one.problems]
    notes = [Padding(Text.assemble(("note ", "dim"), clean(note)), (0, 0, 0, 2)) for note in one.notes]
    return mark, Group(head, *problems, *notes)
