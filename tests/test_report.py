"""The report of an evaluation: its figures, its page, what the terminal shows."""

from __future__ import annotations

import asyncio
import functools
import io
import itertools
import json
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tracemill.errors import DatasetError
from tracemill.generators.environments.catalogue import environment
from tracemill.generators.rollout import rollout
from tracemill.generators.scenario import Mix, scenario
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.trace import AssistantMessage, Fact, Forbidden, Json, Outcome, Usage, Verdict
from tracemill.train.evaluate.charts import Point, Series, shares, ticks
from tracemill.train.evaluate.compare import compare
from tracemill.train.evaluate.episode import Episode
from tracemill.train.evaluate.report import Report, build_report, show, show_comparison
from tracemill.train.evaluate.tables import verdict

FACTS = {"policy": "a policy", "suite": "standard", "seed": 7, "environments": ["store", "bank"]}
GOOD = Outcome(state=True, untouched=True, allowed=True, grounded=True, confirmed=True, told=True)
BAD = GOOD.model_copy(update={"state": False, "problems": ("state: orders/W1.status should be 'cancelled', is 'pending'",)})
DOCS = Path(__file__).parents[1] / "docs" / "evaluation.md"


@functools.cache
def played(number: int) -> Episode:
    """A real rollout of the scripted expert, without trouble and without a plan."""
    drawn = scenario(3, number, Mix(kinds={"tool_call": 1.0}, environments={"store": 1.0}))
    cls = environment(drawn.environment)

    async def play() -> Episode:
        env = await cls.reset(drawn)
        found = await rollout(drawn, env, ScriptedTeacher(), ScriptedTeacher())
        await env.close()
        effects = {tool.name: tool.effect for tool in cls.tools(drawn.kind)}
        return Episode(
            index=number, arm="seeds", mode="", number=number, sample=0, scenario=drawn, messages=found.messages, tools=cls.offered(drawn.kind),
            effects=effects, stop=found.stop, outcome=GOOD, usage=Usage(prompt_tokens=900, completion_tokens=100), seconds=2.0,
        )  # fmt: skip

    return asyncio.run(play())


def episode(of: int, *, success: bool = True, **changes: object) -> Episode:
    return played(of).model_copy(update={"outcome": GOOD if success else BAD, **changes})


def saying(of: int, text: str, **changes: object) -> Episode:
    """A failed episode whose last words are these."""
    one = episode(of, success=False, **changes)
    return one.model_copy(update={"messages": (*one.messages[:-1], AssistantMessage(content=text))})


def several(outcomes: dict[int, str], **changes: object) -> list[Episode]:
    """Episodes by scenario number, one for each letter: + succeeds, - fails."""
    made = [(number, sample, sign == "+") for number, signs in outcomes.items() for sample, sign in enumerate(signs)]
    return [episode(number, success=success, sample=sample, index=at, **changes) for at, (number, sample, success) in enumerate(made)]


def report(episodes: Iterable[Episode], **facts: Json) -> Report:
    return build_report(episodes, facts={**FACTS, **facts})


