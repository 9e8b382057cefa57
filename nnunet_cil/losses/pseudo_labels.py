"""Pseudo-labels from a teacher: entropy, a threshold on it for each class, and corrected probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nnunet_cil.losses.prototypes import most_probable

NUM_BINS = 10_000
"""Resolution of the entropy's histogram: 1e-4."""


def normalised_entropy(probs: Tensor) -> Tensor:
    """Computes the normalised entropy, u = H(p) / ln K.

    Source: Douillard et al. 2021, PLOP, https://arxiv.org/abs/2011.11390, section 3.3 (their code divides twice).

    Args:
        probs: (batch, K, *spatial) float, sums to 1 over the classes, K > 1.

    Returns:
        (batch, *spatial) float in [0, 1], of the dtype of ``probs``; 0 where one class has all the probability.
    """
    return -torch.xlogy(probs, probs).sum(1) / math.log(probs.shape[1])


def entropy_histogram(entropy: Tensor, classes: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """Counts the voxels of each class by their entropy.

    Args:
        entropy: (batch, *spatial) float in [0, 1].
        classes: (batch, *spatial) int64 in [0, num_classes), the teacher's argmax.
        mask: (batch, *spatial) bool, the voxels that are counted.
        num_classes: K.

    Returns:
        (K, NUM_BINS) float32 counts, exact up to 2^24 voxels a bin; 0 for a class without voxels.
    """
    bins = (entropy * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    counts = torch.zeros(num_classes * NUM_BINS, device=mask.device)
    counts.scatter_add_(0, (classes * NUM_BINS + bins).flatten(), mask.flatten().float())
    return counts.view(num_classes, NUM_BINS)


def median_thresholds(histogram: Tensor, *, floor: float) -> Tensor:
    """Computes the thresholds tau_c = max(floor, median of the class's entropies), at the upper edge of the histogram's bin.

    Args:
        histogram: (K, NUM_BINS) float32 counts, from ``entropy_histogram``.
        floor: the least threshold, also that of a class without voxels.

    Returns:
        (K,) float32.
    """
    cumulative = histogram.cumsum(1)
    median = (cumulative < cumulative[:, -1:] / 2).sum(1) + 1
    median = torch.where(cumulative[:, -1] > 0, median, torch.zeros_like(median))
    return (median / histogram.shape[1]).float().clamp(min=floor)


def corrected_probs(probs: Tensor, classes: Tensor, trust: float) -> Tensor:
    """Moves probability to known classes, on the voxels where the argmax is another class.

    p*_c = p_c where argmax p = g, else (1 - trust) p_c + trust [c = g]. Ours; see docs/explanation/pgcd.md.

    Args:
        probs: (batch, K, *spatial) float, p.
        classes: (batch, *spatial) int64 in [0, K), g.
        trust: in [0, 1]; 0 leaves p as it is.

    Returns:
        (batch, K, *spatial), of the dtype of ``probs``; sums to 1 over the classes as these do.
    """
    share = (trust * (most_probable(probs) != classes)).to(probs.dtype)[:, None]
    return (probs * (1 - share)).scatter_add_(1, classes[:, None], share)
