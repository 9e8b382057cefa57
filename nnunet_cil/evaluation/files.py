"""The scores of a case from two files, the prediction and the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.evaluation.label_maps import read_label_maps
from nnunet_cil.evaluation.segmentation import ClassScores, Unit, case_scores
from nnunet_cil.labels import Label


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
    classes: Mapping[str, tuple[Label, Label]],
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
        classes: name -> (label or region in the prediction, label or region in the reference).
        prediction_labels: every label that the prediction may hold.
        reference_labels: every label that the reference may hold.
        ignore_label: where the reference has it, nothing counts; None where there is none.
        tolerance_mm: of the normalised surface Dice; in voxels where the files say no spacing.

    Raises:
        CILError: a file is missing or unreadable, the grids differ, or a label is not allowed.
    """
    maps = read_label_maps(
        [(prediction_file, prediction_labels)], (reference_file, reference_labels), image_file=image_file, reader=reader
    )
    prediction, reference = maps.arrays
    if ignore_label is not None:
        ignored = reference == ignore_label
        prediction, reference = (np.where(ignored, 0, array) for array in (prediction, reference))
    return CaseScores(
        by_class=case_scores(prediction, reference, maps.spacing, classes, tolerance_mm=tolerance_mm),
        unit=maps.unit,
        voxels_apart=maps.voxels_apart,
    )
