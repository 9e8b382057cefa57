"""The state of a step in its checkpoint, and the checked reading of the previous step's checkpoint."""

from __future__ import annotations

import _codecs
import io
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nnunet_cil import __version__
from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.files import moved_into_place, shortened
from nnunet_cil.host.dataset_json import checked_dataset_json
from nnunet_cil.host.folders import previous_model_folder
from nnunet_cil.labels import class_names, has_regions
from nnunet_cil.limits import is_fold
from nnunet_cil.lineage import StepRecord, foreign_record, read_lineage, validation_dice
from nnunet_cil.names import is_path_component
from nnunet_cil.networks.architectures import is_head
from nnunet_cil.networks.heads import num_output_channels
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.nnunet_files import FINAL_CHECKPOINT
from nnunet_cil.step_plans import PreviousModel, StepPlan
from nnunet_cil.training.hyperparameters import settings
from nnunet_cil.training_command import train_command
from nnunet_cil.validation import validated

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL

STATE_VERSION = 1
"""Version of the state in a checkpoint. An older one is read, a later one refused; early development versions wrote none."""

_STATE_KEY = "cil"

PROVENANCE_KEY = "nnunet_cil"
"""The key of an exported model's dataset.json that tells where the model comes from."""

_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    np.dtype,
    _codecs.encode,
    torch.device,
    *(type(np.dtype(t)) for t in (np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_)),
    *((np.float64(0).__reduce__()[0], f"{module}.multiarray.scalar") for module in ("numpy._core", "numpy.core")),
]
"""The types in nnU-Net's checkpoints beside tensors and plain Python: numpy scalars and a device."""


@dataclass(frozen=True, kw_only=True)
class StepState:
    """The content that nnunet_cil adds to nnU-Net's checkpoint.

    Attributes:
        classes: foreground classes of the model, in channel order.
        lineage: records of its trainings, in order; its own is the last.
        prototypes: of background and classes; None for a model that has none.
        stray_free: classes that come without stray regions in their labels.
        method_state: tensors (or dicts of tensors) by name, a method's own.
        is_final: the training was over when it was saved.
        schema_version: of what was read; 0 for one of an early development version.
    """

    classes: tuple[str, ...]
    lineage: tuple[StepRecord, ...]
    prototypes: PrototypeBank | None = None
    stray_free: tuple[str, ...] = ()
    method_state: dict[str, Any] = field(default_factory=dict)
    is_final: bool = False
    schema_version: int = STATE_VERSION

    def to_checkpoint(self) -> dict[str, Any]:
        """Returns the entries to add to nnU-Net's checkpoint."""
        return {
            _STATE_KEY: {
                "schema_version": STATE_VERSION,
                "classes": list(self.classes),
                "prototypes": None if self.prototypes is None else self.prototypes.state_dict(),
                "stray_free": list(self.stray_free),
                "method_state": self.method_state,
                "is_final": self.is_final,
                "lineage": [record.to_json() for record in self.lineage],
            }
        }

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any]) -> StepState | None:
        """Reads the state from a checkpoint; None for a model that was not trained in steps, or was exported.

        Raises:
            CILError: a later version of nnunet_cil wrote it.
        """
        stored = checkpoint.get(_STATE_KEY)
        if stored is None:
            return None
        keys = ("schema_version", "classes", "lineage", "stray_free", "is_final")
        known = {key: stored[key] for key in keys if key in stored} if isinstance(stored, dict) else stored
        plain: _StoredState = validated(_StoredState, known, _STATE, _RESTORE)
        if plain.schema_version > STATE_VERSION:
            raise CILError(
                f"The checkpoint was written by a later version of nnunet_cil (state version {plain.schema_version}, this one "
                f"reads up to {STATE_VERSION}). Update nnunet_cil."
            )
        bank, method_state = stored.get("prototypes"), stored.get("method_state", {})
        if not (bank is None or _is_bank(bank)) or not isinstance(method_state, dict):
            raise CILError(
                f"{_STATE} has prototypes, or a method's state, that are not what they should be. {_RESTORE}"
            )
        prototypes = None if bank is None else PrototypeBank.from_state_dict(bank)
        has_own_prototypes = prototypes is not None and len(prototypes.counts) > len(plain.classes)
        return cls(
            classes=plain.classes,
            lineage=read_lineage(plain.lineage),
            prototypes=prototypes,
            stray_free=plain.stray_free,
            method_state=method_state,
            is_final=has_own_prototypes if plain.is_final is None else plain.is_final,  # early versions wrote none
            schema_version=plain.schema_version,
        )


