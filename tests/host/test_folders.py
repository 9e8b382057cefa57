"""nnU-Net's folders and data sets, and what is said where they are not there."""

import pytest

from nnunet_cil.errors import CILError
from nnunet_cil.host.dataset_json import preprocessed_or_raw
from nnunet_cil.host.folders import (
    check_room,
    dataset_id,
    dataset_name,
    known_dataset,
    new_dataset_folder,
    num_processes,
    raw_dataset_folder,
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two raw data sets, the first preprocessed."""
    for kind, names in (("raw", ("Dataset007_Liver", "Dataset017_Toy")), ("preprocessed", ("Dataset007_Liver",))):
        monkeypatch.setenv(f"nnUNet_{kind}", str(tmp_path / kind))
        for name in names:
            (tmp_path / kind / name).mkdir(parents=True)
    return tmp_path


def test_a_data_set_is_found_by_name_or_id(root):
    assert dataset_name(7) == dataset_name("007") == dataset_name("Dataset007_Liver") == "Dataset007_Liver"
    assert raw_dataset_folder("17") == root / "raw" / "Dataset017_Toy"
    assert known_dataset(17) == "Dataset017_Toy"
    assert dataset_id("Dataset007_Liver") == 7


def test_a_data_set_that_is_not_there_is_named_with_what_to_run(root):
    with pytest.raises(
        CILError, match=r"no preprocessed data set '17' in .*'nnUNetv2_plan_and_preprocess -d 17' first"
    ):
        dataset_name(17)
    with pytest.raises(CILError, match=r"There is no data set '18' in .*DatasetXXX_NAME.* 'nnunet_cil convert'"):
        known_dataset(18)


def test_an_id_that_two_data_sets_have_is_refused(root):
    (root / "raw" / "Dataset017_Twin").mkdir()
    with pytest.raises(CILError, match=r"The ID 17 is ambiguous in .*: Dataset017_Toy, Dataset017_Twin"):
        raw_dataset_folder(17)
    with pytest.raises(CILError, match=r"The ID 7 belongs to Dataset007_Liver in .*Choose another"):
        new_dataset_folder(7, "Other")
    assert new_dataset_folder(7, "Liver").is_dir()


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_number_of_processes_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("nnUNet_def_n_proc", value)
    with pytest.raises(CILError, match=f"nnUNet_def_n_proc is '{value}', but must be a whole number from 1 on"):
        num_processes()


def test_a_disk_that_is_too_full_is_said(tmp_path):
    check_room(tmp_path / "not" / "there", 1)
    with pytest.raises(CILError, match=r"but about 1000000\.0 GB are needed\. .*set nnUNet_raw to another disk"):
        check_room(tmp_path / "not" / "there", 10**15)


def test_the_preprocessed_dataset_json_comes_before_the_raw_one(root):
    text = '{{"channel_names": {{"0": "CT"}}, "labels": {{"background": 0}}, "file_ending": "{}"}}'
    (root / "raw" / "Dataset007_Liver" / "dataset.json").write_text(text.format(".mha"))
    assert preprocessed_or_raw("Dataset007_Liver")["file_ending"] == ".mha"
    (root / "preprocessed" / "Dataset007_Liver" / "dataset.json").write_text(text.format(".nii.gz"))
    assert preprocessed_or_raw("Dataset007_Liver")["file_ending"] == ".nii.gz"
