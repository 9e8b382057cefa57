"""Terms of regions: classes that overlap, each with a sigmoid of its own. No background is among the channels.

Notation: K regions are old, N are new; ``*spatial`` is two or three axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_cil.losses.precision import EPSILON, full_precision
from nnunet_cil.losses.prototypes import sum_over_ranks


def region_masks(bits: Tensor, places: Sequence[int]) -> Tensor:
    """Returns one mask a region from labels that have a bit for each.

    Args:
        bits: (batch, *spatial) integers >= 0.
        places: of the regions' bits, in the order of the masks.

    Returns:
        (batch, len(places), *spatial) bool.
    """
    shifts = torch.tensor(places, dtype=torch.long, device=bits.device).view(1, -1, *[1] * (bits.ndim - 1))
    return (bits.long()[:, None] >> shifts) % 2 == 1


def region_cross_entropy(
    logits: Tensor, masks: Tensor, labelled: Tensor | None = None, valid: Tensor | None = None
) -> Tensor:
    """Computes the binary cross-entropy of regions, as nnU-Net's DC_and_BCE_loss does.

    L = -mean [y log p + (1-y) log(1-p)] over voxels and regions. Where there is an ignore label, nnU-Net divides by the valid
    voxels alone, so that L is the sum over the regions of their means.

    Args:
        logits: (batch, N, *spatial) float.
        masks: (batch, N, *spatial) bool, y.
        labelled: (batch, N) bool, the regions that each sample's labels show; None for all.
        valid: (batch, *spatial) bool; None for all.

    Returns:
        () float >= 0; exactly 0 on the graph where nothing is labelled.
    """
    losses = F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype), reduction="none")
    if labelled is None and valid is None:
        return losses.mean()
    counted = torch.ones_like(masks[:, :1]) if valid is None else valid[:, None]
    if labelled is not None:
        counted = counted & labelled.view(*labelled.shape, *[1] * (logits.ndim - 2))
    share = counted.sum() / counted.shape[1]
    return (losses * counted).sum() / share.clamp(min=1) / (1 if valid is not None else logits.shape[1])


def region_distillation_loss(logits: Tensor, teacher_probs: Tensor, counted: Tensor | None = None) -> Tensor:
    """Computes the distillation of Learning without Forgetting, region by region.

    L = -(1/(K |counted|)) sum_v sum_{c<=K} [p_c log q_c + (1-p_c) log(1-q_c)], with q = sigmoid(logits).

    Source: Li & Hoiem 2016, https://arxiv.org/abs/1606.09282, with a binary distribution for each region.

    Args:
        logits: (batch, K, *spatial) float, the student's of the old regions.
        teacher_probs: (batch, K, *spatial) float, p.
        counted: (batch, K or 1, *spatial) bool, where the teacher speaks; None for everywhere.

    Returns:
        () float >= 0; its least value is the teacher's entropy. Exactly 0 on the graph where nothing counts.
    """
    losses = F.binary_cross_entropy_with_logits(logits, teacher_probs, reduction="none")
    if counted is None:
        return losses.mean()
    return (losses * counted).sum() / counted.expand_as(losses).sum().clamp(min=1)


def region_pgcd_loss(
    logits: Tensor,
    teacher_probs: Tensor,
    resemblance: Tensor,
    counted: Tensor,
    *,
    beta: float,
    num_voxels: int | Tensor,
) -> Tensor:
    """Computes Prototype-Guided Calibration Distillation of regions.

    L = 1/(2K |valid|) sum_v sum_{c<=K} w_c(v) KL_b(p_c(v) || q_c(v)),  w_c(v) = 1 + beta r_c(v),
    KL_b(p || q) = p log(p/q) + (1-p) log((1-p)/(1-q)), with p clamped at 1e-6, q = sigmoid(logits).

    Inside of a new region, too: a label says nothing of another region. Source: our reading of Zhu et al. 2025,
    https://arxiv.org/abs/2511.07749; the equation is ours.

    Args:
        logits: (batch, K, *spatial) float, the student's of the old regions.
        teacher_probs: (batch, K, *spatial) float, p.
        resemblance: (batch, K, *spatial) float in [0, 1], r: as of ``pgcd_loss``, with the pi of ``two_way_similarity``.
        counted: (batch, K or 1, *spatial) bool, the valid voxels of regions that the labels do not show.
        beta: strength of the calibration; 0 is uniform distillation.
        num_voxels: |valid|, at least 1.

    Returns:
        () float >= 0; exactly 0 on the graph where nothing counts.
    """
    p = teacher_probs.clamp(EPSILON, 1 - EPSILON)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, p, reduction="none")
    divergence = cross_entropy + torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)
    total = (divergence * (1 + beta * resemblance) * counted).sum()
    return total / (2 * logits.shape[1] * num_voxels)


def mask_sums(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Sums features by region: S_c = sum_v F(v) [v in region c], over batch and space, in at least float32.

    Args:
        features: (batch, channels, *spatial) float.
        masks: (batch, regions, *spatial) bool; they may overlap.

    Returns:
        Sums (regions, channels), with the gradient of ``features``; and the numbers of voxels (regions,) float32.
    """
    values = features.flatten(2).to(torch.promote_types(features.dtype, torch.float32))
    own = masks.flatten(2)
    with full_precision(features.device):
        sums = (own.to(values.dtype) @ values.transpose(1, 2)).sum(0)
    return sums, own.sum((0, 2)).float()


