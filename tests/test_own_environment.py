"""A user's own environment: the example, the gate that its goals pass, and its way from a class to verified traces."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import mill

from tracemill.config import load_config
from tracemill.environments import Draft, Environment, Row, Table, ToolError, goal, tool
from tracemill.errors import ConfigError, DatasetError, EnvironmentMissing
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.environments.gate import gate, template_problems
from tracemill.trace import KINDS
from tracemill.verify import verify

EXAMPLES = Path(__file__).parent.parent / "examples"
PANTRY = "pantry:Pantry"
ENDINGS = ["<greet>Please do it.<tail>"], ["<opener> It is done.<closing>"]


@pytest.fixture(autouse=True)
def examples_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def test_the_example_is_short() -> None:
    assert len((EXAMPLES / "pantry.py").read_text().splitlines()) < 60


async def test_the_goals_of_the_example_pass_the_gate() -> None:
    assert await gate(environment(PANTRY)) == []


def test_traces_of_all_kinds_come_out_of_the_example_and_verify(tmp_path: Path) -> None:
    out = mill(tmp_path / "out", environments=[PANTRY], accept=20, flaws=0.1)
    assert Counter(path.parent.name for path in out.glob("data/*/*.parquet")) == dict.fromkeys(KINDS, 1)
    assert verify(out, workers=1) == 0


def test_workers_of_verify_find_the_module(tmp_path: Path) -> None:
    out = mill(tmp_path / "out", environments=[PANTRY], accept=3, flaws=0.0)
    assert verify(out, workers=2) == 0


def test_a_run_is_not_checked_against_an_environment_that_has_changed_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "larder.py"
    module.write_text((EXAMPLES / "pantry.py").read_text().replace('name = "pantry"', 'name = "larder"'))
    monkeypatch.syspath_prepend(str(tmp_path))
    out = mill(tmp_path / "out", environments=["larder:Pantry"], accept=3, flaws=0.0)
    module.write_text(module.read_text().replace("has to go first", "must go first"))
    with pytest.raises(DatasetError, match="another digest"):
        verify(out)


@pytest.mark.slow
def test_the_actors_of_a_run_find_the_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tracemill.cli"]
    out = str(tmp_path / "out")
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([*command, "generate", "--environment", PANTRY, "--accept", "30", "--out", out], check=True, cwd=EXAMPLES, env=env)
    subprocess.run([*command, "verify", out], check=True, cwd=EXAMPLES, env=env)
    elsewhere = subprocess.run([*command, "verify", out], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert elsewhere.returncode == 2 and "a module is looked for in the working folder first" in elsewhere.stderr


@pytest.mark.parametrize(("name", "code"), [(PANTRY, 0), ("test_own_environment:Shed", 1)])
def test_the_command_line_runs_the_gate(name: str, code: int, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), str(Path(__file__).parent)]), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tracemill.cli", "environments", name, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == code
    assert ("All 2 goals are fine." if code == 0 else "problem(s) with the goals of shed") in done.stdout


def test_a_module_or_a_class_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(None, {"environments": ["no_such_module:Pantry"]})
    assert "No module named 'no_such_module'\n      a module is looked for in the working folder first" in raised.value.problems[0]
    with pytest.raises(EnvironmentMissing, match="no attribute 'Larder'"):
        environment("pantry:Larder")


# --- what the gate finds ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Spade(Row):
    id: str
    clean: bool
    lent_to: str


class Shed(Environment):
    """Every goal but the first has something wrong with it."""

    name = "shed"
    policy = "Look after the spades."
    words = {
        f"{name}.{part}": texts
        for name in ("sound", "idle", "needless", "unsaid", "unlike", "planless", "safe", "wrong_check", "fails", "poor", "strays")
        for part, texts in zip(("opening", "answer"), ENDINGS, strict=True)
    } | {"poor.opening": ["Do it."]}
    spades: Table[Spade]
    calls = 0

    def build(self, rng: random.Random) -> None:
        for number in range(3):
            self.spades.put(Spade(f"S-{number}", rng.random() < 0.5, ""))

    @tool("read")
    def get_spade(self, spade_id: str) -> Spade:
        """Look at a spade."""
        return self.spades[spade_id]

    @tool("write")
    def lend(self, spade_id: str, to: str) -> Spade:
        """Lend a spade."""
        if not to:
            raise ToolError("not_allowed", "to nobody?")
        return self.spades.update(self.spades[spade_id], lent_to=to)

    @tool("read")
    def count_calls(self) -> int:
        """Not the same twice."""
        Shed.calls += 1
        return Shed.calls

    def _lend(self, g: Draft, **more: object) -> Spade:
        spade = g.pick(self.spades)
        g.know(spade_id=spade.id)
        g.call("lend", spade_id=spade.id, to="Ada", why="it is free", **more)  # type: ignore[arg-type]
        return spade

    @goal(kinds=("tool_call", "error_recovery"))
    def sound(self, g: Draft) -> None:
        g.expect("spades", self._lend(g).id, lent_to="Ada")

    @goal(kinds=("tool_call",))
    def idle(self, g: Draft) -> None:
        g.call("get_spade", spade_id="S-1", why="x")

    @goal(kinds=("tool_call",))
    def needless(self, g: Draft) -> None:
        spade = self._lend(g)
        g.call("lend", spade_id=spade.id, to="Ada", why="twice is better")
        g.expect("spades", spade.id, lent_to="Ada")

    @goal(kinds=("tool_call",))
    def unsaid(self, g: Draft) -> None:
        g.expect("spades", self._lend(g).id, lent_to="Ada")
        g.tell(4711)

    @goal(kinds=("tool_call",))
    def unlike(self, g: Draft) -> None:
        g.call("count_calls", why="x")
        g.expect("spades", self._lend(g).id, lent_to="Ada")

    @goal(kinds=("goal_decomposition",))
    def planless(self, g: Draft) -> None:
        g.constraint("only a spade", "spade")
        g.expect("spades", self._lend(g).id, lent_to="Ada")

    @goal(kinds=("error_recovery",))
    def safe(self, g: Draft) -> None:
        g.call("get_spade", spade_id="S-1", why="x")
        g.expect("spades", "S-1", lent_to="")

    @goal(kinds=("tool_call",))
    def wrong_check(self, g: Draft) -> None:
        g.expect("spades", self._lend(g, check=("get_spade", {"spade_id": "S-9"})).id, lent_to="Ada")

    @goal(kinds=("tool_call",))
    def fails(self, g: Draft) -> None:
        g.call("lend", spade_id="S-1", to="", why="x")

    @goal(kinds=("tool_call",))
    def poor(self, g: Draft) -> None:
        g.expect("spades", self._lend(g).id, lent_to="Ada")

    @goal(kinds=("tool_call",))
    def strays(self, g: Draft) -> None:
        self._lend(g)
        g.call("lend", spade_id=g.pick(self.spades).id, to="Bea", why="x")
        g.expect("spades", "S-1", lent_to="Bea")


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("idle", "doing nothing reaches the goal"),
        ("needless", "the goal is reached without lend(spade_id="),
        ("unsaid", "the reference misses the goal: told: the answer does not tell 4711"),
        ("unlike", "count_calls() does not return the same each time"),
        ("planless", "it suits goal_decomposition, which takes three sub-goals with calls or more, and has 1"),
        ("planless", "no sub-goal has the constraint 'only a spade'"),
        ("safe", "it suits error_recovery, but in 30 draws there was no place for a fault"),
        ("wrong_check", "the check get_spade(spade_id='S-9') fails"),
        ("fails", "reference call lend({'spade_id': 'S-1', 'to': ''}) failed"),
        ("poor", "'poor.opening' has 1 wordings and needs 20"),
        ("strays", "the reference misses the goal: state"),
    ],
)
async def test_the_gate_finds(template: str, problem: str) -> None:
    found = await template_problems(Shed, template)
    assert any(one.startswith(f"{template}: ") and problem in one for one in found), found


async def test_the_gate_finds_nothing_wrong_with_a_sound_goal() -> None:
    assert await template_problems(Shed, "sound") == []


async def test_an_environment_without_goals_does_not_pass() -> None:
    class Empty(Environment):
        name = "empty"
        policy = "Nothing."

    assert await gate(Empty) == ["empty has no goals: mark a method with @goal()"]
