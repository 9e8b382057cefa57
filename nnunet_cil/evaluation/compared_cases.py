"""Cases as two models segment them, read from files: one record a case, which JSON can hold, and the table of all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_cil.evaluation.comparison import Change, compare_labels, status
from nnunet_cil.evaluation.label_maps import LabelMaps, read_label_maps
from nnunet_cil.evaluation.segmentation import case_scores
from nnunet_cil.labels import Label, all_numbers, numbers_in

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = (
    "case",
    "class",
    "status",
    "dice",
    "hd95_mm",
    "volume_a_ml",
    "volume_b_ml",
    "num_voxels_a",
    "num_voxels_b",
    "num_far",
    "far_ml",
    "reference_dice_a",
    "reference_dice_b",
    "unit",
)
"""Names the columns of ``per_case.csv``. Volumes are NaN where files do not say how large a voxel is, or show planes."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The reference labels of a case.

    Attributes:
        file: of the label map.
        labels: what its numbers mean, with the background and perhaps ``ignore``.
        classes: that it labels.
    """

    file: Path
    labels: Mapping[str, Label]
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ComparedCase:
    """A case, and the files that are compared.

    Attributes:
        name: of the case.
        a: label map of model A.
        b: label map of model B.
        image: the first channel; it need not be there.
        reference: None where there are no labels.
    """

    name: str
    a: Path
    b: Path
    image: Path
    reference: Reference | None = None


def compare_case(
    case: ComparedCase, *, labels_a: Mapping[str, Label], labels_b: Mapping[str, Label], reader: Any
) -> dict[str, Any]:
    """Compares a case, and returns its record.

    Args:
        case: its files.
        labels_a: what the numbers of model A's label maps mean, without the background; a region has several.
        labels_b: what the numbers of model B's label maps mean, without the background.
        reader: an instance of nnU-Net's, that reads all of them.

    Raises:
        CILError: a file is missing or unreadable, a grid or a label is not what it should be.
    """
    predictions = [(file, all_numbers(own) | {0}) for file, own in ((case.a, labels_a), (case.b, labels_b))]
    truth = case.reference
    reference = None if truth is None else (truth.file, all_numbers(truth.labels))
    maps = read_label_maps(predictions, reference, image_file=case.image, reader=reader)
    a, b = maps.arrays[:2]
    change = compare_labels(a, b, maps.spacing, labels_a, labels_b)
    scores = [_reference_dice(maps, index, own, truth) for index, own in enumerate((labels_a, labels_b))]
    return {
        "case": case.name,
        "unit": maps.unit,
        "voxel_ml": _voxel_ml(maps),
        "voxels_apart": maps.voxels_apart,
        "rows": [
            _row(case.name, name, maps, change, (labels_a, labels_b), scores) for name in {**labels_a, **labels_b}
        ],
        "moved": [[*pair, voxels] for pair, voxels in change.moved.items()],
        "swapped": [list(pair) for pair in change.swapped],
    }


def _row(
    case: str,
    name: str,
    maps: LabelMaps,
    change: Change,
    labels: Sequence[Mapping[str, Label]],
    scores: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """Returns the row of a class in ``per_case.csv``; one that a model does not know has no voxels with it."""
    found, voxel_ml = change.classes.get(name), _voxel_ml(maps)
    voxels = [
        int(np.isin(array, numbers_in(own[name])).sum()) if name in own else None
        for array, own in zip(maps.arrays, labels, strict=False)
    ]
    volumes = [math.nan if number is None else number * voxel_ml for number in voxels]
    return {
        "case": case,
        "class": name,
        "status": "" if found is None else status(found),
        "dice": math.nan if found is None else found.dice,
        "hd95_mm": math.nan if found is None else found.hd95_mm,
        "volume_a_ml": volumes[0],
        "volume_b_ml": volumes[1],
        "num_voxels_a": voxels[0],
        "num_voxels_b": voxels[1],
        "num_far": 0 if found is None else found.num_far,
        "far_ml": 0.0 if found is None else found.num_far_voxels * voxel_ml if found.num_far else 0.0,
        "reference_dice_a": scores[0].get(name, math.nan),
        "reference_dice_b": scores[1].get(name, math.nan),
        "unit": maps.unit,
    }


def _voxel_ml(maps: LabelMaps) -> float:
    is_volume = maps.unit == "mm" and len(maps.spacing) == 3
    return math.prod(maps.spacing) / 1000 if is_volume else math.nan


def _reference_dice(
    maps: LabelMaps, index: int, labels: Mapping[str, Label], reference: Reference | None
) -> dict[str, float]:
    """Returns the Dice of a model's classes that the reference labels; nothing counts where that says ``ignore``."""
    if reference is None:
        return {}
    prediction, truth = maps.arrays[index], maps.arrays[2]
    if "ignore" in reference.labels:
        ignored = np.isin(truth, numbers_in(reference.labels["ignore"]))
        prediction, truth = (np.where(ignored, 0, array) for array in (prediction, truth))
    classes = {name: (labels[name], reference.labels[name]) for name in reference.classes if name in labels}
    found = case_scores(prediction, truth, maps.spacing, classes, tolerance_mm=0.0)
    return {name: scores.dice for name, scores in found.items()}


def change_table(records: Sequence[Mapping[str, Any]]) -> DataFrame:
    """Returns the rows of all cases."""
    from pandas import DataFrame

    return DataFrame([row for record in records for row in record["rows"]], columns=list(COLUMNS))
