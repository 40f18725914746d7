"""A training as a model on the Hub."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracemill.errors import DatasetError
from tracemill.hub.content import Content, join_card, listed, plain, split_card
from tracemill.hub.public import public_run, public_text, without_places
from tracemill.stats import count_of, read_record
from tracemill.trace import Json
from tracemill.train.card import base_model
from tracemill.writer import changes

PUBLISHED = (
    "*.safetensors", "*.safetensors.index.json", "adapter_config.json", "config.json", "generation_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model",
    "*.jinja", "curves.png", "README.md", "training.json",
)  # fmt: skip
"""What of a training is published. An allow-list: a log or a recipe of one's own may lie beside it."""
KNOWN = ("training_args.bin",)  # a pickle, of the machine: left out without a word
VOCABULARY = ("tokenizer.json", "vocab.json")
TOKENS = "added_tokens_decoder"
"""In the config of a tokenizer: texts of tokens, in which a slash is no place."""


@dataclass(kw_only=True)
class TrainingContent(Content):
    kind = "model"
    record = "training.json"
    divisible = False
    small: dict[str, bytes]

    def texts(self, present: Collection[str]) -> dict[str, bytes]:
        return self.small

    def message(self, new: Sequence[str], present: Collection[str], small: Collection[str]) -> str:
        if not new:
            return f"Update {listed(sorted(small))}"
        what = "model" if self.told["settings"]["method"] == "full" else "adapter"
        data = listed([one["name"] for one in self.told["datasets"]])
        return f"Add the {what} trained by {self.told['kind']} on {data} in {count_of(len(new), 'file')}"

    def about(self) -> str:
        return count_of(len(self.shards) + len(self.small), "file")

    def gone(self, there: Collection[str]) -> list[str]:
        return [name for name in there if _is_published(name) and "/" not in name and name not in self.shards and name not in self.small]

    def differences(self, there: Mapping[str, Json]) -> list[str]:
        return changes(_deciding(there), _deciding(self.told))


def of_training(out: Path, repo: str) -> TrainingContent:
    """Adapter or model, tokenizer, card, curves, record: what lies in the folder itself. Checkpoints and OUT/merged do not go."""
    record = read_record(out / "training.json")
    local = "fingerprint" in base_model(record)  # of a model from the Hub only the name is known
    beside = [path for path in sorted(out.iterdir()) if path.is_file() and not path.name.startswith(".") and path.name not in KNOWN]
    files = [path for path in beside if _is_published(path.name)]
    small = {path.name: path.read_bytes() for path in files if path.suffix in (".md", ".json") and path.name not in VOCABULARY}
    small |= {name: _unplaced(name, text) for name, text in small.items() if name.endswith("config.json")}
    if "README.md" not in small:
        raise DatasetError(f"{out} has no card (README.md), which a training writes at its end")
    front, body = split_card(public_text(small["README.md"].decode(), record).replace("PATH_OR_REPO", repo))
    told = public_run(record)
    small |= {"training.json": plain(told), "README.md": join_card(_known(front, local=local), body)}
    large = {path.name: path for path in files if path.name not in small}
    notices = _notices(out, record, [path.name for path in beside if path not in files], local=local)
    return TrainingContent(told=told, shards=large, complete=True, notices=notices, small=small)


def _is_published(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, one) for one in PUBLISHED)


def _notices(out: Path, record: Mapping[str, Json], others: Sequence[str], *, local: bool) -> list[str]:
    base = base_model(record)["name"]
    found = ["OUT/merged is left out: the adapter is what was trained."] if (out / "merged").is_dir() else []
    if others:
        found.append(f"Left out is what is no part of a model: {listed(others)}.")
    if local:
        found.append(
            f"The base model {base} is a folder of this machine: the card names no base_model, and whoever loads an adapter has to say "
            "where its base is. Push the base too, or train on a model of the Hub."
        )
    return found


def _deciding(record: Mapping[str, Json]) -> dict[str, Json]:
    """What makes a training this one and no other, as for its continuation."""
    from tracemill.train.settings import TrainSettings

    settings = {key: value for key, value in record.get("settings", {}).items() if key not in TrainSettings.OPERATIONAL}
    return {**{name: record.get(name) for name in ("kind", "model", "datasets")}, "settings": settings}


def _known(front: Mapping[str, Any], *, local: bool) -> dict[str, Any]:
    """Metadata without names that mean something here and another thing, or nothing, on the Hub."""
    known = {key: value for key, value in front.items() if key not in ("base_model", "datasets")}
    if not local:
        known = {"base_model": front["base_model"], **known}
    published = [name for name in front.get("datasets", []) if "/" in name]
    return {**known, "datasets": published} if published else known


def _unplaced(name: str, text: bytes) -> bytes:
    """A config without places, however deep they stand: models of several parts say of each what it was loaded from."""
    try:
        loaded = json.loads(text)
    except ValueError as reason:
        raise DatasetError(f"{name} cannot be read: {reason}") from reason
    found = without_places(loaded)
    if isinstance(loaded, dict) and TOKENS in loaded:
        found = {**found, TOKENS: loaded[TOKENS]}
    return text if found == loaded else plain(found)
