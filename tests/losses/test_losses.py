"""Each loss against a slow, obvious reference, and against the mathematics it claims."""

import math

import pytest
import torch
from torch.nn import functional as F

from nnunet_cil.losses import chunks, prototypes, sums
from nnunet_cil.losses.chunks import sum_over_chunks
from nnunet_cil.losses.distillation import pgcd_loss
from nnunet_cil.losses.prototypes import (
    class_means,
    cosine_alignment,
    labels_within,
    prototype_centre,
    prototype_similarity,
)
from nnunet_cil.losses.pseudo_labels import corrected_probs
from nnunet_cil.losses.segmentation import (
    masked_cross_entropy,
    merge_new_into_background,
    merge_old_into_background,
    soft_dice_loss,
)
from nnunet_cil.losses.sums import avoids_atomics, sums_by_class, sums_by_product

SPATIAL = [(4, 5), (3, 4, 2)]


def logits_of(num_classes, spatial=(3, 4, 2), seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return torch.randn(2, num_classes, *spatial, dtype=dtype) * 2


def voxels(tensor):
    """Returns (batch, c, *spatial) as a list of 1D tensors over c."""
    return list(tensor.flatten(2).permute(0, 2, 1).reshape(-1, tensor.shape[1]))


@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize("num_old", [1, 2, 4])
def test_merged_old_classes_are_one_minus_the_new(spatial, num_old):
    log_probs = logits_of(6, spatial).log_softmax(1)
    merged = merge_old_into_background(log_probs, num_old)
    assert merged.shape[1] == 7 - num_old
    for all_of, got in zip(voxels(log_probs.exp()), voxels(merged.exp()), strict=True):
        assert torch.allclose(got, torch.cat([all_of[:num_old].sum()[None], all_of[num_old:]]))


@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize("num_old", [1, 2, 5])
def test_merged_new_classes_join_the_background(spatial, num_old):
    log_probs = logits_of(6, spatial).log_softmax(1)
    merged = merge_new_into_background(log_probs, num_old)
    for all_of, got in zip(voxels(log_probs.exp()), voxels(merged.exp()), strict=True):
        assert torch.allclose(got, torch.cat([(all_of[0] + all_of[num_old:].sum())[None], all_of[1:num_old]]))


@pytest.mark.parametrize("merge", [merge_old_into_background, merge_new_into_background])
@pytest.mark.parametrize("num_old", [1, 2, 6])
def test_merging_has_the_gradient_of_its_definition(merge, num_old):
    """Also where nothing is left to merge with the background, or everything."""
    log_probs = logits_of(6, (2, 2)).log_softmax(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: merge(x, num_old), log_probs)


def test_unbiased_cross_entropy_at_step_0_is_cross_entropy_in_value_and_gradient():
    logits = logits_of(4).requires_grad_()
    labels = torch.randint(0, 4, (2, 3, 4, 2))
    ours = masked_cross_entropy(merge_old_into_background(logits.log_softmax(1), 1), labels, None)
    theirs = F.cross_entropy(logits, labels)
    assert torch.allclose(ours, theirs)
    assert torch.allclose(*(torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (ours, theirs)))


def test_unbiased_cross_entropy_by_hand():
    logits = torch.tensor([1.0, 2.0, 3.0, 0.0], dtype=torch.float64).view(1, 4, 1, 1)
    total = sum(math.exp(z) for z in (1, 2, 3, 0))
    merged = merge_old_into_background(logits.log_softmax(1), 3)
    background = masked_cross_entropy(merged, torch.zeros(1, 1, 1, dtype=torch.long), None)
    new = masked_cross_entropy(merged, torch.ones(1, 1, 1, dtype=torch.long), None)
    assert background.item() == pytest.approx(-math.log((math.e + math.e**2 + math.e**3) / total))
    assert new.item() == pytest.approx(-math.log(1 / total))


def test_unbiased_cross_entropy_of_background_does_not_prefer_background_to_old():
    logits = logits_of(4).requires_grad_()
    loss = masked_cross_entropy(
        merge_old_into_background(logits.log_softmax(1), 3), torch.zeros(2, 3, 4, 2, dtype=torch.long), None
    )
    gradient = torch.autograd.grad(loss, logits)[0]
    probs = logits.softmax(1)[:, :3]
    assert torch.allclose(gradient[:, :3] / probs, (gradient[:, :1] / probs[:, :1]).expand(-1, 3, -1, -1, -1))


def test_masked_cross_entropy_without_a_valid_voxel_is_zero_and_on_the_graph():
    logits = logits_of(3).requires_grad_()
    labels = torch.zeros(2, 3, 4, 2, dtype=torch.long)
    loss = masked_cross_entropy(logits.log_softmax(1), labels, torch.zeros_like(labels, dtype=torch.bool))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, logits)[0].abs().sum() == 0


