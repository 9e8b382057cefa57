"""nnUNetTrainerJoint: the labels of all seen classes. The upper bound."""

from __future__ import annotations

from torch import Tensor

from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.hyperparameters import fixed
from nnunet_cil.training.methods.finetune import FineTuneLoss
from nnunet_cil.training.options import NOT_ASKED, OWN_OLD_DICE
from nnunet_cil.training.region_terms import RegionTerms
from nnunet_cil.training.step_loss import StepLoss


class JointLoss(FineTuneLoss):
    """nnU-Net's own loss, which gets the labels of old classes, too."""

    def visible(self, targets: list[Tensor], batch: Batch) -> list[Tensor]:
        """Returns the targets as they are."""
        return targets


class RegionJointLoss(JointLoss, RegionTerms):
    """The same of regions."""


class nnUNetTrainerJoint(nnUNetTrainerCIL):
    """Trains on the labels, and under ``disjoint`` on the cases, of all steps so far, which no incremental method may use.

    Continues from the previous step's weights like every other trainer. A schedule of one step is joint training from scratch.
    """

    needs_old_data = True
    asks_teacher = False
    distillation_interval = fixed(1, NOT_ASKED)
    old_class_sampling = fixed(False, "its labels show the old classes to the sampler already")
    teacher_volumes = fixed(False, "its labels show the old classes, so that no teacher is asked")
    drop_strays = fixed(True, "no teacher is asked")
    old_dice_weight = fixed(0.0, OWN_OLD_DICE)

    @property
    def target_classes(self) -> tuple[str, ...]:
        """All seen classes."""
        return self.step_plan.evaluated_classes

    @property
    def step_cases(self) -> tuple[str, ...] | None:
        """The cases of this step and of the earlier ones; None for all."""
        own = self.step_plan.cases
        return None if own is None else sum(self.step_plan.earlier_cases, own)

    def build_step_loss(self) -> StepLoss:
        """Builds nnU-Net's loss, unchanged."""
        kind = RegionJointLoss if self.step_plan.has_regions else JointLoss
        return kind(self.loss_setup(), self._build_loss())

    def online_target(self, target: Tensor | list[Tensor], batch: Batch) -> Tensor | list[Tensor]:
        """Returns the labels, which name the old classes themselves."""
        return target
