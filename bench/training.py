"""Training throughput: our SFT against a plain TRL script, on the same data and model, both packed.

    OMP_NUM_THREADS=1 python bench/training.py [--data OUT] [--model MODEL] [--steps 12]

Both train the same adapter on the same token ids and labels, in batches of the same rows, and by the same optimizer. The plain script
is what TRL's documentation shows: SFTConfig(packing=True) and its defaults. Time is that of the training loop alone, as
transformers reports it (train_runtime); they take turns, and the medians are compared.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from tracemill.train import data, model, run
from tracemill.train.settings import SftSettings
from tracemill.train.sft import sft

Result = tuple[float, float, float]
"""Tokens, seconds, last loss."""


def ours(settings: SftSettings) -> Result:
    shutil.rmtree(settings.out, ignore_errors=True)
    sft(settings)
    return _result(json.loads((settings.out / "training.json").read_text())["history"])


def plain(settings: SftSettings) -> Result:
    import torch
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    shutil.rmtree(settings.out, ignore_errors=True)
    tokenizer = model.load_tokenizer(settings)
    encoder = data.Encoder(tokenizer, max_length=settings.max_length)
    rows = data.sft_dataset(settings.data[0], encoder)
    on_gpu = torch.cuda.is_available()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.bfloat16 if on_gpu else torch.float32),
        args=SFTConfig(
            output_dir=str(settings.out),
            packing=True,
            max_length=settings.max_length,
            max_steps=settings.max_steps or -1,
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation,
            learning_rate=settings.rate,
            lr_scheduler_type="cosine",
            warmup_steps=run.schedule(settings, None)["warmup_steps"],
            seed=settings.seed,
            logging_steps=1,
            save_strategy="no",
            use_cpu=not on_gpu,
            bf16=on_gpu,
            gradient_checkpointing=on_gpu,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows.select_columns(["input_ids", "labels"]),
        processing_class=tokenizer,
        peft_config=model.lora(settings),
    )
    trainer.train()
    return _result(trainer.state.log_history)


def _result(history: list[dict[str, Any]]) -> Result:
    tokens, seconds = run.throughput(history)
    return tokens, seconds, [line["loss"] for line in history if "loss" in line][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="output folder of a run; one of 60 traces is made if not given")
    parser.add_argument("--model", help="folder or Hub name; a tiny one is built if not given")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4, help="rows of a batch")
    parser.add_argument("--length", type=int, default=4096, help="tokens of a row")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = given.data or _run(Path(folder) / "run")
        settings = SftSettings(
            data=(out,), model=given.model or str(_tiny(Path(folder) / "tiny", out)), out=Path(folder) / "out", max_steps=given.steps,
            batch_size=given.batch, gradient_accumulation=1, max_length=given.length, eval_share=0.0, save_steps=10 * given.steps,
        )  # fmt: skip
        found: dict[str, list[Result]] = {"ours": [], "plain": []}
        sides: dict[str, Callable[[SftSettings], Result]] = {"ours": ours, "plain": plain}
        for _ in range(given.rounds):
            for name, side in sides.items():
                found[name].append(side(settings))
                tokens, seconds, loss = found[name][-1]
                print(
                    f"{name:6}{tokens:>12,.0f} tokens{seconds:>9.1f} s{tokens / seconds:>12,.0f} tokens/s   last loss {loss:.4f}",
                    flush=True,
                )
    rates = {name: statistics.median(tokens / seconds for tokens, seconds, _ in results) for name, results in found.items()}
    print(f"ratio of the medians, ours to plain: {rates['ours'] / rates['plain']:.2f}")


def _run(out: Path) -> Path:
    command = [
        str(Path(sys.executable).with_name("tracemill")),
        "generate",
        "--out",
        str(out),
        "--accept",
        "60",
        "--seed",
        "7",
        "--actors",
        "1",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def _tiny(folder: Path, out: Path) -> Path:
    import pyarrow.parquet as pq
    from tiny import build_tiny_model

    rows = [row for path in out.glob("data/*/*.parquet") for row in pq.read_table(path, partitioning=None).to_pylist()]
    return build_tiny_model(folder, texts=[text for row in rows for text in row["messages"] + row["tools"]])


if __name__ == "__main__":
    main()
