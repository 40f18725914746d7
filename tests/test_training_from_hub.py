"""A model and old data that are named as on the Hub: which commit of them was used is told. The Hub is a fake on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_hub import LARGE, FakeHub, File, Repo
from tiny_training import SMALL

from tracemill.train import mixing, run
from tracemill.train.settings import SftSettings, load_settings
from tracemill.train.sft import sft

OLD = "".join(json.dumps({"prompt": f"{n} and {n} is", "completion": f" {2 * n}"}) + "\n" for n in range(20))
GIVEN = {**SMALL, "max_steps": 3, "save_steps": 1, "eval_share": 0}


@pytest.fixture
def hub(model: Path) -> Iterator[FakeHub]:
    with FakeHub() as fake:
        fake.repos = {"models/org/tiny": Repo(private=False), "datasets/org/old": Repo(private=False)}
        files = {path.name: File(path.read_bytes(), bool(LARGE.search(path.name))) for path in model.iterdir()}
        fake.repo("org/tiny", "models").add("the model", {**files})
        fake.repo("org/old").add("the data", {"train.jsonl": File(OLD.encode(), False)})
        yield fake


def test_what_came_from_the_hub_is_told_with_its_commit(hub: FakeHub, data: Path, tmp_path: Path) -> None:
    """In a process that knows of no other Hub."""
    given = {**GIVEN, "data": str(data), "model": "org/tiny", "out": str(tmp_path / "out"), "mix": ["org/old=0.1"]}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(given))
    there = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "tracemill", "train", "sft", "--config", str(tmp_path / "settings.yaml")]
    done = subprocess.run(command, env={**os.environ, **there, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    model, old = hub.repo("org/tiny", "models").head.oid, hub.repo("org/old").head.oid
    assert json.loads((tmp_path / "out" / "training.json").read_text())["commits"] == {"org/tiny": [model], "org/old": [old]}
    assert f"From the Hub: `org/tiny` at commit `{model}`; `org/old` at commit `{old}`." in (tmp_path / "out" / "README.md").read_text()


@pytest.fixture
def settings(data: Path, model: Path, tmp_path: Path) -> SftSettings:
    return load_settings(SftSettings, None, {**GIVEN, "data": data, "model": str(model), "out": tmp_path / "out"})


def test_a_training_that_goes_on_tells_what_has_changed_on_the_hub(
    settings: SftSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            raise InterruptedError

    monkeypatch.setattr(mixing, "commit", lambda source: "a" * 40)
    monkeypatch.setattr(run, "_sources", lambda settings: ["org/old"])
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(run.Progress, "on_step_end", kill, raising=False)
        sft(settings)
    monkeypatch.setattr(mixing, "commit", lambda source: "b" * 40)
    sft(settings)
    assert f"org/old has changed on the Hub since this training began: it was at commit {'a' * 40}" in capsys.readouterr().out
    assert json.loads((settings.out / "training.json").read_text())["commits"] == {"org/old": ["a" * 40, "b" * 40]}
    assert f"`org/old` at commit `{'a' * 40}`, then `{'b' * 40}`." in (settings.out / "README.md").read_text()
