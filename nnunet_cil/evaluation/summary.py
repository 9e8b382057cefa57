"""What the scores of all cases amount to: ``results.json`` and ``summary.md``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.evaluation.continual import ContinualScores, continual_scores, mean
from nnunet_cil.evaluation.significance import SIGNIFICANCE_TEXT
from nnunet_cil.evaluation.tables import Table, deviation, matrix_table, schedule_table, step_table

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


@dataclass(frozen=True)
class Section:
    """A table, what it is, and how to read it."""

    title: str
    text: str
    table: Table

    def markdown(self) -> str:
        """With a heading."""
        return "\n\n".join(part for part in (f"## {self.title}", self.text, self.table.markdown()) if part)


def summary(content: Mapping[str, Any]) -> str:
    """Markdown of everything in ``results.json`` that one would read."""
    return (
        "\n\n".join([f"# {title(content)}", *(s.markdown() for s in [*overview(content), *matrices(content)])]) + "\n"
    )


def latex(content: Mapping[str, Any]) -> str:
    """For a paper: Dice after the last step (mean and standard deviation over folds), and the schedule's numbers."""
    classes = [name for names in content["steps"] for name in names]
    groups = ["old", "new", "all"]
    body = []
    for name, folds in dice_of(content).items():
        values = [[f["classes"][-1][c] for f in folds] for c in classes] + [[f[g][-1] for f in folds] for g in groups]
        body.append([name, *map(deviation, values)])
    last = Table(["method", *classes, *groups], body).latex(f"Dice after the last step of {title(content)}.")
    return f"{last}\n{schedule_table(dice_of(content)).latex(f'The whole schedule of {title(content)}.')}"


def title(content: Mapping[str, Any]) -> str:
    """What was scored."""
    return f"{content['schedule']} on {content['dataset']}, {content['configuration']}"


def overview(content: Mapping[str, Any]) -> list[Section]:
    """Dice per step and class, the numbers of the whole schedule, distances, and what is significant."""
    steps = content["steps"]
    dice = dice_of(content)
    folds = len(next(iter(dice.values())))
    which = f"Mean Dice over the cases ({Path(content['cases']).name}) and {folds} fold{'s' if folds > 1 else ''}."
    per_step = {t: [fold_mean(found, step) for step in range(len(steps))] for t, found in dice.items()}
    groups = {t: [_group_means(found, step) for step in range(len(steps))] for t, found in dice.items()}
    tolerance = f"NSD at {content['tolerance_mm']:g} mm"
    distances = [
        [short(t), *(_final(found[metric], metric) for metric in METRICS[1:])]
        for t, found in content["trainers"].items()
    ]
    sections = [
        Section("After each step", which, step_table(per_step, steps, groups)),
        Section("Over the whole schedule", _SCHEDULE_TEXT, schedule_table(dice)),
        Section(
            "Distances after the last step",
            "Mean over all classes; where one of prediction and truth lacks a class there is no distance (missing).",
            Table(["method", "HD95 mm", "ASD mm", tolerance], distances),
        ),
    ]
    if content["significance"]:
        sections.append(Section("Is the difference more than chance?", SIGNIFICANCE_TEXT, _significance(content)))
    return sections


_SCHEDULE_TEXT = (
    "Forgetting: best score of a step's classes less their last, the smaller the better. Backward transfer: last less "
    "first. Intransigence: joint training's score less the first, where joint training was evaluated too."
)


def matrices(content: Mapping[str, Any]) -> list[Section]:
    """R of every trainer, mean over folds."""
    return [
        Section(f"R of {t}", "Model after step (row), classes of step (column).", matrix_table(mean_matrix(found)))
        for t, found in dice_of(content).items()
    ]


def short(trainer: str) -> str:
    """A trainer's name in tables and figures."""
    return trainer.removeprefix("nnUNetTrainer")


def dice_of(content: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Trainer (short) -> what was found with Dice, one entry a fold."""
    return {short(t): found["dice"] for t, found in content["trainers"].items()}


def fold_mean(folds: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
    """Class -> score of the step's model, mean over folds."""
    return {name: mean(f["classes"][step][name] for f in folds) for name in folds[0]["classes"][step]}


def _group_means(folds: Sequence[Mapping[str, Any]], step: int) -> tuple[float, float, float]:
    """Old, new and all of the step's model, mean over folds."""
    old, new, seen = (mean(f[group][step] for f in folds) for group in ("old", "new", "all"))
    return old, new, seen


def mean_matrix(folds: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float64]:
    """R, mean over folds."""
    return np.apply_along_axis(mean, 0, np.array([f["matrix"] for f in folds], dtype=np.float64))


def _significance(content: Mapping[str, Any]) -> Table:
    body = [
        [
            c["group"],
            f"{short(c['method'])} - {short(c['other'])}",
            str(c["num_cases"]),
            f"{c['median_difference']:+.3f}",
            *(f"{c[p]:.2g}" for p in ("p", "p_corrected")),
        ]
        for c in content["significance"]
    ]
    return Table(["classes", "difference", "cases", "median", "p", "p corrected"], body)


def _final(folds: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The last ``all``, averaged over folds; how many class scores of cases were undefined beside it."""
    value = mean(f["all"][-1] for f in folds)
    missing = sum(sum(f["missing"][-1].values()) for f in folds)
    text = "" if math.isnan(value) else f"{value:.3f}" if metric == "nsd" else f"{value:.2f}"
    return f"{text} ({missing} missing)" if missing else text
