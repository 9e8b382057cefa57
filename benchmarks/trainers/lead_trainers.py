"""Changes of PGCD that are tried on validation cases, beside the settings of tuned_trainers.py.

Only ``pgcd_merge`` is shipped. What ends in 2 is the second step after the first of another setting, its parent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tuned_trainers import TRIED

from nnunet_cil.losses.chunks import sum_over_chunks
from nnunet_cil.losses.distillation import pgcd_loss
from nnunet_cil.losses.prototypes import class_means, prototype_centre
from nnunet_cil.losses.segmentation import merge_new_into_background
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.hyperparameters import fixed
from nnunet_cil.training.methods.pgcd_base import PGCDLoss
from nnunet_cil.training.methods.pgcd_paper import nnUNetTrainerPGCDPaper
from nnunet_cil.training.step_loss import StepLoss


class BalancedLoss(PGCDLoss):
    """PGCD whose gradient is never larger than that of the segmentation term.

    lambda = pgcd_weight min(1, r |dL_seg/dz| / |pgcd_weight dL_PGCD/dz|), z: the log-probabilities at full resolution, both norms
    as running means over iterations, r = gradient_balance.
    """

    norms: Tensor | None = None

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms of PGCD, its distillation scaled."""
        terms = super().terms(logits, targets, batch)
        if not torch.is_grad_enabled() or "pgcd" not in terms:
            return terms
        log_probs = self.log_probs(logits)[0]
        gradients = [torch.autograd.grad(terms[n], log_probs, retain_graph=True)[0] for n in ("segmentation", "pgcd")]
        norms = torch.stack([g.norm() for g in gradients])
        self.norms = norms if self.norms is None else 0.9 * self.norms + 0.1 * norms
        share = (self.settings.gradient_balance * self.norms[0] / self.norms[1].clamp(min=1e-12)).clamp(max=1)
        return {**terms, "pgcd": share * terms["pgcd"]}

    def all_terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Keeps the log-probabilities for the gradients."""
        self._log_probs = (
            logits,
            [x.log_softmax(1) if w != 0 else x for x, w in zip(logits, self.scale_weights, strict=True)],
        )
        try:
            return super().all_terms(logits, targets, batch)
        finally:
            self._log_probs = None


class PrototypeSegmentationLoss(PGCDLoss):
    """PGCD with a segmentation by prototypes, new classes' included, as a further term.

    L = mean_{c present} mean_{v: y*(v) = c} -log softmax_c(cos(F(v) - m, P_c - m) / temperature); y*: labels, filled by the
    teacher's classes; P_c of new classes is a running mean of the student's features over their labels.
    """

    new_prototypes: Tensor | None = None
    new_known: Tensor | None = None

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms of PGCD, and prototype_segmentation."""
        terms = super().terms(logits, targets, batch)
        features = batch.features.float()
        labels = self.pseudo_labelled([targets[0]], batch.teacher_classes)[0][:, 0].long()
        num_classes = logits[0].shape[1]
        with torch.no_grad():
            means, counts = class_means(features, labels, num_classes)
            new, seen = means[self.num_old :], counts[self.num_old :] > 0
            if self.new_prototypes is None:
                self.new_prototypes, self.new_known = torch.zeros_like(new), torch.zeros_like(seen)
            assert self.new_prototypes is not None
            assert self.new_known is not None
            keep = torch.where(self.new_known, 0.9, 0.0)[:, None]
            moved = keep * self.new_prototypes + (1 - keep) * new
            self.new_prototypes = torch.where(seen[:, None], moved, self.new_prototypes)
            self.new_known = self.new_known | seen
            prototypes = torch.cat([self.bank.prototypes, self.new_prototypes])
            known = torch.cat([self.bank.known, self.new_known])
            centre = prototype_centre(prototypes, known)
            directions = F.normalize(prototypes - centre, dim=1)
        centred = F.normalize(features.flatten(2) - centre[:, None], dim=1)
        scores = (directions @ centred) / self.settings.similarity_temperature
        scores = scores.masked_fill(~known[:, None], -1e4)
        losses = F.cross_entropy(scores, labels.flatten(1), reduction="none")[:, None]
        present = (counts > self.settings.min_voxels) & known
        of_class, _ = class_means(losses, labels.flatten(1), num_classes)
        term = (of_class[:, 0] * present).sum() / present.sum().clamp(min=1)
        return {**terms, "prototype_segmentation": self.settings.prototype_segmentation_weight * term}


