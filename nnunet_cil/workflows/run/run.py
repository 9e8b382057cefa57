"""``nnunet_cil run``: a whole schedule with nnU-Net's own commands."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.files import read_json
from nnunet_cil.host.commands import train, user_environment
from nnunet_cil.host.dataset_json import preprocessed_or_raw
from nnunet_cil.host.folders import fold_folder, nnunet_folder
from nnunet_cil.host.plans_files import is_cascade, read_plans, stages
from nnunet_cil.host.preprocess import is_planned_as_cascade, missing_commands, preprocess, recover
from nnunet_cil.locks import Lock
from nnunet_cil.next_stage import refuse_unvalidated
from nnunet_cil.step_plans import plan_steps
from nnunet_cil.training.catalogue import check_cascade, check_data, refuse_kept_cases, trainer_class
from nnunet_cil.training.hyperparameters import settable
from nnunet_cil.workflows.evaluate.cases import check_test_cases
from nnunet_cil.workflows.evaluate.cases_to_score import check_test_files
from nnunet_cil.workflows.evaluate.evaluate import Evaluation, evaluate
from nnunet_cil.workflows.evaluate.options import EvaluationOptions, evaluate_command
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.fold_records import current_cases
from nnunet_cil.workflows.plan.fold_checks import check_raw_folds
from nnunet_cil.workflows.plan.grids import check_training_grids
from nnunet_cil.workflows.plan.plan import PlannedTrainings, write_step_plans
from nnunet_cil.workflows.plan.sequence_of_datasets import check_data_sets, move_plans, plans_on
from nnunet_cil.workflows.plan.step_files import NAME_REMEDY, check_length, planned_first_trainer, without_kept
from nnunet_cil.workflows.planned_experiment import PlannedExperiment, folds_before
from nnunet_cil.workflows.run.options import TrainingOptions
from nnunet_cil.workflows.run.trainings import Training, claim_volumes, unfinished_trainings

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL

DEFAULT_FIRST_TRAINER = "nnUNetTrainerPGCD"
"""Step 0 is nnU-Net's own training whatever the trainer; under one name, methods that come later can share it."""

logger = logging.getLogger(__name__)


def run(experiment: Experiment, training: TrainingOptions, evaluation: EvaluationOptions) -> Evaluation | None:
    """Preprocesses, plans, trains every step in order, predicts, scores; skips what is finished, goes on with the rest.

    Args:
        experiment: step 0 is shared by its trainers.
        training: which steps to train, and how; nothing is scored unless the schedule's last is among them.
        evaluation: as for ``evaluate``.

    Returns:
        What ``evaluate`` returns; None if the schedule is not finished.

    Raises:
        CILError: something is missing, or one of the commands failed.
    """
    recover(experiment.dataset_name, experiment.base_plans)
    for note in check_request(experiment, training, evaluation):
        logger.info(f"Note on the test cases: {note}")
    with running(experiment):
        return _run(experiment, training, evaluation)


def check_request(experiment: Experiment, training: TrainingOptions, evaluation: EvaluationOptions) -> list[str]:
    """Refuses what cannot work as it is asked for, before anything is written.

    Returns:
        Notes on the test cases.

    Raises:
        CILError: no such step, a name that is too long, or no cases that can be scored.
    """
    training.check_steps(experiment)
    for step in range(experiment.num_steps):
        trainers = {*experiment.trainers, DEFAULT_FIRST_TRAINER}
        check_length(experiment.plans_file(step).stem, [experiment.configuration], sorted(trainers), NAME_REMEDY)
    _check_trainers(experiment)
    if not training.reaches_the_end(experiment):
        return []
    check_test_cases(experiment, evaluation)
    return check_test_files(experiment, evaluation)


@contextmanager
def running(experiment: Experiment) -> Iterator[None]:
    """Lets one ``run`` at a time train an experiment's trainers in its folds. Others may run beside it, and share step 0.

    Raises:
        CILError: another one does; says which.
    """
    with ExitStack() as stack:
        for trainer in experiment.trainers:
            for fold in experiment.folds:
                file = experiment.logs / f".run_{trainer}__{experiment.name}_fold{fold}.json"
                what = f"{trainer} in fold {fold} of {experiment.schedule.name}"
                stack.enter_context(Lock(file, what).held())
        yield


