"""Sums up two models' label maps of the same cases: the content of ``comparison.json``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.bootstrap import Interval, Sample, difference_interval
from nnunet_cil.evaluation.compared_cases import change_table
from nnunet_cil.evaluation.comparison import BACKGROUND
from nnunet_cil.evaluation.continual import mean
from nnunet_cil.evaluation.scores import distance_unit

if TYPE_CHECKING:
    from pandas import DataFrame


class NothingToCompare(CILError):
    """Neither model finds a class that both know."""


Record = Mapping[str, Any]
"""Holds a case, as ``compare_case`` returns it."""


def comparison_summary(records: Sequence[Record], threshold: float | None = None) -> dict[str, Any]:
    """Returns means of every shared class, cases in the order of their change, and what has moved; with NaN.

    Args:
        records: of the cases.
        threshold: the mean Dice of the two models that no class of A may be below; one that B does not know has 0. None for none.

    Raises:
        CILError: some distances are in mm and some in voxels.
        NothingToCompare: neither model finds a shared class in any case.
    """
    table = change_table(records)
    unit = distance_unit({record["case"]: record["unit"] for record in records})
    classes = [_class_summary(str(name), rows) for name, rows in table.groupby("class", sort=False)]
    shared = [c for c in classes if c["is_shared"]]
    measured = sorted((c for c in shared if not math.isnan(c["dice"])), key=lambda c: c["dice"])
    if not measured:
        raise NothingToCompare(
            f"Neither model finds any of {', '.join(c['class'] for c in shared)} in any case: there is nothing to compare. Give "
            "images that show them."
        )
    gone = [c["class"] for c in classes if math.isnan(c["num_voxels_b"])]
    return {
        "num_cases": len(records),
        "distance_unit": unit,
        "mean_dice": mean(c["dice"] for c in measured),
        "fail_below": threshold,
        "unknown_to_b": gone,
        "below": [*(gone if threshold else ()), *(c["class"] for c in measured if c["dice"] < (threshold or 0))],
        "in_no_case": [c["class"] for c in shared if math.isnan(c["dice"])],
        "classes": [*measured, *(c for c in classes if c not in measured)],
        "findings": list(_findings(records)),
        "moved": _moved(records),
        "cases": _cases(records),
        "reference": _reference(table),
    }


def _class_summary(name: str, rows: DataFrame) -> dict[str, Any]:
    """Returns the means of a class over the cases; the Dice over those in which either model finds it."""
    is_shared = bool((rows["num_voxels_a"].notna() & rows["num_voxels_b"].notna()).all())
    defined = rows[rows["dice"].notna()]
    lowest = defined.loc[defined["dice"].idxmin()] if len(defined) else None
    return {
        "class": name,
        "is_shared": is_shared,
        "num_cases": len(defined),
        "dice": mean(defined["dice"]),
        "lowest_dice": math.nan if lowest is None else float(lowest["dice"]),
        "lowest_case": "" if lowest is None else str(lowest["case"]),
        "hd95_mm": mean(rows["hd95_mm"]),
        **{
            f"{what}_{model}{unit}": mean(rows[f"{what}_{model}{unit}"].astype(float))
            for what, unit in (("volume", "_ml"), ("num_voxels", ""))
            for model in "ab"
        },
        "num_appeared": int((rows["status"] == "appeared").sum()),
        "num_vanished": int((rows["status"] == "vanished").sum()),
        "num_cases_far": int((rows["num_far"] > 0).sum()),
    }


FINDINGS = {
    "swapped": "have changed places",
    "vanished": "is missing with B",
    "appeared": "is new with B",
    "far": "has new components far from the old ones",
}
"""Kind of a finding -> what it says of the class, or classes."""


def _findings(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """Yields what a person should look at, one kind after the other."""
    for record in records:
        for pair in record["swapped"]:
            yield _finding(record, "swapped", " and ".join(pair), math.nan)
    for kind, column in (("vanished", "num_voxels_a"), ("appeared", "num_voxels_b")):
        for record in records:
            for row in record["rows"]:
                if row["status"] == kind:
                    yield _finding(record, kind, row["class"], row[column] * record["voxel_ml"])
    for record in records:
        swapped = {name for pair in record["swapped"] for name in pair}
        for row in record["rows"]:
            if row["num_far"] and row["class"] not in swapped:
                yield {**_finding(record, "far", row["class"], row["far_ml"]), "num_components": row["num_far"]}


def _finding(record: Record, kind: str, name: str, volume_ml: float) -> dict[str, Any]:
    return {"case": record["case"], "class": name, "kind": kind, "volume_ml": volume_ml}


def _moved(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Returns voxels that changed class over all cases, the most first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        for a, b, voxels in record["moved"]:
            entry = found.setdefault((a, b), {"a": a, "b": b, "num_voxels": 0, "volume_ml": 0.0, "num_cases": 0})
            entry["num_voxels"] += voxels
            entry["volume_ml"] += voxels * record["voxel_ml"]
            entry["num_cases"] += 1
    return sorted(found.values(), key=lambda entry: -entry["num_voxels"])


def _cases(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Returns the cases, the one first whose most changed class agrees least."""
    cases = []
    for record in records:
        dice = {row["class"]: row["dice"] for row in record["rows"] if not math.isnan(row["dice"])}
        lowest = min(dice, key=lambda name: dice[name], default="")
        voxels = sum(n for _, _, n in record["moved"])
        old = sum(n for a, b, n in record["moved"] if a != BACKGROUND and b != BACKGROUND)
        cases.append(
            {
                "case": record["case"],
                "dice": mean(dice.values()),
                "lowest_dice": dice.get(lowest, math.nan),
                "lowest_class": lowest,
                "moved_voxels": voxels,
                "moved_ml": voxels * record["voxel_ml"],
                "moved_between_classes_ml": old * record["voxel_ml"],
            }
        )
    return sorted(cases, key=lambda c: (_last_if_nan(c["lowest_dice"]), _last_if_nan(c["dice"])))


