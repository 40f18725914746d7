"""Validation by JSON Schema: every problem, each with its path.

`jsonschema` words the problems and has the last word in `tracemill verify`. While a run is being made, most
instances are valid, and telling that takes jsonschema milliseconds; `jsonschema_rs`, compiled from the same
schema, tells it in microseconds. Only what it refuses, or cannot compile, goes on to `jsonschema`. Both are given
the same functions for `format` and `pattern`, and schemas with keywords that they read differently are left to
jsonschema alone. A test feeds both thousands of broken instances and asks for one verdict.

Neither ever fetches anything: a `$ref` leads into the schema itself or to a meta-schema, or it is a problem.
"""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import jsonschema
import jsonschema_rs
from jsonschema.validators import extend
from jsonschema_specifications import REGISTRY as META_SCHEMAS  # type: ignore[import-untyped]
from referencing.jsonschema import specification_with

from tracemill.errors import SchemaError
from tracemill.trace import Json

RECORD_KINDS = ("trace", "preference", "rejection", "conversation", "refusal", "scenario", "plan")
MAX_DEPTH = 64  # of a schema, and of what a recursive schema is applied to: the validators recurse along with it

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class Checker:
    """A compiled schema. Raises SchemaError, with all problems, if the schema itself cannot be used."""

    def __init__(self, schema: Json, *, exact: bool = False) -> None:
        """`exact` leaves the fast path out: jsonschema alone decides."""
        problems = list(schema_problems(schema))
        if problems:
            raise SchemaError("not a valid JSON Schema", [str(problem) for problem in problems])
        self._recursive = isinstance(schema, dict) and _recursive(schema)
        self._slow = _compile_slow(schema)
        self._fast = None if exact else _compile_fast(schema)

    def problems(self, instance: Json) -> list[Problem]:
        """All problems, in the order of the instance; empty when it conforms."""
        if self._recursive and nested_deeper(instance, MAX_DEPTH):
            return [Problem("$", f"nested deeper than {MAX_DEPTH} levels")]
        if self._fast is not None and self._fast(instance):
            return []
        try:
            errors = sorted(self._slow.iter_errors(instance), key=lambda error: list(error.absolute_path))
        except BaseException as reason:
            # A value that is no JSON, or a stack that ran out, which one of jsonschema's parts reports by a panic
            # outside of Exception.
            if not isinstance(reason, Exception) and type(reason).__name__ != "PanicException":
                raise
            return [Problem("$", f"the schema cannot be applied: {type(reason).__name__}: {_shorten(str(reason))}")]
        return [Problem(error.json_path, _shorten(error.message)) for error in errors]


@functools.cache
def record_schema(kind: str) -> Json:
    """The published schema of a record kind, as stored beside this module."""
    return json.loads(files("tracemill.schemas").joinpath(f"{kind}.schema.json").read_text(encoding="utf-8"))


@functools.cache
def record_checker(kind: str, *, exact: bool = False) -> Checker:
    return Checker(record_schema(kind), exact=exact)


# --- is the schema itself any good? -------------------------------------------------------------------------

DIALECTS: dict[str, Any] = {
    "http://json-schema.org/draft-04/schema": jsonschema.Draft4Validator,
    "http://json-schema.org/draft-06/schema": jsonschema.Draft6Validator,
    "http://json-schema.org/draft-07/schema": jsonschema.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema.Draft202012Validator,
}
DEFAULT_DIALECT = "https://json-schema.org/draft/2020-12/schema"

TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")
_MEANT = {
    "str": "string", "text": "string", "date": "string", "int": "integer", "long": "integer", "float": "number", "double": "number",
    "decimal": "number", "bool": "boolean", "list": "array", "tuple": "array", "dict": "object", "map": "object", "none": "null",
}  # fmt: skip

