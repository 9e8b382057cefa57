"""Reads and writes the table of a study: one row a case, class, fold, step, method and setting, as CSV, packed or not.

    pandas.read_csv("benchmarks/results/openkbp_2-2-1_cpu.csv.gz")

``method`` is a trainer's name without nnUNetTrainer, ``setting`` the hyper-parameters that differ from its defaults at the time
of the study (benchmarks/notebook/README.md); both are empty for step 0, which is nnU-Net's own training, and which all methods of
a fold share. ``from_step=2`` in a setting: the steps before are the method's without the setting. ``cases`` is ``test``, or
``validation`` for the fold's validation cases. ``dice`` is empty where neither the reference nor the prediction has the class.
``dataset``, ``trainer`` and ``plans`` tell where nnU-Net kept the model; in the published tables the plans hold the setting, in
those of today's study the trainer does.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from nnunet_cil.files import moved_into_place

RESULTS = Path(__file__).resolve().parent / "results"
COLUMNS = "method", "setting", "step", "fold", "cases", "case", "class", "dice", "dataset", "trainer", "plans"

DISTANCE = "hd95_mm"
"""One column more, at the end, in tables whose study has kept it."""

Row = Mapping[str, str]
Dice = dict[str, dict[str, float]]
"""Class -> case -> Dice."""


def results_file(schedule: str) -> Path:
    """Returns the published table of a schedule."""
    return RESULTS / f"{schedule}.csv.gz"


def costs_file(results: Path) -> Path:
    """Returns the file of what the models of a table have cost: method -> fold -> costs, as in ``results.json``."""
    return results.with_name(f"{results.name.removesuffix('.gz').removesuffix('.csv')}_costs.json")


def read_rows(file: Path) -> list[Row]:
    """Reads a table; ``.gz`` files are packed."""
    content = file.read_bytes()
    text = gzip.decompress(content) if file.suffix == ".gz" else content
    return list(csv.DictReader(io.StringIO(text.decode("utf-8"), newline="")))


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """Writes a table, sorted. The same rows give the same bytes."""
    rows, order = list(rows), (*COLUMNS[:5], "class", "case")
    text = io.StringIO(newline="")
    columns = (*COLUMNS, DISTANCE) if any(DISTANCE in row for row in rows) else COLUMNS
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: [row[name] for name in order]))
    content = text.getvalue().encode("utf-8")
    with moved_into_place(file) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if file.suffix == ".gz" else content)


def row_name(row: Row) -> str:
    """Names a model as the tables in docs do: ``step0``, ``MiB_step1``, ``MiB(mib_weight=30)_step1``."""
    setting = f"({row['setting']})" if row["setting"] else ""
    return f"step{row['step']}" if row["step"] == "0" else f"{row['method']}{setting}_step{row['step']}"


def method_of(model: str) -> str:
    """Returns the method, with its setting, of a model that ``row_name`` has named; ``step0`` stays."""
    return model.rsplit("_step", 1)[0]


def step_of(model: str) -> int:
    """Returns the step of a model that ``row_name`` has named."""
    return int(model.rpartition("step")[2])


def read_scores(file: Path, cases: str) -> dict[str, dict[int, Dice]]:
    """Reads a table as model -> fold -> class -> case -> Dice, in the order of the names."""
    found: dict[str, dict[int, Dice]] = {}
    for row in read_rows(file):
        if row["cases"] == cases:
            fold = found.setdefault(row_name(row), {}).setdefault(int(row["fold"]), {})
            fold.setdefault(row["class"], {})[row["case"]] = float(row["dice"]) if row["dice"] else math.nan
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def mean_dice(dice: Dice) -> dict[str, float]:
    """Returns each class's mean over the cases."""
    return {name: float(np.nanmean(list(values.values()))) for name, values in dice.items()}
