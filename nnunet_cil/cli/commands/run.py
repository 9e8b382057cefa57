"""Runs a whole schedule: plans, trains, predicts and scores."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from nnunet_cil.cli.arguments import (
    COMPARED_TRAINERS,
    WHICH_CASES,
    Commands,
    add_npz,
    add_schedule_arguments,
    add_test_arguments,
    evaluation_options,
    experiment_of,
    whole_number,
)
from nnunet_cil.cli.launchers import add_launcher_arguments, check_launcher, run_jobs, submit_jobs
from nnunet_cil.limits import MAX_STEP

if TYPE_CHECKING:
    from nnunet_cil.workflows.evaluate.evaluate import Evaluation
    from nnunet_cil.workflows.experiment import Experiment
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
    add_npz(parser)
    add_launcher_arguments(parser, jobs="each step, fold and trainer")
    parser.set_defaults(resumes=True)
    return parser


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.run.run import remaining_commands, run

    check_launcher(args)
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
        start_from=args.start_from,
        stop_after=args.stop_after,
        device=args.device,
        num_gpus=args.num_gpus,
        npz=args.npz,
    )


def _submit(args: argparse.Namespace, experiment: Experiment, training: TrainingOptions) -> None:
    from nnunet_cil.workflows.run.job_graph import job_graph

    logs = experiment.logs
    jobs = submit_jobs(args, lambda: job_graph(experiment, training, evaluation_options(args)), logs)
    status = shlex.join(["nnunet_cil", "status", *experiment.arguments])
    print(f"Logs: {logs}\nProgress: {status}" if jobs else "Everything is finished; nothing was submitted.")


def _run_locally(args: argparse.Namespace, experiment: Experiment, training: TrainingOptions) -> Evaluation | None:
    from nnunet_cil.workflows.evaluate.evaluate import evaluated
    from nnunet_cil.workflows.run.job_graph import job_graph
    from nnunet_cil.workflows.run.run import running

    with running(experiment):
        run_jobs(args, job_graph(experiment, training, evaluation_options(args)), experiment.logs)
    return evaluated(experiment, evaluation_options(args)) if training.reaches_the_end(experiment) else None
