"""Differences of two methods: which scores they are over, and which of them are corrected."""

import math
from dataclasses import asdict

import numpy as np
import pytest

from nnunet_cil.evaluation.bootstrap import Sample, difference_interval, holm
from nnunet_cil.evaluation.differences import Scores, corrected, differences, evaluated_differences
from nnunet_cil.evaluation.scores import score_table
from nnunet_cil.evaluation.tables import differences_table

NAN = math.nan
STEPS = (("a",), ("b",), ("c",))


def table(**methods):
    """The scores of methods: each is (step, fold, case, class) -> Dice."""
    return score_table(
        {"trainer": trainer, "step": step, "fold": fold, "case": case, "class": name, "dice": value}
        for trainer, rows in methods.items()
        for (step, fold, case, name), value in rows.items()
    )


def last(values):
    """The scores of one class after the only step, (folds, cases)."""
    return {(0, fold, case, "a"): value for fold, row in enumerate(values) for case, value in enumerate(row)}


def of_groups(found):
    return {d.group: d for d in found}


def test_old_and_all_are_after_the_last_step_and_new_is_right_after_its_own():
    def dice(less):
        values = {(0, "a"): 0.9, (1, "a"): 0.8, (1, "b"): 0.7, (2, "a"): 0.6, (2, "b"): 0.5, (2, "c"): 0.4}
        return {
            (step, 0, case, name): value - less.get((step, name), 0)
            for (step, name), value in values.items()
            for case in range(3)
        }

    behind = {(0, "a"): 0.5, (1, "a"): 0.3, (1, "b"): 0.1, (2, "a"): 0.01, (2, "b"): 0.02, (2, "c"): 0.06}
    found = of_groups(evaluated_differences(table(x=dice({}), y=dice(behind)), STEPS))
    assert found["old"].difference == pytest.approx(0.015)
    assert found["all"].difference == pytest.approx(0.03)
    assert found["new_when_learnt"].difference == pytest.approx((0.1 + 0.06) / 2)


def test_with_one_step_nothing_is_old_or_new():
    found = evaluated_differences(table(x=last([[0.5, 0.7]]), y=last([[0.4, 0.4]])), STEPS[:1])
    assert [d.group for d in found] == ["all"]
    assert found[0].difference == pytest.approx(0.2)
    assert (found[0].num_trainings, found[0].over) == (1, "patients")


def test_a_score_that_one_method_lacks_counts_for_neither_in_every_group():
    """The reference of case 1 lacks b: x puts it there (0), y does not (undefined)."""

    def dice(lacks):
        classes = {"a": (0.8, 0.9), "b": (0.6, lacks)}
        return {
            (step, 0, case, name): value
            for step, names in enumerate(("a", "ab"))
            for name in names
            for case, value in enumerate(classes[name])
        }

    for first, second in ((0.0, NAN), (NAN, 0.0)):
        found = of_groups(evaluated_differences(table(x=dice(first), y=dice(second)), STEPS[:2]))
        assert {d.difference for d in found.values()} == {0}
        assert {group: d.num_left_out for group, d in found.items()} == {"old": 0, "new_when_learnt": 1, "all": 1}
        assert {group: d.num_cases for group, d in found.items()} == {"old": 2, "new_when_learnt": 1, "all": 2}


def test_test_cases_are_drawn_once_for_all_folds():
    own, other = np.random.default_rng(4).uniform(0.4, 0.9, (2, 3, 12))
    (found,) = evaluated_differences(table(x=last(own), y=last(other)), STEPS[:1])
    values = (own - other)[:, :, None]
    expected = difference_interval([Sample(values=values, strata=np.zeros(12, int))])
    assert (found.difference, found.low, found.high, found.p) == pytest.approx(
        (expected.difference, expected.low, expected.high, expected.p)
    )
    assert (found.num_trainings, found.num_cases, found.over) == (3, 12, "patients and trainings")