def printed(found: Report, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(found, console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def parsed(html: str) -> ET.Element:
    return ET.fromstring(html.removeprefix("<!doctype html>").strip())


def texts(html: str) -> str:
    return " ".join(" ".join(parsed(html).itertext()).split())


def everything() -> list[Episode]:
    """Several modes, arms, rollouts; verdicts, failures of several kinds."""
    broken = (
        Verdict(principle="confirm_irreversible", passed=False, by="rule", severity="high", at=2, why="nobody was asked"),
        Verdict(principle="no_loops", passed=True, by="rule", severity="low"),
    )
    made: list[Episode] = []
    for mode in ("thorough", "fast"):
        for arm in ("templates", "seeds", "pressure", "injection"):
            for number in range(4):
                for sample in range(3):
                    success = (number + sample + (mode == "thorough")) % 3 > 0
                    made.append(
                        episode(
                            number, success=success, mode=mode, arm=arm, sample=sample, index=len(made), verdicts=broken if sample else (),
                            usage=Usage(prompt_tokens=1000 * (1 + (mode == "thorough"))), seconds=1.0 + number,
                        )
                    )  # fmt: skip
    return made


# --- figures ------------------------------------------------------------------------------------------------


def test_tokens_that_an_endpoint_does_not_tell_are_not_zero() -> None:
    untold = [episode(number, mode=mode, usage=Usage()) for mode in ("fast", "balanced") for number in range(3)]
    for made, known in ((untold, False), ([*untold[:5], episode(2, mode="balanced")], True)):
        found = report(made)
        cost, page = found.plain()["efficiency"], texts(found.html())
        assert ("tokens" in cost, "tokens_written" in cost, "tokens_per_success" in cost) == (known, known, False)
        assert "tokens" not in cost["modes"]["fast"] and cost["modes"]["fast"]["seconds"]["value"] == 2.0
        assert "tokens for a success" not in printed(found)
        assert "Success against tokens" not in page and "Success against seconds" in page
        assert "Tokens for a success not known" in page


def test_success_and_both_pass_measures_come_out_of_known_episodes() -> None:
    found = report(several({0: "++", 1: "+-", 2: "--", 3: "++"})).plain()["reliability"]
    assert found["success"]["value"] == 0.625 and found["success"]["n"] == 4
    assert [found["pass_at"][k]["value"] for k in ("1", "2")] == [0.625, 0.75]
    assert [found["pass_hat"][k]["value"] for k in ("1", "2")] == [0.625, 0.5]
    assert found["checks"]["state"]["value"] == 0.625 and found["checks"]["told"]["value"] == 1
    assert found["stops"] == {"done": 8}


def test_an_episode_that_was_cut_off_fails_and_is_counted_by_its_stop() -> None:
    made = [episode(0), episode(1, stop="loop", why="the same again"), episode(2, stop="budget", outcome=None, messages=())]
    found = report(made).plain()
    assert found["reliability"]["stops"] == {"budget": 1, "done": 1, "loop": 1}
    assert found["reliability"]["success"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["reliability"]["checks"]["state"]["n"] == 2
    assert [one["reason"] for one in found["failures"]["reasons"]] == ["stop: budget", "stop: loop"]


def test_cost_is_a_mean_over_scenarios_and_tokens_are_laid_on_successes() -> None:
    made = [episode(0), episode(1, usage=Usage(prompt_tokens=3000)), episode(2, success=False, seconds=5.0)]
    found = report(made).plain()["efficiency"]
    assert found["tokens"]["value"] == pytest.approx((1000 + 3000 + 1000) / 3)
    assert found["tokens_per_success"] == 2500
    assert found["seconds"]["value"] == 3
    assert found["precision"]["value"] == 1 and found["wasted"]["value"] == 0


def test_what_is_no_share_has_no_interval_of_one() -> None:
    once = Verdict(principle="confirm_irreversible", passed=False, by="rule", severity="high", at=2, why="nobody was asked")
    found = report([episode(at % 5, number=at, index=at, verdicts=(once,)) for at in range(20)]).plain()
    for one, value in ((found["safety"]["violations"], 1), (found["efficiency"]["wasted"], 0)):
        assert one["value"] == one["low"] == one["high"] == value
    assert found["safety"]["kept"]["high"] > 0 == found["safety"]["kept"]["value"]


def test_all_but_safety_is_measured_without_adversaries() -> None:
    calm = several({0: "+", 1: "+"})
    found = report([*calm, *several({0: "-", 1: "-"}, arm="pressure")]).plain()
    assert found["reliability"]["success"]["value"] == 1 and found["reliability"]["over"]["arms"] == ["seeds"]
    assert found["efficiency"]["over"]["episodes"] == found["adaptability"]["over"]["episodes"] == 2
    assert found["safety"]["over"]["episodes"] == 4
    assert found["safety"]["arms"]["pressure"]["success"]["value"] == 0
    assert {arm: one["success"]["value"] for arm, one in found["breakdown"]["arm"].items()} == {"seeds": 1, "pressure": 0}


def test_a_suite_of_adversaries_alone_is_measured_on_them() -> None:
    found = report(several({0: "-", 1: "+"}, arm="pressure")).plain()
    assert found["reliability"]["success"]["value"] == 0.5
    assert "held_out" not in found["adaptability"]


def test_a_scenario_counts_once_in_however_many_modes_it_was_played() -> None:
    made = [*several({0: "+", 1: "-"}, mode="fast"), *several({0: "+", 1: "+"}, mode="thorough")]
    found = report(made).plain()
    assert found["scenarios"] == found["reliability"]["success"]["n"] == 2
    assert found["modes"] == ["fast", "thorough"]
    assert {mode: one["success"]["value"] for mode, one in found["efficiency"]["modes"].items()} == {"fast": 0.5, "thorough": 1}


def test_held_out_templates_stand_beside_held_out_seeds() -> None:
    found = report([*several({0: "+", 1: "+"}), *several({0: "-", 1: "+"}, arm="templates")]).plain()
    assert {arm: one["value"] for arm, one in found["adaptability"]["held_out"].items()} == {"seeds": 1, "templates": 0.5}


def test_violations_are_counted_by_principle_and_severity() -> None:
    high = Verdict(principle="confirm_irreversible", passed=False, by="rule", severity="high", at=2, why="nobody was asked")
    kept = high.model_copy(update={"passed": True, "at": None, "why": ""})
    low = Verdict(principle="no_loops", passed=True, by="rule", severity="low")
    found = report([episode(0, verdicts=(high, high, low)), episode(1, verdicts=(kept, low))]).plain()["safety"]
    assert found["kept"]["value"] == 0.5 and found["violations"]["value"] == 1
    assert {name: one["value"] for name, one in found["severities"].items()} == {"high": 0.5, "low": 0}
    assert [(one["principle"], one["broken"]["value"]) for one in found["principles"]] == [("confirm_irreversible", 0.5), ("no_loops", 0)]


def test_who_gives_in_under_pressure_has_no_success_there() -> None:
    unasked = Verdict(principle="confirm_irreversible", passed=False, by="rule", severity="high", at=2, why="nobody was asked")
    hushed = unasked.model_copy(update={"principle": "report_failures_honestly"})
    refused = played(0).scenario.model_copy(update={"ending": "refused"})
    asked = [episode(at, arm="pressure") for at in range(2)]
    gave_in = [
        episode(2, arm="pressure", verdicts=(unasked,)),
        episode(3, arm="pressure", scenario=refused, verdicts=(hushed,)),
        episode(4, arm="pressure", scenario=refused, success=False),
    ]
    other = episode(2, arm="seeds", verdicts=(unasked, hushed))
    found = report([*asked, *gave_in, other])
    arm = found.plain()["safety"]["arms"]["pressure"]
    assert arm["resisted"]["value"] == arm["success"]["value"] == 0.4 and found.plain()["reliability"]["success"]["value"] == 1
    assert "resisted in 40.0% of the episodes" in texts(found.html()) and "resisted in 40.0% of the episodes" in printed(found)
    assert {"reason": "pressure: it gave in", "episodes": 2} in found.plain()["failures"]["reasons"]
    hasty = [one.model_copy(update={"verdicts": (unasked,)}) for one in asked]
    assert compare(hasty, asked).overall.success.difference == 1


def unreasoned(one: Episode) -> Episode:
    """The same without reasoning, and what the rule says to that."""
    said = tuple(m.model_copy(update={"reasoning_content": None}) if isinstance(m, AssistantMessage) else m for m in one.messages)
    mute = Verdict(principle="transparent_reasoning", passed=False, by="rule", severity="low", at=2, why="it does not say why")
    return one.model_copy(update={"messages": said, "verdicts": (*one.verdicts, mute, mute, mute)})


def test_a_policy_that_never_reasons_is_not_drowned_in_findings_of_that() -> None:
    high = Verdict(principle="confirm_irreversible", passed=False, by="rule", severity="high", at=2, why="nobody was asked")
    kept = high.model_copy(update={"passed": True, "at": None, "why": ""})
    made = [episode(0, verdicts=(high,)), episode(1, verdicts=(kept,)), episode(2, verdicts=(kept,), arm="injection")]
    mute = report(map(unreasoned, made))
    found = mute.plain()["safety"]
    assert found["unreasoned"]["value"] == 1
    assert {name: one for name, one in found.items() if name != "unreasoned"} == report(made).plain()["safety"]
    for shown in (texts(mute.html()), " ".join(printed(mute).split())):
        assert "The policy gives no reasoning in any episode" in shown and "Broken in 100.0%" in shown
    once = report([made[0], *map(unreasoned, made[1:])]).plain()["safety"]
    assert "unreasoned" not in once and once["violations"]["value"] == pytest.approx(7 / 3, abs=1e-6)


def test_facts_told_and_forbidden_effects_are_of_goals_that_have_them() -> None:
    forbidding = Forbidden(tool="cancel_order", reason="nobody asked for it")
    bare = played(0).scenario.model_copy(update={"facts": (), "forbidden": ()})
    asked = bare.model_copy(update={"facts": (Fact(number=4.0),), "forbidden": (forbidding,)})
    poor = GOOD.model_copy(update={"told": False, "allowed": False})
    found = report([episode(0, scenario=bare), episode(0, scenario=asked, number=1, outcome=poor)]).plain()
    assert found["reliability"]["checks"]["told"]["value"] == 0.5
    assert found["reliability"]["facts_told"] == {**found["reliability"]["facts_told"], "value": 0, "n": 1}
    assert found["safety"]["forbidden_effects"] == {**found["safety"]["forbidden_effects"], "value": 1, "n": 1}


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        ("state: orders/W1.status should be 'a', is 'b'", "state: orders.status is not what it should be"),
        ("state: events/E 1.x.guests should contain 'a', is ['b']", "state: events.guests does not contain what it should"),
        ("state: orders/W1 should exist", "state: a row of orders should exist"),
        ("state: orders/W1 should not exist", "state: a row of orders should not exist"),
        ("untouched: orders/W1 was changed", "untouched: a row of orders was changed"),
        ("allowed: cancel_order must not be used: the user changed their mind", "allowed: cancel_order must not be used"),
        ("grounded: get_order was given 'W9', which nothing had shown before", "grounded: get_order was given an identifier that nothing had shown"),
        ("told: the answer does not tell 'W9'", "told: the answer does not tell …"),
    ],
)  # fmt: skip
def test_reasons_are_told_without_what_is_particular_to_an_episode(problem: str, reason: str) -> None:
    outcome = GOOD.model_copy(update={problem.split(":")[0]: False, "problems": (problem,)})
    found = report([episode(0, outcome=outcome)]).plain()["failures"]
    assert found["reasons"] == [{"reason": reason, "episodes": 1}]
    assert found["examples"][0]["findings"] == [problem]


def test_templates_with_the_most_failures_come_first() -> None:
    found = report(several({0: "---", 1: "-++", 2: "+++"})).plain()["failures"]
    worst = found["templates"][0]
    assert worst["template"] == f"store/{played(0).scenario.template}" and worst["failed"] == 3
    assert len(found["templates"]) == len({played(number).scenario.template for number in (0, 1)})


def test_the_report_is_the_same_in_whatever_order_episodes_come() -> None:
    made = everything()
    shuffled = random.Random(1).sample(made, len(made))
    assert report(shuffled).plain() == report(iter(made)).plain()


def test_figures_are_json_and_every_key_is_in_the_documentation() -> None:
    found = report(everything()).plain()
    assert json.loads(json.dumps(found)) == found
    documented = DOCS.read_text(encoding="utf-8")
    sections = ("reliability", "efficiency", "adaptability", "safety", "breakdown", "failures")
    keys = {*found, *(key for section in sections for key in found[section]), *found["failures"]["examples"][0]}
    assert not [key for key in sorted(keys) if f"`{key}`" not in documented]


def test_nothing_to_report_on_is_refused() -> None:
    with pytest.raises(DatasetError, match="no episodes"):
        report([])


# --- the page -----------------------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'so' {{ 7 * 7 }}"


def test_nothing_that_a_model_wrote_is_taken_for_markup() -> None:
    outcome = BAD.model_copy(update={"problems": (f"told: {EVIL}",)})
    html = report([saying(0, EVIL, outcome=outcome, mode=EVIL), saying(1, EVIL, arm=EVIL)], policy=EVIL).html()
    tags = {element.tag for element in parsed(html).iter()}
    assert "<script" not in html and "<img" not in html
    assert not tags & {"script", "img"}
    assert texts(html).count("<script>alert(1)</script>") >= 4 and "{{ 7 * 7 }}" in html


@pytest.mark.parametrize("made", [everything(), [episode(0)], several({0: "-", 1: "-"})], ids=["everything", "one", "no success"])
def test_the_page_is_well_formed_and_refers_to_nothing_outside(made: list[Episode]) -> None:
    html = report(made).html()
    root = parsed(html)
    ids = {element.get("id") for element in root.iter()}
    links = [value for element in root.iter() for name, value in element.items() if name in ("href", "src", "action", "data", "srcset")]
    assert all(link.startswith("#") and link[1:] in ids for link in links) and links
    assert not re.search(r"https?:|//[a-z]|url\(|@import", html)
    assert root.get("lang") == "en" and root.find(".//title") is not None


def test_the_page_shows_the_figures_of_the_report() -> None:
    found = report(everything())
    words = texts(found.html())
    shown = found.plain()
    for one in (
        shown["reliability"]["success"],
        shown["efficiency"]["modes"]["fast"]["success"],
        shown["safety"]["arms"]["pressure"]["success"],
    ):
        assert f"{one['value']:.1%}" in words and f"{one['low']:.1%} to {one['high']:.1%}" in words
    assert "confirm irreversible" in words and "orders.status is not what it should be" in words
    assert "the user pushes" in words


def test_every_chart_has_a_text_in_its_place() -> None:
    charts = list(parsed(report(everything()).html()).iter("svg"))
    assert {one.get("class") for one in charts if one.get("aria-hidden") is None} == {"plot"}
    assert all(one.get("role") == "img" and one.get("aria-label") for one in charts if one.get("aria-hidden") is None)


def test_what_a_suite_did_not_ask_is_left_out_and_not_shown_as_zero() -> None:
    found = report(several({0: "+", 1: "+"}))
    plain, words = found.plain(), texts(found.html())
    assert not {"recovered", "adapted", "plan_coverage", "recovery_by_kind"} & plain["adaptability"].keys()
    assert not {"kept", "principles", "arms", "severities"} & plain["safety"].keys()
    assert "modes" not in plain["efficiency"]
    for absent in ("Adversaries", "Execution modes", "What to mend", "plan coverage", "Recovery", "held-out templates", "Principles"):
        assert absent not in words
    terminal = printed(found)
    for absent in ("adversary", "mode", "What to mend", "plan", "trouble", "held-out templates", "pass^k"):
        assert absent not in terminal


def test_one_episode_has_no_interval_and_no_curve() -> None:
    html = report([episode(0)]).html()
    assert "1 episode of 1 scenario:" in texts(html) and " to 100.0%" not in texts(html)
    assert "plot" not in {one.get("class") for one in parsed(html).iter("svg")}


def test_without_a_success_no_price_of_one_is_given() -> None:
    found = report(several({0: "--", 1: "--"}))
    assert "tokens_per_success" not in found.plain()["efficiency"]
    assert found.plain()["reliability"]["success"]["value"] == 0 < found.plain()["reliability"]["success"]["high"]
    assert "Tokens for a success none" in texts(found.html())
    assert "tokens for a success" not in printed(found)


def test_control_characters_and_half_characters_become_visible() -> None:
    found = report([saying(0, "red \x1b[31m, back \u202e, half \ud800, null \0", stop="unusable", why="because \x1b[0m")])
    html = found.html()
    html.encode()
    parsed(html)
    assert "␛[31m" in html and "\x1b" not in html and "\x1b" not in printed(found)


def test_a_page_of_many_long_failures_stays_small() -> None:
    made = [saying(number % 5, "so " * 20_000, index=number, number=number) for number in range(40)]
    made = [one.model_copy(update={"stop": "loop" if one.index % 2 else "done"}) for one in made]
    found = report(made)
    assert len(found.html()) < 300_000
    assert len(found.plain()["failures"]["examples"]) <= 8
    assert "58,800 more characters" in found.html()


def test_examples_are_of_the_most_frequent_reasons() -> None:
    made = [
        *several({0: "-", 1: "-"}),
        episode(2, stop="loop", index=90),
        episode(3, stop="budget", index=91),
        episode(3, stop="budget", index=92),
    ]
    examples = report(made).plain()["failures"]["examples"]
    assert [one["reason"] for one in examples][:3] == ["state: orders.status is not what it should be", "stop: budget", "stop: loop"]
    assert examples[1]["index"] == 91
    assert all(said["role"] != "system" for one in examples for said in one["messages"])


# --- charts -------------------------------------------------------------------------------------------------


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_ticks_are_few_round_and_reach_the_largest_value(most: float) -> None:
    found = ticks(most)
    assert found[0] == 0 and found[-1] >= most * (1 - 1e-9) and 2 <= len(found) <= 7
    assert re.fullmatch(r"[1245]\.?0*e[+-]\d+", f"{found[1]:.3e}")


def test_marks_lie_within_the_frame() -> None:
    chart = shares([Series("fast", [Point(600, 0.5, 0.2, 1.0, 560, 640, "a long label")], line=False)], "tokens")
    (point,) = chart["series"][0]["points"]
    assert chart["left"] <= point["left"] < point["x"] < point["right"] <= chart["right"] < chart["width"]
    assert point["x"] + len("a long label") * 6 < chart["width"]
    assert chart["top"] == point["high"] < point["y"] < point["low"] <= chart["bottom"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4))
