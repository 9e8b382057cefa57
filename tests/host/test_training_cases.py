"""The classes that a fold's training cases show."""

import json

import pytest

from nnunet_cil.errors import CILError
from nnunet_cil.host.splits import SPLITS_FILE
from nnunet_cil.host.training_cases import check_training_cases, unlisted_note
from nnunet_cil.step_plans import StepPlan

CASES = [f"p{i}" for i in range(10)]
LUNG, HEART = 2, 5


def step(**changed):
    labels = {"background": 0, "lung": LUNG, "heart": HEART}
    content = {
        "schedule": "chest",
        "step": 1,
        "steps": (("lung",), ("heart",)),
        "dataset_labels": labels,
        "labels": {"background": 0, "lung": 1, "heart": 2},
    }
    return StepPlan(**content | changed)


def write_split(folder, *folds):
    content = [
        {"train": [f"p{i}" for i in training], "val": [f"p{i}" for i in validation]} for training, validation in folds
    ]
    (folder / SPLITS_FILE).write_text(json.dumps(content))


def check(folder, fold, hearts, plan=None, training=None):
    """Checks a fold in which the patients ``hearts`` have the new class."""
    labels = {case: {-1, 0, LUNG} | ({HEART} if int(case[1:]) in hearts else set()) for case in CASES}
    check_training_cases(plan or step(), folder, fold, CASES, labels.__getitem__, training)


def test_one_training_case_that_shows_the_class_is_enough(tmp_path):
    write_split(tmp_path, (range(8), (8, 9)))
    check(tmp_path, 0, {3, 9})
    check(tmp_path, "all", {9})


def test_cases_are_read_until_every_class_is_found(tmp_path):
    write_split(tmp_path, (range(8), (8, 9)))
    read = []
    check_training_cases(step(), tmp_path, 0, CASES, lambda case: read.append(case) or {LUNG, HEART})
    assert read == ["p0"]


@pytest.mark.parametrize(
    ("hearts", "where"),
    [
        ({8}, r"validation cases \('p8'\)"),
        ({8, 9}, r"validation cases \('p8', 'p9'\)"),
        ({6}, r"cases that the fold leaves out \('p6'\)"),
        ({6, 9}, r"validation cases \('p9'\) and cases that the fold leaves out \('p6'\)"),
    ],
)
def test_a_class_that_validation_cases_alone_show_is_refused(tmp_path, hearts, where):
    write_split(tmp_path, (range(6), (8, 9)), ((7, 8, 9, 6), (0,)))
    with pytest.raises(
        CILError,
        match=rf"Step 1 of chest learns 'heart' \(label 5\), but no training case of fold 0 of .* shows it, only {where}\. "
        rf"Train another fold or fold all, or make one of them a training case in .*{SPLITS_FILE}",
    ):
        check(tmp_path, 0, hearts)
    check(tmp_path, 1, hearts)
    check(tmp_path, "all", hearts)


def test_the_split_that_nnunet_is_going_to_make_is_known(tmp_path):
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    validation = [int(str(case)[1:]) for case in generate_crossval_split(CASES)[3]["val"]]
    check(tmp_path, 0, validation)
    with pytest.raises(
        CILError, match=rf"fold 3 .*or write a split of your own with one for training in .*{SPLITS_FILE}"
    ):
        check(tmp_path, 3, validation)


def test_a_class_that_unlisted_cases_alone_show_is_refused_with_their_names(tmp_path):
    write_split(tmp_path, ((0, 1, 2), (3,)), ((1, 2, 3), (0,)))
    where = r"cases that splits_final.json does not list \('p4', 'p5', 'p6' and 3 more\)"
    for fold in (0, 1):
        with pytest.raises(
            CILError, match=rf"fold {fold} of .* only {where}\. Add them to the folds in .*{SPLITS_FILE}"
        ):
            check(tmp_path, fold, {4, 5, 6, 7, 8, 9})
    with pytest.raises(
        CILError, match=r"validation cases \('p3'\) and cases that .* does not list \('p7'\)\. Add them"
    ):
        check(tmp_path, 0, {3, 7})
    check(tmp_path, "all", {7})


def test_a_class_that_no_case_has_is_refused_in_every_fold(tmp_path):
    write_split(tmp_path, (range(8), (8, 9)))
    for fold in (0, "all"):
        with pytest.raises(CILError, match=r"No case of .* has 'heart' \(label 5\): there is nothing to learn it from"):
            check(tmp_path, fold, ())


def test_a_case_shows_what_it_is_said_to_label(tmp_path):
    write_split(tmp_path, (range(8), (8, 9)))
    labelled = {case: ("lung",) for case in CASES[:8]}
    with pytest.raises(CILError, match=r"no training case of fold 0 .* only validation cases \('p8', 'p9'\)"):
        check(tmp_path, 0, range(10), step(labelled=labelled))
    check(tmp_path, 0, range(10), step(labelled={**labelled, "p4": ("heart",)}))


def test_refined_classes_are_looked_for_too(tmp_path):
    write_split(tmp_path, (range(8), (8, 9)))
    only_hearts = {case: {HEART} for case in CASES} | {"p9": {HEART, LUNG}}
    with pytest.raises(CILError, match=r"learns 'lung' \(label 2\)"):
        check_training_cases(step(refined=("lung",)), tmp_path, 0, CASES, only_hearts.__getitem__)


def test_a_steps_own_cases_count(tmp_path):
    write_split(tmp_path, (range(8), (8, 9)))
    hand = step(cases=("p0", "p1", "p8"))
    check(tmp_path, 0, {1}, hand)
    with pytest.raises(
        CILError, match=r"only cases of other steps \('p2'\)\. Use another fold, fewer steps or shared cases"
    ):
        check(tmp_path, 0, {2}, hand)
    with pytest.raises(CILError, match=r"of fold all .* only cases of other steps \('p2'\)"):
        check(tmp_path, "all", {2}, hand)
    with pytest.raises(CILError, match=r"only validation cases \('p8'\) and cases of other steps \('p9'\)"):
        check(tmp_path, 0, {8, 9}, hand)
    with pytest.raises(CILError, match=r"Fold 0 of .* has no validation case among the 2 cases of step 1"):
        check(tmp_path, 0, {1}, step(cases=("p0", "p1")))
    check(tmp_path, 0, {2}, hand, training=CASES[:8])  # a trainer that may see the other steps' cases


def test_a_note_tells_how_many_cases_no_fold_has(tmp_path):
    assert unlisted_note(tmp_path, CASES) is None
    write_split(tmp_path, ((0, 1, 2), (3,)), ((1, 2, 3), (9,)))
    assert f"{SPLITS_FILE} does not list 5 of the 10 cases ('p4', 'p5', 'p6' and 2 more)" in unlisted_note(
        tmp_path, CASES
    )
    write_split(tmp_path, (range(9), (9,)))
    assert unlisted_note(tmp_path, CASES) is None
