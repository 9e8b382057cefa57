"""Shows class-incremental learning on generated volumes."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_cil.cli.arguments import Commands


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "demo",
        help="the whole story on generated volumes, on a laptop, in minutes",
        description="Generates a small data set, learns its organs in three steps, once by fine-tuning and once with "
        "PGCD, and shows what each has forgotten. Everything stays in one folder; run it again to go on.",
    )
    parser.add_argument(
        "-o",
        dest="output",
        type=Path,
        default=Path("nnunet_cil_demo"),
        metavar="FOLDER",
        help="where everything goes (default: ./%(default)s)",
    )
    parser.add_argument(
        "-device",
        default="auto",
        choices=["auto", "cpu", "cuda", "mps"],
        help="as nnU-Net's; auto takes cuda where there is one (default: %(default)s)",
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
