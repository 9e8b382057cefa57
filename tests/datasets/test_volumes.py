"""Volumes are read whole, with axes at right angles, or refused."""

import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from conversions import convert_mine
from downloads import (
    ct,
    label_map,
    read,
    save,
)

from nnunet_cil.datasets.volumes import distance_in_voxels, read_file
from nnunet_cil.errors import CILError
from nnunet_cil.workflows.data.convert import convert


def test_axes_slightly_off_right_angles_are_straightened(mine, raw):
    affine = np.diag([0.8, 0.8, 3.0, 1.0])
    affine[0, 1] = 0.004
    affine[:3, 3] = (10, 20, 30)  # to the right, the front and the head
    for kind, array, suffix in (("images", ct(1), "_0000"), ("labels", label_map(1, 2), "")):
        nibabel.save(nibabel.Nifti1Image(array.T, affine), mine / kind / f"case1{suffix}.nii.gz")
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(mine / "images/case1_0000.nii.gz"))
    done = convert_mine(mine)
    assert "case1: axes 0.14 degrees from right angles; straightened" in done.findings.text()
    assert np.array_equal(read(raw / "Dataset005_Mine/imagesTr/case1_0000.nii.gz"), ct(1))
    straight = sitk.ReadImage(str(raw / "Dataset005_Mine/imagesTr/case1_0000.nii.gz"))
    assert straight.GetSpacing() == pytest.approx((0.8, 0.8, 3.0), abs=1e-3)
    assert straight.GetOrigin() == pytest.approx((-10, -20, 30))
    assert straight.GetDirection() == pytest.approx((-1, 0, 0, 0, -1, 0, 0, 0, 1), abs=0.01)
    affine[0, 1] = 0.4
    nibabel.save(nibabel.Nifti1Image(ct(1).T, affine), mine / "images/case1_0000.nii.gz")
    with pytest.raises(CILError, match="degrees from right angles"):
        read_file(mine / "images/case1_0000.nii.gz")


def test_distance_is_measured_at_the_corners():
    a, b = (sitk.GetImageFromArray(ct()) for _ in range(2))
    assert distance_in_voxels(a, b) == 0
    b.SetSpacing((1.0, 1.0, 1.1))
    assert distance_in_voxels(a, b) == pytest.approx(0.5)


def test_a_volume_has_three_dimensions_and_one_number_a_voxel(mine, raw, tmp_path):
    save(np.stack([ct(), ct()]), mine / "images/case0_0000.nii.gz")
    colours = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(mine / "images/case1_0000.nii.gz"))
    (mine / "images/case2_0000.nii.gz").write_bytes(gzip.compress(b"no image" * 100))
    with pytest.raises(CILError) as error:
        convert_mine(mine)
    for text in (
        "has 4 dimensions, but must have 3",
        "has colours or vectors",
        "cannot be read as an image. Download it again",
    ):
        assert text in str(error.value)
    with pytest.raises(CILError, match=r"--report r\.txt cannot be written there"):
        convert_mine(mine, report=tmp_path / "nowhere" / "r.txt")
    with pytest.raises(CILError, match="neither a folder nor a zip or tar archive"):
        convert("generic", mine / "images/case0_0000.nii.gz", 5, options={"names": mine / "names.json"})


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("num_bytes", [-10, 400, 10])
def test_a_file_that_is_cut_off_is_refused(tmp_path, ending, num_bytes):
    """SimpleITK reads it as if it were whole."""
    file = save(ct(0), tmp_path / f"image{ending}")
    assert read_file(file).image.GetDimension() == 3
    file.write_bytes(file.read_bytes()[:num_bytes])
    with pytest.raises(CILError, match=f"image{ending} is cut off or damaged. Download it again"):
        read_file(file)


def test_a_file_in_several_parts_is_whole(tmp_path):
    """The program bgzip writes such files; the unpacked size at their end is that of the last part."""
    file = save(ct(0), tmp_path / "image.nii.gz")
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))
    assert np.array_equal(sitk.GetArrayFromImage(read_file(file).image), ct(0))


def test_a_label_map_that_is_cut_off_stops_the_conversion(mine, raw):
    file = mine / "labels/case1.nii.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CILError, match=r"case1.nii.gz is cut off or damaged"):
        convert_mine(mine)
