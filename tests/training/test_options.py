"""The options of a step: every trainer takes them, and a sentence refuses what they cannot mean."""

import json
import re

import pytest
import torch
from toy import make_batch, make_setup

from nnunet_cil.errors import CILError
from nnunet_cil.losses.pseudo_labels import corrected_probs
from nnunet_cil.networks.teacher import TeacherOutput
from nnunet_cil.shipped import trainer_names
from nnunet_cil.training.base import nnUNetTrainerCIL
from nnunet_cil.training.catalogue import trainer_class
from nnunet_cil.training.hyperparameters import declared, fixed, settable
from nnunet_cil.training.methods.ewc import EWCLoss
from nnunet_cil.training.methods.ilt import nnUNetTrainerILT
from nnunet_cil.training.methods.lwf import LwFLoss
from nnunet_cil.training.methods.mib import MiBLoss, nnUNetTrainerMiB
from nnunet_cil.training.options import DISTILLATION_INTERVAL, NOT_ASKED

K, N, IGNORE = 3, 1, 4
OWN_DICE = ["FineTune", "Joint", "PseudoLabel"]
OPTIONS = ["new_class_start", "old_class_sampling", "teacher_volumes", "old_dice_weight"]


def refused(method, **values):
    """Returns the sentence with which a trainer refuses hyper-parameters; empty where it takes them."""
    try:
        trainer_class(f"nnUNetTrainer{method}").check_hyperparameters(values, "Schedule x")
    except CILError as error:
        return str(error)
    return ""


@pytest.fixture
def data():
    """Draws background, two old classes and a new one, two scales, an ignore label, and the teacher's volumes."""
    torch.manual_seed(0)
    sizes = [(5, 4, 3), (3, 2, 2)]
    logits = [torch.randn(2, K + N, *size, requires_grad=True) for size in sizes]
    targets = [torch.tensor([0, 0, 3, IGNORE])[torch.randint(0, 4, (2, 1, *size))] for size in sizes]
    teacher = TeacherOutput(torch.randn(2, K, *sizes[0]), torch.randn(2, 4, *sizes[0]))
    return logits, targets, teacher, torch.randint(0, K, (2, *sizes[0]))


