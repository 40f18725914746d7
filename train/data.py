"""Traces as token ids and labels: what is trained is what the model will have to write, after what it will then see.

A message of the agent is trained from the end of the prompt that inference renders for it to the token at which
generation stops. As long as the prompt of a later message begins with those of the earlier ones, a whole trace is one
example. Templates that take back what they showed before (Qwen3 leaves out the thoughts of earlier turns) need several:
each message is trained in an example that shows everything before it exactly as inference would.

Token ids are made piece by piece: the text is cut where a message of the agent begins and ends, so that no token lies
across a border, whatever the tokenizer, and prompts have the very ids that inference gives them.
"""

from __future__ import annotations

import copy
import fcntl
import itertools
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tracemill.columns import from_row, shapes
from tracemill.errors import ConfigError, DatasetError
from tracemill.stats import part_files, read_rows, read_run
from tracemill.trace import AssistantMessage, Json, Message, OfferedTool, Preference, Record
from tracemill.train.template import ChatTemplate, Turn, Wire, one_by_one

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedTokenizerBase

Reasoning = Literal["train", "keep", "drop"]
"""Thoughts are in the loss; in the context only; nowhere."""
IGNORED = -100
LONG = 1000  # characters; pieces from this length on are mostly tools and policies, and come again
POLL = 1.0  # seconds between two looks for new shards
BATCH = 256  # rows of a piece of a table
IDS = "int32"
Ids = list[int]
Span = tuple[int, int]
T = TypeVar("T", bound=Record)


@dataclass(frozen=True)
class Example:
    """One row of training data."""

    input_ids: Ids
    labels: Ids
    """As long as `input_ids`; -100 where nothing is learnt."""
    trace: str
    """Id of the trace."""


@dataclass
class Report:
    """What became of the traces. Nothing is left out without being counted here."""

    traces: int = 0
    pairs: int = 0
    examples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    messages: int = 0
    """Messages of the agent that are trained."""
    wrong_steps: int = 0
    """Messages in the context that are out of the loss because they are marked as wrong."""
    split: int = 0
    """Traces in several examples because of their length."""
    untold_thoughts: int = 0
    """Thoughts for which the template has no place."""
    untold_words: int = 0
    """Messages whose words the template leaves out beside their calls."""
    parted_calls: int = 0
    """Messages with several calls that are told one by one, since the template takes one."""
    unfinished: int = 0
    """Runs that were not complete when they were read."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> ids of traces or pairs, 'ID[3]' for one message."""

    def leave_out(self, reason: str, what: str) -> None:
        self.left_out.setdefault(reason, []).append(what)

    def count(self, examples: Sequence[Example]) -> None:
        self.examples += len(examples)
        self.tokens += sum(len(one.input_ids) for one in examples)
        self.trained_tokens += sum(len(one.labels) - one.labels.count(IGNORED) for one in examples)

    def lines(self) -> list[str]:
        """For a person to read."""
        share = f" ({self.trained_tokens / self.tokens:.1%})" if self.tokens else ""
        kept = [
            f"{self.traces:,} traces -> {self.examples:,} examples of {self.tokens:,} tokens, {self.trained_tokens:,} of them trained{share}"
        ]
        said = {
            f"{self.pairs:,} preference pairs": self.pairs,
            f"{self.messages:,} messages of the agent are trained": self.messages,
            f"{self.wrong_steps:,} wrong steps are shown and not trained": self.wrong_steps,
            f"{self.split:,} traces are split, because they are too long for one example": self.split,
            f"this template has no place for reasoning: {self.untold_thoughts:,} thoughts are not trained": self.untold_thoughts,
            f"this template has no place for words beside calls: {self.untold_words:,} messages are trained without": self.untold_words,
            f"this template takes one call in a message: {self.parted_calls:,} messages with several are told call by call": self.parted_calls,
            f"{self.unfinished:,} runs were not complete when they were read": self.unfinished,
        }
        kept = kept if self.traces else []
        return [*kept, *(line for line, number in said.items() if number), *self.losses()]

    def losses(self) -> list[str]:
        """What was left out, and why."""
        return [f"left out: {len(ids):,}, {reason} ({', '.join(ids[:3])}{', …' * (len(ids) > 3)})" for reason, ids in self.left_out.items()]


