"""Pictures of segmentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2", "#999999")
"""Okabe and Ito's palette, which colour-blind people can tell apart; its two blues and its two reds far from each other."""

Labels = npt.NDArray[np.integer[Any]]


def busiest_slices(labels: Labels, number: int) -> list[int]:
    """Slices of the first axis that show the most classes (then voxels), apart from each other, in order."""
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
) -> Figure:
    """The image beside each of ``labels`` (label c is ``classes[c - 1]``) over it, slice by slice, around the truth's labels.

    Args:
        image: (slices, rows, columns).
        labels: name -> (slices, rows, columns); the first, the truth, chooses the slices.
        classes: names of labels 1, 2, ...
        num_slices: to show.
        aspect: height of a pixel through its width.
        title: above the picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    truth = next(iter(labels.values()))
    slices = busiest_slices(truth, num_slices)
    window = _window(truth)
    image, labels = image[window], {name: array[window] for name, array in labels.items()}
    names = ["image", *labels]
    columns = min(len(names), 6)
    lines = -(-len(names) // columns)
    height = 2.9 * min(2.0, max(0.5, aspect * image.shape[1] / image.shape[2]))
    figure = Figure(figsize=(2.9 * columns, height * lines * len(slices) + 1.0), layout="constrained")
    low, high = np.percentile(image, (1, 99.5))
    grid = figure.subplots(len(slices) * lines, columns, squeeze=False).reshape(len(slices), lines * columns)
    for axes, index in zip(grid, slices, strict=True):
        for ax, name in zip(axes, names, strict=False):
            ax.imshow(image[index], cmap="gray", vmin=low, vmax=high, aspect=aspect)
            if name in labels:
                ax.imshow(_overlay(labels[name][index], len(classes)), aspect=aspect, interpolation="nearest")
            ax.set(title=name, xticks=[], yticks=[])
        axes[0].set_ylabel(f"slice {index}")
        for ax in axes[len(names) :]:
            ax.set_axis_off()
    handles = [Patch(color=COLOURS[i % len(COLOURS)], label=name) for i, name in enumerate(classes)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(classes), 6), frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def _window(labels: Labels, margin: float = 0.3) -> tuple[slice, ...]:
    """Rows and columns that hold every label, with a margin around; all slices."""
    window = [slice(None)]
    for axis in (1, 2):
        line = np.flatnonzero((labels > 0).any(axis=(0, 3 - axis)))
        if line.size:
            wide = int(margin * (line[-1] - line[0] + 1)) + 1
            window.append(slice(max(0, int(line[0]) - wide), int(line[-1]) + wide + 1))
        else:
            window.append(slice(None))
    return tuple(window)


def _overlay(labels: Labels, num_classes: int) -> npt.NDArray[np.float64]:
    from matplotlib.colors import to_rgba

    overlay = np.zeros((*labels.shape, 4))
    for c in range(1, num_classes + 1):
        overlay[labels == c] = to_rgba(COLOURS[(c - 1) % len(COLOURS)], 0.75)
    return overlay
