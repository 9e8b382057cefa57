"""The trainers that nnU-Net finds, by name."""

from __future__ import annotations

import contextlib
import io
import runpy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.shipped import trainer_names, trainers_file

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL


def trainer_class(name: str) -> type[nnUNetTrainerCIL]:
    """The trainer of that name; refuses one that nnU-Net does not find or that knows nothing of steps."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunet_cil.training.base import nnUNetTrainerCIL

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            trainer: type = recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise CILError(_not_found(name)) from error
    if not issubclass(trainer, nnUNetTrainerCIL):
        raise CILError(f"{name} knows nothing of steps; a step needs one of nnunet_cil's trainers.")
    return trainer


def _not_found(name: str) -> str:
    """What keeps nnU-Net from finding a trainer: the variable, where the name is right, else the name."""
    said = f"nnU-Net does not find the trainer {name!r}"
    if name in trainer_names():
        remedy = 'export nnUNet_extTrainer="$(nnunet_cil trainers)"'
        return f"{said}, which is nnunet_cil's. Run '{remedy}'; where that is set, ask 'nnunet_cil doctor'."
    full = name if name.startswith("nnUNetTrainer") else f"nnUNetTrainer{name}"
    return f"{said}{did_you_mean(full, trainer_names())}. Check its spelling, and nnUNet_extTrainer with 'nnunet_cil doctor'."


def check_trainer_names(names: Iterable[str]) -> None:
    """Refuses a name that is neither one of nnunet_cil's nor found by nnU-Net, which is asked for others only: it is slow."""
    for name in names:
        if name not in trainer_names():
            trainer_class(name)


def hyperparameter_names() -> set[str]:
    """Those that any of nnunet_cil's own trainers has."""
    trainers: list[Any] = [value for value in runpy.run_path(str(trainers_file())).values() if isinstance(value, type)]
    return {name for trainer in trainers for name in trainer.hyperparameters}
