"""A run, an import, or what people said of a run, as a dataset on the Hub."""

from __future__ import annotations

import fnmatch
import functools
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracemill import __version__, schemas
from tracemill.constitution.constitution import BUNDLED, load_constitution
from tracemill.errors import ConfigError, DatasetError
from tracemill.hub.content import Content, join_card, listed, plain, split_card
from tracemill.hub.public import public_run, public_text
from tracemill.hygiene.report import FILE as HYGIENE
from tracemill.places import is_place, place_within
from tracemill.stats import count_of, is_import, part_files, read_rows, read_run, row_count
from tracemill.trace import Json
from tracemill.writer import changes

SETTLED = 5.0  # seconds after which a card that is older than its run.json is not waited for: its writer was killed
NOUNS = {
    "data/imported": "conversation", "preferences": "preference pair", "trajectories": "pair of trajectories", "judgements": "judgement",
    "rejects": "rejection",
}  # fmt: skip
IMPORT_SCHEMAS = ("conversation", "refusal")


@dataclass(kw_only=True)
class RunContent(Content):
    kind = "dataset"
    record = "run.json"
    front: dict[str, Any]
    body: str
    """Of the card."""
    standing: dict[str, bytes]
    """Small files that are the same whatever shards are there."""
    rows: dict[str, int]
    """Of each shard."""

    def texts(self, present: Collection[str]) -> dict[str, bytes]:
        fitting = {**self.front, "configs": [fit for one in self.front["configs"] if (fit := _fit(one, present))]}
        return {"README.md": join_card(fitting, self.body), **self.standing}

    def message(self, new: Sequence[str], present: Collection[str], small: Collection[str]) -> str:
        if not new:
            return f"Update {listed(sorted(small))} ({self._total(present)}{', complete' if self.complete else ''})"
        added: Counter[str] = Counter()
        for name in new:
            added[name.rpartition("/")[0]] += self.rows[name]
        kinds = [f"{number:,} {place.removeprefix('data/')}" for place, number in sorted(added.items()) if place not in NOUNS]
        parts = [f"{listed(kinds)} {'trace' if kinds[0].startswith('1 ') and len(kinds) == 1 else 'traces'}"] if kinds else []
        parts += [count_of(added[place], noun) for place, noun in NOUNS.items() if added[place]]
        return f"Add {listed(parts)} in {count_of(len(new), 'shard')} ({self._total(present)} in all)"

    def about(self) -> str:
        return f"{self._total(self.shards)} in {count_of(len(self.shards), 'shard')}"

    @property
    def usable(self) -> bool:
        """Whether there is more than rejections."""
        return any(not name.startswith("rejects/") for name in self.shards)

    def differences(self, there: Mapping[str, Json]) -> list[str]:
        if there.get("digest") == self.told["digest"]:
            return []
        named = changes({key: there.get(key) for key in ("config", "import")}, {key: self.told.get(key) for key in ("config", "import")})
        return named or [f"digest: {there.get('digest')} before, {self.told['digest']} now"]

    def _total(self, present: Collection[str]) -> str:
        """Of what the dataset is for; of a run that is its traces, even where there are none yet."""
        places = {name.rpartition("/")[0] for name in present}
        main = "preferences" if "annotations" in self.told else "data/imported" if "data/imported" in places else "data/"
        return count_of(sum(self.rows[name] for name in present if name.startswith(main)), NOUNS.get(main, "trace"))


def of_run(out: Path, repo: str) -> RunContent | None:
    """The card first, then the shards: what the card names is there then. Shards of which it does not know yet wait."""
    run, card = _settled(out)
    if "digest" not in run:
        raise DatasetError(f"{out / 'run.json'} is not the record of a run: it has no digest")
    if card is None:
        return None
    front, body = split_card(public_text(card, run).replace("PATH_OR_REPO", repo))
    shards = _named_shards(out, [glob for one in front.get("configs", []) for glob in _globs(one)])
    if not shards:
        return None
    notices = _sealed_notices(run, shards)
    told = public_run(run)
    standing = {"run.json": plain(told), **_schemas(run, notices), **_constitution(run, notices), **_hygiene(out)}
    return RunContent(
        told=told, shards=shards, complete=bool(run.get("complete")), notices=notices, front=front, body=body, standing=standing,
        rows={name: row_count(path) for name, path in shards.items()},
    )  # fmt: skip


def _hygiene(out: Path) -> dict[str, bytes]:
    """The report that the card of a cleaned run names."""
    report = out / HYGIENE
    return {HYGIENE: report.read_bytes()} if report.is_file() else {}


