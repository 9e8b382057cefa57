"""The predictions of a model, made with nnU-Net's own command and kept."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_cil.content import files_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.files import is_cut_off
from nnunet_cil.host.commands import predict, user_environment
from nnunet_cil.predicted_from import PredictedFrom, record_file
from nnunet_cil.workflows.evaluate.cases import Case, TestSet, cases_of
from nnunet_cil.workflows.model_fold import ModelFold


@dataclass(frozen=True)
class Prediction:
    """A case, and the file of the labels that a model has predicted for it."""

    case: Case
    file: Path


def predictions_of(
    model: ModelFold,
    tests: Sequence[TestSet | None],
    output: Path,
    *,
    checkpoint_sha256: str,
    device: str,
    before: ModelFold | None = None,
) -> list[Prediction]:
    """Returns a model's predictions of test sets; makes those that are missing, or another model's.

    Of several data sets, those that label none of the model's classes are left out.

    Args:
        model: trained.
        tests: None stands for the fold's validation cases, which nnU-Net has predicted.
        output: takes the predictions.
        checkpoint_sha256: of the model.
        device: as nnU-Net's.
        before: of a cascade, the model whose predictions it sees; they are made first.

    Raises:
        CILError: cases are missing, or nnU-Net's prediction failed.
    """
    predictions = []
    for test in tests:
        own = expected_predictions(model, [test], output)
        predictions += own
        if test is not None and own:
            shown: list[str] = []
            if before is not None:
                name = f"{before.stem}_{before.model.configuration}"
                stage = output / "predictions" / name / test.dataset
                source = source_of(before.checkpoint_sha256(), test.images)
                files = [stage / prediction.file.name for prediction in own]
                predict_missing(_arguments(before, test, files, device), files, source, _log(output, name, test))
                shown = ["-prev_stage_predictions", str(stage)]
            source, files = source_of(checkpoint_sha256, test.images, _sha256_of(before)), [p.file for p in own]
            predict_missing(
                [*_arguments(model, test, files, device), *shown], files, source, _log(output, model.stem, test)
            )
    return predictions


def _arguments(model: ModelFold, test: TestSet, files: Sequence[Path], device: str) -> list[str]:
    """Returns the arguments with which ``nnUNetv2_predict`` makes predictions of a test set, in one folder."""
    return [*model.predict_arguments, "-i", str(test.images), "-o", str(files[0].parent), "-device", device]


def _log(output: Path, name: str, test: TestSet) -> Path:
    return output / "logs" / f"{'_'.join(filter(None, [name, test.dataset]))}.txt"


def are_predicted(
    model: ModelFold,
    tests: Sequence[TestSet | None],
    output: Path,
    *,
    checkpoint_sha256: str,
    before: ModelFold | None = None,
) -> bool:
    """Tells whether all predictions of test sets are there, made by this model from the images that are there.

    Arguments as of ``predictions_of``; the fold's validation cases do not count.
    """
    for test in tests:
        own = [] if test is None else expected_predictions(model, [test], output)
        if test is not None and own:
            known = _known(own[0].file.parent, source_of(checkpoint_sha256, test.images, _sha256_of(before)))
            if known is None or not all(known.holds(prediction.file) for prediction in own):
                return False
    return True


def expected_predictions(model: ModelFold, tests: Sequence[TestSet | None], output: Path) -> list[Prediction]:
    """Returns a model's predictions of test sets, whether or not their files are there; arguments as of ``predictions_of``."""
    predictions = []
    for test in tests:
        if test is None or test.labels_any_of(model.plan.seen_classes):
            own = model.folder / "validation" if test is None else output / "predictions" / model.stem / test.dataset
            predictions += [Prediction(case, own / case.reference.name) for case in cases_of(model, test)]
    return predictions


def _sha256_of(before: ModelFold | None) -> str:
    return "" if before is None else before.checkpoint_sha256()


def source_of(checkpoint_sha256: str, images: Path, previous_stage: str = "") -> PredictedFrom:
    """Returns what predictions are made from.

    Args:
        checkpoint_sha256: of the model.
        images: their folder; what it holds counts.
        previous_stage: of a cascade, the SHA-256 of the checkpoint whose predictions it sees; blank elsewhere.
    """
    files = sorted(file for file in images.iterdir() if file.is_file() and not file.name.startswith("."))
    return PredictedFrom(checkpoint=checkpoint_sha256, images=files_sha256(files), previous_stage=previous_stage)


def _known(folder: Path, source: PredictedFrom) -> PredictedFrom | None:
    """Returns the record of predictions that come from this source; None where they come from another, or it is not known."""
    known = PredictedFrom.read(folder)
    if known is None or known.previous_stage != source.previous_stage:
        return None
    return known if (known.checkpoint, known.images) == (source.checkpoint, source.images) else None


def predict_missing(arguments: Sequence[str], files: Sequence[Path], source: PredictedFrom, log: Path) -> None:
    """Calls nnU-Net's prediction, continued where files are missing; anew where they come from another source.

    Args:
        arguments: of the command.
        files: that it makes, in one folder.
        source: the model and the images.
        log: takes the output.

    Raises:
        CILError: somebody has changed a prediction, or the command failed.
    """
    folder = files[0].parent
    there = [file for file in files if file.is_file()]
    if there and not record_file(folder).exists():
        raise CILError(
            f"{there[0]} is there, but nothing says who has predicted it. Move it away, or remove it to have it predicted again, "
            "and run the command again."
        )
    known = _known(folder, source)
    recorded = {} if known is None else known.files
    for file in files:
        if known is not None and file.is_file() and file.name in recorded and not known.holds(file):
            raise CILError(
                f"{file} has changed since it was predicted. Restore it, or remove it to have it predicted again, and run the "
                "command again."
            )
    for file in files:  # before the record, so that a kill leaves nothing that looks like this model's
        if file.is_file() and (known is None or (file.name not in recorded and is_cut_off(file))):
            file.unlink()
    there = [file for file in files if file.is_file()]
    if len(there) == len(files) and all(file.name in recorded for file in files):
        return
    if known is not None:
        source = replace(source, seconds_per_case=known.seconds_per_case)
    source.write(folder, there)
    if missing := len(files) - len(there):
        how = ["-npp", "1", "-nps", "1", *([] if known is None else ["--continue_prediction"])]
        start = time.monotonic()
        predict([*arguments, *how], user_environment(), log, missing)
        if math.isnan(source.seconds_per_case):
            source = replace(source, seconds_per_case=(time.monotonic() - start) / missing)
    source.write(folder, files)
