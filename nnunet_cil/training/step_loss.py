"""The loss of a step after the first: named terms of nnU-Net's output, its target and the batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_cil.errors import CILError
from nnunet_cil.losses.precision import full_precision
from nnunet_cil.losses.prototypes import sum_over_ranks
from nnunet_cil.losses.segmentation import (
    labelled_dice_loss,
    masked_cross_entropy,
    merge_old_into_background,
    merge_unlabelled,
    soft_dice_loss,
)
from nnunet_cil.networks.features import ActivationReader
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.hyperparameters import Settings


@dataclass(frozen=True, kw_only=True)
class LossSetup:
    """The arguments with which a trainer builds the loss of a step.

    Attributes:
        num_old: K, background included.
        ignore_label: the model's ignore label, or None.
        scale_weights: nnU-Net's weight of each deep-supervision scale, full resolution first.
        batch_dice: from nnU-Net's plans.
        ddp: training is distributed.
        refined: channels of the old classes that the step's labels show, too.
        channel_order: of regions, ``StepPlan.channel_order``.
        iteration: the number of training iterations that lie behind a resumed training.
        settings: the values of the trainer's hyper-parameters.
    """

    num_old: int
    ignore_label: int | None
    scale_weights: tuple[float, ...]
    batch_dice: bool
    ddp: bool
    refined: tuple[int, ...] = ()
    channel_order: tuple[int, ...] = ()
    iteration: int = 0
    settings: Settings = field(default_factory=Settings)


class StepLoss(nn.Module, ABC):
    """Sum of named terms; called by nnU-Net's training step like any loss of nnU-Net.

    Targets may name old classes, since the online score is taken against the teacher's prediction. The terms get 0 there, except
    for classes that the sample's labels show (``visible``). For these the labels win over the teacher.
    """

    first_class = 1
    """The channel of the first class; the background is before it."""

    readers: tuple[ActivationReader, ...] = ()
    """Activations that the terms read beside the features; a method fills it in its constructor."""

    def __init__(self, setup: LossSetup) -> None:
        """Keeps the layout of the channels and the settings for the terms."""
        super().__init__()
        self.num_old = setup.num_old
        self.ignore_label = setup.ignore_label
        self.scale_weights = setup.scale_weights
        self.batch_dice, self.ddp = setup.batch_dice, setup.ddp
        self.refined = setup.refined
        self._iteration = setup.iteration
        self.settings = setup.settings
        self._batch: Batch | None = None
        self._log_probs: tuple[list[Tensor], list[Tensor]] | None = None
        self._sums: dict[str, Tensor] = {}
        self._num_recorded = 0

    @abstractmethod
    def terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the weighted terms by name, () float32 each, 0 where no voxel belongs to a term.

        Args:
            logits: (batch, K+N, *spatial) float32 at each scale, full resolution first.
            targets: (batch, 1, *spatial) at each scale; 0, a new or otherwise labelled class, or the ignore label.
            batch: the teacher's output, the student's features, and the classes that the samples' labels show.
        """

    @contextmanager
    def on(self, batch: Batch) -> Iterator[None]:
        """Gives the terms access to ``batch`` as long as the context lasts; the loss keeps nothing of it."""
        with ExitStack() as stack:
            for reader in self.readers:
                stack.enter_context(reader.reading())
            self._batch = batch
            try:
                yield
            finally:
                self._batch = None

    def forward(self, output: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> Tensor:
        """Returns the total, () float32. As in nnU-Net, arguments are lists with deep supervision, else tensors."""
        if self._batch is None:
            raise RuntimeError("The loss of a step was called outside of 'with loss.on(batch)'.")
        logits = output if isinstance(output, (list, tuple)) else [output]
        targets = target if isinstance(target, (list, tuple)) else [target]
        targets = self.visible(targets, self._batch)
        with full_precision(logits[0].device):
            terms = self.all_terms([x.float() for x in logits], targets, self._batch)
        if torch.is_grad_enabled():
            self._record(terms)
            self._iteration += 1
        return torch.stack(list(terms.values())).sum()

    def all_terms(self, logits: list[Tensor], targets: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the method's terms, and old_dice where ``old_dice_weight`` is not 0; arguments as for ``terms``."""
        if not self.settings.old_dice_weight:
            return self.terms(logits, targets, batch)
        try:
            self._log_probs = logits, self.log_probs(logits)
            terms = self.terms(logits, targets, batch)
            filled = self.pseudo_labelled(targets, batch.teacher_classes)
            old_dice = self.over_scales(self._old_dice, self.log_probs(logits), filled, batch.absent)
        finally:
            self._log_probs = None
        return self.joined(terms, {"old_dice": self.settings.old_dice_weight * old_dice})

    def joined(self, terms: dict[str, Tensor], others: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the terms of both.

        Raises:
            CILError: a name is in both, and one term would replace the other.
        """
        if twice := sorted(terms.keys() & others.keys()):
            raise CILError(
                f"{type(self).__name__} has two loss terms {twice[0]!r}, and one would replace the other. Rename its own."
            )
        return {**terms, **others}

    def _old_dice(self, log_probs: Tensor, target: Tensor, absent: Tensor | None) -> Tensor:
        """Returns the Dice of the old classes at one scale, by targets that the teacher has filled.

        Those that a sample's case does not show (``Batch.absent``) have none there.
        """
        if absent is not None:
            return self.labelled_dice(log_probs, target, ~absent, range(self.first_class, self.num_old))
        labels, valid = self.split(target)
        return self.dice(log_probs, labels, valid, slice(self.first_class, self.num_old))

    def distilled(self, terms: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Returns the terms that ask the teacher, in every k-th training iteration only, k times as large.

        k is the hyper-parameter ``distillation_interval``: the mean over k iterations is what it is at k = 1, and the teacher
        runs in one of them. A validation iteration, without gradients, has the terms always, and once. Source: the lazy
        regularisation of Karras et al. 2020, https://arxiv.org/abs/1912.04958.

        Args:
            terms: computes them.
        """
        if not torch.is_grad_enabled():
            return terms()
        interval: int = self.settings.distillation_interval
        if self._iteration % interval:
            return {}
        return {name: interval * value for name, value in terms().items()}

    def visible(self, targets: list[Tensor], batch: Batch) -> list[Tensor]:
        """Returns the targets that the terms get: 0 in place of a class that the sample's labels do not show."""
        if batch.labelled is None:
            return [torch.where((t > 0) & (t < self.num_old), torch.zeros_like(t), t) for t in targets]
        allowed = F.pad(batch.labelled, (1, 1), value=True)  # background, classes, ignore
        seen = [allowed.gather(1, t.long().flatten(1)).view_as(t) for t in targets]
        return [torch.where(s, t, torch.zeros_like(t)) for s, t in zip(seen, targets, strict=True)]

    def log_probs(self, logits: list[Tensor]) -> list[Tensor]:
        """Returns the log-softmax at every scale that has a weight; a scale of weight 0 is returned as it is.

        The method's terms and the Dice of old classes share it.
        """
        if self._log_probs is not None and self._log_probs[0] is logits:
            return self._log_probs[1]
        return [x.log_softmax(1) if w != 0 else x for x, w in zip(logits, self.scale_weights, strict=True)]

    def unbiased_segmentation(self, log_probs: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Returns MiB's cross-entropy plus the Dice at one scale; label 0 is background or an unlabelled class."""
        labels, valid = self.split(target)
        if batch.labelled is not None:
            merged = merge_unlabelled(log_probs, batch.labelled)
            classes = [*self.refined, *range(self.num_old, log_probs.shape[1])]
            dice = self.labelled_dice(log_probs, target, batch.labelled, classes)
            return masked_cross_entropy(merged, labels, valid) + dice
        merged = merge_old_into_background(log_probs, self.num_old)
        labels = (labels - (self.num_old - 1)).clamp(min=0)
        return masked_cross_entropy(merged, labels, valid) + self.dice(merged, labels, valid, slice(1, None))

    def plain_segmentation(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Returns cross-entropy plus the Dice of the new classes at one scale; label 0 is background."""
        labels, valid = self.split(target)
        return masked_cross_entropy(log_probs, labels, valid) + self.new_dice(log_probs, target)

    def new_dice(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Returns the Dice of the new classes at one scale."""
        labels, valid = self.split(target)
        return self.dice(log_probs, labels, valid, slice(self.num_old, None))

    def dice(self, log_probs: Tensor, labels: Tensor, valid: Tensor | None, classes: slice) -> Tensor:
        """Returns nnU-Net's soft Dice over the given channels, each standing for the label of its number."""
        return soft_dice_loss(log_probs, labels, valid, classes=classes, batch_dice=self.batch_dice, ddp=self.ddp)

    def labelled_dice(self, log_probs: Tensor, target: Tensor, labelled: Tensor, classes: Sequence[int]) -> Tensor:
        """Returns nnU-Net's soft Dice over the given channels, each over the samples that show it (``Batch.labelled``)."""
        labels, valid = self.split(target)
        channels = torch.tensor(classes, device=labels.device)
        return labelled_dice_loss(
            log_probs[:, channels].exp(),
            labels[:, None] == channels.view(1, -1, *[1] * (labels.ndim - 1)),
            labelled[:, channels - 1],
            valid,
            batch_dice=self.batch_dice,
            ddp=self.ddp,
        )

    def unlabelled(self, target: Tensor) -> Tensor:
        """Returns U, (batch, *spatial) bool: where the labels (batch, 1, *spatial) name no class; the teacher decides there."""
        labels, valid = self.split(target)
        return labels == 0 if valid is None else (labels == 0) & valid

    def pseudo_labelled(self, targets: list[Tensor], predicted: Tensor) -> list[Tensor]:
        """Fills the targets with the teacher's classes where they are 0, at every scale (nearest neighbour).

        Args:
            targets: as for ``terms``.
            predicted: (batch, *spatial) integers, ``Batch.teacher_classes``.

        Returns:
            Tensors of the shapes and dtypes of ``targets``.
        """
        predicted = predicted[:, None].to(targets[0].dtype)
        filled = []
        for target in targets:
            own = predicted if target.shape == predicted.shape else resized(predicted, target.shape[2:])
            filled.append(torch.where(target == 0, own, target))
        return filled

    def over_scales(
        self, loss: Callable[..., Tensor], logits: list[Tensor], targets: list[Tensor], *others: Any
    ) -> Tensor:
        """Returns sum_s weight_s loss(logits_s, target_s, *others), without the scales of weight 0."""
        scales = zip(self.scale_weights, logits, targets, strict=True)
        return torch.stack([w * loss(x, y, *others) for w, x, y in scales if w != 0]).sum()

    def split(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Splits a (batch, 1, *spatial) target into labels and the mask of valid voxels.

        Returns:
            Labels (batch, *spatial) int64, 0 where ignored; and (batch, *spatial) bool, None where all voxels are valid.
        """
        labels = target[:, 0].long()
        if self.ignore_label is None:
            return labels, None
        valid = labels != self.ignore_label
        return labels * valid, valid

    def _record(self, terms: dict[str, Tensor]) -> None:
        for name, value in terms.items():
            previous = self._sums.get(name)
            self._sums[name] = value.detach() if previous is None else previous + value.detach()
        self._num_recorded += 1

    def mean_terms(self) -> dict[str, float]:
        """Returns the mean of each term over the training iterations (and ranks) since the last call; empty if none."""
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


def resized(labels: Tensor, size: torch.Size) -> Tensor:
    """Resizes (batch, 1, *spatial) labels by nearest neighbour, as nnU-Net does with the targets of the lower scales.

    By index, since not every device resizes volumes (MPS before PyTorch 2.8).
    """
    for axis, (now, then) in enumerate(zip(labels.shape[2:], size, strict=True), start=2):
        if now != then:
            centres = torch.arange(then, device=labels.device, dtype=torch.float32) + 0.5
            labels = labels.index_select(axis, (centres * (now / then)).long().clamp(max=now - 1))
    return labels
