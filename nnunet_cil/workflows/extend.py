"""``nnunet_cil extend``: a trained nnU-Net model, its plans moved onto a data set in which new classes are labelled."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.datasets.convert import check_room
from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.files import write_json
from nnunet_cil.labels import labelled_classes, model_labels, refuse_regions
from nnunet_cil.schedule import check_training_settings
from nnunet_cil.step_plans import PreviousModel, StepPlan, read_step_plan
from nnunet_cil.workflows.export import final_checkpoints
from nnunet_cil.workflows.fit import Remark, Sample, compare
from nnunet_cil.workflows.folders import nnunet_folder, raw_dataset_folder, read_json
from nnunet_cil.workflows.move import (
    RawData,
    moved_name,
    moved_plans,
    orientations_of,
    read_raw,
    reader_of,
    refuse_danger,
    refuse_other_preprocessing,
)
from nnunet_cil.workflows.plan import refuse_if_trained, scan_labels, step_plans_file
from nnunet_cil.workflows.preprocess import preprocess


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
        classes: the foreground classes, in channel order.
        mirror_axes: of the patch, that prediction may flip.
    """

    folder: Path
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    configuration: str
    trainer: str
    folds: tuple[str, ...]
    classes: tuple[str, ...]
    mirror_axes: tuple[int, ...]

    @cached_property
    def step(self) -> StepPlan | None:
        """The step that it was trained as; None for a model that was not trained in steps."""
        return read_step_plan(self.plans, self.dataset_json) if "cil" in self.plans else None

    @property
    def steps(self) -> tuple[tuple[str, ...], ...]:
        """Its classes, step by step."""
        return (self.classes,) if self.step is None else self.step.steps[: self.step.step + 1]

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
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        settings: dict[str, Any] = PlansManager(self.plans).get_configuration(self.configuration).configuration
        return settings


