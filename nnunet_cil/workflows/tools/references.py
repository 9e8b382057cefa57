"""Reference labels with the numbers of a model, for nnU-Net's own tools.

References move, not predictions: a softmax model puts out the index of its channel, nnU-Net finds label managers in its own
package only, and the channels of earlier steps are fixed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.errors import CILError, few_names
from nnunet_cil.files import read_json, write_json
from nnunet_cil.host.folders import nnunet_folder, num_processes
from nnunet_cil.host.processes import end_with_parent
from nnunet_cil.labels import Label, all_numbers, lookup_table, numbers_in
from nnunet_cil.training.ground_truth import evaluation_table, write_in_channels
from nnunet_cil.workflows.tools.compared_models import ComparedModels

FOLDER = "cil_references"
"""The name of folders that hold such labels."""


def cross_validation_environment(models: ComparedModels) -> dict[str, str]:
    """Returns the variables with which nnU-Net's tools find references in the numbers of the models; writes these.

    The tools read references from nnUNet_raw or nnUNet_preprocessed, and plans from nnUNet_preprocessed. So they get a folder
    that holds just these. Where the numbers agree, nothing is written, and there are no variables.

    Args:
        models: checked.

    Raises:
        CILError: a reference is missing.
    """
    if models.plan.is_numbered_as_the_data_set:
        return {}
    source = nnunet_folder("nnUNet_preprocessed") / models.dataset
    root = nnunet_folder("nnUNet_results") / models.dataset / FOLDER / models.models[0].plans_name
    target = root / "preprocessed" / models.dataset
    files = [source / "gt_segmentations" / name for name in models.validated_files]
    table = evaluation_table(models.plan)
    write_references(files, target / "gt_segmentations", table, models.models[0].reader, models.preprocessed)
    (root / "raw").mkdir(exist_ok=True)
    for name in {model.plans_name for model in models.models}:
        write_json(target / f"{name}.json", read_json(source / f"{name}.json", ""))
    return {"nnUNet_raw": str(root / "raw"), "nnUNet_preprocessed": str(root / "preprocessed")}


def write_references(
    files: Sequence[Path],
    target: Path,
    table: npt.NDArray[np.int16],
    reader: Any,
    preprocessed: Path | None = None,
    allowed: Sequence[int] | None = None,
) -> None:
    """Writes references anew, several at a time, and removes others from their folder; arguments as of ``write_in_channels``.

    Raises:
        CILError: a file is missing, or holds a number that it may not.
    """
    if missing := [file.name for file in files if not file.is_file()]:
        raise CILError(f"{files[0].parent} lacks the references {few_names(missing)}. Restore them.")
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        old.unlink()
    write = partial(
        _write_one, target=target, table=table, reader_writer=reader, preprocessed=preprocessed, allowed=allowed
    )
    with ProcessPoolExecutor(num_processes(), initializer=end_with_parent, initargs=(os.getpid(),)) as pool:
        list(pool.map(write, files))


def _write_one(file: Path, **arguments: Any) -> None:
    """Writes one reference; called in another process."""
    write_in_channels([file], **arguments)


def label_table(labels: Mapping[str, Label], numbers: Mapping[str, int], where: Path) -> npt.NDArray[np.int16]:
    """Returns the table from the numbers of reference labels to those of a model, for the classes of ``numbers``.

    Args:
        labels: of the references; regions, too.
        numbers: class -> the model's number.
        where: the references, for the message.

    Raises:
        CILError: a number belongs to two of the classes, of which the model can say one.
    """
    found: dict[int, str] = {}
    for name in numbers:
        for number in numbers_in(labels[name]):
            if number in found:
                raise CILError(
                    f"{where}: label {number} is both {found[number]} and {name}, but predictions have one class a voxel. Give "
                    "references without overlaps, or score the model with 'nnunet_cil evaluate'."
                )
            found[number] = name
    return lookup_table({number: numbers[name] for number, name in found.items()}, all_numbers(labels))
