"""nnUNetTrainerCIL: nnU-Net's trainer for one step of a schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam
from torch import Tensor, distributed

from nnunet_cil.case_hashes import CaseHashes
from nnunet_cil.errors import CILError
from nnunet_cil.files import write_text
from nnunet_cil.host.dataset_json import checked_dataset_json
from nnunet_cil.host.folders import fold_folder
from nnunet_cil.host.processes import let_forks_end_with_parent
from nnunet_cil.labels import predicted_numbers
from nnunet_cil.lineage import StepRecord, validation_dice
from nnunet_cil.locks import fold_lock
from nnunet_cil.model_card import model_card
from nnunet_cil.model_changes import ModelChanges
from nnunet_cil.networks.features import FeatureReader
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.networks.teacher import Teacher
from nnunet_cil.step_plans import read_step_plan
from nnunet_cil.training import hyperparameters, options
from nnunet_cil.training.absent_classes import absent_classes, new_class_volumes
from nnunet_cil.training.batch import Batch, labelled_mask, read_batch
from nnunet_cil.training.begun import take_planned, take_recorded
from nnunet_cil.training.cases import check_before_training, check_shown_classes
from nnunet_cil.training.catalogue import check_data, check_lineage
from nnunet_cil.training.epoch_logs import EpochLogs
from nnunet_cil.training.final_validation import final_validation
from nnunet_cil.training.hyperparameters import fixed
from nnunet_cil.training.locations import old_class_locations
from nnunet_cil.training.overlaps import overlap_remarks
from nnunet_cil.training.passes import Ranks, final_prototypes
from nnunet_cil.training.previous_stage import check_previous_stage
from nnunet_cil.training.previous_step import PreviousStep, previous_checkpoint, read_previous_step
from nnunet_cil.training.progress import around_epochs
from nnunet_cil.training.region_batch import RegionBatch, region_targets
from nnunet_cil.training.starts import (
    build_teacher,
    num_writes,
    previous_architecture,
    refuse_pretrained,
    start_weights,
)
from nnunet_cil.training.state import StepState, read_step_state, training_record, write_checkpoint
from nnunet_cil.training.step_data import StepDataTrainer
from nnunet_cil.training.step_loss import LossSetup, StepLoss
from nnunet_cil.training.volumes.stray_regions import new_stray_free_classes
from nnunet_cil.training.volumes.teacher_volumes import TeacherVolumes, release_volumes, segment_volumes

_CUDA = torch.device("cuda")


class nnUNetTrainerCIL(EpochLogs, StepDataTrainer):
    """Base of all class-incremental trainers. Step 0 is nnU-Net's training on the step's labels.

    A method overrides ``build_step_loss`` and declares its hyper-parameters. A step after the first, from start to end:

    - ``on_train_start`` checks the cases, and calls ``_take_over``: the previous checkpoint gives teacher, initial weights
      and prototypes.
    - ``train_step`` calls ``_batch_context``, which makes the ``Batch`` that the loss reads (``StepLoss.on``).
    - ``on_train_end`` collects the prototypes; ``save_checkpoint`` adds the ``StepState`` to nnU-Net's file.
    """

    new_class_start = options.NEW_CLASS_START
    new_class_noise = options.NEW_CLASS_NOISE
    old_class_sampling = options.OLD_CLASS_SAMPLING
    teacher_volumes = options.TEACHER_VOLUMES
    old_dice_weight = options.OLD_DICE_WEIGHT
    drop_strays = options.DROP_STRAYS
    distillation_interval = fixed(1, options.UNDECLARED)
    volume_trust = fixed(0.9, "1 hardly differs; teacher_volumes false turns the volumes off")
    """How far the teacher's probabilities give way to its segmentation of the volume."""

    absent_size = fixed(0.25, options.OWN_TRAINER)
    """Share of an old class's mean size: a case in which the teacher finds less does not show it (``absent_classes``). With 0
    each case shows all."""

    absent_doubt = fixed(1.5, options.OWN_TRAINER)
    """How many times its doubt of an old class in the class's own step: a case with more does not show it."""

    asks_teacher: ClassVar[bool] = True
    """The loss reads the teacher's output, and so changes with its whole volumes."""

    teacher_weights: ClassVar[tuple[str, ...]] = ()
    """The weights of the terms that ask the teacher, where the loss asks it in no other; with all at 0 it does not."""

    reads_partial_labels: ClassVar[bool] = False
    """The loss reads ``Batch.labelled``: the classes that the labels show may differ from case to case."""

    refines: ClassVar[bool] = False
    """The loss learns from labels of old classes, where every case has them. So does each that reads partial labels."""

    needs_background: ClassVar[str] = ""
    """Says what the method does with the background, which a model of regions lacks; empty where it does without."""

    needs_new_classes: ClassVar[bool] = False
    """The method does nothing in a step that only refines old classes."""

    needs_old_data: ClassVar[bool] = False
    """The method uses labels or cases of earlier steps, which must then be in this step's data set."""

    compares_weights: ClassVar[bool] = False
    """The method compares each weight with that in the same place of the step before."""

    keeps_cases: ClassVar[bool] = False
    """The method trains on some cases of earlier steps, in no fold's validation."""

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = _CUDA,
    ) -> None:
        """Reads the step from the plans' ``"cil"`` block, and starts as nnU-Net with the model's labels.

        Raises:
            CILError: the block is missing or unusable, or the trainer cannot train the step.
        """
        dataset_json = checked_dataset_json(dataset_json, f"dataset.json of {plans.get('dataset_name')}")
        step_plan = read_step_plan(plans, dataset_json)
        folder = fold_folder(plans["dataset_name"], type(self).__name__, plans["plans_name"], configuration, fold)
        self._refusal = take_planned(self, step_plan, folder)
        if step_plan.has_regions:  # there is no background to start from
            self.new_class_start = "fresh"
        check_data(type(self), step_plan, str(plans["dataset_name"]))
        self._lock = fold_lock(folder)
        self._take_lock()
        block = plans.pop("cil")  # it may name cases, and nnU-Net sends its plans to loggers outside of this machine
        super().__init__(plans, configuration, fold, {**dataset_json, **step_plan.model_labels}, device)
        plans["cil"] = block
        self.step_plan = step_plan
        self.logger.update_config({"step": step_plan.config})
        for name, value in step_plan.training.items():
            if name not in ("mirror_axes", "optimizer"):
                setattr(self, name, value)
        self.ranks = Ranks(rank=self.local_rank, size=distributed.get_world_size() if self.is_ddp else 1)
        self.features: FeatureReader  # -> initialize
        self.num_initial_writes: int  # -> initialize
        self.teacher: Teacher | None = None
        self.volumes = None
        self.old_locations = {}
        self.absent: dict[str, tuple[int, ...]] = {}
        """Case -> the teacher's channels of old classes that it does not show; of all ranks."""
        self.prototypes: PrototypeBank | None = None
        self.method_state: dict[str, Any] = {}
        """A method's own state: tensors by name, stored in every checkpoint, for the next step."""
        self.stray_free: tuple[str, ...] = ()
        """The seen classes that come without stray regions in their labels; stored in every checkpoint."""
        self.confidences: dict[str, float] = {}
        """``StepState.confidences`` of the seen classes."""
        self.class_volumes: dict[str, float] = {}
        """``StepRecord.volumes`` of the new classes, once the step is trained."""
        self.is_trained = False
        """True once the step's own prototypes are there, which are collected last."""
        self.previous_stage: dict[str, str] = {}
        """The models whose predictions a cascade sees: fold -> SHA-256 of its checkpoint."""
        self.lineage: tuple[StepRecord, ...] = ()
        """Records of the earlier steps."""
        self.num_cases = 0
        self.case_hashes: CaseHashes | None = None
        """The fold's cases, once the training has begun; None in one that began before they were recorded."""
        self._date = ""
        self._previous_sha256: str | None = None
        self._is_resumed = False

    def _take_lock(self) -> None:
        """Refuses a fold that another process trains or validates; of several ranks, the first one holds it for all."""
        if not distributed.is_initialized() or distributed.get_rank() == 0:
            self._lock.acquire()

    @classmethod
    def check_hyperparameters(cls, values: Mapping[str, Any], where: str) -> None:
        """Refuses names that the method does not have, values out of their range, and options without a meaning."""
        hyperparameters.check(cls, values, where)
        changeable = hyperparameters.settable(cls)
        options.check_options(cls, {name: value for name, value in values.items() if name in changeable}, where)

    def build_step_loss(self) -> StepLoss:
        """Builds the loss of a step after the first; a method overrides it. Teacher and prototypes are there."""
        raise NotImplementedError(
            f"{type(self).__name__} has no loss for step {self.step_plan.step}: a method overrides build_step_loss()."
        )

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Makes nnU-Net's data loaders; a later step locates the old classes first, which no checkpoint stores."""
        if self.teacher is not None and self.old_class_sampling:
            self.print_to_log_file("Locating the old classes...")
            self.old_locations = old_class_locations(self)
        loaders: tuple[Any, Any] = super().get_dataloaders()
        return loaders

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validates as nnU-Net, against labels that are numbered as the model's channels, and on cases not trained on.

        Releases teacher volumes that an interrupted end of the training left behind.
        """
        self._take_lock()
        if self.is_trained:
            self._release_volumes()
        with final_validation(self, saves_probabilities=save_probabilities):
            super().perform_actual_validation(save_probabilities)
        if self.is_trained and self.local_rank == 0:
            self._write_model_card(validation_dice(Path(self.output_folder), self.step_plan.labels))
        self._lock.release()

    def initialize(self) -> None:
        """Initializes as nnU-Net, and hooks the reader of the features into the network."""
        super().initialize()
        self.features = FeatureReader(self.bare_network)
        self.num_initial_writes = num_writes(self.bare_network)

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Configures nnU-Net's optimizer, or that of its variant for AdamW, as the schedule says."""
        variant = nnUNetTrainerAdam if self.step_plan.training.get("optimizer") == "AdamW" else nnUNetTrainer
        optimizer, scheduler = variant.configure_optimizers(self)
        return optimizer, scheduler

    def on_train_start(self) -> None:
        """Takes over from the previous step, from step 1 on; then starts as nnU-Net. A finished step gets no more epochs."""
        if self._refusal is not None:
            raise self._refusal
        self._take_lock()
        let_forks_end_with_parent()  # nnU-Net's data workers would wait for ever
        if not self.was_initialized:
            self.initialize()
        if self.is_trained and self.current_epoch < self.num_epochs:
            raise CILError(
                f"{self.output_folder} is finished after {self.current_epoch} epochs, and {self.num_epochs} are asked for. A "
                "finished step is not trained on: later steps know it by its hash. Give the longer one a schedule of its own."
            )
        if not self.is_trained:
            with around_epochs(self.logger):
                self._begin_step()
        super().on_train_start()

    def _begin_step(self) -> None:
        """Checks the fold's cases, by their labels and the records; takes over from the previous step, from step 1 on."""
        check_shown_classes(self)
        if self.step_plan.previous is not None and not self._is_resumed:
            refuse_pretrained(self)
        self.previous_stage = check_previous_stage(self)
        previous = self._read_previous()
        earlier = () if previous is None else previous.state.lineage
        self.case_hashes = check_before_training(self, earlier, is_resumed=self._is_resumed)
        if previous is not None:
            self._take_over(previous)
            self.loss = self.build_step_loss()

    def say(self, text: str) -> None:
        """Logs a line that the user also sees on the screen."""
        self.print_to_log_file(text, also_print_to_console=True)

    def _read_previous(self) -> PreviousStep | None:
        """Reads the previous step's model; None at step 0."""
        if self.step_plan.previous is None:
            return None
        previous_model, device = self.step_plan.previous, self.device.type
        file = previous_checkpoint(previous_model, type(self).__name__, self.configuration_name, self.fold, device)
        began_with = self._previous_sha256 if self._is_resumed else None
        architecture, folder = previous_architecture(self), Path(self.output_folder)
        previous = read_previous_step(file, self.step_plan, architecture, began_with, folder)
        check_lineage(type(self), previous.state.lineage, str(self.plans_manager.dataset_name))
        return previous

    def _take_over(self, previous: PreviousStep) -> None:
        """Sets teacher and teacher volumes; a training that begins also gets weights, prototypes and the method's state."""
        self.teacher = build_teacher(self, previous.weights)
        if self.teacher_volumes:
            self.volumes = self._segment_volumes(self.teacher, previous)
            self.absent = absent_classes(self, previous.state)
        if self._is_resumed:
            return
        self._previous_sha256 = previous.sha256
        self.lineage = previous.state.lineage
        self.stray_free = previous.state.stray_free
        self.confidences = dict(previous.state.confidences)
        self.bare_network.load_state_dict(start_weights(self, previous))
        self.prototypes = self.inherit_prototypes(previous.state.prototypes)
        self.begin_step(previous.state.method_state)
        step = self.step_plan
        for remark in overlap_remarks(self.teacher, self.training_pass(), step):
            self.say(remark)
        self.print_to_log_file(f"Step {step.step} of {step.schedule}: {step.task} on top of {previous.file}")

    def _segment_volumes(self, teacher: Teacher, previous: PreviousStep) -> TeacherVolumes:
        """Segments the cases of a pass with the teacher; what another training with it has segmented is taken over."""
        dropped = previous.state.stray_free if self.drop_strays else ()
        without = f", without stray regions of {', '.join(dropped)}" if dropped else ""
        self.print_to_log_file(f"Segmenting the training volumes with the teacher{without}...")
        return segment_volumes(self, teacher, previous, dropped)

    def _release_volumes(self) -> None:
        self.volumes = None
        release_volumes(self)

    def inherit_prototypes(self, inherited: PrototypeBank | None) -> PrototypeBank | None:
        """Returns the prototypes at the start of the step; a method may refresh them, with the teacher."""
        return None if inherited is None else inherited.to(self.device)

    def begin_step(self, inherited: dict[str, Any]) -> None:
        """Runs once at the start of a step, with weights, teacher and prototypes in place; for methods.

        Args:
            inherited: the ``method_state`` of the previous step's checkpoint; another method's has other names.
        """

    def finish_step(self) -> None:
        """Runs once at the end of training, before prototypes are collected and the model is saved; for methods."""

    def loss_setup(self) -> LossSetup:
        """Returns the arguments with which a method builds its loss."""
        weights = getattr(nnUNetTrainer._build_loss(self), "weight_factors", (1.0,))
        return LossSetup(
            num_old=self.step_plan.num_old_channels,
            ignore_label=self.step_plan.ignore_label,
            scale_weights=tuple(float(w) for w in weights),
            batch_dice=self.configuration_manager.batch_dice,
            ddp=self.is_ddp,
            refined=tuple(self.step_plan.positions[name] for name in self.step_plan.refined),
            channel_order=self.step_plan.channel_order,
            iteration=self.current_epoch * self.num_iterations_per_epoch,
            settings=hyperparameters.settings(self),
        )

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Trains on a batch as nnU-Net, with the ``Batch`` open for the loss."""
        with self._batch_context(batch) as (nnunet_batch, _):
            outputs: dict[str, Any] = super().train_step(nnunet_batch)
        return outputs

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Validates on a batch as nnU-Net; the online Dice of old classes is taken against the teacher's prediction.

        So the best checkpoint is not the one that forgot most, and no old label is needed.
        """
        with self._batch_context(batch) as (nnunet_batch, step_batch):
            if step_batch is not None:
                nnunet_batch["target"] = self.online_target(nnunet_batch["target"], step_batch)
            outputs: dict[str, Any] = super().validation_step(nnunet_batch)
        return outputs

    @contextmanager
    def _batch_context(self, batch: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Batch | None]]:
        """Splits what the loader gives into nnU-Net's batch and the ``Batch`` of the loss; the latter is None without a teacher.

        As long as the context lasts, the readers keep activations and the loss has the batch. Then both are dropped.
        """
        if self.teacher is None:
            yield self._with_regions(batch), None
            return
        channels = self.labelled_channels(batch["keys"])
        step = self.step_plan
        nnunet_batch, step_batch = read_batch(
            batch,
            self.device,
            teacher=self.teacher,
            features=self.features,
            labelled=None if channels is None else labelled_mask(channels, sorted(step.positions.values())),
            absent=self._absent_mask(batch["keys"]),
            volumes=self.volumes,
            volume_trust=self.volume_trust,
            kind=partial(RegionBatch, old_channels=step.old_channels) if step.has_regions else Batch,
        )
        with self.features.reading(), self.loss.on(step_batch):
            yield self._with_regions(nnunet_batch), step_batch

    def _absent_mask(self, keys: Sequence[str]) -> Tensor | None:
        """Returns ``Batch.absent``. Where one rank could have it all have it: they exchange other sums then."""
        absent, step = [self.absent.get(key, ()) for key in keys], self.step_plan
        if not (any(absent) or (self.absent and self.is_ddp)):
            return None
        return labelled_mask(absent, range(int(not step.has_regions), step.num_old_channels))

    def _with_regions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Divides the bits of a batch's targets into nnU-Net's masks, where classes are regions."""
        if not self.step_plan.has_regions:
            return batch
        return {**batch, "target": region_targets(batch["target"], self.step_plan.region_bits, self.device)}

    def online_target(self, target: Tensor | list[Tensor], batch: Batch) -> Tensor | list[Tensor]:
        """Returns the target of the online score: the labels, and the teacher's prediction where these are 0."""
        return batch.with_old_classes(target)

    def on_train_end(self) -> None:
        """Collects the global prototypes of the final weights; then ends as nnU-Net, which saves the checkpoint.

        A finished training that is started again does not change its checkpoint: a later step knows it by its hash.
        """
        if self.is_trained:
            self.disable_checkpointing = True
        else:
            with around_epochs(self.logger):
                self.finish_step()
                self.print_to_log_file("Collecting prototypes...")
                self.prototypes, confidences = final_prototypes(self)
                self.confidences |= {n: min(p, self.confidences.get(n, p)) for n, p in confidences.items()}
                self.class_volumes = new_class_volumes(self)
                self.stray_free += new_stray_free_classes(self)
            self.is_trained = True
        super().on_train_end()
        self._release_volumes()
        if self.local_rank == 0:
            self._write_model_card({})

    def _write_model_card(self, dice: dict[str, float]) -> None:
        """Writes the card beside the weights; without Dice after training, since an earlier validation is of another model."""
        folder = Path(self.output_folder)
        numbers = predicted_numbers(self.step_plan.model_labels)
        card = model_card((*self.lineage, self.step_record()), dice, changes=ModelChanges.read(folder), numbers=numbers)
        write_text(folder / "MODEL_CARD.md", card)

    def save_checkpoint(self, filename: str) -> None:
        """Saves as nnU-Net, with the state of the step, into a temporary file that is moved into place."""
        self._date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        state = StepState(
            classes=self.step_plan.model_classes,
            lineage=(*self.lineage, self.step_record()),
            prototypes=self.prototypes,
            stray_free=self.stray_free,
            confidences=self.confidences,
            method_state=self.method_state,
            is_final=self.is_trained,
        )
        write_checkpoint(Path(filename), super().save_checkpoint, state)

    def step_record(self) -> StepRecord:
        """Returns this training's record for checkpoint and model card."""
        return training_record(self, date=self._date, previous_sha256=self._previous_sha256)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Loads as nnU-Net, with the state of the step; refuses a checkpoint of another step.

        The training goes on with the hyper-parameters that it began with, whatever the defaults and ranges have become; where
        it cannot, ``on_train_start`` refuses.
        """
        state = read_step_state(Path(filename_or_checkpoint), self.step_plan.model_classes)
        self._refusal = None if state.is_final else take_recorded(self, state)
        super().load_checkpoint(filename_or_checkpoint)
        self.prototypes = None if state.prototypes is None else state.prototypes.to(self.device)
        self.stray_free = state.stray_free
        self.confidences = dict(state.confidences)
        self.method_state, self.is_trained = state.method_state, state.is_final
        *earlier, own = state.lineage
        self.lineage, self._previous_sha256 = tuple(earlier), own.previous_sha256
        self.previous_stage, self.class_volumes = dict(own.previous_stage), dict(own.volumes)
        self._date, self.num_cases, self.case_hashes = own.date, own.num_cases or 0, own.case_hashes
        self._is_resumed = True
