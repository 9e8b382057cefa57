"""The model card: what it tells of classes and commands."""

import dataclasses

from toy_records import RECORD

from nnunet_cil.model_card import model_card


def test_a_class_is_a_row_with_its_origin_and_its_dice():
    card = model_card([RECORD], {"liver": 0.5})
    assert "| 1 | liver | 0 | Dataset017_Toy | 4 | nnUNetTrainerPGCD | 2026-01-02 | 0.500 |" in card.splitlines()


def test_a_dice_that_was_not_measured_is_blank():
    for dice in ({}, {"liver": float("nan")}):
        row = next(line for line in model_card([RECORD], dice).splitlines() if line.startswith("| 1 |"))
        assert row.endswith("| 2026-01-02 |  |")


def test_names_are_shown_as_they_are():
    strange = dataclasses.replace(RECORD, classes=("a|b *c*",), step=1, dice={"a|b *c*": 0.25})
    rows = [line for line in model_card([strange, RECORD], {}).splitlines() if "a\\|b \\*c\\*" in line]
    assert len(rows) == 2  # the table of classes, and that of scores after each step
