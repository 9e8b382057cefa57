"""Scores as tables, in Markdown and in LaTeX."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.evaluation.continual import mean
from nnunet_cil.evaluation.differences import GROUPS
from nnunet_cil.evaluation.results import short
from nnunet_cil.names import markdown_text

Scores = Mapping[str, float]
"""Class -> mean Dice; a class that the model does not know is missing."""

Groups = tuple[float, float, float]
"""old, new, all."""


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{
        character: f"{{{character}}}" for character in "[]"
    },  # a row that begins with one would be an option of the line break
    **{"|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}"},
}


def latex_text(text: str) -> str:
    """Returns text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in text)


@dataclass(frozen=True)
class Table:
    """A table whose cells are plain text.

    Attributes:
        header: names of the columns.
        body: rows, each as long as ``header``.
        num_labels: how many columns, from the left, name a row; the others hold numbers.
        best: (row, column) of the cells that are set off from the others; not in Markdown, which is read as it is.
    """

    header: Sequence[str]
    body: Sequence[Sequence[str]]
    num_labels: int = 1
    best: frozenset[tuple[int, int]] = frozenset()

    def markdown(self) -> str:
        """Returns it with columns that line up."""
        rows = [[markdown_text(cell) for cell in row] for row in (self.header, *self.body)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.header))]
        lines = [" | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
        rule = "-|-".join("-" * w for w in widths)
        return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])

    def latex(self, caption: str) -> str:
        """Returns a table environment; it needs the LaTeX package booktabs."""
        import pandas

        def cell(text: str, row: int, column: int) -> str:
            return rf"\textbf{{{latex_text(text)}}}" if (row, column) in self.best else latex_text(text)

        body = [[cell(text, i, j) for j, text in enumerate(row)] for i, row in enumerate(self.body)]
        frame = pandas.DataFrame(body, columns=[latex_text(cell) for cell in self.header])
        text: str = frame.to_latex(index=False, escape=False, caption=latex_text(caption))
        return text


def group_means(scores: Scores, old: Sequence[str], new: Sequence[str]) -> Groups:
    """Returns the mean over the old, the new and all seen foreground classes; NaN for an empty group."""
    first, second, both = (mean(scores[name] for name in names) for names in (old, new, [*old, *new]))
    return first, second, both


def step_table(
    rows: Mapping[str, Sequence[Scores]],
    steps: Sequence[Sequence[str]],
) -> Table:
    """Returns one line a method and step; blank where a class is not learnt yet.

    Methods that all have the same scores at a step, as those that continue from one initial model, share its line.

    Args:
        rows: method -> scores after each step.
        steps: the classes of each step.
    """
    classes = [name for names in steps for name in names]
    header = ["step", "method", *classes, "old", "new", "all"]
    body: list[list[str]] = []
    best: set[tuple[int, int]] = set()
    for index in range(len(steps)):
        old = [name for names in steps[:index] for name in names]
        values = {
            method: [
                *(per_step[index].get(name, math.nan) for name in classes),
                *group_means(per_step[index], old, steps[index]),
            ]
            for method, per_step in rows.items()
        }
        if len(values) > 1 and len({str(own) for own in values.values()}) == 1:
            values = {"both" if len(values) == 2 else f"all {len(values)}": next(iter(values.values()))}
        best |= best_cells(list(values.values()), row=len(body), column=2)
        body += [[str(index), method, *map(number, own)] for method, own in values.items()]
    return Table(header, body, num_labels=2, best=frozenset(best))


def best_cells(
    values: Sequence[Sequence[float]], *, row: int = 0, column: int = 0, smallest: Sequence[int] = ()
) -> set[tuple[int, int]]:
    """Returns (row, column) of the largest value of each column, as it is printed; none where there is one row or all are alike.

    Args:
        values: (rows, columns).
        row: of the first value in its table.
        column: of the first value in its table.
        smallest: columns whose smallest value is the best.
    """
    found = set()
    for j, own in enumerate(zip(*values, strict=True)):
        rounded = [round(-value if j in smallest else value, 3) for value in own]
        known = {value for value in rounded if not math.isnan(value)}
        if len(known) > 1:
            found |= {(row + i, column + j) for i, value in enumerate(rounded) if value == max(known)}
    return found


SCHEDULE_NUMBERS = {
    "new_when_learnt": "new (when learnt)",
    "average_incremental": "average incremental",
    "forgetting": "forgetting",
    "backward_transfer": "backward transfer",
    "intransigence": "intransigence",
}


