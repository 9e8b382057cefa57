"""nnU-Net's command for a training, as it is run and as messages name it."""

from __future__ import annotations

import shlex


def train_arguments(dataset: str, configuration: str, fold: int | str, trainer: str, plans: str) -> list[str]:
    """Returns the arguments with which ``nnUNetv2_train`` trains a model."""
    return [dataset, configuration, str(fold), "-tr", trainer, "-p", plans]


def train_command(
    dataset: str, configuration: str, fold: int | str, trainer: str, plans: str, *options: str, device: str = "cuda"
) -> str:
    """Returns ``nnUNetv2_train`` as one would type it; with the device where it is another than nnU-Net's default."""
    which = [] if device == "cuda" else ["-device", device]
    return shlex.join(
        ["nnUNetv2_train", *train_arguments(dataset, configuration, fold, trainer, plans), *which, *options]
    )
