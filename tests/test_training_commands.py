"""What the commands that train take, and how they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tracemill.cli import app


def refused(*given: str) -> str:
    result = CliRunner().invoke(app, ["train", *given])
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    return result.output


@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_the_data_may_be_named_in_the_file(tmp_path: Path, command: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"data: {tmp_path}\nmodel: m\nout: {tmp_path / 'out'}\n")
    assert "holds no" in refused(command, "--config", str(file))
    file.write_text("model: m\nout: o\n")
    assert "data: field required" in refused(command, "--config", str(file))


def test_all_problems_are_told_at_once_whatever_their_kind(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("ewc: {sampel: old.jsonl}\nreport_to: nobody\nworkers: 2\n")
    said = refused(
        "sft",
        str(tmp_path),
        "--model",
        "m",
        "--out",
        "o",
        "--config",
        str(file),
        "--method",
        "full",
        "--merge",
        "--stream",
        "--epochs",
        "0",
    )
    for part in (
        "ewc.sampel: unknown key; did you mean 'sample'?", "ewc.sample: field required", "report_to: is not installed", "epochs:",
        "merge: a full fine-tune", "stream: a stream has no end", "leave workers at 1", "6 problem(s)",
    ):  # fmt: skip
        assert part in said, said
