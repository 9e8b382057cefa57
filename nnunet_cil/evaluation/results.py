"""The content of ``results.json``: means over the cases of the table of scores, and the numbers of whole schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_cil.evaluation.continual import ContinualScores, continual_scores, mean
from nnunet_cil.evaluation.scores import METRICS, class_means, num_missing, rows_of

if TYPE_CHECKING:
    from pandas import DataFrame

JOINT = "nnUNetTrainerJoint"


def results(table: DataFrame, steps: Sequence[Sequence[str]], metrics: Sequence[str] = METRICS) -> dict[str, Any]:
    """Returns trainer -> metric -> one entry a fold: means per class and step, how many are undefined, the schedule's numbers.

    Intransigence is taken against joint training's last step of the same fold, where it was evaluated too. Forgetting,
    transfer and intransigence are given for scores (Dice, surface Dice), not for distances.

    Args:
        table: scores of every trainer's model of every step, as ``by_trainer`` gives them.
        steps: the classes of each step.
        metrics: columns of the table.
    """
    return {
        trainer: {
            metric: [
                _fold_results(table, trainer, fold, metric, steps)
                for fold in rows_of(table, trainer=trainer)["fold"].unique().tolist()
            ]
            for metric in metrics
        }
        for trainer in table["trainer"].unique()
    }


def _fold_results(
    table: DataFrame, trainer: str, fold: int | str, metric: str, steps: Sequence[Sequence[str]]
) -> dict[str, Any]:
    own = rows_of(table, trainer=trainer, fold=fold)
    per_step = [rows_of(own, step=step) for step in range(len(steps))]
    seen = [[name for classes in steps[: step + 1] for name in classes] for step in range(len(steps))]
    means = [_means_of(names, rows, metric) for names, rows in zip(seen, per_step, strict=True)]
    joint = rows_of(table, trainer=JOINT, fold=fold, step=len(steps) - 1)
    scores = asdict(continual_scores(means, steps, None if joint.empty else _means_of(seen[-1], joint, metric)))
    numbers = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in scores.items()}
    if metric.endswith("_mm"):  # the less the better: what is lost has another sign
        numbers = {name: numbers[name] for name in ("matrix", "old", "new", "all", "new_when_learnt")}
    missing = [num_missing(rows, metric) for rows in per_step]
    return {"fold": fold, "classes": means, "missing": missing, **numbers}


def _means_of(names: Sequence[str], rows: DataFrame, metric: str) -> dict[str, float]:
    """Returns class -> mean over the cases that label it; NaN where no case does."""
    return {**dict.fromkeys(names, math.nan), **class_means(rows, metric)}


def without_nan(value: Any) -> Any:
    """Returns the same with None for NaN, which JSON does not know."""
    if isinstance(value, Mapping):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def short(trainer: str) -> str:
    """Returns a trainer's name in tables and figures."""
    return trainer.removeprefix("nnUNetTrainer")


def ranked(trainers: Mapping[str, Any]) -> list[str]:
    """Returns trainers by their mean Dice over all classes after the last step, best first.

    Joint training comes last: it has the labels of all classes at once, so it is no rival but a reference.

    Args:
        trainers: as in ``results.json``.
    """

    def place(trainer: str) -> tuple[bool, float]:
        dice = last_mean(trainers[trainer]["dice"], "all")
        return trainer == JOINT, math.inf if math.isnan(dice) else -dice

    return sorted(trainers, key=place)


def last_mean(folds: Sequence[Mapping[str, Any]], group: str) -> float:
    """Returns ``old``, ``new`` or ``all`` after the last step, over all folds."""
    return float(getattr(pooled(folds), group)[-1])


def dice_of(content: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Returns trainer (short) -> the results with Dice, one entry a fold; the best trainer first."""
    return {short(t): content["trainers"][t]["dice"] for t in ranked(content["trainers"])}


def lost(per_step: Sequence[Mapping[str, float]], name: str) -> float:
    """Returns the best Dice that a class ever had less its last."""
    values = [scores[name] for scores in per_step if name in scores]
    return float(np.fmax.reduce(values)) - values[-1]


def fold_mean(folds: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
    """Returns class -> score of the step's model, mean over folds."""
    return {name: mean(f["classes"][step][name] for f in folds) for name in folds[0]["classes"][step]}


def pooled(folds: Sequence[Mapping[str, Any]]) -> ContinualScores:
    """Returns the numbers of all folds: each class is averaged over them first, so that one which a fold lacks counts alike.

    Forgetting takes a maximum, and intransigence the fold's joint model: these two are means over folds.

    Args:
        folds: entries of ``results.json``, one at least.
    """
    known = [fold_mean(folds, step) for step in range(len(folds[0]["classes"]))]
    steps = [[n for n in own if n not in before] for before, own in zip([{}, *known], known, strict=False)]
    forgetting, intransigence = (mean(f.get(name, math.nan) for f in folds) for name in ("forgetting", "intransigence"))
    return replace(continual_scores(known, steps), forgetting=forgetting, intransigence=intransigence)
