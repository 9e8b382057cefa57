"""A record of the label files that cases were preprocessed from: nnU-Net's own copies are brought up to date by any later run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json, write_json
from nnunet_cil.validation import validated


@dataclass(frozen=True, kw_only=True)
class LabelRecord:
    """Says which label files the cases of a configuration were preprocessed from.

    It is kept where this package calls nnU-Net's preprocessing. Of what nnU-Net has preprocessed by itself there is none.

    Attributes:
        labels: case -> SHA-256 of its label file when the preprocessing began.
        preprocessed: case -> SHA-256 of what nnU-Net wrote of its properties, so that a later preprocessing is told from this
            one; empty until it was over.
    """

    labels: Mapping[str, str]
    preprocessed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> LabelRecord:
        """Reads the record of a configuration's folder of cases; an empty one where there is none, or half of one."""
        file = cls.file_of(folder)
        try:
            found: LabelRecord = validated(cls, read_json(file, ""), str(file), "")
        except CILError:
            return cls(labels={})
        return found

    @classmethod
    def begin(cls, folder: Path, labels: Mapping[str, Path]) -> None:
        """Writes the record of a preprocessing that is about to begin; it takes the place of an earlier one.

        Args:
            folder: of the configuration's preprocessed cases.
            labels: case -> label file.
        """
        cls(labels={case: file_sha256(file) for case, file in labels.items() if file.is_file()})._write(folder)

    @classmethod
    def finish(cls, folder: Path, labels: Mapping[str, Path]) -> None:
        """Completes the record of a preprocessing that is over; leaves out cases whose labels have changed meanwhile."""
        known = cls.read(folder)
        if not known.labels or known.preprocessed:
            return
        same = {case for case, file in labels.items() if file.is_file() and known.labels.get(case) == file_sha256(file)}
        files = {case: folder / f"{case}.pkl" for case in sorted(same)}
        cls(
            labels={case: known.labels[case] for case in files},
            preprocessed={case: file_sha256(file) for case, file in files.items() if file.is_file()},
        )._write(folder)

    @staticmethod
    def file_of(folder: Path) -> Path:
        """Returns the file of a configuration's record, which need not be there."""
        return folder.parent / "cil_label_hashes" / f"{folder.name}.json"

    def is_from(self, folder: Path, case: str, label: Path) -> bool | None:
        """Tells whether a case was preprocessed from a label file; None where that is not known."""
        if case not in self.labels:
            return None
        made = folder / f"{case}.pkl"
        if self.preprocessed and (not made.is_file() or self.preprocessed.get(case) != file_sha256(made)):
            return None
        return self.labels[case] == file_sha256(label)

    def _write(self, folder: Path) -> None:
        file = self.file_of(folder)
        file.parent.mkdir(exist_ok=True)
        write_json(file, {"labels": dict(self.labels), "preprocessed": dict(self.preprocessed)})
