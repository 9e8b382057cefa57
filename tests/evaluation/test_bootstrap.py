"""The bootstrap over patients and trainings: by hand, against plain loops, and at its limits."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from nnunet_cil.evaluation import bootstrap
from nnunet_cil.evaluation.bootstrap import Sample, difference_interval, holm, statistic

NAN = math.nan


def sample(values, strata=None):
    values = np.asarray(values, dtype=float)
    return Sample(values=values, strata=np.zeros(values.shape[1], int) if strata is None else np.asarray(strata))


def drawn(*shape, mean=0.0, seed=3):
    return np.random.default_rng(seed).normal(mean, 1, shape)


def test_the_statistic_is_a_mean_over_classes_of_means_over_trainings_of_means_over_patients():
    values = [[[1, NAN], [3, 8]], [[5, NAN], [NAN, NAN]]]  # class 0: 2 and 5; class 1: 8 in one training
    assert statistic(sample(values)) == pytest.approx((3.5 + 8) / 2)


def test_the_draws_are_those_of_plain_loops(monkeypatch):
    """Patients are drawn once for all trainings, and trainings with them."""
    values = drawn(9, 11, 3, mean=0.4)
    values[2, 4] = values[:, 6, 1] = NAN
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 40)
    found = difference_interval([sample(values)], num_replicates=3000)
    random = np.random.default_rng(1)
    loops = []
    for _ in range(3000):
        patients, trainings = random.integers(11, size=11), random.integers(9, size=9)
        part = values[:, patients][trainings]
        loops.append(np.nanmean(np.nanmean(np.nanmean(part, 1), 0)))
    assert not found.is_t
    assert (found.low, found.high) == pytest.approx(np.quantile(loops, (0.025, 0.975)), abs=0.04)
    assert found.difference == pytest.approx(statistic(sample(values)))


def test_the_same_differences_give_the_same_interval():
    assert difference_interval([sample(drawn(3, 30, 2))]) == difference_interval([sample(drawn(3, 30, 2))])


@pytest.mark.parametrize(("trainings", "patients", "axis"), [(4, 40, 1), (1, 5, 0), (15, 40, 1)])
def test_a_t_interval_is_taken_where_it_is_wider(trainings, patients, axis):
    values = drawn(trainings, 1, 1, mean=2) + drawn(1, patients, 1, seed=8) * (0.01 if trainings > 1 else 1)
    found = difference_interval([sample(values)])
    test = ttest_1samp(values.mean(axis).ravel(), 0)
    assert found.is_t
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()))
    assert found.p == pytest.approx(test.pvalue)


@pytest.mark.parametrize("mean", [-0.5, -0.1, 0.0, 0.2, 0.6])
@pytest.mark.parametrize("shape", [(1, 40, 3), (3, 20, 2), (10, 20, 2)])
def test_p_is_below_a_twentieth_where_the_interval_leaves_out_zero(mean, shape):
    found = difference_interval([sample(drawn(*shape, mean=mean))], num_replicates=2000)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


@pytest.mark.parametrize("seed", range(12))
def test_an_interval_leaves_out_zero_only_where_each_kind_of_interval_does(seed):
    """Takes skewed differences: their widest interval has another centre, and may leave out what a narrower one holds."""
    random = np.random.default_rng(seed)
    values = random.choice([-1, 1]) * random.exponential(1, (1, 12, 1)) ** 1.5 / 20 + random.normal(0, 0.02, (3, 12, 1))
    values += random.uniform(0.01, 0.06) - values.mean()
    found = difference_interval([sample(values)], num_replicates=1000)
    crossed = bootstrap.bootstrap_interval([sample(values)], 1000)
    test = ttest_1samp(values.mean((1, 2)), 0)
    ends = test.confidence_interval()
    assert (found.low, found.high) == pytest.approx((min(crossed.low, ends.low), max(crossed.high, ends.high)))
    assert found.p == pytest.approx(max(crossed.p, test.pvalue))
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


@pytest.mark.parametrize("number", [199, 1000, 9990, 10_000])
@pytest.mark.parametrize("beyond", [0, 1, 2])
def test_p_and_the_percentiles_agree_at_the_edge(monkeypatch, number, beyond):
    """Around the number of replicates beyond 0 with which p passes a twentieth."""
    tail = math.ceil(0.025 * (number + 1)) - 2 + beyond
    replicates = np.r_[np.full(tail, -1e-3), np.linspace(1e-3, 1, number - tail)]
    monkeypatch.setattr(bootstrap, "_replicates", lambda *_, **__: [replicates])
    found = bootstrap.bootstrap_interval([sample(drawn(2, 9, 1))], number)
    assert (found.p < 0.05) == (found.low > 0) == (beyond == 0)


def test_one_training_and_one_patient_have_no_interval():
    found = difference_interval([sample([[[0.2, 0.4]]])])
    assert found.difference == pytest.approx(0.3)
    assert math.isnan(found.low)
    assert math.isnan(found.p)


def test_methods_that_are_alike_have_no_difference():
    found = difference_interval([sample(np.zeros((3, 12, 2)))])
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def of_own_patients(values):
    """Puts (trainings, patients, classes) into a sample in which no two trainings share a patient."""
    trainings, patients, classes = values.shape
    apart = np.full((trainings, trainings * patients, classes), NAN)
    for training, own in enumerate(values):
        apart[training, training * patients : (training + 1) * patients] = own
    return sample(apart, [-1] * (trainings * patients))


@pytest.mark.parametrize(("trainings", "patients"), [(2, 17), (3, 6), (9, 5)])
def test_trainings_that_are_alike_by_chance_do_not_narrow_the_interval_below_that_of_their_patients(
    trainings, patients
):
    """Each training has patients of its own, and the same mean: only its patients can vary."""
    values = drawn(trainings, patients, 1)
    values += 2 - values.mean(1, keepdims=True)
    found = difference_interval([of_own_patients(values)])
    random = np.random.default_rng(1)
    loops = [np.mean([random.choice(own[:, 0], patients).mean() for own in values]) for _ in range(4000)]
    assert not found.is_t
    assert (found.low, found.high) == pytest.approx(np.quantile(loops, (0.025, 0.975)), abs=0.03)
    assert found.p == pytest.approx(1e-4, rel=2)


@pytest.mark.parametrize("trainings", [3, 8, 12])
def test_trainings_with_patients_of_their_own_get_a_t_interval_however_many_they_are(trainings):
    values = drawn(trainings, 1, 1) + 0.3 * drawn(trainings, 15, 1, seed=4)
    found = difference_interval([of_own_patients(values)], num_replicates=1000)
    test = ttest_1samp(values.mean((1, 2)), 0)
    assert found.is_t
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()))


def test_own_patients_are_drawn_with_their_training_in_the_crossed_bootstrap():
    values = np.repeat(drawn(12, 1, 1) * np.r_[1, np.zeros(11)][:, None, None], 9, axis=1)
    found = difference_interval([of_own_patients(values)], num_replicates=4000)
    random = np.random.default_rng(1)
    loops = [random.choice(values[:, 0, 0], 12).mean() for _ in range(4000)]
    test = ttest_1samp(values[:, 0, 0], 0).confidence_interval()
    low, high = np.quantile(loops, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((min(low, test.low), max(high, test.high)), abs=0.02)


def test_patients_of_several_data_sets_of_which_one_has_its_own_are_all_drawn():
    """Trainings are alike, so that each interval is over patients."""
    shared = drawn(1, 30, 1) + np.zeros((4, 1, 1))
    own = drawn(4, 9, 1, seed=8)
    own -= own.mean(1, keepdims=True)
    found = difference_interval([sample(shared), of_own_patients(own)])
    half = math.hypot(shared[0].std() / math.sqrt(30), own.std() / 6) / 2 * 1.96
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)


def test_each_stratum_is_drawn_by_itself():
    """Two of one kind and thirty of another: no draw is without the first, whose class would be missing."""
    values = np.full((1, 32, 2), NAN)
    values[0, :2, 0] = 4
    values[0, 2:, 1] = 6
    apart = difference_interval([sample(values, [0] * 2 + [1] * 30)], num_replicates=500)
    assert (apart.low, apart.high) == (5, 5)
    assert difference_interval([sample(values)], num_replicates=500).high == 6


def test_several_data_sets_are_drawn_independently_and_weigh_alike():
    first, second = drawn(10, 50, 2, mean=1), drawn(12, 9, 3, mean=-0.2, seed=5)
    both = difference_interval([sample(first), sample(second)])
    alone = [difference_interval([sample(values)]) for values in (first, second)]
    assert both.difference == pytest.approx(np.mean([a.difference for a in alone]))
    halves = [(a.high - a.low) / 2 for a in alone]
    assert (both.high - both.low) / 2 == pytest.approx(math.hypot(*halves) / 2, rel=0.08)


def test_the_t_interval_of_several_data_sets_is_welchs():
    values = [drawn(4, 1, 1, mean=1) + np.zeros((4, 30, 1)), 0.2 * drawn(3, 1, 1, seed=6) + np.zeros((3, 30, 1))]
    found = difference_interval([sample(v) for v in values])
    variances = [np.var(v[:, 0, 0], ddof=1) / len(v) for v in values]
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 3 + variances[1] ** 2 / 2)
    from scipy.stats import t

    assert found.is_t
    assert (found.high - found.low) / 2 == pytest.approx(t.isf(0.025, freedom) * math.sqrt(sum(variances)) / 2)


def test_one_training_of_a_data_set_and_several_of_another_have_no_interval():
    """The former's trainings vary, too, by nobody knows what."""
    one, several = sample(drawn(1, 25, 2, mean=4)), sample(drawn(4, 25, 2, mean=5, seed=9))
    for samples in ([one, several], [several, several, one]):
        found = difference_interval(samples)
        assert found.difference == pytest.approx(np.mean([statistic(s) for s in samples]))
        assert np.isnan([found.low, found.high, found.p]).all()
    for samples in ([one], [one, one], [several, several]):
        assert difference_interval(samples).low > 0


def test_a_training_without_any_value_does_not_count():
    empty = drawn(3, 25, 2, mean=4)
    empty[1:] = NAN
    assert math.isnan(difference_interval([sample(empty), sample(drawn(4, 25, 2))]).p)
    assert difference_interval([sample(empty), sample(drawn(1, 25, 2, mean=4))]).low > 0


@pytest.mark.parametrize(
    ("ps", "corrected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.9, 0.02], [0.9, 0.04]),
        ([0.6, NAN, 0.7], [1.0, NAN, 1.0]),
        ([], []),
    ],
)
def test_holms_correction_by_hand(ps, corrected):
    assert holm(ps) == pytest.approx(corrected, nan_ok=True)
