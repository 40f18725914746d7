"""Replay: other data, such as the general data a model was made with, mixed into the training in a share that is asked for.

    --mix general=0.2 --mix HuggingFaceTB/smoltalk:everyday-conversations=0.1

A share is one of TRAINED TOKENS: it is over them that the loss is averaged, so a share is how much the data weighs, however long
its rows are. All of the main data stays. After each of its examples every source is brought up to its share, so shares hold from
the first batch on, to half an example of a source, also where the main data is a stream without end. A source that is too
small is gone through again, in another order; same seed, same mix.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from tracemill.errors import ConfigError, DatasetError
from tracemill.trace import Json, Message, OfferedTool
from tracemill.train.data import IGNORED, Encoder, Example

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

BUFFER = 10_000  # rows of a stream that are shuffled at a time
SHAPES = "columns `messages` (OpenAI chat format; `tools` beside it), `prompt` and `completion`, or `text`"
FILES = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}

_MESSAGES: TypeAdapter[tuple[Message, ...]] = TypeAdapter(tuple[Message, ...])
_TOOLS: TypeAdapter[tuple[OfferedTool, ...]] = TypeAdapter(tuple[OfferedTool, ...])


@dataclass(frozen=True)
class Mix:
    """A source and the share of trained tokens that it is to have in the whole."""

    source: str
    share: float


def parse_mixes(texts: Sequence[str]) -> tuple[Mix, ...]:
    """SOURCE=SHARE each: a Hub dataset, NAME or NAME:CONFIG, or a local folder, parquet or jsonl file. Raises ConfigError."""
    mixes, problems = [], []
    for text in texts:
        source, _, share = text.rpartition("=")
        try:
            mixes.append(Mix(source, float(share)))
        except ValueError:
            source = ""
        if not source:
            problems.append(f"{text!r}: expected SOURCE=SHARE, such as general=0.2")
    problems += [f"{mix.source}={mix.share}: a share is more than 0 and less than 1" for mix in mixes if not 0 < mix.share < 1]
    if not problems and sum(mix.share for mix in mixes) >= 1:
        problems.append(f"the shares add up to {sum(mix.share for mix in mixes):g}, which leaves nothing for the data itself")
    if problems:
        raise ConfigError("Cannot mix as asked:", problems)
    return tuple(mixes)


class Replay:
    """One source on its way into the mix, and the count of what was taken from it."""

    def __init__(self, mix: Mix, ratio: float, encoder: Encoder, *, seed: int) -> None:
        """`ratio` is of its trained tokens to those of the main data."""
        self.mix = mix
        self.ratio = ratio
        self.examples = self.tokens = self.passes = 0
        self._encoder = encoder
        self._seed = seed
        self._coming: Iterator[Example] | None = None  # not yet, so that it can be pickled
        self._next: Example | None = None

    def due(self, main: int) -> Iterator[Example]:
        """What brings the source up to its share after `main` trained tokens of the main data."""
        self._coming = self._coming or self._endless()
        while True:
            self._next = self._next or next(self._coming)
            trained = trained_tokens(self._next.labels)
            if self.ratio * main - self.tokens < trained / 2:
                return
            self.examples, self.tokens = self.examples + 1, self.tokens + trained
            yield self._next
            self._next = None

    def line(self, everything: int) -> str:
        """For the terminal; `everything` counts the trained tokens of the whole."""
        again = f", gone through {self.passes} times" if self.passes > 1 else ""
        return f"{self.mix.source}: {self.examples:,} examples, {self.tokens:,} trained tokens ({self.tokens / everything:.1%}){again}"

    def _endless(self) -> Iterator[Example]:
        for self.passes in itertools.count(1):
            empty = True
            for example in one_pass(self.mix.source, self._encoder, seed=self._seed + self.passes - 1):
                empty = False
                yield example
            if empty:
                raise DatasetError(f"{self.mix.source} has no row with a token to train on")


class Mixture:
    """Main data and replays; after it has been gone through, `lines()` tells what came out."""

    def __init__(self, mixes: Sequence[Mix], encoder: Encoder, *, seed: int = 0) -> None:
        rest = 1 - sum(mix.share for mix in mixes)
        self.main = 0
        self.replays = [Replay(mix, mix.share / rest, encoder, seed=seed) for mix in mixes]

    def after(self, labels: Sequence[int]) -> Iterator[Example]:
        """What is to follow an example of the main data."""
        self.main += trained_tokens(labels)
        for replay in self.replays:
            yield from replay.due(self.main)

    def dataset(self, main: Dataset) -> Dataset:
        """The main data with the replays between its rows, in the columns of the main data."""
        from datasets import Dataset, concatenate_datasets

        order: list[int] = []
        rows: list[dict[str, Any]] = []
        for at, labels in enumerate(main["labels"]):
            order.append(at)
            for example in self.after(labels):
                order.append(len(main) + len(rows))
                rows.append(_row(example))
        return concatenate_datasets([main, Dataset.from_list(rows, features=main.features)]).select(order)

    def stream(self, main: IterableDataset) -> IterableDataset:
        """The same where the main data is a stream."""
        from datasets import IterableDataset

        return IterableDataset.from_generator(self._rows, features=main.features, gen_kwargs={"main": main})

    def _rows(self, main: IterableDataset) -> Iterator[dict[str, Any]]:
        for row in main:
            yield row
            yield from map(_row, self.after(row["labels"]))

    def lines(self) -> list[str]:
        everything = self.main + sum(replay.tokens for replay in self.replays)
        return [replay.line(everything) for replay in self.replays]


def old_examples(source: str, encoder: Encoder, count: int, *, seed: int = 0) -> list[Example]:
    """The first so many examples of a source in the order of the seed; fewer if it has fewer. Raises DatasetError if none."""
    found = list(itertools.islice(one_pass(source, encoder, seed=seed), count))
    if not found:
        raise DatasetError(f"{source} has no row with a token to train on")
    return found


def trained_tokens(labels: Iterable[int]) -> int:
    """How many tokens of an example are predicted in the loss; nothing comes before the first, so it never is."""
    return sum(label != IGNORED for label in itertools.islice(labels, 1, None))


def one_pass(source: str, encoder: Encoder, *, seed: int) -> Iterator[Example]:
    """All examples of a source that train a token, in the order of the seed; they are named SOURCE:PLACE in it. Raises ConfigError."""
    rows = _shuffled(source, seed)
    shape: Callable[[str, Mapping[str, Any], Encoder], list[Example]] | None = None
    for number, row in enumerate(rows):
        shape = shape or _shape(source, row)
        for example in shape(f"{source}:{number}", row, encoder):
            if trained_tokens(example.labels):
                yield example


def _row(example: Example) -> dict[str, Any]:
    return {"input_ids": example.input_ids, "labels": example.labels, "trace": example.trace}


# --- sources ------------------------------------------------------------------------------------------------


def _shuffled(source: str, seed: int) -> Iterable[Mapping[str, Any]]:
    rows = _local(Path(source)) if Path(source).exists() else _from_hub(source)
    return rows.shuffle(seed=seed, buffer_size=BUFFER)  # type: ignore[no-any-return]


def _local(path: Path) -> Any:
    """A stream of a file, or of the parquet or else jsonl files of a folder; of a run's or dataset's folder that of `data/`."""
    from datasets import IterableDataset, load_dataset

    folder = path / "data" if (path / "data").is_dir() else path
    for suffix, kind in FILES.items():
        files = [path] if path.suffix == suffix else sorted(folder.rglob(f"*{suffix}"))
        if files and kind == "parquet":
            return load_dataset("parquet", data_files=[str(file) for file in files], split="train", streaming=True)
        if files:
            # Not by Arrow, which would fill the keys that one row has and another lacks.
            return IterableDataset.from_generator(_json_rows, gen_kwargs={"files": files})
    raise ConfigError(f"{path}: expected a file or folder of {', '.join(FILES)}, found none")


def _json_rows(files: Sequence[Path]) -> Iterator[dict[str, Json]]:
    """The objects of files that hold one a line, or one list."""
    for file in files:
        text = file.read_text(encoding="utf-8")
        try:
            rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError as reason:
            raise ConfigError(f"{file} is not JSON lines: {reason}") from reason
        yield from rows


def _from_hub(source: str) -> Any:
    from datasets import load_dataset

    name, _, config = source.partition(":")
    try:
        return load_dataset(name, config or None, split="train", streaming=True)
    except Exception as reason:  # the Hub, the network and the loader raise what they like
        raise ConfigError(f"{source} is neither a local path nor a dataset of the Hub that can be read: {reason}") from reason


# --- shapes -------------------------------------------------------------------------------------------------


def _shape(source: str, row: Mapping[str, Any]) -> Callable[[str, Mapping[str, Any], Encoder], list[Example]]:
    """How rows of a source are encoded, by the columns of its first."""
    if "messages" in row:
        return _chat
    if "prompt" in row and "completion" in row:
        return _completion
    if "text" in row:
        return _text
    raise ConfigError(f"{source}: expected {SHAPES}; found columns {', '.join(row)}. Rename them, or convert the rows first.")


def _chat(name: str, row: Mapping[str, Any], encoder: Encoder) -> list[Example]:
    tools = row.get("tools") or []
    return _conversation(name, row["messages"], json.loads(tools) if isinstance(tools, str) else tools, encoder)


def _completion(name: str, row: Mapping[str, Any], encoder: Encoder) -> list[Example]:
    """Conversations are joined, texts are learned from the completion on, without a chat template."""
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        return _plain(name, prompt, completion, encoder)
    if isinstance(prompt, str) or isinstance(completion, str):
        raise ConfigError(f"{name}: expected `prompt` and `completion` both as text or both as messages, found one of each")
    before = [{**message, "train": False} if message["role"] == "assistant" else message for message in prompt]
    return _conversation(name, [*before, *completion], row.get("tools") or [], encoder)


def _text(name: str, row: Mapping[str, Any], encoder: Encoder) -> list[Example]:
    return _plain(name, "", row["text"], encoder)


def _conversation(name: str, messages: Sequence[Json], tools: Sequence[Json], encoder: Encoder) -> list[Example]:
    try:
        told = _MESSAGES.validate_python(_as_records(messages))
        offered = _TOOLS.validate_python([{"type": "function", "function": _function(tool)} for tool in tools])
    except (ValidationError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as reason:
        raise ConfigError(f"{name}: expected messages and tools in the OpenAI chat format, as text: {reason}") from reason
    examples: list[Example] = encoder.encode(name, told, offered)
    return examples


def _as_records(messages: Sequence[Json]) -> list[Json]:
    """Messages in the spelling of `trace.Message`: arguments as objects, ids and names where they were left out."""
    found: list[Json] = []
    names: dict[str, str] = {}
    for message in messages:
        role, content = message["role"], _written(message.get("content"))
        if role in ("system", "developer"):
            found.append({"role": "system", "content": content})
        elif role == "assistant":
            calls = [_call(call, f"call_{len(names) + at}") for at, call in enumerate(message.get("tool_calls") or ())]
            names |= {call["id"]: call["function"]["name"] for call in calls}
            thought = message.get("reasoning_content") or message.get("reasoning")
            train = message.get("train") is not False
            found.append({"role": role, "content": content, "reasoning_content": thought, "tool_calls": calls or None, "train": train})
        elif role == "tool":
            answered = message.get("tool_call_id") or next(reversed(names), "")
            found.append(
                {"role": role, "tool_call_id": answered, "name": names.get(answered) or message.get("name") or "", "content": content}
            )
        else:
            found.append({"role": role, "content": content})
    return found


def _call(call: Json, otherwise: str) -> Json:
    function, arguments = call["function"], call["function"].get("arguments") or {}
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return {"id": call.get("id") or otherwise, "function": {"name": function["name"], "arguments": arguments}}


def _written(content: Json) -> str:
    """The text of a message that may be a list of parts. Raises TypeError for parts that are none, such as pictures."""
    if content is None or isinstance(content, str):
        return content or ""
    other = {part["type"] for part in content} - {"text"}
    if other:
        raise TypeError(f"only text can be trained on, found {', '.join(sorted(other))}")
    return "".join(part["text"] for part in content)


def _function(tool: Json) -> Json:
    """What a tool's definition says, alone or under `function`."""
    spec = tool.get("function", tool)
    return {"name": spec["name"], "description": spec.get("description") or "", "parameters": spec.get("parameters") or {"type": "object"}}


def _plain(name: str, prompt: str, text: str, encoder: Encoder) -> list[Example]:
    """Text without a chat template; what is too long goes on in a further example, which repeats a token so that each is predicted."""
    tokenizer = encoder.tokenizer
    before = tokenizer(prompt, add_special_tokens=True).input_ids if prompt else []
    ids = [*before, *tokenizer(text, add_special_tokens=not prompt).input_ids, tokenizer.eos_token_id]
    labels = [IGNORED] * len(before) + ids[len(before) :]
    size = encoder.max_length
    return [Example(ids[at : at + size], labels[at : at + size], name) for at in range(0, len(ids) - 1, size - 1)]
