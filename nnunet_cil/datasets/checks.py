"""Checks of a download: all cases, before anything is written."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
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
from nnunet_cil.host.reading.grids import NEGLIGIBLE_VOXELS, TOLERANCE_VOXELS

_SAME_GRID_VOXELS = 1e-6
"""Files whose corners lie nearer than this are written as they are."""

AIR_HU = -200.0
"""Every CT in Hounsfield units has voxels below this, and no MR has."""

MAX_ANISOTROPY = 10.0
OUTLIER_MADS = 12.0
MIN_CASES_FOR_OUTLIERS = 5


def check(dataset: Dataset, *, num_processes: int = 1) -> Findings:
    """Reads every case and collects all problems.

    Args:
        dataset: the download.
        num_processes: cases read at the same time.
    """
    examine_one = partial(examine, dataset=replace(dataset, cases=(), problems=()))
    examined = tuple(in_parallel(examine_one, dataset.cases, num_processes, f"Checking {dataset.name}"))
    return Findings(
        dataset=dataset,
        examined=examined,
        problems=(
            *dataset.problems,
            *_same_names(dataset.cases),
            *(problem for e in examined for problem in e.problems),
            *_duplicates(examined),
            *_outliers(examined),
            *_absent_classes(dataset, examined),
        ),
    )


def examine(case: Case, dataset: Dataset) -> Examined:
    """Reads a case and collects the problems that it shows without a look at the others."""
    try:
        images = [source.read() for source in case.images]
        labels = case.labels.read()
    except CILError as error:
        return _unreadable(case, str(error))
    except (RuntimeError, ValueError, OSError) as error:  # what readers make of damaged files
        return _unreadable(case, f"{_folder(case)} cannot be read: {str(error).splitlines()[-1]}")
    import SimpleITK as sitk

    reference = images[0].image
    arrays = [sitk.GetArrayViewFromImage(volume.image) for volume in images]
    segmentation = sitk.GetArrayViewFromImage(labels.image)
    values, label_problems = _label_values(case.name, segmentation, dataset)
    is_consecutive = list(dataset.numbers.values()) == list(range(1, len(dataset.numbers) + 1))
    return Examined(
        case=case,
        problems=(
            *_repairs(case.name, (*images, labels)),
            *_geometry(case.name, images, labels),
            *_intensities(case.name, arrays, dataset),
            *label_problems,
        ),
        size=tuple(reference.GetSize()),
        spacing_mm=tuple(reference.GetSpacing()),
        digest=hashlib.sha256(np.ascontiguousarray(arrays[0]).tobytes()).hexdigest(),
        values=values,
        bright=tuple(float(np.percentile(a[:: max(1, len(a) // 16)], 99)) for a in arrays),
        image_as_is=tuple(
            _can_stay(source, volume, reference) for source, volume in zip(case.images, images, strict=True)
        ),
        labels_as_is=is_consecutive
        and np.issubdtype(segmentation.dtype, np.integer)
        and _can_stay(case.labels, labels, reference),
    )


def _unreadable(case: Case, text: str) -> Examined:
    return Examined(case=case, problems=(Problem(case=case.name, kind="unreadable", text=text),))


def _folder(case: Case) -> str:
    return str(case.labels.files[0].parent if case.labels.files else case.name)


def _can_stay(source: Source, volume: Volume, reference: Any) -> bool:
    """Returns true where nnU-Net can read the file as it is, on the grid of the first channel."""
    is_nifti = isinstance(source, ImageFile) and source.file.name.endswith(".nii.gz")
    return is_nifti and not volume.notes and distance_in_voxels(reference, volume.image) < _SAME_GRID_VOXELS


def _repairs(case: str, volumes: Sequence[Volume]) -> Iterator[Problem]:
    for volume in volumes:
        for note in volume.notes:
            yield Problem(case=case, kind="repaired", text=note, blocking=False)


def _geometry(case: str, images: Sequence[Volume], labels: Volume) -> Iterator[Problem]:
    reference = images[0].image
    for channel, volume in enumerate(images[1:], start=1):
        yield from _grid(case, reference, volume.image, f"channel {channel}")
    yield from _grid(case, reference, labels.image, "labels")
    spacing_mm = reference.GetSpacing()
    if max(spacing_mm) > MAX_ANISOTROPY * min(spacing_mm):
        text = f"spacing {' x '.join(f'{s:.3g}' for s in spacing_mm)} mm"
        yield Problem(case=case, kind="anisotropy", text=text, blocking=False)


def _grid(case: str, reference: Any, other: Any, name: str) -> Iterator[Problem]:
    if other.GetSize() != reference.GetSize():
        text = f"image {list(reference.GetSize())} and {name} {list(other.GetSize())} differ in size"
        yield Problem(case=case, kind="geometry", text=text)
        return
    distance = distance_in_voxels(reference, other)
    if distance > TOLERANCE_VOXELS:
        text = f"image and {name} lie up to {distance:.3g} voxels apart (at most {TOLERANCE_VOXELS} are tolerated)"
        yield Problem(case=case, kind="geometry", text=text)
    elif distance > NEGLIGIBLE_VOXELS:
        text = f"{name} lie{'s' if name != 'labels' else ''} up to {distance:.2g} voxels beside the image; put in its place"
        yield Problem(case=case, kind="repaired", text=text, blocking=False)


def _intensities(case: str, arrays: Sequence[npt.NDArray[Any]], dataset: Dataset) -> Iterator[Problem]:
    for channel, array in zip(dataset.channels, arrays, strict=True):
        low, high = float(array.min()), float(array.max())
        values = f"values from {low:g} to {high:g}"
        if not np.isfinite([low, high]).all():
            yield Problem(case=case, kind="intensities", text=f"{channel} holds values that are not numbers")
        elif low == high:
            yield Problem(case=case, kind="intensities", text=f"{channel} is {low:g} everywhere")
        elif channel == "CT" and dataset.hounsfield and low > AIR_HU:
            text = f"{values} are no CT in Hounsfield units: air is missing"
            yield Problem(case=case, kind="modality", text=text)
        elif channel == "MRI" and low < AIR_HU:
            yield Problem(case=case, kind="modality", text=f"{values} look like CT, but the data set is MRI")


def _label_values(case: str, segmentation: npt.NDArray[Any], dataset: Dataset) -> tuple[frozenset[int], list[Problem]]:
    """Returns the values of a label map, and their problems; no values where some are no whole numbers."""
    raw = {float(v) for part in segmentation for v in np.unique(part)}
    broken = sorted(v for v in raw if not v.is_integer())
    if broken:
        text = f"the value {broken[0]:g} is no whole number"
        return frozenset(), [Problem(case=case, kind="label values", text=text)]
    values = frozenset(int(v) for v in raw)
    strange = sorted(values - {0, *dataset.numbers.values()})
    problems = []
    if strange:
        text = f"holds {', '.join(map(str, strange[:5]))}, but the labels are {dict(dataset.numbers)}"
        problems.append(Problem(case=case, kind="label values", text=text))
    if not np.issubdtype(segmentation.dtype, np.integer):
        text = f"labels are stored as {segmentation.dtype}; written as whole numbers, which they are exactly"
        problems.append(Problem(case=case, kind="repaired", text=text, blocking=False))
    if values <= {0}:
        problems.append(Problem(case=case, kind="empty labels", text="holds background only", blocking=False))
    return values, problems


def _same_names(cases: Sequence[Case]) -> Iterator[Problem]:
    for name, count in Counter(case.name for case in cases).items():
        if count > 1:
            yield Problem(case=name, kind="duplicate name", text=f"{count} cases have this name")


def _duplicates(examined: Sequence[Examined]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for e in examined:
        name = e.case.name
        if e.digest and first.setdefault(e.digest, name) != name:
            yield Problem(case=name, kind="duplicate", text=f"has the same image as {first[e.digest]}")


def _outliers(examined: Sequence[Examined]) -> Iterator[Problem]:
    """Yields the cases whose brightest voxels, or whose spacing, are far from those of the other cases."""
    readable = [e for e in examined if e.size]
    if len(readable) < MIN_CASES_FOR_OUTLIERS:
        return
    for kind, measure, numbers in (
        ("intensity outlier", "99th percentile", [e.bright[0] for e in readable]),
        ("spacing outlier", "largest spacing in mm", [max(e.spacing_mm) for e in readable]),
    ):
        median = statistics.median(numbers)
        deviation = max(statistics.median(abs(n - median) for n in numbers), 0.05 * abs(median))
        for e, number in zip(readable, numbers, strict=True):
            if abs(number - median) > OUTLIER_MADS * deviation:
                text = f"{measure} {number:.4g}, where the median of all cases is {median:.4g}"
                yield Problem(case=e.case.name, kind=kind, text=text, blocking=False)


def _absent_classes(dataset: Dataset, examined: Sequence[Examined]) -> Iterator[Problem]:
    if not examined:
        return
    present = {value for e in examined if e.case.part != "test" for value in e.values}
    for name, number in dataset.numbers.items():
        if number not in present:
            text = f"no training case has {name!r} (label {number})"
            yield Problem(case="", kind="absent class", text=text, blocking=False)
