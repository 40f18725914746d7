"""`tracemill verify`: check a dataset again from its files alone.

Every record is read back, its schema checked by jsonschema alone, its scenario drawn again from seed and index, its
calls replayed, its goal, proof and rules judged again, and all that was recorded compared with what comes out now.
What no check of meaning can see (another wording, say) the record's digest shows.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from tracemill.columns import Row, from_row, plain_row
from tracemill.config import Config
from tracemill.constitution.constitution import Constitution, load_constitution
from tracemill.errors import DatasetError, ScenarioError
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.rollout import system_prompt
from tracemill.generators.scenario import scenario
from tracemill.inspection import Finding, inspect
from tracemill.job import build_job
from tracemill.pipeline import Job
from tracemill.schemas.check import record_checker
from tracemill.trace import KINDS, AssistantMessage, Kind, Preference, Record, Rejection, SystemMessage, Trace, UserMessage

RECORDS: dict[str, type[Record]] = {"trace": Trace, "preference": Preference, "rejection": Rejection}
CHUNK = 100  # rows that one task of a worker checks
SHOWN = 20


@dataclass(frozen=True)
class Fault:
    """One problem of one record."""

    file: str
    row: int
    id: str
    check: str
    problem: str


@dataclass(frozen=True)
class Checked:
    """What a worker says of a chunk: its problems, and what the parent needs to see the whole."""

    faults: list[Fault]
    ids: list[tuple[str, int, str, str]]
    """(id, index, kind or '', file) of each row that could be read."""


def verify(out: Path, *, workers: int = 0, report: Path | None = None) -> int:
    """Print a report; 0 if every record holds, else 1. Raises DatasetError if the folder holds no run."""
    console = Console()
    run = read_run(out)
    config = run_config(run)
    if build_job(config).digest != run.get("digest"):
        raise DatasetError(
            f"{out} cannot be checked: its config gives another digest here, so its scenarios would be others",
            [f"made by tracemill {run.get('tracemill')}; a changed environment, constitution or version changes the digest"],
        )
    tasks = list(_tasks(out))
    if not any(record == "trace" for _, record, _ in tasks):
        raise DatasetError(f"{out} holds no accepted traces yet")
    faults: list[Fault] = []
    ids: list[tuple[str, int, str, str]] = []
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers or os.cpu_count() or 1, mp_context=context, initializer=_begin, initargs=(config,)) as pool,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task("Checking", total=len(tasks))
        for done in as_completed([pool.submit(_check, out, *task) for task in tasks]):
            checked = done.result()
            faults += checked.faults
            ids += checked.ids
            progress.advance(bar)
    faults += _whole(config, run, ids)
    faults.sort(key=lambda fault: (fault.file, fault.row, fault.check))
    if report is not None:
        report.write_text("".join(json.dumps(fault.__dict__, ensure_ascii=False) + "\n" for fault in faults), encoding="utf-8")
    _print(console, out, faults, Counter(file.split("/")[0] for _, _, _, file in ids))
    return 1 if faults else 0


def read_run(out: Path) -> dict[str, Any]:
    """run.json. Raises DatasetError."""
    try:
        run: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"{out} holds no run: there is no run.json in it") from None
    except (OSError, ValueError) as reason:
        raise DatasetError(f"{out / 'run.json'} cannot be read: {reason}") from reason
    return run


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


def _tasks(out: Path) -> Iterator[tuple[str, str, int]]:
    """(file, record kind, first row) of every chunk."""
    import pyarrow.parquet as pq

    folders = [(f"data/{kind}", "trace") for kind in KINDS] + [("preferences", "preference"), ("rejects", "rejection")]
    for folder, record in folders:
        for path in sorted((out / folder).glob("*.parquet")):
            for first in range(0, pq.read_metadata(path).num_rows, CHUNK):
                yield f"{folder}/{path.name}", record, first


def _check(out: Path, file: str, record: str, first: int) -> Checked:
    import pyarrow.parquet as pq

    assert _standard is not None
    rows: list[Row] = pq.read_table(out / file, partitioning=None).slice(first, CHUNK).to_pylist()
    faults: list[Fault] = []
    ids: list[tuple[str, int, str, str]] = []
    siblings = _siblings(out, {row["index"] for row in rows}) if record == "preference" else {}
    for number, row in enumerate(rows, first):
        found = check_row(row, record, _standard.job, _standard.constitution, siblings)
        faults += [Fault(file, number, str(row.get("id")), check, problem) for check, problem in found]
        ids.append((str(row.get("id")), row.get("index") or 0, str(row.get("kind") or ""), file))
    if record == "trace":
        folder = file.split("/")[1]
        faults += [
            Fault(file, first + n, i, "place", f"a {kind} lies among {folder}") for n, (i, _, kind, _) in enumerate(ids) if kind != folder
        ]
    return Checked(faults, ids)


def check_row(row: Row, record: str, job: Job, constitution: Constitution, siblings: dict[int, list[Record]]) -> list[tuple[str, str]]:
    """Everything that is wrong with one row, as (check, problem)."""
    cls = RECORDS[record]
    try:
        plain = plain_row(cls, row)
    except ValueError as reason:
        return [("schema", f"a column is not JSON: {reason}")]
    problems = record_checker(record, exact=True).problems(plain)
    if problems:
        return [("schema", str(problem)) for problem in problems]
    try:
        read = from_row(cls, row)
    except ValidationError as reason:
        return [("schema", str(reason))]
    if isinstance(read, Trace):
        return asyncio.run(trace_problems(read, job, constitution))
    if isinstance(read, Preference):
        return list(_preference_problems(read, siblings.get(read.index, [])))
    if isinstance(read, Rejection) and read.id != f"{job.id_of(read.index)}.{read.attempt}":
        return [("id", f"expected {job.id_of(read.index)}.{read.attempt}")]
    return []


async def trace_problems(trace: Trace, job: Job, constitution: Constitution) -> list[tuple[str, str]]:
    """Everything that is wrong with a trace that conforms to its schema."""
    found: list[tuple[str, str]] = []
    if trace.digest != trace.seal():
        found.append(("digest", "the record is not the one that was written: its digest does not fit"))
    if trace.id != job.id_of(trace.index):
        found.append(("id", f"expected {job.id_of(trace.index)} at index {trace.index}"))
    try:
        drawn = scenario(job.seed, trace.index, job.mix)
    except ScenarioError as reason:
        return [*found, ("scenario", f"cannot be drawn again: {reason}")]
    if trace.scenario != drawn:
        found.append(("scenario", "it is not the one that seed and index give: " + ", ".join(_different(trace.scenario, drawn))))
        trace = trace.model_copy(update={"scenario": drawn})  # the goal is what was asked, not what a record says was asked
    for name in ("kind", "environment", "template", "seed", "difficulty"):
        if getattr(trace, name) != getattr(drawn, name):
            found.append(("scenario", f"{name} should be {getattr(drawn, name)!r}, is {getattr(trace, name)!r}"))
    cls = environment(drawn.environment)
    offered = cls.tools(drawn.kind)
    if trace.tools != tuple(tool.offered() for tool in offered) or trace.effects != {tool.name: tool.effect for tool in offered}:
        found.append(("tools", "they are not the tools that the environment offers"))
    found += [("messages", problem) for problem in _given_messages(trace)]
    now = await inspect(trace, cls, constitution, exact=False)  # the schema was checked exactly, on the row
    if isinstance(now, Finding):
        return found + [(now.stage, problem) for problem in now.problems]
    if now.outcome != trace.outcome:
        found.append(("goal", "the recorded outcome is not what the checks find"))
    if now.state_digest != trace.state_digest:
        found.append(("replay", f"the end state is {now.state_digest}, recorded {trace.state_digest}"))
    if now.recovery != trace.recovery:
        found.append(("proof", "the recorded recovery is not what the proof finds"))
    if tuple(v for v in trace.verdicts if v.by == "rule") != now.verdicts:
        found.append(("constitution", "the recorded verdicts are not those of the rules"))
    return found


def _given_messages(trace: Trace) -> Iterator[str]:
    """Messages that follow from the scenario, and marks that follow from the recovery."""
    first, second = trace.messages[0], trace.messages[1]
    if not isinstance(first, SystemMessage) or first.content != system_prompt(environment(trace.scenario.environment), trace.scenario.kind):
        yield "messages[0] is not the system message of this environment and kind"
    if not isinstance(second, UserMessage) or second.content != trace.scenario.opening:
        yield "messages[1] is not the user's opening"
    said = [m.content for m in trace.messages if isinstance(m, UserMessage)]
    yield from (f"the user never said {one.says!r}" for one in trace.scenario.interjections if one.says not in said)
    wrong = tuple(at for at, m in enumerate(trace.messages) if isinstance(m, AssistantMessage) and not m.train)
    recorded = trace.recovery.wrong if trace.recovery else ()
    if wrong != recorded:
        yield f"messages out of the loss are {list(wrong)}, the recovery names {list(recorded)}"


def _preference_problems(pair: Preference, siblings: list[Record]) -> Iterator[tuple[str, str]]:
    at = len(pair.prompt)
    trace = next((one for one in siblings if isinstance(one, Trace) and one.id == pair.trace), None)
    if trace is None:
        yield "preference", f"there is no trace {pair.trace}"
    elif (*pair.prompt, *pair.chosen) != trace.messages[: at + 1]:
        yield "preference", f"prompt and chosen are not the beginning of {pair.trace}"
    drafts = [one.messages for one in siblings if isinstance(one, Rejection)]
    if not any((*pair.prompt, *pair.rejected) == messages[: at + 1] for messages in drafts):
        yield "preference", "the rejected message is in no draft of the ledger"


def _siblings(out: Path, indices: set[int]) -> dict[int, list[Record]]:
    """Traces and rejections of these indices."""
    import pyarrow.parquet as pq

    found: dict[int, list[Record]] = {}
    sources: list[tuple[str, type[Record]]] = [*((f"data/{kind}", Trace) for kind in KINDS), ("rejects", Rejection)]
    for folder, cls in sources:
        for path in sorted((out / folder).glob("*.parquet")):
            rows = pq.read_table(path, partitioning=None, filters=[("index", "in", sorted(indices))]).to_pylist()
            for row in rows:
                try:
                    found.setdefault(row["index"], []).append(from_row(cls, row))
                except ValueError:
                    continue  # reported where the row itself is checked
    return found


def _different(recorded: Record, drawn: Record) -> list[str]:
    return [name for name in type(drawn).model_fields if getattr(recorded, name) != getattr(drawn, name)]


# --- the whole ----------------------------------------------------------------------------------------------


def _whole(config: Config, run: dict[str, Any], ids: list[tuple[str, int, str, str]]) -> Iterator[Fault]:
    """What only all records together show: ids that come twice, and numbers that are not those of the config."""
    seen = Counter((id, file.split("/")[0]) for id, _, _, file in ids)
    for (id, place), number in seen.items():
        if number > 1:
            yield Fault(place, -1, id, "id", f"it is there {number} times")
    if not run.get("complete"):
        return
    counts = Counter(kind for _, _, kind, file in ids if file.startswith("data/"))
    quotas: dict[Kind, int] = config.quotas()
    for kind in KINDS:
        if counts[kind] != quotas.get(kind, 0):
            yield Fault(f"data/{kind}", -1, "", "count", f"{counts[kind]} traces, the config asks for {quotas.get(kind, 0)}")


def _print(console: Console, out: Path, faults: list[Fault], counted: Counter[str]) -> None:
    where = escape(str(out))
    numbers = f"{counted['data']:,} traces, {counted['preferences']:,} preference pairs, {counted['rejects']:,} rejections"
    if not faults:
        console.print(f"[green]All good.[/] {numbers} in {where} checked: schema, arguments, replay, goal, proofs, rules.", highlight=False)
        return
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