@dataclass(frozen=True, slots=True)
class _Said:
    """A message of a trace."""

    number: int
    """Its index in the trace."""
    wire: Wire
    words: str = ""
    thought: str = ""
    trained: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    """What is trained of a text: one message."""

    number: int
    span: Span
    """In characters."""
    thought: Span | None
    """Characters that are shown and not trained."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """An example as text."""

    text: str
    parts: tuple[_Part, ...]


class Encoder:
    """Traces to examples under a tokenizer's chat template; what it does is counted in `report`.

    `max_length` is in tokens; `mask_wrong=False` trains wrong steps too, for experiments on what that does. Raises
    ConfigError where tokenizer or template cannot be used.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        reasoning: Reasoning = "train",
        too_long: Literal["split", "drop"] = "split",
        mask_wrong: bool = True,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError(f"expected a fast tokenizer, got {type(tokenizer).__name__}: only those tell where a token begins")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.reasoning = reasoning
        self.report = Report()
        self._too_long = too_long
        self._mask_wrong = mask_wrong
        self._template = ChatTemplate(tokenizer)
        self._pieces = Pieces(tokenizer)
        self._tools: dict[tuple[int, ...], tuple[Sequence[OfferedTool], list[Json]]] = {}

    def afresh(self) -> Encoder:
        """The same with a count of its own."""
        other = copy.copy(self)
        other.report = Report()
        return other

    def encode(self, trace_id: str, messages: Sequence[Message], tools: Sequence[OfferedTool]) -> list[Example]:
        """The examples of a trace, in its order; none if it is left out."""
        self.report.traces += 1
        said = self._said(messages)
        targets = [one.number for one in said if one.trained]
        if not targets:
            self.report.leave_out("nothing in it is to be trained", trace_id)
            return []
        fitting = _Fitting(trace_id, self._plain(tools), self._template, self._pieces, self.max_length, self.reasoning)
        try:
            examples = fitting.examples(said, targets)
        except ConfigError as reason:
            self.report.leave_out(reason.message, trace_id)
            return []
        if fitting.was_split and self._too_long == "drop":
            self.report.leave_out(f"longer than {self.max_length:,} tokens", trace_id)
            return []
        self._count(trace_id, messages, said, fitting)
        self.report.count(examples)
        return examples

    def _count(self, trace_id: str, messages: Sequence[Message], said: Sequence[_Said], fitting: _Fitting) -> None:
        report = self.report
        for number in fitting.left_out:
            report.leave_out(f"a message that does not fit into {self.max_length:,} tokens with its turn", f"{trace_id}[{number}]")
        report.messages += sum(one.trained for one in said) - len(fitting.left_out)
        report.wrong_steps += sum(one.wire["role"] == "assistant" and not one.trained for one in said)
        report.split += fitting.was_split
        report.untold_thoughts += len(fitting.untold_thoughts)
        report.untold_words += len(fitting.untold_words)
        if self._template.one_call:
            report.parted_calls += sum(isinstance(one, AssistantMessage) and len(one.tool_calls or ()) > 1 for one in messages)

    def pair(self, preference: Preference) -> dict[str, Ids] | None:
        """Prompt and completions as TRL's DPOTrainer takes them; None if the pair is left out."""
        self.report.pairs += 1
        (chosen,), (rejected,) = preference.chosen, preference.rejected
        if self._template.one_call and any(len(one.tool_calls or ()) > 1 for one in (chosen, rejected)):
            self.report.leave_out("the template takes one call in a message", preference.id)
            return None
        said = [[one.wire for one in self._said((*preference.prompt, last))] for last in (chosen, rejected)]
        try:
            better, worse = (self._template.turn(wires, self._plain(preference.tools)) for wires in said)
        except ConfigError as reason:
            self.report.leave_out(reason.message, preference.id)
            return None
        return self._paired(preference.id, better, worse)

    def _paired(self, name: str, better: Turn, worse: Turn) -> dict[str, Ids] | None:
        cut = len(better.prompt)
        prompt = self._pieces.ids(better.prompt, 0, cut)
        chosen, rejected = (self._pieces.ids(one.text, cut, len(one.text)) for one in (better, worse))
        if chosen == rejected:
            self.report.leave_out("the template shows no difference between the two messages", name)
            return None
        if len(prompt) + max(len(chosen), len(rejected)) > self.max_length:
            self.report.leave_out(f"longer than {self.max_length:,} tokens", name)
            return None
        self.report.examples += 1
        self.report.tokens += 2 * len(prompt) + len(chosen) + len(rejected)
        self.report.trained_tokens += len(chosen) + len(rejected)
        return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}

    def _plain(self, tools: Sequence[OfferedTool]) -> list[Json]:
        key = tuple(map(id, tools))  # the same few lists come with every trace; they are held, so that ids stay their own
        if key not in self._tools:
            if len(self._tools) >= 256:
                self._tools.clear()
            self._tools[key] = tools, [one.plain() for one in tools]
        return self._tools[key][1]

    def _said(self, messages: Sequence[Message]) -> list[_Said]:
        shown = list(one_by_one(messages)) if self._template.one_call else messages
        wires = self._template.wire(shown, thoughts=self.reasoning != "drop")
        said = []
        for number, (message, wire) in enumerate(zip(shown, wires, strict=True)):
            if isinstance(message, AssistantMessage):
                thought = (message.reasoning_content or "").strip() if self.reasoning != "drop" else ""
                said.append(_Said(number, wire, message.content.strip(), thought, message.train or not self._mask_wrong))
            else:
                said.append(_Said(number, wire))
        return said


