"""Gives figures of scores the look of each method, axes that show differences, and layouts for two widths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_cil.evaluation.results import dice_of, last_mean, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's, dark ones first and without the yellow, which is too bright for a line."""

MARKERS = "osD^vPX*"

WIDE, NARROW = 11.0, 4.4
"""Inches of a figure on a wide and on a narrow screen."""

SMALLEST_SPAN = 0.05
"""No axis of Dice is shorter: a difference that nobody can measure does not fill it."""

_NEAR = 0.02
_FACTOR = 5.0

Content = Mapping[str, Any]
"""The content of ``results.json``."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of a report.

    Attributes:
        trainer: its class.
        name: in figures.
        folds: its results with Dice.
        style: of its line; the same in all figures of a report.
        is_far: whether it is so far behind that axes which show it would hide how the others differ.
    """

    trainer: str
    name: str
    folds: Sequence[Mapping[str, Any]]
    style: dict[str, Any]
    is_far: bool


def methods_of(content: Content) -> list[Method]:
    """Returns the methods, the best first."""
    found = dice_of(content)
    trainers = list(content["trainers"])
    names = {short(trainer): trainer for trainer in trainers}
    far = far_behind({name: last_mean(folds, "all") for name, folds in found.items()})
    return [
        Method(
            trainer=names[name],
            name=name,
            folds=folds,
            style=line_style(trainers.index(names[name])),
            is_far=name in far,
        )
        for name, folds in found.items()
    ]


def line_style(index: int) -> dict[str, Any]:
    """Returns colour, marker and dashes of a method, by its place in the command."""
    return {
        "color": LINE_COLOURS[index % len(LINE_COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "ls": ("-", "--", ":")[index // len(LINE_COLOURS) % 3],
    }


def far_behind(scores: Mapping[str, float]) -> set[str]:
    """Returns the methods whose distance to the best is more than five times that of any nearer one; none if no other is near.

    Args:
        scores: method -> Dice.
    """
    known = {name: value for name, value in scores.items() if not math.isnan(value)}
    best = max(known.values(), default=math.nan)
    limit, near = _NEAR, set()
    for name, value in sorted(known.items(), key=lambda item: -item[1]):
        if best - value > _FACTOR * limit:
            break
        limit = max(limit, best - value)
        near.add(name)
    return set(known) - near if len(near) > 1 else set()


def limits(
    values: Iterable[float], *, least: float = SMALLEST_SPAN, within: tuple[float, float] = (0.0, 1.0)
) -> tuple[float, float]:
    """Returns the ends of an axis: around all values, with a margin.

    Args:
        values: NaN does not count.
        least: the shortest axis.
        within: where values can be.
    """
    known = [value for value in values if not math.isnan(value)]
    low, high = (min(known), max(known)) if known else within
    missing = max(0.0, least - (high - low)) / 2
    margin = 0.06 * max(high - low, least)
    low, high = low - missing - margin, high + missing + margin
    return max(low, within[0] - margin), min(high, within[1] + margin)


def dice_label(low: float) -> str:
    """Returns the label of an axis of Dice; it says where the axis begins, unless that is 0."""
    return "Dice" if low <= 0 else f"Dice (the axis begins at {low:.2f})"


def mark_outside(ax: Axes, low: float, values: Sequence[tuple[float, float]], colour: Any) -> None:
    """Writes values that lie beyond the left end of an axis there.

    Args:
        ax: to draw on.
        low: where the axis is going to begin.
        values: (place, value).
        colour: of the method.
    """
    for place, value in values:
        if value < low:
            ax.text(low, place, f" ◂ {value:.2f}", color=colour, fontsize=7, ha="left", va="center")


def figure_of(rows: int, columns: int, *, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    """Returns an empty figure with its axes, (rows, columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def legend(figure: Figure, ax: Axes) -> None:
    """Writes what the axes' lines are below the figure, where they hide none."""
    handles, labels = ax.get_legend_handles_labels()
    legend_of(figure, handles, labels)


def legend_of(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Writes a legend below the figure, in as many columns as fit."""
    longest = max(map(len, labels), default=1)
    columns = max(1, min(6, len(labels), int(figure.get_figwidth() / (0.6 + 0.085 * longest))))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def spans(values: Sequence[Sequence[float]]) -> Iterator[tuple[int, float, float]]:
    """Yields index, smallest and largest of each list that has more than one known value."""
    for index, own in enumerate(values):
        known = [value for value in own if not math.isnan(value)]
        if len(known) > 1:
            yield index, float(np.min(known)), float(np.max(known))
