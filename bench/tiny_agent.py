"""Train a tiny model that really acts in one environment, the pantry of examples/, on one CPU core.

    OMP_NUM_THREADS=1 python bench/tiny_agent.py OUT --minutes 10 --traces 4000

For machines that have neither a GPU nor the weights of a real model: OUT is a folder that vLLM, transformers and TRL load,
with tool calls in the Hermes format and thoughts in <think> (vLLM's parsers `hermes` and `qwen3`). It learns from scripted
traces and is tried at the end on scenarios of another seed. The values of arguments weigh more than wording in its loss:
without that, a model of this size soon has the wording and then is slow to learn which jar and which food are meant.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tracemill.config import Config
from tracemill.job import build_pipeline
from tracemill.trace import AssistantMessage, Json, Trace

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
ENVIRONMENT = "pantry:Pantry"
VOCABULARY = 800
PIECES = r" ?[A-Za-z_]+| ?[^\sA-Za-z_0-9]+|[0-9]|\s"
BATCH = 16
RATE = 3e-3
WEIGHT = 8.0
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
# A system text beside tools is left out and a tool is one short line: both are the same in every conversation here, and
# every token counts. The marks {% generation %} show what the agent wrote; wrong steps stay outside of them.
CHAT_TEMPLATE = """\
{%- macro written(message) -%}
    {%- if message.reasoning_content -%}{{- "<think>" + message.reasoning_content | trim + "</think>" -}}{%- endif -%}
    {{- message.content or "" -}}
    {%- for call in message.tool_calls or [] -%}
        {{- "<tool_call>\n{\\"name\\": " + call.function.name | tojson + ", \\"arguments\\": " -}}
        {{- call.function.arguments | tojson(sort_keys=true) + "}\n</tool_call>" -}}
    {%- endfor -%}
    {{- "<|im_end|>" -}}
{%- endmacro -%}
{%- if tools -%}
    {{- "<|im_start|>system\n" -}}
    {%- for tool in tools -%}
        {{- tool.function.name + "(" + tool.function.parameters.properties | join(", ") + ")\n" -}}
    {%- endfor -%}
    {{- "<|im_end|>\n" -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == "assistant" -%}
        {{- "<|im_start|>assistant\n" -}}
        {%- if message.train is not defined or message.train -%}
            {%- generation -%}{{- written(message) -}}{%- endgeneration -%}
        {%- else -%}{{- written(message) -}}{%- endif -%}
        {{- "\n" -}}
    {%- elif message.role != "system" or not tools -%}
        {{- "<|im_start|>" + message.role + "\n" + message.content + "<|im_end|>\n" -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|im_start|>assistant\n" -}}{%- endif -%}
"""

Batch = tuple[torch.Tensor, torch.Tensor]
"""Token ids and labels, both (sequences, tokens); -100 is out of the loss."""


def scripted(number: int, seed: int) -> list[Trace]:
    """Accepted traces of the scripted teacher, each with a world of its own."""
    pipeline = build_pipeline(Config(accept={"tool_call": number}, seed=seed, environments={ENVIRONMENT: 1}, flaws=0, worlds=100_000))

    async def run() -> list[Trace]:
        found: list[Trace] = []
        index = 0
        while len(found) < number:
            trace = (await pipeline.mill(index)).trace
            found += [trace] if trace else []
            index += 1
        return found

    return asyncio.run(run())


def conversation(trace: Trace) -> dict[str, Json]:
    """What the chat template takes."""
    return {
        "conversation": [one.model_dump(mode="json", exclude_none=True) for one in trace.messages],
        "tools": [one.plain() for one in trace.tools],
    }


def build_tokenizer(traces: list[Trace], pieces: str = PIECES) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt from the traces; no token is larger than one of the pieces."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pieces), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TAGS), special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    plain = PreTrainedTokenizerFast(tokenizer_object=bpe, chat_template=CHAT_TEMPLATE)
    texts = [plain.apply_chat_template(**conversation(trace), tokenize=False) for trace in traces[:1000]]
    bpe.train_from_iterator((re.sub(r"<.*?>", "\n", text) for text in texts), trainer)
    bpe.add_tokens(TAGS)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        initializer_range=0.05,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def weights(tokenizer: PreTrainedTokenizerFast, traces: list[Trace]) -> torch.Tensor:
    """Weight of each token in the loss, (vocabulary,): wording is soon learnt, the values of arguments are what matters."""
    calls = [step.call for trace in traces for step in trace.scenario.steps]
    values = {str(value) for call in calls for value in call.arguments.values()}
    found = torch.ones(len(tokenizer))
    for value in values:
        found[tokenizer(value).input_ids + tokenizer(" " + value).input_ids] = WEIGHT
    return found


def batches(tokenizer: PreTrainedTokenizerFast, traces: list[Trace]) -> Iterator[Batch]:
    """Traces in random order, those of a batch alike in length; the loss is on what the agent wrote."""
    rows = [tokenizer.apply_chat_template(**conversation(one), return_dict=True, return_assistant_tokens_mask=True) for one in traces]
    rows.sort(key=lambda row: (len(row["input_ids"]), random.random()))
    while True:
        starts = list(range(0, len(rows) - BATCH + 1, BATCH))
        random.shuffle(starts)
        for start in starts:
            yield padded(rows[start : start + BATCH])
        rows.sort(key=lambda row: len(row["input_ids"]) + random.uniform(0, 8))


def padded(rows: list[Any]) -> Batch:
    """Padding on the right needs no mask: no token sees what follows it."""
    longest = max(len(row["input_ids"]) for row in rows)
    ids, labels = torch.zeros(len(rows), longest, dtype=torch.long), torch.full((len(rows), longest), -100)
    for at, row in enumerate(rows):
        tokens, ours = torch.tensor(row["input_ids"]), torch.tensor(row["assistant_masks"]).bool()
        ids[at, : len(tokens)] = tokens
        labels[at, : len(tokens)] = torch.where(ours, tokens, -100)
    return ids, labels


def train(model: Qwen3ForCausalLM, source: Iterator[Batch], weight: torch.Tensor, seconds: float) -> None:
    """The rate rises for 50 steps and falls in a line to a twentieth at the end of the time."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    start = told = time.monotonic()
    tokens, losses = 0, list[float]()
    model.train()
    for step, (ids, labels) in enumerate(source):
        spent = time.monotonic() - start
        if spent > seconds:
            return
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 50) * max(0.05, 1 - spent / seconds)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens, losses = tokens + ids.numel(), [*losses, loss.item()]
        if time.monotonic() - told > 15:
            told = time.monotonic()
            print(f"{spent:6.0f} s{step:7} steps{tokens / 1e6:7.2f}M tokens   loss {sum(losses) / len(losses):.4f}", flush=True)
            losses = []


def meaning(text: str, values: set[str]) -> tuple[list[Json], set[str]]:
    """What a message does, whatever its wording: its calls, or for words to the user the values that it names."""
    said = text.split("<|im_end|>")[0].rpartition("</think>")[2]
    calls = re.findall(r"<tool_call>\n(.*?)\n</tool_call>", said, re.DOTALL)
    try:
        return [json.loads(call) for call in calls], set() if calls else {value for value in values if value in said}
    except json.JSONDecodeError:
        return [said], set()


@torch.inference_mode()
def write(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> list[str]:
    """One greedy reply to each prompt."""
    replies = []
    for start in range(0, len(prompts), 4 * BATCH):
        inputs = tokenizer(prompts[start : start + 4 * BATCH], padding=True, return_tensors="pt", return_token_type_ids=False)
        outputs = model.generate(**inputs, max_new_tokens=160, do_sample=False)
        replies += tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :])
    return replies


def report(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, traces: list[Trace]) -> None:
    """Print how often the model does what the scripted agent did, after the same messages."""
    prompts, wanted, values, first = [], [], [], []
    for trace in traces:
        parts = conversation(trace)
        tools, messages = parts["tools"], parts["conversation"]
        named = set(re.findall(r'": "([^"]+)"', tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)))
        places = [at for at, message in enumerate(trace.messages) if isinstance(message, AssistantMessage)]
        for at in places:
            before = tokenizer.apply_chat_template(messages[:at], tools=tools, tokenize=False, add_generation_prompt=True)
            after = tokenizer.apply_chat_template(messages[: at + 1], tools=tools, tokenize=False)
            prompts.append(before)
            wanted.append(after.removeprefix(before))
            values.append(named)
            first.append(at == places[0])
    model.eval()
    written = write(model, tokenizer, prompts)
    right = [meaning(one, names) == meaning(other, names) for one, other, names in zip(written, wanted, values, strict=True)]
    for reply, other in [pair for *pair, good in zip(written, wanted, right, strict=True) if not good][:5]:
        print(f"  wrong: {reply.split('<|im_end|>')[0]!r}\n  for:   {other.split('<|im_end|>')[0]!r}")
    begun = [good for good, is_first in zip(right, first, strict=True) if is_first]
    print(
        f"the same calls, or words that name the same: {sum(right)} of {len(right)} messages, {sum(begun)} of {len(begun)} first messages"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the model")
    parser.add_argument("--minutes", type=float, default=10, help="of training")
    parser.add_argument("--traces", type=int, default=4000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    traces = scripted(arguments.traces, seed=0)
    seen = {trace.scenario.opening for trace in traces}
    others = [trace for trace in scripted(400, seed=1) if trace.scenario.opening not in seen][:100]
    tokenizer = build_tokenizer(traces)
    model = build_model(tokenizer)
    print(
        f"{model.num_parameters():,} parameters, {len(traces)} traces, {len(others)} held out whose first words do not occur among them",
        flush=True,
    )
    train(model, batches(tokenizer, traces), weights(tokenizer, traces), 60 * arguments.minutes)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    report(model, tokenizer, others)


if __name__ == "__main__":
    main()
