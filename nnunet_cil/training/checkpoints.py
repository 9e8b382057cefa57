"""Reads nnU-Net's checkpoints, perhaps a stranger's, without running code out of them."""

from __future__ import annotations

import _codecs
import io
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_cil.errors import CILError
from nnunet_cil.files import shortened
from nnunet_cil.host.dataset_json import checked_dataset_json
from nnunet_cil.labels import class_names
from nnunet_cil.limits import is_fold
from nnunet_cil.names import is_path_component

_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    np.dtype,
    _codecs.encode,
    torch.device,
    *(type(np.dtype(t)) for t in (np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_)),
    *((np.float64(0).__reduce__()[0], f"{module}.multiarray.scalar") for module in ("numpy._core", "numpy.core")),
]
"""The types in nnU-Net's checkpoints beside tensors and plain Python: numpy scalars and a device."""


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


def save_checkpoint(checkpoint: Mapping[str, Any], file: Path) -> None:
    """Writes a checkpoint.

    Raises:
        OSError: the disc is full, say, which ``torch.save`` tells of with an error of its own.
    """
    buffer = io.BytesIO()
    torch.save(dict(checkpoint), buffer)
    file.write_bytes(buffer.getbuffer())


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


def foreground_classes(checkpoint: Mapping[str, Any]) -> list[str]:
    """Returns the foreground classes of a model, in channel order."""
    labels = checkpoint["init_args"]["dataset_json"]["labels"]
    return list(class_names(labels))
