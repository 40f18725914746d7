"""Nothing that a model writes stops a run: whatever it is, an index ends in a sound trace or in the ledger."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fake_chat import FakeChat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracemill.columns import from_row, table, to_row
from tracemill.config import Config, Prices
from tracemill.constitution.constitution import Constitution, load_constitution
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.scenario import scenario
from tracemill.generators.teachers.chat import Completion, RawCall, Sampling
from tracemill.generators.teachers.model import ModelTeacher
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.inspection import Passed, inspect
from tracemill.job import build_job
from tracemill.pipeline import Job, Milled, Pipeline
from tracemill.trace import AssistantMessage, Preference, Record, Rejection, Trace
from tracemill.writer import pack

PANTRY = "pantry:Pantry"
NOISE = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz .?{}\"'<>", k=1_000_000))


@pytest.fixture(autouse=True)
def examples_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "examples"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@functools.cache
def constitution() -> Constitution:
    return load_constitution()


# --- what a model may write ---------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=()), max_size=40)  # halves of surrogate pairs and control characters too
TOOLS = ["get_jar", "empty_jar", "fill_jar", "transfer_to_human", "update_plan", "wait"]
WHOLE = '<tool_call>{"name": "fill_jar", "arguments": {"jar_id": "J-101", "food": "rice"}}</tool_call>'
JARS = st.sampled_from([f"J-{number}" for number in range(100, 110)])
FOODS = st.sampled_from(["rice", "oats", "nothing", "", "a" * 300, "\x00", "\u2028", "üñí😀"])

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | WORDS
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6)
KEYS = "".join(f'{{"{number * number:x}":' for number in range(4000))  # no two alike, or it would be taken for a loop
nested = st.builds(lambda depth: KEYS[: KEYS.index(":", 9 * depth) + 1] + "[" * 20, st.sampled_from([3, 33, 200, 3300])).map(
    lambda opened: opened + "]" * 20 + "}" * opened.count("{")
)
arguments = st.one_of(
    st.fixed_dictionaries({"jar_id": JARS}, optional={"food": FOODS}).map(json.dumps),
    st.fixed_dictionaries({"jar_id": values}, optional={"food": values, "seconds": values, "subgoals": values}).map(json.dumps),
    values.map(json.dumps),
    nested,
    WORDS,
    st.sampled_from(["", "{}", "null", "[]", '{"jar_id": NaN}', '{"jar_id": 1e999}', f'{{"jar_id": {"9" * 5000}}}', '{"a": "\\ud800"}']),
)
calls = st.lists(st.builds(RawCall, st.sampled_from(TOOLS) | WORDS, arguments), min_size=1, max_size=3).map(tuple)
fragments = st.builds(lambda start, end: WHOLE[start:end], st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)))
huge = st.builds(
    lambda start, length: NOISE[start:][:length] * 2, st.integers(0, 400_000), st.sampled_from([15_000, 21_000, 30_000, 500_000])
)
chatter = st.sampled_from(["Certainly!", "Shall I?", "It is done.", "Jar J-101 now holds rice.", "Готово.", "", " \n", "la " * 2000])
texts = st.one_of(WORDS, fragments, chatter, huge, values.map(json.dumps))
thoughts = st.none() | WORDS | st.sampled_from(["", "so I do it", "hm " * 2000])
garbage = st.one_of(
    st.builds(Completion, texts, thoughts, cut=st.booleans()),
    st.builds(Completion, st.just(""), thoughts, calls),
    st.builds(Completion, texts, thoughts, calls, cut=st.booleans()),
)
replies = st.lists(st.none() | garbage, min_size=25, max_size=25)
"""None is a good one."""


# --- what must become of it ---------------------------------------------------------------------------------


def job(**settings: object) -> Job:
    return build_job(Config(teacher="fake model", environments=[PANTRY], **settings))  # type: ignore[arg-type]


async def play(job: Job, index: int, said: list[Completion | None]) -> list[Milled]:
    """The index and those after it, until the replies are used up."""
    left = iter(said)
    used = 0

    def astray(turn: int) -> Completion | None:
        nonlocal used
        used += 1
        return next(left, None)

    made: list[Milled] = []
    while used < len(said):
        teacher = ModelTeacher(FakeChat(scenario(job.seed, index, job.mix), astray), Sampling(0.5, 512), reasoning_steps=2, prices=Prices())
        made.append(await Pipeline(job, teacher, ScriptedTeacher(), constitution()).mill(index))
        index += 1
    return made


def check_end(one: Milled) -> None:
    """A trace, or a final rejection; and never for a reason that is ours."""
    assert sum(rejection.final for rejection in one.rejections) == (one.trace is None)
    assert one.trace is not None or one.rejections[-1].final
    assert not one.lost
    assert all(rejection.stage != "infrastructure" for rejection in one.rejections), one.rejections


async def check_trace(trace: Trace) -> None:
    cls = environment(trace.environment)
    read = from_row(Trace, to_row(trace))
    assert read == trace and read.digest == read.seal()
    assert isinstance(await inspect(read, cls, constitution()), Passed)
    offered = {tool.name for tool in cls.tools(trace.kind)}
    drifting = {fault.tool for fault in trace.scenario.faults if fault.kind == "schema_drift"}  # they take other names by then
    for message in trace.messages:
        if isinstance(message, AssistantMessage) and message.train:
            assert message.content or message.tool_calls
            for call in message.tool_calls or ():
                assert call.name in offered
                assert call.name in drifting or cls.toolbox()[call.name].problems(call.arguments) == []


def check_files(made: list[Milled]) -> None:
    """What is written is what is read."""
    records: list[Record] = []
    for one in made:
        assert pack(one)["index"] == one.index
        records += [*([one.trace] if one.trace else []), *one.rejections, *one.preferences]
    for cls in (Trace, Rejection, Preference):
        written = [one for one in records if isinstance(one, cls)]
        file = io.BytesIO()
        pq.write_table(table(cls, [to_row(one) for one in written]), file)
        rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        assert [from_row(cls, row) for row in rows] == written


def fuzz(job: Job, examples: int) -> tuple[int, int]:
    """How many replies were used, and how many traces came of it."""
    counts = [0, 0]
    with asyncio.Runner() as runner:

        @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
        @given(st.integers(0, 500), replies)
        def run(index: int, said: list[Completion | None]) -> None:
            made = runner.run(play(job, index, said))
            for one in made:
                check_end(one)
                if one.trace:
                    runner.run(check_trace(one.trace))
            check_files(made)
            counts[0] += len(said)
            counts[1] += sum(one.trace is not None for one in made)

        run()
    return counts[0], counts[1]


def test_thousands_of_replies_stop_nothing_and_spoil_nothing() -> None:
    used, accepted = fuzz(job(), 80)
    assert used >= 2_000 and accepted >= 20


@pytest.mark.slow
def test_ten_thousand_replies_stop_nothing_and_spoil_nothing() -> None:
    used, accepted = fuzz(job(), 400)
    assert used >= 10_000 and accepted >= 100


# --- the other roles ----------------------------------------------------------------------------------------

spoken = st.builds(lambda say, done: json.dumps({"say": say, "done": done}), WORDS | chatter, st.booleans() | scalars)
verdict = st.fixed_dictionaries(
    {
        "principle": st.just("user_goal_within_policy") | WORDS,
        "verdict": st.sampled_from(["pass", "fail"]) | scalars,
        "severity": st.sampled_from(["low", "high"]) | scalars,
        "at": st.integers(-1, 12) | scalars,
        "reason": WORDS,
    }
)
judged = st.lists(verdict, max_size=4).map(lambda found: json.dumps({"verdicts": found}))
others = st.lists(st.builds(Completion, st.one_of(spoken, judged, texts), thoughts, cut=st.booleans()), min_size=12, max_size=12)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 500), others)
def test_whatever_user_and_critic_write_ends_well_too(index: int, said: list[Completion]) -> None:
    rules = job(critic="teacher", user="teacher", agreement=0.3)
    drawn = scenario(rules.seed, index, rules.mix)
    sampling = Sampling(0.5, 512)
    agent = ModelTeacher(FakeChat(drawn), sampling, reasoning_steps=0, prices=Prices())
    other = ModelTeacher(FakeChat(drawn, lambda turn: said[turn % len(said)]), sampling, reasoning_steps=0, prices=Prices())
    for user, critic in ((other, None), (ScriptedTeacher(), other), (other, other)):
        one = asyncio.run(Pipeline(rules, agent, user, constitution(), critic).mill(index))
        check_end(one)
        if one.trace:
            asyncio.run(check_trace(one.trace))
        check_files([one])
