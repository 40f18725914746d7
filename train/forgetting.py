"""Not forgetting: what can be set, and the penalties made of it. docs/not-forgetting.md compares the ways."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from tracemill.train.data import Encoder
from tracemill.train.mixing import old_examples

if TYPE_CHECKING:
    from tracemill.train.penalty import Penalty

FISHER = "fisher.safetensors"
SAMPLE = 1000  # examples of old data that the old model's predictions are compared on


class EwcSettings(BaseModel):
    """How strongly weights are held, and the data that says which: see `ewc.py`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample: str = Field(description="The old data: a Hub dataset or a local one, as for a mix.")
    strength: float = Field(default=100.0, gt=0, description="1 would be the KL divergence on old data, if weights moved one by one.")
    examples: int = Field(default=200, ge=1, description="How many examples of the sample the Fisher information is computed on.")


class KlSettings(BaseModel):
    """How strongly the old predictions are held, and on which data: see `distillation.py`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(default=1.0, gt=0, description="Of the divergence in nats a position, beside a loss in nats a token.")
    temperature: float = Field(default=1.0, gt=0, description="Above 1, unlikely tokens count for more.")
    sample: str | None = Field(default=None, description="Old data, as for a mix; without it the batch at hand is used.")


def penalties(ewc: EwcSettings | None, kl: KlSettings | None, encoder: Encoder, out: Path, *, seed: int = 0) -> list[Penalty]:
    """What is asked for, for `with_penalties`; the Fisher information is kept in `out`. Raises ConfigError, DatasetError."""
    from tracemill.train.distillation import KlPenalty
    from tracemill.train.ewc import EwcPenalty

    found: list[Penalty] = []
    if ewc:
        found.append(EwcPenalty(ewc, old_examples(ewc.sample, encoder, ewc.examples, seed=seed), out / FISHER))
    if kl:
        found.append(KlPenalty(kl, old_examples(kl.sample, encoder, SAMPLE, seed=seed) if kl.sample else (), seed=seed))
    return found
