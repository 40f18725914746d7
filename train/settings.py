"""What training can be told: a YAML file, with command-line flags on top. Problems are reported all at once."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from tracemill.config import read_config, validation_problems
from tracemill.errors import ConfigError
from tracemill.trace import Json, Kind
from tracemill.train.forgetting import EwcSettings, KlSettings
from tracemill.train.mixing import called, parse_mixes

Method = Literal["lora", "qlora", "full"]
S = TypeVar("S", bound="TrainSettings")
LORA = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "targets": "target_modules"}
"""What has a part in an adapter alone, and its names in adapter_config.json."""


class TrainSettings(BaseModel):
    """What SFT and DPO have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    RATES: ClassVar[dict[Method, float]] = {}
    """Learning rates by method; docs/training.md gives the reasons."""

    data: tuple[Path, ...] = Field(min_length=1, description="Output folders of runs.")
    model: str = Field(min_length=1, description="Folder or Hub name of a model, or folder of an adapter, which is trained on.")
    out: Path = Field(description="Where the result goes; a training that is there already is continued.")
    method: Method = Field(default="lora", description="lora, qlora (4-bit base; needs a CUDA GPU and bitsandbytes) or full.")
    learning_rate: float | None = Field(default=None, gt=0, description="Peak learning rate; that of the method if not given.")
    epochs: float = Field(default=1.0, gt=0, description="Passes over the data.")
    max_steps: int | None = Field(default=None, ge=1, description="Optimizer steps, whatever the epochs say.")
    batch_size: int = Field(default=2, ge=1, description="Rows of a forward pass on each device.")
    gradient_accumulation: int = Field(default=4, ge=1, description="Forward passes of one optimizer step.")
    max_length: int = Field(default=4096, ge=8, description="Tokens of the longest row.")
    reasoning: Literal["train", "keep", "drop"] = Field(
        default="train", description="Thinking: in the loss, in the context only, or nowhere."
    )
    eval_share: float = Field(default=0.05, ge=0, lt=1, description="Share of the traces that is held out and measured.")
    seed: int = Field(default=0, ge=0, description="Same seed, settings and data, same weights on one machine.")
    report_to: str = Field(default="none", description="Where metrics go besides OUT: tensorboard, wandb, ... (as transformers has it).")
    save_steps: int | None = Field(
        default=None, ge=1, description="Steps between checkpoints and evaluations; a tenth of the run if not given."
    )
    rank: int = Field(default=16, ge=1, description="LoRA: rank of the update.")
    alpha: float | None = Field(default=None, gt=0, description="LoRA: scale of the update, times rank; twice the rank if not given.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="LoRA: dropout in front of the update.")
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        default="all-linear", description="LoRA: names of the modules that are adapted."
    )
    merge: bool = Field(default=False, description="Write base and adapter as one model to OUT/merged too.")
    workers: int = Field(default=1, ge=1, le=4096, description="Data-parallel workers through Ray Train.")
    ewc: EwcSettings | None = Field(default=None, description="Hold weights that old data needs: sample, strength, examples.")
    kl: KlSettings | None = Field(default=None, description="Hold the predictions of the old model: weight, temperature, sample.")
    license: str | None = Field(default=None, description="Licence of the result, as the Hub writes it; the base model's if not given.")

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"out", "report_to", "save_steps", "merge", "workers", "license"})
    """What may change between a training and its continuation; data and model are compared by content."""

    @field_validator("data", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @field_validator("data")
    @classmethod
    def _there(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        missing = [str(folder) for folder in value if not folder.is_dir()]
        if missing:
            raise ValueError(f"expected output folders of `tracemill generate`; no such folder: {', '.join(missing)}")
        return value

    @field_validator("method")
    @classmethod
    def _possible(cls, value: Method) -> Method:
        if value == "qlora" and (lacking := _lacking_for_qlora()):
            raise ValueError(f"qlora needs {' and '.join(lacking)}, which this machine lacks; use lora")
        return value

    @field_validator("report_to")
    @classmethod
    def _installed(cls, value: str) -> str:
        if value != "none" and value not in (known := _integrations()):
            raise ValueError(f"is not installed; take {' or '.join(['none', *known])}")
        return value

    # What does not go together is told of one setting, so that it is told beside all other problems.

    @field_validator("merge")
    @classmethod
    def _suited(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("method") == "full":
            raise ValueError("a full fine-tune writes a whole model anyway; leave it out")
        return value

    @property
    def rate(self) -> float:
        return self.learning_rate if self.learning_rate is not None else self.RATES[self.method]

    @property
    def scale(self) -> float:
        return self.alpha if self.alpha is not None else 2 * self.rank

    def plain(self) -> dict[str, Json]:
        """For files that travel: folders by their names only, since where they lay says nothing elsewhere; what has no part is left out."""
        plain: dict[str, Json] = self.model_dump(mode="json", exclude={"out"})
        plain |= {"data": [folder.resolve().name for folder in self.data], "learning_rate": self.rate, "alpha": self.scale}
        plain["model"] = Path(self.model).resolve().name if Path(self.model).is_dir() else self.model
        for term in (plain["ewc"], plain["kl"]):
            if term and term["sample"]:
                term["sample"] = called(term["sample"])
        return {key: value for key, value in plain.items() if key not in LORA or self.method != "full"}


class SftSettings(TrainSettings):
    """Everything that `tracemill train sft` can be told."""

    RATES: ClassVar[dict[Method, float]] = {"full": 2e-5, "lora": 2e-4, "qlora": 2e-4}

    kinds: tuple[Kind, ...] | None = Field(default=None, description="Only traces of these kinds.")
    epochs: float = Field(default=3.0, gt=0, description="Passes over the data.")
    packing: bool = Field(default=True, description="Several conversations in a row, none of which sees the others.")
    too_long: Literal["split", "drop"] = Field(default="split", description="What becomes of a trace beyond max_length.")
    mask_wrong: bool = Field(default=True, description="Keep steps of the run that are marked as wrong out of the loss.")
    mix: tuple[str, ...] = Field(default=(), description="Other data and their shares of the trained tokens: SOURCE=SHARE each.")
    stream: bool = Field(default=False, description="Train on a run that still grows; takes max_steps.")

    def plain(self) -> dict[str, Json]:
        parts = [text.rpartition("=") for text in self.mix]
        return {**super().plain(), "mix": [f"{called(source)}={share}" for source, _, share in parts]}

    @field_validator("mix")
    @classmethod
    def _mixable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            parse_mixes(value)
        except ConfigError as reason:
            raise ValueError("; ".join(reason.problems)) from None
        return value

    @field_validator("stream")
    @classmethod
    def _streamed(cls, value: bool, info: ValidationInfo) -> bool:
        problems = []
        if value and info.data.get("max_steps", 1) is None:
            problems.append("a stream has no end of its own, say with max_steps after how many steps to stop")
        if value and len(info.data.get("data", ())) > 1:
            problems.append(f"a stream is read from one folder, got {len(info.data['data'])}")
        if value and info.data.get("workers", 1) > 1:
            problems.append("a stream is read by one process, leave workers at 1")
        if problems:
            raise ValueError("; ".join(problems))
        return value


class DpoSettings(TrainSettings):
    """Everything that `tracemill train dpo` can be told."""

    RATES: ClassVar[dict[Method, float]] = {"full": 5e-7, "lora": 5e-6, "qlora": 5e-6}

    beta: float = Field(default=0.1, gt=0, description="How strongly the model is held to where it started.")
    sft: float = Field(default=0.0, ge=0, description="Weight of the SFT loss on the chosen message, added to the preference loss.")

    @field_validator("reasoning")
    @classmethod
    def _counted(cls, value: str) -> str:
        if value == "keep":
            raise ValueError("every token after the prompt counts in DPO, thoughts too; take train or drop")
        return value


def load_settings(cls: type[S], path: Path | None, flags: Mapping[str, Any]) -> S:
    """Read a YAML file, put the flags that were given (not None) on top, and check it all. Raises ConfigError."""
    given = dict(read_config(path)) if path else {}
    for key, value in flags.items():
        if isinstance(value, Mapping) and isinstance(given.get(key), Mapping):
            given[key] = {**given[key], **value}  # a flag sets one value of such a map, and leaves the file's others
        elif value is not None:
            given[key] = value
    try:
        return cls.model_validate(given)
    except ValidationError as errors:
        problems = validation_problems(errors, cls)
        raise ConfigError(f"the settings{f' {path}' if path else ''} have {len(problems)} problem(s)", problems) from None


def _integrations() -> list[str]:
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    known: list[str] = get_available_reporting_integrations()  # type: ignore[no-untyped-call]
    return known


def _lacking_for_qlora() -> list[str]:
    import torch

    lacking = [] if torch.cuda.is_available() else ["a CUDA GPU"]
    return lacking + ([] if importlib.util.find_spec("bitsandbytes") else ["the package bitsandbytes"])
