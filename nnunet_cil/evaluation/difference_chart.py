"""The main figure of a report: how far each method is from the best one, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnunet_cil.evaluation.axes import NARROW, WIDE, Content, Method, figure_of, limits, methods_of
from nnunet_cil.evaluation.figures import plot_text
from nnunet_cil.evaluation.tables import difference_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = {"all": "all classes", "old": "old classes", "new_when_learnt": "new classes, when learnt"}
"""Group of classes -> the title of its panel."""


def difference_chart(content: Content, *, narrow: bool = False) -> Figure:
    """Draws each method's Dice less that of the best, with its interval; one panel a group of classes.

    Args:
        content: as in ``results.json``, of two methods or more.
        narrow: for a narrow screen, one panel below the other.
    """
    methods = methods_of(content)
    found = {(d["group"], d["method"]): d for d in content["differences_to_best"]}
    groups = [group for group in _PANELS if any((group, m.trainer) in found for m in methods)]
    rows, columns = (len(groups), 1) if narrow else (1, len(groups))
    width = NARROW if narrow else 1.4 + (WIDE - 1.4) / len(_PANELS) * columns
    figure, axes = figure_of(rows, columns, width=width, height=(0.46 * len(methods) + 1) * rows, sharey=True)
    for ax, group in zip(axes.flat, groups, strict=True):
        _panel(ax, methods, [found.get((group, method.trainer)) for method in methods])
        ax.set(title=_PANELS[group], xlabel=f"Dice less that of {plot_text(methods[0].name).strip()}")
    axes[0][0].set(yticks=range(len(methods)), yticklabels=[plot_text(m.name) for m in methods])
    axes[0][0].set_ylim(len(methods) - 0.5, -0.6)
    return figure


def _panel(ax: Axes, methods: Sequence[Method], differences: Sequence[Mapping[str, Any] | None]) -> None:
    """Draws a group of classes; methods that are far behind stand at the edge, with their numbers."""
    near = [d for m, d in zip(methods, differences, strict=True) if d is not None and not m.is_far]
    low, high = limits([0.0, *(d[key] for d in near for key in ("difference", "low", "high"))], within=(-1.0, 1.0))
    ax.set_xlim(low, high)
    ax.axvline(0, color="black", lw=0.8)
    for place, (method, d) in enumerate(zip(methods, differences, strict=True)):
        if d is None:
            ax.plot(0, place, **{**method.style, "ls": ""}, ms=7)
            continue
        is_clear = d["low"] > 0 or d["high"] < 0
        text = difference_text(d)
        if d["difference"] < low:
            ax.text(0.01, place, f"◂ {text}", transform=ax.get_yaxis_transform(), fontsize=8, va="center")
            continue
        if not math.isnan(d["low"]):
            ax.plot([d["low"], d["high"]], [place, place], color=method.style["color"], lw=1.8, zorder=2)
        fill = method.style["color"] if is_clear else "white"
        ax.plot(d["difference"], place, **{**method.style, "ls": ""}, ms=7, mfc=fill, mew=1.6, zorder=3)
        middle = min(max((d["difference"] - low) / (high - low), 0.27), 0.73)
        _write(ax, middle, place - 0.2, text)
    ax.locator_params(axis="x", nbins=5)
    ax.grid(alpha=0.3, axis="x")
    ax.tick_params(axis="y", length=0)


def _write(ax: Axes, x: float, y: float, text: str) -> None:
    """Writes text above a line, on white, at a place that is a share of the axis."""
    box: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    ax.text(x, y, text, transform=ax.get_yaxis_transform(), fontsize=8, ha="center", va="bottom", bbox=box)
