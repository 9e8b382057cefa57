"""Labels that show other classes in every case, and old classes again: what they show they decide, nothing else."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from toy import make_batch, make_pgcd_loss, make_setup

from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.networks.teacher import TeacherOutput
from nnunet_cil.training.class_choices import classes_by_label, confident_classes
from nnunet_cil.training.data import Tile
from nnunet_cil.training.methods.mib import MiBLoss

K, N, IGNORE = 3, 2, 5
REFINED = (1,)
SHOWN = [{1, 3}, {4}]
"""By sample: the first shows the refined class and one new one, the second the other new one."""


@pytest.fixture
def data():
    """Draws background, two old and two new classes, an ignore label, and two samples whose targets have everything."""
    torch.manual_seed(0)
    size = (6, 5, 2)
    return SimpleNamespace(
        logits=torch.randn(2, K + N, *size),
        target=torch.randint(0, IGNORE + 1, (2, 1, *size)),
        teacher=TeacherOutput(torch.randn(2, K, *size), torch.randn(2, 4, *size)),
        features=torch.randn(2, 4, *size),
        bank=PrototypeBank(torch.randn(K, 4), torch.ones(K)),
    )


def batch_of(data):
    labelled = torch.tensor([[c in shown for c in range(1, K + N)] for shown in SHOWN])
    return make_batch(data.teacher, data.features, labelled=labelled)


def pgcd(data, **changed):
    settings = {"pgcd_weight": 1.0, "background_momentum": 1.0, "min_voxels": 0, **changed}
    return make_pgcd_loss(data.bank, K, IGNORE, refined=REFINED, **settings)


def samples(data, loss):
    """Yields each sample by voxel.

    The parts are: sample, its labelled classes, probabilities, labels, teacher's probabilities, features, teacher's features.
    """
    target = loss.visible([data.target], batch_of(data))[0]
    for b, shown in enumerate(SHOWN):
        voxels = [
            t[b].flatten(1).T
            for t in (data.logits.softmax(1), data.teacher.logits, data.features, data.teacher.features)
        ]
        p, z, f, f_teacher = voxels
        z = z.clone()
        z[:, [c for c in shown if c < K]] = -math.inf
        yield b, shown, p, target[b].flatten(), z.softmax(1), f, f_teacher


def dice(parts):
    """Computes the mean over the classes of nnU-Net's soft Dice, batch-wise; class -> list of (probabilities, truth)."""
    values = []
    for pairs in parts.values():
        p, y = (torch.cat(x) for x in zip(*pairs, strict=True))
        values.append((2 * p[y].sum() + 1e-5) / (p.sum() + y.sum() + 1e-5))
    return -sum(values) / len(values)


def test_what_a_sample_does_not_show_is_hidden(data):
    shown = pgcd(data).visible([data.target], batch_of(data))[0]
    for b, own in enumerate(SHOWN):
        expected = [v if v in own or v == IGNORE else 0 for v in data.target[b].flatten().tolist()]
        assert shown[b].flatten().tolist() == expected


def test_the_segmentation_term_trains_on_the_classes_that_each_samples_labels_show(data):
    loss = pgcd(data)
    total, count, parts = 0.0, 0, {1: [], 3: [], 4: []}
    for _, shown, p, labels, *_ in samples(data, loss):
        hidden = [c for c in range(K + N) if c not in shown]
        valid = labels != IGNORE
        for q, y in zip(p[valid], labels[valid], strict=True):
            total -= math.log(q[hidden].sum() if y == 0 else q[y])
            count += 1
        for c in shown:
            parts[c].append((p[valid, c], labels[valid] == c))
    terms = loss.terms([data.logits], loss.visible([data.target], batch_of(data)), batch_of(data))
    assert terms["segmentation"].item() == pytest.approx(total / count + dice(parts).item(), rel=1e-4)


def test_unlabelled_is_not_background(data):
    """Probability that moves from the background to a class that a sample does not show costs nothing in its cross-entropy."""
    loss = pgcd(data, old_dice_weight=0, pgcd_weight=0, dapd_weight=0)
    probs = data.logits.softmax(1)
    moved = probs.clone()
    moved[1, 3] += probs[1, 0] / 2  # the second sample does not show class 3
    moved[1, 0] /= 2
    targets = loss.visible([data.target], batch_of(data))
    before, after = (loss.terms([p.log()], targets, batch_of(data))["segmentation"] for p in (probs, moved))
    assert after.item() == pytest.approx(before.item(), rel=1e-5)
    moved[0, 3] += moved[0, 0] / 2  # the first one does
    moved[0, 0] /= 2
    assert abs(loss.terms([moved.log()], targets, batch_of(data))["segmentation"].item() - before.item()) > 0.01


