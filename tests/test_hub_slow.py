"""Five thousand traces go to the Hub while `tracemill generate` makes them; both are killed twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fake_hub import FakeHub, first
from processes import PATIENCE, until

TRACES = int(os.environ.get("TRACEMILL_PUSHED", "5000"))
REPO = "org/agent-traces"
STREAM = """
import json
from datasets import load_dataset

rows = load_dataset("org/agent-traces", split="train", streaming=True)
print(json.dumps([row["id"] for row in rows.select_columns(["id"])]))
"""


@pytest.mark.slow
def test_a_long_run_that_is_pushed_meanwhile_is_whole_on_the_hub_though_both_are_killed_twice(tmp_path: Path) -> None:
    out, begun = tmp_path / "run", time.monotonic()
    generate = ["generate", "--out", str(out), "--accept", str(TRACES), "--seed", "11", "--actors", "2"]
    push = ["push", str(out), "--repo", REPO, "--every", "2s"]
    with FakeHub() as hub:
        ours = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_good", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
        env = {**os.environ, **ours, "RAY_raylet_start_wait_time_s": "120"}  # a busy machine

        def begin(*arguments: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen([sys.executable, "-m", "tracemill", *arguments], env=env, stdout=sys.stderr, start_new_session=True)
            started.append(process)
            return process

        def commits() -> int:
            return len(hub.repos[f"datasets/{REPO}"].commits) - 1 if hub.repos else 0

        started: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(2):
                making, pushing, seen = begin(*generate), begin(*push), commits()
                until(lambda seen=seen: commits() > seen, making)
                hub.on("PUT lfs", first(lambda victim=pushing: kill(victim)))  # in the middle of an upload
                pushing.wait(PATIENCE)
                kill(making)
                tell(f"{time.monotonic() - begun:.0f} s: killed both; {commits()} commits, {traces(out):,} traces in shards")
            making, pushing = begin(*generate), begin(*push)
            assert making.wait(4 * PATIENCE) == 0 and pushing.wait(PATIENCE) == 0
        finally:
            for process in started:
                kill(process)
        history = hub.repo(REPO).commits
        added = Counter(name for commit in history for name in commit.added if name.endswith(".parquet"))
        here = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("**/*.parquet")}
        assert {name: file.content for name, file in history[-1].files.items() if name.endswith(".parquet")} == here
        assert set(added.values()) == {1}
        done = subprocess.run([sys.executable, "-c", STREAM], env=env, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        streamed = json.loads(done.stdout)
    assert len(streamed) == len(set(streamed)) == TRACES
    assert sorted(streamed) == sorted(ids(out))
    uploads = hub.requests["PUT lfs"]
    tell(f"{len(here)} shards in {len(history) - 1} commits by {uploads} uploads; {TRACES:,} ids alike; {time.monotonic() - begun:.0f} s")


def ids(out: Path) -> list[str]:
    return [id for path in out.glob("data/*/*.parquet") for id in pq.read_table(path, columns=["id"], partitioning=None)["id"].to_pylist()]


def traces(out: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in out.glob("data/*/*.parquet"))


def kill(process: subprocess.Popen[Any]) -> None:
    """With its children: Ray's daemons would stay."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tell(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)
