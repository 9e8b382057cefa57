"""Paired tests of one method's Dice against another's, on the same cases after the last step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nnunet_cil.evaluation.scores import last_rows, rows_of

if TYPE_CHECKING:
    from pandas import DataFrame

SIGNIFICANCE_TEXT = (
    "The first method against each other one: Wilcoxon signed-rank test, two-sided, over the cases' mean Dice after the "
    "last step; p values corrected for the number of tests (Benjamini-Hochberg). Where a class of a case has a Dice with one "
    "of the two methods only, it counts for neither (left out). The test tells of cases, not of trainings: for those, look at "
    "the spread over folds."
)


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """A test of ``method`` against ``other``.

    Attributes:
        group: "old", "new" or "all" classes of the last step.
        method: a trainer.
        other: another one.
        num_cases: pairs, which are the cases where some class has a Dice with both.
        num_left_out: Dice values, of a case, class and fold, that one has and the other has not.
        median_difference: of Dice, ``method`` less ``other``.
        p: two-sided; 1 where no case differs.
        p_corrected: after Benjamini and Hochberg (1995), over all tests that were made together.
    """

    group: str
    method: str
    other: str
    num_cases: int
    num_left_out: int
    median_difference: float
    p: float
    p_corrected: float


def paired_tests(table: DataFrame, old: Sequence[str], new: Sequence[str]) -> list[PairedTest]:
    """Tests the first trainer against each other one after the last step, for old, new and all classes.

    Args:
        table: scores, of all folds. A case of several folds counts once, with its mean.
        old: the earlier steps' classes.
        new: the last step's classes.
    """
    from scipy.stats import false_discovery_control, wilcoxon

    rows = {trainer: rows_of(last_rows(table), trainer=trainer) for trainer in table["trainer"].unique()}
    first, *others = rows
    tests: list[PairedTest] = []
    for group, classes in (("old", old), ("new", new), ("all", [*old, *new])):
        for other in others:
            difference, num_left_out = case_differences(rows[first], rows[other], classes)
            if not difference.size:
                continue
            p = float(wilcoxon(difference).pvalue) if difference.any() else 1.0
            tests.append(
                PairedTest(
                    group=group,
                    method=first,
                    other=other,
                    num_cases=difference.size,
                    num_left_out=num_left_out,
                    median_difference=float(np.median(difference)),
                    p=p,
                    p_corrected=p,
                )
            )
    if not tests:
        return []
    corrected = false_discovery_control([test.p for test in tests])
    return [replace(test, p_corrected=float(p)) for test, p in zip(tests, corrected, strict=True)]


def case_differences(rows: DataFrame, others: DataFrame, classes: Sequence[str]) -> tuple[npt.NDArray[np.float64], int]:
    """Subtracts two methods' mean Dice, case by case, over the same classes and folds.

    Where the reference lacks a class, a false prediction scores 0 and a right one nothing. So each mean goes over what both
    methods have.

    Args:
        rows: scores of a method after one step.
        others: those of the other.
        classes: whose mean is taken.

    Returns:
        (cases,) differences, of the cases where a class has a Dice with both; and how many Dice values were left out, since only
        one of the two has them.
    """
    key, own, theirs = ["fold", "case", "class"], "dice_x", "dice_y"  # pandas' names of the two columns
    both = rows[[*key, "dice"]].merge(others[[*key, "dice"]], on=key)
    both = both[both["class"].isin(list(classes))]
    defined = both.dropna(subset=[own, theirs])
    means = defined.groupby("case", sort=False)[[own, theirs]].mean()
    num_left_out = int((both[own].isna() != both[theirs].isna()).sum())
    return (means[own] - means[theirs]).to_numpy(np.float64), num_left_out
