"""The work of the two processes of test_ranks.py; importable by name, as a started process needs it."""

from __future__ import annotations

import torch
from torch import distributed
from toy import called, make_batch, make_pgcd_loss, make_setup

from nnunet_cil.losses.prototypes import class_means, cosine_alignment, labels_within, sum_over_ranks
from nnunet_cil.losses.segmentation import labelled_dice_loss
from nnunet_cil.networks.imprinting import Moments
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.networks.teacher import TeacherOutput
from nnunet_cil.training.class_choices import classes_by_label
from nnunet_cil.training.data import Tile
from nnunet_cil.training.locations import OldClassLocations
from nnunet_cil.training.passes import feature_sums
from nnunet_cil.training.step_loss import StepLoss


class TwoTerms(StepLoss):
    def terms(self, logits, targets, batch):
        return {"a": logits[0].sum(), "b": 2 * logits[0].sum()}


def data():
    torch.manual_seed(0)
    features = torch.randn(4, 5, 3, 4, dtype=torch.float64)
    labels = torch.randint(0, 3, (4, 3, 4))
    labels[:2][labels[:2] == 2] = 0  # the first rank never sees class 2
    return features, labels, torch.rand(4, 3, 4) > 0.2


def alignment(features, labels, mask):
    """Computes a DAPD-like loss; with ranks, the means are those of all ranks."""
    means, counts = class_means(features, labels_within(labels, mask, 3), 3)
    return means, counts, cosine_alignment(means, torch.eye(3, 5, dtype=torch.float64), counts > 0)


def pgcd_step(own, *, ddp):
    """Runs the whole loss forward and backward on the samples ``own`` of a batch of four; returns total and gradients."""
    torch.manual_seed(3)
    logits, features = torch.randn(4, 4, 3, 4)[own].requires_grad_(), torch.randn(4, 6, 3, 4)[own].requires_grad_()
    teacher = TeacherOutput(torch.randn(4, 3, 3, 4)[own], torch.randn(4, 6, 3, 4)[own])
    target = (torch.rand(4, 1, 3, 4) > 0.7).long()[own] * 3
    bank = PrototypeBank(torch.randn(3, 6), torch.ones(3))
    total = called(make_pgcd_loss(bank, 3, ddp=ddp), logits, target, make_batch(teacher, features))
    total.backward()
    return total.detach(), logits.grad, features.grad, bank.prototypes


def partial_dice(own, *, ddp):
    """Computes the Dice of labelled classes, and its gradient, on a batch of four without labels in the first two."""
    torch.manual_seed(5)
    probs, one_hot = torch.rand(4, 5, 3, 4)[own].requires_grad_(), (torch.rand(4, 5, 3, 4) > 0.5)[own]
    labelled = torch.tensor([[False] * 5] * 2 + [[True, False, True, False, False]] * 2)[own]
    loss = labelled_dice_loss(probs, one_hot, labelled, None, batch_dice=True, ddp=ddp)
    loss.backward()
    return loss.detach(), probs.grad


def collected(own):
    """Collects global prototypes over four tiles, dealt out to the ranks."""
    torch.manual_seed(4)
    cases = [
        Tile(torch.randn(1, 2, 3, 4), torch.randint(0, 2, (1, 3, 4)), torch.rand(1, 3, 4) > 0.1, f"case {i}", (0, 0, 0))
        for i in range(4)
    ]
    outputs = ((tile, -tile.images, tile.images * 2) for tile in cases[own])
    sums = feature_sums(outputs, classes_by_label(1, 1), num_classes=2, num_features=2)
    locations, moments = OldClassLocations(2), Moments(1, 2)
    for tile in cases[own]:
        locations.add(tile, tile.labels)
        moments.add(tile.images, tile.labels, tile.valid, 1)
    moments.sum_over_ranks(torch.device("cpu"))
    further = {"cases": locations.per_case(), "moments": moments.values}
    return PrototypeBank.from_sums(*(sum_over_ranks(s) for s in sums)).state_dict() | further


def work(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    own = slice(0, 2) if rank == 0 else slice(2, 4)
    features, labels, mask = (x[own] for x in data())
    features = features.clone().requires_grad_()
    means, counts, loss = alignment(features, labels, mask)
    loss.backward()
    terms = TwoTerms(make_setup())
    for _ in range(3):
        called(terms, torch.full((1, 1, 1, 1), float(rank), requires_grad=True), torch.zeros(1, 1, 1, 1))
    found = (means.detach(), counts, loss.detach(), features.grad, terms.mean_terms())
    found = (*found, pgcd_step(own, ddp=True), collected(own), partial_dice(own, ddp=True))
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()
