"""The two sides of a comparison: a model that predicts, or a folder of what one has predicted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.plans_files import read_plans, reader_of
from nnunet_cil.host.reading.readers import dataset_reader, named_reader
from nnunet_cil.labels import NO_CLASSES, Label
from nnunet_cil.names import spelled_alike
from nnunet_cil.nnunet_files import FINAL_CHECKPOINT
from nnunet_cil.workflows.models.model_stages import read_stages
from nnunet_cil.workflows.models.trained_model import TrainedModel

_GIVE = (
    "Give a model folder (with plans.json, dataset.json and fold_X), or a folder of predictions with the dataset.json of their "
    "model"
)


@dataclass(frozen=True, kw_only=True)
class Side:
    """A model, or a folder of predictions.

    Attributes:
        name: A or B.
        path: its folder.
        dataset_json: of the model.
        reader_name: of nnU-Net's reader that its predictions are written with; empty where that is not known.
        folds: of the model that predict together; empty for predictions.
        trainer: the class name of the model's trainer; empty for predictions.
        trusted: packages besides nnU-Net's own whose classes the model's plans may name.
        before: of a cascade, the model whose predictions it sees.
    """

    name: str
    path: Path
    dataset_json: Mapping[str, Any]
    reader_name: str = ""
    folds: tuple[str, ...] = ()
    trainer: str = ""
    trusted: tuple[str, ...] = ()
    before: Side | None = None

    def in_folds(self, folds: tuple[str, ...]) -> Side:
        """Returns the model in other folds."""
        return replace(self, folds=folds, before=None if self.before is None else self.before.in_folds(folds))

    @property
    def is_model(self) -> bool:
        """Tells whether it is a model, and not predictions."""
        return bool(self.folds)

    @cached_property
    def labels(self) -> dict[str, Label]:
        """Its foreground classes with their numbers."""
        return {name: n for name, n in self.dataset_json["labels"].items() if name not in NO_CLASSES}

    @property
    def file_ending(self) -> str:
        """Returns the ending of images and predictions."""
        return str(self.dataset_json["file_ending"])

    @property
    def channels(self) -> list[str]:
        """Returns the names of the channels of images."""
        return list(self.dataset_json["channel_names"].values())

    @cached_property
    def checkpoints_sha256(self) -> dict[str, str]:
        """The SHA-256 of the checkpoint of each fold."""
        return {f"fold {fold}": file_sha256(self.path / f"fold_{fold}" / FINAL_CHECKPOINT) for fold in self.folds}

    @property
    def sha256(self) -> str:
        """Returns one SHA-256 for all folds."""
        digests = list(self.checkpoints_sha256.values())
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def prediction(self, case: str, folder: Path | None = None) -> Path:
        """Returns the file of a case's labels, whether or not it is there; of predictions in their own folder."""
        return (folder or self.path) / f"{case}{self.file_ending}"

    @cached_property
    def cases(self) -> set[str]:
        """The names of the cases that lie in a folder of predictions."""
        return {f.name.removesuffix(self.file_ending) for f in self.path.glob(f"[!.]*{self.file_ending}")}

    def to_json(self) -> dict[str, Any]:
        """Returns what a report says of it."""
        return {
            "path": str(self.path),
            "folds": list(self.folds),
            "classes": list(self.labels),
            "checkpoints_sha256": self.checkpoints_sha256,
        }


def read_side(name: str, path: Path, folds: Sequence[str] = (), trusted: Sequence[str] = ()) -> Side:
    """Reads a model's folder, one that ``export`` has written, or a folder of predictions.

    Args:
        name: A or B.
        path: the folder.
        folds: of a model; empty for all that are trained.
        trusted: packages besides nnU-Net's own whose classes its plans may name.

    Raises:
        CILError: it is neither, or the model has no such fold.
    """
    if path.suffix == ".zip" and path.is_file():
        raise CILError(f"{path} is an archive. Unpack it, and give the folder.")
    if not path.is_dir():
        raise CILError(f"MODEL_{name}, {path}, is not a folder. {_GIVE}.")
    path = _exported(path)
    is_fold = (path / FINAL_CHECKPOINT).is_file() and not (path / "plans.json").is_file()
    if not is_fold and not any(path.glob("fold_*")):
        return _read_predictions(name, path)
    *earlier, model = read_stages(path, trusted, verdict="cannot be compared")
    side = _side_of(name, model, tuple(folds) or model.folds, trusted)
    return replace(side, before=_side_of(f"{name}_before", earlier[0], side.folds, trusted)) if earlier else side


