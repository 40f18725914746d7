"""One record as the page shows it: its row, read from its shard, and what there is to say of single messages."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from tracemill.columns import Row, from_row, plain_row
from tracemill.errors import DatasetError
from tracemill.show import struck
from tracemill.trace import Conversation, Json, Preference, Record, Refusal, Rejection, Trace
from tracemill.viewer.entry import Part

BATCH = 64  # rows decoded at a time, until the wanted one is among them
_AT = re.compile(r"messages\[(\d+)\]")

Marks = dict[int, list[dict[str, str]]]


def shown(part: Part, path: Path, number: int) -> dict[str, Json]:
    """{form: 'trace' | 'conversation' | ..., record, marks, problem}. Raises DatasetError if the shard cannot be read."""
    row = read_row(path, number)
    cls = _form(part, row)
    problem = ""
    marks: Marks = {}
    try:
        plain = plain_row(cls, row)
        record = from_row(cls, row, plain)
        marks = _marks(plain, record)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as reason:  # JSON that is none, or a ValidationError
        problem = f"This is no whole record, tracemill verify says more: {' '.join(str(reason).splitlines()[:3])}"
        plain = _as_far_as_it_goes(cls, row)
    return {"form": cls.__name__.lower(), "record": plain, "marks": marks, "problem": problem}


def read_row(path: Path, number: int) -> Row:
    """All columns of one row of a shard, decoding no more than what stands before it in its row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if number < rows:
                    for batch in file.iter_batches(BATCH, row_groups=[group]):
                        if number < batch.num_rows:
                            return dict(batch.slice(number, 1).to_pylist()[0])
                        number -= batch.num_rows
                number -= rows
    except (OSError, pa.ArrowException, UnicodeDecodeError) as reason:
        raise DatasetError(f"{path} cannot be read: {reason}") from reason
    raise DatasetError(f"{path} has changed: reload the page")


def _form(part: Part, row: Row) -> type[Record]:
    if part == "preferences":
        return Preference
    if part == "rejects":
        return Rejection if "attempt" in row else Refusal
    return Trace if "scenario" in row else Conversation


def _as_far_as_it_goes(cls: type[Record], row: Row) -> dict[str, Json]:
    plain: dict[str, Json] = {}
    for name, value in row.items():
        try:
            plain |= plain_row(cls, {name: value})
        except ValueError:
            plain[name] = value
    return plain


# --- what there is to say -----------------------------------------------------------------------------------


def _marks(plain: Mapping[str, Json], record: Record) -> Marks:
    marks: Marks = defaultdict(list)
    for at, label, tone, detail in _remarks(plain, record):
        if not any(one["label"] == label and one.get("detail", "") == detail for one in marks[at]):
            marks[at].append({"label": label, "tone": tone, **({"detail": detail} if detail else {})})
    return marks


def _remarks(plain: Mapping[str, Json], record: Record) -> Iterator[tuple[int, str, str, str]]:
    """(index of the message, label, tone, detail)"""
    if isinstance(record, Trace):
        yield from _course(record)
    for verdict in plain.get("verdicts", ()):
        if verdict.get("at") is not None:
            tone = "good" if verdict["passed"] else "bad"
            yield verdict["at"], verdict["principle"], tone, f"{verdict.get('why', '')} ({verdict['severity']}, by {verdict['by']})".strip()
    if isinstance(record, Rejection | Refusal) and record.stage != "constitution":  # whose evidence is the verdicts
        for finding in record.evidence or (record.reason,):
            for at in sorted({int(number) for number in _AT.findall(finding)}):
                yield at, f"rejected: {record.stage}", "bad", finding


def _course(trace: Trace) -> Iterator[tuple[int, str, str, str]]:
    for at, kind in struck(trace):
        yield at, f"fault: {kind}", "warn", ""
    for at in trace.recovery.recovery if trace.recovery else ():
        yield at, "recovery", "good", ""
    said = {one.says for one in trace.scenario.interjections}
    for at, message in enumerate(trace.messages):
        if message.role == "user" and message.content in said:
            yield at, "speaks up", "info", ""
