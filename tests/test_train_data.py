"""What is trained is exactly what the agent would write, after exactly what inference would show it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny
import trl
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tracemill.columns import from_row
from tracemill.errors import ConfigError, DatasetError
from tracemill.generators.teachers.chat import wire_message
from tracemill.stats import part_files
from tracemill.trace import (
    AssistantMessage,
    FunctionCall,
    FunctionSpec,
    Json,
    Message,
    OfferedTool,
    Preference,
    SystemMessage,
    ToolCall,
    ToolMessage,
    Trace,
    UserMessage,
)
from tracemill.train import data
from tracemill.train.data import Encoder, Example
from tracemill.train.template import one_by_one

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
LONG = 100_000


# --- what agents of each family write, in our own words -------------------------------------------------------

Write = Callable[[AssistantMessage], str]


def dumped(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def hermes(message: AssistantMessage, key: str = "arguments") -> str:
    calls = [json.dumps({"name": one.name, key: one.arguments}, ensure_ascii=False) for one in message.tool_calls or ()]
    return "\n".join(([message.content] if message.content else []) + [f"<tool_call>\n{call}\n</tool_call>" for call in calls])


def tagged(message: AssistantMessage) -> str:
    calls = []
    for one in message.tool_calls or ():
        parameters = "".join(f"<parameter={name}>\n{dumped(value)}\n</parameter>\n" for name, value in one.arguments.items())
        calls.append(f"<tool_call>\n<function={one.name}>\n{parameters}</function>\n</tool_call>")
    return message.content + "\n".join(calls)


def llama(message: AssistantMessage) -> str:
    for call in message.tool_calls or ():
        return json.dumps({"name": call.name, "parameters": call.arguments}, ensure_ascii=False) + "<|eot_id|>"
    return message.content + "<|eot_id|>"


def glm(message: AssistantMessage) -> str:
    text = f"\n<think>{message.reasoning_content or ''}</think>" + (f"\n{message.content}" if message.content else "")
    for call in message.tool_calls or ():
        text += f"\n<tool_call>{call.name}\n"
        text += "".join(f"<arg_key>{name}</arg_key>\n<arg_value>{dumped(value)}</arg_value>\n" for name, value in call.arguments.items())
        text += "</tool_call>"
    return text + ("<|observation|>" if message.tool_calls else "<|user|>")


def gpt_oss(message: AssistantMessage) -> str:
    thought = message.reasoning_content
    text = f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant" if thought else ""
    for call in message.tool_calls or ():
        return (
            f"{text} to=functions.{call.name}<|channel|>commentary json<|message|>{json.dumps(call.arguments, ensure_ascii=False)}<|call|>"
        )
    return f"{text}<|channel|>final<|message|>{message.content}<|return|>"


def gemma(message: AssistantMessage) -> str:
    text = f"<|channel>thought\n{message.reasoning_content}\n<channel|>" if message.reasoning_content else ""
    for call in message.tool_calls or ():
        arguments = (
            f'{name}:<|"|>{value}<|"|>' if isinstance(value, str) else f"{name}:{value}" for name, value in sorted(call.arguments.items())
        )
        text += f"<|tool_call>call:{call.name}{{{','.join(arguments)}}}<tool_call|>"
    return text + (message.content + "<turn|>" if not message.tool_calls else "<|tool_response>")


def liquid(message: AssistantMessage) -> str:
    calls = [f"{one.name}({', '.join(f'{k}={v!r}' for k, v in one.arguments.items())})" for one in message.tool_calls or ()]
    told = f"<|tool_call_start|>[{', '.join(calls)}]<|tool_call_end|>" if calls else ""
    return (f"<think>{message.reasoning_content}</think>" if message.reasoning_content else "") + message.content + told + "<|im_end|>"


def thinking(before: str, after: str, empty: str, rest: Write, end: str = "<|im_end|>") -> Write:
    def write(message: AssistantMessage) -> str:
        thought = message.reasoning_content
        return (f"{before}{thought}{after}" if thought else empty) + rest(message) + end

    return write


def silent(rest: Write, end: str = "<|im_end|>") -> Write:
    return lambda message: rest(message) + end


def nano(message: AssistantMessage) -> str:
    """Nemotron ends a call with a line, and its prompt opens a thought that an unthinking message closes at once."""
    thought = f"{message.reasoning_content}\n</think>\n" if message.reasoning_content else "</think>"
    if not message.tool_calls:
        return thought + message.content + "<|im_end|>"
    return thought + ("" if message.reasoning_content else "\n") + tagged(message) + "\n<|im_end|>"


def mistral(message: AssistantMessage) -> str:
    calls = [
        json.dumps({"name": one.name, "arguments": one.arguments, "id": short(one.id)}, ensure_ascii=False)
        for one in message.tool_calls or ()
    ]
    return (f"[TOOL_CALLS] [{', '.join(calls)}]" if calls else " " + message.content) + "</s>"


def short(id: str) -> str:
    return f"{int(id.removeprefix('call_')):09}"


# The habits of Mistral's templates: no generation prompt, tools stand before the user's last message, ids have nine signs.
MISTRAL = """\
{{- bos_token -}}
{%- set last = (messages | selectattr("role", "equalto", "user") | list)[-1] -%}
{%- for message in messages -%}
    {%- if message.role == "user" -%}
        {%- if tools and message == last -%}{{- "[AVAILABLE_TOOLS] " + tools | tojson + "[/AVAILABLE_TOOLS]" -}}{%- endif -%}
        {{- "[INST] " + message.content + "[/INST]" -}}
    {%- elif message.role == "tool" -%}
        {{- "[TOOL_RESULTS] " + {"content": message.content, "call_id": message.tool_call_id} | tojson + "[/TOOL_RESULTS]" -}}
    {%- elif message.tool_calls -%}
        {{- "[TOOL_CALLS] [" -}}
        {%- for call in message.tool_calls -%}
            {%- if call.id | length != 9 -%}{{- raise_exception("nine signs!") -}}{%- endif -%}
            {{- {"name": call.function.name, "arguments": call.function.arguments, "id": call.id} | tojson -}}
            {{- ", " if not loop.last else "]" + eos_token -}}
        {%- endfor -%}
    {%- elif message.role == "assistant" -%}{{- " " + message.content + eos_token -}}
    {%- else -%}{{- "[SYSTEM_PROMPT]" + message.content + "[/SYSTEM_PROMPT]" -}}
    {%- endif -%}
{%- endfor -%}
"""


@dataclass(frozen=True)
class Family:
    template: str
    write: Write
    special: tuple[str, ...]
    key: str | None = "reasoning_content"
    one_call: bool = False
    short_ids: bool = False


CHATML = ("<|im_start|>", "<|im_end|>")
LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>")
HARMONY = ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|call|>", "<|return|>", "<|constrain|>")
GEMMA = ("<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>',
         "<|channel>", "<channel|>", "<|think|>")  # fmt: skip
PANTRY = (
    (Path(__file__).parent.parent / "bench" / "tiny_agent.py")
    .read_text(encoding="utf-8")
    .split('CHAT_TEMPLATE = """\\\n')[1]
    .split('"""')[0]
)
FAMILIES = {
    "ours": Family(tiny.CHAT_TEMPLATE, thinking("<think>\n", "\n</think>\n", "", hermes), CHATML),
    "pantry": Family(
        PANTRY.encode().decode("unicode_escape"),
        lambda message: (
            f"<think>{message.reasoning_content}</think>{message.content}"
            + "".join(
                f'<tool_call>\n{{"name": "{one.name}", "arguments": {json.dumps(one.arguments, sort_keys=True, ensure_ascii=False)}}}\n</tool_call>'
                for one in message.tool_calls or ()
            )
            + "<|im_end|>"
        ).replace("<think>None</think>", ""),
        CHATML,
    ),
    "qwen3": Family("qwen3", thinking("<think>\n", "\n</think>\n\n", "<think>\n\n</think>\n\n", hermes), CHATML),
    "qwen2_5": Family("qwen2_5", silent(hermes), CHATML, key=None),
    "qwen3_instruct_2507": Family("qwen3_instruct_2507", silent(hermes), CHATML, key=None),
    "qwen3_5_think": Family("qwen3_5_think", thinking("", "\n</think>\n\n", "\n</think>\n\n", tagged), CHATML),
    "qwen3_5_nothink": Family("qwen3_5_nothink", silent(tagged), CHATML, key=None),
    "qwen3_6": Family("qwen3_6", thinking("", "\n</think>\n\n", "\n</think>\n\n", tagged), CHATML),
    "qwen3_8": Family("qwen3_8", thinking("", "\n</think>\n\n", "\n</think>\n\n", tagged), CHATML),
    "llama3_1": Family("llama3_1", llama, LLAMA, key=None, one_call=True),
    "llama3_2": Family("llama3_2", llama, LLAMA, key=None, one_call=True),
    "glm4moe": Family("glm4moe", glm, ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")),
    "gptoss": Family("gptoss", gpt_oss, HARMONY, key="thinking", one_call=True),
    "gemma4_v5": Family("gemma4_v5", gemma, GEMMA),
    "lfm2_2_5": Family("lfm2_2_5", liquid, (*CHATML, "<|tool_call_start|>", "<|tool_call_end|>"), key="thinking"),
    "nemotron_3_nano": Family("nemotron_3_nano", nano, CHATML),
    "mistral": Family(
        MISTRAL,
        mistral,
        (
            "<s>",
            "</s>",
            "[INST]",
            "[/INST]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_CALLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
        ),
        key=None,
        short_ids=True,
    ),
}


def tokenizer_of(family: Family) -> PreTrainedTokenizerFast:
    """Line ends are tokens of their own, as with the tokenizers of these families."""
    tokenizer = tiny.build_tokenizer()
    lines = pre_tokenizers.Split(Regex(r"[\r\n]+"), "isolated")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([lines, tokenizer.backend_tokenizer.pre_tokenizer])
    tokenizer.add_special_tokens({"additional_special_tokens": [token for token in family.special if token not in tiny.SPECIAL]})
    tokenizer.bos_token = family.special[0]
    tokenizer.eos_token = next(
        one
        for one in ("<|im_end|>", "<|eot_id|>", "<|return|>", "<turn|>", "</s>", "<|endoftext|>")
        if one in (*family.special, "<|endoftext|>")
    )
    named = TEMPLATES / f"{family.template}.jinja"
    tokenizer.chat_template = named.read_text(encoding="utf-8") if len(family.template) < 50 else family.template
    return tokenizer


# --- conversations --------------------------------------------------------------------------------------------


def tool(name: str, /, **properties: str) -> OfferedTool:
    schema = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}, "required": list(properties)}
    return OfferedTool(function=FunctionSpec(name=name, description=f"What {name} does.", parameters=schema))


