"""Says which steps of a schedule are trained."""

from __future__ import annotations

import argparse

from nnunet_cil.cli.arguments import Commands, add_schedule_arguments, experiment_of


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "status",
        help="show which steps of a schedule are trained, running, interrupted or missing",
        description="Prints a line for each model: its state (such as finished, running where and since when, interrupted, or "
        "missing), and its mean Dice on the fold's validation cases.",
    )
    add_schedule_arguments(parser)
    return parser


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.run.status import status

    print(status(experiment_of(args)))
    return 0
