"""ACDC in its official layout."""

import numpy as np
import pytest
from conversions import cases, classes, converted
from downloads import (
    mr,
    read,
    write_acdc,
)

from nnunet_cil.datasets import acdc
from nnunet_cil.datasets.catalogue import find
from nnunet_cil.errors import CILError


def test_acdc(raw, source):
    folder, content, text = converted("acdc", write_acdc(source))
    assert cases(folder) == [f"patient{p}" for p in ("001_frame01", "001_frame03", "002_frame01", "002_frame02")]
    assert cases(folder, "Ts") == ["patient101_frame01", "patient101_frame02"]
    assert classes(content) == acdc.CLASSES
    assert np.array_equal(read(folder / "imagesTr/patient002_frame02_0000.nii.gz"), mr(11))
    assert np.array_equal(read(folder / "imagesTs/patient101_frame01_0000.nii.gz"), mr(20))
    assert "training: 4 of the 200 labelled cases" in text


def test_frames_of_a_patient_belong_together(source):
    found = find("acdc", write_acdc(source), {}).cases
    assert [case.patient for case in found] == [case.name[:10] for case in found]


def test_acdc_without_test_labels_and_with_a_missing_frame(raw, source):
    write_acdc(source)
    for file in source.glob("database/testing/*/*_gt.nii"):
        file.unlink()
    (source / "database/training/patient001/patient001_frame03_gt.nii.gz").unlink()
    with pytest.raises(CILError, match=r"patient001_frame03: Info\.cfg names it as ES") as error:
        converted("acdc", source)
    assert "patient101" not in str(error.value)
