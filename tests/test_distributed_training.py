"""Two processes train as one would with twice the batch: under accelerate's launcher and under Ray Train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from tiny_training import SMALL, alike, history, small_model, small_run, weights

from tracemill import cluster
from tracemill.errors import ConfigError
from tracemill.train.settings import SftSettings, load_settings
from tracemill.train.sft import sft

pytestmark = pytest.mark.filterwarnings("ignore")  # of the dependencies of Ray Train and accelerate
Made = Callable[..., SftSettings]
LAUNCHED = """
import sys
from pathlib import Path
from tracemill.train.settings import SftSettings, load_settings
from tracemill.train.sft import sft

sft(load_settings(SftSettings, Path(sys.argv[1]), {}))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("small") / "run")


@pytest.fixture(scope="module")
def settings(data: Path) -> Made:
    model = small_model(data.parent / "tiny", data)

    def make(out: str, **given: Any) -> SftSettings:
        # Five rows in all: two full steps. To fill up the third, accelerate gives one of the processes a row for the second time.
        mine = {"data": data, "model": str(model), "out": data.parent / out, **SMALL, "eval_share": 0.3, "max_steps": 2, **given}
        return load_settings(SftSettings, None, mine)

    return make


@pytest.fixture(scope="module")
def alone(settings: Made) -> Path:
    """One process with a batch of two rows."""
    return sft(settings("alone", batch_size=2))


@pytest.fixture(scope="module")
def workshop() -> Iterator[None]:
    """One Ray for the tests of this file."""
    cluster.start(cpus=2)
    yield
    ray.shutdown()


def same(one: Path, other: Path) -> None:
    assert json.loads((one / "training.json").read_text())["processes"] == 2
    assert history(one, "loss") == pytest.approx(history(other, "loss"), abs=1e-3)
    assert history(one, "grad_norm") == pytest.approx(history(other, "grad_norm"), rel=1e-3)
    assert alike(weights(one), weights(other), atol=1e-4)


def test_two_processes_of_accelerate_are_one_with_twice_the_batch(settings: Made, alone: Path, tmp_path: Path) -> None:
    given = settings("accelerated")
    file, script = tmp_path / "settings.yaml", tmp_path / "launched.py"
    file.write_text(yaml.safe_dump(given.model_dump(mode="json")))
    script.write_text(LAUNCHED)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", str(script), str(file)]  # fmt: skip
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    same(given.out, alone)
    assert done.stdout.count("step 1/2: loss") == 1, "only one process tells"


def test_two_workers_of_ray_train_are_one_with_twice_the_batch(
    settings: Made, alone: Path, workshop: None, capfd: pytest.CaptureFixture[str]
) -> None:
    out = sft(settings("distributed", workers=2))
    same(out, alone)
    assert capfd.readouterr().out.count("step 1/2: loss") == 1, "what the first worker says is passed on"
    assert not list(out.glob(".*")), "nothing is left behind"


@pytest.mark.slow
def test_what_the_recipe_refuses_in_a_worker_is_refused(settings: Made, workshop: None) -> None:
    with pytest.raises(ConfigError, match="reads at most 2048 tokens"):
        sft(settings("refused", workers=2, max_length=9999))
