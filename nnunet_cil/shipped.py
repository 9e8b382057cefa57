"""Where the folders that ship beside the package are: schedules (``plans/``) and the trainers' door."""

import re
from pathlib import Path


def _shipped_folder(name: str) -> Path:
    """Finds a folder: inside the package in a wheel (``_plans``), at the top of the repository in a checkout (``plans``)."""
    package = Path(__file__).resolve().parent
    installed = package / f"_{name}"
    return installed if installed.is_dir() else package.parent / name


def schedules_folder() -> Path:
    """Returns the folder with one JSON file a shipped schedule."""
    return _shipped_folder("plans")


def trainers_folder() -> Path:
    """Returns the folder to put into nnU-Net's environment variable ``nnUNet_extTrainer``."""
    return _shipped_folder("trainers")


def trainers_file() -> Path:
    """Returns the one file in the trainers' folder."""
    (file,) = trainers_folder().glob("*.py")
    return file


def trainer_names() -> list[str]:
    """Returns the names of the trainers that nnU-Net finds in that folder."""
    return sorted(set(re.findall(r'"(nnUNetTrainer\w+)"', trainers_file().read_text(encoding="utf-8"))))
