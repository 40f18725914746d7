"""`tracemill verify`: check a dataset again from its files alone.

Every record is read back, its schema checked by jsonschema alone, its scenario drawn again from seed and index, its
calls replayed, its goal, proof and rules judged again, and all that was recorded compared with what comes out now.
What no check of meaning can see (another wording, say) the record's digest shows. Of a complete run, all indices up to
the last must be accounted for: by a trace, or by a final rejection.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from tracemill.columns import Row, from_row, plain_row, plain_tools
from tracemill.config import Config
from tracemill.constitution.constitution import Constitution, load_constitution
from tracemill.errors import DatasetError, ScenarioError
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.rollout import NOTICE, system_prompt
from tracemill.generators.scenario import kind_of, scenario
from tracemill.hygiene.removed import removed_records
from tracemill.inspection import Finding, inspect
from tracemill.job import build_job
from tracemill.pipeline import Job
from tracemill.schemas.check import Checker, Problem, record_schema
from tracemill.siblings import SOURCES, same_way
from tracemill.stats import is_import, read_record
from tracemill.trace import (
    KINDS,
    AssistantMessage,
    Conversation,
    Effect,
    Json,
    Kind,
    OfferedTool,
    Preference,
    Record,
    Refusal,
    Rejection,
    Scenario,
    SystemMessage,
    ToolMessage,
    Trace,
    UserMessage,
    fingerprint,
)  # fmt: skip

RECORDS: dict[str, type[Record]] = {
    "trace": Trace, "preference": Preference, "rejection": Rejection, "conversation": Conversation, "refusal": Refusal,
}  # fmt: skip
CHUNK = 100  # rows that one task of a worker checks
SHOWN = 20
REPEATED = frozenset({"tools", "effects", "outcome", "verdicts"})
"""Columns that hold the same few texts in row after row."""


Task = tuple[str, str, int]
"""A chunk: its file, the kind of its records, its first row."""


@dataclass(frozen=True)
class Fault:
    """One problem of one record."""

    file: str
    row: int
    id: str
    check: str
    problem: str


@dataclass(frozen=True)
class Line:
    """What the parent needs of a row to see the whole.

    `drafts` is how many rejected ones a trace claims to have had, or which attempt a rejection was.
    """

    file: str
    id: str
    index: int
    kind: str
    drafts: int
    final: bool


@dataclass(frozen=True)
class Checked:
    """What a worker says of a chunk."""

    faults: list[Fault]
    lines: list[Line]


def verify(out: Path, *, workers: int = 0, report: Path | None = None) -> int:
    """Print a report; 0 if every record holds, else 1. Raises DatasetError if the folder holds no run."""
    console = Console()
    run = read_run(out)
    if is_import(run):
        from tracemill.importing.verify import verify_import  # which builds on this module

        return verify_import(out, run, report=report)
    if "annotations" in run:
        from tracemill.annotating.verify import verify_export  # which builds on this module

        return verify_export(out, run, report=report)
    config = run_config(run)
    job = build_job(config)
    if job.digest != run.get("digest"):
        raise DatasetError(
            f"{out} cannot be checked: its config gives another digest here, so its scenarios would be others",
            [f"made by tracemill {run.get('tracemill')}; a changed environment, constitution or version changes the digest"],
        )
    tasks, faults = _tasks(out)
    if not faults and not any(record == "trace" for _, record, _ in tasks):
        raise DatasetError(f"{out} holds no accepted traces yet")
    lines: list[Line] = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Checking", total=len(tasks))
        for checked in _run(out, config, tasks, workers):
            faults += checked.faults
            lines += checked.lines
            progress.advance(bar)
    faults += _whole(config, job, run, lines, dict(_removed(out)) if "cleaned" in run else {})
    faults.sort(key=lambda fault: (fault.file, fault.row, fault.check))
    if report is not None:
        report.write_text("".join(json.dumps(fault.__dict__, ensure_ascii=False) + "\n" for fault in faults), encoding="utf-8")
    _print(console, out, faults, Counter(line.file.split("/")[0] for line in lines))
    return 1 if faults else 0


def _run(out: Path, config: Config, tasks: list[Task], workers: int) -> Iterator[Checked]:
    """All tasks, as they are done; in this process where there is too little to do for starting others."""
    number = workers or min(os.cpu_count() or 1, len(tasks) // 4)
    if number <= 1:
        _begin(config)
        yield from (_check(out, *task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(number, mp_context=context, initializer=_begin, initargs=(config,)) as pool:
        yield from (done.result() for done in as_completed([pool.submit(_check, out, *task) for task in tasks]))


def read_run(out: Path) -> dict[str, Any]:
    """run.json. Raises DatasetError."""
    path = out / "run.json"
    if not path.is_file():
        raise DatasetError(f"{out} holds no run: there is no run.json in it")
    return read_record(path)


def run_config(run: dict[str, Any]) -> Config:
    """The config that a run was made with. Raises DatasetError."""
    try:
        return Config.model_validate(run["config"])
    except (KeyError, ValidationError) as reason:
        raise DatasetError(f"run.json holds no valid config: {reason}") from reason


# --- one chunk, in a worker ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Standard:
    job: Job
    constitution: Constitution


_standard: _Standard | None = None


def _begin(config: Config) -> None:
    global _standard
    _standard = _Standard(build_job(config), load_constitution(config.constitution))


def _tasks(out: Path) -> tuple[list[Task], list[Fault]]:
    """Every chunk, and the files that cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tasks: list[Task] = []
    faults: list[Fault] = []
    folders = [(f"data/{kind}", "trace") for kind in KINDS] + [("preferences", "preference"), ("rejects", "rejection")]
    for folder, record in folders:
        for path in sorted((out / folder).glob("*.parquet")):
            file = f"{folder}/{path.name}"
            try:
                rows = pq.read_metadata(path).num_rows
            except (OSError, pa.ArrowException) as reason:
                faults.append(_unreadable(file, reason))
                continue
            tasks += [(file, record, first) for first in range(0, rows, CHUNK)]
    return tasks, faults


