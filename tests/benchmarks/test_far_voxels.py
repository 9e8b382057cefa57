"""benchmarks/far_voxels.py: what lies far from every organ."""

import json

import far_voxels
import numpy as np
import pytest
import SimpleITK as sitk


def test_near_is_the_box_in_the_plane_and_its_margin():
    labels = np.zeros((3, 20, 30), int)
    labels[0, 5, 10], labels[2, 8, 12] = 1, 2
    expected = np.zeros((20, 30), bool)
    expected[3:11, 8:15] = True
    assert np.array_equal(far_voxels.near(labels, 2), expected)
    assert not far_voxels.near(np.zeros((3, 20, 30), int), 2).any()


def test_share_counts_false_voxels_far_from_every_organ_by_class_name(monkeypatch, tmp_path):
    raw, model = tmp_path / "raw" / "Dataset7_Any", tmp_path / "results" / "Dataset7_Any" / "T__P__2d"
    for folder in (raw / "labelsTr", model / "fold_1" / "validation"):
        folder.mkdir(parents=True)
    (raw / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "b": 1, "a": 2}}))
    (model / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1}}))
    true, found = np.zeros((2, 40, 40), np.uint8), np.zeros((2, 40, 40), np.uint8)
    true[:, 4:6, 4:6] = 2  # 8 voxels of a; the box with its margin ends at 17
    found[:, 4:10, 4:6] = 1
    found[0, 30:32, 30] = 1
    for array, folder in ((true, raw / "labelsTr"), (found, model / "fold_1" / "validation")):
        sitk.WriteImage(sitk.GetImageFromArray(array), folder / "case.nii.gz")
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    assert far_voxels.far_shares(model, 1) == {"a": 2 / 8}
    with pytest.raises(SystemExit, match="fold_0/validation has no predictions"):
        far_voxels.far_shares(model, 0)