TOOLS = (
    tool("find_user", name="string", zip="string"),
    tool("cancel_order", order="string", days="integer"),
    tool("wait", seconds="integer"),
)


def call(number: int, name: str, /, **arguments: Json) -> ToolCall:
    return ToolCall(id=f"call_{number}", function=FunctionCall(name=name, arguments=arguments))


def acts(*calls: ToolCall, thought: str | None = None, train: bool = True) -> AssistantMessage:
    return AssistantMessage(content="", reasoning_content=thought, tool_calls=calls, train=train)


def says(text: str, thought: str | None = None, train: bool = True) -> AssistantMessage:
    return AssistantMessage(content=text, reasoning_content=thought, train=train)


def result(number: int, name: str, content: str) -> ToolMessage:
    return ToolMessage(tool_call_id=f"call_{number}", name=name, content=content)


def conversation(thoughts: bool = True) -> tuple[Message, ...]:
    """Parallel calls, a wrong step and the recovery from it, a user who speaks up amid calls, two turns."""
    messages: list[Message] = [
        SystemMessage(content="You are the shop's agent.\n\nNever guess."),
        UserMessage(content="Cancel W1 and W2, please. I am Åsa, 01234 “Nørre”."),
        acts(call(1, "find_user", name="Åsa", zip="01234"), call(2, "wait", seconds=3), thought="First, who is it?"),
        result(1, "find_user", '{"user": "åsa_1"}'),
        result(2, "wait", '{"waited": 3}'),
        acts(call(3, "cancel_order", order="W9", days=2), thought="WRONG thought about W9", train=False),
        result(3, "cancel_order", '{"error": {"code": "not_found", "message": "no order W9"}}'),
        acts(call(4, "cancel_order", order="W1", days=2), thought="W9 was a slip; W1 it is."),
        result(4, "cancel_order", '{"order": "W1", "status": "cancelled"}'),
        UserMessage(content="Oh, leave W2 alone."),
        says("W1 is cancelled.\nW2 stays. Anything else?", thought="Only W1 then."),
        UserMessage(content="Yes: W3."),
        acts(call(5, "cancel_order", order="W3", days=0), thought="One more."),
        result(5, "cancel_order", '{"order": "W3", "status": "cancelled"}'),
        says("Done.", thought="All is done."),
    ]
    drop = {"reasoning_content": None}
    return tuple(one if thoughts or not isinstance(one, AssistantMessage) else one.model_copy(update=drop) for one in messages)


