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
LINE = 13  # the height of a label
BESIDE = 7  # from a point to its label


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
    drawn = [_drawn(one, x, y) for one in series]
    _label([point for one in drawn for point in one["points"] if point["label"]])
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
        "series": drawn,
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


def _label(points: Sequence[dict[str, Json]]) -> None:
    """Puts each label beside its point, as near as neither a label before it nor a whisker is in the way: `label_x` and `label_y`
    are its lower left corner."""
    taken = [(one["x"] if one["left"] is None else one["left"], one["right"] or one["x"], one["y"] + LINE / 3, LINE / 2) for one in points]
    for point in points:
        left, right = point["x"] + BESIDE, point["x"] + BESIDE + LETTER * len(point["label"])
        beside = [(middle, half) for begin, end, middle, half in taken if begin < right and left < end]
        steps = sorted(range(-2 * len(points), 2 * len(points) + 1), key=abs)
        heights = (round(point["y"] - BESIDE + step * LINE, 1) for step in steps)
        inside = (height for height in heights if TOP <= height <= HEIGHT - BOTTOM - 2)
        free = (height for height in inside if all(abs(height - middle) >= half for middle, half in beside))
        point["label_x"], point["label_y"] = left, next(free, point["y"] - BESIDE)
        taken.append((left, right, point["label_y"], LINE - 0.5))


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