class _Fitting:
    """One trace as examples of at most `max_length` tokens."""

    def __init__(
        self, trace: str, tools: Sequence[Json], template: ChatTemplate, pieces: Pieces, max_length: int, reasoning: Reasoning
    ) -> None:
        self._trace, self._tools, self._template, self._pieces = trace, tools, template, pieces
        self._max_length, self._reasoning = max_length, reasoning
        self.was_split = False
        self.left_out: list[int] = []
        self.untold_thoughts: set[int] = set()
        self.untold_words: set[int] = set()

    def examples(self, said: Sequence[_Said], targets: Sequence[int]) -> list[Example]:
        """Examples that train the messages of these numbers, in the order of the trace."""
        found: list[Example] = []
        for draft in self._drafts(said, targets):
            example, ends = self._encoded(draft)
            if len(example.input_ids) <= self._max_length:
                found.append(example)
            else:
                self.was_split = True
                found += self._split(said, draft, example, ends)
        return found

    def _drafts(self, said: Sequence[_Said], targets: Sequence[int]) -> list[_Draft]:
        """As few texts as show every message after exactly its prompt: no text is the beginning of another, and a message is
        trained in the longest that begins with its prompt and itself."""
        wires = [one.wire for one in said]
        places = {one.number: at for at, one in enumerate(said)}
        turns = {number: self._template.turn(wires[: places[number] + 1], self._tools) for number in targets}
        left = sorted(targets, key=lambda number: len(turns[number].text))
        drafts = []
        while left:
            text = turns[left[-1]].text
            inside = [number for number in left if text.startswith(turns[number].text)]
            left = [number for number in left if number not in inside]
            drafts.append(_Draft(text, tuple(self._part(said[: places[number] + 1], turns[number]) for number in inside)))
        return sorted(drafts, key=lambda draft: draft.parts[0].number)

    def _part(self, said: Sequence[_Said], turn: Turn) -> _Part:
        last, start = said[-1], len(turn.prompt)
        if last.thought not in turn.written:
            self.untold_thoughts.add(last.number)
        if last.words not in turn.written:
            self.untold_words.add(last.number)
        found = self._template.thought([one.wire for one in said], self._tools, turn) if self._reasoning == "keep" else None
        return _Part(last.number, (start, len(turn.text)), found and (start + found[0], start + found[1]))

    def _encoded(self, draft: _Draft) -> tuple[Example, list[int]]:
        """The example, and where in it each trained message ends, in tokens."""
        ids: Ids = []
        labels: Ids = []
        ends: list[int] = []
        done = 0
        for part in draft.parts:
            start, end = part.span
            before, written = self._pieces.ids(draft.text, done, start), self._pieces.ids(draft.text, start, end)
            hidden = self._pieces.touched(draft.text, part.span, part.thought) if part.thought else ()
            ids += before + written
            labels += [IGNORED] * len(before) + [IGNORED if at in hidden else id for at, id in enumerate(written)]
            ends.append(len(ids))
            done = end
        return Example(ids, labels, self._trace), ends

    def _split(self, said: Sequence[_Said], draft: _Draft, example: Example, ends: Sequence[int]) -> list[Example]:
        """The beginning, with as many messages as fit, and examples of what is left that begin later."""
        fit = sum(end <= self._max_length for end in ends)
        found = [Example(example.input_ids[: ends[fit - 1]], example.labels[: ends[fit - 1]], self._trace)] if fit else []
        rest = [part.number for part in draft.parts[fit:]]
        while rest:
            window = self._window(said, rest)
            if window:
                return found + self.examples(window, rest)
            self.left_out.append(rest.pop(0))
        return found

    def _window(self, said: Sequence[_Said], targets: Sequence[int]) -> list[_Said]:
        """The system message and the conversation from a message of the user on: the earliest with which all targets fit, else
        the last before the first of them. Empty if the conversation given begins there already."""
        head = [one for one in said[:1] if one.wire["role"] == "system"]
        starts = [
            at for at, one in enumerate(said) if at > len(head) and one.wire["role"] == "user" and one.number < targets[0]
        ]  # fmt: skip
        window: list[_Said] = []
        for start in starts:
            window = [*head, *said[start:]]
            sizes = (len(self._encoded(draft)[0].input_ids) for draft in self._drafts(window, targets))
            if all(size <= self._max_length for size in sizes):
                break
        return window