@pytest.fixture(scope="module")
def traces(milled: Path) -> dict[str, list[Trace]]:
    """Traces of each kind; the recoveries begin with those that have a wrong step."""
    found: dict[str, list[Trace]] = {}
    for path in data.shards(milled):
        rows = pq.read_table(path, partitioning=None).to_pylist()
        found.setdefault(path.parent.name, []).extend(from_row(Trace, row) for row in rows)
    for some in found.values():
        some.sort(key=lambda trace: all(one.train for one in trace.messages if isinstance(one, AssistantMessage)))
    return {kind: some[:1] for kind, some in found.items()}


def spans(example: Example) -> Iterator[tuple[int, int]]:
    """Where the trained tokens are, run by run."""
    start: int | None = None
    for at, label in enumerate([*example.labels, data.IGNORED]):
        if label != data.IGNORED and start is None:
            start = at
        elif label == data.IGNORED and start is not None:
            yield start, at
            start = None


def told(messages: Sequence[Message], family: Family) -> list[Message]:
    return list(one_by_one(messages)) if family.one_call else list(messages)


def check(family: Family, tokenizer: Any, messages: Sequence[Message], tools: Sequence[OfferedTool], examples: Sequence[Example]) -> None:
    """Each good message of the agent is trained once: its own tokens, after the tokens that inference gives."""
    said = told(messages, family)
    wires = [wire_message(one, text_arguments=False, reasoning_key=family.key) for one in said]
    if family.short_ids:
        wires = json.loads(re.sub(r'"(call_\d+)"', lambda found: f'"{short(found[1])}"', json.dumps(wires)))
    wanted = {}
    for at, message in enumerate(said):
        if isinstance(message, AssistantMessage) and message.train:
            prompt = tokenizer.apply_chat_template(
                wires[:at], tools=[one.plain() for one in tools], add_generation_prompt=True, return_dict=True
            )["input_ids"]
            wanted[tuple(prompt)] = family.write(message if family.key else message.model_copy(update={"reasoning_content": None}))
    found = {}
    for example in examples:
        assert len(example.input_ids) == len(example.labels)
        for start, end in spans(example):
            assert example.labels[start:end] == example.input_ids[start:end]
            assert tuple(example.input_ids[:start]) not in found
            found[tuple(example.input_ids[:start])] = tokenizer.decode(example.input_ids[start:end])
    assert sorted(found.values()) == sorted(wanted.values())
    assert found == wanted


