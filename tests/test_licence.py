"""The licence of a dataset follows from the models that wrote it, unless its maker says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tracemill.card import _front
from tracemill.config import Config
from tracemill.job import build_job
from tracemill.licence import TABLE, explained, licence_of
from tracemill.writer import Tally


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Qwen/Qwen3-8B", "apache-2.0"), ("Qwen/Qwen2.5-72B-Instruct", "other"), ("meta-llama/Llama-3.3-70B-Instruct", "llama3.3"),
        ("NousResearch/Hermes-3-Llama-3.1-8B", "llama3.1"), ("meta-llama/Meta-Llama-3-8B-Instruct", "llama3"), ("google/gemma-2-9b-it", "gemma"),
        ("google/gemma-7b", "gemma"), ("google/gemma-4-31b-it", "apache-2.0"), ("mistralai/Mistral-7B-Instruct-v0.3", "apache-2.0"),
        ("mistralai/Mistral-Large-Instruct-2411", "unknown"), ("deepseek-ai/DeepSeek-V3.1", "mit"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "other"), ("openai/gpt-oss-20b", "apache-2.0"), ("gpt-4o", "other"),
        ("nobody/has-heard-of-it", "unknown"), ("llama3.1/shared/own-model", "unknown"),
    ],
)  # fmt: skip
def test_the_family_of_the_teacher_decides(model: str, expected: str) -> None:
    assert Config(teacher=model).license == expected


@pytest.mark.parametrize(
    ("model", "expected", "name"),
    [
        *((f"Qwen/Qwen2.5-{one}-Instruct", "other", "qwen-research") for one in ("3B", "Coder-3B", "VL-3B", "Omni-3B")),
        *((f"Qwen/Qwen2.5-{one}-Instruct", "other", "qwen") for one in ("72B", "VL-72B", "Math-72B")),
        *((one, "other", "qwen") for one in ("qwen2.5:72b", "qwen2.5vl:72b", "qwen2.5:72b-instruct-q4_K_M", "qwen/qwen-2.5-72b-instruct")),
        *((one, "other", "qwen-research") for one in ("qwen2.5:3b", "qwen2.5-coder:3b")),
        *((f"qwen2.5-coder:{one}", "apache-2.0", "") for one in ("32b", "1.5b", "latest")),
        *((f"Qwen/{one}", "apache-2.0", "") for one in ("Qwen2.5-VL-32B-Instruct", "Qwen2.5-Math-7B", "Qwen3-Coder-30B-A3B-Instruct", "Qwen3.5-27B")),
        *((f"qwen{one}", "unknown", "") for one in ("2.5-max", "3-max-2025-09-23", "3.5-plus", "3-coder-plus", "2.5-turbo", "3-coder-flash")),
        ("unsloth/Llama-4bit", "unknown", ""), ("meta-llama/Llama-4-Scout-17B-16E", "llama4", ""), ("llama4:scout", "llama4", ""),
        ("unsloth/llama-3-8b-bnb-4bit", "llama3", ""), ("huggyllama/llama-30b", "unknown", ""), ("llama3:8b", "llama3", ""),
        *((f"deepseek-r1:{one}", "other", "llama-community") for one in ("8b", "70b", "70b-llama-distill-q4_K_M")),
        *((f"deepseek-r1:{one}", "mit", "") for one in ("1.5b", "7b", "14b", "32b", "671b", "8b-0528-qwen3-q8_0")),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "mit", ""), ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "mit", ""),
    ],
)  # fmt: skip
def test_sizes_and_tags_of_one_family_may_have_other_terms(model: str, expected: str, name: str) -> None:
    found = licence_of([{"model": model}])
    assert (found.id, found.name) == (expected, name)


@pytest.mark.parametrize("host", ["api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com"])
def test_the_terms_of_an_api_stand_in_the_card(host: str) -> None:
    teacher: Any = {"url": f"https://{host}/v1", "model": "whatever"}
    assert Config(teacher=teacher).license == "other"
    assert "compet" in explained("other", [teacher])


def test_scripts_are_ours_and_what_is_set_stays() -> None:
    assert Config().license == "apache-2.0"
    assert Config(teacher="google/gemma-2-9b-it", license="cc-by-4.0").license == "cc-by-4.0"
    assert "as its maker says" in explained("cc-by-4.0", ["scripted"])


def test_a_models_own_card_wins_over_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen3-mine"
    folder.mkdir()
    assert Config(teacher=str(folder)).license == "apache-2.0"
    (folder / "config.json").write_text('{"_name_or_path": "meta-llama/Llama-3.2-1B"}')
    assert Config(teacher=str(folder)).license == "llama3.2"
    (folder / "README.md").write_text("---\nbase_model: google/gemma-3-4b-it\n---\n# Mine\n")
    assert Config(teacher=str(folder)).license == "gemma"
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Mine\n")
    assert Config(teacher=str(folder)).license == "cc-by-nc-4.0"


def test_whoever_plays_the_user_counts_too() -> None:
    llama, qwen, gemma = ({"model": name} for name in ("meta-llama/Llama-3.1-8B", "Qwen/Qwen3-8B", "google/gemma-2-9b-it"))
    assert licence_of(["scripted", llama, "none"]).id == "llama3.1"
    assert licence_of([qwen, llama, "none"]).id == "llama3.1"
    assert licence_of([qwen, "teacher", qwen]).id == "apache-2.0"
    both = licence_of([llama, gemma, "none"])
    assert both.id == "other" and "Llama" in both.note and "Gemma" in both.note


def test_the_licence_changes_no_id() -> None:
    assert build_job(Config(license="mit")).digest == build_job(Config()).digest


def test_the_card_tells_no_path_and_names_other_terms(tmp_path: Path) -> None:
    folder = tmp_path / "unheard-of"
    folder.mkdir()
    assert str(tmp_path) not in explained("unknown", [{"model": str(folder)}]) + explained("unknown", [{"model": "/gone/away/unheard-of"}])
    front = _front(tmp_path, {"name": "n", "license": "other", "teacher": {"model": "gpt-4o"}}, Tally())
    assert (front["license"], front["license_name"]) == ("other", "openai-terms") and front["license_link"].startswith("https://")


def test_every_entry_of_the_table_has_its_source() -> None:
    for entry in yaml.safe_load(TABLE.read_text(encoding="utf-8")):
        assert entry["source"].startswith("https://") and entry["license"], entry
        assert entry["license"] != "other" or entry["name"], entry
