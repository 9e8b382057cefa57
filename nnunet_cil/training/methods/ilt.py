"""nnUNetTrainerILT: LwF, and the bottleneck's features held."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from nnunet_cil.networks.features import StageReader, encoder_stages
from nnunet_cil.training.methods.lwf import LwFLoss, nnUNetTrainerLwF
from nnunet_cil.training.step_loss import StepContext, StepLoss


class ILTLoss(LwFLoss):
    """L = L_seg + lwf_weight L_LwF + feature_weight mean((F_b - F'_b)^2), F_b the bottleneck's features.

    Source: Michieli & Zanuttigh 2019, https://arxiv.org/abs/1907.13372.
    """

    def __init__(
        self,
        context: StepContext,
        *,
        student: StageReader,
        teacher: StageReader,
        lwf_weight: float,
        feature_weight: float,
    ) -> None:
        """Readers of the two bottlenecks; hyper-parameters as on the trainer."""
        super().__init__(context, lwf_weight=lwf_weight)
        self.student_bottleneck, self.teacher_bottleneck = student, teacher
        self.feature_weight = feature_weight

    def terms(self, logits: list[Tensor], targets: list[Tensor]) -> dict[str, Tensor]:
        """segmentation, lwf, features."""
        terms = super().terms(logits, targets)
        (student,), (teacher,) = self.student_bottleneck.take(), self.teacher_bottleneck.take()
        return {**terms, "features": self.feature_weight * F.mse_loss(student.float(), teacher.float())}

    def let_go(self) -> None:
        """Both bottlenecks."""
        self.student_bottleneck.clear()
        self.teacher_bottleneck.clear()


class nnUNetTrainerILT(nnUNetTrainerLwF):
    """Incremental Learning Techniques (Michieli & Zanuttigh 2019, https://arxiv.org/abs/1907.13372)."""

    hyperparameters: ClassVar[dict[str, tuple[float, float]]] = {
        **nnUNetTrainerLwF.hyperparameters,
        "feature_weight": (0, math.inf),
    }
    feature_weight = 100.0

    def build_step_loss(self) -> StepLoss:
        """L_seg + 100 L_LwF + 100 times the bottlenecks' squared distance, by default."""
        assert self.teacher is not None
        return ILTLoss(
            self.loss_context(),
            student=StageReader(encoder_stages(self.bare_network)[-1:]),
            teacher=StageReader(encoder_stages(self.teacher.network)[-1:]),
            lwf_weight=self.lwf_weight,
            feature_weight=self.feature_weight,
        )
