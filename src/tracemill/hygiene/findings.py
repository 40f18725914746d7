"""Secrets and personal data in what was generated.

Secrets are looked for in every message, also in what tools returned: a server of the user's own reads real files. Personal
data is looked for in what agent and user said and in the arguments of calls. Environments invent people on purpose: what
the scenario, the system prompt or the tools hold, or a tool returned before, was given and is no finding. What an agent
repeats after the user is not found twice.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracemill.hygiene.contamination import spoken_texts
from tracemill.hygiene.patterns import PERSONAL, SECRETS, occurrences
from tracemill.trace import Json

SHOWN = 3  # characters of a finding that may be told
_PLAIN = re.compile(r"[^\w@.:+]")


@dataclass(frozen=True)
class Finding:
    """`text` is the secret itself: it is to be masked, and never written anywhere."""

    kind: str
    where: str
    text: str

    @property
    def masked(self) -> str:
        return f"{self.text[:SHOWN]}…[{self.kind}, {len(self.text)} characters]"


def in_messages(
    messages: Sequence[Mapping[str, Any]], given: Sequence[str] = (), speakers: Collection[str] = ("assistant", "user")
) -> list[Finding]:
    """`messages` as JSON values; `given` is what the speakers knew beforehand. What others say they know from then on.
    Each thing once, where it comes first."""
    found: dict[str, Finding] = {}
    known = list(given)
    for at, message in enumerate(messages):
        for where, text in _texts(at, message):
            for kind, secret in occurrences(text, SECRETS):
                found.setdefault(secret, Finding(kind, where, secret))
            for kind, person in occurrences(text, PERSONAL) if message["role"] in speakers else ():
                if person not in found and not any(_plain(person) in _plain(one) for one in known):
                    found[person] = Finding(kind, where, person)
        if message["role"] not in speakers:
            known.append(message["content"])
    return list(found.values())


def in_text(text: str, where: str, *, personal: bool = False) -> list[Finding]:
    """In a text that stands by itself, such as what could not be used of a reply. Personal data only if asked for, as nothing
    says what was given."""
    patterns = SECRETS + PERSONAL if personal else SECRETS
    return [Finding(kind, where, secret) for kind, secret in dict.fromkeys(occurrences(text, patterns))]


def mask(value: Json, findings: Sequence[Finding]) -> Json:
    """A JSON value with every occurrence of what was found masked; longer ones first, as one may be part of another."""
    return _mask(value, {one.text: one.masked for one in sorted(findings, key=lambda one: -len(one.text))})


def _mask(value: Json, masks: Mapping[str, str]) -> Json:
    if isinstance(value, str):
        for text, masked in masks.items():
            value = value.replace(text, masked)
        return value
    if isinstance(value, list):
        return [_mask(one, masks) for one in value]
    if isinstance(value, dict):
        return {_mask(key, masks): _mask(one, masks) for key, one in value.items()}
    return value


def _texts(at: int, message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if message["role"] == "system":
        yield f"messages[{at}].content", message["content"]
    else:
        for where, text in spoken_texts([message]):
            yield where.replace("messages[0]", f"messages[{at}]", 1), text


def _plain(text: str) -> str:
    """Without spaces, hyphens and case, so that a number is known again in another spelling."""
    return _PLAIN.sub("", text).casefold()
