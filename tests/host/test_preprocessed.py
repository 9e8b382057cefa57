"""What a folder of preprocessed data holds."""

import pytest

from nnunet_cil.errors import CILError
from nnunet_cil.host.preprocessed import preprocessed_cases


def fill(folder, *names):
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_cases_are_known_by_their_files_of_either_version_of_nnunet(tmp_path):
    blosc = fill(tmp_path / "b2nd", *(f"{c}{e}" for c in ("b", "a.1", "c_2") for e in (".b2nd", "_seg.b2nd", ".pkl")))
    assert preprocessed_cases(blosc) == ["a.1", "b", "c_2"]
    numpy = fill(tmp_path / "npz", "b.npz", "b.pkl", "a.npz", "a.pkl", "a.npy", "a_seg.npy")
    assert preprocessed_cases(numpy) == ["a", "b"]
    assert preprocessed_cases(tmp_path / "nowhere") == []


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
    with pytest.raises(CILError, match=rf"Case 'b' in .* is incomplete \({missing} is missing\)\. Preprocess"):
        preprocessed_cases(fill(tmp_path / "data", *names))


@pytest.mark.parametrize("stray", [".DS_Store", "notes.txt", "a.json", "._a.pkl", "a"])
def test_a_file_that_nnunet_fails_on_is_named(tmp_path, stray):
    folder = fill(tmp_path / "data", "a.b2nd", "a_seg.b2nd", "a.pkl", stray)
    with pytest.raises(CILError, match=f"holds '{stray}', which nnU-Net did not write and may fail on. Remove it"):
        preprocessed_cases(folder)


def test_cases_of_two_versions_are_told_apart(tmp_path):
    folder = fill(tmp_path / "data", "a.b2nd", "a_seg.b2nd", "a.pkl", "b.npz", "b.pkl")
    with pytest.raises(CILError, match=r"two versions of nnU-Net.*Remove the folder"):
        preprocessed_cases(folder)