def test_masked_cross_entropy_skips_invalid_voxels():
    log_probs = logits_of(3).log_softmax(1)
    labels = torch.randint(0, 3, (2, 3, 4, 2))
    valid = torch.rand(2, 3, 4, 2) > 0.5
    expected = [-p[y] for p, y, v in zip(voxels(log_probs), labels.flatten(), valid.flatten(), strict=True) if v]
    assert masked_cross_entropy(log_probs, labels, valid).item() == pytest.approx(torch.stack(expected).mean().item())


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("spatial", SPATIAL)
def test_soft_dice_is_nnunets_on_the_channels_given(batch_dice, masked, spatial):
    """Labels 0 and 1 are none of the channels', 2 and 3 are."""
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    torch.manual_seed(3)
    own, other = (logits_of(5, spatial).requires_grad_() for _ in range(2))
    labels = torch.randint(0, 4, (2, *spatial))
    valid = torch.rand(2, *spatial) > 0.3 if masked else None
    one_hot = labels[:, None] == torch.tensor([2, 3]).view(1, 2, *[1] * len(spatial))
    theirs = MemoryEfficientSoftDiceLoss(batch_dice=batch_dice, do_bg=True, smooth=1e-5, ddp=False)
    expected = theirs(other.softmax(1)[:, 2:4], one_hot, loss_mask=None if valid is None else valid[:, None])
    got = soft_dice_loss(own.log_softmax(1), labels, valid, classes=slice(2, 4), batch_dice=batch_dice)
    assert got.item() == pytest.approx(expected.item())
    (3 * expected).backward()
    (3 * got).backward()
    assert torch.allclose(own.grad, other.grad)


def test_soft_dice_counts_more_voxels_than_single_precision_can_add_one_by_one():
    """2^24 + 1 is 2^24 in single precision."""
    labels = torch.zeros(1, 2**24 + 2**22, dtype=torch.int64)
    log_probs = torch.zeros(1, 1, labels.shape[1])
    assert soft_dice_loss(log_probs, labels, None, classes=slice(1), batch_dice=True).item() == pytest.approx(
        -1, abs=1e-6
    )


def pgcd_reference(student, teacher, similarity, unlabelled, valid, beta):
    """Computes PGCD voxel by voxel, class by class."""
    total, count = 0.0, 0
    num_classes = teacher.shape[1]
    rows = zip(voxels(student), voxels(teacher), voxels(similarity), unlabelled.flatten(), valid.flatten(), strict=True)
    for q, p, s, u, v in rows:
        count += int(v)
        if not (u and v):
            continue
        for c in range(num_classes):
            weight = 1.0 if c == 0 else 1 + beta * s[c].item()
            a, b = min(max(p[c].item(), 1e-6), 1 - 1e-6), q[c].item()
            total += weight * (a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b)))
    return total / (2 * num_classes * max(count, 1))


@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize("beta", [0.0, 3.0])
def test_pgcd_equals_the_slow_reference(spatial, beta):
    student = merge_new_into_background(logits_of(5, spatial).log_softmax(1), 3)
    teacher, similarity = (logits_of(3, spatial, seed=s).softmax(1) for s in (1, 2))
    unlabelled, valid = (torch.rand(2, *spatial) > 0.3 for _ in range(2))
    expected = pgcd_reference(student.exp(), teacher, similarity, unlabelled, valid, beta)
    where, number = unlabelled & valid, valid.sum()
    loss = pgcd_loss(student, teacher, similarity.clone(), where[:, None], beta=beta, num_voxels=number)
    assert loss.item() == pytest.approx(expected)
    everywhere = torch.ones_like(valid)
    expected = pgcd_reference(student.exp(), teacher, similarity, unlabelled, everywhere, beta)
    assert pgcd_loss(student, teacher, similarity.clone(), unlabelled[:, None], beta=beta).item() == pytest.approx(
        expected
    )


