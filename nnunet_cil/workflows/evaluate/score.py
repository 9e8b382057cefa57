"""The scores of a model's predictions, kept beside what they were taken from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_cil.content import files_sha256
from nnunet_cil.errors import CILError, few_names
from nnunet_cil.evaluation.files import CaseScores, score_files
from nnunet_cil.evaluation.scores import score_table
from nnunet_cil.evaluation.segmentation import ClassScores
from nnunet_cil.files import json_sha256, read_json, write_json
from nnunet_cil.host.reading.spacings import has_spacing_beside, spacing_file
from nnunet_cil.labels import Label, all_numbers, numbers_in
from nnunet_cil.workflows.evaluate.predict import Prediction
from nnunet_cil.workflows.model_fold import ModelFold

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """The scores of a model's predictions.

    Attributes:
        table: one row a case and class, as ``score_table`` has them.
        notes: what the user should know of them.
    """

    table: DataFrame
    notes: tuple[str, ...]


def score(
    model: ModelFold,
    predictions: Sequence[Prediction],
    output: Path,
    *,
    checkpoint_sha256: str,
    tolerance_mm: float,
    pool: Executor,
) -> ModelScores:
    """Returns the scores of a model's predictions; those that were stored for the same files are taken from there.

    Args:
        model: that has predicted.
        predictions: with the cases that they are compared with.
        output: takes the scores.
        checkpoint_sha256: of the model.
        tolerance_mm: of the normalised surface Dice.
        pool: shares the cases.

    Raises:
        CILError: a file is missing or unreadable, a grid or a label is not what it should be.
    """
    file, reader = _scores_file(model, output), model.model.reader
    scored_from = _scored_from(predictions, checkpoint_sha256, tolerance_mm, reader)
    rows = _stored_rows(file, scored_from)
    if rows is None:
        rows = score_cases(predictions, model.plan.labels, tolerance_mm, pool, reader)
        file.parent.mkdir(exist_ok=True)
        write_json(file, {**scored_from, "rows": rows, "rows_sha256": json_sha256(rows)})
    table = score_table({"trainer": model.trainer, "step": model.step, "fold": model.fold, **row} for row in rows)
    return ModelScores(table=table, notes=tuple(_notes(rows)))


def _files_of(prediction: Prediction, reader: Any) -> list[Path]:
    """Returns the files that a case's scores come from."""
    case = prediction.case
    beside = (
        [(case.image, True), (case.reference, False), (prediction.file, False)] if has_spacing_beside(reader) else []
    )
    spacings = [spacing_file(file, is_image=is_image) for file, is_image in beside]
    return [case.reference, prediction.file, *(file for file in spacings if file.is_file())]


def _notes(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns a note on predictions that do not lie quite where their reference does."""
    apart = {str(row["case"]): float(row["voxels_apart"]) for row in rows if row.get("voxels_apart")}
    if not apart:
        return []
    return [
        f"{len(apart)} predictions lie up to {max(apart.values()):.2g} voxels apart from their references "
        f"({few_names(list(apart))}). They are compared voxel by voxel, as nnU-Net compares them."
    ]


def is_scored(
    model: ModelFold, predictions: Sequence[Prediction], output: Path, *, checkpoint_sha256: str, tolerance_mm: float
) -> bool:
    """Tells whether a model's scores are stored, and are those of the files that are there; arguments as of ``score``."""
    if not all(p.file.is_file() for p in predictions):
        return False
    scored_from = _scored_from(predictions, checkpoint_sha256, tolerance_mm, model.model.reader)
    return _stored_rows(_scores_file(model, output), scored_from) is not None


def _scores_file(model: ModelFold, output: Path) -> Path:
    return output / "scores" / f"{model.stem}.json"


def _scored_from(
    predictions: Sequence[Prediction], checkpoint_sha256: str, tolerance_mm: float, reader: Any
) -> dict[str, Any]:
    """Returns all that scores depend on."""
    return {
        "checkpoint": checkpoint_sha256,
        "tolerance_mm": tolerance_mm,
        "scores": [score.name for score in fields(ClassScores)],
        "reader": type(reader).__name__,
        "cases": {p.case.name: list(p.case.classes) for p in predictions},
        "labels_sha256": json_sha256([p.case.labels for p in predictions]),
        "files_sha256": files_sha256(f for p in predictions for f in _files_of(p, reader)),
    }


def score_cases(
    predictions: Sequence[Prediction], channels: Mapping[str, Label], tolerance_mm: float, pool: Executor, reader: Any
) -> list[dict[str, Any]]:
    """Returns one row a case and class that its reference labels, in parallel over the cases.

    Args:
        predictions: with the cases that they are compared with.
        channels: what the predicted labels mean, name -> number or region.
        tolerance_mm: of the normalised surface Dice.
        pool: shares the cases.
        reader: an instance of nnU-Net's, the one that the predictions were made with.
    """
    from tqdm import tqdm

    scored = tqdm(
        pool.map(partial(_score, channels, tolerance_mm, reader), predictions),
        total=len(predictions),
        unit="case",
        leave=False,
    )
    return [
        {
            **{"case": prediction.case.name, "class": name, **asdict(scores)},
            **{"unit": found.unit, "voxels_apart": found.voxels_apart},
        }
        for prediction, found in zip(predictions, scored, strict=True)
        for name, scores in found.by_class.items()
    ]


def _score(channels: Mapping[str, Label], tolerance_mm: float, reader: Any, prediction: Prediction) -> CaseScores:
    """Scores a case; called in another process."""
    case = prediction.case
    return score_files(
        prediction.file,
        case.reference,
        image_file=case.image,
        reader=reader,
        classes={name: (channels[name], case.labels[name]) for name in case.classes},
        prediction_labels=all_numbers(channels),
        reference_labels=all_numbers(case.labels),
        ignore_label=numbers_in(case.labels["ignore"])[0] if "ignore" in case.labels else None,
        tolerance_mm=tolerance_mm,
    )


def _stored_rows(file: Path, scored_from: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Returns rows that were scored before, if they are of the same model, cases and files."""
    try:
        known = read_json(file, "")
    except CILError:  # none, or a damaged one
        return None
    rows: list[dict[str, Any]] | None = known.get("rows")
    is_whole = known.get("rows_sha256") == json_sha256(rows)
    return rows if is_whole and {key: known.get(key) for key in scored_from} == dict(scored_from) else None
