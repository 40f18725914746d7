"""Whole runs with an endpoint as the teacher: the real command, real Ray actors, real HTTP to a fake that misbehaves.

Behind the fake sits the scripted expert: it knows a scenario by its opening, as a good model would know what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, body, completion, cut_in_body, error
from processes import PATIENCE, running
from test_cluster import rows, traces

from tracemill.config import load_config
from tracemill.generators.scenario import scenario
from tracemill.generators.teachers.base import Request
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.job import build_job
from tracemill.trace import AssistantMessage, Message, Scenario, SystemMessage, ToolMessage, UserMessage

ACCEPT = 40
SETTINGS = "seed: 3\nenvironments: [store, bank]\nconcurrency: 8\nmode: fast\n"
SECRET = "sk-a-key-that-nobody-may-see"


def known(folder: Path) -> dict[str, Scenario]:
    """The first scenarios of the run by their opening."""
    path = folder / "known.yaml"
    path.write_text(SETTINGS + "teacher: {url: 'http://127.0.0.1:1/v1', model: fake-1}\n")
    job = build_job(load_config(path, {}))
    drawn = [scenario(job.seed, index, job.mix) for index in range(4 * ACCEPT)]
    return {one.opening: one for one in drawn}


def message(wire: dict[str, Any]) -> Message:
    match wire["role"]:
        case "system":
            return SystemMessage(content=wire["content"])
        case "user":
            return UserMessage(content=wire["content"])
        case "tool":
            return ToolMessage(**wire)
    for call in wire.get("tool_calls", ()):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return AssistantMessage.model_validate(wire)


def expert(scenarios: dict[str, Scenario]) -> Any:
    async def reply(messages: list[Message]) -> Any:
        return await ScriptedTeacher().reply(Request("agent", messages, (), scenarios[messages[1].content]))

    def say(asked: dict[str, Any]) -> dict[str, Any]:
        coroutine = reply([message(wire) for wire in asked["messages"]])
        try:
            coroutine.send(None)  # it waits for nothing
        except StopIteration as done:
            said = done.value
        calls = [
            {"id": f"c{number}", "type": "function", "function": {"name": one.tool, "arguments": json.dumps(one.arguments)}}
            for number, one in enumerate(said.calls)
        ]
        return completion(said.text, reasoning_content=said.reasoning, **({"tool_calls": calls} if calls else {}))

    return say


@contextlib.contextmanager
def launch(out: Path, url: str, actors: int) -> Iterator[subprocess.Popen[bytes]]:
    config = out.with_suffix(".yaml")
    config.write_text(SETTINGS + f"teacher: {{url: '{url}', key_env: FAKE_KEY, prices: {{prompt: 1, completion: 2}}}}\n")
    flags = ["--config", str(config), "--accept", str(ACCEPT), "--actors", str(actors), "--out", str(out)]
    command = [sys.executable, "-m", "tracemill.cli", "generate", *flags]
    env = {**os.environ, "FAKE_KEY": SECRET}
    with out.with_suffix(".log").open("ab") as log, running(command, stdout=log, stderr=log, env=env) as run:
        yield run


async def ended(run: subprocess.Popen[bytes]) -> int:
    """Its exit code; the endpoint answers meanwhile."""
    return await asyncio.to_thread(run.wait, PATIENCE)


async def finish(out: Path, url: str, actors: int) -> str:
    with launch(out, url, actors) as run:
        code = await ended(run)
    said = out.with_suffix(".log").read_text()
    assert code == 0, said[-3000:]
    return said


@pytest.mark.filterwarnings("ignore")
async def test_an_endpoint_that_misbehaves_and_a_killed_run_change_nothing(tmp_path: Path) -> None:
    scenarios = known(tmp_path)
    async with FakeEndpoint(say=expert(scenarios)) as endpoint:
        smooth = tmp_path / "smooth"
        said = await finish(smooth, endpoint.url, 1)
        assert "cost" in said and "to blame" not in said.split("Done.")[0]
        expected = rows(smooth)
        assert traces(expected) == ACCEPT
        assert all(headers["Authorization"] == f"Bearer {SECRET}" for headers in endpoint.headers)

    async with FakeEndpoint(say=expert(scenarios)) as endpoint:
        trouble = itertools.cycle(
            [
                error(429, **{"Retry-After": "0"}),
                error(500),
                body(b"\xff\x00 nonsense"),
                cut_in_body(),
                body(b'{"choices": [{"mess'),
                error(503),
            ]
        )
        rough = tmp_path / "rough"

        async def misbehave() -> None:
            while True:
                seen = len(endpoint.requests)
                await endpoint.reached(seen + 5)
                endpoint.plan(next(trouble))

        spoiler = asyncio.create_task(misbehave())
        try:
            with launch(rough, endpoint.url, 2) as run:
                await endpoint.reached(120)
                run.send_signal(signal.SIGKILL)
                assert await ended(run) == -signal.SIGKILL
            await finish(rough, endpoint.url, 2)
        finally:
            spoiler.cancel()
    assert rows(rough) == expected
    for path in list(tmp_path.rglob("*")):  # noqa: ASYNC240 - nothing else runs here
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), f"the key is in {path}"


def test_an_endpoint_that_is_down_stops_the_run_with_its_reason(tmp_path: Path) -> None:
    out = tmp_path / "down"
    out.with_suffix(".yaml").write_text(SETTINGS + "teacher: {url: 'http://127.0.0.1:9/v1', model: m, retries: 0}\n")
    flags = ["--config", str(out.with_suffix(".yaml")), "--actors", "1", "--out", str(out)]
    command = [sys.executable, "-m", "tracemill.cli", "generate", *flags]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE)
    assert run.returncode == 2, run.stdout
    words = " ".join(run.stdout.split())
    assert "could not begin" in words and "127.0.0.1:9" in words
