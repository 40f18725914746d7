"""MCP servers all the way: scenarios on the two servers of the examples become accepted traces, and the traces verify."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_mcp import EXAMPLES, SMALL, filesystem_server, nothing_is_left, written  # noqa: F401 - the fixtures are used by name

from tracemill.config import load_config
from tracemill.errors import ConfigError
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.scenario import kind_of
from tracemill.job import build_job, build_pipeline, run_record
from tracemill.trace import KINDS
from tracemill.verify import verify
from tracemill.writer import Writer, pack

GIT, FILESYSTEM = str(EXAMPLES / "mcp_git.yaml"), str(EXAMPLES / "mcp_filesystem.yaml")


def run(out: Path, indices: int, **settings: Any) -> Writer:
    """The first indices of a run, side by side, in this process."""
    config = load_config(None, settings)
    job, pipeline = build_job(config), build_pipeline(config)
    writer = Writer(out, quotas=config.quotas(), kind_of=lambda index: kind_of(job.seed, index, job.mix), run=run_record(config))

    async def one(index: int) -> None:
        writer.add(pack(await pipeline.mill(index)))

    async def all_of_them() -> None:
        await asyncio.gather(*(one(index) for index in range(indices)))

    asyncio.run(all_of_them())
    writer.close()
    return writer


def test_a_trace_of_each_kind_from_the_filesystem_server_verifies(tmp_path: Path, filesystem_server: None) -> None:  # noqa: F811
    writer = run(tmp_path / "out", 3, environments=[FILESYSTEM], accept=3, flaws=0.0)
    assert dict(writer.tally.accepted) == dict.fromkeys(KINDS, 1)
    assert verify(tmp_path / "out") == 0


def test_a_recovery_on_the_git_server_verifies(tmp_path: Path) -> None:
    writer = run(tmp_path / "out", 1, environments=[GIT], accept={"error_recovery": 1}, flaws=0.0)
    assert writer.full
    assert verify(tmp_path / "out") == 0


@pytest.mark.slow
@pytest.mark.parametrize("file", [GIT, FILESYSTEM])
def test_twenty_traces_from_each_server_verify(file: str, tmp_path: Path, filesystem_server: None) -> None:  # noqa: F811
    writer = run(tmp_path / "out", 24, environments=[file], accept=20, flaws=0.1)
    assert writer.tally.accepted.total() == 20
    assert verify(tmp_path / "out") == 0


@pytest.mark.slow
def test_the_command_leaves_no_server_and_no_folder_behind(tmp_path: Path, filesystem_server: None) -> None:  # noqa: F811
    """With more rollouts under way than are wanted, so that some are dropped at the end."""
    folder = tmp_path / "rollouts"
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tracemill.cli"]
    options = ["--environment", FILESYSTEM, "--accept", "4", "--actors", "1", "--concurrency", "6"]
    env = {**os.environ, "RAY_TMPDIR": os.environ.get("TMPDIR", "/tmp"), "TMPDIR": str(folder)}  # Ray's sockets need a short path
    subprocess.run([*command, "generate", *options, "--out", str(tmp_path / "out")], check=True, env=env)
    assert list(folder.iterdir()) == []
    subprocess.run([*command, "verify", str(tmp_path / "out")], check=True)


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_a_rollout_whose_server_does_not_start_is_rejected_and_nobody_is_to_blame_but_the_machine(tmp_path: Path) -> None:
    cls = written(tmp_path, name="small_that_breaks")
    file = str(tmp_path / "small.yaml")
    config = load_config(None, {"environments": [file], "kinds": {"tool_call": 1.0}, "flaws": 0.0})
    assert environment("small_that_breaks").name == cls.name
    pipeline = build_pipeline(config)
    (tmp_path / "small_server.py").write_text("raise SystemExit('no notes today')")
    milled = asyncio.run(pipeline.mill(0))
    assert milled.trace is None
    assert [(one.stage, one.blame, one.final) for one in milled.rejections] == [("infrastructure", "infrastructure", True)]
    assert "no notes today" in milled.rejections[0].reason


def test_a_server_that_cannot_be_started_is_reported_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "small_server.py").write_text("raise SystemExit('no notes today')")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**SMALL, "name": "small_that_never_starts"}))
    with pytest.raises(ConfigError) as raised:
        load_config(None, {"environments": [str(tmp_path / "small.yaml")]})
    (told,) = raised.value.problems
    assert "server 'notes' of 'small_that_never_starts' did not start (python {here}/small_server.py)" in told
    assert "notes: no notes today" in told


def test_kinds_that_no_goal_suits_are_reported_before_the_run(tmp_path: Path) -> None:
    written(tmp_path, name="small_without_plans")
    with pytest.raises(ConfigError) as raised:
        load_config(None, {"environments": [str(tmp_path / "small.yaml")]})
    (told,) = raised.value.problems
    assert told.startswith("kinds.goal_decomposition: ") and "there are goals for tool_call, error_recovery" in told


def test_verify_says_which_file_of_a_run_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, name="small_and_near")
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path / "out", 1, environments=["small.yaml"], accept={"tool_call": 1}, flaws=0.0).full
    command = [sys.executable, "-m", "tracemill.cli", "verify", str(tmp_path / "out")]
    assert subprocess.run(command).returncode == 0
    elsewhere = subprocess.run(command, cwd=tmp_path.parent, capture_output=True, text=True)
    assert elsewhere.returncode == 2
    assert "small.yaml cannot be read: no such file\n  - a relative path is looked for where the command is run" in elsewhere.stderr
