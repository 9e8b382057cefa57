"""Old classes that a case does not show: which these are, and what the training then does without."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy import (
    DATASET,
    ORGANS,
    make_batch,
    make_dataset,
    make_pgcd_loss,
    make_setup,
    make_trainer,
    plan_toy,
    set_environment,
    train,
)

from nnunet_cil.losses.prototypes import confidence_sums
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.networks.teacher import TeacherOutput
from nnunet_cil.training import base
from nnunet_cil.training.absent_classes import (
    LEAST_DOUBT,
    absent_classes,
    known_volumes,
    new_class_volumes,
    voxel_volume,
)
from nnunet_cil.training.methods.mib import MiBLoss
from nnunet_cil.training.methods.plop import nnUNetTrainerPLOP
from nnunet_cil.training.methods.pseudo_label import nnUNetTrainerPseudoLabel
from nnunet_cil.training.passes import final_prototypes, student_forward
from nnunet_cil.training.region_batch import RegionBatch
from nnunet_cil.training.region_terms import RegionTerms
from nnunet_cil.training.state import read_step_state
from nnunet_cil.training.volumes.teacher_volumes import NOT_SEGMENTED, mean_confidences

PGCD = "nnUNetTrainerPGCD"
K, N, IGNORE = 3, 1, 4


def labels_of(trainer, case):
    """Returns a case's labels as the data set numbers them."""
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, [case])
    return np.asarray(dataset.load_case(case)[1][0])


def sizes_by_hand(trainer, case, channels):
    """Measures what the teacher's volume calls each channel, in mm^3; the toy's voxels have 1 mm^3."""
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, [case])
    volume = np.asarray(trainer.volumes.load_case(dataset, case)[2][:])
    return [int((volume == c).sum()) for c in channels]


def record(classes, volumes=()):
    """Stands for a ``StepRecord``."""
    return SimpleNamespace(classes=classes, volumes=dict(volumes))


def test_a_trained_step_records_the_mean_volume_of_its_classes_where_they_are_shown(toy, tmp_path):
    first, _ = plan_toy(tmp_path, [ORGANS[2:], ORGANS[:2]], first_trainer=PGCD)
    trainer = train(PGCD, first)
    state = read_step_state(trainer.output_folder + "/checkpoint_final.pth", ORGANS[2:])
    numbers = {"kidney": 3, "cyst": 4}
    found = {n: [(labels_of(trainer, case) == i).sum() for case in trainer.do_split()[0]] for n, i in numbers.items()}
    expected = {n: np.mean([v for v in volumes if v]) for n, volumes in found.items()}
    assert known_volumes(state.lineage) == pytest.approx(expected)
    assert make_trainer(PGCD, first).class_volumes == {}
    resumed = make_trainer(PGCD, first)
    resumed.load_checkpoint(trainer.output_folder + "/checkpoint_final.pth")
    assert resumed.step_record().volumes == state.lineage[-1].volumes


def test_a_case_that_lacks_a_class_does_not_make_its_mean_volume_smaller(begun):
    trainer, _ = begun
    whole = new_class_volumes(trainer)
    first, *others = trainer.do_split()[0]
    expected = np.mean([(labels_of(trainer, case) == 1).sum() for case in others])
    dataset = trainer.dataset_class

    class Without(dataset):
        def load_case(self, case):
            data, segmentation, previous, properties = super().load_case(case)
            own = np.asarray(segmentation[:])
            return data, np.where((own == 1) & (case == first), 0, own), previous, properties

    trainer.dataset_class = Without
    found = new_class_volumes(trainer)
    assert found[ORGANS[0]] == pytest.approx(expected)
    assert found[ORGANS[1]] == whole[ORGANS[1]]


def test_a_volume_is_that_of_the_record_that_added_the_class():
    lineage = record(("a", "b"), {"a": 30.0, "b": 8.0, "c": 5.0}), record(("c",), {"c": 7.0, "a": 1.0}), record(("d",))
    assert known_volumes(lineage) == {"a": 30, "b": 8, "c": 7}


