"""Checks what plan and run see of preprocessed data, in every configuration that is there."""

import json
import os
import shutil

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk
from toy import DATASET, LABELS, ORGANS, write_schedule
from toy_sequence import PGCD, schedule_file

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.workflows.plan import preprocessed_data
from nnunet_cil.workflows.plan.plan import plan

BOTH = ("plan", "run")


def call(how, schedule, configuration="3d_fullres"):
    """Calls plan, or run without a training."""
    words = {"plan": ["17", str(schedule)], "run": ["17", configuration, "0", str(schedule), "-tr", PGCD, "--dry-run"]}
    return main([how, *words[how]])


@pytest.fixture
def schedule(toy, tmp_path):
    return write_schedule(tmp_path, [ORGANS[:2], ORGANS[2:]])


def change_labels(toy, configuration, case, change):
    file = toy / f"nnUNetPlans_{configuration}" / f"{case}_seg.b2nd"
    labels = blosc2.open(str(file))[:]
    file.unlink()
    blosc2.asarray(np.ascontiguousarray(change(labels)), urlpath=str(file))


@pytest.mark.parametrize("how", BOTH)
def test_a_case_that_was_removed_is_named_with_the_command(toy, schedule, capsys, how):
    for file in (toy / "nnUNetPlans_2d").glob("case_2*"):
        file.unlink()
    assert call(how, schedule, "2d") == 1
    error = capsys.readouterr().err
    assert "nnUNetPlans_2d lacks 1 of 6 cases ('case_2'), and nnU-Net would train without them" in error
    assert "Run 'nnUNetv2_preprocess -d 17 -c 2d -plans_name nnUNetPlans', or remove that folder" in error
    assert not list(toy.glob("*step0*"))


def test_a_case_that_was_removed_and_is_in_no_fold_is_noted(toy, schedule, capsys):
    (toy / "splits_final.json").write_text(json.dumps([{"train": ["case_0", "case_1"], "val": ["case_3"]}]))
    for case in ("case_2", "case_5"):
        for file in (toy / "nnUNetPlans_2d").glob(f"{case}*"):
            file.unlink()
    for how in BOTH:
        assert call(how, schedule, "2d") == 0
        assert (
            "nnUNetPlans_2d lacks 2 of 6 cases ('case_2', 'case_5'), which splits_final.json" in capsys.readouterr().out
        )


@pytest.mark.parametrize("how", BOTH)
@pytest.mark.parametrize("part", ["case_5.b2nd", "case_5_seg.b2nd", "case_5.pkl"])
def test_a_case_that_is_half_written_is_named(toy, schedule, capsys, how, part):
    file = toy / "nnUNetPlans_3d_fullres" / part
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    assert call(how, schedule) == 1
    assert "Case 'case_5' in" in (error := capsys.readouterr().err)
    assert "3d_fullres is incomplete or damaged" in error
    assert "Preprocess it again: 'nnUNetv2_preprocess -d 17 -c 3d_" in error


