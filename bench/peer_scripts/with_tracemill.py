"""tracemill: `OpenAIChat`, one worker a request in flight, each reply checked against the schema, rows to Parquet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from peer_task import MODEL, SCHEMA, Job, main

from tracemill.config import EndpointConfig
from tracemill.generators.teachers.chat import Ask, Sampling
from tracemill.generators.teachers.openai import OpenAIChat
from tracemill.schemas.check import Checker
from tracemill.trace import UserMessage

TABLE = pa.schema({"prompt": pa.string(), "question": pa.string(), "answer": pa.string(), "score": pa.int64()})
BATCH = 500
"""Rows of a Parquet row group."""


async def ask_for_all(job: Job, writer: pq.ParquetWriter) -> None:
    model = OpenAIChat(EndpointConfig(url=job.url, model=MODEL), concurrency=job.concurrency)
    checker = Checker(SCHEMA)
    prompts = iter(enumerate(job.prompts()))
    rows: list[dict[str, Any]] = []

    def flush() -> None:
        writer.write_table(pa.Table.from_pylist(rows, schema=TABLE))
        rows.clear()

    async def work() -> None:
        for seed, prompt in prompts:
            ask = Ask([UserMessage(content=prompt)], Sampling(temperature=1.0, max_tokens=256), seed, schema=SCHEMA)
            row = json.loads((await model.complete(ask)).text)
            if not checker.problems(row):
                rows.append({"prompt": prompt, **row})
            if len(rows) >= BATCH:
                flush()

    await model.start()
    await asyncio.gather(*(work() for _ in range(job.concurrency)))
    await model.close()
    if rows:
        flush()


def generate(job: Job) -> None:
    job.out.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(job.out / "rows.parquet", TABLE) as writer:
        asyncio.run(ask_for_all(job, writer))


def answers(out: Path) -> Iterator[Any]:
    yield from pq.read_table(out / "rows.parquet", columns=list(SCHEMA["properties"])).to_pylist()


if __name__ == "__main__":
    main(generate, answers)
