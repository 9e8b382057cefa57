"""Keeps a record of what predictions were made from beside them, with the SHA-256 of the checkpoint and of every file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_cil.content import FileState, file_sha256, file_state
from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json, write_json
from nnunet_cil.nnunet_files import FINAL_CHECKPOINT
from nnunet_cil.validation import validated


@dataclass(frozen=True, kw_only=True)
class PredictedFrom:
    """The origin of the predictions in a folder.

    Attributes:
        checkpoint: the SHA-256 of the model's checkpoint.
        checkpoint_state: the state in which it was hashed, so that one that nobody wrote or copied is not hashed again; empty
            where that is not known.
        images: the SHA-256 of the images; blank for nnU-Net's final validation, which predicts preprocessed cases.
        previous_stage: of a cascade, the SHA-256 of the checkpoint whose predictions it saw; blank elsewhere.
        files: name -> SHA-256 of the files in the folder that are whole.
        seconds_per_case: how long the first command that ended took for a case, its start included; NaN where that is not known.
    """

    checkpoint: str
    checkpoint_state: FileState = ()
    images: str = ""
    previous_stage: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    seconds_per_case: float = math.nan

    @classmethod
    def by(cls, checkpoint: Path) -> PredictedFrom:
        """Returns the record of a model, without any files yet."""
        state = file_state(checkpoint)
        return cls(checkpoint=file_sha256(checkpoint), checkpoint_state=state)

    @classmethod
    def read(cls, folder: Path) -> PredictedFrom | None:
        """Reads the record in a folder; None where there is none, or a damaged one."""
        file = record_file(folder)
        try:
            found: PredictedFrom = validated(cls, read_json(file, ""), str(file), "")
        except CILError:
            return None
        return found

    def write(self, folder: Path, files: Iterable[Path]) -> None:
        """Writes the record, with files that are whole, into their folder."""
        content: dict[str, Any] = {
            "checkpoint": self.checkpoint,
            "checkpoint_state": self.checkpoint_state,
            "images": self.images,
            "files": {file.name: file_sha256(file) for file in files},
        }
        if self.previous_stage:
            content["previous_stage"] = self.previous_stage
        if not math.isnan(self.seconds_per_case):
            content["seconds_per_case"] = self.seconds_per_case
        write_json(record_file(folder), content)

    def holds(self, file: Path) -> bool:
        """Tells whether a file is there, and is the one that was recorded."""
        return file.is_file() and self.files.get(file.name) == file_sha256(file)


def record_file(folder: Path) -> Path:
    """Returns the file of the record in a folder of predictions."""
    return folder / "predicted_from.json"


def checkpoint_sha256(fold: Path) -> str:
    """Returns the SHA-256 of a fold's final checkpoint, which is there; from its validation's record if that knows it."""
    known, file = PredictedFrom.read(fold / "validation"), fold / FINAL_CHECKPOINT
    return known.checkpoint if known is not None and known.checkpoint_state == file_state(file) else file_sha256(file)


def is_validated(fold: Path) -> bool:
    """Tells whether nnU-Net's final validation of a fold is over, and was of the checkpoint that is there.

    It is not known of a validation by another trainer than this package's, which leaves no record.
    """
    record = PredictedFrom.read(fold / "validation")
    if record is None or not (fold / FINAL_CHECKPOINT).is_file():
        return False
    return record.checkpoint == checkpoint_sha256(fold) and record.holds(fold / "validation" / "summary.json")
