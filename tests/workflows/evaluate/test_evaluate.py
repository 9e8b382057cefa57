"""nnunet_cil evaluate: from models and truth to tables."""

import csv
import errno
import gzip
import json
import logging
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from toy import DATASET, LABELS, ORGANS, toy_volume, train, write_schedule

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.scores import score_table
from nnunet_cil.lineage import StepRecord
from nnunet_cil.training.state import StepState, file_sha256
from nnunet_cil.workflows.evaluate import evaluate as whole
from nnunet_cil.workflows.evaluate import predict as predicting
from nnunet_cil.workflows.evaluate import score as scoring
from nnunet_cil.workflows.evaluate.cases import Case, check_test_cases
from nnunet_cil.workflows.evaluate.evaluate import evaluate
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.evaluate.pictures import write_overlays
from nnunet_cil.workflows.evaluate.predict import Prediction
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.plan.plan import plan
from nnunet_cil.workflows.planned_experiment import PlannedExperiment

PGCD = "nnUNetTrainerPGCD"
WRITE_PICTURES = whole._write_pictures
ORDER = (ORGANS[2:3], ORGANS[:1])
"""kidney (3) is channel 1, liver (1) channel 2."""


def write(array, file, spacing=(1.0, 1.0, 1.0)):
    picture = sitk.GetImageFromArray(array.astype(np.uint8))
    picture.SetSpacing(spacing)
    sitk.WriteImage(picture, str(file))


def write_model(file, content):
    logging = {"train_losses": [2.0, 1.0], "loss_pgcd": [1.0, 0.5], "loss_segmentation": [1.0, 0.5]}
    torch.save({"network_weights": {}, "init_args": content, "logging": logging}, file)


@pytest.fixture
def trained(toy, tmp_path, monkeypatch):
    """Two steps that look trained, three test cases, and a stand-in for nnU-Net's prediction that forgets the kidney."""
    schedule = write_schedule(tmp_path, ORDER)
    steps = plan(DATASET, schedule)
    root = toy.parents[1]
    for step in steps:
        model = root / "results" / DATASET / f"{PGCD}__{step.plans_name}__3d_fullres"
        (model / "fold_0").mkdir(parents=True)
        write_model(model / "fold_0" / "checkpoint_final.pth", step.plans_name)
        (model / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz", "labels": step.plan.labels}))
    for folder in ("imagesTs", "labelsTs"):
        (root / "raw" / DATASET / folder).mkdir()
    for i in range(3):
        image, labels = toy_volume(50 + i)
        write(image, root / "raw" / DATASET / "imagesTs" / f"t{i}_0000.nii.gz")
        write(labels, root / "raw" / DATASET / "labelsTs" / f"t{i}.nii.gz")
    calls = []

    def predict(arguments, _environment, _log, _num_cases):
        calls.append(arguments)
        option = dict(zip(arguments[::2], arguments[1::2], strict=False))
        for i in range(3):
            labels = toy_volume(50 + i)[1]
            found = (labels == 3) * 1
            if option["-p"].endswith("step1"):
                found = (labels == 1) * 2
                found[labels == 3] = np.arange((labels == 3).sum()) % 2  # half of the kidney
            write(found, Path(option["-o"]) / f"t{i}.nii.gz")

    monkeypatch.setattr(predicting, "predict", predict)
    monkeypatch.setattr(whole, "_write_pictures", lambda *_arguments: None)  # slow; the tests of the pictures undo it
    return root, schedule, calls


def run(schedule, **changed):
    options = EvaluationOptions(device="cpu", **changed)
    return evaluate(
        Experiment(dataset=DATASET, configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)),
        options,
    )


