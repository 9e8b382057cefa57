"""Records how much the classes of a model have changed from the model that it continues, in the fold's folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json, write_json
from nnunet_cil.nnunet_files import FINAL_CHECKPOINT
from nnunet_cil.predicted_from import checkpoint_sha256
from nnunet_cil.validation import validated


@dataclass(frozen=True, kw_only=True)
class ClassAgreement:
    """One class with the previous model and with this one: means over the cases; None where one is not known.

    Attributes:
        name: of the class.
        dice: of the two, over the cases in which either finds it.
        hd95: of the two.
        ml_before: its volume with the previous model.
        ml_now: its volume with this one.
    """

    name: str
    dice: float | None
    hd95: float | None
    ml_before: float | None
    ml_now: float | None


@dataclass(frozen=True, kw_only=True)
class ModelChanges:
    """The agreement of a fold's model and the previous one on the fold's validation cases. No case is named.

    Attributes:
        checkpoint: the SHA-256 of the model.
        previous: the SHA-256 of the model that it continues.
        num_cases: that were compared.
        distance_unit: mm, or voxels.
        classes: that both know, the least agreement first.
    """

    checkpoint: str
    previous: str
    num_cases: int
    distance_unit: str
    classes: tuple[ClassAgreement, ...]

    def write(self, fold: Path) -> None:
        """Writes the record into the folder of the fold."""
        write_json(_file(fold), asdict(self))

    @classmethod
    def read(cls, fold: Path) -> ModelChanges | None:
        """Reads the record of a fold; None where there is none, or one of another checkpoint than is there."""
        file = _file(fold)
        try:
            found: ModelChanges = validated(cls, read_json(file, ""), str(file), "")
        except CILError:
            return None
        is_own = (fold / FINAL_CHECKPOINT).is_file() and found.checkpoint == checkpoint_sha256(fold)
        return found if is_own else None


def _file(fold: Path) -> Path:
    return fold / "changes.json"
