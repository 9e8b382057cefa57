"""Changes of PGCD that are being tried on validation cases (benchmarks/notebook/2026-11-29-fair-comparison.md)."""

from __future__ import annotations

from torch import Tensor

from nnunet_cil.training.hyperparameters import fixed
from nnunet_cil.training.methods.pgcd import nnUNetTrainerPGCD
from nnunet_cil.training.methods.pgcd_base import PGCDLoss
from nnunet_cil.training.step_loss import StepLoss


class AmongOldLoss(PGCDLoss):
    """PGCD among the teacher's classes: q^_c = p_c / sum_{k<K} p_k. It says nothing of new classes."""

    def _old_log_probs(self, log_probs: Tensor, labelled: Tensor | None) -> Tensor:
        old = super()._old_log_probs(log_probs, labelled)
        return old - old.logsumexp(1, keepdim=True)


class nnUNetTrainerPGCD_one(nnUNetTrainerPGCD):
    """A smaller weight."""

    pgcd_weight = 1.0


class nnUNetTrainerPGCD_five(nnUNetTrainerPGCD):
    """A larger weight."""

    pgcd_weight = 5.0


class nnUNetTrainerPGCD_ten(nnUNetTrainerPGCD):
    """A still larger weight."""

    pgcd_weight = 10.0


class nnUNetTrainerPGCD_amongold(nnUNetTrainerPGCD):
    """Among the teacher's classes."""

    among_old = fixed(1)

    def build_step_loss(self) -> StepLoss:
        """Builds the changed loss."""
        assert self.prototypes is not None
        return AmongOldLoss(self.loss_setup(), bank=self.prototypes)


class nnUNetTrainerPGCD_amongoldstrong(nnUNetTrainerPGCD_amongold):
    """The same with a larger weight."""

    pgcd_weight = 10.0
