"""Where the teacher's volumes of a data set are kept: by what they are made from, for all trainings that need them."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.files import json_sha256, read_json, temporary_folder, write_json
from nnunet_cil.host.folders import nnunet_folder
from nnunet_cil.nnunet_files import FINAL_CHECKPOINT

FOLDER = "cil_teacher_volumes"
"""In nnU-Net's folder of a preprocessed data set."""

_CLAIMS = "needed_by"
_TEACHER = "teacher.json"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A training that needs a teacher's volumes until it is finished.

    Attributes:
        name: of the training, TRAINER__PLANS__CONFIGURATION__fold_F.
        checkpoint: the file that is there once the training is finished.
        teacher: the checkpoint of the previous step.
    """

    name: str
    checkpoint: str
    teacher: str

    @classmethod
    def of(cls, fold_folder: Path, teacher: Path) -> Claim:
        """Returns the claim of a training, by nnU-Net's folder of its fold."""
        folder = fold_folder.resolve()
        name = f"{folder.parent.name}__{folder.name}"
        return cls(name=name, checkpoint=str(folder / FINAL_CHECKPOINT), teacher=str(teacher.resolve()))

    @property
    def is_over(self) -> bool:
        """Tells whether the training is finished."""
        return Path(self.checkpoint).is_file()


class VolumeStore:
    """The folder ``cil_teacher_volumes`` of a preprocessed data set.

    A recipe, which is all that the volumes of a teacher have in common, has a folder of its own; in it a case has one for
    each content and for each set of classes that its labels show. So nothing that is there can be out of date. A recipe's folder
    goes with the last training that needs its teacher: trainings announce themselves by a claim, and ``run`` announces those that
    it is going to start.
    """

    def __init__(self, dataset: str) -> None:
        """Takes nnU-Net's name of a data set."""
        self.root = nnunet_folder("nnUNet_preprocessed") / dataset / FOLDER

    def claim(self, claim: Claim) -> None:
        """Announces a training; does nothing where it is announced already.

        Raises:
            CILError: nothing can be written there.
        """
        try:
            write_json(self.root / _CLAIMS / f"{claim.name}.json", asdict(claim))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise CILError(
                f"{self.root} cannot be written ({error.strerror}), and steps after the first keep the teacher's volumes there. "
                "Make that folder of nnUNet_preprocessed writable, or set teacher_volumes to false in a schedule of another name."
            ) from error

    def recipe_folder(self, recipe: Mapping[str, Any], teacher: Path) -> Path:
        """Returns the folder of a recipe, and notes the teacher there."""
        folder = self.root / json_sha256(recipe)[:16]
        if not (folder / _TEACHER).is_file():
            write_json(folder / _TEACHER, {"teacher": str(teacher.resolve())})
        return folder

    def release(self, fold_folder: Path) -> None:
        """Removes a training's claim, and the volumes that no other training needs.

        No lock is held: a folder is moved away first, and back again where a claim has come meanwhile.

        Args:
            fold_folder: nnU-Net's folder of the training's fold; its claim need not be there.
        """
        name = Claim.of(fold_folder, fold_folder).name
        (self.root / _CLAIMS / f"{name}.json").unlink(missing_ok=True)
        for note in sorted(self.root.glob(f"*/{_TEACHER}")):
            folder, teacher = note.parent, self._teacher(note)
            if not self._is_needed(teacher):
                with suppress(OSError), temporary_folder(self.root.parent, FOLDER) as aside:
                    folder.replace(aside / folder.name)
                    if self._is_needed(teacher):
                        (aside / folder.name).replace(folder)
        for folder in (self.root / _CLAIMS, self.root):
            with suppress(OSError):
                folder.rmdir()

    def _is_needed(self, teacher: str) -> bool:
        return any(claim.teacher == teacher for claim in self._claims())

    def _claims(self) -> Iterator[Claim]:
        """Yields the claims of trainings that are not finished; those of others are removed."""
        for file in (self.root / _CLAIMS).glob("*.json"):
            try:
                claim = Claim(**{key: str(value) for key, value in read_json(file, "").items()})
            except (CILError, TypeError):  # written by nobody that is alive, or gone meanwhile
                continue
            if claim.is_over:
                file.unlink(missing_ok=True)
            else:
                yield claim

    @staticmethod
    def _teacher(note: Path) -> str:
        try:
            return str(read_json(note, "").get("teacher"))
        except CILError:
            return ""
