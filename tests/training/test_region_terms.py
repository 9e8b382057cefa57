"""The losses of a step of regions: what their terms see, and each method's against a slow, obvious reference."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from torch import nn
from toy import PGCD_SETTINGS, called, make_setup

from nnunet_cil.losses.regions import region_masks
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.networks.teacher import TeacherOutput
from nnunet_cil.training.batch import labelled_mask, read_batch
from nnunet_cil.training.methods.ewf import RegionEWFLoss
from nnunet_cil.training.methods.finetune import RegionFineTuneLoss
from nnunet_cil.training.methods.joint import RegionJointLoss
from nnunet_cil.training.methods.lwf import RegionLwFLoss
from nnunet_cil.training.methods.pseudo_label import RegionPseudoLabelLoss
from nnunet_cil.training.methods.region_pgcd import RegionPGCDLoss
from nnunet_cil.training.methods.replay import RegionReplayLoss
from nnunet_cil.training.region_batch import RegionBatch, region_targets
from nnunet_cil.training.region_terms import RegionTerms
from nnunet_cil.training.volumes.teacher_volumes import NOT_SEGMENTED

K, N, SPATIAL = 2, 2, (4, 5)
ORDER = (2, 0, 1, 3)
"""The places of the teacher's channels, 2 and 0, among the model's."""
DICE = {"batch_dice": True, "do_bg": True, "smooth": 1e-5, "ddp": False}


class Spy(RegionTerms):
    def terms(self, logits, targets, batch):
        self.seen = logits, targets
        return {"a": logits[0].sum()}


def setup(*, ignore=False, refined=(), weights=(1.0,), **settings):
    own = make_setup(K, 1 << (K + N) if ignore else None, weights, refined=refined, **settings)
    return replace(own, channel_order=ORDER)


def random(*, ignore=False, seed=0):
    """Returns logits and targets as nnU-Net gives them, in the order of the channels, and those in the terms' order."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, K + N, *SPATIAL, generator=g)
    masks = torch.rand(2, K + N, *SPATIAL, generator=g) > 0.6
    valid = torch.rand(2, 1, *SPATIAL, generator=g) > (0.3 if ignore else -1)
    target = torch.cat([masks & valid, ~valid] if ignore else [masks], 1)
    return logits, target, logits[:, list(ORDER)], (masks & valid)[:, list(ORDER)], valid[:, 0] if ignore else None


def teacher(seed=5):
    g = torch.Generator().manual_seed(seed)
    return TeacherOutput(torch.randn(2, K, *SPATIAL, generator=g), torch.randn(2, 3, *SPATIAL, generator=g))


def batch(output=None, features=None, **others):
    return RegionBatch(
        torch.zeros(1), teacher=lambda _images: output, features=lambda: features, old_channels=ORDER[:K], **others
    )


@pytest.mark.parametrize("ignore", [False, True])
def test_terms_see_the_teachers_regions_first_and_no_old_labels(ignore):
    logits, target, ordered, masks, valid = random(ignore=ignore)
    loss = Spy(setup(ignore=ignore, weights=(1.0, 0.5)))
    called(loss, [logits, logits], [target, target], batch())
    for seen_logits, seen in zip(*loss.seen, strict=True):
        assert torch.equal(seen_logits, ordered)
        assert not seen[:, :K].any()
        assert torch.equal(seen[:, K : K + N], masks[:, K:])
        assert not ignore or torch.equal(loss.split(seen)[1], valid)


def test_terms_see_the_regions_that_each_samples_labels_show():
    logits, target, _, masks, _ = random(ignore=True)
    loss = Spy(setup(ignore=True))
    shown = labelled_mask([(0, 2), (3,)], range(K + N))
    called(loss, logits, target, batch(labelled=shown))
    assert torch.equal(loss.seen[1][0][:, : K + N], masks & shown[:, :, None, None])