def test_pgcd_is_zero_with_zero_gradient_where_student_and_teacher_agree():
    logits = logits_of(3)
    grown = torch.cat([logits, logits[:, :1]], 1)
    grown[:, [0, 3]] -= math.log(2)  # balanced initialisation
    grown.requires_grad_()
    student = merge_new_into_background(grown.log_softmax(1), 3)
    loss = pgcd_loss(
        student, logits.softmax(1), torch.rand_like(logits), torch.ones(2, 1, 3, 4, 2, dtype=torch.bool), beta=3.0
    )
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(loss, grown)[0].abs().max() < 1e-6


def test_pgcd_weights_do_not_move_the_optimum():
    """Gradient descent from elsewhere arrives at the teacher's distribution, whatever the similarity says."""
    teacher = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64).view(1, 3, 1, 1)
    similarity = torch.tensor([0.0, 0.1, 0.9], dtype=torch.float64).view(1, 3, 1, 1)
    z = torch.zeros(1, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-16)

    def closure():
        optimizer.zero_grad()
        loss = pgcd_loss(
            z.log_softmax(1), teacher, similarity.clone(), torch.ones(1, 1, 1, 1, dtype=torch.bool), beta=3.0
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(z.softmax(1), teacher, atol=1e-4)


def test_pgcd_still_pulls_where_the_student_has_lost_a_class():
    z = torch.tensor([0.0, -40.0], dtype=torch.float64).view(1, 2, 1, 1).requires_grad_()
    teacher = torch.tensor([0.1, 0.9], dtype=torch.float64).view(1, 2, 1, 1)
    loss = pgcd_loss(
        z.log_softmax(1), teacher, torch.zeros_like(teacher), torch.ones(1, 1, 1, 1, dtype=torch.bool), beta=3.0
    )
    assert torch.autograd.grad(loss, z)[0][0, 1].item() < -0.1


def test_pgcd_does_not_divide_by_nothing_where_the_student_is_sure():
    """1 - q is clamped: of its divergence only p log(p / q) has a gradient left, -p."""
    log_q = torch.tensor([0.0, -40.0]).view(1, 2, 1, 1).requires_grad_()
    teacher = torch.tensor([0.4, 0.6]).view(1, 2, 1, 1)
    loss = pgcd_loss(log_q, teacher, torch.zeros_like(teacher), torch.ones(1, 1, 1, 1, dtype=torch.bool), beta=3.0)
    gradient = torch.autograd.grad(loss, log_q)[0].flatten() * 2 * 2  # 2 K
    assert gradient.tolist() == pytest.approx([-0.4, -0.6])


def test_pgcd_in_single_precision_is_autograds_in_double():
    logits, teacher_logits = (logits_of(5, seed=s) for s in (0, 1))
    logits[0, 1] -= 40  # a lost class
    teacher, similarity = teacher_logits.softmax(1), logits_of(5, seed=2).softmax(1)
    unlabelled = torch.rand(2, 3, 4, 2) > 0.3
    single, double = logits.log_softmax(1).float().requires_grad_(), logits.log_softmax(1).requires_grad_()
    got = pgcd_loss(single, teacher.float(), similarity.float(), unlabelled[:, None], beta=3.0)
    p, not_q = teacher.clamp(1e-6, 1 - 1e-6), (1 - double.exp()).clamp(min=1e-6)
    divergence = p * (p.log() - double) + (1 - p) * ((1 - p).log() - not_q.log())
    weight = 1 + 3 * similarity * (torch.arange(5) > 0).view(1, 5, 1, 1, 1)
    expected = (weight * divergence * unlabelled[:, None]).sum() / (2 * 5 * unlabelled.numel())
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    own, reference = (torch.autograd.grad(x, y)[0].double() for x, y in ((got, single), (expected, double)))
    assert torch.allclose(own, reference, rtol=1e-3, atol=1e-3 * reference.abs().max().item())


def test_pgcd_does_not_look_at_labelled_voxels_and_gives_an_exact_zero_without_any_other():
    logits = logits_of(4).requires_grad_()
    student = merge_new_into_background(logits.log_softmax(1), 3)
    teacher = logits_of(3, seed=1).softmax(1)
    loss = pgcd_loss(student, teacher, torch.rand_like(teacher), torch.zeros(2, 1, 3, 4, 2, dtype=torch.bool), beta=3.0)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, logits)[0].abs().sum() == 0


