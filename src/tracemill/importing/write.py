"""An imported dataset: every row of a file ends in `data/imported` or, with its reasons, in the ledger.

    OUT/README.md                  dataset card with `configs:`
    OUT/data/imported/*.parquet    accepted conversations
    OUT/rejects/*.parquet          refused rows
    OUT/run.json                   what was imported, and how; counts

It is written beside OUT and takes that name when it is whole, so that there is never half of it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, get_args

import yaml
from rich.console import Console
from rich.markup import escape

from tracemill import __version__
from tracemill.calling import command
from tracemill.columns import to_row
from tracemill.errors import ConfigError, DatasetError
from tracemill.generators.environments.tool_files import load_tools
from tracemill.importing.check import Found, Offer, argument_problems, load, structure_problems, without_blunders
from tracemill.importing.rows import Unreadable, read_rows
from tracemill.schemas.check import nested_deeper
from tracemill.stats import file_sha256, reason_class
from tracemill.trace import (
    AssistantMessage,
    Conversation,
    ImportStage,
    Json,
    Message,
    OfferedTool,
    Refusal,
    ToolMessage,
    UserMessage,
    canonical,
    fingerprint,
)
from tracemill.writer import SHARD_ROWS, Shards, whole_folder, write_whole

MIN_REWARD = 1.0
STAGES: tuple[ImportStage, ...] = get_args(ImportStage)
MOST_RAW = 100_000  # characters
DEEPEST = 32
SIDES = ("chosen", "rejected")
CARD = Path(__file__).with_name("card_template.md")


@dataclass
class Given:
    """What a row holds, as a format reads it."""

    row_id: str = ""
    reward: float | None = None
    messages: tuple[Message, ...] | None = None
    """None where not all of them can be read."""
    tools: Json = None
    """As they stand in the row."""
    unread: set[str] = field(default_factory=set)
    """Ids of the calls whose arguments could not be read."""
    problems: list[Found] = field(default_factory=list)


Reader = Callable[[dict[str, Json]], Given]


def import_file(file: Path, out: Path, *, name: str, columns: Sequence[str], read: Reader, tools: Path | None, min_reward: float) -> int:
    """Import a file in the named format. Raises ConfigError, DatasetError."""
    if not math.isfinite(min_reward):
        raise ConfigError(f"--min-reward should be a number, such as 1 or 0.5; 0 keeps failures; got {min_reward}")
    console = Console(highlight=False)
    job = _Job(file, name, columns, read, _file_offer(tools), min_reward)
    digest = fingerprint(
        {"file": file_sha256(file), "tools": file_sha256(tools) if tools else "", "format": name, "min_reward": min_reward}
    )
    done = _earlier(out, digest)
    if done is None:
        with whole_folder(out) as hidden:
            done = _fill(job, hidden, digest)
    else:
        console.print(f"[green]{escape(str(out))} holds this import already.[/]")
    _report(console, out, done)
    return 0 if done["counts"]["accepted"] else 1


@dataclass(frozen=True)
class _Job:
    file: Path
    format: str
    columns: Sequence[str]
    read: Reader
    offer: Offer
    """For rows that have no tools of their own."""
    min_reward: float

    @property
    def source(self) -> str:
        return self.file.name.encode(errors="replace").decode()


# --- one row ------------------------------------------------------------------------------------------------


@dataclass
class _Import:
    """What has come of the rows so far."""

    job: _Job
    digest: str
    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)
    """Id of each accepted conversation, with its row."""

    def take(self, index: int, value: Json) -> Conversation | Refusal:
        self.counts["rows"] += 1
        given = self._read(value)
        offer, problems = self._offer(given.tools)
        messages = without_blunders(_without_last_words(given.messages or ()))
        problems += given.problems
        if given.messages is not None:
            problems += [("structure", one) for one in structure_problems(messages)]
        if not any(stage == "arguments" for stage, _ in problems):
            problems += [("arguments", one) for one in argument_problems(messages, offer.tools, given.unread)]
        if given.reward is not None and given.reward < self.job.min_reward:
            problems.append(("goal", f"reward {given.reward:g} is below {self.job.min_reward:g}"))
        if not problems:
            made = self._conversation(index, given, messages, offer.offered)
            again = self.first.setdefault(made.id, index)
            if again == index:
                self._count(len(given.messages or ()), made)
                return made
            problems.append(("duplicate", f"messages and tools are those of row {again}"))
        return self._refusal(index, value, given, problems)

    def _read(self, value: Json) -> Given:
        if isinstance(value, Unreadable):
            return Given(problems=[("row", value.reason)])
        if not isinstance(value, dict):
            return Given(problems=[("row", f"expected an object, got {kind_named(value)}")])
        given = self.job.read(value)
        if all(value.get(name) is not None for name in SIDES):
            given.problems.insert(0, ("row", "it is a preference pair, with `chosen` and `rejected`, and only conversations are imported"))
        return given

    def _offer(self, definitions: Json) -> tuple[Offer, list[Found]]:
        if definitions is None:
            return self.job.offer, []
        try:
            offer = load(definitions)
        except (RecursionError, TypeError) as reason:  # a column of dates, for one
            return Offer.of([]), [("arguments", f"tools: they cannot be read as JSON: {reason}")]
        return offer, [("arguments", f"tools: {one}") for one in offer.refused]

    def _conversation(self, index: int, given: Given, messages: tuple[Message, ...], tools: tuple[OfferedTool, ...]) -> Conversation:
        return Conversation(
            id="", source=self.job.source, index=index, row_id=given.row_id, reward=given.reward, messages=messages, tools=tools
        ).sealed()

    def _refusal(self, index: int, value: Json, given: Given, problems: Sequence[Found]) -> Refusal:
        ordered = sorted(((stage, _written_out(one)) for stage, one in problems), key=lambda one: STAGES.index(one[0]))
        stage, reason = ordered[0]
        self.refused[stage] += 1
        self.reasons[stage, reason_class(stage, reason)] += 1
        readable = given.messages if stage not in ("row", "schema") else None
        return Refusal(
            id=f"im-{fingerprint([self.digest, index])[:20]}", source=self.job.source, index=index, row_id=given.row_id, reward=given.reward,
            stage=stage, reason=reason, evidence=tuple(one for _, one in ordered),
            messages=readable or (), raw="" if readable else _raw(value),
        )  # fmt: skip

    def _count(self, given: int, made: Conversation) -> None:
        spoken = [message for message in made.messages if isinstance(message, AssistantMessage)]
        self.counts["accepted"] += 1
        self.counts["cut"] += given > len(made.messages)
        self.counts["end_with_result"] += isinstance(made.messages[-1], ToolMessage)
        self.counts["end_with_call"] += isinstance(made.messages[-1], AssistantMessage) and bool(made.messages[-1].tool_calls)
        self.counts["without_reward"] += made.reward is None
        self.counts["agent_messages"] += len(spoken)
        self.counts["wrong_steps"] += sum(not message.train for message in spoken)

    def record(self) -> dict[str, Json]:
        """For run.json."""
        names = ("rows", "accepted", "cut", "end_with_result", "end_with_call", "without_reward", "agent_messages", "wrong_steps")
        settings = {"format": self.job.format, "file": self.job.source, "min_reward": self.job.min_reward}
        ranked = sorted(self.reasons.items(), key=lambda item: (STAGES.index(item[0][0]), -item[1], item[0][1]))
        return {
            "tracemill": __version__,
            "digest": self.digest,
            "import": settings,
            "counts": {
                **{name: self.counts[name] for name in names},
                "refused": {stage: self.refused[stage] for stage in STAGES if self.refused[stage]},
            },
            "reasons": [{"stage": stage, "reason": reason, "rows": number} for (stage, reason), number in ranked[:20]],
            "complete": True,
        }


def _without_last_words(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Without what the user says at the end: no word of the agent follows, so there is nothing to learn from it."""
    end = len(messages)
    while end and isinstance(messages[end - 1], UserMessage):
        end -= 1
    return messages[:end] if any(isinstance(message, AssistantMessage) for message in messages[:end]) else messages


