"""Predictions and references in folders, for nnU-Net's tools that compare these."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.errors import CILError, few_names
from nnunet_cil.files import read_json, write_json
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.plans_files import read_plans, reader_of
from nnunet_cil.host.reading.readers import dataset_reader
from nnunet_cil.labels import Label, all_numbers, class_names, has_regions, labelled_classes, lookup_table, numbers_in
from nnunet_cil.step_plans import read_step_plan
from nnunet_cil.workflows.tools.references import FOLDER, label_table, write_references

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ComparedFolders:
    """Predictions and references in folders.

    Attributes:
        predictions: folder.
        references: folder.
        dataset_json: file with the numbers of the predictions.
        plans: file of the model's plans.
        references_json: file with the numbers of the references; None for those of the step's data set.
    """

    predictions: Path
    references: Path
    dataset_json: Path
    plans: Path
    references_json: Path | None = None


def renumbered(folders: ComparedFolders, *, needs_all: bool, needs_classes: bool) -> tuple[Path, Path]:
    """Returns references in the numbers of the predictions, and a dataset.json with the classes that they label.

    Both are written beside the predictions, unless they are right as they are.

    Raises:
        CILError: a reference is missing, or the numbers cannot agree.
    """
    content = read_dataset_json(folders.dataset_json)
    plans = read_plans(folders.plans, "Give the model's plans.json.")
    labels = _reference_labels(folders, plans, content)
    files = _references(folders, str(content["file_ending"]), needs_all=needs_all)
    classes = [name for name in content["labels"] if name not in ("background", "ignore")]
    known = [name for name in classes if name in labels]
    _check_labelled(folders, known, files)
    if missing := [name for name in classes if name not in known]:
        what = f"the references do not label {few_names(missing)}"
        if needs_classes or not known:
            raise CILError(f"{folders.references}: {what}. Give references that do.")
        logger.info(f"Note: {what}; nnU-Net scores the others.")
    if has_regions(content["labels"]):
        return _renumbered_regions(folders, content, labels, known, files)
    numbers = {"background": 0, **{name: content["labels"][name] for name in known}}
    if "ignore" in labels:
        numbers["ignore"] = 1 + max(numbers.values())
    if not missing and all(labels[name] == number for name, number in numbers.items()):
        return folders.references, folders.dataset_json
    reader = dataset_reader(content, files[0], reader_of(plans))
    table = label_table(labels, numbers, folders.references)
    return _written(folders, files, table, reader, all_numbers(labels), {"labels": numbers})


def _written(
    folders: ComparedFolders,
    files: Sequence[Path],
    table: npt.NDArray[np.int16],
    reader: Any,
    allowed: Collection[int],
    changed: Mapping[str, Any],
) -> tuple[Path, Path]:
    """Writes references anew, and a dataset.json whose keys ``changed`` differ from the model's; returns where they are."""
    target = folders.predictions / FOLDER
    write_references(files, target / "labels", table, reader, None, sorted(allowed))
    write_json(target / "dataset.json", {**read_json(folders.dataset_json, ""), **changed})
    return target / "labels", target / "dataset.json"