def test_classes_are_scored_by_name_and_what_is_forgotten_is_seen(trained):
    _, schedule, _ = trained
    found = run(schedule)
    content = json.loads((found.folder / "results.json").read_text())
    (dice,) = content["trainers"][PGCD]["dice"]
    assert dice["classes"][0] == {"kidney": 1}
    assert dice["classes"][1] == {"kidney": pytest.approx(2 / 3), "liver": 1}
    assert dice["forgetting"] == pytest.approx(1 / 3)
    assert dice["matrix"][0][0] == 1
    assert dice["matrix"][0][1] is None
    assert dice["intransigence"] is None
    assert "NaN" not in (found.folder / "results.json").read_text()
    with (found.folder / "per_case.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * (1 + 2)
    assert {r["case"] for r in rows} == {"t0", "t1", "t2"}
    assert "| step 1 | 0.667  | 1.000  |" in found.summary
    assert found.summary == (found.folder / "summary.md").read_text()


def test_the_report_is_one_file_with_everything_in_it(trained, monkeypatch):
    _, schedule, _ = trained
    monkeypatch.setattr(whole, "_write_pictures", WRITE_PICTURES)
    found = run(schedule)
    page = (found.folder / "report.html").read_text()
    names = {f.name for f in (found.folder / "figures").iterdir()}
    charts = ("curves", "matrix", "classes", "cases", "forgetting", "training", "case_worst", "case_median")
    assert names == {f"{chart}.{ending}" for chart in charts for ending in ("png", "svg")}
    assert page.count("<img ") == page.count("base64,") == len(charts)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    digest = json.loads((found.folder / "results.json").read_text())["checkpoints_sha256"][f"{PGCD} step 1 fold 0"]
    assert digest in page
    assert f"nnUNetv2_train {DATASET} 3d_fullres 0 -tr {PGCD} -p nnUNetPlans_toy_step1 -device cpu" in page
    assert "The worst case of PGCD: t" in page
    assert r"PGCD & 0.667 & 1.000 & 0.667 & 1.000 & 0.833 \\" in (found.folder / "tables.tex").read_text()


def test_each_steps_plans_are_read_once(trained, monkeypatch):
    root, schedule, _ = trained
    read_text, read = Path.read_text, []

    def counted(file, *arguments, **options):
        read.append(file.relative_to(root) if file.is_relative_to(root) else file)
        return read_text(file, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", counted)
    run(schedule)
    plans = [file.name for file in read if file.parent == Path("preprocessed") / DATASET and "Plans" in file.name]
    assert sorted(plans) == ["nnUNetPlans_toy_step0.json", "nnUNetPlans_toy_step1.json"]


def test_a_case_whose_image_is_gone_is_not_shown(tmp_path, trained):
    experiment = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=(0,), schedule_name=trained[1], trainers=(PGCD,)
    )
    model = PlannedExperiment.read(experiment).model_folds()[-1]
    table = score_table([{"trainer": PGCD, "step": 1, "fold": 0, "case": "t0", "class": "kidney", "dice": 0.5}])
    case = Case(
        name="t0",
        reference=tmp_path / "t0.nii.gz",
        image=tmp_path / "gone.nii.gz",
        labels=LABELS,
        classes=["kidney"],
    )
    assert write_overlays(tmp_path, {PGCD: (model, [Prediction(case, tmp_path / "t0.nii.gz")])}, table) == []


def test_nothing_is_done_twice_unless_the_model_has_changed(trained):
    root, schedule, calls = trained
    first = run(schedule)
    assert len(calls) == 2
    assert run(schedule).summary == first.summary
    assert len(calls) == 2
    write_model(next((root / "results" / DATASET).glob("*step1*")) / "fold_0" / "checkpoint_final.pth", "new")
    run(schedule)
    assert [("step1" in " ".join(c), "--continue_prediction" in c) for c in calls[2:]] == [(True, False)]


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
    write(np.ones((4, 4, 4)), root / "raw" / DATASET / "imagesTs" / "t1_0000.nii.gz")
    run(schedule)
    assert ["--continue_prediction" in c for c in calls] == [False] * 4


def test_a_class_counts_only_in_cases_that_label_it(trained):
    """dataset.json says so; what is found of it elsewhere is neither right nor wrong."""
    root, schedule, _ = trained
    labels = root / "raw" / DATASET / "labelsTs" / "t1.nii.gz"
    hidden = toy_volume(51)[1]
    hidden[hidden == 1] = 0
    write(hidden, labels)

    def liver():
        found = run(schedule)
        return json.loads((found.folder / "results.json").read_text())["trainers"][PGCD]["dice"][0]["classes"][1][
            "liver"
        ]

    assert liver() == pytest.approx(2 / 3)
    file = root / "preprocessed" / DATASET / "dataset.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "labelled_classes": {"t1": ["kidney", "spleen", "cyst"]}}))
    assert liver() == 1


def test_steps_with_cases_of_their_own_are_scored_on_the_whole_folds_validation_cases(trained, tmp_path, monkeypatch):
    root, _, calls = trained
    shutil.rmtree(root / "raw" / DATASET / "labelsTs")
    schedule = write_schedule(tmp_path, ORDER, name="apart", cases="disjoint")
    steps = plan(DATASET, schedule)
    for step in steps:
        model = root / "results" / DATASET / f"{PGCD}__{step.plans_name}__3d_fullres"
        (model / "fold_0").mkdir(parents=True)
        write_model(model / "fold_0" / "checkpoint_final.pth", step.plans_name)
        (model / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz", "labels": step.plan.labels}))

    def predict(arguments, *_):
        option = dict(zip(arguments[::2], arguments[1::2], strict=False))
        calls.append(sorted(f.name for f in Path(option["-i"]).iterdir()))
        for i in (4, 5):
            shutil.copy(root / "preprocessed" / DATASET / "gt_segmentations" / f"case_{i}.nii.gz", option["-o"])
            file = Path(option["-o"]) / f"case_{i}.nii.gz"
            image = sitk.ReadImage(str(file))
            write((sitk.GetArrayFromImage(image) == 3) * 1, file, image.GetSpacing())

    monkeypatch.setattr(predicting, "predict", predict)
    found = run(schedule)
    assert calls == [["case_4_0000.nii.gz", "case_5_0000.nii.gz"]] * 2
    (dice,) = json.loads((found.folder / "results.json").read_text())["trainers"][PGCD]["dice"]
    assert [list(row) for row in dice["classes"]] == [["kidney"], ["kidney", "liver"]]
    with (found.folder / "per_case.csv").open() as file:
        assert {row["case"] for row in csv.DictReader(file)} == {"case_4", "case_5"}
    everything = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=("all",), schedule_name=schedule, trainers=(PGCD,)
    )
    with pytest.raises(CILError, match="fold all leaves no validation cases"):
        check_test_cases(everything, EvaluationOptions())


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
    write(half, labels / "t1.nii.gz")
    assert whole.evaluated(experiment, options) is None
    assert scores(labels) == second


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


def test_an_untrained_step_names_its_command(trained):
    root, schedule, calls = trained
    next((root / "results" / DATASET).glob("*step1*/fold_0/checkpoint_final.pth")).unlink()
    with pytest.raises(CILError, match=r"Step 1 of toy is not trained .*'nnUNetv2_train .* -p nnUNetPlans_toy_step1'"):
        run(schedule)
    assert not calls


def test_a_training_that_is_not_finished_is_not_begun_anew(trained):
    root, schedule, calls = trained
    final = next((root / "results" / DATASET).glob("*step1*/fold_0/checkpoint_final.pth"))
    shutil.copy(final, final.with_name("checkpoint_best.pth"))
    final.write_bytes(final.read_bytes()[:100])
    with pytest.raises(CILError, match=r"fold_0/checkpoint_final.pth is truncated .*remove it and .*step1 --c'"):
        run(schedule)
    final.unlink()
    with pytest.raises(CILError, match=r"Step 1 of toy is not trained to its end .*'nnUNetv2_train .*step1 --c'"):
        run(schedule)
    assert not calls


def test_a_step_on_top_of_another_model_than_is_there_is_refused(trained):
    root, schedule, calls = trained
    first, second = (
        next((root / "results" / DATASET).glob(f"*step{i}*")) / "fold_0" / "checkpoint_final.pth" for i in range(2)
    )
    record = StepRecord(
        **{"step": 1, "classes": (), "num_cases": None, "versions": {}, "previous_sha256": file_sha256(first)},
        **dict.fromkeys(("schedule", "dataset", "licence", "trainer", "plans", "configuration", "fold", "date"), ""),
    )
    state = StepState(classes=(), lineage=(record,), prototypes=None, stray_free=(), method_state={})
    torch.save({"network_weights": {}, "init_args": {}, **state.to_checkpoint()}, second)
    run(schedule)
    calls.clear()
    write_model(first, "trained again")
    with pytest.raises(CILError, match=r"The model of step 0, .* has changed since step 1 was trained on top of it"):
        run(schedule)
    assert not calls


def write_validation(root):
    """Leaves what nnU-Net's final validation leaves of each model; returns the last one's folder."""
    for fold in sorted((root / "results" / DATASET).glob("*/fold_0")):
        (fold / "validation").mkdir()
        truth = sitk.ReadImage(str(root / "preprocessed" / DATASET / "gt_segmentations" / "case_0.nii.gz"))
        write(sitk.GetArrayFromImage(truth) == 3, fold / "validation" / "case_0.nii.gz", truth.GetSpacing())
        (fold / "validation" / "summary.json").write_text(json.dumps({"mean": {"1": {"Dice": 1.0}}}))
    return fold


def test_validation_cases_are_scored_beside_the_test_cases_where_they_are_asked_for(trained):
    root, schedule, calls = trained
    write_validation(root)
    test = run(schedule)
    results = json.loads((test.folder / "results.json").read_text())
    calls.clear()
    validation = run(schedule, cases="validation")
    assert not calls
    assert validation.folder == test.folder.with_name(f"{test.folder.name}_validation")
    content = json.loads((validation.folder / "results.json").read_text())
    assert content["cases"] == "validation"
    assert content["commands"][-1].endswith("-device cpu --cases validation")
    with (validation.folder / "per_case.csv").open() as file:
        assert {row["case"] for row in csv.DictReader(file)} == {"case_0"}
    assert json.loads((test.folder / "results.json").read_text()) == results


def test_an_explicit_choice_that_equals_the_default_has_its_folder(trained):
    root, schedule, _ = trained
    write_validation(root)
    experiment = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)
    )

    def folder(cases):
        return whole.output_folder(experiment, EvaluationOptions(cases=cases))

    assert folder("test") == folder(None) != folder("validation")
    assert whole.output_folder(experiment, EvaluationOptions(cases="validation", output=root)) == root
    shutil.rmtree(root / "raw" / DATASET / "labelsTs")
    assert folder("validation") == folder(None)


