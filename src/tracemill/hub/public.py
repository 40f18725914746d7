"""What run.json and the card say to everybody: nothing of the machine, of endpoints, of keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tracemill.config import WORDS
from tracemill.places import is_address, is_place, name_of
from tracemill.trace import Json

MODEL_SETTINGS = (
    "model", "adapter", "temperature", "max_tokens", "reasoning_steps", "top_p", "template_kwargs", "tool_parser", "reasoning_parser",
    "guided_calls",
)  # fmt: skip
"""What is told of a teacher, user or critic that is a model. An allow-list: `engine` takes anything, tokens included."""


def public_run(run: Mapping[str, Json]) -> dict[str, Json]:
    """The record of a run, an import or a training as it goes to the Hub: models by MODEL_SETTINGS alone, files by their names."""
    told = dict(run)
    for part in ("config", "content"):
        if isinstance(told.get(part), dict):
            told[part] = {key: _model(value) if key in WORDS else value for key, value in told[part].items()}
    return without_places(told)  # type: ignore[no-any-return]


def public_text(text: str, run: Mapping[str, Json]) -> str:
    """A card without the places that the record of its run names."""
    named = sorted(map(_bare, places(run)), key=len, reverse=True)  # a folder must not be taken out of the path of a file in it
    if not named:
        return text
    # a short one, such as ./ or /data, may stand within a word or an address that has nothing to do with it
    found = rf"(?<![\w/\\.~])(?:{'|'.join(map(re.escape, named))})(?!\w)"
    return re.sub(found, lambda one: name_of(one.group()), text)


def places(value: Json) -> set[str]:
    """The paths and addresses of this machine or network in a record."""
    return {text for text in _texts(value) if is_place(text)}


def _model(spec: Json) -> Json:
    return {key: spec[key] for key in MODEL_SETTINGS if key in spec} if isinstance(spec, dict) else spec


def without_places(value: Json) -> Json:
    """Any JSON with the names of places alone, keys too."""
    if isinstance(value, dict):
        told: dict[str, Json] = {}
        for key, one in value.items():
            told[_free(without_places(key), told)] = one if _is_licence(key, one) else without_places(one)
        return told
    if isinstance(value, list):
        return [without_places(one) for one in value]
    return name_of(value) if isinstance(value, str) and is_place(value) else value


def _bare(place: str) -> str:
    """A folder without the slash at its end, so that it is found in the path of a file in it too."""
    bare = place.rstrip("/\\")
    return bare if is_place(bare) else place


def _free(name: str, taken: Mapping[str, Json]) -> str:
    """The name, with a number if that of another place is the same."""
    names = (name, *(f"{name} ({number})" for number in range(2, len(taken) + 2)))
    return next(one for one in names if one not in taken)


def _is_licence(key: str, value: Json) -> bool:
    """Whether it is the address of the terms under which all this goes out: everybody should read them."""
    return key == "license" and isinstance(value, str) and is_address(value)


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from () if _is_licence(key, one) else _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
