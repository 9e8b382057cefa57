"""nnU-Net's split into folds, and cases dealt out to steps."""

import json

import pytest
from batchgenerators.utilities.file_and_folder_operations import save_json

from nnunet_cil.errors import CILError
from nnunet_cil.host.splits import (
    SPLITS_FILE,
    Fold,
    deal_cases,
    fold_of,
    read_split,
    remove_cut_off_split,
    split_of,
    unlisted_cases,
)

CASES = [f"case_{i}" for i in range(12)]


def write_split(folder, *folds):
    """Writes a split; a fold is its validation cases, all others are for training."""
    content = [{"train": [c for c in CASES if c not in fold], "val": list(fold)} for fold in folds]
    (folder / SPLITS_FILE).write_text(json.dumps(content))


def test_the_split_that_is_there_counts(tmp_path):
    write_split(tmp_path, ["case_1"], ["case_2", "case_3"])
    assert split_of(tmp_path, CASES) == read_split(tmp_path)
    assert [fold.validation for fold in read_split(tmp_path)] == [("case_1",), ("case_2", "case_3")]
    assert fold_of(tmp_path, "1", CASES).training == tuple(c for c in CASES if c not in ("case_2", "case_3"))


def test_else_the_split_is_the_one_that_nnunet_is_going_to_make(tmp_path):
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    assert read_split(tmp_path) == []
    expected = generate_crossval_split(sorted(CASES))
    made = split_of(tmp_path, CASES[::-1])
    assert [{"train": list(f.training), "val": list(f.validation)} for f in made] == expected
    assert split_of(tmp_path, CASES[:4]) == []


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_split_that_nnunet_has_not_written_to_its_end_is_the_one_that_it_makes_again(tmp_path, part):
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    file, expected = tmp_path / SPLITS_FILE, split_of(tmp_path, CASES)
    save_json(generate_crossval_split(sorted(CASES)), str(file))
    text = file.read_text()
    file.write_text(text[: int(len(text) * part)])
    assert split_of(tmp_path, CASES) == expected
    assert unlisted_cases(tmp_path, CASES) == []
    remove_cut_off_split(tmp_path, CASES)
    assert not file.exists()


@pytest.mark.parametrize(
    "text", ["", '[\n    {\n        "val": [', "[{", json.dumps([{"train": ["case_1"], "val": ["case_2"]}])]
)
def test_another_split_stays_whole_or_not(tmp_path, text):
    file = tmp_path / SPLITS_FILE
    file.write_text(text)
    remove_cut_off_split(tmp_path, CASES)
    assert file.read_text() == text
    if text[-1:] != "]":
        with pytest.raises(
            CILError, match=r"is not valid JSON: .* or remove it: nnU-Net then makes a split of its own"
        ):
            split_of(tmp_path, CASES)


def test_fold_all_trains_on_all_cases_whatever_the_split(tmp_path):
    (tmp_path / SPLITS_FILE).write_text("{")
    assert fold_of(tmp_path, "all", CASES[:1]) == Fold(training=("case_0",), validation=("case_0",))


def test_too_few_cases_are_refused_unless_there_is_a_split_or_no_fold(tmp_path):
    fold_of(tmp_path, "0", CASES[:5])
    with pytest.raises(
        CILError,
        match=r"has 4 training cases, but nnU-Net's split into 5 folds needs 5.*splits_final.*or train fold all",
    ):
        fold_of(tmp_path, 0, CASES[:4])
    (tmp_path / SPLITS_FILE).write_text(json.dumps([{"train": ["case_0", "case_3"], "val": ["case_1"]}]))
    fold_of(tmp_path, 0, CASES[:4])


@pytest.mark.parametrize(("folds", "has"), [(1, "has fold 0 only"), (3, "has folds 0 to 2 only")])
@pytest.mark.parametrize("fold", [-1, 3, 7, "11"])
def test_a_fold_that_the_split_lacks_is_refused(tmp_path, folds, has, fold):
    """nnU-Net takes the last fold for -1, and for a fold beyond the split a random one."""
    write_split(tmp_path, *([c] for c in CASES[:folds]))
    with pytest.raises(CILError, match=f"There is no fold {fold}: .*splits_final.json {has}.*Choose another fold"):
        fold_of(tmp_path, fold, CASES)