def test_test_cases_that_are_asked_for_and_not_there_are_refused(trained, capsys):
    root, schedule, calls = trained
    command = ["evaluate", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD, "-device", "cpu", "--cases"]
    assert main([*command, "test"]) == 0
    calls.clear()
    shutil.rmtree(root / "raw" / DATASET / "labelsTs")
    assert main([*command, "test"]) == 1
    message = (
        f"--cases test: {DATASET} has no imagesTs with labelsTs in nnUNet_raw. Add test cases, or choose --cases val"
    )
    assert message in capsys.readouterr().err
    assert main([*command, "validation", "-i", str(root), "-l", str(root)]) == 1
    assert "--cases validation takes no -i and -l: it scores the validation" in capsys.readouterr().err
    everything = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=("all",), schedule_name=schedule, trainers=(PGCD,)
    )
    with pytest.raises(CILError, match="--cases validation: fold all leaves no validation cases"):
        check_test_cases(everything, EvaluationOptions(cases="validation"))
    assert not calls


def test_validation_predictions_of_an_earlier_checkpoint_are_refused(trained, caplog):
    root, schedule, _ = trained
    shutil.rmtree(root / "raw" / DATASET / "labelsTs")
    fold = write_validation(root)
    caplog.set_level(logging.INFO, "nnunet_cil")
    assert "| step 1 |" in run(schedule).summary
    assert caplog.messages[0] == "Scoring on the folds' validation cases"
    os.utime(fold / "validation" / "summary.json", (0, 0))
    with pytest.raises(
        CILError, match=r"does not hold the predictions of the final checkpoint.*nnUNetv2_train .*--val"
    ):
        run(schedule)


