"""What is a model family's own: its chat template, and how its tool calls and its thinking are read back.

Template and parsers come with vLLM and the model. That they fit together is found out before weights are loaded: a call
that the template writes must be the call that the parser reads.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tracemill.config import VllmConfig
from tracemill.errors import ConfigError, ContextTooLong
from tracemill.generators.teachers.chat import Ask, RawCall, Sampling, wire_message
from tracemill.trace import AssistantMessage, FunctionCall, FunctionSpec, Json, OfferedTool, SystemMessage, ToolCall, UserMessage

if TYPE_CHECKING:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

FAMILIES = ("hermes", "llama3_json", "mistral", "qwen3_coder", "deepseek_v3", "kimi_k2", "glm45", "granite", "pythonic")
"""Parsers that are tried first where none is named; several may read one sample."""

SAMPLE_TOOL = OfferedTool(
    function=FunctionSpec(
        name="find_parcel",
        description="Where a parcel is.",
        parameters={"type": "object", "properties": {"number": {"type": "string"}, "days": {"type": "integer"}}, "required": ["number"]},
    )
)
SAMPLE_CALL = FunctionCall(name="find_parcel", arguments={"number": "K7Q2", "days": 3})


def check_names(config: VllmConfig) -> None:
    """Raises ConfigError for parsers that vLLM does not have."""
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    known = {
        "tool_parser": (config.tool_parser, ToolParserManager.list_registered()),
        "reasoning_parser": (config.reasoning_parser, ReasoningParserManager.list_registered()),
    }
    problems = []
    for key, (named, names) in known.items():
        if named is not None and named not in names:
            near = difflib.get_close_matches(named, names, n=1)
            problems.append(f"{key}: vLLM has no {named!r}; {f'did you mean {near[0]!r}?' if near else 'it has ' + ', '.join(names)}")
    if problems:
        raise ConfigError("the teacher's parsers are not known", problems)


class Family:
    """`renderer` is vLLM's, with the model's tokenizer and chat template."""

    def __init__(self, config: VllmConfig, renderer: Any) -> None:
        self._config = config
        self._renderer = renderer
        self._tokenizer: Any = renderer.get_tokenizer()
        self._forms: dict[tuple[int, ...], Form] = {}
        self._template = config.chat_template.read_text(encoding="utf-8") if config.chat_template else None
        self._reasoning = self._reasoning_parser()
        self.tool_parser: str | None = None
        """Known once it fits."""

    async def fit(self) -> None:
        """Choose the tool parser, or see that the one that was named reads what the chat template writes. Raises ConfigError."""
        from vllm.tool_parsers import ToolParserManager

        named = self._config.tool_parser
        sample = await self._sample()
        self._forms.clear()  # those of the sample know no parser
        names = sorted(
            ToolParserManager.list_registered(), key=lambda name: (FAMILIES.index(name) if name in FAMILIES else len(FAMILIES), name)
        )
        self.tool_parser = next((name for name in ([named] if named else names) if self._reads(name, sample)), None)
        if self.tool_parser is None:
            others = [name for name in names if self._reads(name, sample)]
            reader = f"the parser {named!r} does not read" if named else "no parser reads"
            raise ConfigError(
                f"the chat template of {self._config.model} writes a tool call that {reader} back",
                [
                    f"written: {sample!r}",
                    f"expected: {SAMPLE_CALL.name} {SAMPLE_CALL.arguments}",
                    f"parsers that read it: {', '.join(others) or 'none; give another template (chat_template)'}",
                ],
            )
        self.form((SAMPLE_TOOL,))  # raises where calls cannot be guided

    async def render(self, ask: Ask, *, begin_reply: bool = True) -> Any:
        """The prompt as the engine takes it, with `prompt_token_ids`. Raises ContextTooLong."""
        from vllm.exceptions import VLLMValidationError
        from vllm.renderers.params import ChatParams

        messages = [wire_message(one, text_arguments=True, reasoning_key="reasoning") for one in ask.messages]
        kwargs: dict[str, Any] = {**self._config.template_kwargs, "add_generation_prompt": begin_reply}
        if ask.tools:
            kwargs["tools"] = self.form(ask.tools).plain
        try:
            _, (prompt,) = await self._renderer.render_chat_async(
                [messages], ChatParams(chat_template=self._template, chat_template_kwargs=kwargs)
            )
        except VLLMValidationError as reason:
            if reason.parameter in ("input_tokens", "input_text"):
                unit = reason.parameter.removeprefix("input_").replace("text", "characters")
                raise ContextTooLong(f"the conversation is longer than the model's context: {reason.value} {unit}") from reason
            raise
        return prompt

    def form(self, tools: Sequence[OfferedTool]) -> Form:
        """What replies to requests with these tools have in common."""
        key = tuple(map(id, tools))  # the same few lists come again and again; the form holds them, so that ids stay theirs
        if key not in self._forms:
            self._forms[key] = Form(tuple(tools), self.tool_parser if tools else None, self._tokenizer, guided=self._config.guided_calls)
        return self._forms[key]

    def read(self, text: str, ask: Ask) -> tuple[str, str | None, tuple[RawCall, ...]]:
        """Text, reasoning and calls of a reply."""
        form = self.form(ask.tools)
        reasoning: str | None = None
        if self._reasoning is not None:
            reasoning, content = self._reasoning.extract_reasoning(text, form.request)
            text = content or ""
        if not ask.tools or ask.schema is not None:
            return text, reasoning, ()
        calls, text = form.read(text)
        return text, reasoning, calls

    def _reasoning_parser(self) -> Any:
        from vllm.reasoning import ReasoningParserManager

        name = self._config.reasoning_parser
        if name is None:
            return None
        try:
            return ReasoningParserManager.get_reasoning_parser(name)(self._tokenizer)
        except Exception as reason:
            raise ConfigError(f"reasoning_parser: {name!r} does not suit the tokenizer of {self._config.model}: {reason}") from reason

    async def _sample(self) -> str:
        """A tool call as the chat template writes it. Raises ConfigError if the template does nothing with tools."""
        messages = (SystemMessage(content="You help."), UserMessage(content="Where is parcel K7Q2?"))
        call = ToolCall(id="call00001", function=SAMPLE_CALL)  # some templates want nine letters and digits
        sampling = Sampling(temperature=0, max_tokens=1)
        try:
            before = await self.render(Ask(messages, sampling, 0, (SAMPLE_TOOL,)))
            answered = (*messages, AssistantMessage(content="", tool_calls=(call,)))
            after = await self.render(Ask(answered, sampling, 0, (SAMPLE_TOOL,)), begin_reply=False)
        except Exception as reason:
            raise ConfigError(f"the chat template of {self._config.model} cannot render a conversation with tools: {reason}") from reason
        asked, told = list(before["prompt_token_ids"]), list(after["prompt_token_ids"])
        if SAMPLE_TOOL.function.name not in self._tokenizer.decode(asked):
            raise ConfigError(
                f"the chat template of {self._config.model} does not tell the model of its tools",
                ["choose a model that is trained for tool calls, or give a template that renders `tools` (chat_template)"],
            )
        same = next((at for at, (one, other) in enumerate(zip(asked, told, strict=False)) if one != other), min(len(asked), len(told)))
        written: str = self._tokenizer.decode(told[same:])
        return written.rstrip().removesuffix(self._tokenizer.eos_token or "").strip()

    def _reads(self, name: str, sample: str) -> bool:
        with contextlib.suppress(Exception):  # a parser that does not suit the tokenizer says so in many ways
            calls, _ = Form((SAMPLE_TOOL,), name, self._tokenizer, guided=False).read(sample)
            return [(one.name, json.loads(one.arguments)) for one in calls] == [(SAMPLE_CALL.name, SAMPLE_CALL.arguments)]
        return False


class Form:
    """What the replies to requests with one list of tools have in common: how they are constrained and how they are read."""

    def __init__(self, tools: tuple[OfferedTool, ...], parser: str | None, tokenizer: Any, *, guided: bool) -> None:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.tool_parsers import ToolParserManager

        self._tools = tools
        self.plain: list[Json] = [one.plain() for one in tools]
        wanted: dict[str, Any] = {"tools": self.plain, "tool_choice": "auto"} if tools else {}
        self.request: ChatCompletionRequest = ChatCompletionRequest(messages=[{"role": "user", "content": ""}], **wanted)
        self._parser: Any = None
        self.tag: str | None = None
        """Structural tag that holds calls to their schemas, if wanted."""
        if parser is not None:
            self._parser = ToolParserManager.get_tool_parser(parser)(tokenizer, list(self.request.tools or ()))
            if guided:
                self.tag = self._structural_tag(parser)
            self.request = self._parser.adjust_request(self.request)
        self.skip_special_tokens = bool(self.request.skip_special_tokens)

    def read(self, text: str) -> tuple[tuple[RawCall, ...], str]:
        """The calls in a reply, and its text without them. Whatever a parser stumbles over stays text."""
        if self._parser is None:
            return (), text
        try:
            found = self._parser.extract_tool_calls(text, self.request)
        except Exception:  # noqa: BLE001 - a parser's bug is met by a model's odd text; the text is then judged as it is
            return (), text
        if not found.tools_called:
            return (), text
        return tuple(RawCall(one.function.name, one.function.arguments) for one in found.tool_calls), found.content or ""

    def _structural_tag(self, parser: str) -> str:
        from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

        tag = self._parser.get_structural_tag(self.request, strict_level=ToolStrictLevel.PARAMETER)
        if tag is None:
            raise ConfigError(f"guided_calls: vLLM knows no structural tag for the parser {parser!r}; leave it off")
        text: str = tag.model_dump_json()
        return text
