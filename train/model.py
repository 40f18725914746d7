"""Models and adapters: what is loaded, what is trained of it, and how it is saved."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracemill.errors import ConfigError
from tracemill.trace import Json, fingerprint
from tracemill.train.settings import LORA, TrainSettings

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER = "adapter_config.json"
PIECE, PIECES = 2**14, 2**10  # bytes of a file that tell it from another: all of 16 MiB, a sample of more
FILES = ("*.safetensors", "*.bin", "*.gguf", "config.json", ADAPTER, "tokenizer*", "chat_template*")
"""Of a model's folder, what it answers by; cards, curves and records of its training are none of it."""


def load_tokenizer(settings: TrainSettings) -> PreTrainedTokenizerBase:
    """That of the model or adapter. Raises ConfigError if there is none, or if it has no chat template."""
    from transformers import AutoTokenizer

    folder = Path(settings.model)
    name = settings.model if not is_adapter(folder) or (folder / "tokenizer_config.json").is_file() else base_of(folder)
    told = name if name == settings.model else f"{name}, the base named in {folder / ADAPTER}"
    tokenizer: PreTrainedTokenizerBase
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as reason:  # of a broken file the loader makes what it likes
        raise ConfigError(f"model: no tokenizer in {told}: {_first_line(reason)}") from reason
    if not tokenizer.chat_template:
        raise ConfigError(f"model: {name} has no chat template; use an instruction-tuned model, or add chat_template.jinja to its folder")
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"model: the tokenizer of {name} has no token that ends a text: name it as eos_token in tokenizer_config.json")
    return tokenizer


def load_model(settings: TrainSettings) -> tuple[Any, LoraConfig | None]:
    """The model, and the adapter that the trainer is to add: none for a full fine-tune, or where one is trained on.

    Weights that are trained are float32 (on a GPU they compute in bfloat16): in bfloat16 an update of 1e-5 is lost in
    rounding. Weights that stay are bfloat16 on a GPU, or 4-bit with qlora.
    """
    folder = Path(settings.model)
    if is_adapter(folder):
        tuned = _tuned(folder, settings, is_trainable=True)
        return (_merged(tuned).requires_grad_(True) if settings.method == "full" else tuned), None
    model = _base(settings.model, settings)
    if settings.method == "full":
        return model, None
    _check_targets(model, settings)
    return model, lora(settings)


def _tuned(adapter: Path, settings: TrainSettings, **how: Any) -> Any:
    """An adapter on its base."""
    from peft import PeftModel

    if not any(adapter.glob("adapter_model.*")):
        raise ConfigError(f"model: {adapter} holds no weights of an adapter: expected adapter_model.safetensors")
    base = _base(base_of(adapter), settings, f", the base named in {adapter / ADAPTER}")
    with _loading(f"the adapter {adapter}"):
        return PeftModel.from_pretrained(base, str(adapter), **how)


def _check_targets(model: Any, settings: TrainSettings) -> None:
    """PEFT passes over names that fit nothing as long as one fits."""
    if isinstance(settings.targets, str):
        return
    head = model.get_output_embeddings()
    named = {name: one for name, one in model.named_modules() if getattr(getattr(one, "weight", None), "ndim", 0) > 1 and one is not head}
    missing = [target for target in settings.targets if not any(f".{name}".endswith(f".{target}") for name in named)]
    if missing:
        known = sorted({name.rpartition(".")[2] for name in named})
        raise ConfigError(f"targets: {settings.model} has no {' or '.join(missing)} that can be adapted; it has {', '.join(known)}")


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).is_file()


def base_of(adapter: Path) -> str:
    """Folder or Hub name of the model that an adapter belongs to. Raises ConfigError if the adapter does not say."""
    name = _adapter_config(adapter).get("base_model_name_or_path")
    if not name:
        raise ConfigError(f"{adapter / ADAPTER} does not name its base model: write it there as base_model_name_or_path")
    return str(name)


