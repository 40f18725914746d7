"""`tracemill stats`: how diverse a run is, read from its shards alone.

`measure` makes one pass over the traces, a few columns and a few hundred rows at a time. What it keeps of a trace is
its MinHash signature (512 bytes) and some numbers, so that a hundred thousand traces take some hundred megabytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from tracemill.columns import Row
from tracemill.constitution.agreement import Agreement
from tracemill.constitution.constitution import load_constitution
from tracemill.errors import DatasetError
from tracemill.hygiene.minhash import BAND_ROWS, BANDS, SIMILAR, blank, repeats, signature
from tracemill.importing.check import failed
from tracemill.trace import KINDS, Json, Outcome, Verdict, is_error

CONVERSATION_COLUMNS = ("id", "messages", "tools")
TRACE_COLUMNS = ("id", "kind", "environment", "template", "difficulty", "messages", "effects", "scenario")
REJECTION_COLUMNS = ("stage", "reason", "blame", "final")
SORTS = (("fault of a tool", "fault"), ("wrong step of the agent", "mistake"))
BATCH = 256  # rows read at a time: some ten megabytes
TOP = 10
PLAIN_WIDTH, WIDEST = 100, 120
_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
_DIGITS = re.compile(r"\d+")
_PARTICULAR = re.compile(r"""'[^']*'|"[^"]*"|\([^)]*\)|[^\s,;:]*[\d_/\[][^\s,;:]*""")
_LISTED = re.compile(r"…(?:(?:,| or| and| ->)* ?…)+")


def show_stats(out: Path, *, as_json: bool) -> None:
    """Print what `measure` finds. Raises DatasetError where there is no run."""
    imported = is_import(read_run(out))
    report = measure_import(out) if imported else measure(out)
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return
    console = open_console()
    for part in _import_tables(report) if imported else _tables(report):
        console.print(part)


def measure(out: Path) -> dict[str, Json]:
    """All figures, as JSON. Raises DatasetError where the folder holds no run or a shard cannot be read."""
    run = read_run(out)
    files = trace_files(out)
    traces = _Traces(sum(row_count(path) for path in files))
    waiting = Console(stderr=True)
    with Progress(console=waiting, transient=True, disable=not waiting.is_terminal) as progress:
        task = progress.add_task("Reading traces", total=traces.expected)
        for path in files:
            for rows in read_rows(path, TRACE_COLUMNS):
                for row in rows:
                    traces.add(path, row)
                progress.advance(task, len(rows))
    return {
        "run": {
            "path": str(out),
            "complete": run.get("complete"),
            "tracemill": run.get("tracemill"),
            "seed": run.get("config", {}).get("seed"),
            "teacher": _model(run.get("config", {}).get("teacher")),
        },
        **traces.report(),
        "preference_pairs": sum(row_count(path) for path in part_files(out / "preferences")),
        "rejections": _rejections(part_files(out / "rejects")),
        **({"critic": critic_agreement(out).plain()} if run.get("config", {}).get("critic", "none") != "none" else {}),
    }


def measure_import(out: Path) -> dict[str, Json]:
    """What can be said of imported conversations: no scenario, environment or template is known of them, and no effect of a
    tool. Raises DatasetError."""
    run, files = read_run(out), part_files(out / "data" / "imported")
    conversations = _Conversations(sum(row_count(path) for path in files))
    for path in files:
        for rows in read_rows(path, CONVERSATION_COLUMNS):
            for row in rows:
                conversations.add(path, row)
    return {"run": {"path": str(out), "import": run["import"]}, **conversations.report(), "refused": run.get("reasons", [])}


# --- reading ------------------------------------------------------------------------------------------------


def read_run(out: Path) -> dict[str, Json]:
    """run.json of an output folder; empty where only its shards are there. Raises DatasetError if it holds no run."""
    path = out / "run.json"
    if not path.is_file():
        if trace_files(out) or part_files(out / "rejects"):
            return {}
        raise DatasetError(f"{out} holds no run: there is neither run.json nor data in it", [f"make one: tracemill generate --out {out}"])
    return read_record(path)


