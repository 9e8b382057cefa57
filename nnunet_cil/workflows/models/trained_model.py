"""The folder of a trained nnU-Net model: finding its checkpoints, reading it, and checking its network."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError, few_names
from nnunet_cil.files import shortened
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import model_folder_name
from nnunet_cil.host.networks import check_network_classes, plain_network
from nnunet_cil.host.plans_files import configuration_settings, read_plans, unmoved_name
from nnunet_cil.labels import has_regions
from nnunet_cil.lineage import StepRecord, foreign_record
from nnunet_cil.names import is_dataset_name, is_path_component
from nnunet_cil.nnunet_files import FINAL_CHECKPOINT
from nnunet_cil.regions import RegionLabels
from nnunet_cil.step_plans import StepPlan, read_step_plan, step_plans_name
from nnunet_cil.training_command import train_command

_RESTORE = "Restore the file."

_DEEPEST = 3
"""Limits how far below a folder models are looked for: some archives hold their data set's folder twice."""

_FOLD = re.compile("fold_([0-9]{1,9}|all)")


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """An nnU-Net v2 model folder, read and checked.

    Attributes:
        folder: the folder above the folds.
        plans: its plans.json.
        dataset_json: its dataset.json, with the model's labels.
        configuration: nnU-Net's name of the configuration.
        trainer: the trainer's class name.
        folds: the trained folds, e.g. ("0", "all").
        lineage: the records of its trainings.
        steps: the foreground classes that it learnt in each of its steps, in channel order.
        mirror_axes: the axes of the patch that prediction may flip.
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
        """The foreground classes, in order of learning."""
        return tuple(name for classes in self.steps for name in classes)

    @property
    def regions(self) -> RegionLabels | None:
        """Its regions; None where its classes do not overlap."""
        labels = self.dataset_json["labels"]
        return RegionLabels.of(labels, self.dataset_json["regions_class_order"]) if has_regions(labels) else None

    @cached_property
    def step(self) -> StepPlan | None:
        """The step that it was trained as; None for a model that was not trained in steps."""
        return read_step_plan(self.plans, self.dataset_json) if "cil" in self.plans else None

    @property
    def previous_stage(self) -> str:
        """The configuration whose predictions a cascade sees; blank elsewhere."""
        return str(self.settings.get("previous_stage") or "")

    @property
    def origin(self) -> str:
        """The name of the plans that its own are a copy of, without step and move."""
        name = str(self.plans["plans_name"])
        if self.step is not None:
            name = name.removesuffix(step_plans_name("", self.step.schedule, self.step.step))
        return unmoved_name(name)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of ``self.configuration`` in the plans, with what it inherits."""
        return configuration_settings(self.plans, self.configuration)


def read_model(folder: Path, trusted: Sequence[str] = (), *, verdict: str = "cannot be extended") -> TrainedModel:
    """Reads a model folder.

    Args:
        folder: ``TRAINER__PLANS__CONFIGURATION``, anywhere.
        trusted: packages besides nnU-Net's own whose classes its plans may name.
        verdict: says what cannot be done where plain nnU-Net does not take its weights.

    Raises:
        CILError: not the folder of an nnU-Net v2 model, folds that know different classes, or names that would lead elsewhere.
    """
    from nnunet_cil.training.checkpoints import foreground_classes, read_model_checkpoint
    from nnunet_cil.training.state import lineage_of

    folder = folder.resolve()
    _refuse_other_folders(folder)
    checkpoints = final_checkpoints(folder)
    plans = read_plans(folder / "plans.json", "Give a model folder, with plans.json and fold_X.", _RESTORE)
    dataset_json = read_dataset_json(folder / "dataset.json", "Give a model folder, with dataset.json and fold_X.")
    contents = {fold: read_model_checkpoint(file) for fold, file in checkpoints.items()}
    first = next(iter(contents.values()))
    classes = foreground_classes(first)
    for fold, content in contents.items():
        if foreground_classes(content) != classes:
            raise CILError(
                f"{folder}: {fold} knows {foreground_classes(content)}, but the first fold {classes}. Remove one."
            )
    refuse_paths(folder, plans, first)
    lineage = lineage_of(first) or (foreign_record(first, classes),)
    model = TrainedModel(
        folder=folder,
        plans=plans,
        dataset_json=dataset_json,
        configuration=str(first["init_args"]["configuration"]),
        trainer=str(first["trainer_name"]),
        folds=tuple(fold.removeprefix("fold_") for fold in contents),
        lineage=lineage,
        steps=_steps(lineage, classes),
        mirror_axes=tuple(int(a) for a in first.get("inference_allowed_mirroring_axes") or ()),
    )
    for fold, file in checkpoints.items():
        check_network(file, contents[fold], plans, dataset_json, f"{folder} {verdict}", trusted)
    return model


def _refuse_other_folders(folder: Path) -> None:
    """Refuses what is often taken for a model folder: a fold, or a model of nnU-Net v1."""
    if not folder.is_dir():
        _refuse_other_places(folder)
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


