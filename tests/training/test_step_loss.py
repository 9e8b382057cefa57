"""The loss object of a step: what its terms see, and PGCD + DAPD as a whole against a slow reference."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from toy import called, make_batch, make_pgcd_loss, make_setup

from nnunet_cil.errors import CILError
from nnunet_cil.losses.chunks import CHUNK_ELEMENTS
from nnunet_cil.losses.prototypes import mean_own_similarity, permuted_similarity, prototype_similarity
from nnunet_cil.losses.segmentation import merge_new_into_background
from nnunet_cil.networks.features import StageReader
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.networks.teacher import TeacherOutput
from nnunet_cil.training.methods.finetune import FineTuneLoss
from nnunet_cil.training.methods.lwf import LwFLoss
from nnunet_cil.training.methods.mib import MiBLoss
from nnunet_cil.training.methods.pgcd_base import WEIGHTINGS
from nnunet_cil.training.methods.pgcd_loss import PGCDLoss
from nnunet_cil.training.step_loss import StepLoss

IGNORE = 5


class Spy(StepLoss):
    def terms(self, logits, targets, batch):
        self.seen = targets
        return {"a": logits[0].sum(), "b": 3 * logits[0].sum()}


def test_old_classes_in_a_target_are_hidden_from_every_term():
    loss = Spy(make_setup(3, IGNORE, (1.0, 0.5)))
    target = torch.tensor([[[[0, 1, 2, 3, 4, 5]]]])
    called(loss, [torch.zeros(1, 5, 1, 6), torch.zeros(1, 5, 1, 6)], [target, target])
    assert [t.flatten().tolist() for t in loss.seen] == [[0, 0, 0, 3, 4, 5]] * 2


def test_a_loss_without_terms_cannot_be_made():
    with pytest.raises(TypeError, match="terms"):
        StepLoss(make_setup())


def test_the_batch_is_there_in_its_context_only():
    loss, batch = Spy(make_setup()), make_batch()
    target = torch.zeros(1, 1, 3)
    with pytest.raises(RuntimeError, match=r"outside of 'with loss\.on"):
        loss(torch.zeros(1, 2, 3), target)
    loss.terms = lambda logits, targets, own: {"a": logits[0].sum() + (own is batch)}
    assert called(loss, torch.zeros(1, 2, 3), target, batch) == 1
    with pytest.raises(ValueError, match="in the middle"), loss.on(batch):
        raise ValueError("in the middle")
    with pytest.raises(RuntimeError, match=r"outside of 'with loss\.on"):
        loss(torch.zeros(1, 2, 3), target)


def test_readers_of_a_loss_keep_activations_within_the_batch_only():
    stage = nn.Identity()
    loss = Spy(make_setup())
    loss.readers = (StageReader([stage]),)
    with loss.on(make_batch()):
        stage(torch.ones(2))
        assert loss.readers[0].take()[0].tolist() == [1, 1]
        stage(torch.ones(2))
    with pytest.raises(RuntimeError, match="has not run"):
        loss.readers[0].take()


def test_terms_are_computed_in_float32_whatever_autocast_gave():
    loss = Spy(make_setup())
    seen = []
    loss.terms = lambda logits, targets, batch: seen.append(logits[0].dtype) or {"a": logits[0].sum()}
    called(loss, torch.zeros(1, 2, 3, dtype=torch.float16), torch.zeros(1, 1, 3))
    assert seen == [torch.float32]


def test_terms_are_summed_and_their_means_are_those_of_training_iterations():
    loss = Spy(make_setup())
    target = torch.zeros(1, 1, 1, 1)
    for value in (1.0, 2.0):
        assert called(loss, torch.full((1, 1, 1, 1), value, requires_grad=True), target).item() == 4 * value
    with torch.no_grad():
        called(loss, torch.full((1, 1, 1, 1), 100.0), target)
    assert loss.mean_terms() == {"a": 1.5, "b": 4.5}
    assert loss.mean_terms() == {}


class Lazy(StepLoss):
    def terms(self, logits, targets, batch):
        return {"a": logits[0].sum(), **self.distilled(lambda: {"b": 3 * logits[0].sum()})}


def same_name(kind, name, **settings):
    """Makes a loss whose teacher's terms have a name that is there already."""
    mine = type("Mine", (kind,), {"distillation": lambda *_: {name: torch.zeros(())}, "_distillation": None})
    mine._distillation = mine.distillation
    setup = make_setup(2, **settings)
    return mine(setup, bank=None) if kind is PGCDLoss else mine(setup)


