"""The model card: README.md of a training's folder, as the Hub reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml

from tracemill.trace import Json

TEMPLATE = Path(__file__).with_name("card_template.md")
LOSSES = {
    "loss": "training loss",
    "eval_loss": "evaluation loss",
    "eval_mean_token_accuracy": "evaluation: tokens predicted rightly",
    "eval_rewards/margins": "evaluation: reward of chosen over rejected",
    "eval_rewards/accuracies": "evaluation: pairs ranked rightly",
}
ADAPTER_USE = """\
```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("PATH_OR_REPO")
```

With vLLM: `--enable-lora --lora-modules agent=PATH_OR_REPO`. With tracemill: `tracemill evaluate --policy PATH`."""
WHOLE_USE = """\
```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("PATH_OR_REPO")
```

vLLM takes the folder as it is. With tracemill: `tracemill evaluate --policy PATH`."""


def render(record: Mapping[str, Json]) -> str:
    """The card from what training.json holds."""
    settings, whole = record["settings"], record["settings"]["method"] == "full"
    base = base_model(record)["name"]
    values = {
        "front": yaml.safe_dump(_front(record), sort_keys=False, allow_unicode=True).strip(),
        "title": f"{base.rpartition('/')[2]}, trained on {', '.join(one['name'] for one in record['datasets'])}",
        "what": "A full fine-tune" if whole else "A LoRA adapter",
        "base": base,
        "version": record["tracemill"],
        "kind": {"sft": "supervised fine-tuning", "dpo": "direct preference optimization"}[record["kind"]],
        "method": settings["method"],
        "datasets": _datasets(record["datasets"]),
        "report": "\n".join(f"- {line}" for line in record["told"]),
        "hub": _hub(record.get("commits", {})),
        "reasoning": {"train": ", its reasoning included", "keep": "; its reasoning was context", "drop": "; its reasoning was left out"}[
            settings["reasoning"]
        ],
        "losses": _losses(record["history"]),
        "use": WHOLE_USE if whole else ADAPTER_USE,
        "settings": _table(("setting", "value"), [(f"`{key}`", f"`{value}`") for key, value in settings.items() if key != "data"]),
        "packages": ", ".join(f"{name} {number}" for name, number in record["versions"].items()),
        "processes": record["processes"],
        "license": _license(record),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def base_model(record: Mapping[str, Json]) -> Json:
    """The model that training began with; that of an adapter, if one was trained on."""
    return record["model"].get("base", record["model"])


def _front(record: Mapping[str, Json]) -> dict[str, Json]:
    settings = record["settings"]
    return {
        "base_model": base_model(record)["name"],
        "library_name": "transformers" if settings["method"] == "full" else "peft",
        "pipeline_tag": "text-generation",
        "license": settings["license"] or "other",
        "datasets": [one["name"] for one in record["datasets"]],
        "tags": ["agent", "tool-use", "function-calling", record["kind"], settings["method"], "tracemill", "trl"],
    }


def _datasets(datasets: list[Json]) -> str:
    head = ("dataset", "run", "made by", "shards", "fingerprint", "licence")
    rows = [
        (
            one["name"],
            f"`{one['run'] or '-'}`",
            f"tracemill {one['tracemill']}" if one["tracemill"] else "-",
            one["shards"],
            f"`{one['fingerprint']}`",
            one["license"] or "-",
        )
        for one in datasets
    ]
    return _table(head, rows)


def _hub(commits: Mapping[str, list[str]]) -> str:
    told = [f"`{name}` at commit {', then '.join(f'`{one}`' for one in them)}" for name, them in commits.items()]
    return f"\n\nFrom the Hub: {'; '.join(told)}." if told else ""


def _losses(history: list[dict[str, Any]]) -> str:
    found = [(label, [line[name] for line in history if name in line]) for name, label in LOSSES.items()]
    return _table(("", "at first", "at last"), [(label, f"{v[0]:.4f}", f"{v[-1]:.4f}") for label, v in found if v])


def _license(record: Mapping[str, Json]) -> str:
    chosen = record["settings"]["license"]
    data = ", ".join(sorted({one["license"] for one in record["datasets"] if one["license"]})) or "not stated"
    weights = f"{chosen}." if chosen else f"The weights follow the licence of their base, `{base_model(record)['name']}`."
    return f"{weights} The data: {data}."


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
