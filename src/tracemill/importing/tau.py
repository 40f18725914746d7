"""The trajectories that tau-bench keeps of its runs: `tracemill import tau FILE`.

A row holds `task_id`, `trial`, `reward`, `info` and `traj`, a conversation in the OpenAI chat format
(https://github.com/sierra-research/tau-bench, `historical_trajectories/` and `EnvRunResult` in `tau_bench/types.py`). It names no tools: they come
from a file. Beyond `import openai`, the row is named by task and trial, and its reward is held against the one in `info`.
"""

from __future__ import annotations

from pathlib import Path

from tracemill.importing.openai import read_row as read_openai
from tracemill.importing.openai import unpacked
from tracemill.importing.write import MIN_REWARD, Given, import_file
from tracemill.trace import Json

COLUMNS = ("traj", "task_id", "trial", "reward", "info")


def import_tau(file: Path, out: Path, *, tools: Path | None = None, min_reward: float = MIN_REWARD) -> int:
    """Import a file into a new folder and print what came of it; 0 if a conversation was accepted, else 1.

    `tools` is a file with the tools of the domain. Raises ConfigError, DatasetError.
    """
    return import_file(file, out, name="tau", columns=COLUMNS, read=read_row, tools=tools, min_reward=min_reward)


def read_row(row: dict[str, Json]) -> Given:
    """What the row holds, in our types, and all that cannot be read of it."""
    named = {name: row[name] for name in ("traj", "reward") if row.get(name) is not None}
    given = read_openai(named)
    missing = [name for name in ("traj", "task_id", "reward") if row.get(name) is None]
    if missing:
        given.problems = [("row", f"a trajectory of tau-bench has {' and '.join(f'`{name}`' for name in missing)}, and this row has not")]
        return given
    given.row_id = _row_id(row)
    inner = _reward_of(unpacked(row.get("info")))
    if inner is not None and inner != row["reward"]:
        given.problems.append(("row", f"reward: {row['reward']!r}, but info.reward_info.reward is {inner!r}"))
    return given


def _row_id(row: dict[str, Json]) -> str:
    return " ".join(f"{word} {row[name]}" for word, name in (("task", "task_id"), ("trial", "trial")) if isinstance(row.get(name), int))


def _reward_of(info: Json) -> Json:
    """The reward as the check of the end state found it; None where the run broke off before."""
    found = info.get("reward_info") if isinstance(info, dict) else None
    return found.get("reward") if isinstance(found, dict) else None