@pytest.mark.parametrize("kind", [PGCDLoss, MiBLoss, LwFLoss])
@pytest.mark.parametrize(("name", "weight"), [("segmentation", 0), ("segmentation", 0.3), ("old_dice", 0.3)])
def test_a_term_never_replaces_another_of_its_name(kind, name, weight):
    loss = same_name(kind, name, old_dice_weight=weight)
    teacher = TeacherOutput(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2))
    with pytest.raises(CILError, match=f"Mine has two loss terms '{name}', and one would replace the other. Rename"):
        called(loss, torch.zeros(1, 3, 2, 2), torch.zeros(1, 1, 2, 2), make_batch(teacher))


def test_a_loss_may_have_a_term_old_dice_where_the_option_adds_none():
    loss = same_name(MiBLoss, "old_dice", old_dice_weight=0)
    called(loss, torch.zeros(1, 3, 2, 2, requires_grad=True), torch.zeros(1, 1, 2, 2))
    assert set(loss.mean_terms()) == {"segmentation", "old_dice"}


@pytest.mark.parametrize(("interval", "first"), [(1, 0), (2, 0), (3, 4), (8, 5)])
def test_a_term_that_asks_the_teacher_comes_in_every_kth_iteration_k_times_as_large(interval, first):
    loss = Lazy(make_setup(iteration=first, distillation_interval=interval))
    target, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1, requires_grad=True)
    speaks = [i % interval == 0 for i in range(first, first + 3 * interval)]
    found = []
    for _ in speaks:
        found.append(called(loss, one, target).item())
        with torch.no_grad():
            assert called(loss, one, target).item() == 1 + 3  # validation: as at k = 1, and it does not count
    assert found == [1 + 3 * interval * s for s in speaks]
    assert loss.mean_terms() == {"a": 1.0, "b": 3.0}  # as at k = 1


def test_scales_are_weighted_and_those_of_weight_0_left_out():
    loss = Spy(make_setup(scale_weights=(0.75, 0.25, 0.0)))
    scales = [torch.tensor(2.0), torch.tensor(4.0), torch.tensor(math.nan)]
    assert loss.over_scales(lambda x, _y: x, scales, scales).item() == 2.5


def test_fine_tuning_is_nnunets_loss_with_and_without_deep_supervision():
    inner = nn.Module()
    inner.forward = lambda output, target: (
        output.sum() + target.sum() if torch.is_tensor(output) else torch.stack([o.sum() for o in output]).sum()
    )
    loss = FineTuneLoss(make_setup(), inner)
    one = torch.ones(1, 1, 2, 2)
    assert called(loss, one, one).item() == 8
    assert called(loss, [one, one], [one, one]).item() == 8


@pytest.fixture
def setting():
    """Draws K = 3 (background, two old), N = 2, 2 scales, an ignore label, one class without a prototype."""
    torch.manual_seed(0)
    num_old, num_new, channels, size = 3, 2, 6, (6, 5, 2)
    data = SimpleNamespace(
        num_old=num_old,
        logits=[torch.randn(2, 5, *size), torch.randn(2, 5, 2, 2, 1)],
        targets=[torch.tensor([0, 3, 4, IGNORE])[torch.randint(0, 4, (2, 1, *s))] for s in (size, (2, 2, 1))],
        features=torch.randn(2, channels, *size, requires_grad=True),
        teacher=TeacherOutput(torch.randn(2, num_old, *size), torch.randn(2, channels, *size)),
        bank=PrototypeBank(torch.randn(num_old, channels), torch.tensor([9.0, 9.0, 0.0])),
    )
    data.teacher.logits[:, 2] += 0.7
    assert num_new == 2
    return data