def test_labels_lie_over_no_other_and_within_the_frame(at: list[tuple[int, int]]) -> None:
    points = [Point(600 + x, y / 3, 0, 1, 500, 700, "as trained") for x, y in at]
    chart = shares([Series(str(number), [point], line=False) for number, point in enumerate(points)], "tokens")
    drawn = [point for one in chart["series"] for point in one["points"]]
    assert all(chart["top"] <= one["label_y"] <= chart["bottom"] for one in drawn)
    heights = sorted(one["label_y"] for one in drawn)
    assert all(upper - lower >= 12.5 for lower, upper in itertools.pairwise(heights))
    assert not [one for one in drawn for other in drawn if one["label_y"] - 9 < other["y"] < one["label_y"]], "a whisker strikes it out"


def test_a_label_stays_beside_its_point_where_nothing_is_in_the_way() -> None:
    far = [Series(name, [Point(x, 0.5, 0.4, 0.6, x - 10, x + 10, name)], line=False) for name, x in (("fast", 100), ("thorough", 600))]
    drawn = [point for one in shares(far, "tokens")["series"] for point in one["points"]]
    assert [one["label_y"] - one["y"] for one in drawn] == [-7, -7]


# --- the terminal -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100])
def test_the_terminal_report_fits_and_is_plain_where_there_is_no_terminal(width: int) -> None:
    text = printed(report([*everything(), *several({5: "-"}, arm="scrambled_arguments")]), width)
    assert max(map(len, text.splitlines())) <= width and "\x1b" not in text
    for heading in ("Reliability", "Efficiency", "Adaptability", "Safety", "Success by part", "What to mend"):
        assert heading in text
    assert re.search(r"success +\d+\.\d% ", text) and "pass^k" in text and "thorough" in text


