"""Distillation from the model as it was when training began: its predictions are part of what is learned.

    weight * temperature^2 * mean over positions of KL(p_old || p_new),    both softened by the temperature

As in learning without forgetting (Li & Hoiem 2016, arXiv 1606.09282) with the softening of Hinton et al. 2015 (arXiv
1503.02531, whose square of the temperature keeps gradients in scale). The direction is that of distillation: where the old
model gives probability, the new one has to as well. How far the new model is from the old in just this divergence, on
the new task, is what forgetting has been found to follow (Shenfeld et al. 2025, arXiv 2509.04259).

All positions count but padding, also those out of the loss: there the term has nothing to quarrel with. It is computed on
the batch at hand, or, with a sample of old data, on batches of that.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from tracemill.train.data import Example
from tracemill.train.forgetting import KlSettings
from tracemill.train.penalty import Inputs, causal, check_head, hidden_states, rank, summed


class KlPenalty:
    """The old model is the same with its trained weights as they were when training began: of an adapter that is trained on,
    with that adapter. So what is kept of it is a frozen copy of what is trained: little with LoRA, the whole model without.

    `old` is the sample of old data, encoded: as many of its examples as the batch has rows go with each batch, in an order that
    follows from the seed.
    """

    name = "kl"

    def __init__(self, settings: KlSettings, old: Sequence[Example] = (), *, seed: int = 0) -> None:
        self.settings = settings
        self.old = old
        self.seed = seed

    def prepare(self, model: nn.Module) -> None:
        check_head(model)
        start = {id(weight): weight.detach().clone() for weight in model.parameters() if weight.requires_grad}

        def began(part: nn.Module) -> dict[str, Tensor]:
            return {name: start[id(weight)] for name, weight in part.named_parameters() if id(weight) in start}

        inner = causal(model)
        self.body, self.head = began(inner.base_model), began(inner.get_output_embeddings())

    def loss(self, model: nn.Module, inputs: Inputs, hidden: Tensor, number: int = 0) -> Tensor:
        if self.old:
            inputs = _batch(self._drawn(len(inputs["input_ids"]), number), hidden.device)
            hidden = hidden_states(model, inputs)
        with torch.no_grad(), _at_rest(model):
            wanted = hidden_states(model, inputs, self.body)
        real = inputs.get("attention_mask", torch.ones(hidden.shape[:2], device=hidden.device)).bool()
        head = causal(model).get_output_embeddings()
        total = summed(partial(self._divergence, head), head.weight.shape[0], hidden[real], wanted[real])
        mean: Tensor = total / real.sum()
        return self.settings.weight * mean

    def _divergence(self, head: nn.Module, new: Tensor, old: Tensor) -> Tensor:
        """Summed over positions, from the last layer's outputs of the new model and the old, both (positions, width)."""
        with torch.no_grad(), _at_rest(head):
            aim = (functional_call(head, self.head, (old,)).float() / self.settings.temperature).log_softmax(-1)
        ours = (head(new).float() / self.settings.temperature).log_softmax(-1)
        return nn.functional.kl_div(ours, aim, reduction="sum", log_target=True) * self.settings.temperature**2

    def _drawn(self, count: int, number: int) -> list[Example]:
        """Of a batch: all examples in turn, each time in another order; processes that train together get different ones.

        It follows from the number of the batch, so that a training that goes on draws what it would have drawn.
        """
        places = range(count * number, count * (number + 1))
        orders = {turn: self._order(turn) for turn in {place // len(self.old) for place in places}}
        return [orders[place // len(self.old)][place % len(self.old)] for place in places]

    def _order(self, turn: int) -> list[Example]:
        return random.Random(f"{self.seed} {rank()} {turn}").sample(self.old, len(self.old))


@contextmanager
def _at_rest(model: nn.Module) -> Iterator[None]:
    """Without dropout."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _batch(examples: Sequence[Example], device: torch.device) -> dict[str, Any]:
    rows = [torch.tensor(one.input_ids, device=device) for one in examples]
    return {
        "input_ids": pad_sequence(rows, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
    }
