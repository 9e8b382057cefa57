"""Scores of a sequence of models, by hand."""

import math

import numpy as np
import pytest

from nnunet_cil.evaluation.continual import continual_scores, score_matrix

STEPS = [("a", "b"), ("c",), ("d",)]
SCORES = [
    {"a": 0.8, "b": 0.6},
    {"a": 0.9, "b": 0.7, "c": 0.5},
    {"a": 0.4, "b": 0.2, "c": 0.6, "d": 0.9},
]


def test_the_matrix_is_undefined_above_the_diagonal():
    matrix = score_matrix(SCORES, STEPS)
    expected = [[0.7, math.nan, math.nan], [0.8, 0.5, math.nan], [0.3, 0.6, 0.9]]
    assert np.allclose(matrix, expected, equal_nan=True)


def test_scores_of_a_schedule_by_hand():
    found = continual_scores(SCORES, STEPS, joint={"a": 0.9, "b": 0.9, "c": 0.8, "d": 0.7})
    assert found.old == pytest.approx([math.nan, 0.8, 0.4], nan_ok=True)
    assert found.new == pytest.approx([0.7, 0.5, 0.9])
    assert found.all == pytest.approx([0.7, 0.7, 0.525])
    assert found.new_when_learnt == pytest.approx((0.5 + 0.9) / 2)
    assert found.average_incremental == pytest.approx((0.7 + 0.7 + 0.525) / 3)
    assert found.forgetting == pytest.approx(((0.8 - 0.3) + (0.6 - 0.6)) / 2)
    assert found.backward_transfer == pytest.approx(((0.3 - 0.7) + (0.6 - 0.5)) / 2)
    assert found.intransigence == pytest.approx(((0.9 - 0.7) + (0.8 - 0.5) + (0.7 - 0.9)) / 3)


def test_a_class_that_no_case_has_does_not_count():
    scores = [{"a": math.nan, "b": 0.6}, {"a": math.nan, "b": 0.4, "c": math.nan}]
    found = continual_scores(scores, STEPS[:2])
    assert found.matrix[1, 0] == pytest.approx(0.4)
    assert math.isnan(found.new[1])
    assert found.all[1] == pytest.approx(0.4)
    assert found.forgetting == pytest.approx(0.2)
    assert math.isnan(found.intransigence)


def test_new_classes_weigh_alike_whatever_their_step():
    steps = [("a",), ("b", "c"), ("d",)]
    scores = [{"a": 0.8}, {"a": 0.8, "b": 0.2, "c": 0.3}, {"a": 0.8, "b": 0.9, "c": 0.9, "d": 0.7}]
    assert continual_scores(scores, steps).new_when_learnt == pytest.approx(0.4)


def test_one_step_has_nothing_to_forget():
    found = continual_scores(SCORES[:1], STEPS[:1])
    assert math.isnan(found.forgetting)
    assert math.isnan(found.new_when_learnt)
    assert found.average_incremental == pytest.approx(0.7)


def test_a_missing_step_is_refused():
    with pytest.raises(ValueError, match="scores of 1 steps, but the schedule has 3"):
        continual_scores(SCORES[:1], STEPS)
