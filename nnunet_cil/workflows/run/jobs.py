"""``nnunet_cil run --launcher``: a schedule as a graph of jobs."""

from __future__ import annotations

import hashlib
import shlex
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.host.commands import CommandError, call, user_environment
from nnunet_cil.workflows.evaluate.cases import passes_over_test_cases
from nnunet_cil.workflows.evaluate.evaluate import evaluated
from nnunet_cil.workflows.evaluate.options import EvaluationOptions, evaluate_command
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.planned_experiment import PlannedExperiment
from nnunet_cil.workflows.run.options import TrainingOptions
from nnunet_cil.workflows.run.run import check_request, preprocessing_commands, write_plans
from nnunet_cil.workflows.run.trainings import Training, claim_volumes, unfinished_trainings


@dataclass(frozen=True, kw_only=True)
class Job:
    """One process of the graph; submitit calls it there.

    Attributes:
        name: unique in the graph.
        command: as one would type it, for messages.
        function: does it. Pickled; called again where Slurm starts the job again, so it looks itself where to go on.
        log: takes the output.
        after: the names of the jobs of the graph that must have succeeded before.
    """

    name: str
    command: str
    function: Callable[[], None]
    log: Path
    after: tuple[str, ...] = ()

    def __call__(self) -> None:
        """Runs the job; whatever goes wrong is in the log."""
        try:
            self.function()
        except CommandError:
            raise
        except Exception:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(traceback.format_exc())
            raise

    def checkpoint(self) -> Any:
        """Returns what submitit queues where the job's time is up: the same again."""
        return import_submitit().helpers.DelayedSubmission(self)


def job_graph(experiment: Experiment, training: TrainingOptions, evaluation: EvaluationOptions) -> list[Job]:
    """Returns what ``run`` is left to do, each job behind those that it comes after. Writes the steps' plans.

    Args:
        experiment: as for ``run``.
        training: as for ``run``.
        evaluation: as for ``run``.

    Raises:
        CILError: the configuration is not preprocessed, or what ``run`` refuses.
    """
    check_request(experiment, training, evaluation)
    planned = write_plans(experiment)
    if missing := preprocessing_commands(experiment):
        commands = "\n".join(f"  {line}" for line in missing)
        raise CILError(f"{experiment.configuration} is not preprocessed yet. Run\n{commands}\nand then this again.")
    jobs = _training_jobs(planned, training)
    if training.reaches_the_end(experiment) and (jobs or evaluated(experiment, evaluation) is None):
        jobs.append(_evaluation_job(experiment, evaluation, after=tuple(job.name for job in jobs)))
    return jobs


def _training_jobs(planned: PlannedExperiment, options: TrainingOptions) -> list[Job]:
    """Returns a job a training that is left, behind those of the models which it continues from, or whose predictions it sees."""
    logs = planned.experiment.logs
    todo = {training.model.name: training for training in unfinished_trainings(planned, options)}
    claim_volumes(planned, todo.values())
    pairs = [pair for stage in planned.stages for pair in stage.successions()]
    previous = {later.name: [earlier.name] for earlier, later in pairs}
    for model in planned.model_folds():
        previous.setdefault(model.name, []).extend(before.name for before in planned.folds_before(model))
    jobs = []
    for name, training in todo.items():
        after = tuple(p for p in previous.get(name, ()) if p in todo)
        jobs.append(training_job(training, logs, after=after))
    return jobs


def training_job(training: Training, logs: Path, *, after: tuple[str, ...] = ()) -> Job:
    """Returns the job that does a training."""
    name = training.model.name
    log = logs / f"{name}.txt"
    return Job(name=name, command=training.command, function=partial(train_model, training, log), log=log, after=after)


def own_command_job(name: str, command: Sequence[str], logs: Path, *, after: tuple[str, ...]) -> Job:
    """Returns the job that calls ``nnunet_cil``; the command begins with that word."""
    log = logs / f"{name}.txt"
    function = partial(call_own_command, list(command[1:]), log)
    return Job(name=name, command=shlex.join(command), function=function, log=log, after=after)


_LONGEST = 80
"""Characters of folds and trainers in the name of a job, which its log has, too; a file's name has at most 255 bytes."""


def _evaluation_job(experiment: Experiment, options: EvaluationOptions, *, after: tuple[str, ...]) -> Job:
    """Returns the job that scores all models."""
    trainers = [trainer.removeprefix("nnUNetTrainer") for trainer in experiment.trainers]
    which = _which_cases(experiment, options)
    what = "-".join(["fold", *map(str, experiment.folds), *trainers])
    if len(what) > _LONGEST:
        what = hashlib.sha256(what.encode()).hexdigest()[:8]
    name = "-".join(["evaluate", experiment.name, what, *which])
    return own_command_job(name, evaluate_command(experiment, options), experiment.logs, after=after)


def _which_cases(experiment: Experiment, options: EvaluationOptions) -> list[str]:
    """Returns the end of the name of the job that scores: another test set is another job."""
    paths = {"images": options.images, "labels": options.labels, "output": options.output}
    given = "\n".join(f"{key} {path}" for key, path in paths.items() if path is not None)
    validation = ["validation"] if passes_over_test_cases(experiment, options) else []
    return [*validation, *([hashlib.sha256(given.encode()).hexdigest()[:8]] if given else [])]


def train_model(training: Training, log: Path) -> None:
    """Calls ``nnUNetv2_train`` as the model's folder asks for when the job starts; does nothing if it is finished."""
    training.do(lambda: call("nnUNetv2_train", training.arguments, user_environment(), log))


def call_own_command(arguments: list[str], log: Path) -> None:
    """Calls ``nnunet_cil``."""
    call("nnunet_cil", arguments, user_environment(), log)


def import_submitit() -> ModuleType:
    """Imports submitit, which is optional.

    Raises:
        CILError: it is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise CILError("Install submitit: pip install submitit") from error
    return submitit
