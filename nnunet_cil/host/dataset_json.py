"""Reading and checking nnU-Net's dataset.json, once and in one form: every other module may trust what it gets."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.files import json_type, read_json, shortened
from nnunet_cil.host.folders import nnunet_folder, raw_dataset_folder
from nnunet_cil.host.region_checks import check_region_numbers, check_regions_class_order
from nnunet_cil.labels import NO_CLASSES, Label, has_regions, numbers_in
from nnunet_cil.names import is_readable

_LABELS = '"labels": {"background": 0, "liver": 1}'
_CHANNELS = '"channel_names": {"0": "CT"}'
_ENDING = '"file_ending": ".nii.gz"'
_PARTLY = '"labelled_classes": {"siteA_*": ["liver"]}'
_FILES = '"dataset": {"case_1": {"images": ["imagesTr/case_1_0000.nii.gz"], "label": "labelsTr/case_1.nii.gz"}}'
IN_COLOUR = (".png", ".bmp", ".tif")
"""Endings of files of which one may hold all channels, as NaturalImage2DIO reads it."""

_MOST_CHARACTERS = 4000
"""The longest entry of a file that a message spells out: some 200 labels."""

_WHOLE_NUMBER = re.compile(r"\s*[+-]?[0-9]+\s*")


def read_dataset_json(file: Path, remedy: str = "Restore it: every data set of nnU-Net has one.") -> dict[str, Any]:
    """Reads a ``dataset.json`` of nnU-Net v2, as ``checked_dataset_json`` returns it.

    Raises:
        CILError: the file is missing, or is not what nnU-Net needs.
    """
    return checked_dataset_json(read_json(file, remedy), str(file))


def description_of(labels: Path) -> Path | None:
    """Returns the dataset.json that says what the numbers in a folder of label maps mean: in it or above it; None without one."""
    files = (labels / "dataset.json", labels.absolute().parent / "dataset.json")
    return next((file for file in files if file.is_file()), None)


def preprocessed_or_raw(dataset: str) -> dict[str, Any]:
    """Reads a data set's dataset.json: the preprocessed one, which training reads, or else the raw one.

    Args:
        dataset: nnU-Net's name.

    Raises:
        CILError: neither is there, or it lacks what nnU-Net needs.
    """
    file = nnunet_folder("nnUNet_preprocessed") / dataset / "dataset.json"
    if not file.is_file():
        file = raw_dataset_folder(dataset) / "dataset.json"
    return read_dataset_json(file)


def refuse_other_labelled_classes(dataset: str, dataset_json: Mapping[str, Any]) -> None:
    """Refuses a ``labelled_classes`` that stands in nnUNet_raw only, since the preprocessed copy of dataset.json counts.

    Args:
        dataset: nnU-Net's name.
        dataset_json: the content of the copy.

    Raises:
        CILError: the copy has none, or another one.
    """
    file = Path(os.environ.get("nnUNet_raw", "")) / dataset / "dataset.json"
    patterns = read_dataset_json(file).get("labelled_classes") if file.is_file() else None
    if patterns and patterns != dataset_json.get("labelled_classes"):
        raise CILError(
            f"'labelled_classes' in {file} is not that of the copy in nnUNet_preprocessed, which counts. Copy the file to "
            f"nnUNet_preprocessed/{dataset} again."
        )


def checked_dataset_json(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns a copy in which every value has the one form that nnU-Net's code means.

    Labels are whole numbers, also where the file says ``"1"``, ``1.0`` or ``[1]``; regions are tuples of them.
    ``channel_names`` is there where the file calls it ``modality``. What nnU-Net cannot train with is refused.

    Args:
        content: of a dataset.json.
        where: its file, for messages.

    Raises:
        CILError: a key is missing, or has a value that nnU-Net cannot use.
    """
    checked = dict(content)
    if "modality" in checked:
        checked.setdefault("channel_names", checked["modality"])
    for key, example in (("channel_names", _CHANNELS), ("labels", _LABELS), ("file_ending", _ENDING)):
        if key not in checked:
            raise CILError(f"{where} lacks {key!r}, which every data set of nnU-Net v2 has. Add it: {example}.")
    checked["channel_names"] = _channel_names(checked["channel_names"], where)
    if "modality" in checked and checked["modality"] != checked["channel_names"]:
        raise CILError(f"{where} has 'channel_names' and another 'modality', its old name. Remove 'modality'.")
    checked["labels"] = checked_labels(checked["labels"], where)
    if has_regions(checked["labels"]):
        check_regions_class_order(checked["labels"], checked.get("regions_class_order"), where)
    _check_file_ending(checked["file_ending"], where)
    _check_reader(checked, where)
    _check_labelled_classes(checked.get("labelled_classes", {}), where)
    if "dataset" in checked:
        in_colour = str(checked["file_ending"]).lower() in IN_COLOUR
        _check_files(checked["dataset"], len(checked["channel_names"]), where, may_be_in_colour=in_colour)
    return checked


