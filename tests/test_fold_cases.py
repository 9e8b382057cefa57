"""The cases of a fold against the records of a model: what is refused, and what is said."""

from dataclasses import replace
from pathlib import Path

import pytest
from toy_records import RECORD

from nnunet_cil.case_hashes import CaseHashes
from nnunet_cil.errors import CILError
from nnunet_cil.fold_cases import FoldCases

SPLIT = Path("preprocessed/splits_final.json")
FOLD = FoldCases.of(RECORD.dataset, 2, ["p1", "p2", "p3"], ["p4", "p5"], SPLIT)


def record(step, training, validation=(), **changed):
    return replace(RECORD, step=step, case_hashes=CaseHashes.of(training, validation), **changed)


def test_cases_that_no_step_was_trained_on_are_fine():
    assert FOLD.check_against([record(0, ["p1", "p2", "p3"]), record(1, ["p1", "p6"], ["p4"])]) == []


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_validation_case_that_any_step_was_trained_on_is_refused(step):
    lineage = [record(i, ["p1", "p4"] if i == step else ["p1"]) for i in range(3)]
    with pytest.raises(
        CILError, match=rf"Fold 2 of .* validates on 'p4', but step {step} .* was trained on it"
    ) as error:
        FOLD.check_against(lineage)
    assert f"Restore {SPLIT}, or train step {step} and those after it again" in str(error.value)


def test_cases_of_another_data_set_do_not_count():
    assert FOLD.check_against([record(0, ["p4", "p5"], dataset="Dataset018_Other")]) == []


def test_a_step_without_a_record_is_a_remark():
    (remark,) = FOLD.check_against([replace(RECORD, step=0, case_hashes=None), record(1, ["p1"])])
    assert f"not recorded which cases of {RECORD.dataset} step 0 ({RECORD.plans}) was trained on" in remark
    assert FOLD.check_against([replace(RECORD, dataset="Dataset018_Other")]) == []


def test_fold_all_has_no_validation_cases():
    everything = FoldCases.of(RECORD.dataset, "all", ["p1", "p2"], ["p1", "p2"], SPLIT)
    assert everything.validation == ()
    assert everything.hashes.validation == ()
    assert everything.check_against([record(0, ["p1", "p2"]), RECORD]) == []


def test_a_training_goes_on_with_the_cases_that_it_began_with_only():
    FOLD.check_resumed(FOLD.hashes, Path("fold_0"))
    for training, validation in ((["p1", "p2"], ["p4", "p5"]), (["p1", "p2", "p3"], ["p5"])):
        with pytest.raises(CILError, match=r"has changed since this training began .* remove fold_0 and train"):
            FOLD.check_resumed(CaseHashes.of(training, validation), Path("fold_0"))