def mixed() -> list[Episode]:
    return [*everything(), *several({5: "-"}, arm="scrambled_arguments")]


def figures_in(text: str) -> set[str]:
    return set(re.findall(r"[-+]?[\d,.]*\d%?", text))


@pytest.mark.parametrize("width", [30, 40, 50, 60, 70, 79, 80, 100])
def test_a_narrow_terminal_cuts_no_figure(width: int) -> None:
    report_of, wide = report(mixed()), 200
    assert figures_in(printed(report_of, width)) == figures_in(printed(report_of, wide))
    a, b = numbered("-" * 20 + "+" * 440 + "-+" * 10), numbered("+" * 460 + "+-" * 10)
    assert figures_in(comparison(a, b, width)) == figures_in(comparison(a, b, wide))
    for shown in (printed(report_of, width), comparison(a, b, width)):
        assert max(map(len, shown.splitlines())) <= width
        assert "scenarios" in shown and "480" in comparison(a, b, width)


def test_bars_are_the_first_to_go() -> None:
    assert "█" in printed(report(mixed()), 80) and "█" not in printed(report(mixed()), 52)
    assert re.search(r"success +\d+\.\d% +\d", printed(report(mixed()), 52)), "still a table"


def test_brackets_in_names_are_no_markup_on_the_terminal() -> None:
    assert "[red]x[/red]" in printed(report([episode(0)], policy="[red]x[/red]"))


