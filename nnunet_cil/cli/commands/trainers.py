"""Prints the folder of the trainers."""

from __future__ import annotations

import argparse

from nnunet_cil.cli.arguments import Commands


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    return commands.add_parser(
        "trainers",
        help="print the folder of the trainers, for nnUNet_extTrainer",
        description="Prints the folder of this plug-in's trainers. nnU-Net finds them after: export "
        'nnUNet_extTrainer="$(nnunet_cil trainers)"',
    )


def execute(_args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.shipped import trainers_folder

    print(trainers_folder())
    return 0
