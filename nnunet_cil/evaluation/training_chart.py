"""Curves of the loss terms. A term has one colour in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nnunet_cil.evaluation.axes import NARROW, figure_of, legend_of
from nnunet_cil.evaluation.figures import COLOURS, plot_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Terms = Mapping[str, Sequence[float]]
"""Term -> its value at each epoch."""

_FIRST = ("segmentation", "loss")
"""Terms of every method: these have the first colours."""

_DASHES = ("-", "--", ":")


def training_chart(terms: Mapping[str, Mapping[str, Terms | None]], *, narrow: bool = False) -> Figure:
    """Draws every loss term over the epochs: a row a method, a column a training of it.

    Args:
        terms: method -> training, as ``step 0`` or ``fold 3``, -> its terms; None for one that it shares with a method above.
        narrow: for a narrow screen, one below the other, without the empty places.
    """
    drawn = [(f"{name}, {which}", own) for name, trainings in terms.items() for which, own in trainings.items()]
    if narrow:
        drawn = [(title, own) for title, own in drawn if own is not None]
    columns = 1 if narrow else max(map(len, terms.values()))
    rows = -(-len(drawn) // columns)
    width = NARROW if narrow else 3.4 * columns + 0.4
    figure, axes = figure_of(rows, columns, width=width, height=2.1 * rows + 0.5)
    names = dict.fromkeys(name for _, own in drawn for name in own or ())
    order = [name for name in _FIRST if name in names] + [name for name in names if name not in _FIRST]
    styles = {
        name: {"color": _LOSS_COLOURS[i % len(_LOSS_COLOURS)], "ls": _DASHES[i // len(_LOSS_COLOURS) % 3]}
        for i, name in enumerate(order)
    }
    for ax, (title, own) in zip(axes.flat, drawn, strict=False):
        if own is None:
            _blank(ax, f"{title}:\nthe same model as above")
            continue
        for name, values in own.items():
            marker = "o" if len(values) < 3 else None  # a line through one epoch shows nothing
            ax.plot(values, label=plot_text(name), lw=1.5, marker=marker, **styles[name])
        ax.set(title=plot_text(title), xlabel="epoch", ylabel="loss term")
        ax.grid(alpha=0.3)
    for ax in list(axes.flat)[len(drawn) :]:
        ax.set_axis_off()
    handles = {h.get_label(): h for ax in axes.flat for h in ax.get_lines()}
    labels = [plot_text(name) for name in order]
    legend_of(figure, [handles[label] for label in labels], labels)
    return figure


_LOSS_COLOURS = (COLOURS[6], *COLOURS[:4], COLOURS[5], COLOURS[7])
"""Without the yellow, which is too bright for a line."""


def _blank(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, plot_text(text), ha="center", va="center", transform=ax.transAxes, color="0.35")
    ax.set_axis_off()
