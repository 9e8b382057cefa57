"""The models of a schedule: where nnU-Net keeps them, and whether they are trained."""

from __future__ import annotations

import json
import shlex
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nnunet_cil.errors import CILError
from nnunet_cil.schedule import Schedule, load_schedule
from nnunet_cil.step_plans import StepPlan, read_step_plan
from nnunet_cil.workflows.folders import dataset_name, nnunet_folder, raw_dataset_folder, read_json


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


@dataclass(frozen=True)
class Experiment:
    """What is run, looked at and scored: trainers on a data set and a schedule, over folds.

    Attributes:
        dataset: ID or name.
        configuration: nnU-Net's.
        folds: 0 to 4, or "all"; one after the other.
        schedule_name: shipped name or file.
        trainers: whose models; step 0 may be shared.
        base_plans: as for ``plan``.
    """

    dataset: str
    configuration: str
    folds: tuple[int | str, ...]
    schedule_name: str | Path
    trainers: tuple[str, ...]
    base_plans: str = "nnUNetPlans"

    @cached_property
    def dataset_name(self) -> str:
        """nnU-Net's name of the data set, which need not be preprocessed yet."""
        try:
            return dataset_name(self.dataset)
        except CILError:
            return raw_dataset_folder(self.dataset).name

    @cached_property
    def schedule(self) -> Schedule:
        """As loaded and checked."""
        return load_schedule(self.schedule_name)

    @property
    def last_step(self) -> int:
        """Of the schedule."""
        return len(self.schedule.steps) - 1

    @property
    def name(self) -> str:
        """Of a folder that belongs to it, whatever the trainers."""
        return f"{self.base_plans}_{self.schedule.name}__{self.configuration}"

    @property
    def arguments(self) -> list[str]:
        """As ``nnunet_cil run``, ``status`` and ``evaluate`` take it."""
        folds = [str(fold) for fold in self.folds]
        what = [self.dataset_name, self.configuration, *folds, str(self.schedule_name)]
        return [*what, "-tr", *self.trainers, "-p", self.base_plans]

    def models_of(self, trainer: str) -> list[StepModel]:
        """A trainer's model of every step, as the steps' plans say; step 0 may be another trainer's.

        Raises:
            CILError: a step is not planned.
        """
        preprocessed = nnunet_folder("nnUNet_preprocessed") / self.dataset_name
        dataset_json = read_json(preprocessed / "dataset.json", "Run 'nnUNetv2_plan_and_preprocess' first.")
        names = [f"{self.base_plans}_{self.schedule.name}_step{i}" for i in range(len(self.schedule.steps))]
        redo = f"Run 'nnunet_cil plan {self.dataset_name} {self.schedule_name} -p {self.base_plans}' first."
        plans = [read_step_plan(read_json(preprocessed / f"{n}.json", redo), dataset_json) for n in names]
        results = nnunet_folder("nnUNet_results") / self.dataset_name
        models = []
        for step, (name, plan) in enumerate(zip(names, plans, strict=True)):
            following = plans[step + 1].previous if step + 1 < len(plans) else None
            used = following.trainer if following is not None and following.trainer else trainer
            folder = results / f"{used}__{name}__{self.configuration}"
            models.append(StepModel(used, step, self.configuration, name, folder, plan))
        return models

    def models(self) -> list[StepModel]:
        """Those of all trainers, a shared one once; in an order in which they can be trained."""
        models = {(m.trainer, m.step): m for trainer in self.trainers for m in self.models_of(trainer)}
        return sorted(models.values(), key=lambda m: m.step > 0)

    def evaluate_arguments(
        self, device: str, images: Path | None = None, labels: Path | None = None, output: Path | None = None
    ) -> list[str]:
        """What ``nnunet_cil`` is called with to score the models."""
        paths = {"-i": images, "-l": labels, "-o": output}
        given = [text for option, path in paths.items() if path is not None for text in (option, str(path))]
        return ["evaluate", *self.arguments, "-device", device, *given]

    def train_commands(self, device: str) -> list[str]:
        """From plans to the last model, as one would type it."""
        following = self.models_of(self.trainers[0])[1:2]
        first = following[0].plan.previous.trainer if following and following[0].plan.previous else None
        plan = ["nnunet_cil", "plan", self.dataset_name, str(self.schedule_name), "-p", self.base_plans]
        plan += ["--step0-trainer", first] if first else []
        train = [
            ["nnUNetv2_train", *m.train_arguments(f), "-device", device] for f in self.folds for m in self.models()
        ]
        return [shlex.join(command) for command in [plan, *train]]


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