def _named_shards(out: Path, globs: Sequence[str]) -> dict[str, Path]:
    """The oldest of each folder first."""
    folders = sorted(path for path in (*out.glob("*"), *out.glob("data/*")) if path.is_dir() and not path.name.startswith("."))
    parts = sorted((path for folder in folders for path in part_files(folder)), key=lambda path: (len(path.name), path.name))
    files = {path.relative_to(out).as_posix(): path for path in parts}
    return {name: path for name, path in files.items() if any(fnmatch.fnmatch(name, glob) for glob in globs)}


def _settled(out: Path) -> tuple[dict[str, Json], str | None]:
    """run.json and the card that was written after it: between the two lies a moment in which they do not agree, or there is
    no card yet."""
    record, card = out / "run.json", out / "README.md"
    while True:
        written = record.stat().st_mtime
        there = card.is_file()
        if (there and card.stat().st_mtime >= written) or not 0 <= time.time() - written < SETTLED:
            run, text = read_run(out), card.read_text(encoding="utf-8") if there else None
            if record.stat().st_mtime == written:
                return run, text
        time.sleep(0.05)


def _globs(config: Mapping[str, Any]) -> list[str]:
    files = config["data_files"]
    return [files] if isinstance(files, str) else list(files)


def _fit(config: Mapping[str, Any], present: Collection[str]) -> dict[str, Any] | None:
    """A config without patterns that no file suits: `load_dataset` refuses them. None if it has no other."""
    files = [glob for glob in _globs(config) if any(fnmatch.fnmatch(name, glob) for name in present)]
    if not files:
        return None
    return {**config, "data_files": files[0] if isinstance(config["data_files"], str) else files}


def _schemas(run: Mapping[str, Json], notices: list[str]) -> dict[str, bytes]:
    """Those of the records that are in the data."""
    if run.get("tracemill") != __version__:
        notices.append(f"The schemas are left out: the data were made by tracemill {run.get('tracemill')}, this is {__version__}.")
        return {}
    found = {path.name: path for path in Path(schemas.__file__).parent.glob("*.schema.json")}
    kinds = sorted(name.partition(".")[0] for name in found)
    wanted = [f"{kind}.schema.json" for kind in kinds if _holds(run, kind)]
    return {f"schemas/{name}": found[name].read_bytes() for name in wanted}


def _holds(run: Mapping[str, Json], kind: str) -> bool:
    return kind == "preference" if "annotations" in run else (kind in IMPORT_SCHEMAS) == is_import(run)


def _constitution(run: Mapping[str, Json], notices: list[str]) -> dict[str, bytes]:
    """The file that the run was judged by, if it still says what it said then."""
    if is_import(run) or "annotations" in run:
        return {}
    source = Path(run["config"]["constitution"] or BUNDLED)
    try:
        same = load_constitution(source).digest() == run["content"]["constitution"]
    except ConfigError:
        same = False
    if not same:
        notices.append(f"The constitution is left out: {source} is not what the run was judged by, or is not here.")
        return {}
    return {"constitution.yaml": source.read_bytes()}


def _sealed_notices(run: Mapping[str, Json], shards: Mapping[str, Path]) -> list[str]:
    """Shards are sealed: what they say of this machine cannot be left out of them. The oldest fault is named, and so but once."""
    if is_import(run) or "annotations" in run:
        return []
    stamped = {name: (path, path.stat().st_mtime_ns) for name, path in shards.items()}
    teachers = dict.fromkeys(place for name, one in stamped.items() if name.startswith("data/") for place in _teacher_places(*one))
    faults = (place for name, one in stamped.items() if name.startswith("rejects/") if (place := _fault_place(*one)))
    notices = [f"Each trace names its teacher: the column `teacher` shows {place}." for place in teachers]
    if place := next(faults, None):
        notices.append(
            f"The ledger tells of faults of this machine or network as they were, such as {place}: read `reason` and `evidence` in "
            "rejects/ where `stage` is infrastructure."
        )
    return notices


@functools.cache
def _teacher_places(path: Path, modified: int) -> tuple[str, ...]:
    """Remembered, as hashes are: a long run is looked through again and again."""
    named = {row["teacher"] for rows in read_rows(path, ("teacher",)) for row in rows}
    return tuple(sorted(name for name in named if is_place(name)))


@functools.cache
def _fault_place(path: Path, modified: int) -> str | None:
    """The first path or address in what an infrastructure rejection says."""
    faults = (row for rows in read_rows(path, ("stage", "reason", "evidence")) for row in rows if row["stage"] == "infrastructure")
    return next((place for row in faults for text in (row["reason"], *(row["evidence"] or ())) if (place := place_within(text))), None)
