"""What can be wrong with a download, looked for in all cases before anything is written."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.datasets.download import Case, Dataset, Problem
from nnunet_cil.datasets.findings import Examined, Findings
from nnunet_cil.datasets.parallel import in_parallel
from nnunet_cil.datasets.volumes import ImageFile, Source, Volume, distance_in_voxels
from nnunet_cil.errors import CILError

TOLERANCE_VOXELS = 0.1
"""How far the corners of image and labels may lie apart. Below it, the labels take over the image's geometry."""

_SAME_GRID = 1e-6
"""In voxels: nearer than this a file may stand beside another as it is."""

AIR_HU = -200.0
"""Every CT in Hounsfield units has voxels below this, and no MR has."""

MAX_ANISOTROPY = 10.0
OUTLIER_MADS = 12.0
MIN_CASES_FOR_OUTLIERS = 5


def check(dataset: Dataset, *, num_processes: int = 1) -> Findings:
    """Reads every case and collects everything that is wrong.

    Args:
        dataset: as found in the download.
        num_processes: cases read at the same time.

    Raises:
        CILError: the download holds no training case.
    """
    if not any(case.part == "train" for case in dataset.cases):
        raise CILError(f"The download holds no training case of {dataset.name} with labels.")
    names = Counter(case.name for case in dataset.cases)
    twice = [Problem(n, "duplicate name", f"{c} cases have this name") for n, c in names.items() if c > 1]
    examine_one = partial(examine, dataset=replace(dataset, cases=(), problems=()))
    examined = tuple(in_parallel(examine_one, dataset.cases, num_processes, f"Checking {dataset.name}"))
    problems = [*dataset.problems, *twice, *(p for e in examined for p in e.problems)]
    return Findings(
        dataset, examined, (*problems, *_duplicates(examined), *_outliers(examined), *_absent(dataset, examined))
    )