@pytest.mark.parametrize(("spacing", "expected"), [((0.5, 2.0, 3.0), 3.0), ((2.0, 3.0), 24.0), ((2.0, 3.0, 4.0), 24.0)])
def test_a_voxel_of_a_2d_configuration_has_the_slice_distance_of_its_case(spacing, expected):
    plans, configuration = SimpleNamespace(transpose_forward=[1, 0, 2]), SimpleNamespace(spacing=spacing)
    assert voxel_volume({"spacing": [7.0, 4.0, 9.0]}, plans, configuration) == expected


@pytest.fixture
def begun(toy, tmp_path):
    """A second step about to enter its first epoch, and the state that it continues from; what it says is kept."""
    first, second = plan_toy(tmp_path, [ORGANS[2:], ORGANS[:2]], first_trainer=PGCD)
    trainer = train(PGCD, first)
    state = read_step_state(trainer.output_folder + "/checkpoint_final.pth", ORGANS[2:])
    trainer = make_trainer(PGCD, second)
    trainer.on_train_start()
    trainer.said = []
    trainer.say = trainer.said.append
    return trainer, state


def with_share(trainer, share):
    """Makes a share other than the trainer's own the least that a case may show."""
    trainer.__class__ = type(PGCD, (type(trainer),), {"absent_size": share})


def test_a_class_is_absent_where_the_teacher_finds_less_than_a_share_of_its_mean_size(begun):
    trainer, state = begun
    cases = trainer.do_split()[0]
    sizes = {case: sizes_by_hand(trainer, case, (1, 2)) for case in cases}
    mean = known_volumes(state.lineage)
    shares = sorted(sizes[case][0] / mean["kidney"] for case in cases)
    share = (shares[0] + shares[-1]) / 2
    assert shares[0] < share < shares[-1]  # kidneys of some cases are below it
    with_share(trainer, share)
    found = absent_classes(trainer, state)
    least = [share * mean["kidney"], share * mean["cyst"]]
    expected = {
        case: tuple(c for c in (1, 2) if not sizes[case][c - 1] or sizes[case][c - 1] < least[c - 1]) for case in cases
    }
    assert found == {case: channels for case, channels in expected.items() if channels}
    number = sum(1 in channels for channels in found.values())
    assert any(
        re.match(rf"kidney counts as absent from {number} of {len(cases)} cases, and ", text) for text in trainer.said
    )
    trainer.absent = found
    assert trainer._absent_mask([c for c in cases if c not in found]) is None
    lacking = next(case for case in found if 1 in found[case])
    assert trainer._absent_mask([lacking, "another"]).tolist() == [[True, 2 in found[lacking]], [False, False]]
    trainer.is_ddp = True  # another rank may have such a case in its batch
    assert trainer._absent_mask(["another"]).tolist() == [[False, False]]
    trainer.absent = {}
    assert trainer._absent_mask(["another"]) is None


def test_a_class_is_absent_where_the_teacher_doubts_it_more_than_in_the_classs_own_cases(begun):
    trainer, state = begun
    with_share(trainer, 1e-9)  # nothing is too small
    cases = trainer.do_split()[0]
    assert len(trainer.volumes.confidences(cases[0])) == 3
    doubts = {case: 0.04 + 0.03 * i for i, case in enumerate(cases)}
    trainer.volumes.confidences = lambda case: [0.1, 1 - doubts[case], None]
    for own, least in ((0.93, 0.07), (1.0, LEAST_DOUBT), (None, math.inf)):
        known = {} if own is None else {"kidney": own, "cyst": 0.99}
        found = absent_classes(trainer, replace(state, confidences=known))
        expected = {case for case in cases if doubts[case] > 1.5 * least}
        assert {case for case, channels in found.items() if 1 in channels} == expected
        assert own is None or 0 < len(expected) < len(cases)
    assert "or is sure of it by less than 0.90" in trainer.said[0]


def test_a_steps_own_confidence_is_the_mean_probability_of_what_its_network_finds(begun):
    trainer, state = begun
    sums = np.zeros((2, 2))
    for tile in trainer.training_pass().tiles():
        probs = trainer.teacher(tile.images).logits.softmax(1)
        for i in (0, 1):
            own = (probs.argmax(1) == i + 1) & tile.valid
            sums[:, i] += probs[:, i + 1][own].sum().item(), own.sum().item()
    assert state.confidences == pytest.approx(dict(zip(ORGANS[2:], sums[0] / sums[1], strict=True)), rel=1e-3)
    assert trainer.confidences == state.confidences


