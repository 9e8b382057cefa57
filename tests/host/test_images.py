"""Images as SimpleITK reads them."""

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cil.host.images import header_orientation, read_slices

LPS_TO_RAS = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)


def write(file, array, direction=None, spacing=None):
    image = sitk.GetImageFromArray(array)
    if direction is not None:
        image.SetDirection(direction)
    if spacing is not None:
        image.SetSpacing(spacing)
    sitk.WriteImage(image, str(file))
    return file


@pytest.mark.parametrize(("direction", "expected"), [(None, "LPS"), (LPS_TO_RAS, "RAS")])
def test_the_header_tells_the_orientation(tmp_path, direction, expected):
    file = write(tmp_path / "image.nii.gz", np.zeros((2, 3, 4), np.float32), direction)
    assert header_orientation(file) == expected


def test_a_plane_and_a_file_that_cannot_be_read_have_no_orientation(tmp_path):
    assert header_orientation(write(tmp_path / "plane.png", np.zeros((3, 4), np.uint8))) is None
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    assert header_orientation(broken) is None


def test_slices_are_turned_to_how_a_radiologist_sees_them(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    turned = write(tmp_path / "image.nii.gz", array, LPS_TO_RAS, (1.0, 2.0, 5.0))
    slices, aspect = read_slices(turned)
    assert np.array_equal(slices, array[:, ::-1, ::-1])
    assert aspect == 2


def test_a_plane_of_colours_is_one_grey_slice(tmp_path):
    slices, _ = read_slices(write(tmp_path / "plane.png", np.zeros((3, 4), np.uint8)))
    assert slices.shape == (1, 3, 4)
    colours = sitk.GetImageFromArray(np.full((3, 4, 3), (0, 30, 60), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "colours.png"))
    slices, _ = read_slices(tmp_path / "colours.png")
    assert slices.shape == (1, 3, 4)
    assert (slices == 30).all()
