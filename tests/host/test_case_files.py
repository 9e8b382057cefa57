"""The files of each case, as nnU-Net finds them."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from skimage import io

from nnunet_cil.errors import CILError
from nnunet_cil.host.case_files import first_images, image_cases, labelled_cases, training_cases, training_files
from nnunet_cil.host.dataset_json import checked_dataset_json
from nnunet_cil.host.preprocess import missing_commands
from nnunet_cil.host.raw_dataset import read_raw

CONTENT = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
NAMES = ["case_0000", "case_0000_1", "p.2024-01", "0001", "scan_12", "x_0000_0001", "Ärzte", "a b"]


def put(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "Dataset017_Toy"
    for name in NAMES:
        put(folder / f"imagesTr/{name}_0000.nii.gz", folder / f"labelsTr/{name}.nii.gz")
    return folder


def listing(folder, *, absolute=False, names=("case_0", "p_0001")):
    """Returns a dataset.json that lists files beside the data set's folder, and makes the files."""
    elsewhere = folder.parent / "hospital"
    found = {}
    for name in names:
        image, label = elsewhere / f"scans/{name}/t1.nii.gz", elsewhere / f"truth/{name}-seg.nii.gz"
        put(image, label)
        if not absolute:
            image, label = (Path(os.path.relpath(f, folder)) for f in (image, label))
        found[name] = {"images": [str(image)], "label": str(label)}
    folder.mkdir(exist_ok=True)
    return {**CONTENT, "dataset": found}


def test_names_of_cases_are_those_of_nnunet(folder):
    found = training_files(folder, CONTENT)
    assert sorted(found) == sorted(NAMES)
    assert training_cases(folder, CONTENT) == set(NAMES)
    assert image_cases(folder / "imagesTr", ".nii.gz") == sorted(NAMES)
    for name in NAMES:
        assert found[name]["images"] == [str(folder / f"imagesTr/{name}_0000.nii.gz")]
        assert found[name]["label"] == str(folder / f"labelsTr/{name}.nii.gz")
    assert first_images(folder, CONTENT, ["0001"]) == {"0001": folder / "imagesTr/0001_0000.nii.gz"}
    assert read_raw(folder, CONTENT).cases == found


@pytest.mark.parametrize(
    "name",
    ["case_1.nii.gz", "case_1_000.nii.gz", "case_1_00000.nii.gz", "0000.nii.gz", "_0000.nii.gz", "c-0000.nii.gz"],
)
def test_an_image_without_the_number_of_a_channel_is_named(folder, name):
    put(folder / "imagesTr" / name)
    with pytest.raises(CILError, match=rf"{re.escape(name)} does not end in a channel's number: .*CASE_0000.nii.gz"):
        read_raw(folder, CONTENT)
    with pytest.raises(CILError, match=re.escape(name)):
        image_cases(folder / "imagesTr", ".nii.gz")


@pytest.mark.parametrize(
    ("channels", "files", "message"),
    [
        (1, ["a_0001"], r"'a' of Dataset017_Toy has .*a_0001.nii.gz, but dataset.json names 1 channels"),
        (1, ["a_0000", "a_0001"], r"has .*a_0001.nii.gz, but dataset.json names 1 channels"),
        (2, ["a_0000"], r"lacks .*a_0001.nii.gz. Add it"),
        (2, ["a_0000", "a_0002"], r"has .*a_0002.nii.gz, but dataset.json names 2"),
        (3, ["a_0000", "a_0002"], r"lacks .*a_0001.nii.gz"),
    ],
)
def test_channels_that_do_not_fit_are_named(tmp_path, channels, files, message):
    folder = tmp_path / "Dataset017_Toy"
    put(folder / "labelsTr/a.nii.gz", *(folder / f"imagesTr/{f}.nii.gz" for f in files))
    content = {**CONTENT, "channel_names": {str(i): f"T{i}" for i in range(channels)}}
    with pytest.raises(CILError, match=message):
        read_raw(folder, content)


def test_a_case_without_its_label_file_is_named(folder):
    (folder / "labelsTr/0001.nii.gz").unlink()
    with pytest.raises(
        CILError, match=r"Case '0001' of Dataset017_Toy lacks .*0001.nii.gz. Add it, or remove the case"
    ):
        read_raw(folder, CONTENT)
    with pytest.raises(CILError, match="imagesTr is missing: the folder of the images"):
        read_raw(folder.parent, CONTENT)


@pytest.mark.parametrize("absolute", [True, False])
def test_listed_files_are_found_anywhere(tmp_path, absolute):
    folder = tmp_path / "Dataset018_Listed"
    content = listing(folder, absolute=absolute)
    before = json.dumps(content)
    found = read_raw(folder, content).cases
    hospital = tmp_path / "hospital"
    assert found["p_0001"] == {
        "images": [str(hospital / "scans/p_0001/t1.nii.gz")],
        "label": str(hospital / "truth/p_0001-seg.nii.gz"),
    }
    assert training_cases(folder, content) == {"case_0", "p_0001"}
    assert first_images(folder, content)["case_0"] == hospital / "scans/case_0/t1.nii.gz"
    put(folder / "imagesTs/t_0000.nii.gz", folder / "labelsTs/t.nii.gz")
    cases = {c.name: (c.part, c.image.name, c.labels.name) for c in labelled_cases(folder, content)}
    assert cases == {
        "case_0": ("Tr", "t1.nii.gz", "case_0-seg.nii.gz"),
        "p_0001": ("Tr", "t1.nii.gz", "p_0001-seg.nii.gz"),
        "t": ("Ts", "t_0000.nii.gz", "t.nii.gz"),
    }
    assert json.dumps(content) == before, "nnU-Net's function changes what it is given"


