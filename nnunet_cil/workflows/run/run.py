"""``nnunet_cil run`` and ``status``: a whole schedule with nnU-Net's own commands, and how far it is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.tables import Table, group_means, number
from nnunet_cil.host.commands import train, user_environment
from nnunet_cil.host.folders import nnunet_folder
from nnunet_cil.host.preprocess import missing_commands, preprocess
from nnunet_cil.lineage import validation_means
from nnunet_cil.schedule import DEFAULT_EPOCHS
from nnunet_cil.training.catalogue import check_trainer_names, trainer_class
from nnunet_cil.workflows.evaluate.evaluate import Evaluation, evaluate
from nnunet_cil.workflows.evaluate.options import EvaluationOptions, evaluate_command
from nnunet_cil.workflows.evaluate.score import check_test_cases
from nnunet_cil.workflows.experiment import Experiment, StepModel, is_begun, is_finished, is_trained, put_broken_aside
from nnunet_cil.workflows.plan.plan import write_step_plans
from nnunet_cil.workflows.plan.sequence_of_datasets import check_data_sets, move_plans, plans_on
from nnunet_cil.workflows.plan.step_files import planned_first_trainer

DEFAULT_FIRST_TRAINER = "nnUNetTrainerPGCD"
"""Step 0 is nnU-Net's own training whatever the trainer; under one name, methods that come later can share it."""


@dataclass(frozen=True)
class Training:
    """One call of ``nnUNetv2_train``."""

    model: StepModel
    fold: int | str
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its log."""
        return f"{self.model.folder.name}_fold{self.fold}"

    @property
    def arguments(self) -> list[str]:
        """From the beginning, going on or just validating, as nnU-Net's folder is now."""
        going_on = []
        if is_trained(self.model, self.fold):
            going_on = ["--val"]
        elif is_begun(self.model, self.fold):
            going_on = ["--c"]
        return [*self.model.train_arguments(self.fold), *self.options, *going_on]

    @property
    def command(self) -> str:
        """As one would type it."""
        return shlex.join(["nnUNetv2_train", *self.arguments])


@dataclass(frozen=True)
class Choice:
    """Which of an experiment's models to train, and how.

    Attributes:
        start_from: the first step to train; earlier ones must be there.
        stop_after: the last step to train; None for the schedule's last.
        device: as nnU-Net's.
        num_gpus: as nnU-Net's, for training.
    """

    start_from: int = 0
    stop_after: int | None = None
    device: str = "cuda"
    num_gpus: int = 1

    def of(self, models: Sequence[StepModel]) -> list[StepModel]:
        """The models of the chosen steps.

        Raises:
            CILError: there are none.
        """
        last = max(m.step for m in models)
        end = last if self.stop_after is None else self.stop_after
        chosen = [m for m in models if self.start_from <= m.step <= end]
        if not chosen:
            raise CILError(
                f"{models[0].plan.schedule} has the steps 0 to {last}; none of them is left by the choice of steps."
            )
        return chosen

    def reaches_the_end(self, experiment: Experiment) -> bool:
        """Whether the last step is among the chosen ones."""
        return self.stop_after is None or self.stop_after >= experiment.last_step

    def options(self) -> list[str]:
        """For ``nnUNetv2_train``."""
        return ["-device", self.device, *(["-num_gpus", str(self.num_gpus)] if self.num_gpus != 1 else [])]


def run(
    experiment: Experiment,
    choice: Choice,
    options: EvaluationOptions,
    *,
    say: Callable[[str], None] = lambda _line: None,
) -> Evaluation | None:
    """Preprocesses, plans, trains every step in order, predicts, scores; skips what is finished, goes on with the rest.

    Args:
        experiment: step 0 is shared by its trainers.
        choice: of steps; nothing is scored unless the schedule's last is among them.
        options: as for ``evaluate``.
        say: takes one line of progress at a time.

    Returns:
        What ``evaluate`` found; None if the schedule is not finished.

    Raises:
        CILError: something is missing, or one of the commands failed.
    """
    logs = logs_folder(experiment)
    if choice.reaches_the_end(experiment):
        check_test_cases(experiment, options)
    _preprocess_all(experiment, logs)
    write_plans(experiment)
    if _first_trainer(experiment) is None and len(experiment.trainers) > 1:
        say("Each trainer trains a step 0 of its own, as it was planned ('nnunet_cil plan' without --step0-trainer)")
    chosen = choice.of(experiment.models())
    todo = list(trainings(chosen, experiment.folds, choice.options()))
    say(f"{len(chosen) * len(experiment.folds)} trainings, {len(todo)} to do")
    for index, training in enumerate(todo, start=1):
        put_broken_aside(training.model, training.fold)
        say(f"[{index}/{len(todo)}] {training.command}")
        num_epochs = int(training.model.plan.training.get("num_epochs", DEFAULT_EPOCHS))
        train(training.arguments, user_environment(), logs / f"{training.name}.txt", num_epochs)
    if not choice.reaches_the_end(experiment):
        return None
    return evaluate(experiment, options, say=say)


