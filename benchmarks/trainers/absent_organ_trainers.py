"""PGCD for new images that do not show an old organ: variants, each a trainer for benchmarks/study.py.

    export nnUNet_extTrainer="$(nnunet_cil trainers):$PWD/benchmarks/trainers"
    python benchmarks/study.py 906 hippocampus_1-1_cropped_cpu --methods PGCD PGCD_all_shown --cases validation -o mine.csv

What each one is for stands in benchmarks/notebook/2026-11-29-fair-comparison.md.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nnunet_cil.losses.segmentation import merge_new_into_background, soft_dice_loss
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.hyperparameters import fixed, switch
from nnunet_cil.training.methods.mib import nnUNetTrainerMiB
from nnunet_cil.training.methods.pgcd import nnUNetTrainerPGCD
from nnunet_cil.training.methods.pgcd_loss import PGCDLoss
from nnunet_cil.training.options import OWN_TRAINER
from nnunet_cil.training.step_loss import StepLoss


class AbsentOrganLoss(PGCDLoss):
    """PGCD's terms, with what the variants change. Not for regions, nor for labels that show old classes."""

    def _pgcd(
        self,
        log_probs: Tensor,
        teacher_features: Tensor,
        asked: Tensor,
        num_voxels: int | Tensor,
        resemblance: Callable[[Tensor, Tensor], Tensor],
        batch: Batch,
    ) -> Tensor:
        """Distils where labels show a new class, too: it is background there, as it is to the teacher."""
        if self.settings.distils_everywhere:
            num_old = self.num_old
            merged = merge_new_into_background(log_probs, num_old)
            student = torch.where(asked, log_probs[:, :num_old], merged)
            log_probs = torch.cat([student, log_probs[:, num_old:]], dim=1)
            asked = torch.ones_like(asked)
        return super()._pgcd(log_probs, teacher_features, asked, num_voxels, resemblance, batch)

    def _old_dice(self, log_probs: Tensor, target: Tensor, absent: Tensor | None) -> Tensor:
        """Leaves voxels of new classes out, and the classes that a sample's pseudo-labels do not have."""
        if not self.settings.old_dice_of_shown:
            return super()._old_dice(log_probs, target, absent)
        labels, _ = self.split(target)
        dice = [
            soft_dice_loss(x[None], y[None], (y < self.num_old)[None], classes=slice(c, c + 1), batch_dice=False)
            for x, y in zip(log_probs, labels, strict=True)
            for c in range(self.first_class, self.num_old)
            if (y == c).any()
        ]
        terms = len(labels) * (self.num_old - self.first_class)
        return torch.stack(dice).sum() / terms if dice else log_probs.new_zeros(())


class nnUNetTrainerPGCDAbsentOrgan(nnUNetTrainerPGCD):
    """PGCD with the variants' switches, all off; no class counts as absent."""

    absent_size = fixed(0.0, OWN_TRAINER)
    distils_everywhere = switch(False, "Distil where labels show a new class, too.")
    old_dice_of_shown = switch(False, "The Dice of old classes counts those of a sample's pseudo-labels alone.")

    def build_step_loss(self) -> StepLoss:
        """Builds PGCD's loss with the variants."""
        assert self.prototypes is not None
        return AbsentOrganLoss(self.loss_setup(), bank=self.prototypes)


class nnUNetTrainerPGCD_all_shown(nnUNetTrainerPGCD):
    """PGCD as it was when no class counted as absent."""

    absent_size = fixed(0.0, OWN_TRAINER)


class nnUNetTrainerMiB_all_shown(nnUNetTrainerMiB):
    """MiB with PGCD's options, as it was then."""

    absent_size = fixed(0.0, OWN_TRAINER)
    teacher_volumes = True
    old_dice_weight = 0.25
    new_class_start = "imprinted"
    old_class_sampling = True


class nnUNetTrainerPGCD_everywhere(nnUNetTrainerPGCDAbsentOrgan):
    """Distils where labels show a new class, too."""

    distils_everywhere = True


class nnUNetTrainerPGCD_shown(nnUNetTrainerPGCDAbsentOrgan):
    """The other Dice alone."""

    old_dice_of_shown = True


class nnUNetTrainerPGCD_everywhere_shown(nnUNetTrainerPGCD_everywhere):
    """Both."""

    old_dice_of_shown = True


class nnUNetTrainerPGCD_everywhere_neither(nnUNetTrainerPGCD_everywhere):
    """Distils everywhere, with neither the Dice of old classes nor the sampling."""

    old_dice_weight = 0.0
    old_class_sampling = False


class nnUNetTrainerPGCD_everywhere_bare(nnUNetTrainerPGCD_everywhere_neither):
    """And without the teacher's volumes."""

    teacher_volumes = False


class nnUNetTrainerPGCD_all_absent(nnUNetTrainerPGCD):
    """Every old class counts as absent from every case."""

    absent_size = fixed(1e9, OWN_TRAINER)


class nnUNetTrainerPGCD_by_size(nnUNetTrainerPGCD):
    """A class is absent by its size alone."""

    absent_doubt = fixed(1000.0, OWN_TRAINER)


class nnUNetTrainerMiB_by_size(nnUNetTrainerMiB):
    """MiB with PGCD's options, and the same."""

    absent_doubt = fixed(1000.0, OWN_TRAINER)
    teacher_volumes = True
    old_dice_weight = 0.25
    new_class_start = "imprinted"
    old_class_sampling = True


class nnUNetTrainerPGCD_by_size_even(nnUNetTrainerPGCD_by_size):
    """And weighs as much as any other."""

    absent_weight = fixed(1.0, OWN_TRAINER)


class nnUNetTrainerPGCD_by_size_strong(nnUNetTrainerPGCD_by_size_even):
    """And PGCD weighs more, as the paper's terms do."""

    pgcd_weight = 10.0


class nnUNetTrainerPGCD_doubt2(nnUNetTrainerPGCD):
    """Twice the doubt."""

    absent_doubt = fixed(2.0, OWN_TRAINER)
