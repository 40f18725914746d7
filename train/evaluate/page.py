"""The HTML page of a report: it stands alone, without scripts, and fits wide and narrow screens, light and dark."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from tracemill.constitution.constitution import MOST_FINDINGS
from tracemill.stats import clean
from tracemill.trace import Json
from tracemill.train.evaluate.charts import Point, Series, shares

TEMPLATE = Path(__file__).with_name("report.html.j2")
FEW = 10
"""Scenarios below which a share says little, whatever its interval."""
UNREASONED = "The policy gives no reasoning in any episode: transparent reasoning is left out of all other figures on safety."
MOST_REASONS, MOST_TEMPLATES = 12, 200


def render(figures: Mapping[str, Json]) -> str:
    """Figures as `Report.plain` has them, as one HTML document."""
    import jinja2

    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,  # what a model or a tool wrote is text, never markup
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    page.filters |= {"share": share, "whole": "{:.0%}".format, "number": number, "short": short, "count": "{:,}".format, "words": words}
    helpers = {"named": _named, "severities": _severities, "broken": _broken, "kept": _kept, "reasons": _reasons, "templates": _templates}
    values = {
        "r": figures,
        "title": title(figures),
        "facts": list(facts_of(figures["facts"])),
        "few": FEW,
        "unreasoned": UNREASONED,
        "most_findings": MOST_FINDINGS,
        "most_templates": MOST_TEMPLATES,
    }
    return page.get_template(TEMPLATE.name).render(**values, **_charts(figures), **helpers).lstrip()


def _visible(value: object) -> object:
    """Control characters and lone surrogates, which no page can hold, as visible signs. Only of plain text: what a macro gives is done."""
    return clean(value) if type(value) is str else value


Row = tuple[str, Json, str]
"""Of a table: what it says, the estimate, a hint."""


def _named(found: Mapping[str, Json], key: str = "") -> list[Row]:
    return [(words(name) or "as trained", one[key] if key else one, "") for name, one in found.items()]


def _severities(safety: Mapping[str, Json]) -> list[Row]:
    return [(f"of {name} severity", one, "") for name, one in safety["severities"].items()]


def _broken(safety: Mapping[str, Json]) -> list[Row]:
    return [(words(one["principle"]), one["broken"], one["severity"]) for one in safety["principles"] if one["broken"]["value"]]


def _kept(safety: Mapping[str, Json]) -> list[str]:
    return [words(one["principle"]) for one in safety["principles"] if not one["broken"]["value"]]


def _reasons(figures: Mapping[str, Json]) -> list[tuple[str, int]]:
    return [(one["reason"], one["episodes"]) for one in figures["failures"]["reasons"][:MOST_REASONS]]


def _templates(figures: Mapping[str, Json]) -> list[Row]:
    found = figures["breakdown"]["template"].items()
    worst = sorted(found, key=lambda item: (item[1]["success"]["value"], item[0]))
    return [(name, one["success"], "") for name, one in worst[:MOST_TEMPLATES]]


def _charts(figures: Mapping[str, Json]) -> dict[str, Json]:
    reliability, modes = figures["reliability"], figures["efficiency"].get("modes")
    ks = [int(k) for k in reliability["pass_at"]]
    curves = [
        Series(name, [_on_curve(k, reliability[key][str(k)]) for k in ks]) for name, key in (("pass@k", "pass_at"), ("pass^k", "pass_hat"))
    ]
    return {
        "curves": shares(curves, "k, rollouts of one scenario", x_ticks=ks) if len(ks) > 1 else None,
        "trade_offs": [
            shares([Series(mode, [_on_trade_off(mode, one, of)], line=False) for mode, one in modes.items()], f"{of} an episode")
            for of in ("tokens", "seconds")
            if all(of in one for one in modes.values())
        ]
        if modes
        else [],
        "modes_k": max((one.get("k", 0) for one in modes.values()), default=0) if modes else 0,
    }


def _on_curve(k: int, found: Mapping[str, float]) -> Point:
    return Point(k, found["value"], found["low"], found["high"])


def _on_trade_off(mode: str, one: Mapping[str, Json], of: str) -> Point:
    success, cost = one["success"], one[of]
    return Point(cost["value"], success["value"], success["low"], success["high"], cost["low"], cost["high"], mode or "as trained")


# --- words and numbers --------------------------------------------------------------------------------------


def title(figures: Mapping[str, Json]) -> str:
    return str(figures["facts"].get("policy") or "a policy")


def share(value: float) -> str:
    return f"{value:.1%}"


def number(value: float) -> str:
    """Three figures or so."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def short(value: float) -> str:
    """For an axis."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def words(name: str) -> str:
    return name.replace("_", " ")


def difference(value: float) -> str:
    """In points."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"  # + 0.0: there is no -0.0


def facts_of(facts: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """What was evaluated, as text."""
    for name, value in facts.items():
        if value not in (None, "", [], {}):
            yield words(name), _text(value)


def _text(value: Json) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
