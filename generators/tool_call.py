"""tool_call: a conversation in which tools are called, one by one, side by side or each on the last one's result, or
in which the right thing is to ask, to decline, or to call nothing."""

from __future__ import annotations

from tracemill.trace import Trace


def problems(trace: Trace) -> list[str]:
    """What keeps a trace from being of this kind."""
    found: list[str] = []
    made = list(trace.calls())
    if trace.scenario.steps and not made:
        found.append("the goal takes tool calls and none was made")
    if not trace.scenario.steps and made:
        found.append(f"no tool serves this request, and {made[0][1].name} was called")
    return found
