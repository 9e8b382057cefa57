"""What the scores of all cases amount to: ``results.json`` and ``summary.md``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from nnunet_cil.evaluation.continual import ContinualScores, continual_scores
from nnunet_cil.evaluation.tables import markdown, matrix_table, schedule_table, step_table

METRICS = ("dice", "hd95_mm", "asd_mm", "nsd")
JOINT = "nnUNetTrainerJoint"

Rows = Mapping[str, Mapping[int | str, Sequence[Sequence[Mapping[str, Any]]]]]
"""Trainer -> fold -> the rows of each step's model."""


def results(rows: Rows, steps: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Trainer -> metric -> one entry a fold: means per class and step, how many were undefined, and the schedule's numbers.

    Intransigence is taken against joint training's last step of the same fold, where it was evaluated too. Forgetting,
    transfer and intransigence are given for scores (Dice, surface Dice), not for distances.
    """
    found: dict[str, Any] = {}
    for trainer, folds in rows.items():
        found[trainer] = {}
        for metric in METRICS:
            per_fold = []
            for fold, per_step in folds.items():
                joint = class_means(rows[JOINT][fold][-1], metric) if JOINT in rows else None
                means = [class_means(r, metric) for r in per_step]
                numbers = _jsonable(continual_scores(means, steps, joint))
                if metric.endswith("_mm"):  # the less the better: what is lost has another sign
                    numbers = {k: numbers[k] for k in ("matrix", "old", "new", "all")}
                missing = [num_missing(r, metric) for r in per_step]
                per_fold.append({"fold": fold, "classes": means, "missing": missing, **numbers})
            found[trainer][metric] = per_fold
    return found


def without_nan(value: Any) -> Any:
    """The same, with None for NaN, which JSON does not know."""
    if isinstance(value, Mapping):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _jsonable(scores: ContinualScores) -> dict[str, Any]:
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in asdict(scores).items()}


def class_means(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """Class -> mean over the cases where the score is defined; NaN where it is nowhere."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["class"], [])
        if not math.isnan(row[metric]):
            values[row["class"]].append(row[metric])
    return {name: sum(v) / len(v) if v else math.nan for name, v in values.items()}


def num_missing(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, int]:
    """Class -> in how many cases the score is undefined."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["class"]] = counts.get(row["class"], 0) + math.isnan(row[metric])
    return counts


def summary(content: Mapping[str, Any]) -> str:
    """Markdown: Dice per step and class, R, and the numbers of the whole schedule; means over folds."""
    steps = content["steps"]
    folds = {t: [f for f in found["dice"]] for t, found in content["trainers"].items()}
    num_folds = max(len(f) for f in folds.values())
    mean = {
        t: [
            {name: float(np.mean([f["classes"][step][name] for f in found])) for name in found[0]["classes"][step]}
            for step in range(len(steps))
        ]
        for t, found in folds.items()
    }
    short = {t: t.removeprefix("nnUNetTrainer") for t in folds}
    lines = [
        f"# {content['schedule']} on {content['dataset']}, {content['configuration']}",
        "",
        f"Mean Dice over the cases ({content['cases']}) and {num_folds} fold{'s' if num_folds > 1 else ''}.",
        "",
        step_table({short[t]: m for t, m in mean.items()}, steps),
        "",
        "## Over the whole schedule",
        "",
        schedule_table({short[t]: found for t, found in folds.items()}),
    ]
    for t, found in folds.items():
        matrix = np.mean([f["matrix"] for f in found], axis=0)
        lines += ["", f"## R of {short[t]}: model after step (row), classes of step (column)", "", matrix_table(matrix)]
    distances = [[short[t], *(_final(content["trainers"][t][metric], metric) for metric in METRICS[1:])] for t in folds]
    lines += [
        "",
        "## Distances after the last step, mean over all classes",
        "",
        markdown(["method", "HD95 mm", "ASD mm", f"NSD at {content['tolerance_mm']:g} mm"], distances),
        "",
    ]
    return "\n".join(lines)


def _final(folds: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The last ``all``, averaged over folds; how many class scores of cases were undefined beside it."""
    value = sum(f["all"][-1] for f in folds) / len(folds)
    missing = sum(sum(f["missing"][-1].values()) for f in folds)
    text = "" if math.isnan(value) else f"{value:.3f}" if metric == "nsd" else f"{value:.2f}"
    return f"{text} ({missing} missing)" if missing else text
