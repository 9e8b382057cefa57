"""The models of a schedule: where nnU-Net keeps them, and whether they are trained."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_cil.errors import CILError
from nnunet_cil.schedule import Schedule
from nnunet_cil.step_plans import StepPlan, read_step_plan
from nnunet_cil.workflows.folders import nnunet_folder, read_json


@dataclass(frozen=True)
class StepModel:
    """A step's model, trained or not: whose trainer's, and nnU-Net's folder of it (above the folds)."""

    trainer: str
    step: int
    configuration: str
    plans_name: str
    folder: Path
    plan: StepPlan

    def fold(self, fold: int | str) -> Path:
        """nnU-Net's folder of a fold."""
        return self.folder / f"fold_{fold}"

    def train_arguments(self, fold: int | str) -> list[str]:
        """What ``nnUNetv2_train`` is called with."""
        dataset = self.folder.parent.name
        return [dataset, self.configuration, str(fold), "-tr", self.trainer, "-p", self.plans_name]


def step_models(dataset: str, configuration: str, schedule: Schedule, trainer: str, base_plans: str) -> list[StepModel]:
    """A trainer's model of every step, as the steps' plans say; step 0 may be another trainer's.

    Args:
        dataset: nnU-Net's name of the data set.
        configuration: nnU-Net's.
        schedule: must be planned.
        trainer: the later steps' trainer.
        base_plans: as for ``plan``.

    Raises:
        CILError: a step is not planned.
    """
    preprocessed = nnunet_folder("nnUNet_preprocessed") / dataset
    dataset_json = read_json(preprocessed / "dataset.json", "Run 'nnUNetv2_plan_and_preprocess' first.")
    names = [f"{base_plans}_{schedule.name}_step{i}" for i in range(len(schedule.steps))]
    redo = f"Run 'nnunet_cil plan {dataset} {schedule.name} -p {base_plans}' first."
    plans = [read_step_plan(read_json(preprocessed / f"{n}.json", redo), dataset_json) for n in names]
    results = nnunet_folder("nnUNet_results") / dataset
    models = []
    for step, (name, plan) in enumerate(zip(names, plans, strict=True)):
        following = plans[step + 1].previous if step + 1 < len(plans) else None
        used = following.trainer if following is not None and following.trainer else trainer
        folder = results / f"{used}__{name}__{configuration}"
        models.append(StepModel(used, step, configuration, name, folder, plan))
    return models


def distinct(groups: Iterable[Sequence[StepModel]]) -> list[StepModel]:
    """All models of several trainers, a shared one once; in an order in which they can be trained."""
    models = {(m.trainer, m.step): m for group in groups for m in group}
    return sorted(models.values(), key=lambda m: m.step > 0)


def is_trained(model: StepModel, fold: int | str) -> bool:
    """Whether the final checkpoint is there and whole."""
    return zipfile.is_zipfile(model.fold(fold) / "checkpoint_final.pth")


def is_finished(model: StepModel, fold: int | str) -> bool:
    """Whether it is trained and its validation cases are scored."""
    try:
        summary = json.loads((model.fold(fold) / "validation" / "summary.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    return is_trained(model, fold) and "mean" in summary


def check_trained(model: StepModel, fold: int | str) -> None:
    """Refuses a model that is not trained.

    Raises:
        CILError: with the command that trains it.
    """
    if not is_trained(model, fold):
        raise CILError(
            f"Step {model.step} of {model.plan.schedule} is not trained with {model.trainer} in fold {fold}. Run "
            f"'nnUNetv2_train {' '.join(model.train_arguments(fold))}'."
        )
