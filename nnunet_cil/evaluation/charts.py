"""Figures of scores, for the report and for papers. The best method comes first, and each keeps its look in all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_cil.evaluation.axes import (
    NARROW,
    SMALLEST_SPAN,
    WIDE,
    Content,
    Method,
    dice_label,
    figure_of,
    legend,
    legend_of,
    limits,
    mark_outside,
    methods_of,
    spans,
)
from nnunet_cil.evaluation.continual import mean
from nnunet_cil.evaluation.difference_chart import difference_chart
from nnunet_cil.evaluation.figures import plot_text
from nnunet_cil.evaluation.results import fold_mean, lost, pooled
from nnunet_cil.evaluation.scores import last_rows, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure in two layouts, and a text that says what it is.

    Attributes:
        draw: a figure for a wide or, with ``narrow=True``, for a narrow screen.
        text: what it shows.
    """

    draw: Callable[..., Figure]
    text: str


def score_charts(content: Content, table: DataFrame) -> dict[str, Chart]:
    """Returns all figures of scores by the name of their file.

    Args:
        content: as in ``results.json``.
        table: scores of every trainer's models.
    """
    methods = methods_of(content)
    folds = "; lines span the folds" if len(methods[0].folds) > 1 else ""
    far = [m.name for m in methods if m.is_far]
    cut = f" {', '.join(far)}: far behind, and beyond the axes where an arrow says so." if far else ""
    charts = {
        "curves": Chart(
            draw=partial(curves, content), text=f"Dice of old, new and all classes after each step{folds}.{cut}"
        ),
        "classes": Chart(
            draw=partial(class_dots, content), text=f"Dice of each class after the last step{folds}.{cut}"
        ),
        "cases": Chart(
            draw=partial(case_boxes, content, table),
            text=f"Dice of the cases after the last step: quartiles, and every case as a point.{cut}",
        ),
        "matrix": Chart(
            draw=partial(matrix_maps, content),
            text="R: Dice of each step's classes (column) with the model after each step (row).",
        ),
    }
    if len(methods) > 1 and content["differences_to_best"]:
        charts["differences"] = Chart(
            draw=partial(difference_chart, content),
            text="Dice of each method less that of the best, with the 95 % interval: filled where it leaves out 0, hollow where "
            "no difference is shown.",
        )
    if len(content["steps"]) > 1:
        charts["forgetting"] = Chart(
            draw=partial(forgetting_bars, content),
            text=f"Best Dice that a class ever had, less its Dice after the last step{folds}.",
        )
    return charts


def curves(content: Content, *, narrow: bool = False) -> Figure:
    """Draws old, new and all over the steps; one line a method, a bar from the smallest to the largest fold."""
    rows, columns = (3, 1) if narrow else (1, 3)
    figure, axes = figure_of(rows, columns, width=NARROW if narrow else WIDE, height=2.7 * rows + 0.6)
    steps = np.arange(len(content["steps"]))
    methods = methods_of(content)
    for ax, group in zip(axes.flat, ("old", "new", "all"), strict=True):
        shown: list[float] = []
        outside: list[tuple[str, float]] = []
        for method, shift in zip(methods, _shifts(len(methods), 0.12), strict=True):
            values = np.array([f[group] for f in method.folds], dtype=np.float64)
            if group == "old":  # there are none at step 0
                values[:, 0] = math.nan
            means = getattr(pooled(method.folds), group)
            ax.plot(steps + shift, means, label=plot_text(method.name), **method.style)
            for step, low, high in spans(values.T.tolist()):
                ax.vlines(step + shift, low, high, color=method.style["color"], lw=1)
            if method.is_far:
                outside.append((method.name, float(means[-1])))
            else:
                shown += values.ravel().tolist()
        low, high = limits(shown)
        ax.set(
            title=f"{group} classes", xlabel="after step", xticks=list(steps), ylim=(low, high), ylabel=dice_label(low)
        )
        ax.set_xlim(0.75 if group == "old" and len(steps) > 1 else -0.25, len(steps) - 0.75)
        if below := _below(outside, low):
            box: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
            ax.text(0.02, 0.02, below, transform=ax.transAxes, fontsize=8, va="bottom", bbox=box)
        ax.grid(alpha=0.3)
    legend(figure, axes.flat[2])
    return figure