def _run(experiment: Experiment, training: TrainingOptions, evaluation: EvaluationOptions) -> Evaluation | None:
    logs = experiment.logs
    _preprocess_all(experiment, logs)
    planned = write_plans(experiment)
    if _first_trainer(experiment) is None and len(experiment.trainers) > 1:
        logger.info(
            "Each trainer trains a step 0 of its own, as it was planned ('nnunet_cil plan' without --step0-trainer)"
        )
    todo = unfinished_trainings(planned, training)
    num_trainings = sum(len(training.select(s.models())) * len(s.experiment.folds) for s in planned.stages)
    logger.info(f"{num_trainings} trainings, {len(todo)} to do")
    claim_volumes(planned, todo)
    train_all(todo, logs)
    return evaluate(experiment, evaluation, waits=True) if training.reaches_the_end(experiment) else None


def train_all(todo: Sequence[Training], logs: Path) -> None:
    """Trains one after the other, with a bar over the epochs of each, and the time that is left for all.

    Raises:
        CILError: a training failed.
    """
    for index, one in enumerate(todo):
        number = f"[{index + 1}/{len(todo)}]"
        one.do(partial(_train_one, one, number, logs, sum(later.epochs_left for later in todo[index + 1 :])))


def _train_one(one: Training, number: str, logs: Path, epochs_after: int) -> None:
    logger.info(f"{number} {one.command}")
    train(one.arguments, user_environment(), logs / f"{one.model.name}.txt", one.num_epochs, epochs_after)


def remaining_commands(experiment: Experiment, training: TrainingOptions, evaluation: EvaluationOptions) -> list[str]:
    """Returns what ``run`` would call, in order, ready for a job script. Writes the steps' plans, trains nothing."""
    check_request(experiment, training, evaluation)
    planned = write_plans(experiment)
    commands = [*preprocessing_commands(experiment), *(t.command for t in unfinished_trainings(planned, training))]
    if training.reaches_the_end(experiment):
        commands.append(shlex.join(evaluate_command(experiment, evaluation)))
    return commands


def preprocessing_commands(experiment: Experiment) -> list[str]:
    """Returns nnU-Net's commands that are left before the planned steps can be trained."""
    first = experiment.dataset_name
    plans = {name: plans_on(name, first, experiment.base_plans) for name in experiment.data_sets}
    return [shlex.join(c) for d, p in plans.items() for c in missing_commands(d, experiment.configuration, p)]


def write_plans(experiment: Experiment) -> PlannedExperiment:
    """Writes the steps' plans, once it is sure that the trainers can learn them; returns the experiment with its plans."""
    _check_configuration(experiment)
    _check_trainers(experiment)
    first = _first_trainer(experiment)
    trainings = PlannedTrainings(
        configuration=experiment.configuration, folds=_trained_folds(experiment), trainers=tuple(experiment.trainers)
    )
    write_step_plans(
        experiment.dataset_name,
        experiment.schedule,
        base_plans=experiment.base_plans,
        first_trainer=first,
        trainings=trainings,
    )
    return PlannedExperiment.read(experiment)


def _trained_folds(experiment: Experiment) -> tuple[int | str, ...]:
    """Returns the folds in which something is trained: before a cascade all of them.

    Raises:
        CILError: no fold validates a training case of the cascade.
    """
    file = experiment.base_plans_file(experiment.dataset_name)
    if not file.is_file() or len(stages(read_plans(file, ""), experiment.configuration)) == 1:
        return experiment.folds
    folds = folds_before(experiment)
    for name in experiment.data_sets:
        cases = [current_cases(name, fold) for fold in folds if fold != "all"]
        validated = {case for fold in cases for case in fold.validation}
        refuse_unvalidated(
            {case for fold in experiment.folds for case in current_cases(name, fold).training} - validated
        )
    return tuple(dict.fromkeys((*folds, *experiment.folds)))


def _preprocess_all(experiment: Experiment, logs: Path) -> None:
    """Preprocesses every data set, the further ones with the first one's plans. What cannot work is said before."""
    _check_configuration(experiment)
    _check_trainers(experiment)
    first, *others = experiment.data_sets
    check_data_sets(experiment.schedule, experiment.step_data_sets, experiment.base_plans)
    _check_steps(experiment)
    check_raw_folds(experiment.data_sets, experiment.folds)
    for name in experiment.data_sets:
        if not (nnunet_folder("nnUNet_preprocessed") / name / "gt_segmentations").is_dir():  # else plan does it
            check_training_grids(name, preprocessed_or_raw(name), "")
    preprocess(first, experiment.configuration, experiment.base_plans, logs)
    if others:
        move_plans(experiment.step_data_sets, experiment.base_plans)
    for name in others:
        moved = plans_on(name, first, experiment.base_plans)
        preprocess(name, experiment.configuration, moved, logs)


