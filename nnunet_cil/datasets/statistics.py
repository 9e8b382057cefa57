"""Statistics of a raw data set: volumes of the classes, grids, and whether left is left."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_cil.datasets.volumes import ImageFile

_OTHER_SIDE = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "L": "R"}
_OTHER_SIDE |= {v: k for k, v in _OTHER_SIDE.items()}


@dataclass(frozen=True, kw_only=True)
class CaseStatistics:
    """A label map in numbers.

    Attributes:
        name: name of the case.
        part: Tr or Ts.
        size: voxels (x, y, z).
        spacing_mm: (x, y, z).
        axes: directions of the axes in DICOM's letters ("LPS": to the patient's left, back and head).
        volumes_ml: class -> volume; a class that the case does not have is missing.
        left_mm: class -> how far to the patient's left its centre lies (LPS).
    """

    name: str
    part: str
    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    axes: str
    volumes_ml: Mapping[str, float]
    left_mm: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ClassStatistics:
    """A class over all cases; volumes are NaN where no case has it."""

    name: str
    num_cases: int
    smallest_ml: float
    median_ml: float
    largest_ml: float


def case_statistics(name: str, file: Path, part: str, numbers: Mapping[str, int]) -> CaseStatistics:
    """Reads a label map and measures its classes.

    Args:
        name: name of the case.
        file: a label map of three dimensions, in any format that SimpleITK reads.
        part: Tr or Ts.
        numbers: class -> label.

    Raises:
        CILError: the file cannot be read.
    """
    import SimpleITK as sitk

    image = ImageFile(file).read().image
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputePerimeterOff()
    shapes.Execute(sitk.Cast(image, sitk.sitkUInt16))
    present = {name: number for name, number in numbers.items() if shapes.HasLabel(number)}
    return CaseStatistics(
        name=name,
        part=part,
        size=tuple(image.GetSize()),
        spacing_mm=tuple(image.GetSpacing()),
        axes=sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection()),
        volumes_ml={name: shapes.GetPhysicalSize(number) / 1000 for name, number in present.items()},
        left_mm={name: shapes.GetCentroid(number)[0] for name, number in present.items()},
    )


def class_statistics(cases: Sequence[CaseStatistics], classes: Sequence[str]) -> list[ClassStatistics]:
    """Summarises each class over all cases."""
    rows = []
    for name in classes:
        volumes = [case.volumes_ml[name] for case in cases if name in case.volumes_ml]
        values = volumes or [float("nan")]
        rows.append(
            ClassStatistics(
                name=name,
                num_cases=len(volumes),
                smallest_ml=min(values),
                median_ml=statistics.median(values),
                largest_ml=max(values),
            )
        )
    return rows


def twins(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (left, right) for each two classes whose names differ in the side only."""
    pairs = []
    for name in classes:
        other = re.sub(r"left|Left|LEFT|(?<=[_ ])L\b", lambda m: _OTHER_SIDE[m[0]], name)
        if other != name and other in classes:
            pairs.append((name, other))
    return pairs


def swapped_sides(cases: Sequence[CaseStatistics], classes: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (case, left class) wherever the left one of two twins does not lie to the left of the right one."""
    return [
        (case.name, left)
        for left, right in twins(classes)
        for case in cases
        if left in case.left_mm and right in case.left_mm and case.left_mm[left] <= case.left_mm[right]
    ]


def ranges(cases: Sequence[CaseStatistics]) -> tuple[str, str]:
    """Returns smallest to largest size in voxels, and spacing in mm, by axis, as text."""
    texts = []
    for rows, form in (([c.size for c in cases], "d"), ([c.spacing_mm for c in cases], ".3g")):
        low, high = np.min(rows, axis=0).tolist(), np.max(rows, axis=0).tolist()
        texts.append(
            " x ".join(f"{a:{form}}" if a == b else f"{a:{form}}-{b:{form}}" for a, b in zip(low, high, strict=True))
        )
    return texts[0], texts[1]
