"""The frame of all converters: every problem is told before anything is written, and what is written is right."""

import gzip
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from downloads import ct, label_map, mr, read, save, write_generic

from nnunet_cil.cli import main
from nnunet_cil.datasets import convert as convert_module
from nnunet_cil.datasets.checks import ACCEPTABLE, in_parallel
from nnunet_cil.datasets.convert import splits
from nnunet_cil.datasets.download import Case
from nnunet_cil.datasets.volumes import distance_in_voxels, read_file
from nnunet_cil.errors import CILError
from nnunet_cil.workflows.data.convert import convert


@pytest.fixture
def source(tmp_path) -> Path:
    return write_generic(tmp_path / "mine")


def convert_mine(source, **keywords):
    return convert("generic", source, 5, options={"names": source / "names.json"}, **keywords)


def die(_case):
    os._exit(1)


def test_a_killed_process_is_one_sentence():
    with pytest.raises(CILError, match="Checking: a process was killed, most likely for lack of memory"):
        list(in_parallel(die, [1, 2], 2, "Checking"))


def test_files_that_nnunet_can_read_are_linked(source, raw):
    done = convert_mine(source)
    target = raw / "Dataset005_Mine"
    assert (done.converted.num_train, done.converted.num_written) == (3, 3)
    for name in ("imagesTr/case1_0000.nii.gz", "labelsTr/case1.nii.gz"):
        assert (target / name).is_symlink()
    assert (target / "labelsTr/case1.nii.gz").resolve() == (source / "labels/case1.nii.gz").resolve()
    content = json.loads((target / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "liver": 1, "spleen": 2}
    assert content["channel_names"] == {"0": "CT"}
    assert content["numTraining"] == 3


def test_copies_on_request_and_leaves_what_is_there(source, raw):
    convert_mine(source, copy=True)
    file = raw / "Dataset005_Mine/imagesTr/case0_0000.nii.gz"
    assert not file.is_symlink()
    before = file.stat().st_mtime_ns
    (raw / "Dataset005_Mine/labelsTr/case2.nii.gz").unlink()
    assert convert_mine(source, copy=True).converted.num_written == 1
    assert file.stat().st_mtime_ns == before


def test_an_archive_is_read_and_leaves_nothing_behind(source, raw, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "download"), "zip", tmp_path, "mine")
    names = tmp_path / "names.json"
    shutil.copy(source / "names.json", names)
    shutil.rmtree(source)
    convert("generic", Path(archive), 5, options={"names": names})
    assert os.listdir(raw) == ["Dataset005_Mine"]
    assert np.array_equal(read(raw / "Dataset005_Mine/imagesTr/case1_0000.nii.gz"), ct(1))
    assert np.array_equal(read(raw / "Dataset005_Mine/labelsTr/case1.nii.gz"), label_map(1, 2))


def test_a_damaged_archive_is_refused(raw, tmp_path):
    archive = tmp_path / "broken.zip"
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("images/a.nii.gz", bytes(999))
    content = bytearray(archive.read_bytes())
    content[500] = 1
    archive.write_bytes(content)
    with pytest.raises(CILError, match=r"broken\.zip cannot be unpacked"):
        convert("generic", archive, 5, options={"names": tmp_path / "n.json"})
    assert os.listdir(raw) == []


@pytest.mark.parametrize("has_filter", [True, False])
@pytest.mark.parametrize("kind", ["outside", "link"])
def test_nothing_in_a_tar_is_unpacked_elsewhere(raw, tmp_path, monkeypatch, has_filter, kind):
    if not has_filter:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    (tmp_path / "a.txt").write_text("x")
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        if kind == "outside":
            archive.add(tmp_path / "a.txt", "../../escaped.txt")
        else:
            link = tarfile.TarInfo("b")
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
            archive.addfile(link)
    with pytest.raises(CILError, match=r"d\.tar cannot be unpacked"):
        convert("generic", tmp_path / "d.tar", 5, options={"names": tmp_path / "n.json"})
    assert not list(tmp_path.rglob("escaped.txt"))


