"""Sums over the voxels of each class, from labels in place of a one-hot tensor."""

from __future__ import annotations

import torch
from torch import Tensor

_LANES = 64
"""Partial sums of each class: long sums stay exact, and a GPU's atomic additions seldom meet."""


def sums_by_class(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Sums values by class in every sample, S_rc = sum_v values_r(v) [labels(v) = c].

    Args:
        values: (batch, rows, voxels) float.
        labels: (batch, voxels) int64 in [0, num_classes).
        num_classes: how many.

    Returns:
        (batch, rows, num_classes), of the dtype and with the gradient of ``values``; 0 for a class without voxels.
    """
    lane = torch.arange(labels.shape[1], device=labels.device) % _LANES
    index = (labels * _LANES + lane)[:, None].expand_as(values)
    sums = values.new_zeros(*values.shape[:2], num_classes * _LANES)
    return sums.scatter_add(2, index, values).view(*values.shape[:2], num_classes, _LANES).sum(3)
