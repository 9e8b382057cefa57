"""``nnunet_cil extend``: a trained nnU-Net model, its plans moved onto a data set in which new classes are labelled."""

from __future__ import annotations

import filecmp
import logging
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.datasets.convert import check_room
from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.files import read_json, write_json
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import nnunet_folder, raw_dataset_folder
from nnunet_cil.host.plans_files import configuration_settings, moved_name, moved_plans, reader_of
from nnunet_cil.host.preprocess import preprocess
from nnunet_cil.host.preprocessed import refuse_other_preprocessing, scan_labels
from nnunet_cil.host.raw_dataset import RawData, Sample, read_raw
from nnunet_cil.host.splits import check_split
from nnunet_cil.labels import check_labelled_classes, labelled_classes, model_labels, refuse_regions
from nnunet_cil.lineage import StepRecord, foreign_record
from nnunet_cil.names import valid_name
from nnunet_cil.schedule import check_training_settings
from nnunet_cil.step_plans import PreviousModel, StepPlan, read_step_plan
from nnunet_cil.training.catalogue import check_data, check_lineage, trainer_class
from nnunet_cil.workflows.models.export import check_network, final_checkpoints
from nnunet_cil.workflows.plan.compatibility import Note
from nnunet_cil.workflows.plan.step_files import refuse_if_trained, step_plans_file
from nnunet_cil.workflows.plan.transfer import compare_with_plans, refuse_blocking

logger = logging.getLogger(__name__)

_LONGEST_NAME = 255
"""Of a file or folder, in characters."""

_LONGEST_TRAINER = "nnUNetTrainerPseudoLabel"
"""Of ours that can continue a model from elsewhere."""


