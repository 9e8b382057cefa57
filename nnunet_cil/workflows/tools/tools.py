"""``nnunet_cil nnunet``: nnU-Net's own tools, with references that have the numbers of a step's model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError, few_names
from nnunet_cil.files import read_json, write_json
from nnunet_cil.host.commands import call, user_environment
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import logs_folder
from nnunet_cil.host.plans_files import read_plans, reader_of
from nnunet_cil.host.reading.readers import dataset_reader
from nnunet_cil.labels import Label, has_regions, labelled_classes, numbers_in
from nnunet_cil.step_plans import read_step_plan
from nnunet_cil.workflows.tools.compared_models import ComparedModels, Selection
from nnunet_cil.workflows.tools.references import FOLDER, cross_validation_environment, label_table, write_references

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


def evaluate_folder(folders: ComparedFolders, others: Sequence[str], *, needs_all: bool) -> None:
    """Runs ``nnUNetv2_evaluate_folder``. Classes that the references do not label are not scored.

    Args:
        folders: to compare.
        others: further arguments of the tool.
        needs_all: whether every reference must have a prediction.

    Raises:
        CILError: the numbers cannot agree, or the tool failed.
    """
    references, dataset_json = _renumbered(folders, needs_all=needs_all, needs_classes=False)
    files = ["-djfile", str(dataset_json), "-pfile", str(folders.plans)]
    _call_on("nnUNetv2_evaluate_folder", [str(references), str(folders.predictions), *files, *others], folders)


def determine_postprocessing(folders: ComparedFolders, others: Sequence[str]) -> None:
    """Runs ``nnUNetv2_determine_postprocessing``; arguments as of ``evaluate_folder``.

    Raises:
        CILError: the references do not label every class, the numbers cannot agree, or the tool failed.
    """
    references, dataset_json = _renumbered(folders, needs_all=False, needs_classes=True)
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
    labels = {folder: read_dataset_json(folder / "dataset.json", _PREDICTED)["labels"] for folder in folders}
    first = folders[0]
    for other in folders[1:]:
        if labels[other] != labels[first]:
            raise CILError(
                f"{first} has the labels {labels[first]}, but {other} {labels[other]}. nnU-Net averages by number: ensemble "
                "models that learnt the same classes in the same order."
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


_PREDICTED = "nnUNetv2_predict writes one into the folder of its predictions: predict again."


def _call_on(tool: str, arguments: Sequence[str], folders: ComparedFolders) -> None:
    call(tool, list(arguments), user_environment(), folders.predictions / FOLDER / f"{tool}.txt", _say)


def _say(line: str) -> None:
    logger.info(line.rstrip("\n"))


def _renumbered(folders: ComparedFolders, *, needs_all: bool, needs_classes: bool) -> tuple[Path, Path]:
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
        _check_regions(folders, content["labels"], labels, missing)
        return folders.references, folders.dataset_json
    numbers = {"background": 0, **{name: content["labels"][name] for name in known}}
    if "ignore" in labels:
        numbers["ignore"] = 1 + max(numbers.values())
    if not missing and all(labels[name] == number for name, number in numbers.items()):
        return folders.references, folders.dataset_json
    target = folders.predictions / FOLDER
    reader = dataset_reader(content, files[0], reader_of(plans))
    write_references(files, target / "labels", label_table(labels, numbers), reader, None, sorted(labels.values()))
    write_json(target / "dataset.json", {**read_json(folders.dataset_json, ""), "labels": numbers})
    return target / "labels", target / "dataset.json"


def _check_regions(
    folders: ComparedFolders, model: Mapping[str, Label], references: Mapping[str, Label], missing: Sequence[str]
) -> None:
    """Refuses references that give regions other numbers than the predictions: a number may belong to several regions."""
    known = [name for name in model if name not in missing]
    numbers = (
        {name: set(numbers_in(labels[name])) for name in known if name in labels} for labels in (model, references)
    )
    ours, theirs = numbers
    if missing or ours != theirs:
        raise CILError(
            f"{folders.references} numbers or lacks regions of the predictions ({dict(model)}). Give references with these "
            "numbers, or score the model with 'nnunet_cil evaluate'."
        )


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
        {file.name for file in folder.glob(f"*{ending}")} for folder in (folders.predictions, folders.references)
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
