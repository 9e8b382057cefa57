"""The predictions of a model for the cascade behind it, with a record of the checkpoint that made them."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_cil.errors import CILError, few_names
from nnunet_cil.nnunet_files import DATA_ENDINGS, FINAL_CHECKPOINT
from nnunet_cil.predicted_from import PredictedFrom, checkpoint_sha256
from nnunet_cil.training_command import train_command

_FOLDER = "predicted_next_stage"
"""nnU-Net's folder in that of a model; in a fold's folder, the records."""


@dataclass(frozen=True, kw_only=True)
class StageFold:
    """A fold of the model before a cascade, trained or not.

    Attributes:
        folder: nnU-Net's, of the fold.
        stage: the cascade's configuration.
    """

    folder: Path
    stage: str

    @property
    def fold(self) -> str:
        """The fold's name."""
        return self.folder.name.removeprefix("fold_")

    @property
    def is_trained(self) -> bool:
        """Tells whether the final checkpoint is there and whole."""
        return zipfile.is_zipfile(self.folder / FINAL_CHECKPOINT)

    def checkpoint_sha256(self) -> str:
        """Returns the SHA-256 of the final checkpoint."""
        return checkpoint_sha256(self.folder)

    def remove_record(self) -> None:
        """Removes the record, before predictions change."""
        (self._record_folder / "predicted_from.json").unlink(missing_ok=True)

    def write_record(self, predicted_by: PredictedFrom, cases: Iterable[str]) -> None:
        """Records the predictions that are there of the fold's validation cases."""
        files = (self._file(case) for case in cases)
        predicted_by.write(self._record_folder, (file for file in files if file is not None))

    def predicted(self) -> set[str]:
        """Returns the cases whose predictions are there, unchanged, and by the final checkpoint that is there."""
        known = PredictedFrom.read(self._record_folder)
        if known is None or not self.is_trained or known.checkpoint != self.checkpoint_sha256():
            return set()
        return {Path(name).stem for name in known.files if known.holds(self._predictions / name)}

    @property
    def has_predicted(self) -> bool:
        """Tells whether all recorded predictions are there, unchanged, and by the final checkpoint that is there.

        Of a case that another fold validates, too, the prediction may be that fold's, which replaces this one's.
        """
        own, known = self.predicted(), PredictedFrom.read(self._record_folder)
        lacking = {Path(name).stem for name in known.files} - own if known else set()
        return len(own) > 0 and lacking <= self._predicted_by_others(lacking)

    def _predicted_by_others(self, cases: Collection[str]) -> set[str]:
        """Returns those of the cases whose predictions are there by another fold's final checkpoint."""
        found: set[str] = set()
        for folder in sorted(self.folder.parent.glob("fold_*")) if cases else []:
            if folder != self.folder and not found.issuperset(cases):
                found |= StageFold(folder=folder, stage=self.stage).predicted().intersection(cases)
        return found

    @property
    def _predictions(self) -> Path:
        """nnU-Net's folder of the predictions, which all folds share."""
        return self.folder.parent / _FOLDER / self.stage

    @property
    def _record_folder(self) -> Path:
        return self.folder / _FOLDER / self.stage

    def _file(self, case: str) -> Path | None:
        files = (self._predictions / f"{case}{ending}" for ending in DATA_ENDINGS)
        return next((file for file in files if file.is_file()), None)

    def train_command(self, dataset: str, device: str) -> str:
        """Returns the command after which its predictions are there."""
        trainer, plans, configuration = self.folder.parent.name.split("__")
        options = ["--c"] if any(self.folder.glob("checkpoint_*.pth")) else []
        if self.is_trained:
            options = ["--val"]
        return train_command(dataset, configuration, self.fold, trainer, plans, *options, device=device)


def refuse_unvalidated(cases: Iterable[str]) -> None:
    """Refuses cases of a cascade that no fold validates, where there are any.

    Raises:
        CILError: names them.
    """
    if lacking := sorted(cases):
        them = "it" if len(lacking) == 1 else "them"
        raise CILError(
            f"No fold of splits_final.json validates {few_names(lacking)}, so that no model of the stage before the cascade may "
            f"predict {them}. Add {them} to a fold's 'val'."
        )


def folds_used(
    folds: Collection[StageFold], validated_by: Mapping[str, Collection[str]], dataset: str, device: str
) -> dict[str, str]:
    """Returns which models have predicted a cascade's cases: fold -> SHA-256 of its checkpoint.

    Args:
        folds: of the model before the cascade.
        validated_by: case -> the folds that validate it.
        dataset: nnU-Net's name.
        device: that commands are to name.

    Raises:
        CILError: predictions are missing, or are not those of the model that is there; with the commands that make them.
    """
    by_name = {fold.fold: fold for fold in folds}
    refuse_unvalidated(case for case, names in validated_by.items() if not by_name.keys() & set(names))
    predicted = {name: fold.predicted() for name, fold in by_name.items()}
    used: set[str] = set()
    missing: dict[str, list[str]] = {}
    for case, names in validated_by.items():
        own = [name for name in names if case in predicted.get(name, ())]
        used.update(own[:1])
        if not own:
            missing.setdefault(next(name for name in names if name in by_name), []).append(case)
    if missing:
        cases = sorted(case for own in missing.values() for case in own)
        commands = "\n".join(f"  {by_name[name].train_command(dataset, device)}" for name in sorted(missing))
        raise CILError(
            f"The cascade sees what the stage before it predicts, but of {few_names(cases)} there is no prediction by the final "
            f"checkpoint of the fold that validates it. Run\n{commands}\nand then this again."
        )
    return {name: by_name[name].checkpoint_sha256() for name in sorted(used)}
