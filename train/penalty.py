"""Terms that are added to a trainer's loss and hold the model near what it was.

    trainer = with_penalties(SFTTrainer, [EwcPenalty(...), KlPenalty(...)])(model, args, ...)

A penalty sees each micro-batch after the trainer's own forward pass. They are in `ewc.py` and `distillation.py`, their settings
in `forgetting.py`; replay, which needs no penalty, is in `mixing.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from transformers import Trainer

from tracemill.errors import ConfigError

CELLS = 2**25  # logits that are computed at a time: 128 MiB in float32
CONTEXT = ("input_ids", "attention_mask", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")

Inputs = Mapping[str, Any]
T = TypeVar("T", bound=Trainer)


class Penalty(Protocol):
    """A term of the loss. `name` is where it is logged: `penalty/NAME`."""

    name: str

    def prepare(self, model: nn.Module) -> None:
        """Called once, with the model as it will be trained, before the first step."""

    def loss(self, model: nn.Module, inputs: Inputs, hidden: Tensor, number: int) -> Tensor:
        """The term for one micro-batch, a mean and not a sum; `hidden` is (batch, length, width): see `last_hidden`.

        `number` is that of the micro-batch in the training, the same if it was cut off and goes on.
        """


def with_penalties(trainer: type[T], penalties: Sequence[Penalty]) -> type[T]:
    """A subclass of TRL's `SFTTrainer` or `DPOTrainer` whose training loss has these terms; evaluation is left as it is.

    The logged `loss` contains the terms. One process or plain data parallel (DDP): ConfigError where weights are sharded.
    """
    if not penalties:
        return trainer

    class WithPenalties(trainer):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ConfigError(
                    "EWC and KL read whole weights, which FSDP and DeepSpeed cut into shards: train with plain data parallel, or replay."
                )
            with self.accelerator.autocast():
                for penalty in penalties:
                    penalty.prepare(self.model)
            self._step = self._within = -1

        def compute_loss(
            self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if not self.model.training:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            with last_hidden(self.model) as hidden:
                loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            # What the trainer divides by itself is not divided here: DPO's loss, and SFT's where it is not a sum over tokens.
            summed = num_items_in_batch is not None and self.loss_is_scaled_for_ga is not False
            steps = self.current_gradient_accumulation_steps if summed else 1
            number = self._number()
            for penalty in penalties:
                with self.accelerator.autocast():
                    term = penalty.loss(self.model, inputs, hidden[0], number)
                self._metrics["train"][f"penalty/{penalty.name}"].append(term.item())
                loss = loss + term / steps
            return loss

        def _number(self) -> int:
            """Of this micro-batch: checkpoints are written between steps, so counting within a step is enough."""
            self._within = self._within + 1 if self._step == self.state.global_step else 0
            self._step = self.state.global_step
            return self._step * self.args.gradient_accumulation_steps + self._within  # type: ignore[no-any-return]

    return WithPenalties


def rank() -> int:
    """Which of the processes that train together this is."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def causal(model: nn.Module) -> Any:
    """The transformers model inside of a PEFT model, or the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


@contextmanager
def last_hidden(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what the last layer puts out, (batch, length, width), in each forward pass that is differentiated.

    So a penalty shares the trainer's forward pass, which never makes the logits (and DPO's of its reference is left out).
    """
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            found.append(output.last_hidden_state)

    hook = causal(model).base_model.register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()


def hidden_states(model: nn.Module, inputs: Inputs, weights: Mapping[str, Tensor] | None = None) -> Tensor:
    """What the last layer puts out, (batch, length, width); with these weights of `base_model` in place of its own."""
    body = causal(model).base_model
    context = {name: inputs[name] for name in CONTEXT if name in inputs} | {"use_cache": False}
    states: Tensor = (functional_call(body, dict(weights), (), context) if weights else body(**context)).last_hidden_state
    return states


def check_head(model: nn.Module) -> None:
    """Raises ConfigError if the model does more to its last layer's output than project it (Gemma 2 caps, Granite scales)."""
    inner = causal(model)
    ids = torch.arange(1, 5, device=inner.device)[None]
    with torch.no_grad():
        ours, its = inner.get_output_embeddings()(hidden_states(model, {"input_ids": ids})), inner(input_ids=ids, use_cache=False).logits
    if (ours - its).abs().max() > 0.02 * its.abs().max():
        raise ConfigError(
            f"{type(inner).__name__} scales or caps its logits, which EWC and KL do not follow. Replay works with every model."
        )


def summed(function: Callable[..., Tensor], vocabulary: int, *rows: Tensor) -> Tensor:
    """The sum of `function` over slices of tensors of the same length, whose logits never exist all at once.

    What a slice needs for its gradient is computed again in the backward pass.
    """
    size = max(1, CELLS // vocabulary)
    parts = zip(*(torch.split(tensor, size) for tensor in rows), strict=True)
    total = rows[0].new_zeros((), dtype=torch.float32)
    for part in parts:
        term: Tensor = checkpoint(function, *part, use_reentrant=False)
        total = total + term
    return total
