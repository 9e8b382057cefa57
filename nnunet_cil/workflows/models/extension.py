"""An extension of a model: how it was asked for, and what was planned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_cil.step_plans import StepPlan
from nnunet_cil.workflows.models.trained_model import TrainedModel
from nnunet_cil.workflows.plan.compatibility import Note


@dataclass(frozen=True, kw_only=True)
class ExtendOptions:
    """Says how a model is to be extended.

    Attributes:
        trainer: the class name of the trainer that is to learn the step.
        classes: the classes to learn; empty for all that the model does not know.
        refine: classes that model and data set both have, the same organ; their labels are used.
        configuration: what the user takes the model's configuration for; None for its own.
        folds: the folds to continue; empty for all that are trained.
        name: the step's name; empty for the new classes' names, or the refined ones'.
        plans_name: the name of the moved plans, before the step's name; empty: the model's with ``From`` and its data set's ID.
        training: overrides of nnU-Net's training, as in a schedule.
        hyperparameters: hyper-parameters of that trainer, as in a schedule.
        force: go on where model and data set differ in a way that blocks otherwise.
        trusted: packages besides nnU-Net's own whose classes the model's plans may name.
    """

    trainer: str = "nnUNetTrainerPGCD"
    classes: tuple[str, ...] = ()
    refine: tuple[str, ...] = ()
    configuration: str | None = None
    folds: tuple[str, ...] = ()
    name: str = ""
    plans_name: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False
    trusted: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """Returns what follows model and data set on the command line."""
        settings = {"--training": self.training, "--hyperparameters": self.hyperparameters}
        given: dict[str, Sequence[str]] = {
            "-tr": [self.trainer],
            "--classes": self.classes,
            "--refine": self.refine,
            "-c": [self.configuration] if self.configuration else [],
            "-f": self.folds,
            "--name": [self.name] if self.name else [],
            "-p": [self.plans_name] if self.plans_name else [],
            **{option: [f"{k}={json.dumps(v)}" for k, v in values.items()] for option, values in settings.items()},
            "--trust-package": self.trusted,
        }
        words = [word for option, values in given.items() if values for word in (option, *values)]
        return [*words, *(["--force"] if self.force else [])]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A model that is continued.

    Attributes:
        model: read.
        folds: that are trained.
    """

    model: TrainedModel
    folds: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Extension:
    """The planned step of an extension, and the next commands.

    Attributes:
        stages: what is continued, in order: before a cascade the model whose predictions it sees.
        trainer: the class name of the trainer that is to learn the step.
        dataset: nnU-Net's name of the data set.
        plan: what the step learns.
        plans_name: the name of the step's plans.
        file: the file of the step's plans.
        notes: on the compatibility of model and data set.
    """

    stages: tuple[Stage, ...]
    trainer: str
    dataset: str
    plan: StepPlan
    plans_name: str
    file: Path
    notes: tuple[Note, ...]

    @property
    def model(self) -> TrainedModel:
        """The model that was asked for."""
        return self.stages[-1].model

    @property
    def folds(self) -> tuple[str, ...]:
        """Its folds that are trained."""
        return self.stages[-1].folds
