"""The trainer with PGCD's and DAPD's terms that the shipped ones extend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.class_choices import confident_classes, confident_regions
from nnunet_cil.training.hyperparameters import choice, fixed, number
from nnunet_cil.training.methods.pgcd_loss import PGCDLoss
from nnunet_cil.training.methods.region_pgcd import RegionPGCDLoss
from nnunet_cil.training.options import DISTILLATION_INTERVAL, OWN_TRAINER
from nnunet_cil.training.step_loss import StepLoss

WEIGHTINGS = "prototypes", "uniform", "teacher", "permuted"

MERGE = "nnUNetTrainerPGCDPaper merges new classes into the background, nnUNetTrainerPGCD does not"
"""The reason of both, which fix ``pgcd_merge``."""

REFRESH = "nnUNetTrainerPGCD renews prototypes by half, nnUNetTrainerPGCDPaper does not"
"""The reason of both, which fix ``prototype_refresh``."""


class nnUNetTrainerPGCDBase(nnUNetTrainerCIL):
    """Base of the trainers with PGCD and DAPD. It is none of those that nnU-Net finds."""

    reads_partial_labels = True
    new_class_start = "balanced"
    distillation_interval = DISTILLATION_INTERVAL
    teacher_weights = "pgcd_weight", "dapd_weight"
    pgcd_weight = number(10.0, "Weight of PGCD.")
    pgcd_beta = fixed(3.0, OWN_TRAINER)
    """How much more PGCD weighs a voxel that looks like the class's prototype."""
    pgcd_merge = fixed(True, MERGE)
    """New classes are background to PGCD, as in MiB; without, it learns that none is where the labels show them and name none."""
    pgcd_weighting = choice(
        "prototypes",
        WEIGHTINGS,
        "What decides PGCD's weights: the prototypes, voxel by voxel or, uniform, class by class; or one of two controls.",
    )
    absent_weight = fixed(3.0, OWN_TRAINER)
    """How many times as much PGCD weighs a class that a case does not show (``absent_size``); not of regions."""
    dapd_weight = number(1.0, "Weight of DAPD.")
    similarity_temperature = fixed(0.1, "0.03 and 0.3 hardly differ")
    """Temperature of the similarity to the prototypes."""
    background_momentum = fixed(0.99, OWN_TRAINER)
    """Share of the background prototype that an iteration leaves."""
    min_voxels = fixed(10, OWN_TRAINER)
    """A class with no more voxels in a batch (or pass) has no prototype there."""
    prototype_refresh = fixed(0.0, REFRESH)
    """Share of the teacher's own estimate in an inherited prototype."""
    prototype_confidence = fixed(0.9, OWN_TRAINER)
    """The teacher's probability above which a voxel counts for that estimate."""

    @classmethod
    def check_hyperparameters(cls, values: Mapping[str, Any], where: str) -> None:
        """Refuses what the base refuses, and a weighting where the loss has no such weights."""
        super().check_hyperparameters(values, where)
        weighting = values.get("pgcd_weighting", cls.pgcd_weighting)
        if weighting != cls.pgcd_weighting and not values.get("pgcd_weight", cls.pgcd_weight):
            raise CILError(
                f"{where}: pgcd_weighting {weighting!r} changes nothing where pgcd_weight is 0. Set pgcd_weight above 0, or "
                "remove pgcd_weighting."
            )

    def build_step_loss(self) -> StepLoss:
        """Builds L_seg + pgcd_weight L_PGCD + dapd_weight L_DAPD."""
        assert self.prototypes is not None
        kind = RegionPGCDLoss if self.step_plan.has_regions else PGCDLoss
        return kind(self.loss_setup(), bank=self.prototypes)

    def inherit_prototypes(self, inherited: PrototypeBank | None) -> PrototypeBank:
        """Blends inherited prototypes with the means over the teacher's confident predictions on the step's data.

        An unknown prototype, as in a model that was not trained in steps, is that mean alone.
        """
        if inherited is not None and inherited.known.all() and not self.prototype_refresh:
            return inherited.to(self.device)
        assert self.teacher is not None
        self.print_to_log_file("Collecting the old classes' prototypes with the teacher...")
        num_old = self.step_plan.num_old_channels
        of_regions = self.step_plan.has_regions
        choose = confident_regions if of_regions else confident_classes
        confident = choose(num_old, self.prototype_confidence, self.labelled_channels_in)
        fresh = self.training_pass().prototypes(self.teacher, confident, 2 * num_old if of_regions else num_old)
        if inherited is None:
            inherited = PrototypeBank.unknown(*fresh.prototypes.shape)
        return inherited.to(self.device).blended(fresh, self.prototype_refresh, self.min_voxels)
