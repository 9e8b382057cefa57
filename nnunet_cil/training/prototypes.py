"""Global prototypes: mean features over whole training volumes, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from nnunet_cil.losses.prototypes import class_masks, masked_sums, most_probable
from nnunet_cil.training.data import Tile

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""images (batch, channels, *spatial) -> logits (batch, classes, *spatial), features (batch, features, *spatial)."""

Masks = Callable[[Tensor, Tensor, Tensor], Tensor]
"""logits, labels (batch, *spatial), valid (batch, *spatial) -> class masks (batch, classes, *spatial)."""


@torch.no_grad()
def feature_sums(
    forward: Forward, masks: Masks, tiles: Iterable[Tile], device: torch.device, *, num_classes: int, num_features: int
) -> tuple[Tensor, Tensor]:
    """Sums of the features in each class's mask, and the masks' sizes.

    Returns:
        (num_classes, num_features) and (num_classes,), float64, on the CPU.
    """
    sums = torch.zeros(num_classes, num_features, dtype=torch.float64)
    counts = torch.zeros(num_classes, dtype=torch.float64)
    for tile in tiles:
        logits, features = forward(tile.images.to(device))
        mask = masks(logits, tile.labels.to(device), tile.valid.to(device))
        sums += masked_sums(features, mask).cpu()
        counts += mask.flatten(2).sum((0, 2)).cpu()
    return sums, counts


def label_masks(num_old: int, num_new: int) -> Masks:
    """Background (label 0 and predicted as background), then the new classes by their labels."""

    def masks(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        merged = (labels - (num_old - 1)).clamp(min=0)
        background = (labels == 0) & (most_probable(logits) == 0)
        return class_masks(merged, valid & ((merged > 0) | background), 1 + num_new)

    return masks


def confident_masks(num_old: int, threshold: float) -> Masks:
    """The teacher's own classes where no label of the step is: organs it is confident of, and its background."""

    def masks(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        confidence, predicted = logits.float().softmax(1).max(1)
        confident = (predicted == 0) | (confidence > threshold)
        return class_masks(predicted, valid & (labels == 0) & confident, num_old)

    return masks
