"""Traces per second and core, and what Ray costs.

    python bench/throughput.py [--traces 2000]

The same indices are milled twice in one run of this script: by the pipeline in plain asyncio in this process, with
its writer, and by one Ray actor with the driver's writer. CPU seconds count every process that takes part (for Ray:
driver, actor, raylet, GCS), so the rates are per core whatever else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from pathlib import Path

import psutil

from tracemill import cluster
from tracemill.config import Config
from tracemill.generators.scenario import kind_of
from tracemill.job import Generation, build_job, build_pipeline, run_record
from tracemill.writer import Writer, pack


def writer(config: Config, out: Path) -> Writer:
    job = build_job(config)
    return Writer(out, quotas=config.quotas(), kind_of=lambda index: kind_of(job.seed, index, job.mix), run=run_record(config))


def plain(config: Config, out: Path) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of a run in plain asyncio."""
    pipeline = build_pipeline(config)
    gc.set_threshold(50_000, 50, 100)  # as the actors set it
    sink = writer(config, out)

    async def run() -> None:
        index = 0
        while not sink.full:
            if sink.wants(index):
                sink.add(pack(await pipeline.mill(index)))
            index += 1

    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(run())
    sink.close()
    return time.perf_counter() - wall, time.process_time() - cpu


def cpu_of_all() -> float:
    """CPU seconds of this process and all below it, those that have ended included where the system tells."""
    me = psutil.Process()
    total = sum(me.cpu_times()[:4])
    for child in me.children(recursive=True):
        try:
            total += sum(child.cpu_times()[:2])
        except psutil.Error:
            continue
    return total


def with_ray(config: Config, out: Path) -> tuple[float, float]:
    sink = writer(config, out)
    wall, cpu = time.perf_counter(), cpu_of_all()
    used = cpu
    last = [used]
    cluster.run(Generation(config), sink, actors=1, on_progress=lambda in_flight: last.__setitem__(0, max(last[0], cpu_of_all())))
    sink.close()
    return time.perf_counter() - wall, last[0] - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, default=2000)
    traces: int = parser.parse_args().traces
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        warm = Config(accept=traces, seed=1, flaws=0.1, worlds=8)
        plain(warm.model_copy(update={"accept": 300}), root / "warm")
        alone = plain(warm, root / "plain")
        cluster.start(cpus=2)
        with_ray(warm.model_copy(update={"accept": 300}), root / "warm-ray")
        rayed = with_ray(warm, root / "ray")
    print(f"{traces} accepted traces, all kinds and environments, 10% of the first drafts flawed")
    print(f"{'':24}{'traces/s':>10}{'CPU s':>8}{'traces/s and core':>20}")
    for name, (wall, cpu) in (("plain asyncio", alone), ("one Ray actor + driver", rayed)):
        print(f"{name:24}{traces / wall:10.0f}{cpu:8.1f}{traces / cpu:20.0f}")
    print(
        f"Ray's overhead: {rayed[1] / alone[1]:.2f} times the CPU seconds, {rayed[0] / alone[0]:.2f} times the wall time (the aim for traces/s and core is 500)"
    )


if __name__ == "__main__":
    main()
