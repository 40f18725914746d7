"""datatrove: `InferenceRunner` on a running endpoint, rows to Parquet.

On a plain-HTTP loopback address its own socket client takes the place of the `openai` client, which is its fast way.
It does not hold a reply to a schema: the rollout parses it. No checkpoints, which would write each row twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.writers import ParquetWriter
from peer_task import MODEL, SCHEMA, Job, main

RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "row", "schema": SCHEMA, "strict": True}}


async def rollout(document: Document, generate: Any) -> str:
    result = await generate({"messages": [{"role": "user", "content": document.text}], "response_format": RESPONSE_FORMAT})
    row = json.loads(result.text)
    return json.dumps({"question": str(row["question"]), "answer": str(row["answer"]), "score": int(row["score"])})


def generate(job: Job) -> None:
    config = InferenceConfig(
        server_type="endpoint",
        endpoint_url=job.url.removesuffix("/v1"),
        model_name_or_path=MODEL,
        max_concurrent_generations=job.concurrency,
        default_generation_params={"temperature": 1.0, "max_tokens": 256},
    )
    documents = [Document(text=prompt, id=str(row)) for row, prompt in enumerate(job.prompts())]
    runner = InferenceRunner(rollout, config, output_writer=ParquetWriter(str(job.out / "data")))
    LocalPipelineExecutor([documents, runner], logging_dir=str(job.out / "logs"), tasks=1).run()


def answers(out: Path) -> Iterator[Any]:
    for file in out.glob("data/*.parquet"):
        for metadata in pq.read_table(file)["metadata"].to_pylist():
            yield json.loads(metadata["rollout_results"][0])


if __name__ == "__main__":
    main(generate, answers)