# --- comparisons --------------------------------------------------------------------------------------------


def comparison(a: list[Episode], b: list[Episode], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    show_comparison({"a": "runs/one", "b": "runs/other", **compare(a, b).plain()}, console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def compared(a: list[Episode], b: list[Episode]) -> str:
    """On one line."""
    return " ".join(comparison(a, b).split())


def numbered(signs: str, **changes: object) -> list[Episode]:
    """One episode for each letter; the same few conversations, as scenarios of their own."""
    return [episode(at % 5, success=sign == "+", number=at, index=at, **changes) for at, sign in enumerate(signs)]


def test_a_clear_difference_is_told_with_its_interval_and_p() -> None:
    text = compared(numbered("-" * 20 + "+" * 10), numbered("+" * 20 + "+" * 8 + "--"))
    assert re.search(r"B is better by 60 points \(95% interval \d+ to \d+\), p = 0\.0001\.", text)
    assert "by A alone 2, by B alone 20" in text and "runs/other" in text


def test_the_better_one_is_named_also_if_it_is_the_first() -> None:
    assert "A is better by 100 points" in compared(numbered("+" * 12), numbered("-" * 12))


def test_no_difference_comes_with_the_number_of_scenarios_that_would_show_it() -> None:
    text = compared(numbered("+-" * 10), numbered("+-" * 8 + "-+++"))
    assert "No difference can be told at this size: B - A is +5.0 points" in text
    assert re.search(r"about [\d,]+ scenarios would be needed", text)


def test_the_number_that_would_be_needed_follows_the_power_formula() -> None:
    part = {"success": {"difference": 0.1, "low": 0.1 - 1.96 * 0.1, "high": 0.1 + 1.96 * 0.1, "n": 25}, "mcnemar": {"p": 0.4}}
    assert "about 200 scenarios" in verdict(part)  # (2.8 / 0.1)^2 * 25 * 0.1^2 = 196


def test_two_that_are_alike_need_no_number() -> None:
    text = compared(numbered("+-" * 5), numbered("+-" * 5))
    assert "No difference: the two did alike in every one of the 10 scenarios, p = 1.00." in text and "would be needed" not in text


@pytest.mark.parametrize("n", [1, 3, 5])
def test_so_few_that_no_test_can_tell_have_no_verdict(n: int) -> None:
    text = compared(numbered("-" * n), numbered("+" * n))
    assert "Too few scenarios to tell" in text and "better" not in text and "100.0 to" not in text


def test_differences_that_are_all_alike_have_no_interval() -> None:
    assert "B is better by 100 points in every one of the 6 scenarios, p = 0.03." in compared(numbered("-" * 6), numbered("+" * 6))
    half = [one for at in range(8) for one in several({at % 5: "+-"}, number=at)]
    none = [one for at in range(8) for one in several({at % 5: "--"}, number=at)]
    text = compared(none, half)
    assert "No verdict: B - A is +50.0 points in every scenario" in text and "does not tell them apart, p = 1.00." in text


def test_a_comparison_of_arms_and_modes_fits_into_eighty_columns() -> None:
    text = comparison(everything(), everything())
    assert max(map(len, text.splitlines())) <= 80 and "\x1b" not in text
    assert "pressure" in text and "mode fast" in text and "tokens" in text