def matrix_maps(content: Content, *, narrow: bool = False) -> Figure:
    """Draws R of each method as a heat map with its numbers; the colours span the methods that are not far behind."""
    methods = methods_of(content)
    matrices = [pooled(method.folds).matrix for method in methods]
    size = len(content["steps"])
    width = max(2.4, 0.7 * size + 0.9)
    columns = min(len(methods), max(1, int((NARROW if narrow else WIDE) / width)))
    rows = math.ceil(len(methods) / columns)
    figure, axes = figure_of(rows, columns, width=width * columns + 0.9, height=(0.6 * size + 1) * rows)
    near = [matrix for method, matrix in zip(methods, matrices, strict=True) if not method.is_far]
    low, high = limits(np.concatenate(near).ravel().tolist(), least=2 * SMALLEST_SPAN)
    for ax, method, matrix in zip(axes.flat, methods, matrices, strict=False):
        image = ax.imshow(matrix, vmin=low, vmax=high, cmap="viridis")
        for (i, j), value in np.ndenumerate(matrix):
            if not math.isnan(value):
                colour = "white" if value < (low + high) / 2 else "black"
                ax.text(j, i, f"{value:.3f}", ha="center", va="center", color=colour, fontsize=9)
        ax.set(title=plot_text(method.name), xticks=range(size), yticks=range(size))
        ax.set(xlabel="classes of step", ylabel="model after step")
    for ax in list(axes.flat)[len(methods) :]:
        ax.set_axis_off()
    extend = "min" if any(method.is_far for method in methods) else "neither"
    figure.colorbar(image, ax=axes, label="Dice", shrink=0.8, extend=extend)
    return figure


def forgetting_bars(content: Content, *, narrow: bool = False) -> Figure:
    """Draws best less last Dice of every class that is not of the last step; one bar a method."""
    classes = [name for names in content["steps"][:-1] for name in names]
    methods = methods_of(content)
    losses = {m.name: [[lost(f["classes"], c) for f in m.folds] for c in classes] for m in methods}
    near = [v for m in methods if not m.is_far for own in losses[m.name] for v in own]
    high = 1.06 * max(SMALLEST_SPAN, *(value for value in [0.0, *near] if not math.isnan(value)))

    def draw(ax: Axes, method: Method, where: Sequence[float], width: float) -> None:
        means = [mean(own) for own in losses[method.name]]
        ax.barh(where, means, width * 0.9, label=plot_text(method.name), color=method.style["color"])
        for index, first, last in spans(losses[method.name]):
            ax.hlines(where[index], first, last, color="black", lw=1)
        for y, value in zip(where, means, strict=True):
            if value > high:
                ax.text(high, y, f"{value:.2f} ▸", ha="right", va="center", fontsize=7, color="white")

    figure, ax = _by_class(classes, methods, draw, narrow=narrow)
    ax.set(xlabel="Dice forgotten", xlim=(0, high))
    return figure


def class_dots(content: Content, *, narrow: bool = False) -> Figure:
    """Draws the Dice of every class after the last step; one mark a method, a line from the smallest to the largest fold."""
    classes = [name for names in content["steps"] for name in names]
    last = len(content["steps"]) - 1
    methods = methods_of(content)
    values = {m.name: [[f["classes"][last][c] for f in m.folds] for c in classes] for m in methods}
    low, high = limits(v for m in methods if not m.is_far for own in values[m.name] for v in own)

    def draw(ax: Axes, method: Method, where: Sequence[float], _: float) -> None:
        means = [fold_mean(method.folds, last)[c] for c in classes]
        ax.plot(means, where, **{**method.style, "ls": ""}, label=plot_text(method.name))
        for index, first, final in spans(values[method.name]):
            ax.hlines(where[index], first, final, color=method.style["color"], lw=1.5)
        if method.is_far:
            mark_outside(ax, low, list(zip(where, means, strict=True)), method.style["color"])

    figure, ax = _by_class(classes, methods, draw, narrow=narrow)
    labels = [plot_text(f"{c} (step {i})") for i, names in enumerate(content["steps"]) for c in names]
    ax.set(xlabel=dice_label(low), xlim=(low, high), yticklabels=labels)
    return figure


