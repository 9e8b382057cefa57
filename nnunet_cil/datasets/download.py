"""The description of a download, the same for every data set, and how to find its files."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from nnunet_cil.datasets.volumes import ImageFile, Source
from nnunet_cil.errors import CILError, did_you_mean

Part = Literal["train", "val", "test"]
"""Part of a data set: training, validation (training cases that ``splits_final.json`` sets aside) or test."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Case:
    """An image and its labels.

    Attributes:
        name: as in nnU-Net's file names.
        images: one source a channel.
        labels: source of the label map.
        part: training, validation or test.
        patient: cases of one patient stay in one fold; empty: the case is a patient of its own.
    """

    name: str
    images: tuple[Source, ...]
    labels: Source
    part: Part = "train"
    patient: str = ""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is wrong with a case, or worth knowing.

    Attributes:
        case: name of the case; empty for the whole data set.
        kind: problems of one kind are listed together.
        text: the problem in words, to follow the case's name.
        blocking: stops the conversion; the others are notes.
    """

    case: str
    kind: str
    text: str
    blocking: bool = True


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A download, before any image is read.

    Attributes:
        name: name of the nnU-Net data set.
        cases: those with labels.
        numbers: class -> its number in the label files. They are written as 1, 2, ... in this order.
        reference: address of the data set.
        licence: licence of the data set.
        citation: the publication to cite.
        channels: nnU-Net's channel names.
        hounsfield: whether channels named CT hold Hounsfield units.
        problems: those that the names of the files show.
    """

    name: str
    cases: tuple[Case, ...]
    numbers: Mapping[str, int]
    reference: str
    licence: str
    citation: str
    channels: tuple[str, ...] = ("CT",)
    hounsfield: bool = True
    problems: tuple[Problem, ...] = field(default=())


def root_with(source: Path, *names: str, expected: str) -> Path:
    """Returns the folder that holds all these names: the source, or a folder up to three levels below it.

    Args:
        source: the folder of the download.
        names: files or folders.
        expected: what the download looks like, for the message.

    Raises:
        CILError: there is no such folder.
    """
    if not source.is_dir():
        raise CILError(
            f"{source} is neither a folder nor a zip or tar archive. Give the folder that the download unpacks to."
        )
    level = [source]
    for _ in range(4):
        for folder in level:
            if all((folder / name).exists() for name in names):
                return folder
        level = sorted(p for folder in level for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._")
    raise CILError(f"{source} holds no folder with {' and '.join(names)}: expected {expected}.")


def find_files(folder: Path, pattern: str) -> dict[str, Path]:
    """Returns case -> file, for the file names that match; group 1 of the pattern is the case.

    A folder that is missing holds no files. A pattern that does not begin with a dot skips the ``._`` files of macOS.
    """
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = re.fullmatch(pattern, file.name)
        if match:
            files.setdefault(match[1], file)
    return files


def paired_cases(images: Mapping[str, Path], labels: Mapping[str, Path], part: Part = "train") -> list[Case]:
    """Returns the cases, of one channel, that have both an image and a label file, by name."""
    return [
        Case(name=name, images=(ImageFile(images[name]),), labels=ImageFile(labels[name]), part=part)
        for name in sorted(set(images) & set(labels))
    ]


def unpaired(images: Mapping[str, Path], labels: Mapping[str, Path]) -> tuple[Problem, ...]:
    """Returns a problem for each image without labels, and for each label file without an image."""
    return tuple(
        Problem(case=case, kind="missing file", text=f"{files[case].name} has no {missing}")
        for files, others, missing in ((images, labels, "label file"), (labels, images, "image"))
        for case in sorted(set(files) - set(others))
    )


def incomplete(num_cases: int, num_official: int, folder: str = "") -> tuple[Problem, ...]:
    """Returns a note where there are fewer cases than in the official data set: the download may be cut off."""
    if num_cases >= num_official:
        return ()
    where = f"{folder}: " if folder else ""
    text = f"{where}{num_cases} of the {num_official} labelled cases of the official data set are here"
    return (Problem(case="", kind="number of cases", text=text, blocking=False),)


def chosen_parts(cases: Mapping[str, Sequence[str]], available: Collection[str]) -> dict[str, Part]:
    """Returns case -> part, for the cases that a user has chosen.

    Args:
        cases: ``{"train": [...], "test": [...]}``.
        available: the cases of the download.

    Raises:
        CILError: ``cases`` looks otherwise, or names a case that is not there, or one for both.
    """
    are_lists = all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in cases.values())
    if not set(cases) <= {"train", "test"} or not are_lists:
        raise CILError(f'Chosen cases look like {{"train": ["{min(available)}"], "test": ["{max(available)}"]}}.')
    train, test = cases.get("train", []), cases.get("test", [])
    if both := [name for name in train if name in test]:
        raise CILError(f"The case {both[0]!r} is chosen for training and for test. Remove it from one of the two.")
    parts: dict[str, Part] = {**dict.fromkeys(train, "train"), **dict.fromkeys(test, "test")}
    missing = [name for name in parts if name not in available]
    if missing:
        raise CILError(f"{len(missing)} of the wanted cases are not in the source, the first is {missing[0]!r}.")
    return parts


def choose(value: str, variants: Mapping[str, T], option: str) -> T:
    """Returns the variant of a data set that an option names.

    Raises:
        CILError: there is no such variant.
    """
    if value not in variants:
        raise CILError(
            f"{option} {value!r} is unknown{did_you_mean(value, variants)}. It is one of {', '.join(variants)}."
        )
    return variants[value]
