"""Figures of scores, for the report and for papers. Methods keep their colour and marker in all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_cil.evaluation.continual import mean
from nnunet_cil.evaluation.figures import COLOURS, plot_text
from nnunet_cil.evaluation.results import dice_of, fold_mean, mean_matrix, short
from nnunet_cil.evaluation.scores import last_rows, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's, dark ones first and without the yellow, which is too bright for a line."""

MARKERS = "osD^vPX*"

Content = Mapping[str, Any]
"""The content of ``results.json``."""


def score_charts(content: Content, table: DataFrame) -> dict[str, tuple[Figure, str]]:
    """Draws all figures of scores: name of a file -> a figure, and a text that says what it is.

    Args:
        content: as in ``results.json``.
        table: scores of every trainer's models.
    """
    several = len(content["steps"]) > 1
    found = {
        "curves": (curves(content), "Dice of old, new and all classes after each step; bands span the folds."),
        "matrix": (
            matrix_maps(content),
            "R: Dice of each step's classes (column) with the model after each step (row).",
        ),
        "classes": (class_dots(content), "Dice of each class after the last step; bars span the folds."),
        "cases": (
            case_boxes(content, table),
            "Dice of the cases after the last step: quartiles, and every case as a point.",
        ),
    }
    if several:
        found["forgetting"] = (
            forgetting_bars(content),
            "Best Dice that a class ever had, less its Dice after the last step.",
        )
    return found


def curves(content: Content) -> Figure:
    """Draws old, new and all over the steps; one line a method, a band from the smallest to the largest fold."""
    figure, axes = _figure(1, 3, width=11, height=3.6, sharey=True)
    steps = range(len(content["steps"]))
    for ax, group in zip(axes[0], ("old", "new", "all"), strict=True):
        for name, folds, style in _methods(content):
            values = np.array([f[group] for f in folds], dtype=np.float64)
            if group == "old":  # there are none at step 0
                values[:, 0] = math.nan
            ax.plot(steps, np.apply_along_axis(mean, 0, values), label=plot_text(name), **style)
            low, high = np.fmin.reduce(values), np.fmax.reduce(values)
            ax.fill_between(steps, low, high, color=style["color"], alpha=0.15, lw=0)
        ax.set(title=f"{group} classes", xlabel="after step", xticks=list(steps), ylim=(-0.02, 1.02))
        ax.grid(alpha=0.3)
    axes[0][0].set_ylabel("Dice")
    _legend(figure, axes[0][2])
    return figure


def matrix_maps(content: Content) -> Figure:
    """Draws R of each method as a heat map with its numbers."""
    dice = dice_of(content)
    size = len(content["steps"])
    columns = min(4, len(dice))
    rows = math.ceil(len(dice) / columns)
    figure, axes = _figure(
        rows, columns, width=max(2.6, 0.7 * size + 0.9) * columns + 0.8, height=(0.7 * size + 1) * rows
    )
    image = None
    for ax, (name, folds) in zip(axes.flat, dice.items(), strict=False):
        matrix = mean_matrix(folds)
        image = ax.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
        for (i, j), value in np.ndenumerate(matrix):
            if not math.isnan(value):
                ax.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black")
        ax.set(
            title=plot_text(name),
            xticks=range(size),
            yticks=range(size),
            xlabel="classes of step",
            ylabel="model after step",
        )
    for ax in list(axes.flat)[len(dice) :]:
        ax.set_axis_off()
    if image is not None:
        figure.colorbar(image, ax=axes, label="Dice", shrink=0.8)
    return figure


def forgetting_bars(content: Content) -> Figure:
    """Draws best less last Dice of every class that is not of the last step; one bar a method."""
    steps = content["steps"]
    classes = [name for names in steps[:-1] for name in names]
    methods = list(_methods(content))
    figure, axes = _figure(1, 1, width=max(6.0, 0.3 * len(classes) * (len(methods) + 1) + 2), height=3.6)
    ax = axes[0][0]
    width = 0.8 / len(methods)
    for index, (name, folds, style) in enumerate(methods):
        lost = [[_lost(f["classes"], c) for f in folds] for c in classes]
        where = np.arange(len(classes)) + (index - (len(methods) - 1) / 2) * width
        ax.bar(where, [mean(v) for v in lost], width * 0.9, label=plot_text(name), color=style["color"])
        _span(ax, where, lost)
    ax.axhline(0, color="black", lw=0.8)
    ax.set(ylabel="forgotten Dice", xticks=range(len(classes)), xticklabels=list(map(plot_text, classes)))
    ax.grid(alpha=0.3, axis="y")
    _legend(figure, ax)
    return figure


