"""Distillation from the model as it was: its predictions are part of what is learned.

    weight * temperature^2 * mean over positions of KL(p_old || p_new),    both softened by the temperature

As in learning without forgetting (Li & Hoiem 2016, arXiv 1606.09282) with the softening of Hinton et al. 2015 (arXiv
1503.02531, whose square of the temperature keeps gradients in scale). The direction is that of distillation: where the old
model gives probability, the new one has to as well. How far the new model is from the old in just this divergence, on
the new task, is what forgetting has been found to follow (Shenfeld et al. 2025, arXiv 2509.04259).

All positions count but padding, also those out of the loss: there the term has nothing to quarrel with. It is computed on
the batch at hand, or, with a sample of old data, on batches of that.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tracemill.train.data import Example
from tracemill.train.forgetting import KlSettings
from tracemill.train.penalty import Inputs, causal, check_head, hidden_states, rank, summed


class KlPenalty:
    """The old model is the same with its adapters off; in a full fine-tuning, a frozen copy that takes its memory again.

    `old` is the sample of old data, encoded: as many of its examples as the batch has rows go with each batch, in an order that
    follows from the seed.
    """

    name = "kl"

    def __init__(self, settings: KlSettings, old: Sequence[Example] = (), *, seed: int = 0) -> None:
        self.settings = settings
        self.old = _shuffled(old, seed) if old else None

    def prepare(self, model: nn.Module) -> None:
        check_head(model)
        self.teacher: nn.Module = model if isinstance(model, PeftModel) else copy.deepcopy(model).eval().requires_grad_(False)
        head = causal(self.teacher).get_output_embeddings()
        base = head.get_base_layer() if isinstance(head, BaseTunerLayer) else head
        self.teacher_head: nn.Module = getattr(base, "original_module", base)

    def loss(self, model: nn.Module, inputs: Inputs, hidden: Tensor) -> Tensor:
        if self.old is not None:
            inputs = _batch([next(self.old) for _ in inputs["input_ids"]], hidden.device)
            hidden = hidden_states(model, inputs)
        with torch.no_grad(), self.teacher.disable_adapter() if isinstance(self.teacher, PeftModel) else nullcontext():
            wanted = hidden_states(self.teacher, inputs)
        real = inputs.get("attention_mask", torch.ones(hidden.shape[:2], device=hidden.device)).bool()
        head = causal(model).get_output_embeddings()
        total = summed(lambda new, old: self._divergence(head(new), old), head.weight.shape[0], hidden[real], wanted[real])
        mean: Tensor = total / real.sum()
        return self.settings.weight * mean

    def _divergence(self, new: Tensor, old: Tensor) -> Tensor:
        """Summed over positions, from logits of the new model and the last layer's output of the old, both (positions, ...)."""
        with torch.no_grad():
            aim = (self.teacher_head(old).float() / self.settings.temperature).log_softmax(-1)
        ours = (new.float() / self.settings.temperature).log_softmax(-1)
        return nn.functional.kl_div(ours, aim, reduction="sum", log_target=True) * self.settings.temperature**2


def _shuffled(examples: Sequence[Example], seed: int) -> Iterator[Example]:
    """Without end, each time in another order; processes that train together get different ones."""
    order = random.Random(f"{seed} {rank()}")
    while True:
        yield from order.sample(examples, len(examples))


def _batch(examples: Sequence[Example], device: torch.device) -> dict[str, Any]:
    rows = [torch.tensor(one.input_ids, device=device) for one in examples]
    return {
        "input_ids": pad_sequence(rows, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
    }
