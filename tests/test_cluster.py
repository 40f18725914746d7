"""Ray: the same set of records, whatever the number of actors and whatever dies in between.

Everything here runs the real command in real processes and kills with SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from processes import PATIENCE, descendants, kill, lives, running, until

TRACES = int(os.environ.get("TRACES", "2000"))
KILLS = 20
HERE = str(Path(__file__).parent)
CELLAR = ["--environment", "poison:Cellar", "--kind", "tool_call", "--flaws", "0", "--concurrency", "2"]


def command(out: Path, *more: str, accept: int = TRACES, actors: int = 2) -> list[str]:
    flags = ["--accept", str(accept), "--seed", "7", "--actors", str(actors), "--out", str(out), *more]
    return [sys.executable, "-m", "tracemill.cli", "generate", *flags]


@contextlib.contextmanager
def launch(out: Path, *more: str, **options: int) -> Iterator[subprocess.Popen[bytes]]:
    with out.with_suffix(".log").open("ab") as log, running(command(out, *more, **options), stdout=log, stderr=log) as run:
        yield run


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs in the Cellar stand still after a while, until this file is there: they are not over before something is done to them."""
    monkeypatch.setenv("PYTHONPATH", HERE)
    monkeypatch.setenv("GATE", str(tmp_path / "gate"))
    return tmp_path / "gate"


def finish(run: subprocess.Popen[bytes], out: Path) -> None:
    code = run.wait(timeout=PATIENCE)
    assert code == 0, out.with_suffix(".log").read_text()[-2000:]


def rows(out: Path) -> dict[str, dict[str, object]]:
    """Every record of a run by folder and id; fails if an id comes twice."""
    found: dict[str, dict[str, object]] = {}
    for path in sorted(out.glob("data/*/*.parquet")) + sorted(out.glob("rejects/*.parquet")) + sorted(out.glob("preferences/*.parquet")):
        for row in pq.read_table(path, partitioning=None).to_pylist():
            key = f"{path.parent.relative_to(out)}/{row['id']}"
            assert key not in found, f"{key} is there twice"
            found[key] = row
    return found


def traces(found: dict[str, dict[str, object]]) -> int:
    return sum(key.startswith("data/") for key in found)


