"""Refusals of labels that are not what they were preprocessed as, or not what dataset.json says of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.label_record import LabelRecord
from nnunet_cil.host.preprocessed import distinct_values
from nnunet_cil.host.raw_dataset import RawData
from nnunet_cil.host.reading.images import read_labels, whole_numbers
from nnunet_cil.host.training_cases import LabelsIn
from nnunet_cil.labels import Label, label_text, numbers_in
from nnunet_cil.step_plans import StepPlan


def refuse_other_numbers(target: Path, labels: Mapping[str, Label]) -> None:
    """Refuses labels whose numbers have changed since the data set was preprocessed.

    Args:
        target: the preprocessed data set; need not be there yet.
        labels: of the raw dataset.json, name -> number.

    Raises:
        CILError: names the class, and what to remove.
    """
    file = target / "dataset.json"
    known = read_dataset_json(file)["labels"] if file.is_file() else {}
    for name, number in labels.items():
        if known.get(name, number) != number:
            raise CILError(
                f"{target.name} was preprocessed when {name!r} was label {known[name]}, but dataset.json in nnUNet_raw says "
                f"{number}. Restore the number, or remove what is preprocessed in {target}, and dataset.json there (but not "
                "splits_final.json), and run the command again."
            )


def refuse_old_labels(preprocessed: Path, raw: RawData) -> None:
    """Refuses preprocessed cases that are gone, or whose label files have changed or have no copy.

    nnU-Net keeps a copy of every label file that it preprocesses, which any later preprocessing brings up to date. Where label
    and copy were both replaced since, it is known only of cases that this package has had preprocessed.

    Args:
        preprocessed: the folder of the configuration's preprocessed cases.
        raw: the data set.

    Raises:
        CILError: names the case, and what to remove.
    """
    if gone := sorted({file.stem for file in preprocessed.glob("*.pkl")} - raw.cases.keys()):
        raise CILError(
            f"{preprocessed} has the case {gone[0]!r}, which is not in {raw.folder} any more. Put it back, or remove that "
            "folder, and run the command again."
        )
    record = LabelRecord.read(preprocessed)
    for case, files in raw.cases.items():
        copy = preprocessed.parent / "gt_segmentations" / f"{case}{raw.dataset_json['file_ending']}"
        if not (preprocessed / f"{case}.pkl").is_file():
            continue
        if not copy.is_file():
            raise CILError(
                f"{copy} is missing, without which nnU-Net's validation would fail after the training. Put a copy of "
                f"{files['label']} there (if that has changed since, remove {preprocessed} instead), and run the command again."
            )
        label = Path(files["label"])
        is_other = record.is_from(preprocessed, case, label) is False
        if is_other or file_sha256(copy) != file_sha256(label):
            made_from = f", {LabelRecord.file_of(preprocessed)}" if is_other else ""
            raise CILError(
                f"The label file of case {case!r} has changed since {preprocessed} was made. Remove that folder{made_from} and "
                f"{copy}, and run the command again."
            )


def refuse_unlabelled(step: StepPlan, present: Mapping[str, Collection[int]]) -> None:
    """Refuses cases that hold a class of which ``labelled_classes`` says that they do not label it.

    Args:
        step: its evaluated classes are looked for.
        present: case -> the data set's labels that it holds.

    Raises:
        CILError: names the case and the class.
    """
    for case, values in present.items():
        labelled = step.labelled.get(case, step.evaluated_classes)
        # a number of several regions is that of the labelled one
        known = {n for name in labelled for n in numbers_in(step.dataset_labels[name])}
        for name in step.evaluated_classes:
            label = step.dataset_labels[name]
            if name not in labelled and not (set(numbers_in(label)) - known).isdisjoint(values):
                raise CILError(
                    f"Case {case!r} holds {name!r} ({label_text(label)}), but 'labelled_classes' in dataset.json says that it is "
                    "not labelled there. Correct the one or the other, and run the command again."
                )


def raw_labels(raw: RawData) -> LabelsIn:
    """Returns what reads the labels of a case from its label file, once.

    What it returns raises CILError where the file cannot be read.
    """

    @cache
    def labels_in(case: str) -> set[int]:
        file = Path(raw.cases[case]["label"])
        labels = read_labels(file, raw.reader, remedy="Restore it, or remove the case.").array
        return distinct_values(whole_numbers(labels, file))

    return labels_in
