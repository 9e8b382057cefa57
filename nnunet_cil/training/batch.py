"""One batch: what the loss of a step sees beside nnU-Net's output and target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_cil.losses.prototypes import most_probable
from nnunet_cil.losses.pseudo_labels import corrected_probs
from nnunet_cil.networks.features import FeatureReader
from nnunet_cil.networks.teacher import Teacher, TeacherOutput
from nnunet_cil.training.volumes.teacher_volumes import NOT_SEGMENTED, TeacherVolumes


class Batch:
    """The teacher's output on a batch, the student's features, and the classes that the samples' labels show.

    Lives for one ``train_step`` or ``validation_step``. The teacher runs, and the features are read, once, when they are first
    asked for.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        teacher: Callable[[Tensor], TeacherOutput],
        features: Callable[[], Tensor],
        labelled: Tensor | None = None,
        absent: Tensor | None = None,
        carried: Tensor | None = None,
        is_complete: bool = True,
        volume_trust: float = 0.0,
    ) -> None:
        """Keeps what belongs to the batch.

        Args:
            images: (batch, channels, *spatial) float, on the device.
            teacher: runs the previous step's network on ``images``.
            features: returns the student's features of its forward pass on ``images``, (batch, features, *spatial).
            labelled: (batch, K+N-1) bool, the foreground classes that each sample's labels show; None: the new classes, in
                every sample.
            absent: (batch, K-1) bool, of regions (batch, K), the old classes that each sample's case does not show
                (``training.absent_classes``); None where each shows all.
            carried: (batch, *spatial) integers, the teacher's segmentation of the whole cases as the patches carry it, all
                ``NOT_SEGMENTED`` in a sample of a case without. None where no case is segmented.
            is_complete: every sample's case is segmented.
            volume_trust: how far the teacher's probabilities give way to its segmentation of the whole case.
        """
        self.images = images
        self.labelled = labelled
        self.absent = absent
        self._teacher, self._features = teacher, features
        self._carried, self._is_complete = carried, is_complete
        self._volume_trust = volume_trust

    @cached_property
    def teacher(self) -> TeacherOutput:
        """The teacher's logits (batch, K, *spatial) and features on the images."""
        return self._teacher(self.images)

    @cached_property
    def features(self) -> Tensor:
        """The student's features before its last segmentation layer, (batch, features, *spatial), with gradient."""
        return self._features()

    @cached_property
    def teacher_logits(self) -> Tensor:
        """(batch, K, *spatial), -inf for the classes that a sample's labels show: labels win over the teacher."""
        logits = self.teacher.logits
        if self.labelled is None:
            return logits
        decided = F.pad(self.labelled[:, : logits.shape[1] - 1], (1, 0), value=False)
        return logits.masked_fill(decided.view(*decided.shape, *[1] * (logits.ndim - 2)), -torch.inf)

    @property
    def teacher_probs(self) -> Tensor:
        """(batch, K, *spatial) float32, the softmax of ``teacher_logits``, corrected by the teacher's volumes."""
        return self.corrected(self.teacher_logits, None if self.volume_classes is None else self.trusted_classes)

    def corrected(self, logits: Tensor, volume_classes: Tensor | None) -> Tensor:
        """Returns the teacher's probabilities, which give way to its segmentation of the volume where there is one.

        Args:
            logits: (batch, K, *spatial), some of ``teacher_logits``.
            volume_classes: (batch, *spatial), ``trusted_classes`` of the same voxels, or None.
        """
        probs = logits.float().softmax(1)
        if volume_classes is None or self._volume_trust == 0:
            return probs
        return corrected_probs(probs, volume_classes, self._volume_trust)

    @cached_property
    def volume_classes(self) -> Tensor | None:
        """(batch, *spatial) int64, the teacher's segmentation of the whole case; None where no case is segmented."""
        if self._carried is None:
            return None
        carried = self._carried.long()
        if self._is_complete:
            return carried
        return torch.where(carried == NOT_SEGMENTED, most_probable(self.teacher_logits), carried)

    @cached_property
    def teacher_classes(self) -> Tensor:
        """(batch, *spatial) int64, ``volume_classes``, or else the teacher's argmax on the patch."""
        return most_probable(self.teacher_logits) if self.volume_classes is None else self.volume_classes

    @cached_property
    def trusted_classes(self) -> Tensor:
        """(batch, *spatial) int64, ``teacher_classes``, but its argmax on the patch where either is absent from the case.

        What the teacher finds of an absent class on a patch is in the wrong place, but nothing else tells what the class looks
        like. The volume would correct it away.
        """
        if self.absent is None or self.volume_classes is None:
            return self.teacher_classes
        on_patch, absent = most_probable(self.teacher_logits), F.pad(self.absent, (1, 0), value=False)
        either = [absent.gather(1, c.flatten(1)).view_as(c) for c in (on_patch, self.volume_classes)]
        return torch.where(either[0] | either[1], on_patch, self.volume_classes)

    def with_old_classes(self, target: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Returns nnU-Net's target, with the teacher's argmax on the patch where the full resolution is 0."""
        full = (target[0] if isinstance(target, list) else target).to(self.images.device, non_blocking=True)
        predicted = most_probable(self.teacher_logits)[:, None].to(full.dtype)
        filled = torch.where(full == 0, predicted, full)
        return [filled, *target[1:]] if isinstance(target, list) else filled


def read_batch(
    batch: dict[str, Any],
    device: torch.device,
    *,
    teacher: Teacher,
    features: FeatureReader,
    labelled: Tensor | None,
    absent: Tensor | None,
    volumes: TeacherVolumes | None,
    volume_trust: float,
    kind: Callable[..., Batch],
) -> tuple[dict[str, Any], Batch]:
    """Splits a batch of nnU-Net's loader into nnU-Net's own part, with its images on the device, and a ``Batch``.

    Args:
        batch: from the loader; where cases are segmented, the targets' second channel is the teacher's segmentation.
        device: of the training.
        teacher: the previous step's network.
        features: reads those of the student.
        labelled: as for ``Batch``.
        absent: as for ``Batch``.
        volumes: tells which cases are segmented; None where none is.
        volume_trust: as for ``Batch``.
        kind: makes the ``Batch``.
    """
    batch, carried = _without_volumes(batch)
    images = batch["data"].to(device, non_blocking=True)
    own = kind(
        images,
        teacher=teacher.on_batch,
        features=features.take,
        labelled=None if labelled is None else labelled.to(device, non_blocking=True),
        absent=None if absent is None else absent.to(device, non_blocking=True),
        carried=None if carried is None else carried.to(device, non_blocking=True),
        is_complete=volumes is not None and all(key in volumes for key in batch["keys"]),
        volume_trust=volume_trust,
    )
    return {**batch, "data": images}, own


def labelled_mask(channels: Sequence[Sequence[int]], classes: Sequence[int]) -> Tensor:
    """Marks the foreground channels that each sample's labels show.

    Args:
        channels: of each sample.
        classes: all foreground channels: 1 ... K+N-1, of regions 0 ... K+N-1.

    Returns:
        (batch, len(classes)) bool.
    """
    return torch.tensor([[c in own for c in classes] for own in channels])


def _without_volumes(batch: dict[str, Any]) -> tuple[dict[str, Any], Tensor | None]:
    """Takes the teacher's segmentation, the targets' second channel, out of a batch.

    Returns:
        The batch with targets of one channel; and (batch, *spatial) at full resolution, None where there is no second channel.
    """
    target = batch["target"]
    scales = target if isinstance(target, list) else [target]
    if scales[0].shape[1] == 1:
        return batch, None
    labels = [t[:, :1] for t in scales]
    return {**batch, "target": labels if isinstance(target, list) else labels[0]}, scales[0][:, 1]
