"""A step's model in one fold: where nnU-Net keeps it, and how far its training is."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.reading.readers import named_reader
from nnunet_cil.lineage import StepRecord
from nnunet_cil.locks import Lock, fold_lock
from nnunet_cil.next_stage import StageFold
from nnunet_cil.nnunet_files import FINAL_CHECKPOINT
from nnunet_cil.predicted_from import checkpoint_sha256, is_validated
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.training_command import train_arguments, train_command


@dataclass(frozen=True, kw_only=True)
class StepModel:
    """A step's model, trained or not.

    Attributes:
        trainer: class name.
        step: index in the schedule.
        configuration: nnU-Net's.
        plans_name: name of the step's plans.
        folder: nnU-Net's folder of the model, above the folds.
        plan: the step's plan.
        reader_name: of nnU-Net's reader in the step's plans.
        next_stage: the cascade for which it predicts, where that is going to be trained; else empty.
    """

    trainer: str
    step: int
    configuration: str
    plans_name: str
    folder: Path
    plan: StepPlan = field(compare=False, repr=False)
    reader_name: str = field(compare=False, repr=False)
    next_stage: str = field(default="", compare=False, repr=False)

    @property
    def dataset(self) -> str:
        """Returns nnU-Net's name of the data set that the step learns from."""
        return self.folder.parent.name

    @property
    def reader(self) -> Any:
        """Returns an instance of nnU-Net's reader, the one with which the model reads images and writes predictions."""
        return named_reader(self.reader_name)

    def fold(self, fold: int | str) -> ModelFold:
        """Returns the model in a fold."""
        return ModelFold(self, fold)


