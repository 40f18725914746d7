"""What several tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings

from tracemill.columns import Row, table
from tracemill.config import load_config
from tracemill.generators.scenario import kind_of
from tracemill.job import build_job, build_pipeline, run_record
from tracemill.trace import Rejection, Trace
from tracemill.writer import Writer, pack

Rewrite = Callable[[Callable[[Row], None]], Path]

# The same commit gives the same examples, and so the same result, on a machine of any speed.
settings.register_profile("tracemill", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tracemill")


def mill(out: Path, **settings: object) -> Path:
    """A finished run, made in this process."""
    config = load_config(None, settings)
    job, pipeline = build_job(config), build_pipeline(config)
    writer = Writer(out, quotas=config.quotas(), kind_of=lambda index: kind_of(job.seed, index, job.mix), run=run_record(config))

    async def fill() -> None:
        index = 0
        while not writer.full:
            if writer.wants(index):
                writer.add(pack(await pipeline.mill(index)))
            index += 1

    asyncio.run(fill())
    writer.close()
    return out


@pytest.fixture(scope="session")
def milled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a small run with all kinds, two environments, recoveries, revisions and rejections."""
    return mill(tmp_path_factory.mktemp("milled") / "run", accept=60, environments=["store", "bank"], flaws=0.3)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run as users make it: all kinds, all built-in environments, a tenth of the drafts flawed."""
    return mill(tmp_path_factory.mktemp("dataset") / "run", accept=150, seed=5, flaws=0.1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of the small run that tests of training learn from."""
    from tiny_training import small_run  # here, since most tests do without torch

    return small_run(tmp_path_factory.mktemp("small") / "run")


@pytest.fixture(scope="session")
def model(data: Path) -> Path:
    """The tiny model that it is learnt with, beside the run; not to be changed."""
    from tiny_training import small_model

    return small_model(data.parent / "tiny", data)


@pytest.fixture
def rewritten(milled: Path, tmp_path: Path) -> Rewrite:
    """Makes a copy of the shards of `milled`, without run.json, in which every row has gone through a function."""

    def rewrite(change: Callable[[Row], None]) -> Path:
        for path in [*milled.glob("data/*/*.parquet"), *milled.glob("rejects/*.parquet")]:
            rows = pq.read_table(path, partitioning=None).to_pylist()
            for row in rows:
                change(row)
            copy = tmp_path / "copy" / path.relative_to(milled)
            copy.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table(Rejection if "stage" in rows[0] else Trace, rows), copy)
        return tmp_path / "copy"

    return rewrite
