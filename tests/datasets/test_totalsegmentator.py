"""TotalSegmentator in its official layout."""

import shutil

import numpy as np
import pytest
from conversions import cases, classes, converted, folds
from downloads import (
    label_map,
    read,
    write_totalsegmentator,
)

from nnunet_cil.datasets.totalsegmentator import GROUPS, STRUCTURES
from nnunet_cil.errors import CILError


def test_totalsegmentator(raw, source):
    write_totalsegmentator(source, GROUPS["cardiac"])
    folder, content, text = converted("totalsegmentator", source, classes=["cardiac"])
    assert folder.name == "Dataset040_TotalSegmentatorCardiac"
    assert (cases(folder), cases(folder, "Ts")) == (["s0011", "s0013", "s0201"], ["s0029"])
    assert folds(folder) == [{"train": ["s0011", "s0201"], "val": ["s0013"]}]
    assert classes(content) == GROUPS["cardiac"]
    assert np.array_equal(read(folder / "labelsTr/s0011.nii.gz"), label_map(*range(1, 19)))
    assert "s0011: 1 voxels belonged to two classes; the lower label won" in text
    assert "s0201: heart is misplaced (TotalSegmentator issue 245)" in text


def test_totalsegmentator_takes_chosen_structures_in_their_order(raw, source):
    write_totalsegmentator(source, ("liver", "spleen", "aorta"))
    folder, content, _ = converted("totalsegmentator", source, classes=["aorta", "liver"])
    assert classes(content) == ("aorta", "liver")
    assert np.array_equal(read(folder / "labelsTr/s0011.nii.gz"), label_map(2, 0, 1))
    with pytest.raises(CILError, match=r"no structure 'livr' \(did you mean 'liver'\?\)"):
        converted("totalsegmentator", source, classes=["livr"])
    shutil.rmtree(folder)
    (source / "s0011/segmentations/aorta.nii.gz").unlink()
    (source / "s0013/ct.nii.gz").unlink()
    with pytest.raises(CILError) as error:
        converted("totalsegmentator", source, classes=["aorta", "liver"])
    assert "s0013: is listed in meta.csv, but has no ct.nii.gz" in str(error.value)
    assert "s0011/segmentations/aorta.nii.gz is missing" in str(error.value)
    (source / "meta.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CILError, match=r"meta.csv is not TotalSegmentator's"):
        converted("totalsegmentator", source)


def test_totalsegmentators_groups_are_its_117_structures():
    assert [len(group) for group in GROUPS.values()] == [24, 26, 18, 23, 26]
    assert len(set(STRUCTURES)) == 117
