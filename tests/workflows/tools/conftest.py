"""Models of two steps and two folds that look trained and validated; nnU-Net's tools run in this process."""

import json
import pickle
import shutil
import sys
from importlib import import_module

import numpy as np
import pytest
import SimpleITK as sitk
from toy import DATASET, LABELS, dataset_json, write_schedule, write_scores
from toy_models import PGCD, write, write_model

from nnunet_cil.host.commands import _ENTRY_POINTS
from nnunet_cil.workflows.plan.plan import plan
from nnunet_cil.workflows.tools import tools

FOLDS = {0: ("case_4", "case_5"), 1: ("case_0", "case_1")}


@pytest.fixture
def nnunet(monkeypatch):
    """Runs a command of nnU-Net in this process, as ``host.commands.call`` does in another."""

    def call(command, arguments, environment=None, _log=None, _watch=None):
        module, function = _ENTRY_POINTS.get(command, PP if command == "nnUNetv2_apply_postprocessing" else None).split(
            ":"
        )
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", [command, *arguments])
            for name in ("nnUNet_raw", "nnUNet_preprocessed"):
                if environment is not None:
                    patched.setenv(name, environment[name])
            getattr(import_module(module), function)()

    monkeypatch.setattr(tools, "call", call)
    return call


PP = "nnunetv2.postprocessing.remove_connected_components:entry_point_apply_postprocessing"


def predicted(truth, channels, *, shift):
    """Returns a prediction in the model's numbers, with a class moved, another one too large, and a stray voxel of each."""
    found = np.zeros(truth.shape, np.uint8)
    for number, (name, channel) in enumerate(channels.items()):
        found[np.roll(truth == LABELS[name], shift + number, axis=0)] = channel
    for channel in channels.values():
        found[-1, -1, -channel] = channel
    return found


@pytest.fixture
def models(toy, tmp_path):
    """Returns what makes the models of a schedule: its name and steps -> the names of the steps' plans."""
    root = toy.parents[1]

    def make(steps, name="toy", configurations=("3d_fullres", "2d")):
        steps = plan(DATASET, write_schedule(tmp_path, steps, name=name))
        for step in steps:
            for configuration in configurations:
                folder = root / "results" / DATASET / f"{PGCD}__{step.plans_name}__{configuration}"
                write_folder(folder, step, shift=configurations.index(configuration))
        return [step.plans_name for step in steps]

    def write_folder(folder, step, *, shift):
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_text(json.dumps(dataset_json(step.plan.labels)))
        shutil.copyfile(step.file, folder / "plans.json")
        channels = {name: step.plan.labels[name] for name in step.plan.seen_classes}
        for fold, cases in FOLDS.items():
            own = folder / f"fold_{fold}"
            (own / "validation").mkdir(parents=True)
            write_model(own / "checkpoint_final.pth", json.loads(step.file.read_text()))
            for case in cases:
                truth = sitk.ReadImage(str(toy / "gt_segmentations" / f"{case}.nii.gz"))
                found = predicted(sitk.GetArrayFromImage(truth), channels, shift=shift + int(case[-1]) % 2)
                write(found, own / "validation" / f"{case}.nii.gz")
                probabilities = np.stack([found == c for c in range(1 + len(channels))]) * (0.6 + 0.1 * shift)
                np.savez(own / "validation" / f"{case}.npz", probabilities=probabilities.astype(np.float32))
                sitk_stuff = {"spacing": (1.0,) * 3, "origin": (0.0,) * 3, "direction": tuple(np.eye(3).ravel())}
                (own / "validation" / f"{case}.pkl").write_bytes(pickle.dumps({"sitk_stuff": sitk_stuff}))
            write_scores(own, {})

    return make
