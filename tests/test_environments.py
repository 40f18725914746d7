"""The built-in environments: every goal passes the gate, and each environment is rich enough."""

from __future__ import annotations

import pytest

from tracemill.generators.environments.catalogue import BUILT_IN, environment
from tracemill.generators.environments.gate import drawn, template_problems
from tracemill.generators.environments.goal import templates


def every_template() -> list[tuple[str, str]]:
    return [(name, template) for name in BUILT_IN for template in templates(environment(name))]


@pytest.mark.parametrize(("name", "template"), every_template())
async def test_a_goal_passes_the_gate(name: str, template: str) -> None:
    assert await template_problems(environment(name), template) == []


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_an_environment_is_rich_enough(name: str) -> None:
    cls = environment(name)
    rows = sum(len(table) for table in cls(0).tables())
    own = [tool for tool in cls.toolbox().values() if tool.name not in ("wait", "update_plan", "transfer_to_human")]
    assert rows >= 200
    assert len(own) >= 8
    assert {tool.effect for tool in own} == {"read", "write", "irreversible"}
    assert all(tool.definition.description for tool in own)
    assert len(templates(cls)) >= 8
    drawn_all = [drawn(cls, template, number) for template in templates(cls) for number in range(10)]
    assert min(len(s.steps) for s in drawn_all) <= 1
    assert max(len(s.steps) for s in drawn_all) >= 7
    assert any(s.ending == "refused" for s in drawn_all)
    assert any(slot.withheld for s in drawn_all for slot in s.slots)
    assert any(s.interjections for s in drawn_all)
    assert any(i.changes_goal for s in drawn_all for i in s.interjections)
    assert any(s.constraints for s in drawn_all)
    assert any(a.group == b.group for s in drawn_all for a, b in zip(s.steps, s.steps[1:], strict=False))
