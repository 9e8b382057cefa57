"""``nnunet_cil run --launcher``: a schedule as a graph of jobs, and submitit's processes for it on this machine."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.host.commands import CommandError, call, log_end, user_environment
from nnunet_cil.workflows.evaluate.evaluate import evaluated
from nnunet_cil.workflows.evaluate.options import EvaluationOptions, evaluate_command
from nnunet_cil.workflows.evaluate.score import check_test_cases, passes_over_test_cases
from nnunet_cil.workflows.experiment import Experiment, is_finished, put_broken_aside
from nnunet_cil.workflows.run.run import Choice, Training, logs_folder, preprocessing_commands, trainings, write_plans

_NO_LIMIT_MIN = 365 * 24 * 60
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
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
        """Does it; whatever goes wrong is in the log."""
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
        """What submitit queues where the job's time is up: the same again."""
        return import_submitit().helpers.DelayedSubmission(self)


def job_graph(experiment: Experiment, choice: Choice, options: EvaluationOptions) -> list[Job]:
    """What ``run`` would do and is left to do, each job behind those that it comes after. Writes the steps' plans.

    Args:
        experiment: as for ``run``.
        choice: as for ``run``.
        options: as for ``evaluate``.
    """
    if choice.reaches_the_end(experiment):
        check_test_cases(experiment, options)
    write_plans(experiment)
    if missing := preprocessing_commands(experiment):
        commands = "\n".join(f"  {line}" for line in missing)
        raise CILError(f"{experiment.configuration} is not preprocessed yet. Run\n{commands}\nand then this again.")
    logs = logs_folder(experiment)
    todo = {t.name: t for t in trainings(choice.of(experiment.models()), experiment.folds, choice.options())}
    previous = {
        Training(later, fold).name: Training(earlier, fold).name
        for trainer in experiment.trainers
        for earlier, later in pairwise(experiment.models_of(trainer))
        for fold in experiment.folds
    }
    jobs = []
    for name, training in todo.items():
        log = logs / f"{name}.txt"
        after = tuple(p for p in [previous.get(name)] if p in todo)
        jobs.append(Job(name, training.command, partial(train_model, training, log), log, after))
    if choice.reaches_the_end(experiment) and (todo or evaluated(experiment, options) is None):
        short = [trainer.removeprefix("nnUNetTrainer") for trainer in experiment.trainers]
        name = "-".join(["evaluate", experiment.name, "fold", *map(str, experiment.folds), *short])
        name += _suffix(experiment, options)
        log = logs / f"{name}.txt"
        command = evaluate_command(experiment, options)
        jobs.append(Job(name, shlex.join(command), partial(score_models, command[1:], log), log, tuple(todo)))
    return jobs


def _suffix(experiment: Experiment, options: EvaluationOptions) -> str:
    """Returns the end of the name of the job that scores: another test set is another job."""
    paths = {"images": options.images, "labels": options.labels, "output": options.output}
    given = "\n".join(f"{key} {path}" for key, path in paths.items() if path is not None)
    digest = f"-{hashlib.sha256(given.encode()).hexdigest()[:8]}" if given else ""
    return f"-validation{digest}" if passes_over_test_cases(experiment, options) else digest


def train_model(training: Training, log: Path) -> None:
    """``nnUNetv2_train`` as the model's folder asks for when the job starts; nothing if it is finished."""
    if not is_finished(training.model, training.fold):
        put_broken_aside(training.model, training.fold)
        call("nnUNetv2_train", training.arguments, user_environment(), log)


def score_models(arguments: list[str], log: Path) -> None:
    """``nnunet_cil evaluate``."""
    call("nnunet_cil", arguments, user_environment(), log)


def run_locally(
    jobs: Sequence[Job], logs: Path, *, max_jobs: int = 1, say: Callable[[str], None] = lambda _line: None
) -> None:
    """Runs a graph on this machine, each job in a process of its own. An interruption ends the running jobs.

    Args:
        jobs: in the order in which they start where they may.
        logs: takes submitit's files.
        max_jobs: so many at the same time; the GPUs that CUDA_VISIBLE_DEVICES lists are shared out among them.
        say: takes a line when a job starts, and when it ends.

    Raises:
        CILError: jobs failed; after all that does not depend on them is done. With the end of their logs.
    """
    executor = import_submitit().LocalExecutor(logs / "submitit")
    executor.update_parameters(timeout_min=_NO_LIMIT_MIN)
    waiting, succeeded = list(jobs), set[str]()
    running: list[_Running] = []
    failed: list[Job] = []
    free = _gpu_shares(max_jobs)
    _let_jobs_be_interrupted()
    try:
        while True:
            while free and (job := next((j for j in waiting if succeeded.issuperset(j.after)), None)):
                waiting.remove(job)
                gpus = free.pop(0)
                say(f"started: {job.command}")
                running.append(_Running(job, executor.submit(_call_with_gpus, gpus, job), gpus, time.monotonic()))
            if not running:
                break
            time.sleep(_LOOK_EVERY_S)
            for ended in [r for r in running if r.handle.done()]:
                running.remove(ended)
                free.append(ended.gpus)
                if ended.handle.exception() is None:
                    succeeded.add(ended.job.name)
                    say(f"finished after {ended.minutes:.1f} min: {ended.job.command}")
                else:
                    failed.append(ended.job)
                    say(f"FAILED after {ended.minutes:.1f} min: {ended.job.command}")
    except BaseException:
        _stop(running)
        raise
    if failed:
        raise CILError(_report(failed, waiting))


@dataclass(frozen=True)
class _Running:
    job: Job
    handle: Any
    gpus: str | None
    started_s: float

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self.started_s) / 60


def _let_jobs_be_interrupted() -> None:
    """A shell lets what it starts in the background ignore SIGINT, and so would the jobs, which are ended with it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _gpu_shares(max_jobs: int) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each of the jobs that run at the same time; None where the user has not set it."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not listed:
        return [listed] * max_jobs
    gpus = listed.split(",")
    size = max(1, len(gpus) // max_jobs)
    shares = [",".join(gpus[i : i + size]) for i in range(0, len(gpus) - size + 1, size)]
    return [shares[i % len(shares)] for i in range(max_jobs)]


def _call_with_gpus(gpus: str | None, job: Job) -> None:
    """Undoes that submitit's local executor hides all GPUs."""
    if gpus is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    job()


def _stop(running: Iterable[_Running]) -> None:
    for r in running:
        r.handle.cancel()
    while not all(r.handle.done() for r in running):
        time.sleep(_LOOK_EVERY_S)


def _report(failed: Sequence[Job], waiting: Sequence[Job]) -> str:
    lines = [f"{len(failed)} of the jobs failed. Mend the cause and run the same again: what is finished is skipped."]
    lines += [f"{job.name} failed ({job.command}). Its log {job.log} ends:\n  {log_end(job.log)}" for job in failed]
    if waiting:
        lines.append(f"Not started, as they come after: {', '.join(job.name for job in waiting)}")
    return "\n".join(lines)


def import_submitit() -> ModuleType:
    """submitit, which is optional.

    Raises:
        CILError: it is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise CILError("Install submitit: pip install submitit") from error
    return submitit
