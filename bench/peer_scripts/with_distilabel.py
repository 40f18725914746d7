"""distilabel: a one-step pipeline on `OpenAILLM`, rows to Parquet.

It sends a batch at once and waits for all of it, so the requests in flight are the batch size times the replicas. The
schema goes along as `extra_body` and the task checks the reply, which took less time than its own `structured_output`
(39 to 41 against 43 to 51 rows/s): that goes through instructor and builds a pydantic model anew for every request.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import StepResources
from distilabel.steps.tasks import TextGeneration
from peer_task import MODEL, SCHEMA, Job, main
from pydantic import BaseModel

REPLICAS = 2
"""Processes; one was a little slower on two cores."""
RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "row", "schema": SCHEMA, "strict": True}}


class Row(BaseModel):
    question: str
    answer: str
    score: int


class Quiz(TextGeneration):
    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"generation": None if output is None else Row.model_validate_json(output).model_dump_json()}


def files(out: Path) -> list[Path]:
    return list(out.glob("quiz/*/executions/*/data/steps_outputs/ask/*.parquet"))


def generate(job: Job) -> float:
    generation = {"temperature": 1.0, "max_new_tokens": 256, "extra_body": {"response_format": RESPONSE_FORMAT}}
    with Pipeline(name="quiz", cache_dir=job.out) as pipeline:
        Quiz(
            name="ask",
            llm=OpenAILLM(model=MODEL, base_url=job.url, api_key="none", generation_kwargs=generation),
            input_batch_size=job.concurrency // REPLICAS,
            resources=StepResources(replicas=REPLICAS),
        )
    pipeline.run(dataset=[{"instruction": prompt} for prompt in job.prompts()], dataset_batch_size=job.concurrency, use_cache=False)
    return time.monotonic() - (time.time() - max(file.stat().st_mtime for file in files(job.out)))


def answers(out: Path) -> Iterator[Any]:
    for file in files(out):
        for text in pq.read_table(file)["generation"].to_pylist():
            yield None if text is None else Row.model_validate_json(text).model_dump()


if __name__ == "__main__":
    main(generate, answers)
