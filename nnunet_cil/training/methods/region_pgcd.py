"""PGCD's and DAPD's terms where classes are regions."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_cil.losses.prototypes import cosine_alignment, sum_over_ranks
from nnunet_cil.losses.regions import mask_means, region_pgcd_loss, two_way_similarity
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.methods.pgcd_loss import PGCDLoss
from nnunet_cil.training.region_terms import RegionTerms


class RegionPGCDLoss(PGCDLoss, RegionTerms):
    """L = L_seg + pgcd_weight L_PGCD + dapd_weight L_DAPD of regions.

    L_seg: nnU-Net's binary cross-entropy + Dice of the new regions. An old region hears the teacher alone, everywhere, also
    inside of a new one. The prototypes are those of each region and of its outside; docs/explanation/regions.md has every
    equation.
    """

    def _distillation(self, logits: Tensor, target: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Returns the terms pgcd and dapd, and updates the outsides' prototypes between them."""
        settings, terms, bank = self.settings, {}, self.bank
        asked, features = self.asked(target, batch), batch.teacher.features.float()
        teacher_masks = batch.trusted_classes & asked
        teacher_local, counts = mask_means(features, teacher_masks)
        if settings.pgcd_weight:
            _, valid = self.split(target)
            num_voxels = target[:, 0].numel() if valid is None else valid.sum().clamp(min=1)
            pi = self._region_resemblance(features, teacher_masks, batch)
            pgcd = region_pgcd_loss(
                logits[:, : self.num_old],
                batch.teacher_probs,
                pi,
                asked,
                beta=settings.pgcd_beta,
                num_voxels=num_voxels,
            )
            terms["pgcd"] = settings.pgcd_weight * pgcd
        if torch.is_grad_enabled():
            momentum = settings.background_momentum**settings.distillation_interval
            bank.update_outside(*mask_means(features, asked & ~batch.trusted_classes), momentum)
        if settings.dapd_weight:
            student_local, _ = mask_means(batch.features, teacher_masks)
            used = counts > settings.min_voxels
            centres = (bank.inside + bank.outside) / 2 * bank.known_regions[:, None]
            to_global = cosine_alignment(student_local - centres, bank.inside - centres, used & bank.known_regions)
            to_teacher = cosine_alignment(student_local - centres, teacher_local - centres, used)
            terms["dapd"] = settings.dapd_weight * (to_global + to_teacher)
        return terms

    def _region_resemblance(self, features: Tensor, masks: Tensor, batch: Batch) -> Tensor:
        """Returns the r of w_c = 1 + beta r_c, (batch, K, *spatial), as ``PGCDLoss._resemblance``.

        ``permuted``: the similarity to the next region's prototype; of a single old region, that to its outside. 0 where the
        prototypes are unknown.
        """
        weighting, bank = self.settings.pgcd_weighting, self.bank
        if weighting == "teacher":
            return batch.teacher_logits.float().sigmoid()
        pi = two_way_similarity(
            features, bank.inside, bank.outside, bank.known_regions, temperature=self.settings.similarity_temperature
        )
        if weighting == "permuted":
            return pi.roll(-1, dims=1) if pi.shape[1] > 1 else (1 - pi) * bank.known_regions
        if weighting == "uniform":
            sums, counts = ((x * masks).flatten(2).sum((0, 2)) for x in (pi, torch.ones_like(pi)))
            means = sum_over_ranks(sums) / sum_over_ranks(counts).clamp(min=1)
            return means.view(1, -1, *[1] * (pi.ndim - 2)).expand_as(pi)
        return pi
