"""Images as SimpleITK reads them: the orientation in a file's header, and slices for pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt


def header_orientation(file: Path) -> str | None:
    """Returns an image's orientation in three letters, from its header; None for a format without one."""
    import SimpleITK as sitk

    untyped: Any = sitk
    header = untyped.ImageFileReader()
    header.SetFileName(str(file))
    try:
        header.ReadImageInformation()
        if header.GetDimension() != 3:
            return None
        return str(untyped.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(header.GetDirection()))
    except RuntimeError:
        return None


def read_slices(file: Path) -> tuple[npt.NDArray[Any], float]:
    """Reads a volume, or a plane, as a radiologist sees it: the patient's right at the left, the back at the bottom.

    Returns:
        (slices, rows, columns) from feet to head, and the height of a pixel through its width.
    """
    import SimpleITK as sitk

    picture = sitk.ReadImage(str(file))
    if len(picture.GetSize()) == 3:  # type: ignore[no-untyped-call]
        picture = sitk.DICOMOrient(picture, "LPS")  # type: ignore[no-untyped-call]
    width, height, *_ = picture.GetSpacing()  # type: ignore[no-untyped-call]
    array = sitk.GetArrayFromImage(picture)
    if picture.GetNumberOfComponentsPerPixel() > 1:  # type: ignore[no-untyped-call]
        array = array.mean(axis=-1)
    return (array if array.ndim == 3 else array[None]), height / width
