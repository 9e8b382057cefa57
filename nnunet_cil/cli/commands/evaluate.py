"""Scores the models of a schedule's steps."""

from __future__ import annotations

import argparse

from nnunet_cil.cli.arguments import (
    COMPARED_TRAINERS,
    WHICH_CASES,
    Commands,
    add_schedule_arguments,
    add_test_arguments,
    evaluation_options,
    experiment_of,
    tolerance_mm,
)
from nnunet_cil.limits import DEFAULT_TOLERANCE_MM


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "evaluate",
        help="score the model of every step: old classes, new classes, forgetting",
        description="Predicts the cases with the model of every step (nnUNetv2_predict), scores the predictions (Dice, HD95, "
        "ASD, normalised surface Dice; classes are matched by name), and writes tables, figures and report.html. Skips what is "
        "done already. " + WHICH_CASES,
    )
    add_schedule_arguments(parser, trainers=COMPARED_TRAINERS)
    add_test_arguments(parser)
    parser.add_argument(
        "--tolerance",
        type=tolerance_mm,
        default=DEFAULT_TOLERANCE_MM,
        metavar="MM",
        help="tolerance of the normalised surface Dice, in mm (in voxels where files do not say how large these are; default: "
        "%(default)s)",
    )
    parser.set_defaults(resumes=True)
    return parser


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.evaluate.evaluate import evaluate

    found = evaluate(experiment_of(args), evaluation_options(args, tolerance_mm=args.tolerance))
    print(f"\n{found.summary}\nEverything is in {found.folder}")
    return 0
