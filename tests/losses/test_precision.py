"""The terms keep their digits: far from the origin, under autocast on any device, and where nothing is known."""

import pytest
import torch
from torch.nn import functional as F
from toy import PGCD_SETTINGS, called, make_batch, make_pgcd_loss, make_setup

from nnunet_cil.losses.distillation import pgcd_loss
from nnunet_cil.losses.precision import full_precision
from nnunet_cil.losses.prototypes import prototype_similarity
from nnunet_cil.losses.segmentation import merge_new_into_background, soft_dice_loss
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.networks.teacher import TeacherOutput
from nnunet_cil.training.methods.lwf import LwFLoss
from nnunet_cil.training.methods.mib import MiBLoss

HALVES = [torch.bfloat16, torch.float16]
SPATIAL = (4, 5, 3)


def drawn(shift=0.0, channels=6, num_classes=4):
    """Features (2, channels, *SPATIAL) and prototypes, both around ``shift``."""
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(2, channels, *SPATIAL, generator=generator) + shift,
        torch.randn(num_classes, channels, generator=generator) + shift,
    )


def in_double(features, prototypes, known, temperature):
    """The equation as it stands, in float64, and 0 for unknown classes."""
    p = prototypes[known].double()
    centred = features.double() - p.mean(0).view(1, -1, 1, 1, 1)
    cosines = torch.stack([F.cosine_similarity(centred, (c - p.mean(0)).view(1, -1, 1, 1, 1), dim=1) for c in p], 1)
    similarity = torch.zeros(2, len(known), *SPATIAL, dtype=torch.float64)
    similarity[:, known] = (cosines / temperature).softmax(1)
    return similarity


@pytest.mark.parametrize("known", [(True, True, True, True), (True, False, True, True)])
@pytest.mark.parametrize("shift", [0.0, -40.0, 700.0, 5000.0])
def test_the_similarity_keeps_its_digits_far_from_the_origin(shift, known):
    (features, prototypes), known = drawn(shift), torch.tensor(known)
    got = prototype_similarity(features, prototypes, known, temperature=0.1)
    expected = in_double(features, prototypes, known, 0.1)
    assert got.dtype == torch.float32
    # the mean of the prototypes is rounded once: 6e-8 of the shift, over distances of about 1 and a temperature of 0.1
    assert torch.allclose(got.double(), expected, atol=1e-6 + 4e-7 * abs(shift))


@pytest.mark.parametrize("shift", [0.0, 300.0])
@pytest.mark.parametrize("half", HALVES)
def test_autocast_does_not_change_the_similarity(half, shift):
    (features, prototypes), known = drawn(shift), torch.ones(4, dtype=torch.bool)
    plain = prototype_similarity(features, prototypes, known, temperature=0.1)
    with torch.autocast("cpu", dtype=half):
        assert torch.equal(prototype_similarity(features, prototypes, known, temperature=0.1), plain)


@pytest.mark.parametrize("half", HALVES)
def test_the_similarity_of_half_precision_features_is_that_of_their_values(half):
    (features, prototypes), known = drawn(60.0), torch.ones(4, dtype=torch.bool)
    features = features.to(half)
    got = prototype_similarity(features, prototypes, known, temperature=0.2)
    assert torch.allclose(got.double(), in_double(features, prototypes, known, 0.2), atol=1e-4)


def test_the_similarity_is_zero_where_no_class_has_a_prototype():
    features, prototypes = drawn()
    unknown = torch.zeros(4, dtype=torch.bool)
    assert torch.equal(
        prototype_similarity(features, torch.zeros_like(prototypes), unknown, temperature=0.1),
        torch.zeros(2, 4, *SPATIAL),
    )


def test_the_similarity_to_the_only_known_class_is_one():
    features, prototypes = drawn()
    known = torch.tensor([False, False, True, False])
    got = prototype_similarity(features, prototypes, known, temperature=0.1)
    assert torch.equal(got, known.float().view(1, 4, 1, 1, 1).expand_as(got))


def setting(num_old, dtype=torch.float32):
    """Logits and targets at one scale with one new class, and the batch with teacher and features."""
    generator = torch.Generator().manual_seed(5)
    teacher, features, logits = (
        torch.randn(2, n, *SPATIAL, generator=generator).to(dtype) for n in (num_old, 6, num_old + 1)
    )
    labels = torch.randint(0, 2, (2, 1, *SPATIAL), generator=generator) * num_old
    return (
        logits.requires_grad_(),
        labels,
        make_batch(TeacherOutput(teacher, features), (features + 0.1).requires_grad_()),
    )


def test_pgcd_without_any_prototype_is_uniform_distillation():
    logits, labels, batch = setting(3)
    loss = make_pgcd_loss(PrototypeBank.unknown(3, 6), 3)
    total = called(loss, [logits], [labels], batch)
    assert total.isfinite()
    assert torch.autograd.grad(total, logits)[0].isfinite().all()
    student = merge_new_into_background(logits.log_softmax(1), 3)
    uniform = pgcd_loss(student, batch.teacher_probs, torch.zeros(2, 3, *SPATIAL), labels == 0, beta=3.0)
    pgcd = called(
        make_pgcd_loss(PrototypeBank.unknown(3, 6), 3, dapd_weight=0, old_dice_weight=0), [logits], [labels], batch
    )
    rest = called(
        make_pgcd_loss(PrototypeBank.unknown(3, 6), 3, dapd_weight=0, old_dice_weight=0, pgcd_weight=0),
        [logits],
        [labels],
        batch,
    )
    assert (pgcd - rest).item() == pytest.approx(10 * uniform.item(), rel=1e-5)


def losses(num_old):
    bank = PrototypeBank(drawn(2.0, num_classes=num_old)[1], torch.ones(num_old))
    setup = make_setup(num_old, ignore_label=num_old + 1, lwf_weight=100.0, mib_weight=10.0, **PGCD_SETTINGS)
    return {
        "pgcd": make_pgcd_loss(bank, num_old, num_old + 1),
        "mib": MiBLoss(setup),
        "lwf": LwFLoss(setup),
    }


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", ["pgcd", "mib", "lwf"])
def test_autocast_on_a_cpu_does_not_change_a_loss(name, half):
    found = []
    for enabled in (False, True):
        logits, labels, batch = setting(3)
        labels[:, :, 0] = 4  # ignored
        with torch.autocast("cpu", dtype=half, enabled=enabled):
            total = called(losses(3)[name], [logits], [labels], batch)
        found.append((total, torch.autograd.grad(total, logits)[0]))
    (plain, own), (under, other) = found
    assert under.dtype == torch.float32
    assert torch.equal(plain, under)
    assert torch.equal(own, other)


def test_full_precision_ends_the_autocast_of_the_device_that_it_is_given():
    x, labels = torch.randn(2, 3, *SPATIAL), torch.zeros(2, *SPATIAL, dtype=torch.long)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x[0, 0] @ x[0, 0].mT).dtype == torch.bfloat16
        with full_precision(x.device):
            assert (x[0, 0] @ x[0, 0].mT).dtype == torch.float32
            soft_dice_loss(x.log_softmax(1), labels, labels == 0, classes=slice(1, None), batch_dice=True)
        with full_precision(torch.device("meta")):  # a device without autocast
            assert torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")
