"""Everything that is averaged over voxels is averaged over the ranks: two processes, gloo, on the CPU."""

import pytest
import torch
from ranks import alignment, collected, data, partial_dice, pgcd_step, work
from torch import multiprocessing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Returns the results of the two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_prototypes_and_terms_are_those_of_all_ranks_with_gradient(found):
    features, labels, mask = data()
    features.requires_grad_()
    means, counts, loss = alignment(features, labels, mask)
    loss.backward()
    for rank in range(2):
        m, n, value, gradient, terms, *_ = found[rank]
        assert torch.allclose(m, means)
        assert torch.equal(n, counts)
        assert torch.allclose(value, loss)
        # the gather's backward sums over ranks; DDP divides by their number
        assert torch.allclose(gradient / 2, features.grad[rank * 2 : rank * 2 + 2])
        assert terms == pytest.approx({"a": 0.5, "b": 1.0})


def test_pgcd_on_two_ranks_is_pgcd_on_the_whole_batch(found):
    total, logits, features, prototypes = pgcd_step(slice(0, 4), ddp=False)
    totals = []
    for rank in range(2):
        value, logits_here, features_here, prototypes_here = found[rank][5]
        own = slice(rank * 2, rank * 2 + 2)
        assert torch.allclose(logits_here / 2, logits[own], atol=1e-6)
        assert torch.allclose(features_here / 2, features[own], atol=1e-6)
        assert torch.allclose(prototypes_here, prototypes, atol=1e-6)
        totals.append(value)
    assert torch.allclose(sum(totals) / 2, total, atol=1e-5)


def test_global_prototypes_are_collected_over_all_ranks(found):
    expected = collected(slice(0, 4))
    for rank in range(2):
        assert torch.allclose(found[rank][6]["prototypes"], expected["prototypes"])
        assert torch.equal(found[rank][6]["counts"], expected["counts"])
        assert torch.allclose(found[rank][6]["moments"], expected["moments"])
        assert torch.equal(found[rank][6]["moments"], found[0][6]["moments"])  # all begin with the same weights
        assert sorted(found[rank][6]["cases"]) == sorted(expected["cases"]) == [f"case {i}" for i in range(4)]


def test_a_class_that_only_another_ranks_samples_show_counts(found):
    total, gradient = partial_dice(slice(0, 4), ddp=False)
    assert -1 <= total <= 0
    for rank in range(2):
        value, gradient_here = found[rank][7]
        assert torch.allclose(value, total)
        assert torch.allclose(gradient_here / 2, gradient[rank * 2 : rank * 2 + 2])
