"""Sources of a case's volumes: a file as it is, one volume of several, or several masks put together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nnunet_cil.errors import CILError
from nnunet_cil.files import is_cut_off, moved_into_place
from nnunet_cil.host.reading import grids


@dataclass(frozen=True)
class Volume:
    """A volume that was read.

    Attributes:
        image: a SimpleITK image of three dimensions.
        notes: the repairs and decisions made on reading; a volume with notes is written, never linked.
    """

    image: Any
    notes: tuple[str, ...] = field(default=())


class Source(Protocol):
    """Files that are read as one volume. Must be picklable: volumes are read in other processes."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Returns all files that are read."""

    def read(self) -> Volume:
        """Reads the volume.

        Raises:
            CILError: a file is missing or not what it should be.
        """


@dataclass(frozen=True)
class ImageFile:
    """A file in any format that SimpleITK reads."""

    file: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """Returns the file."""
        return (self.file,)

    def read(self) -> Volume:
        """Reads the volume and straightens its axes where they are not quite at right angles."""
        volume = read_file(self.file)
        if volume.image.GetDimension() != 3:
            remedy = "nnU-Net takes planes as they are: put them into nnUNet_raw."
            if volume.image.GetDimension() > 3:
                remedy = "Write each of its volumes to a file of its own, a channel each (case_0000, case_0001, ...)."
            raise CILError(f"{self.file} has {volume.image.GetDimension()} dimensions, but must have 3. {remedy}")
        if volume.image.GetNumberOfComponentsPerPixel() != 1:
            raise CILError(
                f"{self.file} has colours or vectors, but must have one number a voxel. Write each to a file of its own."
            )
        return volume


@dataclass(frozen=True)
class OneOfSeries:
    """One volume, counted from 0, of a file with four dimensions: a channel, or a time point."""

    file: Path
    index: int

    @property
    def files(self) -> tuple[Path, ...]:
        """Returns the file."""
        return (self.file,)

    def read(self) -> Volume:
        """Reads the series and takes the volume out of it."""
        series = read_file(self.file)
        if series.image.GetDimension() != 4 or not 0 <= self.index < series.image.GetSize()[3]:
            raise CILError(f"{self.file} has no volume {self.index}: its size is {list(series.image.GetSize())}.")
        return Volume(series.image[:, :, :, self.index], series.notes)


@dataclass(frozen=True)
class Masks:
    """One binary file a class; they become labels 1, 2, ... Where two overlap, the lower label wins."""

    masks: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Returns the masks."""
        return self.masks

    def read(self) -> Volume:
        """Puts the masks together; a note counts the voxels that belong to two."""
        import SimpleITK as sitk

        first = ImageFile(self.masks[0]).read().image
        labels = np.zeros(first.GetSize()[::-1], dtype=np.uint8)
        num_claims = np.zeros_like(labels)
        for number, file in reversed(list(enumerate(self.masks, start=1))):
            image = first if number == 1 else ImageFile(file).read().image
            if distance_in_voxels(image, first) > grids.TOLERANCE_VOXELS:
                raise CILError(f"{file} lies on another grid than {self.masks[0].name} beside it.")
            mask = sitk.GetArrayViewFromImage(image) > 0
            labels[mask] = number
            num_claims += mask
        picture = sitk.GetImageFromArray(labels)
        picture.CopyInformation(first)
        return Volume(picture, overlap_note(int((num_claims > 1).sum())))


def overlap_note(num_voxels: int) -> tuple[str, ...]:
    """Returns a note on voxels that belong to two classes, where there are any."""
    return (f"{num_voxels} voxels belonged to two classes; the lower label won",) if num_voxels else ()


def read_file(file: Path) -> Volume:
    """Reads an image, and straightens axes that are not quite at right angles, which ITK refuses.

    Raises:
        CILError: the file is missing or cannot be read.
    """
    import SimpleITK as sitk

    if not file.is_file():
        raise CILError(f"{file} is missing.")
    if is_cut_off(file):
        raise CILError(f"{file} is cut off or damaged. Download it again.")
    try:
        return Volume(sitk.ReadImage(str(file)))
    except RuntimeError as error:
        if "orthonormal" in str(error):
            return _straighten(file)
        raise CILError(f"{file} cannot be read as an image. Download it again.") from error


def _straighten(file: Path) -> Volume:
    """Reads a NIfTI file with skewed axes, and gives it the nearest ones at right angles (polar decomposition)."""
    import nibabel
    import SimpleITK as sitk

    picture: Any = nibabel.load(file)
    array = np.asanyarray(picture.dataobj)
    affine = np.asarray(picture.affine, dtype=np.float64)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if array.ndim != 3 or not spacing.all():
        raise CILError(f"{file} has axes that are not at right angles. Leave the case out.")
    u, _, v = np.linalg.svd(affine[:3, :3] / spacing)
    cosine = float(((u @ v) * affine[:3, :3] / spacing).sum(0).min())
    degrees = math.degrees(math.acos(min(1.0, cosine)))
    if degrees > grids.MAX_SKEW_DEGREES:
        raise CILError(f"{file} has axes that are {degrees:.1f} degrees from right angles. Leave the case out.")
    lps = np.diag([-1.0, -1.0, 1.0])
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((lps @ affine[:3, 3]).tolist())
    image.SetDirection((lps @ u @ v).ravel().tolist())
    return Volume(image, (f"axes {degrees:.2g} degrees from right angles; straightened",))


def distance_in_voxels(a: Any, b: Any) -> float:
    """Returns how far two SimpleITK images lie apart, as ``host.reading.grids`` does."""
    return grids.distance_in_voxels(_grid(a), _grid(b))


def _grid(image: Any) -> grids.Grid:
    stuff = {"spacing": image.GetSpacing(), "origin": image.GetOrigin(), "direction": image.GetDirection()}
    shape, spacing = image.GetSize()[::-1], image.GetSpacing()[::-1]
    return grids.grid_of(shape, {"sitk_stuff": stuff, "spacing": spacing}, in_mm=True)


def write_volume(image: Any, file: Path) -> None:
    """Writes a SimpleITK image, compressed."""
    import SimpleITK as sitk

    with moved_into_place(file) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)
