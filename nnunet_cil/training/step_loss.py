"""The loss of a step after the first: named terms over nnU-Net's output and target."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_cil.losses.prototypes import most_probable, sum_over_ranks
from nnunet_cil.losses.segmentation import (
    labelled_dice_loss,
    masked_cross_entropy,
    merge_old_into_background,
    merge_unlabelled,
    soft_dice_loss,
)
from nnunet_cil.networks.features import FeatureReader
from nnunet_cil.networks.teacher import Teacher


@dataclass(frozen=True)
class StepContext:
    """What the loss of a step is built on; the trainer hands it over.

    Attributes:
        num_old: K, background included.
        ignore_label: the model's ignore label, or None.
        scale_weights: nnU-Net's weight of each deep-supervision scale, full resolution first.
        batch_dice: from nnU-Net's plans.
        ddp: whether training is distributed.
        teacher: the previous step's network, with its output on the batch at hand.
        features: the student's.
        refined: channels of the old classes that the step's labels show, too.
    """

    num_old: int
    ignore_label: int | None
    scale_weights: tuple[float, ...]
    batch_dice: bool
    ddp: bool
    teacher: Teacher
    features: FeatureReader
    refined: tuple[int, ...] = ()


class StepLoss(nn.Module):
    """Sum of named terms; called by nnU-Net's training step like any loss of nnU-Net.

    Targets may name old classes (the online score is taken against the teacher's prediction): the terms never
    see these, they get 0 there; but for refined classes, in samples whose labels show them. What a sample's labels show they
    decide: the teacher is not asked about it.
    """

    def __init__(self, context: StepContext) -> None:
        """Keeps the layout of the channels, and teacher and features for the terms."""
        super().__init__()
        self.num_old = context.num_old
        self.ignore_label = context.ignore_label
        self.scale_weights = context.scale_weights
        self.batch_dice, self.ddp = context.batch_dice, context.ddp
        self.teacher, self.features = context.teacher, context.features
        self.refined = context.refined
        self.labelled: Tensor | None = None
        """(batch, K+N-1) bool, the foreground classes that each sample's labels show; None: the new classes, in every sample."""
        self.volume_classes: Tensor | None = None
        """(batch, *spatial) int64, the teacher's segmentation of the whole cases, where the trainer has asked for it."""
        self._sums: dict[str, Tensor] = {}
        self._num_recorded = 0

    @abstractmethod
    def terms(self, logits: list[Tensor], targets: list[Tensor]) -> dict[str, Tensor]:
        """The weighted terms, by name, in float32.

        Args:
            logits: (batch, K+N, *spatial) float32 at each scale, full resolution first.
            targets: (batch, 1, *spatial) at each scale; 0, a new class or the ignore label.
        """

    def forward(self, output: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> Tensor:
        """The total, as nnU-Net calls it: lists with deep supervision, tensors without."""
        logits = output if isinstance(output, (list, tuple)) else [output]
        targets = target if isinstance(target, (list, tuple)) else [target]
        targets = self.shown(targets)
        with full_precision(logits[0].device):
            terms = self.terms([x.float() for x in logits], targets)
        if torch.is_grad_enabled():
            self._record(terms)
        return torch.stack(list(terms.values())).sum()

    def shown(self, targets: list[Tensor]) -> list[Tensor]:
        """What the terms may see of the targets: 0 where a class stands that the sample's labels do not show."""
        if self.labelled is None:
            return [torch.where((t > 0) & (t < self.num_old), torch.zeros_like(t), t) for t in targets]
        allowed = F.pad(self.labelled, (1, 1), value=True)  # background, classes, ignore
        seen = [allowed.gather(1, t.long().flatten(1)).view_as(t) for t in targets]
        return [torch.where(s, t, torch.zeros_like(t)) for s, t in zip(seen, targets, strict=True)]

    def log_probs(self, logits: list[Tensor]) -> list[Tensor]:
        """Log-softmax at every scale that counts; a scale of weight 0 is passed on as it is."""
        return [x.log_softmax(1) if w != 0 else x for x, w in zip(logits, self.scale_weights, strict=True)]

    def unbiased_segmentation(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Label 0 is "background or a class that the labels do not show" (MiB's cross-entropy), plus the Dice; one scale."""
        labels, valid = self.split(target)
        if self.labelled is not None:
            shown = merge_unlabelled(log_probs, self.labelled)
            classes = [*self.refined, *range(self.num_old, log_probs.shape[1])]
            return masked_cross_entropy(shown, labels, valid) + self.labelled_dice(log_probs, target, classes)
        merged = merge_old_into_background(log_probs, self.num_old)
        labels = (labels - (self.num_old - 1)).clamp(min=0)
        return masked_cross_entropy(merged, labels, valid) + self.dice(merged, labels, valid, slice(1, None))

    def plain_segmentation(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Label 0 is background, plus the Dice of the new classes; one scale."""
        labels, valid = self.split(target)
        return masked_cross_entropy(log_probs, labels, valid) + self.new_dice(log_probs, target)

    def new_dice(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """The Dice of the new classes; one scale."""
        labels, valid = self.split(target)
        return self.dice(log_probs, labels, valid, slice(self.num_old, None))

    def dice(self, log_probs: Tensor, labels: Tensor, valid: Tensor | None, classes: slice) -> Tensor:
        """nnU-Net's soft Dice over the given channels, each standing for the label of its number."""
        return soft_dice_loss(log_probs, labels, valid, classes=classes, batch_dice=self.batch_dice, ddp=self.ddp)

    def labelled_dice(self, log_probs: Tensor, target: Tensor, classes: Sequence[int]) -> Tensor:
        """nnU-Net's soft Dice over the given channels, each over the samples whose labels show it."""
        assert self.labelled is not None
        labels, valid = self.split(target)
        channels = torch.tensor(classes, device=labels.device)
        return labelled_dice_loss(
            log_probs[:, channels].exp(),
            labels[:, None] == channels.view(1, -1, *[1] * (labels.ndim - 1)),
            self.labelled[:, channels - 1],
            valid,
            batch_dice=self.batch_dice,
            ddp=self.ddp,
        )

    def teacher_logits(self) -> Tensor:
        """(batch, K, *spatial); -inf for what a sample's labels decide."""
        return decided_by_labels(self.teacher.output.logits, self.labelled)

    def teacher_probs(self) -> Tensor:
        """(batch, K, *spatial) float32."""
        return self.teacher_logits().float().softmax(1)

    def teacher_classes(self) -> Tensor:
        """(batch, *spatial) int64: what the teacher sees in the whole case, or else its argmax on the patch."""
        return most_probable(self.teacher_logits()) if self.volume_classes is None else self.volume_classes

    def unlabelled(self, target: Tensor) -> Tensor:
        """U: (batch, 1, *spatial) -> (batch, *spatial) bool, where the labels name no class and the teacher may speak."""
        labels, valid = self.split(target)
        return labels == 0 if valid is None else (labels == 0) & valid

    def pseudo_labelled(self, targets: list[Tensor], predicted: Tensor | None = None) -> list[Tensor]:
        """The targets with the teacher's classes wherever they are 0, at every scale (nearest neighbour).

        Args:
            targets: as for ``terms``.
            predicted: ``teacher_classes``, where they are at hand.
        """
        predicted = self.teacher_classes() if predicted is None else predicted
        predicted = predicted[:, None].to(targets[0].dtype)
        filled = []
        for target in targets:
            own = predicted if target.shape == predicted.shape else resized(predicted, target.shape[2:])
            filled.append(torch.where(target == 0, own, target))
        return filled

    def over_scales(
        self, loss: Callable[[Tensor, Tensor], Tensor], logits: list[Tensor], targets: list[Tensor]
    ) -> Tensor:
        """sum_s weight_s loss(logits_s, target_s), the scales of weight 0 left out."""
        losses = [w * loss(x, y) for w, x, y in zip(self.scale_weights, logits, targets, strict=True) if w != 0]
        return torch.stack(losses).sum()

    def split(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """(batch, 1, *spatial) target -> (batch, *spatial) int64 labels, 0 where ignored, and bool validity."""
        labels = target[:, 0].long()
        if self.ignore_label is None:
            return labels, None
        valid = labels != self.ignore_label
        return labels * valid, valid

    def let_go(self) -> None:
        """Lets go of what hooks have kept of the last forward pass. For methods with readers of their own."""

    def _record(self, terms: dict[str, Tensor]) -> None:
        for name, value in terms.items():
            previous = self._sums.get(name)
            self._sums[name] = value.detach() if previous is None else previous + value.detach()
        self._num_recorded += 1

    def mean_terms(self) -> dict[str, float]:
        """Mean of each term over the training iterations (and ranks) since the last call."""
        names = sorted(self._sums)
        if not names:
            return {}
        # ranks may differ in the number of iterations only by a crash; the count travels with the sums
        sums = torch.stack(
            [
                *(self._sums[n].float() for n in names),
                torch.tensor(float(self._num_recorded), device=self._sums[names[0]].device),
            ]
        )
        *totals, count = sum_over_ranks(sums).tolist()
        self._sums, self._num_recorded = {}, 0
        return {name: total / count for name, total in zip(names, totals, strict=True)}


def decided_by_labels(logits: Tensor, labelled: Tensor | None) -> Tensor:
    """The teacher's logits, -inf for old classes that a sample's labels show: labels win.

    Args:
        logits: (batch, K, *spatial).
        labelled: as ``StepLoss.labelled``.
    """
    if labelled is None:
        return logits
    decided = F.pad(labelled[:, : logits.shape[1] - 1], (1, 0), value=False)
    return logits.masked_fill(decided.view(*decided.shape, *[1] * (logits.ndim - 2)), -torch.inf)


def resized(labels: Tensor, size: torch.Size) -> Tensor:
    """(batch, 1, *spatial) labels, by nearest neighbour, as nnU-Net does with the targets of the lower scales."""
    return F.interpolate(labels.float(), size, mode="nearest-exact").to(labels.dtype)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Leaves nnU-Net's autocast: sums over many voxels overflow in half precision."""
    if device.type == "cuda":
        context: AbstractContextManager[None] = torch.autocast("cuda", enabled=False)
        return context
    return nullcontext()
