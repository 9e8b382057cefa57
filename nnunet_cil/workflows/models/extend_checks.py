"""Refusals of ``nnunet_cil extend``: classes, label files, names and preprocessed data that do not go together."""

from __future__ import annotations

import filecmp
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.files import read_json
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import model_folder_name, nnunet_folder
from nnunet_cil.host.images import read_labels
from nnunet_cil.host.plans_files import configuration_settings, read_plans
from nnunet_cil.host.preprocessed import scan_labels
from nnunet_cil.host.raw_dataset import RawData
from nnunet_cil.step_plans import PreviousModel, StepPlan
from nnunet_cil.validation import validated
from nnunet_cil.workflows.models.trained_model import TrainedModel
from nnunet_cil.workflows.plan.step_files import refuse_if_trained

_LONGEST_NAME = 255
"""The number of characters that the name of a file or folder can have."""

_LONGEST_TRAINER = "nnUNetTrainerPseudoLabel"
"""The longest name of our trainers that can continue a model from elsewhere."""


def chosen_folds(model: TrainedModel, folds: Sequence[str]) -> tuple[str, ...]:
    """Returns the folds to continue: those asked for, else all that are trained.

    Raises:
        CILError: one that is asked for is not trained.
    """
    for fold in folds:
        if fold not in model.folds:
            raise CILError(f"{model.folder} has no trained fold {fold}, only {', '.join(model.folds)}. Choose with -f.")
    return tuple(folds) or model.folds


def new_classes(
    model: TrainedModel, dataset: str, labels: Mapping[str, int], *, classes: Sequence[str], refine: Sequence[str]
) -> tuple[str, ...]:
    """Returns the classes to learn: in the order asked for, else all that are new in the order of their labels.

    Args:
        model: that is continued.
        dataset: nnU-Net's name of the data set.
        labels: of its dataset.json, name -> number.
        classes: that the user asks for; empty for all.
        refine: old classes whose labels are used.

    Raises:
        CILError: a name that is no label, is named twice, or does not say whether model and data set mean the same organ.
    """
    known = [name for name in sorted(labels, key=lambda n: labels[n]) if name not in ("background", "ignore")]
    for option, names in (("--classes", classes), ("--refine", refine)):
        for name in names:
            if name not in known:
                raise CILError(
                    f"{option} names {name!r}, which is not a label of {dataset}{did_you_mean(name, known)}."
                )
    asked = [*classes, *refine]
    for name in asked:
        if asked.count(name) > 1:
            raise CILError(
                f"{name!r} is named twice. A class is either learnt (--classes) or refined (--refine), once."
            )
    for name in refine:
        if name not in model.classes:
            raise CILError(f"--refine names {name!r}, which the model does not know yet; it is learnt with --classes.")
    _refuse_ambiguous(model, dataset, [name for name in known if name not in refine], classes)
    new = tuple(classes) or tuple(name for name in known if name not in model.classes)
    if not new:
        raise CILError(f"{dataset} has no class that the model does not know: it knows {', '.join(model.classes)}.")
    return new


def _refuse_ambiguous(model: TrainedModel, dataset: str, names: Sequence[str], classes: Sequence[str]) -> None:
    """Refuses classes of the data set that the model has, too, unless they are left out by naming others."""
    common = [name for name in names if name in model.classes]
    again = [name for name in common if name in classes] if classes else common
    if again:
        raise CILError(
            f"Model and {dataset} both have {', '.join(again)}. If it is the same organ, use its labels with --refine "
            f"{shlex.join(again)}, or leave it out by naming the new ones with --classes. If it is another one, rename it in "
            "dataset.json."
        )


def check_present(raw: RawData, classes: Sequence[str]) -> None:
    """Refuses a class that is in no label file; files are read until all classes are found.

    Args:
        raw: the data set.
        classes: that the step learns from it.

    Raises:
        CILError: names the class, or a file that cannot be read.
    """
    missing = {raw.dataset_json["labels"][name]: name for name in classes}
    for files in raw.cases.values():
        found = np.unique(read_labels(Path(files["label"]), raw.reader, remedy="Restore it, or remove the case.").array)
        missing = {label: name for label, name in missing.items() if label not in found}
        if not missing:
            return
    label, name = next(iter(missing.items()))
    raise CILError(f"No case of {raw.folder.name} has {name!r} (label {label}): there is nothing to learn it from.")


def check_labelled(plan: StepPlan, raw: RawData) -> None:
    """Refuses a target class that no case is said to label.

    Args:
        plan: the step's.
        raw: its data set.

    Raises:
        CILError: names the class.
    """
    for name in plan.target_classes:
        if not any(name in plan.labelled.get(case, plan.target_classes) for case in raw.cases):
            raise CILError(
                f"'labelled_classes' in dataset.json of {raw.folder.name} says that no case labels {name!r}: there is nothing to "
                "learn it from."
            )


