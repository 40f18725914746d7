"""Structured rows per second from one endpoint, and the CPU they cost: tracemill against its peers.

    python bench/peers.py [--rows 2000] [--concurrency 64 256] [--latency 0.05] [--only distilabel]

A server on loopback says the same after a fixed time; each peer in turn asks it for the same rows, in an environment of
its own (made once, with uv, in the user's cache folder), and writes them as it does. `peer_scripts/` has a script for each.

rows/s       rows over the time from the first request of a row, as the server saw it, until the last row is on disk
start-up     seconds from the start of the process until that first request
CPU s        user and system, of the process and all its children, from its start to its end, for 1,000 rows
after start  the same without what was used until the first request: what more rows would cost
in flight    the most requests at once, as the server saw them
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
from rich.console import Console
from rich.table import Table

SCRIPTS = Path(__file__).parent / "peer_scripts"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tracemill-peers"
TIMEOUT = 900
"""Seconds that a peer may take for all its rows."""
QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NEMO_TELEMETRY_ENABLED": "false",
    "OPENAI_API_KEY": "none",
    "TELEMETRY_ENABLED": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}
"""No telemetry, nothing from the network, no key that happens to be set."""


@dataclass(frozen=True, slots=True)
class Peer:
    package: str
    script: str
    requirements: tuple[str, ...] = ()
    """None for tracemill, which runs where this does."""


OURS = Peer("tracemill", "with_tracemill.py")
PEERS = (
    Peer("distilabel", "with_distilabel.py", ("distilabel[openai,instructor]==1.5.3",)),
    Peer("bespokelabs-curator", "with_curator.py", ("bespokelabs-curator==0.1.31",)),
    Peer("data-designer", "with_data_designer.py", ("data-designer==0.9.6",)),
    # not its extra `inference`, which brings vLLM and SGLang; the last two are what it needs of that for an endpoint
    Peer("datatrove", "with_datatrove.py", ("datatrove[io]==0.10.1", "httpx", "aiofiles")),
)


class PeerFailed(Exception):
    """It could not be installed, or did not run to its end."""


@dataclass(frozen=True, slots=True)
class Figures:
    rows: int
    right: int
    """Rows on disk that hold what the endpoint said."""
    seconds: float
    startup: float
    cpu: float
    cpu_after_start: float
    in_flight: int
    others: int
    """Requests that belong to no row."""

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


# --- one environment a peer ---


def python_of(peer: Peer) -> Path:
    """Its interpreter, in an environment that is made if it is not there. Raises PeerFailed."""
    if not peer.requirements:
        return Path(sys.executable)
    home = CACHE / peer.package
    python = home / "bin" / "python"
    made = home / "requirements"
    if not made.exists() or made.read_text() != "\n".join(peer.requirements):
        uv = str(Path(sys.executable).with_name("uv"))
        env = os.environ | {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "")}
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        run([uv, "venv", "--quiet", "--clear", "--python", version, str(home)], env)
        run([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *peer.requirements], env)
        made.write_text("\n".join(peer.requirements))
    return python


def version_of(peer: Peer, python: Path) -> str:
    code = f"from importlib.metadata import version; print(version({peer.package!r}))"
    return run([str(python), "-c", code], dict(os.environ)).strip()


def run(command: list[str], env: dict[str, str]) -> str:
    """What it prints. Raises PeerFailed."""
    try:
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"{Path(command[0]).name} was not done after {TIMEOUT} s") from None
    if done.returncode:
        raise PeerFailed(error_line(done.stdout))
    return done.stdout


def error_line(output: str) -> str:
    """The last line that names an error, or else the last."""
    lines = [line.strip(" │╭╰─╮╯") for line in output.splitlines()]
    named = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception|error)\b", line)]
    return next(reversed(named or [line for line in lines if line]), "it said nothing")[:300]


# --- one run ---


@contextmanager
def endpoint(latency: float) -> Iterator[tuple[str, IO[str]]]:
    """The URL of a fresh one, and what it prints."""
    command = [sys.executable, str(SCRIPTS / "endpoint.py"), str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1", server.stdout
        finally:
            server.kill()


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of a process and all below it."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            total += sum(one.cpu_times()[:4])  # the last two are those of its children that have ended
        except psutil.Error:
            continue
    return total


def cpu_of_ended_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(peer: Peer, python: Path, rows: int, concurrency: int, latency: float) -> Figures:
    """Raises PeerFailed."""
    with tempfile.TemporaryDirectory(prefix="peers-") as folder, endpoint(latency) as (url, said):
        out = Path(folder)
        env = os.environ | QUIET | {"HOME": folder, "XDG_CACHE_HOME": folder, "PATH": f"{python.parent}:{os.environ['PATH']}"}
        job = [url, str(rows), str(concurrency), str(out / "rows")]
        script = str(SCRIPTS / peer.script)
        begun, cpu = time.monotonic(), cpu_of_ended_children()
        written, at_first = generate([str(python), script, "generate", *job], env, out, said)
        cpu = cpu_of_ended_children() - cpu
        right = last_said("right", run([str(python), script, "check", *job], env))
        with urllib.request.urlopen(f"{url}/seen") as answer:
            seen = json.load(answer)
    if seen["first"] is None:
        raise PeerFailed("it sent no request of a row")
    return Figures(
        rows=rows,
        right=right,
        seconds=written - seen["first"],
        startup=seen["first"] - begun,
        cpu=cpu,
        cpu_after_start=cpu - at_first,
        in_flight=seen["most_in_flight"],
        others=seen["others"] + seen["rows"] - rows,
    )


def generate(command: list[str], env: dict[str, str], out: Path, said: IO[str]) -> tuple[float, float]:
    """When the last row was written, and the CPU seconds that were used by the first request."""
    used = [0.0]
    with (out / "log").open("w+") as log:
        process = subprocess.Popen(
            command, env=env, cwd=out, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )

        def at_first() -> None:
            if said.readline():
                used[0] = cpu_of(psutil.Process(process.pid))

        threading.Thread(target=at_first, daemon=True).start()
        try:
            failed = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            raise PeerFailed(f"not done after {TIMEOUT} s") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also what a failed one has left behind
            process.wait()
        log.seek(0)
        text = log.read()
    if failed:
        raise PeerFailed(error_line(text))
    return last_said("written", text), used[0]


def last_said(key: str, text: str) -> Any:
    """From the line of JSON that a script ends with."""
    for line in reversed(text.splitlines()):
        if line.startswith(f'{{"{key}"'):
            return json.loads(line)[key]
    raise PeerFailed(error_line(text))


# --- all of them ---


def table(concurrency: int, latency: float, results: dict[str, tuple[str, Figures | str]]) -> Table:
    shown = Table(
        title=f"{concurrency} at once, so at most {concurrency / latency:,.0f} rows/s",
        caption="CPU seconds for 1,000 rows; in brackets, how many times better ours is",
    )
    for name in ("", "version", "rows/s", "CPU s", "after start", "start-up", "in flight", "rows right", "other requests"):
        shown.add_column(name, justify="left" if name in ("", "version") else "right", no_wrap=True)
    ours = results[OURS.package][1]
    for name, (version, result) in results.items():
        if isinstance(result, str):
            shown.add_row(name, version, "[red]failed[/]")
            continue
        base = ours if isinstance(ours, Figures) else result
        per_row = 1000 / result.rows
        shown.add_row(
            name,
            version,
            f"{result.rate:,.0f} ({base.rate / result.rate:.1f}x)",
            f"{result.cpu * per_row:.2f} ({result.cpu / base.cpu:.1f}x)",
            f"{result.cpu_after_start * per_row:.2f} ({result.cpu_after_start / base.cpu_after_start:.1f}x)",
            f"{result.startup:.1f} s",
            str(result.in_flight),
            f"{result.right} of {result.rows}" if result.right == result.rows else f"[red]{result.right} of {result.rows}[/]",
            str(result.others),
        )
    return shown


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} before"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--only", nargs="+", choices=[peer.package for peer in PEERS], help="these peers, and ours")
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    peers = [OURS, *(peer for peer in PEERS if not args.only or peer.package in args.only)]
    console.print(f"{args.rows} rows, {args.latency * 1000:g} ms a reply; {machine()}")
    results: dict[int, dict[str, tuple[str, Figures | str]]] = {concurrency: {} for concurrency in args.concurrency}
    for peer in peers:
        for concurrency in args.concurrency:
            version = ""
            result: Figures | str
            console.print(f"{peer.package}, {concurrency} at once …")
            try:
                python = python_of(peer)
                version = version_of(peer, python)
                result = measure(peer, python, args.rows, concurrency, args.latency)
            except PeerFailed as reason:
                result = str(reason)
            results[concurrency][peer.package] = version, result
    for concurrency in args.concurrency:
        console.print(table(concurrency, args.latency, results[concurrency]))
        for name, (_, result) in results[concurrency].items():
            if isinstance(result, str):
                console.print(f"{name} failed: {result}", markup=False)


if __name__ == "__main__":
    main()