def _unreadable(file: str, reason: Exception) -> Fault:
    return Fault(file, -1, "", "file", f"it is no Parquet file that can be read: {' '.join(str(reason).split())}")


def _check(out: Path, file: str, record: str, first: int) -> Checked:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[Row] = pq.read_table(out / file, partitioning=None).slice(first, CHUNK).to_pylist()
    except (OSError, pa.ArrowException) as reason:
        return Checked([_unreadable(file, reason)], [])
    faults = asyncio.run(_chunk_faults(out, file, record, first, rows))
    lines = [_line(file, row) for row in rows]
    if record == "trace":
        folder = file.split("/")[1]
        strays = [(number, line) for number, line in enumerate(lines, first) if line.kind != folder]
        faults += [Fault(file, number, line.id, "place", f"a {line.kind} lies among {folder}") for number, line in strays]
    return Checked(faults, lines)


def _line(file: str, row: Row) -> Line:
    """What a broken row lacks is -1 here: that it is broken is said elsewhere."""
    index, drafts = (one if isinstance(one, int) else -1 for one in (row.get("index"), row.get("revisions", row.get("attempt"))))
    return Line(file, str(row.get("id")), index, str(row.get("kind")), drafts, row.get("final") is True)


async def _chunk_faults(out: Path, file: str, record: str, first: int, rows: list[Row]) -> list[Fault]:
    assert _standard is not None
    faults: list[Fault] = []
    siblings = _siblings(out, {row.get("index") for row in rows}) if record == "preference" else {}
    checks = [check_row(row, record, _standard.job, _standard.constitution, siblings) for row in rows]
    found_in = await asyncio.gather(*checks)  # side by side: some environments start servers
    for number, (row, found) in enumerate(zip(rows, found_in, strict=True), first):
        faults += [Fault(file, number, str(row.get("id")), check, problem) for check, problem in found]
    return faults


# --- one row ------------------------------------------------------------------------------------------------


