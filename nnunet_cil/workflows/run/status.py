"""``nnunet_cil status``: which models of an experiment are trained, running, interrupted or missing."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path

from nnunet_cil.evaluation.tables import Groups, Table, group_means, number
from nnunet_cil.host.commands import epochs_in
from nnunet_cil.lineage import validation_dice
from nnunet_cil.training.catalogue import check_trainer_names
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.model_fold import ModelFold
from nnunet_cil.workflows.planned_experiment import PlannedExperiment

logger = logging.getLogger(__name__)


def status(experiment: Experiment) -> str:
    """Returns a table of what is trained, running, interrupted or missing, with the mean Dice on the validation cases."""
    check_trainer_names(experiment.trainers)
    has_several = len(experiment.data_sets) > 1
    rows = []
    planned = PlannedExperiment.read(experiment)
    for remark in planned.remarks:
        logger.info(remark)
    outdated = _outdated(planned)
    has_stages = planned.before is not None
    for model in (model for stage in planned.stages for model in stage.model_folds()):
        data_set = [model.model.dataset] if has_several else []
        stage = [model.model.configuration] if has_stages else []
        scores = map(number, _validation_scores(model))
        rows.append(
            [
                str(model.fold),
                str(model.step),
                *data_set,
                *stage,
                model.trainer,
                _state(model) + outdated.get(model, ""),
                *scores,
            ]
        )
    further = [*(["data set"] if has_several else []), *(["configuration"] if has_stages else [])]
    return Table(["fold", "step", *further, "trainer", "state", "old", "new", "all"], rows).markdown()


def _outdated(planned: PlannedExperiment) -> dict[ModelFold, str]:
    """Returns what to add to the state of models that stand on one that was trained again since, or saw its predictions."""
    found: dict[ModelFold, str] = {}
    for earlier, later in (pair for stage in planned.stages for pair in stage.successions()):
        if later.newest_checkpoint is None:
            continue
        if earlier in found:
            found[later] = found[earlier]
        elif not later.stands_on(earlier):
            found[later] = f", but step {earlier.step} was trained again since"
    for model in planned.model_folds():
        before = planned.folds_before(model)
        if model not in found and model.saw_other_stages(before):
            found[model] = f", but {before[0].model.configuration} was trained again since"
    return found


def _state(model: ModelFold) -> str:
    """Returns how far a model is, and who is at it: its lock says so."""
    holder = model.lock.holder()
    if holder is not None:
        return f"running on {holder.host} since {holder.since}, {_progress(model) or 'no epoch yet'}"
    if model.is_trained and not model.is_planned:
        return "trained with other plans"
    if model.is_finished:
        return "finished"
    if model.is_trained:
        return "trained, not validated"
    progress, left_by = _progress(model), model.lock.left_by()
    if left_by is not None:
        return f"interrupted on {left_by.host}, {progress or 'before its first epoch'}"
    return progress or "missing"


def _progress(model: ModelFold) -> str:
    """Returns the epoch that the newest log tells of; empty where there is none."""
    logs = sorted(model.folder.glob("training_log_*.txt"), key=_begun)
    epochs = epochs_in(logs[-1].read_text(errors="replace")) if logs else []
    return f"epoch {epochs[-1]} of {model.plan.num_epochs}" if epochs else ""


def _begun(log: Path) -> list[int]:
    """Returns when a training began or went on, as nnU-Net names its log: the numbers are not all padded with zeros."""
    return [int(number) for number in re.findall(r"\d+", log.name)]


def _validation_scores(model: ModelFold) -> Groups:
    """Returns the mean Dice over old, new and all classes, from nnU-Net's summary; NaN where there is none, as in fold all."""
    if not model.is_finished or not model.is_planned:
        return math.nan, math.nan, math.nan
    plan = model.plan
    dice = validation_dice(model.folder, plan.labels)
    scores = {name: dice.get(name, math.nan) for name in plan.seen_classes}
    return group_means(scores, plan.old_classes, plan.new_classes)
