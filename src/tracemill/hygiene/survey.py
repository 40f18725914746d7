"""The first reading of a run: what is to be removed, and why. Nothing is written, and no text is kept but what was found."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tracemill.columns import Row
from tracemill.errors import DatasetError
from tracemill.hygiene.contamination import Contamination, Match
from tracemill.hygiene.findings import Finding, in_messages
from tracemill.hygiene.near_duplicates import Sketches, sketch
from tracemill.hygiene.removed import Why
from tracemill.stats import part_files, read_rows, trace_files
from tracemill.trace import Json

SHOWN = 5  # matches that the ledger names of one record


@dataclass
class Reasons:
    """Why a record goes."""

    findings: list[Finding] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)
    like: tuple[str, str, float] | None = None
    """Label of the run, id, similarity."""

    @property
    def why(self) -> Why:
        return "finding" if self.findings else "contamination" if self.matches else "near_duplicate"

    def evidence(self) -> tuple[str, ...]:
        told = [f"{one.kind} in {one.where}: {one.masked}" for one in self.findings]
        told += [f"{one.here} has {one.by} of {one.benchmark} {one.there}: {one.what}" for one in self.matches[:SHOWN]]
        if len(self.matches) > SHOWN:
            told.append(f"and {len(self.matches) - SHOWN} more such matches")
        if self.like:
            run, id, similarity = self.like
            told.append(f"{similarity:.3f} like {id}" + (f" of {run}" if run else ""))
        return tuple(told)


@dataclass(frozen=True)
class _Seen:
    """A trace: of which run (empty: the one that is cleaned), and where."""

    run: str
    id: str
    index: int
    template: str


@dataclass
class Survey:
    """`reasons` by id of a trace. `findings` holds all that was found, whether it removes or not."""

    contamination: Contamination
    keep_findings: bool
    reasons: dict[str, Reasons] = field(default_factory=dict)
    findings: list[tuple[str, Finding]] = field(default_factory=list)
    templates: Counter[str] = field(default_factory=Counter)
    """Near-duplicates by template."""
    _sketches: Sketches = field(default_factory=Sketches)
    _seen: list[_Seen] = field(default_factory=list)

    def read_earlier(self, label: str, folder: Path, advance: Callable[[int], None]) -> None:
        """Raises DatasetError."""
        for path in data_files(folder):
            self._read(path, lambda row, messages, scenario: self._keep(label, row, messages, scenario), advance)

    def read(self, folder: Path, advance: Callable[[int], None]) -> None:
        """Raises DatasetError."""
        for path in data_files(folder):
            self._read(path, self._judge, advance)

    def find_repeats(self, similar: float) -> None:
        """Earlier runs first, in the order in which they were read; then this one by index, so that the first stays."""
        order = sorted(
            range(len(self._seen)), key=lambda at: (not self._seen[at].run, self._seen[at].index if not self._seen[at].run else at)
        )
        for at, likeness in self._sketches.repeats(order, similar).items():
            mine, other = self._seen[at], self._seen[likeness.other]
            if not mine.run:
                self.reasons[mine.id] = Reasons(like=(other.run, other.id, likeness.similarity))
                self.templates[mine.template] += 1

    def _read(self, path: Path, take: Callable[[Row, list[Json], Json], None], advance: Callable[[int], None]) -> None:
        imported = path.parent.name == "imported"
        columns = (
            ("id", "index", "messages", "tools")
            if imported
            else ("id", "index", "messages", "tools", "environment", "template", "scenario")
        )
        for rows in read_rows(path, columns):
            for row in rows:
                try:
                    take(row, [json.loads(text) for text in row["messages"]], None if imported else json.loads(row["scenario"]))
                except (ValueError, KeyError, TypeError, AttributeError) as reason:
                    raise DatasetError(f"{path}: {row['id']} is broken: {reason!r}", ["tracemill verify says what is wrong"]) from reason
            advance(len(rows))

    def _judge(self, row: Row, messages: list[Json], scenario: Json) -> None:
        findings = in_messages(messages, _given(row, scenario))
        self.findings += [(row["id"], one) for one in findings]
        matches = self.contamination.matches(messages, row["tools"])
        if findings:  # the words that met may be those of a finding, which is told nowhere
            matches = [replace(one, what="(words of a text with findings)") if one.by == "text" else one for one in matches]
        reasons = Reasons([] if self.keep_findings else findings, matches)
        if reasons.findings or reasons.matches:
            self.reasons[row["id"]] = reasons  # and nothing is a near-duplicate of what goes
        else:
            self._keep("", row, messages, scenario)

    def _keep(self, run: str, row: Row, messages: list[Json], scenario: Json) -> None:
        template = f"{row['environment']}/{row['template']}" if scenario else "imported"
        self._sketches.add(sketch(messages, scenario))
        self._seen.append(_Seen(run, row["id"], row["index"], template))


def data_files(folder: Path) -> list[Path]:
    """The shards of traces, or of imported conversations."""
    return trace_files(folder) or part_files(folder / "data" / "imported")


def _given(row: Row, scenario: Any) -> Sequence[str]:
    told = json.dumps(scenario, ensure_ascii=False) if scenario else ""
    return (told, _tools_text(tuple(row["tools"])))


@functools.lru_cache(maxsize=256)
def _tools_text(tools: tuple[str, ...]) -> str:
    return "\n".join(tools)