class _Lead(nnUNetTrainerPGCDPaper):
    """The setting ``imprinted`` of tuned_trainers.py."""

    dapd_weight = 0.1
    prototype_refresh = 0.5
    teacher_volumes = True
    old_dice_weight = 0.25
    new_class_start = "imprinted"
    loss_class: type[PGCDLoss]

    def build_step_loss(self) -> StepLoss:
        """Builds the changed loss."""
        assert self.prototypes is not None
        return self.loss_class(self.loss_setup(), bank=self.prototypes)


class nnUNetTrainerPGCDPaper_balance(_Lead):
    """Gradients in balance."""

    gradient_balance = fixed(1.0)
    loss_class = BalancedLoss


class nnUNetTrainerPGCDPaper_prototypes(_Lead):
    """A segmentation by prototypes."""

    prototype_segmentation_weight = fixed(0.3)
    loss_class = PrototypeSegmentationLoss


class RampLoss(PGCDLoss):
    """PGCD whose weight grows from 0 in the first part of the step: pgcd_weight min(1, t / (ramp T)), t of T iterations."""

    num_iterations: int

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms of PGCD, its distillation scaled."""
        terms = super().terms(logits, targets, batch)
        if "pgcd" in terms:
            share = min(1.0, self._iteration / (self.settings.ramp * self.num_iterations))
            terms["pgcd"] = share * terms["pgcd"]
        return terms


class nnUNetTrainerPGCDPaper_ramp30(_Lead):
    """A larger weight, which grows."""

    pgcd_weight = 30.0
    ramp = fixed(0.5)
    loss_class = RampLoss

    def build_step_loss(self) -> StepLoss:
        """Builds the loss, which knows how long the step is."""
        loss = super().build_step_loss()
        loss.num_iterations = self.num_epochs * self.num_iterations_per_epoch
        return loss


class EverywhereLoss(PGCDLoss):
    """PGCD on labelled voxels, too, where background and new classes are one to the teacher, as MiB's distillation."""

    def _pgcd(self, log_probs: Tensor, teacher_features: Tensor, unlabelled: Tensor, *others: Any) -> Tensor:
        return super()._pgcd(log_probs, teacher_features, torch.ones_like(unlabelled), *others)


class SoftmaxLoss(PGCDLoss):
    """PGCD in its scalar form.

    L = -1/(K |valid|) sum_{v in U} W(v) sum_{c<K} p_c(v) log q_c(v), W(v) = 1 + pgcd_beta sum_{0<c<K} pi_c(v); q as in PGCDLoss.
    """

    def _pgcd(
        self,
        log_probs: Tensor,
        teacher_features: Tensor,
        unlabelled: Tensor,
        num_voxels: int | Tensor,
        resemblance: Callable[[Tensor, Tensor], Tensor],
        batch: Batch,
    ) -> Tensor:
        merges = self.settings.pgcd_merge
        student = merge_new_into_background(log_probs, self.num_old) if merges else log_probs[:, : self.num_old]
        losses = -(batch.teacher_probs * student).mean(1)
        weight = 1 + self.settings.pgcd_beta * resemblance(teacher_features, batch.teacher_logits)[:, 1:].sum(1)
        return (losses * weight * unlabelled).sum() / num_voxels


class nnUNetTrainerPGCDPaper_everywhere(_Lead):
    """A smaller weight, on all voxels."""

    pgcd_weight = 10 / 3
    everywhere = fixed(1)
    loss_class = EverywhereLoss


class nnUNetTrainerPGCDPaper_weakprototypes(nnUNetTrainerPGCDPaper_prototypes):
    """A segmentation by prototypes, beside a smaller weight."""

    pgcd_weight = 10 / 3


