"""Each baseline's loss against a slow, obvious reference; and what each does at the start and end of a step."""

import json
import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toy import ORGANS, called, checkpoint, make_batch, make_setup, make_trainer, plan_toy, set_norm, train

from nnunet_cil.networks.features import StageReader
from nnunet_cil.networks.heads import widen_heads
from nnunet_cil.networks.teacher import TeacherOutput
from nnunet_cil.training.methods.ewc import EWCLoss
from nnunet_cil.training.methods.ilt import ILTLoss
from nnunet_cil.training.methods.joint import JointLoss
from nnunet_cil.training.methods.lwf import LwFLoss
from nnunet_cil.training.methods.mib import MiBLoss
from nnunet_cil.training.methods.plop import PLOPLoss
from nnunet_cil.training.methods.pseudo_label import PseudoLabelLoss
from nnunet_cil.training.methods.replay import ReplayLoss

K, N, IGNORE = 3, 2, 5
SCALES = (0.7, 0.3)


@pytest.fixture
def data():
    """Draws background, two old and two new classes, two scales, an ignore label, two samples."""
    torch.manual_seed(0)
    sizes = [(6, 5, 2), (3, 3, 1)]
    return SimpleNamespace(
        logits=[torch.randn(2, K + N, *size) for size in sizes],
        targets=[torch.tensor([0, 0, 3, 4, IGNORE])[torch.randint(0, 5, (2, 1, *size))] for size in sizes],
        teacher=TeacherOutput(torch.randn(2, K, *sizes[0]), torch.randn(2, 4, *sizes[0])),
        features=torch.randn(2, 4, *sizes[0]),
    )


def setup(**settings):
    return make_setup(K, IGNORE, SCALES, **settings)


def batch_of(data, **others):
    return make_batch(data.teacher, data.features, **others)


def terms_of(loss, data):
    return loss.terms(data.logits, data.targets, batch_of(data))


class Stages(StageReader):
    """Stages whose outputs are given."""

    def __init__(self, outputs):
        super().__init__([])
        self.outputs = outputs

    def take(self):
        return self.outputs


def voxels(tensor):
    """Reshapes (batch, channels, *spatial) -> (voxels, channels)."""
    return tensor.movedim(1, -1).reshape(-1, tensor.shape[1])


def slow_dice(probs, labels, mask, classes):
    values = []
    for c in classes:
        p, y = probs[mask][:, c], labels[mask] == c
        values.append((2 * p[y].sum() + 1e-5) / (p.sum() + y.sum() + 1e-5))
    return -sum(values) / len(values)


def slow_segmentation(data, merged):
    total = 0.0
    for weight, logits, target in zip(SCALES, data.logits, data.targets, strict=True):
        probs, labels = voxels(logits.softmax(1)), target.flatten()
        valid = labels != IGNORE
        nll = [
            -math.log(p[:K].sum() if merged and y == 0 else p[y])
            for p, y, v in zip(probs, labels, valid, strict=True)
            if v
        ]
        total += weight * (sum(nll) / len(nll) + slow_dice(probs, labels, valid, (3, 4)).item())
    return total


def slow_distillation(q, data):
    valid = data.targets[0].flatten() != IGNORE
    p = voxels(data.teacher.logits.softmax(1))
    return -(p * q.log()).sum(1)[valid].mean().item() / K


def test_lwf(data):
    terms = terms_of(LwFLoss(setup(lwf_weight=7.0)), data)
    q = voxels(data.logits[0][:, :K].softmax(1))
    assert terms["segmentation"].item() == pytest.approx(slow_segmentation(data, merged=False), rel=1e-4)
    assert terms["lwf"].item() == pytest.approx(7 * slow_distillation(q, data), rel=1e-4)


def test_ilt_is_lwf_and_the_bottlenecks_squared_distance(data):
    student, teacher = torch.randn(2, 8, 2, 2, 1), torch.randn(2, 8, 2, 2, 1)
    loss = ILTLoss(setup(lwf_weight=7.0, feature_weight=3.0), student=Stages([student]), teacher=Stages([teacher]))
    terms = terms_of(loss, data)
    same = terms_of(LwFLoss(setup(lwf_weight=7.0)), data)
    assert {k: terms[k].item() for k in same} == {k: v.item() for k, v in same.items()}
    assert terms["features"].item() == pytest.approx(3 * ((student - teacher) ** 2).mean().item(), rel=1e-5)


