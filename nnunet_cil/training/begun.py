"""The hyper-parameters of a training: as its plans set them, and of one that goes on, as it began."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_cil.errors import CILError
from nnunet_cil.lineage import StepRecord
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.training import hyperparameters

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL


def take_planned(trainer: nnUNetTrainerCIL, step: StepPlan, folder: Path) -> CILError | None:
    """Sets what the plans set, as far as the trainer takes it.

    Args:
        trainer: of the step.
        step: of the plans.
        folder: of the fold.

    Returns:
        Why no training may begin with the rest; one that has begun keeps the values of its time.

    Raises:
        CILError: the same, where none has begun.
    """
    hyperparameters.set_values(trainer, hyperparameters.taken(type(trainer), step.hyperparameters))
    try:
        trainer.check_hyperparameters(step.hyperparameters, f"Schedule {step.schedule}")
    except CILError as refusal:
        if not any(folder.glob("checkpoint_*.pth")):
            raise
        return refusal
    return None


def take_recorded(trainer: nnUNetTrainerCIL, record: StepRecord) -> CILError | None:
    """Sets the values with which an unfinished training began, and says so in its log.

    Args:
        trainer: with what its plans set.
        record: of the training.

    Returns:
        Why it cannot go on, where a value that its plans set is not to be had.
    """
    planned, began_with = trainer.step_plan.hyperparameters, record.hyperparameters
    chosen = hyperparameters.taken(type(trainer), planned)
    if changed := hyperparameters.restore(trainer, began_with, chosen):
        told = ", ".join(f"{name} {value}" for name, value in changed.items())
        trainer.print_to_log_file(
            f"The training began with other values than today's defaults, and goes on with them: {told}"
        )
    held = vars(hyperparameters.settings(trainer))
    for name in sorted(planned.keys() - chosen.keys()):
        if name not in held or began_with.get(name) != held[name]:
            return CILError(
                f"The training in {trainer.output_folder} began with {name} {planned[name]!r}, which {type(trainer).__name__} "
                f"does not take any more. Remove that folder, take {name} out of the schedule, run 'nnunet_cil plan' and train "
                "the step again."
            )
    return None
