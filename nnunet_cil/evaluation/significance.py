"""Paired tests of one method's Dice against another's, on the same cases after the last step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nnunet_cil.evaluation.scores import case_means, last_rows, rows_of

if TYPE_CHECKING:
    from pandas import DataFrame

SIGNIFICANCE_TEXT = (
    "The first method against each other one: Wilcoxon signed-rank test, two-sided, over the cases' mean Dice after the "
    "last step; p values corrected for the number of tests (Benjamini-Hochberg). It tells of cases, not of trainings: "
    "for those, look at the spread over folds."
)


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """A test of ``method`` against ``other``.

    Attributes:
        group: "old", "new" or "all" classes of the last step.
        method: a trainer.
        other: another one.
        num_cases: cases for which both have a score.
        median_difference: of Dice, ``method`` less ``other``.
        p: two-sided; 1 where no case differs.
        p_corrected: after Benjamini and Hochberg (1995), over all tests that were made together.
    """

    group: str
    method: str
    other: str
    num_cases: int
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
        own = case_means(rows[first], classes)
        for other in others:
            theirs = case_means(rows[other], classes)
            difference = np.array([own[case] - theirs[case] for case in own if case in theirs])
            if not difference.size:
                continue
            p = float(wilcoxon(difference).pvalue) if difference.any() else 1.0
            tests.append(
                PairedTest(
                    group=group,
                    method=first,
                    other=other,
                    num_cases=difference.size,
                    median_difference=float(np.median(difference)),
                    p=p,
                    p_corrected=p,
                )
            )
    if not tests:
        return []
    corrected = false_discovery_control([test.p for test in tests])
    return [replace(test, p_corrected=float(p)) for test, p in zip(tests, corrected, strict=True)]
