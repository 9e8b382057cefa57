"""The demo's pieces. The whole of it takes minutes: it is run by hand, as the README says."""

import json
import logging
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cil.datasets.phantom import LABELS, write_dataset
from nnunet_cil.errors import CILError
from nnunet_cil.host import commands
from nnunet_cil.schedule import load_schedule
from nnunet_cil.workflows import demo


def test_jobs_share_step_0_and_come_in_order():
    jobs = demo.jobs(load_schedule(demo.SCHEDULE))
    assert jobs == [
        ("nnUNetTrainerPGCD", 0),
        ("nnUNetTrainerFineTune", 1),
        ("nnUNetTrainerFineTune", 2),
        ("nnUNetTrainerPGCD", 1),
        ("nnUNetTrainerPGCD", 2),
    ]


def test_everything_stays_in_the_folder(tmp_path):
    environment = demo._environment(tmp_path)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        assert environment[variable].startswith(str(tmp_path))
    site_packages = [p for p in sys.path if p.endswith("site-packages")]
    assert not set(environment.get("PYTHONPATH", "").split(":")) & set(site_packages)


def test_labels_are_shown_in_the_order_of_learning():
    liver, spleen = LABELS["liver"], LABELS["spleen"]
    labels = np.array([[0, spleen], [liver, spleen]])
    np.testing.assert_array_equal(demo._in_order_of_learning(labels, ["spleen", "liver"]), [[0, 1], [2, 1]])
    np.testing.assert_array_equal(demo._in_order_of_learning(labels, ["liver"]), [[0, 0], [1, 0]])


def test_the_report_has_a_row_for_each_method_and_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "NUM_TRAINING", 1)
    monkeypatch.setattr(demo, "NUM_VALIDATION", 1)
    schedule = load_schedule(demo.SCHEDULE)
    raw = tmp_path / "nnUNet_raw" / demo.DATASET
    write_dataset(raw, num_training=2, num_test=0)
    for trainer, step in demo.jobs(schedule):
        model = demo.model_folder(tmp_path, trainer, step)
        classes = schedule.classes_until(step)
        validation = model / "fold_0" / "validation"
        validation.mkdir(parents=True)
        labels = {"background": 0, **{name: c for c, name in enumerate(classes, start=1)}}
        (model / "dataset.json").write_text(json.dumps({"labels": labels}))
        dice = 0.25 if trainer == "nnUNetTrainerFineTune" else 0.75
        mean = {str(c): {"Dice": dice} for c in labels.values() if c}
        (validation / "summary.json").write_text(json.dumps({"mean": mean}))
        prediction = demo._in_order_of_learning(demo._read(raw / "labelsTr" / "phantom_0001.nii.gz"), classes)
        sitk.WriteImage(sitk.GetImageFromArray(prediction.astype(np.uint8)), str(validation / "phantom_0001.nii.gz"))
    found = demo._report(tmp_path, schedule)
    cells = [[cell.strip() for cell in line.split("|")] for line in found.table.splitlines()]
    scores = {(row[1], row[2]): row[-2] for row in cells if row[1].isdigit()}
    assert scores == {
        ("0", "both"): "0.750",  # they share step 0
        **{(step, "fine-tuning"): "0.250" for step in "12"},
        **{(step, "PGCD"): "0.750" for step in "12"},
    }
    assert found.table in found.table_file.read_text()
    assert found.table_file.read_text().startswith("Mean Dice on 1 held-out phantoms.")
    assert found.picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_failing_command_names_its_log_and_shows_its_end(forked_commands, tmp_path):
    log = tmp_path / "logs" / "train.txt"
    with pytest.raises(
        CILError, match=r"(?s)'nnUNetv2_train 1 2d 0' failed with status 1. Its log is .*train.txt; it ends:"
    ):
        commands.call("nnUNetv2_train", ["1", "2d", "0"], demo._environment(tmp_path), log)
    assert "Traceback" in log.read_text()


def test_a_log_is_on_disk_line_by_line_so_that_a_kill_loses_nothing(tmp_path):
    log, seen = tmp_path / "logs" / "version.txt", []
    commands.call(
        "nnunet_cil", ["--version"], demo._environment(tmp_path), log, lambda line: seen.append((line, log.read_text()))
    )
    assert seen
    assert all(line in written for line, written in seen)
    assert log.read_text().startswith("$ nnunet_cil --version\n")


@pytest.mark.slow
def test_the_phantom_is_preprocessed_and_planned_once(forked_commands, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(demo, "NUM_TRAINING", 4)
    monkeypatch.setattr(demo, "NUM_VALIDATION", 2)
    caplog.set_level(logging.INFO, "nnunet_cil")
    for _ in range(2):
        demo._prepare(tmp_path, demo._environment(tmp_path))
    assert caplog.messages == ["Generating volumes...", "Preprocessing with nnU-Net..."]
    plans = sorted(p.name for p in (tmp_path / "nnUNet_preprocessed" / demo.DATASET).glob("*_step*.json"))
    assert plans == [f"{demo.PLANS}_{demo.SCHEDULE}_step{i}.json" for i in range(3)]