def test_nnunets_own_split_has_five_folds(tmp_path):
    with pytest.raises(CILError, match=r"There is no fold 5: nnU-Net's split of .* has folds 0 to 4 only"):
        fold_of(tmp_path, 5, CASES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("null", "must hold a JSON list|holds null"),
        ('{"train": ["case_0"], "val": ["case_1"]}', "must hold a JSON list|holds an object"),
        ('"case_0"', "must hold a JSON list|holds a text"),
        ("[", "is not valid JSON"),
        ("", "is not valid JSON"),
        ("[]", "lists no fold"),
        ("[null]", r'fold 0 must be \{"train": \[...\], "val"'),
        ('[["case_0"], ["case_1"]]', r'fold 0 must be \{"train"'),
        ('[{"train": ["case_0"], "val": ["case_1"]}, {"train": ["case_0"]}]', "fold 1 must be"),
        ('[{"training": ["case_0"], "val": ["case_1"]}]', "fold 0 must be"),
        ('[{"train": "case_0", "val": ["case_1"]}]', "fold 0 must be"),
        ('[{"train": [0, 2], "val": [1]}]', "fold 0 must be"),
        ('[{"train": {"case_0": 1}, "val": ["case_1"]}]', "fold 0 must be"),
        ('[{"train": ["case_0", null], "val": ["case_1"]}]', "fold 0 must be"),
        ('[{"train": [], "val": ["case_1"]}]', "fold 0 has no case in 'train'"),
        ('[{"train": ["case_0"], "val": []}]', "fold 0 has no case in 'val'"),
        ('[{"train": ["case_2", "case_0", "case_2"], "val": ["case_1"]}]', "lists 'case_2' more than once in 'train'"),
        ('[{"train": ["case_2", "case_0"], "val": ["case_0"]}]', "fold 0 has 'case_0' in 'train' and in 'val'"),
        ('[{"train": ["case_0"], "val": ["case_1"]}, {"train": ["case_9", "b"], "val": ["a"]}]', "fold 1 names 'b', 'a'"),
        ('[{"train": ["case_0.nii.gz"], "val": ["case_1"]}]', "names 'case_0.nii.gz', which .*called 'case_0' and the like"),
    ],
)  # fmt: skip
def test_a_split_of_another_form_is_one_sentence_with_the_file(tmp_path, content, message):
    (tmp_path / SPLITS_FILE).write_text(content)
    with pytest.raises(CILError, match=f"(?s){SPLITS_FILE}.*({message})"):
        fold_of(tmp_path, 0, CASES)


def test_cases_that_the_split_leaves_out_are_told(tmp_path):
    assert unlisted_cases(tmp_path, CASES) == []
    content = [{"train": CASES[:2], "val": CASES[2:4]}, {"train": CASES[2:4], "val": CASES[4:5]}]
    (tmp_path / SPLITS_FILE).write_text(json.dumps(content))
    assert unlisted_cases(tmp_path, CASES) == sorted(CASES[5:])


def test_a_fold_is_narrowed_to_the_cases_of_a_step():
    fold = Fold(training=("a", "b", "c"), validation=("d", "e"))
    assert fold.narrowed(None, "Fold 3", "step 1") is fold
    assert fold.narrowed(["c", "d"], "Fold 3", "step 1") == Fold(training=("c",), validation=("d",))
    with pytest.raises(CILError, match=r"Fold 3 has no training case among the 2 cases of step 1. Use another fold"):
        fold.narrowed(["d", "e"], "Fold 3", "step 1")
    with pytest.raises(CILError, match=r"Fold 3 has no validation case among the 1 cases"):
        fold.narrowed(["a"], "Fold 3", "step 1")


def test_hands_are_equal_in_every_fold_and_always_alike():
    folds = [CASES[:4], CASES[4:8]]
    hands = deal_cases(2, CASES, folds)
    assert sorted(case for hand in hands for case in hand) == sorted(CASES)
    assert [len(set(hand) & set(fold)) for hand in hands for fold in folds] == [2, 2, 2, 2]
    assert deal_cases(2, CASES, folds) == hands


def test_more_hands_than_cases_leave_some_empty():
    assert sorted(map(len, deal_cases(3, CASES[:2], []))) == [0, 1, 1]
