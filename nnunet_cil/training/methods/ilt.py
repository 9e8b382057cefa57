"""nnUNetTrainerILT: LwF, and a penalty on changes of the bottleneck's features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from nnunet_cil.errors import CILError
from nnunet_cil.networks.architectures import encoder_stages
from nnunet_cil.networks.features import StageReader
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.hyperparameters import number
from nnunet_cil.training.methods.lwf import LwFLoss, RegionLwFLoss, nnUNetTrainerLwF
from nnunet_cil.training.step_loss import LossSetup, StepLoss


class ILTLoss(LwFLoss):
    """L = L_seg + lwf_weight L_LwF + feature_weight mean((F_b - F'_b)^2), F_b the bottleneck's features.

    Source: Michieli & Zanuttigh 2019, https://arxiv.org/abs/1907.13372.
    """

    def __init__(self, setup: LossSetup, *, student: StageReader, teacher: StageReader) -> None:
        """Takes readers of the two bottlenecks."""
        super().__init__(setup)
        self.readers = student, teacher
        self._student_bottleneck, self._teacher_bottleneck = student, teacher

    def distillation(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms lwf and features."""
        terms = super().distillation(logits, targets, batch)
        (student,), (teacher,) = self._student_bottleneck.take(), self._teacher_bottleneck.take()
        features = self.settings.feature_weight * F.mse_loss(student.float(), teacher.float())
        return self.joined(terms, {"features": features})


class RegionILTLoss(ILTLoss, RegionLwFLoss):
    """The same of regions."""


class nnUNetTrainerILT(nnUNetTrainerLwF):
    """Incremental Learning Techniques (Michieli & Zanuttigh 2019, https://arxiv.org/abs/1907.13372)."""

    feature_weight = number(100.0, "Weight of the bottlenecks' squared distance.")
    teacher_weights = "lwf_weight", "feature_weight"

    @classmethod
    def check_hyperparameters(cls, values: Mapping[str, Any], where: str) -> None:
        """Refuses what the base refuses, and volumes that no term reads."""
        super().check_hyperparameters(values, where)
        distils, volumes = (values.get(name, getattr(cls, name)) for name in ("lwf_weight", "teacher_volumes"))
        others = [name for name in ("old_dice_weight", "old_class_sampling") if values.get(name, getattr(cls, name))]
        if volumes and not distils and not others:
            off = "Set it to false" if cls.teacher_volumes else "Remove it"
            raise CILError(
                f"{where}: teacher_volumes changes nothing in {cls.__name__} with lwf_weight 0, since features do not come from "
                f"them. {off}, or set lwf_weight above 0."
            )

    def build_step_loss(self) -> StepLoss:
        """Builds L_seg + 100 L_LwF + 100 times the bottlenecks' squared distance, by default."""
        assert self.teacher is not None
        kind = RegionILTLoss if self.step_plan.has_regions else ILTLoss
        return kind(
            self.loss_setup(),
            student=StageReader(encoder_stages(self.bare_network)[-1:]),
            teacher=StageReader(encoder_stages(self.teacher.network)[-1:]),
        )
