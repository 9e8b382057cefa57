"""nnUNetTrainerLwF: Learning without Forgetting."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from nnunet_cil.losses.distillation import distillation_loss
from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.step_loss import StepContext, StepLoss


class LwFLoss(StepLoss):
    """L = L_seg + lwf_weight L_LwF: old logits, by themselves, keep the teacher's distribution.

    L_seg: plain cross-entropy (label 0 is background) + Dice of the new classes. Source: Li & Hoiem 2016,
    https://arxiv.org/abs/1606.09282.
    """

    def __init__(self, context: StepContext, *, lwf_weight: float) -> None:
        """Hyper-parameters as on the trainer."""
        super().__init__(context)
        self.lwf_weight = lwf_weight

    def terms(self, logits: list[Tensor], targets: list[Tensor]) -> dict[str, Tensor]:
        """segmentation, lwf."""
        _, valid = self.split(targets[0])
        lwf = distillation_loss(logits[0][:, : self.num_old].log_softmax(1), self.teacher_probs(), valid)
        segmentation = self.over_scales(self.plain_segmentation, self.log_probs(logits), targets)
        return {"segmentation": segmentation, "lwf": self.lwf_weight * lwf}


class nnUNetTrainerLwF(nnUNetTrainerCIL):
    """Learning without Forgetting (Li & Hoiem 2016, https://arxiv.org/abs/1606.09282)."""

    hyperparameters: ClassVar[dict[str, tuple[float, float]]] = {"lwf_weight": (0, math.inf)}
    lwf_weight = 100.0

    def build_step_loss(self) -> StepLoss:
        """L_seg + 100 L_LwF, by default."""
        return LwFLoss(self.loss_context(), lwf_weight=self.lwf_weight)
