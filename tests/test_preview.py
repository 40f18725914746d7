"""The preview shows what is trained, what is only seen, and never lets a trace act on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny

from tracemill.errors import ConfigError, DatasetError
from tracemill.trace import AssistantMessage, FunctionCall, SystemMessage, ToolCall, ToolMessage, UserMessage
from tracemill.train.data import Reasoning, Told
from tracemill.train.preview import STYLES, View, preview

TRACE = Told(
    id="tm-1",
    messages=(
        SystemMessage(content="Policy " * 600 + "end of policy."),
        UserMessage(content="Cancel it. [bold]Now[/bold] \x1b[31m!"),
        AssistantMessage(
            content="",
            reasoning_content="A slip.",
            tool_calls=(ToolCall(id="call_1", function=FunctionCall(name="cancel", arguments={"id": 9})),),
            train=False,
        ),
        ToolMessage(tool_call_id="call_1", name="cancel", content="[red]no such order[/red]"),
        AssistantMessage(content="It cannot be cancelled. [/bold]", reasoning_content="There is no 9."),
    ),
    tools=(),
)


def shown(reasoning: Reasoning, *, marked: bool) -> Any:
    view = View(tiny.build_tokenizer(), reasoning, 100_000)
    (text,) = view.examples("tool_call", TRACE, marked=marked)
    return text


def test_without_colours_marks_stand_around_what_is_trained_wrong_or_kept() -> None:
    text = shown("train", marked=True).plain
    assert "⟦<think>\nThere is no 9.\n</think>\nIt cannot be cancelled. [/bold]<|im_end|>⟧" in text
    assert '⟪<think>\nA slip.\n</think>\n<tool_call>\n{"name": "cancel", "arguments": {"id": 9}}\n</tool_call><|im_end|>⟫' in text
    assert (text.count("⟦"), text.count("⟪"), text.count("‹")) == (1, 1, 0)
    kept = shown("keep", marked=True).plain
    assert "⟦<think>\n⟧‹There is no 9.›⟦\n</think>\nIt cannot be cancelled. [/bold]<|im_end|>⟧" in kept
    assert "There is no 9" not in shown("drop", marked=True).plain


def test_in_colours_trained_text_is_green_and_wrong_steps_are_struck_out() -> None:
    text = shown("train", marked=False)
    assert not set("⟦⟧⟪⟫‹›") & set(text.plain)
    styles = {
        what: "".join(text.plain[span.start : span.end] for span in text.spans if str(span.style).startswith(style))
        for what, style in STYLES.items()
    }
    assert styles["trained"] == "<think>\nThere is no 9.\n</think>\nIt cannot be cancelled. [/bold]<|im_end|>"
    assert styles["wrong"].startswith("<think>\nA slip.") and styles["wrong"].endswith("</tool_call><|im_end|>")
    assert "no such order" in styles["context"]
    assert any(str(span.style) == "bold green underline" and text.plain[span.start : span.end] == "<|im_end|>" for span in text.spans)


def test_what_a_trace_says_is_no_markup_and_cannot_act_on_the_terminal() -> None:
    text = shown("train", marked=True)
    assert "[bold]Now[/bold]" in text.plain and "[red]no such order[/red]" in text.plain
    assert "\x1b" not in text.plain and "␛[31m" in text.plain


def test_of_a_long_context_the_ends_are_shown_and_the_rest_is_counted() -> None:
    text = shown("train", marked=True).plain
    assert text.count("Policy") < 200
    assert "end of policy." in text and "tokens are not shown" in text


def test_the_size_of_each_example_is_told() -> None:
    view = View(tiny.build_tokenizer(), "train", 100_000)
    (text,) = view.examples("tool_call", TRACE, marked=True)
    (example,) = View(tiny.build_tokenizer(), "train", 100_000).encoder.encode("tm-1", TRACE.messages, ())
    number = sum(label >= 0 for label in example.labels)
    assert f"── tm-1 · tool_call · example 1 of 1 · {len(example.labels):,} tokens, {number} trained" in text.plain


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.build_tokenizer().save_pretrained(folder)
    return str(folder)


def test_the_preview_of_a_run_shows_kinds_in_turn_and_ends_with_the_report(
    milled: Path, tokenizer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    preview(milled, tokenizer, limit=3, max_length=20_000)
    printed = capsys.readouterr().out
    assert printed.startswith("⟦what the model learns to write⟧")
    assert [kind in printed for kind in ("· tool_call ·", "· goal_decomposition ·", "· error_recovery ·")] == [True] * 3
    assert "Of the 3 traces shown:\n3 traces -> 3 examples of " in printed
    preview(milled, tokenizer, limit=2, kind="error_recovery", max_length=20_000)
    assert capsys.readouterr().out.count("· error_recovery ·") == 2


def test_a_preview_of_nothing_or_by_no_tokenizer_says_so(milled: Path, tokenizer: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no traces of kind singing"):
        preview(milled, tokenizer, kind="singing")
    with pytest.raises(DatasetError, match="holds no run"):
        preview(tmp_path, tokenizer)
    with pytest.raises(ConfigError, match="no tokenizer can be loaded from"):
        preview(milled, str(tmp_path))
