"""The interval and the p value of a mean difference, over patients and trainings at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NUM_REPLICATES = 10_000

FEW = 8
"""Fewer patients than these get a t interval, too: percentiles of so few are too narrow."""

_SEED = 20_251_107
_AT_ONCE = 1_000
_TAIL = 0.025

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Differences of two methods on one data set.

    Attributes:
        values: (trainings, patients, classes), NaN where undefined. A training is a pair: both methods, from one initial model.
        strata: (patients,), patients of one number are drawn together. A negative one: the patient belongs to one training of
            several, and comes with it.
    """

    values: Array
    strata: npt.NDArray[np.int64]

    def of(self, classes: Sequence[int]) -> Sample:
        """Returns the differences of some classes, by their places."""
        return Sample(values=self.values[:, :, list(classes)], strata=self.strata)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean difference with its interval; NaN where nothing is known.

    Attributes:
        difference: the mean.
        low: lower end.
        high: upper end.
        p: two-sided; below 0.05 exactly where the interval leaves out 0.
        is_t: whether an end is that of a t interval, which reached further than those of the bootstrap.
    """

    difference: float
    low: float
    high: float
    p: float
    is_t: bool


def difference_interval(samples: Sequence[Sample], *, num_replicates: int = NUM_REPLICATES) -> Interval:
    """Returns the mean difference, with an interval that holds several others, and the largest of their p values.

    1. The crossed bootstrap: in each replicate the trainings of a data set are drawn, and its patients once for all trainings.
       Patients who belong to one training come with it.
    2. Where there are such, the bootstrap over patients alone: each training's are drawn, and all trainings are in.
    3. A t interval over the means of trainings, and with fewer than ``FEW`` patients one over theirs. Over several data sets
       Welch's.

    The statistic is the mean over classes of the mean over trainings of the mean over patients, then the mean over data sets.
    Those of the bootstrap have the percentiles 2.5 and 97.5. The draws are the same in every call. The widest alone may leave out
    a 0 that another one holds: their centres differ.

    Percentiles of few units are too narrow, hence 3; means of few trainings can be alike by chance, hence 2.

    There is no interval where some data sets have one training and others several: it would leave out what the trainings of the
    former vary by.

    Args:
        samples: one a data set.
        num_replicates: of each bootstrap.
    """
    difference = float(np.mean([statistic(sample) for sample in samples]))
    nothing = Interval(difference=difference, low=math.nan, high=math.nan, p=math.nan, is_t=False)
    units = [[_means_of_trainings(s) for s in samples], [_means_of_patients(s) for s in samples]]
    is_alone = {len(means) == 1 for means in units[0]}
    if math.isnan(difference) or len(is_alone) > 1 or not any(len(means) > 1 for kind in units for means in kind):
        return nothing
    found = [bootstrap_interval(samples, num_replicates)]
    if any((s.strata < 0).any() for s in samples):
        by_training = [_with_patients_by_training(s) for s in samples]
        found.append(bootstrap_interval(by_training, num_replicates, draw_trainings=False))
    trainings, patients = (min(map(len, kind)) for kind in units)
    if trainings > 1:
        found.append(_t_interval(difference, units[0]))
    if 1 < patients < FEW:
        found.append(_t_interval(difference, units[1]))
    low, high = min(i.low for i in found), max(i.high for i in found)
    drawn = [i for i in found if not i.is_t]
    is_t = low < min(i.low for i in drawn) or high > max(i.high for i in drawn)
    p = max((i.p for i in found if not math.isnan(i.p)), default=math.nan)
    return Interval(difference=difference, low=low, high=high, p=p, is_t=is_t)


def bootstrap_interval(samples: Sequence[Sample], num_replicates: int, *, draw_trainings: bool = True) -> Interval:
    """Returns the mean difference, with the percentiles of drawn patients and trainings.

    Args:
        samples: one a data set.
        num_replicates: how often they are drawn.
        draw_trainings: whether trainings are drawn; otherwise all are in every replicate.
    """
    random = np.random.default_rng(_SEED)
    replicates = (_replicates(s, num_replicates, random, draw_trainings=draw_trainings) for s in samples)
    drawn = np.mean([np.concatenate(list(own)) for own in replicates], axis=0)
    drawn = drawn[~np.isnan(drawn)]
    rank = max(0, math.ceil(_TAIL * (len(drawn) + 1)) - 2)  # so that the ends leave out 0 just where p is below 0.05
    low, high = np.sort(drawn)[[rank, -1 - rank]]
    tail = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    p = min(1.0, 2 * float(tail + 1) / (len(drawn) + 1))
    difference = float(np.mean([statistic(sample) for sample in samples]))
    return Interval(difference=difference, low=float(low), high=float(high), p=p, is_t=False)


def statistic(sample: Sample) -> float:
    """Returns the mean over classes of the mean over trainings of the mean over patients, each over what is defined."""
    return float(_mean(_mean(_mean(sample.values, 1), 0), 0))


def _mean(values: Array, axis: int) -> Array:
    """Returns the mean of the values that are not NaN; NaN where there is none."""
    is_defined = ~np.isnan(values)
    return _ratio(np.where(is_defined, values, 0).sum(axis), is_defined.sum(axis))


def _ratio(total: Array, number: npt.NDArray[np.number]) -> Array:
    ratio: Array = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return ratio


def _means_of_trainings(sample: Sample) -> Array:
    means = _mean(_mean(sample.values, 1), 1)
    return means[~np.isnan(means)]


def _means_of_patients(sample: Sample) -> Array:
    means = _mean(_mean(sample.values[:, sample.strata >= 0], 0), 1)
    return means[~np.isnan(means)]


def _with_patients_by_training(sample: Sample) -> Sample:
    """Returns it with a stratum for each training that has patients of its own."""
    training = (~np.isnan(sample.values)).any(2).argmax(0)
    first = sample.strata.max(initial=0) + 1
    return Sample(values=sample.values, strata=np.where(sample.strata < 0, first + training, sample.strata))


def _replicates(sample: Sample, number: int, random: np.random.Generator, *, draw_trainings: bool) -> Iterator[Array]:
    """Yields the statistic of drawn patients, and of drawn or all trainings, some replicates at a time."""
    num_trainings, num_patients, num_classes = sample.values.shape
    is_defined = ~np.isnan(sample.values)
    by_patient = [a.swapaxes(0, 1).reshape(num_patients, -1) for a in (np.nan_to_num(sample.values), is_defined * 1.0)]
    for start in range(0, number, _AT_ONCE):
        count = min(_AT_ONCE, number - start)
        patients = _drawn_patients(sample.strata, count, random)
        shape = (count, num_trainings, num_classes)
        means = _ratio(*((patients @ values).reshape(shape) for values in by_patient))
        trainings = _drawn(num_trainings, count, random) if draw_trainings else np.ones(shape[:2])
        weights = np.where(np.isnan(means), 0, trainings[:, :, None])
        yield _mean(_ratio((np.nan_to_num(means) * weights).sum(1), weights.sum(1)), 1)


def _drawn_patients(strata: npt.NDArray[np.int64], number: int, random: np.random.Generator) -> Array:
    """Returns (number, patients): how often each patient is drawn."""
    drawn = np.ones((number, len(strata)))
    for stratum in np.unique(strata[strata >= 0]):
        (where,) = np.nonzero(strata == stratum)
        drawn[:, where] = _drawn(len(where), number, random)
    return drawn


def _drawn(count: int, number: int, random: np.random.Generator) -> Array:
    """Returns (number, count): how often each of some units is drawn, as many as they are, with replacement."""
    places = random.integers(count, size=(number, count)) + count * np.arange(number)[:, None]
    return np.bincount(places.ravel(), minlength=number * count).reshape(number, count).astype(np.float64)


def _t_interval(difference: float, units: Sequence[Array]) -> Interval:
    """Returns Welch's interval around a mean over data sets, whose units (trainings, patients) are independent."""
    from scipy.stats import t

    variances = np.array([np.var(means, ddof=1) / len(means) for means in units]) / len(units) ** 2
    error = math.sqrt(variances.sum())
    if error == 0:
        return Interval(difference=difference, low=difference, high=difference, p=math.nan, is_t=True)
    freedom = error**4 / sum(v**2 / (len(means) - 1) for v, means in zip(variances, units, strict=True))
    half = float(t.isf(_TAIL, freedom)) * error
    p = 2 * float(t.sf(abs(difference) / error, freedom))
    return Interval(difference=difference, low=difference - half, high=difference + half, p=p, is_t=True)


def holm(ps: Sequence[float]) -> list[float]:
    """Returns p values corrected for their number (Holm 1979); NaN, which is no test, stays and does not count."""
    known = sorted((p, index) for index, p in enumerate(ps) if not math.isnan(p))
    corrected, largest = list(ps), 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[index] = largest
    return corrected
