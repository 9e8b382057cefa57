"""Differences of one method's Dice to another's, with intervals over patients and trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nnunet_cil.evaluation.bootstrap import Sample, difference_interval, holm, statistic
from nnunet_cil.evaluation.scores import last_rows, rows_of

if TYPE_CHECKING:
    from pandas import DataFrame

Group = Literal["old", "new_when_learnt", "all"]

GROUPS: dict[Group, str] = {"old": "old", "new_when_learnt": "new, when learnt", "all": "all"}
"""Group of classes -> its name in tables."""

Over = Literal["patients and trainings", "patients", "nothing"]
"""Names what an interval is over."""

_KEY = ["fold", "case", "column"]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of several methods on one data set.

    Attributes:
        table: as ``score_table`` gives it. Rows of one ``fold`` are of one training of each method, from one initial model.
        steps: the classes of each step.
    """

    table: DataFrame
    steps: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean Dice of ``method`` less that of ``other``.

    Attributes:
        group: old or all classes after the last step, or the new classes of each step but the first, right after it.
        method: a trainer.
        other: another one.
        is_primary: whether it is the one comparison that was named before.
        num_trainings: pairs of trainings from one initial model; over several data sets, of the one that has the fewest.
        num_cases: that have a Dice with both.
        num_left_out: Dice values, of a case, class and training, that one has and the other has not.
        difference: mean over classes of the mean over trainings and cases.
        low: lower end of its interval, 95 %; NaN where there is one case and one training, or ``over`` is nothing.
        high: upper end.
        over: what the interval is over: patients and trainings; patients alone where there is one training; nothing where some
            data sets have one training and others several.
        interval: how it was found.
        p: two-sided, of the same draws or t distribution as the interval.
        p_corrected: after Holm (1979), over all but the primary one, whose p needs no correction.
    """

    group: Group
    method: str
    other: str
    is_primary: bool
    num_trainings: int
    num_cases: int
    num_left_out: int
    difference: float
    low: float
    high: float
    over: Over
    interval: Literal["bootstrap", "t"]
    p: float
    p_corrected: float


def evaluated_differences(table: DataFrame, steps: Sequence[Sequence[str]]) -> list[Difference]:
    """Compares the first trainer with each other one. The primary comparison is with the second, in all classes.

    Args:
        table: scores of all folds.
        steps: the classes of each step.
    """
    method, *others = table["trainer"].unique().tolist()
    scores = Scores(table=table, steps=steps)
    found = [d for other in others for d in differences([scores], method, other)]
    return corrected([replace(d, is_primary=d.other == others[0] and d.group == "all") for d in found])


def differences_to_best(
    table: DataFrame, steps: Sequence[Sequence[str]], best: str, known: Sequence[Difference]
) -> list[Difference]:
    """Returns each other trainer less the best one; p values are corrected for all of them.

    Args:
        table: scores of all folds.
        steps: the classes of each step.
        best: a trainer.
        known: differences that need not be computed again.
    """
    scores = Scores(table=table, steps=steps)
    found = []
    for trainer in table["trainer"].unique().tolist():
        if trainer == best:
            continue
        own = [d for d in known if {d.method, d.other} == {trainer, best}] or differences([scores], trainer, best)
        found += [replace(d if d.other == best else _turned(d), is_primary=False) for d in own]
    return corrected(found)


def _turned(d: Difference) -> Difference:
    """Returns the other method less the first."""
    return replace(d, method=d.other, other=d.method, difference=-d.difference, low=-d.high, high=-d.low)


def differences(scores: Sequence[Scores], method: str, other: str) -> list[Difference]:
    """Compares two methods in each group of classes in which they have a case in common; p values are not corrected.

    Args:
        scores: one a data set; the difference is the mean over them.
        method: in the column ``trainer``.
        other: another one.
    """
    pairs = [_Pair.of(s, method, other) for s in scores]
    found = []
    for group in GROUPS:
        parts = [pair.of_group(group) for pair in pairs]
        if any(part.num_cases == 0 for part in parts):
            continue
        interval = difference_interval([part.sample for part in parts])
        num_trainings = [part.num_trainings for part in parts]
        found.append(
            Difference(
                group=group,
                method=method,
                other=other,
                is_primary=False,
                num_trainings=min(num_trainings),
                num_cases=sum(part.num_cases for part in parts),
                num_left_out=sum(part.num_left_out for part in parts),
                difference=interval.difference,
                low=interval.low,
                high=interval.high,
                over=_over(num_trainings),
                interval="t" if interval.is_t else "bootstrap",
                p=interval.p,
                p_corrected=interval.p,
            )
        )
    return found


def fold_differences(scores: Scores, method: str, other: str) -> dict[Any, float]:
    """Returns fold -> the difference in all classes after the last step; NaN where no case has a Dice with both methods.

    Args:
        scores: of one data set.
        method: in the column ``trainer``.
        other: another one.
    """
    pair = _Pair.of(scores, method, other)
    sample = pair.of_group("all").sample
    return {f: statistic(replace(sample, values=own[None])) for f, own in zip(pair.folds, sample.values, strict=True)}


def _over(num_trainings: Sequence[int]) -> Over:
    if min(num_trainings) > 1:
        return "patients and trainings"
    return "patients" if max(num_trainings) == 1 else "nothing"


def corrected(found: Sequence[Difference]) -> list[Difference]:
    """Corrects the p values of all differences but the primary one."""
    rest = iter(holm([d.p for d in found if not d.is_primary]))
    return [replace(d, p_corrected=d.p if d.is_primary else next(rest)) for d in found]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The differences of two methods in a group of classes."""

    sample: Sample
    num_left_out: int

    @property
    def num_cases(self) -> int:
        return int((~np.isnan(self.sample.values)).any((0, 2)).sum())

    @property
    def num_trainings(self) -> int:
        return int((~np.isnan(self.sample.values)).any((1, 2)).sum())


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """The Dice of two methods, case by case: (methods, trainings, cases, classes after the last step and when learnt)."""

    folds: Sequence[Any]
    dice: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    strata: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    steps: Sequence[Sequence[str]]

    @classmethod
    def of(cls, scores: Scores, method: str, other: str) -> _Pair:
        """Takes what both have, by training and case.

        Where the reference lacks a class, a false prediction scores 0 and a right one nothing. So each mean goes over what both
        methods have.
        """
        rows = [_rows(scores, trainer) for trainer in (method, other)]
        both = rows[0].merge(rows[1], on=_KEY)
        folds, cases = (both[key].astype("category").cat for key in _KEY[:2])
        shape = 2, len(folds.categories), len(cases.categories), 2 * sum(map(len, scores.steps))
        dice = np.full(shape, np.nan)
        for index, name in enumerate(("dice_x", "dice_y")):  # pandas' names of the two columns
            dice[index, folds.codes, cases.codes, both["column"]] = both[name]
        strata = _strata(both, list(cases.categories))
        return cls(folds=list(folds.categories), dice=dice, strata=strata, steps=scores.steps)

    def of_group(self, group: Group) -> _Part:
        """Returns the differences in a group of classes."""
        number = sum(map(len, self.steps))
        first, last = len(self.steps[0]), len(self.steps[-1])
        columns = {
            "old": range(number - last),
            "new_when_learnt": range(number + first, 2 * number),
            "all": range(number),
        }[group]
        own, other = self.dice[..., list(columns)]
        return _Part(
            sample=Sample(values=own - other, strata=self.strata),
            num_left_out=int((np.isnan(own) != np.isnan(other)).sum()),
        )


