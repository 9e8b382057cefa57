"""Hyper-parameters of trainers: declared once, inherited, fixed, checked."""

import math
import re

import pytest
import torch

from nnunet_cil.errors import CILError
from nnunet_cil.limits import MAX_COUNT
from nnunet_cil.shipped import trainer_names
from nnunet_cil.training.catalogue import hyperparameter_names, is_installed, trainer_class
from nnunet_cil.training.hyperparameters import (
    check,
    choice,
    declared,
    fixed,
    number,
    restore,
    set_values,
    settable,
    settings,
    switch,
    whole_number,
)
from nnunet_cil.training.methods.mib import nnUNetTrainerMiB
from nnunet_cil.training.methods.pgcd import nnUNetTrainerDAPDOnly, nnUNetTrainerPGCD
from nnunet_cil.training.methods.pgcd_paper import nnUNetTrainerPGCDPaper
from nnunet_cil.training.methods.pseudo_label import nnUNetTrainerPseudoLabel


class Parent:
    weight = number(2.0, "A weight.", high=5)
    count = whole_number(3, "A number of things.", low=1)
    on = switch(True, "A switch.")
    tone = choice("loud", ["loud", "quiet", "silent"], "A choice.")


class Child(Parent):
    own = number(0.5, "One more.")
    weight = fixed(0.0, "it was of no use")


class Changed(Parent):
    weight = 4.0


def test_a_hyperparameter_is_read_as_its_value():
    assert (Parent.weight, Parent().count, Child().on) == (2.0, 3, True)


def test_a_child_inherits_and_a_fixed_one_cannot_be_set():
    assert list(settable(Parent)) == ["weight", "count", "on", "tone"]
    assert list(settable(Child)) == ["count", "on", "tone", "own"]
    assert vars(settings(Child())) == {"weight": 0.0, "count": 3, "on": True, "tone": "loud", "own": 0.5}
    with pytest.raises(
        CILError, match=r"sets the hyper-parameter 'weight', which Child fixes at 0\.0: it was of no use\. Remove it\."
    ):
        check(Child, {"weight": 1.0}, "Schedule x")


def test_a_plain_value_in_a_subclass_is_another_default():
    assert settings(Changed()).weight == 4.0
    trainer = Changed()
    set_values(trainer, {"weight": 1})
    assert settings(trainer).weight == 1.0
    with pytest.raises(CILError, match="must be a number from 0 to 5"):
        check(Changed, {"weight": 6}, "Schedule x")


@pytest.mark.parametrize(("name", "value"), [("weight", -1.0), ("weight", 7), ("count", 1.5), ("on", "yes")])
def test_a_plain_value_out_of_range_is_refused(name, value):
    trainer = type("Mine", (Parent,), {name: value})
    with pytest.raises(CILError, match=f"Mine sets '{name}' to {value!r}, but it must be"):
        check(trainer, {}, "Schedule x")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("weight", 5.1, "a number from 0 to 5"),
        ("weight", True, "a number from 0 to 5"),
        ("weight", float("inf"), "a finite number from 0 to 5"),
        ("weight", float("nan"), "a finite number from 0 to 5"),
        ("weight", 10**400, "a number from 0 to 5"),
        ("count", 1e7, "a whole number from 1 to 1000000"),
        ("count", 10**400, "a whole number from 1 to 1000000"),
        ("count", float("-inf"), "a whole number from 1 to 1000000"),
        ("count", 0, "a whole number from 1 to 1000000"),
        ("count", 2.5, "a whole number from 1 to 1000000"),
        ("count", None, "a whole number from 1 to 1000000"),
        ("on", 2, "true or false"),
        ("on", "true", "true or false"),
        ("on", None, "true or false"),
        ("tone", "noisy", r"one of 'loud', 'quiet', 'silent'\."),
        ("tone", "qiuet", r"one of 'loud', 'quiet', 'silent' \(did you mean 'quiet'\?\)"),
        ("tone", 1, r"one of 'loud', 'quiet', 'silent'\."),
        ("tone", ["loud"], r"one of 'loud', 'quiet', 'silent'\."),
    ],
)
def test_values_out_of_range_or_of_another_type_are_refused(name, value, expected):
    with pytest.raises(CILError, match=f"'{name}' to .*, but it must be {expected}"):
        check(Parent, {name: value}, "Schedule x")


