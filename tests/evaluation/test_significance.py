"""Paired tests between trainers, by hand."""

import math

import pytest

from nnunet_cil.evaluation.scores import score_table
from nnunet_cil.evaluation.significance import paired_tests


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
