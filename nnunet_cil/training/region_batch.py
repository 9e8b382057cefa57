"""One batch of regions: what the loss of a step sees where classes overlap."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nnunet_cil.losses.regions import corrected_region_probs, region_masks
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.volumes.teacher_volumes import NOT_SEGMENTED


class RegionBatch(Batch):
    """A ``Batch`` of which teacher classes are masks, (batch, K, *spatial) bool, in the order of the teacher's channels.

    ``labelled`` is (batch, K+N) bool, old regions first. A region that a sample's labels show is in none of the teacher's masks.
    """

    def __init__(self, images: Tensor, *, old_channels: Sequence[int] = (), **others: Any) -> None:
        """Keeps what belongs to the batch.

        Args:
            images: as for ``Batch``.
            old_channels: of the student, in the order of the teacher's.
            others: as for ``Batch``; ``carried`` has a bit for each of the teacher's regions.
        """
        super().__init__(images, **others)
        self._old_channels = list(old_channels)

    @cached_property
    def teacher_logits(self) -> Tensor:
        """(batch, K, *spatial)."""
        return self.teacher.logits

    def corrected(self, logits: Tensor, volume_classes: Tensor | None) -> Tensor:
        """Returns the teacher's probabilities as ``Batch.corrected``, region by region."""
        probs = logits.float().sigmoid()
        if volume_classes is None or self._volume_trust == 0:
            return probs
        return corrected_region_probs(probs, volume_classes, self._volume_trust)

    @cached_property
    def volume_classes(self) -> Tensor | None:
        """(batch, K, *spatial) bool, the teacher's segmentation of the whole case; None where no case is segmented."""
        if self._carried is None:
            return None
        masks = region_masks(self._carried, range(len(self._old_channels)))
        if self._is_complete:
            return self._unlabelled(masks)
        missing = (self._carried == NOT_SEGMENTED)[:, None]
        return self._unlabelled(torch.where(missing, self.teacher_logits > 0, masks))

    @cached_property
    def teacher_classes(self) -> Tensor:
        """(batch, K, *spatial) bool, ``volume_classes``, or else where the teacher says more than 1/2 on the patch."""
        return self._unlabelled(self.teacher_logits > 0) if self.volume_classes is None else self.volume_classes

    @cached_property
    def trusted_classes(self) -> Tensor:
        """(batch, K, *spatial) bool, ``teacher_classes``, but the teacher's on the patch of regions absent from the case."""
        if self.absent is None or self.volume_classes is None:
            return self.teacher_classes
        absent = self.absent.view(*self.absent.shape, *[1] * (self.volume_classes.ndim - 2))
        return torch.where(absent, self._unlabelled(self.teacher_logits > 0), self.volume_classes)

    def with_old_classes(self, target: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Returns nnU-Net's target, with the teacher's prediction on the patch in the old regions at full resolution."""
        full = (target[0] if isinstance(target, list) else target).to(self.images.device, copy=True)
        full[:, self._old_channels] |= self._unlabelled(self.teacher_logits > 0)
        return [full, *target[1:]] if isinstance(target, list) else full

    def _unlabelled(self, masks: Tensor) -> Tensor:
        """Returns masks of the old regions without those that a sample's labels show."""
        if self.labelled is None:
            return masks
        shown = self.labelled[:, : masks.shape[1]]
        return masks & ~shown.view(*shown.shape, *[1] * (masks.ndim - 2))


def region_targets(target: Tensor | list[Tensor], bits: Sequence[int], device: torch.device) -> Tensor | list[Tensor]:
    """Divides targets of bits into those of nnU-Net's training with regions, on the device.

    Args:
        target: (batch, 1, *spatial) integers; a list with deep supervision.
        bits: of each channel of the result.
        device: of the training.

    Returns:
        (batch, len(bits), *spatial) bool, or such a list.
    """
    if isinstance(target, list):
        return [region_masks(t[:, 0].to(device, non_blocking=True), bits) for t in target]
    return region_masks(target[:, 0].to(device, non_blocking=True), bits)
