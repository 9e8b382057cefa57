"""nnUNetTrainerFineTune: training without any method. The lower bound."""

from __future__ import annotations

from torch import Tensor, nn

from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.hyperparameters import fixed
from nnunet_cil.training.options import NOT_ASKED, OWN_OLD_DICE
from nnunet_cil.training.region_terms import RegionTerms
from nnunet_cil.training.step_loss import LossSetup, StepLoss


class FineTuneLoss(StepLoss):
    """nnU-Net's own loss on the step's labels: cross-entropy and a soft Dice over all seen classes."""

    def __init__(self, setup: LossSetup, loss: nn.Module) -> None:
        """Wraps nnU-Net's loss, deep supervision included."""
        super().__init__(setup)
        self.loss = loss

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the term segmentation."""
        deep = len(logits) > 1
        return {"segmentation": self.loss(logits if deep else logits[0], targets if deep else targets[0])}


class RegionFineTuneLoss(FineTuneLoss, RegionTerms):
    """The same of regions: nnU-Net's own loss, for which an old region without labels is nowhere."""


class nnUNetTrainerFineTune(nnUNetTrainerCIL):
    """Continues from the previous step's weights with nnU-Net's loss; old classes without labels count as background."""

    refines = True
    asks_teacher = False
    distillation_interval = fixed(1, NOT_ASKED)
    old_dice_weight = fixed(0.0, OWN_OLD_DICE)

    def build_step_loss(self) -> StepLoss:
        """Builds nnU-Net's loss, unchanged."""
        kind = RegionFineTuneLoss if self.step_plan.has_regions else FineTuneLoss
        return kind(self.loss_setup(), self._build_loss())
