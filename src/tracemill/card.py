"""The dataset card: README.md of an output folder, as the Hub and `load_dataset` read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import yaml

from tracemill.licence import explained, licence_of
from tracemill.trace import KINDS, Json

if TYPE_CHECKING:
    from tracemill.writer import Tally

TEMPLATE = Path(__file__).with_name("card_template.md")


def render(out: Path, run: Mapping[str, Json], tally: Tally, *, complete: bool) -> str:
    """The card for what is on disk now. Only folders that hold shards become configs: an empty one breaks loading."""
    config = run["config"]
    values = {
        "front": yaml.safe_dump(_front(out, config, tally), sort_keys=False, allow_unicode=True).strip(),
        "title": config["name"],
        "state": "complete" if complete else "still being made; this card is brought up to date with every shard",
        "counts": _table(("kind", "accepted traces"), [(kind, tally.accepted[kind]) for kind in KINDS if tally.accepted[kind]]),
        "stages": _stages(tally),
        "environments": ", ".join(f"`{name}`" for name in config["environments"]),
        "teacher": _named(config["teacher"]),
        "seed": config["seed"],
        "version": run["tracemill"],
        "tokens": f"{tally.prompt_tokens:,} read and {tally.completion_tokens:,} written",
        "license": explained(config["license"], _roles(config)),
        "example": _example(out),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def _roles(config: Mapping[str, Json]) -> list[Json]:
    return [config.get(role) for role in ("teacher", "user", "critic")]


def _license(config: Mapping[str, Json]) -> dict[str, Json]:
    """The Hub wants a name and a link where its keyword is 'other'."""
    found = licence_of(_roles(config))
    if config["license"] != "other" or found.id != "other":
        return {"license": config["license"]}
    return {"license": "other", "license_name": found.name, **({"license_link": found.link} if found.link else {})}


def _named(teacher: Json) -> str:
    """The model; where it runs is nobody's business."""
    return str(teacher) if isinstance(teacher, str) else str(teacher.get("model") or "a model behind an endpoint")


def _front(out: Path, config: Mapping[str, Json], tally: Tally) -> dict[str, Json]:
    kinds = [kind for kind in KINDS if any((out / "data" / kind).glob("part-*.parquet"))]
    configs: list[dict[str, Json]] = []
    if kinds:
        configs.append({"config_name": "default", "data_files": [f"data/{kind}/*.parquet" for kind in kinds], "default": True})
        configs += [{"config_name": kind, "data_files": f"data/{kind}/*.parquet"} for kind in kinds]
    for name in ("preferences", "rejects"):
        if any((out / name).glob("part-*.parquet")):
            configs.append({"config_name": name, "data_files": f"{name}/*.parquet"})
    total = tally.accepted.total()
    sizes = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return {
        "pretty_name": config["name"],
        **_license(config),
        "language": ["en"],
        "task_categories": ["text-generation"],
        "tags": ["agent-traces", "tool-use", "function-calling", "synthetic", "tracemill"],
        "size_categories": [next((label for bound, label in sizes if total < bound), "1M<n<10M")],
        **({"configs": configs} if configs else {}),
    }


def _stages(tally: Tally) -> str:
    rows = [(stage, reached, lost, f"{(reached - lost) / reached:.1%}" if reached else "-") for stage, reached, lost in tally.stages()]
    return _table(("stage", "reached it", "rejected", "passed"), rows)


def _example(out: Path) -> str:
    """The first trace on disk, shortened: a reader wants the shape."""
    import pyarrow.parquet as pq

    path = next((path for kind in KINDS for path in sorted((out / "data" / kind).glob("part-*.parquet"))), None)
    if path is None:
        return "There is none yet."
    row = next(pq.ParquetFile(path).iter_batches(batch_size=1, columns=["id", "kind", "environment", "messages"])).to_pylist()[0]
    messages = [json.loads(text) for text in row["messages"]]
    for message in messages:
        if len(message["content"]) > 280:
            message["content"] = message["content"][:280] + "…"
    shown = {"id": row["id"], "kind": row["kind"], "environment": row["environment"], "messages": messages}
    return "```json\n" + json.dumps(shown, indent=2, ensure_ascii=False).replace("```", "'''") + "\n```"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