def make_loss(data, **changed):
    settings = {"old_dice_weight": 2.0, "dapd_weight": 2.0, **changed}
    return make_pgcd_loss(data.bank, data.num_old, IGNORE, (0.7, 0.3), **settings)


def terms_of(loss, data, **others):
    return loss.all_terms(
        data.logits, data.targets, make_batch(data.teacher, data.features, volume_trust=0.8, **others)
    )


def flat(tensor):
    return tensor.flatten(2).permute(0, 2, 1).reshape(-1, tensor.shape[1])


@pytest.mark.parametrize("volumes", [False, True])
def test_pgcd_loss_equals_the_equations_of_the_documentation(setting, volumes):
    """docs/explanation/pgcd.md, term by term, in loops; with the teacher's segmentation of whole volumes, and without."""
    data = setting
    prototypes = data.bank.prototypes.clone()
    predicted = data.teacher.logits.argmax(1, keepdim=True)
    p_teacher = flat(data.teacher.logits.softmax(1))
    carried = None
    if volumes:
        carried = torch.where(torch.rand(2, 6, 5, 2) < 0.3, 2, predicted[:, 0])
        for p, g in zip(p_teacher, carried.flatten(), strict=True):
            if p.argmax() != g:
                p *= 0.2
                p[g] += 0.8
        predicted = carried[:, None]
    terms = terms_of(make_loss(data), data, carried=carried)

    segmentation = old_dice = 0.0
    lower = predicted[:, :, [1, 4]][:, :, :, [1, 3]][..., [1]]  # nearest neighbour, voxel centres
    for weight, logits, target, pseudo in zip((0.7, 0.3), data.logits, data.targets, (predicted, lower), strict=True):
        probs, labels = flat(logits.softmax(1)), target.flatten()
        valid = labels != IGNORE
        nll = [-math.log(p[:3].sum() if y == 0 else p[y]) for p, y, v in zip(probs, labels, valid, strict=True) if v]
        dice = []
        for c in (3, 4):
            p, y = probs[valid][:, c], labels[valid] == c
            dice.append((2 * p[y].sum() + 1e-5) / (p.sum() + y.sum() + 1e-5))
        filled, old = torch.where(target == 0, pseudo, target).flatten(), []
        for c in (1, 2):
            p, y = probs[valid][:, c], filled[valid] == c
            old.append((2 * p[y].sum() + 1e-5) / (p.sum() + y.sum() + 1e-5))
        old_dice -= weight * (sum(old) / 2).item()
        segmentation += weight * (sum(nll) / len(nll) - (sum(dice) / 2).item())
    assert terms["segmentation"].item() == pytest.approx(segmentation, rel=1e-4)
    assert terms["old_dice"].item() == pytest.approx(2 * old_dice, rel=1e-4)

    labels = data.targets[0].flatten()
    valid, unlabelled = labels != IGNORE, labels == 0
    q = flat(merge_new_into_background(data.logits[0].log_softmax(1), 3).exp())
    f_teacher, f_student = flat(data.teacher.features), flat(data.features)
    centre = prototypes[:2].mean(0)
    total = 0.0
    for v in range(len(labels)):
        if not unlabelled[v]:
            continue
        s = [torch.cosine_similarity(f_teacher[v] - centre, prototypes[c] - centre, dim=0) / 0.1 for c in (0, 1)]
        pi = [*torch.stack(s).softmax(0).tolist(), 0.0]
        for c in range(3):
            a, b = p_teacher[v, c].item(), q[v, c].item()
            weight = 1 + 3 * pi[c] if c else 1
            total += weight * (a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b)))
    assert terms["pgcd"].item() == pytest.approx(10 * total / (2 * 3 * valid.sum().item()), rel=1e-3)

    masks = [unlabelled & (predicted.flatten() == c) for c in range(3)]
    background = 0.9 * prototypes[0] + 0.1 * f_teacher[masks[0]].mean(0)
    assert torch.allclose(data.bank.prototypes[0], background, atol=1e-5)
    renewed = torch.stack([background, prototypes[1], prototypes[2]])
    centre = renewed[:2].mean(0)
    to_global, to_teacher = [], []
    for c in range(3):
        assert masks[c].sum() > 1, "the setting should use every class"
        local = f_student[masks[c]].mean(0) - centre
        if c < 2:
            to_global.append(1 - torch.cosine_similarity(local, renewed[c] - centre, dim=0))
        to_teacher.append(1 - torch.cosine_similarity(local, f_teacher[masks[c]].mean(0) - centre, dim=0))
    expected = 2 * (sum(to_global) / len(to_global) + sum(to_teacher) / len(to_teacher)).item()
    assert terms["dapd"].item() == pytest.approx(expected, rel=1e-4)


