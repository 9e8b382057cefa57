"""A step that stands on a model that was trained again since, or on one that is gone; and a split that has changed."""

import json
import os
import shutil

import pytest
import torch
from toy import DATASET
from toy_models import PGCD, TRAINED_ON, write_records, write_validation

from nnunet_cil import content, predicted_from
from nnunet_cil.case_hashes import CaseHashes
from nnunet_cil.cli import main
from nnunet_cil.workflows.run import run as workflow


@pytest.fixture
def finished(trained, monkeypatch):
    """Two steps that look finished; nothing may be trained. Their folders of fold 0, and the words of commands."""
    root, schedule, _ = trained
    shutil.rmtree(root / "raw" / DATASET / "labelsTs")
    write_records(root)
    write_validation(root)
    monkeypatch.setattr(workflow, "train", lambda *_: pytest.fail("trained"))
    folds = [next((root / "results" / DATASET).glob(f"*step{i}__*/fold_0")) for i in range(2)]
    return folds, ["17", "3d_fullres", "0", str(schedule), "-tr", PGCD]


def change(file, *, key):
    """Changes a checkpoint as another training does (with another key), or as an edit does."""
    content = torch.load(file, weights_only=False)
    content["changed"] = 1
    if key:
        record = content["cil"]["lineage"][-1]
        record["case_hashes"] = CaseHashes.of(TRAINED_ON, ["case_4", "case_5"]).to_json()
    torch.save(content, file)


def states(words, capsys):
    capsys.readouterr()
    assert main(["status", *words]) == 0
    return [line.split("|")[4].strip() for line in capsys.readouterr().out.splitlines()[2:]]


def run_says(words, capsys, *options):
    assert main(["run", *words, "-device", "cpu", *options]) == 1
    return capsys.readouterr().err


def evaluate_says(words, capsys):
    assert main(["evaluate", *words, "-device", "cpu"]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("age", ["newer", "older"])
def test_status_and_run_know_a_step_whose_origin_was_trained_again(finished, capsys, age):
    folds, words = finished
    assert states(words, capsys) == ["finished", "finished"]
    change(folds[0] / "checkpoint_final.pth", key=True)
    if age == "older":  # copied without times, say
        os.utime(folds[0] / "checkpoint_final.pth", (0, 0))
    states_then = states(words, capsys)
    assert states_then[1] == "finished, but step 0 was trained again since"
    for options in ([], ["--dry-run"], ["--start-from", "1"]):
        said = run_says(words, capsys, *options)
        assert f"{folds[0] / 'checkpoint_final.pth'}, has changed since step 1 was trained on top of it" in said
        assert f"Restore it, or remove {folds[1]} and train that step again" in said
    assert main(["run", *words, "-device", "cpu", "--stop-after", "0", "--dry-run"]) == 0


def test_a_model_that_was_changed_in_place_is_known_by_its_hash(finished, capsys):
    folds, words = finished
    change(folds[0] / "checkpoint_final.pth", key=False)
    assert states(words, capsys)[1] == "finished, but step 0 was trained again since"
    assert "has changed since step 1" in run_says(words, capsys)


def test_no_checkpoint_is_hashed_again_that_nobody_has_written_since_its_validation(finished, capsys, monkeypatch):
    hashed, original = [], content.file_sha256
    monkeypatch.setattr(predicted_from, "file_sha256", lambda file: hashed.append(file.name) or original(file))
    assert states(finished[1], capsys) == ["finished", "finished"]
    assert set(hashed) == {"summary.json"}


def test_a_step_that_was_only_begun_is_not_finished_on_another_model(finished, capsys):
    folds, words = finished
    (folds[1] / "checkpoint_final.pth").rename(folds[1] / "checkpoint_latest.pth")
    assert main(["run", *words, "-device", "cpu", "--dry-run"]) == 0
    change(folds[0] / "checkpoint_final.pth", key=True)
    assert states(words, capsys)[1].endswith("but step 0 was trained again since")
    assert "has changed since step 1 was trained" in run_says(words, capsys)


@pytest.mark.parametrize(("is_there", "state"), [(False, "is not there any more"), (True, "is truncated")])
def test_a_model_on_which_a_step_stands_is_not_trained_anew(finished, capsys, is_there, state):
    folds, words = finished
    file = folds[0] / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[:500]) if is_there else file.unlink()
    for said in (run_says(words, capsys), evaluate_says(words, capsys)):
        assert f"Step 1 was trained on top of a model of step 0 that {state}: {file}" in said
        assert f"remove {folds[1]} and train both steps again" in said
    shutil.rmtree(folds[1])  # the remedy
    assert main(["run", *words, "-device", "cpu", "--dry-run"]) == 0


@pytest.mark.parametrize("left", ["step 1", "validation of step 0"])
def test_a_changed_split_is_known_before_the_first_training(finished, capsys, left):
    folds, words = finished
    shutil.rmtree(folds[1])
    if left != "step 1":
        (folds[0] / "validation" / "summary.json").unlink()
    split = folds[0].parents[3] / "preprocessed" / DATASET / "splits_final.json"
    split.write_text(json.dumps([{"train": ["case_0", "case_4", "case_5"], "val": ["case_1", "case_2", "case_3"]}]))
    said = run_says(words, capsys, "--stop-after", "1" if left == "step 1" else "0")
    assert f"Fold 0 of {DATASET} validates on 'case_1', 'case_2', 'case_3', but step 0" in said


def test_a_training_is_not_resumed_under_another_split(finished, capsys):
    folds, words = finished
    (folds[1] / "checkpoint_final.pth").rename(folds[1] / "checkpoint_latest.pth")
    split = folds[0].parents[3] / "preprocessed" / DATASET / "splits_final.json"
    split.write_text(json.dumps([{"train": TRAINED_ON[:3], "val": ["case_4", "case_5"]}]))
    assert "has changed since this training began (training cases: 1 gone)" in run_says(words, capsys)
