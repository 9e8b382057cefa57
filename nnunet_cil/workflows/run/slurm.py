"""``nnunet_cil run --launcher slurm``: the graph of jobs on a cluster, by submitit."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json, write_json
from nnunet_cil.host.commands import log_end
from nnunet_cil.limits import MAX_MINUTES, is_whole_number
from nnunet_cil.slurm_queue import ask_slurm, own_queue
from nnunet_cil.validation import validated
from nnunet_cil.workflows.run.jobs import Job, import_submitit

logger = logging.getLogger(__name__)

_FORGET = "Remove it once none of its jobs is queued or running any more, and run the command again."

_SIGNAL_DELAY_S = 90
"""How long before its end a job is told that its time is up; submitit's default."""

_LOOK_EVERY_S = 2.0
_ENDING_S = 60.0
"""How long a job that is ending is waited for: Slurm gives it 30 seconds, unless the cluster says otherwise."""


def submit(jobs: Sequence[Job], logs: Path, parameters: Mapping[str, Any]) -> None:
    """Submits a graph to Slurm, but for the jobs of an earlier call that are still queued or running there.

    Args:
        jobs: each behind those that it comes after.
        logs: on a disk that the cluster shares. Takes submitit's files, and the IDs of the jobs in ``slurm_jobs.json``.
        parameters: of submitit's AutoExecutor, or of its Slurm executor without ``slurm_``.

    Raises:
        CILError: a parameter is unknown, Slurm is not there, cannot be asked for its queue, or refuses a job.
    """
    executor = _slurm_executor(logs / "submitit", parameters)
    file = logs / "slurm_jobs.json"
    logs.mkdir(parents=True, exist_ok=True)
    ids: dict[str, str] = {}
    if file.is_file():
        known = read_json(file, _FORGET)
        ids = validated(dict[str, str], known, str(file), _FORGET)
    queue = _slurm_queue(file, ids.values()) if ids else {}
    submitted: set[str] = set()
    for job in jobs:
        earlier = ids.get(job.name)
        state = queue.get(earlier) if earlier else None
        waits_in_vain = state == "PENDING" and not submitted.isdisjoint(job.after)
        if state is not None and not waits_in_vain:
            logger.info(f"{earlier}  {state.lower()} since an earlier call: {job.command}")
            continue
        if earlier and waits_in_vain:
            with suppress(CILError):  # Slurm does the same, in its time
                ask_slurm("scancel", earlier)
        elif earlier and (logs / "submitit" / f"{earlier}_0_log.out").is_file():
            logger.info(f"{earlier}  has ended, with work left. Its log {job.log} ends:\n  {log_end(job.log)}")
        ids[job.name] = _submit(executor, job, [ids[name] for name in job.after], parameters)
        write_json(file, ids)
        submitted.add(job.name)
        logger.info(f"{ids[job.name]}  submitted: {job.command}")


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuses resources without a time of their own; what else is wrong with them, submitit and Slurm say.

    Raises:
        CILError: there is none.
    """
    if not is_whole_number(parameters.get("timeout_min"), 1, MAX_MINUTES) or "time" in parameters:
        raise CILError("Say how long a job may take with --slurm timeout_min=MINUTES. (submitit's default: 5 minutes.)")


def _slurm_executor(folder: Path, parameters: Mapping[str, Any]) -> Any:
    """Returns submitit's executor, with the user's parameters.

    Raises:
        CILError: it does not take them.
    """
    submitit = import_submitit()
    check_parameters(parameters)
    # else a short job would be told at its start; Slurm may be half a minute early
    signal = {"signal_delay_s": min(_SIGNAL_DELAY_S, parameters["timeout_min"] * 60 // 4)}
    # since Slurm 22.05, srun gives a process one CPU unless it is told by itself
    srun = {"srun_args": [f"--cpus-per-task={parameters['cpus_per_task']}"]} if "cpus_per_task" in parameters else {}
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm")
    except RuntimeError as error:
        raise CILError(f"Slurm's commands are not here ({error}). Run this where you would run sbatch.") from error
    try:
        executor.update_parameters(**{f"slurm_{key}": value for key, value in {**signal, **srun, **parameters}.items()})
    except (NameError, AssertionError, TypeError, ValueError) as error:
        raise CILError(f"submitit does not take what --slurm says: {str(error).splitlines()[0]}") from error
    return executor


def _submit(executor: Any, job: Job, after: Sequence[str], parameters: Mapping[str, Any]) -> str:
    """Submits a job behind those with the IDs ``after``; returns its own ID."""
    additional: dict[str, Any] = {"requeue": True, **parameters.get("additional_parameters", {})}
    if after:
        additional |= {"dependency": f"afterok:{':'.join(after)}", "kill-on-invalid-dep": "yes"}
    executor.update_parameters(name=job.name, slurm_additional_parameters=additional)
    try:
        with _without_own_job():
            return str(executor.submit(job).job_id)
    except (RuntimeError, OSError) as error:
        raise CILError(
            f"Slurm did not take '{job.command}': {error}. Mend the cause and run the same again; what was submitted "
            "until here stays submitted."
        ) from error


@contextmanager
def _without_own_job() -> Iterator[None]:
    """Hides the variables of the job in which this process runs: a job that is submitted would take them for its own."""
    own = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_", "SBATCH_CPU_BIND", "SBATCH_MEM_BIND")
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    is_in_job = "SLURM_JOB_ID" in os.environ
    names = [name for name in os.environ if is_in_job and name.startswith(own) and name not in kept]
    hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _slurm_queue(file: Path, job_ids: Collection[str]) -> dict[str, str]:
    """Returns the user's jobs that are not over, once those that are ending have ended or are queued again.

    Args:
        file: holds the jobs' IDs.
        job_ids: the jobs that matter.

    Raises:
        CILError: Slurm does not say.
    """
    deadline = time.monotonic() + _ENDING_S
    has_said = False
    while True:
        try:
            queue = own_queue()
        except CILError as error:
            raise CILError(
                f"Nothing was submitted, as the jobs in {file} may be queued still: {error} Try again later, or delete "
                "that file if none of them is queued."
            ) from error
        ending = [job_id for job_id in job_ids if queue.get(job_id) == "COMPLETING"]
        if not ending or time.monotonic() > deadline:
            return queue
        if not has_said:
            logger.info(f"Waiting for the end of {', '.join(ending)}")
            has_said = True
        time.sleep(_LOOK_EVERY_S)
