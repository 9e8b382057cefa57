"""What each of two processes does in test_ranks.py; importable by name, as a started process needs it."""

from __future__ import annotations

import torch
from torch import distributed

from nnunet_cil.losses.prototypes import class_masks, cosine_alignment, masked_means
from nnunet_cil.training.step_loss import StepLoss


class TwoTerms(StepLoss):
    def terms(self, logits, targets):
        return {"a": logits[0].sum(), "b": 2 * logits[0].sum()}


def data():
    torch.manual_seed(0)
    features = torch.randn(4, 5, 3, 4, dtype=torch.float64)
    labels = torch.randint(0, 3, (4, 3, 4))
    labels[:2][labels[:2] == 2] = 0  # the first rank never sees class 2
    return features, labels, torch.rand(4, 3, 4) > 0.2


def alignment(features, labels, mask):
    """A DAPD-like loss; with ranks, the means are those of all ranks."""
    means, counts = masked_means(features, class_masks(labels, mask, 3))
    return means, counts, cosine_alignment(means, torch.eye(3, 5, dtype=torch.float64), counts > 0)


def work(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    own = slice(0, 2) if rank == 0 else slice(2, 4)
    features, labels, mask = (x[own] for x in data())
    features = features.clone().requires_grad_()
    means, counts, loss = alignment(features, labels, mask)
    loss.backward()
    terms = TwoTerms(1, None, (1.0,))
    for _ in range(3):
        terms(torch.full((1, 1, 1, 1), float(rank), requires_grad=True), torch.zeros(1, 1, 1, 1))
    torch.save((means.detach(), counts, loss.detach(), features.grad, terms.mean_terms()), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()