def examine(case: Case, dataset: Dataset) -> Examined:
    """Reads a case and looks for what is wrong with it alone."""
    try:
        volumes = [source.read() for source in case.images]
        labels = case.labels.read()
    except (CILError, RuntimeError, ValueError, OSError) as error:  # the last three: what readers make of damaged files
        text = (
            str(error)
            if isinstance(error, CILError)
            else f"{_folder(case)} cannot be read: {str(error).splitlines()[-1]}"
        )
        return Examined(case, (Problem(case.name, "unreadable", text),))
    import SimpleITK as sitk

    reference = volumes[0].image
    arrays = [sitk.GetArrayViewFromImage(v.image) for v in volumes]
    segmentation = sitk.GetArrayViewFromImage(labels.image)
    problems = [
        *(Problem(case.name, "repaired", text, serious=False) for v in (*volumes, labels) for text in v.remarks),
        *(p for i, v in enumerate(volumes[1:], 1) for p in _geometry(case.name, reference, v.image, f"channel {i}")),
        *_geometry(case.name, reference, labels.image, "labels"),
        *_anisotropy(case.name, reference.GetSpacing()),
        *(
            p
            for name, a in zip(dataset.channels, arrays, strict=True)
            for p in _intensities(case.name, name, a, dataset)
        ),
    ]
    values, label_problems = _label_values(case.name, segmentation, dataset)
    same_numbers = list(dataset.numbers.values()) == list(range(1, len(dataset.numbers) + 1))
    same_grid = distance_in_voxels(reference, labels.image) < _SAME_GRID
    return Examined(
        case=case,
        problems=(*problems, *label_problems),
        size=tuple(reference.GetSize()),
        spacing_mm=tuple(reference.GetSpacing()),
        digest=hashlib.sha256(np.ascontiguousarray(arrays[0]).tobytes()).hexdigest(),
        values=values,
        bright=tuple(float(np.percentile(a[:: max(1, len(a) // 16)], 99)) for a in arrays),
        image_as_is=tuple(
            _stands_as_it_is(s, v) and distance_in_voxels(reference, v.image) < _SAME_GRID
            for s, v in zip(case.images, volumes, strict=True)
        ),
        labels_as_is=_stands_as_it_is(case.labels, labels)
        and same_numbers
        and same_grid
        and np.issubdtype(segmentation.dtype, np.integer),
    )


def _folder(case: Case) -> str:
    return str(case.labels.files[0].parent if case.labels.files else case.name)


def _stands_as_it_is(source: Source, volume: Volume) -> bool:
    return isinstance(source, ImageFile) and source.file.name.endswith(".nii.gz") and not volume.remarks


def _geometry(case: str, reference: Any, other: Any, what: str) -> list[Problem]:
    if other.GetSize() != reference.GetSize():
        text = f"image {list(reference.GetSize())} and {what} {list(other.GetSize())} differ in size"
        return [Problem(case, "geometry", text)]
    distance = distance_in_voxels(reference, other)
    if distance <= TOLERANCE_VOXELS:
        return []
    text = f"image and {what} lie up to {distance:.3g} voxels apart (at most {TOLERANCE_VOXELS} are tolerated)"
    return [Problem(case, "geometry", text)]


def _anisotropy(case: str, spacing_mm: Sequence[float]) -> list[Problem]:
    if max(spacing_mm) <= MAX_ANISOTROPY * min(spacing_mm):
        return []
    text = f"spacing {' x '.join(f'{s:.3g}' for s in spacing_mm)} mm"
    return [Problem(case, "anisotropy", text, serious=False)]


def _intensities(case: str, channel: str, array: npt.NDArray[Any], dataset: Dataset) -> list[Problem]:
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        return [Problem(case, "intensities", f"{channel} holds values that are not numbers")]
    if low == high:
        return [Problem(case, "intensities", f"{channel} is {low:g} everywhere")]
    if channel == "CT" and dataset.hounsfield and low > AIR_HU:
        return [
            Problem(case, "modality", f"values from {low:g} to {high:g} are no CT in Hounsfield units: air is missing")
        ]
    if channel == "MRI" and low < AIR_HU:
        return [Problem(case, "modality", f"values from {low:g} to {high:g} look like CT, but the data set is MRI")]
    return []


def _label_values(case: str, segmentation: npt.NDArray[Any], dataset: Dataset) -> tuple[frozenset[int], list[Problem]]:
    raw = {float(v) for part in segmentation for v in np.unique(part)}
    broken = sorted(v for v in raw if not v.is_integer())
    if broken:
        return frozenset(), [Problem(case, "label values", f"the value {broken[0]:g} is no whole number")]
    values = frozenset(int(v) for v in raw)
    strange = sorted(values - {0, *dataset.numbers.values()})
    problems = []
    if strange:
        text = f"holds {', '.join(map(str, strange[:5]))}, but the labels are {dict(dataset.numbers)}"
        problems.append(Problem(case, "label values", text))
    if not np.issubdtype(segmentation.dtype, np.integer):
        text = f"labels are stored as {segmentation.dtype}; written as whole numbers, which they are exactly"
        problems.append(Problem(case, "repaired", text, serious=False))
    if values <= {0}:
        problems.append(Problem(case, "empty labels", "holds background only", serious=False))
    return values, problems


def _duplicates(examined: Sequence[Examined]) -> list[Problem]:
    first: dict[str, str] = {}
    problems = []
    for e in examined:
        if e.digest and first.setdefault(e.digest, e.case.name) != e.case.name:
            problems.append(Problem(e.case.name, "duplicate", f"has the same image as {first[e.digest]}"))
    return problems


def _outliers(examined: Sequence[Examined]) -> list[Problem]:
    """Cases whose brightest voxels, or whose spacing, are far from those of the others (median absolute deviation)."""
    readable = [e for e in examined if e.size]
    if len(readable) < MIN_CASES_FOR_OUTLIERS:
        return []
    problems = []
    measures = {"intensity outlier": [e.bright[0] for e in readable]}
    measures |= {"spacing outlier": [max(e.spacing_mm) for e in readable]}
    for what, numbers in measures.items():
        middle = statistics.median(numbers)
        deviation = max(statistics.median(abs(n - middle) for n in numbers), 0.05 * abs(middle))
        unit = "99th percentile" if what == "intensity outlier" else "largest spacing in mm"
        for e, number in zip(readable, numbers, strict=True):
            if abs(number - middle) > OUTLIER_MADS * deviation:
                text = f"{unit} {number:.4g}, where the median of all cases is {middle:.4g}"
                problems.append(Problem(e.case.name, what, text, serious=False))
    return problems


def _absent(dataset: Dataset, examined: Sequence[Examined]) -> list[Problem]:
    present = {v for e in examined if e.case.part != "test" for v in e.values}
    return [
        Problem("", "absent class", f"no training case has {name!r} (label {number})", serious=False)
        for name, number in dataset.numbers.items()
        if number not in present
    ]
