"""`tracemill compare` on folders: what two evaluations share, and what it says where they do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tracemill.comparing import compare
from tracemill.config import Config, load_config
from tracemill.errors import DatasetError
from tracemill.train.evaluate.play import CHANCE, Evaluation, Player
from tracemill.train.evaluate.sheet import Sheet
from tracemill.train.evaluate.suite import SuiteConfig

SUITE = SuiteConfig(scenarios=7)


async def evaluated(out: Path, suite: SuiteConfig = SUITE, *, policy: Any = "scripted", **settings: Any) -> Path:
    """The folder of an evaluation that says it was of this policy; played by the scripted one."""
    expert = load_config(None, {"environments": {"store": 1.0}, **settings})
    told: Config = load_config(None, {"environments": {"store": 1.0}, **settings, "teacher": policy})
    player, evaluation = Player(expert, suite), Evaluation(expert, suite)
    content = {**told.content("of no matter here"), "suite": suite.model_dump(mode="json")}
    sheet = Sheet(out, 7 * suite.samples, {"digest": "one of its own", "content": content})
    for index in range(7 * suite.samples):
        sheet.add(evaluation.pack(await player.mill(index)))
    sheet.close()
    return out


async def test_scenarios_that_differ_are_refused_with_the_settings_that_differ(tmp_path: Path) -> None:
    a, b = await evaluated(tmp_path / "a"), await evaluated(tmp_path / "b", seed=5)
    with pytest.raises(DatasetError, match="scenarios of the same mode") as refused:
        compare(a, b)
    assert refused.value.problems[-2:] == ("and 2 more", "seed: 0 in A, 5 in B")


async def test_what_differs_besides_the_policy_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = await evaluated(tmp_path / "a"), await evaluated(tmp_path / "b", budget={"calls": 50})
    compare(a, b)
    assert "more than the policy: budget.calls: 40 in A, 50 in B." in " ".join(capsys.readouterr().out.split())
    compare(a, a, as_json=True)
    assert json.loads(capsys.readouterr().out)["notes"] == []


async def test_greedy_against_sampled_comes_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint = {"url": "http://127.0.0.1:9/v1", "model": "small"}
    a = await evaluated(tmp_path / "a", policy=endpoint)
    b = await evaluated(tmp_path / "b", SuiteConfig(scenarios=7, samples=2), policy=endpoint)
    c = await evaluated(tmp_path / "c", SuiteConfig(scenarios=7, samples=2), policy={**endpoint, "temperature": 0.0})
    compare(a, b)
    told = " ".join(capsys.readouterr().out.split())
    assert f"different temperatures, A at 0.0, B at {CHANCE}" in told and "different numbers of rollouts" in told
    compare(a, c)
    assert "temperature" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
async def test_a_broken_record_is_named(tmp_path: Path, text: str) -> None:
    a = await evaluated(tmp_path / "a")
    (a / "evaluation.json").write_text(text)
    with pytest.raises(DatasetError, match=r"evaluation\.json cannot be read"):
        compare(a, a)
