"""Locations of old classes in the teacher's predictions, for nnU-Net's sampler, which knows those of new classes only."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nnunet_cil.losses.prototypes import labels_within, most_probable
from nnunet_cil.losses.regions import region_masks
from nnunet_cil.training.data import Tile
from nnunet_cil.training.passes import of_all_ranks

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL

LOCATIONS_PER_CLASS = 100
"""The same number for each class in each case: the sampler picks every old class of a case equally often."""


def old_class_locations(trainer: nnUNetTrainerCIL) -> dict[str, npt.NDArray[np.int32]]:
    """Locates the old classes where the step has no label: in the teacher's volumes, or in a pass of the teacher.

    Returns:
        As ``OldClassLocations.per_case``, without the classes that a case does not show.
    """
    step = trainer.step_plan
    locations = OldClassLocations(step.num_old_channels)
    for tile, classes in _in_pass(trainer) if trainer.volumes is None else in_volumes(trainer):
        if step.has_regions:
            locations.add_regions(tile, classes, trainer.labelled_channels_in(tile.case))
        else:
            locations.add(tile, labels_within(classes, tile.valid & (tile.labels == 0), locations.num_old))
    shown = {
        case: rows[~np.isin(rows[:, 0], trainer.absent.get(case, ()))] for case, rows in locations.per_case().items()
    }
    return {case: rows for case, rows in shown.items() if len(rows)}


def _in_pass(trainer: nnUNetTrainerCIL) -> Iterator[tuple[Tile, Tensor]]:
    """Yields tiles, and the teacher's most probable classes of those that the case's labels do not show; of regions masks."""
    assert trainer.teacher is not None
    for tile, logits, _ in trainer.training_pass().outputs(trainer.teacher):
        if trainer.step_plan.has_regions:
            yield tile, (logits > 0).cpu()
            continue
        shown = [c for c in trainer.labelled_channels_in(tile.case) if c < logits.shape[1]]
        known = logits.index_fill(1, torch.tensor(shown, device=logits.device), -torch.inf) if shown else logits
        yield tile, most_probable(known).cpu()


def in_volumes(trainer: nnUNetTrainerCIL) -> Iterator[tuple[Tile, Tensor]]:
    """Yields whole cases without their images, and the teacher's segmentation of them."""
    assert trainer.volumes is not None
    cases = trainer.training_pass()
    dataset = cases.dataset()
    for case in dataset.identifiers:
        _, segmentation, volume, _ = trainer.volumes.load_case(dataset, case)
        labels = torch.from_numpy(cases.label_table[np.asarray(segmentation[0], np.int16) + 1].astype(np.int64))[None]
        valid = labels != (-1 if cases.ignore_label is None else cases.ignore_label)
        classes = torch.from_numpy(np.asarray(volume[:]).astype(np.int64))[None]
        if trainer.step_plan.has_regions:
            classes = region_masks(classes, range(trainer.step_plan.num_old_channels))
        yield Tile(torch.empty(0), labels, valid, case, (0, 0, 0)), classes


class OldClassLocations:
    """Voxels of the old classes, collected from tiles; ``per_case`` draws the same number of every class from them."""

    def __init__(self, num_old: int) -> None:
        """Starts without locations; ``num_old`` is K, background included."""
        self.num_old = num_old
        self._voxels: dict[str, dict[int, list[tuple[npt.NDArray[np.int32], int]]]] = {}

    def add(self, tile: Tile, classes: Tensor) -> None:
        """Adds the voxels of a tile.

        Args:
            tile: from ``data.tiles``.
            classes: (batch, *spatial) int64, each voxel's class; K stands for none.
        """
        for c in torch.unique(classes).tolist():
            if 0 < c < self.num_old:
                self._add(tile, c, classes == c)

    def add_regions(self, tile: Tile, masks: Tensor, labelled: Collection[int]) -> None:
        """Adds the valid voxels of a tile in old regions.

        Args:
            tile: from ``data.tiles``.
            masks: (batch, K, *spatial) bool, the teacher's.
            labelled: the regions that the case's labels show; the sampler knows these already.
        """
        for c in set(range(self.num_old)) - set(labelled):
            if (mask := masks[:, c] & tile.valid).any():
                self._add(tile, c, mask)

    def _add(self, tile: Tile, c: int, mask: Tensor) -> None:
        voxels = mask.nonzero()
        some = voxels[:: -(-len(voxels) // LOCATIONS_PER_CLASS), -3:].cpu().numpy() + tile.corner
        case = self._voxels.setdefault(tile.case, {})
        case.setdefault(c, []).append((some.astype(np.int32), len(voxels)))

    def per_case(self) -> dict[str, npt.NDArray[np.int32]]:
        """Draws ``LOCATIONS_PER_CLASS`` locations of each class in each case, and gathers those of all ranks.

        Returns:
            Case -> int32 rows (class, *position in the preprocessed case).
        """
        random = np.random.default_rng(0)
        return of_all_ranks({case: _drawn(classes, random) for case, classes in self._voxels.items() if classes})


def _drawn(
    classes: dict[int, list[tuple[npt.NDArray[np.int32], int]]], random: np.random.Generator
) -> npt.NDArray[np.int32]:
    rows = []
    for c, parts in sorted(classes.items()):
        positions = np.concatenate([some for some, _ in parts])
        # a tile has the weight of the number of its voxels
        weights = np.concatenate([np.full(len(some), count / len(some)) for some, count in parts])
        chosen = random.choice(len(positions), LOCATIONS_PER_CLASS, p=weights / weights.sum())
        rows.append(np.insert(positions[chosen], 0, c, axis=1))
    return np.concatenate(rows)
