"""Variants of a schedule's step: other cases, another length, or no previous model, each a model with plans of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scores import DISTANCE, Row

from nnunet_cil.files import read_json, write_json
from nnunet_cil.host.commands import train, user_environment
from nnunet_cil.host.folders import model_folder_name, nnunet_folder
from nnunet_cil.host.plans_files import read_plans
from nnunet_cil.labels import model_labels
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.workflows.model_fold import ModelFold, StepModel
from nnunet_cil.workflows.plan.step_files import refuse_if_trained
from nnunet_cil.workflows.planned_experiment import PlannedExperiment
from nnunet_cil.workflows.run.trainings import Training


def alone(plan: StepPlan) -> StepPlan:
    """Returns the plan of a step as that of a first one: its own classes, patients and length, and nothing of what was before."""
    return replace(
        plan,
        schedule=f"{plan.schedule}_step{plan.step}_alone",
        step=0,
        steps=(plan.new_classes,),
        labels=model_labels(plan.new_classes, ignore=plan.ignore_label is not None),
        previous=None,
        hyperparameters={},
        earlier_cases=(),
    )


def variant(planned: PlannedExperiment, step: int, plan: StepPlan, trainer: str, suffix: str) -> StepModel:
    """Returns the model of a changed step, and writes its plans.

    Args:
        planned: the experiment of the schedule.
        step: that is changed.
        plan: of the variant.
        trainer: that trains it.
        suffix: of the name of its plans.
    """
    file, experiment = planned.files[step], planned.experiment
    own = file.with_stem(f"{file.stem}_{suffix}")
    content = {**read_plans(file, ""), "plans_name": own.stem, "cil": plan.to_json()}
    if not own.is_file() or read_json(own, "") != content:
        refuse_if_trained(own, content)
        write_json(own, content)
    folder = model_folder_name(trainer, own.stem, experiment.configuration)
    return StepModel(
        trainer=trainer,
        step=step,
        configuration=experiment.configuration,
        plans_name=own.stem,
        folder=nnunet_folder("nnUNet_results") / file.parent.name / folder,
        plan=plan,
        reader_name=planned.readers[step],
    )


def train_variant(model: ModelFold, device: str, logs: Path, *options: str) -> None:
    """Trains a model that is not finished, or goes on with it.

    Args:
        model: that is trained.
        device: as nnU-Net's.
        logs: folder.
        options: further ones of ``nnUNetv2_train``.
    """
    training = Training(model=model, options=("-device", device, *options))

    def call() -> None:
        print("+", training.command, flush=True)
        train(training.arguments, user_environment(), logs / f"{model.name}.txt", training.num_epochs)

    training.do(call)


@dataclass(frozen=True, kw_only=True)
class RowName:
    """Says whose scores rows of a study's table hold: as the columns of it (``scores.py``)."""

    method: str
    setting: str
    cases: str

    def row(self, model: ModelFold, scores: Mapping[str, Any]) -> Row:
        """Returns the row of a model's scores of one case and class."""
        return {
            "method": self.method,
            "setting": self.setting,
            "step": str(model.step),
            "fold": str(model.fold),
            "cases": self.cases,
            "case": scores["case"],
            "class": scores["class"],
            "dice": "" if math.isnan(scores["dice"]) else str(scores["dice"]),
            DISTANCE: str(scores[DISTANCE]) if scores["unit"] == "mm" and not math.isnan(scores[DISTANCE]) else "",
            "dataset": model.model.dataset,
            "trainer": model.trainer,
            "plans": model.model.plans_name,
        }
