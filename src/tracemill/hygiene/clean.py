"""`tracemill clean`: a run without repetition, benchmarks, secrets and personal data, as a run again.

    CLEAN/data, preferences, rejects    as in OUT, without what was removed; in the ledger of rejects secrets are masked
    CLEAN/removed/*.parquet             what was removed, with its reasons
    CLEAN/hygiene.json                  the report
    CLEAN/run.json, README.md           brought up to date

OUT is read twice, shard by shard: once to judge, once to copy. CLEAN is written beside its place and takes its name when
it is whole.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from tracemill import __version__
from tracemill.columns import Row, plain_row, to_row
from tracemill.errors import ConfigError, DatasetError
from tracemill.hub.content import split_card
from tracemill.hygiene import report
from tracemill.hygiene.benchmarks import read_benchmark
from tracemill.hygiene.contamination import Contamination
from tracemill.hygiene.findings import in_messages, in_text, mask
from tracemill.hygiene.minhash import SIMILAR
from tracemill.hygiene.removed import Removed
from tracemill.hygiene.survey import Reasons, Survey, data_files
from tracemill.stats import file_sha256, is_import, part_files, read_rows, read_run, row_count
from tracemill.trace import Conversation, Json, Preference, Record, Refusal, Rejection, Trace, fingerprint
from tracemill.writer import SHARD_ROWS, Shards, whole_folder


@dataclass(frozen=True)
class Cleaning:
    """What is to be done."""

    out: Path
    clean: Path
    earlier: tuple[Path, ...] = ()
    benchmarks: tuple[Path, ...] = ()
    similar: float = SIMILAR
    keep_findings: bool = False


def clean(job: Cleaning) -> int:
    """Clean a run into a new folder and print what came of it; 0 if a trace is left, else 1. Raises ConfigError, DatasetError."""
    run = _run_to_clean(job)
    digest = _digest(job)
    done = _done_before(job.clean, digest)
    again = done is not None
    if done is None:
        with whole_folder(job.clean) as hidden:
            done = _fill(job, run, digest, hidden)
    report.show(Console(highlight=False), job.out, job.clean, done, again=again, complete=run.get("complete") is not False)
    return 0 if done["kept"] else 1


# --- what is asked for --------------------------------------------------------------------------------------


def _run_to_clean(job: Cleaning) -> dict[str, Json]:
    """run.json of OUT, if all that is asked for can be done."""
    if not 0 < job.similar <= 1:
        raise ConfigError(f"--similar should be above 0 and at most 1, such as 0.8; got {job.similar:g}")
    if job.clean.resolve().is_relative_to(job.out.resolve()):
        raise ConfigError(f"--out {job.clean} lies in the run that is cleaned, which is never changed: choose a folder outside of it")
    run = read_run(job.out)
    problems = [f"{one} holds no traces" for one in (job.out, *job.earlier) if not data_files(one)]
    problems += [f"--earlier {one} is the run that is cleaned" for one in job.earlier if one.resolve() == job.out.resolve()]
    if not run:
        problems.append(f"{job.out} has no run.json")
    elif not isinstance(run.get("counts"), dict):
        problems.append(f"{job.out / 'run.json'} is damaged: it has no counts")
    if is_import(run):  # whose card is kept; that of a run is made anew
        problems += _card_problems(job.out / "README.md")
    if "cleaned" in run:
        problems.append(
            f"{job.out} is a cleaned run already: clean the one that it was made from ({run['cleaned']['of']}) with all you want"
        )
    if problems:
        raise DatasetError(f"{job.out} cannot be cleaned", problems)
    return run


def _card_problems(path: Path) -> Iterator[str]:
    try:
        split_card(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        yield f"{path} cannot be read: {reason}"


def _digest(job: Cleaning) -> str:
    """The same for the same data, compared with the same, by the same version."""
    return fingerprint({
        "version": __version__, "similar": job.similar, "keep_findings": job.keep_findings,
        "data": [file_sha256(path) for folder in ("data/*", "preferences", "rejects") for path in sorted(job.out.glob(f"{folder}/part-*.parquet"))],
        "earlier": [[file_sha256(path) for path in data_files(one)] for one in job.earlier],
        "benchmarks": [[one.name, file_sha256(one)] for one in job.benchmarks],
    })  # fmt: skip


def _done_before(clean: Path, digest: str) -> dict[str, Any] | None:
    """The report, if the folder holds this very cleaning; None if it is empty or not there. Raises DatasetError."""
    if not clean.exists() or (clean.is_dir() and not any(clean.iterdir())):
        return None
    try:
        found: dict[str, Any] = json.loads((clean / report.FILE).read_text(encoding="utf-8"))
        if found["digest"] == digest:
            return found
        what = "another cleaning"
    except (OSError, ValueError, KeyError, TypeError):
        what = "something else"
    raise DatasetError(f"{clean} holds {what}: choose another --out, one that is empty or not there")


# --- the two readings ---------------------------------------------------------------------------------------


def _fill(job: Cleaning, run: dict[str, Json], digest: str, folder: Path) -> dict[str, Any]:
    benchmarks = [read_benchmark(path, label) for path, label in zip(job.benchmarks, _labels(job.benchmarks), strict=True)]
    survey = Survey(Contamination(benchmarks), job.keep_findings)
    files = data_files(job.out)
    labels = _labels(job.earlier)
    total = sum(row_count(path) for path in files)
    waiting = Console(stderr=True)
    with Progress(console=waiting, transient=True, disable=not waiting.is_terminal) as progress:
        for label, earlier in zip(labels, job.earlier, strict=True):
            task = progress.add_task(f"Reading {label}", total=sum(row_count(path) for path in data_files(earlier)))
            survey.read_earlier(label, earlier, lambda rows, task=task: progress.advance(task, rows))  # type: ignore[misc]
        task = progress.add_task("Judging", total=total)
        survey.read(job.out, lambda rows: progress.advance(task, rows))
        survey.find_repeats(job.similar)
        task = progress.add_task("Writing", total=total)
        copy = _Copy(job, survey, folder)
        for path in files:
            copy.traces(path)
            progress.advance(task, row_count(path))
        copy.others(Refusal if is_import(run) else Rejection)
        copy.close()
    found = report.build(survey, benchmarks, copy.counts, settings=_settings(job), digest=digest)
    report.write(folder, job.out, run, found)
    return found


def _settings(job: Cleaning) -> dict[str, Json]:
    """By names alone: where files lie is nobody's business."""
    return {
        "of": job.out.resolve().name, "earlier": _labels(job.earlier), "benchmarks": _labels(job.benchmarks),
        "similar": job.similar, "keep_findings": job.keep_findings,
    }  # fmt: skip


