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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from tracemill.errors import ConfigError, DatasetError
from tracemill.trace import Json, Message, OfferedTool
from tracemill.train.data import IGNORED, Encoder, Example

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

BUFFER = 10_000  # rows of a stream that are shuffled at a time
TIMEOUT = 10.0  # seconds
SHAPES = "columns `messages` (OpenAI chat format; `tools` beside it), `prompt` and `completion`, or `text`"
FILES = (".parquet", ".jsonl", ".json")
EXPORTS = {"trl": "sft.parquet", "openai": "train.jsonl"}  # what is for SFT of a folder that `tracemill export` wrote, by its format

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
        self._encoder = encoder.afresh()
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

    def lines(self, everything: int) -> list[str]:
        """For the terminal, what was left out included; `everything` counts the trained tokens of the whole."""
        note = f", gone through {self.passes} times" if self.passes > 1 else "" if self.examples else ": less than half of one was due"
        share = f"{self.tokens:,} trained tokens ({self.tokens / max(1, everything):.1%})"
        return [f"{called(self.mix.source)}: {self.examples:,} examples, {share}{note}", *self._encoder.report.losses()]

    def _endless(self) -> Iterator[Example]:
        for self.passes in itertools.count(1):
            empty = True
            encoder = self._encoder if self.passes == 1 else self._encoder.afresh()  # what is left out is counted once
            for example in one_pass(self.mix.source, encoder, seed=self._seed + self.passes - 1):
                empty = False
                yield example
            if empty:
                raise _nothing(self.mix.source, self._encoder)


class Mixture:
    """Main data and replays; after it has been gone through, `lines()` tells what came out."""

    def __init__(self, mixes: Sequence[Mix], encoder: Encoder, *, seed: int = 0) -> None:
        rest = 1 - sum(mix.share for mix in mixes)
        self._anew = partial(Mixture, mixes, encoder, seed=seed)
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
        if not rows:  # a share of less than half an example, which `lines` tells
            return main
        return concatenate_datasets([main, Dataset.from_list(rows, features=main.features)]).select(order)

    def stream(self, main: IterableDataset) -> IterableDataset:
        """The same where the main data is a stream."""
        from datasets import IterableDataset

        return IterableDataset.from_generator(self._rows, features=main.features, gen_kwargs={"main": main})

    def _rows(self, main: IterableDataset) -> Iterator[dict[str, Any]]:
        """Each pass mixes from the start: the trainer looks at the first rows before it trains. The longest is what is told."""
        now = self._anew()
        for row in main:
            following = [_row(example) for example in now.after(row["labels"])]
            if now.main > self.main:
                self.main, self.replays = now.main, now.replays
            yield row
            yield from following

    def lines(self) -> list[str]:
        everything = self.main + sum(replay.tokens for replay in self.replays)
        return [line for replay in self.replays for line in replay.lines(everything)]


def old_examples(source: str, encoder: Encoder, count: int, *, seed: int = 0) -> list[Example]:
    """The first so many examples of a source in the order of the seed; fewer if it has fewer. Raises DatasetError if none.

    What is left out of it is added to the encoder's report, once where several read one source.
    """
    reader = encoder.afresh()
    found = list(itertools.islice(one_pass(source, reader, seed=seed), count))
    if not found:
        raise _nothing(source, reader)
    for reason, names in reader.report.left_out.items():
        known = set(encoder.report.left_out.get(reason, ()))
        for name in names:
            if name not in known:
                encoder.report.leave_out(reason, name)
    return found


def _nothing(source: str, encoder: Encoder) -> DatasetError:
    return DatasetError(f"{source} has no row with a token to train on", encoder.report.losses())


def trained_tokens(labels: Iterable[int]) -> int:
    """How many tokens of an example are predicted in the loss; nothing comes before the first, so it never is."""
    return sum(label != IGNORED for label in itertools.islice(labels, 1, None))


def one_pass(source: str, encoder: Encoder, *, seed: int) -> Iterator[Example]:
    """All examples of a source that train a token, in the order of the seed, named NAME:PLACE. Raises ConfigError."""
    for place, row in _rows(source, seed):
        for example in _encoded(place, row, encoder):
            if trained_tokens(example.labels):
                yield example


def _row(example: Example) -> dict[str, Any]:
    return {"input_ids": example.input_ids, "labels": example.labels, "trace": example.trace}


# --- sources ------------------------------------------------------------------------------------------------


def files(source: str) -> list[Path]:
    """A file, or the parquet or else jsonl files of a folder: of a run's or dataset's those of `data/`, of an export's the one for SFT.

    None of what is not local. Raises ConfigError.
    """
    path = Path(source)
    if not path.exists():
        return []
    folder = path / "data" if (path / "data").is_dir() else path
    if (path / "export.json").is_file():
        return [path / _for_sft(path)]
    for suffix in FILES:
        found = [path] if path.suffix == suffix else sorted(folder.rglob(f"*{suffix}"))
        if found:
            return found
    raise ConfigError(f"{path}: expected a file or folder of {', '.join(FILES)}, found none")


def called(source: str) -> str:
    """A source in what travels with the model: where it lay here says nothing elsewhere."""
    return Path(source).resolve().name if Path(source).exists() else source