async def check_row(
    row: Row, record: str, job: Job, constitution: Constitution, siblings: dict[int, list[Record]]
) -> list[tuple[str, str]]:
    """Everything that is wrong with one row, as (check, problem). `siblings` are the records of a preference's index."""
    cls = RECORDS[record]
    try:
        plain = plain_row(cls, row)
    except (ValueError, TypeError, RecursionError) as reason:
        return [("schema", f"a column does not hold JSON of its kind: {reason}")]
    problems = schema_problems(record, row, plain)
    if problems:
        return [("schema", str(problem)) for problem in problems]
    try:
        read = from_row(cls, row, plain)
        match read:
            case Trace():
                found = await trace_problems(read, job, constitution)
                if read.digest != record_digest(row, plain):
                    found.insert(0, ("digest", "the record is not the one that was written: its digest does not fit"))
                return found
            case Preference():
                return [("preference", problem) for problem in _preference_problems(read, siblings.get(read.index, []))]
            case Rejection():
                return list(_rejection_problems(read, job))
    except ValidationError as reason:
        return [("schema", str(reason))]
    except Exception as reason:  # noqa: BLE001 - whatever a record makes fail, it is that record that is at fault
        return [("error", f"it cannot be checked: {type(reason).__name__}: {reason}")]
    return []


def schema_problems(record: str, row: Row, plain: dict[str, Json]) -> list[Problem]:
    """What jsonschema alone says of a row.

    Some columns it is asked by themselves, which comes to the same, as no column has a say in what another may hold:
    so a text that comes again and again is checked once.
    """
    frame, apart = _row_checkers(record)
    found = frame.problems(plain)
    for name in apart.keys() & plain.keys():
        value = row[name]
        found += _text_problems(record, name, tuple(value) if isinstance(value, list) else value)
    return found


@functools.lru_cache(maxsize=256)
def _text_problems(record: str, name: str, text: str | tuple[str, ...]) -> tuple[Problem, ...]:
    plain = plain_row(RECORDS[record], {name: text})
    return tuple(_row_checkers(record)[1][name].problems(plain))


@functools.cache
def _row_checkers(record: str) -> tuple[Checker, dict[str, Checker]]:
    """The published schema in parts: without what `REPEATED` columns may hold, and that for each of them."""
    schema = _quick(record_schema(record), record_schema(record).get("$defs", {}))
    apart = {name: one for name, one in schema["properties"].items() if name in REPEATED}
    frame = Checker({**schema, "properties": {**schema["properties"], **dict.fromkeys(apart, True)}}, exact=True)
    dialect = {"$schema": schema["$schema"]}
    return frame, {name: Checker({**dialect, "properties": {name: one}}, exact=True) for name, one in apart.items()}