@pytest.mark.parametrize("ignore", [False, True])
def test_new_regions_are_learnt_with_nnunets_own_terms(ignore):
    logits, target, ordered, masks, valid = random(ignore=ignore)
    nnunet = DC_and_BCE_loss({}, DICE, use_ignore_label=ignore)
    of_new = torch.cat([masks[:, K:], *([~valid[:, None]] if ignore else [])], 1)
    expected = nnunet(ordered[:, K:], of_new)
    output = teacher()
    p, q = output.logits.sigmoid(), ordered[:, :K].sigmoid()
    by_voxel = -(p * q.log() + (1 - p) * (1 - q).log()).mean(1)
    distilled = (by_voxel if valid is None else by_voxel[valid]).mean()
    for loss, weight in [
        (RegionLwFLoss(setup(ignore=ignore, lwf_weight=7.0)), 7),
        (RegionEWFLoss(setup(ignore=ignore, mib_weight=3.0)), 3),
    ]:
        total = called(loss, logits, target, batch(output))
        assert total.item() == pytest.approx((expected + weight * distilled).item(), rel=1e-5)


def test_finetuning_joint_training_and_pseudo_labels_are_nnunets_loss_on_other_targets():
    logits, target, _, _, _ = random(ignore=True)
    output = teacher()
    nnunet = DC_and_BCE_loss({}, DICE, use_ignore_label=True)
    nothing, filled = target.clone(), target.clone()
    for channel, own in zip(ORDER[:K], (output.logits > 0).unbind(1), strict=True):
        nothing[:, channel] = False
        filled[:, channel] = own
    for kind, expected in (
        (RegionFineTuneLoss, nothing),
        (RegionJointLoss, target),
        (RegionPseudoLabelLoss, filled),
    ):
        total = called(kind(setup(ignore=True), nnunet), logits, target, batch(output))
        assert total.item() == pytest.approx(nnunet(logits, expected).item(), rel=1e-5), kind


def test_pseudo_labels_leave_a_labelled_old_region_alone_at_every_scale():
    _, target, _, masks, _ = random()
    shown = labelled_mask([(1, 2, 3), (2, 3)], range(K + N))
    own, loss = batch(teacher(), labelled=shown), Spy(setup())
    low = masks[:, :, ::2, ::2]
    filled = loss.pseudo_labelled([masks & shown[:, :, None, None], low], own.teacher_classes)
    assert torch.equal(filled[0][0, 1], masks[0, 1]), "labels win over the teacher"
    assert torch.equal(filled[0][1, 1], teacher().logits[1, 1] > 0)
    assert filled[1].shape == low.shape
    online = own.with_old_classes([target, low])
    assert torch.equal(online[0][:, ORDER[1]], target[:, ORDER[1]] | own.teacher_classes[:, 1])
    assert torch.equal(online[0][:, list(ORDER[K:])], target[:, list(ORDER[K:])])


def test_replay_learns_each_region_from_the_samples_that_show_it():
    logits, target, ordered, masks, _ = random()
    shown = labelled_mask([(0, 1), (1, 2, 3)], range(K + N))
    total = called(RegionReplayLoss(setup()), logits, target, batch(labelled=shown))
    cross_entropy = DC_and_BCE_loss({}, DICE).ce
    nnunet = DC_and_BCE_loss({}, DICE).dc
    dice = [nnunet(ordered[own, c : c + 1], masks[own, c : c + 1]) for c, own in ((0, [0]), (1, [0, 1]))]
    new = nnunet(ordered[1:, K:], masks[1:, K:])
    labelled = shown[:, :, None, None].expand_as(masks)
    expected = sum(dice) / K + new + cross_entropy(ordered[labelled], masks[labelled].float())
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    own = batch(teacher(), labelled=shown)
    loss = RegionReplayLoss(setup(old_dice_weight=0.4))
    filled = (masks & shown[:, :, None, None])[:, :K] | own.teacher_classes
    expected = expected + 0.4 * nnunet(ordered[:, :K], filled)
    assert called(loss, logits, target, own).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("weighting", ["prototypes", "teacher", "permuted", "uniform"])
