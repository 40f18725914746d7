"""Elastic weight consolidation: what old data needs is held where it was, the rest is free to move.

The penalty of Kirkpatrick et al. 2017 (arXiv 1612.00796, equation 3), for the weights W* that the training starts from:

    strength / 2 * sum_i F_i (W_i - W*_i)^2

F is the diagonal of the Fisher information per token of old data, with next tokens y drawn from the model itself:

    F_i = 1 / tokens * sum over examples of (d/dW_i sum_t log p(y_t | x_<t))^2,    y_t ~ p(. | x_<t)

It is unbiased: the scores of drawn tokens have mean zero, so products of two positions vanish. With the labels of the data in
place of draws it would be the "empirical Fisher", which is something else (Kunstner et al. 2019, arXiv 1905.12558; van de Ven
2025, arXiv 2502.11756). Per token, because then strength 1 is, to second order and without the products of different weights,
the KL divergence from the old model on the old data in nats per token: the unit of the loss, and of `KlSettings.weight`.

With LoRA the trained matrices mean nothing by themselves: they change W, by scale * B @ A. So W* is the frozen weight with what the
adapter adds to it when training begins (nothing if it is fresh), F is that of W*, and the penalty is on scale * (B @ A - B* @ A*). It is
no larger than W, and F takes 4 bytes a weight that LoRA targets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from tracemill.errors import ConfigError, DatasetError
from tracemill.train.data import IGNORED, Example
from tracemill.train.forgetting import EwcSettings
from tracemill.train.penalty import Inputs, causal, check_head, hidden_states, rank, summed


@dataclass(frozen=True)
class Protected:
    """A weight by its name in the model without PEFT, and how far it is from where it was when training began (differentiable)."""

    name: str
    weight: nn.Parameter
    change: Callable[[], Tensor]


class EwcPenalty:
    """`examples` are the old data, encoded; the Fisher information is kept in the file `saved` and used again from there."""

    name = "ewc"

    def __init__(self, settings: EwcSettings, examples: Sequence[Example], saved: Path) -> None:
        self.strength = settings.strength
        self.examples = examples[: settings.examples]
        self.saved = saved

    def prepare(self, model: nn.Module) -> None:
        self.protected = protected(model)
        weights = {one.name: one.weight for one in self.protected}
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        about = {"of": _identity(weights | trained, self.examples), "is": "diagonal Fisher information per token, drawn labels"}
        self.fisher = _load(self.saved, about, weights)
        if not self.fisher:
            check_head(model)
            self.fisher = fisher(model, weights, self.examples)
            if rank() == 0:
                _save(self.saved, about, self.fisher)

    def loss(self, model: nn.Module, inputs: Inputs, hidden: Tensor, number: int = 0) -> Tensor:
        # Of each weight the change is made again in the backward pass: kept, all of them would be a copy of the model.
        with torch.autocast(hidden.device.type, enabled=False):
            terms = [checkpoint(_squared, one.change, self.fisher[one.name], use_reentrant=False) for one in self.protected]
        return self.strength / 2 * torch.stack(terms).sum()


def _squared(change: Callable[[], Tensor], importance: Tensor) -> Tensor:
    return (importance * change().float().square()).sum()


def protected(model: nn.Module) -> list[Protected]:
    """What the training can change: every trained weight, or with LoRA every weight that it targets.

    Raises ConfigError if the change of a weight that is trained cannot be told.
    """
    found = _targets(model) if isinstance(model, PeftModel) else _trained(model)
    problems = [f"{one.name}: {one.weight.dtype}" for one in found if not one.weight.is_floating_point()]
    if problems:
        raise ConfigError("EWC needs gradients of weights that are quantised: train without quantisation, or use KL or replay.", problems)
    return found


def _trained(model: nn.Module) -> list[Protected]:
    def one(name: str, weight: nn.Parameter) -> Protected:
        start = weight.detach().clone()
        return Protected(name, weight, lambda: weight - start)

    return [one(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _targets(model: PeftModel) -> list[Protected]:
    adapter = model.active_adapter
    layers: dict[str, Any] = {name: module for name, module in causal(model).named_modules() if isinstance(module, LoraLayer)}
    told = {id(weight) for layer in layers.values() for weight in layer.parameters()}
    problems = [name for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in told]
    problems += [f"{name}: a variant of LoRA (such as DoRA)" for name, layer in layers.items() if adapter in layer.lora_variant]
    problems += [f"{name}: more than one weight" for name, layer in layers.items() if not hasattr(layer.get_base_layer(), "weight")]
    if problems:
        raise ConfigError("With an adapter EWC covers weights that plain LoRA targets, and nothing else. Also trained are:", problems)
    return [_target(name, layer, adapter) for name, layer in layers.items() if adapter in layer.active_adapters]


def _target(name: str, layer: Any, adapter: str) -> Protected:
    added = _Added(layer, adapter)
    start = {name: weight.detach().clone() for name, weight in added.named_parameters() if weight.requires_grad}
    return Protected(f"{name}.weight", layer.get_base_layer().weight, lambda: added() - functional_call(added, start, ()))


class _Added(nn.Module):
    """What an adapter adds to the weight of a layer."""

    def __init__(self, layer: Any, adapter: str) -> None:
        super().__init__()
        self.layer, self.adapter = layer, adapter

    def forward(self) -> Tensor:
        added: Tensor = self.layer.get_delta_weight(self.adapter)
        return added


def fisher(model: nn.Module, weights: Mapping[str, nn.Parameter], examples: Sequence[Example], *, seed: int = 0) -> dict[str, Tensor]:
    """The diagonal Fisher information per token of each weight, float32: see above. Same seed, same draws."""
    total = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    tokens = 0
    with _at_rest(model, weights), torch.random.fork_rng():
        torch.manual_seed(seed)
        for example in examples:
            score, count = _score(model, example)
            if count:
                slopes = torch.autograd.grad(score, list(weights.values()), materialize_grads=True)
                for into, slope in zip(total.values(), slopes, strict=True):
                    into += slope.float().square()
            tokens += count
    if not tokens:
        raise DatasetError("The sample of old data has no token that is trained: EWC has nothing to hold on to.")
    return {name: value / tokens for name, value in total.items()}


@contextmanager
def _at_rest(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Without dropout, and with gradients of the given weights: of a frozen one that of what an adapter makes of it."""
    training, trained = model.training, {name: weight.requires_grad for name, weight in weights.items()}
    model.eval()
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        yield
    finally:
        model.train(training)
        for name, weight in weights.items():
            weight.requires_grad_(trained[name])