@dataclass(frozen=True)
class ModelFold:
    """A step's model in one fold, trained or not."""

    model: StepModel
    fold: int | str

    @property
    def trainer(self) -> str:
        """Returns the class name of the trainer."""
        return self.model.trainer

    @property
    def step(self) -> int:
        """Returns the index of the step in the schedule."""
        return self.model.step

    @property
    def plan(self) -> StepPlan:
        """Returns the step's plan."""
        return self.model.plan

    @property
    def folder(self) -> Path:
        """Returns nnU-Net's folder of the fold."""
        return self.model.folder / f"fold_{self.fold}"

    @property
    def checkpoint(self) -> Path:
        """Returns the file of the final checkpoint, which need not be there."""
        return self.folder / FINAL_CHECKPOINT

    @property
    def newest_checkpoint(self) -> Path | None:
        """Returns the file of the final checkpoint, else that from which ``--c`` goes on; None where none is whole."""
        files = (self.folder / f"checkpoint_{name}.pth" for name in ("final", "latest", "best"))
        return next(filter(zipfile.is_zipfile, files), None)

    @property
    def name(self) -> str:
        """Returns a name that is unique in an experiment, for jobs and logs: TRAINER__PLANS__CONFIGURATION_foldF."""
        return f"{self.model.folder.name}_fold{self.fold}"

    @property
    def stem(self) -> str:
        """Returns a short name for files: TRAINER_stepI_foldF."""
        return f"{self.trainer}_step{self.step}_fold{self.fold}"

    @property
    def train_arguments(self) -> list[str]:
        """Returns the arguments with which ``nnUNetv2_train`` trains it."""
        model = self.model
        return train_arguments(model.dataset, model.configuration, self.fold, model.trainer, model.plans_name)

    def train_command(self, *options: str, device: str = "cuda") -> str:
        """Returns ``nnUNetv2_train`` as one would type it; with the device where it is another than nnU-Net's default."""
        model = self.model
        return train_command(
            model.dataset, model.configuration, self.fold, model.trainer, model.plans_name, *options, device=device
        )

    @property
    def predict_arguments(self) -> list[str]:
        """Returns the arguments with which ``nnUNetv2_predict`` finds it."""
        model = self.model
        found = ["-d", model.dataset, "-c", model.configuration, "-f", str(self.fold), "-tr", model.trainer]
        return [*found, "-p", model.plans_name]

    @property
    def lock(self) -> Lock:
        """Returns the lock that its training holds."""
        return fold_lock(self.folder)

    @property
    def is_trained(self) -> bool:
        """Tells whether the final checkpoint is there and whole."""
        return zipfile.is_zipfile(self.checkpoint)

    @property
    def is_broken(self) -> bool:
        """Tells whether the final checkpoint is there and not whole."""
        return self.checkpoint.is_file() and not self.is_trained

    @property
    def is_begun(self) -> bool:
        """Tells whether there is a checkpoint that ``--c`` goes on from."""
        return any(self.folder.glob("checkpoint_*.pth"))

    @property
    def is_finished(self) -> bool:
        """Tells whether it is trained, and its validation cases are scored with the checkpoint that is there."""
        return self.is_trained and self.is_validated

    @property
    def is_validated(self) -> bool:
        """Tells whether nnU-Net has predicted and scored the validation cases with the checkpoint that is there.

        For a cascade behind it, too, where that is going to be trained; fold all does not predict for one.
        """
        predicts = self.model.next_stage != "" and self.fold != "all"
        return is_validated(self.folder) and (not predicts or self.as_stage.has_predicted)

    @property
    def cases_without_probabilities(self) -> list[str]:
        """The validation cases whose labels nnU-Net has predicted, but not kept the probabilities."""
        folder, content = self.folder / "validation", self.model.folder / "dataset.json"
        ending = str(read_dataset_json(content)["file_ending"]) if content.is_file() else ".nii.gz"
        cases = sorted(file.name.removesuffix(ending) for file in folder.glob(f"[!.]*{ending}"))
        return [case for case in cases if not (folder / f"{case}.npz").is_file()]

    @property
    def as_stage(self) -> StageFold:
        """Returns it as the model before a cascade."""
        return StageFold(folder=self.folder, stage=self.model.next_stage)

    def checkpoint_sha256(self) -> str:
        """Returns the SHA-256 of the final checkpoint."""
        return checkpoint_sha256(self.folder)

    def put_broken_aside(self) -> None:
        """Renames a final checkpoint that is not whole: nnU-Net would go on from it before any other, and fail."""
        if self.is_broken:
            self.checkpoint.replace(self.checkpoint.with_suffix(".broken"))

    def check_trained(self, device: str = "cuda") -> None:
        """Refuses a model that is not trained.

        Args:
            device: that the command which trains it is to name.

        Raises:
            CILError: with the command that trains it, or finishes its training.
        """
        if self.is_trained:
            return
        step, trainer = f"Step {self.step} of {self.plan.schedule}", self.trainer
        going_on = self.train_command("--c", device=device)
        if self.is_broken:
            raise CILError(
                f"{self.checkpoint} is truncated or not a checkpoint. Restore it, or remove it and train {step} to its end with "
                f"'{going_on}'."
            )
        if self.is_begun:
            raise CILError(
                f"{step} is not trained to its end with {trainer} in fold {self.fold}. Go on with '{going_on}'."
            )
        command = self.train_command(device=device)
        raise CILError(f"{step} is not trained with {trainer} in fold {self.fold}. Run '{command}'.")

    def check_planned(self) -> None:
        """Refuses a trained model that learnt other classes, or from other cases, than its plans say now.

        Raises:
            CILError: says what differs.
        """
        if differs := self._difference_from_plans():
            raise CILError(
                f"{self.checkpoint} was trained with other plans of that name than there are now: {differs}. Restore the "
                f"schedule that it was trained with and plan it, or remove {self.folder} and train that step again."
            )

    @property
    def is_planned(self) -> bool:
        """Tells whether a trained model has learnt what its plans say."""
        return not self._difference_from_plans()

    def _difference_from_plans(self) -> str:
        """Says in what the plans in the checkpoint differ from those of the step; blank where they agree, or are not known."""
        from nnunet_cil.training.checkpoints import read_checkpoint

        block = read_checkpoint(self.checkpoint, lazily=True)["init_args"]["plans"].get("cil")
        if block is None:
            return ""
        then = [tuple(classes) for classes in block["steps"]][: block["step"] + 1]
        for now, learnt in zip_longest(self.plan.steps[: self.step + 1], then, fillvalue=()):
            if now != learnt:
                return f"it learnt {', '.join(learnt) or 'nothing'} in a step in which they name {', '.join(now) or 'nothing'}"
        cases = None if block.get("cases") is None else tuple(block["cases"])
        return "" if cases == self.plan.cases else "it learnt from other cases"

    def records(self) -> tuple[StepRecord, ...]:
        """Reads the records of its trainings, the last one its own, from the newest checkpoint; empty where there are none.

        Tensors are not read: this is quick, however large the checkpoint is.
        """
        from nnunet_cil.training.checkpoints import read_checkpoint
        from nnunet_cil.training.state import StepState

        newest = self.newest_checkpoint
        state = None if newest is None else StepState.from_checkpoint(read_checkpoint(newest, lazily=True))
        return () if state is None else state.lineage

    def stands_on(self, earlier: ModelFold) -> bool:
        """Tells whether it was trained on top of the model of the step before that is there; true where that is not known."""
        own = self.records()
        return not own or not earlier.is_trained or own[-1].previous_sha256 == earlier.checkpoint_sha256()

    def saw_other_stages(self, before: Iterable[ModelFold]) -> bool:
        """Tells whether a cascade was trained on predictions of other models than are there; of none that is not known.

        Args:
            before: the folds of the model before it; those that are not trained differ from any that it saw.
        """
        records = self.records()
        seen = records[-1].previous_stage if records else {}
        own = {str(m.fold): m for m in before}
        return any(
            fold not in own or not own[fold].is_trained or own[fold].checkpoint_sha256() != digest
            for fold, digest in seen.items()
        )

    def check_origin(self, earlier: ModelFold) -> None:
        """Refuses a model whose training began on top of one of the step before that is gone: another one would not be the same.

        Raises:
            CILError: with the remedy.
        """
        if not earlier.is_trained and self.records():
            state = "is truncated" if earlier.is_broken else "is not there any more"
            raise CILError(
                f"Step {self.step} was trained on top of a model of step {earlier.step} that {state}: {earlier.checkpoint}. "
                f"Restore it, or remove {self.folder} and train both steps again."
            )

    def check_continues(self, earlier: ModelFold) -> None:
        """Refuses a model that was trained on top of another one of the step before than is there now.

        Raises:
            CILError: with both hashes.
        """
        records = self.records()
        if not records:
            return
        was, now = str(records[-1].previous_sha256), earlier.checkpoint_sha256()
        if was != now:
            raise CILError(
                f"The model of step {earlier.step}, {earlier.checkpoint}, has changed since step {self.step} was "
                f"trained on top of it (SHA-256 {now[:12]}..., was {was[:12]}...). Restore it, or remove {self.folder} and "
                "train that step again."
            )
