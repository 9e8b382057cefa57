"""Reading the previous step's checkpoint: found, trusted and checked before it is used."""

from __future__ import annotations

import _codecs
import hashlib
import os
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_cil.errors import CILError
from nnunet_cil.lineage import StepRecord, foreign_record, read_lineage, validation_dice
from nnunet_cil.networks.heads import HEAD_PREFIX, num_output_channels
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.step_plans import PreviousModel

STATE_KEY = "cil"
"""The checkpoint's key that holds the state of a step."""

PROVENANCE_KEY = "nnunet_cil"
"""The key of an exported model's dataset.json that holds where it comes from."""

_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    np.dtype,
    _codecs.encode,
    torch.device,
    *(type(np.dtype(t)) for t in (np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_)),
    *((np.float64(0).__reduce__()[0], f"{module}.multiarray.scalar") for module in ("numpy._core", "numpy.core")),
]
"""What nnU-Net's checkpoints hold beside tensors and plain Python: numpy scalars and a device."""


@dataclass(frozen=True)
class PreviousStep:
    """What a step takes over; a model that was not trained in steps carries no prototypes (None) and no state."""

    weights: dict[str, Tensor]
    prototypes: PrototypeBank | None
    stray_free: tuple[str, ...]
    method_state: dict[str, Any]
    lineage: tuple[StepRecord, ...]
    sha256: str


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Reads an nnU-Net checkpoint without running code out of it.

    Raises:
        CILError: the file is truncated, not a checkpoint of nnU-Net, or would run code when loaded.
    """
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
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


def previous_checkpoint(previous: PreviousModel, trainer: str, configuration: str, fold: int | str) -> Path:
    """The previous step's final checkpoint of the same fold.

    Raises:
        CILError: it is not there; says which command makes it.
    """
    used_trainer = previous.trainer or trainer
    used_configuration = previous.configuration or configuration
    model = (
        Path(os.environ["nnUNet_results"])
        / previous.dataset
        / f"{used_trainer}__{previous.plans}__{used_configuration}"
    )
    if previous.folder is not None:
        model = Path(previous.folder)
    file = model / f"fold_{fold}" / "checkpoint_final.pth"
    if file.is_file():
        return file
    others = sorted(p.parent.name for p in model.glob("fold_*/checkpoint_final.pth"))
    names = ", ".join(others)
    if previous.folder is not None:
        raise CILError(
            f"The model to continue from is missing: {file}"
            f"{f' (there is {names}: train one of these folds)' if others else ''}. Restore it, or run "
            "'nnunet_cil extend' again with the folder where it is now."
        )
    command = f"nnUNetv2_train {previous.dataset} {used_configuration} {fold} -tr {used_trainer} -p {previous.plans}"
    if any((file.parent / f"checkpoint_{name}.pth").is_file() for name in ("latest", "best")):
        raise CILError(
            f"The previous step's training is not finished: {file} is missing. Finish it with '{command} --c'."
        )
    hint = f" (only {names} is trained)" if others else ""
    raise CILError(f"The previous step has to be trained first{hint}: {file} is missing. Run '{command}'.")


def read_previous_step(file: Path, old_classes: Sequence[str], architecture: Mapping[str, Tensor]) -> PreviousStep:
    """Reads and checks the previous step's checkpoint.

    Args:
        file: the checkpoint.
        old_classes: the foreground classes that the model must know, in channel order.
        architecture: the state dict of this step's network, for the comparison of shapes.

    Raises:
        CILError: unreadable, other classes, or another architecture.
    """
    checkpoint = read_checkpoint(file)
    found = foreground_classes(checkpoint)
    if found != list(old_classes):
        raise CILError(
            f"The checkpoint {file} knows the classes {found}, but the step continues from {list(old_classes)}. "
            "It belongs to another schedule or step; run 'nnunet_cil plan' for this schedule, or train the "
            "previous step with its plans."
        )
    weights = checkpoint["network_weights"]
    _check_architecture(weights, architecture, len(old_classes) + 1, file)
    state = checkpoint.get(STATE_KEY) or {}
    stored = state.get("prototypes")
    bank = None if stored is None else PrototypeBank.from_state_dict(stored)
    if bank is not None and len(bank.counts) != len(old_classes) + 1:
        raise CILError(
            f"{file} has prototypes of {len(bank.counts) - 1} classes, but knows {len(old_classes)}: it was saved before its "
            "training was over, as checkpoint_best.pth is. Restore the final one, or train that step again."
        )
    *earlier, last = lineage_of(checkpoint) or (foreign_record(checkpoint, found),)
    dice = validation_dice(file.parent, checkpoint["init_args"]["dataset_json"]["labels"])
    lineage = (*earlier, replace(last, dice=dice or last.dice))
    stray_free = tuple(state.get("stray_free", ()))
    return PreviousStep(weights, bank, stray_free, state.get("method_state", {}), lineage, file_sha256(file))


def lineage_of(checkpoint: Mapping[str, Any]) -> tuple[StepRecord, ...]:
    """The steps that a checkpoint was trained in, an exported one, too; empty for a model that was not trained in steps."""
    state = checkpoint.get(STATE_KEY) or checkpoint["init_args"]["dataset_json"].get(PROVENANCE_KEY) or {}
    return read_lineage(state.get("lineage", ()))


def foreground_classes(checkpoint: Mapping[str, Any]) -> list[str]:
    """What a model segments, in channel order."""
    labels = checkpoint["init_args"]["dataset_json"]["labels"]
    names = [name for name in labels if name not in ("background", "ignore")]
    return sorted(names, key=lambda name: labels[name] if isinstance(labels[name], int) else -1)


def _check_architecture(
    weights: Mapping[str, Tensor], network: Mapping[str, Tensor], num_channels: int, file: Path
) -> None:
    if num_output_channels(weights) != num_channels:
        raise CILError(
            f"The checkpoint {file} puts out {num_output_channels(weights)} channels, but its {num_channels - 1} "
            "classes and the background need "
            f"{num_channels}. Its network has no segmentation layers that can be widened, or it was edited."
        )
    for name in sorted({*weights, *network}):
        ours, theirs = network.get(name), weights.get(name)
        if name.startswith(HEAD_PREFIX) and ours is not None and theirs is not None:
            ours, theirs = ours[:1], theirs[:1]
        if ours is None or theirs is None or ours.shape != theirs.shape:
            shapes = [None if t is None else tuple(t.shape) for t in (ours, theirs)]
            raise CILError(
                f"The checkpoint {file} has another architecture than this step's plans: {name!r} is "
                f"{shapes[1]} there and {shapes[0]} here. All steps need the same base plans and "
                "configuration."
            )


def file_sha256(file: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
