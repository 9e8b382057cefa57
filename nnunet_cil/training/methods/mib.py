"""nnUNetTrainerMiB: Modeling the Background."""

from __future__ import annotations

from torch import Tensor

from nnunet_cil.losses.distillation import distillation_loss
from nnunet_cil.losses.segmentation import merge_new_into_background
from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.hyperparameters import number
from nnunet_cil.training.options import DISTILLATION_INTERVAL
from nnunet_cil.training.step_loss import StepLoss


class MiBLoss(StepLoss):
    """L = L_seg + mib_weight L_UKD: unbiased cross-entropy + Dice of the new classes, unbiased distillation.

    Source: Cermelli et al. 2020, https://arxiv.org/abs/2002.00718.
    """

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms segmentation and distillation."""
        log_probs = self.log_probs(logits)
        segmentation = self.over_scales(self.unbiased_segmentation, log_probs, targets, batch)
        distillation = self.distilled(lambda: self._distillation(log_probs[0], targets[0], batch))
        return self.joined({"segmentation": segmentation}, distillation)

    def _distillation(self, log_probs: Tensor, target: Tensor, batch: Batch) -> dict[str, Tensor]:
        _, valid = self.split(target)
        if self.refined:  # their labels win over the teacher
            valid = self.unlabelled(target) | (target[:, 0] >= self.num_old) & (True if valid is None else valid)
        student = merge_new_into_background(log_probs, self.num_old)
        return {"distillation": self.settings.mib_weight * distillation_loss(student, batch.teacher_probs, valid)}


class nnUNetTrainerMiB(nnUNetTrainerCIL):
    """Modeling the Background (Cermelli et al. 2020, https://arxiv.org/abs/2002.00718)."""

    reads_partial_labels = True
    needs_background = "merges classes into the background"
    new_class_start = "balanced"
    mib_weight = number(10.0, "Weight of the unbiased distillation.")
    distillation_interval = DISTILLATION_INTERVAL
    teacher_weights = ("mib_weight",)

    def build_step_loss(self) -> StepLoss:
        """Builds L_seg + 10 L_UKD, by default."""
        return MiBLoss(self.loss_setup())
