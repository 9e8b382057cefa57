"""``nnunet_cil extend``: a trained nnU-Net model, its plans moved onto a data set in which new classes are labelled."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.errors import CILError
from nnunet_cil.files import shortened, write_json
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import (
    check_room,
    id_argument,
    logs_folder,
    model_folder_name,
    nnunet_folder,
    raw_dataset_folder,
)
from nnunet_cil.host.plans_files import configuration_settings, moved_name, moved_plans, reader_of
from nnunet_cil.host.preprocess import complete_label_copies, preprocess
from nnunet_cil.host.preprocessed import refuse_other_preprocessing
from nnunet_cil.host.raw_dataset import RawData, Sample, label_file_names, read_raw
from nnunet_cil.labels import check_labelled_classes, labelled_classes
from nnunet_cil.names import valid_name
from nnunet_cil.schedule import DEFAULT_EPOCHS, check_training_settings
from nnunet_cil.step_plans import PreviousModel, StepPlan, labels_after, step_plans_name
from nnunet_cil.training.catalogue import check_cascade, check_data, check_lineage, trainer_class
from nnunet_cil.workflows.models.extend_checks import (
    check_folds,
    check_labelled,
    check_preprocessed_labels,
    chosen_folds,
    new_classes,
    refuse_other_plans,
)
from nnunet_cil.workflows.models.extension import ExtendOptions, Extension
from nnunet_cil.workflows.models.model_stages import read_stages, stages_to_train
from nnunet_cil.workflows.models.trained_model import TrainedModel
from nnunet_cil.workflows.plan.compatibility import Note
from nnunet_cil.workflows.plan.grids import check_raw_grids
from nnunet_cil.workflows.plan.label_checks import refuse_old_labels, refuse_other_numbers
from nnunet_cil.workflows.plan.step_files import LONGEST_TRAINER, check_length, step_plans_file
from nnunet_cil.workflows.plan.transfer import compare_with_plans, refuse_blocking

logger = logging.getLogger(__name__)

_LENGTH = (
    f"Length: {DEFAULT_EPOCHS} epochs, as many as a training from scratch has: in short trials old and new organs gained up to "
    "it on heart MR, up to half of it on head-and-neck CT. Choose another with --training num_epochs=N."
)
"""Tells the length of an extension that is given none (benchmarks/notebook/2026-11-29-extension-length.md)."""


def extend(model_folder: Path, dataset: str | int, options: ExtendOptions) -> Extension:
    """Checks that model and data set are compatible, writes the step's plans, and preprocesses the data set with them.

    A second call goes on where the first one ended.

    Args:
        model_folder: ``TRAINER__PLANS__CONFIGURATION``, anywhere.
        dataset: nnU-Net's ID or name of a raw data set.
        options: which classes, folds and settings.

    Raises:
        CILError: anything that cannot work, or is blocking and not forced; all but wrong label values before the long work.
    """
    found = plan_extension(model_folder, dataset, options)
    preprocess_extension(found)
    return found


def preprocess_extension(found: Extension) -> None:
    """Preprocesses the data set with the step's plans, and checks the labels.

    Raises:
        CILError: a case holds a wrong label, or a fold no training case with a class.
    """
    preprocess(found.dataset, found.model.configuration, found.plans_name, logs_folder(found.dataset))
    for stage in found.stages:
        labels = found.plan.dataset_labels
        check_preprocessed_labels(found.file, stage.model.configuration, labels, found.plan, stage.folds)


def plan_extension(model_folder: Path, dataset: str | int, options: ExtendOptions) -> Extension:
    """Checks that model and data set are compatible, and writes the step's plans; arguments and errors as of ``extend``."""
    models = read_stages(model_folder, options.trusted)
    model, configurations = models[-1], [model.configuration for model in models]
    if options.configuration not in (None, model.configuration):
        raise CILError(f"{model.folder} is a {model.configuration} model, not {options.configuration}. Leave -c out.")
    trainer = trainer_class(options.trainer)
    trainer.check_hyperparameters(options.hyperparameters, "--hyperparameters")
    check_training_settings(options.training, "--training")
    folds = chosen_folds(model, options.folds)
    remedy = "Choose a shorter one with --name or -p."
    for option, name in (("--name", options.name), ("-p, the plans' name,", options.plans_name)):
        if name:
            valid_name(name, f"{option} {shortened(name)}")
            check_length(name, configurations, [options.trainer], remedy)
    raw, new = _read_data(model, dataset, options)
    target = nnunet_folder("nnUNet_preprocessed") / raw.folder.name
    complete_label_copies(raw.folder.name)
    refuse_other_numbers(target, raw.dataset_json["labels"])
    plan = _step_plan(model, raw, new, options)
    check_labelled(plan, raw)
    check_raw_grids(raw)
    stages = stages_to_train(models, folds, raw, target)
    for stage in stages:
        check_folds(plan, raw, target, stage.folds)
    notes = _compare(model, raw, force=options.force)
    if "num_epochs" not in options.training:
        logger.info(_LENGTH)

    check_data(trainer, plan, raw.folder.name)
    if model.previous_stage:
        check_cascade(trainer, plan)
    check_lineage(trainer, model.lineage, raw.folder.name)
    base = _moved_plans(model, raw, options.plans_name)
    name = step_plans_name(base["plans_name"], plan.schedule, plan.step)
    check_length(name, configurations, [options.trainer, LONGEST_TRAINER], remedy)
    file = _write_plans(models, raw, plan, base, target)
    return Extension(
        stages=stages,
        trainer=options.trainer,
        dataset=raw.folder.name,
        plan=plan,
        plans_name=file.stem,
        file=file,
        notes=tuple(notes),
    )