# Where the schemas inside a schema are. Those of `_IN_PLACE` speak of the same instance as the schema around them.
MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
SINGLE = (
    "items", "additionalItems", "contains", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties",
    "not", "if", "then", "else", "contentSchema",
)  # fmt: skip
KEYWORDS = frozenset(jsonschema.Draft7Validator.META_SCHEMA["properties"]).union(
    *(cls.VALIDATORS for cls in DIALECTS.values()),
    ("$anchor", "$defs", "contentSchema", "deprecated", "id", "maxContains", "minContains"),
)
_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def schema_problems(schema: Json) -> Iterator[Problem]:
    """What keeps a schema from being used.

    What its meta-schema says, and what no meta-schema sees: a reference that leads nowhere or only in a circle, a
    regular expression that does not compile.
    """
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield Problem("$", f"expected a JSON Schema object, got {type(schema).__name__}")
        return
    if nested_deeper(schema, MAX_DEPTH):
        yield Problem("$", f"nested deeper than {MAX_DEPTH} levels")
        return
    found = list(_dialect_problems(schema)) or list(_meta_problems(schema, schema, ())) or _Survey(schema).problems
    yield from dict.fromkeys(found)  # a dialect of several vocabularies says some things several times


def subschemas(schema: dict[str, Json]) -> Iterator[tuple[Path, Json]]:
    """What stands in a schema where schemas belong, each with the way to it."""
    for key in MAPS:
        inside = schema.get(key)
        if isinstance(inside, dict):
            yield from (((key, name), one) for name, one in inside.items() if not (key == "dependencies" and isinstance(one, list)))
    for key in LISTS:
        inside = schema.get(key)
        if isinstance(inside, list):
            yield from (((key, at), one) for at, one in enumerate(inside))
    for key in SINGLE:
        if isinstance(schema.get(key), dict):
            yield (key,), schema[key]


def all_schemas(schema: Json, path: Path = ()) -> Iterator[tuple[Path, dict[str, Json]]]:
    """A schema and, at any depth, the schemas inside it."""
    if isinstance(schema, dict):
        yield path, schema
        for way, inside in subschemas(schema):
            yield from all_schemas(inside, path + way)


def nested_deeper(value: Json, limit: int) -> bool:
    """Whether dicts and lists stand in one another more than `limit` levels deep; safe at any depth."""
    level = [value]
    for _ in range(limit + 1):
        level = [one for one in level if isinstance(one, dict | list)]
        if not level:
            return False
        level = [inside for outside in level for inside in (outside.values() if isinstance(outside, dict) else outside)]
    return True


def json_path(path: Path) -> str:
    """As jsonschema spells it: $.properties.x, $[0], $['odd key']."""
    return jsonschema.ValidationError("", path=path).json_path


def dialect_uri(named: Json) -> str | None:
    """The key into DIALECTS for a value of `$schema`, with or without '#', http or https; None if there is none."""
    if not isinstance(named, str):
        return None
    bare = named.strip().removesuffix("#").split("://", 1)[-1]
    return next((uri for uri in DIALECTS if uri.split("://", 1)[-1] == bare), None)


def _dialect_problems(schema: dict[str, Json]) -> Iterator[Problem]:
    root = dialect_uri(schema.get("$schema", DEFAULT_DIALECT))
    for path, one in all_schemas(schema):
        if "$schema" in one and (dialect_uri(one["$schema"]) is None or dialect_uri(one["$schema"]) != root):
            known = "another dialect than the schema around it" if dialect_uri(one["$schema"]) else "not a dialect that is known here"
            yield Problem(json_path((*path, "$schema")), _shorten(f"{one['$schema']!r} is {known}"))


def _meta_problems(root: dict[str, Json], schema: Json, path: Path) -> Iterator[Problem]:
    """What the meta-schema of `root` says of a schema in it."""
    cls = _dialect(root)
    if _meta_fast(cls)(schema):
        return
    for error in cls(cls.META_SCHEMA, registry=META_SCHEMAS).iter_errors(schema):
        where = json_path((*path, *error.absolute_path))
        bad = [one for one in _listed(error.instance) if one not in TYPES]
        if error.absolute_path and error.absolute_path[-1] == "type" and bad and "type" in error.absolute_schema_path:
            yield Problem(where, "; ".join(_unknown_type(one) for one in bad))
        else:
            yield Problem(where, _shorten(error.message))


def _unknown_type(name: Json) -> str:
    if isinstance(name, str):
        meant = _MEANT.get(name.lower(), name.lower())
        if meant in TYPES:
            return _shorten(f"{name!r} is no JSON Schema type; {meant!r} is")
        if meant in ("any", "mixed", "unknown"):
            return f"{name!r} is no JSON Schema type; leave `type` out to allow any"
    return _shorten(f"{name!r} is no JSON Schema type; there are {', '.join(TYPES)}")


