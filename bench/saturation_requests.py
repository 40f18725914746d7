"""What the ways of saturation.py share: the requests that ours made, the engine, and what each way reports."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tracemill.config import VllmConfig

ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 8192,
    # On a CPU vLLM 0.32 dies of a prompt that is read in two steps if its request has a seed: "CPU Generator does not use offset".
    "enable_chunked_prefill": False,
    "max_num_batched_tokens": 8192,
}
MEDIAN, SPREAD, LONGEST = 60, 1.0, 512
"""Of the lengths of replies, in tokens: log-normal, so that a few are far longer than most."""


@dataclass
class Sent:
    """One request, of which the engine writes exactly `length` tokens. Times are those of the machine's monotonic clock."""

    scenario: int
    prompt: list[int]
    length: int
    seed: int
    temperature: float
    begun: float
    ended: float | None = None
    """None if it was cut off."""


@dataclass
class Report:
    """What one way did, from its first request on."""

    requests: int
    tokens: int
    seconds: float
    cpu_asker: float
    """CPU seconds of the process that asks the engine."""
    cpu_engine: float
    steady: float = 0.0
    """Tokens per second while there was always more to be begun; 0 if not known."""
    in_flight: float = 0.0
    """Requests at once, on average over that time."""
    notes: dict[str, Any] = field(default_factory=dict)


def length_of(seed: int) -> int:
    return max(1, min(LONGEST, round(MEDIAN * random.Random(seed).lognormvariate(0, SPREAD))))


def teacher(model: Path) -> VllmConfig:
    return VllmConfig(model=str(model), temperature=1.0, engine=ENGINE)


def engine_arguments(model: Path, concurrency: int) -> Any:
    """vLLM's AsyncEngineArgs, as the pipeline's own engine gets them."""
    from tracemill.generators.teachers.vllm import VllmChat

    return VllmChat(teacher(model), concurrency=concurrency)._arguments()


def sampling(length: int, seed: int, temperature: float) -> dict[str, Any]:
    return {"temperature": temperature, "max_tokens": length, "ignore_eos": True, "seed": seed}


async def warm_up(engine: Any) -> None:
    """What an engine does once only, it does before the clock runs."""
    from vllm import SamplingParams

    async def one(number: int) -> None:
        params = SamplingParams(**sampling(32, number, 1.0))
        async for _ in engine.generate({"prompt_token_ids": [5 + number] * 200}, params, request_id=f"warm-{number}"):
            pass

    await asyncio.gather(*map(one, range(8)))


def save(requests: Iterable[Sent], path: Path) -> None:
    path.write_text(json.dumps([asdict(one) for one in requests]))


def load(path: Path) -> list[Sent]:
    return [Sent(**one) for one in json.loads(path.read_text())]


def tell(folder: Path, found: Report) -> None:
    (folder / "report.json").write_text(json.dumps(asdict(found)))


def turns(requests: Iterable[Sent]) -> list[list[Sent]]:
    """The first requests of all scenarios, their second ones, and so on."""
    found: dict[int, list[Sent]] = defaultdict(list)
    seen: dict[int, int] = defaultdict(int)
    for one in sorted(requests, key=lambda one: one.begun):
        found[seen[one.scenario]].append(one)
        seen[one.scenario] += 1
    return [found[turn] for turn in sorted(found)]


def report(requests: list[Sent], *, until: float, steady: float, cpu: tuple[float, float], closing: float = 0.0, **notes: Any) -> Report:
    """Counts what was done `until` then. `closing` are seconds after that which belong to the work as well; up to `steady` there
    was always more to begin."""
    start = min(one.begun for one in requests)
    counted = [one for one in requests if one.ended is not None and one.ended <= until]
    early = [one for one in requests if one.begun < steady]
    return Report(
        requests=len(counted),
        tokens=sum(one.length for one in counted),
        seconds=until - start + closing,
        cpu_asker=cpu[0],
        cpu_engine=cpu[1],
        steady=sum(one.length for one in early if one.ended is not None and one.ended <= steady) / (steady - start),
        in_flight=sum(min(one.ended or steady, steady) - one.begun for one in early) / (steady - start),
        notes=notes,
    )


def cpu_here() -> tuple[float, float]:
    """CPU seconds of this process, and of all below it: the engine's."""
    me = psutil.Process()
    below = 0.0
    for child in me.children(recursive=True):
        try:
            below += sum(child.cpu_times()[:2])
        except psutil.Error:
            continue
    return sum(me.cpu_times()[:2]), below


def since(before: tuple[float, float]) -> tuple[float, float]:
    now = cpu_here()
    return now[0] - before[0], now[1] - before[1]
