"""The cases of a comparison: checked before anything is predicted, then predicted where a model is given."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError, few_names
from nnunet_cil.evaluation.compared_cases import ComparedCase, Reference
from nnunet_cil.host.case_files import case_images
from nnunet_cil.host.dataset_json import description_of, read_dataset_json
from nnunet_cil.labels import all_numbers, labelled_classes
from nnunet_cil.training.catalogue import is_installed
from nnunet_cil.workflows.compare.sides import Side, reader_for
from nnunet_cil.workflows.evaluate.cases_to_score import read_case_files
from nnunet_cil.workflows.evaluate.predict import predict_missing, source_of
from nnunet_cil.workflows.models.export import export

logger = logging.getLogger(__name__)


def found_images(a: Side, b: Side, images: Path | None) -> dict[str, tuple[Path, ...]]:
    """Returns the images of every case that is compared; no file of a case where no images are given.

    Raises:
        CILError: a model is given without images, images lack a channel, or predictions lack a case.
    """
    models = [side for side in (a, b) if side.is_model]
    if images is None:
        if models:
            raise CILError(f"MODEL_{models[0].name} is a model, which needs images to predict. Give them with -i.")
        names = sorted(a.cases | b.cases)
        found: dict[str, tuple[Path, ...]] = dict.fromkeys(names, ())
    else:
        if not images.is_dir():
            raise CILError(f"-i {images} is not a folder. Give a folder of images, CASE_0000{a.file_ending}.")
        content = (models or [a])[0].dataset_json
        found = case_images(images, content, has_colours=_has_colours(a, b))
    for side in (a, b):
        if not side.is_model and (left_out := sorted(side.cases - found.keys())):
            logger.info(
                f"Note: {side.path} has predictions without an image, which are not compared: {few_names(left_out)}"
            )
        if not side.is_model and (missing := [name for name in found if name not in side.cases]):
            where = f"the images are in {images}" if images is not None else "the other folder has it"
            raise CILError(
                f"Case {missing[0]!r} is not in {side.path}, though {where}"
                f"{f' (nor are {few_names(missing[1:])})' if missing[1:] else ''}. Predict it, or remove it there."
            )
    return found


def _has_colours(a: Side, b: Side) -> bool:
    return any(side.reader_name == "NaturalImage2DIO" for side in (a, b))


def found_references(labels: Path | None, names: Sequence[str], ending: str) -> dict[str, Reference]:
    """Returns the reference labels of every case; empty where none are given.

    What their numbers mean is in ``dataset.json``, in their folder or above it.

    Raises:
        CILError: there is no such file, or a case has no labels.
    """
    if labels is None:
        return {}
    if not labels.is_dir():
        raise CILError(f"-l {labels} is not a folder. Give a folder of label maps, CASE{ending}.")
    file = description_of(labels)
    if file is None:
        raise CILError(
            f"{labels} does not tell what its labels mean. Copy the dataset.json of their data set there: its 'labels' name them."
        )
    content = read_dataset_json(file)
    known = tuple(name for name in content["labels"] if name not in ("background", "ignore"))
    partly = labelled_classes(content, names, known)
    found = {
        name: Reference(
            file=labels / f"{name}{ending}", labels=content["labels"], classes=tuple(partly.get(name, known))
        )
        for name in names
    }
    if missing := [name for name, reference in found.items() if not reference.file.is_file()]:
        raise CILError(
            f"Case {missing[0]!r} has no reference labels: {found[missing[0]].file} is missing"
            f"{f' (so are those of {few_names(missing[1:])})' if missing[1:] else ''}. Add them, or leave -l out."
        )
    return found


def check_classes_labelled(a: Side, b: Side, references: Mapping[str, Reference]) -> None:
    """Refuses reference labels of which no model knows any.

    Raises:
        CILError: names the classes.
    """
    labelled = {name for reference in references.values() for name in reference.classes}
    if references and not labelled & {*a.labels, *b.labels}:
        raise CILError(
            f"The reference labels name {', '.join(sorted(labelled))}, which neither model segments. Classes are matched by "
            "name: correct the dataset.json beside the labels, or leave -l out."
        )


def check_files(
    images: Mapping[str, tuple[Path, ...]], references: Mapping[str, Reference], sides: tuple[Side, Side]
) -> tuple[list[str], Any]:
    """Reads images and reference labels, before anything is predicted.

    Returns:
        Notes on what is taken as it is, and the reader of nnU-Net's for all files.

    Raises:
        CILError: a file cannot be read, or labels do not fit their image.
    """
    first = next(iter(images))
    example = next(iter(images[first]), sides[0].prediction(first))
    reader = reader_for(sides, example)
    if not any(images.values()):
        return [], reader
    cases = tuple(
        (name, files, references[name].file if name in references else None) for name, files in images.items()
    )
    numbers = frozenset({0}.union(*(all_numbers(reference.labels) for reference in references.values())))
    num_channels = len((sides[0] if sides[0].is_model else sides[1]).channels)
    return list(read_case_files(cases, reader, num_channels, numbers)), reader


def check_output(sides: tuple[Side, Side], labels: Path | None, output: Path) -> None:
    """Refuses an output folder in which a model's predictions would replace what is compared.

    Args:
        sides: of the comparison.
        labels: folder of the reference labels.
        output: folder.

    Raises:
        CILError: it is such a folder.
    """
    compared = [side.path for side in sides if not side.is_model] + ([] if labels is None else [labels])
    for model in (side for side in sides if side.is_model):
        for stage in (model, model.before):
            taken = None if stage is None else _predictions_folder(stage, output)
            for path in compared:
                if taken is not None and path.resolve().is_relative_to(taken.resolve()):
                    raise CILError(
                        f"The predictions of {model.path} would go to {taken}, where those of {path} are. Give another folder "
                        "with -o."
                    )


def _predictions_folder(side: Side, output: Path) -> Path:
    return output / "predictions" / side.name


def predicted(side: Side, cases: Sequence[str], images: Path | None, output: Path, device: str) -> dict[str, Path]:
    """Returns a side's label map of every case; a model predicts those that are missing, or another model's.

    Before a cascade the model predicts whose predictions it sees.

    Args:
        side: of the comparison.
        cases: names.
        images: folder of the images; needed by a model only.
        output: takes predictions and logs.
        device: as nnU-Net's.

    Raises:
        CILError: nnU-Net's prediction failed.
    """
    if not side.is_model or images is None:
        return {case: side.prediction(case) for case in cases}
    folder = _predictions_folder(side, output)
    files = {case: side.prediction(case, folder) for case in cases}
    shown, previous_stage = [], ""
    if side.before is not None:
        predicted(side.before, cases, images, output, device)
        shown = ["-prev_stage_predictions", str(_predictions_folder(side.before, output))]
        previous_stage = side.before.sha256
    arguments = [
        "-m",
        str(_predictable(side, output)),
        "-f",
        *side.folds,
        "-i",
        str(images),
        "-o",
        str(folder),
        "-device",
        device,
        *shown,
    ]
    log = output / "logs" / f"predict_{side.name}.txt"
    predict_missing(arguments, list(files.values()), source_of(side.sha256, images, previous_stage), log)
    return files


def _predictable(side: Side, output: Path) -> Path:
    """Returns the model's folder; where its trainer is not installed, a copy under the name of nnU-Net's own.

    Its network was found to be the one that nnU-Net's own trainer builds.
    """
    if is_installed(side.trainer):
        return side.path
    copy = output / "models" / side.sha256[:16]
    found = next(copy.glob("*/*/plans.json"), None)
    if found is not None:
        return found.parent
    logger.info(f"Note: {side.trainer} of {side.path} is not installed; a copy for plain nnU-Net predicts.")
    return export(side.path, copy, trusted=side.trusted)


def compared_cases(
    images: Mapping[str, tuple[Path, ...]],
    a: Mapping[str, Path],
    b: Mapping[str, Path],
    references: Mapping[str, Reference],
) -> list[ComparedCase]:
    """Returns the files of every case."""
    return [
        ComparedCase(name=name, a=a[name], b=b[name], image=next(iter(files), Path()), reference=references.get(name))
        for name, files in images.items()
    ]