def _rows(scores: Scores, trainer: str) -> DataFrame:
    """Returns a trainer's Dice by fold, case and column: every class after the last step, then every class when learnt."""
    import pandas

    learnt_at = {name: step for step, names in enumerate(scores.steps) for name in names}
    places = {name: place for place, name in enumerate(learnt_at)}
    own = rows_of(scores.table, trainer=trainer)
    own = own[own["class"].isin(learnt_at.keys())]
    last, learnt = last_rows(own), own[own["step"] == own["class"].map(learnt_at)]
    parts = [r.assign(column=r["class"].map(places) + offset) for r, offset in ((last, 0), (learnt, len(places)))]
    return pandas.concat(parts)[[*_KEY, "dice"]]


def _strata(rows: DataFrame, cases: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Returns (cases,): the number of the data set, which a case's name may begin with; -1 for a case of one fold of several."""
    num_folds = rows.groupby("case")["fold"].nunique()
    data_sets = [str(case).rpartition("/")[0] for case in cases]
    number = {name: index for index, name in enumerate(dict.fromkeys(data_sets))}
    has_several = rows["fold"].nunique() > 1
    own = [
        -1 if has_several and num_folds[case] == 1 else number[name]
        for case, name in zip(cases, data_sets, strict=True)
    ]
    return np.array(own, dtype=np.int64)