def test_pgcd_grows_with_similarity_of_old_classes_only():
    student, teacher = logits_of(3).log_softmax(1), logits_of(3, seed=1).softmax(1)
    unlabelled = torch.ones(2, 3, 4, 2, dtype=torch.bool)
    similar = torch.zeros_like(teacher)
    base = pgcd_loss(student, teacher, similar.clone(), unlabelled[:, None], beta=3.0)
    background, organ = similar.clone(), similar.clone()
    background[:, 0], organ[:, 1] = 1, 1
    assert torch.equal(pgcd_loss(student, teacher, background, unlabelled[:, None], beta=3.0), base)
    assert pgcd_loss(student, teacher, organ, unlabelled[:, None], beta=3.0) > base


def test_pgcd_gradcheck():
    logits = logits_of(4, (2, 2)).requires_grad_()
    teacher, similarity = (logits_of(3, (2, 2), seed=s).softmax(1) for s in (1, 2))
    unlabelled = torch.rand(2, 2, 2) > 0.3
    assert torch.autograd.gradcheck(
        lambda z: pgcd_loss(
            merge_new_into_background(z.log_softmax(1), 3), teacher, similarity.clone(), unlabelled[:, None], beta=3.0
        ),
        logits,
    )


@pytest.mark.parametrize("spatial", SPATIAL)
def test_class_means_equal_a_loop(spatial):
    torch.manual_seed(0)
    features = torch.randn(2, 7, *spatial)
    labels = torch.randint(0, 4, (2, *spatial))
    labels[labels == 2] = 1
    mask = torch.rand(2, *spatial) > 0.2
    means, counts = class_means(features, labels_within(labels, mask, 4), 4)
    for c in range(4):
        chosen = [f for f, y, m in zip(voxels(features), labels.flatten(), mask.flatten(), strict=True) if m and y == c]
        assert counts[c] == len(chosen)
        expected = torch.stack(chosen).mean(0) if chosen else torch.zeros(7)
        assert torch.allclose(means[c], expected, atol=1e-6)


def test_class_means_have_the_gradient_of_their_definition():
    """With voxels of no class, and a class without voxels."""
    labels = torch.tensor([[[0, 1, 3], [0, 0, 1]]])
    features = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: class_means(x, labels, 3)[0], features)
    nothing = class_means(features, torch.full_like(labels, 3), 3)[0]
    assert nothing.abs().sum() == 0
    assert torch.autograd.grad(nothing.sum(), features)[0].abs().sum() == 0


def test_class_means_of_half_precision_features_do_not_overflow():
    features = torch.full((1, 2, 64, 64, 64), 100.0, dtype=torch.float16)
    means, counts = class_means(features, torch.zeros(1, 64, 64, 64, dtype=torch.long), 1)
    assert means.dtype == torch.float32
    assert torch.allclose(means, torch.full((1, 2), 100.0))
    assert counts.tolist() == [64**3]


@pytest.mark.parametrize("lanes", [1, 4, 64])
def test_sums_by_class_equal_a_loop(lanes, monkeypatch):
    monkeypatch.setattr(sums, "_LANES", lanes)
    torch.manual_seed(0)
    values, labels = torch.randn(2, 3, 20), torch.randint(0, 4, (2, 20))
    got = sums_by_class(values, labels, 5)
    expected = torch.stack([(values * (labels == c)[:, None]).sum(2) for c in range(5)], 2)
    assert torch.allclose(got, expected, atol=1e-6)


