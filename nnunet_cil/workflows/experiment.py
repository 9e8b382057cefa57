"""The models of a schedule: where nnU-Net keeps them, and whether they are trained."""

from __future__ import annotations

import shlex
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.files import read_json
from nnunet_cil.host.folders import dataset_id, known_dataset, nnunet_folder
from nnunet_cil.lineage import validation_means
from nnunet_cil.schedule import Schedule, load_schedule
from nnunet_cil.step_plans import StepPlan, read_step_plan
from nnunet_cil.workflows.plan.sequence_of_datasets import plans_on, step_data_sets


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
        dataset: ID or name; of the first step, where the schedule has several.
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
        return known_dataset(self.dataset)

    @cached_property
    def schedule(self) -> Schedule:
        """As loaded and checked."""
        return load_schedule(self.schedule_name)

    @property
    def last_step(self) -> int:
        """Of the schedule."""
        return len(self.schedule.steps) - 1

    @cached_property
    def step_data_sets(self) -> tuple[str, ...]:
        """nnU-Net's name of each step's data set."""
        return step_data_sets(self.schedule, self.dataset_name)

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Each once, the first step's first."""
        return tuple(dict.fromkeys(self.step_data_sets))

    def plans_file(self, step: int) -> Path:
        """Of a step, planned or not."""
        dataset = self.step_data_sets[step]
        name = f"{plans_on(dataset, self.dataset_name, self.base_plans)}_{self.schedule.name}_step{step}"
        return nnunet_folder("nnUNet_preprocessed") / dataset / f"{name}.json"

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
            CILError: a step is not planned, or not for the configuration.
        """
        files = [self.plans_file(step) for step in range(len(self.schedule.steps))]
        plans = [self._step_plan(file) for file in files]
        results = nnunet_folder("nnUNet_results")
        models = []
        for step, (file, plan) in enumerate(zip(files, plans, strict=True)):
            following = plans[step + 1].previous if step + 1 < len(plans) else None
            used = following.trainer if following is not None and following.trainer else trainer
            folder = results / file.parent.name / f"{used}__{file.stem}__{self.configuration}"
            models.append(StepModel(used, step, self.configuration, file.stem, folder, plan))
        return models

    def _step_plan(self, file: Path) -> StepPlan:
        dataset_json = read_json(file.parent / "dataset.json", "Run 'nnUNetv2_plan_and_preprocess' first.")
        redo = f"Run 'nnunet_cil plan {self.dataset_name} {self.schedule_name} -p {self.base_plans}' first."
        plans = read_json(file, redo)
        if self.configuration not in plans["configurations"]:
            known = did_you_mean(self.configuration, plans["configurations"])
            raise CILError(f"The plans {file} have no configuration {self.configuration!r}{known}.")
        return read_step_plan(plans, dataset_json)

    def models(self) -> list[StepModel]:
        """Those of all trainers, a shared one once; in an order in which they can be trained."""
        models = {(m.trainer, m.step): m for trainer in self.trainers for m in self.models_of(trainer)}
        return sorted(models.values(), key=lambda m: m.step > 0)

    def train_commands(self, device: str) -> list[str]:
        """From plans to the last model, as one would type it."""
        following = self.models_of(self.trainers[0])[1:2]
        first = following[0].plan.previous.trainer if following and following[0].plan.previous else None
        plan = ["nnunet_cil", "plan", self.dataset_name, str(self.schedule_name), "-p", self.base_plans]
        plan += ["--step0-trainer", first] if first else []
        train = [
            ["nnUNetv2_train", *m.train_arguments(f), "-device", device] for f in self.folds for m in self.models()
        ]
        return [shlex.join(command) for command in [plan, *self._move_commands(plan), *train]]

    def _move_commands(self, plan: list[str]) -> list[list[str]]:
        """What preprocesses the further data sets with the moved plans; then the steps' plans can be written."""
        first, *others = self.data_sets
        commands = []
        for name in others:
            which = ["-d", str(dataset_id(name))]
            how = ["-c", self.configuration, "-plans_name", plans_on(name, first, self.base_plans)]
            commands += [["nnUNetv2_extract_fingerprint", *which], ["nnUNetv2_preprocess", *which, *how]]
        return [*commands, plan] if others else []


def is_trained(model: StepModel, fold: int | str) -> bool:
    """Whether the final checkpoint is there and whole."""
    return zipfile.is_zipfile(model.fold(fold) / "checkpoint_final.pth")


def is_finished(model: StepModel, fold: int | str) -> bool:
    """Whether it is trained and its validation cases are scored with the checkpoint that is there."""
    return is_trained(model, fold) and bool(validation_means(model.fold(fold)))


def is_begun(model: StepModel, fold: int | str) -> bool:
    """Whether there is a checkpoint that ``--c`` goes on from."""
    return any(model.fold(fold).glob("checkpoint_*.pth"))


def put_broken_aside(model: StepModel, fold: int | str) -> None:
    """Renames a final checkpoint that is not whole: nnU-Net would go on from it before any other, and fail."""
    file = model.fold(fold) / "checkpoint_final.pth"
    if file.is_file() and not is_trained(model, fold):
        file.replace(file.with_suffix(".broken"))


def check_trained(model: StepModel, fold: int | str) -> None:
    """Refuses a model that is not trained.

    Raises:
        CILError: with the command that trains it, or finishes its training.
    """
    if is_trained(model, fold):
        return
    command = shlex.join(["nnUNetv2_train", *model.train_arguments(fold)])
    step = f"Step {model.step} of {model.plan.schedule}"
    final = model.fold(fold) / "checkpoint_final.pth"
    if final.is_file():
        raise CILError(
            f"{final} is truncated or not a checkpoint. Restore it, or remove it and train {step} to its end with "
            f"'{command} --c'."
        )
    if is_begun(model, fold):
        raise CILError(
            f"{step} is not trained to its end with {model.trainer} in fold {fold}. Go on with '{command} --c'."
        )
    raise CILError(f"{step} is not trained with {model.trainer} in fold {fold}. Run '{command}'.")


def check_continues(model: StepModel, earlier: StepModel, fold: int | str) -> None:
    """Refuses a model that was trained on top of another one of the step before than is there now.

    Raises:
        CILError: with both hashes.
    """
    from nnunet_cil.training.state import StepState, file_sha256, read_checkpoint

    file = earlier.fold(fold) / "checkpoint_final.pth"
    state = StepState.from_checkpoint(read_checkpoint(model.fold(fold) / "checkpoint_final.pth"))
    if state is None:
        return
    was, now = str(state.lineage[-1].previous_sha256), file_sha256(file)
    if was != now:
        raise CILError(
            f"The model of step {earlier.step}, {file}, has changed since step {model.step} was trained on top of it (SHA-256 "
            f"{now[:12]}..., was {was[:12]}...). Restore it, or remove {model.fold(fold)} and train that step again."
        )