def _last_if_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _reference(table: DataFrame) -> list[dict[str, Any]]:
    """Returns both models' Dice of every class that the labels show, and the paired difference; empty without labels."""
    labelled = table[table["reference_dice_a"].notna() | table["reference_dice_b"].notna()]
    found = []
    paired = labelled[labelled["reference_dice_a"].notna() & labelled["reference_dice_b"].notna()]
    for name, rows in labelled.groupby("class", sort=False):
        found.append(_reference_row(str(name), rows, paired[paired["class"] == name]))
    if paired["class"].nunique() > 1:
        found.append(_reference_row("all shared", paired, paired))
    return found


def _reference_row(name: str, rows: DataFrame, paired: DataFrame) -> dict[str, Any]:
    interval = _difference(paired)
    by_class = rows.groupby("class")[["reference_dice_a", "reference_dice_b"]].mean()
    return {
        "class": name,
        "num_cases": int(rows["case"].nunique()),
        "dice_a": mean(by_class["reference_dice_a"]),
        "dice_b": mean(by_class["reference_dice_b"]),
        "difference": interval.difference,
        "low": interval.low,
        "high": interval.high,
        "interval": "t" if interval.is_t else "bootstrap",
    }


def _difference(paired: DataFrame) -> Interval:
    """Returns B's Dice less A's, over the cases that have both."""
    if paired.empty:
        return Interval(difference=math.nan, low=math.nan, high=math.nan, p=math.nan, is_t=False)
    difference = (paired["reference_dice_b"] - paired["reference_dice_a"]).rename("difference")
    values = paired.assign(difference=difference).pivot(index="case", columns="class", values="difference")
    array = values.to_numpy(dtype=np.float64)[None]
    return difference_interval([Sample(values=array, strata=np.zeros(array.shape[1], dtype=np.int64))])
