"""What EWC and the KL term do to a model, on real trainers and tiny models."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import build_tiny_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from tracemill.errors import ConfigError, DatasetError
from tracemill.train import penalty
from tracemill.train.data import Example
from tracemill.train.distillation import KlPenalty
from tracemill.train.ewc import EwcPenalty, fisher, protected
from tracemill.train.forgetting import EwcSettings, KlSettings
from tracemill.train.penalty import Penalty, hidden_states, with_penalties


def lora() -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"), hidden=32, max_position=64)


@pytest.fixture
def model(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture
def adapted(model: PreTrainedModel) -> PeftModel:
    """With an adapter that has moved."""
    torch.manual_seed(0)
    with_adapter = get_peft_model(model, lora())
    for name, weight in with_adapter.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1)
    return with_adapter


def examples(count: int, seed: int = 0, length: int = 12) -> list[Example]:
    draw = random.Random(seed)
    rows = [[draw.randrange(300, 900) for _ in range(length)] for _ in range(count)]
    return [Example(row, [-100] * 4 + row[4:], f"t{at}") for at, row in enumerate(rows)]


def rows(count: int = 4) -> Dataset:
    return Dataset.from_list([{"input_ids": one.input_ids, "labels": one.labels} for one in examples(count, seed=1)])


def pairs(count: int = 4) -> Dataset:
    return Dataset.from_list(
        [
            {"prompt_ids": one.input_ids[:4], "chosen_ids": one.input_ids[4:8], "rejected_ids": one.input_ids[8:]}
            for one in examples(count, seed=1)
        ]
    )


def arguments(cls: Any, out: Path, **more: Any) -> Any:
    given = {
        "output_dir": str(out), "report_to": "none", "save_strategy": "no", "use_cpu": True, "bf16": False, "optim": "sgd", "max_grad_norm": 0.0,
        "learning_rate": 0.1, "lr_scheduler_type": "constant", "gradient_checkpointing": False, "disable_tqdm": True, "logging_steps": 1,
        "max_steps": 1, "per_device_train_batch_size": 4, "dataloader_pin_memory": False, "max_length": None, "seed": 3,
    }  # fmt: skip
    return cls(**(given | more))


def sft(model: Any, out: Path, penalties: Sequence[Penalty], **more: Any) -> Any:
    own = {"dataset_kwargs": {"skip_prepare_dataset": True}}
    peft = None if isinstance(model, PeftModel) else more.pop("peft_config", None)
    return with_penalties(SFTTrainer, penalties)(
        model=model, args=arguments(SFTConfig, out, **own, **more), train_dataset=rows(), processing_class=tokenizer(out), peft_config=peft
    )


class FromIds(DPOTrainer):  # type: ignore[misc]
    """Takes token ids as they are."""

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset


def dpo(model: Any, out: Path, penalties: Sequence[Penalty], **more: Any) -> Any:
    reference = {"precompute_ref_log_probs": True} if not isinstance(model, PeftModel) else {}
    return with_penalties(FromIds, penalties)(
        model=model, args=arguments(DPOConfig, out, **reference, **more), train_dataset=pairs(), processing_class=tokenizer(out)
    )


def tokenizer(out: Path) -> Any:
    return AutoTokenizer.from_pretrained(build_tiny_model(out / "tokenizer", hidden=32))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def ewc(tmp_path: Path, strength: float = 1.0, count: int = 6) -> EwcPenalty:
    return EwcPenalty(EwcSettings(sample="old", strength=strength), examples(count), tmp_path / "fisher.safetensors")


class Given:
    """A penalty that is a function of the model."""

    name = "given"

    def __init__(self, term: Any) -> None:
        self.term = term

    def prepare(self, model: nn.Module) -> None: ...

    def loss(self, model: nn.Module, inputs: Any, hidden: Tensor, number: int) -> Tensor:
        return self.term(model)


# --- the seam -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [sft, dpo])
def test_a_penalty_weighs_the_same_however_the_batch_is_cut(train: Any, folder: Path, tmp_path: Path) -> None:
    def moved(batch: int, accumulation: int) -> dict[str, Tensor]:
        model = AutoModelForCausalLM.from_pretrained(folder)
        start = snapshot(model)
        strong = Given(lambda m: 50 * sum(weight.square().mean() for weight in m.parameters()))
        trainer = train(model, tmp_path, [strong], per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
        trainer.train()
        return {name: weight - start[name] for name, weight in snapshot(model).items()}

    whole, halves, quarters = moved(4, 1), moved(2, 2), moved(1, 4)
    for name, change in whole.items():
        torch.testing.assert_close(halves[name], change, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(quarters[name], change, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("train", [sft, dpo])
def test_penalties_are_logged_and_left_out_of_evaluation(train: Any, adapted: PeftModel, tmp_path: Path) -> None:
    trainer = train(adapted, tmp_path, [Given(lambda m: next(m.parameters()).sum() * 0 + 1000.0)])
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["penalty/given"] == pytest.approx(1000)
    assert logged["loss"] > 1000
    assert trainer.evaluate(rows() if train is sft else pairs())["eval_loss"] < 100


def test_without_penalties_the_trainer_is_the_one_that_came() -> None:
    assert with_penalties(SFTTrainer, []) is SFTTrainer


@pytest.mark.parametrize("train", [sft, dpo])
def test_a_penalty_is_handed_the_last_layer_of_the_trained_model(train: Any, adapted: PeftModel, tmp_path: Path) -> None:
    seen = []

    class Watch(Given):
        def loss(self, model: nn.Module, inputs: Any, hidden: Tensor, number: int) -> Tensor:
            torch.testing.assert_close(hidden, hidden_states(model, inputs))
            seen.append(hidden.requires_grad)
            return hidden.sum() * 0

    train(adapted, tmp_path, [Watch(None)]).train()
    assert seen == [True]


def test_a_model_that_caps_its_logits_is_refused(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = model.forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        cap = output.logits.abs().max()
        output.logits = cap * torch.tanh(output.logits / cap)
        return output

    penalty.check_head(model)
    monkeypatch.setattr(model, "forward", capped)
    with pytest.raises(ConfigError, match="caps its logits"):
        penalty.check_head(model)


def test_slices_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(10, 3, requires_grad=True)
    monkeypatch.setattr(penalty, "CELLS", 12)  # four rows of a vocabulary of three
    total = penalty.summed(lambda part: part.square().sum(), 3, rows)
    (slope,) = torch.autograd.grad(total, rows)
    torch.testing.assert_close(total, rows.square().sum())
    torch.testing.assert_close(slope, 2 * rows)


# --- elastic weight consolidation ---------------------------------------------------------------------------


class Linear(nn.Module):
    """p(next | token) = softmax(W @ x(token)): small enough for a Fisher information by hand."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.tensor([[1.0, 0.0], [0.5, -1.0], [2.0, 1.0]]))
        self.head = nn.Linear(2, 3, bias=False)
        self.head.weight = nn.Parameter(torch.tensor([[0.2, 0.4], [-0.3, 0.1], [0.5, -0.2]]))

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def base_model(self, input_ids: Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(last_hidden_state=self.embedding(input_ids))


def test_the_fisher_information_is_that_of_a_calculation_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """For logits W @ x the square of d log p(y) / dW_kj is ((y is k) - p_k)^2 x_j^2; over all y that makes p_k (1 - p_k) x_j^2."""
    model = Linear()
    x = model.embedding.weight[2]
    p = (model.head.weight.detach() @ x).softmax(0)
    whole = torch.zeros(3, 2)
    for y in range(3):
        monkeypatch.setattr(torch, "multinomial", lambda chances, _, y=y: torch.full((len(chances), 1), y))
        found = fisher(model, {"head.weight": model.head.weight}, [Example([0, 2, 1], [-100, -100, 1], "t")] * 2)["head.weight"]
        torch.testing.assert_close(found, (torch.eye(3)[y] - p).square()[:, None] * x.square())
        whole += p[y] * found
    torch.testing.assert_close(whole, (p * (1 - p))[:, None] * x.square())


def test_the_fisher_information_takes_no_notice_of_the_labels_of_the_data_and_follows_its_seed() -> None:
    model = Linear()
    weights = {"head.weight": model.head.weight}
    one, other = (fisher(model, weights, [Example([1, last], [-100, last], "t")])["head.weight"] for last in (0, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, fisher(model, weights, [Example([1, 0], [-100, 0], "t")] * 3, seed=5)["head.weight"])


def test_a_sample_without_trained_tokens_is_refused() -> None:
    model = Linear()
    with pytest.raises(DatasetError, match="no token that is trained"):
        fisher(model, {"head.weight": model.head.weight}, [Example([1, 0], [-100, -100], "t")])


def test_computing_the_fisher_information_leaves_no_trace_on_the_model(adapted: PeftModel) -> None:
    before, flags = snapshot(adapted), {name: weight.requires_grad for name, weight in adapted.named_parameters()}
    state = torch.get_rng_state()
    adapted.train()
    fisher(adapted, {one.name: one.weight for one in protected(adapted)}, examples(2))
    assert adapted.training
    assert torch.equal(state, torch.get_rng_state())
    for name, weight in adapted.named_parameters():
        assert torch.equal(weight, before[name])
        assert weight.requires_grad == flags[name]
        assert weight.grad is None


def test_the_gradient_of_ewc_is_the_formula(model: PreTrainedModel, tmp_path: Path) -> None:
    term = ewc(tmp_path, strength=3.0)
    term.prepare(model)
    start = snapshot(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01 * torch.randn_like(weight)
    loss = term.loss(model, {}, torch.zeros(1))
    loss.backward()
    expected = sum((term.fisher[name] * (weight - start[name]).square()).sum() for name, weight in model.named_parameters())
    torch.testing.assert_close(loss, 1.5 * expected)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, 3.0 * term.fisher[name] * (weight - start[name]).detach())


@pytest.mark.parametrize("fresh", [True, False])
def test_with_lora_the_change_that_the_adapter_makes_from_the_start_is_what_counts(
    fresh: bool, model: PreTrainedModel, adapted: PeftModel, folder: Path, tmp_path: Path
) -> None:
    """From the base under a fresh adapter; of one that is trained on, from the base with it, of which the Fisher information is too."""
    if fresh:
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), lora())
    began = copy.deepcopy(adapted).merge_and_unload()
    layers = {f"{name}.weight": layer for name, layer in adapted.get_base_model().named_modules() if hasattr(layer, "lora_A")}
    of_start = fisher(began, {name: began.get_parameter(name) for name in layers}, examples(6))
    term = ewc(tmp_path, strength=3.0)
    term.prepare(adapted)
    assert term.loss(adapted, {}, torch.zeros(1)).item() == 0
    move(adapted)
    term.loss(adapted, {}, torch.zeros(1)).backward()
    now = copy.deepcopy(adapted).merge_and_unload()
    assert set(layers) == set(term.fisher) and len(layers) == 14
    for name, layer in layers.items():
        torch.testing.assert_close(term.fisher[name], of_start[name], rtol=1e-3, atol=1e-7)
        a, b, scale = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.scaling["default"]
        slope = 3.0 * term.fisher[name] * (now.get_parameter(name) - began.get_parameter(name)).detach()
        torch.testing.assert_close(b.grad, scale * slope @ a.detach().T, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(a.grad, scale * b.detach().T @ slope, rtol=1e-3, atol=1e-7)


def test_ewc_is_about_the_divergence_from_the_old_model_on_old_data(model: PreTrainedModel, tmp_path: Path) -> None:
    """One weight alone is moved, so that the diagonal is all there is: then the penalty is the KL divergence to second order."""
    old = examples(150, length=8)
    term = EwcPenalty(EwcSettings(sample="old", strength=1.0, examples=150), old, tmp_path / "fisher.safetensors")
    term.prepare(model)
    ids, trained = torch.tensor([one.input_ids for one in old]), torch.tensor([one.labels for one in old])[:, 1:] != -100
    before = model(input_ids=ids).logits[:, :-1][trained].log_softmax(-1).detach()
    with torch.no_grad():
        model.model.norm.weight[0] += 0.05
        after = model(input_ids=ids).logits[:, :-1][trained].log_softmax(-1)
    divergence = (before.exp() * (before - after)).sum(-1).mean()
    torch.testing.assert_close(term.loss(model, {}, torch.zeros(1)), divergence, rtol=0.3, atol=0.0)


@pytest.mark.parametrize(("train", "adapter"), [(sft, False), (dpo, True)])
def test_what_matters_to_old_data_stays_and_the_rest_moves(train: Any, adapter: bool, model: PreTrainedModel, tmp_path: Path) -> None:
    """The Fisher information of old data is put to 0 for one matrix, which then learns as freely as without EWC."""
    free = "model.layers.1.mlp.down_proj.weight"

    class Mostly(EwcPenalty):
        def prepare(self, model: nn.Module) -> None:
            super().prepare(model)
            self.fisher = {name: torch.full_like(value, float(name != free)) for name, value in self.fisher.items()}

    def moved(penalties: Sequence[Penalty], **more: Any) -> dict[str, float]:
        fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        trained = get_peft_model(fresh, lora()) if adapter else fresh
        trainer = train(trained, tmp_path, penalties, max_steps=6, optim="adamw_torch", learning_rate=1e-3, **more)
        names = [one.name for one in protected(trainer.model)]
        plain = model.state_dict()
        trainer.train()
        merged = trainer.model.merge_and_unload() if adapter else trainer.model
        return {name: float((merged.get_parameter(name).detach() - plain[name]).norm()) for name in names}

    model.save_pretrained(tmp_path / "model")
    held = moved([Mostly(EwcSettings(sample="old", strength=1e6), examples(4), tmp_path / "fisher.safetensors")])
    loose = moved([])
    assert held[free] > 0.5 * loose[free]
    for name in set(held) - {free}:
        assert held[name] < 0.5 * loose[name], name


def test_the_fisher_information_is_computed_once(model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    term = ewc(tmp_path)
    term.prepare(model)
    monkeypatch.setattr("tracemill.train.ewc.fisher", lambda *_: pytest.fail("computed again"))
    again = ewc(tmp_path)
    again.prepare(model)
    assert all(torch.equal(value, again.fisher[name]) for name, value in term.fisher.items())


def test_a_fisher_information_of_other_data_or_weights_is_not_used(model: PreTrainedModel, tmp_path: Path) -> None:
    ewc(tmp_path).prepare(model)
    other = ewc(tmp_path, count=3)
    other.prepare(model)
    assert torch.equal(other.fisher["model.norm.weight"], fisher(model, dict(model.named_parameters()), examples(3))["model.norm.weight"])
    with torch.no_grad():
        model.model.norm.weight *= 2
    changed = ewc(tmp_path, count=3)
    changed.prepare(model)
    assert not torch.equal(changed.fisher["model.norm.weight"], other.fisher["model.norm.weight"])


def test_a_fisher_information_of_another_adapter_is_not_used(adapted: PeftModel, tmp_path: Path) -> None:
    one, other = ewc(tmp_path), ewc(tmp_path)
    one.prepare(adapted)
    move(adapted)
    other.prepare(adapted)
    assert not torch.equal(*(term.fisher["model.layers.0.self_attn.q_proj.weight"] for term in (one, other)))


def test_what_ewc_cannot_protect_is_refused(model: PreTrainedModel) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["norm"], use_dora=True)
    with pytest.raises(ConfigError) as caught:
        protected(get_peft_model(model, config))
    assert any("norm" in problem for problem in caught.value.problems)
    assert any("DoRA" in problem for problem in caught.value.problems)


# --- distillation -------------------------------------------------------------------------------------------


def batch() -> dict[str, Tensor]:
    ids = torch.tensor([one.input_ids for one in examples(2, seed=4)])
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def divergence(new: Tensor, old: Tensor, mask: Tensor, temperature: float) -> Tensor:
    old, new = (old / temperature).log_softmax(-1), (new / temperature).log_softmax(-1)
    return temperature**2 * ((old.exp() * (old - new)).sum(-1) * mask).sum() / mask.sum()


def move(model: nn.Module) -> None:
    """As training does."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.05 * torch.randn_like(weight)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_divergence_from_the_adapter_that_training_began_with_is_the_formula(model: PreTrainedModel, temperature: float) -> None:
    """Not from the base, which would take back what the adapter had learnt; and what the old model says is without dropout."""
    inputs = batch()
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.3))
    move(adapted.eval())
    with torch.no_grad():
        before = adapted(**inputs).logits
    term = KlPenalty(KlSettings(weight=3.0, temperature=temperature))
    term.prepare(adapted)
    move(adapted)
    with torch.no_grad():
        expected = divergence(adapted(**inputs).logits, before, inputs["attention_mask"], temperature)
    hidden = hidden_states(adapted, inputs)
    adapted.train()
    found = term.loss(adapted, inputs, hidden)
    assert all(module.training for module in adapted.modules())
    assert expected > 1e-3
    torch.testing.assert_close(found, 3.0 * expected, rtol=1e-4, atol=1e-6)


def test_the_divergence_is_zero_at_the_start_and_its_gradient_leads_back(model: PreTrainedModel) -> None:
    inputs = batch()
    term = KlPenalty(KlSettings())
    term.prepare(model)
    start = snapshot(model)
    assert term.loss(model, inputs, hidden_states(model, inputs)).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.02 * torch.randn_like(weight)
    away = term.loss(model, inputs, hidden_states(model, inputs))
    away.backward()
    back = sum((weight.grad * (weight - start[name])).sum().item() for name, weight in model.named_parameters())
    assert back > 0  # down the gradient is towards where the model was
    with torch.no_grad():
        for weight in model.parameters():
            weight -= 0.01 * weight.grad
    assert 0 < term.loss(model, inputs, hidden_states(model, inputs)) < away
    assert not any(weight.requires_grad for weight in [*term.body.values(), *term.head.values()])


def test_the_model_under_a_fresh_adapter_is_the_old_one(model: PreTrainedModel, folder: Path) -> None:
    inputs, base, fresh = batch(), AutoModelForCausalLM.from_pretrained(folder), get_peft_model(model, lora())
    term = KlPenalty(KlSettings())
    term.prepare(fresh)
    move(fresh)
    with torch.no_grad():
        expected = divergence(fresh(**inputs).logits, base(**inputs).logits, inputs["attention_mask"], 1.0)
    torch.testing.assert_close(term.loss(fresh, inputs, hidden_states(fresh, inputs)), expected, rtol=1e-4, atol=1e-6)
    assert sum(weight.numel() for weight in term.body.values()) < 0.5 * base.num_parameters()  # what is trained is kept, and no more


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_an_adapter_on_the_head_is_in_the_old_model_as_it_was(model: PreTrainedModel) -> None:
    head = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"]))
    nn.init.normal_(head.get_base_model().lm_head.lora_B["default"].weight)
    inputs = batch()
    with torch.no_grad():
        before = head(**inputs).logits
    term = KlPenalty(KlSettings())
    term.prepare(head)
    move(head)
    with torch.no_grad():
        expected = divergence(head(**inputs).logits, before, inputs["attention_mask"], 1.0)
    torch.testing.assert_close(term.loss(head, inputs, hidden_states(head, inputs)), expected, rtol=1e-4, atol=1e-6)
    assert expected > 1e-3


def test_the_divergence_is_taken_on_old_data_where_there_is_some(adapted: PeftModel) -> None:
    old = [Example(one.input_ids[: 5 + at], one.labels[: 5 + at], one.trace) for at, one in enumerate(examples(3, seed=9))]
    term = KlPenalty(KlSettings(sample="old"), old[:1] * 3)
    term.prepare(adapted)
    here = KlPenalty(KlSettings())
    here.prepare(adapted)
    mixed = KlPenalty(KlSettings(sample="old"), old, seed=1)
    mixed.prepare(adapted)
    move(adapted)
    own = {"input_ids": torch.tensor([old[0].input_ids])}
    expected = here.loss(adapted, own, hidden_states(adapted, own))
    torch.testing.assert_close(term.loss(adapted, batch(), hidden_states(adapted, batch())), expected)
    assert mixed.loss(adapted, {"input_ids": torch.zeros(3, 1)}, torch.zeros(1)) > 0  # rows of several lengths


def test_batches_go_through_the_old_data_in_turn_and_follow_from_their_number() -> None:
    old = examples(7)
    term, again, other = (KlPenalty(KlSettings(sample="old"), old, seed=seed) for seed in (1, 1, 2))
    drawn = [term._drawn(3, number) for number in range(14)]
    in_order = [one.trace for batch in drawn for one in batch]
    turns = [in_order[at : at + 7] for at in range(0, 42, 7)]
    assert all(sorted(turn) == sorted(one.trace for one in old) for turn in turns) and len({tuple(turn) for turn in turns}) > 1
    assert again._drawn(3, 9) == drawn[9] and [other._drawn(3, at) for at in range(14)] != drawn
    assert len(term._drawn(20, 0)) == 20  # more than there are


@pytest.mark.parametrize("train", [sft, dpo])
def test_micro_batches_are_numbered_by_their_step(train: Any, adapted: PeftModel, tmp_path: Path) -> None:
    """Also after the shorter last step of a pass over the data, and after a checkpoint."""
    seen: list[int] = []

    class Watch(Given):
        def loss(self, model: nn.Module, inputs: Any, hidden: Tensor, number: int) -> Tensor:
            seen.append(number)
            return hidden.sum() * 0

    given = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3, "max_steps": 4}
    train(copy.deepcopy(adapted), tmp_path, [Watch(None)], save_strategy="steps", save_steps=2, **given).train()
    assert seen == [0, 1, 2, 3, 6, 7, 8, 9]  # of four rows in a pass
    seen.clear()
    train(copy.deepcopy(adapted), tmp_path, [Watch(None)], **given).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert seen == [6, 7, 8, 9]


@pytest.mark.parametrize(("train", "adapter"), [(sft, True), (dpo, False)])
def test_the_term_holds_predictions_in_a_training(train: Any, adapter: bool, folder: Path, tmp_path: Path) -> None:
    old = examples(16, seed=9)
    ids = torch.tensor([one.input_ids for one in old])

    def drift(penalties: Sequence[Penalty]) -> float:
        base = AutoModelForCausalLM.from_pretrained(folder)
        model = (
            get_peft_model(AutoModelForCausalLM.from_pretrained(folder), lora())
            if adapter
            else AutoModelForCausalLM.from_pretrained(folder)
        )
        train(model, tmp_path, penalties, max_steps=10, optim="adamw_torch", learning_rate=1e-2).train()
        model.eval()
        with torch.no_grad():
            return float(divergence(model(input_ids=ids).logits, base(input_ids=ids).logits, torch.ones_like(ids), 1.0))

    free = drift([])
    assert drift([KlPenalty(KlSettings(weight=20.0, sample="old"), old)]) < 0.6 * free
    assert drift([KlPenalty(KlSettings(weight=20.0))]) < 0.9 * free  # it acts on other rows than are looked at
