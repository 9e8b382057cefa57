"""Full precision inside of a training in mixed precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

EPSILON = 1e-6
"""How far probabilities are kept from 0 and 1 before logarithms and odds are taken of them."""


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context without autocast: sums over many voxels overflow, or lose their digits, in half precision.

    Args:
        device: of the tensors. Autocast is set for each kind of device by itself.
    """
    if torch.amp.is_autocast_available(device.type):
        context: AbstractContextManager[None] = torch.autocast(device.type, enabled=False)
        return context
    return nullcontext()