def test_without_raw_data_the_configurations_are_compared_with_each_other(toy, schedule, monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_raw")
    assert call("plan", schedule) == 0
    for file in (toy / "nnUNetPlans_2d").glob("case_0*"):
        file.unlink()
    assert call("plan", schedule) == 1
    assert "nnUNetPlans_2d lacks 1 of 6 cases ('case_0')" in capsys.readouterr().err


def test_every_configuration_is_scanned_by_plan_and_the_given_one_by_run(toy, schedule, capsys):
    change_labels(toy, "3d_fullres", "case_1", lambda labels: np.where(labels == 2, 9, labels).astype(np.int8))
    assert call("run", schedule, "2d") == 0
    for how in BOTH:
        assert call(how, schedule) == 1
        error = capsys.readouterr().err
        assert f"Case 'case_1' holds the label value 9, which dataset.json of {DATASET} does not list" in error
        assert "Correct the label file and preprocess nnUNetPlans_3d_fullres again" in error


def test_a_class_that_one_configuration_lacks_is_named_with_it(toy, schedule):
    for i in range(6):
        change_labels(toy, "3d_fullres", f"case_{i}", lambda labels: labels * (labels != 1))
    with pytest.raises(
        CILError, match=r"step 0 of toy learns 'liver' .* none of its 6 cases has that label in 3d_lowres"
    ):
        plan("17", schedule)


def test_data_that_configurations_share_are_read_once(toy, schedule, monkeypatch):
    """The toy's 3d_lowres has the data of 3d_fullres."""
    read = []
    original = preprocessed_data.PreprocessedCases.labels_in

    def counting(self, case):
        read.append((self.folder.name, case))
        return original(self, case)

    monkeypatch.setattr(preprocessed_data.PreprocessedCases, "labels_in", counting)
    plan("17", schedule)
    assert sorted(read) == [(f"nnUNetPlans_{c}", f"case_{i}") for c in ("2d", "3d_fullres") for i in range(6)]


@pytest.mark.parametrize("how", BOTH)
def test_a_label_file_that_has_changed_since_is_named(toy, tmp_path, schedule, capsys, how):
    file = tmp_path / "nnunet" / "raw" / DATASET / "labelsTr" / "case_4.nii.gz"
    os.utime(toy / "gt_segmentations" / file.name)  # copied to this machine: no sign of a change
    assert call(how, schedule) == 0
    picture = sitk.ReadImage(str(file))
    picture[3, 3, 3] = 0 if picture[3, 3, 3] else 1
    sitk.WriteImage(picture, str(file))
    assert call(how, schedule) == 1
    assert "The label file of case 'case_4' has changed since" in capsys.readouterr().err


@pytest.mark.parametrize("how", BOTH)
@pytest.mark.parametrize("case", ["case_1", "case_5"])
def test_a_missing_copy_of_a_label_file_is_named_before_training(toy, tmp_path, schedule, capsys, how, case):
    copy = toy / "gt_segmentations" / f"{case}.nii.gz"
    copy.unlink()
    assert call(how, schedule) == 1
    assert f"{copy} is missing" in capsys.readouterr().err
    shutil.copy2(tmp_path / "nnunet" / "raw" / DATASET / "labelsTr" / copy.name, copy)
    assert call(how, schedule) == 0


@pytest.mark.parametrize("how", BOTH)
def test_label_numbers_that_have_changed_since_are_named(toy, tmp_path, schedule, capsys, how):
    file = tmp_path / "nnunet" / "raw" / DATASET / "dataset.json"
    changed = LABELS | {"liver": 3, "kidney": 1}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labels": changed}))
    assert call(how, schedule) == 1
    assert f"{DATASET} was preprocessed when 'liver' was label 1" in capsys.readouterr().err


def test_a_label_that_labelled_classes_denies_is_named(new, tmp_path):
    file = new / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labelled_classes": {"new_3": ["kidney"]}}))
    with pytest.raises(
        CILError, match=r"Case 'new_3' holds 'liver' \(label 3\), but 'labelled_classes' in dataset.json says"
    ):
        plan(17, schedule_file(tmp_path))


def test_run_refuses_a_trainer_that_needs_old_labels_before_the_first_training(toy, tmp_path, capsys):
    steps = [ORGANS[:2], ORGANS[2:]]
    disjoint = write_schedule(tmp_path, steps, cases="disjoint")
    case = plan("17", disjoint)[1].plan.cases[0]
    for configuration in ("2d", "3d_fullres"):
        change_labels(toy, configuration, case, lambda labels: labels * (labels > 2))
    file = toy / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labelled_classes": {case: ["kidney", "cyst"]}}))
    arguments = ["run", "17", "3d_fullres", "0", str(disjoint), "--dry-run", "-tr", PGCD]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main([*arguments, "nnUNetTrainerJoint"]) == 1
    assert "nnUNetTrainerJoint takes label 0 for background, but the labels of step 1 of toy" in capsys.readouterr().err