def _steps(lineage: Sequence[StepRecord], classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Returns the classes of each step, as the lineage tells; a model that was not trained in steps has one."""
    steps = tuple(record.classes for record in lineage)
    return steps if sorted(name for step in steps for name in step) == sorted(classes) else (tuple(classes),)


def final_checkpoints(model: Path) -> dict[str, Path]:
    """Finds the final checkpoint of each trained fold: ``fold_X`` -> file.

    Raises:
        CILError: there is none.
    """
    files = sorted(model.glob(f"fold_*/{FINAL_CHECKPOINT}"))
    found = {file.parent.name: file for file in files if _FOLD.fullmatch(file.parent.name)}
    if not found and (others := sorted(model.glob("fold_*/checkpoint_*.pth"))):
        _refuse_unfinished(others)
    if not found:
        _refuse_other_places(model)
        raise CILError(
            f"{model} is not the folder of a trained nnU-Net v2 model: it has no fold_X/checkpoint_final.pth. It is called "
            "TRAINER__PLANS__CONFIGURATION and lies in nnUNet_results/DATASET."
        )
    return found


def _refuse_other_places(place: Path) -> None:
    """Refuses an archive, and a folder of which a part is a model, as that of a data set or of all results."""
    if place.suffix == ".zip" and place.is_file():
        command = shlex.join(["nnUNetv2_install_pretrained_model_from_zip", str(place)])
        raise CILError(
            f"{place} is an archive. Unpack it into nnUNet_results with '{command}', and give the folder "
            "TRAINER__PLANS__CONFIGURATION that is then there."
        )
    for depth in range(1, _DEEPEST + 1):
        checkpoints = place.glob("/".join([*["*"] * depth, "fold_*", FINAL_CHECKPOINT]))
        models = sorted({file.parent.parent for file in checkpoints})
        if len(models) == 1:
            raise CILError(f"{place} is not a model itself. Give the model's own folder, {models[0]}.")
        if models:
            names = few_names([str(model.relative_to(place)) for model in models])
            raise CILError(f"{place} holds {len(models)} models: {names}. Give the folder of one.")


def _refuse_unfinished(checkpoints: Sequence[Path]) -> None:
    """Refuses a model without any final checkpoint: what is there may be taken for it, or was never trained to its end."""
    best = next((file for file in checkpoints if file.name == "checkpoint_best.pth"), checkpoints[0])
    found = ", ".join(f"{file.parent.name}/{file.name}" for file in checkpoints)
    model, fold = best.parent.parent, best.parent.name.removeprefix("fold_")
    trainer, plans, configuration = [*model.name.split("__"), "", ""][:3]
    command = train_command(model.parent.name, configuration, fold, trainer, plans, "--c")
    how = f" ('{command}')" if configuration and is_dataset_name(model.parent.name) else ""
    raise CILError(
        f"{model} has no checkpoint_final.pth, only {found}. Train it to its end{how}. "
        f"If it is a model of plain nnU-Net that was passed on like this, copy {best} to checkpoint_final.pth beside it."
    )


def refuse_paths(folder: Path, plans: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> None:
    """Refuses names in a model that would be more than one part of a path: files would be written elsewhere.

    Args:
        folder: the model's.
        plans: its plans.json.
        checkpoint: the content of one of its checkpoints.

    Raises:
        CILError: says which name.
    """
    names = {
        "dataset_name in plans.json": plans.get("dataset_name"),
        "plans_name in plans.json": plans.get("plans_name"),
        "the trainer in its checkpoint": checkpoint.get("trainer_name"),
        **{f"the configuration {name!r} in plans.json": name for name in plans["configurations"]},
    }
    for name, settings in plans["configurations"].items():
        if "data_identifier" in settings:
            names[f"data_identifier of {name!r} in plans.json"] = settings["data_identifier"]
    parts = [plans.get("plans_name"), checkpoint["init_args"]["configuration"]]
    longest = max("nnUNetTrainer", str(checkpoint.get("trainer_name")), key=len)
    names["the name of the model's folder"] = model_folder_name(longest, *map(str, parts))
    for what, name in names.items():
        is_name = is_dataset_name(name) if what.startswith("dataset_name") else is_path_component(name)
        if not is_name or (name in parts and "__" in name):
            raise CILError(
                f"{folder}: {what} is {shortened(name)}, which is no name of a file or folder of nnU-Net. Do not use this model."
            )


def check_network(
    file: Path,
    checkpoint: Mapping[str, Any],
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    verdict: str,
    trusted: Sequence[str] = (),
) -> None:
    """Refuses weights that the network of plain nnU-Net does not take.

    Args:
        file: the checkpoint's file, ``fold_X/checkpoint_final.pth``.
        checkpoint: its content.
        plans: the model's.
        dataset_json: the model's.
        verdict: the message's beginning.
        trusted: packages besides nnU-Net's own whose classes the plans may name.

    Raises:
        CILError: names the class that is not to be imported, or the trainer that built another network.
    """
    check_network_classes(file.parent.parent / "plans.json", plans, trusted)
    configuration = checkpoint["init_args"]["configuration"]
    configuration_settings(plans, configuration)
    try:
        network = plain_network(plans, dataset_json, configuration)
    except Exception as error:  # whatever the arguments of a stranger's network may lead to
        reason = shortened(f"{type(error).__name__}: {error}")
        raise CILError(
            f"{verdict}: nnU-Net cannot build the network of {configuration!r} in its plans.json ({reason}). Restore that file."
        ) from error
    try:
        network.load_state_dict(checkpoint["network_weights"], assign=True)
    except RuntimeError as error:
        raise CILError(
            f"{verdict}: plain nnU-Net builds another network from the plans than {checkpoint['trainer_name']} did for "
            f"{file.parent.name} ({str(error).splitlines()[-1].strip()})."
        ) from error
