"""Records of trainings: written, read, and what old versions wrote."""

import json
from dataclasses import replace

from toy_records import RECORD

from nnunet_cil.case_hashes import CaseHashes
from nnunet_cil.lineage import read_lineage, validation_dice


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
        (tmp_path / fold / "validation" / "summary.json").write_text(json.dumps({"mean": {"1": {"Dice": 0.97}}}))
        assert validation_dice(tmp_path / fold, {"background": 0, "liver": 1}) == expected
