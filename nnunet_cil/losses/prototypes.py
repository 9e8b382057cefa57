"""Prototypes: mean features of classes, the similarity of voxels to them, and the alignment of two sets."""

from __future__ import annotations

import torch
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from torch import Tensor, distributed
from torch.nn import functional as F

from nnunet_cil.losses.chunks import CHUNK_ELEMENTS
from nnunet_cil.losses.precision import full_precision
from nnunet_cil.losses.sums import sums_by_class


def most_probable(logits: Tensor) -> Tensor:
    """Returns the most probable class of each voxel. ``max`` is ten times faster than ``argmax`` on a CPU.

    Args:
        logits: (batch, K, *spatial) float; logits or probabilities.

    Returns:
        (batch, *spatial) int64 in [0, K).
    """
    return logits.max(1).indices


def confidence_sums(probs: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Sums the probability of each class over the voxels that have it, and counts them.

    In float64: a class may have millions of voxels, of which a float32 sum loses a per cent.

    Args:
        probs: (voxels,) float, of each voxel's own class.
        classes: (voxels,) int64 in [0, num_classes).
        num_classes: the number of classes.

    Returns:
        (2, num_classes) float64, on the CPU.
    """
    if probs.device.type == "mps":  # has no float64
        probs, classes = probs.cpu(), classes.cpu()
    sums = torch.bincount(classes, weights=probs.double(), minlength=num_classes)
    return torch.stack([sums, torch.bincount(classes, minlength=num_classes).double()]).cpu()


def labels_within(labels: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """Returns the labels in ``mask``, and ``num_classes``, which stands for no class, outside of it.

    Args:
        labels: (batch, *spatial) int64 in [0, num_classes).
        mask: (batch, *spatial) bool.
        num_classes: K.

    Returns:
        (batch, *spatial) int64 in [0, num_classes].
    """
    return labels.masked_fill(~mask, num_classes)


def class_sums(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sums features by class: S_c = sum_v F(v) [labels(v) = c], over batch and space, in at least float32.

    Args:
        features: (batch, channels, *spatial) float.
        labels: (batch, *spatial) int64 in [0, num_classes]; num_classes stands for no class, see ``labels_within``.
        num_classes: K.

    Returns:
        Sums (K, channels), float32, or float64 for float64 features, with the gradient of ``features``; and the numbers of voxels
        (K,) float32. Both are 0 for a class without voxels.
    """
    labels = labels.flatten(1)
    values = features.flatten(2).to(torch.promote_types(features.dtype, torch.float32))
    ones = torch.ones_like(labels, dtype=torch.float32)[:, None]
    sums, counts = (sums_by_class(x, labels, num_classes + 1).sum(0)[:, :-1] for x in (values, ones))
    return sums.T, counts[0]


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sums a tensor over the processes of a distributed training, with gradient.

    Args:
        tensor: of the same shape on every rank; float for a gradient.

    Returns:
        The sum, of the same shape and dtype; the tensor itself where there is one process.
    """
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        total: Tensor = AllGatherGrad.apply(tensor.contiguous()).sum(0)  # NCCL refuses a transposed tensor
        return total
    return tensor


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Computes local prototypes: the means of features by label, over batch, space and ranks.

    Args:
        features: (batch, channels, *spatial) float.
        labels: (batch, *spatial) int64 in [0, num_classes]; num_classes stands for no class, see ``labels_within``.
        num_classes: K.

    Returns:
        Means (K, channels), of the dtype of ``class_sums``, with the gradient of ``features``; and the numbers of voxels (K,)
        float32. Both are 0 for a class without voxels.
    """
    sums, counts = (sum_over_ranks(x) for x in class_sums(features, labels, num_classes))
    return sums / counts[:, None].clamp(min=1), counts


def prototype_centre(prototypes: Tensor, known: Tensor) -> Tensor:
    """Computes the centre m: the mean of the known prototypes, background included.

    Args:
        prototypes: (K, channels) float.
        known: (K,) bool, the classes that have a prototype.

    Returns:
        (channels,) float; 0 where no class has a prototype.
    """
    return (prototypes * known[:, None]).sum(0) / known.sum().clamp(min=1)


@torch.no_grad()
def prototype_similarity(features: Tensor, prototypes: Tensor, known: Tensor, *, temperature: float) -> Tensor:
    """Computes the similarity of each voxel to each class, pi(v) = softmax_c(cos(F(v) - m, P_c - m) / temperature).

    The softmax is over the known classes, and m is the mean of their prototypes. Without the centring all cosines are near 1,
    and the similarities hardly differ.

    Source: our reading of Zhu et al. 2025, https://arxiv.org/abs/2511.07749; the equation is ours.

    Args:
        features: (batch, channels, *spatial) float.
        prototypes: (K, channels) float32.
        known: (K,) bool, the classes that have a prototype; another one gets similarity 0.
        temperature: of the softmax, > 0.

    Returns:
        (batch, K, *spatial) float32, also under autocast; sums to 1 over the classes, and is 0 where no class has a prototype.
        No gradient.
    """
    with full_precision(features.device):
        centre = prototype_centre(prototypes, known)
        directions = F.normalize(prototypes - centre, dim=1)
        # the centre goes first: |F|^2 - 2 F m + |m|^2 has no digits left where the features are far from 0
        centred = features.flatten(2).float() - centre[:, None]
        scale = centred.square().sum(1).clamp(min=1e-24).rsqrt() / temperature
        scores = (directions @ centred).mul_(scale[:, None])
        unknown = ~known[:, None]
        similarity = scores.masked_fill_(unknown, -torch.inf).softmax(1).masked_fill_(unknown, 0)
    return similarity.view(*similarity.shape[:2], *features.shape[2:])


def permuted_similarity(similarity: Tensor) -> Tensor:
    """Returns the similarity to permuted prototypes, pi_sigma(c): no old class keeps its own.

    sigma(0) = 0, sigma(c) = c + 1 for old c < K-1, sigma(K-1) = 1. A single old class changes with the background.

    Args:
        similarity: (batch, K, *spatial) float, pi, K > 1.

    Returns:
        (batch, K, *spatial), of the dtype of ``similarity``.
    """
    if similarity.shape[1] == 2:
        return similarity.flip(1)
    return torch.cat([similarity[:, :1], similarity[:, 1:].roll(-1, dims=1)], dim=1)


def mean_own_similarity(
    features: Tensor, labels: Tensor, prototypes: Tensor, known: Tensor, *, temperature: float
) -> Tensor:
    """Computes each class's mean similarity over its own voxels, over batch, space and ranks.

    Args:
        features: (batch, channels, *spatial) float.
        labels: (batch, *spatial) int64 in [0, K]; K stands for no class, see ``labels_within``.
        prototypes: (K, channels) float32.
        known: (K,) bool, the classes that have a prototype.
        temperature: of the similarity.

    Returns:
        (K,) float32, mean_{v: labels(v) = c} pi_c(v) with the pi of ``prototype_similarity``; 0 for a class without voxels. No
        gradient.
    """
    num_classes = len(prototypes)
    flat, classes = features.flatten(2), labels.clamp(max=num_classes - 1).flatten(1)[:, None]
    size = max(1, CHUNK_ELEMENTS.get(flat.device.type, 2**24) // num_classes)
    parts = [(..., slice(start, start + size)) for start in range(0, flat.shape[2], size)]
    own = [
        prototype_similarity(flat[at], prototypes, known, temperature=temperature).gather(1, classes[at])
        for at in parts
    ]
    means, _ = class_means(torch.cat(own, 2), labels.flatten(1), num_classes)
    return means[:, 0]


def cosine_alignment(local: Tensor, reference: Tensor, used: Tensor) -> Tensor:
    """Computes the alignment of two sets of prototypes, L = mean_{c used} (1 - cos(a_c, r_c)).

    With DAPD, a_c is the student's local prototype, r_c the global prototype or the teacher's local one, all centred.
    Source: our reading of Zhu et al. 2025, https://arxiv.org/abs/2511.07749.

    Args:
        local: (K, channels) float, a, with gradient.
        reference: (K, channels) float, r.
        used: (K,) bool, the classes that are compared.

    Returns:
        () float in [0, 2]; 0 on the graph where no class is used.
    """
    distances = 1 - F.cosine_similarity(local, reference.detach(), dim=1)
    return (distances * used).sum() / used.sum().clamp(min=1)
