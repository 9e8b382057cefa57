"""What a download holds, said the same way for every data set, and how to find it in folders."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from nnunet_cil.datasets.volumes import Source
from nnunet_cil.errors import CILError, did_you_mean

Part = Literal["train", "val", "test"]
T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """An image and its labels.

    Attributes:
        name: as in nnU-Net's file names.
        images: one source a channel.
        labels: the label map.
        part: training, validation (training data that ``splits_final.json`` sets aside) or test.
        patient: cases of one patient stay in one fold; empty: the case is a patient of its own.
    """

    name: str
    images: tuple[Source, ...]
    labels: Source
    part: Part = "train"
    patient: str = ""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a case, or worth knowing.

    Attributes:
        case: which; empty for the whole data set.
        what: the kind, under which problems are listed together.
        text: what was found.
        serious: a serious problem stops the conversion; the others are only told.
    """

    case: str
    what: str
    text: str
    serious: bool = True


@dataclass(frozen=True)
class Dataset:
    """A download, before anything is read but names.

    Attributes:
        name: of the nnU-Net data set.
        cases: those with labels.
        numbers: class -> its number in the label files. They are written as 1, 2, ... in this order.
        reference: where the data set comes from.
        licence: under which it is given out.
        citation: the publication to cite.
        channels: nnU-Net's channel names.
        hounsfield: whether channels named CT hold Hounsfield units.
        problems: what the file names already tell.
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


def root_with(source: Path, *wanted: str, expected: str) -> Path:
    """The folder that holds all of ``wanted``: the source, or one up to three levels below it.

    Raises:
        CILError: there is none; ``expected`` says what the download looks like.
    """
    if not source.is_dir():
        raise CILError(
            f"{source} is neither a folder nor a zip or tar archive. Give the folder that the download unpacks to."
        )
    level = [source]
    for _ in range(4):
        for folder in level:
            if all((folder / name).exists() for name in wanted):
                return folder
        level = sorted(p for folder in level for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._")
    raise CILError(f"{source} holds no folder with {' and '.join(wanted)}: expected {expected}.")


def find_files(folder: Path, pattern: str) -> dict[str, Path]:
    """Case -> file, for names in a folder that match; group 1 of the pattern is the case.

    macOS's ``._`` twins match no pattern that begins with a letter. A folder that is missing holds nothing.
    """
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = re.fullmatch(pattern, file.name)
        if match:
            found.setdefault(match[1], file)
    return found


def unpaired(images: Mapping[str, Path], labels: Mapping[str, Path]) -> tuple[Problem, ...]:
    """A problem for each image without labels, and for each label file without an image."""
    return tuple(
        Problem(case, "missing file", f"{have[case].name} has no {what}")
        for have, other, what in ((images, labels, "label file"), (labels, images, "image"))
        for case in sorted(set(have) - set(other))
    )


def incomplete(found: int, official: int, folder: str = "") -> tuple[Problem, ...]:
    """A hint that the download may have been cut off."""
    if found >= official:
        return ()
    where = f"{folder}: " if folder else ""
    text = f"{where}{found} of the {official} labelled cases of the official data set are here"
    return (Problem("", "number of cases", text, serious=False),)


def chosen_parts(cases: Mapping[str, Sequence[str]], known: Collection[str]) -> dict[str, Part]:
    """Case -> part, of the cases that a user has chosen.

    Args:
        cases: ``{"train": [...], "test": [...]}``.
        known: those of the download.

    Raises:
        CILError: it looks otherwise, or a case is not there.
    """
    if not set(cases) <= {"train", "test"} or not all(isinstance(names, list) for names in cases.values()):
        raise CILError(f'Chosen cases look like {{"train": ["{min(known)}"], "test": ["{max(known)}"]}}.')
    parts: dict[str, Part] = {name: "train" for name in cases.get("train", [])}
    parts |= {name: "test" for name in cases.get("test", [])}
    missing = [name for name in parts if name not in known]
    if missing:
        raise CILError(f"{len(missing)} of the wanted cases are not in the source, the first is {missing[0]!r}.")
    return parts


def choose(value: str, known: Mapping[str, T], option: str) -> T:
    """The chosen one of a data set's variants.

    Raises:
        CILError: an unknown one.
    """
    if value not in known:
        raise CILError(f"{option} {value!r} is unknown{did_you_mean(value, known)}. It is one of {', '.join(known)}.")
    return known[value]