@pytest.mark.parametrize("method", ["PGCD", "PGCDPaper", "MiB", "EWF", "PLOP", "LwF", "ILT"])
def test_methods_that_distil_take_every_option(toy, method):
    assert set(OPTIONS) <= set(settable(trainer_class(f"nnUNetTrainer{method}")))
    assert not refused(
        method,
        new_class_start="apart",
        old_class_sampling=True,
        teacher_volumes=True,
        old_dice_weight=0.5,
    )


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        *(
            (m, {"old_dice_weight": 1}, "at 0.0: its loss has a Dice of the old classes already. Remove")
            for m in OWN_DICE
        ),
        (
            "Frozen",
            {"old_dice_weight": 1},
            "which nnUNetTrainerFrozen fixes at 0.0: its old channels do not learn. Remove",
        ),
        ("Joint", {"old_class_sampling": True}, "its labels show the old classes to the sampler already. Remove it."),
        (
            "Joint",
            {"teacher_volumes": True},
            "its labels show the old classes, so that no teacher is asked. Remove it.",
        ),
        *(
            (m, {"teacher_volumes": True}, f"changes nothing in nnUNetTrainer{m}, whose loss does not ask the teacher.")
            for m in ("FineTune", "EWC", "Replay", "Frozen")
        ),
        *(
            (
                m,
                {"new_class_noise": 0},
                "fixes at 1.0: new_class_start is 'apart' with noise, 'balanced' without. Remove",
            )
            for m in ("PGCD", "MiB", "LwF")
        ),
        *(
            ("Frozen", {"new_class_start": start}, f"to '{start}', but it must be one of 'fresh', 'imprinted'.")
            for start in ("balanced", "apart")
        ),
        ("MiB", {"distillation_interval": 4, "old_dice_weight": 1}, "4 saves nothing without teacher_volumes"),
        *(
            (m, {"distillation_interval": 4}, "fixes at 1: its loss does not ask the teacher. Remove it.")
            for m in ("EWC", "FineTune", "Frozen", "Joint", "Replay")
        ),
        *(
            (m, {"distillation_interval": 4}, "fixes at 1: its labels need the teacher in every iteration. Remove it.")
            for m in ("PLOP", "PseudoLabel")
        ),
        *(
            (
                m,
                {"drop_strays": value},
                "drop_strays changes nothing without the teacher's volumes. Remove drop_strays, or set teacher_volumes to true.",
            )
            for m, value in (("MiB", False), ("PGCDPaper", True))
        ),
        (
            "EWC",
            {"drop_strays": False},
            "drop_strays changes nothing without the teacher's volumes. Remove drop_strays.",
        ),
        ("PseudoLabel", {"drop_strays": True, "teacher_volumes": False}, "drop_strays changes nothing without"),
        ("Joint", {"drop_strays": False}, "fixes at True: no teacher is asked. Remove it."),
        *(
            (
                m,
                {**values, option: value},
                f"{option}{text} changes nothing in nnUNetTrainer{m}, whose loss does not ask the",
            )
            for m, values in (
                ("MiB", {"mib_weight": 0}),
                ("EWF", {"mib_weight": 0}),
                ("LwF", {"lwf_weight": 0}),
                ("ILT", {"lwf_weight": 0, "feature_weight": 0}),
                ("PGCDPaper", {"pgcd_weight": 0, "dapd_weight": 0}),
            )
            for option, value, text in (("teacher_volumes", True, ""), ("distillation_interval", 3, " 3"))
        ),
        (
            "PGCDOnly",
            {"pgcd_weight": 0, "old_dice_weight": 0, "distillation_interval": 2},
            "whose loss does not ask the teacher, with pgcd_weight 0 and",
        ),
        (
            "ILT",
            {"lwf_weight": 0, "teacher_volumes": True},
            "changes nothing in nnUNetTrainerILT with lwf_weight 0, since",
        ),
    ],
)
def test_what_an_option_cannot_mean_is_refused(toy, method, values, message):
    assert re.search(re.escape(message), refused(method, **values))


NO_TEACHER = {"pgcd_weight": 0, "old_dice_weight": 0, "old_class_sampling": False}
"""Switches off all that asks the teacher in PGCDOnly, but for its whole volumes, which are on by default."""


@pytest.mark.parametrize(
    ("method", "values", "ways"),
    [
        ("PGCDOnly", NO_TEACHER, [{"teacher_volumes": False}, {"old_class_sampling": True}]),
        (
            "PGCDOnly",
            {**NO_TEACHER, "teacher_volumes": True},
            [{"teacher_volumes": False}, {"old_class_sampling": True}],
        ),
        ("FineTune", {"teacher_volumes": True}, [{"teacher_volumes": None}, {"old_class_sampling": True}]),
        (
            "PseudoLabel",
            {"teacher_volumes": False, "drop_strays": True},
            [{"drop_strays": None}, {"teacher_volumes": True}],
        ),
        ("Replay", {"drop_strays": False}, [{"drop_strays": None}]),
        ("MiB", {"mib_weight": 0, "distillation_interval": 7}, [{"distillation_interval": None}]),
        (
            "PGCD",
            {"distillation_interval": 3, "teacher_volumes": False},
            [{"distillation_interval": None}, {"teacher_volumes": True}, {"old_dice_weight": 0}],
        ),
        (
            "LwF",
            {"distillation_interval": 2, "old_dice_weight": 0.1},
            [{"distillation_interval": None}, {"teacher_volumes": True}, {"old_dice_weight": 0}],
        ),
    ],
)
def test_the_ways_out_that_a_message_names_work(toy, method, values, ways):
    """None stands for a removal, which is named where the option is the schedule's own."""
    said = [f"set {k} to {json.dumps(v)}" if v is not None else f"remove {k}" for way in ways for k, v in way.items()]
    remedy = ", or ".join(said)
    assert refused(method, **values).endswith(f". {remedy[0].upper()}{remedy[1:]}.")
    for way in ways:
        changed = {k: v for k, v in {**values, **way}.items() if v is not None}
        assert not refused(method, **changed), way


