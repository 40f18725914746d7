"""How records lie in Parquet: one column for each field, nested fields as JSON.

A list of records (messages, tools, verdicts) is a `List(Json())` column, any other nested field a `Json()` column of
`datasets`, whose storage is JSON text. So a row is made where the record is made, and the driver that writes it only
passes text on.
"""

from __future__ import annotations

import functools
import json
import types
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tracemill.trace import Json, OfferedTool, Record, tool_texts

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
T = TypeVar("T", bound=Record)


@functools.cache
def shapes(cls: type[Record]) -> dict[str, str]:
    """Column name -> 'text' | 'whole' | 'real' | 'flag' | 'texts' | 'records' | 'json'."""
    return {name: _shape(field.annotation) for name, field in cls.model_fields.items()}


def to_row(record: Record) -> Row:
    """One row; JSON columns as text, in the spelling of the record."""
    row: Row = {}
    for name, shape in shapes(type(record)).items():
        value = getattr(record, name)
        if name == "tools":
            row[name] = tool_texts(value)
        elif shape == "records":
            row[name] = [item.json_text() for item in value]
        elif shape == "texts":
            row[name] = list(value)
        elif shape == "json":
            row[name] = None if value is None else value.json_text() if isinstance(value, Record) else json.dumps(value, ensure_ascii=False)
        else:
            row[name] = value
    return row


def from_row(cls: type[T], row: Row, plain: dict[str, Json] | None = None) -> T:
    """The record of a row, as read from Parquet with JSON columns as text. Raises pydantic.ValidationError.

    `plain` is the row's `plain_row`, where it is known already.
    """
    values = plain_row(cls, row) if plain is None else plain
    if row.get("tools"):
        values = {**values, "tools": _offered(tuple(row["tools"]))}
    return cls.model_validate(values)


def plain_row(cls: type[Record], row: Row) -> dict[str, Json]:
    """The row as JSON values, the way `load_dataset` shows it, without fields that are null."""
    plain: dict[str, Json] = {}
    for name, value in row.items():
        shape = shapes(cls).get(name)
        if value is None:
            continue
        if name == "tools":
            plain[name] = plain_tools(tuple(value))
        elif shape == "records":
            plain[name] = [json.loads(item) for item in value]
        elif shape == "json":
            plain[name] = json.loads(value)
        else:
            plain[name] = value
    return plain


@functools.lru_cache(maxsize=256)
def plain_tools(texts: tuple[str, ...]) -> list[Json]:
    """The column `tools`. All rows that offer the same tools, which are many, share it: it is not to be changed."""
    return [json.loads(text) for text in texts]


@functools.lru_cache(maxsize=256)
def _offered(texts: tuple[str, ...]) -> tuple[OfferedTool, ...]:
    return tuple(OfferedTool.model_validate_json(text) for text in texts)


@functools.cache
def arrow_schema(cls: type[Record]) -> pa.Schema:
    """The Arrow schema with what `datasets` wants to know of it."""
    from datasets import Features, List, Value
    from datasets.features import Json as JsonFeature

    made: dict[str, Any] = {
        "text": lambda: Value("string"),
        "whole": lambda: Value("int64"),
        "real": lambda: Value("float64"),
        "flag": lambda: Value("bool"),
        "texts": lambda: List(Value("string")),
        "records": lambda: List(JsonFeature()),
        "json": lambda: JsonFeature(),
    }
    return Features({name: made[shape]() for name, shape in shapes(cls).items()}).arrow_schema


def table(cls: type[Record], rows: Sequence[Row]) -> pa.Table:
    """Rows as an Arrow table, ready for Parquet."""
    import pyarrow as pa

    storage = {"text": pa.string(), "whole": pa.int64(), "real": pa.float64(), "flag": pa.bool_(), "json": pa.string()}
    lists = pa.list_(pa.string())
    plain = pa.schema([(name, storage.get(shape, lists)) for name, shape in shapes(cls).items()])
    return pa.Table.from_pylist(list(rows), schema=plain).cast(arrow_schema(cls))


def _shape(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _shape(next(one for one in inner if one is not type(None)))
    if origin is typing.Annotated:
        return _shape(inner[0])
    if origin is typing.Literal:
        return "text"
    if origin is tuple:
        return "texts" if inner[0] is str else "records"
    return {str: "text", int: "whole", float: "real", bool: "flag"}.get(hint, "json")