def _quick(schema: Json, definitions: dict[str, Json]) -> Json:
    """The same schema in the form that jsonschema gets through fastest.

    Definitions stand where they are referred to, and the branches of a tagged union, of which one at most can hold, are
    each the `else` of another, so that those after the one that holds are not tried.
    """
    if isinstance(schema, list):
        return [_quick(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    quick = {key: _quick(one, definitions) for key, one in schema.items() if key not in ("$ref", "$defs")}
    if "$ref" in schema:
        target = _quick(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
        quick = {**target, **quick} if quick.keys() <= {"description", "default"} else {"allOf": [target], **quick}
    if all(isinstance(one, dict) and one.keys() == {"if", "then"} for one in quick.get("allOf", [None])):
        chain: Json = True
        for branch in quick.pop("allOf"):
            chain = {**branch, "else": chain}
        quick |= chain
    return quick


def record_digest(row: Row, plain: dict[str, Json]) -> str:
    """What `Trace.seal()` gives, of the record as it was written: nothing that reading it would mend is mended."""
    rest = {key: value for key, value in plain.items() if key != "digest"}
    return fingerprint({**rest, "tools": _tools_digest(tuple(row["tools"]))})


@functools.lru_cache(maxsize=256)
def _tools_digest(texts: tuple[str, ...]) -> str:
    return fingerprint(plain_tools(texts))


async def trace_problems(trace: Trace, job: Job, constitution: Constitution) -> list[tuple[str, str]]:
    """Everything that is wrong with a trace that conforms to its schema, its digest apart."""
    found: list[tuple[str, str]] = []
    if trace.id != job.id_of(trace.index):
        found.append(("id", f"expected {job.id_of(trace.index)} at index {trace.index}"))
    try:
        drawn = scenario(job.seed, trace.index, job.mix)
    except ScenarioError as reason:
        return [*found, ("scenario", f"cannot be drawn again: {reason}")]
    if trace.scenario != drawn:
        found.append(("scenario", "it is not the one that seed and index give: " + ", ".join(_different(trace.scenario, drawn))))
        trace = trace.model_copy(update={"scenario": drawn})  # the goal is what was asked, not what a record says was asked
    found += _unlike(trace, drawn, ("kind", "environment", "template", "seed", "difficulty"))
    if (trace.tools, trace.effects) != _offer(drawn.environment, drawn.kind):
        found.append(("tools", "they are not the tools that the environment offers"))
    found += [("messages", problem) for problem in _given_messages(trace)]
    now = await inspect(trace, environment(drawn.environment), constitution, conforms=True)
    if isinstance(now, Finding):
        return found + [(now.stage, problem) for problem in now.problems]
    if now.outcome != trace.outcome:
        found.append(("goal", "the recorded outcome is not what the checks find"))
    if now.state_digest != trace.state_digest:
        found.append(("replay", f"the end state is {now.state_digest}, recorded {trace.state_digest}"))
    if now.recovery != trace.recovery:
        found.append(("proof", "the recorded recovery is not what replay and proof find"))
    if tuple(v for v in trace.verdicts if v.by == "rule") != now.verdicts:
        found.append(("constitution", "the recorded verdicts are not those of the rules"))
    return found


@functools.cache
def _offer(name: str, kind: Kind) -> tuple[tuple[OfferedTool, ...], dict[str, Effect]]:
    tools = environment(name).tools(kind)
    return tuple(tool.offered() for tool in tools), {tool.name: tool.effect for tool in tools}


def _given_messages(trace: Trace) -> Iterator[str]:
    """What of the messages is not the agent's to choose: who has the word, ids, and what the scenario says."""
    drawn = trace.scenario
    first, second = trace.messages[0], trace.messages[1]
    if not isinstance(first, SystemMessage) or first.content != system_prompt(environment(drawn.environment), drawn.kind):
        yield "messages[0] is not the system message of this environment and kind"
    if not isinstance(second, UserMessage) or second.content != drawn.opening:
        yield "messages[1] is not the user's opening"
    due = {one.says: one for one in drawn.interjections}
    said = Counter(m.content for m in trace.messages[2:] if isinstance(m, UserMessage))
    yield from (f"the user said {said[says]} times instead of once: {says!r}" for says in due if said[says] != 1)
    returned: set[str] = set()  # tools whose results stand right before
    for at, message in enumerate(trace.messages[2:], 2):
        before = trace.messages[at - 1]
        if isinstance(message, ToolMessage):
            returned = {message.name, *(returned if isinstance(before, ToolMessage) else ())}
        elif isinstance(message, AssistantMessage):
            returned = set()
        elif isinstance(message, UserMessage) and (returned or not isinstance(before, AssistantMessage)):
            step = drawn.steps[due[message.content].after] if message.content in due else None
            calls = [call.tool for call in (step.call, step.fallback) if call] if step else []
            if returned.isdisjoint(calls):
                yield f"messages[{at}]: the user speaks up where nothing gives occasion to"
    ids = [call.id for _, call, _ in trace.calls()]
    if ids != [f"call_{number}" for number in range(1, len(ids) + 1)]:
        yield "the call ids are not call_1, call_2, ... in order"
    yield from _wrong_steps(trace)


def _wrong_steps(trace: Trace) -> Iterator[str]:
    """A script makes the mistakes that its scenario names. A model makes its own: what could not be carried out, and said so."""
    out_of_loss = _out_of_loss(trace)
    named = [(one.call.tool, one.call.arguments) for one in trace.scenario.mistakes for _ in range(one.times)]
    if named:
        wrong = [(call.name, call.arguments) for at, call, _ in trace.calls() if at in out_of_loss]
        if wrong != named or len(out_of_loss) != len(named):
            yield f"messages out of the loss are {out_of_loss}, which are not the {len(named)} wrong steps of the scenario"
        return
    offered = {tool.function.name for tool in trace.tools}
    careless = {
        at for at, call, result in trace.calls() if call.name not in offered or (result and '"code": "invalid_arguments"' in result.content)
    }
    notices = {at for at, one in enumerate(trace.messages) if isinstance(one, UserMessage) and one.content.startswith(NOTICE)}
    yield from (
        f"messages[{at}] is out of the loss, and nothing is wrong with it" for at in out_of_loss if not {at, at + 1} & (careless | notices)
    )
    yield from (f"messages[{at}] is a notice about a message that is not out of the loss" for at in notices if at - 1 not in out_of_loss)


def _out_of_loss(trace: Trace) -> list[int]:
    return [at for at, message in enumerate(trace.messages) if isinstance(message, AssistantMessage) and not message.train]


def _unlike(record: Trace | Rejection, drawn: Scenario, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if getattr(record, name) != getattr(drawn, name):
            yield "scenario", f"{name} should be {getattr(drawn, name)!r}, is {getattr(record, name)!r}"


def _rejection_problems(rejection: Rejection, job: Job) -> Iterator[tuple[str, str]]:
    expected = job.rejection_id(rejection.index, rejection.attempt, rejection.sibling)
    if rejection.id != expected:
        yield "id", f"expected {expected}"
    if rejection.environment:  # none where the scenario could not be drawn, or its actor died
        yield from _unlike(rejection, scenario(job.seed, rejection.index, job.mix), ("kind", "environment", "template"))


def _preference_problems(pair: Preference, siblings: list[Record]) -> Iterator[str]:
    at = len(pair.prompt)
    trace = next((one for one in siblings if isinstance(one, Trace) and one.id == pair.trace), None)
    if trace is None:
        yield f"there is no trace {pair.trace}"
        return
    if (*pair.prompt, *pair.chosen) != trace.messages[: at + 1]:
        yield f"prompt and chosen are not the beginning of {pair.trace}"
    if pair.tools != trace.tools:
        yield f"the tools are not those of {pair.trace}"
    ledger = [one for one in siblings if isinstance(one, Rejection)]
    yield from _revised_problems(pair, trace, ledger) if pair.source.startswith("revision:") else _parted_problems(pair, trace, ledger)


def _revised_problems(pair: Preference, trace: Trace, ledger: list[Rejection]) -> Iterator[str]:
    at = len(pair.prompt)
    if (pair.id, pair.margin) != (f"{trace.id}.p{trace.revisions}", 1.0):
        yield f"expected {trace.id}.p{trace.revisions} with a margin of 1, found {pair.id} with one of {pair.margin:g}"
    drafts = [one for one in ledger if (*pair.prompt, *pair.rejected) == one.messages[: at + 1]]
    if not drafts:
        yield "the rejected message is in no draft of the ledger"
    elif not any(f"revision:{found.split(' ')[0]}" == pair.source for one in drafts for found in one.evidence):
        yield f"no draft of the ledger broke what the pair names: {pair.source}"


def _parted_problems(pair: Preference, trace: Trace, ledger: list[Rejection]) -> Iterator[str]:
    at = len(pair.prompt)
    if pair.source not in SOURCES or not 0 < pair.margin <= 1 or not pair.id.startswith(f"{trace.id}.s"):
        yield f"expected {trace.id}.sN with a margin above 0 and at most 1 and a source of {', '.join(SOURCES)}; found {pair.id}, {pair.margin:g}, {pair.source}"
    if not any(one.messages[at : at + 1] == pair.rejected and same_way(pair.prompt, one.messages[:at]) for one in ledger):
        yield "the rejected message is in no sibling of the ledger that came the same way"


def _siblings(out: Path, indices: set[Any]) -> dict[int, list[Record]]:
    """Traces and rejections of these indices. What cannot be read is reported where it is checked itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = sorted(index for index in indices if isinstance(index, int))
    found: dict[int, list[Record]] = {}
    sources: list[tuple[str, type[Record]]] = [*((f"data/{kind}", Trace) for kind in KINDS), ("rejects", Rejection)]
    for folder, cls in sources:
        for path in sorted((out / folder).glob("*.parquet")):
            with contextlib.suppress(OSError, pa.ArrowException):
                for row in pq.read_table(path, partitioning=None, filters=[("index", "in", wanted)]).to_pylist():
                    with contextlib.suppress(ValueError, TypeError, RecursionError):
                        found.setdefault(row["index"], []).append(from_row(cls, row))
    return found


def _different(recorded: Record, drawn: Record) -> list[str]:
    return [name for name in type(drawn).model_fields if getattr(recorded, name) != getattr(drawn, name)]


# --- the whole ----------------------------------------------------------------------------------------------


def _removed(out: Path) -> Iterator[tuple[int, str]]:
    """Index and kind of the traces that a cleaning took out."""
    yield from ((index, kind) for kind, _, index in removed_records(out) if kind in KINDS)


def _whole(config: Config, job: Job, run: dict[str, Any], lines: list[Line], removed: Mapping[int, str]) -> Iterator[Fault]:
    """What only all records together show: what comes twice, and what is missing. `removed` is accounted for."""
    for (place, id), number in Counter((line.file.split("/")[0], line.id) for line in lines).items():
        if number > 1:
            yield Fault(place, -1, id, "id", f"it is there {number} times")
    traces = {line.index: line for line in lines if line.file.startswith("data/")}
    ledger = [line for line in lines if line.file.startswith("rejects/")]
    drafts: dict[int, list[int]] = {}
    for line in ledger:
        if not line.final:
            drafts.setdefault(line.index, []).append(line.drafts)
    for index, line in traces.items():
        # each revision has its draft in the ledger; beside the first one there may be siblings that failed
        beside = config.siblings - (line.drafts == 0)
        attempts = sorted(drafts.get(index, []))
        first = attempts.count(0)
        if attempts[first:] != list(range(1, line.drafts)) or first > beside or (line.drafts and not first):
            yield Fault(line.file, -1, line.id, "ledger", f"revisions is {line.drafts}, but the ledger holds its drafts {attempts}")
    for line in (line for index, line in traces.items() if index in removed):
        yield Fault(line.file, -1, line.id, "count", "it is there, and among the removed")
    if not run.get("complete"):
        return
    counts = Counter(line.kind for line in traces.values())
    gone = Counter(removed.values())
    quotas: dict[Kind, int] = config.quotas()
    for kind in KINDS:
        if counts[kind] + gone[kind] != quotas.get(kind, 0):
            told = f" and {gone[kind]} removed" if removed else ""
            yield Fault(f"data/{kind}", -1, "", "count", f"{counts[kind]} traces{told}, the config asks for {quotas.get(kind, 0)}")
    pairs = sum(line.file.startswith("preferences/") for line in lines)
    counted = run.get("counts")
    if not isinstance(counted, dict) or pairs != counted.get("preferences"):
        yield Fault("preferences", -1, "", "count", f"{pairs} pairs, which is not what run.json counts: {counted}")
    missing = _unaccounted(config, job, traces.keys() | removed.keys(), {line.index for line in ledger if line.final})
    if missing:
        shown = ", ".join(map(str, missing)) + (" and more" if len(missing) == SHOWN else "")
        yield Fault("rejects", -1, "", "count", f"neither a trace nor a final rejection is there of the indices {shown}")


def _unaccounted(config: Config, job: Job, accepted: Collection[int], rejected: Collection[int]) -> list[int]:
    """The first indices that must have been milled before every kind had its number, and of which nothing is there."""
    left = Counter(config.quotas())
    missing: list[int] = []
    index, last = 0, max(accepted, default=-1)
    while index <= last and left.total() and len(missing) < SHOWN:
        kind = kind_of(job.seed, index, job.mix)
        if left[kind] and index in accepted:
            left[kind] -= 1
        elif left[kind] and index not in rejected:
            missing.append(index)
        index += 1
    return missing


def _print(console: Console, out: Path, faults: list[Fault], counted: Counter[str]) -> None:
    where = escape(str(out))
    numbers = f"{counted['data']:,} traces, {counted['preferences']:,} preference pairs, {counted['rejects']:,} rejections"
    if not faults:
        console.print(f"[green]All good.[/] {numbers} in {where} checked: schema, arguments, replay, goal, proofs, rules.", highlight=False)
        return
    print_faults(console, out, faults, numbers)


def print_faults(console: Console, out: Path, faults: list[Fault], numbers: str) -> None:
    """How many, of which check, and the first of them. `numbers` says of what."""
    where = escape(str(out))
    broken = {(fault.file, fault.row) for fault in faults}
    console.print(f"[red]{len(broken):,} record(s) failed[/] of {numbers} in {where}.", highlight=False)
    for check, number in Counter(fault.check for fault in faults).most_common():
        console.print(f"  {check:13} {number:,}", highlight=False)
    for fault in faults[:SHOWN]:
        console.print(
            f"{escape(fault.file)} row {fault.row} {escape(fault.id)}\n  [bold]{fault.check}[/]: {escape(fault.problem[:400])}",
            highlight=False,
        )
    if len(faults) > SHOWN:
        console.print(f"… and {len(faults) - SHOWN:,} more; --report FILE writes them all.", highlight=False)
