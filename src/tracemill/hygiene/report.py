"""What came of a cleaning: hygiene.json, run.json, the card, and the summary on the screen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape

from tracemill import __version__, card
from tracemill.calling import command
from tracemill.hub.content import split_card
from tracemill.hygiene.benchmarks import Benchmark
from tracemill.hygiene.survey import Survey
from tracemill.stats import count_of
from tracemill.trace import Json
from tracemill.writer import Tally, write_whole

FILE = "hygiene.json"
MOST = 1000  # of a sort that hygiene.json lists one by one; the ledger has all
WHYS = {
    "finding": "with secrets or personal data",
    "contamination": "that meet a benchmark",
    "near_duplicate": "like one that stays",
}


def build(
    survey: Survey, benchmarks: Sequence[Benchmark], counts: Mapping[tuple[str, str], int], *, settings: dict[str, Json], digest: str
) -> dict[str, Any]:
    """hygiene.json. `counts` are those of the copy: (fate, kind) -> records."""
    by_fate = {
        fate: {kind: number for (one, kind), number in sorted(counts.items()) if one == fate} for fate in ("kept", "removed", "masked")
    }
    kinds = [kind for kind in {**by_fate["kept"], **by_fate["removed"]} if kind not in ("preferences", "rejects")]
    return {
        "tracemill": __version__,
        "digest": digest,
        "settings": settings,
        "read": sum(by_fate[fate].get(kind, 0) for fate in ("kept", "removed") for kind in kinds),
        "kept": sum(by_fate["kept"].get(kind, 0) for kind in kinds),
        "removed": {
            "traces": {kind: by_fate["removed"][kind] for kind in kinds if kind in by_fate["removed"]},
            "preferences": by_fate["removed"].get("preferences", 0),
            "why": {why: counts[why, ""] for why in WHYS if (why, "") in counts},
        },
        "masked_rejections": by_fate["masked"].get("rejects", 0),
        "near_duplicates": _near_duplicates(survey, settings),
        "contamination": {one.name: _met(survey, one) for one in benchmarks},
        "findings": _found(survey),
    }


def _near_duplicates(survey: Survey, settings: Mapping[str, Json]) -> dict[str, Json]:
    pairs = [(id, *one.like) for id, one in survey.reasons.items() if one.like]
    runs = Counter(run for _, run, _, _ in pairs)
    return {
        "similar": settings["similar"],
        "within": runs[""],
        "earlier": {run: runs[run] for run in settings["earlier"]},
        "by_template": dict(sorted(survey.templates.items(), key=lambda item: (-item[1], item[0]))),
        "pairs": [
            {"id": id, "like": like, **({"of": run} if run else {}), "similarity": round(similarity, 4)}
            for id, run, like, similarity in pairs[:MOST]
        ],
    }


def _met(survey: Survey, benchmark: Benchmark) -> dict[str, Json]:
    met = [(id, match) for id, one in survey.reasons.items() for match in one.matches if match.benchmark == benchmark.name]
    return {
        "texts": len(benchmark.texts),
        "too_short": survey.contamination.passed_over[benchmark.name],
        "tools": len(benchmark.tools),
        "traces_by_text": len({id for id, match in met if match.by == "text"}),
        "traces_by_tool": len({id for id, match in met if match.by == "tool"}),
        "texts_met": len({match.there for _, match in met if match.by == "text"}),
        "tools_met": sorted({match.what for _, match in met if match.by == "tool"}),
        "matches": [{"id": id, "by": one.by, "here": one.here, "there": one.there, "what": one.what} for id, one in met[:MOST]],
    }


def _found(survey: Survey) -> dict[str, Json]:
    return {
        "kinds": dict(Counter(one.kind for _, one in survey.findings).most_common()),
        "records": len({id for id, _ in survey.findings}),
        "found": [{"id": id, "kind": one.kind, "where": one.where, "what": one.masked} for id, one in survey.findings[:MOST]],
    }


# --- the folder ---------------------------------------------------------------------------------------------


def write(folder: Path, out: Path, run: Mapping[str, Json], found: Mapping[str, Any]) -> None:
    """run.json, card and report of the cleaned run in `folder`. `run` is run.json of OUT."""
    now = {**run, "counts": _counts(run, found), "cleaned": {**found["settings"], "removed": found["removed"], "digest": found["digest"]}}
    text = (
        _card_of_import(folder, out, found)
        if "import" in run
        else card.render(folder, now, _tally(now), complete=bool(run.get("complete")))
    )
    before, licence, after = text.rpartition("\n## Licence\n")
    write_whole(folder / "README.md", f"{before}\n{section(found)}{licence}{after}")
    write_whole(folder / "run.json", json.dumps(now, indent=2) + "\n")
    write_whole(folder / FILE, json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def _counts(run: Mapping[str, Json], found: Mapping[str, Any]) -> dict[str, Json]:
    """What is there now; how many scenarios or rows were rejected on the way is as it was."""
    before, gone = run["counts"], found["removed"]
    if "import" in run:
        return {**before, "accepted": found["kept"]}
    accepted = {kind: number - gone["traces"].get(kind, 0) for kind, number in before["accepted"].items()}
    return {**before, "accepted": accepted, "preferences": before["preferences"] - gone["preferences"]}


def _tally(run: Mapping[str, Json]) -> Tally:
    counts: dict[str, Any] = {name: Counter(value) if isinstance(value, dict) else value for name, value in run["counts"].items()}
    return Tally(**counts)


def _card_of_import(folder: Path, out: Path, found: Mapping[str, Any]) -> str:
    """The card of the import, without configs of which nothing is left."""
    told, body = split_card((out / "README.md").read_text(encoding="utf-8"))
    told["configs"] = [one for one in told.get("configs", ()) if any(folder.glob(one["data_files"]))]
    return f"---\n{yaml.safe_dump(told, sort_keys=False, allow_unicode=True)}---\n{body}"


def section(found: Mapping[str, Any]) -> str:
    """The card's word on the cleaning."""
    lines = ["## Cleaning", "", f"{found['kept']:,} of {found['read']:,} were kept by `tracemill clean`; {FILE} has the whole report.", ""]
    lines += [f"- {line}" for line in _told(found)]
    return "\n".join(lines) + "\n"


