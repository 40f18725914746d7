"""Direct preference optimization: prefer what was better to what was worse, after the same messages.

    tracemill train dpo OUT --model ADAPTER --out BETTER

Starts from an SFT adapter, which is also the reference that it is held to, or from a plain model. A pair is two messages of
the agent after one prompt, so that every token that counts is one of the agent's own.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

from datasets import concatenate_datasets
from transformers import set_seed
from trl import DPOConfig, DPOTrainer  # type: ignore[attr-defined]

from tracemill.errors import DatasetError
from tracemill.train import data, forgetting, model, penalty, run
from tracemill.train.settings import DpoSettings


def dpo(settings: DpoSettings) -> Path:
    """Train, and return the folder of the result. A training that was cut off goes on; one that is done is left alone."""
    if settings.workers > 1:
        from tracemill.train import workers

        return workers.run(dpo, settings)

    with run.Run("dpo", settings) as here:
        if here.complete:
            here.left_alone()
            return settings.out
        set_seed(settings.seed)
        tokenizer = model.load_tokenizer(settings)

        # Model: the adapter that is trained on, or the base with a fresh one, or the whole model.
        base, lora = model.load_model(settings)

        # Data: token ids of prompt, chosen and rejected message.
        encoder = data.Encoder(tokenizer, max_length=settings.max_length, reasoning=settings.reasoning)
        pairs = concatenate_datasets([data.dpo_dataset(folder, encoder) for folder in settings.data])
        if not len(pairs):
            raise DatasetError("no pair is left to train on", encoder.report.lines())
        train, held_out = run.held_out(pairs, settings.eval_share, settings.seed)
        penalties = forgetting.penalties(settings.ewc, settings.kl, encoder, settings.out, seed=settings.seed)
        here.begin(encoder.report)

        whole, several = settings.method == "full", run.processes() > 1
        trainer = penalty.with_penalties(Trainer, penalties)(
            model=base,
            ref_model=copy.deepcopy(base) if whole and several else None,
            args=DPOConfig(
                **run.arguments(settings, len(train), evaluated=held_out is not None),
                beta=settings.beta,
                loss_type=["sigmoid", "sft"] if settings.sft else ["sigmoid"],
                loss_weights=[1.0, settings.sft] if settings.sft else None,
                # The reference is the start. One process computes what it says once, in place of keeping a second model; TRL hands
                # that on in a file which other processes do not find.
                precompute_ref_log_probs=whole and not several,
            ),
            train_dataset=train,
            eval_dataset=held_out,
            processing_class=tokenizer,
            peft_config=lora,
        )
        run.train(here, trainer)

        here.finish(trainer, tokenizer)
        return settings.out


class Trainer(DPOTrainer):
    """TRL's, which takes the pairs as they are encoded and writes no card of its own."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Without the frozen copy that is the reference: with it in a checkpoint, transformers would go on from that alone."""
        super()._save(output_dir, state_dict)
        shutil.rmtree(Path(str(output_dir or self.args.output_dir)) / "ref", ignore_errors=True)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass
