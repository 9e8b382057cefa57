"""Scores of a sequence of models: the matrix R, and the numbers of keeping and forgetting drawn from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ContinualScores:
    """Numbers of one method on one schedule; all in the unit of the scores, NaN where undefined.

    Attributes:
        matrix: R (steps, steps): row i, the model after step i; column j, mean over the classes of step j; NaN for j > i.
        old: (steps,) mean over the old classes after each step; NaN at step 0.
        new: (steps,) over the step's own classes.
        all: (steps,) over all seen classes.
        new_when_learnt: mean over the classes of all steps but the first, each after its own step; NaN with one step.
        average_incremental: mean of ``all`` over the steps.
        forgetting: mean over earlier steps of the best score a step's classes ever had less their last.
        backward_transfer: mean over earlier steps of the last score less the first.
        intransigence: mean over the steps of joint training's score less the first; NaN without a joint model.
    """

    matrix: Matrix
    old: Matrix
    new: Matrix
    all: Matrix
    new_when_learnt: float
    average_incremental: float
    forgetting: float
    backward_transfer: float
    intransigence: float


def score_matrix(scores: Sequence[Mapping[str, float]], steps: Sequence[Sequence[str]]) -> Matrix:
    """Returns R: R[i][j] is the mean over the classes of step j of the score of the model after step i; NaN for j > i.

    Args:
        scores: class -> score, for the model after each step. A class whose score is NaN (no case has it) does not count.
        steps: the classes of each step.

    Returns:
        (steps, steps) float64.
    """
    matrix = np.full((len(steps), len(steps)), math.nan)
    for i, known in enumerate(scores):
        for j, classes in enumerate(steps[: i + 1]):
            matrix[i, j] = mean([known[name] for name in classes])
    return matrix


def continual_scores(
    scores: Sequence[Mapping[str, float]],
    steps: Sequence[Sequence[str]],
    joint: Mapping[str, float] | None = None,
) -> ContinualScores:
    """Returns everything that is drawn from the scores of a finished schedule.

    Args:
        scores: class -> score, for the model after each step; one for every step.
        steps: the classes of each step.
        joint: class -> score of a model that was trained on all labels.

    Raises:
        ValueError: a step without scores.
    """
    if len(scores) != len(steps):
        raise ValueError(f"There are scores of {len(scores)} steps, but the schedule has {len(steps)}.")
    matrix = score_matrix(scores, steps)
    groups = [([n for c in steps[:i] for n in c], list(steps[i])) for i in range(len(steps))]
    old, new, seen = (
        np.array([mean([known[n] for n in pick(*group)]) for known, group in zip(scores, groups, strict=True)])
        for pick in (lambda a, _b: a, lambda _a, b: b, lambda a, b: [*a, *b])
    )
    first, last = np.diagonal(matrix)[:-1], matrix[-1, :-1]
    # a score above the diagonal is NaN by definition, so the best is over the models that know the class
    best = np.array([_largest(matrix[j:, j]) for j in range(len(steps) - 1)])
    reference = [mean([joint[n] for n in classes]) for classes in steps] if joint is not None else []
    return ContinualScores(
        matrix=matrix,
        old=old,
        new=new,
        all=seen,
        new_when_learnt=mean(known[n] for known, names in list(zip(scores, steps, strict=True))[1:] for n in names),
        average_incremental=mean(seen),
        forgetting=mean(best - last),
        backward_transfer=mean(last - first),
        intransigence=mean(np.array(reference) - np.diagonal(matrix)) if reference else math.nan,
    )


def mean(values: Iterable[float]) -> float:
    """Returns the mean of the values that are not NaN; NaN where there is none."""
    defined = [float(v) for v in values if not math.isnan(v)]
    return sum(defined) / len(defined) if defined else math.nan


def _largest(values: Matrix) -> float:
    defined = [float(v) for v in values if not math.isnan(v)]
    return max(defined, default=math.nan)
