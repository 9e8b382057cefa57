"""The table of scores, one row a trainer, step, fold, case and class: everything that is reported comes from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas
from pandas import DataFrame

from nnunet_cil.errors import CILError, few_names
from nnunet_cil.evaluation.continual import mean
from nnunet_cil.evaluation.segmentation import ClassScores, Unit
from nnunet_cil.files import moved_into_place

METRICS = ("dice", "hd95_mm", "asd_mm", "nsd")
COLUMNS = ("trainer", "step", "fold", "case", "class", *(f.name for f in fields(ClassScores)), "unit")


def score_table(rows: Iterable[Mapping[str, Any]]) -> DataFrame:
    """Returns the table of some rows, each a mapping from ``COLUMNS``."""
    return DataFrame(list(rows), columns=list(COLUMNS))


def write_csv(file: Path, table: DataFrame) -> None:
    """Writes a table, an undefined score as ``nan``."""
    with moved_into_place(file) as temporary:
        table.to_csv(temporary, index=False, na_rep="nan", lineterminator="\r\n", encoding="utf-8")


def distance_unit(units: Mapping[str, str]) -> Unit:
    """Returns the unit of all distances: mm, or voxels where the files say no spacing.

    Args:
        units: case -> the unit of its distances.

    Raises:
        CILError: some are in mm and some in voxels, so that they have no mean.
    """
    unknown = [case for case, unit in units.items() if unit == "voxels"]
    if unknown and len(unknown) < len(units):
        raise CILError(
            f"{len(unknown)} of {len(units)} cases have no spacing ({few_names(unknown)}), so that their distances are no "
            "millimetres as the others'. Write the missing JSON files with their spacing beside the images."
        )
    return "voxels" if unknown else "mm"


def by_trainer(table: DataFrame, trained_by: Mapping[str, Sequence[str]]) -> DataFrame:
    """Returns the rows of every trainer; those of a model that several trainers continue from are repeated for each.

    Args:
        table: a shared model's rows are there once, under the trainer that has trained it.
        trained_by: trainer -> who has trained its model of each step.
    """
    parts = [
        table[(table["trainer"] == used) & (table["step"] == step)].assign(trainer=trainer)
        for trainer, per_step in trained_by.items()
        for step, used in enumerate(per_step)
    ]
    return pandas.concat(parts, ignore_index=True)


def rows_of(table: DataFrame, **values: Any) -> DataFrame:
    """Returns the rows that have these values: ``rows_of(table, trainer="nnUNetTrainerPGCD", step=1)``."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def last_rows(table: DataFrame) -> DataFrame:
    """Returns the rows of the models after the last step."""
    return table[table["step"] == table["step"].max()]


def class_means(rows: DataFrame, metric: str) -> dict[str, float]:
    """Returns class -> mean over the cases where the score is defined; NaN where it is nowhere."""
    return {name: mean(values) for name, values in rows.groupby("class", sort=False)[metric]}


def num_missing(rows: DataFrame, metric: str) -> dict[str, int]:
    """Returns class -> in how many cases the score is undefined."""
    return {name: int(values.isna().sum()) for name, values in rows.groupby("class", sort=False)[metric]}


def case_means(rows: DataFrame, classes: Sequence[str]) -> dict[str, float]:
    """Returns case -> mean Dice over the classes (and folds); cases where it is undefined are left out."""
    defined = rows[rows["class"].isin(list(classes)) & rows["dice"].notna()]
    return {case: mean(values) for case, values in defined.groupby("case", sort=False)["dice"]}
