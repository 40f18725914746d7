"""One person at work: what they are shown, and what becomes of their keys. What the page learns, it learns from here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tracemill.annotating.pairs import Candidates, Pairs
from tracemill.annotating.store import Judgement, Press, Store, Ticket
from tracemill.errors import DatasetError
from tracemill.trace import Json, Message


@dataclass
class Session:
    """Blind: no id, no source and no label of a pair goes out, and both candidates have the same form."""

    store: Store
    pairs: Pairs
    annotator: str
    judges: int
    """Judgements that a pair should have."""

    _last: tuple[str, Candidates] | None = field(default=None, init=False)

    def view(self) -> dict[str, Json]:
        """The next pair and where the person stands; without `ticket` where nothing is left for them, with `problems` where
        shards cannot be read."""
        self.pairs.refresh()
        ticket = self.store.next(self.annotator, self.pairs.keys, judges=self.judges)
        problems = {"problems": list(self.pairs.problems)} if self.pairs.problems else {}
        return {**(self._shown(ticket) if ticket else {}), "progress": self._progress(), "whole": self.pairs.whole, **problems}

    def judge(self, ticket: int, press: Press, reasons: Sequence[str], note: str) -> None:
        """Raises Refused."""
        self.store.judge(self.annotator, ticket, press, reasons, note)

    def undo(self, act: int) -> Judgement:
        """What was taken back. Raises Refused."""
        return self.store.undo(self.annotator, act)

    def _shown(self, ticket: Ticket) -> dict[str, Json]:
        try:
            candidates = self._load(ticket.pair)
        except DatasetError as reason:
            return {"ticket": ticket.number, "broken": str(reason)}
        of = {"chosen": candidates.chosen, "rejected": candidates.rejected}
        left = "chosen" if self.pairs[ticket.pair].chosen == ticket.left else "rejected"
        right = "rejected" if left == "chosen" else "chosen"
        prompt = candidates.preference.prompt
        return {
            "ticket": ticket.number,
            "prompt": _bare(prompt),
            "left": _bare(of[left], len(prompt)),
            "right": _bare(of[right], len(prompt)),
            "tools": [tool.plain() for tool in candidates.preference.tools],
        }

    def _load(self, key: str) -> Candidates:
        if self._last is None or self._last[0] != key:
            self._last = key, self.pairs.load(self.pairs[key])
        return self._last[1]

    def _progress(self) -> dict[str, Json]:
        pressed = self.store.judged(self.annotator)
        settled = self.store.settled(self.annotator, self.judges)
        last = self.store.last(self.annotator)
        return {
            "annotator": self.annotator,
            "judged": sum(pressed.values()) - pressed.get("skip", 0),
            "skipped": pressed.get("skip", 0),
            "left": sum(key not in settled for key in self.pairs.keys),
            "last": last and {"act": last.act, "press": last.press},
        }


def _bare(messages: Sequence[Message], start: int = 0) -> list[Json]:
    """The messages without what their maker noted on them, their calls numbered anew."""
    numbers: dict[str, str] = {}
    shown: list[Json] = []
    for message in messages:
        plain = message.plain()
        plain.pop("train", None)
        for call in plain.get("tool_calls", ()):
            call["id"] = numbers.setdefault(call["id"], f"call_{start}_{len(numbers) + 1}")
        if "tool_call_id" in plain:
            plain["tool_call_id"] = numbers.get(plain["tool_call_id"], plain["tool_call_id"])
        shown.append(plain)
    return shown
