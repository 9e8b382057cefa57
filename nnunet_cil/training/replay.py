"""nnUNetTrainerReplay: a few old cases are kept, with their old labels."""

from __future__ import annotations

import random
from collections.abc import Collection
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor

from nnunet_cil.labels import lookup_table
from nnunet_cil.losses.segmentation import masked_cross_entropy, merge_old_into_background
from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.data import StepDataset
from nnunet_cil.training.step_loss import StepContext, StepLoss

REPLAY_SEED = 12345
"""Of the draw of the cases that are kept: the same in every run and step."""


class ReplayLoss(StepLoss):
    """The labels of each sample are taken at their word: complete for a kept case, new classes only for any other.

    Cross-entropy: plain for kept cases, unbiased for the others; Dice of the new classes over all, Dice of the old classes
    over kept cases. No distillation.
    """

    def __init__(self, context: StepContext) -> None:
        """No hyper-parameters."""
        super().__init__(context)
        self.kept: Tensor | None = None
        """(batch,) bool on the device: which samples come from kept cases; None for none."""

    def shown(self, targets: list[Tensor]) -> list[Tensor]:
        """Old labels of kept cases only."""
        hidden = super().shown(targets)
        if self.kept is None:
            return hidden
        return [torch.where(_per_voxel(self.kept, t), t, h) for t, h in zip(targets, hidden, strict=True)]

    def terms(self, logits: list[Tensor], targets: list[Tensor]) -> dict[str, Tensor]:
        """segmentation, and old_dice where kept cases are about."""
        log_probs = self.log_probs(logits)
        terms = {"segmentation": self.over_scales(self._segmentation, log_probs, targets)}
        if self.kept is not None:
            terms["old_dice"] = self.over_scales(self._old_dice, log_probs, targets)
        return terms

    def _segmentation(self, log_probs: Tensor, target: Tensor) -> Tensor:
        if self.kept is None:
            return self.unbiased_segmentation(log_probs, target)
        labels, valid = self.split(target)
        merged = merge_old_into_background(log_probs, self.num_old)
        background = torch.where(_per_voxel(self.kept, log_probs), log_probs[:, :1], merged[:, :1])
        seen = torch.cat([background, log_probs[:, 1:]], dim=1)
        dice = self.dice(log_probs[:, self.num_old :], labels, valid, first=self.num_old)
        return masked_cross_entropy(seen, labels, valid) + dice

    def _old_dice(self, log_probs: Tensor, target: Tensor) -> Tensor:
        assert self.kept is not None
        labels, valid = self.split(target)
        counted = _per_voxel(self.kept, labels).expand_as(labels)
        counted = counted if valid is None else counted & valid
        return self.dice(log_probs[:, 1 : self.num_old], labels, counted, first=1)


def _per_voxel(samples: Tensor, like: Tensor) -> Tensor:
    """(batch,) -> (batch, 1, ..., 1), as many axes as ``like``."""
    return samples.view(-1, *[1] * (like.ndim - 1))


class ReplayDataset(StepDataset):
    """Kept cases come with all seen labels, moved beyond the data set's numbers so that the label map can tell them."""

    def __init__(
        self,
        dataset: nnUNetBaseDataset,
        shown: Collection[int],
        annotated_key: tuple[int, ...],
        *,
        kept: Collection[str],
        shown_in_kept: Collection[int],
        offset: int,
    ) -> None:
        """As ``StepDataset``, with the kept cases and what may be seen there; ``offset`` is added to their labels."""
        super().__init__(dataset, shown, annotated_key)
        self._kept, self._shown_in_kept, self._offset = frozenset(kept), frozenset(shown_in_kept), offset

    def shown_in(self, identifier: str) -> Collection[int]:
        """All seen classes in kept cases."""
        return self._shown_in_kept if identifier in self._kept else super().shown_in(identifier)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """As nnU-Net's."""
        data, segmentation, previous, properties = super().load_case(identifier)
        if identifier in self._kept:
            segmentation = np.asarray(segmentation[:]).astype(np.int16)
            segmentation[segmentation > 0] += self._offset
        return data, segmentation, previous, properties


class nnUNetTrainerReplay(nnUNetTrainerCIL):
    """A fixed budget of old training cases with the labels of all seen classes; for users who may keep some."""

    hyperparameters: ClassVar[dict[str, tuple[float, float]]] = {"replay_cases": (1, 1_000_000)}
    replay_cases = 4

    @cached_property
    def kept_cases(self) -> tuple[str, ...]:
        """The drawn cases: of the fold's training cases, and of the earlier steps' where steps don't share their cases."""
        if self.step_plan.previous is None:
            return ()
        training, _ = nnUNetTrainer.do_split(self)
        earlier = self.step_plan.earlier_cases or training
        candidates = sorted(set(training) & set(earlier))
        return tuple(random.Random(REPLAY_SEED).sample(candidates, min(self.replay_cases, len(candidates))))

    @property
    def shown_cases(self) -> tuple[str, ...] | None:
        """The step's and the kept ones."""
        own = self.step_plan.cases
        return None if own is None else own + self.kept_cases

    @property
    def label_table(self) -> npt.NDArray[np.int16]:
        """Followed by the same for the moved labels of kept cases, where every seen class is shown."""
        complete = lookup_table(self.step_plan.evaluation_label_map, self.step_plan.dataset_labels.values())
        return np.concatenate([super().label_table, complete[1:]])

    def step_dataset(self, dataset: nnUNetBaseDataset) -> StepDataset:
        """With old labels in the kept cases."""
        return ReplayDataset(
            dataset,
            self.shown_label_map,
            self.annotated_key,
            kept=self.kept_cases,
            shown_in_kept=self.step_plan.evaluation_label_map,
            offset=len(super().label_table) - 1,
        )

    def build_step_loss(self) -> StepLoss:
        """Segmentation terms only."""
        return ReplayLoss(self.loss_context())

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Tells the loss which samples come from kept cases."""
        if isinstance(self.loss, ReplayLoss):
            kept = [key in self.kept_cases for key in batch["keys"]]
            self.loss.kept = torch.tensor(kept, device=self.device) if any(kept) else None
        outputs: dict[str, Any] = super().train_step(batch)
        if isinstance(self.loss, ReplayLoss):
            self.loss.kept = None
        return outputs
