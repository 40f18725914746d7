"""Two processes train as one would with twice the batch: under accelerate's launcher and under Ray Train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import PATIENCE
from tiny_training import SMALL, alike, history, weights

from tracemill.train.settings import SftSettings, load_settings
from tracemill.train.sft import sft

pytestmark = pytest.mark.filterwarnings("ignore")  # of the dependencies of Ray Train and accelerate
Made = Callable[..., SftSettings]
TRAIN = """
import sys
from pathlib import Path
from tracemill.train.settings import SftSettings, load_settings
from tracemill.train.sft import sft

sft(load_settings(SftSettings, Path(sys.argv[1]), {}))
"""
RAY = """
from tracemill import cluster

cluster.start(cpus=2)
"""
"""In a process of its own: what Ray leaves behind in one is no matter of other tests."""


@pytest.fixture(scope="module")
def settings(data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("distributed")

    def make(out: str, **given: Any) -> SftSettings:
        # Five rows in all: two full steps. To fill up the third, accelerate gives one of the processes a row for the second time.
        mine = {"data": data, "model": str(model), "out": folder / out, **SMALL, "eval_share": 0.3, "max_steps": 2, **given}
        return load_settings(SftSettings, None, mine)

    return make


@pytest.fixture(scope="module")
def alone(settings: Made) -> Path:
    """One process with a batch of two rows."""
    return sft(settings("alone", batch_size=2))


def started(script: str, given: SftSettings, folder: Path, *launcher: str) -> subprocess.CompletedProcess[str]:
    """What came of the script, which is given a file with the settings."""
    (folder / "settings.yaml").write_text(yaml.safe_dump(given.model_dump(mode="json")))
    (folder / "script.py").write_text(script)
    command = [sys.executable, *launcher, str(folder / "script.py"), str(folder / "settings.yaml")]
    return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=PATIENCE)


def same(one: Path, other: Path) -> None:
    assert json.loads((one / "training.json").read_text())["processes"] == 2
    assert history(one, "loss") == pytest.approx(history(other, "loss"), abs=1e-3)
    assert history(one, "grad_norm") == pytest.approx(history(other, "grad_norm"), rel=1e-3)
    assert alike(weights(one), weights(other), atol=1e-4)


def test_two_processes_of_accelerate_are_one_with_twice_the_batch(settings: Made, alone: Path, tmp_path: Path) -> None:
    given = settings("accelerated")
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
                "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip
    done = started(TRAIN, given, tmp_path, *launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    same(given.out, alone)
    assert done.stdout.count("step 1/2: loss") == 1, "only one process tells"


def test_two_workers_of_ray_train_are_one_with_twice_the_batch(settings: Made, alone: Path, tmp_path: Path) -> None:
    given = settings("distributed", workers=2)
    done = started(RAY + TRAIN, given, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    same(given.out, alone)
    assert done.stdout.count("step 1/2: loss") == 1, "what the first worker says is passed on"
    assert [path.name for path in given.out.glob(".*")] == [".lock"], "nothing else is left behind"


@pytest.mark.slow
def test_what_the_recipe_refuses_in_a_worker_is_refused(settings: Made, tmp_path: Path) -> None:
    done = started(RAY + TRAIN, settings("refused", workers=2, max_length=9999), tmp_path)
    assert done.returncode == 1 and "reads at most 2048 tokens" in done.stderr and "ConfigError" in done.stderr
