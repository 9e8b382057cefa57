"""Images and label maps, read as the data set's own reader of nnU-Net reads them: arrays, and the grids that they lie on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.errors import CILError
from nnunet_cil.files import is_cut_off
from nnunet_cil.host.reading.formats import (
    ARRAYS,
    HEADERS,
    is_finite,
    is_oriented,
    itk_header,
    nifti_dimensions,
    too_many_dimensions,
)
from nnunet_cil.host.reading.grids import Grid, grid_of, turned_to_ras
from nnunet_cil.host.reading.readers import OVERWRITE, silent
from nnunet_cil.host.reading.spacings import Spacing, has_spacing_beside, spacing_beside

Array = npt.NDArray[Any]

_WITHOUT_SPACING = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")
"""Endings of files that do not say how large a pixel is; of a TIFF, a file beside it may."""

_RESTORE = "Restore it."

_REORIENT = "WithReorient"
"""The end of the names of nnU-Net's readers that turn every volume to RAS."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """An image, or a label map.

    Attributes:
        array: (channels, slices, rows, columns).
        grid: where its voxels lie.
    """

    array: Array
    grid: Grid


def read_images(files: Sequence[Path], reader: Any, *, remedy: str = _RESTORE) -> Image:
    """Reads the files of an image: one a channel, or one with all colours.

    Args:
        files: of one case.
        reader: an instance of nnU-Net's.
        remedy: the last sentence where a file is damaged.

    Raises:
        CILError: a file is missing or damaged, or nnU-Net cannot read it, or not predict it.
    """
    spacing = _spacing_beside(files[0], reader, is_image=True)
    own = ARRAYS.get(type(reader).__name__) if len(files) == 1 else None
    for file in files:
        _check(file, reader, remedy, has_own=own is not None)
    read = (lambda: own(files[0])) if own else (lambda: reader.read_images([str(file) for file in files]))
    array, properties = _attempt(read, files[0], reader, remedy)
    return Image(array=array, grid=_grid(array.shape[1:], properties, files[0], spacing))


def read_labels(file: Path, reader: Any, *, remedy: str = _RESTORE) -> Image:
    """Reads a label map. Its array may hold floating-point numbers; see ``whole_numbers``.

    Args:
        file: of the label map.
        reader: an instance of nnU-Net's.
        remedy: the last sentence where a file is damaged.

    Raises:
        CILError: the file is missing or damaged, nnU-Net cannot read it, or it has more than one number a voxel.
    """
    spacing = _spacing_beside(file, reader, is_image=False)
    own = ARRAYS.get(type(reader).__name__)
    _check(file, reader, remedy, has_own=own is not None)
    read = (lambda: own(file)) if own else (lambda: reader.read_seg(str(file)))
    array, properties = _attempt(read, file, reader, remedy)
    if np.issubdtype(array.dtype, np.floating) and not _attempt(lambda: (is_finite(file), {}), file, reader, remedy)[0]:
        raise _not_finite(file)
    if len(array) != 1:
        is_tiff = file.suffix.lower() in (".tif", ".tiff")
        raise CILError(
            f"{file} is read with {len(array)} colours a pixel, but a label map has one number. "
            + (
                f'If it is a volume, write "{OVERWRITE}": "Tiff3DIO" into dataset.json.'
                if is_tiff
                else "Write it in grey."
            )
        )
    return Image(array=array, grid=_grid(array.shape[1:], properties, file, spacing))


def read_grid(file: Path, reader: Any, *, is_image: bool) -> Grid:
    """Reads where the voxels of a file lie; of most formats only its header.

    Args:
        file: an image, or a label map.
        reader: an instance of nnU-Net's.
        is_image: whether its name ends with a channel.

    Raises:
        CILError: as ``read_images`` and ``read_labels``.
    """
    name = type(reader).__name__
    header = HEADERS.get(name.removesuffix(_REORIENT))
    if header is None:
        return (read_images([file], reader) if is_image else read_labels(file, reader)).grid
    if not file.is_file():
        raise CILError(f"{file} is missing. {_RESTORE}")
    spacing = _spacing_beside(file, reader, is_image=is_image)
    shape, properties = _attempt(lambda: header(file), file, reader, _RESTORE)
    grid = _grid(shape, properties, file, spacing)
    return turned_to_ras(grid) if name.endswith(_REORIENT) else grid


def has_colours(reader: Any) -> bool:
    """Tells whether one file may hold several channels."""
    return type(reader).__name__ == "NaturalImage2DIO"


LARGEST_LABEL = 32767
"""nnU-Net keeps preprocessed labels in 16 bits: a larger number would become another one."""


def whole_numbers(labels: Array, file: Path) -> npt.NDArray[np.integer[Any]]:
    """Returns labels as integers; some label maps are stored as floating-point numbers.

    Raises:
        CILError: some are not whole, or beyond what nnU-Net can tell apart.
    """
    if not labels.size or labels.dtype == bool:
        return labels.astype(np.int32)
    lowest, highest = labels.min(), labels.max()
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise _not_finite(file)
    for number in (lowest, highest):
        if not -LARGEST_LABEL <= number <= LARGEST_LABEL:
            raise CILError(
                f"{file} holds the label {number:.15g}, but nnU-Net keeps labels up to {LARGEST_LABEL} only. Correct the "
                "label file."
            )
    if np.issubdtype(labels.dtype, np.integer):
        return labels
    rounded = np.rint(labels).astype(np.int32)
    if not np.array_equal(rounded, labels):
        raise CILError(f"{file} holds numbers that are not whole; a label map has whole ones. Correct the label file.")
    return rounded


def _not_finite(file: Path) -> CILError:
    return CILError(f"{file} holds NaN or infinite numbers, which are not whole; a label map has whole ones.")


def as_seen(image: Image) -> tuple[Array, float]:
    """Returns slices as a radiologist sees them: the patient's right at the left, the back at the bottom.

    Where the orientation is not known, they are as they are stored.

    Returns:
        (slices, rows, columns) from feet to head, and the height of a pixel through its width. Colours become grey.
    """
    array = image.array[0] if len(image.array) == 1 else image.array.mean(axis=0)
    spacing = image.grid.spacing
    if image.grid.affine is not None and image.grid.orientation:
        from nibabel import orientations

        untyped: Any = orientations
        axes = untyped.io_orientation(
            image.grid.affine
        )  # of slices, rows and columns: left, back or head, and whether against it
        array = untyped.apply_orientation(array, axes).transpose(2, 1, 0)
        spacing = tuple(spacing[int(np.flatnonzero(axes[:, 0] == axis)[0])] for axis in (2, 1, 0))
    return array, spacing[1] / spacing[2]


def _check(file: Path, reader: Any, remedy: str, *, has_own: bool) -> None:
    """Refuses what nnU-Net's readers do not see: a file that is cut off, and colours or a fourth dimension in ITK's formats.

    Args:
        file: to read.
        reader: an instance of nnU-Net's.
        remedy: the last sentence where the file is damaged.
        has_own: whether it is read in our own way, which sees the latter.
    """
    if not file.is_file():
        raise CILError(f"{file} is missing. {remedy}")
    if is_cut_off(file):
        raise CILError(f"{file} is cut off or damaged. {remedy}")
    if type(reader).__name__.startswith("SimpleITKIO") and not has_own:
        _attempt(lambda: itk_header(file), file, reader, remedy)


def _attempt(
    read: Callable[[], tuple[Any, dict[str, Any]]], file: Path, reader: Any, remedy: str
) -> tuple[Any, dict[str, Any]]:
    """Reads, in silence.

    Raises:
        CILError: whatever goes wrong; readers raise what they like on damaged files.
    """
    try:
        with silent():
            return read()
    except CILError:
        raise
    except Exception as error:
        raise _refusal(file, reader, error, remedy) from error


def _refusal(file: Path, reader: Any, error: Exception, remedy: str) -> CILError:
    """Returns the error of a file that a reader cannot read."""
    name, text = type(reader).__name__, (str(error).strip().splitlines() or [type(error).__name__])[-1]
    if "orthonormal" in text:
        return CILError(
            f"{file} has axes that are not at right angles, which nnU-Net's {name} cannot read. Write "
            f'"{OVERWRITE}": "NibabelIO" into dataset.json, and plan and preprocess again.'
        )
    dimensions = nifti_dimensions(file) if name.startswith("Nibabel") else 0
    if dimensions > 3:
        return too_many_dimensions(file, dimensions)
    if dimensions == 2:
        return CILError(
            f"{file} is a plane, but nnU-Net's {name} reads volumes only. Write "
            f'"{OVERWRITE}": "SimpleITKIO" into dataset.json, and plan and preprocess again.'
        )
    if isinstance(error, AssertionError) or "Only 3D" in text:
        reads = "volumes" if name == "Tiff3DIO" else "planes in grey or in three or four colours"
        return CILError(
            f"{file} cannot be read with nnU-Net's {name}, which reads {reads}. Name another reader with "
            f"{OVERWRITE!r} in dataset.json, and plan and preprocess again."
        )
    return CILError(f"{file} cannot be read. {remedy}")


def _spacing_beside(file: Path, reader: Any, *, is_image: bool) -> Spacing | None:
    """Returns the spacing of a TIFF that is read as a volume; None where it is not known, and for other readers."""
    return spacing_beside(file, is_image=is_image) if has_spacing_beside(reader) else None


def _grid(shape: Sequence[int], properties: dict[str, Any], file: Path, spacing: Spacing | None) -> Grid:
    """Returns the grid of a file.

    Args:
        shape: of one channel.
        properties: as nnU-Net's reader returns them.
        file: that was read.
        spacing: that stands in a file beside it; None where there is none.
    """
    is_known = spacing is not None or not file.name.lower().endswith(_WITHOUT_SPACING)
    own: dict[str, Any] = {} if spacing is None else {"spacing": spacing}
    if "is_oriented" not in properties:  # read by nnU-Net itself
        own["is_oriented"] = is_oriented(file)
    return grid_of(tuple(shape), {**properties, **own}, in_mm=is_known)
