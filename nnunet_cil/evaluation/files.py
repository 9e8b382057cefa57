"""Scores of files: a prediction and the truth in, rows out."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.segmentation import ClassScores, case_scores, cropped
from nnunet_cil.files import is_cut_off, moved_into_place

_REMEDY = "Restore it, or remove it if it is a prediction, and run the command again."


def score_files(
    found_file: Path,
    wanted_file: Path,
    *,
    classes: Mapping[str, tuple[int, int]],
    found_labels: frozenset[int],
    wanted_labels: frozenset[int],
    ignore_label: int | None,
    tolerance_mm: float,
) -> dict[str, ClassScores]:
    """The scores of a case.

    Args:
        found_file: predicted labels.
        wanted_file: true labels, on the same grid (to 0.001 mm).
        classes: name -> (label in the prediction, label in the truth).
        found_labels: every label that the prediction may hold.
        wanted_labels: every label that the truth may hold.
        ignore_label: where the truth has it, nothing counts; None where there is none.
        tolerance_mm: of the normalised surface Dice.

    Raises:
        CILError: a file is missing or unreadable, the grids differ, or a label is not allowed.
    """
    import SimpleITK as sitk

    pictures = []
    for file in (found_file, wanted_file):
        if not file.is_file():
            raise CILError(f"{file} is missing.")
        if is_cut_off(file):
            raise CILError(f"{file} is cut off or damaged. {_REMEDY}")
        try:
            pictures.append(sitk.ReadImage(str(file)))
        except RuntimeError as error:
            raise CILError(f"{file} cannot be read. {_REMEDY}") from error
    for what in ("Size", "Spacing", "Origin", "Direction"):
        a, b = (np.asarray(getattr(p, f"Get{what}")()) for p in pictures)
        if a.shape != b.shape or not np.allclose(a, b, atol=1e-3):
            raise CILError(f"{what} of {found_file} is {a.tolist()}, of {wanted_file} it is {b.tolist()}.")
    spacing_mm = tuple(pictures[0].GetSpacing())[::-1]  # type: ignore[no-untyped-call]
    views = (sitk.GetArrayViewFromImage(p) for p in pictures)
    arrays = cropped(*(_labels(v, file) for v, file in zip(views, (found_file, wanted_file), strict=True)))
    for file, array, allowed in zip((found_file, wanted_file), arrays, (found_labels, wanted_labels), strict=True):
        strange = set(np.unique(array[array != 0]).tolist()) - allowed
        if strange:
            raise CILError(f"{file} holds the label {min(strange)}, which is none of {sorted(allowed)}.")
    found, wanted = arrays
    if ignore_label is not None:
        found, wanted = (np.where(arrays[1] == ignore_label, 0, array) for array in arrays)
    return case_scores(found, wanted, spacing_mm, classes, tolerance_mm=tolerance_mm)


def _labels(array: Any, file: Path) -> Any:
    """As integers; some label maps are stored as floating-point numbers."""
    if np.issubdtype(array.dtype, np.integer):
        return array
    rounded = np.rint(array).astype(np.int32)
    if not np.array_equal(rounded, array):
        raise CILError(f"{file} holds numbers that are not whole; a label map has whole ones.")
    return rounded


def write_csv(file: Path, scores: Mapping[tuple[str, int, int | str], Sequence[Mapping[str, Any]]]) -> None:
    """One line a trainer, step, fold, case and class.

    Args:
        file: the target.
        scores: (trainer, step, fold) -> rows.
    """
    with moved_into_place(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = None
        for (trainer, step, fold), rows in scores.items():
            for row in rows:
                line = {"trainer": trainer, "step": step, "fold": fold, **row}
                if writer is None:
                    writer = csv.DictWriter(stream, fieldnames=list(line))
                    writer.writeheader()
                writer.writerow(line)
