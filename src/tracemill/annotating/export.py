"""What people decided, as a dataset: preference pairs that `tracemill train dpo` and TRL's trainers read.

    FOLDER/README.md                dataset card with `configs:`
    FOLDER/preferences/*.parquet    a prompt with the better and the worse next message
    FOLDER/trajectories/*.parquet   with --whole: a prompt with all that came after either message
    FOLDER/judgements/*.parquet     each judgement, with its reasons
    FOLDER/run.json                 whose pairs these are, counts

It is written beside FOLDER and takes that name when it is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Literal

import yaml
from pydantic import Field

from tracemill import __version__
from tracemill.annotating.pairs import Candidates, Pairs
from tracemill.annotating.progress import Report, Votes, agreement, share
from tracemill.columns import to_row
from tracemill.errors import DatasetError
from tracemill.stats import read_run
from tracemill.trace import Json, Message, OfferedTool, Preference, Record, fingerprint
from tracemill.writer import SHARD_ROWS, Shards, whole_folder, write_whole

CARD = Path(__file__).with_name("card_template.md")
SOURCE = "human"


class Trajectories(Record):
    """A prompt with a better and a worse way to go on, to the end: what reward models are trained on."""

    id: str
    trace: str
    index: int
    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    tools: tuple[OfferedTool, ...]
    margin: float


class Said(Record):
    """One judgement. Who made it is a number, unless names were asked for."""

    id: str
    pair: str = Field(description="Id of the run's own pair.")
    annotator: str
    choice: Literal["chosen", "rejected", "tie", "skip"] = Field(description="By the run's own labels, which nobody was shown.")
    reasons: tuple[str, ...]
    note: str


def export(pairs: Pairs, report: Report, folder: Path, *, names: bool) -> dict[str, Json]:
    """Write the dataset, and return its run.json. Raises DatasetError where there is nothing to write, or no place."""
    if not report.outcomes["chosen"] + report.outcomes["rejected"]:
        raise DatasetError("no pair is decided yet: nothing to export", ["judge some: tracemill annotate OUT --name YOUR_NAME"])
    folder = folder.resolve()  # of a link, what it leads to: a link cannot be replaced by a folder
    _check_place(folder)
    with whole_folder(folder) as hidden:
        run = _fill(pairs, report, hidden, names=names)
        if folder.exists():
            shutil.rmtree(folder)  # an earlier export
    return run


def _check_place(folder: Path) -> None:
    """Empty, not there, or an earlier export, which the new one replaces."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not (folder / "run.json").is_file() or "annotations" not in read_run(folder):
        raise DatasetError(f"{folder} holds something else: choose another folder, one that is empty or not there")


def _fill(pairs: Pairs, report: Report, folder: Path, *, names: bool) -> dict[str, Json]:
    called = {name: name if names else str(number) for number, name in enumerate(report.people, 1)}
    kinds: dict[str, type[Record]] = {"preferences": Preference, "trajectories": Trajectories, "judgements": Said}
    shards = {name: Shards(folder / name, record) for name, record in kinds.items()}
    written: list[str] = []
    for votes in report.votes:
        rows = [("judgements", one) for one in _said(votes, called)] + _decided(pairs, votes)
        for place, record in rows:
            shards[place].rows.append(to_row(record))
            if len(shards[place].rows) >= SHARD_ROWS:
                shards[place].flush()
        written += [fingerprint(record.plain()) for _, record in rows]
    for one in shards.values():
        one.flush()
    run = _run(pairs, report, written, list(called.values()) if names else None)
    write_whole(folder / "README.md", _card(folder, run, report))
    write_whole(folder / "run.json", json.dumps(run, indent=2, ensure_ascii=False) + "\n")
    return run


def _said(votes: Votes, called: Mapping[str, str]) -> list[Record]:
    name = votes.pair.key.rpartition(":")[0]
    return [
        Said(
            id=f"{name}.j{number}",
            pair=name,
            annotator=called[one.annotator],
            choice=one.choice if one.choice in ("tie", "skip") else "chosen" if one.choice == votes.pair.chosen else "rejected",
            reasons=one.reasons,
            note=one.note,
        )
        for number, one in enumerate(votes.judgements, 1)
    ]