def slow_similarity(features, prototypes, known):
    """Computes pi of a voxel, class by class."""
    centre = prototypes[known].mean(0)
    scores = [torch.cosine_similarity(features - centre, p - centre, dim=0) / 0.1 for p in prototypes[known]]
    return dict(zip(known, torch.stack(scores).softmax(0).tolist(), strict=True))


@pytest.mark.parametrize("merges", [True, False])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("num_old", [2, 4])
def test_each_weighting_of_pgcd_equals_a_loop(weighting, num_old, merges):
    """With volumes that correct the teacher, but not its probability as a weight; of four, the last class is unknown."""
    torch.manual_seed(num_old)
    logits, target = torch.randn(2, num_old + 2, 4, 3, 2), torch.randint(0, 2, (2, 1, 4, 3, 2)) * num_old
    teacher = TeacherOutput(torch.randn(2, num_old, 4, 3, 2), torch.randn(2, 6, 4, 3, 2))
    known = list(range(num_old - 1)) if num_old > 2 else [0, 1]
    bank = PrototypeBank(torch.randn(num_old, 6), torch.tensor([float(c in known) for c in range(num_old)]))
    carried = torch.randint(0, num_old, (2, 4, 3, 2))
    carried[carried == 1] = 0  # a class that no voxel is called
    changed = {"pgcd_weighting": weighting, "pgcd_merge": merges, "pgcd_weight": 1}
    loss = make_pgcd_loss(bank, num_old, dapd_weight=0, old_dice_weight=0, **changed)
    prototypes = bank.prototypes.clone()
    found = loss.terms([logits], [target], make_batch(teacher, None, carried=carried, volume_trust=0.8))["pgcd"].item()

    log_probs = logits.log_softmax(1)
    q = flat((merge_new_into_background(log_probs, num_old) if merges else log_probs).exp()).tolist()
    p = flat(teacher.logits.softmax(1)).tolist()
    g, unlabelled = carried.flatten().tolist(), (target.flatten() == 0).tolist()
    pi = [slow_similarity(f, prototypes, known) for f in flat(teacher.features)]
    means = {}
    for c in range(1, num_old):
        own = [s.get(c, 0.0) for s, called, u in zip(pi, g, unlabelled, strict=True) if u and called == c]
        means[c] = sum(own) / len(own) if own else 0.0
    assert (means.get(2, 0) > 0) == (num_old > 2)
    other = {1: 0} if num_old == 2 else {1: 2, 2: 3, 3: 1}
    total = 0.0
    for v in range(len(p)):
        if not unlabelled[v]:
            continue
        for c in range(num_old):
            resemblance = {
                "prototypes": pi[v].get(c, 0.0),
                "teacher": p[v][c],
                "permuted": pi[v].get(other.get(c), 0.0),
                "uniform": means.get(c),
            }[weighting]
            weight = 1 + 3 * resemblance if c else 1
            a = p[v][c] if max(p[v]) == p[v][g[v]] else 0.2 * p[v][c] + 0.8 * (c == g[v])
            b = q[v][c]
            total += weight * (a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b)))
    assert found == pytest.approx(total / (2 * num_old * len(p)), rel=1e-4)