def test_mib(data):
    terms = terms_of(MiBLoss(setup(mib_weight=7.0)), data)
    p = voxels(data.logits[0].softmax(1))
    q = torch.stack([p[:, 0] + p[:, 3] + p[:, 4], p[:, 1], p[:, 2]], 1)
    assert terms["segmentation"].item() == pytest.approx(slow_segmentation(data, merged=True), rel=1e-4)
    assert terms["distillation"].item() == pytest.approx(7 * slow_distillation(q, data), rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "lazy"),
    [
        (MiBLoss(setup(mib_weight=7.0, distillation_interval=4)), {"distillation"}),
        (LwFLoss(setup(lwf_weight=7.0, distillation_interval=4)), {"lwf"}),
    ],
)
def test_a_lazy_baseline_is_plain_segmentation_between_its_distillations(data, loss, lazy):
    for logits in data.logits:
        logits.requires_grad_()
    calls = []
    for iteration in range(5):
        batch = make_batch(data.teacher, data.features)
        batch._teacher = lambda images: calls.append(1) or data.teacher
        called(loss, data.logits, data.targets, batch)
        assert len(calls) == 1 + iteration // 4
    assert set(loss.mean_terms()) == {"segmentation", *lazy}


def test_mib_is_at_rest_where_the_student_says_what_the_teacher_says(data):
    head = {"decoder.seg_layers.0.weight": torch.randn(K, 4, 1, 1, 1), "decoder.seg_layers.0.bias": torch.randn(K)}
    wide = widen_heads(head, N)
    conv = lambda w: nn.functional.conv3d(data.features, *w.values())  # noqa: E731
    data.teacher = TeacherOutput(conv(head), data.features)
    logits = conv(wide).requires_grad_()
    loss = MiBLoss(make_setup(K, None, (1.0,), mib_weight=1.0))
    loss.terms([logits], [torch.zeros(2, 1, 6, 5, 2)], batch_of(data))["distillation"].backward()
    assert logits.grad.abs().max() < 1e-8


class Recorder(nn.Module):
    """In place of nnU-Net's loss."""

    def forward(self, output, target):
        self.target = target
        return (output[0] if isinstance(output, list) else output).sum()


def test_pseudo_labels_fill_what_has_no_label_at_every_scale(data):
    recorder = Recorder()
    called(PseudoLabelLoss(setup(), recorder), data.logits, data.targets, batch_of(data))
    predicted = data.teacher.logits.argmax(1, keepdim=True)
    lower = predicted[:, :, 1::2][:, :, :, [0, 2, 4]][..., 1:]
    for given, own, found in zip(data.targets, (predicted, lower), recorder.target, strict=True):
        assert torch.equal(found, torch.where(given == 0, own, given))


def test_pseudo_labels_of_whole_volumes_ask_no_teacher(data):
    recorder = Recorder()
    carried = torch.randint(0, K, data.targets[0][:, 0].shape)
    called(PseudoLabelLoss(setup(), recorder), data.logits, data.targets, make_batch(None, carried=carried))
    given = data.targets[0]
    assert torch.equal(recorder.target[0], torch.where(given == 0, carried[:, None], given))


def test_joint_training_sees_the_old_labels(data):
    recorder = Recorder()
    target = torch.tensor([[[[0, 1, 2, 3, 4, IGNORE]]]])
    called(JointLoss(setup(), recorder), [torch.zeros(1, 5, 1, 6)] * 2, [target, target])
    assert torch.equal(recorder.target[0], target)