def test_all_problems_are_told_at_once_and_nothing_is_written(source, raw, tmp_path):
    write_generic(source, cases=8)
    (source / "labels/case0.nii.gz").unlink()
    save(label_map(1, 7), source / "labels/case1.nii.gz")
    save(label_map(1).astype(np.float32) * 0.5, source / "labels/case2.nii.gz")
    save(label_map(1, 2), source / "labels/case3.nii.gz", origin=(-8.0, 5.0, 40.0))
    save(label_map(1, 2)[1:], source / "labels/case4.nii.gz")
    save(mr(), source / "images/case5_0000.nii.gz")
    shutil.copy(source / "images/case7_0000.nii.gz", source / "images/case6_0000.nii.gz")
    report = tmp_path / "report.txt"
    with pytest.raises(CILError, match="7 cases of Mine have problems, and nothing was written") as error:
        convert_mine(source, report=report)
    for text in (
        "case0: case0_0000.nii.gz has no label file",
        "case1: holds 7, but the labels are {'liver': 1, 'spleen': 2}",
        "case2: the value 0.5 is no whole number",
        "case3: image and labels lie up to 2.5 voxels apart (at most 0.1 are tolerated)",
        "case4: image [12, 10, 6] and labels [12, 10, 5] differ in size",
        "are no CT in Hounsfield units: air is missing",
        "case7: has the same image as case6",
    ):
        assert text in str(error.value)
        assert text in report.read_text()
    assert os.listdir(raw) == []


def test_faulty_cases_are_left_out_on_request(source, raw):
    save(label_map(1, 7), source / "labels/case1.nii.gz")
    done = convert_mine(source, leave_out_faulty=True)
    assert "case1: has one of the problems listed" in done.findings.text()
    assert sorted(os.listdir(raw / "Dataset005_Mine/labelsTr")) == ["case0.nii.gz", "case2.nii.gz"]
    assert json.loads((raw / "Dataset005_Mine/dataset.json").read_text())["numTraining"] == 2


def test_exact_float_labels_and_small_shifts_are_repaired(source, raw):
    save(label_map(1, 2).astype(np.float32), source / "labels/case1.nii.gz")
    save(label_map(1, 2), source / "labels/case2.nii.gz", origin=(-10.001, 5.0, 40.0))
    done = convert_mine(source)
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


def test_what_is_odd_but_right_is_only_told(source, raw):
    write_generic(source, cases=7)
    save(label_map(), source / "labels/case1.nii.gz")
    bright = ct(3)
    bright[bright > 0] = 30000
    save(bright, source / "images/case3_0000.nii.gz")
    for kind, array, suffix in (("images", ct(4), "_0000"), ("labels", label_map(1, 2), "")):
        save(array, source / kind / f"case4{suffix}.nii.gz", spacing=(0.5, 0.5, 9.0))
    (source / "names.json").write_text(json.dumps({"name": "Mine", "labels": {"liver": 1, "spleen": 2, "pancreas": 3}}))
    text = convert_mine(source).findings.text()
    assert "Must be mended" not in text
    assert "case1: holds background only" in text
    assert "case3: 99th percentile 3e+04" in text
    assert "case4: spacing 0.5 x 0.5 x 9 mm" in text
    assert "no training case has 'pancreas' (label 3)" in text


def test_axes_slightly_off_right_angles_are_straightened(source, raw):
    affine = np.diag([0.8, 0.8, 3.0, 1.0])
    affine[0, 1] = 0.004
    affine[:3, 3] = (10, 20, 30)  # to the right, the front and the head
    for kind, array, suffix in (("images", ct(1), "_0000"), ("labels", label_map(1, 2), "")):
        nibabel.save(nibabel.Nifti1Image(array.T, affine), source / kind / f"case1{suffix}.nii.gz")
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(source / "images/case1_0000.nii.gz"))
    done = convert_mine(source)
    assert "case1: axes 0.14 degrees from right angles; straightened" in done.findings.text()
    assert np.array_equal(read(raw / "Dataset005_Mine/imagesTr/case1_0000.nii.gz"), ct(1))
    straight = sitk.ReadImage(str(raw / "Dataset005_Mine/imagesTr/case1_0000.nii.gz"))
    assert straight.GetSpacing() == pytest.approx((0.8, 0.8, 3.0), abs=1e-3)
    assert straight.GetOrigin() == pytest.approx((-10, -20, 30))
    assert straight.GetDirection() == pytest.approx((-1, 0, 0, 0, -1, 0, 0, 0, 1), abs=0.01)
    affine[0, 1] = 0.4
    nibabel.save(nibabel.Nifti1Image(ct(1).T, affine), source / "images/case1_0000.nii.gz")
    with pytest.raises(CILError, match="degrees from right angles"):
        read_file(source / "images/case1_0000.nii.gz")


