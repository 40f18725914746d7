"""The other ways of saturation.py: the requests that ours made, asked again of an engine of the same settings.

    python bench/saturation_bare.py FOLDER bare|batches|ray-data

bare      AsyncLLM, always as many requests in flight as our pipeline had rollouts
batches   LLM.generate: the first turns of all rollouts are one batch, their second turns the next
ray-data  the same batches through ray.data.llm, each an execution of its own
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from saturation_requests import ENGINE, Report, Sent, cpu_here, engine_arguments, load, report, sampling, since, tell, turns, warm_up


def parameters(one: Sent) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(**sampling(one.length, one.seed, one.temperature), output_kind=RequestOutputKind.FINAL_ONLY)


def bare(model: Path, sent: list[Sent], concurrency: int) -> Report:
    """Asks also what ours left unfinished, and stops the clock when as many are done as ours had done: so neither loses time at
    its end for want of more to ask."""
    from vllm.v1.engine.async_llm import AsyncLLM

    left = sum(one.ended is not None for one in sent)
    cpu, until = (0.0, 0.0), 0.0

    async def ask_all() -> None:
        nonlocal cpu
        engine = AsyncLLM.from_engine_args(engine_arguments(model, concurrency))
        await warm_up(engine)
        window = asyncio.Semaphore(concurrency)
        before = cpu_here()

        async def ask(number: int, one: Sent) -> None:
            nonlocal left, cpu, until
            async with window:
                one.begun = time.monotonic()
                async for output in engine.generate({"prompt_token_ids": one.prompt}, parameters(one), request_id=str(number)):
                    assert len(output.outputs[0].token_ids) == one.length
                one.ended = time.monotonic()
            left -= 1
            if left == 0:
                cpu, until = since(before), one.ended

        await asyncio.gather(*(ask(number, one) for number, one in enumerate(sent)))
        engine.shutdown()

    asyncio.run(ask_all())
    steady = max(one.begun for one in sent)
    last = max(one.ended or 0.0 for one in sent)
    all_of_them = report(sent, until=last, steady=steady, cpu=(0.0, 0.0))
    return report(sent, until=until, steady=steady, cpu=cpu, to_the_last=asdict(all_of_them))


def batches(model: Path, sent: list[Sent], concurrency: int) -> Report:
    from vllm import LLM, EngineArgs
    from vllm.inputs import TokensPrompt

    arguments = engine_arguments(model, concurrency)
    llm = LLM.from_engine_args(EngineArgs(**{one.name: getattr(arguments, one.name) for one in fields(EngineArgs)}))
    llm.generate([TokensPrompt(prompt_token_ids=[5] * 200)] * 8, use_tqdm=False)
    done = [one for one in sent if one.ended is not None]
    asked = [([TokensPrompt(prompt_token_ids=one.prompt) for one in turn], [parameters(one) for one in turn]) for turn in turns(done)]
    before, begun = cpu_here(), time.monotonic()
    replies = [reply for prompts, params in asked for reply in llm.generate(prompts, params, use_tqdm=False)]
    seconds, cpu = time.monotonic() - begun, since(before)
    tokens = sum(len(reply.outputs[0].token_ids) for reply in replies)
    assert tokens == sum(one.length for one in done)
    return Report(len(done), tokens, seconds, *cpu, notes={"batches": [len(prompts) for prompts, _ in asked]})


def ray_data(model: Path, sent: list[Sent], concurrency: int) -> Report:
    """Of each execution only the time from its first request until its last token, by the engine's own clock."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=256 * 1024**2)
    config = vLLMEngineProcessorConfig(
        model_source=str(model),
        engine_kwargs={**ENGINE, "max_num_seqs": concurrency, "disable_log_stats": False},  # they hold the engine's clock
        batch_size=concurrency,
        concurrency=1,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        log_engine_metrics=False,
        placement_group_config={"bundles": [{"CPU": 1}]},
    )

    def prepared(row: dict[str, Any]) -> dict[str, Any]:
        return {"tokenized_prompt": row["ids"], "sampling_params": sampling(row["length"], row["seed"], row["temperature"])}

    def read(row: dict[str, Any]) -> dict[str, Any]:
        return {"tokens": row["num_generated_tokens"], "queued": row["metrics"]["queued_ts"], "last": row["metrics"]["last_token_ts"]}

    done = [one for one in sent if one.ended is not None]
    seconds, tokens, begun = 0.0, 0, time.monotonic()
    for turn in turns(done):
        asked = [{"ids": one.prompt, "length": one.length, "seed": one.seed, "temperature": one.temperature} for one in turn]
        rows = build_processor(config, preprocess=prepared, postprocess=read)(ray.data.from_items(asked)).take_all()
        tokens += sum(row["tokens"] for row in rows)
        seconds += max(row["last"] for row in rows) - min(row["queued"] for row in rows)
    whole = time.monotonic() - begun
    ray.shutdown()
    assert tokens == sum(one.length for one in done)
    return Report(len(done), tokens, seconds, 0.0, 0.0, notes={"with_starts": whole, "batches": [len(turn) for turn in turns(done)]})


WAYS = {"bare": bare, "batches": batches, "ray-data": ray_data}


def main() -> None:
    folder, way = Path(sys.argv[1]), sys.argv[2]
    asked = json.loads((folder / "asked.json").read_text())
    tell(folder, WAYS[way](folder / "tiny-qwen3", load(folder / "sent.json"), asked["concurrency"]))


if __name__ == "__main__":
    main()