def _labels(paths: Sequence[Path]) -> list[str]:
    """The name of each, with a number where two have the same: the report counts by them."""
    labels: list[str] = []
    for path in paths:
        name = path.resolve().name
        names = (name, *(f"{name} ({number})" for number in range(2, len(paths) + 1)))
        labels.append(next(one for one in names if one not in labels))
    return labels


class _Copy:
    """The second reading: each row goes where it belongs."""

    def __init__(self, job: Cleaning, survey: Survey, folder: Path) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """(kept | removed | masked, folder) and (reason, '') -> records."""
        self._job, self._survey, self._folder = job, survey, folder
        self._shards: dict[str, Shards] = {}

    def traces(self, path: Path) -> None:
        kind = path.parent.name
        cls: type[Record] = Conversation if kind == "imported" else Trace
        for row in _rows(path, cls):
            reasons = self._survey.reasons.get(row["id"])
            if reasons is None:
                self._put("kept", f"data/{kind}", cls, row)
            else:
                self._remove(kind, cls, row, reasons)
                self.counts[reasons.why, ""] += 1

    def others(self, ledger: type[Record]) -> None:
        for path in part_files(self._job.out / "preferences"):
            for row in _rows(path, Preference):
                reasons = self._pair_reasons(row)
                if reasons is None:
                    self._put("kept", "preferences", Preference, row)
                else:
                    self._remove("preferences", Preference, row, reasons)
        for path in part_files(self._job.out / "rejects"):
            for row in _rows(path, ledger):
                self._put("kept", "rejects", ledger, self._masked(ledger, row))

    def close(self) -> None:
        for shards in self._shards.values():
            shards.flush()

    def _pair_reasons(self, row: Row) -> Reasons | None:
        """Those of its trace, which holds all but the rejected message, and what is found in that."""
        messages = [json.loads(text) for text in (*row["prompt"], *row["rejected"])]
        last = f"messages[{len(messages) - 1}]"
        found = [one for one in in_messages(messages, row["tools"], speakers=("assistant",)) if one.where.startswith(last)]
        self._survey.findings += [(row["id"], one) for one in found]
        mine = [] if self._job.keep_findings else found
        whole = self._survey.reasons.get(row["trace"])
        if whole is not None:
            return replace(whole, findings=[*whole.findings, *mine])
        return Reasons(mine) if mine else None

    def _masked(self, cls: type[Record], row: Row) -> Row:
        messages = [json.loads(text) for text in row["messages"]]
        imported = cls is Refusal  # whose users are real for all that is known, and of which nothing was given beforehand
        found = in_messages(messages, speakers=("assistant", "user") if imported else ("assistant",))
        for name in ("raw", "reason", "evidence"):
            found += in_text("\n".join([row[name]] if isinstance(row[name], str) else row[name]), name, personal=imported)
        self._survey.findings += [(row["id"], one) for one in found]
        if not found or self._job.keep_findings:
            return row
        self.counts["masked", "rejects"] += 1
        return to_row(cls.model_validate(mask(plain_row(cls, row), found)))

    def _remove(self, kind: str, cls: type[Record], row: Row, reasons: Reasons) -> None:
        plain = mask(plain_row(cls, row), reasons.findings)
        gone = Removed(
            id=row["id"], index=row["index"], kind=kind, why=reasons.why, evidence=reasons.evidence(),
            like=reasons.like[1] if reasons.like else "", record=plain,
        )  # fmt: skip
        self._put("removed", "removed", Removed, to_row(gone), kind)

    def _put(self, fate: str, folder: str, cls: type[Record], row: Row, kind: str = "") -> None:
        self.counts[fate, kind or folder.rpartition("/")[2]] += 1
        shards = self._shards.setdefault(folder, Shards(self._folder / folder, cls))
        shards.rows.append(row)
        if len(shards.rows) >= SHARD_ROWS:
            shards.flush()


def _rows(path: Path, cls: type[Record]) -> Iterator[Row]:
    return (row for rows in read_rows(path, tuple(cls.model_fields)) for row in rows)
