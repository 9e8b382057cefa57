"""``nnunet_cil run`` and ``status``: a whole schedule with nnU-Net's own commands, and how far it is."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.tables import group_means, markdown
from nnunet_cil.schedule import Schedule, load_schedule
from nnunet_cil.workflows.commands import train, user_environment
from nnunet_cil.workflows.evaluate import Evaluation, evaluate
from nnunet_cil.workflows.folders import dataset_name, nnunet_folder
from nnunet_cil.workflows.models import StepModel, distinct, is_finished, is_trained, step_models
from nnunet_cil.workflows.plan import plan

DEFAULT_FIRST_TRAINER = "nnUNetTrainerPGCD"
"""Step 0 is nnU-Net's own training whatever the trainer; under one name, methods that come later can share it."""

DEFAULT_EPOCHS = 1000
"""nnU-Net's."""


@dataclass(frozen=True)
class Job:
    """One call of ``nnUNetv2_train``."""

    model: StepModel
    fold: int | str
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        """As one would type it."""
        return shlex.join(["nnUNetv2_train", *self.arguments])


def run(
    dataset: str,
    configuration: str,
    folds: Sequence[int | str],
    schedule_name: str | Path,
    trainers: Sequence[str],
    *,
    base_plans: str = "nnUNetPlans",
    start_from: int = 0,
    stop_after: int | None = None,
    images: Path | None = None,
    labels: Path | None = None,
    output: Path | None = None,
    device: str = "cuda",
    num_gpus: int = 1,
    say: Callable[[str], None] = lambda _line: None,
) -> Evaluation | None:
    """Plans, trains every step in order, predicts and scores. What is finished is skipped, what was interrupted goes on.

    Args:
        dataset: ID or name; preprocessed.
        configuration: nnU-Net's.
        folds: to train, one after the other.
        schedule_name: shipped name or file.
        trainers: step 0 is shared.
        base_plans: as for ``plan``.
        start_from: the first step to train; earlier ones must be there.
        stop_after: the last step to train; nothing is scored unless it is the schedule's last.
        images: as for ``evaluate``.
        labels: as for ``evaluate``.
        output: as for ``evaluate``; also takes the logs.
        device: as nnU-Net's.
        num_gpus: as nnU-Net's, for training.
        say: takes one line of progress at a time.

    Returns:
        What ``evaluate`` found; None if the schedule is not finished.

    Raises:
        CILError: something is missing, or one of the commands failed.
    """
    schedule = load_schedule(schedule_name)
    name = dataset_name(dataset)
    write_plans(name, schedule_name, schedule, base_plans)
    models = planned_models(name, configuration, schedule, trainers, base_plans)
    chosen = _chosen(models, start_from, stop_after)
    todo = list(jobs(chosen, folds, _options(device, num_gpus)))
    logs = (output or nnunet_folder("nnUNet_results") / name) / "cil_logs"
    say(f"{len(chosen) * len(folds)} trainings, {len(todo)} to do")
    for number, job in enumerate(todo, start=1):
        say(f"[{number}/{len(todo)}] {job.command}")
        log = logs / f"{job.model.folder.name}_fold{job.fold}.txt"
        num_epochs = int(job.model.plan.training.get("num_epochs", DEFAULT_EPOCHS))
        train(list(job.arguments), user_environment(), log, num_epochs)
    if chosen[-1].step < len(schedule.steps) - 1:
        return None
    return evaluate(
        dataset,
        configuration,
        folds,
        schedule_name,
        trainers,
        base_plans=base_plans,
        images=images,
        labels=labels,
        output=output,
        device=device,
        say=say,
    )


