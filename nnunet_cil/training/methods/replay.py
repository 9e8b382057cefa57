"""nnUNetTrainerReplay: a few old cases are kept, with their old labels."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor

from nnunet_cil.errors import CILError
from nnunet_cil.labels import Label, all_numbers, lookup_table
from nnunet_cil.losses.regions import region_cross_entropy
from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.data import StepDataset, label_sets
from nnunet_cil.training.hyperparameters import fixed, whole_number
from nnunet_cil.training.options import NOT_ASKED
from nnunet_cil.training.region_terms import RegionTerms
from nnunet_cil.training.step_loss import StepLoss

REPLAY_SEED = 12345
"""Seed of the order in which cases are kept: the same in every run and step."""


class ReplayLoss(StepLoss):
    """Segmentation loss on labels that show other classes from sample to sample; label 0 is background or an unlabelled class.

    Cross-entropy against the distribution in which a sample's unlabelled classes are merged into its background; one Dice over
    new and one over old classes, each over the samples that show the class. No distillation.
    """

    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the terms segmentation and replay_dice."""
        log_probs = self.log_probs(logits)
        old = range(self.first_class, self.num_old)
        return {
            "segmentation": self.over_scales(self.unbiased_segmentation, log_probs, targets, batch),
            "replay_dice": self.over_scales(self.labelled_dice, log_probs, targets, batch.labelled, old),
        }


class RegionReplayLoss(ReplayLoss, RegionTerms):
    """The same of regions: binary cross-entropy of those that a sample's labels show, old and new."""

    def unbiased_segmentation(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Returns nnU-Net's binary cross-entropy of all labelled regions, and the Dice of the new ones, at one scale."""
        assert batch.labelled is not None
        masks, valid = self.split(target)
        new = range(self.num_old, logits.shape[1])
        cross_entropy = region_cross_entropy(logits, masks, batch.labelled, valid)
        return cross_entropy + self.labelled_dice(logits, target, batch.labelled, new)


class ReplayDataset(StepDataset):
    """A data set in which kept cases have the labels of earlier steps.

    Their labels are moved beyond the data set's numbers, so that one label map serves all cases.
    """

    def __init__(
        self,
        dataset: nnUNetBaseDataset,
        target_labels: Sequence[Collection[Label]],
        annotated_key: tuple[int, ...],
        offset: int,
    ) -> None:
        """Wraps a data set.

        Args:
            dataset: nnU-Net's.
            target_labels: as for ``StepDataset``, of the step's own cases, then of each group of kept cases.
            annotated_key: as for ``StepDataset``.
            offset: added to a group's labels, times the group's number from 1.
        """
        super().__init__(dataset, target_labels[0], annotated_key)
        self._groups, self._offset = [label_sets(labels) for labels in target_labels], offset
        self.kept: Mapping[str, int] = {}
        """Case -> its group, from 1."""

    def target_labels_in(self, identifier: str) -> frozenset[frozenset[int]]:
        """Returns the labels that the case's group shows."""
        return self._groups[self.kept.get(identifier, 0)]

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Loads a case as the parent, with the labels of kept cases moved."""
        data, segmentation, previous, properties = super().load_case(identifier)
        group = self.kept.get(identifier, 0)
        if group:
            segmentation = np.array(segmentation[:], dtype=np.int16)
            labels = segmentation[0]  # a cascade's previous stage may follow, in the model's numbers
            labels[labels > 0] += group * self._offset
        return data, segmentation, previous, properties


class nnUNetTrainerReplay(nnUNetTrainerCIL):
    """Keeps a fixed budget of old training cases with the labels of their steps; for users who may keep some.

    Where steps share their cases, a kept case has been in every step so far, and shows the labels of all of them.
    """

    needs_old_data = True
    keeps_cases = True
    asks_teacher = False
    distillation_interval = fixed(1, NOT_ASKED)
    new_class_start = "balanced"
    replay_cases = whole_number(4, "Old training cases that are kept.", low=1)

    @cached_property
    def kept_cases(self) -> dict[str, int]:
        """Kept case -> its group of labels, from 1: the first cases, in a fixed order, of all that earlier steps trained on.

        A case that was not kept at one step is not there at the next.
        """
        step = self.step_plan
        if step.previous is None:
            return {}
        training, _ = nnUNetTrainer.do_split(self)
        if step.cases is None:
            groups = dict.fromkeys(training, 1)
        else:
            groups = {c: i for i, cases in enumerate(step.earlier_cases, start=1) for c in cases if c in training}
        if not groups:
            raise CILError(f"Fold {self.fold} has no training case of an earlier step to replay. Use another fold.")
        order = sorted(groups, key=lambda case: random.Random(f"{REPLAY_SEED} {case}").random())
        return {case: groups[case] for case in order[: self.replay_cases]}

    @property
    def target_class_groups(self) -> list[tuple[str, ...]]:
        """The classes that labels show, of the step's own cases, then of each group of kept ones."""
        step = self.step_plan
        earlier = [step.evaluated_classes] if step.cases is None else step.steps[: step.step]
        return [self.target_classes, *earlier]

    @property
    def step_cases(self) -> tuple[str, ...] | None:
        """The step's own and the kept cases; None for all."""
        own = self.step_plan.cases
        return None if own is None else own + tuple(self.kept_cases)

    def pass_cases(self) -> list[str]:
        """Returns the training cases without those of earlier steps, for which the step's label table is not made."""
        cases = super().pass_cases()
        return cases if self.step_plan.cases is None else [case for case in cases if case not in self.kept_cases]

    @property
    def label_table(self) -> npt.NDArray[np.int16]:
        """One table for the step's own cases, followed by one for the moved labels of each group."""
        maps = map(self.step_plan.target_labels, self.target_class_groups)
        own, *kept = (lookup_table(m, all_numbers(self.step_plan.dataset_labels)) for m in maps)
        return np.concatenate([own, *(table[1:] for table in kept)])

    def step_dataset(self, dataset: nnUNetBaseDataset) -> StepDataset:
        """Narrows nnU-Net's data set to the labels of each case's step."""
        labels = [[self.step_plan.dataset_labels[name] for name in group] for group in self.target_class_groups]
        narrowed = ReplayDataset(dataset, labels, self.annotated_key, len(super().label_table) - 1)
        narrowed.kept = self.kept_cases
        return narrowed

    def build_step_loss(self) -> StepLoss:
        """Builds the segmentation terms."""
        return RegionReplayLoss(self.loss_setup()) if self.step_plan.has_regions else ReplayLoss(self.loss_setup())

    def labelled_channels(self, keys: Sequence[str]) -> list[tuple[int, ...]]:
        """Returns the channels that the labels of each case's group show."""
        channels = [tuple(self.step_plan.positions[name] for name in group) for group in self.target_class_groups]
        return [channels[self.kept_cases.get(key, 0)] for key in keys]
