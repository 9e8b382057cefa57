"""``nnunet_cil run --launcher``: a schedule as a graph of jobs."""

from __future__ import annotations

import hashlib

from nnunet_cil.errors import CILError
from nnunet_cil.workflows.evaluate.cases import passes_over_test_cases
from nnunet_cil.workflows.evaluate.evaluate import evaluated
from nnunet_cil.workflows.evaluate.options import EvaluationOptions, evaluate_command
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.planned_experiment import PlannedExperiment
from nnunet_cil.workflows.run.jobs import Job, own_command_job, training_job
from nnunet_cil.workflows.run.options import TrainingOptions
from nnunet_cil.workflows.run.run import check_request, preprocessing_commands, write_plans
from nnunet_cil.workflows.run.trainings import claim_volumes, unfinished_trainings


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
