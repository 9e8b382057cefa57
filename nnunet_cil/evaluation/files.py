"""The scores of a case from two files, the prediction and the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.segmentation import ClassScores, Unit, case_scores, cropped
from nnunet_cil.host.reading.grids import NEGLIGIBLE_VOXELS, TOLERANCE_VOXELS, Grid, distance_in_voxels
from nnunet_cil.host.reading.images import read_labels, whole_numbers
from nnunet_cil.host.reading.spacings import case_spacing, has_spacing_beside

_REMEDY = "Restore it, or remove it if it is a prediction, and run the command again."


@dataclass(frozen=True, kw_only=True)
class CaseScores:
    """The scores of a case.

    Attributes:
        by_class: the scores of each class.
        unit: of their distances; voxels where the files say no spacing.
        voxels_apart: how far prediction and reference lie apart; they are compared voxel by voxel all the same.
    """

    by_class: dict[str, ClassScores]
    unit: Unit
    voxels_apart: float


def score_files(
    prediction_file: Path,
    reference_file: Path,
    *,
    image_file: Path | None = None,
    reader: Any,
    classes: Mapping[str, tuple[int, int]],
    prediction_labels: frozenset[int],
    reference_labels: frozenset[int],
    ignore_label: int | None,
    tolerance_mm: float,
) -> CaseScores:
    """Returns the scores of a case.

    Args:
        prediction_file: predicted labels.
        reference_file: reference labels, on the same grid (to ``host.reading.grids.TOLERANCE_VOXELS``).
        image_file: the file of the first channel, which need not be there: what is beside it says a TIFF's spacing.
        reader: an instance of nnU-Net's reader, the one that the predictions were made with.
        classes: name -> (label in the prediction, label in the reference).
        prediction_labels: every label that the prediction may hold.
        reference_labels: every label that the reference may hold.
        ignore_label: where the reference has it, nothing counts; None where there is none.
        tolerance_mm: of the normalised surface Dice; in voxels where the files say no spacing.

    Raises:
        CILError: a file is missing or unreadable, the grids differ, or a label is not allowed.
    """
    files = prediction_file, reference_file
    images = [read_labels(file, reader, remedy=_REMEDY) for file in files]
    grid = images[0].grid
    voxels_apart = _check_same_grid(grid, images[1].grid, files)
    spacing, is_known = grid.spacing, grid.in_mm
    if has_spacing_beside(reader):
        beside = case_spacing(image_file, reference_file, prediction_file)
        spacing, is_known = beside or spacing, beside is not None
    arrays = [image.array[0] for image in images]
    if grid.is_plane:  # its surface is its outline
        arrays, spacing = [array[0] for array in arrays], spacing[1:]
    cut = cropped(*arrays)
    prediction, reference = (whole_numbers(array, file) for array, file in zip(cut, files, strict=True))
    _check_labels(prediction, prediction_labels, prediction_file)
    _check_labels(reference, reference_labels, reference_file)
    if ignore_label is not None:
        ignored = reference == ignore_label
        prediction, reference = (np.where(ignored, 0, array) for array in (prediction, reference))
    return CaseScores(
        by_class=case_scores(prediction, reference, spacing, classes, tolerance_mm=tolerance_mm),
        unit="mm" if is_known else "voxels",
        voxels_apart=voxels_apart,
    )


def _check_same_grid(prediction: Grid, reference: Grid, files: tuple[Path, Path]) -> float:
    """Returns how far the grids lie apart, in voxels; 0 where it is rounding only.

    Raises:
        CILError: they differ in size, or lie too far apart.
    """
    if prediction.shape != reference.shape:
        ours, theirs = (" x ".join(map(str, grid.size)) for grid in (prediction, reference))
        raise CILError(
            f"The size of {files[0]} is {ours}, but that of {files[1]} {theirs}. Correct the reference labels, or predict again."
        )
    distance = distance_in_voxels(prediction, reference)
    if distance > TOLERANCE_VOXELS:
        raise CILError(
            f"{files[0]} and {files[1]} lie {distance:.3g} voxels apart; at most {TOLERANCE_VOXELS:g} are tolerated. If both "
            "show the same voxels, give the reference the header of its image; otherwise resample it."
        )
    return distance if distance > NEGLIGIBLE_VOXELS else 0.0


def _check_labels(array: Any, allowed: frozenset[int], file: Path) -> None:
    strange = set(np.unique(array[array != 0]).tolist()) - allowed
    if strange:
        raise CILError(f"{file} holds the label {min(strange)}, which is none of {sorted(allowed)}. {_REMEDY}")
