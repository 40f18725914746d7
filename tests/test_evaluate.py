"""`tracemill evaluate` and `compare`: the real commands, in real processes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import PATIENCE, running

from tracemill.comparing import compare
from tracemill.config import Config, VllmConfig
from tracemill.errors import ConfigError
from tracemill.evaluate import KNOWN, _record, evaluate, load_evaluation
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.play import Evaluation, Played, Player
from tracemill.train.evaluate.sheet import Sheet, episodes
from tracemill.train.evaluate.suite import SuiteConfig
from tracemill.writer import Parcel


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tracemill.cli", *words]


def evaluation(out: Path, *words: str) -> list[str]:
    flags = ["--policy", "scripted", "--environment", "store", "--suite", "all", "--scenarios", "20", "--actors", "2", "--concurrency", "4"]
    return command("evaluate", *flags, "--out", str(out), *words)


KILLED = """
import os
import signal
from tracemill.cli import main
from tracemill.train.evaluate.sheet import Sheet

add, added = Sheet.add, []


def add_some(self, parcel):
    add(self, parcel)
    added.append(parcel)
    if len(added) == 40:
        os.kill(os.getpid(), signal.SIGKILL)


Sheet.add = add_some
main()
"""
"""An evaluation that is killed in the middle of it, on a machine of any speed."""


def content(out: Path) -> dict[int, Episode]:
    """By index, without what the clock says."""
    found = {one.index: one.model_copy(update={"seconds": 0.0}) for one in episodes(out)}
    assert len(found) == sum(1 for _ in episodes(out)), "an episode is there twice"
    return found


def test_a_killed_evaluation_goes_on_and_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = subprocess.run(evaluation(whole), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "Reliability" in done.stdout and "report.html" in done.stdout
    _, _, _, *words = evaluation(broken)
    with (tmp_path / "log").open("wb") as log, running([sys.executable, "-c", KILLED, *words], stdout=log, stderr=log) as run:
        assert run.wait(PATIENCE) == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert 0 < sum(path.read_bytes().count(b"\n") for path in broken.glob(".spool/*.jsonl")) < len(content(whole))
    again = subprocess.run(evaluation(broken), capture_output=True, text=True, timeout=PATIENCE)
    assert again.returncode == 0, again.stderr
    assert set(re.findall(r"rollouts · (.*)", again.stdout)) == {"100% success"}, "what the killed one has played counts"
    assert content(broken) == content(whole)
    report = json.loads((whole / "report.json").read_text())
    assert report["facts"]["policy"] == "scripted"
    compared = subprocess.run(command("compare", str(whole), str(broken)), capture_output=True, text=True, timeout=PATIENCE)
    assert compared.returncode == 0 and "p = 1" in compared.stdout, compared.stdout + compared.stderr
    once_more = subprocess.run(evaluation(broken), capture_output=True, text=True, timeout=PATIENCE)
    assert once_more.returncode == 0 and "complete already; nothing was played" in once_more.stdout, once_more.stdout + once_more.stderr
    assert "Starting Ray" not in once_more.stdout and "Reliability" in once_more.stdout
    other = subprocess.run(evaluation(whole, "--seed", "1"), capture_output=True, text=True, timeout=PATIENCE)
    assert other.returncode == 2 and "seed: 0 before, 1 now" in other.stderr


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.yaml"
    file.write_text("scenarios: 0\nsuite: hard\nenvironments: [stor]\nuser: teachr\n")
    with pytest.raises(ConfigError) as refused:
        load_evaluation(file, None, {"seed": -1})
    told = str(refused.value)
    for expected in ("policy: expected", "scenarios", "suite: expected one of standard", "did you mean 'store'", "seed"):
        assert expected in told


def test_what_an_evaluation_cannot_be_told_is_refused_in_its_own_words(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.yaml"
    file.write_text("policy: scripte\nsuit: all\nteacher: scripted\nflaws: 7\nuser: policy\n")
    with pytest.raises(ConfigError) as refused:
        load_evaluation(file, None, {})
    known = f"known: {', '.join(KNOWN)}"
    assert refused.value.problems == (
        "suit: unknown key; did you mean 'suite'?", f"teacher: unknown key; {known}", f"flaws: unknown key; {known}",
        "policy: expected one of scripted; got 'scripte'; did you mean 'scripted'?",
    )  # fmt: skip
    assert {"policy", "suite", "scenarios", "samples", "modes", "user", "seed", "budget"} < set(KNOWN)


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ("polcy", "user: expected one of scripted, policy, or a model; got 'polcy'; did you mean 'policy'?"),
        ("teachr", "user: expected one of scripted, policy, or a model; got 'teachr'; did you mean 'policy'?"),
        ("teacher", "user: expected one of scripted, policy, or a model; got 'teacher'; did you mean 'policy'?"),
        ("policy", "user: 'policy' takes a model as the policy: the scripted one cannot play the user so"),
    ],
)
def test_a_word_for_the_user_that_means_nothing_is_refused(user: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_evaluation(None, None, {"policy": "scripted", "user": user})
    assert refused.value.problems == (problem,)


def test_the_policy_plays_the_user_too_where_it_is_told_to() -> None:
    assert load_evaluation(None, None, {"policy": "some/model", "user": "policy"})[0].user == "teacher"
    assert load_evaluation(None, None, {"policy": "some/model", "user": "my-policy/teacher"})[0].user == VllmConfig(
        model="my-policy/teacher"
    )


def test_the_run_says_on_what_its_policy_is_tried(tmp_path: Path) -> None:
    run = {"content": {"environments": {"bank": 2.0}, "kinds": {"tool_call": 1.0}, "holdout": 0.25, "seed": 5}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    config, suite = load_evaluation(None, tmp_path, {"policy": "scripted", "samples": 3})
    assert (config.environments, config.kinds, config.holdout, config.seed) == ({"bank": 2.0}, {"tool_call": 1.0}, 0.25, 0)
    assert suite.samples == 3
    assert load_evaluation(None, tmp_path, {"policy": "scripted", "environments": {"store": 1.0}})[0].environments == {"store": 1.0}


def test_the_folder_of_an_adapter_stands_for_its_model_with_the_adapter_on(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/model", "r": 16}))
    config, _ = load_evaluation(None, None, {"policy": str(tmp_path)})
    assert config.teacher == VllmConfig(model="some/model", adapters={"policy": tmp_path}, adapter="policy")


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_an_adapter_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"adapter_config\.json"):
        load_evaluation(None, None, {"policy": str(tmp_path)})


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"content": null}', '{"content": []}'])
def test_a_folder_that_holds_no_run_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(ConfigError, match=r"holds no run"):
        load_evaluation(None, tmp_path, {"policy": "scripted"})


CONFIG, SUITE = Config(environments={"store": 1}, flaws=0.0), SuiteConfig(scenarios=3)


def concluded(out: Path, *came: Parcel, monkeypatch: pytest.MonkeyPatch) -> int:
    """The evaluation's exit code, where the actors give this."""

    def run(_: Evaluation, sheet: Sheet, **__: object) -> str:
        for parcel in came:
            sheet.add(parcel)
        return "complete"

    monkeypatch.setattr("tracemill.cluster.start", lambda **_: None)
    monkeypatch.setattr("tracemill.cluster.actors_for", lambda _: 1)
    monkeypatch.setattr("tracemill.cluster.run", run)
    return evaluate(CONFIG, SUITE, out)


