"""Checks the installation: versions, nnU-Net's folders, and whether nnU-Net finds the trainers."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from nnunet_cil.host.folders import FOLDERS
from nnunet_cil.shipped import schedules_folder, trainers_folder


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report.

    Attributes:
        name: of what was looked at.
        ok: whether it is right.
        found: a version, a folder, or what is wrong.
        remedy: what to do where it is wrong.
    """

    name: str
    ok: bool
    found: str
    remedy: str = ""


def examine() -> list[Check]:
    """Makes all checks, in the order in which a user would mend them."""
    return [
        _python(),
        _nnunet(),
        _device(),
        *map(_folder, FOLDERS),
        _trainers_variable(),
        _trainer_lookup(),
        _schedules(),
    ]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(name="Python", ok=sys.version_info >= (3, 10), found=version, remedy="Use Python 3.10 or newer.")


def _nnunet() -> Check:
    try:
        version = importlib.metadata.version("nnunetv2")
    except importlib.metadata.PackageNotFoundError:
        return Check(name="nnunetv2", ok=False, found="not installed", remedy="pip install 'nnunetv2>=2.8.1,<2.9'")
    numbers = tuple(int(n) for n in version.split(".")[:3] if n.isdigit())
    return Check(
        name="nnunetv2", ok=(2, 8, 1) <= numbers < (2, 9), found=version, remedy="pip install 'nnunetv2>=2.8.1,<2.9'"
    )


def _device() -> Check:
    try:
        import torch
    except ImportError as error:
        return Check(name="torch", ok=False, found=str(error), remedy="pip install torch")
    if tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2] if n.isdigit()) < (2, 6):
        return Check(name="torch", ok=False, found=torch.__version__, remedy="pip install 'torch>=2.6'")
    if torch.cuda.is_available():
        return Check(name="torch", ok=True, found=f"{torch.__version__}, CUDA: {torch.cuda.get_device_name()}")
    return Check(
        name="torch",
        ok=True,
        found=f"{torch.__version__}, no CUDA device: give nnU-Net's commands '-device cpu' (or mps)",
    )


def _folder(variable: str) -> Check:
    value = os.environ.get(variable)
    if not value:
        return Check(name=variable, ok=False, found="not set", remedy=f"export {variable}=/path/to/{variable}")
    if not Path(value).is_dir():
        return Check(name=variable, ok=False, found=f"{value} is not a folder", remedy=f"mkdir -p {shlex.quote(value)}")
    writable = os.access(value, os.W_OK) or variable == "nnUNet_raw"
    return Check(
        name=variable,
        ok=writable,
        found=value if writable else f"{value} cannot be written",
        remedy=f"chmod u+w {shlex.quote(value)}",
    )


def _trainers_variable() -> Check:
    remedy = 'export nnUNet_extTrainer="$(nnunet_cil trainers)"'
    value = os.environ.get("nnUNet_extTrainer")
    if not value:
        return Check(name="nnUNet_extTrainer", ok=False, found="not set", remedy=remedy)
    folders = [Path(p) for p in value.split(os.pathsep) if p.strip()]
    if not any((p / "nnunet_cil_trainers.py").is_file() for p in folders):
        hint = f'export nnUNet_extTrainer="$nnUNet_extTrainer{os.pathsep}$(nnunet_cil trainers)"'
        return Check(
            name="nnUNet_extTrainer", ok=False, found=f"{value} does not hold nnunet_cil's trainers", remedy=hint
        )
    if any((p / "setup.py").is_file() for p in folders):
        return Check(
            name="nnUNet_extTrainer",
            ok=False,
            found=f"{value} names a repository, not its folder 'trainers'",
            remedy=remedy,
        )
    return Check(name="nnUNet_extTrainer", ok=True, found=value)


def _trainer_lookup() -> Check:
    name = "nnUNetTrainerPGCD"
    try:
        from nnunet_cil.training.catalogue import find_trainer

        found = find_trainer(name)
    except Exception as error:
        return Check(
            name=name,
            ok=False,
            found=str(error).split("\n")[0],
            remedy=f"Set nnUNet_extTrainer (folder: {trainers_folder()}).",
        )
    return Check(name=name, ok=True, found=f"found by nnU-Net in {found.__module__}")


def _schedules() -> Check:
    files = list(schedules_folder().glob("*.json"))
    return Check(
        name="schedules", ok=bool(files), found=f"{len(files)} in {schedules_folder()}", remedy="Reinstall nnunet-cil."
    )
