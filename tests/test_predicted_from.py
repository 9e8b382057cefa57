"""Checks that validations are known by content: by no time, and by no place."""

import os
import shutil
from dataclasses import replace

import pytest
from toy import write_checkpoint, write_scores

from nnunet_cil import predicted_from
from nnunet_cil.predicted_from import PredictedFrom, checkpoint_sha256, is_validated

YEARS = {"2001": 978_307_200, "2099": 4_070_908_800}


@pytest.fixture
def fold(tmp_path):
    fold = tmp_path / "model" / "fold_3"
    write_checkpoint(fold / "checkpoint_final.pth", "weights")
    write_scores(fold, {"1": {"Dice": 0.75}})
    return fold


@pytest.mark.parametrize("year", YEARS)
@pytest.mark.parametrize("name", ["checkpoint_final.pth", "validation/summary.json", "validation/predicted_from.json"])
def test_a_file_of_any_time_blocks_nothing(fold, name, year):
    os.utime(fold / name, (YEARS[year],) * 2)
    assert is_validated(fold)


def test_a_copy_in_another_place_is_validated_and_needs_no_times(fold, tmp_path):
    copied = shutil.copytree(fold, tmp_path / "elsewhere" / "fold_3", copy_function=shutil.copyfile)
    assert is_validated(copied)
    assert checkpoint_sha256(copied) == checkpoint_sha256(fold)


def test_another_checkpoint_of_the_same_size_and_time_is_not(fold):
    file = fold / "checkpoint_final.pth"
    before, content = file.stat(), file.read_bytes()
    file.write_bytes(content.replace(b"weights", b"changed"))  # in place
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert not is_validated(fold)
    file.write_bytes(content)
    assert is_validated(fold)


@pytest.mark.parametrize("what", ["summary.json", "predicted_from.json"])
@pytest.mark.parametrize("content", ["", "{}", "null", '{"mean": {"1": {"Dice": 0.99}}}'])
def test_a_summary_or_record_that_is_another_is_not(fold, what, content):
    (fold / "validation" / what).write_text(content)
    assert not is_validated(fold)


def test_scores_without_a_record_are_nobodys(fold):
    """Covers an earlier version's scores and plain nnU-Net's: they may be an earlier training's."""
    (fold / "validation" / "predicted_from.json").unlink()
    assert not is_validated(fold)


def test_a_checkpoint_is_hashed_again_once_it_was_written_and_only_then(fold, monkeypatch):
    hashed = []
    original = predicted_from.file_sha256
    monkeypatch.setattr(predicted_from, "file_sha256", lambda file: hashed.append(file.suffix) or original(file))
    assert is_validated(fold)
    assert ".pth" not in hashed
    os.utime(fold / "checkpoint_final.pth")
    assert is_validated(fold)
    assert ".pth" in hashed


def test_a_record_is_read_as_it_was_written_and_holds_the_files_as_they_were(tmp_path):
    files = [tmp_path / name for name in ("a.tif", "b.tif")]
    for file in files:
        file.write_text(file.name)
    record = PredictedFrom(checkpoint="ab", images="cd")
    record.write(tmp_path, files)
    read = PredictedFrom.read(tmp_path)
    assert replace(read, files={}) == record
    files[0].write_text("b.tif")
    assert [read.holds(file) for file in files] == [False, True]
