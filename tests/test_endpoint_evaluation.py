"""Evaluations of models: which one was played is known, whatever its address and its folder are called."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint, answer, completion, error
from processes import PATIENCE, running

from tracemill.config import Config, EndpointConfig, VllmConfig
from tracemill.errors import TeacherError
from tracemill.train.evaluate.models import models_of
from tracemill.train.model import PIECE, PIECES, contents


async def evaluate(out: Path, url: str, *words: str) -> tuple[int, str]:
    """Exit code and output; without an URL the policy is what the config says."""
    policy = ["--policy", url] if url else []
    flags = [*policy, "--environment", "store", "--actors", "1", "--scenarios", "2", "--out", str(out), *words]
    command, env = [sys.executable, "-m", "tracemill.cli", "evaluate", *flags], {**os.environ, "COLUMNS": "500"}
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as run:
        said, _ = await asyncio.to_thread(run.communicate, timeout=PATIENCE)
    return run.returncode, said


async def test_another_endpoint_does_not_get_the_report_of_the_first(tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = tmp_path / "config.yaml"
    async with FakeEndpoint(models=("one",)) as first, FakeEndpoint(models=("one",)) as second:
        config.write_text(f"policy: {{url: '{first.url}', retries: 0}}\n")
        assert (await evaluate(out, first.url))[0] == 0
        report = json.loads((out / "report.json").read_text())
        assert report["facts"]["policy"] == "one" and len(report["facts"]["fingerprint"]) == 12
        code, said = await evaluate(out, second.url)
        assert code == 2 and "holds the evaluation of another model" in said and "policy.address" in said, said
        first.models = ("two",)
        code, said = await evaluate(out, first.url)
        assert code == 2 and "policy.name: one before, two now" in said, said
        first.models = ("one",)
        code, said = await evaluate(out, first.url)
        assert code == 0 and "complete already; nothing was played" in said, said
        authority = first.url.split("/")[2]
    code, said = await evaluate(out, "", "--config", str(config))
    assert code == 0 and "complete already" in said and "Evaluation of one" in said, f"what is done can be seen when it is down: {said}"
    code, said = await evaluate(tmp_path / "new", "", "--config", str(config))
    assert code == 2 and "cannot be used" in said and "Ray" not in said, said
    for path in out.rglob("*"):
        assert not path.is_file() or authority.encode() not in path.read_bytes(), f"the address is in {path}"


async def test_an_endpoint_that_takes_no_request_is_told_with_its_reason(tmp_path: Path) -> None:
    async with FakeEndpoint() as endpoint:
        endpoint.plan(*[error(400, "bad [red]request[/]")] * 100)
        code, said = await evaluate(tmp_path / "out", endpoint.url)
    assert code == 1 and "2 rollouts were lost, not failed" in said and "bad [red]request[/]" in said, said
    assert "There is nothing to report" in said and "teacher" not in said


async def test_tokens_that_are_not_told_are_not_shown(tmp_path: Path) -> None:
    untold = {key: value for key, value in completion("Hello.").items() if key != "usage"}
    async with FakeEndpoint() as endpoint:
        endpoint.plan(*[answer(untold)] * 1000)
        code, said = await evaluate(tmp_path / "out", endpoint.url)
    assert code == 0 and "Efficiency" in said and "tokens read" not in said and "tokens for" not in said, said


def identity(config: Config) -> dict[str, str]:
    return models_of(config)["policy"]


async def test_an_endpoint_that_is_down_does_not_say_what_it_serves() -> None:
    config = Config(teacher=EndpointConfig(url="http://127.0.0.1:9/v1", retries=0))
    with pytest.raises(TeacherError):
        await asyncio.to_thread(models_of, config)


async def test_of_addresses_and_folders_the_fingerprint_alone_is_kept() -> None:
    async with FakeEndpoint(models=("/home/me/secret/first",)) as one, FakeEndpoint(models=("/home/me/other/first",)) as other:
        found = [await asyncio.to_thread(identity, Config(teacher=EndpointConfig(url=it.url))) for it in (one, other)]
        again = await asyncio.to_thread(identity, Config(teacher=EndpointConfig(url=one.url + "/")))
        assert one.url.split("/")[2] not in json.dumps(found)
    assert again == found[0]
    assert [one["name"] for one in found] == ["first", "first"] and "secret" not in json.dumps(found)
    assert found[0]["address"] != found[1]["address"] and found[0]["served"] != found[1]["served"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(100 * PIECE * PIECES)  # 400 MiB that take no room
    return tmp_path


def test_weights_that_were_trained_anew_in_the_same_place_are_others(folder: Path) -> None:
    config = Config(teacher=VllmConfig(model=str(folder), adapters={"a": folder, "b": folder}, adapter="b"))
    before = identity(config)
    assert before.keys() == {"name", "weights", "adapter"}
    (folder / "README.md").write_text("A card.")
    (folder / "training.json").write_text("{}")
    assert identity(config) == before
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(50 * PIECE * PIECES - 1)
        file.write(b"x" * 200 * PIECE)  # one of a hundred matrices or so
    assert identity(config)["weights"] != before["weights"] and identity(config)["adapter"] != before["adapter"]


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "adapter_config.json", "chat_template.jinja"])
def test_another_config_or_template_is_another_model(folder: Path, name: str) -> None:
    before = contents(folder)
    (folder / name).write_text('{"a": 1}')
    assert contents(folder) != before


def test_a_model_of_the_hub_is_known_by_its_name_and_a_template_by_its_text(tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("a")
    first = identity(Config(teacher=VllmConfig(model="org/name", chat_template=template)))
    template.write_text("b")
    second = identity(Config(teacher=VllmConfig(model="org/name", chat_template=template)))
    assert first.keys() == {"name", "chat_template"} and first != second


def test_what_is_played_by_the_script_has_no_model() -> None:
    assert models_of(Config()) == {}
