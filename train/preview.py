"""`tracemill train preview`: read, token by token, what will be learned.

On a terminal trained text is green; elsewhere it stands between ⟦ and ⟧. What a trace says is only ever put into `Text`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from tracemill.errors import ConfigError, DatasetError
from tracemill.stats import clean, open_console, read_run
from tracemill.train.data import IGNORED, Encoder, Example, Reasoning, Told, shards, told

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STYLES: Mapping[str, str] = {"trained": "bold green", "context": "dim", "wrong": "strike red", "thought": "italic yellow"}
MARKS: Mapping[str, tuple[str, str]] = {"trained": ("⟦", "⟧"), "context": ("", ""), "wrong": ("⟪", "⟫"), "thought": ("‹", "›")}
LEGEND: Mapping[str, str] = {
    "trained": "what the model learns to write",
    "context": "what it sees",
    "wrong": "a wrong step: seen, not learned",
    "thought": "a thought: seen, not learned",
}
SPECIAL = "underline"
LONGEST, ENDS = 1500, 500  # characters of context that are shown whole, and of each end of what is longer


def preview(
    out: Path, model: str, *, limit: int = 3, kind: str | None = None, reasoning: Reasoning = "train", max_length: int = 4096
) -> None:
    """Print the examples of some traces, kinds in turn, then what became of these traces.

    `model` names a tokenizer: a folder or a name on the Hub. Raises ConfigError and DatasetError.
    """
    read_run(out)
    chosen = list(itertools.islice(_in_turn(out, kind), limit))
    if not chosen:
        raise DatasetError(f"{out} holds no traces" + (f" of kind {kind}" if kind else " yet"))
    view = View(_load(model), reasoning, max_length)
    console = open_console()
    console.print(legend(coloured(console)), soft_wrap=not console.is_terminal)
    for name, record in chosen:
        for text in view.examples(name, record, marked=not coloured(console)):
            console.print(text, soft_wrap=not console.is_terminal)
    console.print(Text(f"Of the {len(chosen):,} traces shown:", "bold"))
    for line in view.encoder.report.lines():
        console.print(Text(clean(line)))


def coloured(console: Console) -> bool:
    return console.is_terminal and console.color_system is not None and not console.no_color


def legend(colours: bool) -> Text:
    line = Text()
    for what, meaning in LEGEND.items():
        before, after = ("", "") if colours else MARKS[what]
        line.append(f"{before}{meaning}{after}", STYLES[what]).append("   ")
    return line.append("token of the template", SPECIAL) if colours else line


class View:
    """What an encoder makes of traces, as text for a person."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, reasoning: Reasoning, max_length: int) -> None:
        self._tokenizer: Any = tokenizer
        self._special = set(tokenizer.all_special_ids)
        self.encoder = Encoder(tokenizer, max_length=max_length, reasoning=reasoning)
        # What these train in addition is what the first one hides.
        self._with_wrong = Encoder(tokenizer, max_length=max_length, reasoning=reasoning, mask_wrong=False)
        self._with_thoughts = Encoder(tokenizer, max_length=max_length, reasoning="train") if reasoning == "keep" else self.encoder

    def examples(self, name: str, record: Told, *, marked: bool) -> Iterator[Text]:
        """One text for each example of a trace; `marked` for readers without colours."""
        every = [one.encode(record.id, record.messages, record.tools) for one in (self.encoder, self._with_wrong)]
        ours, wrong = every
        thoughts = self._with_thoughts.encode(record.id, record.messages, record.tools) if self._with_thoughts is not self.encoder else ours
        for number, example in enumerate(ours, 1):
            kinds = _kinds(example, ours, wrong, thoughts)
            count = sum(kind == "trained" for kind in kinds)
            head = f"── {record.id} · {name} · example {number} of {len(ours)}"
            size = f" · {len(kinds):,} tokens, {count:,} trained ({count / len(kinds):.1%})"
            yield Text.assemble((clean(head), "bold"), size, "\n", self._body(example, kinds, marked), "\n")

    def _body(self, example: Example, kinds: Sequence[str], marked: bool) -> Text:
        body = Text()
        at = 0
        for kind, run in itertools.groupby(kinds):
            ids = example.input_ids[at : at + len(list(run))]
            at += len(ids)
            before, after = MARKS[kind] if marked else ("", "")
            body.append(before, STYLES[kind]).append_text(self._run(ids, kind)).append(after, STYLES[kind])
        return body

    def _run(self, ids: Sequence[int], kind: str) -> Text:
        """Tokens of one kind; of a long context only the ends."""
        text = Text()
        for special, some in itertools.groupby(ids, self._special.__contains__):
            said = clean(self._tokenizer.decode(list(some), skip_special_tokens=False))
            text.append(said, f"{STYLES[kind]} {SPECIAL}" if special else STYLES[kind])
        if kind != "context" or len(text) <= LONGEST:
            return text
        left = f"\n… {len(text) - 2 * ENDS:,} characters of {len(ids):,} tokens are not shown …\n"
        return Text.assemble(text[:ENDS], (left, "italic"), text[-ENDS:])


def _kinds(example: Example, ours: Sequence[Example], with_wrong: Sequence[Example], with_thoughts: Sequence[Example]) -> list[str]:
    """'trained', 'wrong', 'thought' or 'context' for each token."""
    mine = _trained_anywhere(example, ours)
    wrong = _trained_anywhere(example, with_wrong) - mine
    thoughts = _trained_anywhere(example, with_thoughts) - mine - wrong
    kinds = ["wrong" if at in wrong else "thought" if at in thoughts else "context" for at in range(len(example.labels))]
    return ["trained" if label != IGNORED else kind for label, kind in zip(example.labels, kinds, strict=True)]


def _trained_anywhere(example: Example, others: Sequence[Example]) -> set[int]:
    """Tokens that these examples train, as far as they begin like this one."""
    found: set[int] = set()
    for other in others:
        pairs = enumerate(zip(example.input_ids, other.input_ids, other.labels, strict=False))
        alike = itertools.takewhile(lambda pair: pair[1][0] == pair[1][1], pairs)
        found |= {at for at, (_, _, label) in alike if label != IGNORED}
    return found


def _in_turn(out: Path, kind: str | None) -> Iterator[tuple[str, Told]]:
    """Traces with the names of their folders: one of each kind, then the next of each."""
    folders = {path.parent.name: path.parent for path in shards(out) if kind in (None, path.parent.name)}
    streams = [zip(itertools.repeat(name), told(folder), strict=False) for name, folder in folders.items()]
    for some in itertools.zip_longest(*streams):
        yield from (one for one in some if one is not None)


def _load(model: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as reason:
        raise ConfigError(f"no tokenizer can be loaded from {model}", [" ".join(str(reason).split())[:300]]) from reason
    return tokenizer
