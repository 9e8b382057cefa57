"""Statistics of a raw data set: what its classes take up, grids, and whether left is left."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.host.preprocessed import distinct_values
from nnunet_cil.host.reading.grids import Grid
from nnunet_cil.host.reading.images import read_labels, whole_numbers
from nnunet_cil.labels import Label, all_numbers, numbers_in

_OTHER_SIDE = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "L": "R"}
_OTHER_SIDE |= {v: k for k, v in _OTHER_SIDE.items()}


@dataclass(frozen=True, kw_only=True)
class CaseStatistics:
    """A label map in numbers.

    Attributes:
        name: name of the case.
        part: Tr or Ts.
        size: voxels (x, y, z), or pixels (x, y).
        spacing_mm: (x, y, z), or (x, y); empty where the files do not say it.
        axes: directions of the axes in DICOM's letters ("LPS": to the patient's left, back and head); empty where not known.
        num_voxels: class -> its voxels; a class that the case does not have is missing.
        left_mm: class -> how far to the patient's left its centre lies (LPS); empty where the axes are not known.
        unlisted: numbers in it that dataset.json does not list.
    """

    name: str
    part: str
    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    axes: str
    num_voxels: Mapping[str, int]
    left_mm: Mapping[str, float]
    unlisted: tuple[int, ...] = ()

    @property
    def unit(self) -> str:
        """Returns the unit of what a class takes up: ml, or mm2 in a plane; voxels where their size is not known."""
        return {3: "ml", 2: "mm2"}.get(len(self.spacing_mm), "voxels")

    def extents(self, unit: str) -> dict[str, float]:
        """Returns class -> what it takes up.

        Args:
            unit: the case's own, or "voxels".
        """
        factor = 1.0 if unit == "voxels" else math.prod(self.spacing_mm) / (1000 if unit == "ml" else 1)
        return {name: number * factor for name, number in self.num_voxels.items()}


@dataclass(frozen=True, kw_only=True)
class ClassStatistics:
    """A class over all cases; what it takes up is NaN where no case has it."""

    name: str
    num_cases: int
    smallest: float
    median: float
    largest: float


def case_statistics(
    name: str, file: Path, part: str, numbers: Mapping[str, Label], reader: Any, ignore: int | None = None
) -> CaseStatistics:
    """Reads a label map and measures its classes.

    Args:
        name: name of the case.
        file: a label map.
        part: Tr or Ts.
        numbers: class -> label, or region.
        reader: an instance of nnU-Net's, that reads the data set.
        ignore: the number of the ignore label, if there is one.

    Raises:
        CILError: the file cannot be read, or holds what are no labels.
    """
    from scipy.ndimage import find_objects

    image = read_labels(file, reader)
    grid, labels = image.grid, whole_numbers(image.array[0], file)
    boxes = find_objects(labels, max_label=max(all_numbers(numbers), default=0))
    masks = {}
    for n, label in numbers.items():
        if own := [box for number in numbers_in(label) if (box := boxes[number - 1]) is not None]:
            box = tuple(
                slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*own, strict=True)
            )
            masks[n] = box, np.isin(labels[box], numbers_in(label))
    return CaseStatistics(
        name=name,
        part=part,
        size=grid.size,
        spacing_mm=grid.size_mm,
        axes=grid.orientation,
        num_voxels={n: int(np.count_nonzero(mask)) for n, (_, mask) in masks.items()},
        left_mm={n: _left_mm(mask, box, grid) for n, (box, mask) in masks.items()} if grid.orientation else {},
        unlisted=tuple(sorted(distinct_values(labels) - {0, ignore, *all_numbers(numbers)})),
    )


def _left_mm(mask: npt.NDArray[np.bool_], box: tuple[slice, ...], grid: Grid) -> float:
    """Returns how far to the left the centre of a mask lies, which was cut out of a volume."""
    profiles = (mask.sum(axis=tuple(a for a in range(mask.ndim) if a != axis)) for axis in range(mask.ndim))
    centre = [float(np.average(np.arange(s.start, s.stop), weights=p)) for s, p in zip(box, profiles, strict=True)]
    assert grid.affine is not None, "what has an orientation has an affine"
    return float(grid.affine[0] @ [*centre, 1])


def unit_of(cases: Sequence[CaseStatistics]) -> str:
    """Returns the unit of what a class takes up; voxels where the cases have different ones."""
    units = {case.unit for case in cases}
    return units.pop() if len(units) == 1 else "voxels"


def class_statistics(cases: Sequence[CaseStatistics], classes: Sequence[str]) -> list[ClassStatistics]:
    """Summarises each class over all cases, in ``unit_of(cases)``."""
    rows, unit = [], unit_of(cases)
    for name in classes:
        extents = [case.extents(unit)[name] for case in cases if name in case.num_voxels]
        values = extents or [float("nan")]
        rows.append(
            ClassStatistics(
                name=name,
                num_cases=len(extents),
                smallest=min(values),
                median=statistics.median(values),
                largest=max(values),
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
    """Returns smallest to largest size in voxels, and spacing in mm, by axis, as text; empty where it is not known."""
    axes = max(len(case.size) for case in cases)
    sizes = [(*case.size, 1)[:axes] for case in cases]  # of planes beside volumes, too
    spacings = [case.spacing_mm for case in cases if len(case.spacing_mm) == axes]
    return _range(sizes, "d"), _range(spacings, ".3g")


def _range(rows: Sequence[tuple[float, ...]], form: str) -> str:
    if not rows:
        return ""
    low, high = np.min(rows, axis=0).tolist(), np.max(rows, axis=0).tolist()
    return " x ".join(f"{a:{form}}" if a == b else f"{a:{form}}-{b:{form}}" for a, b in zip(low, high, strict=True))
