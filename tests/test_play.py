"""Playing tries: episodes of policies that do well, badly, and nonsense."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tracemill.columns import from_row, to_row
from tracemill.config import Config
from tracemill.errors import ContextTooLong, TeacherError
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.teachers.base import Reply, Request, Teacher
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.trace import Call
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.play import Played, Player
from tracemill.train.evaluate.suite import SuiteConfig

CONFIG = Config(environments={"store": 1, "bank": 1}, holdout=0.2, seed=3)


Bend = Callable[[Request, Reply], Reply]


class FakePolicy(ScriptedTeacher):
    """The scripted agent, with its replies bent."""

    def __init__(self, bend: Bend) -> None:
        super().__init__()
        self._bend = bend

    async def reply(self, request: Request) -> Reply:
        return self._bend(request, await super().reply(request))


async def play(scenarios: int, suite: str = "standard", policy: Teacher | None = None) -> list[Played]:
    player = Player(CONFIG, SuiteConfig.model_validate({"suite": suite, "scenarios": scenarios}))
    if policy is not None:
        player._policies = {"": policy}
    await player.start()
    played = [await player.mill(index) for index in range(len(player._plan))]
    await player.close()
    return played


async def episodes(scenarios: int, suite: str = "standard", policy: Teacher | None = None) -> list[Episode]:
    return [one.episode for one in await play(scenarios, suite, policy) if one.episode]


async def test_the_scripted_agent_does_everything_right_in_every_arm() -> None:
    played = await episodes(4, "all")
    assert {one.arm for one in played} > {"seeds", "templates", "injection", "worst_moment"}
    wrong = [(one.arm, one.scenario.template, one.outcome, one.why) for one in played if not one.success]
    broken = [(one.arm, verdict) for one in played for verdict in one.verdicts if not verdict.passed]
    assert not wrong and not broken


async def test_an_agent_that_does_nothing_fails_unless_refusing_is_right() -> None:
    class Idle:
        name = "idle"

        async def reply(self, request: Request) -> Reply:
            return Reply(text="I will see to it.", reasoning="Nothing to do.")

    policy: Any = Idle()
    wrong = [one for one in await episodes(8, policy=policy) if one.success and one.scenario.ending != "refused"]
    assert not [(one.scenario.template, one.scenario.answer, one.messages[-2:], one.outcome) for one in wrong]


async def test_what_a_spoiled_fact_or_a_left_out_change_costs_is_the_check_that_it_breaks() -> None:
    def silent(request: Request, reply: Reply) -> Reply:
        return reply if reply.calls or "?" in reply.text else Reply(text="Done.", reasoning=reply.reasoning)

    failed = [one for one in await episodes(8, policy=FakePolicy(silent)) if not one.success]
    assert failed and all(one.outcome and not one.outcome.told for one in failed)


async def test_any_conversation_can_be_judged() -> None:
    """Rules and metrics were written for traces that are sound; a policy's conversations need not be."""
    rng = random.Random(5)

    class Noisy:
        name = "noisy"

        async def reply(self, request: Request) -> Reply:
            chance, steps = rng.random(), request.scenario.steps
            if request.scenario.seed % 3 == 0:
                return Reply(calls=(Call(tool=request.tools[0].function.name, arguments={}),))
            if chance < 0.5 and steps:
                some = rng.sample(steps, min(len(steps), rng.randint(1, 2)))
                return Reply(
                    text=rng.choice(("", "One moment.")), reasoning=rng.choice((None, "Let me see.")), calls=tuple(one.call for one in some)
                )
            if chance < 0.7:
                arguments = rng.choice(({}, {"order_id": "W1"}, {"x": [None, {}]}, {"subgoals": [{"id": "g1"}]}))
                return Reply(calls=(Call(tool=rng.choice((*request.tools,)).function.name, arguments=arguments),))
            if chance < 0.75:
                return Reply(text="<broken>", problem="it cannot be read")
            return Reply(text=rng.choice(("?", "Shall I do that?", "W1 is done, it cost 12.50.", request.scenario.answer)))

    policy: Any = Noisy()
    played = await play(12, "all", policy)
    assert not [one.reason for one in played if one.episode is None]
    found = [one.episode for one in played if one.episode]
    assert any(one.success for one in found) and any(one.stop != "done" for one in found)
    assert all(from_row(Episode, to_row(one)) == one for one in found)


async def test_a_policy_that_gives_no_reply_is_lost_and_not_failed() -> None:
    def gone(request: Request, reply: Reply) -> Reply:
        raise TeacherError("the endpoint does not answer")

    assert {(one.episode, one.reason, one.lost) for one in await play(1, policy=FakePolicy(gone))} == {
        (None, "the endpoint does not answer", True)
    }


async def test_a_policy_that_cannot_take_in_its_instructions_has_failed() -> None:
    def full(request: Request, reply: Reply) -> Reply:
        raise ContextTooLong("the conversation is longer than the model's context")

    played = await play(2, policy=FakePolicy(full))
    found = [one.episode for one in played if one.episode]
    assert len(found) == len(played) and {(one.stop, one.success, one.counts, one.messages) for one in found} == {
        ("too_long", False, True, ())
    }
    assert all("longer than" in one.why and from_row(Episode, to_row(one)) == one for one in found)


async def test_what_the_simulated_user_spoils_says_nothing_of_the_policy() -> None:
    class Babbling:
        name = "babbling"

        async def reply(self, request: Request) -> Reply:
            return Reply(problem="it is no JSON")

    player = Player(CONFIG, SuiteConfig(scenarios=1))
    user: Any = Babbling()
    player._user = user
    episode = (await player.mill(0)).episode
    assert episode and episode.stop == "user" and not episode.counts


async def test_an_arm_that_suits_nothing_is_left_out_and_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CONFIG.environments:
        monkeypatch.setattr(environment(name), "instant", False)
    played = await play(1, "adversarial")
    assert {(one.reason, one.lost) for one in played if one.left_out} == {
        ("injection: none of the 40 scenarios that were drawn for it suits it", False)
    }
    assert all(one.left_out == (one.episode is None) for one in played) and len(played) > 3


async def test_a_disguise_is_seen_by_the_policy_alone() -> None:
    seen: list[dict[str, str]] = []

    class Looker:
        name = "looker"

        async def reply(self, request: Request) -> Reply:
            seen.append({tool.function.name: tool.function.description for tool in request.tools})
            return Reply(text="No.")

    player = Player(CONFIG, SuiteConfig(suite="adversarial", scenarios=1))
    policy: Any = Looker()
    player._policies = {"": policy}
    at = next(index for index in range(len(player._plan)) if player._plan[index].arm == "misleading_names")
    episode = (await player.mill(at)).episode
    assert episode is not None
    true = {tool.function.name: tool.function.description for tool in episode.tools}
    assert seen and seen[0] != true and sorted(seen[0].values()) == sorted(true.values())


def test_an_episode_without_an_outcome_is_no_success(store_episode: Episode) -> None:
    assert store_episode.success
    assert not store_episode.model_copy(update={"outcome": None}).success
    assert not store_episode.model_copy(update={"stop": "budget"}).success


@pytest.fixture
async def store_episode() -> Episode:
    return (await episodes(1))[0]
