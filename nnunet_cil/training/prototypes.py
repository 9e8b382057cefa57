"""Global prototypes: mean features over whole training volumes, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from nnunet_cil.losses.prototypes import class_sums, labels_within, most_probable
from nnunet_cil.training.data import Tile

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""images (batch, channels, *spatial) -> logits (batch, classes, *spatial), features (batch, features, *spatial)."""

Classes = Callable[[Tensor, Tensor, Tensor], Tensor]
"""logits, labels (batch, *spatial), valid (batch, *spatial) -> (batch, *spatial) int64, which class's mean a voxel counts for."""


@torch.no_grad()
def feature_sums(
    forward: Forward,
    classes: Classes,
    tiles: Iterable[Tile],
    device: torch.device,
    *,
    num_classes: int,
    num_features: int,
    look: Callable[[Tile, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Sums of the features of each class's voxels, and how many these are. The class ``num_classes`` stands for none.

    ``look`` is shown every tile with its voxels' classes, (batch, *spatial) int64.

    Returns:
        (num_classes, num_features) and (num_classes,), float64, on the CPU.
    """
    sums = torch.zeros(num_classes, num_features, dtype=torch.float64)
    counts = torch.zeros(num_classes, dtype=torch.float64)
    for tile in tiles:
        logits, features = forward(tile.images.to(device))
        own = classes(logits, tile.labels.to(device), tile.valid.to(device))
        if look is not None:
            look(tile, own)
        for total, of_tile in zip((sums, counts), class_sums(features, own, num_classes), strict=True):
            total += of_tile.cpu()
    return sums, counts


def classes_by_label(num_old: int, num_new: int) -> Classes:
    """Background (label 0 and predicted as background), then the new classes by their labels."""

    def classes(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        merged = (labels - (num_old - 1)).clamp(min=0)
        background = (labels == 0) & (most_probable(logits) == 0)
        return labels_within(merged, valid & ((merged > 0) | background), 1 + num_new)

    return classes


def confident_classes(num_old: int, threshold: float) -> Classes:
    """The teacher's own classes where no label of the step is: organs it is confident of, and its background."""

    def classes(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        confidence, predicted = logits.float().softmax(1).max(1)
        confident = (predicted == 0) | (confidence > threshold)
        return labels_within(predicted, valid & (labels == 0) & confident, num_old)

    return classes