def class_dots(content: Content) -> Figure:
    """Draws the Dice of every class after the last step; one mark a method, a line from the smallest to the largest fold."""
    classes = [name for names in content["steps"] for name in names]
    last = len(content["steps"]) - 1
    methods = list(_methods(content))
    figure, axes = _figure(1, 1, width=8, height=0.42 * len(classes) + 1.6)
    ax = axes[0][0]
    for index, (name, folds, style) in enumerate(methods):
        where = np.arange(len(classes)) + (index - (len(methods) - 1) / 2) * min(0.12, 0.7 / len(methods))
        mean = fold_mean(folds, last)
        ax.plot([mean[c] for c in classes], where, **{**style, "ls": ""}, label=plot_text(name))
        for y, c in zip(where, classes, strict=True):
            values = [f["classes"][last][c] for f in folds]
            ax.plot([np.fmin.reduce(values), np.fmax.reduce(values)], [y, y], color=style["color"], lw=1.5)
    labels = [plot_text(f"{c} (step {i})") for i, names in enumerate(content["steps"]) for c in names]
    ax.set(xlabel="Dice", xlim=(-0.02, 1.02), yticks=range(len(classes)), yticklabels=labels)
    ax.invert_yaxis()
    ax.grid(alpha=0.3)
    _legend(figure, ax)
    return figure


def case_boxes(content: Content, table: DataFrame) -> Figure:
    """Draws quartiles over the cases of every class after the last step, one box a method, with every case as a point."""
    classes = [name for names in content["steps"] for name in names]
    methods = [(t, style) for t, (_, _, style) in zip(content["trainers"], _methods(content), strict=True)]
    figure, axes = _figure(1, 1, width=max(7.0, 0.32 * len(classes) * (len(methods) + 1) + 2), height=4)
    ax = axes[0][0]
    width = 0.8 / len(methods)
    handles = []
    for index, (trainer, style) in enumerate(methods):
        where = np.arange(len(classes)) + (index - (len(methods) - 1) / 2) * width
        own = rows_of(last_rows(table), trainer=trainer)
        values = [rows_of(own, **{"class": c})["dice"].dropna().tolist() for c in classes]
        drawn = ax.boxplot(
            values, positions=where, widths=width * 0.75, manage_ticks=False, patch_artist=True, showfliers=False
        )
        for box, middle in zip(drawn["boxes"], drawn["medians"], strict=True):
            box.set(facecolor=style["color"], alpha=0.55)
            middle.set(color="black")
        for x, v in zip(where, values, strict=True):
            offsets = np.linspace(-0.25, 0.25, len(v)) * width
            ax.scatter(x + offsets, v, s=5, color="black", alpha=0.5, lw=0, zorder=3)
        handles.append((drawn["boxes"][0], plot_text(short(trainer))))
    ax.set(ylabel="Dice", xticks=range(len(classes)), xticklabels=list(map(plot_text, classes)), ylim=(-0.02, 1.02))
    ax.grid(alpha=0.3, axis="y")
    figure.legend(*zip(*handles, strict=True), loc="outside lower center", ncols=min(6, len(handles)), frameon=False)
    return figure


def training_curves(terms: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]) -> Figure:
    """Draws every loss term over the epochs: a row a method, a column a step.

    Args:
        terms: method -> for each step, term -> its value at each epoch.
    """
    columns = max(len(per_step) for per_step in terms.values())
    figure, axes = _figure(len(terms), columns, width=3.4 * columns + 1, height=2.3 * len(terms) + 0.4)
    for line, (name, per_step) in zip(axes, terms.items(), strict=True):
        for step, (ax, found) in enumerate(zip(line, per_step, strict=False)):
            for index, (term, values) in enumerate(found.items()):
                ax.plot(values, label=plot_text(term), color=COLOURS[index % len(COLOURS)], lw=1.5)
            ax.set(title=plot_text(f"{name}, step {step}"), xlabel="epoch")
            ax.grid(alpha=0.3)
            ax.legend(fontsize=7)
        line[0].set_ylabel("loss term")
    return figure


def _lost(per_step: Sequence[Mapping[str, float]], name: str) -> float:
    values = [scores[name] for scores in per_step if name in scores]
    return float(np.fmax.reduce(values)) - values[-1]


def _methods(content: Content) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """Yields name, folds and line style of each method."""
    for index, (name, folds) in enumerate(dice_of(content).items()):
        style = {
            "color": LINE_COLOURS[index % len(LINE_COLOURS)],
            "marker": MARKERS[index % len(MARKERS)],
            "ls": ("-", "--", ":")[index // len(LINE_COLOURS) % 3],
        }
        yield name, folds, style


def _span(ax: Axes, where: Iterable[float], values: Sequence[Sequence[float]]) -> None:
    for x, v in zip(where, values, strict=True):
        if len(v) > 1:
            ax.plot([x, x], [np.fmin.reduce(v), np.fmax.reduce(v)], color="black", lw=1)


def _figure(rows: int, columns: int, *, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False)