def schedule_table(rows: Mapping[str, tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]) -> Table:
    """Returns one line a method; over all folds, and smallest to largest where there are several.

    Args:
        rows: method -> its numbers over all folds, then those of each fold, by the names of ``continual.ContinualScores``.
    """
    groups = ["old", "all"]
    header = ["method", *(f"{g} (last step)" for g in groups), *SCHEDULE_NUMBERS.values()]
    body = []
    for method, (own, folds) in rows.items():
        cells = [spread(own[g][-1], [f[g][-1] for f in folds]) for g in groups]
        cells += [spread(own[n], [f.get(n, math.nan) for f in folds]) for n in SCHEDULE_NUMBERS]
        body.append([method, *cells])
    return Table(header, body)


def costs_table(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Returns one line a method, mean over the folds; blank where a time was not recorded.

    Args:
        rows: method -> the costs of each fold, as in ``results.json``.
    """
    body = []
    for method, folds in rows.items():
        hours = [sum(f["training_seconds"][1:]) / 3600 if len(f["training_seconds"]) > 1 else math.nan for f in folds]
        seconds = mean(f["prediction_seconds"] for f in folds)
        size = mean(f["num_parameters"] / 1e6 for f in folds)
        body.append([method, digits(size), digits(mean(hours)), "" if math.isnan(seconds) else f"{seconds:.1f}"])
    return Table(["method", "million parameters", "training, h", "prediction, s a case"], body)


def differences_table(differences: Sequence[Mapping[str, Any]]) -> Table:
    """Returns one line a difference, as in ``results.json``."""
    body = [
        [
            GROUPS[d["group"]],
            pair_text(d),
            f"{d['difference']:+.3f}",
            _interval_cell(d),
            p_text(d["p"]),
            "primary" if d["is_primary"] else p_text(d["p_corrected"]),
            *(str(d[key]) for key in ("num_trainings", "num_cases", "num_left_out")),
        ]
        for d in differences
    ]
    header = ["classes", "difference", "mean", "interval", "p", "p corrected", "trainings", "cases", "left out"]
    return Table(header, body, num_labels=2)


def _interval_cell(d: Mapping[str, Any]) -> str:
    if d["over"] == "nothing":
        return "none: a data set has 1 training"
    return interval_text(d["low"], d["high"], is_t=d["interval"] == "t")


def pair_text(difference: Mapping[str, Any]) -> str:
    """Names the two methods of a difference."""
    return f"{short(difference['method'])} - {short(difference['other'])}"


def matrix_table(matrix: npt.NDArray[np.float64]) -> Table:
    """Returns R; blank above the diagonal."""
    header = ["", *(f"step {j}" for j in range(len(matrix)))]
    return Table(header, [[f"step {i}", *map(number, row)] for i, row in enumerate(matrix.tolist())])


def spread(value: float, values: Sequence[float]) -> str:
    """Returns what all folds have, and the smallest to largest of them where there are several; blank where it is NaN."""
    known = [own for own in values if not math.isnan(own)]
    text = number(value)
    return f"{text} ({min(known):.3f} to {max(known):.3f})" if len(known) > 1 else text


def deviation(value: float, values: Sequence[float]) -> str:
    """Returns what all folds have, and their standard deviation where there are several; blank where it is NaN."""
    known = [own for own in values if not math.isnan(own)]
    text = number(value)
    return f"{text} ± {statistics.stdev(known):.3f}" if len(known) > 1 else text


def number(value: float) -> str:
    """Returns a number with three digits; blank for NaN."""
    return "" if math.isnan(value) else f"{value:.3f}"


def digits(value: float) -> str:
    """Returns a number of any size with three digits; blank for NaN."""
    return "" if math.isnan(value) else f"{value:.3g}"


def interval_text(low: float, high: float, *, is_t: bool) -> str:
    """Returns an interval of differences, marked if it is a t interval; blank where it is unknown."""
    return "" if math.isnan(low) else f"{low:+.3f} to {high:+.3f}{' (t)' if is_t else ''}"


def difference_text(difference: Mapping[str, Any]) -> str:
    """Returns a difference, with its interval where that is known."""
    interval = interval_text(difference["low"], difference["high"], is_t=False)
    return f"{difference['difference']:+.3f}" + (f" ({interval})" if interval else "")


def p_text(p: float) -> str:
    """Returns a p value; blank where it is unknown."""
    return "" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001"
