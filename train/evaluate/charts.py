"""Where the marks of a chart go. The report's template draws them, so that a chart takes the colours of its page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracemill.trace import Json

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 42
TICKS = 5
LETTER = 7  # its width in a label, about


@dataclass(frozen=True)
class Point:
    """A value with its interval, and what the interval of x is, where there is one."""

    x: float
    y: float
    low: float
    high: float
    left: float | None = None
    right: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one name; joined where `line` says so."""

    name: str
    points: Sequence[Point]
    line: bool = True


def shares(series: Sequence[Series], x_name: str, *, x_ticks: Sequence[float] = ()) -> dict[str, Json]:
    """A chart of shares (y from 0 to 1) over x, in pixels of a drawing of WIDTH by HEIGHT.

    With `x_ticks` the axis spans these; without, it begins at 0 and has round ticks.
    """
    points = [point for one in series for point in one.points]
    marks = tuple(x_ticks) or ticks(max(point.x if point.right is None else point.right for point in points))
    start = marks[0] if x_ticks else 0.0
    right = WIDTH - RIGHT - LETTER * max(len(point.label) for point in points)
    x, y = _scale(start, marks[-1], LEFT, right), _scale(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": right,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "x_name": x_name,
        "x_ticks": [{"at": x(mark), "value": mark} for mark in marks],
        "y_ticks": [{"at": y(mark / 4), "value": mark / 4} for mark in range(5)],
        "series": [_drawn(one, x, y) for one in series],
    }


def ticks(most: float) -> tuple[float, ...]:
    """About five round numbers from 0 to `most` or just beyond (P. Heckbert, "Nice numbers for graph labels", Graphics Gems, 1990)."""
    if most <= 0:
        return (0.0, 1.0)
    rough = most / (TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(nice * power for nice in (1, 2, 5, 10) if nice * power >= rough)
    return tuple(step * number for number in range(math.ceil(most / step) + 1))


def _scale(low: float, high: float, first: float, last: float) -> Callable[[float], float]:
    def place(value: float) -> float:
        return round(first + (value - low) / ((high - low) or 1.0) * (last - first), 1)

    return place


def _drawn(series: Series, x: Callable[[float], float], y: Callable[[float], float]) -> dict[str, Json]:
    places = [
        {
            "x": x(point.x),
            "y": y(point.y),
            "low": y(point.low),
            "high": y(point.high),
            "left": None if point.left is None else x(point.left),
            "right": None if point.right is None else x(point.right),
            "label": point.label,
        }
        for point in series.points
    ]
    return {"name": series.name, "points": places, "line": " ".join(f"{one['x']},{one['y']}" for one in places) if series.line else ""}
