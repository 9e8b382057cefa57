"""Pictures of a case that two models segment: model A, model B, and where they differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.evaluation.figures import (
    Labels,
    class_colours,
    difference_overlay,
    plot_text,
    window_around,
    write_orientation,
)
from nnunet_cil.evaluation.naming import Names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANGES = {"only A": "#D55E00", "only B": "#56B4E9", "another class": "#F0E442"}
"""Mark where one model has background, or both have different classes; colour-blind people can tell them apart."""

_OPACITY = 0.85

_MOST_LEGEND = 12
"""The number of classes that the legend names."""


def change_picture(
    image: npt.NDArray[np.floating[Any]],
    a: Labels,
    b: Labels,
    names: Sequence[Names],
    shared: Collection[str],
    *,
    num_slices: int = 2,
    aspect: float = 1.0,
    title: str = "",
    sides: bool = False,
    is_narrow: bool = False,
) -> Figure:
    """Draws the slices in which the classes of both models differ most.

    All classes are drawn as contours, the difference in those of both models in colour: that B finds what it alone has learnt
    is no news.

    Args:
        image: (slices, rows, columns).
        a: labels of model A, as ``named_alike`` numbers them.
        b: labels of model B.
        names: the classes of labels 0, 1, ...
        shared: the classes of both models.
        num_slices: to show.
        aspect: height of a pixel through its width.
        title: above the picture.
        is_narrow: draw the parts of a slice below each other, for a narrow screen.
        sides: write R and L to the edges of the image, for slices as ``host.reading.images.as_seen`` gives them.
    """
    from matplotlib.figure import Figure

    of_a, of_b = (_only(shared, labels, names) for labels in (a, b))
    slices = most_changed_slices(*((of_a, of_b) if (of_a != of_b).any() else (a, b)), number=num_slices)
    window = window_around(np.maximum(a, b))
    image, a, b = image[window], a[window], b[window]
    of_a, of_b = of_a[window], of_b[window]
    drawn, colours = _classes_in((a[slices], b[slices]), names)
    height = 3.2 * min(1.6, max(0.5, aspect * image.shape[1] / image.shape[2]))
    rows = 3 * len(slices) if is_narrow else len(slices)
    size = (4.2, 1.25 * height * rows + 2.2) if is_narrow else (9.6, height * rows + 1.3)
    figure = Figure(figsize=size, layout="constrained")
    low, high = np.percentile(image, (1, 99.5))
    grid = figure.subplots(rows, 3 * len(slices) // rows, squeeze=False).reshape(len(slices), 3)
    for axes, index in zip(grid, slices, strict=True):
        for ax, name in zip(axes, ("A", "B", "difference"), strict=True):
            ax.imshow(image[index], cmap="gray", vmin=low, vmax=high, aspect=aspect)
            ax.set(title=name, xticks=[], yticks=[])
        for ax, labels in zip(axes, (a[index], b[index]), strict=False):
            _draw_contours(ax, labels, drawn, colours)
        overlay = difference_overlay(of_a[index], of_b[index], CHANGES.values(), _OPACITY)
        axes[2].imshow(overlay, aspect=aspect, interpolation="nearest")
        axes[0].set_ylabel(f"slice {index}")
        if sides:
            write_orientation(axes[0])
    _add_legend(figure, {c: colours[c] for c in drawn}, num_columns=2 if is_narrow else 5)
    if title:
        figure.suptitle(plot_text(title), fontsize=11)
    return figure


def most_changed_slices(a: Labels, b: Labels, number: int) -> list[int]:
    """Returns the slices of the first axis that differ in the most voxels, apart from each other, in order."""
    changed = [int(np.count_nonzero(one != other)) for one, other in zip(a, b, strict=True)]
    chosen: list[int] = []
    for index in np.argsort(changed, kind="stable")[::-1].tolist():
        is_apart = all(abs(index - other) >= max(2, len(changed) // 16) for other in chosen)
        if is_apart and (changed[index] or not chosen):
            chosen.append(index)
        if len(chosen) == number:
            break
    return sorted(chosen)


def _only(classes: Collection[str], labels: Labels, names: Sequence[Names]) -> Labels:
    """Returns a label map of these classes only, numbered alike for all label maps; the others are background."""
    kept = [tuple(name for name in own if name in classes) for own in names]
    places = {own: place for place, own in enumerate(dict.fromkeys([(), *kept]))}
    found: Labels = np.array([places[own] for own in kept])[labels]
    return found


def _classes_in(shown: Sequence[Labels], names: Sequence[Names]) -> tuple[dict[str, list[int]], dict[str, Any]]:
    """Returns the labels of each class that is shown, and the colours of all."""
    classes = list(dict.fromkeys(name for own in names for name in own))
    there = {number for labels in shown for number in np.unique(labels).tolist()}
    numbers = {c: [n for n, own in enumerate(names) if c in own] for c in classes}
    drawn = {c: own for c, own in numbers.items() if not there.isdisjoint(own)}
    return drawn, dict(zip(classes, class_colours(len(classes)), strict=True))


def _draw_contours(ax: Any, labels: Labels, drawn: Mapping[str, Sequence[int]], colours: Mapping[str, Any]) -> None:
    for name, numbers in drawn.items():
        mask = np.isin(labels, numbers)
        if mask.any() and min(mask.shape) > 1:
            ax.contour(mask, levels=[0.5], colors=[colours[name]], linewidths=1.4)


def _add_legend(figure: Figure, drawn: Mapping[str, Any], num_columns: int) -> None:
    """Names the classes that are drawn, the first of many, and what the colours of the difference are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    lines = [Line2D([], [], color=colour, label=plot_text(name)) for name, colour in list(drawn.items())[:_MOST_LEGEND]]
    patches = [Patch(color=colour, label=name) for name, colour in CHANGES.items()]
    figure.legend(handles=[*lines, *patches], loc="outside lower center", ncols=num_columns, frameon=False, fontsize=9)
