"""The files of an export: JSON lines, or Parquet with the features that `datasets` reads back as they were."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracemill.trace import Json

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 256  # rows of Parquet held in memory, and written as one group


class Sink(AbstractContextManager["Sink"], ABC):
    """One file."""

    @abstractmethod
    def add(self, row: dict[str, Json]) -> None: ...


class Lines(Sink):
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def add(self, row: dict[str, Json]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def __exit__(self, *exc: object) -> None:
        self._file.close()


class Parquet(Sink):
    """`columns`: each 'text' or 'records', a list of JSON values, which is stored as JSON text and read as values. Each may be null."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq
        from datasets import Features, List, Value
        from datasets.features import Json as JsonFeature

        self._columns = columns
        shape: dict[str, Any] = {name: List(JsonFeature()) if kind == "records" else Value("string") for name, kind in columns.items()}
        self._schema: pa.Schema = Features(shape).arrow_schema
        self._plain = pa.schema([(name, pa.list_(pa.string()) if kind == "records" else pa.string()) for name, kind in columns.items()])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, Json]] = []

    def add(self, row: dict[str, Json]) -> None:
        self._rows.append(
            {
                name: [json.dumps(one, ensure_ascii=False) for one in value]
                if value is not None and self._columns[name] == "records"
                else value
                for name, value in row.items()
            }
        )
        if len(self._rows) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._plain).cast(self._schema))
            self._rows = []

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
