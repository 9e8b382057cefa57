"""Locations of old classes in the teacher's predictions, for nnU-Net's sampler, which knows those of new classes only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed

from nnunet_cil.training.data import Tile

LOCATIONS_PER_CLASS = 100
"""The same number for each class in each case: the sampler picks every old class of a case equally often."""


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
        case = self._voxels.setdefault(tile.case, {})
        for c in torch.unique(classes).tolist():
            if 0 < c < self.num_old:
                voxels = (classes == c).nonzero()
                some = voxels[:: -(-len(voxels) // LOCATIONS_PER_CLASS), -3:].cpu().numpy() + tile.corner
                case.setdefault(c, []).append((some.astype(np.int32), len(voxels)))

    def per_case(self) -> dict[str, npt.NDArray[np.int32]]:
        """Draws ``LOCATIONS_PER_CLASS`` locations of each class in each case, and gathers those of all ranks.

        Returns:
            Case -> int32 rows (class, *position in the preprocessed case).
        """
        random = np.random.default_rng(0)
        drawn = {case: _drawn(classes, random) for case, classes in self._voxels.items() if classes}
        if not (distributed.is_available() and distributed.is_initialized()):
            return drawn
        of_ranks: list[dict[str, npt.NDArray[np.int32]]] = [{}] * distributed.get_world_size()
        distributed.all_gather_object(of_ranks, drawn)
        return {case: rows for of_rank in of_ranks for case, rows in of_rank.items()}


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
