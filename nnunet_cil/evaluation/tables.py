"""Dice of classes, step by step, as a text table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Scores = Mapping[str, float]
"""Class -> mean Dice; a class that the model does not know is missing."""


def group_means(scores: Scores, old: Sequence[str], new: Sequence[str]) -> tuple[float, float, float]:
    """Mean over the old, the new and all seen foreground classes; NaN for an empty group."""

    def mean(names: Sequence[str]) -> float:
        values = [scores[n] for n in names if not math.isnan(scores[n])]
        return sum(values) / len(values) if values else math.nan

    return mean(old), mean(new), mean([*old, *new])


def step_table(rows: Mapping[str, Sequence[Scores]], steps: Sequence[Sequence[str]]) -> str:
    """Markdown: one line a method and step; blank where a class is not learnt yet.

    Args:
        rows: method -> scores after each step.
        steps: the classes of each step.
    """
    classes = [name for names in steps for name in names]
    header = ["step", "method", *classes, "old", "new", "all"]
    body = []
    for index in range(len(steps)):
        old = [name for names in steps[:index] for name in names]
        for method, per_step in rows.items():
            scores = per_step[index]
            groups = group_means(scores, old, steps[index])
            body.append(
                [str(index), method, *(_number(scores.get(name, math.nan)) for name in classes), *map(_number, groups)]
            )
    widths = [max(len(row[i]) for row in [header, *body]) for i in range(len(header))]
    lines = [" | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in [header, *body]]
    rule = "-|-".join("-" * w for w in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
