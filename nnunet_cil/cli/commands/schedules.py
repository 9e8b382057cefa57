"""Lists, explains and writes schedules."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from nnunet_cil.cli.arguments import Commands, whole_number
from nnunet_cil.errors import CILError
from nnunet_cil.limits import MAX_SEED


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "schedules",
        help="list the shipped schedules, explain one, or write one for a data set",
        description="Lists the shipped schedules. With a NAME, prints that schedule's steps, settings and source. 'nnunet_cil "
        "schedules new DATASET --steps 8,3,2' writes a schedule for a data set in nnUNet_raw.",
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="name of a shipped schedule, a JSON file, or the word new"
    )
    parser.add_argument("dataset", metavar="DATASET", nargs="?", help="with new: ID or name of the data set")
    parser.add_argument("--steps", metavar="N,N,...", help="with new: how many classes each step learns")
    parser.add_argument(
        "--order",
        default="label",
        metavar="ORDER",
        help="with new: order of the classes: label, size (largest first), name or random (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0, MAX_SEED),
        default=0,
        help="with new: seed of --order random (default: %(default)s)",
    )
    parser.add_argument(
        "-o", dest="output", type=Path, metavar="FILE", help="with new: the file to write (default: ./NAME.json)"
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print the list with all classes, as in plans/README.md"
    )
    return parser


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.data import schedules

    if args.name == "new":
        file = schedules.new(
            _given(args.dataset, "DATASET"),
            _numbers(_given(args.steps, "--steps")),
            order=args.order,
            seed=args.seed,
            output=args.output,
        )
        print(f"{schedules.explain(file)}\nWritten: {file}")
    elif args.dataset is not None:
        command = shlex.join(["nnunet_cil", "schedules", "new", args.dataset, "--steps", "8,3,2"])
        raise CILError(f"Only 'new' takes a data set: {command}")
    elif args.name is not None:
        print(schedules.explain(args.name))
    else:
        print(schedules.readme() if args.markdown else schedules.listing(), end="" if args.markdown else "\n")
    return 0


def _given(value: str | None, what: str) -> str:
    if value is None:
        raise CILError(f"'schedules new' needs {what}: nnunet_cil schedules new DATASET --steps 8,3,2")
    return value


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise CILError(f"--steps {text!r} should be whole numbers with commas between, as in 8,3,2.") from error
