"""Packing: several conversations in one row, each of which sees only itself.

TRL lays the rows of a packed batch end to end. Without FlashAttention the mask that keeps conversations apart then has
as many entries as the batch has tokens, squared. Here attention runs conversation by conversation instead: the same
numbers, and the cost is that of the conversations alone.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface
from transformers.utils import is_flash_attn_2_available  # type: ignore[attr-defined]

NAME = "conversations"
POOL = 64  # conversations of a stream that are packed at a time: more would fill rows better and let training wait longer


def pack(dataset: Any, max_length: int) -> Any:
    """Rows of at most `max_length` tokens with columns input_ids, labels and seq_lengths; no token is lost."""
    from datasets import IterableDataset
    from trl import pack_dataset  # type: ignore[attr-defined]

    only = dataset.select_columns(["input_ids", "labels"])
    return pack_dataset(only, max_length, "bfd", {"batch_size": POOL} if isinstance(dataset, IterableDataset) else None)


def attend_within(model: Any) -> None:
    """Let the model's layers see one conversation at a time. Models whose layers attend in other ways stay as they are."""
    if model.device.type == "cuda" and is_flash_attn_2_available():
        model.set_attn_implementation("flash_attention_2")
    elif _is_plain(model):
        model.set_attn_implementation(NAME)


def _is_plain(model: Any) -> bool:
    """Whether all layers use transformers' attention interface, causal and without windows."""
    config = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return model.config._attn_implementation == "sdpa" and layers == {"full_attention"} and not windowed


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within [cu_seq_lens_q[i], cu_seq_lens_q[i + 1]). In: (1, heads, tokens, size); out: (1, tokens, heads, size)."""
    tokens = query.shape[2]
    lengths = [tokens] if cu_seq_lens_q is None else cu_seq_lens_q.diff().tolist()
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=query.shape[1] != key.shape[1]
        )
        for q, k, v in zip(*(torch.split(one, lengths, 2) for one in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attention)