def test_the_mean_similarity_of_a_class_is_the_same_in_chunks_of_any_size(monkeypatch):
    torch.manual_seed(0)
    features, labels = torch.randn(2, 6, 5, 3, 3), torch.randint(0, 5, (2, 5, 3, 3))
    bank = torch.randn(4, 6), torch.tensor([True, True, False, True])
    whole = prototype_similarity(features, *bank, temperature=0.1)
    expected = [float(whole[:, c][labels == c].mean()) for c in range(4)]
    for elements in (1, 28, 2**18):
        monkeypatch.setitem(CHUNK_ELEMENTS, "cpu", elements)
        found = mean_own_similarity(features, labels, *bank, temperature=0.1)
        assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_no_old_class_keeps_its_own_prototype_where_they_are_permuted():
    for num_classes in range(2, 9):
        order = permuted_similarity(torch.arange(num_classes).view(1, -1, 1)).flatten().tolist()
        assert sorted(order) == list(range(num_classes))
        assert all(order[c] != c for c in range(1, num_classes))
        assert order[0] == (num_classes == 2)  # one old class has only the background to change with


def test_a_term_of_weight_0_is_left_out_and_the_background_prototype_moves_all_the_same(setting):
    data = setting
    before = data.bank.prototypes[0].clone()
    weights = {"old_dice_weight": 0, "pgcd_weight": 0, "dapd_weight": 0}
    assert set(terms_of(make_loss(data, **weights), data)) == {"segmentation"}
    assert not torch.equal(data.bank.prototypes[0], before)


def test_dapd_reaches_the_features_and_validation_leaves_the_background_alone(setting):
    data = setting
    terms_of(make_loss(data), data)["dapd"].backward()
    assert data.features.grad.abs().sum() > 0
    before = data.bank.prototypes.clone()
    with torch.no_grad():
        terms_of(make_loss(data), data)
    assert torch.equal(data.bank.prototypes, before)


def test_a_lazy_pgcd_is_k_times_pgcd_and_moves_the_background_by_k_iterations(setting):
    data = setting
    start = data.bank.prototypes.clone()
    once = {k: v.item() for k, v in terms_of(make_loss(data, background_momentum=0.9), data).items()}
    step = data.bank.prototypes[0] - start[0]
    data.bank.prototypes.copy_(start)
    lazy = make_loss(data, background_momentum=0.9, distillation_interval=3)
    terms = terms_of(lazy, data)
    for name, factor in {"segmentation": 1, "old_dice": 1, "pgcd": 3}.items():
        assert terms[name].item() == pytest.approx(factor * once[name], rel=1e-5), name
    moved = (data.bank.prototypes[0] - start[0]) * (1 - 0.9) / (1 - 0.9**3)
    assert torch.allclose(moved, step, atol=1e-5)


def test_an_ignored_voxel_changes_nothing(setting):
    data = setting
    ignored = (data.targets[0] == IGNORE)[:, 0]
    first = {k: v.item() for k, v in terms_of(make_loss(data, background_momentum=1.0), data).items()}
    for tensor in (data.logits[0], data.teacher.logits, data.teacher.features):
        tensor.permute(0, 2, 3, 4, 1)[ignored] = 7.0
    second = terms_of(make_loss(data, background_momentum=1.0), data)
    for name, value in first.items():
        assert second[name].item() == pytest.approx(value, rel=1e-5), name
