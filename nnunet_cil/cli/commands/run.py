"""Runs a whole schedule: plans, trains, predicts and scores."""

from __future__ import annotations

import argparse
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_cil.cli.arguments import (
    COMPARED_TRAINERS,
    WHICH_CASES,
    Commands,
    add_schedule_arguments,
    add_test_arguments,
    evaluation_options,
    experiment_of,
    key_values,
    whole_number,
)
from nnunet_cil.errors import CILError
from nnunet_cil.limits import MAX_GPUS, MAX_JOBS, MAX_STEP

if TYPE_CHECKING:
    from nnunet_cil.workflows.evaluate.evaluate import Evaluation
    from nnunet_cil.workflows.experiment import Experiment
    from nnunet_cil.workflows.run.jobs import Job
    from nnunet_cil.workflows.run.options import TrainingOptions


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "run",
        help="run a whole schedule: preprocess, plan, train, predict and score",
        description="Preprocesses where needed, plans, trains every step of every trainer with nnUNetv2_train, and scores all "
        "steps as 'nnunet_cil evaluate' does. Skips what is finished and resumes what was interrupted: after a crash, run it "
        "again. Trains step 0 once for all trainers, unless it was planned otherwise before. " + WHICH_CASES,
    )
    add_schedule_arguments(parser, trainers=COMPARED_TRAINERS)
    add_test_arguments(parser)
    parser.add_argument(
        "-num_gpus",
        type=whole_number(1, MAX_GPUS),
        default=1,
        help="GPUs for each training, as for nnUNetv2_train (default: %(default)s)",
    )
    parser.add_argument(
        "--start-from",
        type=whole_number(0, MAX_STEP),
        default=0,
        metavar="K",
        help="first step to train (default: %(default)s)",
    )
    parser.add_argument(
        "--stop-after",
        type=whole_number(0, MAX_STEP),
        metavar="K",
        help="last step to train (default: the schedule's last)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="write the plans and print the remaining commands in order; train nothing",
    )
    parser.add_argument(
        "--launcher",
        choices=["slurm", "local"],
        help="start a job for each step, fold and trainer, with submitit; the data must be preprocessed. slurm submits the jobs "
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
    parser.set_defaults(resumes=True)
    return parser


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.run.run import remaining_commands, run

    for option, value, launcher in (("--slurm", args.slurm, "slurm"), ("--max-jobs", args.max_jobs, "local")):
        if value is not None and args.launcher != launcher:
            raise CILError(f"{option} is for --launcher {launcher}.")
    experiment, training = experiment_of(args), _training_options(args)
    if args.dry_run:
        print("\n".join(remaining_commands(experiment, training, evaluation_options(args))))
        return 0
    if args.launcher == "slurm":
        _submit(args, experiment, training)
        return 0
    if args.launcher == "local":
        found = _run_locally(args, experiment, training)
    else:
        found = run(experiment, training, evaluation_options(args))
    print(
        "The steps asked for are trained." if found is None else f"\n{found.summary}\nEverything is in {found.folder}"
    )
    return 0


def _training_options(args: argparse.Namespace) -> TrainingOptions:
    from nnunet_cil.workflows.run.options import TrainingOptions

    return TrainingOptions(
        start_from=args.start_from, stop_after=args.stop_after, device=args.device, num_gpus=args.num_gpus
    )


def _submit(args: argparse.Namespace, experiment: Experiment, training: TrainingOptions) -> None:
    from nnunet_cil.workflows.run.jobs import job_graph
    from nnunet_cil.workflows.run.slurm import check_parameters, submit

    parameters, logs = key_values("--slurm", args.slurm or ()), experiment.logs
    check_parameters(parameters)
    jobs = job_graph(experiment, training, evaluation_options(args))
    submit(jobs, logs, parameters)
    status = shlex.join(["nnunet_cil", "status", *experiment.arguments])
    print(f"Logs: {logs}\nProgress: {status}" if jobs else "Everything is finished; nothing was submitted.")


def _run_locally(args: argparse.Namespace, experiment: Experiment, training: TrainingOptions) -> Evaluation | None:
    from nnunet_cil.workflows.evaluate.evaluate import evaluated
    from nnunet_cil.workflows.run.jobs import job_graph
    from nnunet_cil.workflows.run.run import running

    with running(experiment):
        jobs = job_graph(experiment, training, evaluation_options(args))
        print(f"{len(jobs)} jobs to do", flush=True)
        _run_jobs(jobs, experiment.logs, args.max_jobs or 1)
    return evaluated(experiment, evaluation_options(args)) if training.reaches_the_end(experiment) else None


def _run_jobs(jobs: Sequence[Job], logs: Path, max_jobs: int) -> None:
    from nnunet_cil.workflows.run.local import run_locally

    # a kill ends the jobs, too; only here, since a pool of processes that inherits this never ends
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_locally(jobs, logs, max_jobs=max_jobs)
    finally:
        signal.signal(signal.SIGTERM, before)