@pytest.mark.parametrize(("value", "expected"), [(1, True), (0, False), (True, True), (False, False)])
def test_switches_take_true_and_false_and_the_numbers_of_older_schedules(value, expected):
    check(Parent, {"on": value}, "Schedule x")
    trainer = Parent()
    set_values(trainer, {"on": value})
    assert trainer.on is expected


@pytest.mark.parametrize(
    ("held", "same", "others"),
    [
        (fixed(0.25, "so"), (0.25,), (0.5, "0.25", [0.25], None, math.nan)),
        (fixed(1, "so"), (1, 1.0), (True, 2)),
        (fixed(True, "so"), (True, 1), (False, 0, "true")),
        (fixed("loud", "so"), ("loud",), ("Loud", ["loud"])),
    ],
)
def test_a_fixed_one_may_be_set_to_what_it_is_fixed_at(held, same, others):
    trainer = type("Mine", (Parent,), {"own": held})
    for value in same:
        check(trainer, {"own": value}, "Schedule x")
        mine = trainer()
        set_values(mine, {"own": value})
        assert (mine.own, type(mine.own)) == (held.default, type(held.default))
    for value in others:
        with pytest.raises(CILError, match=f"'own', which Mine fixes at {held.default!r}: so. Remove it. A step that"):
            check(trainer, {"own": value}, "Schedule x")


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("PGCD", {"dapd_weight": 0.1, "drop_strays": True, "new_class_noise": 1, "pgcd_merge": False}),
        ("PGCDOnly", {"dapd_weight": 0}),
        ("DAPDOnly", {"pgcd_weight": 0, "pgcd_weighting": "uniform"}),
        ("Joint", {"drop_strays": True, "teacher_volumes": False, "distillation_interval": 1}),
        ("FineTune", {"old_dice_weight": 0, "distillation_interval": 1}),
    ],
)
def test_trainers_take_the_values_that_they_are_fixed_at(toy, method, values):
    trainer_class(f"nnUNetTrainer{method}").check_hyperparameters(values, "Schedule x")


def test_a_choice_is_set_as_text():
    trainer = Parent()
    set_values(trainer, {"tone": "silent"})
    assert trainer.tone == "silent"


def test_whole_numbers_may_be_written_with_a_point():
    check(Parent, {"count": 4.0}, "Schedule x")
    trainer = Parent()
    set_values(trainer, {"count": 4.0})
    assert trainer.count == 4
    assert isinstance(trainer.count, int)


@pytest.mark.parametrize("name", trainer_names())
def test_every_trainer_says_what_its_hyperparameters_mean_and_holds_them_in_range(name, toy):
    trainer = trainer_class(name)
    for parameter, declaration in settable(trainer).items():
        assert declaration.meaning.endswith("."), parameter
        assert declaration.check(getattr(trainer, parameter)) is None, parameter
    for parameter, declaration in declared(trainer).items():
        if not declaration.is_settable:  # the reason stands between a colon and a full stop
            assert re.fullmatch(r"[a-z0-9].{10,}[^.]|nnUNetTrainer.*[^.]", declaration.meaning), parameter
    assert set(settable(trainer)) <= hyperparameter_names()
    assert set(settable(trainer)) <= set(declared(trainer))


@pytest.mark.parametrize("name", trainer_names())
def test_every_number_has_a_largest_value_with_which_float32_can_still_count(name, toy):
    trainer = trainer_class(name)
    numbers = {n: d for n, d in settable(trainer).items() if type(d.default) in (int, float)}
    for parameter, declaration in numbers.items():
        assert declaration.check(declaration.high) is None
        assert torch.isfinite(torch.tensor(declaration.high * MAX_COUNT, dtype=torch.float32))  # k times a term
        for value in (declaration.high * 1.5, 3e19, 2e307, -(10**309), 10**310):
            with pytest.raises(
                CILError, match=f"{parameter}' to .*, but it must be .* to {declaration.high}\\."
            ) as error:
                check(trainer, {parameter: value}, "Schedule x")
            assert len(str(error.value)) < 200


