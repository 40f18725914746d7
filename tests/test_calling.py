"""What is printed as the next command works in the shell at hand as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracemill.calling import command, python

OURS = Path(sys.executable).with_name("tracemill")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder in which programs are found, and from which they are called."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_command_that_the_shell_does_not_find_is_named_by_its_place(shell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("verify", Path("my run")) == f"{OURS} verify 'my run'"
    monkeypatch.chdir(OURS.parent.parent)
    assert command("verify", "a") == "bin/tracemill verify a" and python() == f"bin/{Path(sys.executable).name}"
    assert subprocess.run(["/bin/sh", "-c", command("schema")], capture_output=True, text=True, check=True).stdout.startswith("trace ")


def test_a_command_that_the_shell_finds_is_called_by_its_name(shell: Path) -> None:
    (shell / "tracemill").symlink_to(OURS)
    assert command("verify", "a") == "tracemill verify a"


def test_another_installation_of_that_name_is_not_taken_for_ours(shell: Path) -> None:
    for name in ("tracemill", "python"):
        (shell / name).write_text("#!/bin/sh\n")
        (shell / name).chmod(0o755)
    assert command("verify", "a") == f"{OURS} verify a" and python() == sys.executable


def test_without_a_script_it_is_the_module_that_is_called(shell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", os.fspath(shell / "python"))
    assert command("verify", "a") == "python -m tracemill verify a"
