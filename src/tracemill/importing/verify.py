"""`tracemill verify` of an imported dataset: all that can be checked without the tools, from the files alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from tracemill.columns import Row, from_row, plain_row
from tracemill.errors import DatasetError
from tracemill.hygiene.removed import removed_records
from tracemill.importing.check import argument_problems, load, structure_problems, without_blunders
from tracemill.importing.write import STAGES
from tracemill.stats import part_files, read_rows
from tracemill.trace import Conversation, Json, Record, Refusal
from tracemill.verify import Fault, print_faults, record_digest, schema_problems

FOLDERS: dict[str, tuple[str, type[Record]]] = {"data/imported": ("conversation", Conversation), "rejects": ("refusal", Refusal)}


def verify_import(out: Path, run: dict[str, Any], *, report: Path | None) -> int:
    """Print a report; 0 if every record holds, else 1."""
    console = Console(highlight=False)
    faults: list[Fault] = []
    lines: list[tuple[str, str, int, str]] = []  # folder, id, index and, of a refusal, stage
    for folder, (kind, cls) in FOLDERS.items():
        for path in part_files(out / folder):
            file = f"{folder}/{path.name}"
            try:
                for number, row in enumerate(row for rows in read_rows(path, tuple(cls.model_fields)) for row in rows):
                    faults += [Fault(file, number, str(row["id"]), check, problem) for check, problem in row_problems(row, kind, cls)]
                    lines.append((folder, str(row["id"]), row["index"], str(row.get("stage"))))
            except DatasetError as reason:
                faults.append(Fault(file, -1, "", "file", str(reason)))
    faults += _whole(run, lines, [index for _, _, index in removed_records(out)] if "cleaned" in run else [])
    if report is not None:
        report.write_text("".join(json.dumps(fault.__dict__, ensure_ascii=False) + "\n" for fault in faults), encoding="utf-8")
    counted = Counter(folder for folder, *_ in lines)
    numbers = f"{counted['data/imported']:,} imported conversations, {counted['rejects']:,} refused rows"
    if faults:
        print_faults(console, out, faults, numbers)
        return 1
    console.print(
        f"[green]All good.[/] {numbers} in {escape(str(out))} checked: schema, structure, arguments, failed calls, digests, counts."
    )
    console.print("Not checked: whether the calls give these results, and whether the goal was reached. Imported tools cannot be run.")
    return 0


def row_problems(row: Row, kind: str, cls: type[Record]) -> list[tuple[str, str]]:
    """Everything that is wrong with one row, as (check, problem)."""
    try:
        plain = plain_row(cls, row)
    except (ValueError, TypeError, RecursionError) as reason:
        return [("schema", f"a column does not hold JSON of its kind: {reason}")]
    problems = schema_problems(kind, row, plain)
    if problems:
        return [("schema", str(problem)) for problem in problems]
    try:
        record = from_row(cls, row, plain)
    except ValidationError as reason:
        return [("schema", str(reason))]
    if not isinstance(record, Conversation):
        return []
    found = list(_conversation_problems(record))
    if record.digest != record_digest(row, plain):
        found.insert(0, ("digest", "the record is not the one that was written: its digest does not fit"))
    return found


def _conversation_problems(record: Conversation) -> Iterator[tuple[str, str]]:
    if record.id != record.name():
        yield "id", f"expected {record.name()}"
    offer = load([tool.plain() for tool in record.tools])
    yield from (("arguments", f"tools: {one}") for one in offer.refused)
    yield from (("structure", problem) for problem in structure_problems(record.messages))
    yield from (("arguments", problem) for problem in argument_problems(record.messages, offer.tools))
    for at, (message, marked) in enumerate(zip(record.messages, without_blunders(record.messages), strict=True)):
        if message != marked:
            yield "structure", f"messages[{at}]: a call in it failed, and it is not out of the loss"


def _whole(run: dict[str, Any], lines: list[tuple[str, str, int, str]], removed: Sequence[int]) -> Iterator[Fault]:
    """What only all records together show: what comes twice, and what is missing. Rows in `removed` are accounted for."""
    for (folder, id), number in Counter((folder, id) for folder, id, *_ in lines).items():
        if number > 1:
            yield Fault(folder, -1, id, "id", f"it is there {number} times")
    counts = run["counts"] if isinstance(run.get("counts"), dict) else {}
    indices = Counter([*removed, *(index for _, _, index, _ in lines if isinstance(index, int))])
    twice = sorted(index for index, number in indices.items() if number > 1)
    if twice:
        yield Fault("data/imported", -1, "", "count", f"more than one record is there of the rows {', '.join(map(str, twice[:20]))}")
    missing = [index for index in range(len(lines) + len(removed)) if index not in indices]
    if missing:
        yield Fault(
            "rejects", -1, "", "count", f"neither a conversation nor a refusal is there of the rows {', '.join(map(str, missing[:20]))}"
        )
    found = Counter(folder for folder, *_ in lines)
    stages = Counter(stage for folder, *_, stage in lines if folder == "rejects")
    there: dict[str, Json] = {
        "rows": len(lines) + len(removed),
        "accepted": found["data/imported"],
        "refused": {stage: stages[stage] for stage in STAGES if stages[stage]},
    }
    for name, number in there.items():
        if counts.get(name) != number:
            yield Fault("run.json", -1, "", "count", f"{name}: {number} are there, run.json counts {counts.get(name)}")
