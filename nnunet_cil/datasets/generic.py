"""Any folder of images and label maps, with a JSON file of names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nnunet_cil.datasets.download import Case, Dataset, Part, Problem, find_files, root_with, unpaired
from nnunet_cil.datasets.volumes import ImageFile
from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json, shortened
from nnunet_cil.limits import is_whole_number
from nnunet_cil.names import is_readable
from nnunet_cil.validation import validated

ENDINGS = r"\.(?i:nii\.gz|nii|nrrd|mha|mhd)"
"""Endings of files that SimpleITK reads as one volume."""

_NAME = r"([^.].*?)"
"""A case, not a hidden file."""

EXAMPLE = '{"name": "MyOrgans", "labels": {"liver": 1, "spleen": 2}, "channels": ["CT"]}'

MAX_LABEL = 65535
"""The largest number in label files of 16 bits."""


@dataclass(frozen=True, kw_only=True)
class _Names:
    """The content of the file of names."""

    name: str
    labels: dict[str, int]
    channels: tuple[str, ...] = ("CT",)
    reference: str = ""
    licence: str = ""
    citation: str = ""


def find(source: Path, *, names: Path) -> Dataset:
    """Finds ``images`` and ``labels`` (or imagesTr and labelsTr), and for tests ``imagesTs`` and ``labelsTs``.

    A label file has its image's name; an image may have nnU-Net's channel number (``case_0000.nii.gz``). Patients may be
    numbered so, too, in images and labels.

    Args:
        source: the folder.
        names: a JSON file: ``name``, ``labels`` (class -> number in the label files), and if it is not CT,
            ``channels``; ``reference``, ``licence`` and ``citation`` as you like.

    Raises:
        CILError: no such folders, or a JSON file that does not say this.
    """
    content = _read_names(names)
    channels = content.channels
    train = ("images", "labels") if _has(source, "images") else ("imagesTr", "labelsTr")
    root = root_with(source, *train, expected="images and labels, or imagesTr and labelsTr")
    cases, problems = _cases(root / train[0], root / train[1], len(channels), "train")
    if _label_files(root / "labelsTs"):  # test images without labels are of no use for scores
        test_cases, test_problems = _cases(root / "imagesTs", root / "labelsTs", len(channels), "test")
        cases, problems = cases + test_cases, problems + test_problems
    return Dataset(
        name=content.name,
        cases=tuple(cases),
        numbers=content.labels,
        reference=content.reference,
        licence=content.licence,
        citation=content.citation,
        channels=channels,
        problems=tuple(dict.fromkeys(problems)),
    )


def _cases(images: Path, labels: Path, num_channels: int, part: Part) -> tuple[list[Case], list[Problem]]:
    """Returns the cases that have labels and all channels, and a problem for each file that lacks its partner."""
    label_files = _label_files(labels)
    channels = [find_files(images, rf"{_NAME}_{i:04d}{ENDINGS}") for i in range(num_channels)]
    if num_channels == 1:  # case_0000 may be the first channel of a case, or the first patient
        whole = find_files(images, rf"{_NAME}{ENDINGS}")
        if not channels[0] or len(whole.keys() & label_files) > len(channels[0].keys() & label_files):
            channels = [whole]
    cases = [
        Case(name=name, images=tuple(ImageFile(c[name]) for c in channels), labels=ImageFile(file), part=part)
        for name, file in label_files.items()
        if all(name in channel for channel in channels)
    ]
    problems = [problem for channel in channels for problem in unpaired(channel, label_files)]
    return cases, problems + [problem for folder in (images, labels) for problem in _twice(folder)]


def _twice(folder: Path) -> list[Problem]:
    """Returns a problem for each name that two files have, as case.nii.gz and case.nrrd: which one counts?"""
    files: dict[str, list[str]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        if match := re.fullmatch(f"{_NAME}{ENDINGS}", file.name):
            files.setdefault(match[1], []).append(file.name)
    return [
        Problem(case=name, kind="two files", text=f"{' and '.join(both)} in {folder.name}: remove one")
        for name, both in files.items()
        if len(both) > 1
    ]


def _label_files(folder: Path) -> dict[str, Path]:
    return find_files(folder, rf"{_NAME}{ENDINGS}")


def _has(source: Path, name: str) -> bool:
    return any(p.is_dir() for p in (source / name, *source.glob(f"*/{name}")))


def _read_names(file: Path) -> _Names:
    remedy = f"It should look like {EXAMPLE}."
    names: _Names = validated(_Names, read_json(file, remedy), str(file), remedy)
    if names.labels.pop("background", 0) != 0:
        raise CILError(f"{file}: 'background' has another number than 0, which it is everywhere. Remove it. {remedy}")
    if not names.labels or not names.channels:
        raise CILError(f"{file} names no {'channels' if names.labels else 'labels'}. {remedy}")
    for name in (*names.labels, *names.channels):
        if not is_readable(name) or name == "ignore":
            raise CILError(f"{file}: {shortened(name)} cannot be the name of a class or channel. Write another.")
    numbers = list(names.labels.values())
    if not all(is_whole_number(n, 1, MAX_LABEL) for n in numbers) or len(set(numbers)) < len(numbers):
        raise CILError(
            f"{file}: every label needs a whole number above 0 of its own, up to {MAX_LABEL}, but they "
            f"are {shortened(names.labels)}."
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", names.name):
        raise CILError(f"{file}: 'name' is {shortened(names.name)}, but must be letters, digits, '_' and '-'.")
    return names