@dataclass(frozen=True, kw_only=True)
class _StoredState:
    """Describes a state in a checkpoint, but for its tensors."""

    classes: tuple[str, ...]
    lineage: list[dict[str, Any]]
    schema_version: int = 0
    stray_free: tuple[str, ...] = ()
    is_final: bool | None = None


_STATE = "What nnunet_cil has added to the checkpoint"
_RESTORE = "Restore the file, or train that step again."


def _is_bank(stored: object) -> bool:
    """Tells whether this is the state of a ``PrototypeBank``."""
    tensors = [stored.get(key) if isinstance(stored, dict) else None for key in ("prototypes", "counts")]
    found = [t for t in tensors if isinstance(t, Tensor) and t.is_floating_point()]
    return [t.ndim for t in found] == [2, 1] and found[0].shape[0] == found[1].shape[0]


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


def read_checkpoint(file: Path, *, lazily: bool = False) -> dict[str, Any]:
    """Reads an nnU-Net checkpoint without running code out of it.

    Args:
        file: the checkpoint.
        lazily: whether tensors may stay in the file until they are used: quick where none is.

    Raises:
        CILError: the file is truncated, has changed bits, is not a checkpoint of nnU-Net, or would run code when loaded.
    """
    if not lazily:
        _refuse_changed_bits(file)
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=lazily)
    except PermissionError:
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)|reduce for unrecognized function (.+)", str(error))
        if found is None:
            raise CILError(
                f"{file} is not a checkpoint of nnU-Net: it cannot be read as one. Restore the file, or train that step again."
            ) from error
        raise CILError(
            f"The checkpoint {file} is refused: loading it would run code from the file ({found[1] or found[2]}). Use a "
            "checkpoint that nnU-Net wrote, or have it exported again."
        ) from error
    except (RuntimeError, EOFError, OSError, LookupError, AttributeError, TypeError, ValueError) as error:
        reason = (str(error).split(". ")[0].splitlines() or [type(error).__name__])[0]
        raise CILError(
            f"The checkpoint {file} cannot be read; it is truncated or not a checkpoint ({reason}). Train that "
            "step again, or restore the file."
        ) from error
    if not isinstance(checkpoint, dict) or not {"network_weights", "init_args"} <= set(checkpoint):
        raise CILError(f"{file} is not a checkpoint of nnU-Net: it has no 'network_weights' and 'init_args'.")
    return checkpoint


def num_parameters(checkpoint: Mapping[str, Any]) -> int:
    """Returns the number of a network's weights, without those that its state dict names several times."""
    tensors = [t for t in checkpoint["network_weights"].values() if t.is_floating_point()]
    return sum({(t.untyped_storage().data_ptr(), t.storage_offset(), t.shape): t.numel() for t in tensors}.values())


def read_model_checkpoint(file: Path) -> dict[str, Any]:
    """Reads the checkpoint of a model, perhaps a stranger's, that tells what it was trained on.

    Raises:
        CILError: it does not, or it cannot be read.
    """
    checkpoint = read_checkpoint(file)
    arguments = checkpoint["init_args"]
    is_complete = isinstance(arguments, dict) and {"plans", "configuration", "fold", "dataset_json"} <= set(arguments)
    if not is_complete or not all(isinstance(arguments[key], dict) for key in ("plans", "dataset_json")):
        raise CILError(
            f"{file} is not a checkpoint of nnU-Net: its 'init_args' do not say what it was trained on. Restore the file, or "
            "train that step again."
        )
    _check_own_names(file, checkpoint)
    dataset_json = checked_dataset_json(arguments["dataset_json"], f"dataset.json in {file}")
    return {**checkpoint, "init_args": {**arguments, "dataset_json": dataset_json}}


def _check_own_names(file: Path, checkpoint: Mapping[str, Any]) -> None:
    """Refuses names that lead elsewhere, and weights and axes that are none.

    Raises:
        CILError: says which.
    """
    arguments, trainer, weights = checkpoint["init_args"], checkpoint.get("trainer_name"), checkpoint["network_weights"]
    fold = arguments["fold"]
    axes = checkpoint.get("inference_allowed_mirroring_axes")
    is_right = {
        "trainer": "trainer_name" not in checkpoint or (isinstance(trainer, str) and trainer.isidentifier()),
        "configuration": is_path_component(arguments["configuration"]),
        "fold": is_fold(int(fold) if isinstance(fold, str) and fold.isdecimal() else fold),
        "weights": isinstance(weights, dict)
        and all(isinstance(k, str) and isinstance(t, Tensor) for k, t in weights.items()),
        "axes to mirror": axes is None
        or (isinstance(axes, (list, tuple)) and all(type(a) is int and 0 <= a <= 2 for a in axes)),
    }
    found = {"trainer": trainer, **arguments}
    for what in (name for name, right in is_right.items() if not right):
        told = (
            f"the {what} {shortened(found[what])}, which is no name of a file or folder"
            if what in found
            else f"no proper {what}"
        )
        raise CILError(f"{file} has {told}. Do not use this model, or restore the file.")


