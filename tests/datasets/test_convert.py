"""Checks that what is written is right, and that what is there already stays."""

import json
import os

import numpy as np
import pytest
import SimpleITK as sitk
from conversions import convert_mine
from downloads import (
    ct,
    label_map,
    mr,
    read,
    save,
    write_generic,
)

from nnunet_cil.cli import main
from nnunet_cil.datasets import convert as convert_module
from nnunet_cil.datasets.catalogue import find
from nnunet_cil.datasets.convert import splits
from nnunet_cil.datasets.download import Case
from nnunet_cil.errors import CILError


def test_files_that_nnunet_can_read_are_linked(mine, raw):
    done = convert_mine(mine)
    target = raw / "Dataset005_Mine"
    assert (done.converted.num_train, done.converted.num_written) == (3, 3)
    for name in ("imagesTr/case1_0000.nii.gz", "labelsTr/case1.nii.gz"):
        assert (target / name).is_symlink()
    assert (target / "labelsTr/case1.nii.gz").resolve() == (mine / "labels/case1.nii.gz").resolve()
    content = json.loads((target / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "liver": 1, "spleen": 2}
    assert content["channel_names"] == {"0": "CT"}
    assert content["numTraining"] == 3


def test_copies_on_request_and_leaves_what_is_there(mine, raw):
    convert_mine(mine, copy=True)
    file = raw / "Dataset005_Mine/imagesTr/case0_0000.nii.gz"
    assert not file.is_symlink()
    before = file.stat().st_mtime_ns
    (raw / "Dataset005_Mine/labelsTr/case2.nii.gz").unlink()
    assert convert_mine(mine, copy=True).converted.num_written == 1
    assert file.stat().st_mtime_ns == before


def test_what_is_there_is_not_overwritten(mine, raw):
    convert_mine(mine)
    target = raw / "Dataset005_Mine"
    own = json.loads((target / "dataset.json").read_text())
    (target / "dataset.json").write_text(json.dumps({**own, "overwrite_image_reader_writer": "NibabelIO"}))
    (target / "labelsTr/case1.nii.gz").unlink()
    (target / "imagesTr/case1_0000.nii.gz").unlink()
    save(ct(77), target / "imagesTr/case1_0000.nii.gz")
    assert convert_mine(mine).converted.num_written == 1
    assert np.array_equal(read(target / "imagesTr/case1_0000.nii.gz"), ct(77))
    assert json.loads((target / "dataset.json").read_text())["overwrite_image_reader_writer"] == "NibabelIO"
    (target / "dataset.json").write_text("{")
    with pytest.raises(CILError, match=r"dataset.json is not valid JSON"):
        convert_mine(mine)


def test_exact_float_labels_and_small_shifts_are_repaired(mine, raw):
    save(label_map(1, 2).astype(np.float32), mine / "labels/case1.nii.gz")
    save(label_map(1, 2), mine / "labels/case2.nii.gz", origin=(-10.001, 5.0, 40.0))
    done = convert_mine(mine)
    assert "case1: labels are stored as float32" in done.findings.text()
    labels = sitk.ReadImage(str(raw / "Dataset005_Mine/labelsTr/case1.nii.gz"))
    assert labels.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(labels), label_map(1, 2))
    image = sitk.ReadImage(str(raw / "Dataset005_Mine/imagesTr/case2_0000.nii.gz"))
    shifted = sitk.ReadImage(str(raw / "Dataset005_Mine/labelsTr/case2.nii.gz"))
    assert shifted.GetOrigin() == image.GetOrigin()


def test_numbers_with_gaps_become_consecutive_in_the_order_of_the_names(tmp_path, raw):
    source = write_generic(tmp_path / "mine", numbers=(40, 3))
    convert_mine(source)
    assert np.array_equal(read(raw / "Dataset005_Mine/labelsTr/case0.nii.gz"), label_map(1, 2))


