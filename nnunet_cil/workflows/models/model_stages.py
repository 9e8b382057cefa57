"""The stages of a trained model: itself, and before a cascade the model whose predictions it sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunet_cil.errors import CILError
from nnunet_cil.host.folders import model_folder_name
from nnunet_cil.host.plans_files import stages
from nnunet_cil.host.raw_dataset import RawData
from nnunet_cil.host.splits import SPLITS_FILE, fold_of, refuse_few_cases, split_of
from nnunet_cil.next_stage import refuse_unvalidated
from nnunet_cil.workflows.models.extension import Stage
from nnunet_cil.workflows.models.trained_model import TrainedModel, read_model


def read_stages(
    folder: Path, trusted: Sequence[str] = (), *, verdict: str = "cannot be extended"
) -> tuple[TrainedModel, ...]:
    """Reads a model folder; that of the stage before a cascade first, which lies beside it.

    Args:
        folder: ``TRAINER__PLANS__CONFIGURATION``, anywhere.
        trusted: packages besides nnU-Net's own whose classes its plans may name.
        verdict: says what cannot be done where plain nnU-Net does not take the weights.

    Raises:
        CILError: as ``read_model``; or the stage before is not there, or another model than the cascade was trained behind.
    """
    model = read_model(folder, trusted, verdict=verdict)
    if not model.previous_stage:
        return (model,)
    stages(model.plans, model.configuration)
    own, before = (
        model_folder_name(model.trainer, str(model.plans["plans_name"]), name)
        for name in (model.configuration, model.previous_stage)
    )
    beside = model.folder.with_name(before)
    what = f"{model.folder} is a cascade, which sees what {model.previous_stage} predicts"
    instead = "or take a model of 3d_fullres, which sees images only"
    if model.folder.name != own:
        raise CILError(
            f"{what}. So that this model can be found beside it, call the folder {own} and the other one {before}, {instead}."
        )
    if not beside.is_dir():
        raise CILError(f"{what}, but {beside} is not there. Put that model there, {instead}.")
    first = read_model(beside, trusted, verdict=verdict)
    if (first.plans, first.dataset_json["labels"]) != (model.plans, model.dataset_json["labels"]):
        raise CILError(
            f"{what}, but {beside} has another plans.json, or other labels in dataset.json: it is not the model that the cascade "
            f"was trained behind. Put that there, {instead}."
        )
    return first, model


def stages_to_train(
    models: Sequence[TrainedModel], folds: Sequence[str], raw: RawData, target: Path
) -> tuple[Stage, ...]:
    """Returns what is trained, in order. A cascade sees the predictions of all folds of the stage before it.

    Args:
        models: as of ``read_stages``.
        folds: of the model that was asked for.
        raw: the data set.
        target: the preprocessed data set; need not be there yet.

    Raises:
        CILError: a fold of the stage before is not trained, or a case is validated by none.
    """
    *earlier, model = models
    own = Stage(model=model, folds=tuple(folds))
    if not earlier:
        return (own,)
    (before,), cases = earlier, list(raw.cases)
    split = split_of(target, cases)
    if not split:
        refuse_few_cases(target, len(cases), " A cascade needs the models of all folds.")
    needed = (*(str(number) for number in range(len(split))), *(["all"] if "all" in folds else []))
    if missing := [fold for fold in needed if fold not in before.folds]:
        raise CILError(
            f"A cascade sees what the {before.configuration} models of all {len(split)} folds of {raw.folder.name} predict, but "
            f"{before.folder} has no trained fold {', '.join(missing)}. Train {'it' if len(missing) == 1 else 'them'}, write a "
            f"split of as many folds as there are to {target / SPLITS_FILE}, or extend a model of 3d_fullres."
        )
    validated = {case for fold in split for case in fold.validation}
    refuse_unvalidated({case for fold in folds for case in fold_of(target, fold, cases).training} - validated)
    return Stage(model=before, folds=needed), own
