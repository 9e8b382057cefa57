"""Terms that penalise changed features or weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def local_pod_distance(student: Tensor, teacher: Tensor, scales: Sequence[int]) -> Tensor:
    """Computes the local POD distance, L = mean over the batch of ||Psi(x) - Psi(x')||_2, with Psi built from x^2.

    For every scale s the volume is cut into s^d windows, and Psi consists, for every window and axis, of the means along that
    axis. Cutting the *other* axes into windows does not change these means, so all windows of a scale come from one
    pooling per axis into s bins. Where s does not divide an axis, the bins are those of PyTorch's adaptive pooling, and
    an axis of fewer than s voxels gets as many bins as it has voxels.

    Source: Douillard et al. 2021, PLOP, https://arxiv.org/abs/2011.11390, section 3.2; 2D there, two or three axes here.

    Args:
        student: (batch, channels, *spatial) float, x, with gradient.
        teacher: (batch, channels, *spatial) float, x'.
        scales: numbers of windows along an axis, e.g. (1, 2, 4).

    Returns:
        () float32 >= 0; 0, with a gradient of 0, where the features are the same.
    """
    a, b = student.float().square(), teacher.float().square()
    parts = []
    for axis in range(2, student.ndim):
        for own, other in zip(_bin_means(a, axis, scales), _bin_means(b, axis, scales), strict=True):
            parts.append((own - other).flatten(1))  # pooled first: no difference of full size
    squares = torch.stack([p.square().sum(1) for p in parts]).sum(0)
    # the gradient of a norm at 0 is not a number: a student that equals its teacher stays where it is
    norms = torch.where(squares > 0, squares, torch.ones_like(squares)).sqrt() * (squares > 0)
    return norms.mean()


def _bin_means(x: Tensor, axis: int, scales: Sequence[int]) -> list[Tensor]:
    """Computes the means over s bins along an axis, for every scale s; from one pass at the finest where bins are alike."""
    finest, length = max(scales), x.shape[axis]
    if length % finest == 0 and all(finest % s == 0 for s in scales):
        fine = torch.unflatten(x, axis, (finest, -1)).mean(axis + 1)
        return [torch.unflatten(fine, axis, (s, -1)).mean(axis + 1) for s in scales]
    pool = F.adaptive_avg_pool2d if x.ndim == 4 else F.adaptive_avg_pool3d
    sizes: list[Any] = [tuple(min(s, length) if i == axis else None for i in range(2, x.ndim)) for s in scales]
    return [pool(x, size) for size in sizes]


def importance_penalty(
    parameters: Mapping[str, Tensor], anchors: Mapping[str, Tensor], importances: Mapping[str, Tensor]
) -> Tensor:
    """Computes the penalty on changed weights, L = 1/2 sum_i I_i (theta_i - theta*_i)^2.

    The sum goes over the parameters that have an importance.

    Source: Kirkpatrick et al. 2017, EWC, https://arxiv.org/abs/1612.00796, equation 3.

    Args:
        parameters: theta by name, float, with gradient.
        anchors: theta* by name, float; of a tensor that has grown since, the first rows and columns are compared.
        importances: I by name, float, shapes as the anchors'; at least one.

    Returns:
        () float >= 0; 0, with a gradient of 0, where no weight has changed.
    """
    terms = []
    for name, importance in importances.items():
        before = tuple(slice(length) for length in importance.shape)
        moved = parameters[name][before] - anchors[name]
        terms.append((importance * moved.square()).sum())
    return torch.stack(terms).sum() / 2
