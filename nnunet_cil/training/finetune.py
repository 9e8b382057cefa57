"""nnUNetTrainerFineTune: what happens without any method. The lower bound."""

from __future__ import annotations

from torch import Tensor, nn

from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.step_loss import StepLoss


class FineTuneLoss(StepLoss):
    """nnU-Net's own loss on the step's labels: cross-entropy and a soft Dice over all seen classes."""

    def __init__(self, num_old: int, ignore_label: int | None, loss: nn.Module) -> None:
        """Wraps nnU-Net's loss, deep supervision included."""
        super().__init__(num_old, ignore_label, (1.0,))
        self.loss = loss

    def terms(self, logits: list[Tensor], targets: list[Tensor]) -> dict[str, Tensor]:
        """One term."""
        deep = len(logits) > 1
        return {"segmentation": self.loss(logits if deep else logits[0], targets if deep else targets[0])}


class nnUNetTrainerFineTune(nnUNetTrainerCIL):
    """Continues from the previous step's weights with nnU-Net's loss; old organs count as background."""

    def build_step_loss(self) -> StepLoss:
        """nnU-Net's loss, unchanged."""
        return FineTuneLoss(self.step_plan.num_old_channels, self.step_plan.ignore_label, self._build_loss())
