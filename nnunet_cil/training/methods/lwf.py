"""nnUNetTrainerLwF: Learning without Forgetting."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from nnunet_cil.losses.distillation import distillation_loss
from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.hyperparameters import number
from nnunet_cil.training.options import DISTILLATION_INTERVAL
from nnunet_cil.training.region_terms import RegionTerms
from nnunet_cil.training.step_loss import StepLoss


class LwFLoss(StepLoss):
    """L = L_seg + lwf_weight L_LwF: the softmax of the old logits alone is held to the teacher's distribution.

    L_seg: plain cross-entropy (label 0 is background) + Dice of the new classes. Source: Li & Hoiem 2016,
    https://arxiv.org/abs/1606.09282.
    """

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms segmentation and lwf."""
        segmentation = self.over_scales(self.plain_segmentation, self.log_probs(logits), targets)
        distillation = self.distilled(lambda: self.distillation(logits, targets, batch))
        return self.joined({"segmentation": segmentation}, distillation)

    def distillation(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms that ask the teacher; arguments as for ``terms``."""
        _, valid = self.split(targets[0])
        lwf = distillation_loss(logits[0][:, : self.num_old].log_softmax(1), batch.teacher_probs, valid)
        return {"lwf": self.settings.lwf_weight * lwf}


class RegionLwFLoss(LwFLoss, RegionTerms):
    """The same of regions: L_seg of the new ones, and each old region's probability is held to the teacher's."""

    def distillation(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms that ask the teacher; arguments as for ``terms``."""
        return {"lwf": self.settings.lwf_weight * self.binary_distillation(logits[0], targets[0], batch)}


class nnUNetTrainerLwF(nnUNetTrainerCIL):
    """Learning without Forgetting (Li & Hoiem 2016, https://arxiv.org/abs/1606.09282)."""

    lwf_weight = number(100.0, "Weight of the distillation.")
    distillation_interval = DISTILLATION_INTERVAL
    teacher_weights: ClassVar[tuple[str, ...]] = ("lwf_weight",)

    def build_step_loss(self) -> StepLoss:
        """Builds L_seg + 100 L_LwF, by default."""
        return RegionLwFLoss(self.loss_setup()) if self.step_plan.has_regions else LwFLoss(self.loss_setup())
