"""Makes nnU-Net's final validation one of a step: checked cases, labels numbered as the model's channels, fitting scores."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nnunet_cil.host.reading.spacings import TIFF, spacing_file
from nnunet_cil.host.splits import SPLITS_FILE
from nnunet_cil.labels import NUMBERS_DIFFER
from nnunet_cil.nnunet_files import FINAL_CHECKPOINT
from nnunet_cil.predicted_from import PredictedFrom, record_file
from nnunet_cil.training.cases import check_before_validation
from nnunet_cil.training.checkpoints import read_checkpoint
from nnunet_cil.training.class_blocks import in_blocks
from nnunet_cil.training.ground_truth import drop_unlabelled_scores, evaluation_table, write_in_channels
from nnunet_cil.training.previous_stage import check_previous_stage, next_stages, predicting_for

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL


@contextmanager
def final_validation(trainer: nnUNetTrainerCIL, *, saves_probabilities: bool = False) -> Iterator[None]:
    """Makes nnU-Net's final validation one of a step, as long as the context lasts.

    Args:
        trainer: with the weights that are validated.
        saves_probabilities: nnU-Net writes them; then all classes are resampled at once, as regions are always.

    Raises:
        CILError: the fold's split has changed, and the model was trained on its validation cases.
    """
    check_before_validation(trainer)
    check_previous_stage(trainer)
    stages = next_stages(trainer)
    folder, ending = Path(trainer.output_folder) / "validation", trainer.dataset_json["file_ending"]
    cases, validated = trainer.do_split()[1], None
    if trainer.local_rank == 0:
        if trainer.is_trained:
            _remove_latest(Path(trainer.output_folder))
        _prepare_folder(folder, cases, ending)
        for stage in stages:
            stage.remove_record()
        validated = _final_checkpoint(trainer)
    original: str = trainer.preprocessed_dataset_folder_base
    managers = trainer.plans_manager, trainer.configuration_manager
    trainer.preprocessed_dataset_folder_base = _ground_truth_folder(trainer)
    trainer.configuration_manager = predicting_for(trainer.configuration_manager, stages)
    if not saves_probabilities and not trainer.step_plan.has_regions:
        trainer.plans_manager, trainer.configuration_manager = in_blocks(managers[0], trainer.configuration_manager)
    try:
        yield
    finally:
        trainer.preprocessed_dataset_folder_base = original
        trainer.plans_manager, trainer.configuration_manager = managers
    if trainer.local_rank != 0:
        return
    mean = drop_unlabelled_scores(folder / "summary.json", trainer.step_plan, ending)
    if mean is not None:
        trainer.say(
            f"The labels do not show every class in every case. Mean Validation Dice of what they show: {mean:.4f}"
        )
    if not trainer.step_plan.is_numbered_as_the_data_set:
        trainer.say(NUMBERS_DIFFER)
    if trainer.fold == "all":
        trainer.say("Fold all has no validation cases: what nnU-Net scores here are training cases.")
    if validated is None:
        trainer.say(
            f"Not predicted by {FINAL_CHECKPOINT}: the step counts as not validated until nnUNetv2_train --val has run."
        )
    else:
        files = (folder / "summary.json", *(folder / f"{case}{ending}" for case in cases))
        validated.write(folder, [file for file in files if file.is_file()])
        for stage in stages:
            stage.write_record(validated, cases)


def _remove_latest(fold: Path) -> None:
    """Removes the checkpoint that ``--c`` goes on from, once there is a final one: a kill may come in between."""
    if (fold / FINAL_CHECKPOINT).is_file():
        (fold / "checkpoint_latest.pth").unlink(missing_ok=True)


def _final_checkpoint(trainer: nnUNetTrainerCIL) -> PredictedFrom | None:
    """Returns a record of the final checkpoint; None where its weights are not those that are validated.

    They are not after ``--val_best``, nor where a training without checkpoints left the file of an earlier one.
    """
    file = Path(trainer.output_folder) / FINAL_CHECKPOINT
    if not trainer.is_trained or not file.is_file():
        return None
    stored, own = read_checkpoint(file, lazily=True)["network_weights"], trainer.bare_network.state_dict()
    same = stored.keys() == own.keys() and all(_are_equal(stored[name], own[name].cpu()) for name in own)
    return PredictedFrom.by(file) if same else None


def _are_equal(one: Tensor, other: Tensor) -> bool:
    """Compares two tensors; NaN equals NaN."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _prepare_folder(folder: Path, cases: Collection[str], file_ending: str) -> None:
    """Removes the record, the scores, probabilities, and what was predicted for other cases from nnU-Net's ``validation``.

    nnU-Net scores every prediction that lies there, also those that an earlier training left under another split, and averages
    probabilities that an earlier model left.

    Args:
        folder: nnU-Net's.
        cases: that are going to be predicted.
        file_ending: of predictions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record_file(folder).unlink(missing_ok=True)
    (folder / "summary.json").unlink(missing_ok=True)
    for file in folder.iterdir():
        ending = next((e for e in (file_ending, ".npz", ".pkl") if file.name.endswith(e)), None)
        if ending is not None and (ending != file_ending or file.name.removesuffix(ending) not in cases):
            file.unlink()
            if ending == file_ending and ending in TIFF:
                spacing_file(file, is_image=False).unlink(missing_ok=True)


def _ground_truth_folder(trainer: nnUNetTrainerCIL) -> str:
    """Returns the folder with the labels for nnU-Net's validation, written with the model's numbers if need be."""
    folder = Path(trainer.preprocessed_dataset_folder_base)
    if trainer.step_plan.is_numbered_as_the_data_set:
        return str(folder)
    target = Path(trainer.output_folder) / "validation_labels"
    names = [case + trainer.dataset_json["file_ending"] for case in trainer.ranks.share(trainer.do_split()[1])]
    reader = trainer.plans_manager.image_reader_writer_class()
    preprocessed = Path(trainer.preprocessed_dataset_folder)
    files = (folder / "gt_segmentations" / name for name in names)
    write_in_channels(files, target / "gt_segmentations", evaluation_table(trainer.step_plan), reader, preprocessed)
    if (folder / SPLITS_FILE).is_file():
        shutil.copyfile(folder / SPLITS_FILE, target / SPLITS_FILE)
    trainer.ranks.barrier()
    return str(target)
