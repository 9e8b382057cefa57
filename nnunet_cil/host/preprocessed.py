"""Preprocessed data sets: which configurations are there, by which plans, and which labels their cases hold."""

from __future__ import annotations

import os
import pickle
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.errors import CILError
from nnunet_cil.host.folders import id_argument
from nnunet_cil.host.plans_files import configuration_settings, read_plans

_PREPROCESSING_SETTINGS = (
    *("spacing", "normalization_schemes", "use_mask_for_norm", "preprocessor_name"),
    *("resampling_fn_data", "resampling_fn_data_kwargs", "resampling_fn_seg", "resampling_fn_seg_kwargs"),
)
"""The settings of a configuration that decide what is preprocessed."""

_SHARED_SETTINGS = ("transpose_forward", "foreground_intensity_properties_per_channel", "image_reader_writer")
"""The settings of whole plans that decide it, too."""


def preprocessed_configurations(folder: Path, plans: Mapping[str, Any]) -> list[str]:
    """Returns the configurations whose folder in a preprocessed data set is not empty.

    Args:
        folder: the preprocessed data set.
        plans: nnU-Net plans of it.
    """
    identifiers = {name: c.get("data_identifier") for name, c in plans["configurations"].items()}
    return [n for n, i in identifiers.items() if i and (folder / i).is_dir() and any((folder / i).iterdir())]


def refuse_other_preprocessing(folder: Path, plans: Mapping[str, Any], configuration: str, remedy: str) -> None:
    """Refuses a folder of preprocessed data that other plans may have filled.

    Args:
        folder: the preprocessed data set.
        plans: that are going to use the data; plans that are there under the same name are compared, too.
        configuration: nnU-Net's.
        remedy: the error's last sentence.

    Raises:
        CILError: plans that preprocess in another way name the same folder, and it is there.
    """
    identifier = configuration_settings(plans, configuration)["data_identifier"]
    if not (folder / identifier).is_dir():
        return
    own = _preprocessing_settings(plans, configuration)
    for file in sorted(folder.glob("*.json")):
        try:
            other = read_plans(file, "")
            theirs_is_here = configuration_settings(other, configuration)["data_identifier"] == identifier
        except CILError:  # another file, or plans without the configuration
            continue
        if not theirs_is_here:
            continue
        theirs = _preprocessing_settings(other, configuration)
        if differing := [name for name, value in own.items() if theirs[name] != value]:
            raise CILError(
                f"{folder / identifier} holds data that were preprocessed with other plans ({file.name}; other "
                f"{', '.join(differing)}). {remedy}"
            )


def _preprocessing_settings(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    settings = configuration_settings(plans, configuration)
    own = {name: settings.get(name) for name in _PREPROCESSING_SETTINGS}
    return own | {name: plans.get(name) for name in _SHARED_SETTINGS}


def preprocessed_cases(preprocessed: Path) -> list[str]:
    """Returns the cases of a folder that nnU-Net has filled with preprocessed data, by name.

    Raises:
        CILError: a case lacks one of its files, or the folder holds files that nnU-Net did not write.
    """
    files: dict[str, set[str]] = {}
    for name in sorted(os.listdir(preprocessed)) if preprocessed.is_dir() else ():
        case, ending = _case_and_ending(name)
        if not ending:
            raise CILError(f"{preprocessed} holds {name!r}, which nnU-Net did not write and may fail on. Remove it.")
        files.setdefault(case, set()).add(ending)
    endings = set().union(*files.values())
    if ".npz" in endings and ".b2nd" in endings:
        raise CILError(
            f"{preprocessed} holds cases of two versions of nnU-Net, in .npz and in .b2nd files. Remove the folder, and "
            "preprocess the data set again."
        )
    for case, own in files.items():
        needed = {".npz", ".pkl"} if ".npz" in endings else {".b2nd", "_seg.b2nd", ".pkl"}
        if missing := sorted(needed - own):
            raise CILError(
                f"Case {case!r} in {preprocessed} is incomplete ({case}{missing[0]} is missing). Preprocess the data set again."
            )
    return list(files)


def _case_and_ending(name: str) -> tuple[str, str]:
    """Splits the name of a preprocessed file; an empty ending stands for none of nnU-Net's. .npy is an unpacked .npz."""
    for ending in ("_seg.b2nd", ".b2nd", ".pkl", ".npz", "_seg.npy", ".npy"):
        if name.endswith(ending) and not name.startswith("."):
            return name.removesuffix(ending), ending
    return name, ""


def scan_labels(folder: Path, plans: Mapping[str, Any], labels: Mapping[str, int]) -> dict[str, set[int]]:
    """Reads which labels each case holds in its preprocessed segmentation.

    Args:
        folder: the preprocessed data set.
        plans: nnU-Net plans of it; their first configuration that is preprocessed is read.
        labels: of dataset.json, name -> number.

    Returns:
        Case -> the labels that it holds.

    Raises:
        CILError: nothing is preprocessed, a case cannot be read, or it holds a value that dataset.json does not list.
    """
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
    from tqdm import tqdm

    configurations = preprocessed_configurations(folder, plans)
    if not configurations:
        command = _preprocess_command(folder.name, plans)
        raise CILError(f"No configuration of {folder.name} is preprocessed yet. Run {command} first.")
    preprocessed = folder / plans["configurations"][configurations[0]]["data_identifier"]
    data = infer_dataset_class(str(preprocessed))(str(preprocessed))
    allowed = {-1, *labels.values()}
    present = {}
    for case in tqdm(data.identifiers, desc="Looking at labels", leave=False):
        try:
            values = _values(np.asarray(data.load_case(case)[1][:]))
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise CILError(
                f"Case {case!r} in {preprocessed} is incomplete or damaged ({type(error).__name__}: {error}). Preprocess it "
                f"again: {_preprocess_command(folder.name, plans)}."
            ) from error
        if not values <= allowed:
            raise CILError(
                f"Case {case!r} holds the label value {min(values - allowed)}, which dataset.json of "
                f"{folder.name} does not list ({dict(labels)}). Correct the label file and preprocess again."
            )
        present[case] = values
    return present


def _preprocess_command(dataset: str, plans: Mapping[str, Any]) -> str:
    words = ["nnUNetv2_preprocess", "-d", id_argument(dataset), "-plans_name", plans["plans_name"]]
    return f"'{shlex.join(words)}'"


def _values(segmentation: npt.NDArray[Any]) -> set[int]:
    """Returns the distinct values; a count is faster than a sort."""
    lowest = int(segmentation.min())
    counts = np.bincount((segmentation.ravel() - lowest).astype(np.int64))
    return {int(v) + lowest for v in np.flatnonzero(counts)}