def _score(model: nn.Module, example: Example) -> tuple[Tensor, int]:
    """The log-probability of tokens drawn at the trained positions of an example, and how many those are."""
    inner = causal(model)
    ids, labels = (torch.tensor([one], device=inner.device) for one in (example.input_ids, example.labels))
    hidden = hidden_states(model, {"input_ids": ids})[:, :-1][labels[:, 1:] != IGNORED]
    head = inner.get_output_embeddings()

    def drawn(states: Tensor) -> Tensor:  # computed again in the backward pass, `checkpoint` draws the same
        chances: Tensor = head(states).float().log_softmax(-1)
        return torch.gather(chances, -1, torch.multinomial(chances.detach().exp(), 1)).sum()

    return summed(drawn, head.weight.shape[0], hidden), len(hidden)


def _identity(weights: Mapping[str, nn.Parameter], examples: Sequence[Example]) -> str:
    """A digest of what the Fisher information follows from: the examples, and a row of each weight."""
    digest = hashlib.sha256(repr([(one.input_ids, one.labels) for one in examples]).encode())
    for name, weight in sorted(weights.items()):
        digest.update(name.encode() + weight[0].detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _load(path: Path, about: dict[str, str], weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What was saved, or nothing if it is of something else."""
    if not path.exists():
        return {}
    with safe_open(path, "pt") as file:
        if file.metadata() != about:
            return {}
        return {name: file.get_tensor(name).to(weight.device) for name, weight in weights.items()}


def _save(path: Path, about: dict[str, str], values: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = path.with_name(f".{path.name}.tmp")
    save_file({name: value.cpu() for name, value in values.items()}, parts, about)
    parts.replace(path)
