"""Reads files as two of nnU-Net's readers do: shapes and properties from its header, arrays without a change of type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.errors import CILError

Shape = tuple[int, ...]
Properties = dict[str, Any]


def read_itk(file: Path) -> tuple[npt.NDArray[Any], Properties]:
    """Reads a file as SimpleITKIO does; labels take a quarter of the memory, since the type of the numbers is kept."""
    import SimpleITK as sitk

    untyped: Any = sitk
    picture = untyped.ReadImage(str(file))
    shape, properties = _itk_properties(picture, picture.GetNumberOfComponentsPerPixel(), file)
    return np.asarray(_Voxels(picture, untyped.GetArrayViewFromImage(picture))).reshape(1, *shape), properties


class _Voxels:
    """SimpleITK's voxels, without a copy: an array of them keeps the picture, which a view by SimpleITK does not."""

    def __init__(self, picture: Any, view: npt.NDArray[Any]) -> None:
        self.picture = picture
        self.__array_interface__ = view.__array_interface__


def read_nibabel(file: Path) -> tuple[npt.NDArray[Any], Properties]:
    """Reads a file as NibabelIO does, but keeps the type of the numbers."""
    import nibabel

    picture: Any = nibabel.load(file)
    _, properties = _nibabel_properties(picture)
    return np.asanyarray(picture.dataobj).transpose(2, 1, 0)[None], properties


_NIFTI_CODES = ("sform_code", "qform_code")


def itk_header(file: Path) -> tuple[Shape, Properties]:
    """Returns the shape and the properties that SimpleITKIO gives.

    Raises:
        CILError: there are more than three dimensions, or colours, which it takes for a dimension.
    """
    import SimpleITK as sitk

    untyped: Any = sitk
    header = untyped.ImageFileReader()
    header.SetFileName(str(file))
    header.ReadImageInformation()
    return _itk_properties(header, header.GetNumberOfComponents(), file)


def _itk_properties(picture: Any, num_components: int, file: Path) -> tuple[Shape, Properties]:
    size, spacing = picture.GetSize(), picture.GetSpacing()
    if len(size) > 3:
        raise too_many_dimensions(file, len(size))
    if num_components > 1:
        raise CILError(
            f"{file} has {num_components} numbers a voxel (colours, or vectors), which nnU-Net takes for a dimension. Write "
            "each to a file of its own (CASE_0000, CASE_0001, ...)."
        )
    is_plane = len(size) == 2
    properties = {
        "sitk_stuff": {"spacing": spacing, "origin": picture.GetOrigin(), "direction": picture.GetDirection()},
        "spacing": [*([max(spacing) * 999] if is_plane else []), *(abs(s) for s in spacing[::-1])],
        "is_oriented": not all(picture.HasMetaDataKey(k) and picture.GetMetaData(k) == "0" for k in _NIFTI_CODES),
    }
    return (*((1,) if is_plane else ()), *size[::-1]), properties


def nibabel_header(file: Path) -> tuple[Shape, Properties]:
    """Returns the shape and the properties that NibabelIO gives."""
    import nibabel

    return _nibabel_properties(nibabel.load(file))


def _nibabel_properties(picture: Any) -> tuple[Shape, Properties]:
    assert picture.ndim == 3, "only 3d images are supported by NibabelIO"  # as it does
    spacing = [float(s) for s in picture.header.get_zooms()[::-1]]
    stuff = {"original_affine": picture.affine}
    return picture.shape[::-1], {"nibabel_stuff": stuff, "spacing": spacing, "is_oriented": _has_code(picture.header)}


def tiff_header(file: Path) -> tuple[Shape, Properties]:
    """Returns the shape that Tiff3DIO gives; the spacing is that of a file that does not say it."""
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        shape = tiff.series[0].shape
    assert len(shape) == 3, "Only 3D images are supported!"
    return shape, {"spacing": (1, 1, 1)}


HEADERS: Mapping[str, Callable[[Path], tuple[Shape, Properties]]] = {
    "SimpleITKIO": itk_header,
    "NibabelIO": nibabel_header,
    "Tiff3DIO": tiff_header,
}
"""Reader -> what it makes of a file's header. Of other readers' files, all has to be read."""

ARRAYS: Mapping[str, Callable[[Path], tuple[npt.NDArray[Any], Properties]]] = {
    "SimpleITKIO": read_itk,
    "NibabelIO": read_nibabel,
}
"""Reader -> what it makes of a file, but for the type of the numbers."""


def is_oriented(file: Path) -> bool:
    """Tells whether a file says which side is left: NIfTI need not (both codes are 0), and readers guess then."""
    if not file.name.lower().endswith((".nii", ".nii.gz")):
        return True
    import nibabel

    picture: Any = nibabel.load(file)
    return _has_code(picture.header)


def _has_code(header: Any) -> bool:
    return not all(code in header and int(header[code]) == 0 for code in _NIFTI_CODES)


def is_finite(file: Path) -> bool:
    """Tells whether all numbers of a NIfTI file are finite, which SimpleITK reads as 0 otherwise; true of other formats."""
    if not file.name.lower().endswith((".nii", ".nii.gz")):
        return True
    import nibabel

    picture: Any = nibabel.load(file)
    stored = np.asanyarray(picture.dataobj.get_unscaled())
    return not np.issubdtype(stored.dtype, np.floating) or bool(np.isfinite(stored).all())


def nifti_dimensions(file: Path) -> int:
    """Returns the number of dimensions; 0 where the file is no NIfTI."""
    import nibabel

    try:
        picture: Any = nibabel.load(file)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError):
        return 0
    return len(picture.shape)


def too_many_dimensions(file: Path, dimensions: int) -> CILError:
    """Returns the error of a file with four dimensions or more: SimpleITKIO reads them, but cannot write predictions."""
    return CILError(
        f"{file} has {dimensions} dimensions, which nnU-Net cannot predict. Write each of its volumes to a file of its own "
        "(CASE_0000, CASE_0001, ... for the channels of an image); 'nnUNetv2_convert_MSD_dataset' does it for data in the "
        "Decathlon's format."
    )
