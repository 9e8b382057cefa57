"""Sums over the voxels of each class, from labels in place of a one-hot tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnunet_cil.losses.precision import full_precision

_LANES = 64
"""Partial sums of each class: long sums stay exact, and a GPU's atomic additions seldom meet."""

_CHUNK_ELEMENTS = 2**22
"""Elements of a chunk's one-hot tensor: few enough that no sum is long, enough to keep a GPU busy."""


def sums_by_class(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Sums values by class in every sample, S_rc = sum_v values_r(v) [labels(v) = c].

    A GPU adds with atomics, in another order each time. Under ``torch.use_deterministic_algorithms`` it multiplies instead.

    Args:
        values: (batch, rows, voxels) float.
        labels: (batch, voxels) int64 in [0, num_classes).
        num_classes: how many.

    Returns:
        (batch, rows, num_classes), of the dtype and with the gradient of ``values``; 0 for a class without voxels.
    """
    sums = sums_by_product if avoids_atomics(values.device) else sums_by_scattering
    return sums(values, labels, num_classes)


def avoids_atomics(device: torch.device) -> bool:
    """Returns whether atomics are to be avoided. A CPU has none, and adds in one order."""
    return device.type == "cuda" and torch.are_deterministic_algorithms_enabled()


def sums_by_scattering(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Computes ``sums_by_class`` by adding each value to its class."""
    lane = torch.arange(labels.shape[1], device=labels.device) % _LANES
    index = (labels * _LANES + lane)[:, None].expand_as(values)
    sums = values.new_zeros(*values.shape[:2], num_classes * _LANES)
    return sums.scatter_add(2, index, values).view(*values.shape[:2], num_classes, _LANES).sum(3)


def sums_by_product(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Computes ``sums_by_class`` as a product with the one-hot labels, chunk by chunk: in the same order each time."""
    sums: Tensor = _Product.apply(values, labels, num_classes)
    return sums


class _Product(torch.autograd.Function):
    """Keeps the labels for the backward pass; autograd would keep the one-hot tensor."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
        ctx.save_for_backward(labels)
        classes = torch.arange(num_classes, device=labels.device)
        size = max(1, _CHUNK_ELEMENTS // num_classes)
        sums = values.new_zeros(*values.shape[:2], num_classes)
        with full_precision(values.device):
            for start in range(0, labels.shape[1], size):
                part = slice(start, start + size)
                one_hot = (labels[:, part, None] == classes).to(values.dtype)
                sums += values[:, :, part] @ one_hot
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_sums: Tensor) -> tuple[Tensor, None, None]:
        (labels,) = ctx.saved_tensors
        return of_sums.gather(2, labels[:, None].expand(-1, of_sums.shape[1], -1)), None, None
