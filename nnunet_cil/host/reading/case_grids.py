"""The grids of a case's files: whether image and labels show the same voxels, which is asked before anything long begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.errors import CILError, counted, few_names
from nnunet_cil.host.reading.grids import (
    MAX_SKEW_DEGREES,
    NEGLIGIBLE_VOXELS,
    TOLERANCE_VOXELS,
    Grid,
    distance_in_voxels,
)
from nnunet_cil.host.reading.images import has_colours, read_grid, read_images
from nnunet_cil.host.reading.readers import OVERWRITE
from nnunet_cil.host.reading.spacings import TIFF, agreed_spacing, has_spacing_beside, spacing_file


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """The files of a case.

    Attributes:
        images: one a channel, or one with all colours.
        labels: its label map, and copies of it; empty where there is none.
    """

    images: Sequence[Path]
    labels: Sequence[Path]


@dataclass(frozen=True, kw_only=True)
class _Examined:
    """A case's grids.

    Attributes:
        problem: why it cannot be trained on or scored, with a remedy; empty where it can.
        voxels_apart: how far its files lie apart.
        skew_degrees: how far its axes are from right angles.
        in_mm: whether its files say how large a voxel is.
    """

    problem: str = ""
    voxels_apart: float
    skew_degrees: float
    in_mm: bool


def check_grids(cases: Mapping[str, CaseFiles], reader: Any, num_channels: int, *, for_training: bool) -> list[str]:
    """Refuses cases that nnU-Net cannot train on or that cannot be scored; of most formats only headers are read.

    Args:
        cases: name -> files.
        reader: an instance of nnU-Net's, that reads the data set.
        num_channels: of the data set.
        for_training: whether nnU-Net preprocesses them, so that a mended case must be preprocessed again.

    Returns:
        Notes on what is taken as it is.

    Raises:
        CILError: files of a case have other sizes or lie too far apart, nnU-Net cannot read one, only labels say how large a
            voxel is, or only some cases do.
    """
    from tqdm import tqdm

    examined = {
        name: _examine(files, reader, num_channels)
        for name, files in tqdm(cases.items(), desc="Looking at headers", leave=False)
    }
    then = " Then preprocess again." if for_training else ""
    faulty = [name for name, found in examined.items() if found.problem]
    if faulty:
        more = f" It is not the only one: {_named(faulty[1:])}." if faulty[1:] else ""
        raise CILError(f"Case {faulty[0]!r}: {examined[faulty[0]].problem}{then}{more}")
    unknown = [name for name, found in examined.items() if not found.in_mm]
    if unknown and len(unknown) < len(examined):
        raise CILError(
            f"No file says how large a voxel is of {_named(unknown)}, but other cases have one. Write the spacing beside each "
            f'image (case.json beside case_0000.tif: {{"spacing": [5, 0.8, 0.8]}}).{then}'
        )
    return _notes(examined, unknown, reader)


def _examine(files: CaseFiles, reader: Any, num_channels: int) -> _Examined:
    first, *channels = files.images
    image, problem = _image_grid(files.images, reader, num_channels)
    others = [
        *((file, read_grid(file, reader, is_image=True)) for file in channels),
        *((file, read_grid(file, reader, is_image=False)) for file in files.labels),
    ]
    distances = [distance_in_voxels(image, grid) for _, grid in others]
    if has_spacing_beside(reader):
        problem = problem or _spacing_problem(image, first, next(iter(files.labels), None))
    for (file, grid), distance in zip(others, distances, strict=True):
        problem = problem or _problem(first, image, file, grid, distance)
        if not problem and file in channels and not np.allclose(grid.spacing, image.spacing):  # as nnU-Net compares
            problem = (
                f"{file} has another spacing than {first}, which nnU-Net refuses. Give it the header of the latter."
            )
    return _Examined(
        problem=problem,
        voxels_apart=max(distances, default=0.0),
        skew_degrees=image.skew_degrees,
        in_mm=image.in_mm,
    )


def _image_grid(files: Sequence[Path], reader: Any, num_channels: int) -> tuple[Grid, str]:
    """Returns the grid of an image, and what is wrong with its number of colours."""
    if not has_colours(reader):
        return read_grid(files[0], reader, is_image=True), ""
    image = read_images(files, reader)
    if len(image.array) == num_channels:
        return image.grid, ""
    is_tiff = files[0].name.lower().endswith(TIFF)
    return image.grid, (
        f"{files[0]} has {counted(len(image.array), 'colour')}, but dataset.json has {counted(num_channels, 'channel')}. Name "
        'each colour there ("channel_names": {"0": "red", "1": "green", "2": "blue"}), or write the image in grey.'
        + (f' If it is a volume, write "{OVERWRITE}": "Tiff3DIO" there, and plan again.' if is_tiff else "")
    )


def _problem(first: Path, image: Grid, file: Path, grid: Grid, distance: float) -> str:
    """Returns why a file does not fit the first channel; empty where it does."""
    if grid.shape != image.shape:
        ours, theirs = (" x ".join(map(str, g.size)) for g in (image, grid))
        return f"{first} is {ours} voxels, but {file} {theirs}. Correct the case, or leave it out."
    if distance > TOLERANCE_VOXELS:
        spacings = [" x ".join(f"{s:g}" for s in g.size_mm) for g in (grid, image)]
        differ = (
            f" (spacing {spacings[0]} mm, not {spacings[1]})" if all(spacings) and spacings[0] != spacings[1] else ""
        )
        return (
            f"{file} lies {distance:.3g} voxels beside {first}{differ}; at most {TOLERANCE_VOXELS:g} are tolerated. If both "
            "show the same voxels, give it the image's header (SimpleITK: CopyInformation), otherwise resample it."
        )
    return ""


def _spacing_problem(image: Grid, first: Path, labels: Path | None) -> str:
    """Returns what is wrong where a TIFF's labels have another spacing beside them than nnU-Net takes for it; else empty.

    Raises:
        CILError: image and labels have different ones.
    """
    spacing = agreed_spacing(first, labels)
    if labels is None or spacing is None or np.allclose(spacing, image.spacing):
        return ""
    beside = spacing_file(labels, is_image=False)
    return (
        f"{beside} says the spacing of the labels, but no file says the image's: nnU-Net would take 1 mm. Copy it to "
        f"{spacing_file(first, is_image=True)}."
    )


def _notes(examined: Mapping[str, _Examined], unknown: Sequence[str], reader: Any) -> list[str]:
    apart = {name: e.voxels_apart for name, e in examined.items() if e.voxels_apart > NEGLIGIBLE_VOXELS}
    skewed = {name: e.skew_degrees for name, e in examined.items() if e.skew_degrees > MAX_SKEW_DEGREES}
    notes = []
    if apart:
        notes.append(
            f"The labels of {_named(list(apart))} lie up to {max(apart.values()):.2g} voxels beside their image. nnU-Net and "
            "the scores go by the voxels, not by the header."
        )
    if skewed:
        notes.append(
            f"The axes of {_named(list(skewed))} are up to {max(skewed.values()):.2g} degrees from right angles. nnU-Net and "
            "the distances take them as perpendicular."
        )
    if unknown:
        remedy = " (it stands in case.json beside case_0000.tif)" if has_spacing_beside(reader) else ""
        notes.append(
            f"The files do not say how large a voxel is{remedy}: nnU-Net takes 1, and distances will be in voxels."
        )
    return notes


def _named(names: Sequence[str]) -> str:
    return f"{counted(len(names), 'case')} ({few_names(names)})"
