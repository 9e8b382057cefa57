"""Imprinted start: new channels that tell a class from its surroundings by the teacher's features, before any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_cil.losses.prototypes import class_sums, sum_over_ranks
from nnunet_cil.networks.architectures import head_names
from nnunet_cil.networks.heads import widen_heads

MARGIN = 3.0
"""By how much, at most, the logit of a new class and that of the background differ at the class's mean feature."""

SURROUNDINGS = 3
"""Voxels of the scale, along each axis, that count as surroundings of a class."""

_LEAST_VARIANCE = 1e-3
"""Share of the mean variance that is added to each channel's: a channel that never changes decides nothing alone."""


class Moments:
    """Sums of the features at one scale: of each new class, of its surroundings, and of the background.

    Attributes:
        values: (2N+1, 2C+1) float64, the sums of F and F² and the number of voxels, on the CPU; rows are the N new classes, their
            surroundings, and all voxels without a label.
    """

    def __init__(self, num_new: int, num_features: int) -> None:
        """Starts without voxels."""
        self.num_new = num_new
        self.values = torch.zeros(2 * num_new + 1, 2 * num_features + 1, dtype=torch.float64)

    def add(self, features: Tensor, labels: Tensor, valid: Tensor, num_old: int) -> None:
        """Adds the voxels of a tile.

        Args:
            features: (batch, C, *spatial) float.
            labels: (batch, *spatial) int64, 0 without a label, new classes from K on.
            valid: (batch, *spatial) bool, the voxels that count.
            num_old: K.
        """
        unlabelled = valid & (labels == 0)
        own = valid & (labels >= num_old)
        groups = torch.where(own, labels - num_old, torch.where(unlabelled, self.num_new, self.num_new + 1))
        features = features.float()
        squares = torch.cat([features, features.square()], 1)
        of_groups = _sums(squares, groups, self.num_new + 1)
        self.values[: self.num_new] += of_groups[:-1]
        self.values[-1] += of_groups[-1]
        for c in torch.unique(labels[labels >= num_old]).tolist():
            near = unlabelled & _dilated(labels == c)
            row = self.num_new + c - num_old
            self.values[row] += _sums(squares, (~near).long(), 1)[0]

    def sum_over_ranks(self, device: torch.device) -> None:
        """Adds up the sums of all processes of a distributed training, on its device."""
        self.values = sum_over_ranks(self.values.to(device)).cpu()

    def discriminant(self, c: int) -> tuple[Tensor, Tensor] | None:
        """Computes the linear discriminant of a new class against its surroundings.

        d = (mu_c - mu_r) / sigma², D² = d (mu_c - mu_r), and s = min(1, 2 MARGIN / D²), so that s d (F - (mu_c + mu_r)/2) is
        MARGIN at mu_c and -MARGIN at mu_r. sigma² is the mean of the two groups' variances, channel by channel. With s = 1 it is
        the log-odds of two normal distributions: groups that hardly differ get no more, since noise would grow with s.

        Args:
            c: the class, from 0.

        Returns:
            s d, (C,), and -s d (mu_c + mu_r)/2, (), float64; None for a class without voxels, or that differs in nothing.
        """
        own, near, background = (self.values[row] for row in (c, self.num_new + c, -1))
        other = near if near[-1] > 0 else background
        if own[-1] == 0 or other[-1] == 0:
            return None
        (mean, variance), (other_mean, other_variance) = _mean_and_variance(own), _mean_and_variance(other)
        shared = (variance + other_variance) / 2
        difference = mean - other_mean
        direction = difference / (shared + _LEAST_VARIANCE * shared.mean())
        squared_distance = direction @ difference
        if not (squared_distance.isfinite() and squared_distance > 0):
            return None
        weight = (2 * MARGIN / squared_distance).clamp(max=1) * direction
        return weight, -weight @ (mean + other_mean) / 2


def imprinted_heads(weights: Mapping[str, Tensor], moments: Sequence[Moments]) -> tuple[dict[str, Tensor], set[int]]:
    """Adds N channels to every segmentation layer, each the background's plus a discriminant of the class.

    w_c = w_bg + s d and b_c = b_bg - s d (mu_c + mu_r)/2, see ``Moments.discriminant``. The old channels stay as they are. A
    class without a discriminant at a scale starts there as in ``widen_heads``, but the background keeps its bias.

    Source: the idea is that of Qi et al. 2018, https://arxiv.org/abs/1712.07136, and Siam et al. 2019,
    https://arxiv.org/abs/1902.11123; the discriminant is ours.

    Args:
        weights: the state dict of a network with K output channels; not changed.
        moments: of the input of each segmentation layer, lowest resolution first.

    Returns:
        A state dict for the same network with K+N output channels, of the same dtypes; and the classes, from 0, that have no
        discriminant at some scale.
    """
    num_new, missing = moments[0].num_new, set()
    widened = widen_heads(weights, num_new)
    for names, of_scale in zip(head_names(weights), moments, strict=True):
        weight, bias = (widened[name] for name in names)
        num_old = len(weight) - num_new
        bias[0] = weights[names[1]][0]
        for c in range(num_new):
            found = of_scale.discriminant(c)
            if found is None:
                missing.add(c)
                continue
            direction, offset = found
            weight[num_old + c] = weight[0] + direction.to(weight).view(weight[0].shape)
            bias[num_old + c] = bias[0] + offset.to(bias)
    return widened, missing


def _sums(squares: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Returns the sums and counts of groups, (groups, 2C+1) float64, on the CPU; the last number stands for none."""
    sums, counts = class_sums(squares, groups, num_groups)
    return torch.cat([sums.cpu().double(), counts.cpu().double()[:, None]], 1)


def _mean_and_variance(row: Tensor) -> tuple[Tensor, Tensor]:
    mean, square = (row[:-1] / row[-1]).chunk(2)
    return mean, (square - mean.square()).clamp(min=0)


def _dilated(mask: Tensor) -> Tensor:
    """Returns the voxels within ``SURROUNDINGS`` along every axis of a (batch, *spatial) mask."""
    dilated = mask[:, None].float()
    num_axes = mask.ndim - 1
    pool = F.max_pool2d if num_axes == 2 else F.max_pool3d
    for axis in range(num_axes):
        window = [2 * SURROUNDINGS + 1 if a == axis else 1 for a in range(num_axes)]
        dilated = pool(dilated, window, stride=1, padding=[w // 2 for w in window])
    return dilated[:, 0] > 0
