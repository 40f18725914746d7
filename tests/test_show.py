"""What `tracemill show`, `environments` and `tools` print."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Rewrite

from tracemill import show, stats
from tracemill.columns import Row, from_row, shapes
from tracemill.errors import DatasetError, EnvironmentMissing
from tracemill.generators.environments.catalogue import BUILT_IN, environment
from tracemill.generators.environments.goal import templates
from tracemill.trace import KINDS, AssistantMessage, Rejection, ToolMessage, Trace

Show = Callable[..., str]
TITLE = re.compile(r"^── (\S+) ─+ (\d+) of (\d+)$", re.MULTILINE)


def traces(out: Path) -> list[Trace]:
    columns = tuple(shapes(Trace))
    rows = [row for path in stats.trace_files(out) for some in stats.read_rows(path, columns) for row in some]
    return sorted((from_row(Trace, row) for row in rows), key=lambda trace: trace.index)


def rejections(out: Path) -> list[Rejection]:
    columns = tuple(shapes(Rejection))
    rows = [row for path in stats.part_files(out / "rejects") for some in stats.read_rows(path, columns) for row in some]
    return [from_row(Rejection, row) for row in rows]


@pytest.fixture
def shown(milled: Path, capsys: pytest.CaptureFixture[str]) -> Show:
    """Prints and returns what was printed."""

    def print_traces(out: Path = milled, **filters: Any) -> str:
        wanted = {"id": None, "kind": None, "environment": None, "template": None, "rejects": False, "limit": 20}
        show.show_traces(out, **{**wanted, **filters})
        return capsys.readouterr().out

    return print_traces


def flat(printed: str) -> str:
    """As one line, so that it does not matter where lines were broken."""
    return " ".join(printed.split())


# --- which are shown ---


def test_traces_come_in_the_order_of_their_indices_whatever_their_kind(milled: Path, shown: Show) -> None:
    printed = shown(limit=5)
    assert [match[1] for match in TITLE.finditer(printed)] == [trace.id for trace in traces(milled)[:5]]
    assert "55 more traces: raise --limit" in printed


@pytest.mark.parametrize("kind", KINDS)
def test_filters_combine(milled: Path, shown: Show, kind: str) -> None:
    expected = [trace.id for trace in traces(milled) if trace.kind == kind and trace.environment == "bank"]
    assert [match[1] for match in TITLE.finditer(shown(kind=kind, environment="bank", limit=100))] == expected
    template = next(trace.template for trace in traces(milled) if trace.id == expected[0])
    printed = shown(kind=kind, environment="bank", template=template, id=expected[0][:8])
    assert TITLE.findall(printed) == [(expected[0], "1", "1")]


def test_the_beginning_of_an_id_is_enough(milled: Path, shown: Show) -> None:
    trace = traces(milled)[7]
    assert TITLE.findall(shown(id=trace.id[:14])) == [(trace.id, "1", "1")]
    assert TITLE.findall(shown(id=trace.id[:14] + "…")) == [(trace.id, "1", "1")]


def test_the_ledger_is_shown_attempt_by_attempt(milled: Path, shown: Show) -> None:
    expected = [one.id for one in sorted(rejections(milled), key=lambda one: (one.index, one.attempt))]
    assert [match[1] for match in TITLE.finditer(shown(rejects=True, limit=1000))] == expected


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"kind": "tool_cal"}, "no trace in .* is of kind 'tool_cal'; did you mean 'tool_call'\\?\n  - there are: .*tool_call \\(20\\)"),
        ({"environment": "bnak"}, "did you mean 'bank'\\?\n  - there are: .*bank"),
        ({"template": "stop_ordr"}, "did you mean 'stop_order'"),
        ({"id": "tm-zz"}, "no trace in .* begins with 'tm-zz'\n  - the nearest is tm-"),
        (
            {"environment": "bank", "template": "stop_order"},
            "environment 'bank' and template 'stop_order'\n  - of environment 'bank' there are: ",
        ),
    ],
)
def test_what_is_unknown_is_told_with_what_there_is(shown: Show, filters: dict[str, str], said: str) -> None:
    with pytest.raises(DatasetError) as refused:
        shown(**filters)
    assert re.search(said, str(refused.value))


def test_an_id_on_the_other_side_is_told(milled: Path, shown: Show) -> None:
    accepted = {trace.id for trace in traces(milled)}
    lost = next(one.id for one in rejections(milled) if one.final)
    assert lost[:-2] not in accepted
    with pytest.raises(DatasetError, match="add --rejects"):
        shown(id=lost[:-2])
    clean = next(trace.id for trace in traces(milled) if not trace.revisions)
    with pytest.raises(DatasetError, match="leave out --rejects"):
        shown(id=clean, rejects=True)


def test_a_folder_without_run_or_traces_says_so(milled: Path, shown: Show, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no run"):
        shown(tmp_path)
    (tmp_path / "run.json").write_text((milled / "run.json").read_text())
    with pytest.raises(DatasetError, match="holds no traces yet"):
        shown(tmp_path)
    with pytest.raises(DatasetError, match="holds no rejections"):
        shown(tmp_path, rejects=True)


def test_a_row_that_is_no_trace_is_named(rewritten: Rewrite, shown: Show) -> None:
    def broken(row: Row) -> None:
        if "difficulty" in row:
            row["difficulty"] = 9

    with pytest.raises(DatasetError, match=r"tm-\w+ is broken: .*\n  - tracemill verify"):
        shown(rewritten(broken), limit=1)


# --- how a trace looks ---


def test_a_trace_is_shown_with_all_that_was_said_and_done(milled: Path, shown: Show) -> None:
    for trace in traces(milled)[:6]:
        printed = flat(shown(id=trace.id))
        assert f"{trace.kind} · {trace.environment} / {trace.template} · difficulty {trace.difficulty}" in printed
        assert f"index {trace.index} · teacher scripted" in printed
        assert "state ✓ untouched ✓ allowed ✓ grounded ✓ confirmed ✓ told ✓" in printed
        assert f"principles {len(trace.verdicts)} of {len(trace.verdicts)} kept" in printed
        for message in trace.messages:
            assert flat(message.content) in printed
            if isinstance(message, AssistantMessage):
                assert f"thinks {flat(message.reasoning_content or '')}" in printed
        for _, call, _ in trace.calls():
            written = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
            assert call.name == "update_plan" or flat(f"→ {call.name}({written})") in printed


def test_lines_fit_into_a_hundred_columns(shown: Show) -> None:
    assert max(map(len, shown(limit=60).splitlines())) <= 100
    assert max(map(len, shown(rejects=True, limit=60).splitlines())) <= 100


def test_long_results_are_shortened_unless_a_trace_is_asked_for(milled: Path, shown: Show) -> None:
    results = ((trace, message) for trace in traces(milled) for message in trace.messages if isinstance(message, ToolMessage))
    trace, result = max(results, key=lambda found: len(found[1].content))
    printed = shown(template=trace.template, limit=100)
    assert flat(result.content) not in flat(printed)
    assert re.search(r"… [\d,]+ more characters", flat(printed))
    whole = shown(id=trace.id)
    assert flat(result.content) in flat(whole)
    assert "more characters" not in whole


def test_plans_are_lists_of_sub_goals(milled: Path, shown: Show) -> None:
    trace = next(trace for trace in traces(milled) if trace.kind == "goal_decomposition")
    plan = next(call.arguments for _, call, _ in trace.calls() if call.name == "update_plan")
    printed = flat(shown(id=trace.id))
    for one in plan["subgoals"]:
        after = f" after {', '.join(one['depends_on'])}" if one["depends_on"] else ""
        assert f"{one['id']} {one['goal']}{after} {', '.join(one['tools'])} until {one['success_criterion']}" in printed


def test_wrong_steps_recoveries_and_faults_are_marked(milled: Path, shown: Show) -> None:
    seen = set()
    for trace in traces(milled):
        if trace.kind != "error_recovery":
            continue
        assert trace.recovery is not None
        printed = shown(id=trace.id)
        lines = printed.splitlines()
        marked = {int(line[:2]): line for line in lines if re.match(r"[ \d]\d  \w", line)}
        assert [at for at, line in marked.items() if "wrong step, not trained" in line] == list(trace.recovery.wrong)
        assert [at for at, line in marked.items() if re.search(r"agent +(wrong step, not trained · )?recovery *$", line)] == list(
            trace.recovery.recovery
        )
        for fault in trace.scenario.faults:
            assert re.search(rf"^fault +{fault.kind}, call {fault.nth} of {fault.tool}", printed, re.MULTILINE)
            assert any(f"result  {fault.tool}  fault: {fault.kind}" in line for line in lines)
            seen.add(fault.kind)
        for mistake in trace.scenario.mistakes:
            assert re.search(rf"^mistake {mistake.kind}, {mistake.call.tool}", printed, re.MULTILINE)
            seen.add(mistake.kind)
        assert "without the trouble the goal is reached ✓  without the recovery it is missed ✓" in printed
    assert len(seen) > 5


def test_a_user_who_speaks_up_is_marked(milled: Path, shown: Show) -> None:
    trace = next(trace for trace in traces(milled) if trace.scenario.interjections)
    assert re.search(r"user +speaks up", shown(id=trace.id))


def test_a_rejection_is_shown_with_stage_blame_and_evidence(milled: Path, shown: Show) -> None:
    for one in rejections(milled):
        printed = flat(shown(id=one.id, rejects=True))
        assert f"failed at {one.stage} · to blame: {one.blame}" in printed
        assert all(flat(evidence) in printed for evidence in one.evidence)
        assert ("the scenario is lost" if one.final else "sent back for revision") in printed
        if at := re.search(r"messages\[(\d+)\]", one.reason):
            assert f"{at[1]} agent rejected for this" in printed


def test_a_rejection_without_a_conversation_is_shown(rewritten: Rewrite, shown: Show) -> None:
    def undrawn(row: Row) -> None:
        if "stage" in row:
            row.update(environment="", template="", messages=[], evidence=[], reason="nothing fits")

    printed = shown(rewritten(undrawn), rejects=True, limit=1)
    assert "not drawn" in printed and "nothing fits" in printed


# --- what a trace says is never acted on ---


def test_content_is_not_taken_for_markup_or_for_the_terminal(rewritten: Rewrite, shown: Show) -> None:
    nasty = "[bold]x[/bold] [/] [link=http://a]y[/link] \x1b[2J\x1b]0;t\x07 \\[red]z"
    seen = "[bold]x[/bold] [/] [link=http://a]y[/link] ␛[2J␛]0;t␇ \\[red]z"

    def spoil(row: Row) -> None:
        messages = [json.loads(text) for text in row["messages"]]
        for message in messages:
            message["content"] = f"{nasty} {message['content']}"
            if message.get("reasoning_content"):
                message["reasoning_content"] = nasty
            if message["role"] == "tool":
                message["name"] = nasty
            for call in message.get("tool_calls", ()):
                call["function"]["name"] = nasty
                call["function"]["arguments"] = {nasty: nasty}
        row["messages"] = [json.dumps(message) for message in messages]
        row["template"] = nasty
        if "stage" in row:
            row["evidence"] = [nasty]
        else:
            scenario = json.loads(row["scenario"])
            scenario["opening"] = nasty
            row["scenario"] = json.dumps(scenario)

    out = rewritten(spoil)
    for printed in (shown(out), shown(out, id="tm-", limit=3), shown(out, rejects=True)):
        assert "\x1b" not in printed and "\x07" not in printed
        assert seen in flat(printed)
        assert flat(printed).count("[bold]x[/bold] [/]") > 50


def test_a_lone_surrogate_can_be_printed(rewritten: Rewrite, shown: Show) -> None:
    def spoil(row: Row) -> None:
        row["messages"] = [row["messages"][0], json.dumps({"role": "user", "content": "half \ud83d of a face"}), *row["messages"][2:]]

    assert "half \N{REPLACEMENT CHARACTER} of a face" in shown(rewritten(spoil), limit=1)


def test_plans_of_any_form_can_be_shown(rewritten: Rewrite, shown: Show) -> None:
    def spoil(row: Row) -> None:
        messages = [json.loads(text) for text in row["messages"]]
        for message in messages:
            for call in message.get("tool_calls", ()):
                call["function"]["name"] = "update_plan"
                call["function"]["arguments"] = {
                    "subgoals": [7, {"id": None, "tools": "x", "depends_on": [1, {}]}],
                    "constraints": 4,
                    "reason": ["[/]"],
                }
        row["messages"] = [json.dumps(message) for message in messages]

    printed = shown(rewritten(spoil))
    assert "→ plan" in printed


# --- on a terminal ---


def test_a_terminal_gets_a_pager_and_colours(milled: Path, monkeypatch: pytest.MonkeyPatch, shown: Show) -> None:
    paged: list[str] = []
    monkeypatch.setattr("pydoc.pager", paged.append)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("LESS", raising=False)
    assert shown(limit=2) == ""
    assert "\x1b[" in paged[0] and "index" in paged[0]
    assert show.os.environ["LESS"] == "-FRX"


# --- environments ---

OWN = '''
from typing import Annotated, Literal
from pydantic import Field
from tracemill.generators.environments.base import Environment
from tracemill.generators.environments.goal import Draft, Unfit, goal
from tracemill.generators.environments.tool import tool

class Desk(Environment):
    name = "desk"
    policy = "First line,\\n  still the first.\\n\\n- one,\\n  and on\\n# head"

    @tool("read")
    def ring(self, bell: Literal["anything"] | None, times: int = 1):
        """Ring [bold]twice[/bold].
        Then wait."""

    @goal(kinds=("tool_call",))
    def never(self, g: Draft) -> None:
        raise Unfit
'''


def test_every_built_in_environment_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    show.show_environments(None)
    printed = capsys.readouterr().out
    for name in BUILT_IN:
        cls = environment(name)
        row = next(line for line in printed.splitlines() if line.startswith(f"{name} "))
        numbers = [int(one) for one in row.split()[1:7]]
        assert numbers[0] > 100
        assert numbers[1] == len(cls.toolbox()) == sum(numbers[2:5])
        assert numbers[5] == len(templates(cls))
    assert "You work for the service desk of" in printed
    assert max(map(len, printed.splitlines())) <= 100


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_environment_is_shown_with_policy_tools_and_goals(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cls = environment(name)
    show.show_environments(name)
    printed = capsys.readouterr().out
    for line in cls.policy_text().splitlines():
        assert flat(line.removeprefix("- ")) in flat(printed)
    for tool in cls.toolbox().values():
        assert re.search(rf"^  {tool.effect} +{tool.name}\(", printed, re.MULTILINE)
    for template in templates(cls):
        assert re.search(rf"^  {template}  (all kinds|\w+)", printed, re.MULTILINE)
    assert "nothing fits" not in printed
    show.show_environments(name)
    assert capsys.readouterr().out == printed  # examples are drawn with a fixed seed


def test_an_environment_of_ones_own_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own_desk.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    show.show_environments("own_desk:Desk")
    printed = flat(capsys.readouterr().out)
    assert "desk 0 rows of state in world 0, 4 tools, 1 goal template" in printed
    assert "Policy First line, still the first. - one, and on # head" in printed
    assert "read ring(bell: anything|null, times?: integer) Ring [bold]twice[/bold]." in printed
    assert "never tool_call nothing fits in the first worlds" in printed


def test_an_unknown_environment_is_told_with_the_nearest() -> None:
    with pytest.raises(EnvironmentMissing, match="did you mean 'store'"):
        show.show_environments("stor")


# --- tools ---

LISTING = {
    "server": "desk [/] of[bold]",
    "tools": [
        {"name": "look", "description": "See.", "inputSchema": {"type": "object", "properties": {"x": {"type": "string"}, "n": {"enum": [1, 2]}}, "required": ["x"]},
         "annotations": {"readOnlyHint": True}},
        {"name": "mended", "inputSchema": {"type": "object", "properties": []}},
        {"name": "broken", "description": "No.", "inputSchema": {"type": "object", "properties": {"x": {"type": "float"}}}},
        {"description": "nameless"},
    ],
}  # fmt: skip


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(LISTING))
    return path


def test_definitions_are_shown_with_what_was_mended_and_why_they_are_refused(listing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show.show_tools(listing, only_refused=False)
    lines = [flat(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "desk [/] of[bold]"
    assert "read look(x: string, n?: 1|2)" in lines
    assert "write mended()" in lines
    assert any(line.startswith("note $.inputSchema.properties:") for line in lines)
    assert "refused broken at $.tools[2]" in lines
    assert any(line.startswith("$.inputSchema.properties.x.type: 'float'") for line in lines)
    assert "refused a definition without a name at $.tools[3]" in lines
    assert lines[-1] == "4 definitions of 1 server: 2 load (1 with a note), 2 refused"


def test_only_refused_definitions_can_be_listed(listing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show.show_tools(listing, only_refused=True)
    printed = capsys.readouterr().out
    assert "look(" not in printed and "mended" not in printed
    assert "broken" in printed and "4 definitions" in printed


def test_a_file_that_is_no_json_is_one_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    path.write_text("{")
    show.show_tools(path, only_refused=False)
    printed = capsys.readouterr().out
    assert "not JSON" in printed and "1 definition: 0 load, 1 refused" in printed


def test_tools_of_an_environment_load_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps([tool.definition.plain() for tool in environment("helpdesk").toolbox().values()]))
    show.show_tools(path, only_refused=True)
    assert "0 refused" in capsys.readouterr().out
