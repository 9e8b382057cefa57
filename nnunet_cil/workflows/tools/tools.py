"""``nnunet_cil nnunet``: nnU-Net's own tools, with references that have the numbers of a step's model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError, few_names
from nnunet_cil.host.commands import call, user_environment
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import logs_folder
from nnunet_cil.labels import class_names, has_regions
from nnunet_cil.workflows.tools.compared_folders import ComparedFolders, renumbered
from nnunet_cil.workflows.tools.compared_models import ComparedModels, Selection
from nnunet_cil.workflows.tools.references import FOLDER, cross_validation_environment

logger = logging.getLogger(__name__)


def find_best_configuration(selection: Selection, others: Sequence[str], *, ensembles: bool) -> None:
    """Runs ``nnUNetv2_find_best_configuration``; also determines postprocessing.

    Args:
        selection: the models to choose from.
        others: further arguments of the tool.
        ensembles: whether it also tries ensembles of two.

    Raises:
        CILError: the models cannot be compared by number, or the tool failed.
    """
    models = ComparedModels.read(selection, averages=ensembles)
    found = list(dict.fromkeys(model.configuration for model in models.models))
    names = ["-tr", *selection.trainers, "-c", *found, "-p", *selection.plans]
    folds = ["-f", *map(str, selection.folds)]
    _cross_validate("nnUNetv2_find_best_configuration", models, [*names, *folds, *others])


def accumulate_crossval_results(selection: Selection, others: Sequence[str]) -> None:
    """Runs ``nnUNetv2_accumulate_crossval_results`` on one model; arguments as of ``find_best_configuration``.

    Raises:
        CILError: the model cannot be scored by number, or the tool failed.
    """
    models = ComparedModels.read(selection, averages=False)
    model = models.models[0]
    names = ["-tr", model.trainer, "-c", model.configuration, "-p", model.plans_name]
    folds = ["-f", *map(str, selection.folds)]
    _cross_validate("nnUNetv2_accumulate_crossval_results", models, [*names, *folds, *others])


def _cross_validate(tool: str, models: ComparedModels, arguments: Sequence[str]) -> None:
    environment = user_environment() | cross_validation_environment(models)
    call(tool, [models.dataset, *arguments], environment, logs_folder(models.dataset) / f"{tool}.txt", _say)


def evaluate_folder(folders: ComparedFolders, others: Sequence[str], *, needs_all: bool) -> None:
    """Runs ``nnUNetv2_evaluate_folder``. Classes that the references do not label are not scored.

    Args:
        folders: to compare.
        others: further arguments of the tool.
        needs_all: whether every reference must have a prediction.

    Raises:
        CILError: the numbers cannot agree, or the tool failed.
    """
    references, dataset_json = renumbered(folders, needs_all=needs_all, needs_classes=False)
    files = ["-djfile", str(dataset_json), "-pfile", str(folders.plans)]
    _call_on("nnUNetv2_evaluate_folder", [str(references), str(folders.predictions), *files, *others], folders)


def determine_postprocessing(folders: ComparedFolders, others: Sequence[str]) -> None:
    """Runs ``nnUNetv2_determine_postprocessing``; arguments as of ``evaluate_folder``.

    Raises:
        CILError: the references do not label every class, the numbers cannot agree, or the tool failed.
    """
    references, dataset_json = renumbered(folders, needs_all=False, needs_classes=True)
    files = ["-dataset_json", str(dataset_json), "-plans_json", str(folders.plans)]
    where = ["-i", str(folders.predictions), "-ref", str(references)]
    _call_on("nnUNetv2_determine_postprocessing", [*where, *files, *others], folders)


def ensemble(folders: Sequence[Path], output: Path, others: Sequence[str]) -> None:
    """Runs ``nnUNetv2_ensemble`` on predictions of models that number the same classes alike.

    Args:
        folders: with predictions and probabilities; nnU-Net looks at the labels of the first one only.
        output: folder.
        others: further arguments of the tool.

    Raises:
        CILError: the numbers or cases differ, there are no probabilities, or the tool failed.
    """
    contents = {folder: read_dataset_json(folder / "dataset.json", _PREDICTED) for folder in folders}
    first = folders[0]
    for other in folders[1:]:
        if _channels_of(contents[other]) != _channels_of(contents[first]):
            keys = [key for key in ("labels", "regions_class_order") if key in contents[first]]
            ours, theirs = (", ".join(str(contents[f].get(key)) for key in keys) for f in (first, other))
            raise CILError(
                f"{first} has the labels {ours}, but {other} {theirs}. nnU-Net averages by number: ensemble models that learnt "
                "the same classes in the same order."
            )
    _refuse_other_probabilities(folders)
    arguments = ["-i", *map(str, folders), "-o", str(output), *others]
    call("nnUNetv2_ensemble", arguments, user_environment(), output / "nnUNetv2_ensemble.txt", _say)


def _refuse_other_probabilities(folders: Sequence[Path]) -> None:
    """Refuses folders without probabilities, of which nnU-Net would make nothing and say nothing, or with other cases'.

    Raises:
        CILError: names the folder.
    """
    again = "Predict again with --save_probabilities."
    found = {folder: {file.name.removesuffix(".npz") for file in folder.glob("*.npz")} for folder in folders}
    cases = set().union(*found.values())
    for folder, own in found.items():
        if not own:
            raise CILError(f"{folder} holds no probabilities (CASE.npz), which an ensemble averages. {again}")
        if missing := sorted(cases - own):
            raise CILError(
                f"{folder} holds no probabilities of {few_names(missing)}, which another folder has. {again}"
            )


def _channels_of(dataset_json: Mapping[str, Any]) -> tuple[object, ...]:
    """Returns what two models must share for their probabilities to be averaged: regions lie in channels as they are listed."""
    labels = dataset_json["labels"]
    painted = dataset_json.get("regions_class_order") if has_regions(labels) else None
    return labels, class_names(labels), painted


_PREDICTED = "nnUNetv2_predict writes one into the folder of its predictions: predict again."


def _call_on(tool: str, arguments: Sequence[str], folders: ComparedFolders) -> None:
    call(tool, list(arguments), user_environment(), folders.predictions / FOLDER / f"{tool}.txt", _say)


def _say(line: str) -> None:
    logger.info(line.rstrip("\n"))
