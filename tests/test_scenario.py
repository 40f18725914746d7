"""Scenarios: a pure function of (run seed, mix, index), close to the mix from the first thousand on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tracemill.errors import ScenarioError
from tracemill.generators.environments.base import Environment
from tracemill.generators.environments.catalogue import BUILT_IN, environment
from tracemill.generators.environments.goal import Draft, goal, templates
from tracemill.generators.environments.tool import tool
from tracemill.generators.scenario import Mix, kind_of, place_of, scenario
from tracemill.trace import KINDS, Json, fingerprint

MIX = Mix(flaws=0.5)
UNEVEN = Mix(
    kinds={"tool_call": 0.7, "goal_decomposition": 0.2, "error_recovery": 0.1},
    environments={"store": 5.0, "bank": 3.0, "travel": 1.0, "calendar": 0.5},
)


def prints(seed: int, count: int) -> list[str]:
    return [fingerprint(scenario(seed, index, MIX).plain()) for index in range(count)]


def test_a_scenario_is_the_same_every_time_and_another_for_every_index_and_seed() -> None:
    made = prints(5, 24)
    assert made == prints(5, 24)
    assert len(set(made)) == 24
    assert not set(made) & set(prints(6, 24))


def test_a_fresh_process_with_other_hashes_draws_the_same_scenarios() -> None:
    program = f"""
from {__name__} import prints
print(*prints(5, 24))
"""
    hashes = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    surroundings = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=surroundings, capture_output=True, text=True, check=True)
    assert done.stdout.split() == prints(5, 24)


def test_it_does_not_matter_in_what_order_a_mix_is_written_or_what_was_drawn_before() -> None:
    turned = Mix(
        kinds=dict(reversed(list(UNEVEN.kinds.items()))),
        environments=dict(reversed(list(UNEVEN.environments.items()))),
        flaws=UNEVEN.flaws,
    )
    assert turned == UNEVEN
    forwards = [scenario(3, index, UNEVEN) for index in range(30)]
    backwards = [scenario(3, index, turned) for index in reversed(range(30))]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize("mix", [Mix(), UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize(("seed", "start"), [(0, 0), (7, 0), (7, 1_000_000_000)])
def test_a_mix_is_met_within_two_percent_over_ten_thousand(mix: Mix, seed: int, start: int) -> None:
    count = 10_000
    places = Counter(place_of(seed, index, mix) for index in range(start, start + count))
    kinds: Counter[str] = Counter()
    worlds: Counter[str] = Counter()
    for (kind, name), number in places.items():
        kinds[kind] += number
        worlds[name] += number
    for found, wanted in ((kinds, mix.kinds), (worlds, mix.environments)):
        total = sum(wanted.values())
        assert set(found) == set(wanted)
        for name, weight in wanted.items():
            assert found[name] == pytest.approx(count * weight / total, rel=0.02), name
    for kind, share in mix.kinds.items():
        for name, weight in mix.environments.items():
            both = share / sum(mix.kinds.values()) * weight / sum(mix.environments.values())
            assert places[kind, name] / count == pytest.approx(both, abs=0.01), "kinds and environments are not tied to each other"


def test_a_hundred_in_a_row_are_close_to_the_mix_as_well() -> None:
    for start in range(0, 5000, 500):
        kinds = Counter(kind_of(11, index, Mix()) for index in range(start, start + 100))
        assert all(abs(kinds[kind] - 100 / 3) < 5 for kind in KINDS)


def test_a_drawn_scenario_stands_where_its_place_says() -> None:
    for index in range(60):
        drawn = scenario(2, index, UNEVEN)
        assert (drawn.kind, drawn.environment) == place_of(2, index, UNEVEN)
        assert drawn.kind == kind_of(2, index, UNEVEN)
        assert drawn.kind in templates(environment(drawn.environment))[drawn.template]
        assert drawn.index == index
        assert drawn.world < UNEVEN.worlds


def test_what_weighs_nothing_never_comes() -> None:
    mix = Mix(kinds={"tool_call": 1.0, "error_recovery": 0.0}, environments={"store": 0.0, "bank": 1.0})
    assert {place_of(1, index, mix) for index in range(500)} == {("tool_call", "bank")}


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_every_template_comes_up(name: str) -> None:
    suited = {one for one, kinds in templates(environment(name)).items() if "tool_call" in kinds}
    mix = Mix(kinds={"tool_call": 1.0}, environments={name: 1.0})
    drawn = Counter(scenario(1, index, mix).template for index in range(6 * len(suited)))
    assert set(drawn) == suited
    assert max(drawn.values()) <= 6 * 3, "none crowds out the others"


def test_flaws_come_as_often_as_they_are_asked_for() -> None:
    def share(flaws: float) -> float:
        return sum(scenario(9, index, Mix(flaws=flaws)).flaw is not None for index in range(150)) / 150

    assert share(0.0) == 0
    assert share(1.0) > 0.95, "all but those that call nothing and tell nothing"
    assert 0.15 < share(0.3) < 0.45


def test_recoveries_have_one_thing_wrong_and_the_others_none() -> None:
    for index in range(90):
        drawn = scenario(4, index, Mix())
        if drawn.kind == "error_recovery":
            assert len(drawn.faults) + len(drawn.mistakes) == 1
            continue
        assert not drawn.mistakes and drawn.honest_end is None
        assert {fault.kind for fault in drawn.faults} <= ({"injection"} if drawn.kind == "tool_call" else {"server_down"})


class Tiny(Environment):
    """One tool, and one goal that never fits."""

    name = "tiny"
    policy = "Look things up."
    words = {"look.opening": ["please look"], "look.answer": ["it is there"]}  # noqa: RUF012

    @tool("read")
    def peek(self) -> Json:
        """Look."""
        return {"there": True}

    @goal(kinds=("tool_call",))
    def look(self, g: Draft) -> None:
        """Look, if there is anything to look for."""
        g.need(False)


def test_where_nothing_suits_or_fits_it_is_said() -> None:
    mix = Mix(environments={f"{__name__}:Tiny": 1.0})
    by_kind = {kind_of(0, index, mix): index for index in range(20)}
    with pytest.raises(ScenarioError, match="no environment of the mix has a template for error_recovery"):
        scenario(0, by_kind["error_recovery"], mix)
    with pytest.raises(ScenarioError, match=r"nothing fits tool_call at index .* after 12 attempts, the last with look"):
        scenario(0, by_kind["tool_call"], mix)
    alone = Mix(kinds={"tool_call": 1.0}, environments={f"{__name__}:Tiny": 1.0}, worlds=1)
    with pytest.raises(ScenarioError, match=r"tiny\.look: nothing fits in world 0 after 20 draws"):
        scenario(0, 0, alone)


def test_an_environment_without_a_template_for_a_kind_leaves_it_to_the_others() -> None:
    mix = Mix(environments={f"{__name__}:Tiny": 1.0, "bank": 1.0})
    for index in range(60):
        kind, place = place_of(0, index, mix)
        assert place == "bank" or kind == "tool_call"