def _preprocess_all(experiment: Experiment, logs: Path) -> None:
    """The data set, or all of them, the further ones with the first one's plans. What cannot work is said before."""
    _check_trainers(experiment)
    first, *others = experiment.data_sets
    if others:
        check_data_sets(experiment.schedule, experiment.step_data_sets, experiment.base_plans)
    preprocess(first, experiment.configuration, experiment.base_plans, logs)
    if others:
        move_plans(experiment.step_data_sets, experiment.base_plans)
    for name in others:
        preprocess(name, experiment.configuration, plans_on(name, first, experiment.base_plans), logs)


def _check_trainers(experiment: Experiment) -> None:
    """Every trainer can learn every step that it is asked for: it has the hyper-parameters, and the data."""
    name, steps = experiment.schedule.name, experiment.schedule.steps
    where = f"Schedule {name}"
    first = _first_trainer(experiment)
    if first is not None:
        trainer = trainer_class(first)
        try:
            trainer.check_hyperparameters(steps[0].hyperparameters, where)
        except CILError as error:
            raise CILError(
                f"{error} It trains step 0 for all trainers; another trainer's hyper-parameters belong in the later steps."
            ) from error
    for trainer in map(trainer_class, experiment.trainers):
        for step in steps if first is None else steps[1:]:
            trainer.check_hyperparameters(step.hyperparameters, where)
        if trainer.needs_old_data and len(experiment.data_sets) > 1:
            raise CILError(
                f"{trainer.__name__} needs the data of the earlier steps, but {name} learns from "
                f"{', '.join(experiment.data_sets)}, one after the other. Use another trainer."
            )


def _first_trainer(experiment: Experiment) -> str | None:
    """Step 0's; None: each its own. Where plans are there already, whose step 0 is continued stays as it was."""
    if experiment.last_step > 0 and (file := experiment.plans_file(1)).is_file():
        return planned_first_trainer(file)
    return DEFAULT_FIRST_TRAINER


def remaining_commands(experiment: Experiment, choice: Choice, options: EvaluationOptions) -> list[str]:
    """What ``run`` would call, in order, ready for a job script. Writes the steps' plans, trains nothing."""
    if choice.reaches_the_end(experiment):
        check_test_cases(experiment, options)
    write_plans(experiment)
    commands = preprocessing_commands(experiment)
    commands += [t.command for t in trainings(choice.of(experiment.models()), experiment.folds, choice.options())]
    if choice.reaches_the_end(experiment):
        commands.append(shlex.join(evaluate_command(experiment, options)))
    return commands


def preprocessing_commands(experiment: Experiment) -> list[str]:
    """nnU-Net's that are left before the planned steps can be trained."""
    first = experiment.dataset_name
    plans = {name: plans_on(name, first, experiment.base_plans) for name in experiment.data_sets}
    return [shlex.join(c) for d, p in plans.items() for c in missing_commands(d, experiment.configuration, p)]


def logs_folder(experiment: Experiment) -> Path:
    """Where the output of nnU-Net's commands goes: beside the models, whatever they are scored on."""
    return nnunet_folder("nnUNet_results") / experiment.dataset_name / "cil_logs"


def write_plans(experiment: Experiment) -> None:
    """The steps' plans, once it is sure that the trainers can learn them."""
    _check_trainers(experiment)
    first = _first_trainer(experiment)
    write_step_plans(
        experiment.dataset_name, experiment.schedule, base_plans=experiment.base_plans, first_trainer=first
    )


def trainings(
    models: Sequence[StepModel], folds: Sequence[int | str], options: Sequence[str] = ()
) -> Iterator[Training]:
    """What is left to train, fold by fold, in order."""
    for fold in folds:
        for model in models:
            if not is_finished(model, fold):
                yield Training(model, fold, tuple(options))


def status(experiment: Experiment) -> str:
    """A table of what is trained, running or missing, with the mean Dice on the validation cases."""
    check_trainer_names(experiment.trainers)
    several = len(experiment.data_sets) > 1
    models = experiment.models()
    rows = []
    for fold in experiment.folds:
        for model in models:
            data_set = [model.folder.parent.name] if several else []
            scores = map(number, _validation_scores(model, fold))
            rows.append([str(fold), str(model.step), *data_set, model.trainer, _state(model, fold), *scores])
    header = ["fold", "step", *(["data set"] if several else []), "trainer", "state", "old", "new", "all"]
    return Table(header, rows).markdown()


def _state(model: StepModel, fold: int | str) -> str:
    if is_finished(model, fold):
        return "finished"
    if is_trained(model, fold):
        return "trained, not validated"
    logs = sorted(model.fold(fold).glob("training_log_*.txt"), key=lambda f: f.stat().st_mtime)
    epochs = re.findall(r": Epoch (\d+)\s*$", logs[-1].read_text(errors="replace"), re.M) if logs else []
    total = model.plan.training.get("num_epochs", DEFAULT_EPOCHS)
    return f"epoch {epochs[-1]} of {total}" if epochs else "missing"


def _validation_scores(model: StepModel, fold: int | str) -> tuple[float, float, float]:
    """Mean Dice over old, new and all classes, from nnU-Net's summary; NaN where there is none."""
    if not is_finished(model, fold):
        return (float("nan"),) * 3
    means = validation_means(model.fold(fold))
    labels = model.plan.labels
    scores = {n: float(means.get(str(labels[n]), {}).get("Dice", "nan")) for n in model.plan.seen_classes}
    return group_means(scores, model.plan.old_classes, model.plan.new_classes)
