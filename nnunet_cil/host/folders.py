"""nnU-Net's folders and data sets, found the way nnU-Net finds them, with errors that say what to do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nnunet_cil.errors import CILError
from nnunet_cil.names import is_dataset_name


def nnunet_folder(variable: str) -> Path:
    """Returns the folder that one of nnU-Net's environment variables names."""
    value = os.environ.get(variable)
    if not value:
        raise CILError(f"The environment variable {variable} is not set. 'nnunet_cil doctor' shows what to set.")
    if not Path(value).is_dir():
        raise CILError(f"{variable} is {value!r}, which is not a folder. Create it or correct the variable.")
    return Path(value)


def num_processes() -> int:
    """Returns as many processes as nnU-Net takes: nnUNet_def_n_proc, or its default."""
    value = os.environ.get("nnUNet_def_n_proc", "8")
    if not value.isdigit() or int(value) == 0:
        raise CILError(f"nnUNet_def_n_proc is {value!r}, but must be a whole number from 1 on.")
    return int(value)


def dataset_name(name_or_id: str | int) -> str:
    """Returns a data set's name, from '17' or 'Dataset017_BTCV'; it must be in nnUNet_preprocessed."""
    folder, asked = nnunet_folder("nnUNet_preprocessed"), str(name_or_id)
    found = _find_dataset(folder, asked)
    if found is None and not asked.isdigit() and not is_dataset_name(asked):
        raise CILError(f"{asked!r} names no data set of nnU-Net. Give its ID, or its folder's name, DatasetXXX_NAME.")
    if found is None:
        number = asked if asked.isdigit() else dataset_id(asked)
        raise CILError(
            f"There is no preprocessed data set {asked!r} in {folder}. Run 'nnUNetv2_plan_and_preprocess -d {number}' first."
        )
    return found


def dataset_id(name: str) -> int:
    """Returns a data set's ID, which ``-d`` of nnU-Net's commands takes: 17 for 'Dataset017_BTCV'."""
    return int(name[7:10])


def raw_dataset_folder(name_or_id: str | int) -> Path:
    """Returns a data set's folder in nnUNet_raw, from '17' or 'Dataset017_BTCV'."""
    folder = nnunet_folder("nnUNet_raw")
    found = _find_dataset(folder, str(name_or_id))
    if found is None:
        raise CILError(
            f"There is no data set {str(name_or_id)!r} in {folder} (its folder is called DatasetXXX_NAME). 'nnunet_cil "
            "convert' makes one."
        )
    return folder / found


def known_dataset(name_or_id: str | int) -> str:
    """Returns a data set's name, from '17' or 'Dataset017_BTCV'; it need not be preprocessed yet."""
    try:
        return dataset_name(name_or_id)
    except CILError:
        return raw_dataset_folder(name_or_id).name


def _find_dataset(folder: Path, asked: str) -> str | None:
    if not asked.isdigit():
        return asked if is_dataset_name(asked) and (folder / asked).is_dir() else None
    prefix = f"Dataset{int(asked):03d}_"
    found = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name.startswith(prefix))
    if len(found) > 1:
        raise CILError(f"The ID {asked} is ambiguous in {folder}: {', '.join(found)}.")
    return found[0] if found else None


def new_dataset_folder(dataset_id: int, name: str) -> Path:
    """Returns ``nnUNet_raw/DatasetXXX_NAME`` for a conversion; refuses an ID that another data set has."""
    if not 1 <= dataset_id <= 999:
        raise CILError(f"A data set ID is a number from 1 to 999, not {dataset_id}.")
    raw = nnunet_folder("nnUNet_raw")
    folder = raw / f"Dataset{dataset_id:03d}_{name}"
    others = [p.name for p in raw.glob(f"Dataset{dataset_id:03d}_*") if p.name != folder.name]
    if others:
        raise CILError(f"The ID {dataset_id} belongs to {others[0]} in {raw}. Choose another one.")
    return folder


def model_folder_name(trainer: str, plans: str, configuration: str) -> str:
    """Returns the name of a model's folder in nnUNet_results, TRAINER__PLANS__CONFIGURATION."""
    return f"{trainer}__{plans}__{configuration}"


def logs_folder(dataset: str) -> Path:
    """Returns the folder that takes the output of nnU-Net's commands: beside the models of a data set, given by its name."""
    return nnunet_folder("nnUNet_results") / dataset / "cil_logs"


def check_room(folder: Path, needed: int, variable: str = "nnUNet_raw") -> None:
    """Refuses to begin what the disk cannot hold.

    Args:
        folder: that is going to be written; need not be there yet.
        needed: bytes.
        variable: nnU-Net's environment variable with which the user chooses another disk.

    Raises:
        CILError: tells how much is free.
    """
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise CILError(
            f"{existing} has {free / 1e9:.1f} GB free, but about {needed / 1e9:.1f} GB are needed. Make room, or set "
            f"{variable} to another disk."
        )