# --- each family ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_what_the_agent_would_write_is_trained_after_the_prompt_of_inference(name: str) -> None:
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    for messages in (conversation(), conversation(thoughts=False)):
        encoder = Encoder(tokenizer, max_length=LONG)
        examples = encoder.encode("t", messages, TOOLS)
        assert not encoder.report.left_out
        check(family, tokenizer, messages, TOOLS, examples)
        assert encoder.report.wrong_steps == 1
        assert encoder.report.parted_calls == family.one_call
    assert "W9" not in "".join(tokenizer.decode([id for id in one.labels if id >= 0]) for one in examples)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_kind_of_trace_is_trained_message_by_message(name: str, traces: dict[str, list[Trace]]) -> None:
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    encoder = Encoder(tokenizer, max_length=LONG)
    assert set(traces) == {"tool_call", "goal_decomposition", "error_recovery"}
    for trace in (one for some in traces.values() for one in some):
        examples = encoder.encode(trace.id, trace.messages, trace.tools)
        trained = [one for one in told(trace.messages, family) if isinstance(one, AssistantMessage) and one.train]
        assert sum(1 for example in examples for _ in spans(example)) == len(trained)
        if name not in ("gemma4_v5", "lfm2_2_5"):  # whose arguments our words above cover for simple values alone
            check(family, tokenizer, trace.messages, trace.tools, examples)
    assert encoder.report.wrong_steps and not encoder.report.left_out


# --- templates that cannot be used ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("gemma", "System role not supported"),
        ("cohere2", "roles must alternate user/assistant"),
        ("deepseekv3", 'can only concatenate str \\(not "dict"\\) to str'),
        ("deepseek_r1_distill", "does not show the tools and calls of tools"),
        ("lfm2", "does not show calls of tools"),
        ("phi3_5", "does not show the tools and calls of tools and results of tools"),
    ],
)
def test_a_template_that_cannot_show_an_agents_work_is_refused_in_its_own_words(template: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Encoder(tokenizer_of(Family(template, hermes, CHATML)), max_length=LONG)


def test_a_tokenizer_without_template_is_refused_and_so_is_a_slow_one() -> None:
    bare = tiny.build_tokenizer()
    bare.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        Encoder(bare, max_length=LONG)
    with pytest.raises(ConfigError, match="expected a fast tokenizer, got object"):
        Encoder(object(), max_length=LONG)  # type: ignore[arg-type]


def test_a_template_that_ends_a_message_with_nothing_to_stop_at_is_refused() -> None:
    endless = tiny.CHAT_TEMPLATE.replace("<|im_end|>", "").replace("<|im_start|>", "# ")
    with pytest.raises(ConfigError, match="which is no token to stop at"):
        Encoder(tokenizer_of(Family(endless, hermes, CHATML)), max_length=LONG)


def test_a_conversation_that_the_template_refuses_is_left_out_with_its_words() -> None:
    encoder = Encoder(tokenizer_of(FAMILIES["gptoss"]), max_length=LONG)
    both = acts(call(1, "wait", seconds=3), thought="Wait.").model_copy(update={"content": "One moment."})
    assert encoder.encode("both", [*conversation()[:2], both], TOOLS) == []
    assert len(encoder.encode("fine", conversation(), TOOLS)) == 2
    ((reason, ids),) = encoder.report.left_out.items()
    assert "Cannot pass both content and thinking" in reason
    assert ids == ["both"]


@pytest.mark.parametrize("name", ["gemma4_v5", "llama3_1"])
def test_words_that_cannot_stand_beside_a_call_are_left_out_and_told(name: str) -> None:
    tokenizer = tokenizer_of(FAMILIES[name])
    messages = [one.model_copy(update={"content": "One moment."}) if one == conversation()[2] else one for one in conversation()]
    encoder, bare = (Encoder(tokenizer, max_length=LONG) for _ in range(2))
    assert encoder.encode("t", messages, TOOLS) == bare.encode("t", conversation(), TOOLS) != []
    assert encoder.report.untold_words == 1 and not encoder.report.left_out and not bare.report.untold_words


# --- reasoning and wrong steps ----------------------------------------------------------------------------------


def trained(tokenizer: Any, examples: Sequence[Example]) -> list[str]:
    return [tokenizer.decode(one.input_ids[start:end]) for one in examples for start, end in spans(one)]


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.key])
def test_thoughts_that_are_kept_are_shown_and_not_trained(name: str) -> None:
    tokenizer = tokenizer_of(FAMILIES[name])
    kept, full = (Encoder(tokenizer, max_length=LONG, reasoning=how).encode("t", conversation(), TOOLS) for how in ("keep", "train"))
    assert [one.input_ids for one in kept] == [one.input_ids for one in full]
    hidden = [[id for id, a, b in zip(x.input_ids, x.labels, y.labels, strict=True) if a != b] for x, y in zip(kept, full, strict=True)]
    thoughts = [one.reasoning_content or "" for one in conversation() if isinstance(one, AssistantMessage) and one.train]
    assert sorted(tokenizer.decode([id for some in hidden for id in some])) == sorted("".join(thoughts))