def _renumbered_regions(
    folders: ComparedFolders,
    content: Mapping[str, Any],
    labels: Mapping[str, Label],
    known: Sequence[str],
    files: Sequence[Path],
) -> tuple[Path, Path]:
    """Returns references in which each number stands for the regions that it stands for in the predictions.

    Args:
        folders: with the predictions.
        content: the model's dataset.json.
        labels: of the references.
        known: the model's regions that they label.
        files: the references.

    Raises:
        CILError: the model has no number for what a reference shows.
    """
    ours, theirs = (_regions_by_number(own, known) for own in (content["labels"], labels))
    numbers: dict[int, int] = {}
    for number, regions in theirs.items():
        same = [own for own, in_model in ours.items() if in_model == regions]
        if not same:
            raise CILError(
                f"{folders.references}: label {number} belongs to {', '.join(sorted(regions))} and to no other region, for which "
                f"the model has no number ({dict(content['labels'])}). Correct the references' dataset.json, or score the model "
                "with 'nnunet_cil evaluate'."
            )
        numbers[number] = number if number in same else same[0]
    own = {name: content["labels"][name] for name in known}
    ignored = {}
    if "ignore" in labels:
        ignored["ignore"] = content["labels"].get("ignore", 1 + max(all_numbers(content["labels"])))
        numbers[numbers_in(labels["ignore"])[0]] = ignored["ignore"]
    hidden = {n for n in all_numbers(labels) if n not in numbers and n in all_numbers(content["labels"])} - {0}
    unchanged = all(own_number == number for number, own_number in numbers.items()) and not hidden
    if unchanged and list(own) == list(class_names(content["labels"])) and ignored.keys() <= content["labels"].keys():
        return folders.references, folders.dataset_json
    painted = dict(zip(class_names(content["labels"]), content["regions_class_order"], strict=True))
    changed = {
        "labels": {"background": 0, **own, **ignored},
        "regions_class_order": [painted[name] for name in own],
    }
    reader = dataset_reader(content, files[0], reader_of(read_plans(folders.plans, "")))
    table = lookup_table(numbers, all_numbers(labels))
    return _written(folders, files, table, reader, all_numbers(labels), changed)


def _regions_by_number(labels: Mapping[str, Label], names: Sequence[str]) -> dict[int, frozenset[str]]:
    """Returns number -> those of these regions that it belongs to; only numbers that belong to any."""
    found: dict[int, frozenset[str]] = {}
    for name in names:
        for number in numbers_in(labels[name]):
            found[number] = found.get(number, frozenset()) | {name}
    return found


def _reference_labels(folders: ComparedFolders, plans: dict[str, object], content: dict[str, object]) -> dict[str, Any]:
    """Returns the numbers of the references: those of their dataset.json, or of the step's data set."""
    if folders.references_json is not None:
        labels: dict[str, Any] = read_dataset_json(folders.references_json)["labels"]
        return labels
    if "cil" not in plans:
        raise CILError(
            f"{folders.plans} does not say how the references are numbered. Name their dataset.json with -labels_json."
        )
    step = read_step_plan(plans, content)
    if content["labels"] != step.labels:
        raise CILError(
            f"{folders.dataset_json} does not number the classes as the predictions do ({step.labels}). Give the dataset.json of "
            "the model's folder."
        )
    return step.dataset_labels


def _references(folders: ComparedFolders, ending: str, *, needs_all: bool) -> list[Path]:
    """Returns the references of all predictions.

    Raises:
        CILError: there are no predictions, a prediction has no reference; or with ``needs_all`` a reference no prediction.
    """
    names, there = (
        {file.name for file in folder.glob(f"[!.]*{ending}")} for folder in (folders.predictions, folders.references)
    )
    if not names:
        raise CILError(f"{folders.predictions} holds no predictions that end in {ending}.")
    if missing := sorted(names - there):
        raise CILError(f"{folders.references} lacks the references {few_names(missing)}. Restore them.")
    if needs_all and (missing := sorted(there - names)):
        raise CILError(f"{folders.predictions} lacks {few_names(missing)}. Predict them, or add --chill.")
    return [folders.references / name for name in sorted(names)]


def _check_labelled(folders: ComparedFolders, known: Sequence[str], files: Sequence[Path]) -> None:
    """Refuses references that label different classes, as their dataset.json says."""
    if folders.references_json is None:
        return
    content = read_dataset_json(folders.references_json)
    ending = str(content["file_ending"])
    partly = labelled_classes(content, (file.name.removesuffix(ending) for file in files), known)
    if partly:
        raise CILError(
            f"nnU-Net scores every class in every case, but the labels of {len(partly)} cases do not show all of them. Score "
            "with 'nnunet_cil evaluate', or give each kind a folder and dataset.json of its own."
        )
