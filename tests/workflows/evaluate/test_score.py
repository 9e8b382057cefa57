"""Scores are nnU-Net's, kept, and taken anew where files have changed."""

import errno
import gzip
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from toy import DATASET, ORGANS, toy_volume
from toy_models import PGCD, run, write

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.workflows.evaluate import evaluate as whole
from nnunet_cil.workflows.evaluate import score as scoring
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment


def test_other_true_labels_are_scored_anew(trained, tmp_path):
    root, schedule, calls = trained
    images, labels = (root / "raw" / DATASET / folder for folder in ("imagesTs", "labelsTs"))
    others = Path(shutil.copytree(labels, tmp_path / "others"))
    half = toy_volume(51)[1]
    half[half == 1] = np.arange((half == 1).sum()) % 2
    write(half, others / "t1.nii.gz")

    def scores(labels):
        found = run(schedule, images=images, labels=labels, output=tmp_path / "out")
        return json.loads((found.folder / "results.json").read_text())["trainers"]

    first = scores(labels)
    second = scores(others)
    assert second != first
    assert scores(labels) == first
    assert len(calls) == 2
    experiment = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)
    )
    options = EvaluationOptions(images=images, labels=labels, output=tmp_path / "out")
    (tmp_path / "out" / "report.html").touch()
    assert whole.evaluated(experiment, options) is not None
    assert whole.evaluated(experiment, replace(options, tolerance_mm=options.tolerance_mm + 3)) is None
    prediction = tmp_path / "out" / "predictions" / f"{PGCD}_step1_fold0" / "t2.nii.gz"
    before = prediction.read_bytes()
    write(toy_volume(52)[1] == 3, prediction)
    assert whole.evaluated(experiment, options) is None
    prediction.write_bytes(before)
    assert whole.evaluated(experiment, options) is not None
    prediction.unlink()
    assert whole.evaluated(experiment, options) is None
    prediction.write_bytes(before)
    write(half, labels / "t1.nii.gz")
    assert whole.evaluated(experiment, options) is None
    assert scores(labels) == second


@pytest.fixture
def elsewhere(trained, tmp_path):
    """The test cases as those of a data set that numbers the classes otherwise; returns its folder."""
    root, _, _ = trained
    shutil.copytree(root / "raw" / DATASET / "imagesTs", tmp_path / "other" / "imagesTs")
    (tmp_path / "other" / "labelsTs").mkdir()
    for file in (root / "raw" / DATASET / "labelsTs").glob("*.nii.gz"):
        old = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        write(np.array([0, 2, 4, 1, 3])[old], tmp_path / "other" / "labelsTs" / file.name)
    content = json.loads((root / "raw" / DATASET / "dataset.json").read_text())
    content["labels"] = {"background": 0, **dict(zip(ORGANS, (2, 4, 1, 3), strict=True))}
    (tmp_path / "other" / "dataset.json").write_text(json.dumps(content))
    return tmp_path / "other"


def test_labels_of_another_data_set_are_matched_by_name(trained, elsewhere, tmp_path):
    root, schedule, _ = trained

    def scores(folder):
        found = run(schedule, images=folder / "imagesTs", labels=folder / "labelsTs", output=tmp_path / "out")
        return json.loads((found.folder / "results.json").read_text())["trainers"]

    own = scores(root / "raw" / DATASET)
    assert scores(elsewhere) == own
    file = elsewhere / "dataset.json"
    content = json.loads(file.read_text())
    turned = {**content["labels"], "liver": 4, "spleen": 2}
    file.write_text(json.dumps({**content, "labels": turned}))
    assert scores(elsewhere) != own
    some = {"background": 0, "liver": 2, "a": 1, "b": 3, "c": 4}
    file.write_text(json.dumps({**content, "labels": some}))
    (of_liver,) = scores(elsewhere)[PGCD]["dice"]
    assert of_liver["classes"][-1] == {**own[PGCD]["dice"][0]["classes"][-1], "kidney": None}
    file.write_text(json.dumps({**content, "labels": {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4}}))
    with pytest.raises(CILError, match=f"are a, b, c, d, as {file} says: no class of the schedule"):
        scores(elsewhere)


