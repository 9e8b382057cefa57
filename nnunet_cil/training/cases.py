"""The cases of a fold, checked against the records before a step is trained and before it is validated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_cil.case_hashes import CaseHashes
from nnunet_cil.fold_cases import FoldCases
from nnunet_cil.host.splits import SPLITS_FILE
from nnunet_cil.lineage import StepRecord

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL


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
        cases.check_resumed(known)
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
