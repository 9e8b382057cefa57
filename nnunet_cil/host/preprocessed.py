"""Preprocessed data sets: which configurations are there, by which plans, and which labels their cases hold."""

from __future__ import annotations

import os
import pickle
import shlex
import zipfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.errors import CILError
from nnunet_cil.host.folders import id_argument
from nnunet_cil.host.plans_files import configuration_settings, read_plans
from nnunet_cil.labels import Label, all_numbers

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


@dataclass(frozen=True, kw_only=True)
class PreprocessedCases:
    """The cases of a configuration, as nnU-Net has preprocessed them.

    Attributes:
        folder: of their files; need not be there yet.
        configuration: nnU-Net's.
        plans_name: the name of the plans that preprocess them.
    """

    folder: Path
    configuration: str
    plans_name: str

    @classmethod
    def of(cls, dataset_folder: Path, plans: Mapping[str, Any], configuration: str) -> PreprocessedCases:
        """Returns those of a preprocessed data set that the plans' configuration names."""
        identifier = configuration_settings(plans, configuration)["data_identifier"]
        return cls(folder=dataset_folder / identifier, configuration=configuration, plans_name=plans["plans_name"])

    @property
    def command(self) -> str:
        """The command that preprocesses them again."""
        what = [
            "-d",
            id_argument(self.folder.parent.name),
            "-c",
            self.configuration,
            "-plans_name",
            self.plans_name,
        ]
        return shlex.join(["nnUNetv2_preprocess", *what])

    def names(self) -> list[str]:
        """Returns the cases' names.

        Raises:
            CILError: a case lacks one of its files, or the folder holds files that nnU-Net did not write.
        """
        files = self._files()
        for case, own in files.items():
            if missing := _missing(own):
                raise CILError(
                    f"Case {case!r} in {self.folder} is incomplete ({case}{missing[0]} is missing). Preprocess it again: "
                    f"'{self.command}'."
                )
        return list(files)

    def complete_names(self) -> list[str]:
        """Returns the names of the cases that have all of their files."""
        return [case for case, own in self._files().items() if not _missing(own)]

    def _files(self) -> dict[str, set[str]]:
        """Returns the endings of each case's files.

        Raises:
            CILError: the folder holds files that nnU-Net did not write, or those of two of its versions.
        """
        files: dict[str, set[str]] = {}
        for name in sorted(os.listdir(self.folder)) if self.folder.is_dir() else ():
            case, ending = _case_and_ending(name)
            if not ending:
                raise CILError(f"{self.folder} holds {name!r}, which nnU-Net did not write and may fail on. Remove it.")
            files.setdefault(case, set()).add(ending)
        if {".npz", ".b2nd"} <= set().union(*files.values()):
            raise CILError(
                f"{self.folder} holds cases of two versions of nnU-Net, in .npz and in .b2nd files. Remove the folder, and "
                f"preprocess again: '{self.command}'."
            )
        return files

    def labels_in(self, case: str) -> set[int]:
        """Reads which values a case holds in its preprocessed segmentation.

        Raises:
            CILError: one of its files cannot be read.
        """
        try:
            return distinct_values(np.asarray(self._data.load_case(case)[1][:]))
        except (
            OSError,
            RuntimeError,
            ValueError,
            OverflowError,
            EOFError,
            KeyError,
            pickle.UnpicklingError,
            zipfile.BadZipFile,
        ) as error:
            raise CILError(
                f"Case {case!r} in {self.folder} is incomplete or damaged ({type(error).__name__}: {error}). Preprocess it "
                f"again: '{self.command}'."
            ) from error

    @cached_property
    def _data(self) -> Any:
        from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

        return infer_dataset_class(str(self.folder))(str(self.folder))


def _case_and_ending(name: str) -> tuple[str, str]:
    """Splits the name of a preprocessed file; an empty ending stands for none of nnU-Net's. .npy is an unpacked .npz."""
    for ending in ("_seg.b2nd", ".b2nd", ".pkl", ".npz", "_seg.npy", ".npy"):
        if name.endswith(ending) and not name.startswith("."):
            return name.removesuffix(ending), ending
    return name, ""


def _missing(endings: Collection[str]) -> list[str]:
    """Returns the endings of the files that a case lacks, given those of the files that it has."""
    is_numpy = any(ending.endswith((".npz", ".npy")) for ending in endings)
    return [e for e in ((".npz", ".pkl") if is_numpy else (".b2nd", "_seg.b2nd", ".pkl")) if e not in endings]


def scan_labels(
    folder: Path, plans: Mapping[str, Any], labels: Mapping[str, Label], configurations: Iterable[str]
) -> dict[str, dict[str, set[int]]]:
    """Reads which labels each case holds in its preprocessed segmentations.

    Args:
        folder: the preprocessed data set.
        plans: nnU-Net plans of it.
        labels: of dataset.json.
        configurations: that are preprocessed; where several have the same data, these are read once.

    Returns:
        Configuration -> case -> the labels that it holds.

    Raises:
        CILError: a case cannot be read, or it holds a value that dataset.json does not list.
    """
    from tqdm import tqdm

    found: dict[str, dict[str, set[int]]] = {}
    read: dict[Path, dict[str, set[int]]] = {}
    for configuration in configurations:
        data = PreprocessedCases.of(folder, plans, configuration)
        if data.folder not in read:
            names = tqdm(data.names(), desc=f"Looking at labels, {configuration}", leave=False)
            read[data.folder] = {case: data.labels_in(case) for case in names}
        found[configuration] = read[data.folder]
    allowed = {-1, *all_numbers(labels)}
    for preprocessed, cases in read.items():
        for case, values in cases.items():
            if not values <= allowed:
                raise CILError(
                    f"Case {case!r} holds the label value {min(values - allowed)}, which dataset.json of {folder.name} does not "
                    f"list ({dict(labels)}). Correct the label file and preprocess {preprocessed.name} again."
                )
    return found


def distinct_values(segmentation: npt.NDArray[Any]) -> set[int]:
    """Returns the distinct values: those beside another one, in a label map few, and the first. Faster than a sort or a count."""
    flat = segmentation.reshape(-1)
    if not flat.size:
        return set()
    beside = flat[1:][flat[1:] != flat[:-1]]
    return {int(flat[0]), *(int(v) for v in np.unique(beside))}
