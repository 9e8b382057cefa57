"""Shows class-incremental learning on generated volumes."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_cil.cli.arguments import Commands
from nnunet_cil.limits import DEVICES


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "demo",
        help="try it: learn generated volumes in three steps, on a laptop, in minutes",
        description="Generates a small data set, learns its organs in three steps, once by fine-tuning and once with "
        "PGCD, and shows what each model has forgotten. Everything stays in one folder. After an interruption, run it again: "
        "it goes on where it stopped.",
    )
    parser.add_argument(
        "-o",
        dest="output",
        type=Path,
        default=Path("nnunet_cil_demo"),
        metavar="FOLDER",
        help="folder that takes everything (default: ./%(default)s)",
    )
    parser.add_argument(
        "-device",
        default="auto",
        choices=["auto", *DEVICES],
        help="device for nnU-Net's commands; auto is cuda if available, else cpu (default: %(default)s)",
    )
    parser.set_defaults(resumes=True)
    return parser


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.demo import demo

    result = demo(args.output, device=args.device)
    print(result.table)
    print(f"\nPicture: {result.picture}\nTable:   {result.table_file}")
    return 0
