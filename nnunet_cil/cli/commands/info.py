"""Says what a model knows."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_cil.cli.arguments import Commands


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "info",
        help="show which classes a model segments, and where it learnt them",
        description="Prints each class with its step, data set, trainer and date; each step with versions and hashes; and each "
        "prototype with its norm, number of voxels and nearest class.",
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="model folder in nnUNet_results, or a checkpoint")
    return parser


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.models.info import describe

    print(describe(args.model))
    return 0