def test_pgcd_and_dapd_equal_a_slow_reference(ignore, labelled, weighting):
    logits, target, ordered, masks, valid = random(ignore=ignore)
    output, features = teacher(), torch.randn(2, 3, *SPATIAL, generator=torch.Generator().manual_seed(7))
    prototypes = torch.randn(2 * K, 3, generator=torch.Generator().manual_seed(8))
    bank = PrototypeBank(prototypes.clone(), torch.ones(2 * K))
    shown = labelled_mask([(0, 2, 3), (2, 3)], range(K + N)) if labelled else None
    loss = RegionPGCDLoss(
        setup(ignore=ignore, **{**PGCD_SETTINGS, "old_dice_weight": 0.0, "pgcd_weighting": weighting}), bank=bank
    )
    total = called(loss, logits, target, batch(output, features, labelled=shown))

    counted = torch.ones(2, *SPATIAL, dtype=torch.bool) if valid is None else valid
    nnunet = DC_and_BCE_loss({}, DICE, use_ignore_label=ignore)
    expected = nnunet(ordered[:, K:], torch.cat([masks[:, K:], *([~counted[:, None]] if ignore else [])], 1))
    places = [(b, i, j) for b in range(2) for i in range(SPATIAL[0]) for j in range(SPATIAL[1]) if counted[b, i, j]]

    def asked(b, c):
        return not (labelled and b == 0 and c == 0)

    def similarity(b, c, i, j):
        inside, outside = prototypes[2 * c], prototypes[2 * c + 1]
        own = output.features[b, :, i, j] - (inside + outside) / 2
        cosines = [torch.cosine_similarity(own, p - (inside + outside) / 2, dim=0) for p in (inside, outside)]
        return (torch.stack(cosines) / 0.1).softmax(0)[0]

    p_all, q_all = output.logits.sigmoid(), ordered[:, :K].sigmoid()

    def pi(b, c, i, j):
        if weighting == "teacher":
            return p_all[b, c, i, j]
        if weighting == "permuted":
            return similarity(b, 1 - c, i, j)
        if weighting == "uniform":
            own = [similarity(b, c, i, j) for b, i, j in places if asked(b, c) and p_all[b, c, i, j] > 0.5]
            return torch.stack(own).mean()
        return similarity(b, c, i, j)

    pgcd = torch.zeros(())
    for b, i, j in places:
        for c in filter(lambda c: asked(b, c), range(K)):
            p, q = p_all[b, c, i, j], q_all[b, c, i, j]
            kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
            pgcd = pgcd + (1 + 3 * pi(b, c, i, j)) * kl
    expected = expected + 10 * pgcd / (2 * K * len(places))

    terms, moved = [], prototypes.clone()
    for c in range(K):
        outside = [output.features[b, :, i, j] for b, i, j in places if asked(b, c) and p_all[b, c, i, j] <= 0.5]
        moved[2 * c + 1] = 0.9 * moved[2 * c + 1] + 0.1 * torch.stack(outside).mean(0)
    torch.testing.assert_close(bank.prototypes, moved)
    for c in range(K):
        inside = [(b, i, j) for b, i, j in places if asked(b, c) and p_all[b, c, i, j] > 0.5]
        centre = (moved[2 * c] + moved[2 * c + 1]) / 2
        student, local = (
            torch.stack([f[b, :, i, j] for b, i, j in inside]).mean(0) for f in (features, output.features)
        )
        terms.append([1 - torch.cosine_similarity(student - centre, r - centre, dim=0) for r in (moved[2 * c], local)])
    expected = expected + sum(sum(own) for own in terms) / K
    assert total.item() == pytest.approx(expected.item(), rel=1e-4)


