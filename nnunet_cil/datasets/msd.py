"""A task of the Medical Segmentation Decathlon: ten tasks, CT and MR, some with several channels.

Source: Antonelli et al. 2022, https://doi.org/10.1038/s41467-022-30695-9, http://medicaldecathlon.com.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_cil.datasets.download import Case, Dataset, Part, Problem, chosen_parts, root_with
from nnunet_cil.datasets.volumes import ImageFile, OneOfSeries, Source
from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json, shortened
from nnunet_cil.names import is_readable
from nnunet_cil.validation import validated

_MOST_CHARACTERS = 60
"""The longest name of a data set that is taken over."""


def find(source: Path, *, cases: Mapping[str, Sequence[str]] | None = None) -> Dataset:
    """Finds the training cases that ``dataset.json`` lists; the test cases have no labels.

    Args:
        source: ``Task04_Hippocampus``, or what holds it.
        cases: ``{"train": [...], "test": [...]}`` to take just these of them; without it, all are training cases.

    Raises:
        CILError: no task, a ``dataset.json`` of another kind, or unknown cases.
    """
    root = root_with(source, "dataset.json", "imagesTr", "labelsTr", expected="Task04_Hippocampus/dataset.json")
    task = _read(root / "dataset.json")
    channels = tuple(task.modality[str(i)] for i in range(len(task.modality)))
    entries = {Path(entry.image).name.removesuffix(".nii.gz"): entry for entry in task.training}
    parts: dict[str, Part] = dict.fromkeys(entries, "train") if cases is None else chosen_parts(cases, entries)
    kept: list[Case] = []
    problems: list[Problem] = []
    for name in sorted(parts):
        image, labels = (root / file for file in (entries[name].image, entries[name].label))
        missing = [f.relative_to(root) for f in (image, labels) if not f.is_file()]
        if missing:
            text = f"{missing[0]} is listed in dataset.json but not there"
            problems.append(Problem(case=name, kind="missing file", text=text))
            continue
        kept.append(Case(name=name, images=_channels(image, len(channels)), labels=ImageFile(labels), part=parts[name]))
    return Dataset(
        name=_name(root, task),
        cases=tuple(kept),
        numbers={name: int(number) for number, name in task.labels.items() if int(number) != 0},
        reference="http://medicaldecathlon.com",
        licence=task.licence,
        citation="Antonelli et al. 2022, The Medical Segmentation Decathlon, https://doi.org/10.1038/s41467-022-30695-9",
        channels=channels,
        problems=tuple(problems),
    )


def _channels(image: Path, num_channels: int) -> tuple[Source, ...]:
    """Returns a source for each channel; several channels are the fourth dimension of one file."""
    if num_channels == 1:
        return (ImageFile(image),)
    return tuple(OneOfSeries(image, i) for i in range(num_channels))


def _name(root: Path, task: _Task) -> str:
    match = re.fullmatch(r"Task\d+_(\w+)", root.name)
    name = match[1] if match else re.sub(r"[^A-Za-z0-9_]", "", task.name)
    return name[:_MOST_CHARACTERS] or "Decathlon"


@dataclass(frozen=True, kw_only=True)
class _Entry:
    image: str
    label: str


@dataclass(frozen=True, kw_only=True)
class _Task:
    """The keys of a task's dataset.json that are read here."""

    name: str
    labels: dict[str, str]
    modality: dict[str, str]
    training: list[_Entry]
    licence: str = "CC-BY-SA 4.0"


def _read(file: Path) -> _Task:
    where = f"{file} is not the dataset.json of a Decathlon task: it"
    task: _Task = validated(
        _Task, read_json(file, "Every task of the Decathlon has one."), where, "Restore it from the download."
    )
    if not (task.name and task.labels and task.modality and task.training):
        raise CILError(
            f"{where} lists no training cases, or lacks a name, labels or modalities. Restore it from the download."
        )
    for key, numbers in (("labels", task.labels), ("modality", task.modality)):
        if sorted(numbers) != sorted(map(str, range(len(numbers)))):
            raise CILError(
                f"{where} has {shortened(list(numbers))} as numbers in {key!r}, not 0, 1, 2 and so on. Restore it from "
                "the download."
            )
    _check_names(task, where)
    return task


def _check_names(task: _Task, where: str) -> None:
    """Refuses names of classes and channels that nnU-Net cannot use, and files that would be one case."""
    restore = "Restore it from the download."
    if task.labels["0"].strip().lower() != "background" or len(task.labels) < 2:
        raise CILError(
            f"{where} has {shortened(task.labels)} as labels, not the background as 0 and classes. {restore}"
        )
    names = [name for number, name in task.labels.items() if number != "0"]
    for name in (*names, *task.modality.values()):
        if not is_readable(name) or (name in names and name.strip().lower() == "background"):
            raise CILError(f"{where} has {shortened(name)} as the name of a class or channel. {restore}")
        if names.count(name) > 1:
            raise CILError(f"{where} has {shortened(name)} as the name of two labels. {restore}")
    files = [Path(entry.image).name for entry in task.training]
    for name in files:
        if files.count(name) > 1:
            raise CILError(f"{where} lists the image {shortened(name)} twice. {restore}")