@pytest.fixture
async def parcels() -> list[Parcel]:
    player = Player(CONFIG, SUITE)
    return [pack(await player.mill(index)) for index in range(3)]


def pack(played: Played) -> Parcel:
    return Evaluation(CONFIG, SUITE).pack(played)


def test_where_everything_is_lost_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = [pack(Played(index, None, "the endpoint answered 400: bad [red]request[/]", lost=True)) for index in range(3)]
    assert concluded(tmp_path, *lost, monkeypatch=monkeypatch) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "3 rollouts were lost, not failed: the endpoint answered 400: bad [red]request[/]. Run the same" in told
    assert "There is nothing to report." in told and not list(tmp_path.glob("report.*"))


def test_what_suits_nothing_is_told_once_and_is_no_failure_of_the_command(
    tmp_path: Path, parcels: list[Parcel], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unsuited = [pack(Played(index, None, "injection: nothing suits it", left_out=True)) for index in (1, 2)]
    for expected in ("Starting Ray", "complete already; nothing was played"):
        assert concluded(tmp_path, parcels[0], *unsuited, monkeypatch=monkeypatch) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert expected in told and told.count("2 rollouts were left out: injection: nothing suits it.") == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["facts"]["left_out"] == 2 and report["episodes"] == 1


def test_what_the_user_spoiled_is_in_no_figure(
    tmp_path: Path, parcels: list[Parcel], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiled = {**parcels[2], "episode": {**parcels[2]["episode"], "stop": "user", "why": "it said too much"}}
    assert concluded(tmp_path / "a", *parcels[:2], spoiled, monkeypatch=monkeypatch) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "1 rollout was left out of all figures, spoiled by the simulated user: it said too much." in told
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["facts"]["spoiled"] == 1 and report["episodes"] == 2
    assert report["reliability"]["success"]["value"] == 1 and report["reliability"]["stops"] == {"done": 2}
    assert concluded(tmp_path / "b", *parcels, monkeypatch=monkeypatch) == 0
    capsys.readouterr()
    compare(tmp_path / "a", tmp_path / "b", as_json=True)
    compared = json.loads(capsys.readouterr().out)
    assert compared["overall"]["success"]["n"] == 2 and compared["only_b"] == 1


def test_the_next_step_can_be_typed_as_it_is_printed(
    tmp_path: Path, parcels: list[Parcel], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    concluded(Path("my eval [x]"), *parcels, monkeypatch=monkeypatch)
    assert "tracemill compare 'my eval [x]' OTHER" in capsys.readouterr().out


def test_an_evaluation_that_does_not_tell_its_model_says_so(
    tmp_path: Path, parcels: list[Parcel], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIG.model_copy(update={"teacher": VllmConfig(model="some/model")})
    before = {key: value for key, value in _record(config, SUITE, {}).items() if key != "models"}
    sheet = Sheet(tmp_path, 3, before)
    for parcel in parcels:
        sheet.add(parcel)
    sheet.close()
    assert evaluate(config, SUITE, tmp_path) == 0
    assert "does not say by which model it was played" in capsys.readouterr().out
    concluded(tmp_path / "scripted", *parcels, monkeypatch=monkeypatch)
    assert "by which model" not in capsys.readouterr().out
