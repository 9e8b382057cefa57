"""Grids of voxels: their size, their spacing, where they lie, and how far two of them lie apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

TOLERANCE_VOXELS = 0.5
"""How far an image, its labels and a prediction may lie apart: half a voxel. Beyond it, another voxel is nearer."""

NEGLIGIBLE_VOXELS = 1e-3
"""Grids that lie nearer than this are the same, but for rounding."""

MAX_SKEW_DEGREES = 1.0
"""Axes that are farther from right angles than this are told of, or refused: nnU-Net takes them as perpendicular."""

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """The grid of an array of voxels. Axes are in the array's order: slices, rows, columns (z, y, x).

    Attributes:
        shape: voxels along each axis; one slice for a plane.
        spacing: along each axis; as nnU-Net's reader gives it, which takes 1 where the files do not say it.
        in_mm: whether the files say the spacing.
        affine: 4 x 4, from indices to millimetres (to the patient's left, back and head: LPS); None where the format has none.
        is_oriented: whether the files say which side is left.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    in_mm: bool
    affine: npt.NDArray[np.float64] | None = None
    is_oriented: bool = False

    @property
    def orientation(self) -> str:
        """Returns the directions of columns, rows and slices in SimpleITK's letters ("LPS"); empty where not known."""
        return "" if self.affine is None or not self.is_oriented else _orientation(self.affine)

    @property
    def is_plane(self) -> bool:
        """Tells whether there is one slice only."""
        return self.shape[0] == 1

    @property
    def size(self) -> tuple[int, ...]:
        """Returns the voxels along x, y and z; along x and y of a plane."""
        return self._without_slices(self.shape)[::-1]

    @property
    def size_mm(self) -> tuple[float, ...]:
        """Returns the spacing along x, y and z; along x and y of a plane. Empty where it is not known."""
        return self._without_slices(self.spacing)[::-1] if self.in_mm else ()

    def _without_slices(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return values[1:] if self.is_plane else values

    @property
    def skew_degrees(self) -> float:
        """Returns how far the axes are from right angles at most; 0 without an affine."""
        if self.affine is None:
            return 0.0
        axes = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        cosines = np.abs(axes.T @ axes)[np.triu_indices(3, 1)]
        return math.degrees(math.asin(min(1.0, float(cosines.max()))))


def grid_of(shape: tuple[int, ...], properties: Mapping[str, Any], *, in_mm: bool) -> Grid:
    """Returns the grid of what one of nnU-Net's readers has read.

    Args:
        shape: of one channel.
        properties: as the reader returns them; with ``is_oriented`` where a file need not say which side is left.
        in_mm: whether the files say the spacing.
    """
    spacing = tuple(float(s) for s in properties["spacing"])
    affine, is_volume = None, False
    if "sitk_stuff" in properties:
        affine = _itk_affine(**{k: properties["sitk_stuff"][k] for k in ("spacing", "origin", "direction")})
        is_volume = len(properties["sitk_stuff"]["spacing"]) == 3
    elif "nibabel_stuff" in properties:
        stuff = properties["nibabel_stuff"]
        affine, is_volume = _nibabel_affine(stuff.get("reoriented_affine", stuff["original_affine"])), True
    is_oriented = is_volume and properties.get("is_oriented", True)
    return Grid(shape=shape, spacing=spacing, in_mm=in_mm, affine=affine, is_oriented=is_oriented)


def turned_to_ras(grid: Grid) -> Grid:
    """Returns the grid of a volume that is turned until its columns run to the right, its rows to the front, its slices up."""
    if grid.affine is None or not _orientation(grid.affine):
        return grid
    from nibabel import orientations

    untyped: Any = orientations
    axes = untyped.io_orientation(
        _LPS_FROM_RAS @ grid.affine
    )  # of each axis: right, front or up, and whether against it
    order = [int(np.flatnonzero(axes[:, 0] == axis)[0]) for axis in (2, 1, 0)]
    affine = np.eye(4)
    affine[:, 3] = grid.affine[:, 3]
    for axis, source in enumerate(order):
        affine[:3, axis] = grid.affine[:3, source] * axes[source, 1]
        if axes[source, 1] < 0:
            affine[:3, 3] += grid.affine[:3, source] * (grid.shape[source] - 1)
    return replace(
        grid,
        shape=tuple(grid.shape[source] for source in order),
        spacing=tuple(grid.spacing[source] for source in order),
        affine=affine,
    )


def distance_in_voxels(first: Grid, second: Grid) -> float:
    """Returns how far apart the voxels of two grids lie at most, along any axis, in voxels of the first.

    It is infinite for different shapes, and 0 where a format does not say where voxels lie.
    """
    if first.shape != second.shape:
        return math.inf
    if first.affine is None or second.affine is None:
        return 0.0
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in first.shape))], dtype=np.float64)
    gaps_mm = ((second.affine - first.affine) @ corners.T)[:3]
    try:
        gap = float(np.abs(np.linalg.solve(first.affine[:3, :3], gaps_mm)).max())
    except np.linalg.LinAlgError:  # a spacing of 0
        gap = math.nan
    return math.inf if math.isnan(gap) else gap


def _itk_affine(
    spacing: tuple[float, ...], origin: tuple[float, ...], direction: tuple[float, ...]
) -> npt.NDArray[np.float64]:
    """Returns the affine of a grid as ITK describes it, in x, y, z; a plane lies in the first two."""
    n = len(spacing)
    affine = np.eye(4)
    affine[:n, :n] = np.reshape(direction, (n, n)) * np.asarray(spacing)
    affine[:n, 3] = origin
    return _in_array_order(affine)


def _nibabel_affine(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return _in_array_order(_LPS_FROM_RAS @ np.asarray(affine, dtype=np.float64))


def _in_array_order(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return affine[:, [2, 1, 0, 3]]


def _orientation(affine: npt.NDArray[np.float64]) -> str:
    from nibabel import orientations

    untyped: Any = orientations
    codes = untyped.aff2axcodes(_LPS_FROM_RAS @ affine)[::-1]
    return "" if None in codes else "".join(codes)