def _for_sft(export: Path) -> str:
    told = json.loads((export / "export.json").read_text(encoding="utf-8"))
    if told["format"] not in EXPORTS:
        raise ConfigError(
            f"{export}: an export in the format {told['format']} has no rows that can be mixed in; name the run itself, or an export in the "
            f"format {' or '.join(EXPORTS)}"
        )
    return EXPORTS[told["format"]]


def _rows(source: str, seed: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows in the order of the seed, each with its place: FILE:LINE, or SOURCE:NUMBER in this order where they come from the Hub."""
    from datasets import IterableDataset

    if not Path(source).exists():
        for number, row in enumerate(_from_hub(source).shuffle(seed=seed, buffer_size=BUFFER)):
            yield f"{source}:{number}", row
        return
    # Not by Arrow, which would fill the keys that one row has and another lacks.
    local = IterableDataset.from_generator(_read, gen_kwargs={"files": files(source)})
    for one in local.shuffle(seed=seed, buffer_size=BUFFER):
        yield one["place"], one["row"]


def _read(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        for number, row in _parquet(file) if file.suffix == ".parquet" else _json(file):
            if not isinstance(row, dict):
                raise ConfigError(f"{file}:{number}: expected an object, found {type(row).__name__}")
            yield {"place": f"{file}:{number}", "row": row}


def _parquet(file: Path) -> Iterator[tuple[int, Json]]:
    from datasets import load_dataset

    try:
        yield from enumerate(load_dataset("parquet", data_files=[str(file)], split="train", streaming=True), 1)
    except Exception as reason:  # Arrow and the loader raise what they like
        raise ConfigError(f"{file} cannot be read as parquet: {reason}") from reason


def _json(file: Path) -> Iterator[tuple[int, Json]]:
    """The values of a file that holds one a line, or one list."""
    number = 1
    try:
        text = file.read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("["):
            yield from enumerate(json.loads(text), 1)
            return
        for number, line in enumerate(text.split("\n"), 1):  # not `splitlines`, which takes characters within strings for ends of lines
            if line.strip():
                yield number, json.loads(line)
    except UnicodeDecodeError as reason:
        raise ConfigError(f"{file} is not UTF-8: {reason}") from reason
    except json.JSONDecodeError as reason:
        raise ConfigError(f"{file} is not JSON lines: line {number}: {reason.msg}") from reason


def commit(source: str) -> str | None:
    """That a dataset of the Hub is at; None where the Hub does not tell."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(source.partition(":")[0], timeout=TIMEOUT).sha
    except Exception:  # noqa: BLE001 - the Hub and the network raise what they like; the data are read, or refused, elsewhere
        return None


def _from_hub(source: str) -> Any:
    from datasets import load_dataset

    name, _, config = source.partition(":")
    try:
        return load_dataset(name, config or None, split="train", streaming=True)
    except Exception as reason:  # the Hub, the network and the loader raise what they like
        raise ConfigError(f"{source} is neither a local path nor a dataset of the Hub that can be read: {reason}") from reason


# --- shapes -------------------------------------------------------------------------------------------------


def _encoded(place: str, row: Mapping[str, Any], encoder: Encoder) -> list[Example]:
    """The examples of a row, by the columns in which it holds something."""
    name = place.rpartition("/")[2]  # for the report, as in `called`
    if row.get("messages") is not None:
        return _conversation(place, name, row, (), row["messages"], encoder)
    prompt, completion, text = row.get("prompt"), row.get("completion"), row.get("text")
    if prompt is not None and completion is not None:
        if isinstance(prompt, str) and isinstance(completion, str):
            return _plain(name, prompt, completion, encoder)
        if isinstance(prompt, str) or isinstance(completion, str):
            raise ConfigError(f"{place}: expected `prompt` and `completion` both as text or both as messages, found one of each")
        return _conversation(place, name, row, prompt, completion, encoder)
    if isinstance(text, str):
        return _plain(name, "", text, encoder)
    found = ", ".join(f"{column} ({type(value).__name__})" for column, value in row.items())
    raise ConfigError(f"{place}: expected {SHAPES}; found columns {found}. Rename them, or convert the rows first.")


def _conversation(
    place: str, name: str, row: Mapping[str, Any], prompt: Sequence[Json], messages: Sequence[Json], encoder: Encoder
) -> list[Example]:
    """What the assistant says is trained, but nothing of the prompt."""
    try:
        before = [{**message, "train": False} if message["role"] == "assistant" else message for message in prompt]
        tools = row.get("tools") or []
        tools = json.loads(tools) if isinstance(tools, str) else tools
        told = _MESSAGES.validate_python(_as_records([*before, *messages]))
        offered = _TOOLS.validate_python([{"type": "function", "function": _function(tool)} for tool in tools])
    except (ValidationError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as reason:
        said = " ".join(str(reason).split())[:300]
        raise ConfigError(f"{place}: expected messages and tools in the OpenAI chat format, as text: {said}") from reason
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
            train = message.get("train") is not False and message.get("weight") != 0  # the second is OpenAI's own spelling
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
    if trained_tokens(labels) == 0:
        encoder.report.leave_out("no text to train on", name)
    size = encoder.max_length
    return [Example(ids[at : at + size], labels[at : at + size], name) for at in range(0, len(ids) - 1, size - 1)]
