"""nnUNetTrainerPGCD: Prototype-Guided Calibration Distillation + Dual-Aligned Prototype Distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from torch import Tensor

from nnunet_cil.errors import CILError
from nnunet_cil.losses.chunks import sum_over_chunks
from nnunet_cil.losses.distillation import pgcd_loss
from nnunet_cil.losses.prototypes import (
    class_means,
    cosine_alignment,
    labels_within,
    prototype_centre,
    prototype_similarity,
)
from nnunet_cil.losses.pseudo_labels import corrected_probs
from nnunet_cil.losses.segmentation import merge_new_into_background
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.training.base import (
    DISTILLATION_INTERVAL,
    DROP_STRAYS,
    NEW_CLASS_NOISE,
    TEACHER_VOLUMES,
    nnUNetTrainerCIL,
)
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.data import StepDataset
from nnunet_cil.training.hyperparameters import fixed, number, switch, whole_number
from nnunet_cil.training.locations import OldClassLocations
from nnunet_cil.training.passes import confident_classes
from nnunet_cil.training.step_loss import LossSetup, StepLoss


class PGCDLoss(StepLoss):
    """L = L_seg + old_dice_weight L_old + pgcd_weight L_PGCD + dapd_weight L_DAPD.

    L_seg, at every scale: unbiased cross-entropy (background and old classes are one label) + soft Dice over new
    classes. L_old, at every scale: soft Dice over old classes, with the teacher's segmentation in place of the label where the
    step has none. L_PGCD and L_DAPD at full resolution. A term of weight 0 is not computed. Source: our reading of Zhu et al.
    2025, https://arxiv.org/abs/2511.07749; docs/explanation/pgcd.md has every equation.
    """

    def __init__(self, setup: LossSetup, *, bank: PrototypeBank) -> None:
        """Takes the prototypes; the background's is updated in place while training."""
        super().__init__(setup)
        self.bank = bank

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms segmentation, old_dice, pgcd and dapd."""
        settings, log_probs = self.settings, self.log_probs(logits)
        terms = {"segmentation": self.over_scales(self.unbiased_segmentation, log_probs, targets, batch)}
        if settings.old_dice_weight:
            filled = self.pseudo_labelled(targets, batch.teacher_classes)
            terms["old_dice"] = settings.old_dice_weight * self.over_scales(self._old_dice, log_probs, filled)
        return terms | self.distilled(lambda: self._distillation(log_probs[0], targets[0], batch))

    def _distillation(self, log_probs: Tensor, target: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Returns the terms pgcd and dapd, and updates the background's prototype between them."""
        settings, terms = self.settings, {}
        unlabelled = self.unlabelled(target)
        teacher_features = batch.teacher.features.float()
        classes = labels_within(batch.teacher_classes, unlabelled, self.num_old)
        teacher_local, counts = class_means(teacher_features, classes, self.num_old)
        if settings.pgcd_weight:
            _, valid = self.split(target)
            pgcd = self._pgcd(log_probs, teacher_features, unlabelled, valid, batch)
            terms["pgcd"] = settings.pgcd_weight * pgcd
        if torch.is_grad_enabled():
            momentum = settings.background_momentum**settings.distillation_interval
            self.bank.update_background(teacher_local[0], counts[0], momentum)
        if settings.dapd_weight:
            terms["dapd"] = settings.dapd_weight * self._dapd(batch.features, classes, teacher_local, counts)
        return terms

    def _old_dice(self, log_probs: Tensor, target: Tensor) -> Tensor:
        labels, valid = self.split(target)
        return self.dice(log_probs, labels, valid, slice(1, self.num_old))

    def _pgcd(
        self, log_probs: Tensor, teacher_features: Tensor, unlabelled: Tensor, valid: Tensor | None, batch: Batch
    ) -> Tensor:
        settings = self.settings
        num_voxels = unlabelled.numel() if valid is None else valid.sum().clamp(min=1)
        corrects = batch.volume_classes is not None and settings.volume_trust > 0

        def of_chunk(
            log_probs: Tensor, teacher_logits: Tensor, features: Tensor, predicted: Tensor, unlabelled: Tensor
        ) -> Tensor:
            similarity = prototype_similarity(
                features, self.bank.prototypes, self.bank.known, temperature=settings.similarity_temperature
            )
            student = merge_new_into_background(log_probs, self.num_old)
            teacher = teacher_logits.float().softmax(1)
            if corrects:
                teacher = corrected_probs(teacher, predicted[:, 0], settings.volume_trust)
            own = unlabelled[:, 0]
            return pgcd_loss(student, teacher, similarity, own, beta=settings.pgcd_beta, num_voxels=num_voxels)

        maps = batch.teacher_classes[:, None], unlabelled[:, None]
        return sum_over_chunks(of_chunk, log_probs, batch.teacher_logits, teacher_features, *maps)

    def _dapd(self, features: Tensor, classes: Tensor, teacher_local: Tensor, counts: Tensor) -> Tensor:
        student_local, _ = class_means(features, classes, self.num_old)
        used = counts > self.settings.min_voxels
        centre = prototype_centre(self.bank.prototypes, self.bank.known)
        to_global = cosine_alignment(student_local - centre, self.bank.prototypes - centre, used & self.bank.known)
        to_teacher = cosine_alignment(student_local - centre, teacher_local - centre, used)
        return to_global + to_teacher


