"""Pictures of segmentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")
"""Okabe and Ito's palette, which colour-blind people can tell apart."""

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
    file: Path,
    *,
    num_slices: int = 2,
    title: str = "",
) -> None:
    """One row a slice: the image, then each of ``labels`` (label c is ``classes[c - 1]``) over it.

    Args:
        image: (slices, rows, columns).
        labels: name -> (slices, rows, columns); the first, the truth, chooses the slices.
        classes: names of labels 1, 2, ...
        file: PNG or SVG.
        num_slices: rows.
        title: above the picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    slices = busiest_slices(next(iter(labels.values())), num_slices)
    columns = ["image", *labels]
    figure = Figure(figsize=(2.9 * len(columns), 2.9 * len(slices) + 1.0), layout="constrained")
    low, high = np.percentile(image, (1, 99.5))
    axes = figure.subplots(len(slices), len(columns), squeeze=False)
    for row, index in enumerate(slices):
        for column, name in enumerate(columns):
            ax = axes[row][column]
            ax.imshow(image[index], cmap="gray", vmin=low, vmax=high)
            if column:
                ax.imshow(_overlay(labels[name][index], len(classes)))
            if row == 0:
                ax.set_title(name)
            if column == 0:
                ax.set_ylabel(f"slice {index}")
            ax.set_xticks([])
            ax.set_yticks([])
    handles = [Patch(color=COLOURS[i % len(COLOURS)], label=name) for i, name in enumerate(classes)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(classes), 6), frameon=False)
    if title:
        figure.suptitle(title)
    figure.savefig(file, dpi=110)


def _overlay(labels: Labels, num_classes: int) -> npt.NDArray[np.float64]:
    from matplotlib.colors import to_rgba

    overlay = np.zeros((*labels.shape, 4))
    for c in range(1, num_classes + 1):
        overlay[labels == c] = to_rgba(COLOURS[(c - 1) % len(COLOURS)], 0.65)
    return overlay
