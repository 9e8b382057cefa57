"""The arguments of ``run`` and ``extend --train`` that say who does the work: this process, or jobs of submitit."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_cil.cli.arguments import key_values, whole_number
from nnunet_cil.errors import CILError
from nnunet_cil.limits import MAX_GPUS, MAX_JOBS

if TYPE_CHECKING:
    from nnunet_cil.workflows.run.jobs import Job


def add_launcher_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup, *, jobs: str) -> None:
    """Adds the arguments; ``jobs`` says what a job is started for."""
    parser.add_argument(
        "-num_gpus",
        type=whole_number(1, MAX_GPUS),
        default=1,
        help="GPUs for each training, as for nnUNetv2_train (default: %(default)s)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="write the plans and print the remaining commands in order; train nothing",
    )
    parser.add_argument(
        "--launcher",
        choices=["slurm", "local"],
        help=f"start a job for {jobs}, with submitit; the data must be preprocessed. slurm submits the jobs "
        "with their dependencies and returns; local runs them on this machine (default: one training after the other)",
    )
    parser.add_argument(
        "--slurm",
        nargs="+",
        metavar="KEY=VALUE",
        help="resources of each job, with submitit's names: partition=gpu timeout_min=2880 gres=gpu:1 cpus_per_task=12 "
        "mem_gb=48 (timeout_min is required)",
    )
    parser.add_argument(
        "--max-jobs",
        type=whole_number(1, MAX_JOBS),
        metavar="N",
        help="with --launcher local: run N jobs at a time, which divide the GPUs in CUDA_VISIBLE_DEVICES among them (default: 1)",
    )


def check_launcher(args: argparse.Namespace) -> None:
    """Refuses options of another launcher.

    Raises:
        CILError: says of which.
    """
    for option, value, launcher in (("--slurm", args.slurm, "slurm"), ("--max-jobs", args.max_jobs, "local")):
        if value is not None and args.launcher != launcher:
            raise CILError(f"{option} is for --launcher {launcher}.")


def submit_jobs(args: argparse.Namespace, make_jobs: Callable[[], Sequence[Job]], logs: Path) -> Sequence[Job]:
    """Submits jobs to Slurm, once their resources are found to be complete, and returns them."""
    from nnunet_cil.workflows.run.slurm import check_parameters, submit

    parameters = key_values("--slurm", args.slurm or ())
    check_parameters(parameters)
    jobs = make_jobs()
    submit(jobs, logs, parameters)
    return jobs


def run_jobs(args: argparse.Namespace, jobs: Sequence[Job], logs: Path) -> None:
    """Runs jobs on this machine."""
    from nnunet_cil.workflows.run.local import run_locally

    print(f"{len(jobs)} jobs to do", flush=True)
    # a kill ends the jobs, too; only here, since a pool of processes that inherits this never ends
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_locally(jobs, logs, max_jobs=args.max_jobs or 1)
    finally:
        signal.signal(signal.SIGTERM, before)
