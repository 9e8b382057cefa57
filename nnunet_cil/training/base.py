"""nnUNetTrainerCIL: nnU-Net's trainer, taught that training comes in steps."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, distributed, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_cil import __version__
from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.files import moved_into_place
from nnunet_cil.labels import lookup_table, refuse_regions
from nnunet_cil.lineage import NOT_FINAL, StepRecord, read_lineage
from nnunet_cil.losses.prototypes import most_probable, sum_over_ranks
from nnunet_cil.model_card import model_card
from nnunet_cil.networks.features import FeatureReader, last_segmentation_layer
from nnunet_cil.networks.heads import widen_heads
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.networks.teacher import Teacher, autocast
from nnunet_cil.step_plans import StepPlan, read_step_plan
from nnunet_cil.training.data import MapLabels, StepDataset, Tile, evenly_spaced, tiles
from nnunet_cil.training.ground_truth import keep_labelled, write_in_channels
from nnunet_cil.training.passes import Classes, Forward, classes_by_label, feature_sums
from nnunet_cil.training.progress import plot_terms
from nnunet_cil.training.state import (
    STATE_KEY,
    PreviousStep,
    previous_checkpoint,
    read_checkpoint,
    read_previous_step,
)
from nnunet_cil.training.step_loss import StepContext, StepLoss, decided_by_labels
from nnunet_cil.training.stray_regions import cases_with_strays, is_stray_free
from nnunet_cil.training.teacher_volumes import NOT_SEGMENTED, TeacherVolumes

_CUDA = torch.device("cuda")


class nnUNetTrainerCIL(nnUNetTrainer):
    """Base of all class-incremental trainers. Step 0 is nnU-Net's training on the step's labels.

    A method overrides ``build_step_loss`` and names its hyper-parameters. From step 1 on the base gives it the
    teacher, the student's features, the prototypes, and weights that start from the previous step's.
    """

    hyperparameters: ClassVar[dict[str, tuple[float, float]]] = {"new_class_noise": (0, math.inf)}
    """Class attributes that a schedule may override: numbers, with the least and the largest value allowed.

    A method names its own; it has those of the base, too.
    """

    new_class_noise = 0.0
    """How far a new class's weights start from being the background's copy (``widen_heads``)."""

    reads_partial_labels: ClassVar[bool] = False
    """Whether the loss asks ``StepLoss.labelled``: what a sample's labels show may then differ from case to case."""

    needs_old_data: ClassVar[bool] = False
    """Whether the method looks at the earlier steps' labels or cases, which must then be in this step's data set."""

    teacher_volumes = 0
    """1: the teacher first segments whole training volumes, which the loss gets as ``StepLoss.volume_classes``."""

    drop_strays = 0
    """1: of these segmentations, stray regions of classes that had none in their labels give way to the teacher's next choice."""

    max_pass_cases = 500
    """The most training cases that a pass over the data looks at: nnU-Net's training does not grow with their number."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Adds the base's hyper-parameters to the method's own."""
        super().__init_subclass__(**kwargs)
        cls.hyperparameters = {**nnUNetTrainerCIL.hyperparameters, **cls.hyperparameters}

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = _CUDA,
    ) -> None:
        """As nnU-Net's. ``plans`` carry a ``"cil"`` block; ``dataset_json`` is narrowed to the model's labels.

        Raises:
            CILError: plans without, or with an unusable, block.
            NotImplementedError: regions or a cascade.
        """
        refuse_regions(dataset_json)
        step_plan = read_step_plan(plans, dataset_json)
        if PlansManager(plans).get_configuration(configuration).previous_stage_name is not None:
            raise NotImplementedError(
                f"Configuration {configuration!r} is a cascade; nnunet_cil trains 2d, 3d_lowres and 3d_fullres only."
            )
        self._set_hyperparameters(step_plan)
        self.check_data(step_plan, str(plans["dataset_name"]))
        super().__init__(plans, configuration, fold, {**dataset_json, "labels": step_plan.labels}, device)
        self.step_plan = step_plan
        for name, value in step_plan.training.items():
            if name not in ("mirror_axes", "optimizer"):
                setattr(self, name, value)
        self.features: FeatureReader  # -> initialize
        self.teacher: Teacher | None = None
        self.volumes: TeacherVolumes | None = None
        self.prototypes: PrototypeBank | None = None
        self.method_state: dict[str, Any] = {}
        """A method's own state: tensors by name, kept in every checkpoint and handed to the next step."""
        self.stray_free: tuple[str, ...] = ()
        """The seen classes that come without stray regions, as their labels showed; in every checkpoint."""
        self.lineage: tuple[StepRecord, ...] = ()
        """Records of the earlier steps."""
        self.num_cases = 0
        """Training cases, once they are loaded."""
        self._date = ""
        self._previous_sha256: str | None = None
        self._is_resumed = False

    @classmethod
    def check_data(cls, step: StepPlan, dataset: str) -> None:
        """Refuses labels that the method cannot read, and data that lack what it needs.

        Args:
            step: to train.
            dataset: that it is trained on, nnU-Net's name.

        Raises:
            CILError: with the trainers that can, or the reason.
        """
        name = cls.__name__
        is_partial = step.refined or step.differs_by_case or (cls.needs_old_data and step.labelled)
        if is_partial and not cls.reads_partial_labels:
            raise CILError(
                f"{name} takes label 0 for background, but the labels of step {step.step} of {step.schedule} don't show the same "
                "classes in every case, or show old ones. Use nnUNetTrainerPGCD or nnUNetTrainerMiB."
            )
        elsewhere = step.previous is not None and (step.previous.dataset != dataset or step.previous.folder is not None)
        if cls.needs_old_data and (elsewhere or step.evaluated_classes != step.seen_classes):
            raise CILError(
                f"{name} needs the data of the earlier steps, but step {step.step} of {step.schedule} is learnt on {dataset} "
                "alone, with the labels of it. Use another trainer."
            )

    @classmethod
    def check_lineage(cls, lineage: Sequence[StepRecord], dataset: str) -> None:
        """Refuses earlier steps on other data where the method needs these.

        Args:
            lineage: of the model that is continued.
            dataset: that the step is trained on, nnU-Net's name.

        Raises:
            CILError: with the other data sets.
        """
        others = sorted({record.dataset for record in lineage} - {dataset})
        if cls.needs_old_data and others:
            raise CILError(
                f"{cls.__name__} needs the data of the earlier steps, but some were learnt on {', '.join(others)}, not on "
                f"{dataset}. Use another trainer."
            )

    def build_step_loss(self) -> StepLoss:
        """The loss of a step after the first. The method's own; the teacher is there when it is called."""
        raise NotImplementedError(
            f"{type(self).__name__} has no loss for step {self.step_plan.step}: a method overrides build_step_loss()."
        )

    # --- labels: targets, sampler, evaluation ---------------------------------------------------------------

    @property
    def target_label_map(self) -> dict[int, int]:
        """Data set label -> channel, for what training may see: the new classes."""
        return self.step_plan.training_label_map

    @property
    def step_cases(self) -> tuple[str, ...] | None:
        """The cases that training may see; None for all."""
        return self.step_plan.cases

    @property
    def label_table(self) -> np.ndarray[Any, np.dtype[np.int16]]:
        """Data set label + 1 -> channel, for what training may see."""
        return lookup_table(self.target_label_map, self.step_plan.dataset_labels.values())

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> BasicTransform:
        """nnU-Net's augmentation, behind the label map. Called on the instance, unlike nnU-Net's static method."""
        return ComposeTransforms([MapLabels(self.label_table), super().get_training_transforms(*args, **kwargs)])

    def get_validation_transforms(self, *args: Any, **kwargs: Any) -> BasicTransform:
        """As for training."""
        return ComposeTransforms([MapLabels(self.label_table), super().get_validation_transforms(*args, **kwargs)])

    def get_tr_and_val_datasets(self) -> tuple[StepDataset, StepDataset]:
        """nnU-Net's data sets, without the locations of hidden classes."""
        training, validation = (self.step_dataset(d) for d in super().get_tr_and_val_datasets())
        self.num_cases = len(training.identifiers)
        training.volumes = self.volumes
        return training, validation

    def step_dataset(self, dataset: nnUNetBaseDataset) -> StepDataset:
        """nnU-Net's data set, as the step may see it."""
        return StepDataset(dataset, self.target_label_map, self.annotated_key)

    @property
    def annotated_key(self) -> tuple[int, ...]:
        """The key under which nnU-Net's loader looks for all annotated voxels (ignore label only)."""
        return (-1, *self.label_manager.all_labels)

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split, narrowed to the step's cases."""
        split: tuple[list[str], list[str]] = super().do_split()
        cases = self.step_cases
        if cases is None:
            return split
        training, validation = ([key for key in keys if key in cases] for keys in split)
        for what, keys in (("training", training), ("validation", validation)):
            if not keys:
                raise CILError(
                    f"Fold {self.fold} has no {what} case among the {len(cases)} cases of step "
                    f"{self.step_plan.step}. Use another fold, fewer steps or shared cases."
                )
        return training, validation

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, Any, Any, Any]:
        """nnU-Net's, with the schedule's mirror axes (axes of the preprocessed volume; a 2D patch has the last two)."""
        rotation, dummy_2d, patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if "mirror_axes" in self.step_plan.training:
            dropped = 3 - len(self.configuration_manager.patch_size)
            mirror_axes = tuple(a - dropped for a in self.step_plan.training["mirror_axes"] if a >= dropped)
            # None, since nnU-Net's predictor fails on an empty tuple
            self.inference_allowed_mirroring_axes = mirror_axes or None
        return rotation, dummy_2d, patch_size, mirror_axes

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's, against labels that are numbered as the model's channels. What a killed end of the training left goes."""
        folder = Path(self.output_folder) / "validation"
        if self.is_finished:
            self._remove_volumes()
        elif self.local_rank == 0:
            folder.mkdir(exist_ok=True)
            (folder / NOT_FINAL).write_text("Predictions of checkpoint_best.pth.\n", encoding="utf-8")
        with self._ground_truth_in_channels():
            super().perform_actual_validation(save_probabilities)
        self._let_go()
        if self.local_rank == 0:
            file = folder / "summary.json"
            if self.step_plan.labelled or self.step_plan.evaluated_classes != self.step_plan.seen_classes:
                self._score_what_is_labelled(file)
            if not self.is_finished:
                return
            (folder / NOT_FINAL).unlink(missing_ok=True)
            means = json.loads(file.read_text(encoding="utf-8"))["mean"]
            labels = self.step_plan.labels
            scored = [n for n in self.step_plan.evaluated_classes if str(labels[n]) in means]
            self._write_model_card({n: means[str(labels[n])]["Dice"] for n in scored})

    def _score_what_is_labelled(self, summary: Path) -> None:
        """Takes out of nnU-Net's summary the scores of classes against labels that do not show them."""
        step = self.step_plan

        def labelled(case: str) -> list[int]:
            return [step.labels[name] for name in step.labelled.get(case, step.evaluated_classes)]

        mean = keep_labelled(summary, labelled, self.dataset_json["file_ending"])
        self.print_to_log_file(
            f"The labels do not show every class in every case. Mean Validation Dice of what they show: {mean:.4f}",
            also_print_to_console=True,
        )

    @contextmanager
    def _ground_truth_in_channels(self) -> Iterator[None]:
        """Lets nnU-Net find ground truth with the model's numbers, where these differ from the data set's."""
        mapping = self.step_plan.evaluation_label_map
        original = str(self.preprocessed_dataset_folder_base)  # type: ignore[has-type]
        if all(source == channel for source, channel in mapping.items()):
            yield
            return
        folder = Path(self.output_folder) / "validation_labels"
        files = [case + self.dataset_json["file_ending"] for case in self._share(self.do_split()[1])]
        table = lookup_table(mapping, self.step_plan.dataset_labels.values())
        write_in_channels(Path(original), folder, files, table, self.plans_manager.image_reader_writer_class())
        if self.is_ddp:
            distributed.barrier()
        self.preprocessed_dataset_folder_base = str(folder)
        try:
            yield
        finally:
            self.preprocessed_dataset_folder_base = original

    # --- the step's start -----------------------------------------------------------------------------------

    def initialize(self) -> None:
        """nnU-Net's, and a look at the features."""
        super().initialize()
        self.features = FeatureReader(self.bare_network)

    def configure_optimizers(self) -> tuple[Any, Any]:
        """nnU-Net's, or that of its variant for AdamW, as the schedule says."""
        variant = nnUNetTrainerAdam if self.step_plan.training.get("optimizer") == "AdamW" else nnUNetTrainer
        optimizer, scheduler = variant.configure_optimizers(self)
        return optimizer, scheduler

    @property
    def bare_network(self) -> nn.Module:
        """The network without DDP and torch.compile around it."""
        network: nn.Module = self.network
        if isinstance(network, DistributedDataParallel):
            network = network.module
        if isinstance(network, OptimizedModule):
            network = network._orig_mod
        return network

    def on_train_start(self) -> None:
        """From step 1 on, takes over from the previous step; then nnU-Net's."""
        if not self.was_initialized:
            self.initialize()
        if self.is_finished and self.current_epoch < self.num_epochs:
            raise CILError(
                f"{self.output_folder} is finished after {self.current_epoch} epochs, and {self.num_epochs} are asked for. A "
                "finished step is not trained on: later steps know it by its hash. Give the longer one a schedule of its own."
            )
        if self.step_plan.previous is not None and not self.is_finished:
            self._take_over()
            self.loss = self.build_step_loss()
        super().on_train_start()

    @property
    def is_finished(self) -> bool:
        """Whether the step's own prototypes are there: they are collected last."""
        return self.prototypes is not None and len(self.prototypes.counts) > len(self.step_plan.seen_classes)

    def _take_over(self) -> None:
        assert self.step_plan.previous is not None
        file = previous_checkpoint(self.step_plan.previous, type(self).__name__, self.configuration_name, self.fold)
        previous = read_previous_step(file, self.step_plan.old_classes, self.bare_network.state_dict())
        if self._is_resumed and previous.sha256 != self._previous_sha256:
            raise CILError(
                f"The previous step's model {file} has changed since this training began (SHA-256 "
                f"{previous.sha256[:12]}..., was {str(self._previous_sha256)[:12]}...). Restore it, or start "
                "this step anew without --c."
            )
        self.check_lineage(previous.lineage, str(self.plans_manager.dataset_name))
        self.teacher = self._build_teacher(previous)
        if self.teacher_volumes:
            self.volumes = self._segment_volumes(self.teacher, previous.stray_free)
        if self._is_resumed:
            return
        self._previous_sha256 = previous.sha256
        self.lineage = previous.lineage
        self.stray_free = previous.stray_free
        noise, seed = self.new_class_noise, int(previous.sha256[:8], 16)  # the same on every rank
        widened = widen_heads(previous.weights, len(self.step_plan.new_classes), noise=noise, seed=seed)
        self.bare_network.load_state_dict(widened)
        self.prototypes = self.inherit_prototypes(previous.prototypes)
        self.begin_step(previous.method_state)
        self.print_to_log_file(
            f"Step {self.step_plan.step} of {self.step_plan.schedule}: learning "
            f"{', '.join(self.step_plan.new_classes)} on top of {file}"
        )

    def _build_teacher(self, previous: PreviousStep) -> Teacher:
        network = self.build_network_architecture(
            self.plans_manager,
            self.configuration_manager,
            self.num_input_channels,
            self.step_plan.num_old_channels,
            False,
        )
        network.load_state_dict(previous.weights)
        return Teacher(network, self.device, compiled=self._do_i_compile())

    def _segment_volumes(self, teacher: Teacher, stray_free: tuple[str, ...]) -> TeacherVolumes:
        """The teacher's segmentations of the cases of a pass; a training that goes on has those that are there."""
        if not self._is_resumed:
            self._remove_volumes()
        volumes = TeacherVolumes(self._volumes_folder)
        self.print_to_log_file("Segmenting the training volumes with the teacher...")
        predictor = nnUNetPredictor(
            use_mirroring=False,
            perform_everything_on_device=self.device.type == "cuda",
            device=self.device,
            allow_tqdm=False,
        )
        names = ("background", *self.step_plan.old_classes)
        dataset_json = {**self.dataset_json, "labels": {name: channel for channel, name in enumerate(names)}}
        plans = self.plans_manager, self.configuration_manager
        predictor.manual_initialization(teacher.network, *plans, None, dataset_json, type(self).__name__, None)
        cases = self.dataset_class(self.preprocessed_dataset_folder, self._pass_share())
        dropped = stray_free if self.drop_strays else ()
        if dropped:
            self.print_to_log_file(f"Stray regions of {', '.join(dropped)} are dropped.")
        channels = [self.step_plan.labels[name] for name in dropped]
        show = self.local_rank == 0
        volumes.write(cases, predictor, self.labelled_channels_in, channels, show=show, meet=self._meet_other_ranks)
        teacher.reader.clear()
        if self.is_ddp:
            distributed.barrier()
        return volumes

    def _meet_other_ranks(self, number: int) -> None:
        """After every 20th case of a pass that all ranks have, as in nnU-Net's validation: one that waits longer gives up."""
        if self.is_ddp and number % 20 == 0 and number <= len(self._all_pass_cases()) // distributed.get_world_size():
            distributed.barrier()

    @property
    def _volumes_folder(self) -> Path:
        return Path(self.output_folder) / "teacher_volumes"

    def _remove_volumes(self) -> None:
        """On one rank, once none reads them any more."""
        self.volumes = None
        if self.is_ddp:
            distributed.barrier()
        if self.local_rank == 0:
            shutil.rmtree(self._volumes_folder, ignore_errors=True)
        if self.is_ddp:
            distributed.barrier()

    def inherit_prototypes(self, inherited: PrototypeBank | None) -> PrototypeBank | None:
        """The prototypes to start the step with. A method may refresh them here; the teacher is there."""
        return None if inherited is None else inherited.to(self.device)

    def begin_step(self, inherited: dict[str, Any]) -> None:
        """What a method does once at the start of a step, with weights, teacher and prototypes in place.

        Args:
            inherited: the ``method_state`` that the previous step's checkpoint carries; another method's has other names.
        """

    def finish_step(self) -> None:
        """What a method does once when training is over, before prototypes are collected and the model is saved."""

    def loss_context(self) -> StepContext:
        """What a method's loss is built on."""
        assert self.teacher is not None
        weights = getattr(nnUNetTrainer._build_loss(self), "weight_factors", (1.0,))
        return StepContext(
            self.step_plan.num_old_channels,
            self.step_plan.ignore_label,
            tuple(float(w) for w in weights),
            batch_dice=self.configuration_manager.batch_dice,
            ddp=self.is_ddp,
            teacher=self.teacher,
            features=self.features,
            refined=tuple(self.step_plan.labels[name] for name in self.step_plan.refined),
        )

    @classmethod
    def check_hyperparameters(cls, values: Mapping[str, Any], where: str) -> None:
        """Refuses names that the method does not have, and numbers out of their range.

        Args:
            values: by name, as in a schedule.
            where: they are set, for the message.

        Raises:
            CILError: with the nearest name, or the range.
        """
        for name, value in values.items():
            sets = f"{where} sets the hyper-parameter {name!r}"
            if name not in cls.hyperparameters:
                raise CILError(f"{sets}, which {cls.__name__} does not have{did_you_mean(name, cls.hyperparameters)}.")
            low, high = cls.hyperparameters[name]
            kind = type(getattr(cls, name))
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not low <= value <= high or not math.isfinite(value) or kind(value) != value:
                raise CILError(
                    f"{sets} to {value!r}, but it must be {'a whole number' if kind is int else 'a number'} from {low} to {high}."
                )

    def _set_hyperparameters(self, step_plan: StepPlan) -> None:
        self.check_hyperparameters(step_plan.hyperparameters, f"Schedule {step_plan.schedule}")
        for name, value in step_plan.hyperparameters.items():
            setattr(self, name, type(getattr(type(self), name))(value))

    # --- a training iteration -------------------------------------------------------------------------------

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's, with the batch shown to the teacher."""
        batch = self._shown_to_teacher(batch)
        outputs: dict[str, Any] = super().train_step(batch)
        self._let_go()
        return outputs

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's; the online Dice of old classes is taken against the teacher's prediction.

        So the best checkpoint is not the one that forgot most, and no old label is needed.
        """
        batch = self._shown_to_teacher(batch)
        if self.teacher is not None:
            batch["target"] = self._with_old_classes(batch["target"], self.teacher)
        outputs: dict[str, Any] = super().validation_step(batch)
        self._let_go()
        return outputs

    def _shown_to_teacher(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.teacher is None:
            return batch
        batch, carried = self._volumes_apart(batch)
        images = batch["data"].to(self.device, non_blocking=True)
        self.teacher.look_at(images)
        shown = self.labelled_channels(batch["keys"])
        if shown is not None:
            channels = range(1, 1 + len(self.step_plan.seen_classes))
            labelled = torch.tensor([[c in own for c in channels] for own in shown])
            self.loss.labelled = labelled.to(self.device, non_blocking=True)
        if carried is not None:
            self.loss.volume_classes = self._volume_classes(carried, batch["keys"])
        return {**batch, "data": images}

    def _volumes_apart(self, batch: dict[str, Any]) -> tuple[dict[str, Any], Tensor | None]:
        """The batch without the teacher's segmentations, the targets' second channel; and these, (batch, *spatial)."""
        target = batch["target"]
        scales = target if isinstance(target, list) else [target]
        if scales[0].shape[1] == 1:
            return batch, None
        labels = [t[:, :1] for t in scales]
        return {**batch, "target": labels if isinstance(target, list) else labels[0]}, scales[0][:, 1]

    def _volume_classes(self, carried: Tensor, keys: Sequence[str]) -> Tensor:
        """What the patches carry; in cases that were not segmented the teacher's argmax on the patch."""
        assert self.teacher is not None
        assert self.volumes is not None
        carried = carried.to(self.device, non_blocking=True).long()
        if all(key in self.volumes for key in keys):
            return carried
        predicted = most_probable(decided_by_labels(self.teacher.output.logits, self.loss.labelled))
        return torch.where(carried == NOT_SEGMENTED, predicted, carried)

    def labelled_channels(self, keys: Sequence[str]) -> list[tuple[int, ...]] | None:
        """The channels that each case's labels show; None where that is the new classes in every case."""
        step = self.step_plan
        if not step.differs_by_case and not step.refined:
            return None
        return [tuple(step.labels[name] for name in step.labelled_in(key)) for key in keys]

    def labelled_channels_in(self, case: str) -> tuple[int, ...]:
        """The channels that the case's labels show, old ones among them; none where that is the new classes in every case."""
        return (self.labelled_channels([case]) or [()])[0]

    def _let_go(self) -> None:
        if self.teacher is not None:
            self.teacher.look_at(None)
        self.features.clear()
        if isinstance(self.loss, StepLoss):
            self.loss.let_go()
            self.loss.labelled = None
            self.loss.volume_classes = None

    def _with_old_classes(self, target: Tensor | list[Tensor], teacher: Teacher) -> Tensor | list[Tensor]:
        full = (target[0] if isinstance(target, list) else target).to(self.device, non_blocking=True)
        logits = decided_by_labels(teacher.output.logits, self.loss.labelled)
        predicted = most_probable(logits)[:, None].to(full.dtype)
        filled = torch.where(full == 0, predicted, full)
        return [filled, *target[1:]] if isinstance(target, list) else filled

    # --- logging --------------------------------------------------------------------------------------------

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """nnU-Net's, and the mean of each loss term."""
        super().on_train_epoch_end(train_outputs)
        if isinstance(self.loss, StepLoss):
            for name, value in self.loss.mean_terms().items():
                self.logger.local_logger.my_fantastic_logging.setdefault(f"loss_{name}", [])
                self.logger.log(f"loss_{name}", value, self.current_epoch)

    def on_epoch_end(self) -> None:
        """nnU-Net's, and the terms in the log and in a plot beside ``progress.png``."""
        terms = {k: v for k, v in self.logger.get_checkpoint().items() if k.startswith("loss_")}
        if terms:
            self.print_to_log_file("train_loss terms:", ", ".join(f"{k[5:]} {v[-1]:.4f}" for k, v in terms.items()))
        super().on_epoch_end()
        if terms and self.local_rank == 0:
            plot_terms({k[5:]: v for k, v in terms.items()}, Path(self.output_folder) / "progress_loss_terms.png")

    # --- the step's end -------------------------------------------------------------------------------------

    def on_train_end(self) -> None:
        """Collects the global prototypes of the final weights; then nnU-Net's, which saves the checkpoint.

        A finished training that is started once more leaves its checkpoint as it is: a later step knows it by its hash.
        """
        if self.is_finished:
            self.disable_checkpointing = True
        else:
            self.finish_step()
            self.print_to_log_file("Collecting prototypes...")
            self.prototypes = self._final_prototypes()
            self.stray_free += self._new_stray_free()
        self._let_go()
        super().on_train_end()
        self._remove_volumes()
        if self.local_rank == 0:
            self._write_model_card({})

    def _write_model_card(self, dice: dict[str, float]) -> None:
        """Beside the weights. A validation that is there from an earlier training says nothing of this one."""
        card = model_card((*self.lineage, self.step_record()), dice)
        (Path(self.output_folder) / "MODEL_CARD.md").write_text(card, encoding="utf-8")

    def _final_prototypes(self) -> PrototypeBank:
        """Background and new classes from the data, by label; old classes carried forward."""
        num_old, num_new = self.step_plan.num_old_channels, len(self.step_plan.new_classes)
        network = self.bare_network.eval()

        def forward(images: Tensor) -> tuple[Tensor, Tensor]:
            with autocast(self.device):
                logits = network(images)
            return logits, self.features.take()

        self.set_deep_supervision_enabled(False)
        fresh = self.collect_prototypes(forward, classes_by_label(num_old, num_new), 1 + num_new)
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        inherited = self.prototypes or PrototypeBank.unknown(num_old, fresh.prototypes.shape[1])
        return inherited.to(self.device).joined(fresh)

    def _new_stray_free(self) -> tuple[str, ...]:
        """The step's classes that come without stray regions in the labels of the cases of a pass."""
        channels = {self.step_plan.labels[name]: name for name in self.step_plan.new_classes}
        cases = self.dataset_class(self.preprocessed_dataset_folder, self._pass_share())
        labels = (self.label_table[np.asarray(cases.load_case(c)[1][0], np.int16) + 1] for c in cases.identifiers)
        found = torch.from_numpy(cases_with_strays(labels, list(channels)))
        if self.is_ddp:
            found = sum_over_ranks(found.to(self.device))
        return tuple(n for n, counts in zip(channels.values(), found.tolist(), strict=True) if is_stray_free(*counts))

    def collect_prototypes(
        self,
        forward: Forward,
        classes: Classes,
        num_classes: int,
        look: Callable[[Tile, Tensor], None] | None = None,
    ) -> PrototypeBank:
        """Mean features over the step's training cases, in one pass over whole volumes, dealt out to the ranks.

        ``look`` is as in ``feature_sums``.
        """
        sums = feature_sums(
            forward,
            classes,
            self.training_tiles(),
            self.device,
            num_classes=num_classes,
            num_features=int(last_segmentation_layer(self.bare_network).in_channels),  # type: ignore[arg-type]
            look=look,
        )
        if self.is_ddp:
            sums = (sum_over_ranks(sums[0].to(self.device)), sum_over_ranks(sums[1].to(self.device)))
        return PrototypeBank.from_sums(*sums).to(self.device)

    def training_tiles(self, batch_size: int | None = None) -> Iterator[Tile]:
        """The step's training cases as tiles that cover every voxel once; this rank's share of the cases.

        Of more than ``max_pass_cases`` cases as many, evenly spaced in the order of their names.

        Args:
            batch_size: how many slices make a tile of a 2D configuration; default: as in training.
        """
        return tiles(
            self.dataset_class(self.preprocessed_dataset_folder, self._pass_share()),
            self.configuration_manager.patch_size,
            self.label_table,
            self.step_plan.ignore_label,
            batch_size or self.batch_size,
        )

    def _pass_share(self) -> list[str]:
        """Of the cases that a pass looks at."""
        return self._share(self._all_pass_cases())

    def _all_pass_cases(self) -> list[str]:
        return evenly_spaced(sorted(self.pass_cases()), self.max_pass_cases)

    def _share(self, names: Sequence[str]) -> list[str]:
        """This rank's part; all where there is one rank."""
        world = distributed.get_world_size() if self.is_ddp else 1
        return list(names[self.local_rank :: world])

    def pass_cases(self) -> list[str]:
        """The training cases that a pass over the data may look at."""
        return self.do_split()[0]

    # --- checkpoints ----------------------------------------------------------------------------------------

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint with the state of the step, written aside and moved into place."""
        self._date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        buffer = io.BytesIO()
        super().save_checkpoint(buffer)
        if not buffer.tell():
            return
        buffer.seek(0)
        checkpoint = torch.load(buffer, map_location="cpu", weights_only=False)
        checkpoint[STATE_KEY] = {
            "classes": list(self.step_plan.seen_classes),
            "prototypes": None if self.prototypes is None else self.prototypes.state_dict(),
            "stray_free": list(self.stray_free),
            "method_state": self.method_state,
            "lineage": [record.to_json() for record in (*self.lineage, self.step_record())],
        }
        with moved_into_place(Path(filename)) as temporary:
            torch.save(checkpoint, temporary)

    def step_record(self) -> StepRecord:
        """What this training is, as the checkpoint and the model card tell it."""
        return StepRecord(
            step=self.step_plan.step,
            classes=self.step_plan.new_classes,
            schedule=self.step_plan.schedule,
            dataset=str(self.plans_manager.dataset_name),
            num_cases=self.num_cases,
            licence=str(self.dataset_json.get("licence") or self.dataset_json.get("license") or ""),
            trainer=type(self).__name__,
            plans=str(self.plans_manager.plans_name),
            configuration=self.configuration_name,
            fold=str(self.fold),
            date=self._date,
            versions={"nnunet_cil": __version__, **{n: version(n) for n in ("nnunetv2", "torch")}},
            previous_sha256=self._previous_sha256,
            saw_old_labels=self.needs_old_data and self.step_plan.step > 0,
        )

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """nnU-Net's, and the state of the step."""
        state = read_checkpoint(Path(filename_or_checkpoint)).get(STATE_KEY)
        if state is None or state["classes"] != list(self.step_plan.seen_classes):
            raise CILError(
                f"The checkpoint {filename_or_checkpoint} is not one of this step: it knows "
                f"{None if state is None else state['classes']}, the step {list(self.step_plan.seen_classes)}."
            )
        super().load_checkpoint(filename_or_checkpoint)
        bank = state["prototypes"]
        self.prototypes = None if bank is None else PrototypeBank.from_state_dict(bank).to(self.device)
        self.stray_free = tuple(state.get("stray_free", ()))
        self.method_state = state["method_state"]
        *earlier, own = read_lineage(state["lineage"])
        self.lineage, self._previous_sha256 = tuple(earlier), own.previous_sha256
        self._date, self.num_cases = own.date, own.num_cases or 0
        self._is_resumed = True
