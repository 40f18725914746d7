"""NeMo Data Designer: one structured column over seed prompts, rows to Parquet.

Its docs name `max_parallel_requests` and `buffer_size` for throughput. Rows count as written with the last batch;
`create` then goes on to profile the dataset.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import data_designer.config as dd
import pandas as pd
import pyarrow.parquet as pq
from data_designer.interface import DataDesigner
from peer_task import MODEL, SCHEMA, Job, main


def generate(job: Job) -> float:
    model = dd.ModelConfig(
        alias="quiz",
        model=MODEL,
        provider="loopback",
        skip_health_check=True,
        inference_parameters=dd.ChatCompletionInferenceParams(temperature=1.0, max_tokens=256, max_parallel_requests=job.concurrency),
    )
    config = dd.DataDesignerConfigBuilder(model_configs=[model])
    config.with_seed_dataset(dd.DataFrameSeedSource(df=pd.DataFrame({"prompt": job.prompts()})))
    config.add_column(dd.LLMStructuredColumnConfig(name="row", prompt="{{ prompt }}", model_alias="quiz", output_format=SCHEMA))
    job.out.mkdir(parents=True, exist_ok=True)
    designer = DataDesigner(artifact_path=job.out, model_providers=[dd.ModelProvider(name="loopback", endpoint=job.url, api_key="none")])
    designer.set_run_config(
        dd.RunConfig(buffer_size=max(1000, job.rows), jinja_rendering_engine=dd.JinjaRenderingEngine.NATIVE, otel_metrics_port=None)
    )
    written: list[float] = []
    designer.create(config, num_records=job.rows, on_batch_complete=lambda _: written.append(time.monotonic()))
    return written[-1]


def answers(out: Path) -> Iterator[Any]:
    for file in out.glob("dataset/parquet-files/*.parquet"):
        yield from pq.read_table(file)["row"].to_pylist()


if __name__ == "__main__":
    main(generate, answers)
