"""The folds of a schedule's data sets: whether every step can be trained in them, and learns its classes from some case."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from nnunet_cil.errors import CILError
from nnunet_cil.host.folders import nnunet_folder
from nnunet_cil.host.raw_dataset import read_raw_if_there
from nnunet_cil.host.splits import fold_of, split_of
from nnunet_cil.host.training_cases import check_training_cases, unlisted_note
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.workflows.plan.preprocessed_data import PreprocessedData

logger = logging.getLogger(__name__)

Folds = Sequence[int | str]


def check_raw_folds(datasets: Iterable[str], folds: Folds) -> None:
    """Refuses folds that data sets are not going to have once they are preprocessed.

    Args:
        datasets: nnU-Net's names; one that is not in nnUNet_raw is left out.
        folds: that are going to be trained.

    Raises:
        CILError: there are too few cases, no such fold, or a split that cannot be used.
    """
    for name in datasets:
        raw = read_raw_if_there(name)
        if raw is None:
            continue
        for fold in folds:
            fold_of(nnunet_folder("nnUNet_preprocessed") / name, fold, list(raw.cases))


def check_folds(steps: Sequence[StepPlan], data: Sequence[PreprocessedData], folds: Folds) -> None:
    """Refuses folds in which a step cannot be trained, or has no training case that shows one of its classes.

    Args:
        steps: all of a schedule's.
        data: the data set of each.
        folds: that are going to be trained.

    Raises:
        CILError: names step, fold and class.
    """
    for fold in folds:
        for step, found in zip(steps, data, strict=True):
            _check_fold(step, found, fold)


def note_folds(steps: Sequence[StepPlan], data: Sequence[PreprocessedData], *, force: bool) -> None:
    """Logs in which folds a step cannot be trained, or learns a class from no case.

    Args:
        steps: all of a schedule's.
        data: the data set of each.
        force: go on where that is so in every fold: fold all has all cases.

    Raises:
        CILError: it is so in every fold, and not forced.
    """
    num_folds = max(1, *(len(split_of(found.folder, found.cases)) for found in data))
    problems = {}
    for fold in range(num_folds):
        try:
            check_folds(steps, data, [fold])
        except CILError as error:
            problems[fold] = str(error)
    if len(problems) == num_folds and not force:
        others = "" if num_folds == 1 else " No other fold can be trained either."
        raise CILError(f"{problems[0]}{others} If you train fold all only, say so with 'nnunet_cil plan ... --force'.")
    for problem in dict.fromkeys(problems.values()):
        logger.info(f"Note: {problem}")


def note_unlisted_cases(data: Iterable[PreprocessedData]) -> None:
    """Logs which cases the split of a data set leaves out."""
    for found in data:
        if note := unlisted_note(found.folder, found.cases):
            logger.info(f"Note: {note}")


def _check_fold(step: StepPlan, found: PreprocessedData, fold: int | str) -> None:
    """Checks every configuration, and names those in which a class is missing if it is not in all of them."""
    problems = {}
    for configuration, present in found.present.items():
        try:
            check_training_cases(step, found.folder, fold, found.cases, present.__getitem__)
        except CILError as error:
            problems[configuration] = str(error)
    if problems:
        where = "" if len(problems) == len(found.present) else f"In {', '.join(problems)}: "
        raise CILError(where + next(iter(problems.values())))
