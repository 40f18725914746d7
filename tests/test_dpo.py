"""Direct preference optimization, from an SFT adapter and from a plain model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from datasets import Dataset, concatenate_datasets
from tiny_training import SMALL, alike, history, weights
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from tracemill.errors import ConfigError, DatasetError
from tracemill.train.data import Encoder, dpo_dataset
from tracemill.train.dpo import Trainer, dpo
from tracemill.train.run import held_out
from tracemill.train.settings import DpoSettings, SftSettings, load_settings
from tracemill.train.sft import sft

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of TRL's own dependencies
Made = Callable[..., DpoSettings]


@pytest.fixture(scope="module")
def adapter(data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dpo") / "adapter"
    return sft(load_settings(SftSettings, None, {"data": data, "model": str(model), "out": out, **SMALL, "max_steps": 2}))


@pytest.fixture
def settings(data: Path, adapter: Path, tmp_path: Path) -> Made:
    def make(**given: Any) -> DpoSettings:
        given = {"model": str(adapter), "out": tmp_path / "out", **SMALL, "epochs": 3, "eval_share": 0, **given}
        return load_settings(DpoSettings, None, {"data": data, **given})

    return make


def margin(model: Any, pairs: Dataset) -> float:
    """Mean log-probability of the chosen completions less that of the rejected, over pairs."""

    def said(prompt: list[int], completion: list[int]) -> float:
        with torch.no_grad():
            chances = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return float(chances.gather(1, torch.tensor(completion)[:, None]).sum())

    gaps = [said(row["prompt_ids"], row["chosen_ids"]) - said(row["prompt_ids"], row["rejected_ids"]) for row in pairs]
    return sum(gaps) / len(gaps)


def load(adapter: Path, model: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapter).eval()


@pytest.fixture(scope="module")
def pairs(data: Path, model: Path) -> Dataset:
    return dpo_dataset(data, Encoder(AutoTokenizer.from_pretrained(model), max_length=2048))


def test_the_sft_adapter_comes_to_prefer_what_was_chosen(settings: Made, adapter: Path, model: Path, pairs: Dataset) -> None:
    out = dpo(settings(eval_share=0.3, merge=True))
    assert margin(load(out, model), pairs) > margin(load(adapter, model), pairs) + 1
    assert history(out, "loss")[0] == pytest.approx(0.6931, abs=1e-3), "it starts where the reference is"
    assert history(out, "eval_rewards/margins")[-1] > 0.1
    assert not (out / "ref").exists() and not list(out.glob("checkpoint-*"))
    assert margin(AutoModelForCausalLM.from_pretrained(out / "merged"), pairs) == pytest.approx(margin(load(out, model), pairs), abs=0.05)
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(model)
    front = yaml.safe_load((out / "README.md").read_text().split("---")[1])
    assert "dpo" in front["tags"] and front["base_model"] == "tiny"
    assert (out / "curves.png").stat().st_size > 10_000


def test_the_reference_is_the_adapter_and_stays_as_it_was(settings: Made, pairs: Dataset, adapter: Path, model: Path) -> None:
    """After a step the logged reward of the chosen is beta times what the adapter's log-probability has risen."""
    out = dpo(settings(max_steps=2, learning_rate=0.05))
    rise = margin(load(out, model), pairs) - margin(load(adapter, model), pairs)
    assert rise > 0.5
    evaluated = dpo(settings(max_steps=2, learning_rate=0.05, eval_share=0.3, out=settings().out / "evaluated"))
    assert history(evaluated, "eval_rewards/margins")[0] == pytest.approx(0, abs=1e-4)


def test_only_the_completion_counts(pairs: Dataset) -> None:
    """Every token of the two messages, and none of what came before."""
    row = pairs[0]
    batch = DataCollatorForPreference(pad_token_id=0)([row])
    for at, name in enumerate(("chosen_ids", "rejected_ids")):
        counted = batch["input_ids"][at][batch["completion_mask"][at].bool()]
        assert counted.tolist() == row[name]