class _Survey:
    """A walk through a schema, also along its references."""

    def __init__(self, root: dict[str, Json]) -> None:
        self.problems: list[Problem] = []
        self.recursive = False
        self._specification = specification_with(_uri(root))
        self._paths: dict[int, Path] = {}
        self._in_place: dict[int, set[int]] = {}
        self._anywhere: dict[int, set[int]] = {}
        self._references: list[tuple[Path, str, int, Any]] = []
        self._walk(root, (), META_SCHEMAS.resolver_with_root(self._specification.create_resource(root)))
        for path, reference, source, resolver in self._references:  # grows while targets are walked
            self._follow(root, path, reference, source, resolver)
        circle = _circle(self._in_place)
        if circle:
            ways = sorted(json_path(self._paths[one]) for one in circle if one in self._paths)
            self.problems.append(Problem(ways[0], "the reference leads only back to itself: " + ", ".join(ways[:5])))
        self.recursive = bool(_circle(self._anywhere))

    def _walk(self, schema: dict[str, Json], path: Path, resolver: Any) -> None:
        if id(schema) in self._paths:
            return
        self._paths[id(schema)] = path
        self._patterns(schema, path)
        for key in _REFERENCES:
            if isinstance(schema.get(key), str):
                self._references.append(((*path, key), schema[key], id(schema), resolver))
        for way, inside in subschemas(schema):
            if not isinstance(inside, dict):
                continue
            self._anywhere.setdefault(id(schema), set()).add(id(inside))
            if way[0] in _IN_PLACE:
                self._in_place.setdefault(id(schema), set()).add(id(inside))
            try:
                inner = resolver.in_subresource(self._specification.create_resource(inside))
            except Exception as reason:  # noqa: BLE001 - an `$id` that is no URI
                self.problems.append(Problem(json_path(path + way), f"its id cannot be read: {_shorten(str(reason))}"))
                continue
            self._walk(inside, path + way, inner)

    def _follow(self, root: dict[str, Json], path: Path, reference: str, source: int, resolver: Any) -> None:
        try:
            found = resolver.lookup(reference)
        except Exception:  # noqa: BLE001 - nothing there, no URI, or an anchor that is none
            self.problems.append(Problem(json_path(path), _shorten(f"the reference {reference!r} leads nowhere")))
            return
        target = found.contents
        if isinstance(target, bool):
            return
        if not isinstance(target, dict):
            self.problems.append(Problem(json_path(path), _shorten(f"the reference {reference!r} leads to something that is no schema")))
            return
        self._in_place.setdefault(source, set()).add(id(target))
        self._anywhere.setdefault(source, set()).add(id(target))
        if id(target) not in self._paths:  # outside of the places that the meta-schema has seen
            if reference.startswith("#/"):
                path = tuple(part.replace("~1", "/").replace("~0", "~") for part in reference[2:].split("/"))
            wrong = list(_meta_problems(root, target, path))
            self.problems += wrong
            if not wrong:
                self._walk(target, path, found.resolver)

    def _patterns(self, schema: dict[str, Json], path: Path) -> None:
        patterns = [((*path, "pattern"), schema["pattern"])] if isinstance(schema.get("pattern"), str) else []
        if isinstance(schema.get("patternProperties"), dict):
            patterns += [((*path, "patternProperties", one), one) for one in schema["patternProperties"]]
        for where, pattern in patterns:
            reason = _regex_problem(pattern)
            if reason:
                message = f"{pattern!r} is no regular expression that Python knows: {reason}"
                self.problems.append(Problem(json_path(where), _shorten(message)))


def _circle(edges: dict[int, set[int]]) -> list[int]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _recursive(schema: dict[str, Json]) -> bool:
    return any(key in one for _, one in all_schemas(schema) for key in _REFERENCES) and _Survey(schema).recursive


# --- the two validators -------------------------------------------------------------------------------------

# What random schemas showed them to read differently, or one of them to fail on.
_READ_DIFFERENTLY = frozenset(
    {
        "patternProperties",  # the fast one has its own dialect of regular expressions
        "contentEncoding", "contentMediaType",  # checked by one, a remark for the other
        "dependencies",  # still read by one in the dialects that no longer have it
        "additionalItems", "unevaluatedItems", "unevaluatedProperties",
        "$dynamicRef", "$recursiveRef", "$vocabulary",
    }
)  # fmt: skip


