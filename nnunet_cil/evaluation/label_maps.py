"""The label maps of a case: predictions and reference labels, read together and checked to lie on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.segmentation import Labels, Unit, cropped
from nnunet_cil.host.reading.grids import NEGLIGIBLE_VOXELS, TOLERANCE_VOXELS, Grid, distance_in_voxels
from nnunet_cil.host.reading.images import read_labels, whole_numbers
from nnunet_cil.host.reading.spacings import case_spacing, has_spacing_beside

_REMEDY = "Restore it, or remove it if it is a prediction, and run the command again."
_CORRECT_REFERENCE = "Correct the reference labels, or predict again."
_PREDICT_ALIKE = "Predict both from the same images."


AllowedLabels = tuple[Path, frozenset[int]]
"""A file, and every label that it may hold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelMaps:
    """Label maps of one case, on one grid.

    Attributes:
        arrays: (*spatial) each, in the order of the files; cut to the box outside of which all of them are 0.
        spacing: of the grid, in the order of the arrays' axes; two numbers for a plane.
        unit: of the spacing; voxels where the files do not say it.
        voxels_apart: how far the files lie apart; they are compared voxel by voxel all the same.
    """

    arrays: tuple[Labels, ...]
    spacing: tuple[float, ...]
    unit: Unit
    voxels_apart: float


def read_label_maps(
    predictions: Sequence[AllowedLabels],
    reference: AllowedLabels | None = None,
    *,
    image_file: Path | None = None,
    reader: Any,
) -> LabelMaps:
    """Reads the label maps of a case.

    Args:
        predictions: their files; the grid is the first one's.
        reference: the file of the reference labels, read last; None where there is none.
        image_file: the file of the first channel, which need not be there: what is beside it says a TIFF's spacing.
        reader: an instance of nnU-Net's reader, the one that the predictions were made with.

    Raises:
        CILError: a file is missing or unreadable, the grids differ, or a label is not allowed.
    """
    files = [file for file, _ in predictions] + ([] if reference is None else [reference[0]])
    allowed = [labels for _, labels in predictions] + ([] if reference is None else [reference[1]])
    images = [read_labels(file, reader, remedy=_REMEDY) for file in files]
    grid = images[0].grid
    apart = [0.0]
    for index, (file, image) in enumerate(zip(files[1:], images[1:], strict=True), start=1):
        remedy = _PREDICT_ALIKE if index < len(predictions) else _CORRECT_REFERENCE
        apart.append(_check_same_grid(grid, image.grid, (files[0], file), remedy))
    spacing, is_known = grid.spacing, grid.in_mm
    if has_spacing_beside(reader):
        beside = case_spacing(image_file, None if reference is None else reference[0], *files[: len(predictions)])
        spacing, is_known = beside or spacing, beside is not None
    arrays = [image.array[0] for image in images]
    if grid.is_plane:  # its surface is its outline
        arrays, spacing = [array[0] for array in arrays], spacing[1:]
    whole = [whole_numbers(array, file) for array, file in zip(cropped(*arrays), files, strict=True)]
    for array, labels, file in zip(whole, allowed, files, strict=True):
        _check_labels(array, labels, file)
    return LabelMaps(arrays=tuple(whole), spacing=spacing, unit="mm" if is_known else "voxels", voxels_apart=max(apart))


def _check_same_grid(first: Grid, other: Grid, files: tuple[Path, Path], remedy: str) -> float:
    """Returns how far the grids lie apart, in voxels; 0 where it is rounding only.

    Raises:
        CILError: they differ in size, or lie too far apart.
    """
    if first.shape != other.shape:
        ours, theirs = (" x ".join(map(str, grid.size)) for grid in (first, other))
        raise CILError(f"The size of {files[0]} is {ours}, but that of {files[1]} {theirs}. {remedy}")
    distance = distance_in_voxels(first, other)
    if distance > TOLERANCE_VOXELS:
        raise CILError(
            f"{files[0]} and {files[1]} lie {distance:.3g} voxels apart; at most {TOLERANCE_VOXELS:g} are tolerated. If both "
            "show the same voxels, give the "
            + ("reference the header of its image" if remedy == _CORRECT_REFERENCE else "one the header of the other")
            + "; otherwise resample it."
        )
    return distance if distance > NEGLIGIBLE_VOXELS else 0.0


def _check_labels(array: Any, allowed: frozenset[int], file: Path) -> None:
    strange = set(np.unique(array[array != 0]).tolist()) - allowed
    if strange:
        raise CILError(f"{file} holds the label {min(strange)}, which is none of {sorted(allowed)}. {_REMEDY}")
