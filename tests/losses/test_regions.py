"""Terms of regions against nnU-Net's own and against slow, obvious references."""

import math

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss

from nnunet_cil.losses.regions import (
    corrected_region_probs,
    mask_means,
    mask_sums,
    region_cross_entropy,
    region_distillation_loss,
    region_masks,
    region_pgcd_loss,
    two_way_similarity,
)
from nnunet_cil.losses.segmentation import labelled_dice_loss

SHAPE = (2, 3, 3, 4)  # batch, regions, *spatial


def random(seed=0):
    g = torch.Generator().manual_seed(seed)
    logits, teacher = (torch.randn(SHAPE, generator=g, dtype=torch.float64) * 2 for _ in range(2))
    masks = torch.rand(SHAPE, generator=g) > 0.5
    valid = torch.rand(2, 3, 4, generator=g) > 0.3
    return logits, teacher.sigmoid(), masks, valid


def test_masks_are_the_bits_in_the_order_asked_for():
    bits = torch.tensor([[0, 1, 2, 5, 16384]], dtype=torch.int16)
    assert region_masks(bits, [2, 0]).int().tolist() == [[[0, 0, 0, 1, 0], [0, 1, 0, 1, 0]]]
    assert region_masks(bits, [14]).int().tolist() == [[[0, 0, 0, 0, 1]]]
    assert region_masks(bits, []).shape == (1, 0, 5)


@pytest.mark.parametrize("with_ignore", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_cross_entropy_and_dice_are_nnunets(with_ignore, batch_dice):
    logits, _, masks, valid = random()
    logits = logits.float().requires_grad_()
    dice = {"batch_dice": batch_dice, "do_bg": True, "smooth": 1e-5, "ddp": False}
    nnunet = DC_and_BCE_loss({}, dice, use_ignore_label=with_ignore)
    valid = valid if with_ignore else None
    target = torch.cat([masks & valid[:, None], ~valid[:, None]], 1) if with_ignore else masks
    expected = nnunet(logits, target)
    shown = torch.ones(SHAPE[:2], dtype=torch.bool)
    own = region_cross_entropy(logits, masks, valid=valid)
    own = own + labelled_dice_loss(logits.sigmoid(), masks, shown, valid, batch_dice=batch_dice)
    assert own.item() == pytest.approx(expected.item(), abs=1e-6)
    gradients = (torch.autograd.grad(value, logits)[0] for value in (own, expected))
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("with_ignore", [False, True])
def test_cross_entropy_counts_what_the_labels_show(with_ignore):
    logits, _, masks, valid = random()
    labelled = torch.tensor([[True, False, True], [False, True, False]])
    total = count = 0
    for b, c in [(0, 0), (0, 2), (1, 1)]:
        for z, y, v in zip(logits[b, c].flatten(), masks[b, c].flatten(), valid[b].flatten(), strict=True):
            if v or not with_ignore:
                total -= math.log(torch.sigmoid(z if y else -z).item())
                count += 1
    expected = total / count * (3 if with_ignore else 1)  # as nnU-Net, which then sums over the regions
    own = region_cross_entropy(logits, masks, labelled, valid if with_ignore else None)
    assert own.item() == pytest.approx(expected)
    logits.requires_grad_()
    nothing = region_cross_entropy(logits, masks, torch.zeros(2, 3, dtype=torch.bool), valid)
    assert nothing.item() == 0
    assert torch.autograd.grad(nothing, logits)[0].abs().sum() == 0


def test_distillation_is_the_binary_cross_entropy_with_the_teacher():
    logits, p, _, valid = random(1)
    q = logits.sigmoid()
    by_voxel = -(p * q.log() + (1 - p) * (1 - q).log())
    assert region_distillation_loss(logits, p).item() == pytest.approx(by_voxel.mean().item())
    masked = region_distillation_loss(logits, p, valid[:, None])
    assert masked.item() == pytest.approx(by_voxel.mean(1)[valid].mean().item())
    same = p.logit().requires_grad_()
    assert torch.autograd.grad(region_distillation_loss(same, p), same)[0].abs().max() < 1e-9
    assert region_distillation_loss(logits, p, torch.zeros_like(valid)[:, None]).item() == 0


def test_pgcd_equals_a_slow_reference_and_is_0_at_the_teacher():
    logits, p, masks, _ = random(2)
    pi = torch.rand(SHAPE, dtype=torch.float64)
    total = 0.0
    for z, own, s, counted in zip(*(t.flatten().tolist() for t in (logits, p, pi, masks)), strict=True):
        q = 1 / (1 + math.exp(-z))
        kl = own * math.log(own / q) + (1 - own) * math.log((1 - own) / (1 - q))
        total += counted * (1 + 3 * s) * kl
    value = region_pgcd_loss(logits, p, pi, masks, beta=3, num_voxels=24)
    assert value.item() == pytest.approx(total / (2 * 3 * 24))
    same = p.logit().requires_grad_()
    at_teacher = region_pgcd_loss(same, p, pi, masks, beta=3, num_voxels=24)
    assert at_teacher.item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(at_teacher, same)[0].abs().max() < 1e-9, "the optimum is q = p, whatever the weights"
    assert torch.autograd.gradcheck(
        lambda z: region_pgcd_loss(z, p, pi, masks, beta=3, num_voxels=24), logits.requires_grad_()
    )


def test_similarity_is_a_softmax_over_the_region_and_its_outside():
    g = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 3, 4, generator=g)
    inside, outside = torch.randn(2, 3, 5, generator=g)
    known = torch.tensor([True, True, False])
    similarity = two_way_similarity(features, inside, outside, known, temperature=0.5)
    for b, c, i, j in [(0, 0, 0, 0), (1, 0, 2, 3), (1, 1, 1, 1)]:
        centre = (inside[c] + outside[c]) / 2
        own, other = (
            torch.cosine_similarity(features[b, :, i, j] - centre, p[c] - centre, dim=0) for p in (inside, outside)
        )
        assert own.item() == pytest.approx(-other.item(), abs=1e-6)
        expected = torch.stack([own, other]).div(0.5).softmax(0)[0]
        assert similarity[b, c, i, j].item() == pytest.approx(expected.item(), abs=1e-6)
    assert similarity[:, 2].abs().sum() == 0
    assert similarity.shape == (2, 3, 3, 4)


def test_means_count_a_voxel_in_every_region_that_it_is_in():
    features = torch.tensor([[[1.0, 2.0, 4.0]], [[8.0, 0.0, 0.0]]], requires_grad=True)
    masks = torch.tensor([[[1, 1, 0], [0, 1, 1], [0, 0, 0]], [[1, 0, 0], [0, 0, 0], [0, 0, 0]]]).bool()
    sums, counts = mask_sums(features, masks)
    assert sums[:, 0].tolist() == [11, 6, 0]
    assert counts.tolist() == [3, 2, 0]
    means, _ = mask_means(features, masks)
    assert means[:, 0].tolist() == pytest.approx([11 / 3, 3, 0])
    gradient = torch.autograd.grad(means[1, 0], features)[0]
    assert gradient.tolist() == [[[0, 0.5, 0.5]], [[0, 0, 0]]]


def test_corrected_probabilities_move_where_the_volume_says_otherwise():
    probs = torch.tensor([[[0.9, 0.9, 0.2, 0.2]]])
    masks = torch.tensor([[[True, False, True, False]]])
    assert corrected_region_probs(probs, masks, 0.5).flatten().tolist() == pytest.approx([0.9, 0.45, 0.6, 0.2])
    assert torch.equal(corrected_region_probs(probs, masks, 0.0), probs)
