"""`tracemill verify` of an export: every record by its schema, every pair against what people said of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from tracemill.annotating.export import SOURCE
from tracemill.columns import Row, from_row, plain_row, shapes
from tracemill.errors import DatasetError
from tracemill.schemas.check import Checker, record_checker
from tracemill.stats import part_files, read_rows
from tracemill.trace import Preference
from tracemill.verify import Fault, print_faults


def verify_export(out: Path, run: dict[str, Any], *, report: Path | None) -> int:
    """Print a report; 0 if every record holds, else 1. Raises DatasetError where there are no pairs."""
    console = Console(highlight=False)
    files = part_files(out / "preferences")
    if not files:
        raise DatasetError(f"{out} holds no preference pairs")
    said = _said(out)
    faults: list[Fault] = []
    ids: Counter[str] = Counter()
    checker = record_checker("preference")
    for path in files:
        rows = (row for some in read_rows(path, tuple(shapes(Preference))) for row in some)
        for number, row in enumerate(rows):
            ids[str(row["id"])] += 1
            faults += [Fault(f"preferences/{path.name}", number, str(row["id"]), *found) for found in _problems(row, checker, said)]
    faults += [Fault("preferences", -1, id, "id", f"it is there {number} times") for id, number in ids.items() if number > 1]
    faults += [Fault("run.json", -1, "", "count", problem) for problem in _miscounted(run, ids, said)]
    if report is not None:
        report.write_text("".join(json.dumps(fault.__dict__, ensure_ascii=False) + "\n" for fault in faults), encoding="utf-8")
    numbers = f"{ids.total():,} preference pairs, {sum(one.total() for one in said.values()):,} judgements"
    if faults:
        print_faults(console, out, faults, numbers)
        return 1
    console.print(f"All good. {numbers} in {out} checked: schema, majority, margin, counts.", markup=False, soft_wrap=True)
    console.print(
        "Not checked: whether the messages are those of the run, which is not here; `tracemill verify` of the run checks them there."
    )
    return 0


def _said(out: Path) -> dict[str, Counter[str]]:
    """What was said how often of each of the run's pairs."""
    said: dict[str, Counter[str]] = {}
    for path in part_files(out / "judgements"):
        for rows in read_rows(path, ("pair", "choice")):
            for row in rows:
                said.setdefault(str(row["pair"]), Counter())[str(row["choice"])] += 1
    return said


def _problems(row: Row, checker: Checker, said: dict[str, Counter[str]]) -> Iterator[tuple[str, str]]:
    try:
        plain = plain_row(Preference, row)
        problems = [str(problem) for problem in checker.problems(plain)]
        pair = from_row(Preference, row, plain) if not problems else None
    except (ValueError, TypeError, RecursionError) as reason:
        problems, pair = [f"a column does not hold JSON of its kind: {reason}"], None
    yield from (("schema", problem) for problem in problems)
    if pair is None:
        return
    votes = said.get(pair.id.removesuffix(f".{SOURCE}"), Counter())
    one, other, ties = votes["chosen"], votes["rejected"], votes["tie"]
    if pair.source != SOURCE:
        yield "preference", f"expected the source {SOURCE!r}, found {pair.source!r}"
    if one == other or max(one, other) <= ties:
        yield "preference", f"people did not decide it: {one} for one message, {other} for the other, {ties} ties"
    elif abs(pair.margin - abs(one - other) / (one + other + ties)) > 1e-9:
        yield "preference", f"its margin is {pair.margin:g}, which {one}, {other} and {ties} ties do not give"


def _miscounted(run: dict[str, Any], ids: Counter[str], said: dict[str, Counter[str]]) -> Iterator[str]:
    counts = run["counts"] if isinstance(run.get("counts"), dict) else {}
    there = {"preferences": ids.total(), "judgements": sum(votes.total() for votes in said.values())}
    for name, number in there.items():
        if counts.get(name) != number:
            yield f"{name}: {number} are there, run.json counts {counts.get(name)}"