@pytest.fixture
def _deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("elements", [1, 20, 2**22])  # one voxel in a chunk, four, all
@pytest.mark.parametrize("rows", [1, 3])
def test_class_sums_without_atomics_are_the_same_in_value_and_gradient(rows, elements, monkeypatch):
    monkeypatch.setattr(sums, "_CHUNK_ELEMENTS", elements)
    torch.manual_seed(1)
    values, labels = torch.randn(2, rows, 23, dtype=torch.float64), torch.randint(0, 4, (2, 23))
    own, other = (values.clone().requires_grad_() for _ in range(2))
    weights = torch.randn(2, rows, 5, dtype=torch.float64)
    by_product, by_scattering = sums_by_product(own, labels, 5), sums_by_class(other, labels, 5)
    assert torch.allclose(by_product, by_scattering)
    assert by_product[..., 4].abs().sum() == 0  # a class without voxels
    for result in (by_product, by_scattering):
        (result * weights).sum().backward()
    assert torch.equal(own.grad, other.grad)


def test_class_sums_without_atomics_keep_their_digits_under_autocast():
    values, labels = torch.full((1, 2, 5000), 513 / 512), torch.zeros(1, 5000, dtype=torch.long)  # 1 in bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = sums_by_product(values, labels, 2)
    assert got.dtype == torch.float32
    assert torch.equal(got[..., 0], torch.full((1, 2), 5000 * 513 / 512)), "exact in float32 in any order"


def test_a_gpu_adds_with_atomics_unless_torch_is_asked_for_determinism():
    assert not avoids_atomics(torch.device("cuda"))


@pytest.mark.usefixtures("_deterministic")
def test_a_gpu_adds_without_atomics_where_torch_is_asked_for_determinism():
    assert avoids_atomics(torch.device("cuda"))
    assert not avoids_atomics(torch.device("cpu"))  # whose sums have one order anyway


@pytest.mark.parametrize("spatial", SPATIAL)
def test_prototype_similarity_equals_a_loop(spatial):
    torch.manual_seed(0)
    features = torch.randn(2, 5, *spatial) + 3
    prototypes = torch.randn(4, 5) + 3
    known = torch.tensor([True, True, False, True])
    got = prototype_similarity(features, prototypes, known, temperature=0.1)
    centre = prototypes[known].mean(0)
    for f, pi in zip(voxels(features), voxels(got), strict=True):
        scores = [
            torch.cosine_similarity(f - centre, p - centre, dim=0) / 0.1 if k else torch.tensor(-torch.inf)
            for p, k in zip(prototypes, known, strict=True)
        ]
        assert torch.allclose(pi, torch.stack(scores).softmax(0), atol=1e-4)


def test_prototype_similarity_ignores_where_the_origin_is():
    torch.manual_seed(0)
    features, prototypes, shift = torch.randn(2, 5, 4, 4), torch.randn(3, 5), torch.randn(5) * 3
    known = torch.ones(3, dtype=torch.bool)
    a = prototype_similarity(features, prototypes, known, temperature=0.5)
    b = prototype_similarity(features + shift.view(1, 5, 1, 1), prototypes + shift, known, temperature=0.5)
    assert torch.allclose(a, b, atol=1e-4)
    assert torch.allclose(a.sum(1), torch.ones(2, 4, 4))


def test_prototype_similarity_is_highest_at_the_prototype_itself():
    prototypes = torch.tensor([[5.0, 0, 0], [0, 5, 0], [0, 0, 5]])
    got = prototype_similarity(
        prototypes.T[None, :, :, None], prototypes, torch.ones(3, dtype=torch.bool), temperature=0.1
    )
    assert torch.allclose(got[0, :, :, 0], torch.eye(3), atol=1e-4)


