"""ShareGPT, and LLaMA-Factory's strict form of it: turns of `from` and `value`.

How a message of the agent is written is what LLaMA-Factory reads (llamafactory 0.9.5): a thought as `<think>\\n…\\n</think>\\n\\n`
in front (`Template.thought_words`), calls as JSON, an object or a list of them (`FunctionFormatter`), with the call between
`<tool_call>` tags where words stand before it (`tool_call_words`).

LLaMA-Factory skips what does not alternate strictly: human or observation, then gpt or function_call, an even number of
turns, with `ranking` an odd one (`SharegptDatasetConverter`). So the results of parallel calls are one observation, joined as its
own converter of OpenAI messages joins them (`OpenAIDatasetConverter`). No key of a turn masks it: every gpt or function_call turn is
learnt, or, with `mask_history`, the last one alone (`SupervisedDatasetProcessor`). Hence what follows a wrong step is in a file of its own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import ClassVar

import yaml

from tracemill.exporting.form import (
    LAST_RESULTS,
    WRONG_STEPS,
    Example,
    Form,
    Line,
    Message,
    Notes,
    Pair,
    before_wrong,
    ends_with_result,
    wrong,
)
from tracemill.trace import Json

Turn = dict[str, str]

THOUGHT = "<think>\n{}\n</think>\n\n"
BETWEEN_RESULTS = "\n</tool_response>\n<tool_response>\n"
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_TAGGED = "left out: a message or a result holds a tag of the format, such as <tool_call>"
_ODD = "left out: somebody speaks before the agent has answered, and the form alternates strictly"
_CUT_ODD = "conversations cut where somebody speaks before the agent has answered: the form alternates strictly"
_CUT = "conversations with a wrong step, of which only what comes before it is here: no turn can be masked"
_NO_HEAD = "conversations left out: nothing comes before the first wrong step, and no turn can be masked"


class ShareGPT(Form):
    name = "sharegpt"
    files: ClassVar = {"conversations.jsonl": "a conversation"}
    following = "tracemill import sharegpt {file} --out ../CHECKED  # reads it back"

    def example(self, one: Example, notes: Notes) -> Iterator[Line]:
        if _tagged(one.messages):
            notes[f"conversations {_TAGGED}"] += 1
            return
        spoilt = any(map(wrong, one.messages))
        messages = before_wrong(one.messages) if spoilt else one.messages
        notes[_CUT if messages else _NO_HEAD] += spoilt
        if messages:
            yield "conversations.jsonl", {"id": one.id, "conversations": turns(messages), "tools": _functions(one.tools)}


class LlamaFactory(Form):
    name = "llama-factory"
    files: ClassVar = {
        "sft.jsonl": "a conversation, or what comes before its first wrong step",
        "after_wrong_steps.jsonl": "a conversation up to one good message after a wrong step: only for `mask_history: true`",
        "preferences.jsonl": "a preference pair",
    }
    following = "llamafactory-cli train {stem}.yaml  # after you have set the model in it"

    def example(self, one: Example, notes: Notes) -> Iterator[Line]:
        if _tagged(one.messages):
            notes[f"conversations {_TAGGED}"] += 1
            return
        start = before_wrong(one.messages)
        made = _turns(start)
        sound = _alternating(made)
        end = sound // 2 * 2  # the agent has the last word
        if end:
            yield "sft.jsonl", {"id": one.id, **_row(start, made[:end], one.tools)}
        notes[_CUT_ODD if end else f"conversations {_ODD}"] += sound < len(made)
        yield from self._after_wrong_steps(one, len(start), notes)
        notes[WRONG_STEPS] += sum(map(wrong, one.messages))
        notes[LAST_RESULTS] += ends_with_result(one.messages)

    def _after_wrong_steps(self, one: Example, start: int, notes: Notes) -> Iterator[Line]:
        for at in range(start, len(one.messages)):
            if one.messages[at]["role"] == "assistant" and not wrong(one.messages[at]):
                made = _turns(one.messages[: at + 1])
                if _alternating(made) < len(made):
                    notes[f"messages after a wrong step {_ODD}"] += 1
                else:
                    yield "after_wrong_steps.jsonl", {"id": f"{one.id}.{at}", **_row(one.messages, made, one.tools)}

    def pair(self, one: Pair, notes: Notes) -> Iterator[Line]:
        sides = [one.chosen, one.rejected]
        prompt = _turns(one.prompt)
        if _tagged([*one.prompt, *sides]):
            notes[f"preference pairs {_TAGGED}"] += 1
        elif _alternating(prompt) < len(prompt):
            notes[f"preference pairs {_ODD}"] += 1
        else:
            chosen, rejected = map(_agent, sides)
            yield "preferences.jsonl", {"id": one.id, **_row(one.prompt, prompt, one.tools), "chosen": chosen, "rejected": rejected}

    def settings(self, written: Collection[str]) -> dict[str, str]:
        names = [name for name in self.files if name in written]
        made = {"dataset_info.json": json.dumps({_dataset(name): _info(name) for name in names}, indent=2) + "\n"}
        return made | {f"{name.removesuffix('.jsonl')}.yaml": _recipe(name) for name in names}


# --- turns ----------------------------------------------------------------------------------------------------


def turns(messages: Sequence[Message]) -> list[Turn]:
    """A turn for each message."""
    return [_turn(message) for message in messages]


def _turn(message: Message) -> Turn:
    if message["role"] == "assistant":
        return _agent(message)
    return {"from": {"system": "system", "user": "human", "tool": "observation"}[message["role"]], "value": message["content"]}


def _agent(message: Message) -> Turn:
    thought = THOUGHT.format(message["reasoning_content"]) if message.get("reasoning_content") else ""
    calls = [{"name": call["function"]["name"], "arguments": call["function"]["arguments"]} for call in message.get("tool_calls") or ()]
    if not calls:
        return {"from": "gpt", "value": thought + message["content"]}
    said = json.dumps(calls if len(calls) > 1 else calls[0], ensure_ascii=False)
    if message["content"]:
        said = f"{message['content']}\n<tool_call>{said}</tool_call>"
    return {"from": "function_call", "value": thought + said}


def _turns(messages: Sequence[Message]) -> list[Turn]:
    """Without the system message, and the results of parallel calls as one."""
    made: list[Turn] = []
    for is_result, group in groupby(turns(messages[_has_system(messages) :]), lambda one: one["from"] == "observation"):
        some = list(group)
        made += [{"from": "observation", "value": BETWEEN_RESULTS.join(one["value"] for one in some)}] if is_result else some
    return made


def _alternating(made: Sequence[Turn]) -> int:
    """How many turns, from the first on, alternate: somebody asks or a tool tells, then the agent acts."""
    return next((at for at, one in enumerate(made) if (one["from"] in ("human", "observation")) != (at % 2 == 0)), len(made))


def _row(messages: Sequence[Message], made: Sequence[Turn], tools: list[Json]) -> dict[str, Json]:
    system = messages[0]["content"] if _has_system(messages) else ""
    return {"conversations": made, "system": system, "tools": _functions(tools)}


def _has_system(messages: Sequence[Message]) -> bool:
    return bool(messages) and messages[0]["role"] == "system"


def _functions(tools: list[Json]) -> str:
    """The bare functions, as JSON text. Some of LLaMA-Factory's templates read `parameters.properties` of each, so it is always there."""
    functions = [tool["function"] for tool in tools]
    whole = [{**one, "parameters": {"type": "object", "properties": {}, **one["parameters"]}} for one in functions]
    return json.dumps(whole, ensure_ascii=False) if whole else ""


