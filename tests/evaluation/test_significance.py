"""Paired tests between trainers, by hand."""

import math

import numpy as np
import pytest
from scipy.stats import false_discovery_control, wilcoxon

from nnunet_cil.evaluation.scores import score_table
from nnunet_cil.evaluation.significance import case_differences, paired_tests

NAN = math.nan


def table(**dice):
    """Scores after the last step: trainer -> class -> (case, Dice) pairs."""
    return score_table(
        {"trainer": trainer, "step": 1, "fold": 0, "case": case, "class": name, "dice": value}
        for trainer, classes in dice.items()
        for name, values in classes.items()
        for case, value in values
    )


def test_a_paired_test_by_hand():
    """Five cases, all differences of one sign: the exact two-sided p is 2 / 2**5."""
    cases = range(5)
    own = {"a": [(c, 0.8) for c in cases], "b": [(c, 0.5) for c in cases]}
    other = {"a": [(c, 0.7 - 0.05 * c) for c in cases], "b": [(c, 0.5) for c in cases]}
    found = {t.group: t for t in paired_tests(table(x=own, y=other), ["a"], ["b"])}
    assert found["old"].p == pytest.approx(2 / 2**5)
    assert found["old"].median_difference == pytest.approx(0.2)
    assert found["old"].num_cases == 5
    assert found["all"].median_difference == pytest.approx(0.1)
    assert found["new"].p == 1
    # Benjamini-Hochberg by hand: p (0.0625, 0.0625, 1) times 3 / rank, made monotonous from the end
    assert [found[g].p_corrected for g in ("old", "all", "new")] == pytest.approx([0.09375, 0.09375, 1])


def test_paired_tests_take_cases_that_both_have_and_folds_together():
    own = {"a": [(1, 0.4), (1, 0.6), (2, 0.9), (3, math.nan)]}
    other = {"a": [(1, 0.3), (2, 0.5), (3, 0.2)]}
    found = paired_tests(table(x=own, y=other), [], ["a"])
    assert {t.group for t in found} == {"new", "all"}
    assert found[0].num_cases == 2
    assert found[0].median_difference == pytest.approx(0.3)
    assert paired_tests(table(x=own), [], ["a"]) == []


def drawn(num_cases, num_classes, seed):
    """Dice of two methods, (cases, classes) each: some undefined for both, some for one alone."""
    rng = np.random.default_rng(seed)
    own, other = rng.uniform(0.2, 0.9, (2, num_cases, num_classes))
    absent = rng.random(own.shape) < 0.3  # the reference lacks the class: 0 where it is predicted, else nothing
    for dice in (own, other):
        dice[absent] = np.where(rng.random(absent.sum()) < 0.5, 0, NAN)
    return own, other


def of_arrays(**dice):
    """The same as ``table``, from arrays (cases, classes)."""
    return table(**{t: {str(c): list(enumerate(column)) for c, column in enumerate(a.T)} for t, a in dice.items()})


def test_a_case_that_is_undefined_for_one_method_is_dropped_for_both_as_scipy_drops_it():
    own, other = drawn(17, 1, seed=4)
    assert (np.isnan(own) != np.isnan(other)).any()
    (found, _) = paired_tests(of_arrays(x=own, y=other), [], ["0"])
    expected = wilcoxon(own[:, 0], other[:, 0], nan_policy="omit")
    assert found.p == pytest.approx(expected.pvalue)
    assert found.num_cases == (~np.isnan(own - other)).sum()
    assert found.num_left_out == (np.isnan(own) != np.isnan(other)).sum()
    assert found.median_difference == pytest.approx(np.nanmedian(own - other))


def test_a_case_mean_goes_over_the_classes_that_both_methods_have():
    own, other = drawn(23, 3, seed=9)
    missing = np.isnan(own) | np.isnan(other)
    tests = paired_tests(of_arrays(x=own, y=other), ["0"], ["1", "2"])
    ps = []
    for test, columns in zip(tests, ([0], [1, 2], [0, 1, 2]), strict=True):
        masked = [np.ma.masked_array(dice, missing)[:, columns].mean(1) for dice in (own, other)]
        difference = (masked[0] - masked[1]).compressed()
        ps.append(wilcoxon(difference).pvalue)
        assert test.num_cases == difference.size
        assert test.num_left_out == (np.isnan(own) != np.isnan(other))[:, columns].sum()
        assert test.p == pytest.approx(ps[-1])
        assert test.median_difference == pytest.approx(np.median(difference))
    assert [t.p_corrected for t in tests] == pytest.approx(list(false_discovery_control(ps)))


def test_a_false_organ_of_one_method_does_not_move_its_other_organs():
    """The reference lacks b: x puts it there (0), y does not (undefined). On a they are alike."""
    x, y = {"a": [(1, 0.8)], "b": [(1, 0.0)]}, {"a": [(1, 0.8)], "b": [(1, NAN)]}
    for first, second in ((x, y), (y, x)):
        (difference,), num_left_out = case_differences(*(table(t=d) for d in (first, second)), ["a", "b"])
        assert (difference, num_left_out) == (0, 1)


def test_folds_are_paired_one_by_one():
    def rows(trainer, **folds):
        return score_table(
            {"trainer": trainer, "step": 1, "fold": int(fold[1:]), "case": "k", "class": "a", "dice": value}
            for fold, value in folds.items()
        )

    (difference,), num_left_out = case_differences(
        rows("x", f0=0.6, f1=0.0, f2=NAN), rows("y", f0=0.5, f1=NAN, f2=NAN), ["a"]
    )
    assert difference == pytest.approx(0.1)
    assert num_left_out == 1


def test_without_a_pair_there_is_no_test():
    assert paired_tests(table(x={"a": [(1, 0.5), (2, NAN)]}, y={"a": [(1, NAN), (2, 0.5)]}), [], ["a"]) == []
