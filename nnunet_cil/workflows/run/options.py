"""The options of ``nnunet_cil run`` about training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_cil.errors import CILError
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
    """

    start_from: int = 0
    stop_after: int | None = None
    device: str = "cuda"
    num_gpus: int = 1

    def select(self, models: Sequence[StepModel]) -> list[StepModel]:
        """Returns the models of the steps that are trained.

        Raises:
            CILError: there are none.
        """
        last = max(m.step for m in models)
        end = last if self.stop_after is None else self.stop_after
        selected = [m for m in models if self.start_from <= m.step <= end]
        if not selected:
            raise CILError(
                f"{models[0].plan.schedule} has the steps 0 to {last}; none of them is left by the choice of steps."
            )
        return selected

    def reaches_the_end(self, experiment: Experiment) -> bool:
        """Tells whether the last step is among those that are trained; only then models are scored."""
        return self.stop_after is None or self.stop_after >= experiment.last_step

    @property
    def arguments(self) -> list[str]:
        """Returns what ``nnUNetv2_train`` takes of them."""
        return ["-device", self.device, *(["-num_gpus", str(self.num_gpus)] if self.num_gpus != 1 else [])]
