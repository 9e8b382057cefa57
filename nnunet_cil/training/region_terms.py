"""Gives a step's loss its terms where classes are regions: a sigmoid and a mask for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_cil.losses.regions import region_cross_entropy, region_distillation_loss
from nnunet_cil.losses.segmentation import labelled_dice_loss
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.step_loss import LossSetup, StepLoss, resized


class RegionTerms(StepLoss):
    """The parts of a ``StepLoss`` for regions.

    Logits and targets come in the order of the model's channels; the terms get old regions first, in the teacher's order. Targets
    are (batch, K+N, *spatial) bool, and the ignore label a channel more, as nnU-Net's DC_and_BCE_loss takes them.
    """

    first_class = 0

    def __init__(self, setup: LossSetup) -> None:
        """Keeps the order of the channels, too."""
        super().__init__(setup)
        self._order = list(setup.channel_order)

    def forward(self, output: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> Tensor:
        """Returns the total, as the parent."""
        logits = output if isinstance(output, (list, tuple)) else [output]
        targets = target if isinstance(target, (list, tuple)) else [target]
        if self._order != sorted(self._order):
            with_ignore = [*self._order, *range(len(self._order), targets[0].shape[1])]
            logits, targets = [x[:, self._order] for x in logits], [t[:, with_ignore] for t in targets]
        return super().forward(logits, targets)

    def visible(self, targets: list[Tensor], batch: Batch) -> list[Tensor]:
        """Returns the targets that the terms get: nothing in a region that the sample's labels do not show."""
        num_others = targets[0].shape[1] - self.num_old
        if batch.labelled is None:
            shown = torch.tensor([[False] * self.num_old + [True] * num_others], device=targets[0].device)
        else:
            shown = F.pad(batch.labelled, (0, targets[0].shape[1] - batch.labelled.shape[1]), value=True)
        return [t & shown.view(*shown.shape, *[1] * (t.ndim - 2)) for t in targets]

    def log_probs(self, logits: list[Tensor]) -> list[Tensor]:
        """Returns the logits: the binary terms need nothing else."""
        return logits

    def split(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Splits a target into the masks of the regions and that of valid voxels.

        Returns:
            (batch, K+N, *spatial) bool; and (batch, *spatial) bool, None where all voxels are valid.
        """
        return (target, None) if self.ignore_label is None else (target[:, :-1], ~target[:, -1])

    def plain_segmentation(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns nnU-Net's binary cross-entropy and Dice of the new regions at one scale."""
        return self._segmentation(logits, target, range(self.num_old, logits.shape[1]), None)

    def unbiased_segmentation(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Returns the same of all regions that the samples' labels show: no label hides an old region in the background."""
        classes = [*self.refined, *range(self.num_old, logits.shape[1])]
        return self._segmentation(logits, target, classes, batch.labelled)

    def _segmentation(self, logits: Tensor, target: Tensor, classes: Sequence[int], labelled: Tensor | None) -> Tensor:
        if not classes:
            return logits.new_zeros(())
        masks, valid = self.split(target)
        own = None if labelled is None else labelled[:, list(classes)]
        cross_entropy = region_cross_entropy(logits[:, list(classes)], masks[:, list(classes)], own, valid)
        return cross_entropy + self._dice(logits, target, classes, labelled)

    def new_dice(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the Dice of the new regions at one scale."""
        return self._dice(logits, target, range(self.num_old, logits.shape[1]), None)

    def labelled_dice(self, logits: Tensor, target: Tensor, labelled: Tensor, classes: Sequence[int]) -> Tensor:
        """Returns nnU-Net's soft Dice over some regions, each over the samples that show it."""
        return self._dice(logits, target, classes, labelled)

    def _old_dice(self, logits: Tensor, target: Tensor, absent: Tensor | None) -> Tensor:
        return self._dice(logits, target, range(self.num_old), None if absent is None else ~absent)

    def _dice(self, logits: Tensor, target: Tensor, classes: Sequence[int], labelled: Tensor | None) -> Tensor:
        if not classes:
            return logits.new_zeros(())
        masks, valid = self.split(target)
        own = logits[:, list(classes)]
        shown = own.new_ones(own.shape[:2], dtype=torch.bool) if labelled is None else labelled[:, list(classes)]
        return labelled_dice_loss(
            own.sigmoid(), masks[:, list(classes)], shown, valid, batch_dice=self.batch_dice, ddp=self.ddp
        )

    def asked(self, target: Tensor, batch: Batch) -> Tensor:
        """Returns where the teacher speaks: in valid voxels, of the old regions that the sample's labels do not show.

        Returns:
            (batch, K, *spatial) bool.
        """
        masks, valid = self.split(target)
        asked = (
            torch.ones_like(masks[:, : self.num_old])
            if valid is None
            else valid[:, None].expand_as(masks)[:, : self.num_old]
        )
        if batch.labelled is None:
            return asked
        shown = batch.labelled[:, : self.num_old]
        return asked & ~shown.view(*shown.shape, *[1] * (target.ndim - 2))

    def binary_distillation(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Returns LwF's distillation, region by region, at full resolution."""
        return region_distillation_loss(logits[:, : self.num_old], batch.teacher_probs, self.asked(target, batch))

    def pseudo_labelled(self, targets: list[Tensor], predicted: Tensor) -> list[Tensor]:
        """Fills the old regions with the teacher's masks, (batch, K, *spatial) bool, at every scale (nearest neighbour)."""
        filled = []
        for target in targets:
            size = target.shape[2:]
            is_full = size == predicted.shape[2:]
            own = predicted if is_full else resized(predicted, size)
            filled.append(torch.cat([target[:, : self.num_old] | own, target[:, self.num_old :]], dim=1))
        return filled
