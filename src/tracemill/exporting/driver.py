"""`tracemill export`: a run, or imported conversations, in the format of another trainer.

It is written beside FOLDER and takes that name when it is whole, so that there is never half of it. Nothing is left out silently: what a format
cannot hold is counted, printed, and told in FOLDER/README.md.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from string import Template

import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from tracemill import __version__
from tracemill.errors import DatasetError
from tracemill.exporting.axolotl import Axolotl
from tracemill.exporting.form import Form, Line, Notes
from tracemill.exporting.instruct import Instruct
from tracemill.exporting.openai import OpenAI
from tracemill.exporting.sharegpt import LlamaFactory, ShareGPT
from tracemill.exporting.sink import Lines, Parquet, Sink
from tracemill.exporting.source import Source
from tracemill.exporting.sts import Sts
from tracemill.exporting.trl import Trl
from tracemill.stats import row_count
from tracemill.trace import Json, fingerprint
from tracemill.writer import whole_folder, write_whole

FORMS: dict[str, type[Form]] = {form.name: form for form in (Trl, OpenAI, ShareGPT, LlamaFactory, Axolotl, Instruct, Sts)}
RECORD = "export.json"
READMES = Path(__file__).with_name("readmes")
_WHOLE = "pairs of whole trajectories left out: only the messages with which they part are exported, as preference pairs"
EVERY = 100  # conversations between two steps of the progress bar


def export(out: Path, folder: Path, *, form: str, kinds: Sequence[str] = ()) -> int:
    """Write the folder and print what is in it; 0 if there is a row, else 1. Raises ConfigError, DatasetError."""
    source, console = Source(out, kinds), Console(highlight=False)
    complete = source.run.get("complete") is not False
    digest = fingerprint({"source": source.digest(), "complete": complete, "format": form, "tracemill": __version__})
    done = _earlier(folder, digest)
    if done is None:
        with whole_folder(folder) as hidden:
            done = _fill(source, FORMS[form](), hidden, digest, complete)
    else:
        console.print(f"[green]{escape(str(folder))} holds this export already.[/]", soft_wrap=True)
    _report(console, folder, done)
    return 0 if done["rows"] else 1


def _earlier(folder: Path, digest: str) -> dict[str, Json] | None:
    """What the folder holds if it is this very export; None if it is empty or not there. Raises DatasetError."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    if isinstance(record, dict) and record.get("digest") == digest:
        return record
    what = "another export, or one of an earlier state" if isinstance(record, dict) and "digest" in record else "something else"
    raise DatasetError(f"{folder} holds {what}: choose another --out, one that is empty or not there")


def _fill(source: Source, form: Form, folder: Path, digest: str, complete: bool) -> dict[str, Json]:
    notes: Notes = Counter()
    rows: Counter[str] = Counter()
    with ExitStack() as stack:
        sinks: dict[str, Sink] = {}
        for name, row in _lines(source, form, notes):
            if name not in sinks:
                path = folder / name
                sinks[name] = stack.enter_context(Lines(path) if path.suffix == ".jsonl" else Parquet(path, form.columns[name]))
            sinks[name].add(row)
            rows[name] += 1
    record: dict[str, Json] = {
        "tracemill": __version__,
        "digest": digest,
        "format": form.name,
        "source": source.out.resolve().name,
        "complete": complete,
        "kinds": list(source.kinds),
        "read": {name: notes.pop(name, 0) for name in ("conversations", "preference pairs")},
        "rows": {name: rows[name] for name in form.files if rows[name]},
        "notes": dict(sorted((+notes).items())),
    }
    for name, text in form.settings(record["rows"]).items():
        write_whole(folder / name, text)
    write_whole(folder / "README.md", _readme(form, record))
    write_whole(folder / RECORD, json.dumps(record, indent=2) + "\n")
    return record


def _lines(source: Source, form: Form, notes: Notes) -> Iterator[Line]:
    """All rows of the export, one after the other. Of what was read only the ids stay in memory, and those only for --kind."""
    waiting = Console(stderr=True)
    ids: set[str] = set()
    with Progress(console=waiting, transient=True, disable=not waiting.is_terminal) as progress:
        task = progress.add_task("Exporting", total=source.count())
        for number, one in enumerate(source.examples(), 1):
            notes["conversations"] += 1
            yield from form.example(one, notes)
            if source.kinds:
                ids.add(one.id)
            if not number % EVERY:
                progress.advance(task, EVERY)
        for trace, pair in source.preferences():
            notes["preference pairs"] += 1
            if source.kinds and trace not in ids:
                notes["preference pairs left out: they belong to no trace of these kinds"] += 1
            else:
                yield from form.pair(pair, notes)
        notes[_WHOLE] += sum(map(row_count, source.trajectories))


def _front(form: Form, record: dict[str, Json]) -> str:
    """What `load_dataset` reads at the top of the README. It fails for all files if one that is named there was not written."""
    configs = [{"config_name": form.configs[name], "data_files": name} for name in record["rows"] if name in form.configs]
    return f"---\n{yaml.safe_dump({'configs': configs}, sort_keys=False)}---\n\n" if configs else ""


def _readme(form: Form, record: dict[str, Json]) -> str:
    files = [f"| `{name}` | {number:,} | {form.files[name]} |" for name, number in record["rows"].items()]
    notes = [f"| {number:,} | {said} |" for said, number in record["notes"].items()]
    kinds = f" of the kinds {', '.join(record['kinds'])}" if record["kinds"] else ""
    return _front(form, record) + Template((READMES / f"{form.name}.md").read_text(encoding="utf-8")).substitute(
        version=record["tracemill"],
        source=record["source"] + ("" if record["complete"] else " (a run that was not complete)"),
        conversations=f"{record['read']['conversations']:,} conversations{kinds}",
        pairs=f"{record['read']['preference pairs']:,} preference pairs",
        files="\n".join(["| file | rows | a row is |", "| --- | --- | --- |", *files]),
        notes="\n".join(["| how many | what |", "| --- | --- |", *notes]) if notes else "Nothing.",
    )


def _report(console: Console, folder: Path, record: dict[str, Json]) -> None:
    read, where = record["read"], escape(str(folder))
    console.print(
        f"{escape(record['source'])}: {read['conversations']:,} conversations and {read['preference pairs']:,} preference pairs read.",
        soft_wrap=True,
    )
    for name, number in record["rows"].items():
        console.print(f"  [green]{number:>9,}[/]  {where}/{name}", soft_wrap=True)
    if record["notes"]:
        console.print("Left out or changed:")
    for said, number in record["notes"].items():
        console.print(f"  {number:>9,}  {escape(said)}", soft_wrap=True)
    if not record["complete"]:
        console.print("The run was not complete: export it again into another folder when it is.")
    if not record["rows"]:
        console.print("[red]No row is left.[/]")
        return
    console.print(f"How a trainer reads it: {where}/README.md", soft_wrap=True)
    console.print(f"Next: {escape(_next(folder, record))}", soft_wrap=True)


def _next(folder: Path, record: dict[str, Json]) -> str:
    """It is run where the files are, as the settings among them name each other by relative paths."""
    first = Path(next(iter(record["rows"])))
    return f"cd {shlex.quote(str(folder))} && {FORMS[record['format']].following.format(file=first, stem=first.stem)}"
