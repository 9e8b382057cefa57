"""Compares two models on the same images."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from nnunet_cil.cli.arguments import Commands, add_device, add_trained_folds, add_trusted_packages, whole_number
from nnunet_cil.files import shortened
from nnunet_cil.limits import COMPARED_PICTURES, MAX_PICTURES

BELOW = 3
"""The exit status where a class of A is below ``--fail-below``; 1 and 2 are errors."""


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "compare",
        help="compare two models on the same images, with or without labels",
        description="Predicts images with two models and tells what changes from A to B, for each class that both know (matched "
        "by name): Dice, HD95 and volumes, what appears, vanishes or changes places, new components far from the old ones, and "
        "voxels that changed class. Needs no labels; with labels it scores both models, too. Writes comparison.html, "
        "per_case.csv, moved.csv and comparison.json. Skips what is done already.",
        epilog="Exit status: 0: done; 1 or 2: an error; 3: a class of A has a mean Dice between A and B below --fail-below. "
        "The mean is over the cases in which either model finds the class; a case in which one does not counts 0, and so does a "
        "class that B does not know.",
    )
    _add_folders(parser)
    add_trained_folds(parser, "folds that predict together, of both models")
    parser.add_argument(
        "--fail-below",
        type=_dice,
        metavar="DICE",
        help="exit with status 3 if a class of A has a mean Dice between A and B below this (a number from 0 to 1)",
    )
    parser.add_argument(
        "--pictures",
        type=whole_number(0, MAX_PICTURES),
        default=COMPARED_PICTURES,
        metavar="N",
        help="cases to draw, those that changed most (default: %(default)s)",
    )
    add_device(parser)
    add_trusted_packages(parser)
    parser.set_defaults(resumes=True)
    return parser


def _add_folders(parser: argparse.ArgumentParser) -> None:
    """Adds the two models, the images and labels that they are compared on, and where the results go."""
    for name, what in (("a", "the model in use"), ("b", "the model that is to replace it")):
        parser.add_argument(
            f"model_{name}",
            metavar=f"MODEL_{name.upper()}",
            type=Path,
            help=f"{what}: a model folder of nnU-Net, an exported one, or a folder of predictions with the dataset.json of their "
            "model",
        )
    parser.add_argument(
        "-i",
        dest="images",
        type=Path,
        metavar="IMAGES",
        help="folder of images (CASE_0000.nii.gz); not needed where both are predictions",
    )
    parser.add_argument(
        "-l",
        dest="labels",
        type=Path,
        metavar="LABELS",
        help="folder of reference labels (CASE.nii.gz), with the dataset.json that names them in it or above it",
    )
    parser.add_argument(
        "-o", dest="output", type=Path, required=True, metavar="OUT", help="folder that takes predictions and results"
    )


def _dice(text: str) -> float:
    """Reads a Dice.

    Raises:
        ArgumentTypeError: it is no number from 0 to 1.
    """
    with suppress(ValueError):
        number = float(text)
        if 0 <= number <= 1:
            return number
    raise argparse.ArgumentTypeError(f"{shortened(text)} is not a Dice: a number from 0 to 1")


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.compare.compare import CompareOptions, compare

    found = compare(
        CompareOptions(
            model_a=args.model_a,
            model_b=args.model_b,
            output=args.output,
            images=args.images,
            labels=args.labels,
            folds=tuple(args.folds),
            fail_below=args.fail_below,
            device=args.device,
            num_pictures=args.pictures,
            trusted=tuple(args.trusted),
        )
    )
    print(f"\n{found.text}\n\nEverything is in {found.page.parent}; begin with {found.page}")
    return BELOW if found.is_below else 0
