"""PGCD's and DAPD's terms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_cil.losses.chunks import sum_over_chunks
from nnunet_cil.losses.distillation import pgcd_loss
from nnunet_cil.losses.prototypes import (
    class_means,
    cosine_alignment,
    labels_within,
    mean_own_similarity,
    permuted_similarity,
    prototype_centre,
    prototype_similarity,
)
from nnunet_cil.losses.segmentation import merge_new_into_background, merge_unlabelled
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.step_loss import LossSetup, StepLoss


class PGCDLoss(StepLoss):
    """L = L_seg + pgcd_weight L_PGCD + dapd_weight L_DAPD.

    L_seg, at every scale: unbiased cross-entropy (background and old classes are one label) + soft Dice over new
    classes. L_PGCD and L_DAPD at full resolution. A term of weight 0 is not computed. Source: our reading of Zhu et al.
    2025, https://arxiv.org/abs/2511.07749; docs/explanation/pgcd.md has every equation.
    """

    def __init__(self, setup: LossSetup, *, bank: PrototypeBank) -> None:
        """Takes the prototypes; the background's is updated in place while training."""
        super().__init__(setup)
        self.bank = bank

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms segmentation, pgcd and dapd."""
        log_probs = self.log_probs(logits)
        terms = {"segmentation": self.over_scales(self.unbiased_segmentation, log_probs, targets, batch)}
        return self.joined(terms, self.distilled(lambda: self._distillation(log_probs[0], targets[0], batch)))

    def _distillation(self, log_probs: Tensor, target: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Returns the terms pgcd and dapd, and updates the background's prototype between them."""
        settings, terms = self.settings, {}
        unlabelled = self.unlabelled(target)
        teacher_features = batch.teacher.features.float()
        classes = labels_within(batch.trusted_classes, unlabelled, self.num_old)
        teacher_local, counts = class_means(teacher_features, classes, self.num_old)
        if settings.pgcd_weight:
            _, valid = self.split(target)
            num_voxels = unlabelled.numel() if valid is None else valid.sum().clamp(min=1)
            asked = unlabelled[:, None] if batch.absent is None else self._asked(target, batch.absent)
            resemblance = self._resemblance(teacher_features, classes)
            pgcd = self._pgcd(log_probs, teacher_features, asked, num_voxels, resemblance, batch)
            terms["pgcd"] = settings.pgcd_weight * pgcd
        if torch.is_grad_enabled():
            momentum = settings.background_momentum**settings.distillation_interval
            self.bank.update_background(teacher_local[0], counts[0], momentum)
        if settings.dapd_weight:
            terms["dapd"] = settings.dapd_weight * self._dapd(batch.features, classes, teacher_local, counts)
        return terms

    def _pgcd(
        self,
        log_probs: Tensor,
        teacher_features: Tensor,
        asked: Tensor,
        num_voxels: int | Tensor,
        resemblance: Callable[[Tensor, Tensor], Tensor],
        batch: Batch,
    ) -> Tensor:
        has_volumes, merges = batch.volume_classes is not None, self.settings.pgcd_merge

        def of_chunk(
            student: Tensor, teacher_logits: Tensor, features: Tensor, predicted: Tensor, asked: Tensor
        ) -> Tensor:
            if merges:
                student = merge_new_into_background(student, self.num_old)
            r = resemblance(features, teacher_logits)
            teacher = batch.corrected(teacher_logits, predicted[:, 0] if has_volumes else None)
            beta = self.settings.pgcd_beta
            return pgcd_loss(student, teacher, r, asked, beta=beta, num_voxels=num_voxels)

        maps = batch.trusted_classes[:, None], asked
        student = log_probs if merges else self._old_log_probs(log_probs, batch.labelled)
        return sum_over_chunks(of_chunk, student, batch.teacher_logits, teacher_features, *maps)

    def _asked(self, target: Tensor, absent: Tensor) -> Tensor:
        """Returns where the teacher is asked of each class, (batch, K, *spatial) float: 1 where the labels name none, else 0.

        It is ``absent_weight`` of a class that a case does not show, also where they name a new class: that one may look like it,
        and nothing else holds the class there.

        Args:
            target: (batch, 1, *spatial).
            absent: ``Batch.absent``.
        """
        _, valid = self.split(target)
        is_absent = F.pad(absent, (1, 0), value=False).view(len(absent), -1, *[1] * (target.ndim - 2))
        asked = torch.where(is_absent, self.settings.absent_weight, self.unlabelled(target)[:, None].float())
        return asked if valid is None else asked * valid[:, None]

    def _old_log_probs(self, log_probs: Tensor, labelled: Tensor | None) -> Tensor:
        """Returns log q^ of the teacher's classes, (batch, K, *spatial), where the labels name none.

        There is none of the new classes that they show, so the teacher's background is the student's own. New classes that a
        sample's labels do not show may be there; to the teacher they are background.

        Args:
            log_probs: (batch, K+N, *spatial).
            labelled: ``Batch.labelled``.
        """
        if labelled is not None and not labelled[:, self.num_old - 1 :].all():
            is_old = torch.arange(labelled.shape[1], device=labelled.device) < self.num_old - 1
            log_probs = merge_unlabelled(log_probs, labelled | is_old)
        return log_probs[:, : self.num_old]

    def _resemblance(self, features: Tensor, classes: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns what gives the r of w_c = 1 + beta r_c, from features and logits of the teacher.

        ``prototypes``: the similarity to the prototypes, pi. ``uniform``: a number for each class, the mean of pi_c over the
        voxels of the batch that the teacher calls c; 0 where it calls none so. ``teacher``, a control: the teacher's probability
        p_c. ``permuted``, another: the similarity to another class's prototype, pi_sigma(c).

        Args:
            features: (batch, channels, *spatial) float32, the teacher's.
            classes: (batch, *spatial) int64 in [0, K], the teacher's; K stands for none.
        """
        weighting = self.settings.pgcd_weighting
        if weighting == "teacher":
            return lambda _features, logits: logits.float().softmax(1)
        if weighting == "permuted":
            return lambda features, _logits: permuted_similarity(self._similarity(features))
        if weighting == "uniform":
            bank, temperature = self.bank, self.settings.similarity_temperature
            means = mean_own_similarity(features, classes, bank.prototypes, bank.known, temperature=temperature)
            return lambda _features, logits: means.view(1, -1, *[1] * (logits.ndim - 2)).expand(logits.shape)
        return lambda features, _logits: self._similarity(features)

    def _similarity(self, features: Tensor) -> Tensor:
        bank, temperature = self.bank, self.settings.similarity_temperature
        return prototype_similarity(features, bank.prototypes, bank.known, temperature=temperature)

    def _dapd(self, features: Tensor, classes: Tensor, teacher_local: Tensor, counts: Tensor) -> Tensor:
        student_local, _ = class_means(features, classes, self.num_old)
        used = counts > self.settings.min_voxels
        centre = prototype_centre(self.bank.prototypes, self.bank.known)
        to_global = cosine_alignment(student_local - centre, self.bank.prototypes - centre, used & self.bank.known)
        to_teacher = cosine_alignment(student_local - centre, teacher_local - centre, used)
        return to_global + to_teacher
