"""A plot of the loss terms over the epochs, beside nnU-Net's progress.png."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def plot_terms(terms: Mapping[str, Sequence[float]], file: Path) -> None:
    """One curve a term (its weighted contribution to the loss), over epochs."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context("default"):  # nnU-Net sets fonts of its own, for figures four times as large
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.add_subplot()
        for name, values in terms.items():
            axes.plot(range(len(values)), values, label=name, marker="o" if len(values) < 3 else None)
        axes.set(xlabel="epoch", ylabel="weighted loss term", title="Loss terms (training, mean of the epoch)")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(file, dpi=100)
