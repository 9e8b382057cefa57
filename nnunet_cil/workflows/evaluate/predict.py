"""The predictions of a model, made with nnU-Net's own command and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_cil.files import is_cut_off
from nnunet_cil.host.commands import predict, user_environment
from nnunet_cil.workflows.evaluate.cases import Case, TestSet, cases_of
from nnunet_cil.workflows.model_fold import ModelFold

_FINISHED = "finished"
"""Stands with a folder's predictions once all are there. Without it the last files may be cut off by a kill."""


@dataclass(frozen=True)
class Prediction:
    """A case, and the file of the labels that a model has predicted for it."""

    case: Case
    file: Path


def predictions_of(
    model: ModelFold, tests: Sequence[TestSet | None], output: Path, *, checkpoint_sha256: str, device: str
) -> list[Prediction]:
    """Returns a model's predictions of test sets; makes those that are missing, or another model's.

    Of several data sets, those that label none of the model's classes are left out.

    Args:
        model: trained.
        tests: None stands for the fold's validation cases, which nnU-Net has predicted.
        output: takes the predictions.
        checkpoint_sha256: of the model.
        device: as nnU-Net's.

    Raises:
        CILError: cases are missing, or nnU-Net's prediction failed.
    """
    predictions = []
    for test in tests:
        own = expected_predictions(model, [test], output)
        predictions += own
        if test is not None and own:
            folder = own[0].file.parent
            source = _source(checkpoint_sha256, test.images)
            log = output / "logs" / f"{'_'.join(filter(None, [model.stem, test.dataset]))}.txt"
            arguments = [*model.predict_arguments, "-i", str(test.images), "-o", str(folder), "-device", device]
            _predict(arguments, [p.file for p in own], source=source, mark=folder / "predicted_from.txt", log=log)
    return predictions


def expected_predictions(model: ModelFold, tests: Sequence[TestSet | None], output: Path) -> list[Prediction]:
    """Returns a model's predictions of test sets, whether or not their files are there; arguments as of ``predictions_of``."""
    predictions = []
    for test in tests:
        if test is None or test.labels_any_of(model.plan.seen_classes):
            own = model.folder / "validation" if test is None else output / "predictions" / model.stem / test.dataset
            predictions += [Prediction(case, own / case.reference.name) for case in cases_of(model, test)]
    return predictions


def _source(checkpoint_sha256: str, images: Path) -> str:
    """Returns what predictions are made from: the model, and the images by name and size, since they are long to read.

    Of TIFFs also the spacings beside them, to which nnU-Net resamples.
    """
    files = sorted(images.iterdir())
    sizes = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
    spacings = b"".join(file.read_bytes() for file in files if file.suffix == ".json")
    return f"{checkpoint_sha256} {hashlib.sha256(sizes.encode() + spacings).hexdigest()[:16]} {images.resolve()}"


def _predict(arguments: Sequence[str], files: Sequence[Path], *, source: str, mark: Path, log: Path) -> None:
    """Calls ``nnUNetv2_predict``, continued where files are missing; anew where they come from another source.

    Args:
        arguments: of the command.
        files: that it makes.
        source: the model and the images.
        mark: the file, beside the predictions, that says what they come from.
        log: takes the output.
    """
    known = mark.read_text(encoding="utf-8").splitlines() if mark.is_file() else []
    is_same = known[:1] == [source]
    if is_same and _FINISHED in known and all(file.is_file() for file in files):
        return
    mark.parent.mkdir(parents=True, exist_ok=True)
    for file in files:  # before the mark, so that a kill leaves nothing that looks like this model's
        if file.is_file() and not (is_same and not is_cut_off(file)):
            file.unlink()
    mark.write_text(source, encoding="utf-8")
    missing = sum(not file.is_file() for file in files)
    if missing:
        how = ["-npp", "1", "-nps", "1", *(["--continue_prediction"] if is_same else [])]
        predict([*arguments, *how], user_environment(), log, missing)
    mark.write_text(f"{source}\n{_FINISHED}\n", encoding="utf-8")
