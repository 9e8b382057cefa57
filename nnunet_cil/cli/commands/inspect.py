"""Reports on a raw data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_cil.cli.arguments import Commands, whole_number
from nnunet_cil.limits import INSPECTED_PICTURES, MAX_PICTURES


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "inspect",
        help="report on a raw data set: volumes, grids, left and right, pictures",
        description="Measures every label map of a data set in nnUNet_raw: cases and volumes of each class, grids, and "
        "whether left organs lie left of right ones. Writes a page with pictures that opens offline.",
    )
    parser.add_argument("dataset", metavar="DATASET", help="ID or name of the data set")
    parser.add_argument(
        "-o",
        dest="output",
        type=Path,
        metavar="FILE",
        help="the page to write (default: inspection.html in the data set's folder)",
    )
    parser.add_argument(
        "--pictures",
        type=whole_number(0, MAX_PICTURES),
        default=INSPECTED_PICTURES,
        metavar="N",
        help="number of cases to show (default: %(default)s)",
    )
    return parser


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.data.inspect import inspect

    found = inspect(args.dataset, output=args.output, num_pictures=args.pictures)
    print(f"{found.summary}\n\nPage: {found.page}")
    return 0
