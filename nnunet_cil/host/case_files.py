"""The files of each case of a raw data set, found as nnU-Net finds them: in its folders, or listed in dataset.json."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError


@dataclass(frozen=True, kw_only=True)
class LabelledCase:
    """A case with a label file.

    Attributes:
        name: of the case.
        part: Tr or Ts.
        image: the file of its first channel; it may be missing.
        labels: its label file.
    """

    name: str
    part: str
    image: Path
    labels: Path


def training_files(folder: Path, dataset_json: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the files of each training case: case -> ``images`` (a list, one a channel) and ``label``, as text.

    They are in imagesTr and labelsTr, or wherever ``dataset`` of dataset.json says.

    Args:
        folder: of the raw data set.
        dataset_json: of it, checked.

    Raises:
        CILError: there is no such folder, or the name of an image has no number of a channel.
    """
    if "dataset" not in dataset_json:  # found in one go; nnU-Net compares every case with every file
        ending = dataset_json["file_ending"]
        images: dict[str, list[str]] = {}
        for file in _images(folder / "imagesTr", ending):
            images.setdefault(case_of(file.name, ending), []).append(str(file))
        return {
            case: {"images": images[case], "label": str(folder / "labelsTr" / f"{case}{ending}")}
            for case in sorted(images)
        }
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    found = get_filenames_of_train_images_and_targets(str(folder), copy.deepcopy(dict(dataset_json)))
    return {str(case): files for case, files in found.items()}


def training_cases(folder: Path, dataset_json: Mapping[str, Any]) -> set[str]:
    """Returns the names of the training cases whose images are there; see ``training_files``."""
    if "dataset" in dataset_json:
        return {case for case, image in first_images(folder, dataset_json).items() if image.is_file()}
    images = folder / "imagesTr"
    return set(image_cases(images, dataset_json["file_ending"])) if images.is_dir() else set()


def first_images(folder: Path, dataset_json: Mapping[str, Any], cases: Iterable[str] = ()) -> dict[str, Path]:
    """Returns the file of the first channel of training cases, whether or not it is there.

    Args:
        folder: of the raw data set; it may be missing.
        dataset_json: of it, checked.
        cases: where dataset.json lists no files, the names of the cases; else all that it lists are returned.
    """
    if "dataset" in dataset_json:
        return {case: Path(files["images"][0]) for case, files in training_files(folder, dataset_json).items()}
    return {case: folder / "imagesTr" / f"{case}_0000{dataset_json['file_ending']}" for case in cases}


def image_cases(folder: Path, ending: str) -> list[str]:
    """Returns the names of the cases whose images are in a folder, in order.

    Raises:
        CILError: there is no such folder, or the name of an image has no number of a channel.
    """
    return sorted({case_of(file.name, ending) for file in _images(folder, ending)})


def case_images(folder: Path, dataset_json: Mapping[str, Any], *, has_colours: bool) -> dict[str, tuple[Path, ...]]:
    """Returns the images of every case of a folder: case -> one file a channel, or one with all colours.

    Args:
        folder: of images.
        dataset_json: of the data set or model that they are for, checked.
        has_colours: whether one file may hold all channels.

    Raises:
        CILError: there is no image, or a case lacks a channel or has one too many.
    """
    ending, num_channels = str(dataset_json["file_ending"]), len(dataset_json["channel_names"])
    names = image_cases(folder, ending)
    if not names:
        raise CILError(f"{folder} holds no images that end in {ending}. nnU-Net takes CASE_0000{ending}.")
    files = {file.name: file for file in folder.iterdir()}
    channels: dict[str, list[str]] = {}
    for file_name in sorted(name for name in files if name.endswith(ending)):
        channels.setdefault(case_of(file_name, ending), []).append(file_name)
    cases = {}
    for case in names:
        own = channels[case]
        is_one_file = has_colours and own == [f"{case}_0000{ending}"]
        expected = [f"{case}_{channel:04d}{ending}" for channel in range(1 if is_one_file else num_channels)]
        if missing := [name for name in expected if name not in files]:
            raise CILError(
                f"Case {case!r} lacks {folder / missing[0]}: dataset.json names {num_channels} channels. Add it, or remove "
                "the case."
            )
        if surplus := [name for name in own if name not in expected]:
            raise CILError(
                f"{files[surplus[0]]} is one channel more than dataset.json names ({num_channels}). Remove it."
            )
        cases[case] = tuple(files[name] for name in expected)
    return cases


