"""Which of nnU-Net's readers reads a data set."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cil.errors import CILError
from nnunet_cil.host.reading.readers import dataset_reader, named_reader


def chosen(*arguments):
    return type(dataset_reader(*arguments)).__name__


@pytest.mark.parametrize(
    ("content", "plans_reader", "expected"),
    [
        ({"file_ending": ".nii.gz"}, "", "SimpleITKIO"),
        ({"file_ending": ".nii.gz"}, "NibabelIO", "NibabelIO"),
        ({"file_ending": ".nrrd"}, "NibabelIO", "SimpleITKIO"),
        ({"file_ending": ".tif", "overwrite_image_reader_writer": "Tiff3DIO"}, "NaturalImage2DIO", "Tiff3DIO"),
        ({"file_ending": ".nii.gz", "overwrite_image_reader_writer": "None"}, "NibabelIO", "NibabelIO"),
        ({"file_ending": ".png"}, "", "NaturalImage2DIO"),
        ({"file_ending": ".tiff"}, "", "Tiff3DIO"),
    ],
)
def test_the_plans_reader_counts_and_before_it_what_dataset_json_names(content, plans_reader, expected):
    assert chosen(content, None, plans_reader) == expected


def test_nnunet_takes_the_first_reader_that_reads_the_file(tmp_path, capfd):
    affine = np.eye(4)
    affine[0, 2] = 0.1
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), affine), tmp_path / "sheared.nii.gz")
    sitk.WriteImage(sitk.Image(4, 5, 6, sitk.sitkUInt8), str(tmp_path / "straight.nii.gz"))
    assert chosen({"file_ending": ".nii.gz"}, tmp_path / "straight.nii.gz") == "SimpleITKIO"
    assert chosen({"file_ending": ".nii.gz"}, tmp_path / "sheared.nii.gz") == "NibabelIO"
    for ending, message in ((".nii.gz", "cut off or damaged"), (".mha", "No reader of nnU-Net reads .*none.mha")):
        (tmp_path / f"none{ending}").write_bytes(b"nothing")
        with pytest.raises(CILError, match=message):
            chosen({"file_ending": ending}, tmp_path / f"none{ending}")
    assert capfd.readouterr() == ("", "")


def test_formats_and_readers_that_nnunet_does_not_have_are_refused():
    with pytest.raises(CILError, match=r"reads files that end in '.dcm'"):
        dataset_reader({"file_ending": ".dcm"}, None)
    with pytest.raises(CILError, match="nnU-Net has no reader 'MyIO'"):
        named_reader("MyIO")
