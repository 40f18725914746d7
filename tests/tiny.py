"""A tiny random model with tokenizer and chat template, made in code: real enough for vLLM, transformers and TRL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tracemill import generators

VOCABULARY = 1000
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
CHAT_TEMPLATE = """\
{%- if tools or messages[0].role == "system" -%}
    {{- "<|im_start|>system\n" -}}
    {%- if messages[0].role == "system" -%}{{- messages[0].content + "\n" -}}{%- endif -%}
    {%- if tools -%}
        {{- "You may call these tools:\n<tools>\n" -}}
        {%- for tool in tools -%}{{- tool | tojson + "\n" -}}{%- endfor -%}
        {{- "</tools>\nA call: <tool_call>\n{\\"name\\": ..., \\"arguments\\": {...}}\n</tool_call>\n" -}}
    {%- endif -%}
    {{- "<|im_end|>\n" -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == "user" -%}
        {{- "<|im_start|>user\n" + message.content + "<|im_end|>\n" -}}
    {%- elif message.role == "assistant" -%}
        {{- "<|im_start|>assistant\n" -}}
        {%- if message.reasoning_content -%}{{- "<think>\n" + message.reasoning_content | trim + "\n</think>\n" -}}{%- endif -%}
        {{- message.content or "" -}}
        {%- for call in message.tool_calls or [] -%}
            {%- set arguments = call.function.arguments -%}
            {{- "\n" if message.content or not loop.first else "" -}}
            {{- "<tool_call>\n{\\"name\\": " + call.function.name | tojson + ", \\"arguments\\": " -}}
            {{- (arguments if arguments is string else arguments | tojson) + "}\n</tool_call>" -}}
        {%- endfor -%}
        {{- "<|im_end|>\n" -}}
    {%- elif message.role == "tool" -%}
        {%- if loop.first or loop.previtem.role != "tool" -%}{{- "<|im_start|>user\n" -}}{%- endif -%}
        {{- "<tool_response>\n" + message.content + "\n</tool_response>\n" -}}
        {%- if loop.last or loop.nextitem.role != "tool" -%}{{- "<|im_end|>\n" -}}{%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|im_start|>assistant\n" -}}{%- endif -%}
"""


def build_tiny_model(
    folder: Path, *, texts: Sequence[str] = (), hidden: int = 64, layers: int = 2, max_position: int = 8192, seed: int = 0
) -> Path:
    """Write a random Qwen3 of about 0.2M parameters (float32) and its tokenizer to `folder`, and return that.

    The same arguments give the same files. The tokenizer learns from `texts` after the wording of the package.
    """
    tokenizer = build_tokenizer(texts)
    tokenizer.model_max_length = max_position
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 32),
        num_key_value_heads=max(1, hidden // 32),
        head_dim=32,
        max_position_embeddings=max_position,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_tokenizer(texts: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that every text can be written; each digit is a token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TAGS),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = sorted((Path(generators.__file__).parent / "prompts").iterdir())
    bpe.train_from_iterator([*(prompt.read_text(encoding="utf-8") for prompt in prompts), *texts], trainer)
    bpe.add_tokens(list(TAGS))
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