def test_a_later_step_lowers_the_confidence_of_an_old_class_by_the_cases_that_show_it(begun):
    trainer, state = begun
    first, *others = trainer.do_split()[0]
    trainer.absent = {first: (1,), **dict.fromkeys(others[1:], (2,))}
    _, found = final_prototypes(trainer)
    trainer.set_deep_supervision_enabled(False)
    forward = student_forward(trainer.bare_network.eval(), trainer.features, trainer.device)
    expected = {}
    for c, name in ((1, "kidney"), (2, "cyst")):
        probs = []
        for tile, logits, _ in trainer.training_pass().outputs(forward):
            own = (logits.argmax(1) == c) & tile.valid
            if c not in trainer.absent.get(tile.case, ()):
                probs += logits.softmax(1)[:, c][own].tolist()
        if probs:
            expected[name] = np.mean(probs)
    assert expected
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert set(found) <= set(ORGANS)
    trainer.volumes = None  # nothing tells which cases show an old class
    assert set(final_prototypes(trainer)[1]) <= set(ORGANS[:2])
    assert state.confidences == trainer.confidences


def test_the_lowest_confidence_of_all_steps_is_kept(begun, monkeypatch):
    trainer, _ = begun
    trainer.confidences = {"kidney": 0.5, "cyst": 0.95}
    ends_with = {"kidney": 0.6, "cyst": 0.9, ORGANS[0]: 0.8}
    monkeypatch.setattr(base, "final_prototypes", lambda of: (of.prototypes, ends_with))
    trainer.on_train_end()
    assert trainer.confidences == {"kidney": 0.5, "cyst": 0.9, ORGANS[0]: 0.8}


@pytest.mark.parametrize("trainer", [nnUNetTrainerPseudoLabel, nnUNetTrainerPLOP])
def test_of_methods_that_take_the_teachers_labels_as_they_are_no_class_is_absent(trainer):
    assert trainer.absent_size == 0