def test_the_papers_terms_have_their_constants_and_every_option_of_ours_off():
    terms = {"pgcd_weight": 10, "pgcd_weighting": "prototypes", "dapd_weight": 1}
    options = {"new_class_start": "balanced", "distillation_interval": 1}
    options |= dict.fromkeys(("old_class_sampling", "teacher_volumes", "old_dice_weight"), 0) | {"drop_strays": True}
    paper = nnUNetTrainerPGCDPaper
    assert {name: getattr(paper, name) for name in settable(paper)} == {**terms, **options}
    constants = {
        "pgcd_beta": 3,
        "pgcd_merge": True,
        "background_momentum": 0.99,
        "min_voxels": 10,
        "similarity_temperature": 0.1,
    }
    constants |= {"prototype_refresh": 0, "prototype_confidence": 0.9}  # the latter for models without prototypes
    of_others = {
        "volume_trust": 0.9,
        "absent_size": 0.25,
        "absent_doubt": 1.5,
        "absent_weight": 3,
    }  # of teacher_volumes
    of_others["new_class_noise"] = 1  # of another start
    held = {name: getattr(paper, name) for name in declared(paper) if name not in settable(paper)}
    assert held == {**constants, **of_others}


def test_a_resumed_training_keeps_its_old_defaults_but_not_what_the_schedule_sets_now():
    trainer = object.__new__(nnUNetTrainerPGCD)
    trainer.old_dice_weight = 0.5
    recorded = {
        "pgcd_weight": 10.0,
        "pgcd_merge": True,
        "old_dice_weight": 1.0,
        "of_earlier_versions": 3,
        "min_voxels": "x",
        "prototype_refresh": True,
        "pgcd_weighting": "of earlier versions",
    }
    recorded |= {"dapd_weight": 0.1}  # unchanged
    recorded |= {"distillation_interval": 0}  # out of today's range
    changed = {"pgcd_weight": 10.0, "pgcd_merge": True, "distillation_interval": 0}
    assert restore(trainer, recorded, {"old_dice_weight"}) == changed
    assert (trainer.pgcd_weight, trainer.pgcd_merge, trainer.old_dice_weight) == (10, True, 0.5)
    assert trainer.min_voxels == nnUNetTrainerPGCD.min_voxels


def test_a_schedule_may_set_half_of_what_it_could_set_for_pgcd():
    options = {"new_class_start", "old_class_sampling", "teacher_volumes", "old_dice_weight", "distillation_interval"}
    assert set(settable(nnUNetTrainerPGCD)) == options | {"pgcd_weight", "pgcd_weighting"}


@pytest.mark.parametrize(
    ("trainer", "values", "message"),
    [
        (nnUNetTrainerMiB, {"pgcd_weighting": "permuted"}, "which nnUNetTrainerMiB does not have"),
        (nnUNetTrainerPseudoLabel, {"pgcd_weighting": "uniform"}, "which nnUNetTrainerPseudoLabel does not have"),
        (
            nnUNetTrainerDAPDOnly,
            {"pgcd_weighting": "teacher"},
            "nnUNetTrainerDAPDOnly fixes at 'uniform': it has no term to weigh. Remove it.",
        ),
        (
            nnUNetTrainerPGCD,
            {"pgcd_weighting": "permutated"},
            "one of 'prototypes', 'uniform', 'teacher', 'permuted' (did",
        ),
        (
            nnUNetTrainerPGCD,
            {"pgcd_weighting": "prototypes", "pgcd_weight": 0.0},
            "'prototypes' changes nothing where pgcd_weight is 0",
        ),
        (
            nnUNetTrainerPGCDPaper,
            {"pgcd_weighting": "teacher", "pgcd_weight": 0},
            "nothing where pgcd_weight is 0. Set",
        ),
    ],
)
def test_a_control_of_pgcds_weights_is_for_losses_with_these_weights(trainer, values, message):
    with pytest.raises(CILError, match=re.escape(message)):
        trainer.check_hyperparameters(values, "Schedule x")


@pytest.mark.parametrize("name", ["torch", "join"])
def test_what_a_module_of_nnunet_imports_is_no_trainer(name):
    with pytest.raises(CILError, match=f"nnU-Net does not find the trainer '{name}'"):
        trainer_class(name)
    assert not is_installed(name)
