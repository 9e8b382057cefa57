"""Graphs of jobs of the toy data set, with short names."""

import re
import time

from toy import ORGANS, finish_training

from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.planned_experiment import PlannedExperiment
from nnunet_cil.workflows.run.job_graph import job_graph
from nnunet_cil.workflows.run.options import TrainingOptions

STEPS = (ORGANS[:2], ORGANS[2:3], ORGANS[3:])
PGCD, MIB = "nnUNetTrainerPGCD", "nnUNetTrainerMiB"


def graph(experiment, *, output=None, cases=None, **choice):
    options = EvaluationOptions(device="cpu", output=output, cases=cases)
    return job_graph(experiment, TrainingOptions(**{"device": "cpu", **choice}), options)


def short(name):
    """'nnUNetTrainerPGCD__nnUNetPlans_toy_step1__3d_fullres_fold0' -> 'PGCD 1 0'."""
    if found := re.fullmatch(r"nnUNetTrainer(\w+?)__nnUNetPlans_toy_step(\d)__3d_fullres_fold(\w+)", name):
        return " ".join(found.groups())
    return name.split("-")[0]


def after(jobs):
    return {short(job.name): [short(name) for name in job.after] for job in jobs}


def finish(experiment, *names):
    for model in PlannedExperiment.read(experiment).model_folds():
        if short(model.name) in names:
            finish_training(model.folder)


def wait_for(file):
    deadline = time.time() + 120
    while not file.exists():
        assert time.time() < deadline, f"{file} is not there"
        time.sleep(0.1)