def test_a_confidence_is_exact_over_millions_of_voxels():
    probs = 0.98 + 0.02 * torch.rand(2_000_000, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(len(probs)) % 10 // 9
    sums, counts = confidence_sums(probs, classes, 3).tolist()
    for c in (0, 1):
        assert sums[c] / counts[c] == pytest.approx(
            probs.numpy()[classes.numpy() == c].mean(dtype=np.float64), rel=1e-9
        )
    assert (sums[2], counts[2]) == (0, 0)


def test_the_confidences_of_a_volume_are_means_over_what_it_has_of_each_class():
    logits = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    logits[3] = -9
    probs, classes = logits.softmax(0).numpy(), logits.argmax(0).numpy()
    found = mean_confidences(logits)
    assert found[3] is None
    for c in range(3):
        assert found[c] == pytest.approx(probs[c][classes == c].mean(), rel=1e-5)


def test_a_class_of_which_the_teacher_finds_nothing_is_absent_though_its_size_is_not_known(begun):
    trainer, state = begun
    unknown = replace(state, lineage=(), confidences={})
    first, *others = trainer.do_split()[0]
    load = trainer.volumes.load_case

    def with_kidneys_in_others(dataset, case):
        data, segmentation, volume, properties = load(dataset, case)
        found = np.full_like(np.asarray(volume[:]), 2)
        if case in others:
            found[..., ::2] = 1
        return data, segmentation, found, properties

    trainer.volumes.load_case = with_kidneys_in_others
    assert absent_classes(trainer, unknown) == {first: (1,)}
    (text,) = trainer.said
    assert text.startswith("kidney counts as absent from 1 of")
    assert text.endswith("the teacher finds nothing of it.")


def test_a_class_that_new_labels_cover_is_there(begun):
    """As a kidney of which the left and the right one are labelled now: the labels win there, and PGCD must not ask of it."""
    trainer, state = begun
    volumes = sum(known_volumes(state.lineage).values())
    load = trainer.volumes.load_case

    def where_labels_are(dataset, case):
        data, segmentation, volume, properties = load(dataset, case)
        new = np.asarray(segmentation[0]) > 0
        assert new.any()
        return data, segmentation, np.where(new, 1, 2).astype(np.int16).reshape(volume.shape), properties

    trainer.volumes.load_case = where_labels_are
    trainer.volumes.confidences = lambda _case: [0.9, 1.0, 1.0]
    with_share(trainer, 1 / volumes)
    assert absent_classes(trainer, state) == {}


@pytest.mark.parametrize("share", [0.0, 1e9])
def test_patches_are_not_centred_on_what_a_case_does_not_show(begun, share):
    trainer, state = begun
    with_share(trainer, share)
    trainer.absent = absent_classes(trainer, state)
    trainer.get_dataloaders()
    assert bool(trainer.absent) == bool(share)
    assert bool(trainer.old_locations) != bool(share)
    assert len(trainer.said) == (2 if share else 0)


def test_a_class_that_the_labels_show_is_never_absent(begun):
    trainer, state = begun
    with_share(trainer, 1e9)
    first, *others = trainer.do_split()[0]
    trainer.labelled_channels_in = lambda case: (1, 3) if case == first else ()
    assert absent_classes(trainer, state) == {first: (2,), **dict.fromkeys(others, (1, 2))}


def test_without_the_teachers_volumes_nothing_is_absent(begun):
    trainer, state = begun
    with_share(trainer, 1e9)
    trainer.volumes = None
    assert absent_classes(trainer, state) == {}


def test_of_regions_each_has_a_size_of_its_own(tmp_path, monkeypatch):
    root = tmp_path / "nnunet"
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "cyst": 4}
    make_dataset(root, labels, configurations=("3d_fullres",), regions_class_order=[1, 2, 4])
    set_environment(monkeypatch, root)
    first, second = plan_toy(tmp_path, [["core", "whole"], ["cyst"]], first_trainer=PGCD)
    trainer = train(PGCD, first)
    own = {"whole": (1, 2, 3), "core": (2, 3)}
    cases = trainer.do_split()[0]
    expected = {n: np.mean([np.isin(labels_of(trainer, c), i).sum() for c in cases]) for n, i in own.items()}
    state = read_step_state(trainer.output_folder + "/checkpoint_final.pth", ("whole", "core"))
    assert known_volumes(state.lineage) == pytest.approx(expected)
    trainer = make_trainer(PGCD, second)
    trainer.on_train_start()
    with_share(trainer, 1e9)
    assert absent_classes(trainer, state) == dict.fromkeys(cases, (0, 1))
    trainer.absent = dict.fromkeys(cases, (1,))
    assert trainer._absent_mask(cases[:2]).tolist() == [[False, True]] * 2
    trainer.get_dataloaders()
    assert {c for rows in trainer.old_locations.values() for c in rows[:, 0]} <= {0}
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
    assert DATASET in trainer.output_folder


@pytest.fixture
def data():
    """Draws background, two old classes and a new one, an ignore label, and the teacher's volumes."""
    torch.manual_seed(0)
    size = (5, 4, 3)
    logits = torch.randn(2, K + N, *size, requires_grad=True)
    target = torch.tensor([0, 0, 3, IGNORE])[torch.randint(0, 4, (2, 1, *size))]
    teacher = TeacherOutput(torch.randn(2, K, *size), torch.randn(2, 4, *size))
    return logits, target, teacher, torch.randint(0, K, (2, *size))


@pytest.mark.parametrize("batch_dice", [False, True])
def test_the_dice_of_old_classes_leaves_out_what_a_sample_does_not_show(data, batch_dice):
    logits, target, teacher, carried = data
    loss = MiBLoss(make_setup(K, IGNORE, (1.0,), batch_dice=batch_dice, mib_weight=1.0, old_dice_weight=0.5))
    batch = make_batch(teacher, carried=carried, absent=torch.tensor([[True, False], [False, False]]))
    found = loss.all_terms([logits], [target], batch)["old_dice"].item()
    sums = []
    for sample, c in ((1, 1), (0, 2), (1, 2)):
        valid = target[sample, 0] != IGNORE
        labels = torch.where(target[sample, 0] == 0, carried[sample], target[sample, 0])
        p, y = logits[sample].softmax(0)[c][valid], labels[valid] == c
        sums.append(np.array([2 * p[y].sum().item(), p.sum().item() + y.sum().item()]))
    if batch_dice:
        sums = [sums[0], sums[1] + sums[2]]
    assert found == pytest.approx(-0.5 * np.mean([(hits + 1e-5) / (both + 1e-5) for hits, both in sums]), rel=1e-4)
    nothing = make_batch(teacher, carried=carried, absent=torch.ones(2, 2, dtype=torch.bool))
    assert loss.all_terms([logits], [target], nothing)["old_dice"].item() == 0


