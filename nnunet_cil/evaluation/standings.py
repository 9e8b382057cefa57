"""The table that a report opens with: methods, best first, and how far the others are behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_cil.evaluation.results import JOINT, pooled, short
from nnunet_cil.evaluation.tables import Table, best_cells, interval_text, number


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
        texts.append("" if len(rows) == 1 else _behind_text(behind.get(method)))
    body = [
        [method, number(own[0]), text, *map(number, own[1:])]
        for method, text, own in zip(rows, texts, values, strict=True)
    ]
    rivals = [own for method, own in zip(rows, values, strict=True) if method != short(JOINT)]
    best = {(i, j + (2 if j else 1)) for i, j in best_cells(rivals, smallest=[2])}
    return Table(
        ["method", "all", "behind the best", "old", "forgotten", "new when learnt"], body, best=frozenset(best)
    )


def _behind_text(d: Mapping[str, Any] | None) -> str:
    """Returns a difference with its interval; of the best, which has none, that it is the best."""
    if d is None:
        return "best"
    interval = interval_text(d["low"], d["high"], is_t=False)
    return f"{d['difference']:+.3f}" + (f" ({interval})" if interval else "")
