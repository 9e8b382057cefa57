"""Where the folders that ship beside the package are: schedules (``plans/``) and the trainers' door."""

import re
from pathlib import Path


def _shipped_folder(name: str) -> Path:
    """Inside the package in a wheel (``_plans``), at the top of the repository in a checkout (``plans``)."""
    package = Path(__file__).resolve().parent
    installed = package / f"_{name}"
    return installed if installed.is_dir() else package.parent / name


def schedules_folder() -> Path:
    """The folder with one JSON file a shipped schedule."""
    return _shipped_folder("plans")


def trainers_folder() -> Path:
    """The folder to put into nnU-Net's environment variable ``nnUNet_extTrainer``."""
    return _shipped_folder("trainers")


def trainers_file() -> Path:
    """The one file in it."""
    (file,) = trainers_folder().glob("*.py")
    return file


def trainer_names() -> list[str]:
    """The trainers that nnU-Net finds in that folder."""
    return sorted(set(re.findall(r'"(nnUNetTrainer\w+)"', trainers_file().read_text(encoding="utf-8"))))
