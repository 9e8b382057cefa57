"""Segmentation terms under labels that hide the old classes.

Notation: K channels are old (background included), N are new; ``*spatial`` is two or three axes.
"""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor
from torch.nn import functional as F

from nnunet_cil.losses.prototypes import sum_over_ranks
from nnunet_cil.losses.sums import avoids_atomics, sums_by_class

_SMOOTH = 1e-5
"""nnU-Net's value."""


def merge_old_into_background(log_probs: Tensor, num_old: int) -> Tensor:
    """Merges the student's old classes into its background, as the labels of the step do.

    log q~_0 = logsumexp_{c<K} log p_c;  log q~_c = log p_c for c >= K.

    Source: Cermelli et al. 2020, Modeling the Background for Incremental Learning in Semantic Segmentation,
    https://arxiv.org/abs/2002.00718, section 3.2.

    Args:
        log_probs: (batch, K+N, *spatial) float, log-softmax of the student's logits.
        num_old: K, background included.

    Returns:
        (batch, 1+N, *spatial) float log-probabilities. With K = 1 the input itself.
    """
    if num_old == 1:
        return log_probs
    merged: Tensor = _MergeOthers.apply(log_probs, slice(num_old, log_probs.shape[1]))
    return merged


def merge_unlabelled(log_probs: Tensor, labelled: Tensor) -> Tensor:
    """Merges, in each sample, the classes that its labels do not show into the background.

    log q~_0 = logsumexp_{c = 0 or c not labelled} log p_c;  log q~_c = log p_c for labelled c. This is
    ``merge_old_into_background`` with a set of labelled classes for each sample, and with the channels left in place.

    Args:
        log_probs: (batch, classes, *spatial) float, log-softmax of the student's logits.
        labelled: (batch, classes - 1) bool, the foreground classes that the sample's labels show.

    Returns:
        (batch, classes, *spatial) float log-probabilities. Channels of unlabelled classes stay log p_c, and no label refers to
        them. Where nothing is labelled, log q~_0 is 0.
    """
    hidden = F.pad(~labelled, (1, 0), value=True)
    hidden = hidden.view(*hidden.shape, *[1] * (log_probs.ndim - 2))
    background = log_probs.masked_fill(~hidden, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([background, log_probs[:, 1:]], dim=1)


def merge_new_into_background(log_probs: Tensor, num_old: int) -> Tensor:
    """Merges the student's new classes into its background, as the teacher does.

    log q^_0 = logsumexp_{c in {0} and c>=K} log p_c;  log q^_c = log p_c for 0 < c < K.

    Source: Cermelli et al. 2020, https://arxiv.org/abs/2002.00718, section 3.2.

    Args:
        log_probs: (batch, K+N, *spatial) float, log-softmax of the student's logits.
        num_old: K, background included.

    Returns:
        (batch, K, *spatial) float log-probabilities.
    """
    merged: Tensor = _MergeOthers.apply(log_probs, slice(1, num_old))
    return merged


class _MergeOthers(torch.autograd.Function):
    """Merges the channels outside of ``kept`` into one, logsumexp_{c not kept} log p_c, in front of those of ``kept``.

    The gradient of log q_0 reaches the merged channels in shares of p_c / q_0, and is written into one tensor. Autograd would
    fill a tensor of the size of ``log_probs`` for every slice, and add them up.
    """

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, kept: slice) -> Tensor:
        before, after = log_probs[:, : kept.start], log_probs[:, kept.stop :]
        background = torch.logaddexp(before.logsumexp(1, keepdim=True), after.logsumexp(1, keepdim=True))
        ctx.save_for_backward(log_probs, background)
        ctx.kept = kept
        return torch.cat([background, log_probs[:, kept]], dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        log_probs, background = ctx.saved_tensors
        gradient = torch.empty_like(log_probs)
        gradient[:, ctx.kept] = grad_output[:, 1:]
        for merged in (slice(ctx.kept.start), slice(ctx.kept.stop, None)):
            share = torch.sub(log_probs[:, merged], background, out=gradient[:, merged]).exp_()
            share *= grad_output[:, :1]
        return gradient, None


def masked_cross_entropy(log_probs: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
    """Computes the cross-entropy over valid voxels, L = -(1/|valid|) sum_v log p_{y_v}(v).

    Args:
        log_probs: (batch, classes, *spatial) float log-probabilities.
        labels: (batch, *spatial) int64 in [0, classes).
        valid: (batch, *spatial) bool, or None for all.

    Returns:
        () float >= 0; exactly 0 on the graph where no voxel is valid.
    """
    if valid is None and not avoids_atomics(log_probs.device):
        return F.nll_loss(log_probs, labels)
    losses = F.nll_loss(log_probs, labels, reduction="none")
    if valid is None:
        return losses.mean()
    return (losses * valid).sum() / valid.sum().clamp(min=1)


def soft_dice_loss(
    log_probs: Tensor,
    labels: Tensor,
    valid: Tensor | None,
    *,
    classes: slice,
    batch_dice: bool,
    ddp: bool = False,
) -> Tensor:
    """Computes nnU-Net's soft Dice loss over the given classes only, -mean_c (2 TP + s) / (sum p + sum y + s).

    Old classes have no target in the step's labels; a Dice over them would drive them to zero everywhere, so the
    caller leaves them out. The value is that of nnU-Net's MemoryEfficientSoftDiceLoss, from labels in place of a one-hot
    target: no tensor of the size of ``log_probs`` is saved for the backward pass.

    Args:
        log_probs: (batch, channels, *spatial) float, log-probabilities; channel c is that of label c.
        labels: (batch, *spatial) int64.
        valid: (batch, *spatial) bool, or None for all.
        classes: the channels that have a target; an argument, since autograd's gradient of a slice of
            ``log_probs`` would be a tensor of zeros and a copy.
        batch_dice: sum over the batch before the ratio is taken, as in nnU-Net's plans.
        ddp: sum over the ranks too (with ``batch_dice``).

    Returns:
        () float in [-1, 0]; -1, with a gradient of 0, where no voxel is valid. As in nnU-Net, the Dice of a class that is neither
        labelled nor predicted is 1. 0 where there are no classes.
    """
    first, stop, _ = classes.indices(log_probs.shape[1])
    channels = stop - first
    if channels == 0:
        return log_probs.new_zeros(())
    index = labels.flatten(1) - first
    inside = (index >= 0) & (index < channels)
    if valid is not None:
        valid = valid.flatten(1)
        inside &= valid
    index = index.clamp_(0, channels - 1)
    predicted, hits = _ClassSums.apply(log_probs, classes, index, inside, valid)
    labelled = sums_by_class(inside[:, None].to(hits.dtype), index, channels)[:, 0]
    sums = [predicted, hits, labelled]
    if batch_dice:
        sums = [sum_over_ranks(s.sum(0)) if ddp else s.sum(0) for s in sums]
    predicted, hits, labelled = sums
    loss: Tensor = -((2 * hits + _SMOOTH) / (labelled + predicted + _SMOOTH).clamp(min=1e-8)).mean()
    return loss


class _ClassSums(torch.autograd.Function):
    """Computes sum_v p_c(v) and sum_v p_c(v) [y(v) = c] of every sample and class, (batch, classes) each."""

    @staticmethod
    def forward(
        ctx: Any, log_probs: Tensor, classes: slice, index: Tensor, inside: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        probs = log_probs[:, classes].flatten(2).exp()
        own = probs.gather(1, index[:, None])[:, 0] * inside
        hits = sums_by_class(own[:, None], index, probs.shape[1])[:, 0]
        ctx.save_for_backward(log_probs, index, own, valid)
        ctx.classes = classes
        predicted = probs.sum(2) if valid is None else (probs @ valid[:, :, None].to(probs.dtype))[:, :, 0]
        return predicted, hits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_predicted: Tensor, of_hits: Tensor) -> tuple[Tensor, None, None, None, None]:
        log_probs, index, own, valid = ctx.saved_tensors
        gradient = log_probs.new_zeros(log_probs.shape)
        part = gradient[:, ctx.classes].flatten(2)  # a view
        torch.exp(log_probs[:, ctx.classes].flatten(2), out=part).mul_(of_predicted[:, :, None])
        if valid is not None:
            part *= valid[:, None]
        part.scatter_add_(1, index[:, None], (own * of_hits.gather(1, index))[:, None])
        return gradient, None, None, None, None


def labelled_dice_loss(
    probs: Tensor,
    one_hot: Tensor,
    labelled: Tensor,
    valid: Tensor | None,
    *,
    batch_dice: bool,
    ddp: bool = False,
) -> Tensor:
    """Computes ``soft_dice_loss`` over those classes of each sample that its labels show.

    Args:
        probs: (batch, channels, *spatial) float probabilities.
        one_hot: (batch, channels, *spatial) bool or float, the targets of the same channels.
        labelled: (batch, channels) bool.
        valid: (batch, *spatial) bool, or None for all.
        batch_dice: as in ``soft_dice_loss``; a class counts where any sample of the batch shows it.
        ddp: as in ``soft_dice_loss``.

    Returns:
        () float in [-1, 0]; 0 on the graph where nothing is labelled.
    """
    mask = labelled.view(*labelled.shape, *[1] * (probs.ndim - 2))
    mask = mask.expand_as(probs) if valid is None else mask & valid[:, None]
    dice = MemoryEfficientSoftDiceLoss(batch_dice=batch_dice, do_bg=True, smooth=_SMOOTH, ddp=ddp)
    counted = (labelled.any(0) if batch_dice else labelled).float()
    if batch_dice and ddp:
        counted = sum_over_ranks(counted).clamp(max=1)
    # an empty mask has a Dice of 1, without gradient: it is removed from the mean
    share = counted.mean()
    loss: Tensor = dice(probs, one_hot, loss_mask=mask) + (1 - share)
    return loss / share.clamp(min=1 / counted.numel())