class Pieces:
    """Token ids of a piece of text, as they are within the whole text when it is cut there."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer: Any = tokenizer
        tokens = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._special = tuple(token.content for token in tokens)
        # Before these every tokenizer cuts anyway, and what stands between them does not depend on what is around.
        self._hard = tuple(token.content for token in tokens if not (token.normalized or token.lstrip or token.single_word))
        self._anchor = next((token.content for token in tokens if not (token.normalized or token.rstrip)), "")
        self._known: dict[tuple[str, str], Ids] = {}

    def ids(self, text: str, start: int, end: int) -> Ids:
        """Of text[start:end]."""
        return [id for at, until in self._cuts(text, start, end) for id in self._ids(self._before(text, at), text[at:until])]

    def touched(self, text: str, span: Span, hidden: Span) -> set[int]:
        """Which tokens of a span have a part in hidden characters."""
        found: set[int] = set()
        number = 0
        for at, until in self._cuts(text, *span):
            anchor = self._before(text, at)
            shift = at - len(anchor)
            spans = self._encode(anchor + text[at:until])["offset_mapping"][bool(anchor) :]
            found |= {number + place for place, (a, b) in enumerate(spans) if shift + a < hidden[1] and shift + b > hidden[0]}
            number += len(spans)
        return found

    def _cuts(self, text: str, start: int, end: int) -> list[Span]:
        """Pieces that can be encoded one by one, so that those that come again need not be."""
        cuts = {start, end}
        for token in self._hard:
            at = text.find(token, start, end)
            while at >= 0:
                cuts.add(at)
                at = text.find(token, at + len(token), end)
        places = sorted(cuts)
        return list(itertools.pairwise(places))

    def _before(self, text: str, at: int) -> str:
        """A token to put before a piece, so that it is not taken for the beginning of a text: tokenizers of the SentencePiece
        kind put a space there, others drop spaces after some tokens."""
        if at == 0 or text.startswith(self._hard, at):
            return ""
        return next((token for token in self._special if text.endswith(token, 0, at)), self._anchor)

    def _ids(self, anchor: str, piece: str) -> Ids:
        key = anchor, piece
        if key in self._known:
            return self._known[key]
        ids: Ids = self._encode(anchor + piece)["input_ids"][bool(anchor) :]
        if len(piece) >= LONG:
            if len(self._known) >= 256:
                self._known.clear()
            self._known[key] = ids
        return ids

    def _encode(self, text: str) -> Mapping[str, Any]:
        encoded: Mapping[str, Any] = self._tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
        )
        return encoded


# --- from a run's folder ------------------------------------------------------------------------------------


class Told(Record):
    """What training reads of a trace or of an imported conversation."""

    id: str
    messages: tuple[Message, ...]
    tools: tuple[OfferedTool, ...]


def sft_dataset(out: Path, encoder: Encoder, *, kinds: Collection[str] | None = None) -> Dataset:
    """All examples of a run, with columns input_ids, labels and trace: folder by folder, in the order of the shards.

    `kinds` are folders of OUT/data. Raises DatasetError where there is nothing to read.
    """
    encoder.report.unfinished += not _complete(out)
    files = shards(out, kinds)
    if not files:
        raise _no_traces(out, kinds)
    return _dataset({"input_ids": IDS, "labels": IDS, "trace": "string"}, (vars(one) for path in files for one in _examples(path, encoder)))


def stream(out: Path, encoder: Encoder, *, follow: bool, kinds: Collection[str] | None = None) -> IterableDataset:
    """The same examples one by one, shards in the order in which they were written.

    With `follow` it waits for more as long as somebody writes to the folder and the run is not complete. The report tells of the
    longest pass: the trainer looks at the first rows before it trains, and goes through a stream that ends again.
    """
    from datasets import Features, IterableDataset, List, Value

    features = Features({"input_ids": List(Value(IDS)), "labels": List(Value(IDS)), "trace": Value("string")})
    return IterableDataset.from_generator(
        _streamed, features=features, gen_kwargs={"out": out, "encoder": encoder, "follow": follow, "kinds": kinds}
    )


def dpo_dataset(out: Path, encoder: Encoder) -> Dataset:
    """The preference pairs of a run, with columns prompt_ids, chosen_ids, rejected_ids and trace. Raises DatasetError and ConfigError."""
    if encoder.reasoning == "keep":
        raise ConfigError("every token after the prompt counts in DPO, thoughts too: take an Encoder with reasoning train or drop")
    encoder.report.unfinished += not _complete(out)
    files = part_files(out / "preferences")
    if not files:
        raise DatasetError(f"{out} holds no preference pairs", ["runs with a critic, with siblings or with flaws have some"])
    records = (record for path in files for record in _records(Preference, path))
    pairs = (pair | {"trace": record.trace} for record in records if (pair := encoder.pair(record)))
    return _dataset({"prompt_ids": IDS, "chosen_ids": IDS, "rejected_ids": IDS, "trace": "string"}, pairs)


def shards(out: Path, kinds: Collection[str] | None = None) -> list[Path]:
    """The shards of traces and of imported conversations, folder by folder; of all kinds if none are named."""
    folders = [folder for folder in sorted((out / "data").glob("*/")) if kinds is None or folder.name in kinds]
    return [path for folder in folders for path in part_files(folder)]


def _no_traces(out: Path, kinds: Collection[str] | None) -> DatasetError:
    return DatasetError(f"{out} holds no traces" + (f" of kind {' or '.join(sorted(kinds))}" if kinds else ""))


def _streamed(out: Path, encoder: Encoder, follow: bool, kinds: Collection[str] | None) -> Iterator[dict[str, Any]]:
    done: set[Path] = set()
    reader = encoder.afresh()
    while True:
        # What is asked first may be out of date when the shards are listed, never the other way round.
        last = _complete(out) or not follow or not _written_to(out)
        for path in sorted(set(shards(out, kinds)) - done, key=lambda path: (path.stat().st_mtime_ns, path)):
            done.add(path)
            for record in _records(Told, path):
                examples = reader.encode(record.id, record.messages, record.tools)
                if reader.report.traces > encoder.report.traces:
                    encoder.report = reader.report
                yield from map(vars, examples)
        if last and not done:
            raise _no_traces(out, kinds)
        if last:
            reader.report.unfinished += not _complete(out)
            return
        time.sleep(POLL)


def told(folder: Path) -> Iterator[Told]:
    """The traces of one folder of shards. Raises DatasetError."""
    for path in part_files(folder):
        yield from _records(Told, path)


def _examples(path: Path, encoder: Encoder) -> Iterator[Example]:
    for record in _records(Told, path):
        yield from encoder.encode(record.id, record.messages, record.tools)


def _records(cls: type[T], path: Path) -> Iterator[T]:
    for rows in read_rows(path, tuple(shapes(cls))):
        for row in rows:
            try:
                yield from_row(cls, row)
            except ValueError as reason:  # JSON that is none, or a ValidationError
                raise DatasetError(f"{path}: {row['id']} is broken: {' '.join(str(reason).split())[:300]}") from reason


def _complete(out: Path) -> bool:
    """Whether all is there; a folder without run.json is a copy of its shards. Raises DatasetError if there is no run."""
    return bool(read_run(out).get("complete", True))


def _written_to(out: Path) -> bool:
    """Whether a run holds the folder."""
    with (out / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _dataset(columns: Mapping[str, str], rows: Iterator[Mapping[str, Any]]) -> Dataset:
    """Rows as a dataset in memory: four bytes a token and column."""
    import pyarrow as pa
    from datasets import Dataset

    kinds = {IDS: pa.list_(pa.int32()), "string": pa.string()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    tables = [schema.empty_table()]
    while some := list(itertools.islice(rows, BATCH)):
        tables.append(pa.Table.from_pylist(some, schema=schema))
    return Dataset(pa.concat_tables(tables))
