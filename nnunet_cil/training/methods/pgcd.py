"""nnUNetTrainerPGCD: Prototype-Guided Calibration Distillation + Dual-Aligned Prototype Distillation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from torch import Tensor

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
from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.data import StepDataset
from nnunet_cil.training.locations import OldClassLocations
from nnunet_cil.training.passes import confident_classes
from nnunet_cil.training.step_loss import StepContext, StepLoss


class PGCDLoss(StepLoss):
    """L = L_seg + old_dice_weight L_old + pgcd_weight L_PGCD + dapd_weight L_DAPD.

    L_seg, at every scale: unbiased cross-entropy (background and old classes are one label) + soft Dice over new
    classes. L_old, at every scale: soft Dice over old classes, the teacher's segmentation standing for the label where the step
    has none. L_PGCD and L_DAPD at full resolution. A term of weight 0 is not computed. Source: our reading of Zhu et al. 2025,
    https://arxiv.org/abs/2511.07749; docs/method.md has every equation.
    """

    def __init__(
        self,
        context: StepContext,
        *,
        bank: PrototypeBank,
        old_dice_weight: float,
        pgcd_weight: float,
        pgcd_beta: float,
        dapd_weight: float,
        similarity_temperature: float,
        background_momentum: float,
        min_voxels: int,
        volume_trust: float,
    ) -> None:
        """Hyper-parameters as on the trainer; ``bank`` is updated in place while training."""
        super().__init__(context)
        self.bank = bank
        self.old_dice_weight = old_dice_weight
        self.pgcd_weight, self.pgcd_beta, self.dapd_weight = pgcd_weight, pgcd_beta, dapd_weight
        self.similarity_temperature = similarity_temperature
        self.background_momentum = background_momentum
        self.min_voxels = min_voxels
        self.volume_trust = volume_trust

    def terms(self, logits: list[Tensor], targets: list[Tensor]) -> dict[str, Tensor]:
        """segmentation, old_dice, pgcd, dapd."""
        log_probs = self.log_probs(logits)
        terms = {"segmentation": self.over_scales(self.unbiased_segmentation, log_probs, targets)}
        _, valid = self.split(targets[0])
        unlabelled = self.unlabelled(targets[0])
        teacher_features = self.teacher.output.features.float()
        predicted = self.teacher_classes()
        if self.old_dice_weight:
            old_dice = self.over_scales(self._old_dice, log_probs, self.pseudo_labelled(targets, predicted))
            terms["old_dice"] = self.old_dice_weight * old_dice
        classes = labels_within(predicted, unlabelled, self.num_old)
        teacher_local, counts = class_means(teacher_features, classes, self.num_old)
        if self.pgcd_weight:
            pgcd = self._pgcd(log_probs[0], teacher_features, predicted, unlabelled, valid)
            terms["pgcd"] = self.pgcd_weight * pgcd
        if torch.is_grad_enabled():
            self.bank.update_background(teacher_local[0], counts[0], self.background_momentum)
        if self.dapd_weight:
            terms["dapd"] = self.dapd_weight * self._dapd(classes, teacher_local, counts)
        return terms

    def _old_dice(self, log_probs: Tensor, target: Tensor) -> Tensor:
        labels, valid = self.split(target)
        return self.dice(log_probs, labels, valid, slice(1, self.num_old))

    def _pgcd(
        self,
        log_probs: Tensor,
        teacher_features: Tensor,
        predicted: Tensor,
        unlabelled: Tensor,
        valid: Tensor | None,
    ) -> Tensor:
        num_voxels = unlabelled.numel() if valid is None else valid.sum().clamp(min=1)
        corrects = self.volume_classes is not None and self.volume_trust > 0

        def of_chunk(
            log_probs: Tensor, teacher_logits: Tensor, features: Tensor, predicted: Tensor, unlabelled: Tensor
        ) -> Tensor:
            similarity = prototype_similarity(
                features, self.bank.prototypes, self.bank.known, temperature=self.similarity_temperature
            )
            student = merge_new_into_background(log_probs, self.num_old)
            teacher = teacher_logits.float().softmax(1)
            if corrects:
                teacher = corrected_probs(teacher, predicted[:, 0], self.volume_trust)
            return pgcd_loss(student, teacher, similarity, unlabelled[:, 0], beta=self.pgcd_beta, num_voxels=num_voxels)

        maps = predicted[:, None], unlabelled[:, None]
        return sum_over_chunks(of_chunk, log_probs, self.teacher_logits(), teacher_features, *maps)

    def _dapd(self, classes: Tensor, teacher_local: Tensor, counts: Tensor) -> Tensor:
        student_local, _ = class_means(self.features.take(), classes, self.num_old)
        used = counts > self.min_voxels
        centre = prototype_centre(self.bank.prototypes, self.bank.known)
        to_global = cosine_alignment(student_local - centre, self.bank.prototypes - centre, used & self.bank.known)
        to_teacher = cosine_alignment(student_local - centre, teacher_local - centre, used)
        return to_global + to_teacher


class nnUNetTrainerPGCD(nnUNetTrainerCIL):
    """PGCD + DAPD (our reading of Zhu et al. 2025, https://arxiv.org/abs/2511.07749)."""

    reads_partial_labels = True
    hyperparameters: ClassVar[dict[str, tuple[float, float]]] = {
        "old_dice_weight": (0, math.inf),
        "pgcd_weight": (0, math.inf),
        "pgcd_beta": (0, math.inf),
        "dapd_weight": (0, math.inf),
        "similarity_temperature": (1e-3, math.inf),
        "background_momentum": (0, 1),
        "min_voxels": (0, math.inf),
        "prototype_refresh": (0, 1),
        "prototype_confidence": (0, 1),
        "old_class_sampling": (0, 1),
        "teacher_volumes": (0, 1),
        "drop_strays": (0, 1),
        "volume_trust": (0, 1),
    }
    new_class_noise = 1.0
    """As copies of the background new classes are found late, in a short step never; beside it ``pgcd_weight`` may be larger."""
    old_dice_weight = 0.25
    pgcd_weight = 30.0
    pgcd_beta = 3.0
    dapd_weight = 0.1
    similarity_temperature = 0.1
    background_momentum = 0.99
    min_voxels = 10
    prototype_refresh = 0.5
    """Share of the teacher's own estimate in an inherited prototype: carried-forward ones go stale."""
    prototype_confidence = 0.9
    """The teacher's probability above which a voxel counts for that estimate, and for sampling."""
    old_class_sampling = 1
    """1: to nnU-Net's foreground sampler the old classes, where the teacher sees them, are one class more; 0: they are none."""
    teacher_volumes = 1
    drop_strays = 1
    volume_trust = 0.9
    """How far the teacher's probabilities give way where its segmentation of the whole volume says another class."""
    old_locations: Mapping[str, npt.NDArray[np.int32]] | None = None
    """Case -> where the teacher sees old classes, once it has looked."""

    def build_step_loss(self) -> StepLoss:
        """L_seg + 0.25 L_old + 30 L_PGCD + 0.1 L_DAPD, by default."""
        assert self.prototypes is not None
        return PGCDLoss(
            self.loss_context(),
            bank=self.prototypes,
            old_dice_weight=self.old_dice_weight,
            pgcd_weight=self.pgcd_weight,
            pgcd_beta=self.pgcd_beta,
            dapd_weight=self.dapd_weight,
            similarity_temperature=self.similarity_temperature,
            background_momentum=self.background_momentum,
            min_voxels=self.min_voxels,
            volume_trust=self.volume_trust,
        )

    def inherit_prototypes(self, inherited: PrototypeBank | None) -> PrototypeBank:
        """Blends inherited prototypes with the teacher's own: means over its confident predictions on the step's data."""
        fresh = self._look_with_teacher()
        if inherited is None:
            inherited = PrototypeBank.unknown(*fresh.prototypes.shape)
        return inherited.to(self.device).blended(fresh, self.prototype_refresh, self.min_voxels)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's. A training that goes on has its prototypes, but not the locations."""
        if self.teacher is not None and self.old_class_sampling and self.old_locations is None:
            self._look_with_teacher()
        loaders: tuple[Any, Any] = super().get_dataloaders()
        return loaders

    def _look_with_teacher(self) -> PrototypeBank:
        """One pass over the training cases: where the teacher is confident of which class, and its mean features there."""
        assert self.teacher is not None
        self.print_to_log_file("Collecting the old classes' prototypes and locations with the teacher...")
        num_old = self.step_plan.num_old_channels
        locations = OldClassLocations(num_old)
        confident = confident_classes(num_old, self.prototype_confidence, self.labelled_channels_in)
        look = locations.add if self.old_class_sampling else None
        prototypes = self.collect_prototypes(self.teacher, confident, num_old, look)
        self.old_locations = locations.per_case()
        return prototypes

    def step_dataset(self, dataset: nnUNetBaseDataset) -> StepDataset:
        """With the old classes where the teacher sees them."""
        found = super().step_dataset(dataset)
        found.old_locations = self.old_locations or {}
        return found


def _all_but(weight: str) -> dict[str, tuple[float, float]]:
    """PGCD's hyper-parameters without the one that an ablation holds at 0."""
    return {name: limits for name, limits in nnUNetTrainerPGCD.hyperparameters.items() if name != weight}


class nnUNetTrainerPGCDOnly(nnUNetTrainerPGCD):
    """Ablation: without DAPD."""

    hyperparameters = _all_but("dapd_weight")
    dapd_weight = 0.0


class nnUNetTrainerDAPDOnly(nnUNetTrainerPGCD):
    """Ablation: without PGCD."""

    hyperparameters = _all_but("pgcd_weight")
    pgcd_weight = 0.0
