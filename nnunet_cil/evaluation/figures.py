"""Pictures of segmentations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2", "#999999")
"""Okabe and Ito's palette, which colour-blind people can tell apart; its two blues and its two reds far from each other."""

Labels = npt.NDArray[np.integer[Any]]

_MARGIN = 0.3
"""The margin around labels, as a share of their size."""


def plot_text(text: str) -> str:
    """Returns text that matplotlib draws as it is.

    Without it, text between dollar signs is a formula, and a legend leaves out an entry that begins with an underscore.
    """
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def busiest_slices(labels: Labels, number: int) -> list[int]:
    """Returns the slices of the first axis that show the most classes (then voxels), apart from each other, in order."""
    score = [len(np.unique(s)) * s.size + np.count_nonzero(s) for s in labels]
    chosen: list[int] = []
    for index in np.argsort(score)[::-1]:
        if all(abs(int(index) - other) >= max(2, len(score) // 8) for other in chosen):
            chosen.append(int(index))
        if len(chosen) == number:
            break
    return sorted(chosen)


def comparison(
    image: npt.NDArray[np.floating[Any]],
    labels: Mapping[str, Labels],
    classes: Sequence[str],
    *,
    num_slices: int = 2,
    aspect: float = 1.0,
    title: str = "",
    sides: bool = False,
) -> Figure:
    """Draws an image, and beside it each of some label maps over it, slice by slice, around the labels of the reference.

    Args:
        image: (slices, rows, columns).
        labels: name -> (slices, rows, columns); the first, the reference, chooses the slices.
        classes: names of labels 1, 2, ...
        num_slices: to show.
        aspect: height of a pixel through its width.
        title: above the picture.
        sides: write R, L, A and P to the edges of the image, for slices as ``host.reading.images.as_seen`` gives them.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    reference = next(iter(labels.values()))
    slices = busiest_slices(reference, num_slices)
    window = window_around(reference)
    image, labels = image[window], {name: array[window] for name, array in labels.items()}
    names = ["image", *labels]
    columns = min(len(names), 6)
    lines = -(-len(names) // columns)
    height = 2.9 * min(2.0, max(0.5, aspect * image.shape[1] / image.shape[2]))
    legend_columns = max(1, min(6, len(classes), int(2.9 * columns / (0.7 + 0.09 * max(map(len, classes))))))
    legend_height = 0.25 * -(-len(classes) // legend_columns)
    size = (2.9 * columns, height * lines * len(slices) + 0.75 + legend_height)
    figure = Figure(figsize=size, layout="constrained")
    low, high = np.percentile(image, (1, 99.5))
    grid = figure.subplots(len(slices) * lines, columns, squeeze=False).reshape(len(slices), lines * columns)
    for axes, index in zip(grid, slices, strict=True):
        for ax, name in zip(axes, names, strict=False):
            ax.imshow(image[index], cmap="gray", vmin=low, vmax=high, aspect=aspect)
            if name in labels:
                ax.imshow(_overlay(labels[name][index], len(classes)), aspect=aspect, interpolation="nearest")
            ax.set(title=plot_text(name), xticks=[], yticks=[])
        axes[0].set_ylabel(f"slice {index}")
        if sides:
            write_orientation(axes[0])
        for ax in axes[len(names) :]:
            ax.set_axis_off()
    handles = [
        Patch(color=c, label=plot_text(name)) for c, name in zip(class_colours(len(classes)), classes, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=legend_columns, frameon=False)
    if title:
        figure.suptitle(plot_text(title))
    return figure


def write_orientation(ax: Axes) -> None:
    """Writes to the edges of an axial slice where the patient's right, left, front and back are: R, L, A and P."""
    for x, y, side in ((0.03, 0.5, "R"), (0.97, 0.5, "L"), (0.5, 0.96, "A"), (0.5, 0.04, "P")):
        ax.text(x, y, side, transform=ax.transAxes, color="w", ha="center", va="center", weight="bold")


def window_around(labels: Labels) -> tuple[slice, ...]:
    """Returns the rows and columns that hold every label, with a margin around; all slices."""
    window = [slice(None)]
    for axis in (1, 2):
        line = np.flatnonzero((labels > 0).any(axis=(0, 3 - axis)))
        if line.size:
            wide = int(_MARGIN * (line[-1] - line[0] + 1)) + 1
            window.append(slice(max(0, int(line[0]) - wide), int(line[-1]) + wide + 1))
        else:
            window.append(slice(None))
    return tuple(window)


def class_colours(number: int) -> list[Any]:
    """Returns one colour a class; above eight, more colours that are told apart less well."""
    if number <= len(COLOURS):
        return list(COLOURS[:number])
    from matplotlib import colormaps

    if number <= 20:
        return [colormaps["tab20"](i) for i in range(number)]
    return [colormaps["hsv"](i / number) for i in range(number)]


def difference_overlay(
    first: Labels, second: Labels, colours: Iterable[str], opacity: float
) -> npt.NDArray[np.float64]:
    """Returns (rows, columns, 4): the colour of each pixel where two label maps differ, transparent elsewhere.

    Args:
        first: (rows, columns).
        second: (rows, columns).
        colours: where only the first has a class, where only the second has one, and where both have different ones.
        opacity: of all colours.
    """
    from matplotlib.colors import to_rgba

    overlay = np.zeros((*first.shape, 4))
    where = ((first > 0) & (second == 0), (first == 0) & (second > 0), (first > 0) & (second > 0) & (first != second))
    for mask, colour in zip(where, colours, strict=True):
        overlay[mask] = to_rgba(colour, opacity)
    return overlay


def _overlay(labels: Labels, num_classes: int) -> npt.NDArray[np.float64]:
    from matplotlib.colors import to_rgba

    overlay = np.zeros((*labels.shape, 4))
    for c, colour in enumerate(class_colours(num_classes), start=1):
        overlay[labels == c] = to_rgba(colour, 0.75)
    return overlay