def _read_data(model: TrainedModel, dataset: str | int, options: ExtendOptions) -> tuple[RawData, tuple[str, ...]]:
    """Reads the raw data set, and finds the classes to learn from it."""
    folder = raw_dataset_folder(dataset)
    id_argument(folder.name)  # which nnU-Net preprocesses it by
    dataset_json = read_dataset_json(folder / "dataset.json")
    new = new_classes(model, folder.name, dataset_json["labels"], classes=options.classes, refine=options.refine)
    raw = read_raw(folder, dataset_json, reader_of(model.plans))
    tests = label_file_names(folder.name, dataset_json["file_ending"], "labelsTs")
    check_labelled_classes(dataset_json, {*raw.cases, *tests}, dataset=folder.name)
    return raw, new


def _compare(model: TrainedModel, raw: RawData, *, force: bool) -> list[Note]:
    """Compares model and data set, logs what was found, and refuses what blocks."""
    notes = compare_with_plans(raw, model.plans, [model.configuration], model.dataset_json["channel_names"])
    for note in notes:
        logger.info(str(note))
    refuse_blocking(
        notes,
        force=force,
        untrainable=f"{raw.folder.name} does not fit the model {model.folder.name}",
        doubt=f"{raw.folder.name} does not look like what the model {model.folder.name} was trained on",
        option="--force",
    )
    return notes


def _moved_plans(model: TrainedModel, raw: RawData, name: str) -> dict[str, Any]:
    """Moves the model's plans onto the data set; on the model's own, what is preprocessed is used again."""
    source, reader = str(model.plans["dataset_name"]), type(raw.reader).__name__
    if source == raw.folder.name and not name:
        return moved_plans(model.plans, source, reader, model.origin, same_data=True)
    return moved_plans(model.plans, raw.folder.name, reader, name or moved_name(model.origin, source))


