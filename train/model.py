"""Models and adapters: what is loaded, what is trained of it, and how it is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracemill.errors import ConfigError
from tracemill.trace import Json, fingerprint
from tracemill.train.settings import TrainSettings

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER = "adapter_config.json"


def load_tokenizer(settings: TrainSettings) -> PreTrainedTokenizerBase:
    """That of the model or adapter. Raises ConfigError if there is none, or if it has no chat template."""
    from transformers import AutoTokenizer

    folder = Path(settings.model)
    name = settings.model if not is_adapter(folder) or (folder / "tokenizer_config.json").is_file() else base_of(folder)
    tokenizer: PreTrainedTokenizerBase
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as reason:
        raise ConfigError(f"model: no tokenizer in {name}: {_first_line(reason)}") from reason
    if not tokenizer.chat_template:
        raise ConfigError(f"model: {name} has no chat template; use an instruction-tuned model, or add chat_template.jinja to its folder")
    return tokenizer


def load_model(settings: TrainSettings) -> tuple[Any, LoraConfig | None]:
    """The model, and the adapter that the trainer is to add: none for a full fine-tune, or where one is trained on.

    Weights that are trained are float32 (on a GPU they compute in bfloat16): in bfloat16 an update of 1e-5 is lost in
    rounding. Weights that stay are bfloat16 on a GPU, or 4-bit with qlora.
    """
    from peft import PeftModel

    folder = Path(settings.model)
    if not is_adapter(folder):
        model = _base(settings.model, settings)
        return model, None if settings.method == "full" else lora(settings)
    tuned: Any = PeftModel.from_pretrained(_base(base_of(folder), settings), folder, is_trainable=True)
    return (tuned.merge_and_unload().requires_grad_(True) if settings.method == "full" else tuned), None


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).is_file()


def base_of(adapter: Path) -> str:
    """Folder or Hub name of the model that an adapter belongs to. Raises ConfigError if the adapter does not say."""
    name = json.loads((adapter / ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not name:
        raise ConfigError(f"{adapter / ADAPTER} does not name its base model: write it there as base_model_name_or_path")
    return str(name)


def identity(model: str) -> dict[str, Json]:
    """What tells a model from another: its name and, of a folder, what its files say of it (their names, sizes and settings)."""
    folder = Path(model)
    if not folder.is_dir():
        return {"name": model}
    files = {path.name: path.stat().st_size for path in sorted(folder.glob("*.safetensors"))}
    texts = {path.name: path.read_text(encoding="utf-8") for path in (folder / "config.json", folder / ADAPTER) if path.is_file()}
    return {"name": folder.resolve().name, "fingerprint": fingerprint([files, texts])}


def parameters(model: Any) -> tuple[int, int]:
    """How many numbers the model has, and how many of them are trained."""
    counts = [(one.numel(), one.requires_grad) for one in model.parameters()]
    return sum(count for count, _ in counts), sum(count for count, trained in counts if trained)


def save(model: Any, tokenizer: PreTrainedTokenizerBase, settings: TrainSettings) -> None:
    """The adapter, or the whole model, with tokenizer and chat template; and OUT/merged, if so wished."""
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")  # the frozen copy that DPO compares with: it is what training began with, and is there already
    _write(model, tokenizer, settings.out)
    if settings.merge:
        _write(_merged(model, settings), tokenizer, settings.out / "merged")


def _merged(model: Any, settings: TrainSettings) -> Any:
    """Base and adapter as one. A 4-bit base is loaded anew: what is added to rounded weights would be rounded too."""
    from peft import PeftModel

    if settings.method == "qlora":
        exact = settings.model_copy(update={"method": "lora"})
        model = PeftModel.from_pretrained(_base(base_of(settings.out), exact), settings.out)
    return model.merge_and_unload()


def _write(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _base(name: str, settings: TrainSettings) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    quantized = {"quantization_config": _four_bit(), "device_map": {"": _local_rank()}} if settings.method == "qlora" else {}
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(name, dtype=_dtype(settings), **quantized)
    except (OSError, ValueError) as reason:
        raise ConfigError(f"model: cannot load {name}: {_first_line(reason)}") from reason
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if room is not None and settings.max_length > room:
        raise ConfigError(f"max_length: {name} reads at most {room} tokens; got {settings.max_length}")
    return model


def _dtype(settings: TrainSettings) -> torch.dtype:
    import torch

    return torch.bfloat16 if bf16() and settings.method != "full" else torch.float32


def bf16() -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def _four_bit() -> Any:
    """As in QLoRA (https://arxiv.org/abs/2305.14314): NF4, its constants quantized too, computing in bfloat16."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )


def _local_rank() -> int:
    import os

    return int(os.environ.get("LOCAL_RANK", "0"))


def lora(settings: TrainSettings) -> LoraConfig:
    """The adapter that is asked for."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha if settings.alpha is not None else 2 * settings.rank,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=settings.targets if isinstance(settings.targets, str) else list(settings.targets),
    )


def _first_line(reason: Exception) -> str:
    return str(reason).strip().splitlines()[0] if str(reason).strip() else type(reason).__name__
