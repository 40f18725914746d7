"""The output folder of a training: whose it is, where to go on, what is told, and what is written at the end.

OUT/adapter_config.json, adapter_model.safetensors   or, of a full fine-tune, config.json, model.safetensors
OUT/tokenizer*, chat_template.jinja
OUT/merged/          base and adapter as one model, with --merge
OUT/README.md        model card
OUT/curves.png
OUT/training.json    settings, data, report, history
OUT/checkpoint-N/    while training goes on
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Self

from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tracemill import __version__
from tracemill.calling import command
from tracemill.errors import ConfigError, DatasetError
from tracemill.trace import Json, fingerprint
from tracemill.train import card, checkpoints, curves, mixing
from tracemill.train import model as models
from tracemill.train.data import Report
from tracemill.train.settings import TrainSettings
from tracemill.writer import changes, lock, write_whole

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
LINES = 50  # of losses in a run
CHECKPOINTS = 10  # in a run, and as many evaluations
WARMUP = 0.03  # share of the steps in which the learning rate rises from 0, as in Alpaca and QLoRA; of few steps none
FEWEST = 10  # steps between two checkpoints


def is_main() -> bool:
    """Whether this process prints and writes: one of those that `accelerate launch`, torchrun or Ray Train starts."""
    return os.environ.get("RANK", "0") == "0"


def _is_watched() -> bool:
    return is_main() and sys.stderr.isatty()


def _hide_bars() -> None:
    from datasets import disable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bars()
    disable_progress_bar()  # type: ignore[no-untyped-call]


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def say(text: str) -> None:
    """One line to the terminal, from the main process."""
    if is_main():
        print(text, flush=True)


class Run:
    """One training in its folder, which nobody else may write to within `with Run(...) as here`: the main process holds its lock.

    Raises DatasetError if another process does, or if the folder holds something else.
    """

    complete: bool
    """Whether all is done already."""

    def __init__(self, kind: str, settings: TrainSettings) -> None:
        self.out = settings.out
        self.settings = settings
        if not _is_watched():
            _hide_bars()
        self.record: dict[str, Json] = {
            "tracemill": __version__, "kind": kind, "settings": settings.plain() | models.adapted(settings), "model": models.identity(settings.model),
            "datasets": [revision(folder, kind) for folder in settings.data], "processes": processes(),
            "versions": {name: version(name) for name in PACKAGES}, "complete": False,
        }  # fmt: skip
        if sources := other_data(settings):
            self.record["other_data"] = sources
        self._lock: IO[str] | None = None
        self._commits: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        self._refuse_strangers()
        self._lock = hold(self.out) if is_main() else None
        try:
            self.complete = self._check()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.close()

    def begin(self, report: Report, mixed: Sequence[str] = ()) -> None:
        """Tell and note what is about to be trained, so that a training that is cut off is known again. The model has been loaded."""
        self.tell(report, mixed)
        if is_main():
            self._note_commits()
        self.write()

    def tell(self, report: Report, mixed: Sequence[str] = ()) -> None:
        """What became of the data, for the terminal, the record and the card; of a stream it is known when the training is done."""
        self.record |= {"report": dataclasses.asdict(report), "told": [*report.lines(), *mixed]}
        for line in self.record["told"]:
            say(line)

    def write(self) -> None:
        if is_main():
            write_whole(self.out / "training.json", json.dumps(self.record, indent=2) + "\n")

    def _note_commits(self) -> None:
        """Of what came from the Hub, as far as that tells: several where something changed there before the training went on."""
        base = card.base_model(self.record)
        now = {} if "fingerprint" in base else {base["name"]: models.commit(base["name"])}
        now |= {source: mixing.commit(source) for source in _sources(self.settings) if not Path(source).exists()}
        for name, commit in now.items():
            known = self._commits.get(name, [])
            if commit and commit not in known:
                self._commits[name] = [*known, commit]
                if known:
                    say(f"{name} has changed on the Hub since this training began: it was at commit {known[-1]}, and is at {commit}.")
        if self._commits:
            self.record["commits"] = self._commits

    def _write_card(self) -> None:
        """And the record that it is made of."""
        write_whole(self.out / "README.md", card.render(self.record))
        self.write()

    def checkpoint(self) -> Path | None:
        """The last one that is whole; those after it are told."""
        for found in checkpoints.found(self.out):
            damage = checkpoints.damage(found, processes())
            if not damage:
                return found
            say(f"{found.name} is not whole ({damage}) and is passed over.")
        return None

    def left_alone(self) -> None:
        """Of a training that is done: tell so, and do what may still be asked for: OUT/merged, and a card with another licence."""
        if not is_main():
            return
        record = json.loads((self.out / "training.json").read_text(encoding="utf-8"))
        before = record["settings"]
        if self.settings.merge and not (self.out / "merged").exists():
            models.merge(self.settings, models.load_tokenizer(self.settings.model_copy(update={"model": str(self.out)})))
            say(f"merged to {self.out / 'merged'}")
        now = before | {"merge": before["merge"] or self.settings.merge, "license": self.settings.license}
        if now != before:
            self.record = record | {"settings": now}
            self._write_card()
            say(f"The card is written anew: {'; '.join(changes(before, now))}.")
        say(f"{self.out} holds this training, done.")

    def finish(self, trainer: Any, tokenizer: Any) -> None:
        """Weights, curves, card and record; then the checkpoints have served."""
        history = trainer.state.log_history
        trainer.accelerator.wait_for_everyone()
        if is_main():
            models.save(trainer.accelerator.unwrap_model(trainer.model), tokenizer, self.settings)
            curves.plot(history, self.out / "curves.png")
            self.record |= {"history": history, "complete": True}
            self._write_card()
            for checkpoint in checkpoints.found(self.out):
                shutil.rmtree(checkpoint)
            summary(self, history)
        trainer.accelerator.wait_for_everyone()

    def _refuse_strangers(self) -> None:
        names = {entry.name for entry in self.out.iterdir() if not entry.name.startswith(".")} if self.out.is_dir() else set()
        if names and "training.json" not in names:
            raise DatasetError(f"{self.out} is not empty and holds no training: choose another --out")

    def _check(self) -> bool:
        """Whether the folder holds this training, done."""
        path = self.out / "training.json"
        if not path.exists():
            return False
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            was, now = self._deciding(before), self._deciding(self.record)
            # SFT and DPO differ in nearly everything, which says no more than that.
            differences = changes(was["kind"], now["kind"], "kind") or changes(was, now)
            done = bool(before["complete"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as reason:
            raise DatasetError(f"{path} cannot be read: choose another --out, or empty the folder", [repr(reason)]) from reason
        if not done and not checkpoints.found(self.out):
            return False  # nothing was learnt there
        self._commits = before.get("commits", {})
        if differences:
            raise DatasetError(f"{self.out} holds another training: continue it with its settings, or choose another --out", differences)
        return done

    def _deciding(self, record: dict[str, Json]) -> dict[str, Json]:
        """What a continuation must share; a stream's data grow."""
        names = ("kind", "model", "processes", "other_data", *(() if record["settings"].get("stream") else ("datasets",)))
        settings = {key: value for key, value in record["settings"].items() if key not in self.settings.OPERATIONAL}
        return {**{name: record.get(name) for name in names}, "settings": settings}


