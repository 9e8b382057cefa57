"""Reads what each trainer's models cost: their size, and the time of training and predicting, as far as it was recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_cil.evaluation.continual import mean
from nnunet_cil.predicted_from import PredictedFrom
from nnunet_cil.training.checkpoints import num_parameters, read_checkpoint
from nnunet_cil.training.progress import training_seconds
from nnunet_cil.workflows.evaluate.predict import Prediction
from nnunet_cil.workflows.model_fold import ModelFold
from nnunet_cil.workflows.planned_experiment import PlannedExperiment


def costs(
    planned: PlannedExperiment, predictions: Mapping[ModelFold, Sequence[Prediction]]
) -> dict[str, list[dict[str, Any]]]:
    """Returns trainer -> the costs of each fold; NaN where a time was not recorded.

    They are ``num_parameters`` of the last model, ``training_seconds`` of each step, and ``prediction_seconds`` that the last
    model takes for a case.

    Args:
        planned: whose models.
        predictions: of every model.
    """
    found = {}
    for model in predictions:
        checkpoint = read_checkpoint(model.checkpoint, lazily=True)
        found[model] = num_parameters(checkpoint), training_seconds(checkpoint.get("logging", {}))
    content: dict[str, list[dict[str, Any]]] = {}
    for trainer in planned.experiment.trainers:
        for fold in planned.experiment.folds:
            models = [model.fold(fold) for model in planned.models_of(trainer)]
            content.setdefault(trainer, []).append(
                {
                    "fold": fold,
                    "num_parameters": found[models[-1]][0],
                    "training_seconds": [found[model][1] for model in models],
                    "prediction_seconds": _prediction_seconds(predictions[models[-1]]),
                }
            )
    return content


def _prediction_seconds(predictions: Sequence[Prediction]) -> float:
    """Returns the time for a case; NaN for predictions of nnU-Net's final validation, which keeps none."""
    records = map(PredictedFrom.read, dict.fromkeys(p.file.parent for p in predictions))
    return mean(math.nan if record is None else record.seconds_per_case for record in records)
