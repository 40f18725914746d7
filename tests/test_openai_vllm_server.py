"""The client of OpenAI-compatible endpoints, against a real server: vLLM's, with a tiny random model."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import PATIENCE, running

from tracemill.config import EndpointConfig
from tracemill.errors import ConfigError, ContextTooLong
from tracemill.generators.teachers.chat import Ask, Sampling
from tracemill.generators.teachers.openai import OpenAIChat
from tracemill.trace import AssistantMessage, FunctionCall, FunctionSpec, OfferedTool, SystemMessage, ToolCall, ToolMessage, UserMessage

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
FLAGS = (
    "--enforce-eager", "--dtype", "float32", "--max-model-len", "2048", "--host", "127.0.0.1", "--enable-auto-tool-choice",
    "--tool-call-parser", "hermes", "--served-model-name", "tiny",
)  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server that is up."""
    from tiny import build_tiny_model

    folder = tmp_path_factory.mktemp("server")
    model = build_tiny_model(folder / "model")
    with _free_port() as port, (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port), *FLAGS]
        with running(command, env=os.environ | ENVIRONMENT, stdout=log, stderr=log) as server:
            _wait_until_up(f"http://127.0.0.1:{port}/health", server, folder / "log")
            yield f"http://127.0.0.1:{port}/v1"


@contextlib.contextmanager
def _free_port() -> Iterator[int]:
    """Nobody is given it by chance within the block, while the server, which reuses addresses too, can take it."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
        yield one.getsockname()[1]


def _wait_until_up(health: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if server.poll() is not None:
            pytest.fail(f"the server ended with {server.returncode}:\n{log.read_text()[-3000:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=60):
            return
        time.sleep(0.5)
    pytest.fail(f"the server is not up after {PATIENCE:g} s:\n{log.read_text()[-3000:]}")


@pytest.fixture
async def chat(url: str) -> AsyncIterator[OpenAIChat]:
    one = OpenAIChat(EndpointConfig(url=url, key_env="NO_SUCH_KEY", timeout=PATIENCE, reasoning_key="reasoning"))
    await one.start()
    yield one
    await one.close()


def ask(text: str = "Where is my order?", **more: Any) -> Ask:
    return Ask(**{"messages": (UserMessage(content=text),), "sampling": Sampling(1.0, 16), "seed": 3, **more})


async def test_the_model_is_found(chat: OpenAIChat) -> None:
    assert chat.name == "tiny"


async def test_a_model_that_is_not_served_is_said(url: str) -> None:
    one = OpenAIChat(EndpointConfig(url=url, model="tinny", key_env="NO_SUCH_KEY"))
    with pytest.raises(ConfigError, match="did you mean 'tiny'"):
        await one.start()


async def test_text_and_usage_come_back(chat: OpenAIChat) -> None:
    reply = await chat.complete(ask())
    assert reply.text
    assert reply.usage.prompt_tokens > 0
    assert reply.cut == (reply.usage.completion_tokens == 16)


async def test_the_same_seed_gives_the_same_text_alone_and_in_a_crowd(chat: OpenAIChat) -> None:
    alone = await chat.complete(ask(seed=2**40 + 11))
    crowd = await asyncio.gather(*(chat.complete(ask(seed=2**40 + 11 + number)) for number in range(16)))
    assert crowd[0].text == alone.text
    assert len({reply.text for reply in crowd}) > 8


async def test_a_schema_is_obeyed(chat: OpenAIChat) -> None:
    schema = {
        "type": "object",
        "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 5}, "fault": {"enum": ["none", "tone"]}},
        "required": ["score", "fault"],
        "additionalProperties": False,
    }
    replies = await asyncio.gather(*(chat.complete(ask(schema=schema, seed=seed, sampling=Sampling(1.0, 256))) for seed in range(8)))
    found = [json.loads(reply.text) for reply in replies if not reply.cut]  # a random model may write white space to the end
    assert found
    assert all(set(one) == {"score", "fault"} and one["score"] in range(1, 6) and one["fault"] in ("none", "tone") for one in found)


async def test_a_whole_conversation_with_tools_is_taken(chat: OpenAIChat) -> None:
    parameters = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
    tool = OfferedTool(function=FunctionSpec(name="get_order", description="Finds an order.", parameters=parameters))
    call = ToolCall(id="call_1", function=FunctionCall(name="get_order", arguments={"id": "A\ud8001", "note": None}))
    messages = (
        SystemMessage(content="You help. \udc00"),
        UserMessage(content="Where is A1?"),
        AssistantMessage(content="", reasoning_content="I look it up.", tool_calls=(call,)),
        ToolMessage(tool_call_id="call_1", name="get_order", content='{"state": "sent"}'),
    )
    with_tools = await chat.complete(ask(messages=messages, tools=(tool,)))
    without = await chat.complete(ask(messages=messages))
    assert with_tools.usage.prompt_tokens > without.usage.prompt_tokens > 50


async def test_a_conversation_that_is_too_long_is_named_so(chat: OpenAIChat) -> None:
    with pytest.raises(ContextTooLong, match=r"^the conversation is longer than tiny can take: "):
        await chat.complete(ask("word " * 5000))