def checked_labels(labels: object, where: str) -> dict[str, Label]:
    """Returns name -> number, or numbers of a region, as nnU-Net's ``LabelManager`` reads ``labels``.

    Args:
        labels: of a dataset.json.
        where: its file, for messages.

    Raises:
        CILError: nnU-Net cannot use them.
    """
    if not isinstance(labels, Mapping):
        raise CILError(f"{where}: 'labels' is {json_type(labels)}, but must give every name its number: {_LABELS}.")
    _refuse_version_1(labels, where)
    numbers: dict[str, Label] = {name: _label(name, value, where) for name, value in labels.items()}
    _check_names(numbers, where)
    if "background" not in numbers:
        similar = next((name for name in numbers if name.strip().lower() == "background"), None)
        what = f"writes {similar!r}" if similar else "has no 'background' among its 'labels'"
        raise CILError(f"{where} {what}, but nnU-Net needs this name, with number 0: {_LABELS}.")
    if numbers["background"] != 0:
        raise CILError(
            f"{where}: 'background' has number {numbers['background']}, but nnU-Net needs 0. Renumber the labels."
        )
    if has_regions(numbers):
        check_region_numbers(numbers, where)
    else:
        _check_numbering({name: numbers_in(label)[0] for name, label in numbers.items()}, where)
    if not numbers.keys() - {*NO_CLASSES}:
        raise CILError(f"{where} has no label beside the background. Add the classes: {_LABELS}.")
    return numbers


def _refuse_version_1(labels: Mapping[str, Any], where: str) -> None:
    """Refuses numbers in place of names, as nnU-Net v1 wanted them; says all labels as nnU-Net v2 wants them."""
    turned = {number: name for number, name in labels.items() if _is_number(number) and not _is_number(name)}
    turned = {number: name for number, name in turned.items() if isinstance(name, str)}
    if not turned:
        return
    first = next(iter(turned))
    names = {turned.get(key, key): int(key) if key in turned else value for key, value in labels.items()}
    right = _as_json("labels", names) if len(names) == len(labels) else ""
    raise CILError(
        f"{where} has labels as nnU-Net v1 wanted them ({shortened(first)}: {shortened(turned[first])}). Write the names first"
        + (f": {right}" if right else f", as in {_LABELS}.")
    )


def _is_number(text: object) -> bool:
    return isinstance(text, str) and len(text) < 20 and _WHOLE_NUMBER.fullmatch(text) is not None


def _as_json(key: str, content: Mapping[str, Any]) -> str:
    """Returns an entry of the file that can be pasted into it; blank where it would be longer than a screen."""
    text = f"{json.dumps(key)}: {json.dumps(content, ensure_ascii=False)}"
    return text if len(text) <= _MOST_CHARACTERS else ""


def _label(name: str, value: object, where: str) -> Label:
    """Returns a class's number; or the numbers of a region, as the file lists them."""
    if isinstance(value, (list, tuple)) and len(value) > 1 and name not in NO_CLASSES:
        return tuple(_number(name, number, where) for number in value)
    return _number(name, value, where)


def _number(name: str, value: object, where: str) -> int:
    """Returns the number that nnU-Net reads: of text, of ``1.0``, and of a list with one number."""
    alone = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 and name != "background" else value
    if name == "ignore" and not isinstance(value, int):
        alone = None  # nnU-Net takes no other form of it
    if isinstance(alone, str) and len(alone) < 20 and _WHOLE_NUMBER.fullmatch(alone):
        alone = int(alone)
    if isinstance(alone, float) and alone.is_integer():
        alone = int(alone)
    if not isinstance(alone, int) or isinstance(alone, bool):
        raise CILError(
            f"{where}: the label {name!r} is {_shown(value)}, but must be a whole number, as in {_LABELS}. Correct it."
        )
    if alone < 0:
        raise CILError(
            f"{where}: the label {name!r} is {shortened(alone)}, but nnU-Net numbers labels from 0 on. Renumber it."
        )
    return alone


def _check_names(names: Mapping[str, Label], where: str) -> None:
    for name in names:
        if not is_readable(name):
            raise CILError(
                f"{where}: the name {shortened(name)} of label {shortened(names[name])} is empty or has a line break or "
                "the like. Write another."
            )


