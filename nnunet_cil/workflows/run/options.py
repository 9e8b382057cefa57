"""The options of ``nnunet_cil run`` about training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_cil.errors import CILError
from nnunet_cil.limits import MAX_GPUS, MAX_STEP, check_device, check_whole_number
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.model_fold import StepModel


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Which of an experiment's models are trained, and how.

    Attributes:
        start_from: the first step to train; earlier ones must be there.
        stop_after: the last step to train; None for the schedule's last.
        device: as nnU-Net's.
        num_gpus: as nnU-Net's, for training.
        npz: as nnU-Net's: the final validations leave probabilities, too, which ensembles need.
    """

    start_from: int = 0
    stop_after: int | None = None
    device: str = "cuda"
    num_gpus: int = 1
    npz: bool = False

    def __post_init__(self) -> None:
        """Refuses numbers out of their range, and options that do not go together.

        Raises:
            CILError: says which.
        """
        check_whole_number(self.start_from, "--start-from", 0, MAX_STEP)
        if self.stop_after is not None:
            check_whole_number(self.stop_after, "--stop-after", 0, MAX_STEP)
            if self.stop_after < self.start_from:
                raise CILError(f"--stop-after {self.stop_after} comes before --start-from {self.start_from}.")
        check_whole_number(self.num_gpus, "-num_gpus", 1, MAX_GPUS)
        check_device(self.device)
        if self.num_gpus > 1 and self.device != "cuda":
            raise CILError(f"-num_gpus {self.num_gpus} needs -device cuda, not {self.device}.")

    def check_steps(self, experiment: Experiment) -> None:
        """Refuses a first step that the schedule does not have.

        Raises:
            CILError: names the schedule and its steps.
        """
        if self.start_from > experiment.last_step:
            name, last = experiment.schedule.name, experiment.last_step
            raise CILError(f"--start-from is {self.start_from}, but {name} has the steps 0 to {last}.")

    def select(self, models: Sequence[StepModel]) -> list[StepModel]:
        """Returns the models of the steps that are trained."""
        end = MAX_STEP if self.stop_after is None else self.stop_after
        return [m for m in models if self.start_from <= m.step <= end]

    def reaches_the_end(self, experiment: Experiment) -> bool:
        """Tells whether the last step is among those that are trained; only then models are scored."""
        return self.stop_after is None or self.stop_after >= experiment.last_step

    @property
    def arguments(self) -> list[str]:
        """Returns what ``nnUNetv2_train`` takes of them."""
        gpus = ["-num_gpus", str(self.num_gpus)] if self.num_gpus != 1 else []
        return ["-device", self.device, *gpus, *(["--npz"] if self.npz else [])]
