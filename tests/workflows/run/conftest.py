"""Fixtures of run and of the launchers."""

import os
from pathlib import Path

import pytest
from toy import DATASET, finish_training, write_schedule
from toy_jobs import MIB, PGCD, STEPS

from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.run import run as workflow


@pytest.fixture
def experiment(toy, tmp_path):
    return Experiment(
        dataset=DATASET,
        configuration="3d_fullres",
        folds=(0,),
        schedule_name=write_schedule(tmp_path, STEPS),
        trainers=(PGCD, MIB),
    )


@pytest.fixture
def setting(toy, tmp_path, monkeypatch):
    """A planned schedule, and stand-ins for training (which leaves what nnU-Net leaves) and evaluation."""
    schedule = write_schedule(tmp_path, STEPS)
    trained, evaluated = [], []

    def folder(arguments):
        option = dict(zip(arguments[3:-1:2], arguments[4::2], strict=False))
        name = f"{option['-tr']}__{option['-p']}__{arguments[1]}"
        return Path(os.environ["nnUNet_results"]) / arguments[0] / name / f"fold_{arguments[2]}"

    def train(arguments, _environment, _log, num_epochs, _epochs_after):
        assert num_epochs == 2
        trained.append(arguments)
        finish_training(folder(arguments))

    monkeypatch.setattr(workflow, "train", train)
    monkeypatch.setattr(workflow, "evaluate", lambda *a, **k: evaluated.append((a, k)))
    return schedule, trained, evaluated, folder
