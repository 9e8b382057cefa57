"""More inputs: the first convolutions of a cascade's network, which sees the classes of the previous stage."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_cil.networks.architectures import is_head


def widen_inputs(
    weights: Mapping[str, Tensor], architecture: Mapping[str, Tensor], channels: Sequence[int]
) -> dict[str, Tensor]:
    """Adds input channels of weight 0, so that the network puts out what it did before, whatever they show.

    Args:
        weights: the state dict of a network; not changed.
        architecture: the state dict of the same network with further input channels.
        channels: which of these ``weights`` has, in its order.

    Returns:
        A state dict with the inputs of ``architecture``; tensors that do not grow are shared, not copied.
    """
    widened = dict(weights)
    for name, tensor in weights.items():
        grown = architecture[name].shape
        if tensor.ndim > 1 and not is_head(name) and grown[1] != tensor.shape[1]:
            widened[name] = tensor.new_zeros(grown)
            widened[name][:, list(channels)] = tensor
    return widened


def see_channels(network: nn.Module, channels: Sequence[int]) -> None:
    """Lets a network see these channels of its input only; called before it runs for the first time."""
    own = list(channels)

    def chosen(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        images, *others = inputs
        return images[:, own], *others

    network.register_forward_pre_hook(chosen)


def spread_inputs(
    weights: Mapping[str, Tensor], names: Collection[str], groups: Sequence[Sequence[int]], num_inputs: int
) -> dict[str, Tensor]:
    """Gives input channels the weights of the one that they are parts of, so that the network puts out what it did before.

    Args:
        weights: the state dict of a network; not changed.
        names: of the weights that see the input.
        groups: of each of the network's input channels, the new ones that it is the sum of; those of none get weight 0.
        num_inputs: the new number of input channels.

    Returns:
        A state dict for the network with the new input channels.
    """
    spread = dict(weights)
    for name in names:
        tensor = weights[name]
        spread[name] = tensor.new_zeros(tensor.shape[0], num_inputs, *tensor.shape[2:])
        for channel, group in enumerate(groups):
            spread[name][:, list(group)] = tensor[:, channel : channel + 1]
    return spread


def see_sums(network: nn.Module, groups: Sequence[Sequence[int]]) -> None:
    """Lets a network see, as each channel, the sum of some of its input; called before it runs for the first time."""

    def summed(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        images, *others = inputs
        return torch.stack([images[:, list(group)].sum(1) for group in groups], 1), *others

    network.register_forward_pre_hook(summed)


def shared_part(tensor: Tensor, smaller: Tensor) -> Tensor:
    """Returns the part of a tensor that it had before it grew to more outputs or inputs, a view.

    Args:
        tensor: as it is now.
        smaller: of the shape that it had.
    """
    return tensor[tuple(slice(length) for length in smaller.shape)]