def _tagged(messages: Sequence[Message]) -> bool:
    """Whether the agent's words, thoughts or calls, or a result, hold what the format tells them apart by."""
    return any(tag in text for message in messages if message["role"] in ("assistant", "tool") for text in _texts(message) for tag in TAGS)


def _texts(message: Message) -> Iterator[str]:
    yield message["content"]
    yield message.get("reasoning_content") or ""
    if message.get("tool_calls"):
        yield json.dumps(message["tool_calls"], ensure_ascii=False)


# --- what LLaMA-Factory is told -------------------------------------------------------------------------------


def _dataset(name: str) -> str:
    return f"tracemill_{name.removesuffix('.jsonl')}"


def _info(name: str) -> dict[str, Json]:
    columns = {"messages": "conversations", "system": "system", "tools": "tools"}
    if name != "preferences.jsonl":
        return {"file_name": name, "formatting": "sharegpt", "columns": columns}
    return {
        "file_name": name,
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {**columns, "chosen": "chosen", "rejected": "rejected"},
    }


def _recipe(name: str) -> str:
    """Settings with which `llamafactory-cli train` starts, once a model is set."""
    stage = {"stage": "dpo", "pref_beta": 0.1} if name == "preferences.jsonl" else {"stage": "sft"}
    mask = {"mask_history": True} if name == "after_wrong_steps.jsonl" else {}
    recipe = {
        "model_name_or_path": "MODEL", "template": "TEMPLATE", **stage, "do_train": True, "finetuning_type": "lora",
        "dataset_dir": ".", "dataset": _dataset(name), **mask, "cutoff_len": 8192, "output_dir": f"OUTPUT_{name.removesuffix('.jsonl')}",
    }  # fmt: skip
    return yaml.safe_dump(recipe, sort_keys=False)