def _told(found: Mapping[str, Any]) -> Iterator[str]:
    near, why = found["near_duplicates"], found["removed"]["why"]
    earlier = "".join(f", {number:,} of them of {run}" for run, number in near["earlier"].items())
    yield f"Near-duplicates: {why.get('near_duplicate', 0):,} removed (the same calls, and a Jaccard similarity of {near['similar']:g} or more of words and arguments){earlier}."
    for name, one in found["contamination"].items():
        compared = f"{one['texts'] - one['too_short']:,} texts and {one['tools']:,} tools"
        yield f"Benchmark {name}, {compared}: {one['traces_by_text']:,} met it by text, {one['traces_by_tool']:,} by tool."
    if not found["contamination"]:
        yield "Benchmarks: compared with none."
    kinds = ", ".join(f"{kind} {number:,}" for kind, number in found["findings"]["kinds"].items()) or "none found"
    kept = " They were kept." if found["settings"]["keep_findings"] and found["findings"]["kinds"] else ""
    yield f"Secrets and personal data in generated text: {kinds}.{kept}"
    if found["masked_rejections"]:
        yield f"Masked in {count_of(found['masked_rejections'], 'rejection')}."


# --- the screen ---------------------------------------------------------------------------------------------


def show(console: Console, out: Path, clean: Path, found: Mapping[str, Any], *, again: bool, complete: bool) -> None:
    where, removed = escape(str(clean)), found["removed"]
    if again:
        console.print(f"[green]{where} holds this cleaning already.[/]", soft_wrap=True)
    console.print(
        f"{escape(str(out))}: {found['read']:,} read, [green]{found['kept']:,} kept[/], [red]{sum(removed['traces'].values()):,} removed[/]."
    )
    for why, number in removed["why"].items():
        console.print(f"  {number:>7,}  {WHYS[why]}")
    if removed["preferences"]:
        console.print(f"  {removed['preferences']:>7,}  preference pairs with them")
    for line in _told(found):
        console.print(escape(line), soft_wrap=True)
    if not complete:
        console.print("The run was not complete: clean it again into another folder when it is.")
    if not found["kept"]:
        console.print(f"[red]Nothing is left.[/] See {where}/{FILE}", soft_wrap=True)
    else:
        console.print(
            f"Next: {escape(command('verify', clean))}; what was removed, and why, is in {where}/removed and {FILE}", soft_wrap=True
        )
