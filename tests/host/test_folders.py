"""nnU-Net's folders and data sets, and what is said where they are not there."""

import pytest

from nnunet_cil.errors import CILError
from nnunet_cil.host.dataset_json import preprocessed_or_raw
from nnunet_cil.host.folders import (
    check_room,
    dataset_id,
    dataset_name,
    id_argument,
    known_dataset,
    new_dataset_folder,
    num_processes,
    raw_dataset_folder,
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two raw data sets, the first preprocessed."""
    two = ("Dataset007_Liver", "Dataset017_Toy")
    for kind, names in (("raw", two), ("preprocessed", two[:1]), ("results", ())):
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


def test_a_name_of_four_digits_has_its_own_id(root):
    (root / "raw" / "Dataset2024_Big").mkdir()
    assert known_dataset(2024) == known_dataset("Dataset2024_Big") == "Dataset2024_Big"
    assert (dataset_id("Dataset2024_Big"), id_argument("Dataset2024_Big")) == (2024, "2024")
    with pytest.raises(
        CILError, match=r"nnU-Net takes Dataset2024_Big \(nnUNet_raw\) for the data set 202, which .*Dataset202_NAME"
    ):
        known_dataset(202)
    (root / "preprocessed" / "Dataset202_Small").mkdir()
    assert known_dataset(2024) == "Dataset2024_Big"
    with pytest.raises(CILError, match=r"several data sets by the ID 202: Dataset2024_Big .*, Dataset202_Small"):
        id_argument("Dataset202_Small")


def test_a_folder_without_a_name_is_nnunets_but_not_usable(root):
    (root / "raw" / "Dataset044").mkdir()
    with pytest.raises(CILError, match=r"nnU-Net takes Dataset044 .* be called Dataset044_NAME\. Rename it"):
        known_dataset("44")


@pytest.mark.parametrize(
    "text", ["Liver", "Dataset7_Liver", "7.0", "-7", "dataset007_Liver", "/Dataset007_Liver", "9" * 5000, ""]
)
def test_what_is_neither_id_nor_name_is_refused(root, text):
    for look_up in (dataset_name, known_dataset, raw_dataset_folder):
        with pytest.raises(CILError, match=r"names no data set of nnU-Net\. Give its ID"):
            look_up(text)


def test_a_name_may_end_as_a_shell_completes_it(root):
    assert known_dataset("Dataset017_Toy/") == "Dataset017_Toy"


@pytest.mark.parametrize("place", ["raw", "preprocessed", "results"])
def test_an_id_that_two_data_sets_have_is_refused_wherever_the_other_is(root, place):
    (root / place / "Dataset007_Twin").mkdir(parents=True)
    found = rf"by the ID 7: .*Dataset007_Twin \(nnUNet_{place}\).*Rename all folders of the one that you do not mean"
    for look_up in (dataset_name, known_dataset, raw_dataset_folder):
        with pytest.raises(CILError, match=found):
            look_up("007")
    with pytest.raises(CILError, match=found):  # nnU-Net's commands that take IDs only would fail
        id_argument("Dataset007_Liver")
    assert known_dataset("Dataset007_Liver") == "Dataset007_Liver"
    with pytest.raises(CILError, match=r"The ID 7 belongs to Dataset007_(Liver|Twin) in nnUNet_.*Choose another"):
        new_dataset_folder(7, "Other")


def test_a_conversion_takes_an_id_that_is_free_in_all_folders(root):
    assert new_dataset_folder(7, "Liver").is_dir()
    (root / "results" / "Dataset031_Elsewhere").mkdir(parents=True)
    with pytest.raises(CILError, match=r"The ID 31 belongs to Dataset031_Elsewhere in nnUNet_results\. Choose another"):
        new_dataset_folder(31, "Other")


def test_where_a_data_set_with_that_id_is_is_said(root):
    (root / "preprocessed" / "Dataset031_Old").mkdir()
    with pytest.raises(CILError, match=r"no data set '31' in .*raw .*, only Dataset031_Old in nnUNet_preprocessed\."):
        raw_dataset_folder(31)
    with pytest.raises(CILError, match=r"'Dataset017_toy' in .*, only Dataset017_Toy in nnUNet_raw\."):
        known_dataset("Dataset017_toy")


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "", "10000", "\N{SUPERSCRIPT TWO}"])
def test_a_number_of_processes_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("nnUNet_def_n_proc", value)
    with pytest.raises(CILError, match=f"nnUNet_def_n_proc is '{value}', but must be a whole number from 1 to 9999"):
        num_processes()


def test_a_disk_that_is_too_full_is_said(tmp_path):
    check_room(tmp_path / "not" / "there", 1)
    with pytest.raises(CILError, match=r"but about 1000000\.0 GB are needed\. .*set nnUNet_raw to another disk"):
        check_room(tmp_path / "not" / "there", 10**15)


def test_the_preprocessed_dataset_json_comes_before_the_raw_one(root):
    text = '{{"channel_names": {{"0": "CT"}}, "labels": {{"background": 0, "liver": 1}}, "file_ending": "{}"}}'
    (root / "raw" / "Dataset007_Liver" / "dataset.json").write_text(text.format(".mha"))
    assert preprocessed_or_raw("Dataset007_Liver")["file_ending"] == ".mha"
    (root / "preprocessed" / "Dataset007_Liver" / "dataset.json").write_text(text.format(".nii.gz"))
    assert preprocessed_or_raw("Dataset007_Liver")["file_ending"] == ".nii.gz"