def remaining_commands(
    dataset: str,
    configuration: str,
    folds: Sequence[int | str],
    schedule_name: str | Path,
    trainers: Sequence[str],
    *,
    base_plans: str = "nnUNetPlans",
    start_from: int = 0,
    stop_after: int | None = None,
    device: str = "cuda",
    num_gpus: int = 1,
) -> list[str]:
    """What ``run`` would call, in order, ready for a job script. Writes the steps' plans, trains nothing."""
    schedule = load_schedule(schedule_name)
    name = dataset_name(dataset)
    write_plans(name, schedule_name, schedule, base_plans)
    chosen = _chosen(planned_models(name, configuration, schedule, trainers, base_plans), start_from, stop_after)
    commands = [job.command for job in jobs(chosen, folds, _options(device, num_gpus))]
    if chosen[-1].step == len(schedule.steps) - 1:
        what = ["nnunet_cil", "evaluate", name, configuration, *map(str, folds), str(schedule_name), "-tr", *trainers]
        commands.append(shlex.join([*what, "-p", base_plans, "-device", device]))
    return commands


def _options(device: str, num_gpus: int) -> list[str]:
    return ["-device", device, *(["-num_gpus", str(num_gpus)] if num_gpus != 1 else [])]


def _chosen(models: Sequence[StepModel], start_from: int, stop_after: int | None) -> list[StepModel]:
    last = max(m.step for m in models)
    chosen = [m for m in models if start_from <= m.step <= (last if stop_after is None else stop_after)]
    if not chosen:
        raise CILError(
            f"{models[0].plan.schedule} has the steps 0 to {last}; none of them is left by the choice of steps."
        )
    return chosen


def write_plans(dataset: str, schedule_name: str | Path, schedule: Schedule, base_plans: str) -> None:
    """The steps' plans; where they are there already, whose step 0 is continued stays as it was."""
    file = nnunet_folder("nnUNet_preprocessed") / dataset / f"{base_plans}_{schedule.name}_step1.json"
    first: str | None = DEFAULT_FIRST_TRAINER
    if file.is_file():
        first = json.loads(file.read_text(encoding="utf-8"))["cil"]["previous"]["trainer"]
    plan(dataset, schedule_name, base_plans=base_plans, first_trainer=first)


def planned_models(
    dataset: str, configuration: str, schedule: Schedule, trainers: Sequence[str], base_plans: str
) -> list[StepModel]:
    """Every model of the trainers, a shared one once, in the order of training."""
    return distinct([step_models(dataset, configuration, schedule, t, base_plans) for t in trainers])


def jobs(models: Sequence[StepModel], folds: Sequence[int | str], options: Sequence[str] = ()) -> Iterator[Job]:
    """What is left to train, fold by fold, in order."""
    for fold in folds:
        for model in models:
            if is_finished(model, fold):
                continue
            going_on = []
            if is_trained(model, fold):
                going_on = ["--val"]
            elif any(model.fold(fold).glob("checkpoint_*.pth")):
                going_on = ["--c"]
            yield Job(model, fold, (*model.train_arguments(fold), *options, *going_on))


def status(
    dataset: str,
    configuration: str,
    folds: Sequence[int | str],
    schedule_name: str | Path,
    trainers: Sequence[str],
    *,
    base_plans: str = "nnUNetPlans",
) -> str:
    """A table of what is trained, running or missing, with the mean Dice on the validation cases."""
    schedule = load_schedule(schedule_name)
    models = planned_models(dataset_name(dataset), configuration, schedule, trainers, base_plans)
    rows = []
    for fold in folds:
        for model in models:
            scores = [f"{s:.3f}" if s == s else "" for s in _validation_scores(model, fold)]
            rows.append([str(fold), str(model.step), model.trainer, _state(model, fold), *scores])
    return markdown(["fold", "step", "trainer", "state", "old", "new", "all"], rows)


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
    means = json.loads((model.fold(fold) / "validation" / "summary.json").read_text(encoding="utf-8"))["mean"]
    labels = model.plan.labels
    scores = {name: float(means[str(labels[name])]["Dice"]) for name in model.plan.seen_classes}
    return group_means(scores, model.plan.old_classes, model.plan.new_classes)
