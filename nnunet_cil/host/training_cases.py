"""The classes that a fold's training cases show: a step learns nothing of a class that only other cases show."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from nnunet_cil.errors import CILError, few_names
from nnunet_cil.host.splits import SPLITS_FILE, Fold, fold_of, unlisted_cases
from nnunet_cil.labels import label_text, numbers_in
from nnunet_cil.step_plans import StepPlan

LabelsIn = Callable[[str], Collection[int]]
"""case -> the data set's labels that its segmentation holds."""


def check_training_cases(
    step: StepPlan,
    folder: Path,
    fold: int | str,
    cases: Sequence[str],
    labels_in: LabelsIn,
    training: Sequence[str] | None = None,
) -> None:
    """Refuses a fold in which no training case shows a class that the step learns. Reads cases until all classes are found.

    Args:
        step: what is learnt.
        folder: the preprocessed data set; need not be there yet.
        fold: nnU-Net's.
        cases: all training cases of the data set.
        labels_in: see ``LabelsIn``.
        training: the cases from which the trainer learns the step's classes; None for the fold's among those of the step.

    Raises:
        CILError: names the class and where it is; or the split has no such fold, or none for the step's cases.
    """
    own = fold_of(folder, fold, cases)
    if training is None:
        training = own.narrowed(step.cases, f"Fold {fold} of {folder.name}", f"step {step.step}").training
    for name in step.target_classes:
        if not any(_shows(step, case, name, labels_in) for case in training):
            elsewhere = [c for c in cases if c not in set(training) and _shows(step, c, name, labels_in)]
            raise CILError(_explanation(step, folder, fold, name, own, elsewhere))


def _shows(step: StepPlan, case: str, name: str, labels_in: LabelsIn) -> bool:
    return name in step.target_classes_in(case) and not set(numbers_in(step.dataset_labels[name])).isdisjoint(
        labels_in(case)
    )


def _explanation(step: StepPlan, folder: Path, fold: int | str, name: str, own: Fold, elsewhere: Sequence[str]) -> str:
    """Says which cases show a class that the fold's training cases do not, and what to do."""
    which = f"{name!r} ({label_text(step.dataset_labels[name])})"
    if not elsewhere:
        return (
            f"No case of {folder.name} has {which}: there is nothing to learn it from in step {step.step} of {step.schedule}. "
            "Add cases that are labelled with it, or leave it out of the step."
        )
    file = folder / SPLITS_FILE
    foreign = [c for c in elsewhere if step.cases is not None and c not in step.cases]
    unlisted = sorted(set(elsewhere) & set(unlisted_cases(folder, elsewhere)) - set(foreign)) if fold != "all" else []
    validation = [c for c in elsewhere if c in own.validation and c not in foreign]
    others = [c for c in elsewhere if c not in (*foreign, *unlisted, *validation)]
    groups = {
        "validation cases": validation,
        f"cases that {SPLITS_FILE} does not list": unlisted,
        "cases that the fold leaves out": others,
        "cases of other steps": foreign,
    }
    where = " and ".join(f"{group} ({few_names(names)})" for group, names in groups.items() if names)
    if unlisted:
        remedy = f"Add them to the folds in {file}."
    elif validation or others:
        change = (
            "make one of them a training case" if file.exists() else "write a split of your own with one for training"
        )
        remedy = f"Train another fold or fold all, or {change} in {file}."
    else:
        remedy = "Use another fold, fewer steps or shared cases."
    return (
        f"Step {step.step} of {step.schedule} learns {which}, but no training case of fold {fold} of {folder.name} shows it, "
        f"only {where}. {remedy}"
    )


def unlisted_note(folder: Path, cases: Collection[str]) -> str | None:
    """Returns a note on cases that the data set's own split leaves out in every fold; None where there are none."""
    unlisted = unlisted_cases(folder, cases)
    if not unlisted:
        return None
    return (
        f"{folder / SPLITS_FILE} does not list {len(unlisted)} of the {len(cases)} cases ({few_names(unlisted)}): they are in no "
        "fold. Add them there if they are to be used."
    )