def test_another_order_of_trainers_is_another_comparison(trained):
    root, schedule, _ = trained
    for model in list((root / "results" / DATASET).glob(f"{PGCD}__*")):
        shutil.copytree(model, model.with_name(model.name.replace(PGCD, "nnUNetTrainerMiB")))
    experiment = Experiment(
        **{"dataset": DATASET, "configuration": "3d_fullres", "folds": (0,), "schedule_name": schedule},
        trainers=(PGCD, "nnUNetTrainerMiB"),
    )
    turned = replace(experiment, trainers=experiment.trainers[::-1])
    options = EvaluationOptions(device="cpu")
    for asked, other in ((experiment, turned), (turned, experiment)):
        found = whole.evaluate(asked, options)
        (found.folder / "report.html").touch()
        assert whole.evaluated(asked, options) is not None
        assert whole.evaluated(other, options) is None


def test_damaged_scores_are_scored_anew(trained, tmp_path):
    _, schedule, calls = trained
    found = run(schedule)
    results, scores = found.folder / "results.json", next((found.folder / "scores").glob("*_step1_*.json"))
    whole_results, whole_scores = json.loads(results.read_text()), json.loads(scores.read_text())
    rows = whole_scores["rows"]
    experiment = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)
    )
    (found.folder / "report.html").touch()
    assert whole.evaluated(experiment, EvaluationOptions()) is not None
    damaged = [
        "",
        "null",
        "[]",
        "{}",
        json.dumps({**whole_scores, "rows": None}),
        json.dumps({**whole_scores, "scores": ["dice"]}),
        json.dumps({**whole_scores, "rows": rows[1:]}),
        json.dumps({**whole_scores, "rows": [{**rows[0], "dice": 1.0}, *rows[1:]]}),
        json.dumps({key: value for key, value in whole_scores.items() if key != "rows"}),
    ]
    for content in damaged:
        scores.write_text(content)
        assert whole.evaluated(experiment, EvaluationOptions()) is None
    run(schedule)
    assert json.loads(scores.read_text()) == whole_scores
    assert json.loads(results.read_text())["trainers"] == whole_results["trainers"]
    for content in ("", "null", "[]", "{}", '{"steps": 1}', json.dumps({**whole_results, "checkpoints_sha256": None})):
        results.write_text(content)
        assert whole.evaluated(experiment, EvaluationOptions()) is None
    assert len(calls) == 2


def test_dice_is_nnunets(trained, tmp_path):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    _, schedule, _ = trained
    found = run(schedule)
    truth = tmp_path / "truth"
    truth.mkdir()
    for i in range(3):
        labels = toy_volume(50 + i)[1]
        write((labels == 3) * 1 + (labels == 1) * 2, truth / f"t{i}.nii.gz")
    predictions = found.folder / "predictions" / f"{PGCD}_step1_fold0"
    theirs = compute_metrics_on_folder(str(truth), str(predictions), None, SimpleITKIO(), ".nii.gz", [1, 2], None, 1)
    ours = json.loads((found.folder / "results.json").read_text())["trainers"][PGCD]["dice"][0]["classes"][1]
    assert ours["kidney"] == pytest.approx(theirs["mean"][1]["Dice"], abs=1e-6)
    assert ours["liver"] == pytest.approx(theirs["mean"][2]["Dice"], abs=1e-6)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda f: write(toy_volume(51)[1], f, spacing=(1, 1, 2)),
            r"t1.nii.gz lies 19 voxels beside .*; at most 0.5 are",
        ),
        (lambda f: write(toy_volume(51)[1][:-1], f), r"is 24 x 22 x 20 voxels, but .*t1.nii.gz 24 x 22 x 19"),
        (lambda f: write(toy_volume(51)[1] + 9, f), "t1.nii.gz holds the label 9, which is none of"),
        (lambda f: f.write_bytes(f.read_bytes()[:40]), "t1.nii.gz is cut off or damaged"),
        (lambda f: f.write_bytes(gzip.compress(b"no image" * 100)), "t1.nii.gz cannot be read"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(trained, break_it, message):
    root, schedule, _ = trained
    break_it(root / "raw" / DATASET / "labelsTs" / "t1.nii.gz")
    with pytest.raises(CILError, match=message):
        run(schedule)


def test_a_full_disk_is_one_sentence_and_what_was_scored_is_kept(trained, monkeypatch, capsys):
    _, schedule, calls = trained
    write_json = scoring.write_json
    written = []

    def full(file, content):
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        written.append(file)
        write_json(file, content)

    monkeypatch.setattr(scoring, "write_json", full)
    command = ["evaluate", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD, "-device", "cpu"]
    assert main(command) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("nnunet_cil: No space left on device (")
    assert error.endswith("run the command again: what is finished is kept.")
    before = written[0].stat().st_mtime_ns
    monkeypatch.setattr(scoring, "write_json", write_json)
    assert main(command) == 0
    assert written[0].stat().st_mtime_ns == before
    assert len(calls) == 2
