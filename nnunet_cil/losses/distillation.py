"""Distillation terms: the student's distribution against the teacher's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_cil.losses.precision import EPSILON


def distillation_loss(student_log_probs: Tensor, teacher_probs: Tensor, valid: Tensor | None) -> Tensor:
    """Computes the distillation loss, in which every voxel and class has the same weight.

    L = -(1/(K |valid|)) sum_{v valid} sum_{c<K} p_c(v) log q_c(v).

    With q = softmax over the student's first K logits it is the distillation of Learning without Forgetting (Li &
    Hoiem 2016, https://arxiv.org/abs/1606.09282) at temperature 1; with q from ``merge_new_into_background`` it is
    MiB's unbiased distillation (Cermelli et al. 2020, https://arxiv.org/abs/2002.00718, equation 9).

    Args:
        student_log_probs: (batch, K, *spatial) float, log q.
        teacher_probs: (batch, K, *spatial) float, p; sums to 1 over the classes.
        valid: (batch, *spatial) bool, or None for all.

    Returns:
        () float >= 0; its least value is the teacher's entropy over K. Exactly 0 on the graph where no voxel is valid.
    """
    losses = -(teacher_probs * student_log_probs).mean(1)
    if valid is None:
        return losses.mean()
    return (losses * valid).sum() / valid.sum().clamp(min=1)


def pgcd_loss(
    student_log_probs: Tensor,
    teacher_probs: Tensor,
    resemblance: Tensor,
    asked: Tensor,
    *,
    beta: float,
    num_voxels: int | Tensor | None = None,
) -> Tensor:
    """Computes Prototype-Guided Calibration Distillation: class-wise, each class with weights of its own.

    L = 1/(2K |valid|) sum_v sum_{c<K} u_c(v) w_c(v) KL_b(p_c(v) || q_c(v)),
    w_0 = 1,  w_c(v) = 1 + beta * r_c(v) for old classes c,
    KL_b(p || q) = p log(p/q) + (1-p) log((1-p)/(1-q)), with p and 1-q clamped at 1e-6.

    p is the teacher, q the student on the same classes: its own background where the labels say that no new class is there,
    or with new classes merged into it. r is the similarity of the teacher's features to the prototypes, or its mean over each
    class's own voxels (``PGCDLoss``). The binary divergences keep the optimum at q = p whatever the weights; class-wise weights
    inside one softmax divergence would move it to q proportional to w p. The background's weight is never below 1: no other term
    punishes false old classes.

    Source: our reading of Zhu et al. 2025, Class Incremental Medical Image Segmentation via Prototype-Guided
    Calibration and Dual-Aligned Distillation, https://arxiv.org/abs/2511.07749; the equation is ours. The merge is
    that of Cermelli et al. 2020, https://arxiv.org/abs/2002.00718.

    Args:
        student_log_probs: (batch, K, *spatial) float, log q; sums to at most 1 over the classes.
        teacher_probs: (batch, K, *spatial) float, p.
        resemblance: (batch, K, *spatial) float in [0, 1], r.
        asked: (batch, 1 or K, *spatial) bool or float, u: 1 where the teacher is asked, 0 where not, as where the labels name a
            new class; more for a class that a case does not show.
        beta: strength of the calibration; 0 is uniform distillation.
        num_voxels: |valid|, at least 1; default: all voxels of these tensors.

    Returns:
        () float >= 0; exactly 0 on the graph where the teacher is asked nowhere.
    """
    num_classes = teacher_probs.shape[1]
    if num_voxels is None:
        num_voxels = teacher_probs[:, 0].numel()
    weight = resemblance.mul(beta).add_(1)
    weight[:, 0].fill_(1)
    weight *= asked
    total: Tensor = _WeightedDivergence.apply(student_log_probs, teacher_probs, weight)
    return total / (2 * num_classes * num_voxels)


class _WeightedDivergence(torch.autograd.Function):
    """sum_v sum_c w_c(v) KL_b(p_c(v) || q_c(v)), with its gradient in closed form: few passes over large tensors.

    With respect to log q it is w ((1-p) q / (1-q) - p) = w (q - p) / (1 - q), and -w p where 1 - q is clamped. log q itself
    stays unclamped: with a clamp, a voxel with q < 1e-6 would get no gradient. The one logarithm of (1-p)/(1-q), in place of
    two ``log1p``, which are slow on a CPU, is exact to the last digits of 1-p and 1-q.
    """

    @staticmethod
    def forward(ctx: Any, log_q: Tensor, p: Tensor, weight: Tensor) -> Tensor:
        p = p.clamp(EPSILON, 1 - EPSILON)
        q = log_q.exp()
        not_p, not_q = 1 - p, 1 - q
        if ctx.needs_input_grad[0]:
            odds = q.div_(F.threshold(not_q, EPSILON, torch.inf))  # 0 where 1 - q is clamped
            ctx.save_for_backward(odds.mul_(not_p).sub_(p).mul_(weight))
        divergence = not_p.div_(not_q.clamp_(min=EPSILON)).log_().lerp_(p.log().sub_(log_q), p)
        return torch.dot(weight.flatten(), divergence.flatten())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None