@pytest.mark.parametrize("thought", ["think", "<", "tool", "Done.", "~", "\n a  \n"])
def test_a_thought_is_found_although_its_words_stand_elsewhere_too(thought: str) -> None:
    tokenizer = tokenizer_of(FAMILIES["qwen3"])
    messages = [*conversation()[:2], says("Done.", thought)]
    (kept,) = Encoder(tokenizer, max_length=LONG, reasoning="keep").encode("t", messages, TOOLS)
    parts = [tokenizer.decode(kept.input_ids[start:end]) for start, end in spans(kept)]
    assert [part.strip() for part in parts] == ["<think>", "</think>\n\nDone.<|im_end|>"]


def test_a_template_that_changes_the_words_of_thoughts_cannot_keep_them() -> None:
    shouting = tiny.CHAT_TEMPLATE.replace("message.reasoning_content | trim", "message.reasoning_content | trim | replace('i', '1')")
    encoder = Encoder(tokenizer_of(Family(shouting, hermes, CHATML)), max_length=LONG, reasoning="keep")
    assert encoder.encode("t", conversation(), TOOLS) == []
    ((reason, ids),) = encoder.report.left_out.items()
    assert "changes the words of thoughts" in reason and ids == ["t"]


def test_thoughts_that_are_dropped_are_nowhere() -> None:
    tokenizer = tokenizer_of(FAMILIES["ours"])
    examples = Encoder(tokenizer, max_length=LONG, reasoning="drop").encode("t", conversation(), TOOLS)
    assert examples == Encoder(tokenizer, max_length=LONG).encode("t", conversation(thoughts=False), TOOLS)
    assert "Only W1 then" not in tokenizer.decode(examples[0].input_ids)


def test_thoughts_that_a_template_cannot_show_are_counted() -> None:
    encoder = Encoder(tokenizer_of(FAMILIES["qwen2_5"]), max_length=LONG)
    encoder.encode("t", conversation(), TOOLS)
    assert encoder.report.untold_thoughts == 5
    assert "this template has no place for reasoning: 5 thoughts are not trained" in encoder.report.lines()


def test_qwen3_shows_earlier_thoughts_as_inference_does_at_the_price_of_an_example_for_each_turn() -> None:
    tokenizer = tokenizer_of(FAMILIES["qwen3"])
    first, second, third = Encoder(tokenizer, max_length=LONG).encode("t", conversation(), TOOLS)
    texts = [tokenizer.decode(one.input_ids) for one in (first, second, third)]
    assert ["First, who is it?" in text for text in texts] == [True, False, False]
    assert ["W1 is cancelled" in text for text in texts] == [False, True, True]
    assert [len(list(spans(one))) for one in (first, second, third)] == [2, 1, 2]


def test_wrong_steps_are_trained_only_where_that_is_asked_for() -> None:
    tokenizer = tokenizer_of(FAMILIES["ours"])
    masked, unmasked = (Encoder(tokenizer, max_length=LONG, mask_wrong=mask) for mask in (True, False))
    (good,), (all_of,) = (encoder.encode("t", conversation(), TOOLS) for encoder in (masked, unmasked))
    assert good.input_ids == all_of.input_ids
    more = set(trained(tokenizer, [all_of])) - set(trained(tokenizer, [good]))
    assert [text.startswith("<think>\nWRONG thought") for text in more] == [True]
    assert (masked.report.wrong_steps, unmasked.report.wrong_steps) == (1, 0)


def test_a_trace_without_anything_to_train_is_left_out() -> None:
    encoder = Encoder(tokenizer_of(FAMILIES["ours"]), max_length=LONG)
    assert encoder.encode("t", [*conversation()[:2], says("No.", train=False)], TOOLS) == []
    assert encoder.report.left_out == {"nothing in it is to be trained": ["t"]}


# --- borders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["\n\nYes", " yes", "\nyes\n", "é\u0301 日本", "<think>", "", " "])
def test_no_token_lies_across_the_border_between_prompt_and_answer(words: str) -> None:
    tokenizer = tiny.build_tokenizer(["assistant\n\n\nYes"] * 100)  # whose merges would reach across
    (example,) = Encoder(tokenizer, max_length=LONG).encode("t", [*conversation()[:2], says(words)], TOOLS)
    ((start, end),) = spans(example)
    wires = [wire_message(one, text_arguments=False, reasoning_key=None) for one in conversation()[:2]]
    shown = tokenizer.apply_chat_template(wires, tools=[one.plain() for one in TOOLS], add_generation_prompt=True, return_dict=True)
    assert example.input_ids[:start] == shown["input_ids"]
    assert tokenizer.decode(example.input_ids[start:end]) == words + "<|im_end|>"


