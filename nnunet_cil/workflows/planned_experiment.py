"""An experiment whose steps are planned: their plans, read once, and the models that come from them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import dataset_id, model_folder_name, nnunet_folder
from nnunet_cil.host.plans_files import (
    preprocessed_for,
    read_plans,
    reader_of,
    refuse_other_data_set,
    stages,
)
from nnunet_cil.step_plans import StepPlan, read_step_plan
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.fold_records import num_folds
from nnunet_cil.workflows.model_fold import ModelFold, StepModel
from nnunet_cil.workflows.plan.schedule_checks import other_settings, refuse_other_schedule
from nnunet_cil.workflows.plan.sequence_of_datasets import plans_on


@dataclass(frozen=True, kw_only=True)
class PlannedExperiment:
    """An experiment and the plans of its steps.

    Attributes:
        experiment: as it was asked for.
        files: the plans file of each step.
        plans: the plan of each step.
        readers: the name of nnU-Net's reader in the plans of each step.
        before: of a cascade, the stage whose predictions it sees, in all folds; None for another configuration.
        next_stage: the cascade's configuration, in ``before``; else empty.
    """

    experiment: Experiment
    files: tuple[Path, ...]
    plans: tuple[StepPlan, ...]
    readers: tuple[str, ...]
    before: PlannedExperiment | None = None
    next_stage: str = ""

    @classmethod
    def read(cls, experiment: Experiment, next_stage: str = "") -> PlannedExperiment:
        """Reads the plans of every step.

        Args:
            experiment: whose steps are planned.
            next_stage: the cascade that sees the predictions of its models.

        Raises:
            CILError: a step is not planned, not for the configuration, or from another schedule of that name.
        """
        files = tuple(experiment.plans_file(step) for step in range(experiment.num_steps))
        plans, readers, names = zip(*(_read(experiment, file, step) for step, file in enumerate(files)), strict=True)
        before = None
        if len(names[0]) > 1:
            asked = replace(experiment, configuration=names[0][0], folds=folds_before(experiment))
            before = cls.read(asked, next_stage=experiment.configuration)
        return cls(
            experiment=experiment, files=files, plans=plans, readers=readers, before=before, next_stage=next_stage
        )

    @property
    def stages(self) -> list[PlannedExperiment]:
        """Returns what is trained, in order: before a cascade the models whose predictions it sees."""
        return [self] if self.before is None else [self.before, self]

    def folds_before(self, model: ModelFold) -> list[ModelFold]:
        """Returns the models that predict a cascade's training cases, one a fold; none for another configuration."""
        if self.before is None:
            return []
        own = next(m for m in self.before.models() if (m.trainer, m.step) == (model.trainer, model.step))
        return [own.fold(fold) for fold in self.before.experiment.folds if fold != "all"]

    def before_in_fold(self, model: ModelFold) -> ModelFold | None:
        """Returns the model that predicts new cases for a cascade: that of the same fold; None for another configuration."""
        if self.before is None:
            return None
        own = next(m for m in self.before.models() if (m.trainer, m.step) == (model.trainer, model.step))
        return own.fold(model.fold)

    @property
    def reader_names(self) -> dict[str, str]:
        """Returns data set -> the name of nnU-Net's reader in the plans of its steps."""
        return {file.parent.name: reader for file, reader in zip(self.files, self.readers, strict=True)}

    @property
    def remarks(self) -> list[str]:
        """Tells what the user should know of the schedule and its plans, though it changes no score."""
        found = other_settings(self.experiment.schedule, self.plans)
        return [
            f"Note: the settings of {self.experiment.schedule.name} have changed since it was planned; {s}"
            for s in found
        ]

    def models_of(self, trainer: str) -> list[StepModel]:
        """Returns a trainer's model of every step, as the steps' plans say; step 0 may be another trainer's."""
        results, configuration = nnunet_folder("nnUNet_results"), self.experiment.configuration
        models = []
        for step, (file, plan, reader) in enumerate(zip(self.files, self.plans, self.readers, strict=True)):
            following = self.plans[step + 1].previous if step + 1 < len(self.plans) else None
            used = following.trainer if following is not None and following.trainer else trainer
            folder = results / file.parent.name / model_folder_name(used, file.stem, configuration)
            models.append(
                StepModel(
                    trainer=used,
                    step=step,
                    configuration=configuration,
                    plans_name=file.stem,
                    folder=folder,
                    plan=plan,
                    reader_name=reader,
                    next_stage=self.next_stage,
                )
            )
        return models

    def models(self) -> list[StepModel]:
        """Returns the models of all trainers, a shared one once; in an order in which they can be trained."""
        models = dict.fromkeys(m for trainer in self.experiment.trainers for m in self.models_of(trainer))
        return sorted(models, key=lambda m: m.step > 0)

    def model_folds(self) -> list[ModelFold]:
        """Returns the models of all trainers in every fold, fold by fold."""
        return [model.fold(fold) for fold in self.experiment.folds for model in self.models()]

    def successions(self) -> Iterator[tuple[ModelFold, ModelFold]]:
        """Yields a model and the one that continues from it, in every fold of every trainer."""
        for trainer in self.experiment.trainers:
            for earlier, later in pairwise(self.models_of(trainer)):
                for fold in self.experiment.folds:
                    yield earlier.fold(fold), later.fold(fold)

    def train_commands(self, device: str) -> list[str]:
        """Returns the commands from plans to the last model, as one would type them."""
        asked = self.experiment
        previous = self.plans[1].previous if len(self.plans) > 1 else None
        plan = ["nnunet_cil", "plan", asked.dataset_name, str(asked.schedule_name), "-p", asked.base_plans]
        plan += ["--step0-trainer", previous.trainer] if previous is not None and previous.trainer else []
        models = [model for stage in self.stages for model in stage.model_folds()]
        before = [shlex.join(command) for command in [plan, *self._move_commands(plan)]]
        return [*before, *(model.train_command("-device", device) for model in models)]

    def _move_commands(self, plan: list[str]) -> list[list[str]]:
        """Returns the commands that preprocess further data sets with the moved plans, and then plan the steps."""
        first, *others = self.experiment.data_sets
        commands = []
        for name in others:
            which = ["-d", str(dataset_id(name))]
            moved = plans_on(name, first, self.experiment.base_plans)
            names = preprocessed_for(read_plans(self.files[0], ""), self.experiment.configuration)
            how = ["-c", *names, "-plans_name", moved]
            commands += [["nnUNetv2_extract_fingerprint", *which], ["nnUNetv2_preprocess", *which, *how]]
        return [*commands, plan] if others else []


