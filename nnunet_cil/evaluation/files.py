"""The scores of a case from two files, the prediction and the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.segmentation import ClassScores, case_scores, cropped
from nnunet_cil.files import is_cut_off

_REMEDY = "Restore it, or remove it if it is a prediction, and run the command again."


def score_files(
    prediction_file: Path,
    reference_file: Path,
    *,
    classes: Mapping[str, tuple[int, int]],
    prediction_labels: frozenset[int],
    reference_labels: frozenset[int],
    ignore_label: int | None,
    tolerance_mm: float,
) -> dict[str, ClassScores]:
    """Returns the scores of a case, by class.

    Args:
        prediction_file: predicted labels.
        reference_file: reference labels, on the same grid (to 0.001 mm).
        classes: name -> (label in the prediction, label in the reference).
        prediction_labels: every label that the prediction may hold.
        reference_labels: every label that the reference may hold.
        ignore_label: where the reference has it, nothing counts; None where there is none.
        tolerance_mm: of the normalised surface Dice.

    Raises:
        CILError: a file is missing or unreadable, the grids differ, or a label is not allowed.
    """
    files = prediction_file, reference_file
    images = [_read(file) for file in files]
    _check_same_grid(images, files)
    spacing_mm = tuple(images[0].GetSpacing())[::-1]
    prediction, reference = cropped(*(_labels(image, file) for image, file in zip(images, files, strict=True)))
    _check_labels(prediction, prediction_labels, prediction_file)
    _check_labels(reference, reference_labels, reference_file)
    if ignore_label is not None:
        ignored = reference == ignore_label
        prediction, reference = (np.where(ignored, 0, array) for array in (prediction, reference))
    return case_scores(prediction, reference, spacing_mm, classes, tolerance_mm=tolerance_mm)


def _read(file: Path) -> Any:
    """Returns SimpleITK's image of a file that is there and whole."""
    import SimpleITK as sitk

    if not file.is_file():
        raise CILError(f"{file} is missing.")
    if is_cut_off(file):
        raise CILError(f"{file} is cut off or damaged. {_REMEDY}")
    try:
        return sitk.ReadImage(str(file))
    except RuntimeError as error:
        raise CILError(f"{file} cannot be read. {_REMEDY}") from error


def _check_same_grid(images: Sequence[Any], files: Sequence[Path]) -> None:
    for what in ("Size", "Spacing", "Origin", "Direction"):
        a, b = (np.asarray(getattr(image, f"Get{what}")()) for image in images)
        if a.shape != b.shape or not np.allclose(a, b, atol=1e-3):
            raise CILError(f"{what} of {files[0]} is {a.tolist()}, of {files[1]} it is {b.tolist()}.")


def _check_labels(array: Any, allowed: frozenset[int], file: Path) -> None:
    strange = set(np.unique(array[array != 0]).tolist()) - allowed
    if strange:
        raise CILError(f"{file} holds the label {min(strange)}, which is none of {sorted(allowed)}.")


def _labels(image: Any, file: Path) -> Any:
    """Returns a view of the labels, as integers; some label maps are stored as floating-point numbers."""
    import SimpleITK as sitk

    array = sitk.GetArrayViewFromImage(image)
    if np.issubdtype(array.dtype, np.integer):
        return array
    rounded = np.rint(array).astype(np.int32)
    if not np.array_equal(rounded, array):
        raise CILError(f"{file} holds numbers that are not whole; a label map has whole ones.")
    return rounded