def case_boxes(content: Content, table: DataFrame, *, narrow: bool = False) -> Figure:
    """Draws quartiles over the cases of every class after the last step, one box a method, with every case as a point."""
    classes = [name for names in content["steps"] for name in names]
    methods = methods_of(content)
    last = last_rows(table)
    own = {m.name: rows_of(last, trainer=m.trainer) for m in methods}
    values = {
        name: [rows_of(rows, **{"class": c})["dice"].dropna().tolist() for c in classes] for name, rows in own.items()
    }
    low, high = limits(v for m in methods if not m.is_far for per_class in values[m.name] for v in per_class)
    handles = []

    def draw(ax: Axes, method: Method, where: Sequence[float], width: float) -> None:
        found = values[method.name]
        drawn = ax.boxplot(
            found,
            positions=where,
            widths=width * 0.75,
            orientation="horizontal",
            manage_ticks=False,
            patch_artist=True,
            showfliers=False,
        )
        for box, middle in zip(drawn["boxes"], drawn["medians"], strict=True):
            box.set(facecolor=method.style["color"], alpha=0.55)
            middle.set(color="black")
        for y, v in zip(where, found, strict=True):
            offsets = np.linspace(-0.25, 0.25, len(v)) * width
            ax.scatter(v, y + offsets, s=5, color="black", alpha=0.5, lw=0, zorder=3)
        if method.is_far:
            medians = [float(np.median(v)) if v else math.nan for v in found]
            mark_outside(ax, low, list(zip(where, medians, strict=True)), method.style["color"])
        handles.append(drawn["boxes"][0])

    figure, ax = _by_class(classes, methods, draw, narrow=narrow)
    ax.set(xlabel=dice_label(low), xlim=(low, high))
    legend_of(figure, handles, [plot_text(m.name) for m in methods])
    return figure


def _by_class(
    classes: Sequence[str],
    methods: Sequence[Method],
    draw: Callable[[Axes, Method, Sequence[float], float], None],
    *,
    narrow: bool,
) -> tuple[Figure, Axes]:
    """Draws something of every class and method: a line a class, on it the methods one below the other.

    Args:
        classes: a line each.
        methods: in their order.
        draw: gets the axes, a method, its place in each line, and how high a place is.
        narrow: for a narrow screen.
    """
    height = 0.12 * len(methods) + 0.25
    figure, axes = figure_of(1, 1, width=NARROW if narrow else 0.75 * WIDE, height=height * len(classes) + 1.3)
    ax = axes[0][0]
    step = 0.8 / len(methods)
    for method, shift in zip(methods, _shifts(len(methods), 0.8), strict=True):
        draw(ax, method, [place + shift for place in range(len(classes))], step)
    ax.set(yticks=range(len(classes)), yticklabels=[plot_text(c) for c in classes], ylim=(len(classes) - 0.5, -0.5))
    ax.tick_params(axis="y", length=0)
    for place in range(1, len(classes)):
        ax.axhline(place - 0.5, color="0.85", lw=0.8)
    ax.grid(alpha=0.3, axis="x")
    if ax.get_legend_handles_labels()[0]:
        legend(figure, ax)
    return figure, ax


def _shifts(number: int, width: float) -> list[float]:
    """Returns places side by side, around 0, so that equal values of several methods can be told apart."""
    return [(index - (number - 1) / 2) * width / number for index in range(number)]


def _below(found: Sequence[tuple[str, float]], low: float) -> str:
    return "\n".join(f"▾ {plot_text(name)} {value:.3f}" for name, value in found if value < low)
