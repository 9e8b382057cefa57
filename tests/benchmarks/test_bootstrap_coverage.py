"""benchmarks/bootstrap_coverage.py: intervals hold the true difference about as often as they say."""

import bootstrap_coverage
import pytest

ALIKE = bootstrap_coverage.SPREADS["trainings, patients and the rest alike"]


def coverage(kind, trainings=5):
    return bootstrap_coverage.coverage(kind, ALIKE, trainings, number=150, num_replicates=300)


@pytest.mark.parametrize("trainings", [2, 5])
@pytest.mark.parametrize("kind", ["shipped", "own patients"])
def test_the_interval_holds_the_true_difference_about_as_often_as_it_says(kind, trainings):
    assert 0.88 <= coverage(kind, trainings) <= 1


def test_patients_drawn_in_each_training_make_it_too_narrow():
    assert coverage("nested") < 0.86 < coverage("crossed")
