"""Which cases are scored: test cases, validation cases, and those that label a class."""

import csv
import json
import logging
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk
from toy import DATASET, ORGANS, dataset_json, toy_volume, write_schedule
from toy_models import ORDER, PGCD, run, write, write_model, write_validation

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.host.reading.spacings import with_spacing_files
from nnunet_cil.workflows.evaluate import evaluate as whole
from nnunet_cil.workflows.evaluate import predict as predicting
from nnunet_cil.workflows.evaluate.cases import _link_all, check_test_cases
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.plan.plan import plan


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


@pytest.mark.parametrize("labelled", [["kidney"], ["liver"]])
def test_a_class_that_no_case_labels_has_no_score_and_the_others_have_theirs(trained, labelled, with_pictures):
    root, schedule, _ = trained
    for i in range(3):
        truth = toy_volume(50 + i)[1]
        truth[truth != ORGANS.index(labelled[0]) + 1] = 0
        write(truth, root / "raw" / DATASET / "labelsTs" / f"t{i}.nii.gz")
    file = root / "preprocessed" / DATASET / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "labelled_classes": {"t*": labelled}}))
    found = run(schedule)
    (dice,) = json.loads((found.folder / "results.json").read_text())["trainers"][PGCD]["dice"]
    kidney, liver = ("kidney" in labelled), ("liver" in labelled)
    assert [{n: v is not None for n, v in row.items()} for row in dice["classes"]] == [
        {"kidney": kidney},
        {"kidney": kidney, "liver": liver},
    ]
    assert dice["all"][1] == dice["classes"][1][labelled[0]]
    assert (dice["new_when_learnt"] is None) == kidney
    absent = "liver" if kidney else "kidney"
    assert f"**What was not scored?** {absent}: no scored case shows it" in found.summary
    assert ("No scored case shows an old class." in found.summary) == liver
    assert ("No scored case shows a new class." in found.summary) == kidney
    assert "unknown" not in found.summary
    assert f"{absent}: no scored case shows it" in (found.folder / "report.html").read_text()


def test_steps_with_cases_of_their_own_are_scored_on_the_whole_folds_validation_cases(trained, tmp_path, monkeypatch):
    root, _, calls = trained
    shutil.rmtree(root / "raw" / DATASET / "labelsTs")
    schedule = write_schedule(tmp_path, ORDER, name="apart", cases="disjoint")
    steps = plan(DATASET, schedule)
    for step in steps:
        model = root / "results" / DATASET / f"{PGCD}__{step.plans_name}__3d_fullres"
        (model / "fold_0").mkdir(parents=True)
        write_model(model / "fold_0" / "checkpoint_final.pth", step.plans_name)
        (model / "dataset.json").write_text(json.dumps(dataset_json(step.plan.labels)))

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
        assert {row["case"] for row in csv.DictReader(file)} == {"case_4", "case_5"}
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
    write_model(fold / "checkpoint_final.pth", "another")
    with pytest.raises(
        CILError, match=r"does not hold the predictions of the final checkpoint.*nnUNetv2_train .*--val"
    ):
        run(schedule)


def test_a_case_without_true_labels(trained):
    root, schedule, calls = trained
    (root / "raw" / DATASET / "labelsTs" / "t1.nii.gz").unlink()
    with pytest.raises(CILError, match="Case 't1' has no reference labels"):
        run(schedule)
    assert not calls


def test_images_without_labels_are_refused(trained, tmp_path):
    with pytest.raises(CILError, match="-i IMAGES and -l LABELS together"):
        run(trained[1], images=tmp_path)


@pytest.mark.parametrize("has_links", [True, False])
def test_the_spacing_of_a_tiff_goes_along_with_its_image(tmp_path, monkeypatch, has_links):
    for name, text in (("a_0000.tif", "image"), ("a.json", '{"spacing": [2, 1, 1]}')):
        (tmp_path / name).write_text(text)
    if not has_links:
        monkeypatch.setattr(Path, "symlink_to", raising(OSError))
    files = with_spacing_files({"b_0000.tif": tmp_path / "a_0000.tif"})
    for text in ('{"spacing": [2, 1, 1]}', '{"spacing": [3, 1, 1]}'):
        (tmp_path / "a.json").write_text(text)
        _link_all(files, tmp_path / "links")
        assert sorted(f.name for f in (tmp_path / "links").iterdir()) == ["b.json", "b_0000.tif"]
        assert (tmp_path / "links" / "b.json").read_text() == text


def raising(error):
    def fail(*_arguments):
        raise error

    return fail