def test_channels_are_held_to_the_images_grid(tmp_path, raw):
    source = write_generic(tmp_path / "mine")
    for i in range(3):
        save(mr(i), source / f"images/case{i}_0001.nii.gz", origin=(-10.0, 5.0, 40.0 + 3 * (i == 2)))
        save(mr(9 + i), source / f"images/case{i}_0000.nii.gz")
    names = {"name": "Mine", "labels": {"liver": 1, "spleen": 2}, "channels": ["T1", "T2"]}
    (source / "names.json").write_text(json.dumps(names))
    with pytest.raises(CILError, match=r"case2: image and channel 1 lie up to 1 voxels apart"):
        convert_mine(source)
    done = convert_mine(source, leave_out_faulty=True)
    assert np.array_equal(read(done.converted.folder / "imagesTr/case1_0001.nii.gz"), mr(1))


def test_channels_that_lie_slightly_apart_are_put_on_one_grid(tmp_path, raw):
    """Otherwise nnU-Net would refuse them: it compares the files' spacings."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    source = write_generic(tmp_path / "mine")
    for i in range(3):
        save(mr(i), source / f"images/case{i}_0000.nii.gz", spacing=(0.8, 0.8, 3.0))
        save(mr(9 + i), source / f"images/case{i}_0001.nii.gz", spacing=(0.8003, 0.8, 3.0))
    names = {"name": "Mine", "labels": {"liver": 1, "spleen": 2}, "channels": ["T1", "T2"]}
    (source / "names.json").write_text(json.dumps(names))
    folder = convert_mine(source).converted.folder / "imagesTr"
    read_by_nnunet, _ = SimpleITKIO().read_images([str(folder / f"case1_000{c}.nii.gz") for c in range(2)])
    assert np.array_equal(read_by_nnunet, [mr(1), mr(10)])


def test_a_full_disk_is_noticed_before(mine, raw, monkeypatch):
    monkeypatch.setattr(convert_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(CILError, match=r"0.0 GB free, but about 0.0 GB are needed"):
        convert_mine(mine, copy=True)
    assert os.listdir(raw) == []
    convert_mine(mine)  # links need no room


def case(name, part="train", patient=""):
    return Case(name=name, images=(), labels=None, part=part, patient=patient)


def test_official_validation_cases_become_the_one_fold():
    assert splits([case("a"), case("b", "val"), case("c", "test")]) == [{"train": ["a"], "val": ["b"]}]
    assert splits([case("a"), case("b")]) == []


def test_folds_keep_the_cases_of_a_patient_together():
    cases = [case(f"{p}_{f}", patient=p) for p in "abcdefg" for f in (1, 2)]
    folds = splits(cases)
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(c.name for c in cases)
    for fold in folds:
        assert not {n[0] for n in fold["train"]} & {n[0] for n in fold["val"]}


def test_the_command_says_what_it_did(mine, raw, capsys):
    assert main(["convert", "generic", str(mine), "5", "--names", str(mine / "names.json")]) == 0
    out = capsys.readouterr().out
    assert "Mine: 3 cases checked, 0 notes." in out
    assert f"3 training and 0 test cases are in {raw / 'Dataset005_Mine'} (3 new)." in out
    with pytest.raises(SystemExit):
        main(["convert", "generic", str(mine), "1000", "--names", str(mine / "names.json")])
    assert "1 to 999" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["names.json", "images/case7_0000.nii.gz", "extra/notes.txt"])
def test_a_pipe_in_a_download_is_refused_and_not_waited_for(raw, mine, where):
    file = mine / where
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    with pytest.raises(CILError, match=rf"{file.name} is no file, but a pipe, a socket or a device\. Remove it"):
        convert_mine(mine)
    file.unlink()
    assert not any(raw.iterdir())


def test_a_link_to_a_device_is_no_file_of_json(raw, mine, tmp_path):
    (tmp_path / "names.json").symlink_to("/dev/zero")
    with pytest.raises(CILError, match=r"names\.json is no file, but a pipe"):
        find("generic", mine, {"names": tmp_path / "names.json"})


@pytest.mark.parametrize("part", ["images", "labels"])
@pytest.mark.parametrize("copy", [False, True])
def test_a_case_whose_source_was_corrected_is_written_again(tmp_path, raw, copy, part):
    """Written, since its numbers have gaps, or copied; what was not corrected stays, links hold what is there anyway."""
    source = write_generic(tmp_path / "mine", numbers=(40, 3))
    convert_mine(source, copy=copy)
    target = raw / "Dataset005_Mine"
    labels, image = target / "labelsTr/case1.nii.gz", target / "imagesTr/case1_0000.nii.gz"
    others = {f: f.lstat().st_mtime_ns for f in target.glob("*/case[02]*")}
    if part == "labels":
        save(np.where(label_map(1, 2) == 2, 3, 0).astype(np.uint8), source / "labels/case1.nii.gz")
    else:
        save(ct(77), source / "images/case1_0000.nii.gz")
    assert convert_mine(source, copy=copy).converted.num_written == 1
    assert np.array_equal(read(labels), np.where(label_map(1, 2) == 2, 2, 0) if part == "labels" else label_map(1, 2))
    assert np.array_equal(read(image), ct(77)) == (part == "images")
    assert {f: f.lstat().st_mtime_ns for f in others} == others
    assert convert_mine(source, copy=copy).converted.num_written == 0


def test_labels_are_put_on_the_grid_of_a_corrected_image(tmp_path, raw):
    """The image is a link, which shows the correction anyway."""
    source = write_generic(tmp_path / "mine", numbers=(40, 3))
    convert_mine(source)
    image = sitk.ReadImage(str(source / "images/case1_0000.nii.gz"))
    image.SetOrigin([value + 0.002 for value in image.GetOrigin()])
    sitk.WriteImage(image, str(source / "images/case1_0000.nii.gz"))
    assert convert_mine(source).converted.num_written == 1
    target = raw / "Dataset005_Mine"
    found, labels = (sitk.ReadImage(str(target / f)) for f in ("imagesTr/case1_0000.nii.gz", "labelsTr/case1.nii.gz"))
    assert labels.GetOrigin() == found.GetOrigin() == pytest.approx(image.GetOrigin())


def test_corrected_numbers_are_not_mixed_with_earlier_ones(tmp_path, raw):
    source = write_generic(tmp_path / "mine", numbers=(1, 2))
    convert_mine(source, copy=True)
    names = json.loads((source / "names.json").read_text())
    first, second = names["labels"]
    (source / "names.json").write_text(json.dumps({**names, "labels": {first: 2, second: 1}}))
    with pytest.raises(CILError, match=rf"were written from other numbers, .*{first}.*1.* Remove that folder"):
        convert_mine(source, copy=True)


@pytest.mark.parametrize("content", ["{", "[]", '{"numbers": {"liver": 1}, "files": ["a"]}', '{"files": {}}'])
def test_a_damaged_record_is_refused_with_its_name(tmp_path, raw, content):
    source = write_generic(tmp_path / "mine", numbers=(1, 2))
    convert_mine(source, copy=True)
    (raw / "Dataset005_Mine/converted_from.json").write_text(content)
    with pytest.raises(CILError, match=r"converted_from\.json .*(Remove that folder|Correct it there)"):
        convert_mine(source, copy=True)


@pytest.mark.parametrize("name", ["(case)", "[1] ü", "+9"])
def test_a_case_may_have_any_name_and_an_ending_in_capitals(mine, raw, name):
    for folder, channel in (("images", "_0000"), ("labels", "")):
        (mine / folder / f"case1{channel}.nii.gz").rename(mine / folder / f"{name}{channel}.nii.gz")
        (mine / folder / f"case2{channel}.nii.gz").rename(mine / folder / f"case2{channel}.NII.GZ")
    assert convert_mine(mine).converted.num_train == 3
    assert sorted(f.name for f in (raw / "Dataset005_Mine/labelsTr").iterdir()) == sorted(
        ["case0.nii.gz", "case2.nii.gz", f"{name}.nii.gz"]
    )


def test_two_files_of_one_case_are_not_chosen_from(mine, raw):
    sitk.WriteImage(sitk.ReadImage(str(mine / "labels/case1.nii.gz")), str(mine / "labels/case1.nrrd"))
    with pytest.raises(CILError, match="have problems, and nothing was written"):
        convert_mine(mine)
