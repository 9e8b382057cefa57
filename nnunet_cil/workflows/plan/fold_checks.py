"""The folds of a schedule's data sets: whether every step can be trained in them, and learns its classes from some case."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nnunet_cil.errors import CILError
from nnunet_cil.host.folders import nnunet_folder
from nnunet_cil.host.raw_dataset import read_raw_if_there
from nnunet_cil.host.splits import fold_of, refuse_few_cases, split_of
from nnunet_cil.host.training_cases import check_training_cases, unlisted_note
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.workflows.plan.preprocessed_data import PreprocessedData

logger = logging.getLogger(__name__)

Folds = Sequence[int | str]

_FORCE = " If you train fold all only, say so with 'nnunet_cil plan ... --force'."


def check_raw_folds(datasets: Iterable[str], folds: Folds) -> None:
    """Refuses folds that data sets are not going to have once they are preprocessed.

    Args:
        datasets: nnU-Net's names; one that is not in nnUNet_raw is left out.
        folds: that are going to be trained.

    Raises:
        CILError: there are too few cases, no such fold, or a split that cannot be used.
    """
    for folder, cases in _raw_cases(datasets):
        for fold in folds:
            fold_of(folder, fold, cases)


def check_raw_splits(datasets: Iterable[str]) -> None:
    """Refuses data sets that are not going to have folds once they are preprocessed; otherwise as ``check_raw_folds``."""
    for folder, cases in _raw_cases(datasets):
        if not split_of(folder, cases):
            refuse_few_cases(folder, len(cases), _FORCE)


def _raw_cases(datasets: Iterable[str]) -> Iterator[tuple[Path, list[str]]]:
    """Yields the preprocessed folder, which need not be there yet, and the raw cases of each data set in nnUNet_raw."""
    for name in datasets:
        raw = read_raw_if_there(name)
        if raw is not None:
            yield nnunet_folder("nnUNet_preprocessed") / name, list(raw.cases)


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


def note_folds(steps: Sequence[StepPlan], data: Sequence[PreprocessedData], *, force: bool) -> Folds:
    """Logs in which folds a step cannot be trained, or learns a class from no case; fold all has all cases.

    Args:
        steps: all of a schedule's.
        data: the data set of each.
        force: go on where a data set has too few cases for nnU-Net's split.

    Returns:
        The folds in which every step can be trained; all where there is no other.

    Raises:
        CILError: a data set has too few cases, and it is not forced; or a split cannot be used.
    """
    num_folds = [len(split_of(found.folder, found.cases)) for found in data]
    for number, found in zip(num_folds, data, strict=True):
        if number == 0 and not force:
            refuse_few_cases(found.folder, len(found.cases), _FORCE)
    problems = {}
    for fold in range(max(num_folds)):
        try:
            check_folds(steps, data, [fold])
        except CILError as error:
            problems[fold] = str(error)
    for problem in dict.fromkeys(problems.values()):
        logger.info(f"Note: {problem}")
    if problems and len(problems) == max(num_folds):
        logger.info("Note: No fold can be trained as it is, except all.")
    return [fold for fold in range(max(num_folds)) if fold not in problems] or ["all"]


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
            check_training_cases(step, found.folder, fold, list(present), present.__getitem__)
        except CILError as error:
            problems[configuration] = str(error)
    if problems:
        where = "" if len(problems) == len(found.present) else f"In {', '.join(problems)}: "
        raise CILError(where + next(iter(problems.values())))
