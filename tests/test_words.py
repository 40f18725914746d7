"""Grammars: one meaning, many wordings, and values that stay what they are."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracemill.errors import ScenarioError
from tracemill.generators.environments.catalogue import BUILT_IN, environment
from tracemill.generators.words import COMMON, Grammar, Prose, common_rules, read_rules
from tracemill.trace import MistakeKind, Tone

TONES: tuple[Tone, ...] = get_args(Tone)


def said(rules: dict[str, list[str]], symbol: str = "s", tone: str = "plain", seed: int = 0, **values: object) -> str:
    return Grammar(rules).expand(symbol, random.Random(seed), values, tone)


@pytest.mark.parametrize("value", ["{x}", "<y>", "<s>", "{value}", "{{x}}", "<y> {x} <nowhere> {nothing}", "\\1 \\g<0>", "%s {0}"])
def test_a_value_is_never_expanded_again(value: str) -> None:
    rules = {"s": ["I wrote {value} twice: {value}; <y>"], "y": ["and {x}."]}
    assert said(rules, value=value, x="more") == f"I wrote {value} twice: {value}; and more."


@given(st.text(max_size=30), st.text(max_size=30))
def test_values_inside_a_sentence_stay_as_they_are_to_the_letter(one: str, other: str) -> None:
    assert said({"s": ["A: {one}|{other}|end"]}, one=one, other=other) == f"A: {one}|{other}|end"


def test_a_grammar_names_every_symbol_that_is_missing_or_empty() -> None:
    with pytest.raises(ScenarioError) as caught:
        Grammar({"s": ["<a> <b>", "<c> <e>"], "c": [], "a": ["x"], "d": []})
    assert caught.value.problems == (
        "<b> is used but not defined",
        "<e> is used but not defined",
        "'c' has no alternatives",
        "'d' has no alternatives",
    )


def test_an_unknown_symbol_or_slot_is_named_when_it_is_asked_for() -> None:
    with pytest.raises(ScenarioError, match=r"no wording for 'nope'"):
        said({"s": ["x"]}, "nope")
    with pytest.raises(ScenarioError, match=r"wording 't' needs a value for \{slot\}; there are \['other'\]"):
        said({"s": ["<t>"], "t": ["{slot}"]}, other=1)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hello. is it you? yes! good.", "Hello. Is it you? Yes! Good."),
        ("it costs 3.50 now", "It costs 3.50 now"),
        ("<a> <b>", "First. Then second"),
        ("<none> it begins", "It begins"),
        ("one <none> two", "One two"),
        ("get_order. it is a name", "get_order. It is a name"),
        ("/a/path. it is one", "/a/path. It is one"),
    ],
)
def test_sentences_begin_with_a_capital_and_spaces_come_one_at_a_time(text: str, wanted: str) -> None:
    assert said({"s": [text], "a": ["first. "], "b": ["then second"], "none": [""]}) == wanted


def test_a_value_gets_a_capital_only_at_the_very_beginning_or_as_prose() -> None:
    rules = {"s": ["done. {value} is next"], "t": ["{value} is first"], "u": ["<u.a>{value} it is"], "u.a": ["hi. "]}
    assert said(rules, value="main.py") == "Done. main.py is next"
    assert said(rules, value="anna") == "Done. anna is next"
    assert said(rules, value=Prose("the order")) == "Done. The order is next"
    assert said(rules, value=Prose("get_order")) == "Done. get_order is next"
    assert said(rules, "t", value="anna") == "Anna is first"
    assert said(rules, "t", value="find_it") == "find_it is first"
    assert said(rules, "u", value=Prose("yes. and no")) == "Hi. Yes. and no it is"


def test_a_wording_of_the_tone_replaces_the_plain_one_also_below() -> None:
    rules = {"s": ["<hi> there"], "hi": ["hello"], "hi@terse": ["yo"], "s@formal": ["dear <hi>"]}
    assert said(rules) == "Hello there"
    assert said(rules, tone="terse") == "Yo there"
    assert said(rules, tone="formal") == "Dear hello"
    assert said(rules, tone="worried") == "Hello there"


def test_the_same_dice_give_the_same_words_and_other_dice_others() -> None:
    rules = {"s": ["<a> and <a>"], "a": ["one", "two", "three"]}
    made = [said(rules, seed=seed) for seed in range(40)]
    assert made == [said(rules, seed=seed) for seed in range(40)]
    assert len(set(made)) == 9, "each of the nine combinations can come"


def test_a_file_that_is_no_map_of_lists_is_refused(tmp_path: Path) -> None:
    for text in ("- a\n- b\n", "a: text\n", "just words"):
        file = tmp_path / "words.yaml"
        file.write_text(text)
        with pytest.raises(ScenarioError, match=r"words\.yaml: expected a map"):
            read_rules(file)


# --- the words that come with it ---------------------------------------------------------------------------

SLOTS = re.compile(r"\{([a-z_]\w*)\}")
SYMBOL = re.compile(r"<([a-z_][\w.]*)>")


def test_every_common_wording_reads_as_prose_in_every_tone() -> None:
    rules = common_rules()
    grammar = Grammar(rules)
    values = {name: Prose("value") for texts in rules.values() for text in texts for name in SLOTS.findall(text)}
    for symbol in sorted({symbol.split("@")[0] for symbol in rules}):
        for tone in TONES:
            for seed in range(20):
                text = grammar.expand(symbol, random.Random(seed), values, tone)
                assert not re.search(r"[<>{}]|  | [.,;:!?]|[.,;:!?][.,;:]|[.!?] [a-z]", text), (symbol, text)
    for symbol, texts in rules.items():
        assert not re.search(r": [A-Z](?!\b)", "\n".join(texts)), f"{symbol}: what follows a colon goes on with the sentence"


def test_no_common_wording_lies_idle() -> None:
    here = Path(COMMON).parent.parent
    used = {symbol for text in Path(COMMON).read_text().splitlines() for symbol in SYMBOL.findall(text)}
    for name in BUILT_IN:
        words = environment(name).words
        assert isinstance(words, Path)
        used |= set(SYMBOL.findall(words.read_text()))
    teacher = (here / "teachers" / "scripted.py").read_text()
    used |= set(re.findall(r'"([a-z_]+(?:\.[a-z_]+)*)"', teacher)) | {f"notice.{kind}" for kind in get_args(MistakeKind)}
    idle = {symbol.split("@")[0] for symbol in common_rules()} - used
    assert not idle


def test_wordings_that_tools_use_when_something_is_wrong_are_complete() -> None:
    rules = read_rules(COMMON.parent / "trouble.yaml")
    grammar = Grammar(rules)
    values = dict.fromkeys(("tool", "old", "new", "what"), "get_it")
    for symbol in rules:
        assert len({grammar.expand(symbol, random.Random(seed), values) for seed in range(30)}) >= 3, symbol