def _adapter_config(adapter: Path) -> dict[str, Json]:
    try:
        config = json.loads((adapter / ADAPTER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise ConfigError(f"model: cannot read {adapter / ADAPTER}: {_first_line(reason)}") from reason
    if not isinstance(config, dict):
        raise ConfigError(f"model: {adapter / ADAPTER} holds no map of settings")
    return config


def adapted(settings: TrainSettings) -> dict[str, Json]:
    """The LoRA settings of an adapter that is trained on: its own. Raises ConfigError where others were asked for."""
    folder = Path(settings.model)
    if settings.method == "full" or not is_adapter(folder):
        return {}
    config = _adapter_config(folder)
    own = {name: config.get(theirs) for name, theirs in LORA.items()}
    own["targets"] = sorted(own["targets"]) if isinstance(own["targets"], list) else own["targets"]
    asked = settings.model_dump(mode="json", include=settings.model_fields_set & LORA.keys(), exclude_none=True)
    if isinstance(asked.get("targets"), list):
        asked["targets"].sort()
    wrong = [
        f"{name}: {own[name]} in the adapter, {value} asked for" for name, value in asked.items() if value not in (own[name], "all-linear")
    ]
    if wrong:
        raise ConfigError(f"{folder} is trained on as it is: leave these settings out, or begin with its base", wrong)
    return own


def identity(model: str) -> dict[str, Json]:
    """What tells a model from another: its name and, of a folder, what is in it; of an adapter, also its base."""
    folder = Path(model)
    if not folder.is_dir():
        return {"name": model}
    base: dict[str, Json] = {"base": identity(base_of(folder))} if is_adapter(folder) else {}
    return {"name": folder.resolve().name, "fingerprint": contents(folder), **base}


def commit(name: str) -> str | None:
    """That a model of the Hub, which has been loaded by its name, was loaded at; None where the cache does not tell."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent.name if isinstance(found, str) else None


def contents(path: Path) -> str:
    """The fingerprint of a file, or of the files by which a model's folder answers: of large ones their size and some of their bytes."""
    files = sorted({file for pattern in FILES for file in path.glob(pattern)}) if path.is_dir() else [path]
    return fingerprint({file.name: _digest(file) for file in files})


def _digest(path: Path) -> str:
    """Of pieces all over a file: training changes nearly every weight, and reading 100 GB takes minutes."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in range(0, size, max(PIECE, size // PIECES)):
            file.seek(start)
            digest.update(file.read(PIECE))
    return digest.hexdigest()


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
        # A 4-bit base is loaded anew: what is added to rounded weights would be rounded too.
        merge(settings, tokenizer, None if settings.method == "qlora" else model)


def merge(settings: TrainSettings, tokenizer: PreTrainedTokenizerBase, tuned: Any = None) -> None:
    """Write OUT/merged: base and adapter as one, from OUT if the model is not given."""
    tuned = tuned if tuned is not None else _tuned(settings.out, settings.model_copy(update={"method": "lora"}))
    parts, merged = settings.out / ".merged", settings.out / "merged"
    _write(_merged(tuned), tokenizer, parts)
    shutil.rmtree(merged, ignore_errors=True)
    parts.replace(merged)


def _merged(tuned: Any) -> Any:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn import Parameter

    inner = tuned.get_base_model()
    if isinstance(inner.get_input_embeddings(), BaseTunerLayer):
        # The adapter changed the embeddings and not the head, so that the two can no longer be one matrix.
        head = inner.get_output_embeddings()
        head.weight = Parameter(head.weight.detach().clone())
        inner.config.tie_word_embeddings = inner.config.get_text_config().tie_word_embeddings = False
    return tuned.merge_and_unload()


def _write(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _base(name: str, settings: TrainSettings, what: str = "") -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    quantized = {"quantization_config": _four_bit(), "device_map": {"": _local_rank()}} if settings.method == "qlora" else {}
    with _loading(name + what):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(name, dtype=_dtype(settings), **quantized)
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if room is not None and settings.max_length > room:
        raise ConfigError(f"max_length: {name} reads at most {room} tokens; got {settings.max_length}")
    return model


@contextmanager
def _loading(what: str) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as reason:
        raise ConfigError(f"model: cannot load {what}: {_first_line(reason)}") from reason


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
        lora_alpha=settings.scale,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=settings.targets if isinstance(settings.targets, str) else list(settings.targets),
    )


def _first_line(reason: Exception) -> str:
    return str(reason).strip().splitlines()[0] if str(reason).strip() else type(reason).__name__
