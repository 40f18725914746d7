"""The config: everything that is wrong with it at once, quotas, and what the digest stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tracemill.config import DEFAULT_ENVIRONMENTS, Config, EndpointConfig, VllmConfig, load_config
from tracemill.constitution.constitution import BUNDLED
from tracemill.errors import ConfigError
from tracemill.generators.environments.catalogue import BUILT_IN
from tracemill.job import build_job
from tracemill.trace import KINDS


def written(folder: Path, settings: Any) -> Path:
    file = folder / "run.yaml"
    file.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
    return file


def problems(folder: Path, settings: Any, **flags: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(written(folder, settings), flags)
    return list(caught.value.problems) or [caught.value.message]


def test_everything_that_is_wrong_is_told_at_once_with_its_path(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        {
            "accpet": 5,
            "flaws": 2,
            "seed": -1,
            "budget": {"trns": 3, "calls": "many"},
            "kinds": {"tool_cal": 1},
            "environments": {"stor": 1, "servers.yaml": 1, "no.such:Class": 1},
            "constitution": "nowhere.yaml",
        },
    )
    by_path = {one.split(":")[0]: one for one in found}
    assert by_path["accpet"] == "accpet: unknown key; did you mean 'accept'?"
    assert by_path["budget.trns"] == "budget.trns: unknown key; did you mean 'turns'?"
    assert by_path["flaws"].endswith("got 2")
    assert by_path["seed"].endswith("got -1")
    assert by_path["budget.calls"].endswith("got 'many'")
    assert by_path["kinds.tool_cal"].endswith("got 'tool_cal'; did you mean 'tool_call'?")
    assert by_path["environments.stor"] == "environments.stor: no environment 'stor'; did you mean 'store'?"
    assert by_path["environments.servers.yaml"] == "environments.servers.yaml: no such file"
    assert "cannot be loaded" in by_path["environments.no.such"]
    assert by_path["constitution"] == "constitution: no file 'nowhere.yaml'"
    assert len(found) == 10


def test_a_key_that_is_like_no_other_is_answered_with_all_there_are(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, {"zzzzz": 1})
    assert found.startswith("zzzzz: unknown key; known: accept, seed, kinds")


@pytest.mark.parametrize(
    "settings",
    [
        {"accept": 0},
        {"accept": {}},
        {"accept": {"tool_call": 0}},
        {"accept": {"tool_call": -1, "error_recovery": 5}},
        {"accept": {"tool_calls": 5}},
        {"accept": 2.5},
        {"kinds": {}},
        {"kinds": {"tool_call": 0}},
        {"kinds": {"tool_call": -1, "error_recovery": 2}},
        {"kinds": {"tool_call": float("nan")}},
        {"environments": {"store": float("inf")}},
        {"environments": []},
        {"environments": "store"},
        {"environments": ["store", 3]},
        {"worlds": 0},
        {"flaws": -0.1},
        {"teacher": "scriptd"},
        {"teacher": "script"},
        {"teacher": 5},
        {"teacher": {}},
        {"teacher": {"model": ""}},
        {"teacher": {"model": "m", "temperature": 3}},
        {"teacher": {"model": "m", "adapter": "mine"}},
        {"teacher": {"model": "m", "adapters": {"mine": "no/such/folder"}}},
        {"teacher": {"url": "ftp://there"}},
        {"user": "teacher"},
        {"critic": "teacher"},
        {"critic": "teachr", "teacher": "m"},
        {"siblings": 0},
        {"siblings": 2},
        {"agreement": 1.5},
        {"mode": "slow"},
        {"budget": 3},
        {"budget": {"turns": 0}},
        {"budget": {"repairs": -1}},
        {"concurrency": 0},
        {"actors": -1},
    ],
    ids=str,
)
def test_a_bad_value_is_refused_by_its_name(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert all(one.startswith(next(iter(settings))) for one in problems(tmp_path, settings))


# --- who plays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["teacher", "user", "critic"])
def test_a_model_can_be_given_in_one_word(role: str) -> None:
    assert getattr(Config(**{role: "Qwen/Qwen3-8B"}), role) == VllmConfig(model="Qwen/Qwen3-8B")
    assert getattr(Config(**{role: "./models/mine"}), role) == VllmConfig(model="./models/mine")
    for url in ("http://127.0.0.1:8000/v1", "https://there/v1"):
        assert getattr(Config(**{role: url}), role) == EndpointConfig(url=url)


def test_a_map_with_a_url_is_an_endpoint_and_any_other_an_engine() -> None:
    assert Config(teacher={"url": "http://there/v1", "model": "m"}).teacher == EndpointConfig(url="http://there/v1", model="m")
    assert Config(teacher={"model": "m", "tensor_parallel": 2}).teacher == VllmConfig(model="m", tensor_parallel=2)
    assert Config(teacher="m", user="teacher", critic={"url": "http://there/v1"}).user == "teacher"
    assert (Config().teacher, Config().user, Config().critic) == ("scripted", "scripted", "none")


@pytest.mark.parametrize("slip", ["scriptd", "script", "Scripted", "scripted "])
def test_a_slip_in_one_of_our_words_is_no_model(tmp_path: Path, slip: str) -> None:
    (found,) = problems(tmp_path, {"teacher": slip})
    assert found.startswith("teacher: expected one of scripted") and found.endswith("did you mean 'scripted'?")
    (found,) = problems(tmp_path, {"user": "teachers", "teacher": "m"})
    assert found == "user: expected one of scripted, teacher; got 'teachers'; did you mean 'teacher'?"


@pytest.mark.parametrize("name", ["gpt-none", "my/scripted", "./script"])
def test_a_model_may_have_a_name_somewhat_like_one_of_our_words(name: str) -> None:
    assert Config(teacher=name, critic=name).critic == VllmConfig(model=name)


@pytest.mark.parametrize("role", ["teacher", "user", "critic"])
def test_unknown_keys_of_a_model_are_answered_with_the_nearest(tmp_path: Path, role: str) -> None:
    (found,) = problems(tmp_path, {role: {"model": "m", "modle": "x"}})
    assert found == f"{role}.modle: unknown key; did you mean 'model'?"
    (found,) = problems(tmp_path, {role: {"url": "http://there", "retrys": 1}})
    assert found == f"{role}.retrys: unknown key; did you mean 'retries'?"
    (found,) = problems(tmp_path, {role: {"model": "m", "prices": {"prompts": 1}}})
    assert found == f"{role}.prices.prompts: unknown key; did you mean 'prompt'?"
    (found,) = problems(tmp_path, {role: {"model": "m", "retries": 1}})
    assert found.startswith(f"{role}.retries: unknown key"), "it is one of endpoints alone"


def test_what_does_not_go_together_is_told_by_the_setting_to_change(tmp_path: Path) -> None:
    assert problems(tmp_path, {"siblings": 2}) == [
        "siblings: the scripted teacher always says the same; siblings take a model as the teacher"
    ]
    (found,) = problems(tmp_path, {"user": "teacher"})
    assert found == "user: 'teacher' takes a model as the teacher; the scripted one cannot play the user so"
    assert problems(tmp_path, {"teacher": {"model": "m", "adapter": "a"}}) == ["teacher.adapter: there is no 'a' among the adapters []"]
    (tmp_path / "lora").mkdir()
    here = {"model": "m", "adapters": {"a": tmp_path / "lora"}, "adapter": "a"}
    assert Config(teacher=here, siblings=2, critic="teacher").siblings == 2


@pytest.mark.parametrize(("text", "wanted"), [("- a", "expected a map"), ("a: [", "not valid YAML"), ("text", "expected a map")])
def test_a_file_that_is_no_map_is_refused(tmp_path: Path, text: str, wanted: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError, match=wanted):
        load_config(file, {})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the config .*nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml", {})
    file = tmp_path / "bytes.yaml"
    file.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match=r"cannot read the config .*bytes\.yaml"):
        load_config(file, {})


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, ""), {}) == load_config(None, {}) == Config()
    assert tuple(Config().environments) == DEFAULT_ENVIRONMENTS == tuple(BUILT_IN)


def test_flags_come_on_top_of_the_file_where_they_are_given(tmp_path: Path) -> None:
    file = written(tmp_path, {"accept": 10, "seed": 3})
    config = load_config(file, {"accept": 20, "seed": None, "environments": ["store", "bank"]})
    assert (config.accept, config.seed) == (20, 3)
    assert config.environments == {"store": 1.0, "bank": 1.0}
    assert problems(tmp_path, {"seed": 1}, seed=-4) == ["seed: input should be greater than or equal to 0; got -4"]


def test_what_weighs_nothing_is_left_out() -> None:
    config = Config(kinds={"tool_call": 2, "error_recovery": 0}, environments={"store": 1, "bank": 0})
    assert config.kinds == {"tool_call": 2.0}
    assert config.environments == {"store": 1.0}


# --- quotas -------------------------------------------------------------------------------------------------


def test_the_total_is_shared_out_with_the_rest_to_the_largest_remainders() -> None:
    def shares(accept: int, a: float, b: float, c: float) -> list[int]:
        quotas = Config(accept=accept, kinds=dict(zip(KINDS, (a, b, c), strict=True))).quotas()
        return [quotas.get(kind, 0) for kind in KINDS]

    assert shares(300, 1, 1, 1) == [100, 100, 100]
    assert shares(10, 5, 3, 2) == [5, 3, 2]
    assert shares(10, 1, 1, 2.4) == [2, 2, 6], "2.27, 2.27 and 5.45: the last has the largest rest"
    assert shares(7, 0.5, 0.3, 0.2) == [4, 2, 1], "3.5, 2.1 and 1.4"
    assert sorted(shares(1, 1, 1, 1)) == [0, 0, 1]
    assert shares(3, 100, 1, 1) == [3, 0, 0]


@given(
    accept=st.integers(1, 100_000),
    weights=st.lists(st.floats(0.001, 1000), min_size=3, max_size=3),
)
@settings(max_examples=40)
def test_quotas_add_up_to_what_is_wanted_and_none_is_off_by_one(accept: int, weights: list[float]) -> None:
    quotas = Config(accept=accept, kinds=dict(zip(KINDS, weights, strict=True))).quotas()
    assert sum(quotas.values()) == accept
    for kind, weight in zip(KINDS, weights, strict=True):
        assert abs(quotas.get(kind, 0) - accept * weight / sum(weights)) < 1 + 1e-6


def test_numbers_for_each_kind_are_the_quotas_and_the_weights() -> None:
    config = Config(accept={"tool_call": 30, "goal_decomposition": 0, "error_recovery": 10}, kinds={"goal_decomposition": 1})
    assert config.quotas() == {"tool_call": 30, "error_recovery": 10}
    assert config.weights() == {"tool_call": 30.0, "error_recovery": 10.0}


# --- the digest ---------------------------------------------------------------------------------------------


def digest(**settings: Any) -> str:
    return build_job(Config(**settings)).digest


def test_the_digest_changes_with_whatever_changes_the_records(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(BUNDLED.read_text().replace("severity: high", "severity: medium", 1))
    made = [
        digest(),
        digest(seed=1),
        digest(kinds={"tool_call": 1, "error_recovery": 1}),
        digest(kinds={"tool_call": 2, "error_recovery": 1}),
        digest(accept={"tool_call": 2, "goal_decomposition": 1, "error_recovery": 1}),
        digest(environments=["store"]),
        digest(environments=["store", "bank"]),
        digest(environments={"store": 2, "bank": 1}),
        digest(flaws=0.2),
        digest(worlds=31),
        digest(budget={"turns": 39}),
        digest(budget={"calls": 39}),
        digest(constitution=own),
    ]
    assert len(set(made)) == len(made)


def test_the_digest_does_not_change_with_how_many_how_fast_or_under_what_name() -> None:
    same = digest()
    assert digest(accept=7) == same
    assert digest(actors=9) == same
    assert digest(concurrency=5) == same
    assert digest(name="mine", license="mit") == same
    assert digest(constitution=BUNDLED) == same, "the bundled file, given by its path, is the same standard"


def test_a_job_takes_its_mix_and_budget_from_the_config() -> None:
    job = build_job(Config(seed=4, flaws=0.3, worlds=5, environments={"bank": 2}, budget={"turns": 7, "calls": 8}))
    assert (job.seed, job.mix.flaws, job.mix.worlds, dict(job.mix.environments)) == (4, 0.3, 5, {"bank": 2.0})
    assert (job.budget.turns, job.budget.calls) == (7, 8)
    assert job.id_of(3) != job.id_of(4)
    assert job.id_of(3) != build_job(Config(seed=5)).id_of(3)


ENGINE = {"model": "m", "temperature": 0.2, "engine": {"max_model_len": 4096}}
ENDPOINT = {"url": "http://there/v1", "model": "m"}


@pytest.mark.parametrize("role", ["teacher", "user", "critic"])
def test_what_decides_what_a_model_says_is_part_of_the_digest(role: str) -> None:
    changed: list[dict[str, Any]] = [
        {},
        {"model": "other"},
        {"temperature": 0.3},
        {"max_tokens": 99},
        {"reasoning_steps": 0},
        {"top_p": 0.9},
        {"template_kwargs": {"enable_thinking": False}},
        {"tool_parser": "hermes"},
        {"reasoning_parser": "qwen3"},
        {"guided_calls": True},
        {"engine": {"max_model_len": 8192}},
        {"engine": {"max_model_len": 4096, "quantization": "fp8"}},
    ]
    made = [digest(**{role: {**ENGINE, **one}}) for one in changed]
    assert len({*made, digest()}) == len(made) + 1
    assert digest(**{role: ENGINE}, mode="fast") != digest(**{role: ENGINE}), "the mode says what a model is not told by itself"
    assert digest(**{role: ENDPOINT}) != digest(**{role: {**ENDPOINT, "model": "other"}})


@pytest.mark.parametrize("role", ["teacher", "user", "critic"])
def test_where_and_how_fast_a_model_runs_is_no_part_of_the_digest(role: str) -> None:
    same = digest(**{role: ENGINE})
    fast = {"gpu_memory_utilization": 0.5, "max_num_seqs": 4, "enforce_eager": True}
    for one in ({"gpus": 1}, {"tensor_parallel": 2}, {"timeout": 5}, {"prices": {"prompt": 3}}, {"engine": {**ENGINE["engine"], **fast}}):  # type: ignore[dict-item]
        assert digest(**{role: {**ENGINE, **one}}) == same, one
    same = digest(**{role: ENDPOINT})
    for one in ({"url": "http://elsewhere/v1"}, {"key_env": "KEY"}, {"retries": 1}, {"requests_per_minute": 3}, {"tokens_per_minute": 3}):
        assert digest(**{role: {**ENDPOINT, **one}}) == same, one


def test_siblings_and_agreement_are_part_of_the_digest_where_they_play_a_part() -> None:
    assert digest(teacher=ENGINE, siblings=2) != digest(teacher=ENGINE)
    assert digest(teacher=ENGINE, critic="teacher", agreement=0.5) != digest(teacher=ENGINE, critic="teacher")
    assert digest(teacher=ENGINE, agreement=0.5) == digest(teacher=ENGINE)
    assert digest(mode="fast") == digest(), "nothing that is said by a script follows from it"
    assert digest(teacher=ENGINE, user="teacher") != digest(teacher=ENGINE)
