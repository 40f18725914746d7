"""The goal's checks: what counts as shown, and as told."""

from __future__ import annotations

from tracemill.generators.environments.base import Environment
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.environments.goal import Done, judge
from tracemill.trace import Call, Persona, Scenario


def asked_for(env: Environment, opening: str, *, name: str = "helpdesk") -> Scenario:
    """A scenario that demands nothing, so that only what an agent does in it can be wrong."""
    return Scenario(
        index=0, seed=1, kind="tool_call", environment=name, template="t", world=env.world, difficulty=1,
        persona=Persona(tone="plain"), opening=opening, answer="Done.",
    )  # fmt: skip


async def test_what_a_refusal_names_has_been_shown_and_what_nothing_names_has_not() -> None:
    env = environment("helpdesk")(3)
    pending = next(row for row in env.access_requests if row.status == "pending")  # type: ignore[attr-defined]
    calls = (
        Call(
            tool="request_access",
            arguments={"employee_id": pending.employee_id, "group_id": pending.group_id, "reason": "the closing of the month"},
        ),
        Call(tool="get_access_request", arguments={"request_id": pending.id}),
    )
    done = [Done(call, await env.call(call.tool, call.arguments)) for call in calls]
    refused, found = (one.result for one in done)
    assert not refused.ok and pending.id in refused.text and found.ok
    one = asked_for(env, f"I am {pending.employee_id} and want to be in {pending.group_id}.")
    assert (await judge(one, env, done, "You asked for it already.")).grounded
    invented = await judge(one, env, done[1:], "You asked for it already.")
    assert invented.problems == (f"grounded: get_access_request was given {pending.id!r}, which nothing had shown before",)