class nnUNetTrainerPGCD(nnUNetTrainerCIL):
    """PGCD + DAPD (our reading of Zhu et al. 2025, https://arxiv.org/abs/2511.07749)."""

    reads_partial_labels = True
    new_class_noise = number(1.0, NEW_CLASS_NOISE)
    """Without noise new classes are learnt late, in a short step never. With it ``pgcd_weight`` may be larger."""
    old_dice_weight = number(0.25, "Weight of the Dice of old classes against the teacher's segmentation.")
    pgcd_weight = number(30.0, "Weight of PGCD.")
    pgcd_beta = number(3.0, "How much more PGCD weighs a voxel that looks like the class's prototype.")
    dapd_weight = number(0.1, "Weight of DAPD.")
    similarity_temperature = number(0.1, "Temperature of the similarity to the prototypes.", low=1e-3)
    background_momentum = number(0.99, "Share of the background prototype that an iteration leaves.", high=1)
    min_voxels = whole_number(10, "A class with no more voxels in a batch (or pass) has no prototype there.")
    prototype_refresh = number(0.5, "Share of the teacher's own estimate in an inherited prototype.", high=1)
    prototype_confidence = number(0.9, "Teacher's probability above which a voxel counts for that estimate.", high=1)
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

    def inherit_prototypes(self, inherited: PrototypeBank | None) -> PrototypeBank:
        """Blends inherited prototypes with the means over the teacher's confident predictions on the step's data."""
        fresh = self._collect_with_teacher()
        if inherited is None:
            inherited = PrototypeBank.unknown(*fresh.prototypes.shape)
        return inherited.to(self.device).blended(fresh, self.prototype_refresh, self.min_voxels)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Makes nnU-Net's data loaders; a resumed training first locates the old classes, which no checkpoint stores."""
        if self.teacher is not None and self.old_class_sampling and self.old_locations is None:
            self._collect_with_teacher()
        loaders: tuple[Any, Any] = super().get_dataloaders()
        return loaders

    def _collect_with_teacher(self) -> PrototypeBank:
        """Collects, in one pass over the training cases, the teacher's prototypes and the locations of old classes."""
        assert self.teacher is not None
        self.print_to_log_file("Collecting the old classes' prototypes and locations with the teacher...")
        num_old = self.step_plan.num_old_channels
        locations = OldClassLocations(num_old)
        confident = confident_classes(num_old, self.prototype_confidence, self.labelled_channels_in)
        observe = locations.add if self.old_class_sampling else None
        prototypes = self.training_pass().prototypes(self.teacher, confident, num_old, observe)
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
