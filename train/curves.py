"""The curves of a training as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

PANELS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("loss", (("loss", "training"), ("eval_loss", "evaluation"))),
    ("rewards: chosen - rejected", (("rewards/margins", "training"), ("eval_rewards/margins", "evaluation"))),
    ("pairs ranked rightly", (("rewards/accuracies", "training"), ("eval_rewards/accuracies", "evaluation"))),
    ("learning rate", (("learning_rate", "training"),)),
)
"""Title, and the names of what is in it, as the trainer logs them, with their labels."""


def plot(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a PNG with a panel for each quantity that was logged."""
    from matplotlib.figure import Figure  # not pyplot: it would look for a display

    shown = [(title, lines) for title, names in PANELS if (lines := _lines(history, names))]
    figure = Figure(figsize=(4.5 * max(1, len(shown)), 3.5), layout="constrained")
    for at, (title, lines) in enumerate(shown, start=1):
        axes = figure.add_subplot(1, len(shown), at, title=title, xlabel="step")
        for label, steps, values in lines:
            axes.plot(steps, values, label=label, marker="o" if label == "evaluation" else None, markersize=3)
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend()
    figure.savefig(path, dpi=120)


def _lines(history: Sequence[dict[str, Any]], names: tuple[tuple[str, str], ...]) -> list[tuple[str, list[int], list[float]]]:
    found = []
    for name, label in names:
        points = [(line["step"], line[name]) for line in history if name in line]
        if points:
            found.append((label, [step for step, _ in points], [value for _, value in points]))
    return found