@pytest.mark.parametrize(
    ("own", "values", "remedy"),
    [
        ({"teacher_volumes": True}, {}, "Set teacher_volumes to false, or set old_class_sampling to true."),
        (
            {"teacher_volumes": True, "old_class_sampling": fixed(False, "x")},
            {"drop_strays": False},
            "Set teacher_volumes to false.",
        ),
        ({"teacher_volumes": fixed(True, "x"), "old_class_sampling": fixed(False, "x")}, {}, "Use another trainer."),
        ({"distillation_interval": 5}, {}, "Set distillation_interval to 1."),
        ({"distillation_interval": 5}, {"distillation_interval": 6}, "Set distillation_interval to 1."),
        ({"teacher_volumes": fixed(False, "x")}, {"drop_strays": True}, "Remove drop_strays."),
    ],
)
def test_defaults_of_a_trainer_of_ones_own_are_named_as_what_they_are(own, values, remedy):
    trainer = type("nnUNetTrainerMine", (nnUNetTrainerMiB,), {"mib_weight": 0.0, **own})
    with pytest.raises(CILError, match=re.escape(f". {remedy}") + "$"):
        trainer.check_hyperparameters(values, "Schedule x")


def test_a_trainer_of_ones_own_is_told_what_its_loss_needs_for_an_interval():
    trainer = type("nnUNetTrainerMine", (nnUNetTrainerCIL,), {})
    with pytest.raises(
        CILError, match="fixes at 1: a trainer may declare DISTILLATION_INTERVAL if its loss uses 'dist"
    ):
        trainer.check_hyperparameters({"distillation_interval": 6}, "Schedule x")
    declares = type("nnUNetTrainerMine", (nnUNetTrainerCIL,), {"distillation_interval": DISTILLATION_INTERVAL})
    declares.check_hyperparameters({"distillation_interval": 6}, "Schedule x")


@pytest.mark.parametrize("name", trainer_names())
def test_only_a_trainer_that_asks_no_teacher_gives_that_as_the_reason(toy, name):
    trainer = trainer_class(name)
    assert (declared(trainer)["distillation_interval"].meaning == NOT_ASKED) == (not trainer.asks_teacher)


@pytest.mark.parametrize(("default", "remedy"), [(False, "Remove it"), (True, "Set it to false")])
def test_volumes_that_ilt_does_not_read_are_turned_off_where_they_come_from(default, remedy):
    trainer = type("nnUNetTrainerMine", (nnUNetTrainerILT,), {"teacher_volumes": default})
    with pytest.raises(CILError, match=f"{remedy}, or set lwf_weight above 0"):
        trainer.check_hyperparameters({"lwf_weight": 0} | ({} if default else {"teacher_volumes": True}), "Schedule x")


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("EWC", {"teacher_volumes": True, "old_dice_weight": 1}),
        ("FineTune", {"teacher_volumes": True, "old_class_sampling": True}),
        ("Replay", {"old_class_sampling": True}),
        ("PseudoLabel", {"new_class_start": "apart"}),
        ("Frozen", {"new_class_start": "imprinted"}),
        ("PGCD", {"new_class_start": "imprinted"}),
        ("Joint", {"new_class_start": "imprinted"}),
        ("LwF", {"new_class_start": "apart"}),
        ("MiB", {"distillation_interval": 4, "old_dice_weight": 1, "teacher_volumes": True}),
        ("MiB", {"mib_weight": 0, "old_dice_weight": 1, "teacher_volumes": True}),
        ("ILT", {"lwf_weight": 0, "distillation_interval": 2}),
        ("ILT", {"lwf_weight": 0, "old_class_sampling": True, "teacher_volumes": True}),
        ("PLOP", {"teacher_volumes": True, "drop_strays": False}),
        ("PseudoLabel", {"drop_strays": True}),
        ("Replay", {"old_dice_weight": 1, "teacher_volumes": True}),
    ],
)
def test_what_an_option_can_mean_is_taken(toy, method, values):
    assert not refused(method, **values)


