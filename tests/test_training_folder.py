"""The folder of a training: what it goes on from, what it refuses, and what it says of the model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny_training import SMALL, alike, history, weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from tracemill.errors import ConfigError, DatasetError
from tracemill.train import run
from tracemill.train.dpo import dpo
from tracemill.train.settings import DpoSettings, SftSettings, load_settings
from tracemill.train.sft import sft

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of TRL's own dependencies
Made = Callable[..., SftSettings]


@pytest.fixture
def settings(data: Path, model: Path, tmp_path: Path) -> Made:
    def make(**given: Any) -> SftSettings:
        small = {**SMALL, "max_steps": 2, "eval_share": 0}
        return load_settings(SftSettings, None, {"data": data, "model": str(model), "out": tmp_path / "out", **small, **given})

    return make


@pytest.fixture(scope="module")
def adapter(data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("folder") / "adapter"
    given = {"data": data, "model": str(model), "out": out, **SMALL, "max_steps": 2, "rank": 4, "eval_share": 0}
    return sft(load_settings(SftSettings, None, given))


@pytest.fixture
def copied(adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "adapter"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.arange(5, 200)[None]).logits
    return found


# --- checkpoints ---


@pytest.fixture(scope="module")
def undisturbed(data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SftSettings, Path]:
    """A training that is done, and its folder as it was when two checkpoints were there."""
    folder = tmp_path_factory.mktemp("undisturbed")
    given = {"data": data, "model": str(model), "out": folder / "whole", **SMALL, "max_steps": 4, "save_steps": 1, "eval_share": 0}
    made, left = load_settings(SftSettings, None, given), folder / "left"

    def kill(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            raise InterruptedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(run.Progress, "on_step_end", kill, raising=False)
        sft(made.model_copy(update={"out": left}))
    sft(made)
    return made, left


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "state cut": lambda folder: os.truncate(folder / "trainer_state.json", 50),
    "state empty": lambda folder: os.truncate(folder / "trainer_state.json", 0),
    "state of nothing": lambda folder: (folder / "trainer_state.json").write_text("{}"),
    "optimizer cut": lambda folder: os.truncate(folder / "optimizer.pt", 100),
    "optimizer gone": lambda folder: (folder / "optimizer.pt").unlink(),
    "random numbers gone": lambda folder: (folder / "rng_state.pth").unlink(),
    "weights cut": lambda folder: os.truncate(folder / "adapter_model.safetensors", 1000),
    "weights gone": lambda folder: (folder / "adapter_model.safetensors").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(
    undisturbed: tuple[SftSettings, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    made, left = undisturbed
    out = Path(shutil.copytree(left, tmp_path / "out"))
    DAMAGE[damage](out / "checkpoint-3")
    (out / "checkpoint-mine").mkdir()  # no number, and so none of ours
    sft(made.model_copy(update={"out": out}))
    told = capsys.readouterr().out
    assert "checkpoint-3 is not whole" in told and "Going on from checkpoint-2." in told
    assert alike(weights(out), weights(made.out), atol=0, rtol=0)
    assert not list(out.glob("checkpoint-[0-9]*"))


def test_without_a_whole_checkpoint_it_begins_again(undisturbed: tuple[SftSettings, Path], tmp_path: Path) -> None:
    made, left = undisturbed
    out = Path(shutil.copytree(left, tmp_path / "out"))
    for number in (2, 3):
        (out / f"checkpoint-{number}" / "optimizer.pt").unlink()
    sft(made.model_copy(update={"out": out}))
    assert alike(weights(out), weights(made.out), atol=0, rtol=0)


# --- whose folder it is ---


def test_a_first_attempt_that_failed_gives_way_to_the_corrected_one(settings: Made) -> None:
    with pytest.raises(ConfigError, match="neither a local path"):
        sft(settings(ewc={"sample": "/nowhere.jsonl"}))
    with pytest.raises(ConfigError, match="lower learning_rate"):
        sft(settings(learning_rate=1e30, max_steps=4))
    assert len(history(sft(settings()), "loss")) == 2
    with pytest.raises(DatasetError, match="holds another training"):
        sft(settings(max_steps=3))


def test_a_folder_with_checkpoints_of_another_training_is_refused(undisturbed: tuple[SftSettings, Path]) -> None:
    made, left = undisturbed
    with pytest.raises(DatasetError, match="holds another training"):
        sft(made.model_copy(update={"out": left, "seed": 7}))


def test_a_folder_in_which_a_training_is_at_work_is_refused(settings: Made) -> None:
    """Also before there is anything to go on from, and to the same command."""
    with run.Run("sft", settings()):
        for other in (settings(), settings(seed=7), settings(workers=2)):
            with pytest.raises(DatasetError, match="is being written by another process"):
                sft(other)
        assert [path.name for path in settings().out.iterdir()] == [".lock"]
    sft(settings(seed=7))


def test_a_folder_of_something_else_is_left_as_it_was(settings: Made, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match="holds no training"):
        sft(settings())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_of_a_training_of_another_kind_that_alone_is_told(data: Path, copied: Path) -> None:
    with pytest.raises(DatasetError, match="holds another training") as caught:
        dpo(load_settings(DpoSettings, None, {"data": data, "model": str(copied), "out": copied}))
    assert caught.value.problems == ("kind: 'sft' before, 'dpo' now",)


@pytest.mark.parametrize("record", ["", "[]", '{"settings": {}}', "\0"])
def test_a_record_that_cannot_be_read_is_refused(settings: Made, tmp_path: Path, record: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "training.json").write_text(record)
    with pytest.raises(DatasetError, match="cannot be read: choose another"):
        sft(settings())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(
    settings: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="out: cannot write to"):
            sft(settings(out=out, workers=workers))
    assert not capsys.readouterr().out


def test_a_model_or_adapter_with_other_weights_is_another_model(settings: Made, copied: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(settings().model, tmp_path / "tiny"))
    sft(settings(model=str(base), out=tmp_path / "from-base"))
    sft(settings(model=str(copied), out=tmp_path / "from-adapter"))
    for folder, out in ((base, "from-base"), (copied, "from-adapter")):
        (file,) = folder.glob("*.safetensors")
        save_file({name: value + 1e-3 for name, value in load_file(file).items()}, file, {"format": "pt"})
        with pytest.raises(DatasetError, match="holds another training") as caught:
            sft(settings(model=str(folder), out=tmp_path / out))
        assert caught.value.problems[0].startswith("model.fingerprint")


# --- what is merged ---


def test_a_training_that_is_done_can_still_be_merged(settings: Made, copied: Path, model: Path) -> None:
    from peft import PeftModel

    given = {"out": copied, "rank": 4}
    sft(settings(**given, merge=True))
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(copied))
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(copied / "merged")), logits(tuned), atol=1e-4)
    assert AutoTokenizer.from_pretrained(copied / "merged").chat_template
    assert (
        json.loads((copied / "training.json").read_text())["settings"]["merge"] and "`merge` | `True`" in (copied / "README.md").read_text()
    )
    before = (copied / "merged").stat().st_mtime_ns
    sft(settings(**given, merge=True))
    assert (copied / "merged").stat().st_mtime_ns == before and [path.name for path in copied.glob(".*")] == [".lock"]


def test_the_licence_of_a_training_that_is_done_can_still_be_said(settings: Made, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = weights(copied)
    sft(settings(out=copied, rank=4, license="mit"))
    card = (copied / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "mit" and "\nmit. The data:" in card
    assert json.loads((copied / "training.json").read_text())["settings"]["license"] == "mit"
    assert "The card is written anew: license: None before, 'mit' now." in capsys.readouterr().out
    sft(settings(out=copied, rank=4, license="mit"))
    assert "anew" not in capsys.readouterr().out
    assert (copied / "README.md").read_text() == card and alike(weights(copied), before, atol=0, rtol=0)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`", "ignore:Setting `save_embedding_layers`")
def test_adapted_embeddings_no_longer_are_the_head(settings: Made, model: Path) -> None:
    from peft import PeftModel

    out = sft(settings(targets=("embed_tokens", "q_proj"), learning_rate=0.05, merge=True))
    base = AutoModelForCausalLM.from_pretrained(model)
    untrained = logits(base)
    tuned = logits(PeftModel.from_pretrained(base, str(out)))
    assert not torch.allclose(tuned, untrained, atol=0.1)
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(out / "merged")), tuned, atol=1e-4)
    whole = sft(settings(model=str(out), method="full", learning_rate=1e-9, out=out.parent / "whole"))
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(whole)), tuned, atol=1e-4)


# --- what is learnt in few steps ---


def test_the_first_of_few_steps_counts(settings: Made) -> None:
    out = sft(settings(max_steps=1))
    assert max(float(value.abs().max()) for name, value in weights(out).items() if "lora_B" in name) > 0
    assert run.schedule(settings(max_steps=33), None)["warmup_steps"] == 0
    assert run.schedule(settings(max_steps=1000), None)["warmup_steps"] == 30


# --- models that cannot be taken ---


def broken(folder: Path, how: str) -> None:
    config = folder / "adapter_config.json"
    if how == "weights cut":
        (file,) = folder.glob("*.safetensors")
        os.truncate(file, 100)
    elif how == "weights gone":
        (folder / "adapter_model.safetensors").unlink()
    elif how == "base moved":
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "/gone/model"}))
    else:
        config.write_text(how)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("weights cut", "cannot load the adapter"),
        ("weights gone", "holds no weights of an adapter"),
        ("base moved", "cannot load /gone/model, the base named in .*adapter_config.json"),
        ("{", "cannot read .*adapter_config.json"),
        ("[]", "holds no map"),
    ],
)
def test_a_broken_adapter_is_told(settings: Made, copied: Path, capsys: pytest.CaptureFixture[str], how: str, said: str) -> None:
    broken(copied, how)
    with pytest.raises(ConfigError, match=said):
        sft(settings(model=str(copied)))
    assert not capsys.readouterr().out and not (settings().out / "training.json").exists()


def test_a_moved_base_that_the_tokenizer_is_needed_of_is_told(settings: Made, copied: Path) -> None:
    broken(copied, "base moved")
    (copied / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match="no tokenizer in /gone/model, the base named in"):
        sft(settings(model=str(copied)))


def test_a_broken_model_is_told(settings: Made, model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "tiny"))
    broken(copy, "weights cut")
    with pytest.raises(ConfigError, match=r"cannot load .*tiny: "):
        sft(settings(model=str(copy)))


@pytest.mark.parametrize(("file", "text"), [("tokenizer.json", "{}"), ("tokenizer_config.json", "[]")])
def test_a_broken_tokenizer_is_told(settings: Made, model: Path, tmp_path: Path, file: str, text: str) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "tiny"))
    (copy / file).write_text(text)
    with pytest.raises(ConfigError, match="no tokenizer in"):
        sft(settings(model=str(copy)))


@pytest.mark.parametrize("targets", [("nope",), ("q_proj", "nope"), ("lm_head",), ("self_attn",), ("input_layernorm",)])
def test_targets_that_cannot_be_adapted_are_told_before_the_data_are_read(
    settings: Made, capsys: pytest.CaptureFixture[str], targets: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=f"targets: .* has no {targets[-1]} that can be adapted; it has down_proj, .*v_proj"):
        sft(settings(targets=targets))
    assert not capsys.readouterr().out


@pytest.mark.parametrize("padded", [True, False])
def test_a_tokenizer_without_an_end_is_told(settings: Made, model: Path, tmp_path: Path, padded: bool) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "tiny"))
    tokenizer = json.loads((copy / "tokenizer_config.json").read_text())
    told = {key: value for key, value in tokenizer.items() if key != "eos_token" and (padded or key != "pad_token")}
    (copy / "tokenizer_config.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="no token that ends a text"):
        sft(settings(model=str(copy)))


# --- what is said of a model ---


def test_where_other_data_lay_is_said_nowhere(settings: Made, tmp_path: Path) -> None:
    for name in ("old.jsonl", "older/old.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"prompt": "2 and 2 is", "completion": " 4"}))
    old, older = tmp_path / "old.jsonl", tmp_path / "older" / "old.jsonl"
    given = {"mix": (f"{old}=0.01", f"{older}=0.01"), "ewc": {"sample": str(old)}, "kl": {"sample": str(older)}}
    out = sft(settings(**given))
    for name in ("README.md", "training.json"):
        told = (out / name).read_text()
        assert "old.jsonl=0.01" in told and "old.jsonl: " in told and str(tmp_path) not in told
    for one in (old, older):
        before = one.read_text()
        one.write_text(before.replace("4", "5"))
        with pytest.raises(DatasetError, match="holds another training"):
            sft(settings(**given))
        one.write_text(before)


def test_the_card_of_a_whole_model_tells_of_no_adapter(settings: Made) -> None:
    out = sft(settings(method="full"))
    card, told = (out / "README.md").read_text(), json.loads((out / "training.json").read_text())["settings"]
    assert "`method` | `full`" in card
    for name in ("rank", "alpha", "dropout", "targets"):
        assert f"`{name}`" not in card and name not in told
    sft(settings(method="full", rank=8))  # the same training, done


def test_an_adapter_keeps_its_shape_and_the_card_says_which(settings: Made, adapter: Path) -> None:
    with pytest.raises(ConfigError, match="is trained on as it is") as caught:
        sft(settings(model=str(adapter), rank=8, alpha=8, dropout=0.5, targets=("q_proj",)))
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["rank", "dropout", "targets"], "alpha is the same"
    card = (sft(settings(model=str(adapter))) / "README.md").read_text()
    assert "`rank` | `4`" in card and "q_proj" in card


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_base_of_an_adapter_is_the_base_of_what_comes_of_it(data: Path, adapter: Path, tmp_path: Path, method: str) -> None:
    given = {"data": data, "model": str(adapter), "out": tmp_path / "out", **SMALL, "max_steps": 1, "eval_share": 0, "method": method}
    card = (dpo(load_settings(DpoSettings, None, given)) / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "tiny"
    assert "# tiny, trained on run" in card and "their base, `tiny`" in card and "`model` | `adapter`" in card
