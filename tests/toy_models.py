"""Models of the toy data set that look trained, and their evaluation."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from toy import DATASET, ORGANS, init_args, make_trainer, set_environment, write_scores
from toy_records import RECORD

from nnunet_cil.case_hashes import CaseHashes
from nnunet_cil.content import file_sha256
from nnunet_cil.training.state import StepState
from nnunet_cil.workflows.evaluate.evaluate import evaluate
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment

PGCD = "nnUNetTrainerPGCD"
ORDER = (ORGANS[2:3], ORGANS[:1])
"""kidney (3) is channel 1, liver (1) channel 2."""


def write(array, file, spacing=(1.0, 1.0, 1.0)):
    picture = sitk.GetImageFromArray(array.astype(np.uint8))
    picture.SetSpacing(spacing)
    sitk.WriteImage(picture, str(file))


def write_model(file, content, **more):
    """Writes a checkpoint; ``content`` are its plans, or their name, ``more`` what else it holds."""
    plans = content if isinstance(content, dict) else {"plans_name": content}
    logging = {"train_losses": [2.0, 1.0], "loss_pgcd": [1.0, 0.5], "loss_segmentation": [1.0, 0.5]}
    torch.save({"network_weights": {}, "init_args": init_args(plans), "logging": logging, **more}, file)


def make_plain_model(root, folds=(0, 1)):
    """Makes a model of plain nnU-Net on the toy data set, whose folds look trained; returns its folder, relative to ``root``."""
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root)
        for fold in folds:
            torch.manual_seed(fold)
            trainer = make_trainer("nnUNetTrainer", "nnUNetPlans", fold=fold)
            trainer.initialize()
            trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    model = Path(trainer.output_folder_base)
    for source, target in (("nnUNetPlans.json", "plans.json"), ("dataset.json", "dataset.json")):
        shutil.copy(root / "preprocessed" / DATASET / source, model / target)
    return model.relative_to(root)


def own_copy(root, model, tmp_path, monkeypatch):
    """Copies nnU-Net's folders for a test that changes them; returns the folder of the model in them."""
    shutil.copytree(root, tmp_path / "nnunet")
    set_environment(monkeypatch, tmp_path / "nnunet")
    return tmp_path / "nnunet" / model


def run(schedule, *, waits=False, **changed):
    options = EvaluationOptions(device="cpu", **changed)
    return evaluate(
        Experiment(dataset=DATASET, configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)),
        options,
        waits=waits,
    )


def write_validation(root):
    """Leaves what nnU-Net's final validation leaves of each model; returns the last one's folder."""
    for fold in sorted((root / "results" / DATASET).glob("*/fold_0")):
        (fold / "validation").mkdir()
        for case in ("case_4", "case_5"):
            truth = sitk.ReadImage(str(root / "preprocessed" / DATASET / "gt_segmentations" / f"{case}.nii.gz"))
            write(sitk.GetArrayFromImage(truth) == 3, fold / "validation" / f"{case}.nii.gz", truth.GetSpacing())
        write_scores(fold, {"1": {"Dice": 1.0}})
    return fold


TRAINED_ON = ["case_0", "case_1", "case_2", "case_3"]
"""The training cases of fold 0."""


def write_records(root, training=(TRAINED_ON, TRAINED_ON), validation=("case_4", "case_5")):
    """Gives both models that look trained the records of their trainings, each with its training cases."""
    lineage, previous = (), None
    for step, cases in enumerate(training):
        file = next((root / "results" / DATASET).glob(f"*step{step}__*/fold_0/checkpoint_final.pth"))
        hashes = None if cases is None else CaseHashes.of(cases, validation)
        record = replace(
            RECORD, step=step, plans=f"nnUNetPlans_toy_step{step}", previous_sha256=previous, case_hashes=hashes
        )
        lineage = (*lineage, record)
        content = torch.load(file, weights_only=False)
        torch.save({**content, **StepState(classes=(), lineage=lineage).to_checkpoint()}, file)
        previous = file_sha256(file)
