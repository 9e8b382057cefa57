"""Hashes of cases: they tell cases apart, and hold no names."""

import json

from nnunet_cil.case_hashes import CaseHashes

NAMES = ["MRN0042", "MRN0043", "ünïcode", "x y"]


def test_cases_are_found_again_by_their_names_alone():
    hashes = CaseHashes.of(NAMES[:2], NAMES[2:])
    assert hashes.trained_on(NAMES) == NAMES[:2]
    assert hashes.trained_on(["mrn0042", "MRN004", ""]) == []


def test_no_name_stands_in_the_hashes():
    text = json.dumps(CaseHashes.of(NAMES[:2], NAMES[2:]).to_json())
    assert not any(name in text for name in NAMES)


def test_the_same_cases_have_other_hashes_in_another_training():
    first, second = (CaseHashes.of(NAMES, []) for _ in range(2))
    assert first.key != second.key
    assert not set(first.training) & set(second.training)


def test_the_order_of_cases_is_not_kept():
    hashes = CaseHashes.of([f"case_{i}" for i in range(50)], [])
    assert list(hashes.training) == sorted(hashes.training)


def test_what_was_written_is_read():
    hashes = CaseHashes.of(NAMES[:3], NAMES[3:])
    assert CaseHashes.from_json(json.loads(json.dumps(hashes.to_json()))) == hashes
    lists = {"key": hashes.key, "training": list(hashes.training), "validation": list(hashes.validation)}
    assert CaseHashes.from_json(lists) == hashes  # of an early version


def test_nothing_is_read_as_no_hashes():
    hashes = CaseHashes.of(NAMES, [])
    assert CaseHashes.from_json(hashes.to_json()) == hashes
    assert hashes.to_json()["validation"] == ""


def test_differences_name_what_is_new_and_count_what_is_gone():
    hashes = CaseHashes.of(["a", "b", "c"], ["d"])
    assert hashes.differences(["c", "b", "a"], ["d"]) == ""
    assert hashes.differences(["a", "x"], ["d"]) == "training cases: 'x' new, 2 gone"
    assert hashes.differences(["a", "b", "c"], ["d", "e"]) == "validation cases: 'e' new"
