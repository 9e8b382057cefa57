"""Global prototypes: mean features over whole training volumes, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor

from nnunet_cil.losses.prototypes import class_sums, labels_within, most_probable
from nnunet_cil.training.data import Tile

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""images (batch, channels, *spatial) -> logits (batch, classes, *spatial), features (batch, features, *spatial)."""

Classes = Callable[[Tensor, Tile], Tensor]
"""logits, their tile on the same device -> (batch, *spatial) int64, which class's mean a voxel counts for."""


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
        here = tile._replace(images=tile.images.to(device), labels=tile.labels.to(device), valid=tile.valid.to(device))
        logits, features = forward(here.images)
        own = classes(logits, here)
        if look is not None:
            look(tile, own)
        for total, of_tile in zip((sums, counts), class_sums(features, own, num_classes), strict=True):
            total += of_tile.cpu()
    return sums, counts


def classes_by_label(num_old: int, num_new: int) -> Classes:
    """Background (label 0 and predicted as background), then the new classes by their labels."""

    def classes(logits: Tensor, tile: Tile) -> Tensor:
        merged = (tile.labels - (num_old - 1)).clamp(min=0)
        background = (tile.labels == 0) & (most_probable(logits) == 0)
        return labels_within(merged, tile.valid & ((merged > 0) | background), 1 + num_new)

    return classes


def confident_classes(
    num_old: int, threshold: float, labelled_in: Callable[[str], Collection[int]] = lambda _case: ()
) -> Classes:
    """The teacher's own classes where no label of the step is: organs it is confident of, and its background.

    ``labelled_in``: case -> the channels that its labels show. An old class among them is taken from the labels there: the
    teacher is not asked about it.
    """

    def classes(logits: Tensor, tile: Tile) -> Tensor:
        decided = [c for c in labelled_in(tile.case) if c < num_old]
        logits = logits.float()
        if decided:
            logits = logits.index_fill(1, torch.tensor(decided, device=logits.device), -torch.inf)
        confidence, predicted = logits.softmax(1).max(1)
        confident = (predicted == 0) | (confidence > threshold)
        labelled = (tile.labels > 0) & (tile.labels < num_old)
        known = labelled | (tile.labels == 0) & confident
        return labels_within(torch.where(labelled, tile.labels, predicted), tile.valid & known, num_old)

    return classes
