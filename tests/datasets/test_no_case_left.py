"""A download of which no case is left: all that is wrong with it is told."""

import json
import shutil

import pytest
from conversions import cases, convert_mine
from downloads import ct, label_map, save, write_btcv, write_generic

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.workflows.data.convert import convert


def rename(folder, change):
    for file in list(folder.iterdir()):
        file.rename(file.with_name(change(file.name)))


def test_patients_that_are_numbered_like_channels_are_patients(raw, mine):
    for i, (image, labels) in enumerate(
        zip(*(sorted((mine / n).iterdir()) for n in ("images", "labels")), strict=True)
    ):
        image.rename(image.with_name(f"pat_{i:04d}.nii.gz"))
        labels.rename(labels.with_name(f"pat_{i:04d}.nii.gz"))
    assert cases(convert_mine(mine).converted.folder) == ["pat_0000", "pat_0001", "pat_0002"]


def test_numbered_patients_may_also_have_channel_numbers(raw, tmp_path):
    for i in range(2):
        save(ct(i), tmp_path / "mine" / "images" / f"pat_000{i}_0000.nii.gz")
        save(label_map(1), tmp_path / "mine" / "labels" / f"pat_000{i}.nii.gz")
    (tmp_path / "mine" / "names.json").write_text('{"name": "Mine", "labels": {"liver": 1}}')
    assert cases(convert_mine(tmp_path / "mine").converted.folder) == ["pat_0000", "pat_0001"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda m: rename(m / "labels", lambda n: f"mask_{n}"), ["case0_0000.nii.gz has no label file", "mask_case1"]),
        (lambda m: rename(m / "images", lambda n: n.replace("_0000", "_0001")), ["case1.nii.gz has no image"]),
        (lambda m: [f.unlink() for f in (m / "labels").iterdir()], ["case1: case1_0000.nii.gz has no label file"]),
        (
            lambda m: [save(label_map(1)[:-1], f) for f in (m / "labels").iterdir()],
            ["without problems", "differ in size"],
        ),
        (lambda m: [f.write_bytes(b"x") for f in (m / "images").iterdir()], ["without problems", "case2: "]),
        (lambda m: [shutil.rmtree(m / n) or (m / n).mkdir() for n in ("images", "labels")], ["None of its files is"]),
    ],
)
def test_all_problems_are_told_and_nothing_is_written(raw, mine, damage, told):
    damage(mine)
    for leave_out in (False, True):
        with pytest.raises(CILError) as error:
            convert_mine(mine, leave_out_faulty=leave_out)
        text = str(error.value)
        assert "and nothing was written" in text
        assert "--leave-out-faulty" not in text  # none would be left
        assert all(part in text for part in told), text
    assert not list(raw.iterdir())


def test_a_report_has_them_too(raw, source, tmp_path):
    write_btcv(source)
    rename(source / "RawData/Training/label", lambda name: name.replace("label", "seg"))
    with pytest.raises(CILError, match=r"no training case of BTCV with labels.*\n.*\n.*\n  missing file"):
        convert("btcv", source, 40, report=tmp_path / "report.txt")
    assert "img0035.nii.gz has no label file" in (tmp_path / "report.txt").read_text()


def test_the_mri_data_set_is_not_taken_for_the_ct(raw, source):
    for i in range(2):
        save(ct(i), source / f"s000{i}" / "mri.nii.gz")
        save(label_map(1), source / f"s000{i}" / "segmentations" / "spleen.nii.gz")
    (source / "meta.csv").write_text("image_id;split\ns0000;train\ns0001;test\n")
    with pytest.raises(CILError, match=r"s0000: is listed .* no ct.nii.gz: its mri.nii.gz is of the MRI data set"):
        convert("totalsegmentator", source, 40, options={"classes": ["spleen"]})


def test_what_is_meant_to_be_so_is_accepted_as_the_message_says(raw, tmp_path, capsys):
    mine = write_generic(tmp_path / "mine")
    for i, file in enumerate(sorted((mine / "images").iterdir())):
        save(ct(i) + 2000, file)  # no air
    command = ["convert", "generic", str(mine), "5", "--names", str(mine / "names.json")]
    assert main(command) == 1
    advice = capsys.readouterr().err.split("say so with '")[1].split("'")[0]
    assert advice == "--accept modality"
    assert main([*command, *advice.split()]) == 0
    assert json.loads((raw / "Dataset005_Mine" / "dataset.json").read_text())["numTraining"] == 3
