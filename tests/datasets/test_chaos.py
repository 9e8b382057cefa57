"""CHAOS in its official layout: DICOM slices in either order, PNG labels."""

import numpy as np
import pytest
import SimpleITK as sitk
from conversions import classes, converted
from downloads import (
    ct,
    mr,
    read,
    slanted,
    write_chaos,
)

from nnunet_cil.datasets import chaos
from nnunet_cil.errors import CILError


@pytest.mark.parametrize(("case", "seed"), [("chaos_ct_01", 0), ("chaos_ct_10", 1)])
def test_chaos_ct_in_either_order_of_slices(raw, source, case, seed):
    folder, content, _ = converted("chaos", write_chaos(source))
    assert content["labels"] == {"background": 0, "liver": 1}
    assert np.array_equal(read(folder / f"imagesTr/{case}_0000.nii.gz"), ct(seed))
    assert np.array_equal(read(folder / f"labelsTr/{case}.nii.gz"), slanted(1))
    image = sitk.ReadImage(str(folder / f"imagesTr/{case}_0000.nii.gz"))
    assert image.GetSpacing() == pytest.approx((0.8, 0.8, 3.0))
    assert image.GetOrigin() == pytest.approx((-10, 5, 40))


@pytest.mark.parametrize(("modality", "channels"), [("T1DUAL", ["T1 InPhase", "T1 OutPhase"]), ("T2SPIR", ["MRI"])])
def test_chaos_mr(raw, source, modality, channels):
    folder, content, _ = converted("chaos", write_chaos(source), modality=modality)
    assert classes(content) == chaos.MR_CLASSES
    assert list(content["channel_names"].values()) == channels
    case = f"chaos_{modality.lower()}_02"
    assert np.array_equal(read(folder / f"labelsTr/{case}.nii.gz"), slanted(4))
    for i in range(len(channels)):
        assert np.array_equal(read(folder / f"imagesTr/{case}_{i:04d}.nii.gz"), mr(5 + i))


def test_chaos_with_a_png_too_few_or_of_a_strange_grey(raw, source):
    write_chaos(source)
    ground = source / "CHAOS_Train_Sets/Train_Sets/MR/2/T2SPIR/Ground"
    file = sorted(ground.iterdir())[0]
    sitk.WriteImage(sitk.GetImageFromArray(np.full((10, 12), 90, np.uint8)), str(file))
    with pytest.raises(CILError, match="Ground holds the grey value 90, which stands for no organ"):
        converted("chaos", source, modality="T2SPIR")
    file.unlink()
    with pytest.raises(CILError, match="Ground holds 5 PNG files for 6 DICOM slices"):
        converted("chaos", source, modality="T2SPIR")


def test_a_damaged_slice_of_chaos_is_a_problem_of_its_case(raw, source):
    write_chaos(source)
    (source / "CHAOS_Train_Sets/Train_Sets/CT/1/Ground/liver_GT_003.png").write_bytes(b"half a file")
    with pytest.raises(CILError, match=r"chaos_ct_01: .*Ground cannot be read: ") as error:
        converted("chaos", source)
    assert "chaos_ct_10:" not in str(error.value)
