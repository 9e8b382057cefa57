"""Runs a whole schedule: plans, trains, predicts and scores."""

from __future__ import annotations

import argparse
import shlex
import signal
from typing import TYPE_CHECKING

from nnunet_cil.cli.arguments import (
    WHICH_CASES,
    Commands,
    add_schedule_arguments,
    add_test_arguments,
    evaluation_options,
    experiment_of,
    key_values,
    say,
    whole_number,
)
from nnunet_cil.errors import CILError

if TYPE_CHECKING:
    from nnunet_cil.workflows.evaluate.evaluate import Evaluation
    from nnunet_cil.workflows.experiment import Experiment
    from nnunet_cil.workflows.run.run import Choice


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "run",
        help="a whole schedule: plan, train every step, predict, score",
        description="Preprocesses (if need be), plans, trains every step of every trainer in order with nnUNetv2_train, and "
        "scores all steps as 'nnunet_cil evaluate' does. What is finished is skipped, what was interrupted goes on; run it "
        "again after a crash. Step 0 is trained once for all trainers, unless it was planned otherwise before. "
        + WHICH_CASES,
    )
    add_schedule_arguments(parser)
    add_test_arguments(parser)
    parser.add_argument(
        "-num_gpus", type=whole_number(1), default=1, help="as nnU-Net's, for training (default: %(default)s)"
    )
    parser.add_argument(
        "--start-from", type=whole_number(0), default=0, metavar="K", help="first step to train (default: %(default)s)"
    )
    parser.add_argument(
        "--stop-after", type=whole_number(0), metavar="K", help="last step to train (default: the schedule's last)"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the commands that are left, in order; write the plans, train nothing",
    )
    parser.add_argument(
        "--launcher",
        choices=["slurm", "local"],
        help="a job for each step, fold and trainer, by submitit: slurm submits them with their dependencies and returns; "
        "local runs them on this machine (default: one training after the other, in this process)",
    )
    parser.add_argument(
        "--slurm",
        nargs="+",
        metavar="KEY=VALUE",
        help="what each job asks for, as submitit names it: partition=gpu timeout_min=2880 gres=gpu:1 cpus_per_task=12 "
        "mem_gb=48 (timeout_min is needed)",
    )
    parser.add_argument(
        "--max-jobs",
        type=whole_number(1),
        metavar="N",
        help="with --launcher local: jobs at the same time (default: 1); they share out the GPUs in CUDA_VISIBLE_DEVICES",
    )
    parser.set_defaults(resumes=True)
    return parser


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.run.run import Choice, remaining_commands, run

    for option, value, launcher in (("--slurm", args.slurm, "slurm"), ("--max-jobs", args.max_jobs, "local")):
        if value is not None and args.launcher != launcher:
            raise CILError(f"{option} is for --launcher {launcher}.")
    experiment, choice = experiment_of(args), Choice(args.start_from, args.stop_after, args.device, args.num_gpus)
    if args.dry_run:
        print("\n".join(remaining_commands(experiment, choice, evaluation_options(args))))
        return 0
    if args.launcher == "slurm":
        _submit(args, experiment, choice)
        return 0
    if args.launcher == "local":
        found = _run_locally(args, experiment, choice)
    else:
        found = run(experiment, choice, evaluation_options(args), say=say)
    print("The steps asked for are trained." if found is None else f"\n{found.summary}\nAll of it: {found.folder}")
    return 0


def _submit(args: argparse.Namespace, experiment: Experiment, choice: Choice) -> None:
    from nnunet_cil.workflows.run.jobs import job_graph
    from nnunet_cil.workflows.run.run import logs_folder
    from nnunet_cil.workflows.run.slurm import submit

    logs = logs_folder(experiment)
    jobs = job_graph(experiment, choice, evaluation_options(args))
    submit(jobs, logs, key_values("--slurm", args.slurm or ()), say=say)
    status = shlex.join(["nnunet_cil", "status", *experiment.arguments])
    print(f"Logs: {logs}\nHow far it is: {status}" if jobs else "Everything is finished; nothing was submitted.")


def _run_locally(args: argparse.Namespace, experiment: Experiment, choice: Choice) -> Evaluation | None:
    from nnunet_cil.workflows.evaluate.evaluate import evaluated
    from nnunet_cil.workflows.run.jobs import job_graph, run_locally
    from nnunet_cil.workflows.run.run import logs_folder

    jobs = job_graph(experiment, choice, evaluation_options(args))
    print(f"{len(jobs)} jobs to do", flush=True)
    # a kill ends the jobs, too; only here, since a pool of processes that inherits this never ends
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_locally(jobs, logs_folder(experiment), max_jobs=args.max_jobs or 1, say=say)
    finally:
        signal.signal(signal.SIGTERM, before)
    return evaluated(experiment, evaluation_options(args)) if choice.reaches_the_end(experiment) else None
