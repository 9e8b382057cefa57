"""Refusals of ``nnunet_cil extend``: classes, label files, names and preprocessed data that do not go together."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.files import read_json
from nnunet_cil.host.folders import previous_model_folder
from nnunet_cil.host.plans_files import configuration_settings, read_plans
from nnunet_cil.host.preprocessed import scan_labels
from nnunet_cil.host.raw_dataset import RawData
from nnunet_cil.host.training_cases import check_training_cases, unlisted_note
from nnunet_cil.labels import Label, class_names, has_regions, label_text, numbers_in
from nnunet_cil.names import spelled_alike
from nnunet_cil.step_plans import PreviousModel, StepPlan
from nnunet_cil.validation import validated
from nnunet_cil.workflows.models.trained_model import TrainedModel
from nnunet_cil.workflows.plan.label_checks import raw_labels, refuse_unlabelled
from nnunet_cil.workflows.plan.step_files import refuse_if_trained

logger = logging.getLogger(__name__)


def chosen_folds(model: TrainedModel, folds: Sequence[str]) -> tuple[str, ...]:
    """Returns the folds to continue: those asked for, else all that are trained.

    Raises:
        CILError: one that is asked for is not trained, or named twice.
    """
    for fold in folds:
        if folds.count(fold) > 1:
            raise CILError(f"The fold {fold} is named twice. Name each once.")
        if fold not in model.folds:
            raise CILError(f"{model.folder} has no trained fold {fold}, only {', '.join(model.folds)}. Choose with -f.")
    return tuple(folds) or model.folds


def new_classes(
    model: TrainedModel, dataset: str, labels: Mapping[str, Label], *, classes: Sequence[str], refine: Sequence[str]
) -> tuple[str, ...]:
    """Returns the classes to learn: in the order asked for, else all that are new in the order of their labels.

    None where the data set labels old classes only, and some of them are to be refined.

    Args:
        model: that is continued.
        dataset: nnU-Net's name of the data set.
        labels: of its dataset.json, name -> number.
        classes: that the user asks for; empty for all.
        refine: old classes whose labels are used.

    Raises:
        CILError: a name that is no label, is named twice, or does not say whether model and data set mean the same organ.
    """
    known = class_names(labels)
    if has_regions(labels) and model.regions is None:
        raise CILError(
            f"dataset.json of {dataset} has regions, but the model {model.folder.name} tells plain labels apart, of which a "
            "voxel has one. Give the labels one number each there, or extend a model that was trained on regions."
        )
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
    if not known:
        raise CILError(f"{dataset} has no class but the background: there is nothing to learn from it.")
    unknown = tuple(name for name in known if name not in model.classes)
    _refuse_ambiguous(model, dataset, known, classes=classes, refine=refine)
    new = tuple(classes) or unknown
    _refuse_alike(model, dataset, new)
    return new


def _refuse_ambiguous(
    model: TrainedModel, dataset: str, known: Sequence[str], *, classes: Sequence[str], refine: Sequence[str]
) -> None:
    """Refuses classes of the data set that the model has, too, unless they are left out by naming others."""
    common = [name for name in known if name in model.classes and name not in refine]
    unknown = [name for name in known if name not in model.classes]
    new = [name for name in classes if name in unknown] or unknown
    again = [name for name in common if name in classes] if classes else common
    if not again or (refine and not classes and not new):
        return
    options = f"--refine {shlex.join([*refine, *again])}"
    if not new:
        raise CILError(
            f"{dataset} has no class that the model does not know: it knows {', '.join(model.classes)}. If they are the same "
            f"organs, teach it from these labels with '{options}'. If one is another organ, rename it in dataset.json."
        )
    chosen = f"--classes {shlex.join(new)}"
    raise CILError(
        f"Model and {dataset} both have {', '.join(again)}. If it is the same organ, use its labels with "
        f"'{f'{chosen} {options}' if classes else options}', or leave it out with "
        f"'{f'{chosen} --refine {shlex.join(refine)}' if refine else chosen}'. If it is another one, rename it in dataset.json."
    )


def _refuse_alike(model: TrainedModel, dataset: str, new: Sequence[str]) -> None:
    """Refuses a new class whose name looks like another spelling of an old one's: two channels would be one organ."""
    for name in new:
        if alike := spelled_alike(name, model.classes):
            raise CILError(
                f"{name!r} of {dataset} looks like another spelling of the model's {alike[0]!r}. If it is the same organ, give "
                f"it this name in dataset.json, then refine it (--refine {shlex.quote(alike[0])}) or name the other classes "
                "alone (--classes). If it is another organ, give it a name of its own there."
            )


