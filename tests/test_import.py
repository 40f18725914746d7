"""What an import loads, and which names are promised."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys

import pytest
from processes import PATIENCE

from tracemill import errors, trace

HEAVY = ("torch", "ray", "vllm", "datasets", "pyarrow", "transformers", "mcp")


def loaded_by(code: str) -> tuple[str, set[str]]:
    """What a fresh interpreter prints while it runs the code, and the top-level modules it has loaded then."""
    ending = "\nimport json, sys; print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-2000:]
    printed, _, modules = done.stdout.rstrip().rpartition("\n")
    return printed, set(json.loads(modules))


def test_the_package_loads_nothing_heavy() -> None:
    _, modules = loaded_by("import tracemill, tracemill.trace, tracemill.errors")
    assert not modules & {*HEAVY}


def test_environments_and_checks_load_nothing_heavy() -> None:
    _, modules = loaded_by("import tracemill.generators.environments.store.goals, tracemill.schemas.check")
    assert not modules & {*HEAVY}


@pytest.mark.skipif(importlib.util.find_spec("tracemill.cli") is None, reason="there is no command line yet")
def test_the_help_of_the_command_line_loads_nothing_heavy() -> None:
    code = """
import sys
from tracemill.cli import main
sys.argv = ["tracemill", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""
    printed, modules = loaded_by(code)
    assert "generate" in printed
    assert not modules & {*HEAVY}


def test_the_package_has_no_names_but_its_version() -> None:
    printed, _ = loaded_by("import tracemill\nprint([name for name in vars(tracemill) if not name.startswith('_')], tracemill.__version__)")
    assert re.fullmatch(r"\[\] \d+\.\d+\.\d+\n?", printed), printed


def test_the_errors_are_these() -> None:
    names = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    assert names == {
        "TracemillError",
        "ClusterError",
        "ConfigError",
        "SchemaError",
        "ScenarioError",
        "EnvironmentMissing",
        "TeacherError",
        "TeacherDied",
        "ContextTooLong",
        "DatasetError",
        "HubError",
    }


def test_the_records_are_these() -> None:
    names = {name for name, one in vars(trace).items() if isinstance(one, type) and issubclass(one, trace.Record)}
    assert names == {
        "Record", "FunctionCall", "ToolCall", "SystemMessage", "UserMessage", "AssistantMessage", "ToolMessage",
        "FunctionSpec", "OfferedTool", "ToolDefinition", "Call", "Persona", "Slot", "Step", "Interjection", "Constraint", "Subgoal",
        "Assertion", "Fact", "Forbidden", "Fault", "Mistake", "HonestEnd", "Scenario", "Usage", "Outcome", "Recovery", "Verdict",
        "Trace", "Preference", "Rejection", "Conversation", "Refusal",
    }  # fmt: skip
