"""docs/reference/files.md names every key that is read and written."""

from dataclasses import fields
from pathlib import Path

import pytest

from nnunet_cil import schedule
from nnunet_cil.evaluation.continual import ContinualScores
from nnunet_cil.evaluation.differences import Difference
from nnunet_cil.evaluation.scores import COLUMNS, METRICS
from nnunet_cil.lineage import StepRecord
from nnunet_cil.step_plans import PreviousModel, StepPlan
from nnunet_cil.training.state import StepState

PAGE = (Path(__file__).parents[2] / "docs/reference/files.md").read_text(encoding="utf-8")


def section(title):
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize(
    ("title", "keys"),
    [
        ("Schedule", (*schedule._SCHEDULE_KEYS, *schedule._STEP_KEYS, *schedule.TRAINING_SETTINGS)),
        (
            "In a plans file",
            (*(f.name for c in (StepPlan, PreviousModel) for f in fields(c)), "schema_version", "digest"),
        ),
        ("In a checkpoint", (*(f.name for c in (StepState, StepRecord) for f in fields(c)), "schema_version")),
        ("per_case.csv", COLUMNS),
        ("results.json", (*(f.name for c in (ContinualScores, Difference) for f in fields(c)), *METRICS)),
    ],
)
def test_the_page_names_every_key(title, keys):
    text = section(title)
    missing = [key for key in keys if f"`{key}`" not in text and f".{key}" not in text]
    assert not missing
