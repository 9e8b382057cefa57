"""Writes a model for plain nnU-Net."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_cil.cli.arguments import Commands, add_trusted_packages


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "export",
        help="write a plain nnU-Net model, for machines without this plug-in",
        description="Writes a model folder that plain nnU-Net predicts with. Sets the trainer's name to nnUNetTrainer, keeps "
        "only what prediction needs, and records where each class was learnt in dataset.json and MODEL_CARD.md.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL_FOLDER",
        type=Path,
        help="folder of the model: nnUNet_results/DATASET/TRAINER__PLANS__CONFIG",
    )
    parser.add_argument(
        "output",
        metavar="OUT",
        type=Path,
        help="folder that takes DATASET/nnUNetTrainer__PLANS__CONFIG, or the archive with --zip",
    )
    parser.add_argument(
        "--zip",
        action="store_true",
        help="write one archive, for nnUNetv2_install_pretrained_model_from_zip",
    )
    add_trusted_packages(parser)
    return parser


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.models.export import export

    print(export(args.model, args.output, zipped=args.zip, trusted=args.trusted))
    return 0
