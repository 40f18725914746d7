"""Supervised fine-tuning: imitate what the agent did well.

    tracemill train sft OUT --model MODEL --out ADAPTER

Load the model, turn traces into token ids and labels, train, save, plot, write the card.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from datasets import concatenate_datasets
from transformers import set_seed
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from tracemill.errors import DatasetError
from tracemill.train import data, forgetting, mixing, model, packing, penalty, run
from tracemill.train.settings import SftSettings


def sft(settings: SftSettings) -> Path:
    """Train, and return the folder of the result. A training that was cut off goes on; one that is done is left alone."""
    if settings.workers > 1:
        from tracemill.train import workers

        return workers.run(sft, settings)

    with run.Run("sft", settings) as here:
        if here.complete:
            here.left_alone()
            return settings.out
        set_seed(settings.seed)
        tokenizer = model.load_tokenizer(settings)

        # Model: the base with a fresh adapter, an adapter that is trained on, or the whole model.
        base, lora = model.load_model(settings)
        if settings.packing:
            packing.attend_within(base)

        # Data: token ids, and labels that are -100 where nothing is to be learnt.
        encoder_of = partial(
            data.Encoder, tokenizer, max_length=settings.max_length, reasoning=settings.reasoning, too_long=settings.too_long
        )
        encoder = encoder_of(mask_wrong=settings.mask_wrong)
        replay = encoder_of()  # with a count of its own; of other data, what is no more than context stays that
        mixture = mixing.Mixture(mixing.parse_mixes(settings.mix), replay, seed=settings.seed)
        penalties = forgetting.penalties(settings.ewc, settings.kl, replay, settings.out, seed=settings.seed)
        train, held_out = datasets(settings, encoder, mixture)
        if settings.stream:
            here.begin(data.Report())
        else:
            here.begin(encoder.report, [*mixture.lines(), *replay.report.losses()])

        trainer = penalty.with_penalties(Trainer, penalties)(
            model=base,
            args=SFTConfig(
                **run.arguments(settings, None if settings.stream else len(train), evaluated=held_out is not None),
                packing=settings.packing,  # so that the collator tells conversations apart
                dataset_kwargs={"skip_prepare_dataset": True},
                train_sampling_strategy="random" if settings.packing else "group_by_length",
            ),
            train_dataset=train,
            eval_dataset=held_out,
            processing_class=tokenizer,
            peft_config=lora,
        )
        run.train(here, trainer)

        if settings.stream:
            here.tell(encoder.report, [*mixture.lines(), *replay.report.losses()])
        here.finish(trainer, tokenizer)
        return settings.out


class Trainer(SFTTrainer):
    """TRL's, which writes no card of its own."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass


def datasets(settings: SftSettings, encoder: data.Encoder, mixture: mixing.Mixture) -> tuple[Any, Any]:
    """Rows for training, mixed and packed if so wished, and for evaluation. Raises DatasetError if no row is left."""
    if settings.stream:
        (folder,) = settings.data
        stream = data.stream(folder, encoder, follow=True, kinds=settings.kinds)
        if next(iter(stream), None) is None:
            raise DatasetError("nothing is left to train on", encoder.report.lines())
        stream = mixture.stream(stream) if settings.mix else stream
        return (packing.pack(stream, settings.max_length) if settings.packing else stream), None
    rows = concatenate_datasets([data.sft_dataset(folder, encoder, kinds=settings.kinds) for folder in settings.data])
    if not len(rows):
        raise DatasetError("nothing is left to train on", encoder.report.lines())
    train, apart = run.held_out(rows, settings.eval_share, settings.seed)
    train = mixture.dataset(train) if settings.mix else train
    if settings.packing:
        train, apart = packing.pack(train, settings.max_length), apart and packing.pack(apart, settings.max_length)
    return train, apart
