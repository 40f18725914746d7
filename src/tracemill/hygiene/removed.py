"""The ledger of a cleaned run: `CLEAN/removed/*.parquet`, one row for each record that was taken out, with its reasons."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from tracemill.stats import part_files, read_rows
from tracemill.trace import Json, Record

Why = Literal["finding", "contamination", "near_duplicate"]


class Removed(Record):
    """A record that was taken out. What was found in it is masked; the original is in the run that was cleaned."""

    id: str
    index: int = Field(ge=0)
    kind: str = Field(description="Folder that it lay in: a trace kind, 'imported' or 'preferences'.")
    why: Why = Field(description="The first of its reasons.")
    evidence: tuple[str, ...] = Field(description="All that was found.")
    like: str = Field(default="", description="Of a near-duplicate: id of the trace that stays in its place.")
    record: dict[str, Json] = Field(description="The record as it was, secrets and personal data masked.")


def removed_records(out: Path) -> Iterator[tuple[str, str, int]]:
    """Kind, id and index of each. Raises DatasetError."""
    for path in part_files(out / "removed"):
        for rows in read_rows(path, ("kind", "id", "index")):
            yield from ((row["kind"], row["id"], row["index"]) for row in rows)
