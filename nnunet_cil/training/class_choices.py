"""The voxels of which a pass over training cases averages the features: chosen by labels, or by what the teacher says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from nnunet_cil.losses.prototypes import confidence_sums, labels_within, most_probable
from nnunet_cil.losses.regions import region_masks
from nnunet_cil.training.data import Tile

Classes = Callable[[Tensor, Tile], Tensor]
"""logits, their tile with labels on the same device -> (batch, *spatial) int64, the class whose mean a voxel belongs to.

Of regions it gives masks, (batch, classes, *spatial) bool, for a voxel may belong to several.
"""


class ConfidenceSums:
    """Chooses voxels as another does, and sums the network's probability of classes where it decides for them.

    Attributes:
        sums: (2, channels) float64: the sum of each channel's probability over its own voxels, and their number.
    """

    def __init__(self, chosen: Classes, num_channels: int, absent: Mapping[str, Collection[int]]) -> None:
        """Takes the choice; the number of channels, of classes that do not overlap; and case -> those that it does not show."""
        self._chosen, self._absent = chosen, absent
        self.sums = torch.zeros(2, num_channels, dtype=torch.float64)

    def __call__(self, logits: Tensor, tile: Tile) -> Tensor:
        """Returns the choice, and adds the tile to the sums."""
        probs, decided = logits.float().softmax(1).max(1)
        found = confidence_sums(probs[tile.valid], decided[tile.valid], self.sums.shape[1])
        found[:, list(self._absent.get(tile.case, ()))] = 0
        self.sums += found
        return self._chosen(logits, tile)


def classes_by_label(num_old: int, num_new: int) -> Classes:
    """Chooses background (label 0 and predicted as background), and the new classes by their labels."""

    def classes(logits: Tensor, tile: Tile) -> Tensor:
        merged = (tile.labels - (num_old - 1)).clamp(min=0)
        background = (tile.labels == 0) & (most_probable(logits) == 0)
        return labels_within(merged, tile.valid & ((merged > 0) | background), 1 + num_new)

    return classes


def regions_by_label(bits: Sequence[int], shown_in: Callable[[str], Collection[int]]) -> Classes:
    """Chooses the inside and the outside of regions by their labels, one after the other.

    Args:
        bits: of the regions in a tile's labels.
        shown_in: case -> the bits of the regions that its labels show; of another one there is neither inside nor outside.
    """

    def classes(_logits: Tensor, tile: Tile) -> Tensor:
        inside, shown = region_masks(tile.labels, bits), shown_in(tile.case)
        is_shown = torch.tensor([bit in shown for bit in bits], device=inside.device).repeat_interleave(2)
        usable = tile.valid[:, None] & is_shown.view(1, -1, *[1] * (inside.ndim - 2))
        return inside_and_outside(inside, ~inside) & usable

    return classes


def inside_and_outside(inside: Tensor, outside: Tensor) -> Tensor:
    """Returns masks, or prototypes, of the insides and outsides of regions in the order of a ``PrototypeBank``.

    Args:
        inside: (batch, regions, *spatial).
        outside: of the same shape.

    Returns:
        (batch, 2 regions, *spatial).
    """
    return torch.stack([inside, outside], 2).flatten(1, 2)


def confident_classes(
    num_old: int, threshold: float, labelled_channels_in: Callable[[str], Collection[int]] = lambda _case: ()
) -> Classes:
    """Chooses the teacher's classes where the step has no label: old classes that it is confident of, and its background.

    Args:
        num_old: K, background included.
        threshold: the probability above which the teacher is confident of an old class.
        labelled_channels_in: case -> the channels that its labels show. An old class among them is taken from the labels
            there, not from the teacher.
    """

    def classes(logits: Tensor, tile: Tile) -> Tensor:
        decided = [c for c in labelled_channels_in(tile.case) if c < num_old]
        logits = logits.float()
        if decided:
            logits = logits.index_fill(1, torch.tensor(decided, device=logits.device), -torch.inf)
        confidence, predicted = logits.softmax(1).max(1)
        confident = (predicted == 0) | (confidence > threshold)
        labelled = (tile.labels > 0) & (tile.labels < num_old)
        known = labelled | (tile.labels == 0) & confident
        return labels_within(torch.where(labelled, tile.labels, predicted), tile.valid & known, num_old)

    return classes


def confident_regions(
    num_old: int, threshold: float, labelled_channels_in: Callable[[str], Collection[int]] = lambda _case: ()
) -> Classes:
    """Chooses the teacher's regions where it is confident of them, and their outsides where it says no; of labelled ones these.

    Args:
        num_old: K.
        threshold: the probability above which the teacher is confident of a region.
        labelled_channels_in: case -> the bits of the regions that its labels show.
    """

    def classes(logits: Tensor, tile: Tile) -> Tensor:
        probs = logits.float().sigmoid()
        inside, outside = probs > threshold, probs <= 0.5
        if decided := [c for c in labelled_channels_in(tile.case) if c < num_old]:
            inside[:, decided] = region_masks(tile.labels, decided)
            outside[:, decided] = ~inside[:, decided]
        return inside_and_outside(inside, outside) & tile.valid[:, None]

    return classes
