"""Under which licence a dataset may go out: it follows from the models that wrote it.

What a model's own folder says (front matter of its README.md, as the Hub has it) counts first, then the table of families
in `licences.yaml`. What neither knows is `unknown`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

TABLE = Path(__file__).with_name("licences.yaml")
OURS = "apache-2.0"
OPEN = frozenset({OURS, "mit"})
"""Licences of weights that ask nothing of what the weights wrote."""
HINT = "say which with `license` in the config"


@dataclass(frozen=True)
class Licence:
    """`id` is the Hub's keyword."""

    id: str
    because: str
    """Where it follows from, as a sentence."""
    note: str = ""
    """What it asks of those who train on the outputs."""
    name: str = ""
    """The Hub's `license_name`, where the keyword is 'other'."""
    link: str = ""


def licence_of(roles: Sequence[Any]) -> Licence:
    """Of a dataset to which these contributed: 'scripted' and other words of the config, or models as maps with `model`, `url`.

    The first one's, unless it is open and another's is not; 'other' where two are not, and differ.
    """
    each = list(dict.fromkeys(_of_model(one) for one in roles if isinstance(one, Mapping)))
    if not each or (roles[0] == "scripted" and all(one.id in OPEN for one in each)):
        return Licence(OURS, "No model wrote it but open ones." if each else "It was written by scripts.")
    binding = [one for one in each if one.id not in OPEN]
    if len({(one.id, one.name) for one in binding}) <= 1:
        return (binding or each)[0]
    return Licence(
        "other", " ".join(one.because for one in binding), " ".join(dict.fromkeys(one.note for one in binding)).strip(), "several-terms"
    )


def explained(license: str, roles: Sequence[Any]) -> str:
    """The card's sentences on a licence, which may have been set by hand."""
    found = licence_of(roles)
    if license != found.id:
        return f"{license}, as its maker says. (From the models that wrote it: {found.id}. {found.because})"
    return " ".join(part for part in (f"{license}.", found.because, found.note, found.link and f"See {found.link}.") if part)


def _of_model(spec: Mapping[str, Any]) -> Licence:
    url, model = str(spec.get("url") or ""), str(spec.get("model") or "")
    if url:
        entry = next((one for one in _table() if urlsplit(url).hostname in one.get("hosts", ())), None)
        return _from(entry, model or "its model") if entry else _of_name(model)
    return _of_folder(Path(model)) if Path(model).is_dir() else _of_name(model)


def _of_folder(folder: Path) -> Licence:
    told = _front(folder / "README.md")
    if isinstance(told.get("license"), str):
        told_name, link = (str(told.get(key) or "") for key in ("license_name", "license_link"))
        return Licence(told["license"], f"The card of the teacher {folder.name} says so.", _note(told["license"]), told_name, link)
    base = told.get("base_model")
    names = [*(base if isinstance(base, list) else [base]), _config(folder / "config.json").get("_name_or_path"), folder.name]
    found = [_of_name(name) for name in names if isinstance(name, str) and name]
    return next((one for one in found if one.id != "unknown"), found[-1])


def _of_name(name: str) -> Licence:
    """By the part after the last slash: the rest of a path is nobody's business, and misleads."""
    called = name.rstrip("/").rpartition("/")[2]
    entry = next((one for one in _table() if re.search(one["pattern"], called.casefold())), None)
    if entry is None:
        return Licence("unknown", f"Nothing is known of the terms of {called or 'the model behind the endpoint'}: {HINT}.")
    return _from(entry, called)


def _from(entry: Mapping[str, Any], called: str) -> Licence:
    because = f"It follows from the terms of the model that wrote it: {called} ({entry['family']})."
    return Licence(entry["license"], because, entry.get("note", ""), entry.get("name", ""), entry["source"])


def _note(license: str) -> str:
    return next((one.get("note", "") for one in _table() if one["license"] == license and license != "other" and license not in OPEN), "")


@functools.cache
def _table() -> tuple[dict[str, Any], ...]:
    return tuple(yaml.safe_load(TABLE.read_text(encoding="utf-8")))


def _front(path: Path) -> dict[str, Any]:
    """The front matter of a card; empty where there is none that can be read."""
    try:
        text = path.read_text(encoding="utf-8")
        found = yaml.safe_load(text.split("---\n", 2)[1]) if text.startswith("---\n") else {}
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
