"""What goes to the Hub of a folder, and the words and cards that runs and trainings share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from tracemill.errors import DatasetError
from tracemill.hub.account import RepoType
from tracemill.trace import Json


@dataclass(kw_only=True)
class Content(ABC):
    """What a folder held at one moment. Paths are those in the repository."""

    kind: ClassVar[RepoType]
    record: ClassVar[str]
    """Name of the file that says whose data these are."""
    divisible: ClassVar[bool] = True
    """Whether a part of the shards is of use, and may be a commit of its own."""
    told: dict[str, Json]
    """That file, as it is published."""
    shards: dict[str, Path]
    """What is uploaded once and does not change, in the order in which it goes."""
    complete: bool
    notices: list[str]

    @abstractmethod
    def texts(self, present: Collection[str]) -> dict[str, bytes]:
        """What changes: the small files that go with these shards."""

    @abstractmethod
    def message(self, new: Sequence[str], present: Collection[str], small: Collection[str]) -> str:
        """Of a commit that adds shards and small files, from the shards that are there then."""

    @abstractmethod
    def about(self) -> str:
        """How much there is."""

    @property
    def usable(self) -> bool:
        """Whether what it is for is in it."""
        return True

    def gone(self, there: Collection[str]) -> list[str]:
        """Files on the Hub that were part of it, and are no longer."""
        return []

    @abstractmethod
    def differences(self, there: Mapping[str, Json]) -> list[str]:
        """How a record found on the Hub is that of other content; none if it is not."""


def split_card(card: str) -> tuple[dict[str, Any], str]:
    """The metadata and the text of a card. Raises DatasetError."""
    _, _, rest = card.partition("---\n")
    front, fence, body = rest.partition("\n---\n")
    try:
        loaded = yaml.safe_load(front)
    except yaml.YAMLError:
        loaded = None
    if not fence or not isinstance(loaded, dict):
        raise DatasetError(
            "README.md is no card: it should begin with YAML between two lines of ---; make it anew by the command that made the folder"
        )
    return loaded, body


def join_card(front: Mapping[str, Any], body: str) -> bytes:
    return f"---\n{yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)}---\n{body}".encode()


def plain(value: Json) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