def _decided(pairs: Pairs, votes: Votes) -> list[tuple[str, Record]]:
    """The pair as people see it; nothing where they did not decide."""
    if votes.outcome not in ("chosen", "rejected"):
        return []
    found = pairs.load(votes.pair)
    if votes.outcome == "rejected":
        given = found.preference
        turned = given.model_copy(update={"chosen": given.rejected, "rejected": given.chosen})
        found = Candidates(turned, found.rejected, found.chosen)
    pair = found.preference
    chosen = (pair.chosen[0].model_copy(update={"train": True}),)
    change = {"id": f"{pair.id}.human", "chosen": chosen, "source": SOURCE, "margin": votes.margin}
    decided: list[tuple[str, Record]] = [("preferences", pair.model_copy(update=change))]
    if pairs.whole:
        whole = Trajectories(
            id=f"{pair.id}.human", trace=pair.trace, index=pair.index, prompt=pair.prompt, chosen=found.chosen, rejected=found.rejected,
            tools=pair.tools, margin=votes.margin,
        )  # fmt: skip
        decided.append(("trajectories", whole))
    return decided


def _run(pairs: Pairs, report: Report, written: list[str], names: list[str] | None) -> dict[str, Json]:
    of, outcomes = read_run(pairs.out), report.outcomes
    config = of.get("config", {})
    presses = [one.presses for one in report.people.values()]
    return {
        "tracemill": __version__,
        "digest": fingerprint(written),
        "config": {"name": f"{config.get('name', 'agent-traces')}-human", "license": config.get("license", "")},
        "annotations": {
            "run": of.get("digest", ""),
            "judged": "trajectories" if pairs.whole else "messages",
            "annotators": len(report.people),
            "alpha": report.alpha,
            "compared": report.compared,
            **({"names": names} if names is not None else {}),
        },
        "counts": {
            "preferences": outcomes["chosen"] + outcomes["rejected"],
            "against_the_run": outcomes["rejected"],
            "ties": outcomes["tie"],
            "split": outcomes["split"],
            "judgements": sum(len(one.judgements) for one in report.votes),
            "skips": sum(one["skip"] for one in presses),
        },
        "complete": True,
    }


def _card(folder: Path, run: Mapping[str, Json], report: Report) -> str:
    places = [name for name in ("preferences", "trajectories", "judgements") if (folder / name).is_dir()]
    front = {
        "pretty_name": run["config"]["name"],
        **({"license": run["config"]["license"]} if run["config"]["license"] else {}),
        "task_categories": ["text-generation"],
        "tags": ["agent-traces", "tool-use", "preference", "human-feedback", "dpo", "tracemill"],
        "configs": [
            {"config_name": name, "data_files": f"{name}/*.parquet", **({"default": True} if name == "preferences" else {})}
            for name in places
        ],
    }
    counts = run["counts"]
    return Template(CARD.read_text(encoding="utf-8")).substitute(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        title=run["config"]["name"],
        version=run["tracemill"],
        run=run["annotations"]["run"] or "without a record",
        what="two whole ways to go on" if run["annotations"]["judged"] == "trajectories" else "two next messages of an agent",
        annotators=f"{len(report.people)} {'person' if len(report.people) == 1 else 'people'}",
        names=f" ({', '.join(run['annotations']['names'])})" if "names" in run["annotations"] else "",
        judgements=f"{counts['judgements']:,}",
        skips=f"{counts['skips']:,}",
        preferences=f"{counts['preferences']:,}",
        ties=f"{counts['ties']:,}",
        split=f"{counts['split']:,}",
        alpha=agreement(report),
        with_run=share(counts["preferences"] - counts["against_the_run"], counts["preferences"]),
        license=run["config"]["license"] or "That of the run.",
    )
