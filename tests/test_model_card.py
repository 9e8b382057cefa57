"""The model card: what it tells of classes and commands."""

import dataclasses
import re

from toy_records import RECORD

from nnunet_cil.labels import predicted_numbers
from nnunet_cil.model_card import model_card


def test_a_class_is_a_row_with_its_origin_and_its_dice():
    card = model_card([RECORD], {"liver": 0.5})
    assert "| 1 | liver | 0 | Dataset017_Toy | 4 | nnUNetTrainerPGCD | 2026-01-02 | 0.500 |" in card.splitlines()


def test_a_class_has_the_number_of_predictions_also_where_regions_are_learnt_in_another_order():
    record = dataclasses.replace(RECORD, classes=("tumour", "core"))
    regions = {"labels": {"background": 0, "tumour": (1, 2, 3), "core": (2, 3)}, "regions_class_order": [1, 3]}
    lines = model_card([record], {}, numbers=predicted_numbers(regions)).splitlines()
    assert [line[:9] for line in lines if "Dataset017_Toy |" in line] == ["| 1 | tum", "| 3 | cor"]
    plain = {"labels": {"background": 0, "core": 1, "tumour": 2, "ignore": 3}}
    assert predicted_numbers(plain) == {"core": 1, "tumour": 2}


def test_a_dice_that_was_not_measured_is_blank():
    for dice in ({}, {"liver": float("nan")}):
        row = next(line for line in model_card([RECORD], dice).splitlines() if line.startswith("| 1 |"))
        assert row.endswith("| 2026-01-02 |  |")


def test_names_are_shown_as_they_are():
    strange = dataclasses.replace(RECORD, classes=("a|b *c*",), step=1, dice={"a|b *c*": 0.25})
    rows = [line for line in model_card([strange, RECORD], {}).splitlines() if "a\\|b \\*c\\*" in line]
    assert len(rows) == 2  # the table of classes, and that of scores after each step


def test_nothing_in_a_record_becomes_markup():
    told = {
        key: f"<b>{key}</b> [x](y) `z`" for key in ("dataset", "plans", "configuration", "trainer", "schedule", "date")
    }
    told |= {
        "licence": "<img src=x>\n# A heading\r\n\x1b[31m[free](javascript:alert(1))",
        "versions": {"<i>": "<script>"},
    }
    record = dataclasses.replace(RECORD, **told)
    card = model_card((record, dataclasses.replace(record, step=1)), {})
    outside = "\n".join(card.split("```")[::2])
    assert not re.search(r"(?<!\\)[<`\[](?!/)", outside.replace("SHA-256 `None`", ""))
    assert "\x1b" not in card
    assert [line for line in card.splitlines() if line.startswith("#")] == [
        line for line in card.splitlines() if line.startswith(("# Model card: ", "## Data", "## Use"))
    ]


def test_a_cascade_is_predicted_behind_the_stage_before_it():
    card = model_card([dataclasses.replace(RECORD, previous_stage={"0": "ab"})], {})
    assert "-i IMAGES -o OUT -prev_stage_predictions BEFORE\n" in card
    assert "It is a cascade" in card
    assert "-prev_stage_predictions" not in model_card([RECORD], {})
