"""nnU-Net's own commands, really killed, and its final validation. Slow: starts processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from toy import DATASET, ORGANS, make_trainer, train, write_schedule

from nnunet_cil.lineage import validation_means
from nnunet_cil.workflows.plan.plan import plan

PGCD = "nnUNetTrainerPGCD"
pytestmark = pytest.mark.slow


def arguments_of(plans_name, *flags):
    return [DATASET, "3d_fullres", "0", "-tr", PGCD, "-p", plans_name, "-device", "cpu", *flags]


def validate_again(monkeypatch, plans_name, *flags):
    """Runs nnUNetv2_train --val in this process: a new one takes seconds to import nnU-Net."""
    from nnunetv2.run.run_training import run_training_entry

    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", *arguments_of(plans_name, "--val", *flags)])
    run_training_entry()


def start_training(plans_name, *flags):
    code = "from nnunetv2.run.run_training import run_training_entry; run_training_entry()"
    arguments = arguments_of(plans_name, *flags)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    return output


def test_killed_training_goes_on_with_c_and_val_scores_every_class(toy, tmp_path, monkeypatch):
    schedule = write_schedule(
        tmp_path,
        [["kidney", "liver"], ["cyst", "spleen"]],
        training={
            "num_epochs": 4,
            "num_iterations_per_epoch": 3,
            "save_every": 1,
            "num_val_iterations_per_epoch": 1,
            "mirror_axes": [],
        },
    )
    names = [s.plans_name for s in plan(DATASET, schedule)]
    train(PGCD, names[0])
    fold = Path(os.environ["nnUNet_results"]) / DATASET / f"{PGCD}__{names[1]}__3d_fullres" / "fold_0"
    process = start_training(names[1])
    deadline = time.time() + 200
    while not (fold / "checkpoint_latest.pth").is_file() and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (fold / "checkpoint_final.pth").is_file()
    (fold / ".checkpoint_latest.pth").write_bytes(b"half a checkpoint")
    interrupted = torch.load(fold / "checkpoint_latest.pth", weights_only=False)
    assert 1 <= interrupted["current_epoch"] < 4

    output = finish(start_training(names[1], "--c"))
    assert f": Epoch {interrupted['current_epoch']}\n" in output
    assert ": Epoch 0\n" not in output
    final = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert final["current_epoch"] == 4
    assert final["cil"]["prototypes"]["prototypes"].shape[0] == 5
    assert len(final["logging"]["loss_pgcd"]) == 4

    summary = fold / "validation" / "summary.json"
    check_summary(toy, fold, json.loads(summary.read_text()))
    summary.unlink()
    (fold / "checkpoint_latest.pth").touch()  # as a kill leaves it that comes just after the final one
    validate_again(monkeypatch, names[1])
    assert not (fold / "checkpoint_latest.pth").exists()
    check_summary(toy, fold, json.loads(summary.read_text()))
    assert validation_means(fold)
    card = (fold / "MODEL_CARD.md").read_text()
    summary.unlink()
    validate_again(monkeypatch, names[1], "--val_best")
    check_summary(toy, fold, json.loads(summary.read_text()))
    assert validation_means(fold) == {}  # they are another model's
    assert (fold / "MODEL_CARD.md").read_text() == card
    validate_again(monkeypatch, names[1])
    assert validation_means(fold)


def check_summary(toy, fold, summary):
    """The Dice of every channel is that of the organ of its name, though learning order is not label order."""
    channels = json.loads((fold.parent / "dataset.json").read_text())["labels"]
    assert list(channels) == ["background", "kidney", "liver", "cyst", "spleen"]
    numbers = {name: i for i, name in enumerate(ORGANS, start=1)}
    for name, channel in channels.items():
        if name == "background":
            continue
        expected = []
        for case in ("case_4", "case_5"):
            truth = (
                sitk.GetArrayFromImage(sitk.ReadImage(str(toy / "gt_segmentations" / f"{case}.nii.gz")))
                == numbers[name]
            )
            found = sitk.GetArrayFromImage(sitk.ReadImage(str(fold / "validation" / f"{case}.nii.gz"))) == channel
            expected.append(2 * (truth & found).sum() / (truth.sum() + found.sum()))
        assert summary["mean"][str(channel)]["Dice"] == pytest.approx(np.mean(expected))


def test_standard_predict_uses_the_plugin_through_the_variable_only(toy, tmp_path):
    names = [s.plans_name for s in plan(DATASET, write_schedule(tmp_path, [ORGANS[:3], ORGANS[3:]]))]
    for name in names:
        train(PGCD, name)
    code = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point; predict_entry_point()"
    images = tmp_path / "nnunet/raw" / DATASET / "imagesTr"
    arguments = [
        "-d",
        "17",
        "-c",
        "3d_fullres",
        "-f",
        "0",
        "-tr",
        PGCD,
        "-p",
        names[1],
        "-i",
        str(images),
        "-o",
        str(tmp_path / "out"),
        "-device",
        "cpu",
        "-npp",
        "1",
        "-nps",
        "1",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, check=True, timeout=300, capture_output=True
    )
    predictions = [sitk.GetArrayFromImage(sitk.ReadImage(str(f))) for f in sorted((tmp_path / "out").glob("*.nii.gz"))]
    assert len(predictions) == 6
    assert all(p.shape == (20, 22, 24) and p.max() <= 4 for p in predictions)


def test_without_the_variable_nnunet_says_so(toy, tmp_path, monkeypatch):
    name = plan(DATASET, write_schedule(tmp_path, [ORGANS]))[0].plans_name
    monkeypatch.delenv("nnUNet_extTrainer")
    with pytest.raises(RuntimeError, match="nnUNet_extTrainer"):
        make_trainer(PGCD, name)
