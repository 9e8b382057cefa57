"""nnU-Net's folders and data sets, found the way nnU-Net finds them, with errors that say what to do."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_cil.errors import CILError
from nnunet_cil.files import shortened
from nnunet_cil.limits import MAX_DATASET_ID, is_whole_number
from nnunet_cil.names import is_dataset_id, is_dataset_name

if TYPE_CHECKING:
    from nnunet_cil.step_plans import PreviousModel


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
    if not re.fullmatch(r"0*[1-9][0-9]{0,3}", value):
        raise CILError(
            f"The environment variable nnUNet_def_n_proc is {shortened(value)}, but must be a whole number from 1 to 9999."
        )
    return int(value)


FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
"""The variables of nnU-Net's folders, in all of which it looks for an ID."""


def dataset_name(name_or_id: str | int) -> str:
    """Returns a data set's name, from '17' or 'Dataset017_BTCV'; it must be in nnUNet_preprocessed.

    Raises:
        CILError: it is not there, or nnU-Net finds several by the ID.
    """
    folder, name = nnunet_folder("nnUNet_preprocessed"), _full_name(str(name_or_id))
    if name is None or not (folder / name).is_dir():
        number = str(name_or_id) if name is None else id_argument(name)
        add = "" if name is not None and "nnUNet_raw" in _places(name) else "Add it to nnUNet_raw. "
        raise CILError(
            f"There is no preprocessed data set {str(name_or_id)!r} in {folder}{_found_elsewhere(name)}. {add}Run "
            f"'nnUNetv2_plan_and_preprocess -d {number}' first."
        )
    return name


def raw_dataset_folder(name_or_id: str | int) -> Path:
    """Returns a data set's folder in nnUNet_raw, from '17' or 'Dataset017_BTCV'.

    Raises:
        CILError: it is not there, or nnU-Net finds several by the ID.
    """
    name = _full_name(str(name_or_id))
    folder = nnunet_folder("nnUNet_raw")
    if name is None or not (folder / name).is_dir():
        raise CILError(
            f"There is no data set {str(name_or_id)!r} in {folder} (its folder is called DatasetXXX_NAME)"
            f"{_found_elsewhere(name)}. 'nnunet_cil convert' makes one."
        )
    return folder / name


def known_dataset(name_or_id: str | int) -> str:
    """Returns a data set's name, from '17' or 'Dataset017_BTCV'; it need not be preprocessed yet.

    Raises:
        CILError: it is neither preprocessed nor in nnUNet_raw, or nnU-Net finds several by the ID.
    """
    name = _full_name(str(name_or_id))
    if name is not None and (nnunet_folder("nnUNet_preprocessed") / name).is_dir():
        return name
    return raw_dataset_folder(name_or_id).name


def dataset_id(name: str) -> int:
    """Returns the ID in a data set's name: 17 for 'Dataset017_BTCV', 1234 for 'Dataset1234_BTCV'."""
    return int(name.removeprefix("Dataset").partition("_")[0])


def id_argument(name: str) -> str:
    """Returns a data set's ID as ``-d`` takes it, of those of nnU-Net's commands that take no name.

    Raises:
        CILError: nnU-Net finds another data set by that ID, too.
    """
    _refuse_several(dataset_id(name), {name})
    return str(dataset_id(name))


def _full_name(asked: str) -> str | None:
    """Returns the name of the data set with an ID, or the name that was given; None for an ID that no data set has.

    Raises:
        CILError: nnU-Net finds several data sets by the ID, or one with another ID; or it is neither ID nor name.
    """
    if is_dataset_id(asked):
        _refuse_several(int(asked))
        return next(iter(_found_by_id(int(asked))), None)
    name = asked.rstrip("/")  # as a shell completes it
    if not is_dataset_name(name):
        raise CILError(
            f"{asked!r} names no data set of nnU-Net. Give its ID, or its folder's name, DatasetXXX_NAME with three digits."
        )
    return name


