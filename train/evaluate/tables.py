"""A report and a comparison on the terminal, made for 80 columns or more and whole in fewer."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tracemill.stats import clean, count_of
from tracemill.trace import Json
from tracemill.train.evaluate.page import FEW, UNREASONED, difference, facts_of, number, share, title, words

if TYPE_CHECKING:
    from tracemill.train.evaluate.report import Report

WIDE = 14  # of a bar
LEAST = 12  # of a column of words
GAP = 2
BAR = "|"  # head of a column of bars
HELD = "\N{NO-BREAK SPACE}"
TOP = 5
SURE = 0.05
ENOUGH = 6  # scenarios: of five that all fall to one side, McNemar's p is 0.06
Row = tuple[str, Json]
"""What it says, and the estimate; nothing where it did not come up."""


def show(report: Report, console: Console) -> None:
    figures = report.plain()
    for part in _report(figures):
        console.print(part, highlight=False)


def show_comparison(comparison: Mapping[str, Json], console: Console) -> None:
    """Of `Comparison.plain()`; `a` and `b`, where they are there, name the two."""
    for part in _comparison(comparison):
        console.print(part, highlight=False)


# --- the report ---------------------------------------------------------------------------------------------


def _report(figures: Mapping[str, Json]) -> Iterator[RenderableType]:
    facts = " · ".join(f"{name} {value}" for name, value in facts_of(figures["facts"]) if name != "policy")
    yield Text.assemble(("Evaluation of ", "bold"), (clean(title(figures)), "bold"), f"  {_over(figures)}")
    if facts:
        yield Text(clean(facts), "dim")
    yield from _reliability(figures["reliability"])
    yield from _efficiency(figures["efficiency"])
    yield from _adaptability(figures["adaptability"])
    yield from _safety(figures["safety"])
    yield from _parts(figures)
    yield from _failures(figures["failures"])


def _reliability(found: Mapping[str, Json]) -> Iterator[RenderableType]:
    yield _heading("Reliability", _where(found))
    checks = [(f"check {name}", one) for name, one in found.get("checks", {}).items()]
    yield _shares([("success", found["success"]), *checks, ("facts told, where there are any", found.get("facts_told"))])
    if len(found["pass_at"]) > 1:
        yield _passes(found)
    yield _note("ended: " + ", ".join(f"{stop} {number:,}" for stop, number in found["stops"].items()))


def _passes(found: Mapping[str, Json]) -> RenderableType:
    ks = _some(list(found["pass_at"]))
    grid = _Grid("", *(f">k = {k}" for k in ks))
    for name, key in (("pass@k, one of k", "pass_at"), ("pass^k, all of k", "pass_hat")):
        grid.row(name, *(share(found[key][k]["value"]) for k in ks))
    return _indented(grid)


def _some(ks: Sequence[str]) -> list[str]:
    """Powers of two and the last: as many as fit."""
    return [k for k in ks if int(k) & (int(k) - 1) == 0 or k == ks[-1]]


def _efficiency(found: Mapping[str, Json]) -> Iterator[RenderableType]:
    yield _heading("Efficiency", "an episode; " + _where(found))
    grid = _Grid("", ">mean", ">95% interval", ">scenarios")
    for name in ("tokens", "tokens_read", "tokens_written", "turns", "calls", "wasted", "seconds"):
        if one := found.get(name):
            grid.row({"wasted": "wasted calls"}.get(name, words(name)), number(one["value"]), _interval(one, number), f"{one['n']:,}")
    yield _indented(grid)
    if "tokens_per_success" in found:
        yield _note(f"tokens for a success: {number(found['tokens_per_success'])}")
    yield _shares([("call precision", found.get("precision")), ("call recall", found.get("recall"))])
    if "modes" in found:
        yield Text()
        yield _modes(found["modes"])


def _modes(modes: Mapping[str, Json]) -> RenderableType:
    most = max(one.get("k", 0) for one in modes.values())
    grid = _Grid("mode", ">success", ">95% interval", *([f">pass^{most}"] if most else []), ">tokens", ">turns", ">calls", ">seconds")
    for mode, one in modes.items():
        all_of_k = [share(one["pass_hat"]["value"]) if "pass_hat" in one else "-"] if most else []
        costs = (number(one[name]["value"]) if name in one else "-" for name in ("tokens", "turns", "calls", "seconds"))
        grid.row(mode or "as trained", share(one["success"]["value"]), _interval(one["success"], share), *all_of_k, *costs)
    return _indented(grid)


def _adaptability(found: Mapping[str, Json]) -> Iterator[RenderableType]:
    rows: list[Row] = [(f"success on held-out {arm}", one) for arm, one in found.get("held_out", {}).items()]
    rows.append(("goal reached after any trouble", found.get("recovered")))
    rows += [(f"  {words(name)}", one) for group in ("recovery_by_group", "recovery_by_kind") for name, one in found.get(group, {}).items()]
    rows.append(("adapted to what the user said midway", found.get("adapted")))
    rows += [(words(name), found.get(name)) for name in ("plan_coverage", "plan_order", "plan_revised")]
    if any(one for _, one in rows):
        yield _heading("Adaptability", _where(found))
        yield _shares(rows)


def _safety(found: Mapping[str, Json]) -> Iterator[RenderableType]:
    yield _heading("Safety", _where(found))
    harms = {
        "forbidden_effects": "forbidden effect, where one is named", "collateral_changes": "collateral change",
        "invented": "invented identifier", "blind_retries": "blind retry",
    }  # fmt: skip
    rows: list[Row] = [("constitution kept", found.get("kept"))]
    rows += [(f"broken, {severity} severity", one) for severity, one in found.get("severities", {}).items()]
    rows += [(f"  {one['principle']}", one["broken"]) for one in found.get("principles", ()) if one["broken"]["value"]]
    yield _shares([*rows, *((text, found.get(name)) for name, text in harms.items())])
    if apart := found.get("unreasoned"):
        yield _note(f"{UNREASONED} Broken in {share(apart['value'])} of the episodes ({_interval(apart, share)}).")
    if "arms" in found:
        yield Text()
        yield _adversaries(found["arms"])
        yield from (
            _note(f"{words(arm)}: resisted in {share(one['resisted']['value'])} of the episodes ({_interval(one['resisted'], share)})")
            for arm, one in found["arms"].items()
            if "resisted" in one
        )


def _adversaries(arms: Mapping[str, Json]) -> RenderableType:
    grid = _Grid("adversary", ">success", ">95% interval", ">forbidden", ">collateral", ">violations")
    for arm, one in arms.items():
        harms = (share(one[name]["value"]) if name in one else "-" for name in ("forbidden_effects", "collateral_changes"))
        violations = number(one["violations"]["value"]) if "violations" in one else "-"
        grid.row(words(arm), share(one["success"]["value"]), _interval(one["success"], share), *harms, violations)
    return _indented(grid)


def _parts(figures: Mapping[str, Json]) -> Iterator[RenderableType]:
    breakdown = figures["breakdown"]
    rows = [
        (f"{name} {words(part)}", one["success"])
        for name in ("arm", "environment", "kind", "difficulty")
        for part, one in breakdown[name].items()
    ]
    yield _heading("Success by part", f"{_over(figures)}; by template in report.json")
    yield _shares(rows)


def _failures(failures: Mapping[str, Json]) -> Iterator[RenderableType]:
    if not failures["episodes"]:
        return
    yield _heading("What to mend", f"{count_of(failures['episodes'], 'episode')} failed")
    grid = _Grid(">episodes", "for this reason")
    for one in failures["reasons"][:TOP]:
        grid.row(f"{one['episodes']:,}", one["reason"])
    yield _indented(grid)
    grid = _Grid(">failed", ">of", "template, and most often why")
    for one in failures["templates"][:TOP]:
        grid.row(f"{one['failed']:,}", f"{one['episodes']:,}", f"{one['template']}: {one['reason']}")
    yield _indented(grid)


def _over(found: Mapping[str, Json]) -> str:
    return f"{count_of(found['episodes'], 'episode')} of {count_of(found['scenarios'], 'scenario')}"


def _where(found: Mapping[str, Json]) -> str:
    over = found["over"]
    return f"{', '.join(map(words, over['arms'][:2]))}{' and other arms' if len(over['arms']) > 2 else ''}: {_over(over)}"


# --- the comparison -----------------------------------------------------------------------------------------


def _comparison(found: Mapping[str, Json]) -> Iterator[RenderableType]:
    overall = found["overall"]
    for side in ("a", "b"):
        if side in found:
            yield Text.assemble((side.upper(), "bold"), f"  {clean(str(found[side]))}")
    yield _heading("B against A", f"the same {count_of(overall['success']['n'], 'scenario')}")
    yield _indented(Text(verdict(overall)))
    yield Text()
    yield _compared(found)
    test = overall["mcnemar"]
    yield _note(
        f"Solved by both {test['both']:,}, by A alone {test['only_a']:,}, by B alone {test['only_b']:,}, by neither {test['neither']:,}; "
        f"McNemar's test p {_p(test['p'])}."
    )
    if overall["measures"]:
        yield Text()
        yield _measured(overall["measures"])
    if found["only_a"] or found["only_b"]:
        yield _note(f"Left out, as the other side has not played them: {found['only_a']:,} scenarios of A, {found['only_b']:,} of B.")
    yield from map(_note, found["notes"])


def _compared(found: Mapping[str, Json]) -> RenderableType:
    grid = _Grid("success", ">A", ">B", ">B - A", ">95% interval", ">only A", ">only B", ">p", ">n")
    modes = [(f"mode {mode}", part) for mode, part in found["modes"].items()]
    arms = [(words(arm), part) for arm, part in found["arms"].items()] if len(found["arms"]) > 1 else []
    for name, part in [("all", found["overall"]), *arms, *modes]:
        one, test = part["success"], part["mcnemar"]
        cells = (share(one["a"]), share(one["b"]), difference(one["difference"]), _apart(one, difference))
        grid.row(
            name,
            *cells,
            f"{test['only_a']:,}",
            f"{test['only_b']:,}",
            _p(test["p"]).removeprefix("= "),
            f"{one['n']:,}",
            bold=name == "all",
        )
    return _indented(grid)


def _measured(measures: Mapping[str, Json]) -> RenderableType:
    grid = _Grid("an episode", ">A", ">B", ">B - A", ">95% interval", ">scenarios")
    for name, one in measures.items():
        form = share if name == "recovered" else number
        signed = functools.partial(_signed, form)
        grid.row(
            {"violated": "violations"}.get(name, words(name)),
            form(one["a"]),
            form(one["b"]),
            signed(one["difference"]),
            _apart(one, signed),
            f"{one['n']:,}",
        )
    return _indented(grid)


def verdict(part: Mapping[str, Json]) -> str:
    """What a comparison says, in a sentence or two."""
    one, p = part["success"], part["mcnemar"]["p"]
    if one["n"] < ENOUGH:
        return f"Too few scenarios to tell: below {ENOUGH}, chance may give all of them to one side. B - A is {difference(one['difference'])} points."  # fmt: skip
    if _alike(one) and not one["difference"]:
        return f"No difference: the two did alike in every one of the {one['n']:,} scenarios, p {_p(p)}."
    better = f"{'B' if one['difference'] > 0 else 'A'} is better by {_points(abs(one['difference']))}"
    if _alike(one):
        if p >= SURE:
            return f"No verdict: B - A is {difference(one['difference'])} points in every scenario, which gives no interval; McNemar's test, which counts whole scenarios, does not tell them apart, p {_p(p)}."  # fmt: skip
        return f"{better} in every one of the {one['n']:,} scenarios, p {_p(p)}."
    if one["low"] > 0 or one["high"] < 0:
        sign = 1 if one["low"] > 0 else -1
        low, high = sorted((sign * one["low"], sign * one["high"]))
        said = f"{better} (95% interval {100 * low:.0f} to {100 * high:.0f}), p {_p(p)}."
        return said if p < SURE else f"{said} McNemar's test, which counts whole scenarios, does not tell them apart."
    return f"No difference can be told at this size: B - A is {difference(one['difference'])} points (95% interval {difference(one['low'])} to {difference(one['high'])}), p {_p(p)}.{_needed(one)}"  # fmt: skip


def _apart(one: Mapping[str, float], form: Callable[[float], str]) -> str:
    return "-" if _alike(one) else _interval(one, form)


def _alike(one: Mapping[str, float]) -> bool:
    """Whether all scenarios have the same value: the bootstrap can only draw that, and its interval is a point."""
    return one["high"] - one["low"] < 1e-9


def _needed(one: Mapping[str, float]) -> str:
    """How many scenarios a difference like this one would want: (1.96 + 0.84)^2 variances over its square, for a chance of
    80% to see it at the 5% level (J. Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988)."""
    variance = one["n"] * ((one["high"] - one["low"]) / (2 * 1.96)) ** 2
    if not one["difference"] or not variance:
        return ""
    wanted = ceil((1.96 + 0.84) ** 2 * variance / one["difference"] ** 2)
    return f" If the true difference is as large, about {_round(wanted):,} scenarios would be needed to tell."


def _round(value: int) -> int:
    """To two figures: the rest would be false precision."""
    return round(value, 2 - len(str(value)))


def _points(value: float) -> str:
    points = f"{100 * value:.0f}" if value >= 0.1 else f"{100 * value:.1f}"
    return f"{points} point{'' if points == '1' else 's'}"


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"= {p:.4f}" if p < 0.01 else f"= {p:.2f}"


def _signed(form: Callable[[float], str], value: float) -> str:
    return ("+" if value > 0 else "-" if value < 0 else "") + form(abs(value))


# --- tables -------------------------------------------------------------------------------------------------


def _shares(rows: Iterable[Row]) -> RenderableType:
    grid = _Grid("", ">share", BAR, ">95% interval", ">scenarios")
    for name, one in rows:
        if one:
            grid.row(name, share(one["value"]), _bar(one), _interval(one, share), f"{one['n']:,}")
    return _indented(grid)


def _interval(one: Mapping[str, float], form: Callable[[float], str]) -> str:
    return f"{form(one['low'])} to {form(one['high'])}" if one["n"] > 1 else "-"


def _bar(one: Mapping[str, float]) -> Text:
    eighths = round(one["value"] * WIDE * 8)
    return Text("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip(), "blue" if one["n"] >= FEW else "dim")


def _heading(name: str, about: str) -> Text:
    return Text.assemble("\n", (name, "bold cyan"), f"  {about}")


class _Grid:
    """A table without lines; a head that begins with '>' has its column to the right. Where the terminal is too narrow it does
    without its bars, and then it is a list: a figure that is cut would be another figure."""

    def __init__(self, *heads: str) -> None:
        self._heads = heads
        self._rows: list[tuple[list[Text], str]] = []

    def row(self, *cells: str | Text, bold: bool = False) -> None:
        """Strings as they are: rich would take a bracket in them for markup."""
        texts = [Text(clean(cell)) if isinstance(cell, str) else cell for cell in cells]
        self._rows.append((texts, "bold" if bold else ""))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield self._fitting(options.max_width)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._fitting(options.max_width))

    def _fitting(self, width: int) -> RenderableType:
        whole = list(range(len(self._heads)))
        barless = [at for at in whole if self._heads[at] != BAR]
        columns = next((one for one in (whole, barless) if self._least(one) <= width), None)
        return self._list(barless, width) if columns is None else self._table(columns)

    def _least(self, columns: Iterable[int]) -> int:
        """The width that it takes."""
        widths = [self._least_of(at) for at in columns]
        return sum(widths) + GAP * (len(widths) - 1)

    def _least_of(self, at: int) -> int:
        """Words can be folded, figures and bars cannot."""
        widest = max((cell_len(self._head(at)), *(row[at].cell_len for row, _ in self._rows)))
        return widest if self._firm(at) else min(widest, LEAST)

    def _head(self, at: int) -> str:
        return self._heads[at].removeprefix(">").removeprefix(BAR)

    def _firm(self, at: int) -> bool:
        return self._heads[at].startswith((">", BAR))

    def _table(self, columns: Sequence[int]) -> Table:
        shown = any(self._head(at) for at in columns)
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim", show_header=shown)
        for at in columns:
            firm = self._firm(at)
            justify: Literal["left", "right"] = "right" if self._heads[at].startswith(">") else "left"
            table.add_column(Text(self._head(at)), justify=justify, no_wrap=firm, overflow="fold", min_width=self._least_of(at))
        for row, style in self._rows:
            table.add_row(*(row[at] for at in columns), style=style)
        return table

    def _list(self, columns: Sequence[int], width: int) -> Group:
        """Each row's words, and its figures with their heads below."""
        lines: list[Text] = []
        for row, style in self._rows:
            words_of = [row[at].plain for at in columns if not self._firm(at)]
            figures = [_held(self._head(at), row[at].plain, width - GAP) for at in columns if self._firm(at)]
            lines.append(Text(" ".join(words_of), style, overflow="fold"))
            told = textwrap.wrap(", ".join(figures), max(1, width - GAP))
            lines += [Text(" " * GAP + line.replace(HELD, " "), style, overflow="fold") for line in told]
        return Group(*lines)


def _held(head: str, figure: str, width: int) -> str:
    """Not to be broken, or if that does not fit not within the figure."""
    whole = f"{head} {figure}".strip().replace(" ", HELD)
    return whole if len(whole) < width else f"{head} {figure.replace(' ', HELD)}"


def _indented(what: RenderableType) -> Padding:
    return Padding(what, (0, 0, 0, 2), expand=False)


def _note(text: str) -> Padding:
    return _indented(Text(clean(text), "dim"))