def test_pieces_of_a_text_have_the_ids_that_they_have_within_it() -> None:
    tokenizer = tiny.build_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace("Ġ", prepend_scheme="first"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    text = "one two<|im_end|>three<|im_start|>four five"
    pieces = data.Pieces(tokenizer)
    cuts = [0, 4, 7, 17, 20, 22, 34, 36, len(text)]
    assert [id for a, b in itertools.pairwise(cuts) for id in pieces.ids(text, a, b)] != tokenizer(text).input_ids  # cut words
    cuts = [0, 17, 22, 34, len(text)]
    assert [id for a, b in itertools.pairwise(cuts) for id in pieces.ids(text, a, b)] == tokenizer(text).input_ids


# --- any conversation, any length -------------------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<|>"), max_size=30)
THOUGHTS = st.none() | WORDS.map(str.strip).filter(bool)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    messages: list[Message] = [SystemMessage(content=draw(WORDS))] if draw(st.booleans()) else []
    number = 0
    for _ in range(draw(st.integers(1, 4))):
        messages.append(UserMessage(content=draw(WORDS)))
        for _ in range(draw(st.integers(0, 3))):
            calls = [call(number + at, "wait", seconds=draw(st.integers(0, 999)), why=draw(WORDS)) for at in range(draw(st.integers(1, 3)))]
            number += len(calls)
            messages.append(acts(*calls, thought=draw(THOUGHTS), train=draw(st.booleans())))
            messages += [ToolMessage(tool_call_id=one.id, name="wait", content=draw(WORDS)) for one in calls]
        messages.append(says(draw(WORDS), draw(THOUGHTS), train=draw(st.booleans())))
    return messages


TOKENIZERS = {name: tokenizer_of(FAMILIES[name]) for name in ("ours", "qwen3", "qwen2_5", "glm4moe", "gptoss", "qwen3_5_think")}


@settings(max_examples=40)
@given(messages=conversations(), name=st.sampled_from(sorted(TOKENIZERS)))
def test_any_conversation_is_trained_message_by_message(messages: list[Message], name: str) -> None:
    family, tokenizer = FAMILIES[name], TOKENIZERS[name]
    encoder = Encoder(tokenizer, max_length=LONG)
    examples = encoder.encode("t", messages, TOOLS)
    said = told(messages, family)
    wires = [wire_message(one, text_arguments=False, reasoning_key=family.key) for one in said]
    prompts = set()
    for at, message in enumerate(said):
        if isinstance(message, AssistantMessage) and message.train:
            prompts.add(
                tokenizer.apply_chat_template(wires[:at], tools=[one.plain() for one in TOOLS], add_generation_prompt=True, tokenize=False)
            )
    found = [tokenizer.decode(one.input_ids[:start]) for one in examples for start, _ in spans(one)]
    assert sorted(found) == sorted(prompts)
    assert encoder.report.messages == len(found)
    assert all(
        text.endswith(("<|im_end|>", "<|user|>", "<|observation|>", "<|call|>", "<|return|>")) for text in trained(tokenizer, examples)
    )


@settings(max_examples=40)
@given(messages=conversations(), name=st.sampled_from(sorted(TOKENIZERS)), share=st.floats(0.1, 1.0))
def test_what_is_too_long_is_split_at_a_turn_or_left_out_and_counted(messages: list[Message], name: str, share: float) -> None:
    tokenizer = TOKENIZERS[name]
    whole = Encoder(tokenizer, max_length=LONG)
    everything = whole.encode("t", messages, TOOLS)
    size = max(8, int(share * max((len(one.input_ids) for one in everything), default=8)))
    encoder = Encoder(tokenizer, max_length=size)
    examples = encoder.encode("t", messages, TOOLS)
    assert all(len(one.input_ids) <= size and one.labels[-1] != data.IGNORED for one in examples)
    left = [one for ids in encoder.report.left_out.values() for one in ids]
    if "t" in left:
        assert not everything
        return
    every, some = trained(tokenizer, everything), trained(tokenizer, examples)
    assert len(every) == len(some) + len(left) == encoder.report.messages + len(left)
    assert not set(some) - set(every)
    assert bool(encoder.report.split) == any(len(one.input_ids) > size for one in everything)


def test_a_split_goes_on_with_the_system_message_and_a_users_message() -> None:
    tokenizer = tokenizer_of(FAMILIES["ours"])
    (whole,) = Encoder(tokenizer, max_length=LONG).encode("t", conversation(), TOOLS)
    encoder = Encoder(tokenizer, max_length=len(whole.input_ids) - 1)
    first, second = encoder.encode("t", conversation(), TOOLS)
    assert first.input_ids == whole.input_ids[: len(first.input_ids)]
    assert [text.rpartition("</think>\n")[2] for text in trained(tokenizer, [second])] == ["Done.<|im_end|>"]
    text = tokenizer.decode(second.input_ids)
    assert text.startswith("<|im_start|>system\nYou are the shop's agent.")
    assert text.partition("<|im_start|>user\n")[2].startswith("Oh, leave W2 alone.")
    assert "1 traces are split" in "\n".join(encoder.report.lines())


def test_a_turn_that_fits_nowhere_is_left_out_by_name_and_the_rest_is_kept() -> None:
    tokenizer = tokenizer_of(FAMILIES["ours"])
    long = says("word " * 500)
    messages = [*conversation()[:11], UserMessage(content="Tell me more."), long, UserMessage(content="Thanks."), says("Welcome.")]
    (start,) = Encoder(tokenizer, max_length=LONG).encode("t", conversation()[:11], TOOLS)
    encoder = Encoder(tokenizer, max_length=len(start.input_ids) + 10)
    examples = encoder.encode("t", messages, TOOLS)
    assert encoder.report.left_out == {f"a message that does not fit into {encoder.max_length} tokens with its turn": ["t[12]"]}
    assert trained(tokenizer, examples)[-1] == "Welcome.<|im_end|>"
    assert len(trained(tokenizer, examples)) == 4
    assert any("t[12]" in line for line in encoder.report.lines())


def test_a_trace_that_is_too_long_can_be_left_out_whole() -> None:
    encoder = Encoder(tokenizer_of(FAMILIES["ours"]), max_length=300, too_long="drop")
    assert encoder.encode("t", conversation(), TOOLS) == []
    assert encoder.report.left_out == {"longer than 300 tokens": ["t"]}
    assert (encoder.report.messages, encoder.report.wrong_steps, encoder.report.split) == (0, 0, 0)


# --- a run's folder ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tokenizer_of(FAMILIES["ours"])


def test_a_dataset_holds_every_trace_in_the_order_of_the_shards(milled: Path, tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, max_length=LONG)
    found = data.sft_dataset(milled, encoder)
    ids = [id for path in data.shards(milled) for id in pq.read_table(path, columns=["id"], partitioning=None)["id"].to_pylist()]
    assert found["trace"] == ids and len(ids) == 60
    assert found.column_names == ["input_ids", "labels", "trace"]
    row = from_row(Trace, pq.read_table(data.shards(milled)[0], partitioning=None).to_pylist()[0])
    (example,) = Encoder(tokenizer, max_length=LONG).encode(row.id, row.messages, row.tools)
    assert found[0] == vars(example)
    assert encoder.report.tokens == sum(map(len, found["input_ids"]))
    assert encoder.report.trained_tokens == sum(label >= 0 for row in found["labels"] for label in row)
    assert encoder.report.lines()[0].startswith("60 traces -> 60 examples of ")


def test_only_the_kinds_that_are_asked_for_are_read(milled: Path, tokenizer: Any) -> None:
    found = data.sft_dataset(milled, Encoder(tokenizer, max_length=LONG), kinds=["tool_call"])
    ids = [
        id
        for path in (milled / "data" / "tool_call").iterdir()
        for id in pq.read_table(path, columns=["id"], partitioning=None)["id"].to_pylist()
    ]
    assert sorted(found["trace"]) == sorted(ids)
    with pytest.raises(DatasetError, match="holds no traces of kind singing"):
        data.sft_dataset(milled, Encoder(tokenizer, max_length=LONG), kinds=["singing"])


def test_a_folder_without_a_run_or_with_a_broken_row_is_refused(tmp_path: Path, rewritten: Any, tokenizer: Any) -> None:
    with pytest.raises(DatasetError, match="holds no run"):
        data.sft_dataset(tmp_path, Encoder(tokenizer, max_length=LONG))
    broken = rewritten(lambda row: row.update(messages=["{}"]))
    with pytest.raises(DatasetError, match="is broken"):
        data.sft_dataset(broken, Encoder(tokenizer, max_length=LONG))


def test_a_run_that_is_not_complete_is_read_and_that_is_told(milled: Path, tmp_path: Path, tokenizer: Any) -> None:
    list(growing(milled, tmp_path, complete=False))
    encoder = Encoder(tokenizer, max_length=LONG)
    assert len(data.sft_dataset(tmp_path, encoder)) == 60
    assert "1 runs were not complete when they were read" in encoder.report.lines()


def growing(source: Path, out: Path, *, complete: bool) -> Iterator[None]:
    """Copy a run shard by shard, as a run writes it; step by step, with half a shard at every other."""
    run = json.loads((source / "run.json").read_text(encoding="utf-8"))
    (out / "run.json").write_text(json.dumps({**run, "complete": False}), encoding="utf-8")
    for path in data.shards(source):
        folder = out / "data" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".half.tmp").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        yield
        (folder / ".half.tmp").write_bytes(path.read_bytes())
        (folder / ".half.tmp").rename(folder / path.name)
        yield
    (out / "run.json").write_text(json.dumps({**run, "complete": complete}), encoding="utf-8")