def _found_by_id(number: int) -> dict[str, list[str]]:
    """Returns the data sets that nnU-Net finds by an ID, in its three folders: name -> the folders' variables.

    As nnU-Net does, it takes all folders whose names begin with ``Dataset`` and the ID, so 123 finds Dataset1234_X, too.
    """
    prefix = f"Dataset{number:03d}"
    found: dict[str, list[str]] = {}
    for variable in FOLDERS:
        folder = os.environ.get(variable, "")
        for entry in sorted(Path(folder).iterdir()) if os.path.isdir(folder) else ():
            if entry.name.startswith(prefix) and entry.is_dir():
                found.setdefault(entry.name, []).append(variable)
    return found


def _places(name: str) -> list[str]:
    """Returns the variables of the folders that hold a data set of this name."""
    return _found_by_id(dataset_id(name)).get(name, [])


def _refuse_several(number: int, expected: Collection[str] = ()) -> None:
    """Refuses an ID by which nnU-Net finds several data sets, or one of another ID.

    Args:
        number: the ID.
        expected: the names that it may find; empty for any one of that ID.
    """
    found = _found_by_id(number)
    told = ", ".join(f"{name} ({', '.join(variables)})" for name, variables in found.items())
    if len(found.keys() | expected) > 1:
        raise CILError(
            f"nnU-Net finds several data sets by the ID {number}: {told}. Rename all folders of the one that you do not mean, so "
            "that it has an ID of its own, or move them elsewhere."
        )
    for name in found:
        if not is_dataset_name(name) or dataset_id(name) != number:
            raise CILError(
                f"nnU-Net takes {told} for the data set {number}, which would be called Dataset{number:03d}_NAME. Rename it, or "
                "give the ID that you mean."
            )


def _found_elsewhere(name: str | None) -> str:
    """Tells which data sets nnU-Net finds by the ID in a name; blank where there are none."""
    found = _found_by_id(dataset_id(name)) if name is not None else {}
    told = ", ".join(f"{other} in {' and '.join(variables)}" for other, variables in found.items())
    return f", only {told}" if found else ""


def new_dataset_folder(number: int, name: str) -> Path:
    """Returns ``nnUNet_raw/DatasetXXX_NAME`` for a conversion.

    Args:
        number: the data set's ID.
        name: its own.

    Raises:
        CILError: in one of nnU-Net's folders, another data set has the ID.
    """
    if not is_whole_number(number, 1, MAX_DATASET_ID):
        raise CILError(f"A data set ID is a number from 1 to {MAX_DATASET_ID}, not {shortened(number)}.")
    folder = nnunet_folder("nnUNet_raw") / f"Dataset{number:03d}_{name}"
    for other, variables in _found_by_id(number).items():
        if other != folder.name:
            raise CILError(f"The ID {number} belongs to {other} in {' and '.join(variables)}. Choose another one.")
    return folder


def model_folder_name(trainer: str, plans: str, configuration: str) -> str:
    """Returns the name of a model's folder in nnUNet_results, TRAINER__PLANS__CONFIGURATION."""
    return f"{trainer}__{plans}__{configuration}"


def previous_model_folder(previous: PreviousModel, trainer: str, configuration: str) -> Path:
    """Returns the folder of the model that a step continues from, above its folds.

    Args:
        previous: as the step's plans name it.
        trainer: the step's, where they name none.
        configuration: the step's, where they name none.
    """
    name = model_folder_name(previous.trainer or trainer, previous.plans, previous.configuration or configuration)
    if previous.folder is None:
        return nnunet_folder("nnUNet_results") / previous.dataset / name
    return Path(previous.folder) if previous.configuration else Path(previous.folder).with_name(name)


def fold_folder(dataset: str, trainer: str, plans: str, configuration: str, fold: int | str) -> Path:
    """Returns nnU-Net's folder of a fold, which need not be there yet."""
    results = os.environ.get("nnUNet_results") or nnunet_folder("nnUNet_results")
    return Path(results) / dataset / model_folder_name(trainer, plans, configuration) / f"fold_{fold}"


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
