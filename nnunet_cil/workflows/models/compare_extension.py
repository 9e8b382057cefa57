"""Compares the model in use with its extension, on the validation images of every fold."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_cil.content import file_sha256
from nnunet_cil.evaluation.compared_cases import ComparedCase, Reference
from nnunet_cil.evaluation.comparison_summary import NothingToCompare, comparison_summary
from nnunet_cil.files import write_text
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.labels import predicted_numbers
from nnunet_cil.lineage import validation_dice
from nnunet_cil.locks import Lock
from nnunet_cil.model_card import model_card
from nnunet_cil.model_changes import ClassAgreement, ModelChanges
from nnunet_cil.nnunet_files import FINAL_CHECKPOINT
from nnunet_cil.workflows.compare.cases import predicted
from nnunet_cil.workflows.compare.compare import Comparison, compare_cases
from nnunet_cil.workflows.compare.sides import Side, read_side
from nnunet_cil.workflows.evaluate.cases import cases_of, validation_set
from nnunet_cil.workflows.model_fold import ModelFold
from nnunet_cil.workflows.models.trained_model import TrainedModel

logger = logging.getLogger(__name__)


def compare_extension(
    old: TrainedModel,
    new: Sequence[ModelFold],
    output: Path,
    *,
    device: str,
    command: str,
    trusted: Sequence[str] = (),
) -> Comparison | None:
    """Compares every fold of the old model with that of the new one, on the images that the latter is validated on.

    The new model's predictions are those of nnU-Net's final validation.

    Args:
        old: the model that was continued.
        new: the folds of the new model, trained and validated.
        output: takes everything.
        device: for the old model's predictions.
        command: that does this, for the page.
        trusted: packages besides nnU-Net's own whose classes the old model's plans may name.

    Returns:
        None where it cannot be done: then a note says what to do instead.

    Raises:
        CILError: a prediction failed, or a file cannot be compared.
    """
    folds = [model for model in new if model.fold != "all"]
    if not folds:
        logger.info(f"Note: fold all leaves no validation cases. Compare on other images: {_by_hand(old, new)}")
        return None
    content = read_dataset_json(folds[0].model.folder / "dataset.json")
    if old.dataset_json["file_ending"] != content["file_ending"]:
        logger.info(
            f"Note: the old model predicts images that end in {old.dataset_json['file_ending']}, the data set's end in "
            f"{content['file_ending']}. Compare on images in the former: {_by_hand(old, new)}"
        )
        return None
    names = tuple(str(model.fold) for model in folds)
    sides = read_side("A", old.folder, names, trusted), _side_of(folds, names)
    with Lock(output / ".in_use.json", str(output)).held():
        cases: list[ComparedCase] = []
        for index, model in enumerate(folds, start=1):
            logger.info(f"[{index}/{len(folds)}] Comparing the old model with the new one, fold {model.fold}")
            cases += _fold_cases(sides[0], model, output, device, _compared_names(folds)[str(model.fold)])
        try:
            return compare_cases(cases, sides, folds[0].model.reader, output, command=command)
        except NothingToCompare as error:
            logger.info(f"Note: {error} {_by_hand(old, new)}")
            return None


def _by_hand(old: TrainedModel, new: Sequence[ModelFold]) -> str:
    command = ["nnunet_cil", "compare", str(old.folder), str(new[0].model.folder), "-i", "IMAGES", "-o", "OUT"]
    return f"'{shlex.join(command)}'"


def _side_of(folds: Sequence[ModelFold], names: tuple[str, ...]) -> Side:
    model = folds[0].model
    content = read_dataset_json(model.folder / "dataset.json")
    return Side(name="B", path=model.folder, dataset_json=content, reader_name=model.reader_name, folds=names)


def _compared_names(new: Sequence[ModelFold]) -> dict[str, dict[str, str]]:
    """Returns fold -> validation case -> its name in the comparison: a case of several folds has one for each."""
    from nnunet_cil.workflows.fold_records import current_cases

    found: dict[str, dict[str, str]] = {}
    for model in new:
        others = {case for own in found.values() for case in own}
        cases = current_cases(model.model.dataset, model.fold).validation
        found[str(model.fold)] = {c: f"{c} in fold {model.fold}" if c in others else c for c in cases}
    return found


def _fold_cases(old: Side, model: ModelFold, output: Path, device: str, names: Mapping[str, str]) -> list[ComparedCase]:
    """Returns the files of a fold's validation cases, by their names in the comparison; the old model predicts them."""
    test = validation_set(model.model.dataset, model.fold, output)
    cases = cases_of(model, test)
    one = old.in_folds((str(model.fold),))
    files = predicted(one, [case.name for case in cases], test.images, output / f"fold_{model.fold}", device)
    return [
        ComparedCase(
            name=names[case.name],
            a=files[case.name],
            b=model.folder / "validation" / files[case.name].name,
            image=case.image,
            reference=Reference(file=case.reference, labels=case.labels, classes=tuple(case.classes)),
        )
        for case in cases
    ]


def write_changes(old: TrainedModel, new: Sequence[ModelFold], comparison: Comparison) -> None:
    """Leaves with every fold how much its classes changed, for its model card and for ``export``.

    Args:
        old: the model that was continued.
        new: the folds of the new model.
        comparison: of the two.
    """
    from nnunet_cil.training.checkpoints import read_checkpoint
    from nnunet_cil.training.state import lineage_of

    by_name = {str(record["case"]): record for record in comparison.records}
    names = _compared_names([model for model in new if model.fold != "all"])
    for model in (model for model in new if str(model.fold) in names):
        try:
            found = comparison_summary([by_name[name] for name in names[str(model.fold)].values()])
        except NothingToCompare:
            continue
        shared = [c for c in found["classes"] if c["is_shared"]]
        keys = {"dice": "dice", "hd95": "hd95_mm", "ml_before": "volume_a_ml", "ml_now": "volume_b_ml"}
        classes = tuple(
            ClassAgreement(name=c["class"], **{k: None if math.isnan(c[v]) else c[v] for k, v in keys.items()})
            for c in shared
        )
        changes = ModelChanges(
            checkpoint=model.checkpoint_sha256(),
            previous=file_sha256(old.folder / f"fold_{model.fold}" / FINAL_CHECKPOINT),
            num_cases=found["num_cases"],
            distance_unit=found["distance_unit"],
            classes=classes,
        )
        changes.write(model.folder)
        lineage = lineage_of(read_checkpoint(model.checkpoint, lazily=True))
        dice, numbers = validation_dice(model.folder, model.plan.labels), predicted_numbers(model.plan.model_labels)
        card = model_card(lineage, dice, changes=changes, numbers=numbers)
        write_text(model.folder / "MODEL_CARD.md", card)