@dataclass(frozen=True)
class TrainedModel:
    """An nnU-Net v2 model folder, read and checked.

    Attributes:
        folder: above the folds.
        plans: as nnU-Net wrote them.
        dataset_json: with the model's labels.
        configuration: nnU-Net's name of it.
        trainer: class name.
        folds: the trained ones, e.g. ("0", "all").
        lineage: records of its trainings.
        steps: the foreground classes that it learnt in each of its steps, in channel order.
        mirror_axes: of the patch, that prediction may flip.
    """

    folder: Path
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    configuration: str
    trainer: str
    folds: tuple[str, ...]
    lineage: tuple[StepRecord, ...]
    steps: tuple[tuple[str, ...], ...]
    mirror_axes: tuple[int, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The foreground classes, in channel order."""
        return tuple(name for classes in self.steps for name in classes)

    @cached_property
    def step(self) -> StepPlan | None:
        """The step that it was trained as; None for a model that was not trained in steps."""
        return read_step_plan(self.plans, self.dataset_json) if "cil" in self.plans else None

    @property
    def origin(self) -> str:
        """The name of the plans that its own are a copy of, without step and move."""
        name = str(self.plans["plans_name"])
        if self.step is not None:
            name = name.removesuffix(f"_{self.step.schedule}_step{self.step.step}")
        return re.sub(r"From\d{3}$", "", name)

    @property
    def settings(self) -> dict[str, Any]:
        """``self.configuration`` of the plans, with what it inherits."""
        return configuration_settings(self.plans, self.configuration)


@dataclass(frozen=True)
class Wish:
    """What the user asks for.

    Attributes:
        trainer: that is to learn the step.
        classes: to learn; empty for all that the model does not know.
        refine: classes that model and data set both have, the same organ; their labels are used.
        configuration: that the user takes the model for; None for its own.
        folds: to continue; empty for all that are trained.
        name: of the step; empty for the new classes' names.
        plans_name: of the moved plans, before the step's name; empty for the model's with ``From`` and its data set's ID.
        training: overrides of nnU-Net's training, as in a schedule.
        hyperparameters: of that trainer, as in a schedule.
        force: go on where model and data set differ dangerously.
    """

    trainer: str = "nnUNetTrainerPGCD"
    classes: tuple[str, ...] = ()
    refine: tuple[str, ...] = ()
    configuration: str | None = None
    folds: tuple[str, ...] = ()
    name: str = ""
    plans_name: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False


@dataclass(frozen=True)
class Extension:
    """What was written, and what to call next.

    Attributes:
        model: that is continued.
        trainer: that is to learn the step.
        dataset: nnU-Net's name.
        plan: of the step.
        plans_name: of the step's plans.
        file: of the step's plans.
        folds: to train.
        notes: on the compatibility of model and data set.
    """

    model: TrainedModel
    trainer: str
    dataset: str
    plan: StepPlan
    plans_name: str
    file: Path
    folds: tuple[str, ...]
    notes: tuple[Note, ...]


def extend(model_folder: Path, dataset: str | int, wish: Wish) -> Extension:
    """Checks that model and data set fit, writes the step's plans, and preprocesses the data set with them.

    A second call goes on where the first one ended.

    Args:
        model_folder: ``TRAINER__PLANS__CONFIGURATION``, anywhere.
        dataset: ID or name of a raw nnU-Net data set.
        wish: which classes, folds and settings.

    Raises:
        CILError: anything that cannot work, or is dangerous and not forced; all but wrong label values before the long work.
    """
    model = read_model(model_folder)
    if wish.configuration not in (None, model.configuration):
        raise CILError(f"{model.folder} is a {model.configuration} model, not {wish.configuration}. Leave -c out.")
    trainer = trainer_class(wish.trainer)
    trainer.check_hyperparameters(wish.hyperparameters, "--hyperparameters")
    folds = _folds(model, wish.folds)
    folder = raw_dataset_folder(dataset)
    dataset_json = read_dataset_json(folder / "dataset.json")
    refuse_regions(dataset_json)
    check_training_settings(wish.training, "--training")
    new = _new_classes(model, folder.name, dataset_json["labels"], wish)
    raw = read_raw(folder, dataset_json, reader_of(model.plans))
    check_labelled_classes(dataset_json, raw.cases, dataset=folder.name)
    target = nnunet_folder("nnUNet_preprocessed") / folder.name
    check_split(target, folds, len(raw.cases))
    _check_present(raw, (*wish.refine, *new))
    notes = compare_with_plans(raw, model.plans, [model.configuration], model.dataset_json["channel_names"])
    for note in notes:
        logger.info(str(note))
    refuse_blocking(
        notes,
        force=wish.force,
        untrainable=f"{folder.name} does not fit the model {model.folder.name}",
        doubt=f"{folder.name} does not look like what the model {model.folder.name} was trained on",
        option="--force",
    )

    _refuse_other_numbers(target, dataset_json["labels"])
    base = _moved_plans(model, raw, wish.plans_name)
    plan = _step_plan(model, dataset_json, list(raw.cases), new, wish)
    check_data(trainer, plan, raw.folder.name)
    check_lineage(trainer, model.lineage, raw.folder.name)
    _check_labelled(plan, raw)
    plans_name = f"{base['plans_name']}_{plan.schedule}_step{plan.step}"
    _check_length(plans_name, model.configuration)
    content = step_plans_file(base, plans_name, plan)
    file = target / f"{plans_name}.json"
    _refuse_other_plans(file, content)
    remedy = "Give the moved plans another name with -p."
    refuse_other_preprocessing(target, content, model.configuration, remedy)
    preprocessed = target / configuration_settings(content, model.configuration)["data_identifier"]
    if preprocessed.is_dir():
        _refuse_old_labels(preprocessed, raw)
    else:
        check_room(target, _preprocessed_bytes(model, raw.sample), "nnUNet_preprocessed")
    target.mkdir(exist_ok=True)
    write_json(target / "dataset.json", dataset_json)
    write_json(file, content)
    logs = nnunet_folder("nnUNet_results") / folder.name / "cil_logs"
    preprocess(folder.name, model.configuration, plans_name, logs)
    _check_labels(preprocessed, content, dataset_json, plan)
    return Extension(model, wish.trainer, folder.name, plan, plans_name, file, folds, tuple(notes))


def read_model(folder: Path) -> TrainedModel:
    """Reads a model folder.

    Raises:
        CILError: not the folder of an nnU-Net v2 model, or folds that know different classes.
        NotImplementedError: regions, or a cascade.
    """
    from nnunet_cil.training.state import foreground_classes, lineage_of, read_checkpoint

    folder = folder.resolve()
    if not folder.is_dir():
        raise CILError(
            f"{folder} is not a folder. Give the model's, TRAINER__PLANS__CONFIGURATION in nnUNet_results/DATASET."
        )
    if any((folder / name).exists() for name in ("plans.pkl", "postprocessing.json")) or any(
        folder.glob("fold_*/*.model.pkl")
    ):
        raise CILError(
            f"{folder} is a model of nnU-Net v1. Only those of version 2 can be extended: train it again there."
        )
    if (folder.parent / "plans.json").is_file() and not (folder / "plans.json").is_file():
        raise CILError(f"{folder} is one fold. Give the folder above it, {folder.parent}.")
    checkpoints = final_checkpoints(folder)
    plans = read_json(folder / "plans.json", "Give a model folder, with plans.json and fold_X.")
    dataset_json = read_dataset_json(folder / "dataset.json", "Give a model folder, with dataset.json and fold_X.")
    refuse_regions(dataset_json)
    contents = {fold: read_checkpoint(file) for fold, file in checkpoints.items()}
    first = next(iter(contents.values()))
    classes = foreground_classes(first)
    for fold, content in contents.items():
        if foreground_classes(content) != classes:
            raise CILError(
                f"{folder}: {fold} knows {foreground_classes(content)}, but the first fold {classes}. Remove one."
            )
    configuration = str(first["init_args"]["configuration"])
    lineage = lineage_of(first) or (foreign_record(first, classes),)
    model = TrainedModel(
        folder,
        plans,
        dataset_json,
        configuration,
        str(first["trainer_name"]),
        tuple(fold.removeprefix("fold_") for fold in contents),
        lineage,
        _steps(lineage, classes),
        tuple(int(a) for a in first.get("inference_allowed_mirroring_axes") or ()),
    )
    if model.settings.get("previous_stage"):
        raise NotImplementedError(f"{folder} is a cascade; nnunet_cil extends 2d, 3d_lowres and 3d_fullres only.")
    for fold, file in checkpoints.items():
        check_network(file, contents[fold], plans, dataset_json, f"{folder} cannot be extended")
    return model


def _steps(lineage: Sequence[StepRecord], classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """As its lineage tells; a model that was not trained in steps has one."""
    steps = tuple(record.classes for record in lineage)
    return steps if [name for step in steps for name in step] == list(classes) else (tuple(classes),)


def _folds(model: TrainedModel, wanted: Sequence[str]) -> tuple[str, ...]:
    for fold in wanted:
        if fold not in model.folds:
            raise CILError(f"{model.folder} has no trained fold {fold}, only {', '.join(model.folds)}. Choose with -f.")
    return tuple(wanted) or model.folds


def _new_classes(model: TrainedModel, dataset: str, labels: Mapping[str, int], wish: Wish) -> tuple[str, ...]:
    """The classes to learn, in the order asked for, else in that of their labels."""
    known = [name for name in sorted(labels, key=lambda n: labels[n]) if name not in ("background", "ignore")]
    for option, names in (("--classes", wish.classes), ("--refine", wish.refine)):
        for name in names:
            if name not in known:
                raise CILError(
                    f"{option} names {name!r}, which is not a label of {dataset}{did_you_mean(name, known)}."
                )
    asked = [*wish.classes, *wish.refine]
    for name in asked:
        if asked.count(name) > 1:
            raise CILError(
                f"{name!r} is named twice. A class is either learnt (--classes) or refined (--refine), once."
            )
    for name in wish.refine:
        if name not in model.classes:
            raise CILError(f"--refine names {name!r}, which the model does not know yet; it is learnt with --classes.")
    common = [name for name in known if name in model.classes and name not in wish.refine]
    again = [name for name in common if name in wish.classes] or ([] if wish.classes else common)
    if again:
        raise CILError(
            f"Model and {dataset} both have {', '.join(again)}. If it is the same organ, use its labels with --refine "
            f"{shlex.join(again)}, or leave it out by naming the new ones with --classes. If it is another one, rename it in "
            "dataset.json."
        )
    new = tuple(wish.classes) or tuple(name for name in known if name not in model.classes)
    if not new:
        raise CILError(f"{dataset} has no class that the model does not know: it knows {', '.join(model.classes)}.")
    return new


def _check_present(raw: RawData, classes: Sequence[str]) -> None:
    """Every class is in some label file; files are read until all are found."""
    missing = {raw.dataset_json["labels"][name]: name for name in classes}
    for files in raw.cases.values():
        try:
            found = np.unique(raw.reader.read_seg(files["label"])[0])
        except (RuntimeError, OSError, ValueError) as error:
            raise CILError(
                f"The label file {files['label']} cannot be read. Restore it, or remove the case."
            ) from error
        missing = {label: name for label, name in missing.items() if label not in found}
        if not missing:
            return
    label, name = next(iter(missing.items()))
    raise CILError(f"No case of {raw.folder.name} has {name!r} (label {label}): there is nothing to learn it from.")


def _check_labelled(plan: StepPlan, raw: RawData) -> None:
    """Every class is said to be labelled in some case."""
    for name in plan.target_classes:
        if not any(name in plan.labelled.get(case, plan.target_classes) for case in raw.cases):
            raise CILError(
                f"'labelled_classes' in dataset.json of {raw.folder.name} says that no case labels {name!r}: there is nothing to "
                "learn it from."
            )


def _check_length(plans_name: str, configuration: str) -> None:
    """Trainer, plans and configuration make the name of a folder."""
    if len(f"{_LONGEST_TRAINER}__{plans_name}__{configuration}") > _LONGEST_NAME:
        raise CILError(
            f"The plans' name {plans_name!r} is too long for a folder's. Choose a shorter one with --name or -p."
        )


def _refuse_other_plans(file: Path, content: Mapping[str, Any]) -> None:
    """Plans of that name may continue another model, or have been trained."""
    if not file.is_file():
        return
    known = read_json(file, "")
    ours, theirs = (PreviousModel(**plans["cil"]["previous"]) for plans in (content, known))
    if ours != theirs and _folder(theirs).is_dir():
        raise CILError(
            f"{file} continues another model, {_folder(theirs)}. Give this step a name of its own with --name."
        )
    if _apart_from_previous(known) != _apart_from_previous(content):  # a model that was moved is known by its hash
        refuse_if_trained(file.parent.name, file.stem)


def _folder(previous: PreviousModel) -> Path:
    """Of the model, above its folds."""
    name = f"{previous.trainer}__{previous.plans}__{previous.configuration}"
    return Path(previous.folder or nnunet_folder("nnUNet_results") / previous.dataset / name)


def _apart_from_previous(plans: Mapping[str, Any]) -> dict[str, Any]:
    block = {k: v for k, v in plans["cil"].items() if k not in ("previous", "digest")}
    return {**plans, "cil": block}


def _refuse_old_labels(preprocessed: Path, raw: RawData) -> None:
    """nnU-Net keeps a copy of every label file that it preprocesses, which any later preprocessing brings up to date."""
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


def _moved_plans(model: TrainedModel, raw: RawData, name: str) -> dict[str, Any]:
    """The model's plans for the data set; on the model's own, what is preprocessed is used again."""
    source, reader = str(model.plans["dataset_name"]), type(raw.reader).__name__
    if source == raw.folder.name and not name:
        return moved_plans(model.plans, source, reader, model.origin, same_data=True)
    return moved_plans(model.plans, raw.folder.name, reader, name or moved_name(model.origin, source))


def _step_plan(
    model: TrainedModel,
    dataset_json: Mapping[str, Any],
    cases: Sequence[str],
    new: tuple[str, ...],
    wish: Wish,
) -> StepPlan:
    steps = (*model.steps, new)
    refined = tuple(name for name in model.classes if name in wish.refine)
    name = wish.name or _default_name(new, len(steps) - 1)
    valid_name(name, f"--name {name!r}")
    seen = [c for classes in steps for c in classes]
    evaluated = [c for c in seen if c in dataset_json["labels"]]
    return StepPlan(
        schedule=name,
        step=len(steps) - 1,
        steps=steps,
        dataset_labels=dict(dataset_json["labels"]),
        labels=model_labels(seen, ignore="ignore" in dataset_json["labels"]),
        previous=_previous(model),
        training={**_mirroring(model), **wish.training},
        hyperparameters=dict(wish.hyperparameters),
        refined=refined,
        labelled=labelled_classes(dataset_json, cases, evaluated),
    )


def _default_name(new: Sequence[str], step: int) -> str:
    """The classes' names, as far as they fit into a folder's."""
    words = [word for word in (re.sub(r"[^A-Za-z0-9]+", "-", c).strip("-") for c in new) if word]
    name = "-".join(words) or f"step-{step}"
    return name if len(name) <= 60 else f"{words[0][:40].strip('-')}-and-{len(new) - 1}-more"


def _previous(model: TrainedModel) -> PreviousModel:
    """Relative to nnUNet_results where it is in there under its own name."""
    source, plans_name = str(model.plans["dataset_name"]), str(model.plans["plans_name"])
    usual = nnunet_folder("nnUNet_results").resolve() / source / f"{model.trainer}__{plans_name}__{model.configuration}"
    folder = None if model.folder == usual else str(model.folder)
    return PreviousModel(
        dataset=source, plans=plans_name, trainer=model.trainer, configuration=model.configuration, folder=folder
    )


def _mirroring(model: TrainedModel) -> dict[str, Any]:
    """What the model was trained with, where it is not nnU-Net's default of all axes; axes of the volume."""
    dimensions = len(model.settings["patch_size"])
    if len(model.mirror_axes) == dimensions:
        return {}
    return {"mirror_axes": [a + 3 - dimensions for a in model.mirror_axes]}


def _preprocessed_bytes(model: TrainedModel, sample: Sample) -> int:
    """About, from the cases that were looked at: float32 images and int16 labels, compressed to a half."""
    wanted = np.array(model.settings["spacing"], dtype=np.float64)
    spacings = sample.spacings_mm[:, model.plans["transpose_forward"]]
    zoom = (spacings[:, -len(wanted) :] / wanted).prod(1)
    voxels = float((sample.shapes.prod(1) * zoom).mean()) * sample.num_cases
    return math.ceil(voxels * (4 * len(model.settings["normalization_schemes"]) + 2) / 2)


def _refuse_other_numbers(target: Path, labels: Mapping[str, int]) -> None:
    """What is preprocessed already has the numbers of its own dataset.json."""
    file = target / "dataset.json"
    known = read_json(file, "")["labels"] if file.is_file() else {}
    for name, number in labels.items():
        if known.get(name, number) != number:
            raise CILError(
                f"{target.name} was preprocessed when {name!r} was label {known[name]}, but dataset.json in nnUNet_raw says "
                f"{number}. Restore the number, or remove what is preprocessed in {target}, and dataset.json there (but not "
                "splits_final.json), and run the command again."
            )


def _check_labels(
    preprocessed: Path, plans: Mapping[str, Any], dataset_json: Mapping[str, Any], plan: StepPlan
) -> None:
    """Of the preprocessed cases: values that are no label, labels that should not be there, and classes that no case has."""
    labels, target = dataset_json["labels"], preprocessed.parent
    only = {"plans_name": plans["plans_name"], "configurations": {"": {"data_identifier": preprocessed.name}}}
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
                f"these are older. Remove {preprocessed} and run the command again."
            )