def _check_configuration(experiment: Experiment) -> None:
    """Checks that the base plans have the configuration, and what a cascade needs; nnU-Net's own may not be there yet."""
    file = experiment.base_plans_file(experiment.dataset_name)
    known = read_json(file, "").get("configurations") if file.is_file() else None
    if not isinstance(known, dict):
        return  # planning says what is wrong
    asked = experiment.configuration
    if asked not in known:
        raise CILError(f"The plans {file} have no configuration {asked!r}{did_you_mean(asked, known)}.")
    if isinstance(known[asked], dict) and known[asked].get("previous_stage"):
        stages(read_plans(file, ""), asked)


def _is_cascade(experiment: Experiment) -> bool:
    """Tells whether a cascade is asked for; where its plans are not there yet, as nnU-Net is going to make them."""
    file = experiment.base_plans_file(experiment.dataset_name)
    if not file.is_file():
        return is_planned_as_cascade(experiment.configuration)
    return is_cascade(read_plans(file, ""), experiment.configuration)


def _check_trainers(experiment: Experiment) -> None:
    """Checks that every trainer can learn every step that it is asked for: it has the hyper-parameters, and the data."""
    name, steps = experiment.schedule.name, experiment.schedule.steps
    where = f"Schedule {name}"
    first = _first_trainer(experiment)
    if first is not None:
        _check_first_step(trainer_class(first), experiment.trainers, _to_check(experiment, first, 0), where)
    for trainer in map(trainer_class, experiment.trainers):
        if _is_cascade(experiment):
            refuse_kept_cases(trainer, experiment.schedule.cases == "disjoint" and experiment.num_steps > 1)
        for index in range(0 if first is None else 1, len(steps)):
            trainer.check_hyperparameters(_to_check(experiment, trainer.__name__, index), where)
        if trainer.needs_old_data and len(experiment.data_sets) > 1:
            raise CILError(
                f"{trainer.__name__} needs the data of the earlier steps, but {name} learns from "
                f"{', '.join(experiment.data_sets)}, one after the other. Use another trainer."
            )


def _check_first_step(
    first: type[nnUNetTrainerCIL], trainers: Iterable[str], values: Mapping[str, Any], where: str
) -> None:
    """Refuses hyper-parameters of step 0 that its trainer does not take; says where those of another one belong.

    Args:
        first: that trains step 0 for all.
        trainers: that are asked for.
        values: that the schedule sets for step 0.
        where: the schedule, for the message.
    """
    of_others = {name for trainer in map(trainer_class, trainers) for name in settable(trainer)} - set(settable(first))
    first.check_hyperparameters({name: value for name, value in values.items() if name not in of_others}, where)
    try:
        first.check_hyperparameters(values, where)
    except CILError as error:
        raise CILError(
            f"{error} It trains step 0 for all trainers; another trainer's hyper-parameters belong in the later steps."
        ) from error


def _to_check(experiment: Experiment, trainer: str, step: int) -> dict[str, Any]:
    """Returns the hyper-parameters of a step, but for those with which its training has begun in every fold."""
    file, values = experiment.plans_file(step), experiment.schedule.steps[step].hyperparameters
    folders = [
        fold_folder(file.parent.name, trainer, file.stem, experiment.configuration, fold) for fold in experiment.folds
    ]
    has_begun = all(any(folder.glob("checkpoint_*.pth")) for folder in folders)
    return without_kept(values, file) if has_begun else dict(values)


def _check_steps(experiment: Experiment) -> None:
    """Checks that every trainer can learn every step, as far as dataset.json tells: regions have no background."""
    datasets, first = experiment.step_data_sets, _first_trainer(experiment)
    contents = [preprocessed_or_raw(name) for name in datasets]
    names = [experiment.plans_file(step).stem for step in range(experiment.num_steps)]
    cases = [() if experiment.schedule.cases == "disjoint" else None] * len(names)  # they are dealt out by planning
    steps, cascade = plan_steps(experiment.schedule, datasets, contents, names, cases, first), _is_cascade(experiment)
    for trainer in map(trainer_class, experiment.trainers):
        for step, dataset in zip(steps, datasets, strict=True):
            if step.step > 0 or first is None:
                check_data(trainer, step, dataset)
            if cascade:
                check_cascade(trainer, step)


def _first_trainer(experiment: Experiment) -> str | None:
    """Returns step 0's trainer; None: each its own. Where plans are there already, whose step 0 is continued stays."""
    if experiment.last_step == 0:  # nothing continues from it
        return None
    if (file := experiment.plans_file(1)).is_file():
        return planned_first_trainer(file)
    return DEFAULT_FIRST_TRAINER