def _refuse_changed_bits(file: Path) -> None:
    """Refuses a checkpoint one of whose parts does not have its checksum any more: torch reads it without a word.

    Raises:
        CILError: names the part.
    """
    if not zipfile.is_zipfile(file):
        return  # of an early torch, or damaged: torch says so
    try:
        with zipfile.ZipFile(file) as parts:
            changed = parts.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        changed = str(error)
    if changed is not None:
        raise CILError(
            f"The checkpoint {file} is damaged: a part of it does not have its checksum ({changed}). Restore the file, or "
            "remove it and train that step again."
        )


def read_step_state(file: Path, classes: Sequence[str]) -> StepState:
    """Reads the state from a checkpoint of this step.

    Args:
        file: the checkpoint.
        classes: the foreground classes that the model must have, in channel order.

    Raises:
        CILError: unreadable, or of a model that was not trained in steps or has other classes.
    """
    state = StepState.from_checkpoint(read_checkpoint(file))
    if state is None or state.classes != tuple(classes):
        raise CILError(
            f"The checkpoint {file} is not one of this step: it knows "
            f"{None if state is None else list(state.classes)}, the step {list(classes)}."
        )
    return state


def write_checkpoint(file: Path, save: Callable[[Any], None], state: StepState) -> None:
    """Writes nnU-Net's checkpoint and the state of a step into one file: a temporary one, which is then moved into place.

    Args:
        file: the target.
        save: nnU-Net's ``save_checkpoint``; where it writes nothing, as on the other ranks, no file is written.
        state: to add.
    """
    buffer = io.BytesIO()
    save(buffer)
    if not buffer.tell():
        return
    buffer.seek(0)
    checkpoint = torch.load(buffer, map_location="cpu", weights_only=False)
    with moved_into_place(file) as temporary:
        torch.save({**checkpoint, **state.to_checkpoint()}, temporary)


def training_record(trainer: nnUNetTrainerCIL, *, date: str, previous_sha256: str | None) -> StepRecord:
    """Returns the record of a training; the keyword arguments are attributes of ``StepRecord``."""
    dataset_json, step = trainer.dataset_json, trainer.step_plan
    return StepRecord(
        step=step.step,
        classes=step.new_classes,
        refined=step.refined,
        schedule=step.schedule,
        dataset=str(trainer.plans_manager.dataset_name),
        num_cases=trainer.num_cases,
        case_hashes=trainer.case_hashes,
        licence=str(dataset_json.get("licence") or dataset_json.get("license") or ""),
        trainer=type(trainer).__name__,
        plans=str(trainer.plans_manager.plans_name),
        configuration=trainer.configuration_name,
        fold=str(trainer.fold),
        date=date,
        versions={"nnunet_cil": __version__, **{n: version(n) for n in ("nnunetv2", "torch")}},
        previous_sha256=previous_sha256,
        previous_stage=trainer.previous_stage,
        hyperparameters=vars(settings(trainer)),
        saw_old_labels=trainer.needs_old_data and step.step > 0,
    )


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
    dice = validation_dice(file.parent, checkpoint["init_args"]["dataset_json"]["labels"])
    state = replace(state, lineage=(*earlier, replace(last, dice=dice or last.dice)))
    sha256 = file_sha256(file)
    if began_with not in (None, sha256):
        raise CILError(
            f"The previous step's model {file} has changed since this training began (SHA-256 {sha256[:12]}..., was "
            f"{str(began_with)[:12]}...). Restore it, or remove {own_folder} and train that step again."
        )
    return PreviousStep(weights=weights, state=state, file=file, sha256=sha256)


def lineage_of(checkpoint: Mapping[str, Any]) -> tuple[StepRecord, ...]:
    """Returns the records of a model's trainings, also of an exported one; empty where it was not trained in steps."""
    state = StepState.from_checkpoint(checkpoint)
    if state is not None:
        return state.lineage
    exported = checkpoint["init_args"]["dataset_json"].get(PROVENANCE_KEY)
    return read_lineage(exported.get("lineage") or []) if isinstance(exported, dict) else ()


def foreground_classes(checkpoint: Mapping[str, Any]) -> list[str]:
    """Returns the foreground classes of a model, in channel order."""
    labels = checkpoint["init_args"]["dataset_json"]["labels"]
    return list(class_names(labels))


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
