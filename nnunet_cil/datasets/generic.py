"""Any folder of images and label maps, with a JSON file of names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from nnunet_cil.datasets.download import Case, Dataset, Problem, find_files, root_with, unpaired
from nnunet_cil.datasets.volumes import ImageFile
from nnunet_cil.errors import CILError

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
    cases: list[Case] = []
    problems: list[Problem] = []
    train = ("images", "labels") if _has(source, "images") else ("imagesTr", "labelsTr")
    root = root_with(source, *train, expected="images and labels, or imagesTr and labelsTr")
    for image_folder, label_folder, is_test in ((*train, False), ("imagesTs", "labelsTs", True)):
        labels = find_files(root / label_folder, rf"(\w.*?){ENDINGS}")
        images = [find_files(root / image_folder, rf"(\w.*?)_{i:04d}{ENDINGS}") for i in range(len(channels))]
        if not images[0] and len(channels) == 1:
            images = [find_files(root / image_folder, rf"(\w.*?){ENDINGS}")]
        if is_test and not labels:
            continue  # test images without labels are of no use for scores
        for channel in images:
            problems += unpaired(channel, labels)
        complete = [case for case in labels if all(case in channel for channel in images)]
        cases += [
            Case(
                name=c,
                images=tuple(ImageFile(i[c]) for i in images),
                labels=ImageFile(labels[c]),
                part="test" if is_test else "train",
            )
            for c in complete
        ]
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


def _has(source: Path, name: str) -> bool:
    return any(p.is_dir() for p in (source / name, *source.glob(f"*/{name}")))


def _read_names(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CILError(f"{file} cannot be read as JSON ({error}). It should look like {EXAMPLE}.") from error
    labels = content.get("labels") if isinstance(content, dict) else None
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
