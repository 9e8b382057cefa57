"""Label numbers: the data set's, the model's, and the map from the one to the other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_cil.errors import CILError, did_you_mean

NUMBERS_DIFFER = (
    "Classes are numbered in the order of learning, not as in the data set. nnU-Net's own evaluation goes by number: call it "
    "with 'nnunet_cil nnunet' in place of 'nnUNetv2_'."
)
"""Tells users of such a model what to do before they score it."""
Label = int | tuple[int, ...]
"""A class in ``labels`` of dataset.json: its number; or those of which a region consists, also one written twice."""

NO_CLASSES = ("background", "ignore")
"""The names in ``labels`` of dataset.json that are no class."""


def numbers_in(label: Label) -> tuple[int, ...]:
    """Returns the numbers of a class: one, or those of a region, each once."""
    return tuple(dict.fromkeys(label)) if isinstance(label, tuple) else (label,)


def label_text(label: Label) -> str:
    """Returns ``label 3``, or ``labels 1, 2`` of a region, for a message."""
    numbers = numbers_in(label)
    return f"label{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def all_numbers(labels: Mapping[str, Label]) -> frozenset[int]:
    """Returns every number that ``labels`` of dataset.json gives."""
    return frozenset(number for label in labels.values() for number in numbers_in(label))


def has_regions(labels: Mapping[str, Label]) -> bool:
    """Returns whether nnU-Net reads ``labels`` of dataset.json as regions: a class has several numbers."""
    return any(isinstance(label, tuple) and len(label) > 1 for label in labels.values())


def class_names(labels: Mapping[str, Label]) -> tuple[str, ...]:
    """Returns the foreground classes of ``labels`` of dataset.json in nnU-Net's order of channels.

    It is that of the numbers; of regions, that in which the file names them.
    """
    names = [name for name in labels if name not in NO_CLASSES]
    return tuple(names if has_regions(labels) else sorted(names, key=lambda name: numbers_in(labels[name])))


def predicted_numbers(dataset_json: Mapping[str, Any]) -> dict[str, int]:
    """Returns name -> the number that a prediction gets for the class, by a model's dataset.json: of a region the painted one."""
    labels = dataset_json["labels"]
    names = class_names(labels)
    if has_regions(labels):
        return dict(zip(names, dataset_json["regions_class_order"], strict=True))
    return {name: numbers_in(labels[name])[0] for name in names}


def model_labels(classes: Sequence[str], *, ignore: bool) -> dict[str, int]:
    """Returns name -> channel of a model that knows ``classes``, as nnU-Net wants it in ``dataset.json``.

    Channel 0 is the background, channel c the c-th class in order of learning. nnU-Net demands that an
    ignore label follows the last channel.
    """
    labels = {"background": 0, **{name: channel for channel, name in enumerate(classes, start=1)}}
    if ignore:
        labels["ignore"] = len(labels)
    return labels


def label_map(
    dataset_labels: Mapping[str, Label], labels: Mapping[str, Label], classes: Iterable[str]
) -> dict[int, int]:
    """Returns data set label -> model label, for ``classes`` and the ignore label. All else is hidden, so 0."""
    names = [*classes, *(["ignore"] if "ignore" in labels else [])]
    return {numbers_in(dataset_labels[name])[0]: numbers_in(labels[name])[0] for name in names}


def lookup_table(mapping: Mapping[int, int], dataset_labels: Iterable[int]) -> npt.NDArray[np.int16]:
    """Returns the map as a table for indexing with ``label + 1``; -1 (nnU-Net's "outside the mask") stays -1.

    Args:
        mapping: data set label -> model label; a label that is not named becomes 0.
        dataset_labels: every label the data set may hold, ignore included.

    Returns:
        int16, shape (largest label + 2,).
    """
    table = np.zeros(max(dataset_labels) + 2, dtype=np.int16)
    table[0] = -1
    for source, channel in mapping.items():
        table[source + 1] = channel
    return table


def check_classes(
    classes_per_step: Sequence[Sequence[str]], dataset_labels: Mapping[str, Label], *, schedule: str, dataset: str
) -> None:
    """Refuses a schedule that names a class which the data set does not have."""
    known = [name for name in dataset_labels if name not in NO_CLASSES]
    for step, classes in enumerate(classes_per_step):
        for name in classes:
            if name not in known:
                raise CILError(
                    f"step {step} of {schedule} names {name!r}, which is not a label of {dataset}"
                    f"{did_you_mean(name, known)}."
                )


def check_labelled_classes(dataset_json: Mapping[str, Any], cases: Collection[str], *, dataset: str) -> None:
    """Refuses a ``labelled_classes`` of dataset.json that does not say what it means to.

    Args:
        dataset_json: of the data set.
        cases: all of its training and test cases.
        dataset: its name, for the message.

    Raises:
        CILError: a class that the data set does not have, or a pattern that fits no case: the cases that were meant would
            count as labelling everything.
    """
    patterns = dataset_json.get("labelled_classes", {})
    where = f"'labelled_classes' in dataset.json of {dataset}"
    known = [name for name in dataset_json["labels"] if name not in NO_CLASSES]
    for pattern, names in patterns.items():
        for name in names:
            if name not in known:
                raise CILError(
                    f"{where} names {name!r} for {pattern!r}, which is not one of its labels{did_you_mean(name, known)}."
                )
        if not any(_fits(case, pattern) for case in cases):
            raise CILError(
                f"{where}: no case is called {pattern!r} (upper and lower case differ); they are called {min(cases)!r} and the "
                "like, in labelsTr and labelsTs. Correct the pattern, or remove it."
            )


def _fits(case: str, pattern: str) -> bool:
    """Tells whether a pattern fits a case; its own name does, whatever characters it has."""
    return case == pattern or fnmatchcase(case, pattern)


def labelled_classes(
    dataset_json: Mapping[str, Any], cases: Iterable[str], classes: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Returns which of ``classes`` each case labels; only the cases that do not label all of them.

    The data set says it in dataset.json: ``"labelled_classes": {"siteA_*": ["liver"], "*": ["liver", "spleen"]}``. The first
    pattern that fits a case's name counts; a case that none fits labels everything.
    """
    patterns: Mapping[str, Sequence[str]] = dataset_json.get("labelled_classes", {})
    found = {}
    for case in cases:
        fitting = next((p for p in patterns if _fits(case, p)), None)
        labelled = classes if fitting is None else [name for name in classes if name in patterns[fitting]]
        if len(labelled) < len(classes):
            found[case] = tuple(labelled)
    return found
