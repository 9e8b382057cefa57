"""Checks that the next call puts right what an interrupted preprocessing has left."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest
from test_owners import ended_process
from toy import DATASET

from nnunet_cil.files import write_json
from nnunet_cil.host import preprocess as module
from nnunet_cil.host.label_record import LabelRecord
from nnunet_cil.host.preprocess import complete_label_copies, preprocess, recover
from nnunet_cil.owners import current_owner


@pytest.fixture
def called(toy, tmp_path, monkeypatch):
    """Stands in for nnU-Net's commands; returns their names once they are called."""
    names = []
    monkeypatch.setattr(module, "call", lambda command, *_others: names.append(command))
    return names


def lock_file(toy, owner):
    file = toy.parent / f".{DATASET}.in_use.json"
    write_json(file, {"process": owner.token})
    return file


@pytest.mark.parametrize("state", ["gone", "running"])
def test_a_lock_goes_with_a_process_that_was_killed_once_all_was_preprocessed(toy, called, tmp_path, state):
    file = lock_file(toy, ended_process() if state == "gone" else current_owner())
    preprocess(DATASET, "3d_fullres", "nnUNetPlans", tmp_path)
    assert called == []
    assert file.exists() == (state == "running")


@pytest.fixture
def raw_labels(toy):
    """The folder of the toy's raw label files."""
    return toy.parents[1] / "raw" / DATASET / "labelsTr"


def label_files(raw_labels):
    return {file.name.removesuffix(".nii.gz"): file for file in raw_labels.iterdir()}


@pytest.mark.parametrize("copied", [None, 0, 50])
def test_label_files_that_a_killed_preprocessing_has_not_copied_are_copied(toy, raw_labels, called, tmp_path, copied):
    """A record of the labels says that they are the same, whatever the files' times."""
    copy, raw = toy / "gt_segmentations/case_2.nii.gz", raw_labels / "case_2.nii.gz"
    LabelRecord.begin(toy / "nnUNetPlans_3d_fullres", label_files(raw_labels))
    whole = copy.read_bytes()
    copy.unlink() if copied is None else copy.write_bytes(whole[:copied])
    os.utime(raw, (raw.stat().st_mtime + 3600,) * 2)
    preprocess(DATASET, "3d_fullres", "nnUNetPlans", tmp_path)
    assert copy.read_bytes() == whole
    assert copy.stat().st_mtime == raw.stat().st_mtime
    assert called == []


def test_without_a_record_a_copy_that_has_begun_says_which_file_it_is_of(toy):
    copies = [toy / f"gt_segmentations/case_{i}.nii.gz" for i in (1, 2)]
    whole = copies[1].read_bytes()
    copies[0].unlink()
    copies[1].write_bytes(whole[:60])
    complete_label_copies(DATASET)
    assert copies[1].read_bytes() == whole
    assert not copies[0].exists()


@pytest.mark.parametrize("change", ["label", "copy", "no case", "other case"])
def test_label_files_that_may_have_changed_are_not_copied(toy, raw_labels, change):
    copy, raw = toy / "gt_segmentations/case_2.nii.gz", raw_labels / "case_2.nii.gz"
    folder, labels = toy / "nnUNetPlans_3d_fullres", label_files(raw_labels)
    LabelRecord.begin(folder, labels)
    LabelRecord.finish(folder, labels)
    copy.write_bytes(b"something else") if change == "copy" else copy.unlink()
    if change == "label":
        time = raw.stat().st_mtime
        raw.write_bytes(labels["case_1"].read_bytes())
        os.utime(raw, (time - 3600,) * 2)
    if change == "no case":
        for file in toy.glob("*/case_2.pkl"):
            file.unlink()
    if change == "other case":  # which nnU-Net has preprocessed by itself since
        shutil.copyfile(folder / "case_1.pkl", folder / "case_2.pkl")
    complete_label_copies(DATASET)
    assert (copy.read_bytes() if copy.is_file() else None) == (b"something else" if change == "copy" else None)


@pytest.mark.parametrize("command", ["plan_and_preprocess", "preprocess"])
def test_a_preprocessing_records_which_labels_it_is_from(toy, raw_labels, tmp_path, monkeypatch, command):
    folder = toy / "nnUNetPlans_3d_fullres"
    kept = tmp_path / "kept"
    folder.rename(kept)
    plans = toy / "nnUNetPlans.json"
    text = plans.read_text()
    if command == "plan_and_preprocess":
        plans.unlink()

    def call(called, *_others):
        assert called == f"nnUNetv2_{command}"
        plans.write_text(text)
        shutil.copytree(kept, folder)
        shutil.copyfile(raw_labels / "case_0.nii.gz", raw_labels / "case_4.nii.gz")  # changed while it was preprocessed

    monkeypatch.setattr(module, "call", call)
    preprocess(DATASET, "3d_fullres", "nnUNetPlans", tmp_path)
    record = LabelRecord.read(folder)
    assert record.is_from(folder, "case_1", raw_labels / "case_1.nii.gz") is True
    assert record.is_from(folder, "case_1", raw_labels / "case_2.nii.gz") is False
    assert record.is_from(folder, "case_4", raw_labels / "case_4.nii.gz") is None


