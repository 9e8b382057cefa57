"""nnUNetTrainerMiB: Modeling the Background."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from nnunet_cil.losses.distillation import distillation_loss
from nnunet_cil.losses.segmentation import merge_new_into_background
from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.step_loss import StepContext, StepLoss


class MiBLoss(StepLoss):
    """L = L_seg + mib_weight L_UKD: unbiased cross-entropy + Dice of the new classes, unbiased distillation.

    Source: Cermelli et al. 2020, https://arxiv.org/abs/2002.00718.
    """

    def __init__(self, context: StepContext, *, mib_weight: float) -> None:
        """Hyper-parameters as on the trainer."""
        super().__init__(context)
        self.mib_weight = mib_weight

    def terms(self, logits: list[Tensor], targets: list[Tensor]) -> dict[str, Tensor]:
        """segmentation, distillation."""
        log_probs = self.log_probs(logits)
        _, valid = self.split(targets[0])
        student = merge_new_into_background(log_probs[0], self.num_old)
        if self.refined:  # their labels win over the teacher
            valid = self.unlabelled(targets[0]) | (targets[0][:, 0] >= self.num_old) & (
                True if valid is None else valid
            )
        distillation = distillation_loss(student, self.teacher_probs(), valid)
        segmentation = self.over_scales(self.unbiased_segmentation, log_probs, targets)
        return {"segmentation": segmentation, "distillation": self.mib_weight * distillation}


class nnUNetTrainerMiB(nnUNetTrainerCIL):
    """Modeling the Background (Cermelli et al. 2020, https://arxiv.org/abs/2002.00718)."""

    reads_partial_labels = True
    hyperparameters: ClassVar[dict[str, tuple[float, float]]] = {"mib_weight": (0, math.inf)}
    mib_weight = 10.0

    def build_step_loss(self) -> StepLoss:
        """L_seg + 10 L_UKD, by default."""
        return MiBLoss(self.loss_context(), mib_weight=self.mib_weight)
