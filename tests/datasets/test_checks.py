"""Every problem is told before anything is written."""

import json
import os
import shutil

import numpy as np
import pytest
from conversions import convert_mine
from downloads import (
    ct,
    label_map,
    mr,
    save,
    write_generic,
)

from nnunet_cil.cli import main
from nnunet_cil.datasets.catalogue import ACCEPTABLE
from nnunet_cil.errors import CILError


def test_several_processes_find_the_same(mine, raw, monkeypatch):
    save(label_map(1, 7), mine / "labels/case1.nii.gz")
    monkeypatch.setenv("nnUNet_def_n_proc", "2")
    done = convert_mine(mine, leave_out_faulty=True)
    assert "case1: holds 7" in done.findings.text()
    assert done.converted.num_written == 2


def test_all_problems_are_told_at_once_and_nothing_is_written(mine, raw, tmp_path):
    write_generic(mine, cases=8)
    (mine / "labels/case0.nii.gz").unlink()
    save(label_map(1, 7), mine / "labels/case1.nii.gz")
    save(label_map(1).astype(np.float32) * 0.5, mine / "labels/case2.nii.gz")
    save(label_map(1, 2), mine / "labels/case3.nii.gz", origin=(-8.0, 5.0, 40.0))
    save(label_map(1, 2)[1:], mine / "labels/case4.nii.gz")
    save(mr(), mine / "images/case5_0000.nii.gz")
    shutil.copy(mine / "images/case7_0000.nii.gz", mine / "images/case6_0000.nii.gz")
    report = tmp_path / "report.txt"
    with pytest.raises(CILError, match="7 cases of Mine have problems, and nothing was written") as error:
        convert_mine(mine, report=report)
    for text in (
        "case0: case0_0000.nii.gz has no label file",
        "case1: holds 7, but the labels are {'liver': 1, 'spleen': 2}",
        "case2: the value 0.5 is no whole number",
        "case3: image and labels lie up to 2.5 voxels apart (at most 0.5 are tolerated)",
        "case4: image [12, 10, 6] and labels [12, 10, 5] differ in size",
        "are no CT in Hounsfield units: air is missing",
        "case7: has the same image as case6",
    ):
        assert text in str(error.value)
        assert text in report.read_text()
    assert os.listdir(raw) == []


def test_faulty_cases_are_left_out_on_request(mine, raw):
    save(label_map(1, 7), mine / "labels/case1.nii.gz")
    done = convert_mine(mine, leave_out_faulty=True)
    assert "case1: has one of the problems listed" in done.findings.text()
    assert sorted(os.listdir(raw / "Dataset005_Mine/labelsTr")) == ["case0.nii.gz", "case2.nii.gz"]
    assert json.loads((raw / "Dataset005_Mine/dataset.json").read_text())["numTraining"] == 2


def test_a_download_without_one_good_case_is_refused(mine, raw):
    for i in range(3):
        save(label_map(9), mine / f"labels/case{i}.nii.gz")
    with pytest.raises(CILError, match="No training case of Mine is without problems"):
        convert_mine(mine, leave_out_faulty=True)
    assert os.listdir(raw) == []


def test_what_is_odd_but_right_is_only_told(mine, raw):
    write_generic(mine, cases=7)
    save(label_map(), mine / "labels/case1.nii.gz")
    bright = ct(3)
    bright[bright > 0] = 30000
    save(bright, mine / "images/case3_0000.nii.gz")
    for kind, array, suffix in (("images", ct(4), "_0000"), ("labels", label_map(1, 2), "")):
        save(array, mine / kind / f"case4{suffix}.nii.gz", spacing=(0.5, 0.5, 9.0))
    (mine / "names.json").write_text(json.dumps({"name": "Mine", "labels": {"liver": 1, "spleen": 2, "pancreas": 3}}))
    text = convert_mine(mine).findings.text()
    assert "Must be mended" not in text
    assert "case1: holds background only" in text
    assert "case3: 99th percentile 3e+04" in text
    assert "case4: spacing 0.5 x 0.5 x 9 mm" in text
    assert "no training case has 'pancreas' (label 3)" in text


def test_a_class_that_only_test_cases_have_is_told(mine, raw):
    for i in range(3):
        save(label_map(1), mine / f"labels/case{i}.nii.gz")
    for old, new in (("images", "imagesTr"), ("labels", "labelsTr")):
        (mine / old).rename(mine / new)
    save(ct(9), mine / "imagesTs/case9_0000.nii.gz")
    save(label_map(1, 2), mine / "labelsTs/case9.nii.gz")
    done = convert_mine(mine)
    assert (done.converted.num_train, done.converted.num_test) == (3, 1)
    assert "no training case has 'spleen' (label 2)" in done.findings.text()


def test_a_kind_of_problem_is_accepted_on_request(mine, raw, capsys):
    shutil.copy(mine / "images/case0_0000.nii.gz", mine / "images/case1_0000.nii.gz")
    names = str(mine / "names.json")
    assert main(["convert", "generic", str(mine), "5", "--names", names]) == 1
    assert "case1: has the same image as case0" in capsys.readouterr().err
    assert main(["convert", "generic", str(mine), "5", "--names", names, "--accept", "duplicate"]) == 0
    assert "case1: has the same image as case0" in capsys.readouterr().out


def test_the_kinds_that_the_command_offers_are_those_that_can_be_accepted(mine, raw, capsys):
    with pytest.raises(SystemExit):
        main(["convert", "-h"])
    assert ", ".join(ACCEPTABLE) in " ".join(capsys.readouterr().out.split())
