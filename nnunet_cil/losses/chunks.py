"""Sums over voxels, chunk by chunk: intermediate results are never as large as the volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = {"cpu": 2**18, "cuda": 2**24}
"""Elements of the student's part of a chunk: few enough for the cache of a core, enough to keep a GPU busy."""


def sum_over_chunks(function: Callable[..., Tensor], student: Tensor, *others: Tensor) -> Tensor:
    """Sums a function of voxels chunk by chunk, sum_chunks function(student, *others).

    The function is itself a sum over voxels. The gradient is computed together with the value, so that the backward pass needs
    one tensor of the size of ``student``, however many intermediate results the function has.

    Args:
        function: chunks (1, channels, voxels) of all tensors -> () float.
        student: (batch, channels, *spatial) float, with at least one voxel; the gradient reaches this tensor alone.
        others: (batch, channels, *spatial) of any dtype, each with channels of its own.

    Returns:
        () float, of the function's dtype; its gradient is not differentiable again.
    """
    total: Tensor = _SumOverChunks.apply(function, student, *others)
    return total


class _SumOverChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], student: Tensor, *others: Tensor) -> Tensor:
        flat = [t.flatten(2) for t in (student, *others)]
        gradient = torch.empty_like(flat[0]) if student.requires_grad else None
        values = []
        for place in _chunks(flat[0]):
            own, *parts = (t[place].detach() for t in flat)
            with torch.set_grad_enabled(gradient is not None):
                value = function(own.requires_grad_(gradient is not None), *parts)
            if gradient is not None:
                (gradient[place],) = torch.autograd.grad(value, own)
            values.append(value.detach())
        if gradient is not None:
            ctx.save_for_backward(gradient.view(student.shape))
        return torch.stack(values).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (None, grad_output * gradient, *[None] * (len(ctx.needs_input_grad) - 2))


def _chunks(flat: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    batch, channels, voxels = flat.shape
    size = max(1, CHUNK_ELEMENTS.get(flat.device.type, 2**24) // channels)
    for sample in range(batch):
        for start in range(0, voxels, size):
            yield slice(sample, sample + 1), slice(None), slice(start, start + size)