def unstorable(value: Json) -> str:
    """Why a value cannot be stored in a Parquet file and come back as it is; empty if it can."""
    try:
        (value if isinstance(value, str) else canonical(value)).encode()
    except (ValueError, TypeError, RecursionError) as reason:  # NaN, half a surrogate pair, a date
        return f"it cannot be written as JSON text: {ascii(str(reason))[1:-1]}"
    if nested_deeper(value, DEEPEST):
        return f"nested deeper than {DEEPEST} levels"
    return "" if _within_64_bits(value) else "it holds a number beyond 64 bits"


def _within_64_bits(value: Json) -> bool:
    if isinstance(value, dict | list):
        return all(map(_within_64_bits, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def kind_named(value: Json) -> str:
    """In the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def _written_out(text: str) -> str:
    """With what no file can hold spelled out."""
    return text.encode(errors="backslashreplace").decode()


def _raw(value: Json) -> str:
    if isinstance(value, Unreadable):
        return value.text[:MOST_RAW]
    try:
        return json.dumps(value, default=str)[:MOST_RAW]
    except (ValueError, RecursionError):
        return ""


# --- the whole ----------------------------------------------------------------------------------------------


def _file_offer(path: Path | None) -> Offer:
    offer = Offer.of(load_tools(path) if path else [])
    if offer.refused:
        raise ConfigError(f"{path} holds {len(offer.refused)} definition(s) that are no tools: mend them, or leave them out", offer.refused)
    return offer


def _earlier(out: Path, digest: str) -> dict[str, Any] | None:
    """What the folder holds if it is this very import; None if it is empty or not there. Raises DatasetError."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        run = None
    if isinstance(run, dict) and "import" in run and run.get("digest") == digest:
        return run
    what = "another import" if isinstance(run, dict) and "import" in run else "a run" if run else "something else"
    raise DatasetError(f"{out} holds {what}: choose another --out, one that is empty or not there")


def _fill(job: _Job, folder: Path, digest: str) -> dict[str, Any]:
    done = _Import(job, digest)
    shards = {Conversation: Shards(folder / "data" / "imported", Conversation), Refusal: Shards(folder / "rejects", Refusal)}
    for index, value in enumerate(read_rows(job.file, (*job.columns, *SIDES))):
        record = done.take(index, value)
        mine = shards[type(record)]
        mine.rows.append(to_row(record))
        if len(mine.rows) >= SHARD_ROWS:
            mine.flush()
    if not done.counts["rows"]:
        raise DatasetError(f"{job.file} holds no rows")
    for one in shards.values():
        one.flush()
    run = done.record()
    write_whole(folder / "README.md", _card(folder, run))
    write_whole(folder / "run.json", json.dumps(run, indent=2) + "\n")
    return run


def _card(folder: Path, run: Mapping[str, Json]) -> str:
    places = {"default": "data/imported", "rejects": "rejects"}
    configs: list[dict[str, Json]] = [
        {"config_name": name, "data_files": f"{place}/*.parquet"} for name, place in places.items() if (folder / place).is_dir()
    ]
    front = {
        "pretty_name": run["import"]["file"],
        "task_categories": ["text-generation"],
        "tags": ["agent-traces", "tool-use", "function-calling", "tracemill"],
        "configs": configs,
    }
    refused = sum(run["counts"]["refused"].values())
    rows = [f"| {one['stage']} | {one['reason'].replace('|', '/')} | {one['rows']:,} |" for one in run["reasons"]]
    return Template(CARD.read_text(encoding="utf-8")).substitute(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        file=run["import"]["file"], format=run["import"]["format"], version=run["tracemill"], min_reward=f"{run['import']['min_reward']:g}",
        accepted=f"{run['counts']['accepted']:,}", rows=f"{run['counts']['rows']:,}", refused=f"{refused:,}",
        reasons="\n".join(["| stage | reason | rows |", "| --- | --- | --- |", *rows]) if rows else "None was refused.",
    )  # fmt: skip


def _report(console: Console, out: Path, run: Mapping[str, Json]) -> None:
    counts = run["counts"]
    refused = sum(counts["refused"].values())
    console.print(
        f"{escape(run['import']['file'])}: {counts['rows']:,} rows, [green]{counts['accepted']:,} accepted[/], [red]{refused:,} refused[/]."
    )
    for one in run["reasons"]:
        console.print(f"  {one['rows']:>7,}  {one['stage']:10} {escape(one['reason'])}", soft_wrap=True)
    if "goal" in counts["refused"]:
        console.print(f"  A reward below {run['import']['min_reward']:g} is a failure; --min-reward 0 keeps failures.")
    for said, number in (
        ("ended with the user's words, which are left out", counts["cut"]),
        ("end with a tool's result", counts["end_with_result"]),
        ("end with a call, whose result is not there", counts.get("end_with_call", 0)),
        ("have no reward, and were taken on trust", counts["without_reward"]),
    ):
        if number:
            console.print(f"Of the accepted, {number:,} {said}.")
    if counts["wrong_steps"]:
        console.print(
            f"{counts['wrong_steps']:,} of {counts['agent_messages']:,} agent messages are wrong steps (a call that failed, or a mark in the file):"
            " kept, out of the loss.",
            soft_wrap=True,
        )
    if refused:
        console.print(f"Why each was refused: {escape(command('show', out, '--rejects'))}", soft_wrap=True)
    if counts["accepted"]:
        train = command("train", "sft", out, "--model", "MODEL", "--out", "ADAPTER")
        console.print(f"Next: {escape(command('verify', out))}, then {escape(train)}", soft_wrap=True)
