"""Plans of one data set for another: the same network, spacing and normalisation under another name."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.host.folders import raw_dataset_folder, read_json
from nnunet_cil.host.plans_files import configuration_settings
from nnunet_cil.workflows.plan.compatibility import Remark, Sample, look_at

_PREPROCESSING = (
    *("spacing", "normalization_schemes", "use_mask_for_norm", "preprocessor_name"),
    *("resampling_fn_data", "resampling_fn_data_kwargs", "resampling_fn_seg", "resampling_fn_seg_kwargs"),
)
"""The keys of a configuration that decide what is preprocessed."""


@dataclass(frozen=True)
class RawData:
    """A raw data set: its folder, its dataset.json, and the files of each training case as nnU-Net finds them.

    ``plans_reader`` is the reader that plans which are going to be used on it were made with; empty where there are none.
    """

    folder: Path
    dataset_json: Mapping[str, Any]
    cases: Mapping[str, Mapping[str, Any]]
    plans_reader: str = ""

    @cached_property
    def reader(self) -> Any:
        """nnU-Net's, an instance: that of the plans, since one may flip what another does not.

        Where it cannot read the files, or dataset.json names one (``overwrite_image_reader_writer``), what nnU-Net chooses.
        """
        from nnunetv2.imageio.reader_writer_registry import (
            determine_reader_writer_from_dataset_json,
            recursive_find_reader_writer_by_name,
        )

        if self.plans_reader and self.dataset_json.get("overwrite_image_reader_writer", "None") == "None":
            known = recursive_find_reader_writer_by_name(self.plans_reader)
            if self.dataset_json["file_ending"].lower() in known.supported_file_endings:
                return known()
        example = next(iter(self.cases.values()))["images"][0]
        return determine_reader_writer_from_dataset_json(dict(self.dataset_json), example, verbose=False)()

    @property
    def reader_remark(self) -> Remark:
        """Its reader beside that of the plans: dangerous where only one of them brings every image into one orientation."""
        ours = type(self.reader).__name__
        differs = f", the model's {self.plans_reader}" if self.plans_reader not in ("", ours) else ""
        return Remark(f"reader: {ours}{differs}", ("Reorient" in ours) != ("Reorient" in self.plans_reader))

    @cached_property
    def sample(self) -> Sample:
        """A few of its cases."""
        return look_at([files["images"] for files in self.cases.values()], self.reader)


def read_raw(folder: Path, dataset_json: Mapping[str, Any], plans_reader: str = "") -> RawData:
    """Finds the training cases; the arguments are ``RawData``'s.

    Raises:
        CILError: there are none, or one lacks a file.
    """
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    try:
        found = get_filenames_of_train_images_and_targets(str(folder), dict(dataset_json))
    except (OSError, AssertionError, RuntimeError) as error:
        raise CILError(f"{folder} cannot be read as an nnU-Net data set ({error}).") from error
    cases: dict[str, dict[str, Any]] = {str(case): files for case, files in found.items()}
    if not cases:
        raise CILError(f"{folder} has no training case. Images belong in imagesTr, label files in labelsTr.")
    for case, files in cases.items():
        missing = [f for f in (*files["images"], files["label"]) if not Path(f).is_file()]
        if missing:
            raise CILError(f"Case {case!r} of {folder.name} lacks {missing[0]}. Add it, or remove the case.")
    return RawData(folder, dataset_json, cases, plans_reader)


def reader_of(plans: Mapping[str, Any]) -> str:
    """The name of the reader that the plans were made with."""
    return str(plans.get("image_reader_writer", ""))


def orientations_of(plans: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the data that the plans were made for, where they are in nnUNet_raw."""
    try:
        raw = raw_dataset_folder(str(plans["dataset_name"]))
        return read_raw(raw, read_json(raw / "dataset.json", ""), reader_of(plans)).sample.orientations
    except CILError:
        return ()


def refuse_danger(remarks: Sequence[Remark], *, force: bool, misfit: str, doubt: str, option: str) -> None:
    """Refuses what cannot be trained, and what is dangerous and not forced.

    Args:
        remarks: what ``fit`` says.
        force: the user has seen it.
        misfit: the sentence's beginning where the number of channels differs.
        doubt: its beginning where it is only dangerous.
        option: with which the user forces it.
    """
    dangers = [r.text for r in remarks if r.is_dangerous]
    if any(text.startswith("channels: the model takes") for text in dangers):
        raise CILError(f"{misfit}: {dangers[0]}.")
    if dangers and not force:
        raise CILError(f"{doubt}: {'; '.join(dangers)}. If it is all right, say so with {option}.")


def moved_name(plans_name: str, source: str) -> str:
    """Of the plans ``plans_name`` once they are moved from the data set ``source``."""
    return f"{re.sub(r'From[0-9]{3}$', '', plans_name)}From{source[7:10]}"


def moved_plans(
    base: Mapping[str, Any], dataset: str, reader: str, name: str, *, same_data: bool = False
) -> dict[str, Any]:
    """Plans for another data set: nothing changes but names, and the reader.

    Args:
        base: as nnU-Net wrote them; a step's block is left out.
        dataset: nnU-Net's name.
        reader: nnU-Net's, of its images.
        name: of the new plans.
        same_data: the names of the preprocessed folders stay, so that these are used again.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name) or "__" in name:
        raise CILError(
            f"The plans' name {name!r} becomes part of a folder's name: use letters, digits, '.', '-', single '_'."
        )
    plans: dict[str, Any] = copy.deepcopy(dict(base))
    plans.pop("cil", None)
    plans |= {"dataset_name": dataset, "plans_name": name, "image_reader_writer": reader}
    if not same_data:
        for configuration_name, configuration in plans["configurations"].items():
            if "data_identifier" in configuration:
                configuration["data_identifier"] = f"{name}_{configuration_name}"
    return plans


def refuse_other_preprocessing(target: Path, content: Mapping[str, Any], configuration: str, remedy: str) -> None:
    """Other plans may have filled the folder of preprocessed data that the new ones are going to use.

    Args:
        target: the data set's preprocessed folder.
        content: of the new plans; earlier ones of the same name count, too.
        configuration: nnU-Net's.
        remedy: the error's last sentence.
    """

    def decisive(plans: Mapping[str, Any]) -> dict[str, Any]:
        settings = configuration_settings(plans, configuration)
        shared = ("transpose_forward", "foreground_intensity_properties_per_channel", "image_reader_writer")
        return {**{k: settings.get(k) for k in _PREPROCESSING}, **{k: plans.get(k) for k in shared}}

    wanted, identifier = decisive(content), configuration_settings(content, configuration)["data_identifier"]
    for file in sorted(target.glob("*.json")) if (target / identifier).is_dir() else ():
        other = read_json(file, "") if file.stem not in ("dataset", "dataset_fingerprint") else {}
        if configuration not in (other.get("configurations", {}) if isinstance(other, dict) else {}):
            continue
        theirs = decisive(other)
        if configuration_settings(other, configuration).get("data_identifier") == identifier and theirs != wanted:
            differing = [k for k, v in wanted.items() if theirs[k] != v]
            raise CILError(
                f"{target / identifier} holds data that were preprocessed with other plans ({file.name}; other "
                f"{', '.join(differing)}). {remedy}"
            )
