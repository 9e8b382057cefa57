"""Predictions are made once, continued after an interruption, and made anew for another model or other images."""

from pathlib import Path

import pytest
from toy import DATASET, toy_volume
from toy_models import PGCD, run, write, write_model

from nnunet_cil.errors import CILError
from nnunet_cil.workflows.evaluate import predict as predicting


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


def test_a_broken_prediction_that_is_removed_is_made_again(trained):
    _, schedule, calls = trained
    first = run(schedule)
    broken = first.folder / "predictions" / f"{PGCD}_step1_fold0" / "t1.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-40])
    with pytest.raises(
        CILError, match=r"t1.nii.gz is cut off or damaged. Restore it, or remove it if it is a prediction"
    ):
        run(schedule)
    broken.unlink()
    assert run(schedule).summary == first.summary
    assert "--continue_prediction" in calls[-1]
