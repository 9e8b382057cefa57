"""The table that a report opens with: methods, best first, and how far the others are behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_cil.evaluation.results import JOINT, pooled, short
from nnunet_cil.evaluation.tables import Table, best_cells, difference_text, number


def standings_table(rows: Mapping[str, Sequence[Mapping[str, Any]]], to_best: Sequence[Mapping[str, Any]]) -> Table:
    """Returns one line a method: the numbers that a reader looks for first, over all folds.

    Args:
        rows: method -> its entries of ``results.json``, one a fold; the best first.
        to_best: differences of the others to the best.
    """
    behind = {short(d["method"]): d for d in to_best if d["group"] == "all"}
    values, texts = [], []
    for method, folds in rows.items():
        own = pooled(folds)
        values.append([float(own.all[-1]), float(own.old[-1]), own.forgetting, own.new_when_learnt])
        texts.append("" if len(rows) == 1 else difference_text(behind[method]) if method in behind else "best")
    body = [
        [method, number(own[0]), text, *map(number, own[1:])]
        for method, text, own in zip(rows, texts, values, strict=True)
    ]
    rivals = [own for method, own in zip(rows, values, strict=True) if method != short(JOINT)]
    best = {(i, j + (2 if j else 1)) for i, j in best_cells(rivals, smallest=[2])}
    return Table(
        ["method", "all", "behind the best", "old", "forgotten", "new when learnt"], body, best=frozenset(best)
    )
