"""The state of a step, which its checkpoint carries."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnunet_cil import __version__
from nnunet_cil.errors import CILError
from nnunet_cil.files import moved_into_place
from nnunet_cil.lineage import StepRecord, read_lineage
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.training.checkpoints import read_checkpoint, save_checkpoint
from nnunet_cil.training.hyperparameters import settings
from nnunet_cil.validation import validated

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL

STATE_VERSION = 1
"""Version of the state in a checkpoint. An older one is read, a later one refused; early development versions wrote none."""

_STATE_KEY = "cil"

PROVENANCE_KEY = "nnunet_cil"
"""The key of an exported model's dataset.json that tells where the model comes from."""


@dataclass(frozen=True, kw_only=True)
class StepState:
    """The content that nnunet_cil adds to nnU-Net's checkpoint.

    Attributes:
        classes: foreground classes of the model, in channel order.
        lineage: records of its trainings, in order; its own is the last.
        prototypes: of background and classes; None for a model that has none.
        stray_free: classes that come without stray regions in their labels.
        confidences: class -> the network's mean probability of it over the voxels that it gives it, in the cases of a step that
            show it; the lowest of the steps since its own.
        method_state: tensors (or dicts of tensors) by name, a method's own.
        is_final: the training was over when it was saved.
        schema_version: of what was read; 0 for one of an early development version.
    """

    classes: tuple[str, ...]
    lineage: tuple[StepRecord, ...]
    prototypes: PrototypeBank | None = None
    stray_free: tuple[str, ...] = ()
    confidences: Mapping[str, float] = field(default_factory=dict)
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
                "confidences": dict(self.confidences),
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
        keys = ("schema_version", "classes", "lineage", "stray_free", "confidences", "is_final")
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
            confidences=plain.confidences,
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
    confidences: Mapping[str, float] = field(default_factory=dict)
    is_final: bool | None = None


_STATE = "What nnunet_cil has added to the checkpoint"


_RESTORE = "Restore the file, or train that step again."


def _is_bank(stored: object) -> bool:
    """Tells whether this is the state of a ``PrototypeBank``."""
    tensors = [stored.get(key) if isinstance(stored, dict) else None for key in ("prototypes", "counts")]
    found = [t for t in tensors if isinstance(t, Tensor) and t.is_floating_point()]
    return [t.ndim for t in found] == [2, 1] and found[0].shape[0] == found[1].shape[0]


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
        save_checkpoint({**checkpoint, **state.to_checkpoint()}, temporary)


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
        volumes=trainer.class_volumes,
    )


def lineage_of(checkpoint: Mapping[str, Any]) -> tuple[StepRecord, ...]:
    """Returns the records of a model's trainings, also of an exported one; empty where it was not trained in steps."""
    state = StepState.from_checkpoint(checkpoint)
    if state is not None:
        return state.lineage
    exported = checkpoint["init_args"]["dataset_json"].get(PROVENANCE_KEY)
    return read_lineage(exported.get("lineage") or []) if isinstance(exported, dict) else ()
