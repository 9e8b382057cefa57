"""The previous step's model: where its checkpoint is, and whether this step can continue from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.host.folders import previous_model_folder
from nnunet_cil.labels import has_regions
from nnunet_cil.lineage import foreign_record, with_validation
from nnunet_cil.networks.architectures import is_head
from nnunet_cil.networks.heads import num_output_channels
from nnunet_cil.nnunet_files import FINAL_CHECKPOINT
from nnunet_cil.step_plans import PreviousModel, StepPlan
from nnunet_cil.training.checkpoints import foreground_classes, read_model_checkpoint
from nnunet_cil.training.state import StepState, lineage_of
from nnunet_cil.training_command import train_command


@dataclass(frozen=True, kw_only=True)
class PreviousStep:
    """The previous step's model, as a step takes it over.

    Attributes:
        weights: its state dict.
        state: without prototypes for a model that was not trained in steps.
        file: its checkpoint.
        sha256: of its checkpoint.
    """

    weights: dict[str, Tensor]
    state: StepState
    file: Path
    sha256: str


def previous_checkpoint(
    previous: PreviousModel, trainer: str, configuration: str, fold: int | str, device: str = "cuda"
) -> Path:
    """Returns the previous step's final checkpoint of the same fold.

    Args:
        previous: the model to continue from.
        trainer: the trainer's name, where ``previous`` gives none.
        configuration: its name, where ``previous`` gives none.
        fold: of this training.
        device: of this training.

    Raises:
        CILError: it is not there; with the command that makes it.
    """
    used_trainer = previous.trainer or trainer
    used_configuration = previous.configuration or configuration
    model = previous_model_folder(previous, trainer, configuration)
    file = model / f"fold_{fold}" / FINAL_CHECKPOINT
    if file.is_file():
        return file
    others = sorted(p.parent.name for p in model.glob(f"fold_*/{FINAL_CHECKPOINT}"))
    names = ", ".join(others)
    if previous.folder is not None:
        raise CILError(
            f"The model to continue from is missing: {file}"
            f"{f' (there is {names}: train one of these folds)' if others else ''}. Restore it, or run "
            "'nnunet_cil extend' again with the folder where it is now."
        )
    command = train_command(previous.dataset, used_configuration, fold, used_trainer, previous.plans, device=device)
    if any((file.parent / f"checkpoint_{name}.pth").is_file() for name in ("latest", "best")):
        raise CILError(
            f"The previous step's training is not finished: {file} is missing. Finish it with '{command} --c'."
        )
    hint = f" (only {names} is trained)" if others else ""
    raise CILError(f"The previous step has to be trained first{hint}: {file} is missing. Run '{command}'.")


def read_previous_step(
    file: Path,
    step: StepPlan,
    architecture: Mapping[str, Tensor],
    began_with: str | None = None,
    own_folder: Path | None = None,
) -> PreviousStep:
    """Reads and checks the previous step's checkpoint.

    Args:
        file: the checkpoint.
        step: that continues the model; says which classes it must have.
        architecture: the state dict of this step's network, for the comparison of shapes.
        began_with: the SHA-256 that the file had when this training began; None for a training that begins.
        own_folder: nnU-Net's, of this training's fold, for the message.

    Raises:
        CILError: unreadable, other classes, another architecture, or another file than the training began with.
    """
    checkpoint = read_model_checkpoint(file)
    found, old_classes = foreground_classes(checkpoint), list(step.teacher_classes)
    if found != old_classes:
        raise CILError(
            f"The checkpoint {file} knows the classes {found}, but the step continues from {old_classes}. "
            "It belongs to another schedule or step; run 'nnunet_cil plan' for this schedule, or train the "
            "previous step with its plans."
        )
    weights = checkpoint["network_weights"]
    _check_kind(checkpoint, step, file)
    what = "regions" if step.has_regions else "classes and the background"
    needed = f"its {len(found)} {what} need {step.num_old_channels}"
    _check_architecture(weights, architecture, step.num_old_channels, needed, file)
    state = StepState.from_checkpoint(checkpoint)
    if state is None:
        lineage = lineage_of(checkpoint) or (foreign_record(checkpoint, found),)
        state = StepState(classes=tuple(found), lineage=lineage)
    bank = state.prototypes
    num_known = len(found) if bank is None else len(bank.counts) // 2 if step.has_regions else len(bank.counts) - 1
    if num_known != len(found):
        raise CILError(
            f"{file} has prototypes of {num_known} classes, but knows {len(found)}: it was saved before its "
            "training was over, as checkpoint_best.pth is. Restore the final one, or train that step again."
        )
    *earlier, last = state.lineage
    arguments = checkpoint["init_args"]
    last = with_validation(last, file.parent, arguments["dataset_json"]["labels"], arguments["plans"])
    state = replace(state, lineage=(*earlier, last))
    sha256 = file_sha256(file)
    if began_with not in (None, sha256):
        raise CILError(
            f"The previous step's model {file} has changed since this training began (SHA-256 {sha256[:12]}..., was "
            f"{str(began_with)[:12]}...). Restore it, or remove {own_folder} and train that step again."
        )
    return PreviousStep(weights=weights, state=state, file=file, sha256=sha256)


def _check_kind(checkpoint: Mapping[str, Any], step: StepPlan, file: Path) -> None:
    """Refuses a model of plain labels for a step of regions, and the reverse: one has a softmax, the other sigmoids."""
    is_of_regions = has_regions(checkpoint["init_args"]["dataset_json"]["labels"])
    if is_of_regions != step.has_regions:
        kinds = {True: "regions, which may overlap", False: "plain labels, of which each voxel has one"}
        raise CILError(
            f"The checkpoint {file} is of a model of {kinds[is_of_regions]}; the step has {kinds[step.has_regions]}. The two "
            "cannot be joined: run 'nnunet_cil plan' (or 'extend') again, and train the previous step with its plans."
        )


def _check_architecture(
    weights: Mapping[str, Tensor], network: Mapping[str, Tensor], num_channels: int, needed: str, file: Path
) -> None:
    if num_output_channels(weights) != num_channels:
        raise CILError(
            f"The checkpoint {file} puts out {num_output_channels(weights)} channels, but {needed}. Its network has no "
            "segmentation layers that can be widened, or it was edited."
        )
    for name in sorted({*weights, *network}):
        ours, theirs = network.get(name), weights.get(name)
        if is_head(name) and ours is not None and theirs is not None:
            ours, theirs = ours[:1], theirs[:1]
        if ours is None or theirs is None or ours.shape != theirs.shape:
            shapes = [None if t is None else tuple(t.shape) for t in (ours, theirs)]
            raise CILError(
                f"The checkpoint {file} has another architecture than this step's plans: {name!r} is "
                f"{shapes[1]} there and {shapes[0]} here. All steps need the same base plans and "
                "configuration."
            )
