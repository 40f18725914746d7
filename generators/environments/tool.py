"""Tools: definitions with a compiled argument check, and Python methods made into tools."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ConfigDict, create_model

from tracemill.errors import SchemaError
from tracemill.schemas.check import Checker, Problem
from tracemill.trace import KINDS, Effect, Json, Kind, ToolDefinition, canonical

F = TypeVar("F", bound=Callable[..., Any])


class Tool:
    """A definition with its compiled argument check."""

    __slots__ = ("_checker", "_seen", "definition", "kinds")

    def __init__(self, definition: ToolDefinition, kinds: tuple[Kind, ...] = KINDS) -> None:
        self.definition = definition
        self.kinds = kinds
        self._checker = Checker(definition.parameters)
        self._seen: dict[str, bool] = {}  # arguments found valid: a trace is checked three times over

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def effect(self) -> Effect:
        return self.definition.effect

    def problems(self, arguments: Json) -> list[Problem]:
        """All that is wrong with an arguments object, `format` included."""
        try:
            key = repr(arguments)  # of JSON values: tells 1 from 1.0 and True, and is quicker than JSON
            if "nan" in key or "inf" in key:
                canonical(arguments)
        except (ValueError, RecursionError):  # NaN, huge integers, endless nesting: nothing that JSON could carry
            return self._checker.problems(arguments) or [Problem("$", "the arguments cannot be written as JSON")]
        if key in self._seen:
            return []
        found = self._checker.problems(arguments)
        if not found:
            if len(self._seen) >= 256:  # what recurs does so within one trace
                self._seen.clear()
            self._seen[key] = True
        return found


@dataclass(frozen=True)
class ToolMark:
    effect: Effect
    kinds: tuple[Kind, ...]


def tool(effect: Effect, *, kinds: tuple[Kind, ...] = KINDS) -> Callable[[F], F]:
    """Make a method of an Environment a tool.

    The docstring becomes the description, the type hints the JSON Schema; describe and constrain a parameter by
    `Annotated[str, Field(description=..., pattern=...)]`. `kinds` limits the trace kinds that are offered it.
    """

    def mark(function: F) -> F:
        function.__tracemill_tool__ = ToolMark(effect, kinds)  # type: ignore[attr-defined]
        return function

    return mark


def method_tool(function: Callable[..., Any]) -> Tool:
    """The Tool of a method marked by `@tool`. Raises SchemaError where a parameter has no type hint."""
    marked: ToolMark = function.__tracemill_tool__  # type: ignore[attr-defined]
    hints = inspect.get_annotations(function, eval_str=True)
    fields: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        if name not in hints:
            raise SchemaError(f"tool {function.__name__!r}: parameter {name!r} needs a type hint")
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (hints[name], default)
    model = create_model(function.__name__, __config__=ConfigDict(extra="forbid"), **fields)
    schema = _without_titles(model.model_json_schema())
    schema.pop("description", None)
    definition = ToolDefinition(
        name=function.__name__,
        description=inspect.cleandoc(function.__doc__ or ""),
        parameters=schema,
        effect=marked.effect,
    )
    return Tool(definition, marked.kinds)


def _without_titles(schema: Json) -> Json:
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_titles(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
