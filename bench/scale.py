"""Does it stay flat? Rate and memory at 1,000 and at 100,000 traces, and the time to take up a finished run again.

    python bench/scale.py [--small 1000] [--large 100000] [--actors 2]

Both runs go through Ray in this process, one after the other. Memory is the sum of the resident sets of driver and
actors, sampled through the run, pages they share counted in each. The rate is that of the last fifth of a run, when
all is warm.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import psutil
from throughput import writer

from tracemill import cluster
from tracemill.config import Config
from tracemill.job import Generation


def resident() -> float:
    """MiB of driver and actors."""
    me = psutil.Process()
    total = me.memory_info().rss
    for child in me.children(recursive=True):
        try:
            if child.name().startswith("ray::Miller"):
                total += child.memory_info().rss
        except psutil.Error:
            continue
    return total / 2**20


def run(config: Config, out: Path, actors: int) -> tuple[float, float, float]:
    """(traces per second of the last fifth, of the whole, peak MiB)."""
    sink = writer(config, out)
    total = sum(config.quotas().values())
    peak = 0.0
    sampled = began = time.perf_counter()
    last_fifth: tuple[float, int] | None = None

    def look(in_flight: int) -> None:
        nonlocal peak, sampled, last_fifth
        now = time.perf_counter()
        count = sink.tally.accepted.total()
        if last_fifth is None and count >= total * 0.8:
            last_fifth = (now, count)
        if now - sampled > 0.5:
            sampled = now
            peak = max(peak, resident())

    cluster.run(Generation(config), sink, actors=actors, on_progress=look)
    peak = max(peak, resident())
    ended = time.perf_counter()
    sink.close()
    since, then = last_fifth or (began, 0)
    return (total - then) / (ended - since), total / (ended - began), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--actors", type=int, default=2)
    args = parser.parse_args()
    cluster.start(cpus=max(2, args.actors))
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for count in (args.small, args.large):
            config = Config(accept=count, seed=3, flaws=0.1, worlds=8)
            rows.append((count, *run(config, Path(folder) / str(count), args.actors)))
            print(
                f"{count:>8,} traces: {rows[-1][1]:.0f}/s at the end, {rows[-1][2]:.0f}/s overall, peak {rows[-1][3]:.0f} MiB", flush=True
            )
        began = time.perf_counter()
        again = writer(config, Path(folder) / str(args.large))
        resumed = time.perf_counter() - began
        assert again.full
        again.close()
    small, large = rows
    print(f"rate: {large[1] / small[1]:.2f} of the small run's (flat is 1)")
    print(f"memory: {large[3] / small[3]:.2f} times the small run's (the aim is at most 1.2)")
    print(f"taking up the run of {args.large:,} again: {resumed:.1f} s before the first lease (the aim is 10 s)")


if __name__ == "__main__":
    main()
