"""Counts what a step's loss costs; nothing is timed."""

import pytest
import torch
from counting import Counting
from toy import called, make_batch, make_pgcd_loss, make_setup

from nnunet_cil.losses import chunks, sums
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.networks.teacher import TeacherOutput
from nnunet_cil.training.methods.mib import MiBLoss
from nnunet_cil.training.methods.pgcd_base import WEIGHTINGS

FEATURES, SPATIAL, BATCH = 7, (6, 5, 4), 2
NUM_VOXELS = BATCH * 6 * 5 * 4


def setting(num_old, ignore_label=None):
    """Draws a batch, the student's logits and the targets, at two scales."""
    torch.manual_seed(0)
    sizes = [SPATIAL, (3, 2, 2)]
    teacher = TeacherOutput(torch.randn(BATCH, num_old, *SPATIAL), torch.randn(BATCH, FEATURES, *SPATIAL))
    features = torch.randn(BATCH, FEATURES, *SPATIAL, requires_grad=True)
    batch = make_batch(teacher, features)
    logits = [torch.randn(BATCH, num_old + 1, *s, requires_grad=True) for s in sizes]
    targets = [torch.randint(0, 2, (BATCH, 1, *s)) * num_old for s in sizes]
    return batch, logits, targets


def pgcd(num_old, ignore_label=None, **changed):
    bank = PrototypeBank(torch.randn(num_old, FEATURES), torch.ones(num_old))
    return make_pgcd_loss(bank, num_old, ignore_label, (0.7, 0.3), **changed)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("ignore_label", [None, 6])
def test_a_step_of_pgcd_never_waits_for_the_host(ignore_label, weighting):
    batch, logits, targets = setting(5, ignore_label)
    loss = pgcd(5, ignore_label, pgcd_weighting=weighting)
    with Counting() as counting:
        called(loss, logits, targets, batch).backward()
    assert counting.waits == {}


def test_no_tensor_of_pgcd_has_the_size_of_classes_times_features_times_voxels(monkeypatch):
    monkeypatch.setattr(sums, "_LANES", 4)  # whose number does not depend on that of the voxels
    batch, logits, targets = setting(11)
    loss = pgcd(11)
    with Counting() as counting:
        called(loss, logits, targets, batch).backward()
    largest = max(torch.Size(s).numel() for s in counting.shapes)
    assert largest <= 12 * NUM_VOXELS  # the logits'


def test_what_a_term_of_pgcd_holds_is_no_more_than_twice_the_logits(monkeypatch):
    monkeypatch.setitem(chunks.CHUNK_ELEMENTS, "cpu", 60)
    batch, logits, targets = setting(11)
    loss = pgcd(11)
    with Counting() as counting:
        total = called(loss, logits, targets, batch)
    logits_size = sum(x.numel() for x in logits) * 4
    held = counting.held()
    assert total.requires_grad
    assert {"_pgcd", "_dapd", "_old_dice"} <= set(held)
    assert max(held.values()) <= 2 * logits_size
    assert counting.peaks["_pgcd"] <= 1.5 * logits_size


def test_waits_and_sizes_are_seen():
    def terms(x):
        return x[x > 0].sum() + x.sum().item() + (x[:, None] * x).sum()

    _, logits, _ = setting(2)
    loss = MiBLoss(make_setup(2))
    loss.terms = lambda _logits, _targets, _batch: {"a": terms(logits[0].flatten())}
    with Counting() as counting:
        held = called(loss, [logits[0]], [torch.zeros(BATCH, 1, *SPATIAL)])
    assert counting.waits.total() == 2
    assert (3 * NUM_VOXELS, 3 * NUM_VOXELS) in counting.shapes
    assert counting.peak >= 4 * (3 * NUM_VOXELS) ** 2
    assert held.requires_grad
