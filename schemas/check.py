"""Validation by JSON Schema: every problem, each with its path.

`jsonschema` words the problems and has the last word in `tracemill verify`. While a run is being made, most
instances are valid, and telling that takes jsonschema milliseconds; `jsonschema_rs`, compiled from the same
schema, tells it in microseconds. Only what it refuses, or cannot compile, goes on to `jsonschema`. A test feeds
both thousands of broken records and asks for the same verdict.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jsonschema
import jsonschema_rs
from jsonschema.validators import validator_for

from tracemill.errors import SchemaError
from tracemill.trace import Json

RECORD_KINDS = ("trace", "preference", "rejection", "plan")


@dataclass(frozen=True)
class Problem:
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class Checker:
    """A compiled schema. Raises SchemaError, with all problems, if the schema itself is not valid."""

    def __init__(self, schema: Json, *, exact: bool = False) -> None:
        """`exact` leaves the fast path out: jsonschema alone decides."""
        problems = list(schema_problems(schema))
        if problems:
            raise SchemaError("not a valid JSON Schema", [str(problem) for problem in problems])
        validator: Any = validator_for(schema, default=jsonschema.Draft202012Validator)
        self._slow = validator(schema, format_checker=validator.FORMAT_CHECKER)
        self._fast = None if exact else _compile_fast(schema)

    def problems(self, instance: Json) -> list[Problem]:
        """All problems, in the order of the instance; empty when it conforms."""
        if self._fast is not None and self._fast.is_valid(instance):
            return []
        try:
            errors = sorted(self._slow.iter_errors(instance), key=lambda error: list(map(str, error.absolute_path)))
        except Exception as reason:  # noqa: BLE001 - an unresolvable $ref or a regular expression that Python lacks
            return [Problem("$", f"the schema cannot be applied: {type(reason).__name__}: {reason}")]
        return [Problem(error.json_path, _shorten(error.message)) for error in errors]


def schema_problems(schema: Json) -> Iterator[Problem]:
    """What is wrong with a schema, as its own meta-schema sees it."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield Problem("$", f"expected a JSON Schema object, got {type(schema).__name__}")
        return
    cls: Any = validator_for(schema, default=jsonschema.Draft202012Validator)
    for error in cls(cls.META_SCHEMA).iter_errors(schema):
        yield Problem(error.json_path, _shorten(error.message))


@functools.cache
def record_schema(kind: str) -> Json:
    """The published schema of a record kind, as stored beside this module."""
    return json.loads(files("tracemill.schemas").joinpath(f"{kind}.schema.json").read_text(encoding="utf-8"))


@functools.cache
def record_checker(kind: str, *, exact: bool = False) -> Checker:
    return Checker(record_schema(kind), exact=exact)


def _compile_fast(schema: Json) -> Any:
    try:
        return jsonschema_rs.validator_for(schema, validate_formats=True)
    except Exception:  # noqa: BLE001 - what it cannot compile, jsonschema decides alone
        return None


def _shorten(message: str, limit: int = 300) -> str:
    return message if len(message) <= limit else message[: limit - 1] + "…"
