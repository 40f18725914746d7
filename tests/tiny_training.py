"""What the tests of training share: a small run of the example environment, and a tiny model whose tokenizer knows its words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from conftest import mill
from safetensors.torch import load_file
from tiny import build_tiny_model

torch.set_num_threads(1)  # two threads beside a busy neighbour are slower than one
EXAMPLES = Path(__file__).parent.parent / "examples"


def small_run(out: Path, *, traces: int = 12) -> Path:
    """Short conversations (some 650 to 1,100 tokens of the tiny tokenizer) and preference pairs."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return mill(out, accept={"tool_call": traces}, environments=["pantry:Pantry"], flaws=1.0, seed=3)
    finally:
        sys.path.remove(str(EXAMPLES))


def small_model(folder: Path, run: Path) -> Path:
    rows = [row for path in run.glob("data/*/*.parquet") for row in pq.read_table(path, partitioning=None).to_pylist()]
    return build_tiny_model(folder, texts=[text for row in rows for text in row["messages"] + row["tools"]], hidden=32, max_position=2048)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of an adapter or a whole model."""
    (path,) = folder.glob("*.safetensors")
    return load_file(path)


def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], **tolerance: float) -> bool:
    assert one.keys() == other.keys()
    return all(torch.allclose(one[name], other[name], **tolerance) for name in one)


def history(out: Path, name: str) -> list[float]:
    """The values that a training noted of one measure."""
    return [line[name] for line in json.loads((out / "training.json").read_text())["history"] if name in line]


SMALL: dict[str, Any] = {
    "max_length": 2048,
    "batch_size": 1,
    "gradient_accumulation": 1,
    "learning_rate": 1e-2,
    "epochs": 1,
    "eval_share": 0.1,
}
