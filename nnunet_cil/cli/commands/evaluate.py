"""Scores the models of a schedule's steps."""

from __future__ import annotations

import argparse

from nnunet_cil.cli.arguments import (
    WHICH_CASES,
    Commands,
    add_schedule_arguments,
    add_test_arguments,
    distance_mm,
    evaluation_options,
    experiment_of,
    say,
)


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "evaluate",
        help="score every step's model: old and new classes, forgetting",
        description="Predicts the cases with every step's model (nnUNetv2_predict), scores them (Dice, HD95, ASD, normalised "
        "surface Dice; classes matched by name) and writes tables, figures and report.html. What is there already is not "
        "done again. " + WHICH_CASES,
    )
    add_schedule_arguments(parser)
    add_test_arguments(parser)
    parser.add_argument(
        "--tolerance",
        type=distance_mm,
        default=2.0,
        metavar="MM",
        help="of the normalised surface Dice, in mm (default: %(default)s)",
    )
    parser.set_defaults(resumes=True)
    return parser


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.evaluate.evaluate import evaluate

    found = evaluate(experiment_of(args), evaluation_options(args, tolerance_mm=args.tolerance), say=say)
    print(f"\n{found.summary}\nAll of it: {found.folder}")
    return 0
