"""Extensions of one base model, each by other cases, another length or another trainer, scored on validation cases.

The schedule has two steps, of other patients each: step 0 is the model that is extended, nnU-Net's own training, step 1 the
extension. (Step 0 leaves prototypes, which a model from elsewhere lacks; those that an extension takes from the predictions of
such a model are nearly the same: benchmarks/notebook/2026-11-25-extending-a-plain-model.md.) The table (``scores.py``) has the
rows of benchmarks/study.py, and with ``agreement`` as their cases the Dice of each old class between the base model's predictions
and the extension's, as ``nnunet_cil compare`` has it.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from scores import Dice, Row, mean_dice, read_scores
from step_variants import RowName, alone, train_variant, variant
from study import Study, study_of, study_parser

from nnunet_cil.errors import CILError
from nnunet_cil.host.folders import nnunet_folder, num_processes
from nnunet_cil.host.processes import end_with_parent
from nnunet_cil.limits import DEFAULT_TOLERANCE_MM
from nnunet_cil.schedule import Schedule, load_schedule
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.workflows.evaluate.cases import validation_set
from nnunet_cil.workflows.evaluate.predict import Prediction, predictions_of
from nnunet_cil.workflows.evaluate.score import score_cases
from nnunet_cil.workflows.fold_records import check_validation_cases
from nnunet_cil.workflows.model_fold import ModelFold
from nnunet_cil.workflows.planned_experiment import PlannedExperiment

BASE_TRAINER = "nnUNetTrainerPGCD"
ALONE_TRAINER = "nnUNetTrainerFineTune"
ALONE = "Alone"
"""The method of rows of a model of the new classes alone, trained from scratch."""

AGREEMENT = "agreement"
"""The cases of rows that compare with the base model's predictions."""


@dataclass(frozen=True, kw_only=True)
class Extension:
    """One training of the new classes.

    Attributes:
        method: a trainer without nnUNetTrainer; ``ALONE`` for a model of its own.
        setting: as the table names it.
        suffix: of the plans' name; one a setting.
        num_epochs: length.
        cases: the training cases; None for all of the step.
        initial_lr: learning rate that it begins with; None for the step's.
    """

    method: str
    setting: str
    suffix: str
    num_epochs: int
    cases: tuple[str, ...] | None = None
    initial_lr: float | None = None

    @property
    def is_alone(self) -> bool:
        """Tells whether it continues no model."""
        return self.method == ALONE

    @property
    def trainer(self) -> str:
        """Returns the trainer's name."""
        return ALONE_TRAINER if self.is_alone else f"nnUNetTrainer{self.method}"

    def plan(self, step: StepPlan) -> StepPlan:
        """Returns its plan, a variant of the schedule's step."""
        assert step.previous is not None
        rate = {} if self.initial_lr is None else {"initial_lr": self.initial_lr}
        found = replace(
            step,
            training={**step.training, "num_epochs": self.num_epochs, **rate},
            cases=step.cases if self.cases is None else self.cases,
            previous=replace(step.previous, trainer=BASE_TRAINER),
        )
        return alone(found) if self.is_alone else found


@dataclass(frozen=True, kw_only=True)
class Extensions:
    """The extensions of a schedule's first model.

    Attributes:
        study: the experiment, whose only trainer is ``BASE_TRAINER``, and the table that takes the scores.
        planned: the plans of its steps.
    """

    study: Study
    planned: PlannedExperiment

    @classmethod
    def of(cls, args: argparse.Namespace) -> Extensions:
        """Plans the steps, and trains the base model where it is not trained; the arguments are those of ``parser``."""
        study = study_of(args, [BASE_TRAINER])
        check_schedule(study.experiment.schedule)
        study.nnunet_cil_run(BASE_TRAINER, "--stop-after", "0")
        return cls(study=study, planned=PlannedExperiment.read(study.experiment))

    def run(self, fold: int, extensions: Sequence[Extension]) -> None:
        """Trains what is not trained in a fold, and adds the scores of each to the table as they come."""
        base = self.planned.models_of(BASE_TRAINER)[0].fold(fold)
        predicted = self.predictions(base, "base")
        self.study.add(self.rows(base, predicted, RowName(method="", setting="", cases="validation")))
        for extension in extensions:
            plan = extension.plan(self.planned.plans[1])
            model = variant(self.planned, 1, plan, extension.trainer, extension.suffix).fold(fold)
            if not extension.is_alone and model.is_trained:
                model.check_continues(base)
            train_variant(model, self.study.device, self.study.experiment.logs)
            name = RowName(method=extension.method, setting=extension.setting, cases="validation")
            own = self.predictions(model, f"{extension.method}_{extension.suffix}")
            rows = self.rows(model, own, name)
            if not extension.is_alone:
                rows += self.rows(model, compared(own, predicted, base), replace(name, cases=AGREEMENT))
            self.study.add(rows)

    def predictions(self, model: ModelFold, name: str) -> list[Prediction]:
        """Returns a model's predictions of the fold's validation cases, on none of which any step has trained."""
        check_validation_cases([model], self.study.experiment.data_sets)
        e, device = self.study.experiment, self.study.device
        output = nnunet_folder("nnUNet_results") / e.dataset_name / "evaluation" / f"{e.name}_extensions" / name
        tests = [validation_set(e.dataset_name, model.fold, output)]
        return predictions_of(model, tests, output, checkpoint_sha256=model.checkpoint_sha256(), device=device)

    def rows(self, model: ModelFold, predictions: Sequence[Prediction], name: RowName) -> list[Row]:
        """Returns the rows of a model's predictions."""
        with ProcessPoolExecutor(num_processes(), initializer=end_with_parent, initargs=(os.getpid(),)) as pool:
            found = score_cases(predictions, model.plan.labels, DEFAULT_TOLERANCE_MM, pool, model.model.reader)
        return list(map(partial(name.row, model), found))