@pytest.mark.parametrize("merge", [True, False])
def test_pgcd_asks_of_an_absent_class_where_the_labels_name_a_new_one_too(data, merge):
    logits, target, teacher, _ = data
    bank = PrototypeBank(torch.randn(K, 4), torch.ones(K))
    alone = {"old_dice_weight": 0, "dapd_weight": 0, "pgcd_weight": 1, "pgcd_weighting": "teacher"}
    loss = make_pgcd_loss(bank, K, IGNORE, **alone, pgcd_merge=merge)
    absent = torch.tensor([[True, False], [False, False]])
    found = loss.all_terms([logits], [target], make_batch(teacher, absent=absent))["pgcd"]
    p, q = teacher.logits.softmax(1), logits.softmax(1).detach()
    total, count = 0.0, 0
    for b, *v in np.ndindex(*target[:, 0].shape):
        label = target[(b, 0, *v)].item()
        if label == IGNORE:
            continue
        count += 1
        for c in range(K):
            is_absent = c > 0 and absent[b, c - 1]
            if label != 0 and not is_absent:
                continue
            a = p[(b, c, *v)].item()
            own = q[(b, c, *v)].item() + (q[(b, K, *v)].item() if merge and c == 0 else 0)
            weight = 1.0 if c == 0 else 1 + 3 * a
            weight *= 2.5 if is_absent else 1
            total += weight * (a * np.log(a / own) + (1 - a) * np.log((1 - a) / (1 - own)))
    assert found.item() == pytest.approx(total / (2 * K * count), rel=1e-4)


def test_the_dice_of_absent_regions_is_left_out():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4) > 0.5

    class Terms(RegionTerms):
        def terms(self, *_):
            return {}

    loss = Terms(replace(make_setup(2), channel_order=(0, 1, 2)))
    absent = torch.tensor([[True, False], [True, True]])
    p, y = logits[0, 1].sigmoid(), target[0, 1]
    expected = -((2 * p[y].sum() + 1e-5) / (p.sum() + y.sum() + 1e-5))
    assert loss._old_dice(logits, target, absent).item() == pytest.approx(expected.item(), rel=1e-4)


def test_volumes_say_nothing_of_a_class_that_a_case_does_not_show(data):
    _, _, teacher, carried = data
    on_patch = teacher.logits.argmax(1)
    carried[1, 0] = NOT_SEGMENTED
    absent = torch.tensor([[False, True], [False, False]])
    found = make_batch(teacher, carried=carried, is_complete=False, absent=absent).trusted_classes
    expected = carried.clone()
    for v in np.ndindex(*carried.shape):
        if carried[v] == NOT_SEGMENTED or (v[0] == 0 and 2 in (carried[v].item(), on_patch[v].item())):
            expected[v] = on_patch[v]
    assert torch.equal(found, expected)
    assert not torch.equal(found[0], carried[0])


def test_volumes_say_nothing_of_a_region_that_a_case_does_not_show():
    torch.manual_seed(0)
    logits, bits = torch.randn(2, 3, 4, 4), torch.randint(0, 8, (2, 4, 4))
    bits[1, 0] = NOT_SEGMENTED
    absent = torch.tensor([[False, True, False], [False, False, False]])
    own = {"teacher": lambda _: TeacherOutput(logits, logits), "features": lambda: logits}
    batch = RegionBatch(logits, **own, old_channels=(0, 1, 2), carried=bits, is_complete=False, absent=absent)
    for b, c, *v in np.ndindex(2, 3, 4, 4):
        on_patch = bits[(b, *v)] == NOT_SEGMENTED or absent[b, c]
        expected = logits[(b, c, *v)] > 0 if on_patch else bits[(b, *v)] >> c & 1
        assert batch.trusted_classes[(b, c, *v)] == bool(expected)
