"""Pictures of what predictions have wrong: the reference as a contour, errors in colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.evaluation.figures import (
    Labels,
    busiest_slices,
    class_colours,
    difference_overlay,
    plot_text,
    window_around,
    write_orientation,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ERRORS = {"missed": "#56B4E9", "false": "#D55E00", "another class": "#F0E442"}
"""Kind of error -> its colour, which colour-blind people can tell from the others."""

OPACITY = 0.85
"""Opacity of an error over the grey image."""

_PANEL = 2.2
"""Inches."""

_ERRORS_WIDTH = 3.2
"""Inches of the errors' legend."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A label map that is held against the reference.

    Attributes:
        name: above its picture.
        labels: (slices, rows, columns).
        dice: of the case, mean over classes; NaN if unknown.
    """

    name: str
    labels: Labels
    dice: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case with its predictions, all (slices, rows, columns) in one orientation.

    Attributes:
        image: grey values.
        reference: labels 0, 1, 2, ...
        predictions: with the same labels.
        classes: names of labels 1, 2, ...
        aspect: height of a pixel through its width.
        is_oriented: whether slices are axial, with the patient's right at the left and front at the top.
    """

    image: npt.NDArray[np.floating[Any]]
    reference: Labels
    predictions: Sequence[Prediction]
    classes: Sequence[str]
    aspect: float = 1.0
    is_oriented: bool = False


def error_map(case: Case, *, narrow: bool = False) -> Figure:
    """Draws two slices: that of most classes and that of most errors; on each the reference, and every prediction's errors.

    Args:
        case: with at least one prediction.
        narrow: for a narrow screen, two pictures beside each other.
    """
    from matplotlib.figure import Figure

    slices = telling_slices(case)
    chosen = list(slices)
    window = window_around(np.concatenate([case.reference, *(p.labels[chosen] for p in case.predictions)]))
    image, reference = case.image[window], case.reference[window]
    number = 1 + len(case.predictions)
    columns = 2 if narrow else min(number, 5)
    lines = -(-number // columns)
    height = _PANEL * min(2.0, max(0.5, case.aspect * image.shape[1] / image.shape[2])) + 0.35
    shown = [c for c in range(1, len(case.classes) + 1) if any((reference[i] == c).any() for i in slices)]
    figure = Figure(figsize=(_PANEL * columns, height * lines * len(slices) + 0.3), layout="compressed")
    grid = figure.subplots(len(slices) * lines, columns, squeeze=False).reshape(len(slices), lines * columns)
    low, high = np.percentile(image, (1, 99.5))
    colours = class_colours(len(case.classes))
    for axes, (index, why) in zip(grid, slices.items(), strict=True):
        for ax in axes[:number]:
            ax.imshow(image[index], cmap="gray", vmin=low, vmax=high, aspect=case.aspect)
            ax.set(xticks=[], yticks=[])
        for c in shown:
            _contour(axes[0], reference[index] == c, colours[c - 1])
        axes[0].set(title="reference", ylabel=f"slice {index}: {why}")
        if case.is_oriented:
            write_orientation(axes[0])
        for ax, prediction in zip(axes[1:], case.predictions, strict=False):
            labels = prediction.labels[window][index]
            errors = difference_overlay(reference[index], labels, ERRORS.values(), OPACITY)
            ax.imshow(errors, aspect=case.aspect, interpolation="nearest")
            for c in shown:
                _contour(ax, reference[index] == c, "white")
            dice = "" if math.isnan(prediction.dice) else f" {prediction.dice:.3f}"
            ax.set_title(f"{plot_text(prediction.name)}{dice}", fontsize=10)
        for ax in axes[number:]:
            ax.set_axis_off()
    _write_legend(figure, [case.classes[c - 1] for c in shown], [colours[c - 1] for c in shown])
    return figure


def telling_slices(case: Case) -> dict[int, str]:
    """Returns the slice of most classes, and another one of most errors, with what they are; in order."""
    first = busiest_slices(case.reference, 1)[0]
    errors = sum(
        ((p.labels != case.reference).sum(axis=(1, 2)) for p in case.predictions), np.zeros(len(case.reference))
    )
    apart = np.abs(np.arange(len(errors)) - first) >= max(2, len(errors) // 8)
    found = {first: "most classes"}
    if (errors * apart).any():
        found[int(np.argmax(errors * apart))] = "most errors"
    return dict(sorted(found.items()))


def _contour(ax: Axes, mask: npt.NDArray[np.bool_], colour: Any) -> None:
    if mask.any():  # around the pixels: a class at the edge of the picture has a line there, too
        rows, columns = (np.arange(-1, n + 1) for n in mask.shape)
        ax.contour(columns, rows, np.pad(mask, 1).astype(float), levels=[0.5], colors=[colour], linewidths=0.9)
        ax.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


def _write_legend(figure: Figure, classes: Sequence[str], colours: Sequence[Any]) -> None:
    """Writes below the figure what colours are: those of errors, and of the reference's classes."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    lines = [Line2D([], [], color=c, label=plot_text(n)) for c, n in zip(colours, classes, strict=True)]
    patches = [Patch(color=colour, label=kind) for kind, colour in ERRORS.items()]
    width, longest = figure.get_figwidth(), max(map(len, classes), default=1)
    columns = max(1, min(len(lines), int((width - _ERRORS_WIDTH) / (0.65 + 0.085 * longest))))
    rows = max(-(-len(lines) // columns), 1 if columns > 1 else len(patches))
    figure.set_figheight(figure.get_figheight() + 0.35 + 0.2 * rows)
    options: dict[str, Any] = {"frameon": False, "fontsize": 9, "title_fontsize": 9, "alignment": "left"}
    figure.legend(handles=lines, title="reference", loc="outside lower left", ncols=columns, **options)
    options["ncols"] = len(patches) if width > _ERRORS_WIDTH + 3 else 1
    figure.legend(handles=patches, title="errors", loc="outside lower right", **options)
