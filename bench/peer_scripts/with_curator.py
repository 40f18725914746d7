"""Bespoke Curator: `LLM` with a response format, online mode; rows to Arrow, and every request and response to JSONL.

Its limits by the minute are lifted out of the way: the requests in flight are the only limit, as for the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litellm.litellm_core_utils.default_encoding  # noqa: F401 - first: points tiktoken to the file that litellm brings
from bespokelabs import curator
from datasets import Dataset
from peer_task import MODEL, Job, main
from pydantic import BaseModel

NO_LIMIT = 1_000_000_000


class Row(BaseModel):
    question: str
    answer: str
    score: int


class Quiz(curator.LLM):
    response_format = Row

    def prompt(self, row: dict[str, Any]) -> str:
        return str(row["prompt"])

    def parse(self, row: dict[str, Any], response: Row) -> dict[str, Any]:
        return response.model_dump()


def generate(job: Job) -> None:
    quiz = Quiz(
        model_name=MODEL,
        backend="openai",
        generation_params={"temperature": 1.0, "max_tokens": 256},
        backend_params={
            "base_url": job.url,
            "api_key": "none",
            "max_concurrent_requests": job.concurrency,
            "max_requests_per_minute": NO_LIMIT,
            "max_tokens_per_minute": NO_LIMIT,
        },
    )
    quiz([{"prompt": prompt} for prompt in job.prompts()], working_dir=str(job.out))


def answers(out: Path) -> Iterator[Any]:
    for file in out.glob("*/*.arrow"):
        if not file.name.startswith("cache-"):
            yield from Dataset.from_file(str(file)).select_columns(list(Row.model_fields)).to_list()


if __name__ == "__main__":
    main(generate, answers)
