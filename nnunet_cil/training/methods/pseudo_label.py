"""nnUNetTrainerPseudoLabel: the previous model labels the old classes, and nnU-Net learns from the merged labels."""

from __future__ import annotations

from torch import Tensor

from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.hyperparameters import fixed
from nnunet_cil.training.methods.finetune import FineTuneLoss
from nnunet_cil.training.options import LABELS_OF_TEACHER, OWN_OLD_DICE, TAKES_LABELS
from nnunet_cil.training.region_terms import RegionTerms
from nnunet_cil.training.step_loss import StepLoss


class PseudoLabelLoss(FineTuneLoss):
    """nnU-Net's own loss over all seen classes, with the teacher's segmentation where the step has no label.

    Source: the continual-learning baseline of AbdomenCT-1K, Ma et al. 2021, https://arxiv.org/abs/2010.14808.
    """

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the term segmentation."""
        return super().terms(logits, self.pseudo_labelled(targets, batch.teacher_classes), batch)


class RegionPseudoLabelLoss(PseudoLabelLoss, RegionTerms):
    """The same of regions: an old one is where the teacher says so, whatever the step's labels say of others."""


class nnUNetTrainerPseudoLabel(nnUNetTrainerCIL):
    """Learns from the step's labels merged with the previous model's segmentation.

    Source: Ma et al. 2021, https://arxiv.org/abs/2010.14808.
    """

    refines = True
    teacher_volumes = True
    drop_strays = False
    distillation_interval = fixed(1, LABELS_OF_TEACHER)
    old_dice_weight = fixed(0.0, OWN_OLD_DICE)
    absent_size = fixed(0.0, TAKES_LABELS)

    def build_step_loss(self) -> StepLoss:
        """Builds nnU-Net's loss on the merged labels."""
        kind = RegionPseudoLabelLoss if self.step_plan.has_regions else PseudoLabelLoss
        return kind(self.loss_setup(), self._build_loss())
