"""Draws a comparison's differences: a panel a data set, a line a method, every pair a dot, its mean with the interval a bar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunet_cil.evaluation.differences import Difference, Scores, differences, fold_differences
from nnunet_cil.evaluation.results import short

Panel = tuple[str, Sequence[Scores]]
"""A title, and the scores of the data sets whose mean the panel shows."""


def forest(panels: Sequence[Panel], method: str, others: Mapping[str, str]) -> Figure:
    """Draws the Dice of other methods less that of one, in all classes after the last step.

    Args:
        panels: of data sets, and of their mean.
        method: in the column ``trainer``; the line at 0.
        others: further methods -> their names in the figure, from the top.
    """
    drawn = Figure(figsize=(2.6 * len(panels) + 1.8, 0.9 + 0.32 * len(others)), layout="constrained")
    axes = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (title, scores) in zip(axes, panels, strict=True):
        for line, other in enumerate(others):
            found = next(d for d in differences(scores, other, method) if d.group == "all")
            draw_difference(ax, line, found, _pairs(scores, other, method))
        ax.axvline(0, color="black", lw=0.8)
        ax.grid(axis="x", alpha=0.4)
        ax.locator_params(axis="x", nbins=4)
        ax.set_title(title, fontsize="medium")
    axes[0].set_yticks(range(len(others)), list(others.values()))
    axes[0].invert_yaxis()
    drawn.supxlabel(f"Dice of all classes, less {short(method)}'s", fontsize="medium")
    return drawn


def _pairs(scores: Sequence[Scores], other: str, method: str) -> list[float]:
    """Returns the differences of the pairs of a data set; a mean over several has none of its own."""
    if len(scores) > 1:
        return []
    return [value for value in fold_differences(scores[0], other, method).values() if not math.isnan(value)]


def draw_difference(ax: Axes, line: int, found: Difference, pairs: Sequence[float]) -> None:
    """Draws the pairs of one method, their mean and its interval; dashed where the interval is over patients alone."""
    ax.plot(pairs, [line] * len(pairs), "o", color="tab:gray", alpha=0.7, markersize=5)
    if not math.isnan(found.low):
        style = "-" if found.over == "patients and trainings" else ":"
        ax.plot([found.low, found.high], [line] * 2, style, color="tab:red", lw=1.5)
    ax.plot([found.difference] * 2, [line - 0.3, line + 0.3], color="tab:red", lw=2)
