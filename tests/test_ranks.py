"""Everything that is averaged over voxels is averaged over the ranks: two processes, gloo, on the CPU."""

import os

import pytest
import torch
from torch import distributed, multiprocessing

from nnunet_cil.losses.prototypes import class_masks, cosine_alignment, masked_means
from nnunet_cil.training.step_loss import StepLoss

pytestmark = pytest.mark.slow


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
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29517")
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


def test_prototypes_and_terms_are_those_of_all_ranks_with_gradient(tmp_path):
    multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=2)
    features, labels, mask = data()
    features.requires_grad_()
    means, counts, loss = alignment(features, labels, mask)
    loss.backward()
    for rank in range(2):
        m, n, value, gradient, terms = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert torch.allclose(m, means)
        assert torch.equal(n, counts)
        assert torch.allclose(value, loss)
        # the gather's backward sums over ranks; DDP divides by their number
        assert torch.allclose(gradient / 2, features.grad[rank * 2 : rank * 2 + 2])
        assert terms == pytest.approx({"a": 0.5, "b": 1.0})