def test_a_case_without_true_labels(trained):
    root, schedule, calls = trained
    (root / "raw" / DATASET / "labelsTs" / "t1.nii.gz").unlink()
    with pytest.raises(CILError, match="Case 't1' has no true labels"):
        run(schedule)
    assert not calls


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: write(toy_volume(51)[1], f, spacing=(1, 1, 2)), "Spacing of .* is .*t1.nii.gz it is"),
        (lambda f: write(toy_volume(51)[1] + 9, f), "t1.nii.gz holds the label 9, which is none of"),
        (lambda f: f.write_bytes(f.read_bytes()[:40]), "t1.nii.gz is cut off or damaged"),
        (lambda f: f.write_bytes(gzip.compress(b"no image" * 100)), "t1.nii.gz cannot be read"),
    ],
)
def test_truth_that_does_not_fit(trained, break_it, message):
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


def test_images_without_labels_are_refused(trained, tmp_path):
    with pytest.raises(CILError, match="-i IMAGES and -l LABELS together"):
        run(trained[1], images=tmp_path)


def test_ignored_voxels_count_nowhere(tmp_path):
    from nnunet_cil.evaluation.files import score_files

    labels = toy_volume(0)[1]
    truth = labels.copy()
    truth[:, :, :7] = 9
    write(truth, tmp_path / "truth.nii.gz")
    broken = labels.copy()
    broken[:, :, :7] = 2
    write(broken, tmp_path / "found.nii.gz")
    scores = score_files(
        tmp_path / "found.nii.gz",
        tmp_path / "truth.nii.gz",
        classes={o: (n, n) for o, n in LABELS.items() if n},
        prediction_labels=frozenset(LABELS.values()),
        reference_labels=frozenset([*LABELS.values(), 9]),
        ignore_label=9,
        tolerance_mm=1,
    )
    assert {s.dice for s in scores.values() if s.num_voxels_wanted} == {1}


@pytest.mark.slow
def test_evaluate_with_nnunets_own_prediction(toy, tmp_path, capsys):
    """Trained for two epochs, predicted by nnUNetv2_predict on images of its own, from the command line."""
    schedule = write_schedule(tmp_path, ORDER)
    for step in plan(DATASET, schedule):
        train(PGCD, step.plans_name)
    raw = toy.parents[1] / "raw" / DATASET
    command = [
        "evaluate",
        "17",
        "3d_fullres",
        "0",
        str(schedule),
        "-tr",
        PGCD,
        "-device",
        "cpu",
        "-o",
        str(tmp_path / "o"),
    ]
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder, source in ((images, raw / "imagesTr"), (labels, raw / "labelsTr")):
        folder.mkdir()
        for file in sorted(source.iterdir())[:2]:
            (folder / file.name).write_bytes(file.read_bytes())
    assert main([*command, "-i", str(images), "-l", str(labels)]) == 0
    assert "## Over the whole schedule" in capsys.readouterr().out
    assert len(list((tmp_path / "o" / "predictions" / f"{PGCD}_step1_fold0").glob("*.nii.gz"))) == 2