def loss_of(kind, **settings):
    setup = make_setup(K, IGNORE, (0.7, 0.3), mib_weight=1.0, lwf_weight=1.0, ewc_weight=1.0, **settings)
    if kind is EWCLoss:
        return EWCLoss(setup, network=torch.nn.Linear(1, 1), anchors={}, importances={})
    return kind(setup)


@pytest.mark.parametrize("kind", [LwFLoss, MiBLoss, EWCLoss])
def test_the_dice_of_old_classes_is_added_to_every_methods_terms(data, kind, monkeypatch):
    logits, targets, teacher, carried = data
    monkeypatch.setattr("nnunet_cil.training.methods.ewc.importance_penalty", lambda *_: torch.zeros(()))
    batch = make_batch(teacher, carried=carried)
    plain = loss_of(kind).all_terms(logits, targets, batch)
    found = loss_of(kind, old_dice_weight=0.5).all_terms(logits, targets, batch)
    dice = 0.0
    lower = carried[:, [0, 2, 4]][:, :, [1, 3]][..., [0, 2]]  # nearest neighbour, voxel centres
    for weight, x, target, g in zip((0.7, 0.3), logits, targets, (carried, lower), strict=True):
        valid, labels = target[:, 0] != IGNORE, torch.where(target[:, 0] == 0, g, target[:, 0])
        for c in (1, 2):
            p, y = x.softmax(1)[:, c][valid], labels[valid] == c
            dice -= weight / 2 * ((2 * p[y].sum() + 1e-5) / (p.sum() + y.sum() + 1e-5)).item()
    assert found.pop("old_dice").item() == pytest.approx(0.5 * dice, rel=1e-4)
    assert {k: v.item() for k, v in found.items()} == {k: v.item() for k, v in plain.items()}


@pytest.mark.parametrize(("kind", "term"), [(LwFLoss, "lwf"), (MiBLoss, "distillation")])
def test_soft_terms_get_the_teachers_probabilities_corrected_by_its_volumes(data, kind, term):
    logits, targets, teacher, carried = data
    corrected = corrected_probs(teacher.logits.softmax(1), carried, 0.7)
    given = TeacherOutput(corrected.log(), teacher.features)
    batches = [make_batch(teacher), make_batch(teacher, carried=carried, volume_trust=0.7), make_batch(given)]
    on_patch, on_volume, expected = (loss_of(kind).terms(logits, targets, b)[term].item() for b in batches)
    assert on_volume == pytest.approx(expected, rel=1e-5)
    assert abs(on_volume - on_patch) > 1e-4


def test_a_log_softmax_is_taken_once_and_kept_no_longer_than_the_call(data):
    logits, targets, teacher, _ = data
    loss = loss_of(MiBLoss, old_dice_weight=1.0)
    seen, original = [], loss._old_dice
    loss._old_dice = lambda log_probs, *others: seen.append(log_probs) or original(log_probs, *others)
    terms = loss.terms
    loss.terms = lambda *known: seen.append(loss.log_probs(known[0])[0]) or terms(*known)
    loss.all_terms(logits, targets, make_batch(teacher))
    assert seen[0] is seen[1]
    assert loss.log_probs(logits)[0] is not seen[0]