def test_plop(data):
    thresholds = torch.tensor([0.9, 0.6, 0.8])
    stages = [torch.randn(2, 2, 4, 4, 2), torch.randn(2, 3, 2, 2, 1)]
    loss = PLOPLoss(
        setup(),
        student=Stages([x + 0.1 for x in stages]),
        teacher=Stages(stages),
        thresholds=thresholds,
        pod_weight=0.5,
        pod_logits_weight=0.3,
    )
    terms = terms_of(loss, data)

    p = data.teacher.logits.softmax(1)
    entropy = -(p * p.log()).sum(1) / math.log(K)
    predicted = p.argmax(1)
    accepted = entropy < thresholds[predicted]
    assert 0 < accepted.float().mean() < 1
    expected = expected_dice = 0.0
    for weight, logits, target, pick in zip(
        SCALES,
        data.logits,
        data.targets,
        (lambda x: x, lambda x: x[:, 1::2][:, :, [0, 2, 4]][..., 1:]),
        strict=True,
    ):
        log_probs, ok, label = logits.log_softmax(1), pick(accepted), pick(predicted)
        total, count = 0.0, 0
        for b, *v in np.ndindex(*target[:, 0].shape):
            y = target[(b, 0, *v)].item()
            if y == IGNORE:
                continue
            count += 1
            background = data.targets[0][b, 0] == 0
            share = (accepted[b] & background).sum() / background.sum()
            if y == 0 and ok[(b, *v)]:
                y = label[(b, *v)].item()
            elif y == 0:
                continue
            total -= share.item() * log_probs[(b, y, *v)].item()
        expected += weight * total / count
        labels = target.flatten()
        expected_dice += weight * slow_dice(voxels(logits.softmax(1)), labels, labels != IGNORE, (3, 4)).item()
    assert terms["segmentation"].item() == pytest.approx(expected, rel=1e-4)
    assert terms["dice"].item() == pytest.approx(expected_dice, rel=1e-4)
    layers = [(x + 0.1, x) for x in stages] + [(data.features, data.teacher.features)]
    distances = [slow_pod(a, b, (1, 2, 4)) for a, b in layers]
    # these axes are not all divisible by 4; the reference cuts as PyTorch's adaptive pooling does
    student, teacher = data.logits[0].detach(), data.teacher.logits
    merged = torch.stack([student[:, 0] + student[:, K:].sum(1), *(student[:, c] for c in range(1, K))], 1)
    expected = (0.5 * sum(distances) + 0.3 * slow_pod(merged, teacher, (1, 2, 4))) / 4
    assert terms["pod"].item() == pytest.approx(expected, rel=1e-4)


def test_plop_takes_the_classes_of_the_volumes_where_the_teacher_is_sure_on_the_patch(data):
    thresholds = torch.tensor([0.9, 0.6, 0.8])
    loss = PLOPLoss(setup(), student=None, teacher=None, thresholds=thresholds, pod_weight=0, pod_logits_weight=0)
    carried = torch.randint(0, K, data.targets[0][:, 0].shape)
    batch = make_batch(data.teacher, carried=carried)
    accepted, _ = loss._accepted(data.targets[0], batch)
    p = data.teacher.logits.softmax(1)
    sure = -(p * p.log()).sum(1) / math.log(K) < thresholds[carried]
    assert (sure & (carried != p.argmax(1))).sum() > 0
    assert torch.equal(accepted[:, 0], torch.where(sure, carried, -1))


