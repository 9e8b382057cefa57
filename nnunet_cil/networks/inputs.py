"""More inputs: the first convolutions of a cascade's network, which sees the classes of the previous stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


def shared_part(tensor: Tensor, smaller: Tensor) -> Tensor:
    """Returns the part of a tensor that it had before it grew to more outputs or inputs, a view.

    Args:
        tensor: as it is now.
        smaller: of the shape that it had.
    """
    return tensor[tuple(slice(length) for length in smaller.shape)]