def test_no_pair_is_dropped_or_cut(settings: Made, pairs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    before = Trainer.compute_loss

    def watch(self: Trainer, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((int(inputs["attention_mask"].sum()), int(inputs["completion_mask"].sum())))
        return before(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(Trainer, "compute_loss", watch)
    dpo(settings(epochs=1))
    wanted = [
        (2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]), len(row["chosen_ids"]) + len(row["rejected_ids"]))
        for row in pairs
    ]
    assert sorted(seen) == sorted(wanted)


def test_all_pairs_of_a_trace_are_on_one_side_of_the_evaluation_split(data: Path, model: Path) -> None:
    pairs = dpo_dataset(data, Encoder(AutoTokenizer.from_pretrained(model), max_length=2048))
    made = [row for path in data.glob("preferences/*.parquet") for row in pq.read_table(path, partitioning=None)["trace"].to_pylist()]
    assert sorted(pairs["trace"]) == sorted(made)
    later = pairs.map(lambda row: {"prompt_ids": row["prompt_ids"] + [0]}, keep_in_memory=True)  # as of a later message
    twice = concatenate_datasets([pairs, later])
    train, apart = held_out(twice, 0.3, seed=0)
    assert apart is not None and len(train) + len(apart) == len(twice)
    assert not set(train["trace"]) & set(apart["trace"])


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_plain_model_is_its_own_reference(settings: Made, model: Path, pairs: Dataset, method: str) -> None:
    out = dpo(settings(model=str(model), method=method, max_steps=4, learning_rate=5e-3))
    tuned = load(out, model) if method == "lora" else AutoModelForCausalLM.from_pretrained(out)
    assert history(out, "loss")[0] == pytest.approx(0.6931, abs=1e-3)
    assert margin(tuned, pairs) > margin(AutoModelForCausalLM.from_pretrained(model), pairs)


def test_an_adapter_can_be_trained_on_as_a_whole_model(settings: Made, adapter: Path, model: Path, pairs: Dataset) -> None:
    out = dpo(settings(method="full", max_steps=1, learning_rate=1e-9))
    whole = AutoModelForCausalLM.from_pretrained(out)
    assert margin(whole, pairs) == pytest.approx(margin(load(adapter, model), pairs), abs=0.01)
    assert history(out, "loss")[0] == pytest.approx(0.6931, abs=1e-3)


def test_the_sft_term_holds_up_the_chosen_message(settings: Made) -> None:
    plain, held = (dpo(settings(max_steps=1, sft=sft_term, out=settings().out / str(sft_term))) for sft_term in (0.0, 0.5))
    assert history(held, "loss")[0] > history(plain, "loss")[0] + 1


def test_a_killed_training_goes_on(settings: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    from tracemill.train import run

    class Killed(Exception):
        pass

    def kill(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise Killed

    undisturbed = dpo(settings(max_steps=4, save_steps=2, out=settings().out / "undisturbed"))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run.Progress, "on_step_end", kill, raising=False)
        dpo(settings(max_steps=4, save_steps=2, out=settings().out / "killed"))
    resumed = dpo(settings(max_steps=4, save_steps=2, out=settings().out / "killed"))
    assert alike(weights(resumed), weights(undisturbed), atol=0, rtol=0)


def test_thoughts_cannot_be_kept_out_of_the_loss(settings: Made, data: Path, model: Path) -> None:
    with pytest.raises(ConfigError, match="reasoning: every token after the prompt counts in DPO"):
        settings(reasoning="keep")
    with pytest.raises(ConfigError, match="every token after the prompt counts in DPO"):
        dpo_dataset(data, Encoder(AutoTokenizer.from_pretrained(model), max_length=2048, reasoning="keep"))


def test_a_run_without_pairs_is_refused(settings: Made, data: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "data").symlink_to(data / "data")
    with pytest.raises(DatasetError, match="holds no preference pairs"):
        dpo(settings(data=tmp_path / "bare"))
