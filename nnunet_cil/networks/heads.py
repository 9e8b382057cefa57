"""Wider heads: the segmentation layers of a trained network, with channels for the new classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nnunet_cil.networks.architectures import is_head


def widen_heads(weights: Mapping[str, Tensor], num_new: int, *, noise: float = 0.0, seed: int = 0) -> dict[str, Tensor]:
    """Adds N channels to every segmentation layer, with balanced initialisation.

    w_new = w_bg + noise · sigma · eps and b_new = b_bg - log(N+1) for each new channel, and b_bg <- b_bg - log(N+1), with
    sigma the standard deviation of w_bg's elements and eps ~ N(0, 1). Without noise the background's probability is split
    evenly over itself and the new classes; the other classes' probabilities stay as they were.

    Source: Cermelli et al. 2020, https://arxiv.org/abs/2002.00718, section 3.3; the noise is ours.

    Args:
        weights: the state dict of a network with K output channels, (K, ...) float in the segmentation layers; not changed.
        num_new: N.
        noise: how far a new class starts from a copy of the background.
        seed: of eps.

    Returns:
        A state dict for the same network with K+N output channels, of the same dtypes; other tensors are shared, not copied.
    """
    widened = dict(weights)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in weights.items():
        if is_head(name):
            grown = torch.cat([tensor, tensor[:1].expand(num_new, *tensor.shape[1:])])
            if name.endswith(".bias"):
                grown[0] -= math.log(num_new + 1)
                grown[tensor.shape[0] :] -= math.log(num_new + 1)
            elif noise:
                eps = torch.randn(grown[tensor.shape[0] :].shape, generator=generator).to(grown)
                grown[tensor.shape[0] :] += noise * tensor[0].std(correction=0) * eps
            widened[name] = grown
    return widened


def joined_heads(
    weights: Mapping[str, Tensor], fresh: Mapping[str, Tensor], places: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Adds the further channels of another network to every segmentation layer.

    Args:
        weights: the state dict of a network with K output channels; not changed.
        fresh: that of the same network with K+N, whose other N are taken.
        places: of the K channels among the K+N; None for the first K.

    Returns:
        A state dict for the network with K+N output channels; other tensors are those of ``weights``.
    """
    joined = dict(weights)
    for name, tensor in weights.items():
        if is_head(name):
            joined[name] = fresh[name].to(tensor, copy=True)
            joined[name][list(range(len(tensor)) if places is None else places)] = tensor
    return joined


def num_output_channels(weights: Mapping[str, Tensor]) -> int | None:
    """Returns the number of classes, background included, that a network with these weights puts out.

    Args:
        weights: a state dict.

    Returns:
        K, the rows of its segmentation layers; None where it has none that ``widen_heads`` would widen.
    """
    heads = [tensor for name, tensor in weights.items() if is_head(name)]
    return heads[0].shape[0] if heads else None