def test_a_stream_follows_a_run_that_is_being_written(
    milled: Path, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks for new shards the run goes on by a step."""
    steps, looks = growing(milled, tmp_path, complete=True), []
    next(steps)

    def sleep(seconds: float) -> None:
        looks.append(len(data.shards(tmp_path)))
        next(steps, None)

    monkeypatch.setattr(data, "time", SimpleNamespace(sleep=sleep))
    encoder = Encoder(tokenizer, max_length=LONG)
    with (tmp_path / ".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        rows = list(data.stream(tmp_path, encoder, follow=True))
    assert set(looks) == {*range(len(data.shards(milled)) + 1)}, "it was there from the first shard to the last"
    assert len({row["trace"] for row in rows}) == len(rows) == encoder.report.traces == 60
    again = list(data.stream(tmp_path, Encoder(tokenizer, max_length=LONG), follow=False))
    assert again == rows


def test_a_stream_ends_where_nobody_writes_any_more(milled: Path, tmp_path: Path, tokenizer: Any) -> None:
    list(growing(milled, tmp_path, complete=False))
    assert len(list(data.stream(tmp_path, Encoder(tokenizer, max_length=LONG), follow=True))) == 60


# --- preference pairs -------------------------------------------------------------------------------------------


def test_a_pair_is_one_prompt_and_two_messages(milled: Path, tokenizer: Any) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    encoder = Encoder(tokenizer, max_length=LONG)
    pairs = data.dpo_dataset(milled, encoder)
    records = [one for path in part_files(milled / "preferences") for one in data._records(Preference, path)]
    assert len(pairs) == len(records) == encoder.report.pairs
    batch = DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id)([pairs[0], pairs[1]])
    write = FAMILIES["ours"].write
    completions = [*(one.chosen[0] for one in records[:2]), *(one.rejected[0] for one in records[:2])]
    prompts = [one.prompt for one in records[:2]] * 2
    for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        ids, mask = batch["input_ids"][number], batch["completion_mask"][number].bool()
        assert tokenizer.decode(ids[mask]) == write(completion)
        wires = [wire_message(one, text_arguments=False, reasoning_key="reasoning_content") for one in prompt]
        shown = tokenizer.apply_chat_template(
            wires, tools=[one.plain() for one in records[number % 2].tools], add_generation_prompt=True, return_dict=True
        )
        assert ids[: len(shown["input_ids"])].tolist() == shown["input_ids"]
        assert not mask[: len(shown["input_ids"])].any()


def pair(chosen: AssistantMessage, rejected: AssistantMessage) -> Preference:
    return Preference(
        id="p", trace="t", index=0, prompt=conversation()[:2], chosen=(chosen,), rejected=(rejected,), tools=TOOLS, source="ask", margin=1.0
    )


def test_a_pair_that_cannot_be_shown_is_left_out_and_counted(tokenizer: Any) -> None:
    two = acts(call(1, "wait", seconds=1), call(2, "wait", seconds=2))
    single = Encoder(tokenizer_of(FAMILIES["llama3_1"]), max_length=LONG)
    assert single.pair(pair(says("Yes."), two)) is None
    assert single.report.left_out == {"the template takes one call in a message": ["p"]}
    short = Encoder(tokenizer, max_length=50)
    assert short.pair(pair(says("Yes."), says("No."))) is None
    assert short.report.left_out == {"longer than 50 tokens": ["p"]}
    mute = Encoder(tokenizer_of(FAMILIES["qwen2_5"]), max_length=LONG)
    assert mute.pair(pair(says("Yes.", "Because."), says("Yes."))) is None
    assert mute.report.left_out == {"the template shows no difference between the two messages": ["p"]}


# --- TRL takes it as it is --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_tiny_model(tmp_path_factory.mktemp("model"), layers=1)


@pytest.mark.parametrize("packing", [False, True])
def test_trl_trains_on_the_labels_as_they_are(model: Path, tmp_path: Path, packing: bool) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    known = AutoTokenizer.from_pretrained(model)
    encoder = Encoder(known, max_length=LONG)
    rows = Dataset.from_list([vars(one) for end in (8, 11, 15) for one in encoder.encode("t", conversation()[:end], TOOLS)])
    seen: list[dict[str, Any]] = []

    class Watched(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            seen.append({key: inputs[key].clone() for key in ("input_ids", "labels", *(["position_ids"] if packing else []))})
            return super().compute_loss(model, inputs, *args, **kwargs)

    trainer = Watched(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=SFTConfig(
            output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=3, max_length=4096, packing=packing, bf16=False,
            use_cpu=True, gradient_checkpointing=False, report_to="none", save_strategy="no", disable_tqdm=True,
        ),
        train_dataset=rows,
        processing_class=known,
    )  # fmt: skip
    trainer.train()
    pairs = [
        sorted((id, label) for id, label in zip(row["input_ids"], row["labels"], strict=True) if label != data.IGNORED) for row in rows
    ]
    ids, labels = (seen[0][key].flatten().tolist() for key in ("input_ids", "labels"))
    assert sorted((id, label) for id, label in zip(ids, labels, strict=True) if label != data.IGNORED) == sorted(itertools.chain(*pairs))
    if packing:
        assert seen[0]["position_ids"].flatten().tolist().count(0) == 3
