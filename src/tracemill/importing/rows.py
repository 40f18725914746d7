"""The rows of a file, one at a time: Parquet, JSON lines, or a JSON list (which alone is held in memory as a whole)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracemill.errors import DatasetError
from tracemill.trace import Json

BATCH = 64  # rows of Parquet read at a time


@dataclass(frozen=True)
class Unreadable:
    """A line that is no JSON."""

    text: str
    reason: str


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Json]:
    """What stands in each row, or an `Unreadable`. Of Parquet only these columns are read, or all where none of the first two is there,
    which are those of the conversation: the refusal then tells what the rows hold.

    Raises DatasetError where there is no file, or one that is none of the three.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        check_unpacked(path, magic)
        if magic == b"PAR1":
            yield from _parquet_rows(path, columns)
        elif _is_lines(path):
            yield from _line_rows(path)
        else:
            yield from _whole_rows(path, columns)
    except OSError as reason:
        raise DatasetError(f"{path} cannot be read: {reason.strerror or reason}") from reason


def check_unpacked(path: Path, magic: bytes) -> None:
    """Raises DatasetError for what gzip has packed, such as rows.jsonl.gz."""
    if magic.startswith(b"\x1f\x8b"):
        raise DatasetError(f"{path} is compressed: unpack it first, with gunzip -k {shlex.quote(str(path))}")


def _is_lines(path: Path) -> bool:
    """By its name, or because its first line is an object."""
    if path.suffix in (".jsonl", ".ndjson"):
        return True
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    return first.lstrip(b"\xef\xbb\xbf \t").startswith(b"{") and isinstance(_parsed(first), dict)


def _line_rows(path: Path) -> Iterator[Json]:
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield _parsed(line)


def _parsed(line: bytes) -> Json:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as reason:
        return Unreadable(line.decode("utf-8", "replace").strip(), _why(reason))


def _why(reason: Exception) -> str:
    return "nested too deeply to be read" if isinstance(reason, RecursionError) else f"not JSON: {reason}"


def _whole_rows(path: Path, columns: Sequence[str]) -> Iterator[Json]:
    data = path.read_bytes()
    if not data.strip():
        raise DatasetError(f"{path} is empty: expected a JSON list of rows, JSON lines, or Parquet")
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError) as reason:
        hint = "if it holds JSON lines, the first of which is broken, let its name end in .jsonl"
        raise DatasetError(f"{path} is neither a JSON list of rows, nor JSON lines, nor Parquet", [_why(reason), hint]) from reason
    if isinstance(whole, dict) and any(name in whole for name in columns):
        whole = [whole]
    if not isinstance(whole, list):
        raise DatasetError(f"{path} should hold a list of rows, and holds {'an object' if isinstance(whole, dict) else 'a single value'}")
    yield from whole


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Json]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            there = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH, columns=there if {*there} & {*columns[:2]} else None):
                yield from map(_without_nulls, batch.to_pylist())
    except (OSError, ValueError, pa.ArrowException) as reason:  # ValueError: a time that Python cannot hold
        raise DatasetError(f"{path} is no Parquet file that can be read: {' '.join(str(reason).split())[:200]}") from reason


def _without_nulls(value: Json) -> Json:
    """Arrow gives every row of a struct all fields of all rows: a null there says that the field was never written."""
    if isinstance(value, dict):
        return {key: _without_nulls(inside) for key, inside in value.items() if inside is not None}
    return [_without_nulls(inside) for inside in value] if isinstance(value, list) else value
