"""An experiment as the user asks for it: trainers on a data set and a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nnunet_cil.errors import CILError
from nnunet_cil.files import shortened
from nnunet_cil.host.folders import known_dataset, logs_folder, nnunet_folder
from nnunet_cil.limits import is_fold
from nnunet_cil.names import is_path_component
from nnunet_cil.schedule import Schedule, load_schedule
from nnunet_cil.step_plans import step_plans_name
from nnunet_cil.workflows.plan.sequence_of_datasets import plans_on, step_data_sets


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Trainers that are run and scored on a data set and a schedule, over folds.

    Its steps need not be planned; ``PlannedExperiment.read`` reads their plans.

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

    def __post_init__(self) -> None:
        """Refuses what is no fold or cannot be a name, and a fold or trainer that is named twice or not at all.

        Raises:
            CILError: names it.
        """
        for fold in self.folds:
            if not is_fold(fold):
                raise CILError(f"{shortened(fold)} is not a fold. nnU-Net's folds are numbers from 0 on, and 'all'.")
        for trainer in self.trainers:
            if not trainer.isidentifier():
                raise CILError(f"{shortened(trainer)} is not a trainer: a trainer has the name of a Python class.")
        for what, text in (("configuration", self.configuration), ("name of plans", self.base_plans)):
            if not is_path_component(text):
                raise CILError(f"{shortened(text)} is not a {what}: it cannot name a file or folder.")
        for what, names in (("fold", self.folds), ("trainer", self.trainers)):
            if not names:
                raise CILError(f"Name a {what}.")
            for name in names:
                if names.count(name) > 1:
                    raise CILError(f"The {what} {name} is named twice. Name each once.")

    @cached_property
    def dataset_name(self) -> str:
        """Returns nnU-Net's name of the data set, which need not be preprocessed yet."""
        return known_dataset(self.dataset)

    @cached_property
    def schedule(self) -> Schedule:
        """Loads and checks the schedule."""
        return load_schedule(self.schedule_name)

    @property
    def num_steps(self) -> int:
        """Returns how many steps the schedule has."""
        return len(self.schedule.steps)

    @property
    def last_step(self) -> int:
        """Returns the index of the schedule's last step."""
        return self.num_steps - 1

    @cached_property
    def step_data_sets(self) -> tuple[str, ...]:
        """Returns nnU-Net's name of each step's data set."""
        return step_data_sets(self.schedule, self.dataset_name)

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Returns each data set once, the first step's first."""
        return tuple(dict.fromkeys(self.step_data_sets))

    def plans_file(self, step: int) -> Path:
        """Returns the plans file of a step, planned or not."""
        base = self.base_plans_file(self.step_data_sets[step])
        return base.with_stem(step_plans_name(base.stem, self.schedule.name, step))

    def base_plans_file(self, dataset: str) -> Path:
        """Returns the file of the plans that a data set's steps copy, there or not."""
        name = plans_on(dataset, self.dataset_name, self.base_plans)
        return nnunet_folder("nnUNet_preprocessed") / dataset / f"{name}.json"

    @property
    def name(self) -> str:
        """Returns the name of a folder that belongs to the experiment, whatever the trainers."""
        return f"{self.base_plans}_{self.schedule.name}__{self.configuration}"

    @property
    def logs(self) -> Path:
        """Returns the folder that takes the output of nnU-Net's commands, whatever the models are scored on."""
        return logs_folder(self.dataset_name)

    @property
    def arguments(self) -> list[str]:
        """Returns the arguments of ``nnunet_cil run``, ``status`` and ``evaluate`` that describe the experiment."""
        folds = [str(fold) for fold in self.folds]
        what = [self.dataset_name, self.configuration, *folds, str(self.schedule_name)]
        return [*what, "-tr", *self.trainers, "-p", self.base_plans]