def test_variables_in_listed_files_are_nnunets(tmp_path, monkeypatch):
    folder = tmp_path / "Dataset018_Listed"
    content = listing(folder, names=["a"])
    monkeypatch.setenv("HOSPITAL", str(tmp_path / "hospital"))
    content["dataset"]["a"] = {"images": ["$HOSPITAL/scans/a/t1.nii.gz"], "label": "${HOSPITAL}/truth/a-seg.nii.gz"}
    assert read_raw(folder, content).cases["a"]["label"] == str(tmp_path / "hospital/truth/a-seg.nii.gz")


def test_a_listed_file_that_is_not_there_is_named(tmp_path):
    folder = tmp_path / "Dataset018_Listed"
    content = listing(folder)
    (tmp_path / "hospital/truth/case_0-seg.nii.gz").unlink()
    for look in (read_raw, labelled_cases):
        with pytest.raises(CILError, match=r"Case 'case_0' of Dataset018_Listed lacks .*case_0-seg.nii.gz. Add it"):
            look(folder, content)


@pytest.mark.parametrize("listed", [True, False])
def test_a_half_preprocessed_data_set_is_not_complete(tmp_path, monkeypatch, listed):
    for part in ("raw", "preprocessed", "results"):
        (tmp_path / part).mkdir()
        monkeypatch.setenv(f"nnUNet_{part}", str(tmp_path / part))
    raw, preprocessed = tmp_path / "raw/Dataset018_Listed", tmp_path / "preprocessed/Dataset018_Listed"
    if listed:
        content = listing(raw)
    else:
        content = CONTENT
        put(*(raw / f"imagesTr/{name}_0000.nii.gz" for name in ("case_0", "p_0001")))
    (raw / "dataset.json").write_text(json.dumps(content))

    def files(case):
        return [preprocessed / "own_3d" / f"{case}{ending}" for ending in (".pkl", ".b2nd", "_seg.b2nd")]

    put(*files("case_0"))
    (preprocessed / "dataset.json").write_text(json.dumps(content))
    (preprocessed / "dataset_fingerprint.json").write_text("{}")
    plans = {
        "plans_name": "nnUNetPlans",
        "dataset_name": raw.name,
        "configurations": {"3d_fullres": {"data_identifier": "own_3d", "architecture": {}}},
    }
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    (command,) = missing_commands(raw.name, "3d_fullres", "nnUNetPlans")
    assert command[0] == "nnUNetv2_preprocess"
    put(*files("p_0001"))
    assert missing_commands(raw.name, "3d_fullres", "nnUNetPlans") == []
    for file in files("p_0001"):
        file.unlink()
    for folder in (raw, raw.parent / "hospital"):  # the raw files are gone: what is there must do
        if folder.is_dir():
            folder.rename(tmp_path / f"{folder.name}-gone")
    assert missing_commands(raw.name, "3d_fullres", "nnUNetPlans") == []
    (preprocessed / "own_3d/case_0.pkl").unlink()
    assert missing_commands(raw.name, "3d_fullres", "nnUNetPlans") != []


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("ending", [".png", ".bmp"])
def test_one_file_in_colour_holds_all_channels(tmp_path, ending, listed):
    folder = tmp_path / "Dataset018_Colour"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    files = {}
    for case in ("a", "b"):
        image, label = folder / f"imagesTr/{case}_0000{ending}", folder / f"labelsTr/{case}{ending}"
        io.imsave(image, np.random.default_rng(0).integers(0, 255, (9, 8, 3), dtype=np.uint8), check_contrast=False)
        io.imsave(label, np.zeros((9, 8), np.uint8), check_contrast=False)
        files[case] = {"images": [str(image)], "label": str(label)}
    channels = {"0": "R", "1": "G", "2": "B"}
    content = {
        "channel_names": channels,
        "labels": {"background": 0, "disc": 1},
        "file_ending": ending,
        "numTraining": 2,
    }
    content = checked_dataset_json(content | ({"dataset": files} if listed else {}), "dataset.json")
    assert {case: own["images"] for case, own in read_raw(folder, content).cases.items()} == {
        case: own["images"] for case, own in files.items()
    }
    if not listed:
        (folder / f"imagesTr/b_0001{ending}").write_bytes((folder / f"imagesTr/b_0000{ending}").read_bytes())
        with pytest.raises(CILError, match=rf"Case 'b' of Dataset018_Colour lacks .*b_0002{ending}"):
            read_raw(folder, content)


def test_one_file_of_a_volume_does_not_hold_all_channels(tmp_path):
    folder = tmp_path / "Dataset018_Two"
    put(folder / "imagesTr/a_0000.nii.gz", folder / "labelsTr/a.nii.gz")
    content = checked_dataset_json({**CONTENT, "channel_names": {"0": "T1", "1": "T2"}}, "dataset.json")
    with pytest.raises(CILError, match=r"Case 'a' of Dataset018_Two lacks .*a_0001.nii.gz"):
        read_raw(folder, content)


def test_many_files_are_found_in_one_go_as_nnunet_finds_them(folder):
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    for name in NAMES:
        put(folder / f"imagesTr/{name}_0002.nii.gz", folder / f"imagesTr/{name}_0001.nii.gz")
    put(folder / "imagesTr/notes.txt", folder / "imagesTr/case_1_0000.nii", folder / "imagesTr/.hidden_0000.nii.gz")
    assert training_files(folder, CONTENT) == get_filenames_of_train_images_and_targets(str(folder), dict(CONTENT))
    assert all(len(files["images"]) == 3 for case, files in training_files(folder, CONTENT).items() if case in NAMES)