def _side_of(name: str, model: TrainedModel, folds: tuple[str, ...], trusted: Sequence[str]) -> Side:
    """Returns the side of a model in these folds, all of which are trained."""
    if unknown := [fold for fold in folds if fold not in model.folds]:
        raise CILError(
            f"{model.folder} has no trained fold {unknown[0]}, only {', '.join(model.folds)}. Choose with -f."
        )
    return Side(
        name=name,
        path=model.folder,
        dataset_json=model.dataset_json,
        reader_name=reader_of(model.plans),
        folds=folds,
        trainer=model.trainer,
        trusted=tuple(trusted),
    )


def _exported(path: Path) -> Path:
    """Returns the only model below a folder that ``export`` has filled; else the folder itself."""
    found = list(path.glob("Dataset*/*__*__*/plans.json"))
    return found[0].parent if len(found) == 1 and not (path / "plans.json").is_file() else path


def _read_predictions(name: str, path: Path) -> Side:
    file = next((f for f in (path / "dataset.json", *_above_validation(path)) if f.is_file()), None)
    if file is None:
        raise CILError(f"MODEL_{name}, {path}, is neither a model nor tells what its labels mean. {_GIVE}.")
    dataset_json = read_dataset_json(file)
    plans = file.with_name("plans.json")
    reader = reader_of(read_plans(plans, "", "Restore the file.")) if plans.is_file() else ""
    side = Side(name=name, path=path, dataset_json=dataset_json, reader_name=reader)
    if not side.cases:
        raise CILError(f"MODEL_{name}, {path}, holds no predictions that end in {side.file_ending}. {_GIVE}.")
    return side


def _above_validation(path: Path) -> list[Path]:
    """Returns where the dataset.json is of what nnU-Net predicts at the end of a training: ``fold_0/validation``."""
    return [path.parents[1] / "dataset.json"] if path.name == "validation" else []


def reader_for(sides: Sequence[Side], example: Path) -> Any:
    """Returns an instance of nnU-Net's reader for all files: that of the first side that tells it.

    Args:
        sides: of the comparison.
        example: one of the files.
    """
    name = next((side.reader_name for side in sides if side.reader_name), "")
    return named_reader(name) if name else dataset_reader(sides[0].dataset_json, example)


def check_comparable(a: Side, b: Side) -> list[str]:
    """Refuses two sides that cannot see the same images, or have no class in common.

    Returns:
        Notes on what looks as if it were meant otherwise.

    Raises:
        CILError: says in what they differ.
    """
    alone = "Predict with each of them, write the labels in one format, and give the two folders of predictions."
    if a.file_ending != b.file_ending:
        raise CILError(f"A has files that end in {a.file_ending}, B in {b.file_ending}. {alone}")
    if a.is_model and b.is_model and len(a.channels) != len(b.channels):
        raise CILError(
            f"A predicts images of {len(a.channels)} channels ({', '.join(a.channels)}), B of {len(b.channels)} "
            f"({', '.join(b.channels)}). {alone}"
        )
    if not set(a.labels) & set(b.labels):
        hint = next((f" (did you mean {b_name!r} for {n!r}?)" for n in a.labels for b_name in _alike(n, b)), "")
        raise CILError(
            f"The models have no class in common: A has {', '.join(a.labels)}; B has {', '.join(b.labels)}{hint}. Classes are "
            "matched by name: if two mean the same organ, write one name into a copy of dataset.json beside the predictions."
        )
    notes = [
        f"Note: A's {name!r} and B's {other!r} may be the same organ. Classes are matched by name: these two are not compared."
        for name in a.labels
        if name not in b.labels
        for other in _alike(name, b)
        if other not in a.labels
    ]
    if a.is_model and b.is_model and [c.lower() for c in a.channels] != [c.lower() for c in b.channels]:
        notes.append(f"Note: A was trained on {', '.join(a.channels)}, B on {', '.join(b.channels)}.")
    return notes


def _alike(name: str, side: Side) -> list[str]:
    return spelled_alike(name, list(side.labels))
