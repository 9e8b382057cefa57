"""nnU-Net's split into folds, and cases dealt out to steps."""

import json

import pytest

from nnunet_cil.errors import CILError
from nnunet_cil.host.splits import SPLITS_FILE, check_split, deal_cases, read_validation_folds, validation_folds

CASES = [f"case_{i}" for i in range(12)]


def write_split(folder, *validation):
    (folder / SPLITS_FILE).write_text(json.dumps([{"train": [], "val": list(cases)} for cases in validation]))


def test_the_split_that_is_there_counts(tmp_path):
    write_split(tmp_path, ["case_1"], ["case_2", "case_3"])
    assert validation_folds(tmp_path, CASES) == read_validation_folds(tmp_path) == [["case_1"], ["case_2", "case_3"]]


def test_else_the_split_is_the_one_that_nnunet_is_going_to_make(tmp_path):
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    assert read_validation_folds(tmp_path) == []
    expected = [list(split["val"]) for split in generate_crossval_split(sorted(CASES))]
    assert validation_folds(tmp_path, CASES[::-1]) == expected
    assert validation_folds(tmp_path, CASES[:4]) == []


def test_too_few_cases_are_refused_unless_there_is_a_split_or_no_fold(tmp_path):
    check_split(tmp_path, ["0"], 5)
    check_split(tmp_path, ["all"], 1)
    with pytest.raises(CILError, match=r"has 4 training cases, but nnU-Net's split into 5 folds needs 5.*splits_final"):
        check_split(tmp_path, ["0", "all"], 4)
    write_split(tmp_path, ["case_1"])
    check_split(tmp_path, ["0"], 4)


def test_hands_are_equal_in_every_fold_and_always_alike():
    folds = [CASES[:4], CASES[4:8]]
    hands = deal_cases(2, CASES, folds)
    assert sorted(case for hand in hands for case in hand) == sorted(CASES)
    assert [len(set(hand) & set(fold)) for hand in hands for fold in folds] == [2, 2, 2, 2]
    assert deal_cases(2, CASES, folds) == hands


def test_more_hands_than_cases_leave_some_empty():
    assert sorted(map(len, deal_cases(3, CASES[:2], []))) == [0, 1, 1]