def read_record(path: Path) -> dict[str, Json]:
    """The object in a file of JSON. Raises DatasetError."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise DatasetError(f"{path} cannot be read: {reason}") from reason
    if not isinstance(record, dict):
        raise DatasetError(f"{path} is not the record of a {path.stem}: expected an object, got {type(record).__name__}")
    return record


def trace_files(out: Path) -> list[Path]:
    """The shards of accepted traces, kind by kind."""
    return [path for kind in KINDS for path in part_files(out / "data" / kind)]


def is_import(run: Mapping[str, Json]) -> bool:
    """Whether run.json is that of imported conversations, which lie in `data/imported`."""
    return "import" in run


def part_files(folder: Path) -> list[Path]:
    """Whole shards in the order in which they were written; what is still being written has another name."""
    return sorted(folder.glob("part-*.parquet"), key=lambda path: (len(path.name), path.name))


def file_sha256(path: Path) -> str:
    """Raises DatasetError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as reason:
        raise DatasetError(f"{path} cannot be read: {reason.strerror or reason}") from reason


def row_count(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as reason:
        raise _unreadable(path, reason) from reason


def read_rows(path: Path, columns: Sequence[str], only: Collection[int] | None = None) -> Iterator[list[Row]]:
    """These columns of a shard, some rows at a time, JSON columns as text; of all rows, or of those at `only`.
    Raises DatasetError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise DatasetError(f"{path} is no shard of tracemill: it has no column {', '.join(map(repr, missing))}")
            start = 0
            for batch in file.iter_batches(BATCH, columns=list(columns)):
                if only is None:
                    yield batch.to_pylist()
                else:
                    wanted = [at - start for at in sorted(only) if start <= at < start + batch.num_rows]
                    yield [row for at in wanted for row in batch.slice(at, 1).to_pylist()]
                start += batch.num_rows
    except (OSError, pa.ArrowException) as reason:
        raise _unreadable(path, reason) from reason


def _unreadable(path: Path, reason: Exception) -> DatasetError:
    return DatasetError(f"{path} cannot be read: {' '.join(str(reason).split())[:200]}", ["the file is damaged, or no Parquet file"])


def _model(teacher: Json) -> Json:
    """The name of a teacher that is a model."""
    return teacher.get("model") or teacher.get("url") if isinstance(teacher, dict) else teacher


def critic_agreement(out: Path) -> Agreement:
    """How far the critic of a run agrees with the rules, over accepted traces and over drafts that the rules refused.

    A principle that no rule decides and that the critic has left without a verdict counts as a critique that could not be read.
    """
    constitution = load_constitution(read_run(out).get("config", {}).get("constitution"))
    found = Agreement()
    for path in [*trace_files(out), *part_files(out / "rejects")]:
        for rows in read_rows(path, ("kind", "verdicts")):
            for row in rows:
                verdicts = [Verdict.model_validate_json(text) for text in row["verdicts"] or ()]
                if not verdicts:
                    continue  # it never came so far
                found.add(verdicts)
                judged = {one.principle for one in verdicts if one.by == "critic"}
                asked = {one.id for one in constitution.principles if one.rule is None and row["kind"] in one.kinds}
                found.unreadable += len(asked - judged)
    return found


# --- counting -----------------------------------------------------------------------------------------------


class _Traces:
    fails = staticmethod(is_error)

    def __init__(self, expected: int) -> None:
        import numpy as np

        self.expected = expected
        self._signatures = np.zeros((expected, BANDS * BAND_ROWS), dtype=np.uint32)
        self._blank = blank()
        self._templates: list[str] = []  # of each trace
        self._kinds: Counter[str] = Counter()
        self._cells: Counter[tuple[str, str]] = Counter()
        self._difficulties: Counter[str] = Counter()
        self._tones: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()
        self._trouble: Counter[tuple[str, str]] = Counter()
        self._troubled = 0
        self._calls: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._users: Counter[str] = Counter()  # traces in which the tool is called
        self._effects: dict[str, str] = {}
        self._homes: dict[str, set[str]] = {}
        self._shapes: Counter[str] = Counter()
        self._lengths: dict[str, list[int]] = {"messages": [], "calls": [], "characters": []}
        self._openings: set[int] = set()
        self._masked: set[int] = set()

    def add(self, path: Path, row: Row) -> None:
        """Raises DatasetError for a row that is no trace."""
        try:
            self._add(row)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as reason:
            raise DatasetError(f"{path}: trace {row['id']} is broken: {reason!r}", ["tracemill verify says what is wrong"]) from reason

    def _add(self, row: Row) -> None:
        scenario = json.loads(row["scenario"])
        messages = [json.loads(text) for text in row["messages"]]
        environment = row["environment"]
        self._kinds[row["kind"]] += 1
        self._cells[environment, row["kind"]] += 1
        self._difficulties[str(row["difficulty"])] += 1
        self._tones[scenario["persona"]["tone"]] += 1
        self._endings["handed_over" if scenario.get("honest_end") else scenario["ending"]] += 1
        for sort in ("faults", "mistakes"):
            for kind in {one["kind"] for one in scenario.get(sort, ())}:
                self._trouble[sort.removesuffix("s"), kind] += 1
        self._troubled += bool(scenario.get("faults") or scenario.get("mistakes"))
        for tool, effect in json.loads(row["effects"]).items():
            self._effects[tool] = effect
            self._homes.setdefault(tool, set()).add(environment)
        self._count_calls(messages)
        self._compare(messages, f"{environment}/{row['template']}")

    def _compare(self, messages: Sequence[Mapping[str, Any]], template: str) -> None:
        opening = next(message["content"] for message in messages if message["role"] == "user")
        # The two that somebody worded for this trace alone. The rest would blur the comparison: the system prompt is the same
        # throughout an environment; results and arguments are mostly ids, dates and amounts, random in every world; thinking
        # is short and formulaic, and there is more of it the longer a trace is.
        text = f"{opening}\n{messages[-1]['content']}"
        self._openings.add(hash(opening))
        self._masked.add(hash(_DIGITS.sub("0", opening)))
        self._signatures[len(self._templates)] = signature(text, self._blank)
        self._templates.append(sys.intern(template))

    def _count_calls(self, messages: Sequence[Mapping[str, Any]]) -> None:
        groups: list[list[str]] = []
        characters = 0
        for message in messages:
            characters += len(message["content"]) + len(message.get("reasoning_content") or "")
            if message["role"] == "tool":
                self._failed[message["name"]] += self.fails(message["content"])
            calls = [call["function"] for call in message.get("tool_calls") or ()]
            characters += sum(len(json.dumps(call["arguments"], ensure_ascii=False)) for call in calls)
            if calls:
                groups.append([call["name"] for call in calls])
        made = Counter(name for group in groups for name in group)
        self._calls.update(made)
        self._users.update(made.keys())
        self._shapes[shape(groups)] += 1
        for name, number in (("messages", len(messages)), ("calls", made.total()), ("characters", characters)):
            self._lengths[name].append(number)

    def report(self) -> dict[str, Json]:
        total = len(self._templates)
        templates = Counter(self._templates)
        environments = Counter({name: 0 for name, _ in self._cells})
        for (name, _), number in self._cells.items():
            environments[name] += number
        return {
            "traces": total,
            "kinds": {kind: self._kinds[kind] for kind in KINDS if self._kinds[kind]},
            "environments": {
                name: {"traces": number, "kinds": {kind: self._cells[name, kind] for kind in KINDS if self._cells[name, kind]}}
                for name, number in _ranked(environments)
            },
            "templates": {"distinct": len(templates), "traces": dict(_ranked(templates))},
            "difficulties": dict(sorted(self._difficulties.items())),
            "tones": dict(_ranked(self._tones)),
            "endings": dict(_ranked(self._endings)),
            "trouble": {
                "traces": self._troubled,
                "kinds": [{"kind": kind, "sort": sort, "traces": number} for (sort, kind), number in _ranked(self._trouble)],
            },
            "tools": self._tools(),
            "call_sequences": {
                **evenness(self._shapes),
                "top": [{"calls": one, "traces": number} for one, number in _ranked(self._shapes)[:TOP]],
            },
            "lengths": {name: _spread(numbers) for name, numbers in self._lengths.items()},
            "openings": {
                "distinct": len(self._openings),
                "distinct_share": _share(len(self._openings), total),
                "distinct_with_digits_masked": len(self._masked),
            },
            "near_duplicates": self._near_duplicates(templates),
        }

    def _tools(self) -> dict[str, Json]:
        never = sorted(tool for tool in self._effects if not self._calls[tool])
        return {
            "offered": len(self._effects),
            "called": len(self._effects) - len(never),
            "never_called": never,
            "never_called_share": _share(len(never), len(self._effects)),
            "calls": self._calls.total(),
            "calls_of_unknown_tools": sum(number for tool, number in self._calls.items() if tool not in self._effects),
            "failed_calls": self._failed.total(),
            "by_tool": {
                tool: {
                    "calls": number,
                    "failed": self._failed[tool],
                    "traces": self._users[tool],
                    "effect": self._effects[tool],
                    "environments": sorted(self._homes[tool]),
                }
                for tool, number in _ranked(self._calls)
                if tool in self._effects
            },
        }

    def _near_duplicates(self, templates: Counter[str]) -> dict[str, Json]:
        repeated = repeats(self._signatures[: len(self._templates)])
        of_template = Counter(name for name, again in zip(self._templates, repeated, strict=True) if again)
        return {
            "threshold": SIMILAR,
            "traces": of_template.total(),
            "share": _share(of_template.total(), len(self._templates)),
            "by_template": {name: {"traces": number, "share": _share(number, templates[name])} for name, number in _ranked(of_template)},
        }


class _Conversations(_Traces):
    """Imported ones, of which less is known."""

    fails = staticmethod(failed)

    def _add(self, row: Row) -> None:
        messages = [json.loads(text) for text in row["messages"]]
        for tool in row["tools"]:
            name = json.loads(tool)["function"]["name"]
            self._effects[name] = ""
            self._homes[name] = {"imported"}
        self._count_calls(messages)
        self._compare(messages, "imported")

    def report(self) -> dict[str, Json]:
        whole = super().report()
        return {name: whole[name] for name in ("traces", "tools", "call_sequences", "lengths", "openings", "near_duplicates")}


def shape(groups: Sequence[Sequence[str]]) -> str:
    """Tool names in the order of the calls; those made in one message in brackets, repetitions as a number."""
    steps = [names[0] if len(names) == 1 else f"[{', '.join(_runs(names))}]" for names in groups]
    return " > ".join(_runs(steps))


def _runs(names: Sequence[str]) -> list[str]:
    runs = [(name, len(list(run))) for name, run in groupby(names)]
    return [name if times == 1 else f"{name} x{times}" for name, times in runs]


def evenness(counts: Counter[str]) -> dict[str, Json]:
    """Shannon entropy of how traces spread over shapes. `normalised_entropy` is its share of what as many shapes could
    have (1: all alike frequent); `effective` is the number of alike frequent shapes with the same entropy."""
    total = counts.total()
    entropy = sum(number / total * math.log2(total / number) for number in counts.values())
    return {
        "distinct": len(counts),
        "entropy_bits": round(entropy, 4),
        "normalised_entropy": round(entropy / math.log2(len(counts)), 4) if len(counts) > 1 else 0.0,
        "effective": round(2**entropy, 1) if total else 0.0,
    }


def _spread(numbers: Sequence[int]) -> dict[str, Json]:
    import numpy as np

    if not numbers:
        return {}
    low, middle, late, high = np.percentile(numbers, (0, 50, 90, 100))
    return {
        "min": int(low),
        "median": float(middle),
        "mean": round(float(np.mean(numbers)), 2),
        "p90": round(float(late), 1),
        "max": int(high),
    }


def _ranked(counts: Counter[Any]) -> list[tuple[Any, int]]:
    """The most frequent first, alike frequent ones by name: the same for the same traces."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


# --- rejections ---------------------------------------------------------------------------------------------


def _rejections(files: Sequence[Path]) -> dict[str, Json]:
    stages: Counter[str] = Counter()
    reasons: dict[tuple[str, str], Counter[str]] = {}
    blame: Counter[str] = Counter()
    for path in files:
        for rows in read_rows(path, REJECTION_COLUMNS):
            for row in rows:
                end = "final" if row["final"] else "revised"
                stages[row["stage"]] += row["final"]
                blame[row["blame"]] += row["final"]
                reasons.setdefault((row["stage"], reason_class(row["stage"], row["reason"])), Counter())[end] += 1
    ranked = sorted(reasons.items(), key=lambda item: (-item[1].total(), item[0]))
    return {
        "final": stages.total(),
        "revised": sum(counts["revised"] for counts in reasons.values()),
        "stages": {stage: number for stage, number in _ranked(stages) if number},
        "blame": {who: number for who, number in _ranked(blame) if number},
        "reasons": [
            {"stage": stage, "reason": reason, "final": counts["final"], "revised": counts["revised"]} for (stage, reason), counts in ranked
        ],
    }


def reason_class(stage: str, reason: str) -> str:
    """A reason without what is particular to its trace: the principle that was broken, the check of the goal that
    failed, or else the sentence with names, values and numbers left out."""
    if stage == "constitution":
        return reason.split(" ", 1)[0].rstrip(":")
    head, colon, rest = reason.partition(": ")
    if colon and head in Outcome.CHECKS:
        return f"{head}: {_general(rest)}"
    return _general(reason)


def _general(reason: str) -> str:
    return _LISTED.sub("…", _PARTICULAR.sub("…", reason))


# --- printing -----------------------------------------------------------------------------------------------


def open_console() -> Console:
    """On a terminal as wide as that, but for very wide ones; elsewhere 100 columns, unless COLUMNS says otherwise."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.width = min(console.width, WIDEST)
    elif "COLUMNS" not in os.environ:
        console.width = PLAIN_WIDTH
    return console


def clean(text: str) -> str:
    """Text that cannot act on a terminal: control characters, such as those that begin an escape sequence, and lone
    surrogates become visible signs. What a tool returned may hold anything."""
    return _CONTROL.sub(lambda match: chr(0x2400 + ord(match[0])) if match[0] < " " else "\N{REPLACEMENT CHARACTER}", text)


def count_of(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# --- tables -------------------------------------------------------------------------------------------------


def _tables(report: Mapping[str, Json]) -> Iterator[RenderableType]:
    yield _headline(report)
    if report["traces"]:
        yield from _what(report)
        yield from _tool_tables(report["tools"], report["call_sequences"])
        yield from _texts(report)
    if "critic" in report:
        yield from _critic_tables(report["critic"])
    yield from _rejection_tables(report["rejections"])


def _import_tables(report: Mapping[str, Json]) -> Iterator[RenderableType]:
    about = report["run"]
    yield Text.assemble(
        (clean(about["path"]), "bold"), f"  {count_of(report['traces'], 'conversation')} imported from {clean(about['import']['file'])}"
    )
    if report["traces"]:
        yield from _tool_tables(report["tools"], report["call_sequences"])
        yield from _texts(report)
    if report["refused"]:
        yield _heading("Refused rows")
        grid = _grid("stage", "reason", ">rows")
        for one in report["refused"]:
            _row(grid, one["stage"], one["reason"], _count(one["rows"]))
        yield _indented(grid)


def _headline(report: Mapping[str, Json]) -> Text:
    run = report["run"]
    line = Text.assemble((clean(run["path"]), "bold"), f"  {count_of(report['traces'], 'trace')}")
    if not report["traces"]:
        line.append("\nThere are no traces yet: the first ones are written some seconds after a run has begun.")
        return line
    if report["preference_pairs"]:
        line.append(f", {count_of(report['preference_pairs'], 'preference pair')}")
    if run["complete"] is not None:
        line.append(" · ").append("complete" if run["complete"] else "not complete yet", "green" if run["complete"] else "yellow")
    for name in ("seed", "teacher"):
        if run[name] is not None:
            line.append(f" · {name} {clean(str(run[name]))}", "dim")
    return line


def _what(report: Mapping[str, Json]) -> Iterator[RenderableType]:
    total = report["traces"]
    yield _heading("Environments and kinds")
    kinds = list(report["kinds"])
    grid = _grid("environment", *(f">{kind}" for kind in kinds), ">traces", ">share", "")
    most = max(one["traces"] for one in report["environments"].values())
    for name, one in report["environments"].items():
        cells = [_count(one["kinds"].get(kind, 0)) for kind in kinds]
        _row(grid, name, *cells, _count(one["traces"]), _percent(one["traces"], total), _bar(one["traces"], most))
    _row(grid, "all", *(_count(report["kinds"][kind]) for kind in kinds), _count(total), _percent(total, total), style="bold")
    yield _indented(grid)
    yield Text()
    yield _side_by_side(
        _counted("difficulty", report["difficulties"], total),
        _counted("tone of the user", report["tones"], total),
        _counted("ending", report["endings"], total),
    )
    trouble = report["trouble"]
    if trouble["traces"]:
        yield _heading("Trouble", f"in {count_of(trouble['traces'], 'trace')}")
        parts = ((title, {one["kind"]: one["traces"] for one in trouble["kinds"] if one["sort"] == sort}) for title, sort in SORTS)
        yield _side_by_side(*(_counted(title, part, total, 8) for title, part in parts if part))
    ranked = list(report["templates"]["traces"].items())
    yield _heading("Templates", f"{len(ranked)} distinct")
    if len(ranked) <= TOP:
        yield _indented(_counted("template", dict(ranked), total, 8))
    else:
        most, least = dict(ranked[: TOP // 2]), dict(ranked[-(TOP // 2) :])
        yield _side_by_side(_counted("most frequent", most, total, 0), _counted("least frequent", least, total, 0))


def _tool_tables(tools: Mapping[str, Json], sequences: Mapping[str, Json]) -> Iterator[RenderableType]:
    failed = f", {_percent(tools['failed_calls'], tools['calls'])} of them failing" if tools["calls"] else ""
    about = f"{tools['called']} of {count_of(tools['offered'], 'tool')} called, {count_of(tools['calls'], 'call')}{failed}"
    yield _heading("Tools", about)
    most = max((one["calls"] for one in tools["by_tool"].values()), default=1)
    grid = _grid("tool", "effect", "environment", ">calls", ">share", ">failed", ">traces", "")
    for name, one in list(tools["by_tool"].items())[:TOP]:
        homes = one["environments"]
        where = homes[0] if len(homes) == 1 else f"{len(homes)} environments"
        numbers = (_count(one["calls"]), _percent(one["calls"], tools["calls"]), _count(one["failed"]), _count(one["traces"]))
        _row(grid, name, one["effect"], where, *numbers, _bar(one["calls"], most, 12))
    yield _indented(grid)
    rest = len(tools["by_tool"]) - TOP
    if rest > 0:
        yield _note(f"and {count_of(rest, 'more tool')}; --json lists all")
    if tools["never_called"]:
        share = _percent(len(tools["never_called"]), tools["offered"])
        yield _note(f"never called ({len(tools['never_called'])}, {share}): {', '.join(tools['never_called'])}")
    about = f"{sequences['distinct']:,} distinct, spread like {sequences['effective']:,.0f} of equal frequency"
    yield _heading("Call sequences", f"{about}; normalised entropy {sequences['normalised_entropy']:.3f}")
    grid = _grid(">traces", "calls in their order; [ ] in one message")
    for one in sequences["top"]:
        _row(grid, _count(one["traces"]), one["calls"] or "no call")
    yield _indented(grid)


def _texts(report: Mapping[str, Json]) -> Iterator[RenderableType]:
    yield _heading("Lengths", "of a trace; characters with system prompt, results, thinking and arguments")
    grid = _grid("", *(f">{name}" for name in ("min", "median", "mean", "p90", "max")))
    for name, spread in report["lengths"].items():
        _row(grid, name, _count(spread["min"]), *(f"{spread[key]:,.1f}" for key in ("median", "mean", "p90")), _count(spread["max"]))
    yield _indented(grid)
    total, openings, near = report["traces"], report["openings"], report["near_duplicates"]
    yield _heading("Repetition")
    grid = _grid("", ">traces", ">share")
    _row(grid, "distinct openings", _count(openings["distinct"]), _percent(openings["distinct"], total))
    masked = openings["distinct_with_digits_masked"]
    _row(grid, "distinct openings, digits masked", _count(masked), _percent(masked, total))
    _row(
        grid,
        f"near-duplicates of an earlier trace (Jaccard ≥ {near['threshold']})",
        _count(near["traces"]),
        _percent(near["traces"], total),
    )
    yield _indented(grid)
    worst = list(near["by_template"].items())[:5]
    if worst:
        listed = (f"{name} {one['traces']:,} ({one['share']:.0%} of its traces)" for name, one in worst)
        yield _note("near-duplicates are most in " + ", ".join(listed))


def _rejection_tables(rejections: Mapping[str, Json]) -> Iterator[RenderableType]:
    if not rejections["reasons"]:
        return
    yield _heading("Rejections", f"{count_of(rejections['final'], 'scenario')} lost, {count_of(rejections['revised'], 'draft')} sent back")
    grid = _grid("stage", "reason", ">lost", ">sent back", "")
    most = max(one["final"] + one["revised"] for one in rejections["reasons"])
    for one in rejections["reasons"][: TOP + 2]:
        both = one["final"] + one["revised"]
        _row(grid, one["stage"], one["reason"], _count(one["final"]), _count(one["revised"]), _bar(both, most, 12))
    yield _indented(grid)
    rest = len(rejections["reasons"]) - TOP - 2
    if rest > 0:
        yield _note(f"and {count_of(rest, 'more reason')}; --json lists all")
    for title, name in (("lost at", "stages"), ("to blame", "blame")):
        if rejections[name]:
            yield _note(f"{title}: " + ", ".join(f"{one} {number:,}" for one, number in rejections[name].items()))


def _critic_tables(critic: Mapping[str, Json]) -> Iterator[RenderableType]:
    overall = critic["overall"]
    yield _heading("Critic against rules", f"{count_of(overall['judged'], 'judgement')}, {critic['unreadable']:,} critiques not readable")
    if not overall["judged"]:
        return
    grid = _grid("principle", ">judged", ">both fail", ">critic only", ">rule only", ">precision", ">recall", ">kappa")
    for name, one in [*critic["principles"].items(), ("all", overall)]:
        shares = ("-" if one[key] is None else f"{one[key]:.2f}" for key in ("precision", "recall", "kappa"))
        counts = (_count(one[key]) for key in ("judged", "both_failed", "critic_only", "rule_only"))
        _row(grid, name, *counts, *shares, style="bold" if name == "all" else "")
    yield _indented(grid)
    yield _note("How far the critic's word can be trusted where no rule decides: kappa is 1 for full agreement, 0 for chance.")


def _heading(title: str, about: str = "") -> Text:
    return Text.assemble("\n", (title, "bold cyan"), f"  {about}" if about else "")


def _grid(*heads: str) -> Table:
    """A table without lines; a head that begins with '>' has its column to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in heads:
        right = head.startswith(">")
        table.add_column(Text(head.removeprefix(">")), justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def _row(grid: Table, *cells: str | Text, style: str = "") -> None:
    """Strings as they are: rich would take a bracket in them for markup."""
    grid.add_row(*(Text(clean(cell)) if isinstance(cell, str) else cell for cell in cells), style=style)


def _counted(title: str, counts: Mapping[str, int], total: int, bars: int = 5) -> Table:
    grid = _grid(title, ">", ">", *([""] if bars else []))
    most = max(counts.values(), default=1)
    for name, number in counts.items():
        _row(grid, name, _count(number), _percent(number, total), *([_bar(number, most, bars)] if bars else []))
    return grid


def _side_by_side(*tables: Table) -> RenderableType:
    return _indented(Columns(tables, padding=(0, 2)))


def _indented(what: RenderableType) -> Padding:
    return Padding(what, (0, 0, 0, 2), expand=False)


def _note(text: str) -> Padding:
    return _indented(Text(clean(text), "dim"))


def _bar(number: int, most: int, width: int = 20) -> Text:
    eighths = max(1, round(number / most * width * 8)) if number else 0
    return Text("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip(), "blue")


def _count(number: int) -> str:
    return f"{number:,}"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
