"""`tracemill evaluate` and `compare`: the real commands, in real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tracemill.config import VllmConfig
from tracemill.errors import ConfigError
from tracemill.evaluate import load_evaluation
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.sheet import episodes


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tracemill.cli", *words]


def evaluation(out: Path, *words: str) -> list[str]:
    flags = ["--policy", "scripted", "--environment", "store", "--suite", "all", "--scenarios", "20", "--actors", "2", "--concurrency", "4"]
    return command("evaluate", *flags, "--out", str(out), *words)


def content(out: Path) -> dict[int, Episode]:
    """By index, without what the clock says."""
    found = {one.index: one.model_copy(update={"seconds": 0.0}) for one in episodes(out)}
    assert len(found) == sum(1 for _ in episodes(out)), "an episode is there twice"
    return found


def test_a_killed_evaluation_goes_on_and_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = subprocess.run(evaluation(whole), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Reliability" in done.stdout and "report.html" in done.stdout
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(evaluation(broken), stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while not any(path.stat().st_size > 100_000 for path in broken.glob(".spool/*.jsonl")) and run.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        run.wait()
    again = subprocess.run(evaluation(broken), capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert content(broken) == content(whole)
    report = json.loads((whole / "report.json").read_text())
    assert report["facts"]["policy"] == "scripted"
    compared = subprocess.run(command("compare", str(whole), str(broken)), capture_output=True, text=True, timeout=100)
    assert compared.returncode == 0 and "p = 1" in compared.stdout, compared.stdout + compared.stderr
    other = subprocess.run(evaluation(whole, "--seed", "1"), capture_output=True, text=True, timeout=100)
    assert other.returncode == 2 and "seed: 0 before, 1 now" in other.stderr


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.yaml"
    file.write_text("scenarios: 0\nsuite: hard\nenvironments: [stor]\nuser: teachr\n")
    with pytest.raises(ConfigError) as refused:
        load_evaluation(file, None, {"seed": -1})
    told = str(refused.value)
    for expected in ("policy: expected", "scenarios", "suite: expected one of standard", "did you mean 'store'", "seed"):
        assert expected in told


def test_the_run_says_on_what_its_policy_is_tried(tmp_path: Path) -> None:
    run = {"content": {"environments": {"bank": 2.0}, "kinds": {"tool_call": 1.0}, "holdout": 0.25, "seed": 5}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    config, suite = load_evaluation(None, tmp_path, {"policy": "scripted", "samples": 3})
    assert (config.environments, config.kinds, config.holdout, config.seed) == ({"bank": 2.0}, {"tool_call": 1.0}, 0.25, 0)
    assert suite.samples == 3
    assert load_evaluation(None, tmp_path, {"policy": "scripted", "environments": {"store": 1.0}})[0].environments == {"store": 1.0}


def test_the_folder_of_an_adapter_stands_for_its_model_with_the_adapter_on(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/model", "r": 16}))
    config, _ = load_evaluation(None, None, {"policy": str(tmp_path)})
    assert config.teacher == VllmConfig(model="some/model", adapters={"policy": tmp_path}, adapter="policy")


def test_a_folder_that_holds_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no run"):
        load_evaluation(None, tmp_path, {"policy": "scripted"})
