"""Checks that the next call puts right what an interrupted preprocessing has left."""

import os

import pytest
from test_owners import ended_process
from toy import DATASET

from nnunet_cil.files import write_json
from nnunet_cil.host import preprocess as module
from nnunet_cil.host.preprocess import complete_label_copies, preprocess
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


@pytest.mark.parametrize("copied", [None, 0, 50])
def test_label_files_that_a_killed_preprocessing_has_not_copied_are_copied(toy, called, tmp_path, copied):
    copy, raw = toy / "gt_segmentations/case_2.nii.gz", tmp_path / "nnunet/raw" / DATASET / "labelsTr/case_2.nii.gz"
    whole = copy.read_bytes()
    copy.unlink() if copied is None else copy.write_bytes(whole[:copied])
    preprocess(DATASET, "3d_fullres", "nnUNetPlans", tmp_path)
    assert copy.read_bytes() == whole
    assert copy.stat().st_mtime == raw.stat().st_mtime
    assert called == []


@pytest.mark.parametrize("change", ["label", "copy", "no case"])
def test_label_files_that_may_have_changed_are_not_copied(toy, tmp_path, change):
    copy, raw = toy / "gt_segmentations/case_2.nii.gz", tmp_path / "nnunet/raw" / DATASET / "labelsTr/case_2.nii.gz"
    if change == "copy":
        copy.write_bytes(b"something else")
    else:
        copy.unlink()
    if change == "label":
        os.utime(raw, (raw.stat().st_mtime + 3600,) * 2)
    if change == "no case":
        for file in toy.glob("*/case_2.pkl"):
            file.unlink()
    complete_label_copies(DATASET)
    assert (copy.read_bytes() if copy.is_file() else None) == (b"something else" if change == "copy" else None)


@pytest.mark.parametrize(
    ("text", "stays"),
    [("", False), ('{\n    "spacings": [\n        [\n', False), ('{\n    "a": {}\n}', True), ('{"a": 1}', True)],
)
def test_a_fingerprint_that_was_not_written_to_its_end_is_made_again(toy, called, tmp_path, text, stays):
    """nnU-Net reads a fingerprint that is there, and fails on half of one in every later call."""
    (toy / "nnUNetPlans.json").unlink()
    (toy / "dataset_fingerprint.json").write_text(text)
    preprocess(DATASET, "3d_fullres", "nnUNetPlans", tmp_path)
    assert called == ["nnUNetv2_plan_and_preprocess"]
    assert (toy / "dataset_fingerprint.json").exists() == stays
