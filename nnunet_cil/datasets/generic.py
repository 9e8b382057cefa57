"""Any folder of images and label maps, with a JSON file of names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nnunet_cil.datasets.download import Case, Dataset, Part, Problem, find_files, root_with, unpaired
from nnunet_cil.datasets.volumes import ImageFile
from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json

ENDINGS = r"\.(?:nii\.gz|nii|nrrd|mha|mhd)"
"""Endings of files that SimpleITK reads as one volume."""

EXAMPLE = '{"name": "MyOrgans", "labels": {"liver": 1, "spleen": 2}, "channels": ["CT"]}'


def find(source: Path, *, names: Path) -> Dataset:
    """Finds ``images`` and ``labels`` (or imagesTr and labelsTr), and for tests ``imagesTs`` and ``labelsTs``.

    A label file has its image's name; an image may have nnU-Net's channel number (``case_0000.nii.gz``).

    Args:
        source: the folder.
        names: a JSON file: ``name``, ``labels`` (class -> number in the label files), and if it is not CT,
            ``channels``; ``reference``, ``licence`` and ``citation`` as you like.

    Raises:
        CILError: no such folders, or a JSON file that does not say this.
    """
    content = _read_names(names)
    channels = tuple(content.get("channels", ["CT"]))
    train = ("images", "labels") if _has(source, "images") else ("imagesTr", "labelsTr")
    root = root_with(source, *train, expected="images and labels, or imagesTr and labelsTr")
    cases, problems = _cases(root / train[0], root / train[1], len(channels), "train")
    if _label_files(root / "labelsTs"):  # test images without labels are of no use for scores
        test_cases, test_problems = _cases(root / "imagesTs", root / "labelsTs", len(channels), "test")
        cases, problems = cases + test_cases, problems + test_problems
    return Dataset(
        name=content["name"],
        cases=tuple(cases),
        numbers=content["labels"],
        reference=str(content.get("reference", "")),
        licence=str(content.get("licence", "")),
        citation=str(content.get("citation", "")),
        channels=channels,
        problems=tuple(dict.fromkeys(problems)),
    )


def _cases(images: Path, labels: Path, num_channels: int, part: Part) -> tuple[list[Case], list[Problem]]:
    """Returns the cases that have labels and all channels, and a problem for each file that lacks its partner."""
    label_files = _label_files(labels)
    channels = [find_files(images, rf"(\w.*?)_{i:04d}{ENDINGS}") for i in range(num_channels)]
    if not channels[0] and num_channels == 1:
        channels = [find_files(images, rf"(\w.*?){ENDINGS}")]
    cases = [
        Case(name=name, images=tuple(ImageFile(c[name]) for c in channels), labels=ImageFile(file), part=part)
        for name, file in label_files.items()
        if all(name in channel for channel in channels)
    ]
    return cases, [problem for channel in channels for problem in unpaired(channel, label_files)]


def _label_files(folder: Path) -> dict[str, Path]:
    return find_files(folder, rf"(\w.*?){ENDINGS}")


def _has(source: Path, name: str) -> bool:
    return any(p.is_dir() for p in (source / name, *source.glob(f"*/{name}")))


def _read_names(file: Path) -> dict[str, Any]:
    content = read_json(file, f"It should look like {EXAMPLE}.")
    labels = content.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise CILError(f"{file} has no 'labels'. It should look like {EXAMPLE}.")
    labels.pop("background", None)
    channels = content.get("channels", ["CT"])
    if not isinstance(channels, list) or not channels or not all(isinstance(c, str) for c in channels):
        raise CILError(f"{file}: 'channels' is {channels!r}, but must be a list of names.")
    numbers = list(labels.values())
    if not all(type(n) is int and n > 0 for n in numbers) or len(set(numbers)) < len(numbers):
        raise CILError(f"{file}: every label needs a whole number above 0 of its own, but they are {labels}.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", str(content.get("name", ""))):
        raise CILError(f"{file}: 'name' is {content.get('name')!r}, but must be letters, digits, '_' and '-'.")
    return dict(content)
