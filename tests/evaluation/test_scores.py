"""The table of scores: which rows are whose, and their means."""

import csv
import math

import pytest

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.scores import (
    COLUMNS,
    by_trainer,
    case_means,
    class_means,
    distance_unit,
    last_rows,
    num_missing,
    rows_of,
    score_table,
    write_csv,
)

A, B = "nnUNetTrainerA", "nnUNetTrainerB"


def row(trainer, step, case, name, dice, fold=0):
    return {"trainer": trainer, "step": step, "fold": fold, "case": case, "class": name, "dice": dice}


@pytest.fixture
def table():
    """A's step 0 is B's, too."""
    return score_table(
        [
            row(A, 0, "x", "liver", 0.5),
            row(A, 0, "y", "liver", math.nan),
            row(A, 1, "x", "liver", 0.25),
            row(A, 1, "x", "kidney", 0.75),
            row(B, 1, "x", "liver", 0.125),
            row(B, 1, "x", "kidney", math.nan),
        ]
    )


def test_a_shared_models_rows_are_there_for_each_trainer_that_continues_from_it(table):
    own = by_trainer(table, {B: [A, B], A: [A, A]})
    assert own["trainer"].unique().tolist() == [B, A]
    assert rows_of(own, trainer=B)["dice"].tolist()[:1] == [0.5]
    assert rows_of(own, trainer=B, step=0)["case"].tolist() == ["x", "y"]
    assert len(own) == 8
    assert last_rows(own)["step"].unique().tolist() == [1]


def test_means_leave_out_what_is_undefined_and_count_it(table):
    first = rows_of(table, trainer=A, step=0)
    assert class_means(first, "dice") == {"liver": 0.5}
    assert num_missing(first, "dice") == {"liver": 1}
    last = rows_of(table, trainer=B, step=1)
    assert math.isnan(class_means(last, "dice")["kidney"])
    assert list(class_means(last, "dice")) == ["liver", "kidney"]
    assert case_means(last, ["liver", "kidney"]) == {"x": 0.125}
    assert case_means(last, ["kidney"]) == {}
    assert case_means(rows_of(table, trainer=A, step=1), ["liver", "kidney"]) == {"x": 0.5}


def test_the_file_has_every_digit_and_says_nan(table, tmp_path):
    third = score_table([row(A, 0, "x", "a, b", 1 / 3, fold="all"), row(A, 0, "y", "a, b", math.nan, fold="all")])
    write_csv(tmp_path / "per_case.csv", third)
    with (tmp_path / "per_case.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert tuple(first) == COLUMNS
    assert (float(first["dice"]), first["fold"], first["class"], first["step"]) == (1 / 3, "all", "a, b", "0")
    assert second["dice"] == "nan"


def test_millimetres_and_voxels_have_no_mean():
    def units_of(*units):
        return {f"c{i}": unit for i, unit in enumerate(units)}

    assert distance_unit(units_of("mm", "mm")) == "mm"
    assert distance_unit(units_of("voxels", "voxels")) == "voxels"
    assert distance_unit({}) == "mm"
    with pytest.raises(CILError, match=r"2 of 3 cases have no spacing \('c0', 'c2'\).* Write the missing JSON files"):
        distance_unit(units_of("voxels", "mm", "voxels"))
