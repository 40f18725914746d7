"""What a folder is on the Hub: a run or an import a dataset, a training a model."""

from __future__ import annotations

from pathlib import Path

from tracemill.errors import DatasetError, TracemillError
from tracemill.hub.account import RepoType
from tracemill.hub.content import Content
from tracemill.hub.run import of_run
from tracemill.hub.training import of_training
from tracemill.stats import read_record


def kind_of(out: Path) -> RepoType:
    """What OUT is, or will be. Raises DatasetError for a folder that is neither."""
    if (out / "training.json").is_file():
        return "model"
    strays = [] if not out.is_dir() or (out / "run.json").is_file() else [one.name for one in out.iterdir() if not one.name.startswith(".")]
    if strays:
        raise DatasetError(f"{out} holds neither a run (run.json) nor a training (training.json)", [f"found {name}" for name in strays[:5]])
    return "dataset"


def is_complete(out: Path) -> bool:
    """Whether its maker is done with it. Raises DatasetError."""
    record = out / ("training.json" if kind_of(out) == "model" else "run.json")
    return record.is_file() and bool(read_record(record).get("complete"))


def take(out: Path, repo: str) -> Content | None:
    """What the folder holds now; None while there is nothing that could be published. Raises DatasetError."""
    try:
        if kind_of(out) == "model":
            return of_training(out, repo) if is_complete(out) else None
        return of_run(out, repo) if (out / "run.json").is_file() else None
    except TracemillError:
        raise
    except Exception as reason:  # else it would be taken for a fault of the Hub
        raise DatasetError(
            f"{out} cannot be read ({type(reason).__name__}: {reason})", ["a file in it is damaged, or of another version of tracemill"]
        ) from reason