def test_cosine_alignment_by_hand_and_by_gradient():
    local = torch.tensor([[1.0, 0.0], [1.0, 1.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[0.0, 2.0], [1.0, 0.0], [-3.0, -4.0]], dtype=torch.float64)
    used = torch.tensor([True, True, False])
    expected = (1 - 0 + 1 - 1 / math.sqrt(2)) / 2
    assert cosine_alignment(local, reference, used).item() == pytest.approx(expected)
    assert cosine_alignment(local, local.detach() * 5, ~used | used).item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.gradcheck(lambda a: cosine_alignment(a, reference, used), local)
    nothing = cosine_alignment(local, reference, torch.zeros(3, dtype=torch.bool))
    assert nothing.item() == 0
    assert torch.autograd.grad(nothing, local)[0].abs().sum() == 0


def test_prototype_centre_is_the_mean_of_the_known():
    prototypes = torch.tensor([[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]])
    assert torch.equal(prototype_centre(prototypes, torch.tensor([True, True, False])), torch.tensor([2.0, 3.0]))


def divergence(log_probs, probs, mask):
    return (probs * (probs.log() - log_probs) * mask).sum()


@pytest.mark.parametrize("elements", [1, 12, 10_000])
@pytest.mark.parametrize("spatial", SPATIAL)
def test_a_sum_over_chunks_is_the_sum_in_value_and_gradient(spatial, elements, monkeypatch):
    monkeypatch.setitem(chunks.CHUNK_ELEMENTS, "cpu", elements)
    others = logits_of(3, spatial, seed=1).softmax(1), torch.rand(2, 1, *spatial) > 0.5
    whole, parts = logits_of(3, spatial).requires_grad_(), logits_of(3, spatial).requires_grad_()
    expected = divergence(whole.log_softmax(1), *others)
    got = sum_over_chunks(divergence, parts.log_softmax(1), *others)
    (3 * expected).backward()
    (3 * got).backward()
    assert got.item() == pytest.approx(expected.item())
    assert torch.allclose(parts.grad, whole.grad)
    with torch.no_grad():
        assert sum_over_chunks(divergence, whole.log_softmax(1), *others).item() == pytest.approx(expected.item())


def test_a_part_of_a_volume_weighs_as_much_in_pgcd_as_the_part_is_of_the_volume():
    student, teacher = logits_of(3).log_softmax(1), logits_of(3, seed=1).softmax(1)
    unlabelled = torch.rand(2, 3, 4, 2) > 0.3
    whole = pgcd_loss(student, teacher, torch.rand_like(teacher), unlabelled[:, None], beta=0.0)
    parts = [
        pgcd_loss(student[i], teacher[i], torch.rand_like(teacher[i]), unlabelled[i, None], beta=0.0, num_voxels=48)
        for i in (slice(0, 1), slice(1, 2))
    ]
    assert sum(parts).item() == pytest.approx(whole.item())


def test_what_ranks_exchange_is_contiguous(monkeypatch):
    """NCCL refuses anything else; gloo, with which the ranks are tested, does not."""

    class Gather:
        @staticmethod
        def apply(tensor):
            assert tensor.is_contiguous()
            return torch.stack([tensor, tensor])

    monkeypatch.setattr(prototypes.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(prototypes.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(prototypes, "AllGatherGrad", Gather)
    features, labels = torch.randn(2, 5, 3, 4), torch.randint(0, 4, (2, 3, 4))
    _, counts = class_means(features, labels, 4)
    assert counts.sum() == 2 * labels.numel()


@pytest.mark.parametrize("spatial", SPATIAL)
def test_corrected_probs_equal_a_loop(spatial):
    torch.manual_seed(0)
    probs = torch.randn(2, 3, *spatial).softmax(1)
    classes = torch.randint(0, 3, (2, *spatial))
    found = corrected_probs(probs, classes, 0.9).flatten(2)
    num_wrong = 0
    for b, p, g in zip(range(2), probs.flatten(2), classes.flatten(1), strict=True):
        for v in range(p.shape[1]):
            wrong = p[:, v].argmax() != g[v]
            hard = torch.eye(3)[g[v]]
            expected = 0.1 * p[:, v] + 0.9 * hard if wrong else p[:, v]
            assert torch.allclose(found[b, :, v], expected)
            num_wrong += int(wrong)
    assert 0 < num_wrong < classes.numel()
    assert torch.equal(corrected_probs(probs, classes, 0.0), probs)