def _multiple_of(validator: Any, factor: float, instance: Json, schema: Json) -> Iterator[jsonschema.ValidationError]:
    """In decimal, as it is written: by binary floats 4.35 would be no multiple of 0.01."""
    if validator.is_type(instance, "number") and (Fraction(repr(instance)) / Fraction(repr(factor))).denominator != 1:
        yield jsonschema.ValidationError(f"{instance!r} is not a multiple of {factor!r}")


def _regex_problem(pattern: str) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what may mean something else in a later Python is fine today
        try:
            re.compile(pattern)
        except Exception as reason:  # noqa: BLE001 - re.error, but also OverflowError and RecursionError
            return str(reason)
    return None


def _formats() -> jsonschema.FormatChecker:
    """One table for every dialect, as draft-07 has no `uuid`, yet schemas that declare it use that format.

    Some checks of jsonschema fail on odd texts with an exception of another kind than they announce: here any
    exception means that the text is not of the format.
    """
    checker = jsonschema.FormatChecker(())
    for name, (function, _) in jsonschema.Draft202012Validator.FORMAT_CHECKER.checkers.items():
        checker.checkers[name] = (function, Exception)
    checker.checkers["regex"] = (lambda text: not isinstance(text, str) or _regex_problem(text) is None, ())
    # An IRI is what becomes a URI once its other letters are escaped (RFC 3987, 3.1). The parser that jsonschema
    # would take for it needs milliseconds for a text.
    for name in ("iri", "iri-reference"):
        checker.checkers[name] = (functools.partial(_is_iri, f"u{name[1:]}", checker), ())
    return checker


_ASCII = "".join(map(chr, range(128)))


def _is_iri(kind: str, checker: jsonschema.FormatChecker, text: object) -> bool:
    return not isinstance(text, str) or checker.conforms(quote(text, safe=_ASCII, errors="replace"), kind)


FORMATS = _formats()
_DECIMAL: dict[str, Any] = {
    uri: extend(cls, {"multipleOf": _multiple_of})  # type: ignore[no-untyped-call]
    for uri, cls in DIALECTS.items()
}


class _Pattern:
    """Python's `re`, for the fast validator too."""

    def __init__(self, parent: Json, pattern: str, path: Json) -> None:
        self._search = re.compile(pattern).search

    def validate(self, instance: Json) -> None:
        if isinstance(instance, str) and not self._search(instance):
            raise ValueError("does not match")


def _uri(schema: Json) -> str:
    return (dialect_uri(schema.get("$schema", DEFAULT_DIALECT)) if isinstance(schema, dict) else None) or DEFAULT_DIALECT


def _dialect(schema: Json) -> Any:
    return DIALECTS[_uri(schema)]


def _compile_slow(schema: Json) -> Any:
    # Without its `$schema`, or jsonschema would go back to its own class wherever a reference leads to the root.
    bare = {key: value for key, value in schema.items() if key != "$schema"} if isinstance(schema, dict) else schema
    return _DECIMAL[_uri(schema)](bare, format_checker=FORMATS, registry=META_SCHEMAS)


def _compile_fast(schema: Json) -> Callable[[Json], bool] | None:
    for path, one in all_schemas(schema):
        if _READ_DIFFERENTLY & one.keys() or (path and any(key in one for key in ("$id", "id", "$schema"))):
            return None
    formats: dict[str, Callable[..., bool]] = {name: functools.partial(FORMATS.conforms, format=name) for name in FORMATS.checkers}
    try:
        check = jsonschema_rs.validator_for(
            schema, validate_formats=True, formats=formats, keywords={"pattern": _Pattern}, offline=True
        ).is_valid
    except Exception:  # noqa: BLE001 - what it cannot compile, jsonschema decides alone
        return None
    return functools.partial(_safely, check)


@functools.cache
def _meta_fast(cls: Any) -> Callable[[Json], bool]:
    return functools.partial(_safely, jsonschema_rs.validator_for(cls.META_SCHEMA, offline=True).is_valid)


def _safely(check: Callable[[Json], bool], instance: Json) -> bool:
    try:
        return check(instance)
    except Exception:  # noqa: BLE001 - a lone surrogate, for one: jsonschema will say what is wrong, if anything
        return False


def _listed(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value]


def _shorten(message: str, limit: int = 300) -> str:
    return message if len(message) <= limit else message[: limit - 1] + "…"
