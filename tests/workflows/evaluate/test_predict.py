"""Predictions are made once, continued after an interruption, and made anew for another model or other images."""

import os
import shutil
from pathlib import Path

import pytest
from toy import DATASET, set_environment, toy_volume
from toy_models import PGCD, run, write, write_model

from nnunet_cil.errors import CILError
from nnunet_cil.workflows.evaluate import predict as predicting
from nnunet_cil.workflows.evaluate import score as scoring


def test_an_interrupted_prediction_is_continued(trained, monkeypatch):
    _, schedule, calls = trained
    predict = predicting.predict

    def die(arguments, *rest):
        predict(arguments, *rest)
        (Path(arguments[arguments.index("-o") + 1]) / "t2.nii.gz").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(predicting, "predict", die)
    with pytest.raises(KeyboardInterrupt):
        run(schedule)
    monkeypatch.setattr(predicting, "predict", predict)
    run(schedule)
    assert "--continue_prediction" not in calls[0]
    assert "--continue_prediction" in calls[1]


def test_a_model_that_has_changed_leaves_no_prediction_behind_when_its_successor_is_interrupted(trained, monkeypatch):
    root, schedule, calls = trained
    first = run(schedule)
    old = first.folder / "predictions" / f"{PGCD}_step1_fold0"
    write_model(next((root / "results" / DATASET).glob("*step1*")) / "fold_0" / "checkpoint_final.pth", "new")
    predict = predicting.predict

    def die(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(predicting, "predict", die)
    with pytest.raises(KeyboardInterrupt):
        run(schedule)
    assert not list(old.glob("*.nii.gz"))
    monkeypatch.setattr(predicting, "predict", predict)
    run(schedule)
    assert len(calls) == 3
    assert len(list(old.glob("*.nii.gz"))) == 3


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_a_prediction_that_a_kill_cut_off_is_made_again(trained, monkeypatch, share):
    _, schedule, calls = trained
    predict = predicting.predict

    def die(arguments, *rest):
        predict(arguments, *rest)
        file = Path(arguments[arguments.index("-o") + 1]) / "t2.nii.gz"
        file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
        raise KeyboardInterrupt

    monkeypatch.setattr(predicting, "predict", die)
    with pytest.raises(KeyboardInterrupt):
        run(schedule)
    missing = []

    def go_on(arguments, environment, log, num_missing):
        missing.append(num_missing)
        predict(arguments, environment, log, num_missing)

    monkeypatch.setattr(predicting, "predict", go_on)
    assert "| step 1 | 0.667  | 1.000  |" in run(schedule).summary
    assert missing == [1, 3]
    assert "--continue_prediction" in calls[1]


def test_predictions_that_are_whole_after_a_kill_are_not_made_again(trained, monkeypatch):
    _, schedule, calls = trained
    predict = predicting.predict

    def die(*arguments):
        predict(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(predicting, "predict", die)
    with pytest.raises(KeyboardInterrupt):
        run(schedule)
    monkeypatch.setattr(predicting, "predict", predict)
    run(schedule)
    assert ["step1" in " ".join(c) for c in calls] == [False, True]


def test_other_images_in_the_same_folder_are_predicted_anew(trained):
    root, schedule, calls = trained
    run(schedule)
    write(toy_volume(60)[0] > 0.1, root / "raw" / DATASET / "imagesTs" / "t1_0000.nii.gz")
    run(schedule)
    assert ["--continue_prediction" in c for c in calls] == [False] * 4


def test_an_image_of_the_same_size_and_time_is_predicted_anew(trained):
    root, schedule, calls = trained
    run(schedule)
    image = root / "raw" / DATASET / "imagesTs" / "t1_0000.nii.gz"
    before, content = image.stat(), bytearray(image.read_bytes())
    content[4] ^= 1  # the time in gzip's header
    image.write_bytes(content)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    run(schedule)
    assert ["--continue_prediction" in c for c in calls] == [False] * 4


@pytest.mark.parametrize("time", [978_307_200, 4_070_908_800])
def test_nothing_is_predicted_or_scored_again_in_a_copy_of_any_time(trained, tmp_path, monkeypatch, time):
    root, schedule, calls = trained
    first = run(schedule)
    copied = tmp_path / "moved" / "nnunet"
    shutil.copytree(root, copied, copy_function=shutil.copyfile)
    for file in copied.rglob("*"):
        os.utime(file, (time, time))
    set_environment(monkeypatch, copied)
    monkeypatch.setattr(scoring, "score_cases", lambda *_: pytest.fail("scored"))
    found = run(schedule)
    assert len(calls) == 2
    assert found.folder.is_relative_to(copied)
    assert found.summary.splitlines()[2:] == first.summary.splitlines()[2:]


def test_a_prediction_that_somebody_replaced_is_not_scored_and_not_removed(trained):
    _, schedule, calls = trained
    found = run(schedule)
    folder = found.folder / "predictions" / f"{PGCD}_step1_fold0"
    shutil.copyfile(folder / "t0.nii.gz", folder / "t2.nii.gz")
    with pytest.raises(CILError, match=r"t2.nii.gz has changed since it was predicted. Restore it, or remove it to"):
        run(schedule)
    assert (folder / "t2.nii.gz").read_bytes() == (folder / "t0.nii.gz").read_bytes()
    assert len(calls) == 2


def test_a_broken_prediction_that_is_removed_is_made_again(trained):
    _, schedule, calls = trained
    first = run(schedule)
    broken = first.folder / "predictions" / f"{PGCD}_step1_fold0" / "t1.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-40])
    with pytest.raises(CILError, match=r"t1.nii.gz has changed since it was predicted. Restore it, or remove it to"):
        run(schedule)
    broken.unlink()
    assert run(schedule).summary == first.summary
    assert "--continue_prediction" in calls[-1]
