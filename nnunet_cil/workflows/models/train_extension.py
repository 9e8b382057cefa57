"""``nnunet_cil extend --train``: from a model and a data set to a model with one class more, and the proof of what it kept."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.host.folders import logs_folder, model_folder_name, nnunet_folder
from nnunet_cil.host.plans_files import read_plans, reader_of
from nnunet_cil.host.preprocess import missing_commands
from nnunet_cil.locks import Lock
from nnunet_cil.nnunet_files import FINAL_CHECKPOINT
from nnunet_cil.workflows.compare.compare import Comparison
from nnunet_cil.workflows.fold_records import check_trained_before
from nnunet_cil.workflows.model_fold import ModelFold, StepModel
from nnunet_cil.workflows.models.compare_extension import compare_extension, write_changes
from nnunet_cil.workflows.models.export import PLAIN_TRAINER, export, exported_before
from nnunet_cil.workflows.models.extend import plan_extension, preprocess_extension
from nnunet_cil.workflows.models.extension import ExtendOptions, Extension
from nnunet_cil.workflows.models.extension_report import write_extension_report
from nnunet_cil.workflows.run.jobs import Job, own_command_job, training_job
from nnunet_cil.workflows.run.options import TrainingOptions
from nnunet_cil.workflows.run.run import train_all
from nnunet_cil.workflows.run.trainings import Training
from nnunet_cil.workflows.stages import refuse_other_stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExtendedModel:
    """Holds what ``extend --train`` has made.

    Attributes:
        folder: of the new model, in nnUNet_results.
        comparison: of the old model and the new one; None where no fold has validation cases.
        report: the page.
        exported: the plain model; None where none was asked for.
    """

    folder: Path
    comparison: Comparison | None
    report: Path
    exported: Path | None


@dataclass(frozen=True, kw_only=True)
class TrainedExtension:
    """An extension that is planned, with what is left to do.

    Attributes:
        model_folder: of the model that is continued, as it was given.
        dataset: as it was given.
        options: as of ``extend``.
        training: device, number of GPUs, and whether probabilities are kept.
        export_to: takes the plain model, as of ``export``; with the ending .zip an archive; None for none.
    """

    model_folder: Path
    dataset: str
    options: ExtendOptions
    training: TrainingOptions
    export_to: Path | None = None

    @cached_property
    def planned(self) -> Extension:
        """The planned step; planning checks model and data set, and writes the plans."""
        return plan_extension(self.model_folder, self.dataset, self.options)

    @cached_property
    def models(self) -> tuple[StepModel, ...]:
        """The new models, trained or not, in order: before a cascade the one whose predictions it sees."""
        found = self.planned
        configurations = [stage.model.configuration for stage in found.stages]
        return tuple(
            StepModel(
                trainer=found.trainer,
                step=found.plan.step,
                configuration=configuration,
                plans_name=found.plans_name,
                folder=nnunet_folder("nnUNet_results")
                / found.dataset
                / model_folder_name(found.trainer, found.plans_name, configuration),
                plan=found.plan,
                reader_name=reader_of(read_plans(found.file, "Run the command again.")),
                next_stage=following,
            )
            for configuration, following in zip(configurations, [*configurations[1:], ""], strict=True)
        )

    @property
    def model(self) -> StepModel:
        """The new model that was asked for."""
        return self.models[-1]

    @property
    def model_folds(self) -> list[ModelFold]:
        """Returns it in every fold that is trained."""
        return self._folds(-1)

    @property
    def folds_before(self) -> list[ModelFold]:
        """Returns the folds of the model whose predictions a cascade sees; none for another configuration."""
        return [fold for index in range(len(self.models) - 1) for fold in self._folds(index)]

    def _folds(self, index: int) -> list[ModelFold]:
        folds = self.planned.stages[index].folds
        return [self.models[index].fold(fold if fold == "all" else int(fold)) for fold in folds]

    @property
    def logs(self) -> Path:
        """Returns the folder of the logs."""
        return logs_folder(self.planned.dataset)

    @property
    def output(self) -> Path:
        """Returns the folder of the report and of the comparison."""
        return nnunet_folder("nnUNet_results") / self.planned.dataset / "evaluation" / self.model.folder.name

    @property
    def lock(self) -> Lock:
        """Returns the lock of the one process that trains it."""
        return Lock(self.logs / f".extend_{self.model.folder.name}.json", f"The extension {self.model.folder.name}")

    @property
    def command(self) -> list[str]:
        """Returns the command that does it all."""
        given = [
            str(self.model_folder),
            str(self.dataset),
            *self.options.arguments,
            "--train",
            *self.training.arguments,
        ]
        return ["nnunet_cil", "extend", *given, *(["--export", str(self.export_to)] if self.export_to else [])]

    @property
    def _is_archive(self) -> bool:
        return self.export_to is not None and self.export_to.suffix == ".zip"

    def exported(self) -> Path | None:
        """Returns what was exported of exactly this model before; None where nothing was.

        Raises:
            CILError: something else lies there.
        """
        if self.export_to is None:
            return None
        if self._is_archive and self.folds_before:
            raise CILError(
                f"--export {self.export_to} takes one model, but a cascade predicts behind the model before it. Export both "
                "into a folder: leave the ending .zip out."
            )
        found = [self._exported(model, self.export_to) for model in self.models]
        return found[-1]

    def _exported(self, model: StepModel, to: Path) -> Path | None:
        plain = model_folder_name(PLAIN_TRAINER, model.plans_name, model.configuration)
        return exported_before(model.folder, f"{self.planned.dataset}/{plain}", to, zipped=self._is_archive)

    def export(self) -> Path | None:
        """Exports the model, and that before a cascade, unless it was exported before or is not asked for."""
        to = self.export_to
        if to is None:
            return None
        options: dict[str, Any] = {"zipped": self._is_archive, "trusted": self.options.trusted}
        return [self._exported(model, to) or export(model.folder, to, **options) for model in self.models][-1]

    def unfinished(self) -> list[Training]:
        """Returns the trainings that are left to do.

        Raises:
            CILError: a model that is there was trained with other plans, from another model, or under another split; or
                something else lies where the model is to be exported to.
        """
        before, own = self.folds_before, self.model_folds
        old = {stage.model.configuration: stage.model.folder for stage in self.planned.stages}
        for model in (*before, *own):
            if model.is_trained:
                model.check_planned()
            _check_previous(model, old[model.model.configuration] / f"fold_{model.fold}" / FINAL_CHECKPOINT)
            if not model.is_finished and model.newest_checkpoint is not None:
                check_trained_before(model, model)
        for model in own:
            refuse_other_stage(model, before)
        self.exported()
        options = tuple(self.training.arguments)
        trainings = [Training(model=model, options=options) for model in (*before, *own)]
        return [training for training in trainings if not training.is_finished]


def _check_previous(model: ModelFold, previous: Path) -> None:
    """Refuses a model that was trained, or begun, on top of another one than is there now."""
    records = model.records()
    was, now = records[-1].previous_sha256 if records else None, file_sha256(previous)
    if was is not None and was != now:
        raise CILError(
            f"{previous} has changed since {model.folder} was trained on top of it (SHA-256 {now[:12]}..., was {was[:12]}...). "
            "Restore it, or give this step a name of its own with --name."
        )


def train_extension(asked: TrainedExtension) -> ExtendedModel:
    """Preprocesses, trains every fold, compares the old model with the new one, writes the report, exports.

    What is finished is skipped, and what was interrupted is continued.

    Raises:
        CILError: something cannot work, or one of nnU-Net's commands failed.
    """
    todo = asked.unfinished()
    with asked.lock.held():
        if todo:
            preprocess_extension(asked.planned)
        logger.info(f"{len(asked.folds_before) + len(asked.model_folds)} trainings, {len(todo)} to do")
        train_all(todo, asked.logs)
        return finish_extension(asked)


def finish_extension(asked: TrainedExtension) -> ExtendedModel:
    """Compares, writes the report and exports, once all folds are trained."""
    comparison = compare_extension(
        asked.planned.model,
        asked.model_folds,
        asked.output,
        device=asked.training.device,
        command=shlex.join(asked.command),
        trusted=asked.options.trusted,
    )
    if comparison is not None:
        write_changes(asked.planned.model, asked.model_folds, comparison)
    exported = asked.export()
    report = write_extension_report(
        asked.output, asked.model_folds, comparison, exported, shlex.join(asked.command), asked.folds_before
    )
    return ExtendedModel(folder=asked.model.folder, comparison=comparison, report=report, exported=exported)


def remaining_commands(asked: TrainedExtension) -> list[str]:
    """Returns what ``extend --train`` is left to call, in order. Writes the step's plans, trains nothing."""
    todo = asked.unfinished()
    preprocessing = missing_commands(asked.planned.dataset, asked.model.configuration, asked.planned.plans_name)
    commands = [*map(shlex.join, preprocessing), *(training.command for training in todo)]
    return [*commands, shlex.join(asked.command)]


def extension_jobs(asked: TrainedExtension, *, finishes: bool) -> list[Job]:
    """Returns what is left to train as jobs, and with ``finishes`` one that compares and exports behind them.

    Raises:
        CILError: the data set is not preprocessed.
    """
    todo = asked.unfinished()
    if missing_commands(asked.planned.dataset, asked.model.configuration, asked.planned.plans_name):
        command = shlex.join([*asked.command[:4], *asked.options.arguments])
        raise CILError(f"{asked.planned.dataset} is not preprocessed yet. Run '{command}', and then this again.")
    before = [training for training in todo if training.model in asked.folds_before]
    jobs = [training_job(training, asked.logs) for training in before]
    shown = tuple(job.name for job in jobs)
    jobs += [training_job(training, asked.logs, after=shown) for training in todo if training not in before]
    if finishes:
        after = tuple(job.name for job in jobs)
        jobs.append(own_command_job(f"extend-{asked.model.folder.name}", asked.command, asked.logs, after=after))
    return jobs
