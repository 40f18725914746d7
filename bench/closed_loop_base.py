"""The base model of bench/closed_loop.py: from nothing to a model that can copy, and nothing else.

    OMP_NUM_THREADS=1 python bench/closed_loop_base.py OUT --traces RUN --tokens 300000

What such a small model learns last is to repeat an identifier that it has read, so that is taught first, on words that mean
nothing: one to four of them between random separators, again and again in the same order. The loss is on all but their first
round. Without it, fine-tuning for the same time ends in fluent calls about the wrong parcel. For the same reason a name is the
same token wherever it stands: a space before it is a token of its own, and so is each digit.
"""

from __future__ import annotations

import argparse
import functools
import random
import string
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import tiny_agent
import torch

from tracemill.columns import from_row
from tracemill.trace import Trace

BATCH, LENGTH = 16, 64
RATE = 3e-3
PIECES = r"[A-Z][A-Za-z_]*| ?[a-z_]+| ?[^\sA-Za-z_0-9]+|[0-9]|\s"
SEPARATORS = (" ", ", ", "', '", '": "', " is ", ". ", "\n", ": ")
Ids = list[int]


def build_base(out: Path, traces: Path, tokens: int) -> None:
    """Write a model with a tokenizer whose vocabulary comes from the traces of a run; no trace is trained on."""
    torch.manual_seed(0)
    rng = random.Random(0)
    shards = sorted(traces.glob("data/*/part-*.parquet"))
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()[:500]]
    tokenizer = tiny_agent.build_tokenizer([from_row(Trace, row) for row in rows], PIECES)
    model = tiny_agent.build_model(tokenizer)
    names = [text for text in tokenizer.get_vocab() if text.isalpha() and text.istitle()]
    encode = functools.cache(lambda text: tokenizer(text).input_ids)
    warm_up(model, repeats(encode, names, rng), tokens // (BATCH * LENGTH))
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def repeats(encode: Callable[[str], Ids], names: Sequence[str], rng: random.Random) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token ids and labels, both (BATCH, LENGTH); -100 is out of the loss."""
    while True:
        rows = [_row(encode, names, rng) for _ in range(BATCH)]
        yield torch.tensor([ids for ids, _ in rows]), torch.tensor([labels for _, labels in rows])


def _row(encode: Callable[[str], Ids], names: Sequence[str], rng: random.Random) -> tuple[Ids, Ids]:
    words = [encode(_word(names, rng)) for _ in range(rng.randint(1, 4))]
    ids: Ids = []
    labels: Ids = []
    first = True
    while len(ids) < LENGTH:
        for word in words:
            separator = encode(rng.choice(SEPARATORS))
            ids += separator + word
            labels += [-100] * len(separator) + ([-100] * len(word) if first else word)
        first = False
    return ids[:LENGTH], labels[:LENGTH]


def _word(names: Sequence[str], rng: random.Random) -> str:
    """Like an id, a place or a name."""
    letter, digits = rng.choice(string.ascii_uppercase), "".join(rng.choices(string.digits, k=rng.randint(1, 3)))
    return rng.choice((f"{letter}-{digits}", f"{letter}{digits}", rng.choice(names)))


def warm_up(model: Any, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], steps: int) -> None:
    """The rate rises for 50 steps and falls in a line to a twentieth."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    started, losses = time.monotonic(), list[float]()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / 50) * max(0.05, 1 - step / steps)
        ids, labels = next(batches)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 100 == 0 or step == steps:
            tokens = step * BATCH * LENGTH
            spent = time.monotonic() - started
            print(f"  {tokens / 1e6:.2f}M tokens, {tokens / spent:,.0f}/s, loss {sum(losses) / len(losses):.3f}", flush=True)
            losses = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the model")
    parser.add_argument("--traces", type=Path, required=True, help="a run, for the vocabulary")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of the warm-up")
    arguments = parser.parse_args()
    build_base(arguments.out, arguments.traces, arguments.tokens)


if __name__ == "__main__":
    main()
