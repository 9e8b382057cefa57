"""The cases of a fold: whether they show the step's classes, and what the records of the trainings say of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from batchgenerators.utilities.file_and_folder_operations import load_pickle

from nnunet_cil.case_hashes import CaseHashes
from nnunet_cil.errors import CILError, few_names
from nnunet_cil.fold_cases import FoldCases
from nnunet_cil.host.preprocessed import PreprocessedCases
from nnunet_cil.host.splits import SPLITS_FILE, Fold, fold_of, remove_cut_off_split
from nnunet_cil.host.training_cases import check_training_cases, unlisted_note
from nnunet_cil.labels import label_text, labelled_classes
from nnunet_cil.lineage import StepRecord
from nnunet_cil.training.data import label_sets

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL


def check_split(trainer: nnUNetTrainerCIL) -> None:
    """Refuses a split that nnU-Net would fail on, or replace by another.

    Raises:
        CILError: says what is wrong with the split, or which preprocessed case is incomplete.
    """
    folder, names = Path(trainer.preprocessed_dataset_folder_base), preprocessed_cases(trainer).names()
    if trainer.local_rank == 0:
        remove_cut_off_split(folder, names)
    fold_of(folder, trainer.fold, names)


def narrowed_split(
    trainer: nnUNetTrainerCIL, training: Sequence[str], validation: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Narrows nnU-Net's training and validation cases to those of the step.

    Raises:
        CILError: none is left of the one or the other.
    """
    fold = Fold(training=tuple(training), validation=tuple(validation))
    own = fold.narrowed(trainer.step_cases, f"Fold {trainer.fold}", f"step {trainer.step_plan.step}")
    return list(own.training), list(own.validation)


def preprocessed_cases(trainer: nnUNetTrainerCIL) -> PreprocessedCases:
    """Returns the cases that a trainer's configuration has, whatever its fold."""
    return PreprocessedCases(
        folder=Path(trainer.preprocessed_dataset_folder),
        configuration=trainer.configuration_name,
        plans_name=str(trainer.plans_manager.plans_name),
    )


def check_shown_classes(trainer: nnUNetTrainerCIL) -> None:
    """Refuses a fold in which no training case shows a class that the step learns; tells which cases are in no fold.

    Raises:
        CILError: names the class and where it is, a case that cannot be read, or one that labels other classes than was planned.
    """
    if trainer.local_rank == 0:
        trainer.do_split()  # writes the split where there is none, before another rank reads a half of it
    trainer.ranks.barrier()
    cases = preprocessed_cases(trainer)
    folder, names = Path(trainer.preprocessed_dataset_folder_base), cases.names()
    training = trainer.pass_cases()
    _refuse_other_labelled_classes(trainer, names)
    _refuse_regions_without_locations(trainer, cases, training[0])
    check_training_cases(trainer.step_plan, folder, trainer.fold, names, cache(cases.labels_in), training)
    if trainer.fold != "all" and (note := unlisted_note(folder, names)):
        trainer.say(note)


def _refuse_other_labelled_classes(trainer: nnUNetTrainerCIL, cases: Sequence[str]) -> None:
    """Refuses cases of which ``labelled_classes`` says something else than when the step was planned, as of new ones."""
    step = trainer.step_plan
    own = cases if step.cases is None else step.cases
    now = labelled_classes(trainer.dataset_json, own, step.evaluated_classes)
    if changed := [case for case in own if now.get(case) != step.labelled.get(case)]:
        raise CILError(
            f"'labelled_classes' in dataset.json of {trainer.plans_manager.dataset_name} says of {few_names(changed)} something "
            f"else than when step {step.step} of {step.schedule} was planned. Restore it, or run 'nnunet_cil plan' (or "
            "'extend') again."
        )


def _refuse_regions_without_locations(trainer: nnUNetTrainerCIL, cases: PreprocessedCases, case: str) -> None:
    """Refuses regions that dataset.json did not name when a case was preprocessed: nnU-Net would sample none of their voxels."""
    step = trainer.step_plan
    if not step.has_regions:
        return
    known = label_sets(load_pickle(str(cases.folder / f"{case}.pkl"))["class_locations"])
    for name in trainer.target_classes:
        label = step.dataset_labels[name]
        if not label_sets([label]) <= known:
            raise CILError(
                f"{cases.folder} was preprocessed before dataset.json named {name!r} ({label_text(label)}), of which nnU-Net "
                f"therefore has no locations to sample. Remove that folder, and preprocess again: '{cases.command}'."
            )


def check_before_training(
    trainer: nnUNetTrainerCIL, earlier: Sequence[StepRecord], *, is_resumed: bool
) -> CaseHashes | None:
    """Refuses a split that has changed since this or an earlier step's training began.

    Args:
        trainer: of a training that begins or goes on.
        earlier: the records of the earlier steps.
        is_resumed: whether it goes on.

    Returns:
        The cases for this step's record; None where the training began before cases were recorded.

    Raises:
        CILError: names the cases.
    """
    cases, known = _fold_cases(trainer), trainer.case_hashes if is_resumed else None
    if known is not None:
        cases.check_resumed(known, Path(trainer.output_folder))
    own = [trainer.step_record()] if is_resumed else []
    for remark in cases.check_against([*earlier, *own]):
        trainer.say(remark)
    return known if is_resumed else cases.hashes


def check_before_validation(trainer: nnUNetTrainerCIL) -> None:
    """Refuses cases that the model was trained on, and says where the split is another than that of the training.

    Raises:
        CILError: names the cases and the step.
    """
    cases, own = _fold_cases(trainer), trainer.step_record()
    for remark in [*cases.check_against((*trainer.lineage, own)), *cases.changes_since(own)]:
        trainer.say(remark)


def _fold_cases(trainer: nnUNetTrainerCIL) -> FoldCases:
    """Returns the cases of the fold as nnU-Net splits them now, narrowed to the step's."""
    split_file = Path(trainer.preprocessed_dataset_folder_base) / SPLITS_FILE
    return FoldCases.of(str(trainer.plans_manager.dataset_name), trainer.fold, *trainer.do_split(), split_file)