def folds_before(experiment: Experiment) -> tuple[int | str, ...]:
    """Returns the folds in which the stage before a cascade is trained: all, and fold all where that is asked for."""
    numbers: tuple[int | str, ...] = tuple(range(num_folds(experiment.data_sets)))
    return (*numbers, "all") if "all" in experiment.folds else numbers


def _read(experiment: Experiment, file: Path, step: int) -> tuple[StepPlan, str, tuple[str, ...]]:
    """Returns the plan of a step, the name of nnU-Net's reader in its plans, and the configurations to train."""
    name = file.parent.name
    first = f"Run 'nnUNetv2_plan_and_preprocess -d {dataset_id(name)}' first."
    copied = f"Copy that of nnUNet_raw/{name} there."
    dataset_json = read_dataset_json(file.parent / "dataset.json", copied if file.is_file() else first)
    what = [experiment.dataset_name, str(experiment.schedule_name), "-p", experiment.base_plans]
    command = shlex.join(["nnunet_cil", "plan", *what])
    redo = f"Remove it, and run '{command}'."
    plans = read_plans(file, redo if file.exists() else f"Run '{command}' first.", redo)
    if "cil" not in plans:
        raise CILError(f"{file} says nothing about a step. {redo}")
    refuse_other_data_set(plans, file)
    if experiment.configuration not in plans["configurations"]:
        known = did_you_mean(experiment.configuration, plans["configurations"])
        raise CILError(f"The plans {file} have no configuration {experiment.configuration!r}{known}.")
    plan = read_step_plan(plans, dataset_json)
    remedy = f"Restore the schedule, or give it another 'name' and run '{command}'."
    refuse_other_schedule(experiment.schedule, experiment.step_data_sets, plan, step, remedy)
    return plan, reader_of(plans), stages(plans, experiment.configuration)
