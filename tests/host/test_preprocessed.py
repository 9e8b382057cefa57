"""Checks what a folder of preprocessed data is said to hold."""

import numpy as np
import pytest

from nnunet_cil.errors import CILError
from nnunet_cil.host.preprocessed import PreprocessedCases, distinct_values


def preprocessed(folder):
    return PreprocessedCases(folder=folder, configuration="2d", plans_name="nnUNetPlans")


def fill(folder, *names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_cases_are_known_by_their_files_of_either_version_of_nnunet(tmp_path):
    blosc = fill(tmp_path / "b2nd", *(f"{c}{e}" for c in ("b", "a.1", "c_2") for e in (".b2nd", "_seg.b2nd", ".pkl")))
    assert preprocessed(blosc).names() == ["a.1", "b", "c_2"]
    numpy = fill(tmp_path / "npz", "b.npz", "b.pkl", "a.npz", "a.pkl", "a.npy", "a_seg.npy")
    assert preprocessed(numpy).names() == ["a", "b"]
    assert preprocessed(tmp_path / "nowhere").names() == []


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (("a.b2nd", "a_seg.b2nd", "a.pkl", "b_seg.b2nd", "b.pkl"), "b.b2nd"),
        (("a.b2nd", "a_seg.b2nd", "a.pkl", "b.b2nd", "b.pkl"), "b_seg.b2nd"),
        (("a.b2nd", "a_seg.b2nd", "a.pkl", "b.b2nd", "b_seg.b2nd"), "b.pkl"),
        (("b.pkl",), "b.b2nd"),
        (("a.npz", "a.pkl", "b.npz"), "b.pkl"),
        (("a.npz", "a.pkl", "b.npy", "b_seg.npy", "b.pkl"), "b.npz"),
    ],
)
def test_a_case_that_lacks_a_file_is_named(tmp_path, names, missing):
    data = preprocessed(fill(tmp_path / "Dataset007_A" / "data", *names))
    assert data.complete_names() == [case for case in ("a",) if f"{case}.pkl" in names]
    redo = "Preprocess it again: 'nnUNetv2_preprocess -d 7 -c 2d -plans_name nnUNetPlans'"
    with pytest.raises(CILError, match=rf"Case 'b' in .* is incomplete \({missing} is missing\)\. {redo}"):
        data.names()


@pytest.mark.parametrize("stray", [".DS_Store", "notes.txt", "a.json", "._a.pkl", "a"])
def test_a_file_that_nnunet_fails_on_is_named(tmp_path, stray):
    folder = fill(tmp_path / "Dataset007_A" / "data", "a.b2nd", "a_seg.b2nd", "a.pkl", stray)
    with pytest.raises(CILError, match=f"holds '{stray}', which nnU-Net did not write and may fail on. Remove it"):
        preprocessed(folder).names()


def test_cases_of_two_versions_are_told_apart(tmp_path):
    folder = fill(tmp_path / "Dataset007_A" / "data", "a.b2nd", "a_seg.b2nd", "a.pkl", "b.npz", "b.pkl")
    with pytest.raises(CILError, match=r"two versions of nnU-Net.*Remove the folder"):
        preprocessed(folder).names()


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint8])
def test_the_values_of_a_label_map_are_found_wherever_they_are(dtype):
    labels = np.zeros((1, 3, 4, 5), dtype)
    assert distinct_values(labels) == {0}
    labels[0, 0, 0, 0], labels[0, 2, 3, 4], labels[0, 1, 1, 1:3] = 100, 7, 3
    assert distinct_values(labels) == {0, 3, 7, 100}
    assert distinct_values(labels[:0]) == set()
    assert distinct_values(np.arange(-2, 6, dtype=np.int16)) == set(range(-2, 6))
