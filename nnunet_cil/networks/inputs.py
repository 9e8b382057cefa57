"""More inputs: the first convolutions of a cascade's network, which sees the classes of the previous stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_cil.networks.architectures import is_head


def widen_inputs(weights: Mapping[str, Tensor], architecture: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adds input channels of weight 0, so that the network puts out what it did before, whatever they show.

    Args:
        weights: the state dict of a network; not changed.
        architecture: the state dict of the same network with further input channels.

    Returns:
        A state dict with the inputs of ``architecture``; tensors that do not grow are shared, not copied.
    """
    widened = dict(weights)
    for name, tensor in weights.items():
        num_new = 0 if is_head(name) or tensor.ndim < 2 else architecture[name].shape[1] - tensor.shape[1]
        if num_new:
            zeros = tensor.new_zeros(tensor.shape[0], num_new, *tensor.shape[2:])
            widened[name] = torch.cat([tensor, zeros], dim=1)
    return widened


def see_first_channels(network: nn.Module, number: int) -> None:
    """Lets a network see the first channels of its input only; called before it runs for the first time."""

    def first(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        images, *others = inputs
        return images[:, :number], *others

    network.register_forward_pre_hook(first)


def shared_part(tensor: Tensor, smaller: Tensor) -> Tensor:
    """Returns the part of a tensor that it had before it grew to more outputs or inputs, a view.

    Args:
        tensor: as it is now.
        smaller: of the shape that it had.
    """
    return tensor[tuple(slice(length) for length in smaller.shape)]
