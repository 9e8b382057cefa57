"""The stages of a cascade: what its network sees, and what a model leaves for the cascade behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_cil.errors import CILError
from nnunet_cil.host.plans_files import stages
from nnunet_cil.host.splits import split_of
from nnunet_cil.next_stage import StageFold, folds_used
from nnunet_cil.nnunet_files import FINAL_CHECKPOINT
from nnunet_cil.training.cases import preprocessed_cases
from nnunet_cil.training.catalogue import refuse_kept_cases
from nnunet_cil.training.checkpoints import read_checkpoint
from nnunet_cil.training.state import StepState

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL


def check_previous_stage(trainer: nnUNetTrainerCIL) -> dict[str, str]:
    """Refuses to train or validate a cascade without the predictions of this step's and trainer's model before it.

    Returns:
        The models that have predicted the cases: fold -> SHA-256 of its checkpoint. Empty where the configuration is no cascade.

    Raises:
        CILError: predictions are missing, or by another model than is there; or that has changed since this training began.
    """
    if not trainer.is_cascaded:
        return {}
    stages(trainer.plans_manager.plans, trainer.configuration_name)  # refuses plans in which they do not fit
    refuse_kept_cases(type(trainer), trainer.step_plan.cases is not None)
    folds = _stage_folds(trainer)
    split = split_of(Path(trainer.preprocessed_dataset_folder_base), preprocessed_cases(trainer).names())
    training, validation = trainer.do_split()
    validated_by = {
        case: [str(number) for number, fold in enumerate(split) if case in fold.validation]
        for case in dict.fromkeys((*training, *validation))
    }
    used = folds_used(folds, validated_by, str(trainer.plans_manager.dataset_name), trainer.device.type)
    for fold in folds:
        if fold.fold in used:
            _check_origin(trainer, fold)
    if trainer.previous_stage not in ({}, used):
        name = trainer.configuration_manager.previous_stage_name
        raise CILError(
            f"The {name} models of this step have changed since the training in {trainer.output_folder} began, which saw their "
            "predictions. Restore them, or remove that folder and train the cascade again."
        )
    return used


def _stage_folds(trainer: nnUNetTrainerCIL) -> list[StageFold]:
    """Returns the folds of the model before, trained or not; fold all predicts what it was trained on, and is none."""
    folder = Path(trainer.preprocessed_dataset_folder_base)
    model = Path(str(trainer.folder_with_segs_from_previous_stage)).parents[1]
    numbers = range(len(split_of(folder, preprocessed_cases(trainer).names())))
    return [StageFold(folder=model / f"fold_{n}", stage=trainer.configuration_name) for n in numbers]


def _check_origin(trainer: nnUNetTrainerCIL, fold: StageFold) -> None:
    """Refuses a checkpoint that was not trained with this step's plans by this trainer, as one that was copied there.

    Raises:
        CILError: says what it is.
    """
    file = fold.folder / FINAL_CHECKPOINT
    state = StepState.from_checkpoint(read_checkpoint(file, lazily=True))
    record = None if state is None else state.lineage[-1]
    expected = (type(trainer).__name__, str(trainer.plans_manager.plans_name), fold.fold)
    found = None if record is None else (record.trainer, record.plans, record.fold)
    if found != expected or state is None or state.classes != trainer.step_plan.model_classes:
        told = "it was not trained in steps" if found is None else f"it is of {found[0]}, {found[1]}, fold {found[2]}"
        raise CILError(
            f"{file} is not the model of this step before the cascade: {told}. Remove its folder, and train it with "
            f"'{fold.train_command(str(trainer.plans_manager.dataset_name), trainer.device.type)}'."
        )


def next_stages(trainer: nnUNetTrainerCIL) -> list[StageFold]:
    """Returns the cascades for which the final validation predicts; says which ones it leaves out."""
    found = []
    known = trainer.plans_manager.available_configurations
    for name in (n for n in trainer.configuration_manager.next_stage_names or () if n in known):
        settings = trainer.plans_manager.get_configuration(name)
        data = Path(trainer.preprocessed_dataset_folder_base) / settings.data_identifier
        if trainer.fold == "all":
            trainer.say(f"Nothing is predicted for {name}: fold all was trained on its own validation cases.")
        elif not data.is_dir() or not any(data.iterdir()):
            trainer.say(
                f"Nothing is predicted for {name}, which is not preprocessed. If you train it, preprocess it, and run this "
                "training again with --val."
            )
        else:
            found.append(StageFold(folder=Path(trainer.output_folder), stage=name))
    return found


def predicting_for(configuration: ConfigurationManager, stages: Sequence[StageFold]) -> ConfigurationManager:
    """Returns a configuration whose final validation predicts for these cascades, and no other."""
    return ConfigurationManager({**configuration.configuration, "next_stage": [s.stage for s in stages] or None})
