"""How soon `tracemill view` answers on a run of 100,000 traces, beside reading the same from Parquet each time.

    python bench/viewer.py [--traces 100000] [--folder FOLDER]

The run is made of the rows of a small scripted one, again and again, with new ids and other words in them: one in all
traces, one in a thousandth, one in a single trace. FOLDER keeps the run and its index for another time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tracemill.columns import Row, table
from tracemill.config import load_config
from tracemill.generate import generate
from tracemill.trace import KINDS, Preference, Record, Rejection, Trace
from tracemill.viewer.api import viewer
from tracemill.viewer.server import TOKEN

Client = TestClient[web.Request, web.Application]

SHARD = 1000
ROUNDS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=100_000)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        out = folder / f"run-{given.traces}"
        if not out.exists():
            large_run(folder, out, given.traces)
        asyncio.run(measure(out))


# --- the run ------------------------------------------------------------------------------------------------


def large_run(folder: Path, out: Path, traces: int) -> None:
    """A run of so many traces, a third as many rejections and a fifth as many pairs."""
    began = time.perf_counter()
    seed = folder / "seed"
    generate(load_config(None, {"accept": 300, "seed": 7, "flaws": 0.3}), seed)
    parts: list[tuple[Path, str, type[Record], int]] = [(seed / "data" / kind, f"data/{kind}", Trace, traces // 3) for kind in KINDS]
    parts += [(seed / "rejects", "rejects", Rejection, traces // 3), (seed / "preferences", "preferences", Preference, traces // 5)]
    parts[0] = (*parts[0][:3], traces - 2 * (traces // 3))
    for source, name, record, number in parts:
        rows = [row for path in sorted(source.glob("*.parquet")) for row in pq.read_table(path, partitioning=None).to_pylist()]
        (out / name).mkdir(parents=True)
        for shard, start in enumerate(range(0, number, SHARD)):
            made = [varied(rows[at % len(rows)], at) for at in range(start, min(start + SHARD, number))]
            pq.write_table(table(record, made), out / name / f"part-{shard:05}.parquet", compression="zstd")
    (out / "run.json").write_text((seed / "run.json").read_text())
    size = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    print(f"made {traces:,} traces in {time.perf_counter() - began:.0f} s, {size / 1e6:,.0f} MB of Parquet\n")


def varied(row: Row, at: int) -> Row:
    """The row with another id, index and words: `everywhere` in all rows, `seldom` in a thousandth, `onceN` in one."""
    draw = random.Random(at)
    words = ["everywhere", f"once{at}", *(f"word{int(draw.paretovariate(0.3)) % 50_000}" for _ in range(12))]
    if at % 1000 == 7:
        words.append("seldom")
    changed = {**row, "id": f"{row['id'][:3]}{draw.getrandbits(80):020x}{row['id'][23:]}", "index": row["index"] + at * 3}
    for column in ("messages", "prompt"):
        if changed.get(column):
            last = json.loads(changed[column][-1])
            last["content"] += " " + " ".join(words)
            changed[column] = [*changed[column][:-1], json.dumps(last, ensure_ascii=False)]
    return changed


# --- the figures --------------------------------------------------------------------------------------------


async def measure(out: Path) -> None:
    app = viewer(out)
    async with TestClient(TestServer(app), headers={"Authorization": f"Bearer {app[TOKEN]}"}) as client:
        print("while the index is built" if not (await ask(client, "run"))["settled"] else "index is there")
        building = await build(client)
        middle = (await ask(client, "run"))["parts"]["traces"] // 2
        names = [row["name"] for row in (await ask(client, f"list?part=traces&limit=200&from={middle}"))["rows"]]
        random.Random(1).shuffle(names)
        questions = {
            "list, first page": ["list?part=traces"],
            "list, far down": [f"list?part=traces&from={at}" for at in range(30_000, 90_000, 1000)],
            "filter by kind, environment, flag": ["list?part=traces&kind=error_recovery&environment=bank&flag=masked"],
            "rejects by stage": ["list?part=rejects&stage=goal"],
            "search: in all traces": [
                f"list?part=traces&q=everywhere{' ' * at}" for at in range(ROUNDS)
            ],  # each another one: hits are kept
            "search: two words, one without": [f"list?part=traces&q=everywhere account -once{at}" for at in range(ROUNDS)],
            "search: in a thousandth": [f"list?part=traces&q=seldom{' ' * at}" for at in range(ROUNDS)],
            "search: in one": [f"list?part=traces&q=once{at}" for at in range(0, 30_000, 777)],
            "search: a phrase": [f'list?part=traces&q="let me know"{" " * at}' for at in range(ROUNDS)],
            "search: a beginning": [f"list?part=traces&q=word{at}*" for at in range(10, 10 + ROUNDS)],
            "one record": [f"record?name={name}" for name in names],
            "charts": ["charts"],
            "run": ["run"],
        }
        plain = {
            "list, first page": lambda: scanned(out, "id, kind, environment, template, messages", "true ORDER BY index LIMIT 100"),
            "filter by kind, environment, flag": lambda: scanned(
                out, "id", "kind = 'error_recovery' AND environment = 'bank' AND messages::text LIKE '%\"train\":false%'"
            ),
            "search: in a thousandth": lambda: scanned(out, "id", "messages::text LIKE '%seldom%'"),
            "one record": lambda: scanned(out, "*", f"id = '{names[0]}'"),
            "charts": lambda: scanned(out, "kind, environment, template, count(*)", "true GROUP BY ALL"),
        }
        print(f"\n{'answer':36}{'p50 ms':>9}{'p95':>9}{'max':>9}{'scan of Parquet ms':>21}{'ratio':>8}")
        for name, times in [*building.items(), *[(name, await timed(client, asked)) for name, asked in questions.items()]]:
            p50, p95 = statistics.median(times), sorted(times)[int(0.95 * (len(times) - 1))]
            scan = spent(plain[name]) if name in plain else None
            beside = f"{scan:21,.0f}{scan / p50:8,.0f}" if scan else ""
            print(f"{name:36}{p50:9.1f}{p95:9.1f}{max(times):9.1f}{beside}")


async def build(client: Client) -> dict[str, list[float]]:
    """Answers while the index grows, in milliseconds; nothing if it is there already."""
    times: dict[str, list[float]] = {"(building) list": [], "(building) search": []}
    began = time.perf_counter()
    while not (run := await ask(client, "run"))["settled"] or run["rows"] < run["total"]:
        times["(building) list"] += await timed(client, ["list?part=traces"], 1)
        times["(building) search"] += await timed(client, [f"list?part=traces&q=everywhere{' ' * len(times['(building) search'])}"], 1)
        await asyncio.sleep(0.5)
    print(f"{run['rows']:,} records indexed in {time.perf_counter() - began:.0f} s")
    return {name: some for name, some in times.items() if some}


async def ask(client: Client, question: str) -> Any:
    async with client.get(f"/api/{question}") as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def timed(client: Client, questions: list[str], rounds: int = ROUNDS) -> list[float]:
    times = []
    for question in itertools.islice(itertools.cycle(questions), rounds):
        began = time.perf_counter()
        await ask(client, question)
        times.append(1000 * (time.perf_counter() - began))
    return times


def scanned(out: Path, columns: str, where: str) -> int:
    """The same from the shards by duckdb, on one thread; how many rows."""
    with duckdb.connect(config={"threads": 1}) as db:
        return len(db.execute(f"SELECT {columns} FROM read_parquet('{out}/data/*/*.parquet') WHERE {where}").fetchall())


def spent(work: Callable[[], int]) -> float:
    """Milliseconds, the best of two."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return min(times)


if __name__ == "__main__":
    main()