def hold(out: Path) -> IO[str]:
    """Make the folder if it is not there, and hold it: see `lock`. Raises ConfigError if nothing can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        return lock(out)
    except OSError as reason:
        raise ConfigError(f"out: cannot write to {out}: {reason.strerror}") from reason


def revision(folder: Path, kind: str) -> dict[str, Json]:
    """A dataset's name, what run.json says of it, and the fingerprint of the shards that are read."""
    shards = sorted(folder.glob("preferences/part-*.parquet" if kind == "dpo" else "data/**/part-*.parquet"))
    if not shards:
        raise DatasetError(f"{folder} holds no {'preference pairs' if kind == 'dpo' else 'traces'}: expected the output folder of a run")
    digests = {shard.relative_to(folder).as_posix(): _digest(shard) for shard in shards}
    run = folder / "run.json"
    told = json.loads(run.read_text(encoding="utf-8")) if run.is_file() else {}
    return {
        "name": folder.resolve().name, "run": told.get("digest", ""), "tracemill": told.get("tracemill", ""),
        "license": told.get("config", {}).get("license", ""), "shards": len(shards), "fingerprint": fingerprint(digests),
    }  # fmt: skip


def other_data(settings: TrainSettings) -> dict[str, Json]:
    """Each local source of mix, EWC and KL, and the fingerprint of its files; one of the Hub is known by its name, as models are."""
    digests: dict[str, list[str]] = {}
    for source in _sources(settings):
        if Path(source).exists():
            digests.setdefault(mixing.called(source), []).extend(map(_digest, mixing.files(source)))
    return {name: fingerprint(found) for name, found in digests.items()}


def _sources(settings: TrainSettings) -> list[str]:
    mixed = [mix.source for mix in mixing.parse_mixes(getattr(settings, "mix", ()))]
    return mixed + [one.sample for one in (settings.ewc, settings.kl) if one and one.sample]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def held_out(dataset: Any, share: float, seed: int) -> tuple[Any, Any | None]:
    """Rows for training and for evaluation, all rows of a trace on one side: which, the hash of its id and the seed decide.

    Each trace is judged by its own hash, so that SFT and DPO hold out the same traces of a run. At least one is held out and one is
    trained on, if there are two: the one whose hash is lowest, and that whose is highest.
    """
    of = list(dataset["trace"])
    place = {trace: int(fingerprint([seed, trace]), 16) / 16**32 for trace in set(of)}
    if not share or len(place) < 2:
        return dataset, None
    lowest, highest = min(place, key=place.__getitem__), max(place, key=place.__getitem__)
    chosen = ({trace for trace in place if place[trace] < share} - {highest}) | {lowest}
    train, apart = ([at for at, trace in enumerate(of) if (trace in chosen) == side] for side in (False, True))
    return dataset.select(train), dataset.select(apart)


