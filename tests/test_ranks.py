"""Everything that is averaged over voxels is averaged over the ranks: two processes, gloo, on the CPU."""

import pytest
import torch
from ranks import alignment, data, work
from torch import multiprocessing

pytestmark = pytest.mark.slow


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
