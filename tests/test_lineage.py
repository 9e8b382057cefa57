"""Records of trainings: written, read, and what old versions wrote."""

import json
import math
from dataclasses import replace

import pytest
from toy import write_scores
from toy_records import RECORD

from nnunet_cil.case_hashes import CaseHashes
from nnunet_cil.errors import CILError
from nnunet_cil.lineage import read_lineage, validation_dice, with_validation
from nnunet_cil.predicted_from import PredictedFrom


def test_a_record_is_read_as_it_was_written():
    records = (RECORD, replace(RECORD, step=1, case_hashes=CaseHashes.of(["a"], ["b"])))
    assert read_lineage(json.loads(json.dumps([r.to_json() for r in records]))) == records


def test_a_record_of_an_early_version_has_no_hashes():
    stored = RECORD.to_json()
    assert "case_hashes" not in stored
    assert read_lineage([stored])[0].case_hashes is None


def test_scores_of_fold_all_are_not_taken_for_validation_scores(tmp_path):
    (read,) = read_lineage([{**RECORD.to_json(), "fold": "all", "dice": {"liver": 0.97}}])
    assert read.dice == {}
    for fold, expected in (("fold_all", {}), ("fold_1", {"liver": 0.97})):
        (tmp_path / fold / "validation").mkdir(parents=True)
        (tmp_path / fold / "checkpoint_final.pth").write_bytes(b"")
        write_scores(tmp_path / fold, {"1": {"Dice": 0.97}})
        assert validation_dice(tmp_path / fold, {"background": 0, "liver": 1}) == expected


def test_a_record_gets_what_the_validation_of_its_training_tells(tmp_path):
    fold, labels = tmp_path / "fold_0", {"background": 0, "liver": 1, "core": [2, 3], "cyst": 4}
    plans = {"original_median_spacing_after_transp": [2.0, 0.5, 0.5]}
    before = replace(RECORD, dice={"liver": 0.1})
    assert with_validation(before, fold, labels, plans) == before
    fold.mkdir()
    (fold / "checkpoint_final.pth").write_bytes(b"")
    means = {
        "1": {"Dice": 0.9, "n_ref": 100},
        "(2, 3)": {"Dice": 0.5, "n_ref": 7.5},
        "4": {"Dice": math.nan, "n_ref": 0},
    }
    write_scores(fold, means)
    found = with_validation(before, fold, labels, plans)
    assert found == replace(RECORD, dice={"liver": 0.9, "core": 0.5}, volumes={"liver": 50.0, "core": 3.75})
    assert read_lineage(json.loads(json.dumps([found.to_json()]))) == (found,)
    assert with_validation(before, fold, labels, {}).volumes == {}
    trained_in_steps = replace(before, volumes={"liver": 3.0})
    assert with_validation(trained_in_steps, fold, labels, plans).volumes == {"liver": 3.0}


@pytest.mark.parametrize("fold", ["fold_2", "fold_all"])
def test_sizes_are_read_from_a_validation_by_plain_nnunet_too(tmp_path, fold):
    (tmp_path / fold / "validation").mkdir(parents=True)
    summary = {"mean": {"1": {"Dice": 0.9, "n_ref": 300.0}}}
    (tmp_path / fold / "validation" / "summary.json").write_text(json.dumps(summary))
    plans = {"original_median_spacing_after_transp": [1.0, 0.5, 0.5]}
    found = with_validation(RECORD, tmp_path / fold, {"background": 0, "liver": 1}, plans)
    assert (found.dice, found.volumes) == (RECORD.dice, {"liver": 75.0})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": "liver"}, "has 'liver' for 'classes', but it must be a list"),
        ({"classes": [1]}, r"has 1 for 'classes\[0\]', but it must be a text"),
        ({"step": "1"}, "has '1' for 'step', but it must be a whole number"),
        ({"versions": None}, "has null for 'versions', but it must be an object"),
        ({"dice": {"liver": "high"}}, "has 'high' for 'dice.liver', but it must be a number"),
    ],
    ids=str,
)
def test_a_damaged_record_is_one_sentence(changed, message):
    with pytest.raises(CILError, match=f"record of the trainings .*{message}. Restore the model"):
        read_lineage([{**RECORD.to_json(), **changed}])


@pytest.mark.parametrize("stored", [[None], ["step 0"], [[]]])
def test_what_is_no_record_is_one_sentence(stored):
    with pytest.raises(CILError, match=r"record of the trainings .*must be an object"):
        read_lineage(stored)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '{"mean": null}',
        '{"mean": []}',
        '{"mean": {"1": 0.9}}',
        '{"mean": {"1": {"Dice": "high"}}}',
        '{"mean": {"1": {"Dice": null}}}',
        '{"mean": {"1": {"IoU": 0.9}}}',
        '{"mean": {"1": {"Dice": NaN}}}',
    ],
)
def test_a_damaged_summary_is_no_validation(tmp_path, content):
    fold = tmp_path / "fold_0"
    (fold / "validation").mkdir(parents=True)
    (fold / "checkpoint_final.pth").write_bytes(b"")
    (fold / "validation" / "summary.json").write_text(content)
    files = [fold / "validation" / "summary.json"]
    PredictedFrom.by(fold / "checkpoint_final.pth").write(fold / "validation", files)
    assert validation_dice(fold, {"background": 0, "liver": 1}) == {}