def check_length(plans_name: str, configuration: str) -> None:
    """Refuses a plans' name that makes the name of the model's folder too long.

    Raises:
        CILError: says how to choose a shorter one.
    """
    if len(model_folder_name(_LONGEST_TRAINER, plans_name, configuration)) > _LONGEST_NAME:
        raise CILError(
            f"The plans' name {plans_name!r} is too long for a folder's. Choose a shorter one with --name or -p."
        )


def refuse_other_numbers(target: Path, labels: Mapping[str, int]) -> None:
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


def refuse_other_plans(file: Path, content: Mapping[str, Any]) -> None:
    """Refuses to write over plans of the same name that continue another model, or that a model was trained with.

    Args:
        file: of the step's plans.
        content: that it is going to have.

    Raises:
        CILError: says how to give the step another name.
    """
    if not file.is_file():
        refuse_if_trained(file, content)
        return
    redo = "Remove it and run the command again, or give this step a name of its own with --name."
    known = read_json(file, redo)
    ours, theirs = (_previous(plans, file, redo) for plans in (content, known))
    if theirs is not None and ours != theirs and _model_folder(theirs).is_dir():
        raise CILError(
            f"{file} continues another model, {_model_folder(theirs)}. Give this step a name of its own with --name."
        )
    if _apart_from_previous(known) != _apart_from_previous(content):  # a model that was moved is known by its hash
        refuse_if_trained(file, content)


def _model_folder(previous: PreviousModel) -> Path:
    """Returns the folder of the model, above its folds."""
    if previous.folder is not None:
        return Path(previous.folder)
    name = model_folder_name(str(previous.trainer), previous.plans, str(previous.configuration))
    return nnunet_folder("nnUNet_results") / previous.dataset / name


def _previous(plans: Mapping[str, Any], file: Path, redo: str) -> PreviousModel | None:
    plan: StepPlan = validated(StepPlan, plans.get("cil"), f"The 'cil' block of {file}", redo)
    return plan.previous


def _apart_from_previous(plans: Mapping[str, Any]) -> dict[str, Any]:
    block = {k: v for k, v in plans["cil"].items() if k not in ("previous", "digest")}
    return {**plans, "cil": block}


def refuse_old_labels(preprocessed: Path, raw: RawData) -> None:
    """Refuses preprocessed cases that are gone, or whose label files have changed.

    nnU-Net keeps a copy of every label file that it preprocesses, which any later preprocessing brings up to date.

    Args:
        preprocessed: the folder of the configuration's preprocessed cases.
        raw: the data set.

    Raises:
        CILError: names the case, and what to remove.
    """
    if gone := sorted({file.stem for file in preprocessed.glob("*.pkl")} - raw.cases.keys()):
        raise CILError(
            f"{preprocessed} has the case {gone[0]!r}, which is not in {raw.folder} any more. Remove that folder, and run the "
            "command again."
        )
    for case, files in raw.cases.items():
        copy = preprocessed.parent / "gt_segmentations" / f"{case}{raw.dataset_json['file_ending']}"
        done = preprocessed / f"{case}.pkl"
        if not copy.is_file() or not done.is_file():
            continue
        is_newer = copy.stat().st_mtime > done.stat().st_mtime  # the copy has the label file's time
        if is_newer or not filecmp.cmp(copy, files["label"], shallow=False):
            raise CILError(
                f"The label file of case {case!r} has changed since {preprocessed} was made. Remove that folder and {copy}, and "
                "run the command again."
            )


def check_preprocessed_labels(file: Path, configuration: str, labels: Mapping[str, int], plan: StepPlan) -> None:
    """Refuses preprocessed cases with values that are no label, labels that should not be there, or without a class.

    Args:
        file: of the step's plans, in the preprocessed data set.
        configuration: that is preprocessed.
        labels: of dataset.json, name -> number.
        plan: what the step learns.

    Raises:
        CILError: names the case or the class, and what to correct.
    """
    target, plans = file.parent, read_plans(file, "")
    preprocessed = configuration_settings(plans, configuration)["data_identifier"]
    only = {"plans_name": file.stem, "configurations": {configuration: {"data_identifier": preprocessed}}}
    present = scan_labels(target, only, labels)
    for case, values in present.items():
        for name in plan.evaluated_classes:
            if labels[name] in values and name not in plan.labelled.get(case, plan.evaluated_classes):
                raise CILError(
                    f"Case {case!r} holds {name!r} (label {labels[name]}), but 'labelled_classes' in dataset.json says that it "
                    "is not labelled there. Correct the one or the other, and run the command again."
                )
    for name in plan.target_classes:
        if not any(labels[name] in values for values in present.values()):
            raise CILError(
                f"{name!r} (label {labels[name]}) is in the label files of {target.name}, but in none of the preprocessed cases: "
                f"these are older. Remove {target / preprocessed} and run the command again."
            )