def _check_numbering(numbers: Mapping[str, int], where: str) -> None:
    """Refuses numbers that nnU-Net's check of a data set refuses: twice, with gaps, or ``ignore`` not the highest."""
    ordered = sorted(numbers, key=lambda name: numbers[name])
    for name, following in pairwise(ordered):
        if numbers[name] == numbers[following]:
            raise CILError(
                f"{where} gives {name!r} and {following!r} the number {shortened(numbers[name])}. Give each its own, or "
                "remove one."
            )
    if "ignore" in numbers and ordered[-1] != "ignore":
        raise CILError(
            f"{where}: 'ignore' has number {numbers['ignore']}, but nnU-Net needs the highest one: {ordered[-1]!r} has "
            f"{shortened(numbers[ordered[-1]])}. Renumber the labels, also in the label files."
        )
    for number, name in enumerate(ordered):
        if numbers[name] != number:
            raise CILError(
                f"{where} has no label {number}, but {name!r} has number {shortened(numbers[name])}; nnU-Net needs 0, 1, 2, ... "
                "without a gap. Renumber the labels, also in the label files."
            )


def _channel_names(channels: object, where: str) -> dict[str, str]:
    """Returns number -> name of the channels."""
    found = f"{where}: 'channel_names' is {_shown(channels)}"
    if not isinstance(channels, Mapping) or not channels:
        raise CILError(f"{found}, but must give every channel's number its name: {_CHANNELS}.")
    turned = {
        str(number): name for name, number in channels.items() if _is_number(str(number)) and not _is_number(name)
    }
    if turned:
        right = _as_json("channel_names", turned) if len(turned) == len(channels) else ""
        raise CILError(
            f"{found}: the wrong way round. Write the numbers first"
            + (f": {right}" if right else f", as in {_CHANNELS}.")
        )
    for number, name in channels.items():
        if not is_readable(name):
            raise CILError(f"{found}, but the name of channel {shortened(number)} must be a text: {_CHANNELS}.")
    expected = [str(i) for i in range(len(channels))]
    if sorted(channels) != sorted(expected):
        raise CILError(
            f"{found}, but nnU-Net numbers its {len(channels)} channels {', '.join(expected)}, as their files: the first one's "
            "end in _0000. Correct the numbers."
        )
    return dict(channels)


def _check_file_ending(ending: object, where: str) -> None:
    if not isinstance(ending, str) or not re.fullmatch(r"(\.\w+)+", ending):
        raise CILError(
            f"{where}: 'file_ending' is {_shown(ending)}, but must be a text that begins with a dot: {_ENDING}."
        )


def _check_reader(dataset_json: Mapping[str, Any], where: str) -> None:
    reader = dataset_json.get("overwrite_image_reader_writer", "None")
    if not isinstance(reader, str) or not reader:
        raise CILError(
            f"{where}: 'overwrite_image_reader_writer' is {_shown(reader)}, but must be the name of one of nnU-Net's readers, as "
            '"SimpleITKIO". Remove it, and nnU-Net chooses.'
        )


def _check_labelled_classes(patterns: object, where: str) -> None:
    is_right = isinstance(patterns, Mapping) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in patterns.values()
    )
    if not is_right:
        raise CILError(
            f"{where}: 'labelled_classes' is {_shown(patterns)}, but must be a list of classes for every pattern of case names: "
            f"{_PARTLY}."
        )


def _check_files(files: object, num_channels: int, where: str, *, may_be_in_colour: bool) -> None:
    """Refuses lists of files that nnU-Net cannot follow: they stand in place of the folders imagesTr and labelsTr."""
    if not isinstance(files, Mapping) or not files:
        raise CILError(f"{where}: 'dataset' is {_shown(files)}, but must give the files of every case: {_FILES}.")
    for case, own in files.items():
        if not is_readable(case) or "/" in case or "\\" in case:
            raise CILError(
                f"{where}: 'dataset' has a case {shortened(case)}, which cannot be the name of a file. Rename it."
            )
        images = own.get("images") if isinstance(own, Mapping) else None
        label = own.get("label") if isinstance(own, Mapping) else None
        if not isinstance(images, list) or not all(is_readable(f) for f in [*images, label]):
            raise CILError(
                f"{where}: the files of case {case!r} under 'dataset' are {_shown(own)}. Give them as in {_FILES}."
            )
        if len(images) != num_channels and not (len(images) == 1 and may_be_in_colour):
            raise CILError(
                f"{where}: case {case!r} has {len(images)} images under 'dataset', but the data set has {num_channels} channels. "
                "Give one file a channel."
            )


def _shown(value: object) -> str:
    return shortened(value) if value is not None and not isinstance(value, bool) else json_type(value)