@dataclass(frozen=True)
class Wish:
    """What the user asks for.

    Attributes:
        classes: to learn; empty for all that the model does not know.
        refine: classes that model and data set both have, the same organ; their labels are used.
        configuration: that the user takes the model for; None for its own.
        folds: to continue; empty for all that are trained.
        name: of the step; empty for the new classes' names.
        plans_name: of the moved plans, before the step's name; empty for the model's with ``From`` and its data set's ID.
        training: overrides of nnU-Net's training, as in a schedule.
        hyperparameters: of the trainer, as in a schedule.
        force: go on where model and data set differ dangerously.
    """

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
        dataset: nnU-Net's name.
        plan: of the step.
        plans_name: of the step's plans.
        file: of the step's plans.
        folds: to train.
        remarks: how model and data set fit.
    """

    model: TrainedModel
    dataset: str
    plan: StepPlan
    plans_name: str
    file: Path
    folds: tuple[str, ...]
    remarks: tuple[Remark, ...]


def extend(
    model_folder: Path, dataset: str | int, wish: Wish, *, say: Callable[[str], None] = lambda _line: None
) -> Extension:
    """Checks that model and data set fit, writes the step's plans, and preprocesses the data set with them.

    A second call goes on where the first one ended.

    Args:
        model_folder: ``TRAINER__PLANS__CONFIGURATION``, anywhere.
        dataset: ID or name of a raw nnU-Net data set.
        wish: which classes, folds and settings.
        say: takes a line of progress at a time.

    Raises:
        CILError: anything that cannot work, or is dangerous and not forced; all but wrong label values before the long work.
    """
    model = read_model(model_folder)
    if wish.configuration not in (None, model.configuration):
        raise CILError(f"{model.folder} is a {model.configuration} model, not {wish.configuration}. Leave -c out.")
    folds = _folds(model, wish.folds)
    folder = raw_dataset_folder(dataset)
    dataset_json = read_json(folder / "dataset.json", "A raw nnU-Net data set has one.")
    refuse_regions(dataset_json)
    check_training_settings(wish.training, "--training")
    new = _new_classes(model, folder.name, dataset_json["labels"], wish)
    raw = read_raw(folder, dataset_json, reader_of(model.plans))
    _check_present(raw, (*wish.refine, *new))
    remarks = _fit(model, raw)
    for remark in remarks:
        say(str(remark))
    refuse_danger(
        remarks,
        force=wish.force,
        misfit=f"{folder.name} does not fit the model {model.folder.name}",
        doubt=f"{folder.name} does not look like what the model {model.folder.name} was trained on",
        option="--force",
    )

    target = nnunet_folder("nnUNet_preprocessed") / folder.name
    _refuse_other_numbers(target, dataset_json["labels"])
    base = _moved_plans(model, raw, wish.plans_name)
    plan = _step_plan(model, folder.name, dataset_json, list(raw.cases), new, wish)
    plans_name = f"{base['plans_name']}_{plan.schedule}_step{plan.step}"
    content = step_plans_file(base, plans_name, plan)
    file = target / f"{plans_name}.json"
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != content:
        refuse_if_trained(folder.name, plans_name)
    remedy = "Give the moved plans another name with -p."
    refuse_other_preprocessing(target, content, model.configuration, remedy)
    identifier = content["configurations"][model.configuration].get("data_identifier") or base["plans_name"]
    if not (target / identifier).is_dir():
        check_room(target, _preprocessed_bytes(model, raw.sample), "nnUNet_preprocessed")
    target.mkdir(exist_ok=True)
    write_json(target / "dataset.json", dataset_json)
    write_json(file, content)
    logs = nnunet_folder("nnUNet_results") / folder.name / "cil_logs"
    preprocess(folder.name, model.configuration, plans_name, logs, say)
    _check_labels(target, content, dataset_json, plan)
    return Extension(model, folder.name, plan, plans_name, file, folds, tuple(remarks))


def read_model(folder: Path) -> TrainedModel:
    """Reads a model folder.

    Raises:
        CILError: not the folder of an nnU-Net v2 model, or folds that know different classes.
        NotImplementedError: regions, or a cascade.
    """
    from nnunet_cil.training.checkpoints import foreground_classes, read_checkpoint

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
    dataset_json = read_json(folder / "dataset.json", "Give a model folder, with dataset.json and fold_X.")
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
    model = TrainedModel(
        folder,
        plans,
        dataset_json,
        configuration,
        str(first["trainer_name"]),
        tuple(fold.removeprefix("fold_") for fold in contents),
        tuple(classes),
        tuple(int(a) for a in first.get("inference_allowed_mirroring_axes") or ()),
    )
    if model.settings.get("previous_stage"):
        raise NotImplementedError(f"{folder} is a cascade; nnunet_cil extends 2d, 3d_lowres and 3d_fullres only.")
    return model


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
            f"{' '.join(again)}, or leave it out by naming the new ones with --classes. If it is another one, rename it in "
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
        found = np.unique(raw.reader.read_seg(files["label"])[0])
        missing = {label: name for label, name in missing.items() if label not in found}
        if not missing:
            return
    label, name = next(iter(missing.items()))
    raise CILError(f"No case of {raw.folder.name} has {name!r} (label {label}): there is nothing to learn it from.")


def _fit(model: TrainedModel, raw: RawData) -> list[Remark]:
    found = compare(
        model.plans,
        model.settings,
        model.dataset_json["channel_names"],
        raw.dataset_json["channel_names"],
        raw.sample,
        orientations_of(model.plans),
    )
    return [*found, raw.reader_remark]


def _moved_plans(model: TrainedModel, raw: RawData, name: str) -> dict[str, Any]:
    """The model's plans for the data set; on the model's own, what is preprocessed is used again."""
    source, reader = str(model.plans["dataset_name"]), type(raw.reader).__name__
    if source == raw.folder.name and not name:
        return moved_plans(model.plans, source, reader, model.origin, same_data=True)
    return moved_plans(model.plans, raw.folder.name, reader, name or moved_name(model.origin, source))


def _step_plan(
    model: TrainedModel,
    dataset: str,
    dataset_json: Mapping[str, Any],
    cases: Sequence[str],
    new: tuple[str, ...],
    wish: Wish,
) -> StepPlan:
    steps = (*model.steps, new)
    refined = tuple(name for name in model.classes if name in wish.refine)
    name = wish.name or "-".join(re.sub(r"[^A-Za-z0-9]+", "-", c).strip("-") for c in new)
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name) or "__" in name:
        raise CILError(
            f"--name {name!r} becomes part of a folder's name: use letters, digits, '.', '-' and single '_'."
        )
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
        labelled=labelled_classes(dataset_json, cases, evaluated, dataset=dataset),
    )


def _previous(model: TrainedModel) -> PreviousModel:
    """Relative to nnUNet_results where it is in there under its own name."""
    source, plans_name = str(model.plans["dataset_name"]), str(model.plans["plans_name"])
    usual = nnunet_folder("nnUNet_results").resolve() / source / f"{model.trainer}__{plans_name}__{model.configuration}"
    folder = None if model.folder == usual else str(model.folder)
    return PreviousModel(source, plans_name, model.trainer, model.configuration, folder)


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
                f"{number}. Restore the number, or remove {target} and run the command again."
            )


def _check_labels(target: Path, plans: Mapping[str, Any], dataset_json: Mapping[str, Any], plan: StepPlan) -> None:
    """Of the preprocessed cases: values that are no label, labels that should not be there, and classes that no case has."""
    labels = dataset_json["labels"]
    present = scan_labels(target, plans, labels)
    for case, values in present.items():
        for name in plan.evaluated_classes:
            if labels[name] in values and name not in plan.labelled.get(case, plan.evaluated_classes):
                raise CILError(
                    f"Case {case!r} holds {name!r} (label {labels[name]}), but 'labelled_classes' in dataset.json says that it "
                    "is not labelled there. Correct the one or the other, and run the command again."
                )
    for name in plan.shown_classes:
        if not any(labels[name] in values for values in present.values()):
            raise CILError(
                f"{name!r} (label {labels[name]}) is in the label files of {target.name}, but in none of the preprocessed cases: "
                f"these are older. Remove {target} and run the command again."
            )
