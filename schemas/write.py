"""The published schemas, made from the types in `trace.py`.

python -m tracemill.schemas.write            write schemas/*.schema.json
python -m tracemill.schemas.write --check    only say which of them are out of date; exit code 1 if any is
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from tracemill.generators.environments.base import Environment
from tracemill.schemas.check import DEFAULT_DIALECT
from tracemill.trace import Conversation, Json, Preference, Record, Refusal, Rejection, Scenario, Trace

FORMAT = 1  # goes up when a record of the old format is none of the new one
FOLDER = Path(__file__).parent
TYPES: dict[str, type[Record]] = {
    "trace": Trace, "preference": Preference, "rejection": Rejection, "conversation": Conversation, "refusal": Refusal, "scenario": Scenario,
}  # fmt: skip


class Precise(GenerateJsonSchema):
    """Schemas whose problems name the field that is wrong.

    A validator that meets `oneOf` or `anyOf` can only say that none of the branches holds. Here the tag of a union
    picks the branch by `if`/`then`, and so does null for what may be left out.
    """

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        tag = schema["discriminator"]
        if not isinstance(tag, str):
            raise TypeError(f"a union needs the name of its tag, got {tag!r}")
        choices: dict[str, JsonSchemaValue] = {str(key): self.generate_inner(one) for key, one in schema["choices"].items()}
        branches = [
            {"if": {"properties": {tag: {"const": key}}, "required": [tag]}, "then": branch}  # without `required` none would hold all
            for key, branch in choices.items()
        ]
        return {"type": "object", "required": [tag], "properties": {tag: {"enum": list(choices)}}, "allOf": branches}

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        """Within 64 bits, as Parquet stores it; a schema without bounds would take 1e300 for an integer."""
        made = super().int_schema(schema)
        return {"maximum": 2**63 - 1, **made} if "minimum" in made else {"minimum": -(2**63), "maximum": 2**63 - 1, **made}

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        if isinstance(inner.get("type"), str) and "const" not in inner:
            allowed = {"enum": [*inner["enum"], None]} if "enum" in inner else {}
            return {**inner, **allowed, "type": [inner["type"], "null"]}
        return {"if": {"not": {"type": "null"}}, "then": inner}

    def field_is_required(self, field: Any, total: bool) -> bool:
        inner = field["schema"]
        if inner["type"] == "default" and inner["schema"]["type"] == "literal" and len(inner["schema"]["expected"]) == 1:
            return True  # a tag is always written, and other tools look for it
        return super().field_is_required(field, total)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # it would only be the field's name again


def generated(kind: str) -> Json:
    """The schema of a record kind, as the types say it."""
    if kind == "plan":
        update = Environment.toolbox()["update_plan"].definition
        made = {"title": "Plan", "description": f"The arguments of the tool `update_plan`. {update.description}", **update.parameters}
    else:
        made = TYPES[kind].model_json_schema(schema_generator=Precise)
    head = {"$schema": DEFAULT_DIALECT, "$id": f"urn:tracemill:{kind}:{FORMAT}", "title": made["title"], "description": made["description"]}
    definitions = {"$defs": made["$defs"]} if "$defs" in made else {}
    return {**head, **{key: value for key, value in made.items() if key not in head and key != "$defs"}, **definitions}


def text(kind: str) -> str:
    return json.dumps(generated(kind), indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tracemill.schemas.write", description="Write schemas/*.schema.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file is out of date")
    check = parser.parse_args(arguments).check
    stale = [kind for kind in (*TYPES, "plan") if not _same(FOLDER / f"{kind}.schema.json", text(kind))]
    for kind in stale:
        if not check:
            (FOLDER / f"{kind}.schema.json").write_text(text(kind), encoding="utf-8")
        print(f"{kind}.schema.json {'is out of date; run make schemas' if check else 'written'}")
    return 1 if check and stale else 0


def _same(path: Path, wanted: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == wanted


if __name__ == "__main__":
    sys.exit(main())