@pytest.mark.parametrize(
    ("spread", "interval", "half"),
    [(0.001, "t", 4.302653 * 0.01 / math.sqrt(3)), (0.3, "bootstrap", 1.96 * 0.3 / math.sqrt(60))],
)
def test_validation_cases_come_with_their_fold_or_are_drawn_within_it(spread, interval, half):
    """Folds vary by 0.01. Where cases vary by less the t interval over folds is the wider, else that over cases."""
    dice = {"x": {}, "y": {}}
    for fold in range(3):
        for case in range(20):
            dice["x"][0, fold, f"{fold}_{case}", "a"] = 0.5 + 0.01 * fold + (spread if case % 2 else -spread)
            dice["y"][0, fold, f"{fold}_{case}", "a"] = 0.5
    (found,) = evaluated_differences(table(**dice), STEPS[:1])
    assert found.difference == pytest.approx(0.01)
    assert found.interval == interval
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)  # of draws in steps of 0.01
    assert found.num_cases == 60


def test_cases_of_data_sets_are_drawn_apart():
    """Each data set labels its own class, and has one value: nothing varies."""
    dice = [
        {(0, 0, f"D{number}/{case}", name): value for number, name, value in rows for case in range(10)}
        for rows in ([(1, "a", 0.6), (2, "b", 0.9)], [(1, "a", 0.5), (2, "b", 0.5)])
    ]
    (found,) = evaluated_differences(table(x=dice[0], y=dice[1]), [("a", "b")])
    assert (found.low, found.high) == pytest.approx((0.25, 0.25))


def test_the_primary_comparison_is_the_first_with_the_second_and_only_the_others_are_corrected():
    random = np.random.default_rng(8)
    dice = {
        trainer: {
            (step, 0, case, name): random.normal(mean, 0.1)
            for step, names in enumerate(("a", "ab"))
            for name in names
            for case in range(25)
        }
        for trainer, mean in {"x": 0.7, "y": 0.65, "z": 0.6}.items()
    }
    found = evaluated_differences(table(**dice), STEPS[:2])
    assert [(d.other, d.group) for d in found if d.is_primary] == [("y", "all")]
    rest = [d for d in found if not d.is_primary]
    assert len(rest) == 5
    assert [d.p_corrected for d in rest] == holm([d.p for d in rest])
    assert all(d.p_corrected == d.p for d in found if d.is_primary)


def test_methods_without_a_score_in_common_are_not_compared():
    assert evaluated_differences(table(x=last([[0.5, NAN]]), y=last([[NAN, 0.5]])), STEPS[:1]) == []
    assert evaluated_differences(table(x=last([[0.5]])), STEPS[:1]) == []


def test_the_mean_over_data_sets_weighs_each_alike_and_names_the_fewest_trainings():
    first = table(x=last([[0.9] * 30] * 2), y=last([[0.5] * 30] * 2))
    second = table(x=last([[0.5] * 4] * 3), y=last([[0.6] * 4] * 3))
    (found,) = differences([Scores(table=t, steps=STEPS[:1]) for t in (first, second)], "x", "y")
    assert found.difference == pytest.approx(0.15)
    assert (found.num_trainings, found.num_cases) == (2, 34)


def test_data_sets_of_one_training_and_of_several_have_a_mean_without_an_interval():
    """Its p counts for no correction, and the table says why there is none."""
    values = np.random.default_rng(2).uniform(0.6, 0.9, (2, 3, 15))
    several = table(x=last(values[0]), y=last(values[1] - 0.4))
    one = table(x=last(values[0, :1]), y=last(values[1, :1] - 0.3))
    data = [Scores(table=t, steps=STEPS[:1]) for t in (one, several)]
    found = corrected([d for part in (data, data[:1], data[1:]) for d in differences(part, "x", "y")])
    assert [d.over for d in found] == ["nothing", "patients", "patients and trainings"]
    assert np.isnan([found[0].low, found[0].high, found[0].p, found[0].p_corrected]).all()
    assert [d.p_corrected for d in found[1:]] == holm([d.p for d in found[1:]])
    cells = [line[3] for line in differences_table([asdict(d) for d in found]).body]
    assert cells[0] == "none: a data set has 1 training"
    assert all(" to " in cell for cell in cells[1:])