def _step_plan(model: TrainedModel, raw: RawData, new: tuple[str, ...], options: ExtendOptions) -> StepPlan:
    """Says what the step learns, and from which labels."""
    labels, steps = raw.dataset_json["labels"], (*model.steps, new)
    refined = tuple(name for name in model.classes if name in options.refine)
    seen = [c for classes in steps for c in classes]
    evaluated = [c for c in seen if c in labels]
    known = labels_after(model.regions, seen, raw.dataset_json)
    known.pop("regions")
    return StepPlan(
        schedule=options.name or _default_name(new or ("refined", *refined), len(steps) - 1),
        step=len(steps) - 1,
        steps=steps,
        dataset_labels=dict(labels),
        **known,
        previous=_previous(model),
        training={**_mirroring(model), **options.training},
        hyperparameters=dict(options.hyperparameters),
        refined=refined,
        labelled=labelled_classes(raw.dataset_json, list(raw.cases), evaluated),
    )


def _default_name(new: Sequence[str], step: int) -> str:
    """Joins the classes' names, as far as they fit into a folder's."""
    words = [word for word in (re.sub(r"[^A-Za-z0-9]+", "-", c).strip("-") for c in new) if word]
    name = "-".join(words) or f"step-{step}"
    return name if len(name) <= 60 else f"{words[0][:40].strip('-')}-and-{len(new) - 1}-more"


def _previous(model: TrainedModel) -> PreviousModel:
    """Returns where the model is: relative to nnUNet_results where it is in there under its own name."""
    source, plans_name = str(model.plans["dataset_name"]), str(model.plans["plans_name"])
    name = model_folder_name(model.trainer, plans_name, model.configuration)
    usual = nnunet_folder("nnUNet_results").resolve() / source / name
    return PreviousModel(
        dataset=source,
        plans=plans_name,
        trainer=model.trainer,
        configuration=None if model.previous_stage else model.configuration,
        folder=None if model.folder == usual else str(model.folder),
    )


def _mirroring(model: TrainedModel) -> dict[str, Any]:
    """Returns the axes of the volume that the model was trained to mirror; empty for nnU-Net's default of all axes."""
    dimensions = len(model.settings["patch_size"])
    if len(model.mirror_axes) == dimensions:
        return {}
    return {"mirror_axes": [a + 3 - dimensions for a in model.mirror_axes]}


def _write_plans(
    models: Sequence[TrainedModel], raw: RawData, plan: StepPlan, base: Mapping[str, Any], target: Path
) -> Path:
    """Writes the step's plans and dataset.json into the preprocessed data set, once nothing there speaks against it.

    Returns:
        The plans file.
    """
    plans_name = step_plans_name(base["plans_name"], plan.schedule, plan.step)
    content = step_plans_file(base, plans_name, plan)
    file = target / f"{plans_name}.json"
    refuse_other_plans(file, content, models[-1].configuration)
    needed = 0
    for model in models:
        refuse_other_preprocessing(target, content, model.configuration, "Give the moved plans another name with -p.")
        preprocessed = target / configuration_settings(content, model.configuration)["data_identifier"]
        if preprocessed.is_dir():
            refuse_old_labels(preprocessed, raw)
        else:
            needed += _preprocessed_bytes(model, raw.sample)
    if needed:
        check_room(target, needed, "nnUNet_preprocessed")
    target.mkdir(exist_ok=True)
    write_json(target / "dataset.json", raw.dataset_json)
    write_json(file, content)
    return file


def _preprocessed_bytes(model: TrainedModel, sample: Sample) -> int:
    """Estimates the size of the preprocessed data set: float32 images and int16 labels, compressed to a half."""
    model_spacing = np.array(model.settings["spacing"], dtype=np.float64)
    spacings = sample.spacings_mm[:, model.plans["transpose_forward"]]
    zoom = (spacings[:, -len(model_spacing) :] / model_spacing).prod(1)
    voxels = float((sample.shapes.prod(1) * zoom).mean()) * sample.num_cases
    return math.ceil(voxels * (4 * len(model.settings["normalization_schemes"]) + 2) / 2)
