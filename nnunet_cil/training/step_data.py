"""nnU-Net's trainer on the data of a step: its cases, and the labels that training may see."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_cil.labels import Label, all_numbers, lookup_table
from nnunet_cil.networks.architectures import switch_deep_supervision
from nnunet_cil.networks.features import bare_network, num_features
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.training.cases import check_split, narrowed_split
from nnunet_cil.training.data import MapLabels, StepDataset, evenly_spaced
from nnunet_cil.training.passes import Ranks, TrainingPass
from nnunet_cil.training.volumes.teacher_volumes import TeacherVolumes


class StepDataTrainer(nnUNetTrainer):
    """Shows nnU-Net's training the cases of a step, and the labels of its target classes alone.

    ``target_label_map`` has the labels that training may see. ``MapLabels`` hides the others from the loss, ``StepDataset``
    from the sampler of patches.
    """

    step_plan: StepPlan
    ranks: Ranks
    volumes: TeacherVolumes | None
    old_locations: dict[str, np.ndarray[Any, np.dtype[np.int32]]]
    """Case -> locations of the old classes, where the teacher sees them."""
    num_cases: int
    """Training cases, once they are loaded."""

    max_pass_cases = 500
    """The largest number of training cases in a pass: nnU-Net's epochs do not grow with the data set either."""

    @property
    def target_classes(self) -> tuple[str, ...]:
        """The classes whose labels training may see."""
        return self.step_plan.target_classes

    @property
    def target_label_map(self) -> dict[int, int]:
        """Data set label -> what stands for it in the targets, for ``target_classes`` (``StepPlan.target_labels``)."""
        return self.step_plan.target_labels(self.target_classes)

    @property
    def step_cases(self) -> tuple[str, ...] | None:
        """The cases that training may see; None for all."""
        return self.step_plan.cases

    @property
    def label_table(self) -> np.ndarray[Any, np.dtype[np.int16]]:
        """``target_label_map`` as a table for indexing with data set label + 1."""
        return lookup_table(self.target_label_map, all_numbers(self.step_plan.dataset_labels))

    def get_training_transforms(self, *args: Any, regions: Any = None, **kwargs: Any) -> BasicTransform:
        """Augments as nnU-Net, after mapping the labels. Called on the instance, unlike nnU-Net's static method.

        Regions stay bits of one channel, which a patch carries beside the teacher's; ``region_targets`` divides them.
        """
        own = super().get_training_transforms(*args, **kwargs)
        return ComposeTransforms([MapLabels(self.label_table), own])

    def get_validation_transforms(self, *args: Any, regions: Any = None, **kwargs: Any) -> BasicTransform:
        """Transforms as nnU-Net, after mapping the labels. Called on the instance, as above."""
        own = super().get_validation_transforms(*args, **kwargs)
        return ComposeTransforms([MapLabels(self.label_table), own])

    def get_tr_and_val_datasets(self) -> tuple[StepDataset, StepDataset]:
        """Opens nnU-Net's data sets, without the locations of hidden classes."""
        training, validation = (self.step_dataset(d) for d in super().get_tr_and_val_datasets())
        self.num_cases = len(training.identifiers)
        training.volumes = self.volumes
        training.old_locations = self.old_locations
        return training, validation

    def step_dataset(self, dataset: nnUNetBaseDataset) -> StepDataset:
        """Narrows nnU-Net's data set to the labels that training may see."""
        return StepDataset(dataset, self.sampled(self.target_classes), self.annotated_key)

    def sampled(self, classes: Collection[str]) -> Collection[Label]:
        """Returns the keys of the locations on which patches may be centred where labels show some classes."""
        if self.step_plan.has_regions:
            return [self.step_plan.dataset_labels[name] for name in classes]
        return self.target_label_map

    @property
    def annotated_key(self) -> tuple[int, ...]:
        """The key under which nnU-Net's loader looks for all annotated voxels (ignore label only)."""
        return (-1, *self.label_manager.all_labels)

    def do_split(self) -> tuple[list[str], list[str]]:
        """Splits as nnU-Net, narrowed to the step's cases; refuses a split that nnU-Net would fail on or replace by another."""
        check_split(self)
        return narrowed_split(self, *super().do_split())

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, Any, Any, Any]:
        """Configures as nnU-Net, with the mirror axes of the schedule (volume axes; a 2D patch has the last two)."""
        rotation, dummy_2d, patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if "mirror_axes" in self.step_plan.training:
            dropped = 3 - len(self.configuration_manager.patch_size)
            mirror_axes = tuple(a - dropped for a in self.step_plan.training["mirror_axes"] if a >= dropped)
            # None, since nnU-Net's predictor fails on an empty tuple
            self.inference_allowed_mirroring_axes = mirror_axes or None
        return rotation, dummy_2d, patch_size, mirror_axes

    @property
    def bare_network(self) -> nn.Module:
        """The network without DDP and torch.compile around it."""
        return bare_network(self.network)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switches as nnU-Net, in any network that ``networks.architectures`` describes."""
        switch_deep_supervision(self.bare_network, enabled)

    def labelled_channels(self, keys: Sequence[str]) -> list[tuple[int, ...]] | None:
        """Returns the channels that each case's labels show; None where these are the new classes in every case."""
        step = self.step_plan
        if not step.differs_by_case and not step.refined:
            return None
        return [tuple(step.positions[name] for name in step.target_classes_in(key)) for key in keys]

    def labelled_channels_in(self, case: str) -> tuple[int, ...]:
        """Returns the channels that the case's labels show; none where these are the new classes in every case."""
        return (self.labelled_channels([case]) or [()])[0]

    def training_pass(self) -> TrainingPass:
        """Returns a pass over the training cases; over ``max_pass_cases`` of them, evenly spaced by name, if there are more."""
        return TrainingPass(
            cases=evenly_spaced(sorted(self.pass_cases()), self.max_pass_cases),
            ranks=self.ranks,
            open_cases=partial(
                self.dataset_class,
                self.preprocessed_dataset_folder,
                folder_with_segs_from_previous_stage=self.folder_with_segs_from_previous_stage,
            ),
            previous_labels=self.label_manager.foreground_labels,
            label_table=self.label_table,
            patch_size=self.configuration_manager.patch_size,
            ignore_label=self.step_plan.ignore_label,
            batch_size=self.batch_size,
            device=self.device,
            num_features=num_features(self.bare_network),
        )

    def pass_cases(self) -> list[str]:
        """Returns the training cases that a pass may use."""
        return self.do_split()[0]