def test_labels_win_over_the_teacher(data):
    """The teacher is not asked about a class that the sample shows, nor on a voxel that is labelled."""
    loss = pgcd(data)
    targets = loss.visible([data.target], batch_of(data))
    probs = batch_of(data).teacher_probs
    assert probs[0, 1].max() == 0
    assert probs[1, 1].min() > 0
    assert torch.allclose(probs.sum(1), torch.ones(()))
    expected = (targets[0][:, 0] == 0).tolist()
    assert loss.unlabelled(targets[0]).tolist() == expected


@pytest.mark.parametrize("merges", [True, False])
def test_pgcd_and_its_other_terms_equal_the_equations(data, merges):
    """Without the merge, a new class that a sample does not show is background all the same."""
    loss = pgcd(data, pgcd_merge=merges)
    bank = data.bank.prototypes
    m = bank.mean(0)
    distilled, num_valid, old, local = 0.0, 0, {1: [], 2: []}, {c: ([], []) for c in range(K)}
    for _, shown, p, labels, q, f, f_teacher in samples(data, loss):
        valid = labels != IGNORE
        num_valid += int(valid.sum())
        background = [0, *(c for c in (3, 4) if merges or c not in shown)]
        student = torch.stack([p[:, background].sum(1), p[:, 1], p[:, 2]], 1).clamp(1e-6, 1 - 1e-6)
        pseudo = torch.where(labels == 0, q.argmax(1), labels)
        for c in (1, 2):
            old[c].append((p[valid, c], pseudo[valid] == c))
        for v in torch.nonzero(labels == 0).flatten().tolist():
            similarity = (F.cosine_similarity((f_teacher[v] - m)[None], bank - m) / 0.1).softmax(0)
            for c in range(K):
                t = q[v, c].clamp(1e-6, 1 - 1e-6)
                divergence = t * (t / student[v, c]).log() + (1 - t) * ((1 - t) / (1 - student[v, c])).log()
                distilled += float((1 + 3 * similarity[c] if c else 1) * divergence)
            local[int(q[v].argmax())][0].append(f[v])
            local[int(q[v].argmax())][1].append(f_teacher[v])
    terms = loss.all_terms([data.logits], loss.visible([data.target], batch_of(data)), batch_of(data))
    assert terms["pgcd"].item() == pytest.approx(distilled / (2 * K * num_valid), rel=1e-3)
    assert terms["old_dice"].item() == pytest.approx(dice(old).item(), rel=1e-4)
    means = {c: [torch.stack(x).mean(0) - m for x in pair] for c, pair in local.items() if pair[0]}
    cosines = [
        (1 - F.cosine_similarity(a, bank[c] - m, dim=0)) + (1 - F.cosine_similarity(a, t, dim=0))
        for c, (a, t) in means.items()
    ]
    assert terms["dapd"].item() == pytest.approx((sum(cosines) / len(cosines)).item(), rel=1e-4)


def test_mibs_distillation_leaves_out_voxels_of_refined_classes(data):
    loss = MiBLoss(make_setup(K, IGNORE, refined=REFINED, mib_weight=1.0))
    total, count = 0.0, 0
    for _, _, p, labels, q, *_ in samples(data, loss):
        student = torch.stack([p[:, 0] + p[:, 3] + p[:, 4], p[:, 1], p[:, 2]], 1)
        for v in torch.nonzero((labels != IGNORE) & (labels != 1)).flatten().tolist():
            total -= float((q[v] * student[v].log()).sum()) / K
            count += 1
    terms = loss.terms([data.logits], loss.visible([data.target], batch_of(data)), batch_of(data))
    assert terms["distillation"].item() == pytest.approx(total / count, rel=1e-4)


def test_a_refined_class_that_is_missed_is_no_background_of_the_prototypes():
    labels = torch.tensor([[0, 0, 1, 3, 4]])  # hidden or background twice, refined, new, new
    logits = torch.zeros(1, K + N, 5)
    logits[0, 0, [0, 2]] = 1  # predicted as background
    logits[0, 2, 1] = 1
    classes = classes_by_label(K, N)(logits, tile_of(labels))
    assert classes[0].tolist() == [0, N + 1, N + 1, 1, 2]


def tile_of(labels):
    return Tile(torch.zeros(1, 1, 5), labels, torch.ones(1, 5, dtype=torch.bool), "case", (0,))


def test_a_refined_class_gets_its_prototype_from_the_labels_where_they_show_it():
    labels = torch.tensor([[0, 0, 1, 1, 3]])
    logits = torch.zeros(1, K, 5)
    logits[0, 1, [0, 2]] = 9  # the teacher's refined class, once where the labels deny it
    logits[0, 2, 1] = 9
    shown, hidden = (
        confident_classes(K, 0.9, lambda case, own=own: own if case == "case" else ()) for own in ((1, 3), (3,))
    )
    # class 1 denied: what is left is doubtful, and background
    assert shown(logits, tile_of(labels))[0].tolist() == [0, 2, 1, 1, K]
    unlabelled = torch.where(labels == 1, 0, labels)
    assert hidden(logits, tile_of(unlabelled))[0].tolist() == [1, 2, 1, 0, K]
