"""``nnunet_cil doctor``: is everything found, and if not, what to set."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from nnunet_cil.shipped import schedules_folder, trainers_folder

_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@dataclass(frozen=True)
class Check:
    """One line of the report: what was looked at, whether it is right, what was found, what to do if not."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def examine() -> list[Check]:
    """All checks, in the order in which a user would mend them."""
    return [
        _python(),
        _nnunet(),
        _device(),
        *map(_folder, _FOLDERS),
        _trainers_variable(),
        _trainer_lookup(),
        _schedules(),
    ]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("Python", sys.version_info >= (3, 10), version, "Use Python 3.10 or newer.")


def _nnunet() -> Check:
    try:
        version = importlib.metadata.version("nnunetv2")
    except importlib.metadata.PackageNotFoundError:
        return Check("nnunetv2", False, "not installed", "pip install 'nnunetv2>=2.8.1,<2.9'")
    numbers = tuple(int(n) for n in version.split(".")[:3] if n.isdigit())
    return Check("nnunetv2", (2, 8, 1) <= numbers < (2, 9), version, "pip install 'nnunetv2>=2.8.1,<2.9'")


def _device() -> Check:
    try:
        import torch
    except ImportError as error:
        return Check("torch", False, str(error), "pip install torch")
    if tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2] if n.isdigit()) < (2, 6):
        return Check("torch", False, torch.__version__, "pip install 'torch>=2.6'")
    if torch.cuda.is_available():
        return Check("torch", True, f"{torch.__version__}, CUDA: {torch.cuda.get_device_name()}")
    return Check("torch", True, f"{torch.__version__}, no CUDA device: give nnU-Net's commands '-device cpu' (or mps)")


def _folder(variable: str) -> Check:
    value = os.environ.get(variable)
    if not value:
        return Check(variable, False, "not set", f"export {variable}=/path/to/{variable}")
    if not Path(value).is_dir():
        return Check(variable, False, f"{value} is not a folder", f"mkdir -p {value}")
    writable = os.access(value, os.W_OK) or variable == "nnUNet_raw"
    return Check(variable, writable, value if writable else f"{value} cannot be written", f"chmod u+w {value}")


def _trainers_variable() -> Check:
    remedy = 'export nnUNet_extTrainer="$(nnunet_cil trainers)"'
    value = os.environ.get("nnUNet_extTrainer")
    if not value:
        return Check("nnUNet_extTrainer", False, "not set", remedy)
    folders = [Path(p) for p in value.split(os.pathsep) if p.strip()]
    if not any((p / "nnunet_cil_trainers.py").is_file() for p in folders):
        hint = f'export nnUNet_extTrainer="$nnUNet_extTrainer{os.pathsep}$(nnunet_cil trainers)"'
        return Check("nnUNet_extTrainer", False, f"{value} does not hold nnunet_cil's trainers", hint)
    if any((p / "setup.py").is_file() for p in folders):
        return Check("nnUNet_extTrainer", False, f"{value} names a repository, not its folder 'trainers'", remedy)
    return Check("nnUNet_extTrainer", True, value)


def _trainer_lookup() -> Check:
    import contextlib
    import io

    name = "nnUNetTrainerPGCD"
    try:
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        with contextlib.redirect_stdout(io.StringIO()):
            found = recursive_find_trainer_class_by_name(name)
    except Exception as error:
        return Check(name, False, str(error).split("\n")[0], f"Set nnUNet_extTrainer (folder: {trainers_folder()}).")
    return Check(name, True, f"found by nnU-Net in {found.__module__}")


def _schedules() -> Check:
    files = list(schedules_folder().glob("*.json"))
    return Check("schedules", bool(files), f"{len(files)} in {schedules_folder()}", "Reinstall nnunet-cil.")