def schedule(settings: TrainSettings, rows: int | None) -> dict[str, Any]:
    """How long to train and how often to tell, save and evaluate; `rows` is None for a stream."""
    if rows is None or settings.max_steps:
        steps = settings.max_steps or 0
    else:
        batches = math.ceil(rows / (settings.batch_size * processes()))
        steps = math.ceil(math.ceil(batches / settings.gradient_accumulation) * settings.epochs)
    every = settings.save_steps or max(FEWEST, steps // CHECKPOINTS)
    return {
        "max_steps": max(1, steps), "logging_steps": max(1, steps // LINES), "save_steps": every, "eval_steps": every,
        "warmup_steps": int(WARMUP * steps),
    }  # fmt: skip


def arguments(settings: TrainSettings, rows: int | None, *, evaluated: bool) -> dict[str, Any]:
    """What TRL's configs for SFT and DPO have in common."""
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        **schedule(settings, rows),
        "output_dir": str(settings.out),
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "learning_rate": settings.rate,
        "lr_scheduler_type": "cosine",
        "max_length": None,  # nothing is cut: the encoder has split or left out what is too long, and says so
        "seed": settings.seed,
        "report_to": settings.report_to,
        "save_total_limit": 2,
        "eval_strategy": "steps" if evaluated else "no",
        "eval_on_start": evaluated,
        "logging_nan_inf_filter": False,
        "use_cpu": not on_gpu,
        "bf16": models.bf16(),
        "gradient_checkpointing": on_gpu,
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,
        "disable_tqdm": not _is_watched(),
    }


class Progress(TrainerCallback):
    """A line for each loss where there is no bar, and an end where the loss is not a number."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any) -> None:
        if logs and not math.isfinite(logs.get("loss", 0.0)):
            raise ConfigError(
                f"the loss is {logs['loss']} at step {state.global_step}: lower learning_rate (now {args.learning_rate:g}), or look for "
                "broken weights in the model"
            )
        if args.disable_tqdm and logs and (line := _line(logs)):
            say(f"step {state.global_step}/{state.max_steps}: {line}")


SHOWN = {"loss": "loss {:.4f}", "eval_loss": "evaluation loss {:.4f}", "rewards/margins": "margin {:.3f}", "learning_rate": "rate {:.2g}"}


def _line(logs: dict[str, float]) -> str:
    return ", ".join(form.format(logs[name]) for name, form in SHOWN.items() if name in logs)


def train(run: Run, trainer: Any) -> None:
    """From the start or the last whole checkpoint to the end, and a last evaluation if none came just then."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    everything, trained = models.parameters(trainer.model)
    say(f"Training {trained:,} of {everything:,} parameters ({run.settings.method}) for {trainer.args.max_steps:,} steps.")
    checkpoint = run.checkpoint()
    if checkpoint is not None:
        say(f"Going on from {checkpoint.name}.")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    last = max((line["step"] for line in trainer.state.log_history if "eval_loss" in line), default=0)
    if trainer.eval_dataset is not None and last < trainer.state.global_step:
        trainer.evaluate()


def summary(run: Run, history: Sequence[dict[str, Any]]) -> None:
    """What came out, and what to do with it."""
    for name, label in (("loss", "training loss"), ("eval_loss", "evaluation loss"), ("eval_rewards/accuracies", "pairs ranked rightly")):
        values = [line[name] for line in history if name in line]
        if values:
            say(f"{label:22}{values[0]:.4f} -> {values[-1]:.4f}")
    tokens, seconds = throughput(history)
    say(f"{'throughput':22}{tokens / seconds:,.0f} tokens/s ({tokens:,.0f} in {seconds:,.0f} s)")
    say(f"{'written to':22}{run.out}" + (f", merged to {run.out / 'merged'}" if run.settings.merge else ""))
    data = run.settings.data[0]
    say(f"Next: {command('evaluate', '--policy', run.out, '--data', data, '--out', f'{run.out}-evaluated')}")


def throughput(history: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Tokens and seconds of the last session, evaluations in it included."""
    tokens = max((line.get("num_tokens", 0.0) for line in history), default=0.0)
    seconds = next((line["train_runtime"] for line in reversed(history) if "train_runtime" in line), math.nan)
    return tokens, seconds