def test_a_full_disk_is_noticed_before(source, raw, monkeypatch):
    monkeypatch.setattr(convert_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(CILError, match=r"0.0 GB free, but about 0.0 GB are needed"):
        convert_mine(source, copy=True)
    assert os.listdir(raw) == []
    convert_mine(source)  # links need no room


def test_distance_is_measured_at_the_corners():
    a, b = (sitk.GetImageFromArray(ct()) for _ in range(2))
    assert distance_in_voxels(a, b) == 0
    b.SetSpacing((1.0, 1.0, 1.1))
    assert distance_in_voxels(a, b) == pytest.approx(0.5)


def case(name, part="train", patient=""):
    return Case(name, (), None, part, patient)


def test_official_validation_cases_become_the_one_fold():
    assert splits([case("a"), case("b", "val"), case("c", "test")]) == [{"train": ["a"], "val": ["b"]}]
    assert splits([case("a"), case("b")]) == []


def test_folds_keep_the_cases_of_a_patient_together():
    cases = [case(f"{p}_{f}", patient=p) for p in "abcdefg" for f in (1, 2)]
    folds = splits(cases)
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(c.name for c in cases)
    for fold in folds:
        assert not {n[0] for n in fold["train"]} & {n[0] for n in fold["val"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ('{"name": "A"}', "has no 'labels'"),
        ('{"name": "A", "labels": {"liver": 0}}', "whole number above 0"),
        ('{"name": "A", "labels": {"liver": 1, "spleen": 1}}', "of its own"),
        ('{"name": "A", "labels": {"liver": 1}, "channels": "CT"}', "must be a list of names"),
        ('{"name": "A/B", "labels": {"liver": 1}}', "'name' is 'A/B'"),
    ],
)
def test_bad_names_are_refused(source, raw, content, message):
    (source / "names.json").write_text(content)
    with pytest.raises(CILError, match=message):
        convert_mine(source)


def test_options_are_checked_by_data_set(source, raw, capsys):
    assert main(["convert", "generic", str(source), "5"]) == 1
    assert "generic needs --names." in capsys.readouterr().err
    assert main(["convert", "generic", str(source), "5", "--classes", "liver"]) == 1
    assert "generic takes no --classes" in capsys.readouterr().err


def test_the_command_says_what_it_did(source, raw, capsys):
    assert main(["convert", "generic", str(source), "5", "--names", str(source / "names.json")]) == 0
    out = capsys.readouterr().out
    assert "Mine: 3 cases checked, 0 remarks." in out
    assert f"3 training and 0 test cases are in {raw / 'Dataset005_Mine'} (3 new)." in out
    assert main(["convert", "generic", str(source), "1000", "--names", str(source / "names.json")]) == 1
    assert "1 to 999" in capsys.readouterr().err


def test_several_processes_find_the_same(source, raw, monkeypatch):
    save(label_map(1, 7), source / "labels/case1.nii.gz")
    monkeypatch.setenv("nnUNet_def_n_proc", "2")
    done = convert_mine(source, leave_out_faulty=True)
    assert "case1: holds 7" in done.findings.text()
    assert done.converted.num_written == 2


def test_what_is_there_is_not_overwritten(source, raw):
    convert_mine(source)
    target = raw / "Dataset005_Mine"
    own = json.loads((target / "dataset.json").read_text())
    (target / "dataset.json").write_text(json.dumps({**own, "overwrite_image_reader_writer": "NibabelIO"}))
    (target / "labelsTr/case1.nii.gz").unlink()
    (target / "imagesTr/case1_0000.nii.gz").unlink()
    save(ct(77), target / "imagesTr/case1_0000.nii.gz")
    assert convert_mine(source).converted.num_written == 1
    assert np.array_equal(read(target / "imagesTr/case1_0000.nii.gz"), ct(77))
    assert json.loads((target / "dataset.json").read_text())["overwrite_image_reader_writer"] == "NibabelIO"
    (target / "dataset.json").write_text("{")
    with pytest.raises(CILError, match=r"dataset.json is not valid JSON"):
        convert_mine(source)


def test_a_kind_of_problem_is_accepted_on_request(source, raw, capsys):
    shutil.copy(source / "images/case0_0000.nii.gz", source / "images/case1_0000.nii.gz")
    names = str(source / "names.json")
    assert main(["convert", "generic", str(source), "5", "--names", names]) == 1
    assert "case1: has the same image as case0" in capsys.readouterr().err
    assert main(["convert", "generic", str(source), "5", "--names", names, "--accept", "duplicate"]) == 0
    assert "case1: has the same image as case0" in capsys.readouterr().out


def test_the_kinds_that_the_command_offers_are_those_that_can_be_accepted(source, raw, capsys):
    with pytest.raises(SystemExit):
        main(["convert", "-h"])
    assert ", ".join(ACCEPTABLE) in " ".join(capsys.readouterr().out.split())


def test_a_download_without_one_good_case_is_refused(source, raw):
    for i in range(3):
        save(label_map(9), source / f"labels/case{i}.nii.gz")
    with pytest.raises(CILError, match="No training case of Mine is without problems"):
        convert_mine(source, leave_out_faulty=True)
    assert os.listdir(raw) == []


def test_channels_are_held_to_the_images_grid(tmp_path, raw):
    source = write_generic(tmp_path / "mine")
    for i in range(3):
        save(mr(i), source / f"images/case{i}_0001.nii.gz", origin=(-10.0, 5.0, 40.0 + 3 * (i == 2)))
        save(mr(9 + i), source / f"images/case{i}_0000.nii.gz")
    names = {"name": "Mine", "labels": {"liver": 1, "spleen": 2}, "channels": ["T1", "T2"]}
    (source / "names.json").write_text(json.dumps(names))
    with pytest.raises(CILError, match=r"case2: image and channel 1 lie up to 3\.75 voxels apart"):
        convert_mine(source)
    done = convert_mine(source, leave_out_faulty=True)
    assert np.array_equal(read(done.converted.folder / "imagesTr/case1_0001.nii.gz"), mr(1))


def test_channels_that_lie_slightly_apart_are_put_on_one_grid(tmp_path, raw):
    """Such as nnU-Net refuses: it compares the files' spacings."""
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


def test_a_volume_has_three_dimensions_and_one_number_a_voxel(source, raw, tmp_path):
    save(np.stack([ct(), ct()]), source / "images/case0_0000.nii.gz")
    colours = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(source / "images/case1_0000.nii.gz"))
    (source / "images/case2_0000.nii.gz").write_bytes(gzip.compress(b"no image" * 100))
    with pytest.raises(CILError) as error:
        convert_mine(source)
    for text in (
        "has 4 dimensions, but must have 3",
        "has colours or vectors",
        "cannot be read as an image. Download it again",
    ):
        assert text in str(error.value)
    with pytest.raises(CILError, match=r"--report r\.txt cannot be written there"):
        convert_mine(source, report=tmp_path / "nowhere" / "r.txt")
    with pytest.raises(CILError, match="neither a folder nor a zip or tar archive"):
        convert("generic", source / "images/case0_0000.nii.gz", 5, options={"names": source / "names.json"})


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("num_bytes", [-10, 400, 10])
def test_a_file_that_is_cut_off_is_refused(tmp_path, ending, num_bytes):
    """SimpleITK reads it as if it were whole."""
    file = save(ct(0), tmp_path / f"image{ending}")
    assert read_file(file).image.GetDimension() == 3
    file.write_bytes(file.read_bytes()[:num_bytes])
    with pytest.raises(CILError, match=f"image{ending} is cut off or damaged. Download it again"):
        read_file(file)


def test_a_file_in_several_parts_is_whole(tmp_path):
    """As bgzip writes them: the unpacked size at the end is that of the last part."""
    file = save(ct(0), tmp_path / "image.nii.gz")
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))
    assert np.array_equal(sitk.GetArrayFromImage(read_file(file).image), ct(0))


def test_a_label_map_that_is_cut_off_stops_the_conversion(source, raw):
    file = source / "labels/case1.nii.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CILError, match=r"case1.nii.gz is cut off or damaged"):
        convert_mine(source)


def test_a_class_that_only_test_cases_have_is_told(source, raw):
    for i in range(3):
        save(label_map(1), source / f"labels/case{i}.nii.gz")
    for old, new in (("images", "imagesTr"), ("labels", "labelsTr")):
        (source / old).rename(source / new)
    save(ct(9), source / "imagesTs/case9_0000.nii.gz")
    save(label_map(1, 2), source / "labelsTs/case9.nii.gz")
    done = convert_mine(source)
    assert (done.converted.num_train, done.converted.num_test) == (3, 1)
    assert "no training case has 'spleen' (label 2)" in done.findings.text()