def compared(own: Sequence[Prediction], base: Sequence[Prediction], model: ModelFold) -> list[Prediction]:
    """Returns predictions that are held against the base model's, in place of the reference labels."""
    labels, classes = model.plan.labels, model.plan.seen_classes
    return [
        replace(p, case=replace(p.case, reference=b.file, labels=labels, classes=classes))
        for p, b in zip(own, base, strict=True)
    ]


def check_schedule(schedule: Schedule) -> None:
    """Refuses a schedule of another form."""
    if len(schedule.steps) != 2 or schedule.cases != "disjoint":
        raise CILError(f"{schedule.name} must have two steps and disjoint cases: the base model, and its extension.")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser of what extensions run on, of their table, and of ``--table``."""
    found = study_parser(description)
    found.set_defaults(folds=[0], cases=["validation"])
    found.add_argument("--table", action="store_true", help="train nothing: print the table of what is stored")
    return found


def table(
    file: Path, schedule: Schedule, columns: Sequence[str], cells: Mapping[tuple[str, str], Sequence[str]]
) -> str:
    """Returns Markdown: mean Dice over the validation cases, in the mean over the folds.

    Args:
        file: the table of the scores.
        schedule: of two steps.
        columns: the names of the cells.
        cells: (method, setting) -> what stands before its scores, in the order of the rows; several settings with the same
            cells are one row, their mean and from the smallest to the largest.

    Raises:
        CILError: there is no such table.
    """
    if not file.is_file():
        raise CILError(f"{file} is missing: nothing was measured yet.")
    old, new = (list(step.classes) for step in schedule.steps)
    lines = [
        f"| {' | '.join([*columns, *old, *new, 'old', 'new', 'agreement'])} |",
        "|" + "---|" * (len(columns) + len(old) + len(new) + 3),
    ]
    scores = {cases: read_scores(file, cases) for cases in ("validation", AGREEMENT)}
    rows: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for key, before in cells.items():
        rows.setdefault(tuple(before), []).append(key)
    for before, keys in rows.items():
        names = [f"{method}({setting})_step1" if method else "step0" for method, setting in keys]
        folds = [dice for name in names for dice in scores["validation"].get(name, {}).values()]
        if not folds:
            continue
        agreements = [dice for name in names for dice in scores[AGREEMENT].get(name, {}).values()]
        groups = [*([name] for name in (*old, *new)), old, new]
        values = [*(spread(group_means(folds, group)) for group in groups), spread(group_means(agreements, old))]
        lines.append(f"| {' | '.join([*before, *values])} |")
    return "\n".join(lines)


def group_means(folds: Sequence[Dice], group: Sequence[str]) -> Iterator[float]:
    """Yields the mean Dice over the classes of a group, of each training that knows them all."""
    for dice in folds:
        if set(group) <= set(dice):
            means = mean_dice(dice)
            yield float(np.mean([means[name] for name in group]))


def spread(values: Iterator[float]) -> str:
    """Returns the mean, and smallest to largest where there are several; blank for none."""
    found = [value for value in values if not math.isnan(value)]
    if not found:
        return ""
    text = f"{np.mean(found):.3f}"
    return f"{text} ({min(found):.3f} to {max(found):.3f})" if len(found) > 1 else text


def schedule_of(args: argparse.Namespace) -> Schedule:
    """Returns the schedule that the command line names."""
    from study_tables import schedule_file

    return load_schedule(schedule_file(args.schedule))
