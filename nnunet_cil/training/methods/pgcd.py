"""nnUNetTrainerPGCD: Prototype-Guided Calibration Distillation + Dual-Aligned Prototype Distillation, and options of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from torch import Tensor

from nnunet_cil.errors import CILError
from nnunet_cil.losses.pseudo_labels import corrected_probs
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.training.base import (
    DISTILLATION_INTERVAL,
    DROP_STRAYS,
    NEW_CLASS_NOISE,
    TEACHER_VOLUMES,
)
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.data import StepDataset
from nnunet_cil.training.hyperparameters import fixed, number, switch, whole_number
from nnunet_cil.training.locations import OldClassLocations
from nnunet_cil.training.methods.pgcd_base import PGCDTerms, nnUNetTrainerPGCDBase
from nnunet_cil.training.step_loss import StepLoss


class PGCDLoss(PGCDTerms):
    """L = L_seg + old_dice_weight L_old + pgcd_weight L_PGCD + dapd_weight L_DAPD.

    L_old, at every scale: soft Dice over old classes, with the teacher's segmentation in place of the label where the step has
    none. L_PGCD holds the student to p*, in which the teacher's segmentation of the whole volume corrects its view of the patch.
    """

    def segmentation_terms(self, log_probs: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms segmentation and old_dice."""
        terms = super().segmentation_terms(log_probs, targets, batch)
        if self.settings.old_dice_weight:
            filled = self.pseudo_labelled(targets, batch.teacher_classes)
            terms["old_dice"] = self.settings.old_dice_weight * self.over_scales(self._old_dice, log_probs, filled)
        return terms

    def _old_dice(self, log_probs: Tensor, target: Tensor) -> Tensor:
        labels, valid = self.split(target)
        return self.dice(log_probs, labels, valid, slice(1, self.num_old))

    def teacher_target(self, probs: Tensor, predicted: Tensor, batch: Batch) -> Tensor:
        """Returns the teacher's probabilities, corrected where the whole volume is segmented."""
        if batch.volume_classes is None or not self.settings.volume_trust:
            return probs
        return corrected_probs(probs, predicted, self.settings.volume_trust)


class nnUNetTrainerPGCD(nnUNetTrainerPGCDBase):
    """PGCD + DAPD (our reading of Zhu et al. 2025, https://arxiv.org/abs/2511.07749)."""

    new_class_noise = number(1.0, NEW_CLASS_NOISE)
    """Without noise new classes are learnt late, in a short step never. With it ``pgcd_weight`` may be larger."""
    old_dice_weight = number(0.25, "Weight of the Dice of old classes against the teacher's segmentation.")
    pgcd_weight = 30.0
    dapd_weight = 0.1
    distillation_interval = whole_number(1, DISTILLATION_INTERVAL, low=1)
    old_class_sampling = switch(True, "Centre patches on old classes, too, where the teacher sees them.")
    teacher_volumes = switch(True, TEACHER_VOLUMES)
    drop_strays = switch(True, DROP_STRAYS)
    volume_trust = number(
        0.9, "How far the teacher's probabilities give way to its segmentation of the volume.", high=1
    )
    old_locations: Mapping[str, npt.NDArray[np.int32]] | None = None
    """Case -> locations of old classes in the teacher's predictions; None before the pass that collects them."""

    @classmethod
    def check_hyperparameters(cls, values: Mapping[str, Any], where: str) -> None:
        """Refuses, beside what the base refuses, an interval where the Dice of old classes asks the teacher all the time."""
        super().check_hyperparameters(values, where)
        names = "distillation_interval", "old_dice_weight", "teacher_volumes"
        interval, weight, volumes = (values.get(name, getattr(cls, name)) for name in names)
        if interval > 1 and weight and not volumes:
            raise CILError(
                f"{where}: distillation_interval {interval} saves nothing without teacher_volumes, since the Dice of old classes "
                "then asks the teacher in every iteration. Set teacher_volumes to true, or old_dice_weight to 0."
            )

    def build_step_loss(self) -> StepLoss:
        """Builds L_seg + 0.25 L_old + 30 L_PGCD + 0.1 L_DAPD, by default."""
        assert self.prototypes is not None
        return PGCDLoss(self.loss_setup(), bank=self.prototypes)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Makes nnU-Net's data loaders; a resumed training first locates the old classes, which no checkpoint stores."""
        if self.teacher is not None and self.old_class_sampling and self.old_locations is None:
            self.collect_with_teacher()
        loaders: tuple[Any, Any] = super().get_dataloaders()
        return loaders

    def collect_with_teacher(self) -> PrototypeBank:
        """Collects, in one pass over the training cases, the teacher's prototypes and the locations of old classes."""
        locations = OldClassLocations(self.step_plan.num_old_channels)
        prototypes = self.confident_means(locations.add if self.old_class_sampling else None)
        self.old_locations = locations.per_case()
        return prototypes

    def step_dataset(self, dataset: nnUNetBaseDataset) -> StepDataset:
        """Narrows as the base, and adds the locations of old classes in the teacher's predictions."""
        narrowed = super().step_dataset(dataset)
        narrowed.old_locations = self.old_locations or {}
        return narrowed


class nnUNetTrainerPGCDOnly(nnUNetTrainerPGCD):
    """Ablation: without the DAPD term."""

    dapd_weight = fixed(0.0)


class nnUNetTrainerDAPDOnly(nnUNetTrainerPGCD):
    """Ablation: without the PGCD term."""

    pgcd_weight = fixed(0.0)
    pgcd_weighting = fixed("prototypes")