def slow_pod(x, y, scales):
    """Computes local POD window by window, axis by axis."""
    norms = []
    for a, b in zip(x.double() ** 2, y.double() ** 2, strict=True):
        squares = 0.0
        for axis in range(1, a.ndim):
            size = a.shape[axis]
            for scale in scales:
                bins = min(scale, size)
                for i in range(bins):
                    cut = slice(i * size // bins, -(-(i + 1) * size // bins))
                    along = [slice(None)] * a.ndim
                    along[axis] = cut
                    squares += ((a[tuple(along)].mean(axis) - b[tuple(along)].mean(axis)) ** 2).sum().item()
        norms.append(math.sqrt(squares))
    return sum(norms) / len(norms)


def test_local_pod_over_windows_in_every_axis_is_the_pooling_along_one():
    """Psi with s x s windows, as the paper writes it, has the same entries as one pooling per axis."""
    from nnunet_cil.losses.regularization import local_pod_distance

    torch.manual_seed(0)
    x, y = torch.randn(1, 2, 8, 4), torch.randn(1, 2, 8, 4)
    squares = 0.0
    for scale in (1, 2, 4):
        edges = [np.linspace(0, size, scale + 1).astype(int) for size in (8, 4)]
        for top, bottom in pairwise(edges[0]):
            for left, right in pairwise(edges[1]):
                a, b = (t[0, :, top:bottom, left:right] ** 2 for t in (x, y))
                squares += sum(((a.mean(d) - b.mean(d)) ** 2).sum().item() for d in (1, 2))
    assert local_pod_distance(x, y, (1, 2, 4)).item() == pytest.approx(math.sqrt(squares), rel=1e-5)


@pytest.mark.parametrize("spatial", [(8, 4, 12), (8, 5, 4), (6, 3), (8, 12)])
@pytest.mark.parametrize("scales", [(1, 2, 4), (3, 2)])
def test_local_pod_equals_the_slow_reference(spatial, scales):
    from nnunet_cil.losses.regularization import local_pod_distance

    torch.manual_seed(0)
    x, y = torch.randn(2, 3, *spatial, requires_grad=True), torch.randn(2, 3, *spatial)
    value = local_pod_distance(x, y, scales)
    assert value.item() == pytest.approx(slow_pod(x.detach(), y, scales), rel=1e-5)
    value.backward()
    moved = x.detach() - 1e-4 * x.grad  # downhill by the gradient's length
    expected = value.item() - 1e-4 * x.grad.square().sum().item()
    assert slow_pod(moved, y, scales) == pytest.approx(expected, rel=1e-4)


def test_local_pod_of_equal_features_is_0_with_a_gradient_of_0():
    from nnunet_cil.losses.regularization import local_pod_distance

    x = torch.randn(2, 3, 5, 7, 3, requires_grad=True)
    value = local_pod_distance(x, x.detach().clone(), (1, 2, 4))
    value.backward()
    assert value.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_medians_of_the_entropies_to_the_histograms_resolution():
    from nnunet_cil.losses.pseudo_labels import entropy_histogram, median_thresholds, normalised_entropy

    torch.manual_seed(0)
    probs = (torch.randn(2, 4, 30, 20) * 2).softmax(1)
    entropy, classes = normalised_entropy(probs), probs.argmax(1) % 3
    mask = torch.rand(2, 30, 20) > 0.3
    found = median_thresholds(entropy_histogram(entropy, classes, mask, 4), floor=0.001)
    for c in range(3):
        assert found[c].item() == pytest.approx(entropy[(classes == c) & mask].median().item(), abs=1.1e-4)
    assert found[3].item() == pytest.approx(0.001)
    assert median_thresholds(entropy_histogram(entropy, classes, mask, 4), floor=0.99).min() >= 0.99


def test_normalised_entropy_is_1_for_the_uniform_and_0_for_the_certain():
    from nnunet_cil.losses.pseudo_labels import normalised_entropy

    probs = torch.tensor([[0.25, 1.0], [0.25, 0.0], [0.25, 0.0], [0.25, 0.0]])[None]
    assert normalised_entropy(probs).tolist() == [[pytest.approx(1), 0]]


def test_ewc_penalises_what_the_old_network_had(data):
    network = nn.Sequential(nn.Conv3d(2, 3, 1), nn.Conv3d(3, K + N, 1))
    anchors = {"0.weight": torch.randn(3, 2, 1, 1, 1), "1.bias": torch.randn(K)}
    importances = {name: torch.rand_like(a) for name, a in anchors.items()}
    loss = EWCLoss(setup(ewc_weight=5.0), network=network, anchors=anchors, importances=importances)
    terms = terms_of(loss, data)
    found = {"0.weight": network[0].weight, "1.bias": network[1].bias[:K]}
    expected = sum((importances[n] * (found[n] - anchors[n]) ** 2).sum() for n in anchors) / 2
    assert terms["ewc"].item() == pytest.approx(5 * expected.item(), rel=1e-5)
    assert terms["segmentation"].item() == pytest.approx(slow_segmentation(data, merged=False), rel=1e-4)
    terms["ewc"].backward()
    assert network[1].bias.grad[:K].abs().min() > 0
    assert torch.equal(network[1].bias.grad[K:], torch.zeros(N))
    assert network[0].bias.grad is None
    assert not list(loss.parameters())


@pytest.mark.parametrize("batch_dice", [False, True])
def test_replay_trains_on_the_classes_that_each_samples_labels_show(data, batch_dice):
    """The first sample shows the new classes, the second class 2 only, the third everything."""
    data.logits = [torch.cat([x, torch.randn_like(x[:1])]) for x in data.logits]
    data.targets = [torch.randint(0, IGNORE + 1, (3, *t.shape[1:])) for t in data.targets]
    labelled = [{3, 4}, {2}, {1, 2, 3, 4}]
    loss = ReplayLoss(setup(batch_dice=batch_dice))
    batch = make_batch(labelled=torch.tensor([[c in own for c in range(1, K + N)] for own in labelled]))
    shown = loss.visible(data.targets, batch)
    for given, found in zip(data.targets, shown, strict=True):
        for b, own in enumerate(labelled):
            expected = [v if v in own or v == IGNORE else 0 for v in given[b].flatten().tolist()]
            assert found[b].flatten().tolist() == expected
    terms = loss.terms(data.logits, shown, batch)

    def dice(probs, target, classes):
        values = {}
        for c in classes:
            for b, own in enumerate(labelled):
                if c in own:
                    valid = target[b].flatten() != IGNORE
                    p, y = voxels(probs[b : b + 1])[valid, c], target[b].flatten()[valid] == c
                    values.setdefault(c if batch_dice else (c, b), []).append((p[y].sum(), p.sum() + y.sum()))
        sums = [[sum(x) for x in zip(*v, strict=True)] for v in values.values()]
        return -sum((2 * tp + 1e-5) / (total + 1e-5) for tp, total in sums) / len(sums)

    segmentation = old = 0.0
    for weight, logits, target in zip(SCALES, data.logits, shown, strict=True):
        probs, total, count = logits.softmax(1), 0.0, 0
        for b, own in enumerate(labelled):
            background = [c for c in range(K + N) if c not in own]
            for p, y in zip(voxels(probs[b : b + 1]), target[b].flatten(), strict=True):
                if y != IGNORE:
                    total -= math.log(p[background].sum() if y == 0 else p[y])
                    count += 1
        segmentation += weight * (total / count + dice(probs, target, (3, 4)).item())
        old += weight * dice(probs, target, (1, 2)).item()
    assert terms["segmentation"].item() == pytest.approx(segmentation, rel=1e-4)
    assert terms["replay_dice"].item() == pytest.approx(old, rel=1e-4)


def test_replay_without_kept_samples_is_the_unbiased_loss_and_old_classes_get_no_dice(data):
    loss = ReplayLoss(setup())
    batch = make_batch(labelled=(torch.arange(1, K + N) >= K).expand(len(data.targets[0]), -1))
    logits = [x.clone().requires_grad_() for x in data.logits]
    terms = loss.terms(logits, loss.visible(data.targets, batch), batch)
    assert terms["segmentation"].item() == pytest.approx(slow_segmentation(data, merged=True), rel=1e-4)
    assert terms["replay_dice"].item() == pytest.approx(0, abs=1e-6)
    terms["replay_dice"].backward()
    assert all(x.grad.abs().max() < 1e-6 for x in logits)


@pytest.mark.parametrize("weight", [1e-6, 0.75])
def test_replay_keeps_its_dice_on_labels_beside_that_of_the_teachers_classes(data, weight):
    """The first sample is of the step, the second is kept: its labels win over the teacher."""
    data.targets = [torch.randint(0, IGNORE + 1, t.shape) for t in data.targets]
    batch = batch_of(data, labelled=torch.tensor([[False, False, True, True], [True, True, False, False]]))
    shown = ReplayLoss(setup()).visible(data.targets, batch)
    plain = ReplayLoss(setup()).all_terms(data.logits, shown, batch)
    terms = ReplayLoss(setup(old_dice_weight=weight)).all_terms(data.logits, shown, batch)
    full = batch.teacher_classes
    lower = full[:, 1::2][:, :, [0, 2, 4]][..., 1:]  # nearest neighbour, voxel centres
    expected = 0.0
    for scale, logits, target, predicted in zip(SCALES, data.logits, shown, (full, lower), strict=True):
        labels = torch.where(target[:, 0] == 0, predicted, target[:, 0]).flatten()
        expected += scale * slow_dice(voxels(logits.softmax(1)), labels, labels != IGNORE, (1, 2)).item()
    assert terms.pop("old_dice").item() == pytest.approx(weight * expected, rel=1e-4)
    assert {k: v.item() for k, v in terms.items()} == {k: v.item() for k, v in plain.items()}
    assert abs(terms["replay_dice"].item()) > 1e-3


# --- trainers -----------------------------------------------------------------------------------------------


def test_ewc_carries_importances_that_grow_with_the_heads(toy, tmp_path):
    names = plan_toy(tmp_path, [ORGANS[:2], ORGANS[2:3], ORGANS[3:]])
    carried = [checkpoint(train("nnUNetTrainerEWC", name))["cil"]["method_state"]["importances"] for name in names]
    head = max(k for k in carried[0] if k.startswith("decoder.seg_layers") and k.endswith("weight"))
    assert [len(c[head]) for c in carried] == [3, 4, 5]
    for name, tensor in carried[0].items():
        assert (carried[1][name][: len(tensor)] >= tensor).all(), name
    assert all(t.abs().sum() > 0 for k, t in carried[0].items() if "seg_layers.0" not in k)


def test_ewc_importances_are_mean_squared_gradients_of_the_log_likelihood(toy, tmp_path):
    trainer = make_trainer("nnUNetTrainerEWC", plan_toy(tmp_path)[0])
    trainer.on_train_start()
    trainer.finish_step()
    network = trainer.network.eval()
    trainer.set_deep_supervision_enabled(False)
    layer = trainer.network.decoder.seg_layers[-1].weight
    total, shares = 0, []
    for tile in trainer.training_pass().tiles():
        log_probs = network(tile.images).log_softmax(1)
        picked = log_probs.gather(1, tile.labels[:, None])[:, 0]
        network.zero_grad()
        picked[tile.valid].mean().backward()
        shares.append(int(tile.valid.sum()) / tile.valid.numel())
        total = total + shares[-1] * layer.grad.square()
    found = trainer.method_state["importances"]["decoder.seg_layers.1.weight"]
    assert min(shares) < 0.1 < max(shares) == 1
    assert torch.allclose(found, total / sum(shares), rtol=1e-3)


def test_a_pass_over_the_training_cases_has_a_limit(toy, tmp_path):
    trainer = make_trainer("nnUNetTrainerEWC", plan_toy(tmp_path)[0])
    cases = sorted(trainer.do_split()[0])
    trainer.initialize()
    trainer.get_tr_and_val_datasets()
    whole = [tile.images for tile in trainer.training_pass().tiles()]
    trainer.max_pass_cases = 1
    first = [tile.images for tile in trainer.training_pass().tiles()]
    assert len(cases) > 1
    assert len(whole) == len(cases) * len(first)
    assert all(torch.equal(a, b) for a, b in zip(first, whole, strict=False))


def test_ewc_continues_from_a_model_without_importances(toy, tmp_path):
    names = plan_toy(tmp_path, first_trainer="nnUNetTrainerMiB")
    train("nnUNetTrainerMiB", names[0])
    trainer = make_trainer("nnUNetTrainerEWC", names[1])
    trainer.on_train_start()
    found = trainer.method_state["importances"]
    head = "decoder.seg_layers.1.weight"
    assert found[head].shape[0] == 3
    total, shares = 0, []
    network = trainer.teacher.network.requires_grad_(True)
    for tile in trainer.training_pass().tiles():
        log_probs = network(tile.images).log_softmax(1)
        network.zero_grad()
        log_probs.max(1).values[tile.valid & (tile.labels == 0)].mean().backward()
        shares.append(int(tile.valid.sum()) / tile.valid.numel())
        total = total + shares[-1] * network.decoder.seg_layers[-1].weight.grad.square()
    assert torch.allclose(found[head], total / sum(shares), rtol=1e-3)


@pytest.mark.parametrize("norm", ["InstanceNorm", "BatchNorm"])
def test_ewf_fuses_old_and_new_weights_once(toy, tmp_path, norm):
    """Running statistics too: they belong to the weights."""
    set_norm(toy, norm)
    names = plan_toy(tmp_path)
    old = checkpoint(train("nnUNetTrainerEWF", names[0]))["network_weights"]
    trainer = make_trainer("nnUNetTrainerEWF", names[1])
    finish, trained = trainer.finish_step, {}

    def spy():
        trained.update({k: v.clone() for k, v in trainer.network.state_dict().items()})
        finish()

    trainer.finish_step = spy
    trainer.run_training()
    fused = checkpoint(trainer)["network_weights"]
    w = math.sqrt(2 / 5)
    start = widen_heads(old, 2)
    assert any("running_var" in name for name in fused) == (norm == "BatchNorm")
    for name, tensor in fused.items():
        if not tensor.is_floating_point():
            assert torch.equal(tensor, trained[name]), name
            continue
        rows = len(old[name])
        assert torch.allclose(tensor[:rows], (1 - w) * start[name][:rows] + w * trained[name][:rows], atol=1e-6), name
        assert torch.equal(tensor[rows:], trained[name][rows:]), name
    again = make_trainer("nnUNetTrainerEWF", names[1], resume=True)
    again.load_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    again.run_training()
    assert all(torch.equal(t, fused[k]) for k, t in checkpoint(again)["network_weights"].items())


def test_joint_sees_old_labels_and_the_cases_of_earlier_steps(toy, tmp_path):
    names = plan_toy(tmp_path, cases="disjoint")
    train("nnUNetTrainerJoint", names[0])
    trainer = make_trainer("nnUNetTrainerJoint", names[1])
    trainer.on_train_start()
    assert sorted(trainer.do_split()[0]) == [f"case_{i}" for i in range(4)]
    seen = {int(v) for _ in range(8) for v in next(trainer.dataloader_train)["target"][0].unique()}
    assert {1, 2, 3, 4} <= seen
    trainer.network.eval()
    batch = next(trainer.dataloader_val)
    with torch.no_grad():
        predicted = trainer.network(batch["data"])[0].argmax(1, keepdim=True)
        output = trainer.validation_step(batch)
    for c in range(1, 5):
        assert output["tp_hard"][c - 1] == ((predicted == c) & (batch["target"][0] == c)).sum()
        assert output["fn_hard"][c - 1] == ((predicted != c) & (batch["target"][0] == c)).sum()


def spy_on_labelled(trainer):
    """Returns a list that gets ``Batch.labelled`` of every batch from now on."""
    recorded = []
    terms = trainer.loss.terms

    def spy(logits, targets, batch):
        recorded.append(batch.labelled)
        return terms(logits, targets, batch)

    trainer.loss.terms = spy
    return recorded


def test_replay_shows_old_labels_of_kept_cases_only(toy, tmp_path):
    names = plan_toy(tmp_path, hyperparameters={"replay_cases": 1})
    train("nnUNetTrainerReplay", names[0])
    trainer = make_trainer("nnUNetTrainerReplay", names[1])
    trainer.on_train_start()
    (kept,) = trainer.kept_cases
    assert kept in trainer.do_split()[0]
    recorded = spy_on_labelled(trainer)
    seen = {True: set(), False: set()}
    for _ in range(20):
        batch = next(trainer.dataloader_train)
        for key, target in zip(batch["keys"], batch["target"][0], strict=True):
            seen[key == kept] |= {int(v) for v in target.unique()}
        trainer.train_step(batch)
        expected = [[True] * 4 if key == kept else [False, False, True, True] for key in batch["keys"]]
        assert recorded[-1].tolist() == expected
    assert seen[True] == {0, 1, 2, 3, 4}
    assert seen[False] == {0, 3, 4}


def test_replay_under_disjoint_cases_shows_what_a_case_was_labelled_with(toy, tmp_path):
    steps = [ORGANS[:2], ORGANS[2:3], ORGANS[3:]]
    training, validation = ([f"case_{i}" for i in part] for part in ((0, 1, 2), (3, 4, 5)))  # one of each a step
    (toy / "splits_final.json").write_text(json.dumps([{"train": training, "val": validation}]))
    names = plan_toy(tmp_path, steps, cases="disjoint", hyperparameters={"replay_cases": 2})
    kept = []
    for name in names[:2]:
        kept.append(set(train("nnUNetTrainerReplay", name).kept_cases))
    trainer = make_trainer("nnUNetTrainerReplay", names[2])
    trainer.on_train_start()
    kept.append(set(trainer.kept_cases))
    earlier = trainer.step_plan.earlier_cases
    assert not kept[0]
    assert kept[1] <= set(earlier[0])
    assert kept[2] <= kept[1] | set(earlier[1])
    seen = {tile.case: set(tile.labels.unique().tolist()) for tile in trainer.training_pass().tiles()}
    assert set(seen) == set(trainer.step_plan.cases) & set(training)  # a pass has no labels for the kept cases
    shown = [{0, 4}, {0, 1, 2}, {0, 3}]
    recorded = spy_on_labelled(trainer)
    for _ in range(15):
        batch = next(trainer.dataloader_train)
        for key, target in zip(batch["keys"], batch["target"][0], strict=True):
            assert {int(v) for v in target.unique()} <= shown[trainer.kept_cases.get(key, 0)]
        assert np.isfinite(trainer.train_step(batch)["loss"])
        assert recorded[-1].tolist() == [
            [c in shown[trainer.kept_cases.get(key, 0)] for c in range(1, 5)] for key in batch["keys"]
        ]


def test_ilt_holds_the_bottleneck_and_plop_every_stage(toy, tmp_path):
    names = plan_toy(tmp_path, first_trainer="nnUNetTrainerPGCD")
    train("nnUNetTrainerPGCD", names[0])
    images = torch.randn(2, 1, 16, 16, 16)
    for name, sizes in (("nnUNetTrainerILT", [8 // 2]), ("nnUNetTrainerPLOP", [16, 8, 4])):
        trainer = make_trainer(name, names[1])
        trainer.on_train_start()
        student, teacher = trainer.loss.readers
        with student.reading(), teacher.reading():
            trainer.network(images)
            trainer.teacher(images)
            found = student.take(), teacher.take()
        assert [x.shape[-1] for x in found[0]] == sizes
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))  # the student begins as its teacher
        with pytest.raises(RuntimeError, match="has not run"):
            student.take()


def test_plop_weighs_pod_by_the_share_of_new_classes_and_by_dimension(toy, tmp_path):
    names = plan_toy(tmp_path)
    for configuration, weight in (("3d_fullres", 0.0005), ("2d", 0.01)):
        train("nnUNetTrainerPLOP", names[0], configuration=configuration)
        trainer = make_trainer("nnUNetTrainerPLOP", names[1], configuration=configuration)
        trainer.on_train_start()
        assert trainer.loss.pod_weight == pytest.approx(weight * math.sqrt(5 / 2))
        assert trainer.loss.pod_logits_weight == pytest.approx(0.0005 * math.sqrt(5 / 2))


def test_ewc_starts_without_a_penalty_and_continues_in_2d(toy, tmp_path):
    names = plan_toy(tmp_path)
    train("nnUNetTrainerEWC", names[0], configuration="2d")
    trainer = make_trainer("nnUNetTrainerEWC", names[1], configuration="2d")
    trainer.on_train_start()
    loss = trainer.loss
    assert sum(t.abs().sum() for t in loss._importances.values()) > 0
    for name, anchor in loss._anchors.items():
        assert torch.equal(loss._parameters_by_name[name][: len(anchor)], anchor), name


def test_plop_keeps_its_thresholds_over_an_interruption(toy, tmp_path):
    names = plan_toy(tmp_path)
    train("nnUNetTrainerPLOP", names[0])
    trainer = train("nnUNetTrainerPLOP", names[1])
    thresholds = trainer.method_state["thresholds"]
    assert thresholds.shape == (3,)
    assert ((thresholds >= 0.001) & (thresholds <= 1)).all()
    assert torch.equal(checkpoint(trainer)["cil"]["method_state"]["thresholds"], thresholds)
    resumed = make_trainer("nnUNetTrainerPLOP", names[1])
    resumed.load_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    assert torch.equal(resumed.method_state["thresholds"], thresholds)