@pytest.mark.parametrize(
    ("configuration", "made"), [("3d_fullres", "nnUNetPlans"), ("3d_lowres", "nnUNetResEncUNetMPlans")]
)
def test_a_record_is_kept_where_nnunet_preprocesses_to(toy, raw_labels, tmp_path, monkeypatch, configuration, made):
    """Its plans for residual networks share some of the cases of nnUNetPlans."""
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
        residual_encoder_unet_planners as planners,
    )

    planner = SimpleNamespace(plans_identifier="nnUNetResEncUNetMPlans")
    identifier = planners.nnUNetPlannerResEncM.generate_data_identifier(planner, configuration)
    folder = toy / identifier
    assert folder.name == f"{made}_{configuration}"

    def call(*_arguments):
        if not folder.exists():
            shutil.copytree(toy / "nnUNetPlans_3d_fullres", folder)
        content = json.loads((toy / "nnUNetPlans.json").read_text())
        content["configurations"][configuration]["data_identifier"] = identifier
        write_json(toy / "nnUNetResEncUNetMPlans.json", content)

    monkeypatch.setattr(module, "call", call)
    preprocess(DATASET, configuration, "nnUNetResEncUNetMPlans", tmp_path)
    label = raw_labels / "case_1.nii.gz"
    assert LabelRecord.read(folder).is_from(folder, "case_1", label) is True


def test_a_record_that_is_damaged_says_nothing(toy, raw_labels):
    folder, label = toy / "nnUNetPlans_3d_fullres", raw_labels / "case_1.nii.gz"
    LabelRecord.begin(folder, {"case_1": label})
    (file,) = (toy / "cil_label_hashes").iterdir()
    for content in ("", "{", "[]", '{"labels": {"case_1": 3}}', '{"labels": null}'):
        file.write_text(content)
        assert LabelRecord.read(folder).is_from(folder, "case_1", label) is None


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("", False),
        ('{\n    "spacings": [\n        [\n', False),
        ('{\n    "a": {}\n}', True),
        ('{"a": 1}', True),
        ('{"spacings": [1,}', True),  # of a user, who finds the mistake
        ('{\n  "spacings": [\n  ],', True),
    ],
)
def test_a_fingerprint_that_was_not_written_to_its_end_is_made_again(toy, called, tmp_path, text, stays):
    """nnU-Net reads a fingerprint that is there, and fails on half of one in every later call."""
    (toy / "nnUNetPlans.json").unlink()
    (toy / "dataset_fingerprint.json").write_text(text)
    preprocess(DATASET, "3d_fullres", "nnUNetPlans", tmp_path)
    assert called == ["nnUNetv2_plan_and_preprocess"]
    assert (toy / "dataset_fingerprint.json").exists() == stays


@pytest.mark.parametrize("part", [0.0, 0.4, 0.99])
def test_plans_that_were_not_written_to_their_end_are_made_again(toy, called, tmp_path, part):
    plans = toy / "nnUNetPlans.json"
    text = json.dumps(json.loads(plans.read_text()), indent=4)  # as nnU-Net
    plans.write_text(text[: int(len(text) * part)])
    recover(DATASET, "nnUNetPlans")
    assert plans.exists()  # cases are preprocessed: the plans that nnU-Net would make may be others
    for folder in toy.glob("nnUNetPlans_*"):
        shutil.rmtree(folder)
    preprocess(DATASET, "3d_fullres", "nnUNetPlans", tmp_path)
    assert called == ["nnUNetv2_plan_and_preprocess"]
    assert not plans.exists()


def test_plans_that_are_whole_or_no_bodys_stay(toy):
    for folder in toy.glob("nnUNetPlans_*"):
        shutil.rmtree(folder)
    whole, own = toy / "nnUNetPlans.json", toy / "MyPlans.json"
    own.write_text("{")
    for name in ("nnUNetPlans", "MyPlans"):
        recover(DATASET, name)
    assert whole.exists()
    assert own.read_text() == "{"


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_a_copy_of_dataset_json_that_was_not_written_to_its_end_is_made_again(toy, part):
    copy = toy / "dataset.json"
    text = copy.read_text()
    copy.write_text(text[: int(len(text) * part)])
    recover(DATASET, "nnUNetPlans")
    assert copy.read_text() == text
    copy.write_text('{"labels"')  # not the beginning of the original
    recover(DATASET, "nnUNetPlans")
    assert copy.read_text() == '{"labels"'


def test_a_dataset_json_that_a_user_has_removed_with_all_cases_is_copied_again(toy, called, tmp_path):
    """Does what a message asks for where the numbers of labels have changed."""
    (toy / "dataset.json").unlink()
    recover(DATASET, "nnUNetPlans")
    assert not (toy / "dataset.json").exists()  # the cases may have other numbers
    for folder in toy.glob("nnUNetPlans_*"):
        shutil.rmtree(folder)
    preprocess(DATASET, "3d_fullres", "nnUNetPlans", tmp_path)
    assert (toy / "dataset.json").exists()
    assert called == ["nnUNetv2_preprocess"]


def test_nothing_is_recovered_while_another_process_preprocesses(toy, monkeypatch):
    monkeypatch.setattr(module.Lock, "holder", lambda _self: "another process")
    (toy / "dataset_fingerprint.json").write_text("{")
    recover(DATASET, "nnUNetPlans")
    assert (toy / "dataset_fingerprint.json").exists()