class nnUNetTrainerPGCDPaper_unmergedweak(_Lead):
    """Without the merge, a smaller weight."""

    pgcd_merge = fixed(False)
    pgcd_weight = 10 / 3
    loss_class = PGCDLoss


class nnUNetTrainerPGCDPaper_unmergedsampled(nnUNetTrainerPGCDPaper_unmergedweak):
    """The same, with patches centred on old classes, too."""

    old_class_sampling = True


class nnUNetTrainerPGCDPaper_unmergedsampled2(nnUNetTrainerPGCDPaper_unmergedsampled):
    """The same in the second step after the first alone, which is nnUNetTrainerPGCDPaper_unmergedweak's."""

    from_step = 2


class nnUNetTrainerPGCDPaper_softmax(_Lead):
    """The scalar form, without prototypes."""

    softmax = fixed(1)
    pgcd_beta = 0.0
    dapd_weight = 0.0
    loss_class = SoftmaxLoss


class nnUNetTrainerPGCDPaper_unmergedscalar(_Lead):
    """The scalar form, without the merge."""

    pgcd_merge = fixed(False)
    softmax = fixed(1)
    loss_class = SoftmaxLoss


class MarginLoss(PGCDLoss):
    """PGCD with the merge within 3 voxels of a label alone, along the axes."""

    def _pgcd(
        self,
        log_probs: Tensor,
        teacher_features: Tensor,
        unlabelled: Tensor,
        num_voxels: int | Tensor,
        resemblance: Callable[[Tensor, Tensor], Tensor],
        batch: Batch,
    ) -> Tensor:
        has_volumes = batch.volume_classes is not None
        pool = F.max_pool2d if unlabelled.ndim == 3 else F.max_pool3d
        merged = pool((~unlabelled)[:, None].float(), 7, stride=1, padding=3) > 0

        def of_chunk(
            log_probs: Tensor,
            teacher_logits: Tensor,
            features: Tensor,
            predicted: Tensor,
            unlabelled: Tensor,
            merged: Tensor,
        ) -> Tensor:
            together = merge_new_into_background(log_probs, self.num_old)
            student = torch.where(merged, together, log_probs[:, : self.num_old])
            pi = resemblance(features, teacher_logits)
            teacher = batch.corrected(teacher_logits, predicted[:, 0] if has_volumes else None)
            beta = self.settings.pgcd_beta
            return pgcd_loss(student, teacher, pi, unlabelled[:, 0], beta=beta, num_voxels=num_voxels)

        maps = batch.teacher_classes[:, None], unlabelled[:, None], merged
        return sum_over_chunks(of_chunk, log_probs, batch.teacher_logits, teacher_features, *maps)


class nnUNetTrainerPGCDPaper_margin(_Lead):
    """The merge around labels alone, a smaller weight."""

    pgcd_weight = 10 / 3
    margin = fixed(3)
    loss_class = MarginLoss


def _second_step(name: str, **changed: Any) -> type[nnUNetTrainerPGCDPaper]:
    """Returns the setting ``imprinted`` with changes in the second step after the first."""
    trainer = f"nnUNetTrainerPGCDPaper_{name}"
    loss = {"loss_class": PGCDLoss, "build_step_loss": _Lead.build_step_loss}
    own = {"__module__": __name__, "from_step": 2, **loss, **changed}
    return type(trainer, (TRIED["nnUNetTrainerPGCDPaper_imprinted"],), own)


NO_PROTOTYPES = {"pgcd_beta": 0.0, "dapd_weight": 0.0}

SECOND_STEPS = [
    _second_step("plaineverywhere2", loss_class=EverywhereLoss, everywhere=fixed(1), **NO_PROTOTYPES),
    _second_step("softmax2", loss_class=SoftmaxLoss, softmax=fixed(1), **NO_PROTOTYPES),
    _second_step("unmerged2", pgcd_merge=fixed(False)),
    _second_step("unmergedweak2", pgcd_merge=fixed(False), pgcd_weight=10 / 3),
]
globals().update({trainer.__name__: trainer for trainer in SECOND_STEPS})
