"""What a model forgets when it learns something else, and what each way of not forgetting does about it.

    OMP_NUM_THREADS=1 python bench/forgetting.py --seeds 4

A tiny model is made from nothing. It learns two old tasks and is then fine-tuned on a new one, plainly, with replay, EWC or
KL, through TRL's trainer as `tracemill train sft` uses it. A task is a random language: what may follow a letter is drawn for
each task, and sequences of all tasks are over the same letters, so what is learned of one is in the way of another. They begin with a word
that says which task it is, so one model could know them all. Of the old tasks one ("old") is the one whose data is at hand for
replay, EWC and KL, the other ("unseen") shows what is kept of that for which no data is left.

Losses are in nats a token, above the entropy of the language: 0 is perfect. Intervals are over seeds: 95%, Student's t.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import PrinterCallback, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer

from tracemill.train.data import Example
from tracemill.train.distillation import KlPenalty
from tracemill.train.ewc import EwcPenalty
from tracemill.train.forgetting import EwcSettings, KlSettings
from tracemill.train.penalty import Penalty, with_penalties

LETTERS, LENGTH, CHOICES = 32, 32, 4
TASKS = ("old", "unseen", "new")
RATES = {"full": 1e-3, "lora": 1e-2}  # so that plain fine-tuning learns the new task in the steps it has
T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # by number of seeds
Penalties = Callable[[Path], list[Penalty]]


class Language:
    """A letter is followed by one of four, of which the first is likeliest; which, is drawn for each task."""

    odds = (0.7, 0.1, 0.1, 0.1)
    entropy = -sum(odd * torch.tensor(odd).log().item() for odd in odds)

    def __init__(self, task: str, seed: int) -> None:
        draw = random.Random(f"{task} {seed}")
        self.marker = LETTERS + TASKS.index(task)
        self.next = [draw.sample(range(LETTERS), CHOICES) for _ in range(LETTERS)]

    def examples(self, count: int, seed: int) -> list[Example]:
        draw = random.Random(seed)
        return [self._example(draw) for _ in range(count)]

    def _example(self, draw: random.Random) -> Example:
        ids = [self.marker, draw.randrange(LETTERS)]
        while len(ids) < LENGTH:
            ids.append(draw.choices(self.next[ids[-1]], self.odds)[0])
        return Example(ids, [-100, -100, *ids[2:]], "")


def build(seed: int) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=LETTERS + len(TASKS), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, head_dim=32, max_position_embeddings=LENGTH, tie_word_embeddings=True, initializer_range=0.05,
            bos_token_id=None, eos_token_id=None, pad_token_id=0,
        )
    )  # fmt: skip


def train(model: Any, examples: Sequence[Example], steps: int, rate: float, penalties: Sequence[Penalty], seed: int) -> Any:
    rows = Dataset.from_list([{"input_ids": one.input_ids, "labels": one.labels} for one in examples])
    with tempfile.TemporaryDirectory() as folder:
        trainer = with_penalties(SFTTrainer, penalties)(
            model=model,
            args=SFTConfig(
                folder, max_steps=steps, learning_rate=rate, per_device_train_batch_size=8, lr_scheduler_type="linear", warmup_steps=10,
                dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, report_to="none", save_strategy="no", logging_strategy="no",
                use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True, dataloader_pin_memory=False, seed=seed,
            ),
            train_dataset=rows,
            processing_class=tokenizer(),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return trainer.model


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {str(at): at for at in range(LETTERS + len(TASKS))}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, "0")), pad_token="0", eos_token="1")


@torch.inference_mode()
def loss(model: Any, language: Language) -> float:
    """Nats a token above the entropy of the language, on sequences of their own."""
    model.eval()
    examples = language.examples(100, seed=10**6)
    ids, labels = torch.tensor([one.input_ids for one in examples]), torch.tensor([one.labels for one in examples])
    return float(model(input_ids=ids, labels=labels).loss) - language.entropy


def arms(old: Sequence[Example], seed: int) -> dict[str, tuple[float, Penalties]]:
    """Name -> share of replay, and the penalties."""

    def ewc(strength: float) -> Penalties:
        return lambda folder: [EwcPenalty(EwcSettings(sample="old", strength=strength), old, folder / "fisher.safetensors")]

    def kl(weight: float, sample: str | None = None) -> Penalties:
        return lambda _: [KlPenalty(KlSettings(weight=weight, sample=sample), old if sample else (), seed=seed)]

    return {
        "plain": (0.0, lambda _: []),
        "replay 0.05": (0.05, lambda _: []),
        "replay 0.2": (0.2, lambda _: []),
        "ewc 10": (0.0, ewc(10)),
        "ewc 100": (0.0, ewc(100)),
        "kl 0.3": (0.0, kl(0.3)),
        "kl 1": (0.0, kl(1)),
        "kl 1 on old data": (0.0, kl(1, "old")),
        "replay 0.2, ewc 100": (0.2, ewc(100)),
    }


def mixed(new: Sequence[Example], old: Sequence[Example], share: float) -> list[Example]:
    """Every example trains as many tokens here, so a share of tokens is one of examples."""
    count = round(len(new) * share / (1 - share))
    return [*new, *(old[at % len(old)] for at in range(count))]


def experiment(seed: int, steps: int) -> dict[str, dict[str, list[float]]]:
    """Method -> arm -> losses on `TASKS`."""
    languages = {task: Language(task, seed) for task in TASKS}
    before = [one for task in ("old", "unseen") for one in languages[task].examples(2000, seed)]
    base = train(build(seed), before, 500, 3e-3, [], seed)
    old, new = languages["old"].examples(200, seed + 1), languages["new"].examples(2000, seed)
    found: dict[str, dict[str, list[float]]] = {}
    for method in RATES:
        found[method] = {"before": [loss(base, languages[task]) for task in TASKS]}
        with tempfile.TemporaryDirectory() as folder:  # which keeps the Fisher information
            for name, (share, penalties) in arms(old, seed).items():
                model = train(student(base, method), mixed(new, old, share), steps, RATES[method], penalties(Path(folder)), seed)
                found[method][name] = [loss(model, languages[task]) for task in TASKS]
    return found


def student(base: Any, method: str) -> Any:
    model: Any = build(0)  # not a copy: TRL has given the base a forward pass that a copy would share with it
    model.load_state_dict(base.state_dict())
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")) if method == "lora" else model


def interval(values: Sequence[float]) -> str:
    spread = T_975[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):6.3f} ± {spread:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4, choices=T_975)
    parser.add_argument("--steps", type=int, default=120, help="of fine-tuning")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    start = time.process_time()
    runs = [experiment(seed, arguments.steps) for seed in range(arguments.seeds)]
    for method in RATES:
        print(f"\n{method:22}" + "".join(f"{task:>18}" for task in TASKS))
        for name in runs[0][method]:
            print(f"{name:22}" + "".join(f"{interval([run[method][name][at] for run in runs]):>18}" for at in range(len(TASKS))))
    print(f"\n{arguments.seeds} seeds, {time.process_time() - start:.0f} s of CPU")


if __name__ == "__main__":
    main()