def labelled_cases(folder: Path, dataset_json: Mapping[str, Any]) -> list[LabelledCase]:
    """Returns the cases of a raw data set that have a label file: the training cases, then the test cases.

    Args:
        folder: of the raw data set.
        dataset_json: of it, checked.

    Raises:
        CILError: dataset.json lists a label file that is not there.
    """
    if "dataset" not in dataset_json:
        return [*_labelled(folder, "Tr", dataset_json), *_labelled(folder, "Ts", dataset_json)]
    found = training_files(folder, dataset_json)
    for name, files in found.items():
        _check_there(name, [files["label"]], folder.name)
    listed = [
        LabelledCase(name=name, part="Tr", image=Path(files["images"][0]), labels=Path(files["label"]))
        for name, files in sorted(found.items())
    ]
    return [*listed, *_labelled(folder, "Ts", dataset_json)]


def check_files(
    case: str, images: Sequence[str], label: str, dataset_json: Mapping[str, Any], dataset: str, *, has_colours: bool
) -> None:
    """Refuses a training case that lacks a file, or has a channel that dataset.json does not name.

    Args:
        case: its name.
        images: its images, as ``training_files`` gives them.
        label: its label file.
        dataset_json: of the data set, checked.
        dataset: its name, for the message.
        has_colours: whether one file may hold all channels.

    Raises:
        CILError: names the file.
    """
    ending, files = dataset_json["file_ending"], [*images, label]
    if "dataset" not in dataset_json:
        folder = Path(label).parents[1] / "imagesTr"
        expected = [str(folder / f"{case}_{int(channel):04d}{ending}") for channel in dataset_json["channel_names"]]
        if has_colours and list(images) == expected[:1]:
            expected = expected[:1]
        surplus = sorted(set(images) - set(expected))
        if surplus:
            raise CILError(
                f"Case {case!r} of {dataset} has {surplus[0]}, but dataset.json names {len(expected)} channels. Remove the "
                "file, or add the channel to 'channel_names'."
            )
        files = [*expected, label]
    _check_there(case, files, dataset)


def _check_there(case: str, files: Iterable[str], dataset: str) -> None:
    missing = [file for file in files if not Path(file).is_file()]
    if missing:
        raise CILError(f"Case {case!r} of {dataset} lacks {missing[0]}. Add it, or remove the case.")


def _labelled(folder: Path, part: str, dataset_json: Mapping[str, Any]) -> list[LabelledCase]:
    ending = dataset_json["file_ending"]
    names = [(f.name.removesuffix(ending), f) for f in sorted((folder / f"labels{part}").glob(f"[!.]*{ending}"))]
    return [
        LabelledCase(name=name, part=part, image=folder / f"images{part}" / f"{name}_0000{ending}", labels=file)
        for name, file in names
    ]


def case_of(image: str, ending: str) -> str:
    """Returns the case of an image's file name, CASE_0000.nii.gz and the like."""
    return image[: -len("_0000") - len(ending)]


def _images(folder: Path, ending: str) -> list[Path]:
    """Returns the images in a folder: every file with that ending, as nnU-Net takes them."""
    if not folder.is_dir():
        raise CILError(f"{folder} is missing: the folder of the images. Make it, and put them there.")
    files = sorted(file for file in folder.iterdir() if file.name.endswith(ending) and file.is_file())
    for file in files:
        if not re.search(rf"._[0-9]{{4}}{re.escape(ending)}$", file.name):
            renamed = f"{file.name.removesuffix(ending)}_0000{ending}"
            raise CILError(
                f"The name of {file} does not end in a channel's number: nnU-Net takes CASE_0000{ending}, CASE_0001{ending} "
                f"and so on. Rename it, for a first channel to {renamed}, or remove it."
            )
    return files
