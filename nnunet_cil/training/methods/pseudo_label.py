"""nnUNetTrainerPseudoLabel: the previous model labels the old organs, nnU-Net learns from the merged labels."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.methods.finetune import FineTuneLoss
from nnunet_cil.training.step_loss import StepLoss


class PseudoLabelLoss(FineTuneLoss):
    """nnU-Net's own loss over all seen classes; the teacher's segmentation stands where the step has no label.

    Source: the continual-learning baseline of AbdomenCT-1K, Ma et al. 2021, https://arxiv.org/abs/2010.14808.
    """

    def terms(self, logits: list[Tensor], targets: list[Tensor]) -> dict[str, Tensor]:
        """One term."""
        return super().terms(logits, self.pseudo_labelled(targets))


class nnUNetTrainerPseudoLabel(nnUNetTrainerCIL):
    """What an nnU-Net user would do by hand (Ma et al. 2021, https://arxiv.org/abs/2010.14808)."""

    hyperparameters: ClassVar[dict[str, tuple[float, float]]] = {"teacher_volumes": (0, 1), "drop_strays": (0, 1)}
    teacher_volumes = 1
    drop_strays = 1

    def build_step_loss(self) -> StepLoss:
        """nnU-Net's loss on the merged labels."""
        return PseudoLabelLoss(self.loss_context(), self._build_loss())