def test_an_absent_old_region_gives_no_prototype_and_no_gradient():
    logits, target, _, _, _ = random()
    output = TeacherOutput(torch.full((2, K, *SPATIAL), -9.0), torch.randn(2, 3, *SPATIAL))
    features = torch.randn(2, 3, *SPATIAL, requires_grad=True)
    bank = PrototypeBank(torch.randn(2 * K, 3), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    loss = RegionPGCDLoss(setup(**{**PGCD_SETTINGS, "old_dice_weight": 0.0, "pgcd_weight": 0.0}), bank=bank)
    total = called(loss, logits, target, batch(output, features))
    assert total.isfinite()
    assert loss.mean_terms()["dapd"] == 0
    assert torch.autograd.grad(total, features, allow_unused=True)[0].abs().sum() == 0


@pytest.mark.parametrize(("counts", "is_known"), [((1, 1), True), ((1, 0), False), ((0, 1), False), ((0, 0), False)])
def test_a_single_old_region_is_permuted_with_its_outside_where_both_are_known(counts, is_known):
    """pi and 1 - pi make up 1; of an unknown region both are 0, and its weight is 1."""
    g = torch.Generator().manual_seed(2)
    logits, prototypes = torch.randn(2, 2, *SPATIAL, generator=g), torch.randn(2, 3, generator=g)
    output = TeacherOutput(*(torch.randn(2, c, *SPATIAL, generator=g) for c in (1, 3)))

    def pgcd(weighting, beta):
        bank = PrototypeBank(prototypes.clone(), torch.tensor(counts, dtype=torch.float))
        settings = {**PGCD_SETTINGS, "dapd_weight": 0.0, "pgcd_weighting": weighting, "pgcd_beta": beta}
        loss = RegionPGCDLoss(replace(make_setup(1, **settings), channel_order=(0, 1)), bank=bank)
        own = RegionBatch(torch.zeros(1), teacher=lambda _: output, features=lambda: None, old_channels=(0,))
        called(loss, logits, torch.zeros(2, 2, *SPATIAL, dtype=torch.bool), own)
        return loss.mean_terms()["pgcd"]

    plain = pgcd("prototypes", 0.0)
    own, other = (pgcd(weighting, 1.5) for weighting in ("prototypes", "permuted"))
    assert own + other == pytest.approx((2 + 1.5 * is_known) * plain, rel=1e-5)
    assert (other == pytest.approx(plain, rel=1e-5)) == (not is_known)


def test_the_dice_of_old_regions_is_taken_against_the_teachers_volumes():
    logits, target, ordered, _, _ = random()
    bits = torch.randint(0, 4, (2, *SPATIAL), dtype=torch.int16)
    bits[1] = NOT_SEGMENTED
    output = teacher()
    own = batch(output, carried=bits, is_complete=False, volume_trust=0.5)
    expected = region_masks(bits, range(K))
    expected[1] = output.logits[1] > 0
    assert torch.equal(own.teacher_classes, expected)
    disagrees = (output.logits > 0) != expected
    p = output.logits.sigmoid()
    assert torch.equal(own.teacher_probs[~disagrees], p[~disagrees])
    torch.testing.assert_close(own.teacher_probs[disagrees], (p / 2 + expected / 2)[disagrees])
    loss = Spy(setup(old_dice_weight=2.0))
    total = called(loss, logits, target, own)
    dice = DC_and_BCE_loss({}, DICE).dc(ordered[:, :K], expected)
    assert total.item() == pytest.approx((ordered.sum() + 2 * dice).item(), rel=1e-4)


def test_a_batch_is_divided_into_masks_and_the_teachers_bits():
    """As nnU-Net's loader gives it: one channel of bits, and the teacher's segmentation in a second one."""
    bits = torch.tensor([[[0, 1, 2, 12, 16]]], dtype=torch.int16)
    carried = torch.tensor([[[3, 0, 1, 2, 0]]], dtype=torch.int16)
    loaded = {"data": torch.zeros(1, 1, 5), "target": [torch.cat([bits, carried], 1)], "keys": ["a"]}
    device = torch.device("cpu")
    nnunet, own = read_batch(
        loaded,
        device,
        teacher=SimpleNamespace(on_batch=None),
        features=SimpleNamespace(take=None),
        labelled=None,
        absent=None,
        volumes={"a": 1},
        volume_trust=0.9,
        kind=lambda images, **others: RegionBatch(images, old_channels=ORDER[:K], **others),
    )
    target = region_targets(nnunet["target"], (1, 2, 0, 3, 4), device)[0]
    assert target.dtype == torch.bool
    assert target[0].int().tolist() == [
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    assert own.teacher_classes[0].int().tolist() == [[1, 0, 1, 0, 0], [1, 0, 0, 1, 0]]


def test_logits_in_the_terms_order_stay_as_they_are():
    logits, target, *_ = random()
    loss = Spy(replace(make_setup(K), channel_order=(0, 1, 2, 3)))
    called(loss, nn.Identity()(logits), target, batch())
    assert torch.equal(loss.seen[0][0], logits)
