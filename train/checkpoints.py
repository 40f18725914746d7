"""Which checkpoint a training goes on from: the last that is whole, as far as that can be told without loading it."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

STATE = "trainer_state.json"
SHARDED = any(os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED"))
"""These write files of their own, of which only the state is looked at."""


def found(out: Path) -> list[Path]:
    """The latest first."""
    numbered = [path for path in out.glob("checkpoint-*") if path.is_dir() and _step(path).isdigit()]
    return sorted(numbered, key=lambda path: int(_step(path)), reverse=True)


def damage(checkpoint: Path, processes: int) -> str:
    """What keeps a training from going on from it exactly as before; nothing if it is whole."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))  # written last
        if state["global_step"] != int(_step(checkpoint)):
            return f"{STATE} is of another step"
        if SHARDED:
            return ""
        weights = list(checkpoint.glob("*.safetensors"))
        for index in checkpoint.glob("*.safetensors.index.json"):
            weights += [checkpoint / name for name in set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())]
        for path in weights:
            with safe_open(path, "pt"):
                pass
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as reason:
        return " ".join(str(reason).split()) or type(reason).__name__
    rng = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    broken = [name for name in ("optimizer.pt", "scheduler.pt", *rng) if not zipfile.is_zipfile(checkpoint / name)]
    return f"{', '.join(broken)} cannot be read" if broken else "" if weights else "it has no weights"


def _step(checkpoint: Path) -> str:
    return checkpoint.name.removeprefix("checkpoint-")