def mask_means(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Computes local prototypes of regions, over batch, space and ranks; arguments and counts as of ``mask_sums``.

    Returns:
        Means (regions, channels) and the numbers of voxels; both are 0 for a region without voxels.
    """
    sums, counts = (sum_over_ranks(x) for x in mask_sums(features, masks))
    return sums / counts[:, None].clamp(min=1), counts


@torch.no_grad()
def two_way_similarity(
    features: Tensor, inside: Tensor, outside: Tensor, known: Tensor, *, temperature: float
) -> Tensor:
    """Computes the similarity of each voxel to each region, against the region's own outside.

    pi_c(v) = softmax over the two of cos(F(v) - m_c, P_c - m_c) / temperature and cos(F(v) - m_c, P'_c - m_c) / temperature, with
    P' the prototype of the outside and m_c the mean of P_c and P'_c. So the two cosines are each other's negative.

    Source: our reading of Zhu et al. 2025, https://arxiv.org/abs/2511.07749; the equation is ours.

    Args:
        features: (batch, channels, *spatial) float.
        inside: (K, channels) float32, P.
        outside: (K, channels) float32, P'.
        known: (K,) bool, the regions that have both; another one gets similarity 0.
        temperature: of the softmax, > 0.

    Returns:
        (batch, K, *spatial) float32. No gradient.
    """
    flat, centres, similar = features.flatten(2).float(), (inside + outside) / 2, []
    with full_precision(features.device):
        for own, centre, is_known in zip(inside, centres, known, strict=True):
            cosine = F.cosine_similarity(flat - centre[:, None], (own - centre)[None, :, None], dim=1)
            similar.append((2 * cosine / temperature).sigmoid() * is_known)
    return torch.stack(similar, 1).view(len(features), -1, *features.shape[2:])


def corrected_region_probs(probs: Tensor, masks: Tensor, trust: float) -> Tensor:
    """Moves probability to known regions, on the voxels where the more probable answer is the other one.

    p*_c = p_c where [p_c > 1/2] = g_c, else (1 - trust) p_c + trust g_c. Ours; see docs/explanation/pgcd.md.

    Args:
        probs: (batch, K, *spatial) float, p.
        masks: (batch, K, *spatial) bool, g.
        trust: in [0, 1]; 0 leaves p as it is.

    Returns:
        (batch, K, *spatial), of the dtype of ``probs``.
    """
    moved = (1 - trust) * probs + trust * masks.to(probs.dtype)
    return torch.where((probs > 0.5) == masks, probs, moved)
