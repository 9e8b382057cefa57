"""``nnunet_cil run --launcher local``: the graph of jobs as processes of submitit on this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.host.commands import log_end
from nnunet_cil.workflows.run.jobs import Job, import_submitit

_NO_LIMIT_MIN = 365 * 24 * 60
_LOOK_EVERY_S = 0.5

logger = logging.getLogger(__name__)


def run_locally(jobs: Sequence[Job], logs: Path, *, max_jobs: int = 1) -> None:
    """Runs a graph on this machine, each job in a process of its own. An interruption ends the running jobs.

    Args:
        jobs: in the order in which they start where they may.
        logs: takes submitit's files.
        max_jobs: so many at the same time; the GPUs that CUDA_VISIBLE_DEVICES lists are shared out among them.

    Raises:
        CILError: jobs failed; after all that does not depend on them is done. With the end of their logs.
    """
    executor = import_submitit().LocalExecutor(logs / "submitit")
    executor.update_parameters(timeout_min=_NO_LIMIT_MIN)
    graph = _RunningGraph(jobs, executor, _gpu_shares(max_jobs))
    _let_jobs_be_interrupted()
    try:
        while graph.start_jobs():
            time.sleep(_LOOK_EVERY_S)
            graph.collect_ended()
    except BaseException:
        graph.stop()
        raise
    if graph.failed:
        raise CILError(_report(graph.failed, graph.waiting))


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A job that has been started.

    Attributes:
        job: was started.
        handle: submitit's.
        gpus: CUDA_VISIBLE_DEVICES of it.
        started_s: when, of ``time.monotonic``.
    """

    job: Job
    handle: Any
    gpus: str | None
    started_s: float

    @property
    def minutes(self) -> float:
        """Returns how long it has been running."""
        return (time.monotonic() - self.started_s) / 60


class _RunningGraph:
    """A graph of jobs of which some are waiting, some running, and some over."""

    def __init__(self, jobs: Sequence[Job], executor: Any, gpu_shares: Sequence[str | None]) -> None:
        self.waiting = list(jobs)
        self.failed: list[Job] = []
        self._running: list[_Running] = []
        self._succeeded: set[str] = set()
        self._executor = executor
        self._free = list(gpu_shares)

    def start_jobs(self) -> bool:
        """Starts jobs while there is room; tells whether any is running."""
        while self._free and (job := self._next_job()):
            self.waiting.remove(job)
            gpus = self._free.pop(0)
            logger.info(f"started: {job.command}")
            handle = self._executor.submit(_call_with_gpus, gpus, job)
            self._running.append(_Running(job=job, handle=handle, gpus=gpus, started_s=time.monotonic()))
        return bool(self._running)

    def _next_job(self) -> Job | None:
        return next((job for job in self.waiting if self._succeeded.issuperset(job.after)), None)

    def collect_ended(self) -> None:
        """Takes out the jobs that have ended, and says how."""
        for ended in [r for r in self._running if r.handle.done()]:
            self._running.remove(ended)
            self._free.append(ended.gpus)
            if ended.handle.exception() is None:
                self._succeeded.add(ended.job.name)
                logger.info(f"finished after {ended.minutes:.1f} min: {ended.job.command}")
            else:
                self.failed.append(ended.job)
                logger.info(f"FAILED after {ended.minutes:.1f} min: {ended.job.command}")

    def stop(self) -> None:
        """Ends the running jobs, and waits for their end."""
        for running in self._running:
            running.handle.cancel()
        while not all(running.handle.done() for running in self._running):
            time.sleep(_LOOK_EVERY_S)


def _let_jobs_be_interrupted() -> None:
    """Undoes that a shell lets what it starts in the background ignore SIGINT: with it the jobs are ended."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _gpu_shares(max_jobs: int) -> list[str | None]:
    """Returns CUDA_VISIBLE_DEVICES of each of the jobs that run at the same time; None where the user has not set it."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not listed:
        return [listed] * max_jobs
    gpus = listed.split(",")
    size = max(1, len(gpus) // max_jobs)
    shares = [",".join(gpus[i : i + size]) for i in range(0, len(gpus) - size + 1, size)]
    return [shares[i % len(shares)] for i in range(max_jobs)]


def _call_with_gpus(gpus: str | None, job: Job) -> None:
    """Calls a job, and undoes that submitit's local executor hides all GPUs."""
    if gpus is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    job()


def _report(failed: Sequence[Job], waiting: Sequence[Job]) -> str:
    lines = [f"{len(failed)} of the jobs failed. Mend the cause and run the same again: what is finished is skipped."]
    lines += [f"{job.name} failed ({job.command}). Its log {job.log} ends:\n  {log_end(job.log)}" for job in failed]
    if waiting:
        lines.append(f"Not started, as they come after: {', '.join(job.name for job in waiting)}")
    return "\n".join(lines)
