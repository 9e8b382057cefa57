"""Prototypes: mean features of classes, how much a voxel resembles them, and how well two sets agree."""

from __future__ import annotations

import torch
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from torch import Tensor, distributed
from torch.nn import functional as F

from nnunet_cil.losses.sums import sums_by_class


def most_probable(logits: Tensor) -> Tensor:
    """Argmax over the classes, (batch, K, *spatial) -> (batch, *spatial) int64; ``max`` is ten times faster on a CPU."""
    return logits.max(1).indices


def labels_within(labels: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """The labels in ``mask``, ``num_classes`` outside of it, which stands for none of the classes; any shape."""
    return labels.masked_fill(~mask, num_classes)


def class_sums(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """S_c = sum_v F(v) [labels(v) = c], over batch and space, in at least float32; and the number of these voxels.

    Args:
        features: (batch, channels, *spatial) float.
        labels: (batch, *spatial) int64 in [0, num_classes]; the last for none, from ``labels_within``.
        num_classes: K.

    Returns:
        Sums (K, channels), float32, or float64 for float64 features, with the gradient of ``features``; counts (K,) float32.
    """
    labels = labels.flatten(1)
    values = features.flatten(2).to(torch.promote_types(features.dtype, torch.float32))
    ones = torch.ones_like(labels, dtype=torch.float32)[:, None]
    sums, counts = (sums_by_class(x, labels, num_classes + 1).sum(0)[:, :-1] for x in (values, ones))
    return sums.T, counts[0]


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum over the processes of a distributed training, with gradient; the tensor itself where there is one process."""
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        total: Tensor = AllGatherGrad.apply(tensor.contiguous()).sum(0)  # NCCL refuses a transposed tensor
        return total
    return tensor


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Local prototypes: means over batch, space and ranks, by label; 0 for a class without voxels. As ``class_sums``.

    Returns:
        Means (K, channels), with the gradient of ``features``; counts (K,) float32.
    """
    sums, counts = (sum_over_ranks(x) for x in class_sums(features, labels, num_classes))
    return sums / counts[:, None].clamp(min=1), counts


def prototype_centre(prototypes: Tensor, known: Tensor) -> Tensor:
    """Centre m: mean of the known prototypes, background included: (K, channels), (K,) bool -> (channels,)."""
    return (prototypes * known[:, None]).sum(0) / known.sum().clamp(min=1)


@torch.no_grad()
def prototype_similarity(features: Tensor, prototypes: Tensor, known: Tensor, *, temperature: float) -> Tensor:
    """How much each voxel looks like each class: pi(v) = softmax_c(cos(F(v) - m, P_c - m) / temperature).

    m is the mean of the prototypes. Without the centring all cosines are near 1 and the map says little.

    Source: our reading of Zhu et al. 2025, https://arxiv.org/abs/2511.07749; the equation is ours.

    Args:
        features: (batch, channels, *spatial) float.
        prototypes: (K, channels) float32.
        known: (K,) bool; a class without a prototype gets similarity 0.
        temperature: of the softmax, > 0.

    Returns:
        (batch, K, *spatial) float32, sums to 1 over the classes; no gradient.
    """
    centre = prototype_centre(prototypes, known)
    directions = F.normalize(prototypes - centre, dim=1)
    flat = features.flatten(2).float()
    projections = torch.cat([directions, centre[None]]) @ flat
    norm_squared = flat.square().sum(1) - 2 * projections[:, -1] + centre.square().sum()
    scale = norm_squared.clamp(min=1e-12).rsqrt() / temperature
    offset = (directions @ centre).masked_fill(~known, torch.inf)  # a similarity of 0
    scores = projections[:, :-1].sub_(offset[:, None]).mul_(scale[:, None])
    return scores.softmax(1).view(*scores.shape[:2], *features.shape[2:])


def cosine_alignment(local: Tensor, reference: Tensor, used: Tensor) -> Tensor:
    """L = mean_{c used} (1 - cos(a_c, r_c)).

    With DAPD, a_c is the student's local prototype, r_c the global prototype or the teacher's local one, all centred.
    Source: our reading of Zhu et al. 2025, https://arxiv.org/abs/2511.07749.

    Args:
        local: (K, channels) float, with gradient.
        reference: (K, channels) float.
        used: (K,) bool.

    Returns:
        () float in [0, 2]; 0 on the graph where no class is used.
    """
    distances = 1 - F.cosine_similarity(local, reference.detach(), dim=1)
    return (distances * used).sum() / used.sum().clamp(min=1)