def check_folds(plan: StepPlan, raw: RawData, target: Path, folds: Sequence[str]) -> None:
    """Refuses a fold without a training case for a class of the step; logs which cases the data set's split leaves out.

    Args:
        plan: what the step learns.
        raw: its data set; label files are read until all classes are found.
        target: the preprocessed data set; need not be there yet.
        folds: that are going to be trained.

    Raises:
        CILError: names the class and the fold, or a file that cannot be read.
    """
    labels_in, cases = raw_labels(raw), list(raw.cases)
    for fold in folds:
        check_training_cases(plan, target, fold, cases, labels_in)
    note = unlisted_note(target, cases) if set(folds) != {"all"} else None
    if note is not None:
        logger.info(f"Note: {note}")


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


def refuse_other_plans(file: Path, content: Mapping[str, Any], configuration: str) -> None:
    """Refuses to write over plans of the same name that continue another model, or that a model was trained with.

    Args:
        file: of the step's plans.
        content: that it is going to have.
        configuration: that is continued.

    Raises:
        CILError: says how to give the step another name.
    """
    if not file.is_file():
        refuse_if_trained(file, content)
        return
    redo = "Remove it and run the command again, or give this step a name of its own with --name."
    known = read_json(file, redo)
    ours, theirs = (_previous(plans, file, redo) for plans in (content, known))
    folder = None if theirs is None else previous_model_folder(theirs, str(theirs.trainer), configuration)
    if folder is not None and ours != theirs and folder.is_dir():
        raise CILError(f"{file} continues another model, {folder}. Give this step a name of its own with --name.")
    if _apart_from_previous(known) != _apart_from_previous(content):  # a model that was moved is known by its hash
        refuse_if_trained(file, content)


def _previous(plans: Mapping[str, Any], file: Path, redo: str) -> PreviousModel | None:
    plan: StepPlan = validated(StepPlan, plans.get("cil"), f"The 'cil' block of {file}", redo)
    return plan.previous


def _apart_from_previous(plans: Mapping[str, Any]) -> dict[str, Any]:
    block = {k: v for k, v in plans["cil"].items() if k not in ("previous", "digest")}
    return {**plans, "cil": block}


def check_preprocessed_labels(
    file: Path, configuration: str, labels: Mapping[str, Label], plan: StepPlan, folds: Sequence[str]
) -> None:
    """Refuses preprocessed cases with values that are no label, labels that should not be there, or without a class.

    Args:
        file: of the step's plans, in the preprocessed data set.
        configuration: that is preprocessed.
        labels: of dataset.json, name -> number.
        plan: what the step learns.
        folds: that are going to be trained.

    Raises:
        CILError: names the case or the class, and what to correct.
    """
    target, plans = file.parent, read_plans(file, "")
    present = scan_labels(target, plans, labels, [configuration])[configuration]
    refuse_unlabelled(plan, present)
    for name in plan.target_classes:
        if all(set(numbers_in(labels[name])).isdisjoint(values) for values in present.values()):
            folder = target / configuration_settings(plans, configuration)["data_identifier"]
            raise CILError(
                f"{name!r} ({label_text(labels[name])}) is in the label files of {target.name}, but in none of the preprocessed "
                f"cases: these are older. Remove {folder} and run the command again."
            )
    for fold in folds:
        check_training_cases(plan, target, fold, list(present), present.__getitem__)