def made(out: Path) -> int:
    """How many scenarios are done so far: rows in shards, and lines that wait in the spool (some may be in both)."""
    count = 0
    for path in out.glob("data/*/part-*.parquet"):
        count += int(pq.read_metadata(path).num_rows)
    for path in out.glob(".spool/*.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            count += path.read_bytes().count(b"\n")
    return count


def reach(run: subprocess.Popen[bytes], out: Path, count: int) -> bool:
    """Wait until the run has done so many scenarios; False if it has ended."""
    until(lambda: run.poll() is not None or made(out) >= count)
    return run.poll() is None


def wait_for_another_raylet(run: subprocess.Popen[bytes], old: list[psutil.Process]) -> None:
    """Or for the end of the run, if the death of the old one took its driver down."""
    until(lambda: run.poll() is not None or bool({*descendants(run.pid, "raylet")} - {*old}))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one-actor") / "A"
    with launch(out, actors=1) as run:
        finish(run, out)
    return out


def test_three_actors_make_what_one_makes(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "three"
    with launch(out, actors=3) as run:
        finish(run, out)
    expected = rows(undisturbed)
    assert traces(expected) == TRACES
    assert rows(out) == expected


def test_twenty_kills_at_random_change_nothing(undisturbed: Path, tmp_path: Path) -> None:
    """Actors mostly, which the run replaces by itself; drivers, after which the same command is given again; and a
    raylet, after which the run goes on with a new Ray, or ends and is given again.

    Where this process was held up so long that a run was over before all of them, another suffers the rest."""
    rng = random.Random(11)
    victims = ["driver"] * 5 + ["raylet"] + ["actor"] * (KILLS - 6)
    rng.shuffle(victims)
    expected = rows(undisturbed)
    while victims:
        left = len(victims)
        out = tmp_path / f"killed-from-{left}"
        disturb(out, victims, rng)
        print(f"killed {left - len(victims)} in {out.name}")
        assert len(victims) < left, "the run was over before anything was killed"
        after = rows(out)
        assert traces(after) == TRACES
        assert after == expected


def disturb(out: Path, victims: list[str], rng: random.Random) -> None:
    """A run, and kills in it at random from the last victim to the first; what is left of them was not killed before its end."""
    moments = sorted(rng.sample(range(TRACES // 50, TRACES * 3 // 4), len(victims)), reverse=True)
    killed: list[str] = []
    with contextlib.ExitStack() as runs:
        run = runs.enter_context(launch(out))
        while victims:
            if not reach(run, out, moments[len(victims) - 1]):
                if killed[-1:] != ["raylet"] or run.returncode == 0:
                    break
                run = runs.enter_context(launch(out))
                continue
            victim = victims[-1]
            if victim == "driver":
                run.send_signal(signal.SIGKILL)
                run.wait()
                run = runs.enter_context(launch(out))
            else:
                actors = descendants(run.pid, "ray::Miller")  # without any, one is being replaced, or Ray is still starting
                found = descendants(run.pid, "raylet") if actors and victim == "raylet" else actors
                if not found or not kill(rng.choice(found)):
                    time.sleep(0.02)
                    continue
                if victim == "raylet":
                    wait_for_another_raylet(run, found)
            killed.append(victims.pop())
        finish(run, out)


def test_the_result_of_kills_verifies(undisturbed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tracemill.cli", "verify", str(undisturbed)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path: Path, gate: Path) -> None:
    out = tmp_path / "stopped"
    with launch(out, *CELLAR, accept=500) as run:
        assert reach(run, out, 1), out.with_suffix(".log").read_text()[-2000:]
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=PATIENCE) == 130
    assert "run the same command again" in out.with_suffix(".log").read_text()
    gate.touch()
    with launch(out, *CELLAR, accept=500) as run:
        finish(run, out)
    assert traces(rows(out)) == 500


def test_nothing_is_left_running(undisturbed: Path) -> None:
    """No process of ours outlives a run, killed or not."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.ppid() == 1 and process.name().startswith("ray::Miller") and process.uids().real == os.getuid():
                left.append(process)
    until(lambda: not any(lives(process) for process in left))


def test_a_folder_is_written_by_one_run_at_a_time(tmp_path: Path, gate: Path) -> None:
    out = tmp_path / "locked"
    with launch(out, *CELLAR, accept=400) as run:
        assert reach(run, out, 1), out.with_suffix(".log").read_text()[-2000:]
        second = subprocess.run(command(out, *CELLAR, accept=400), capture_output=True, text=True, timeout=PATIENCE)
        assert second.returncode == 2
        assert "written by another process" in " ".join(second.stderr.split())


def test_a_scenario_that_kills_every_actor_ends_in_the_ledger(tmp_path: Path) -> None:
    """Bottle 7 takes down the process that opens it: it is tried again, at last alone, then quarantined; the run goes on."""
    out = tmp_path / "poisoned"
    environment = {**os.environ, "PYTHONPATH": HERE, "MILLING": "1"}
    flags = ["--accept", "60", "--seed", "1", "--actors", "2", "--out", str(out)]
    line = [sys.executable, "-m", "tracemill.cli", "generate", *CELLAR, *flags]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(out)
    assert traces(found) == 60
    stages = {str(row["reason"]) for key, row in found.items() if key.startswith("rejects/")}
    assert any("the actor died" in reason for reason in stages), stages


SINK_THAT_WANTS_NOTHING = """
from tracemill import cluster
from tracemill.config import Config
from tracemill.errors import ClusterError
from tracemill.job import Generation


class Sink:
    full, frontier = False, 7

    def wants(self, index):
        return False


cluster.start()
try:
    cluster.run(Generation(Config(accept=1, environments={"store": 1.0})), Sink(), actors=1)
except ClusterError as reason:
    print(reason.message)
"""


def test_a_run_in_which_nothing_is_left_to_do_says_so_and_does_not_wait_for_ever() -> None:
    done = subprocess.run([sys.executable, "-c", SINK_THAT_WANTS_NOTHING], capture_output=True, text=True, timeout=PATIENCE)
    assert "nothing is left to do from index 7 on" in done.stdout, done.stderr
