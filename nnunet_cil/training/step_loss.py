"""The loss of a step after the first: named terms over nnU-Net's output and target."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from nnunet_cil.losses.prototypes import sum_over_ranks


class StepLoss(nn.Module):
    """Sum of named terms; called by nnU-Net's training step like any loss of nnU-Net.

    Targets may name old classes (the online score is taken against the teacher's prediction): the terms never
    see these, they get 0 there.
    """

    def __init__(self, num_old: int, ignore_label: int | None, scale_weights: Sequence[float]) -> None:
        """Keeps the layout of the channels.

        Args:
            num_old: K, background included.
            ignore_label: the model's ignore label, or None.
            scale_weights: nnU-Net's weight of each deep-supervision scale, full resolution first.
        """
        super().__init__()
        self.num_old = num_old
        self.ignore_label = ignore_label
        self.scale_weights = tuple(scale_weights)
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
        targets = [torch.where((t > 0) & (t < self.num_old), torch.zeros_like(t), t) for t in targets]
        with full_precision(logits[0].device):
            terms = self.terms([x.float() for x in logits], targets)
        if torch.is_grad_enabled():
            self._record(terms)
        return torch.stack(list(terms.values())).sum()

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


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Leaves nnU-Net's autocast: sums over many voxels overflow in half precision."""
    if device.type == "cuda":
        context: AbstractContextManager[None] = torch.autocast("cuda", enabled=False)
        return context
    return nullcontext()
