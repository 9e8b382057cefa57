"""Schedules whose steps learn from different data sets: planned, trained, run and scored."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from toy import (
    DATASET,
    LABELS,
    ORGANS,
    finish_training,
    make_raw,
    preprocess,
    toy_volume,
    train,
    write_schedule,
)

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.host import preprocess as preprocessing
from nnunet_cil.step_plans import PreviousModel, read_step_plan
from nnunet_cil.training.state import read_checkpoint
from nnunet_cil.workflows.evaluate import evaluate as whole
from nnunet_cil.workflows.evaluate import predict as predicting
from nnunet_cil.workflows.evaluate.evaluate import evaluate, evaluated
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.plan import preprocessed_data
from nnunet_cil.workflows.plan.plan import plan
from nnunet_cil.workflows.run import run as running
from nnunet_cil.workflows.run.jobs import job_graph
from nnunet_cil.workflows.run.options import TrainingOptions

NEW, MOVED = "Dataset018_New", "nnUNetPlansFrom017"
PGCD, MIB = "nnUNetTrainerPGCD", "nnUNetTrainerMiB"
CPU = EvaluationOptions(device="cpu")
NEW_LABELS = {"background": 0, "cyst": 1, "kidney": 2, "liver": 3}
STEPS = [{"classes": ["liver", "spleen"]}, {"classes": ["kidney"], "dataset": 18}]
BACK = [*STEPS, {"classes": ["cyst"]}]
"""A third step, on the first data set again."""


def schedule_file(folder, steps=STEPS, name="toy", **extra):
    return write_schedule(folder, steps, name=name, **extra)


@pytest.fixture
def raw_new(toy, tmp_path):
    """The toy data set, preprocessed, and a raw one with other numbers. The latter's folder in nnUNet_preprocessed."""
    make_raw(tmp_path / "nnunet", NEW, NEW_LABELS)
    return toy.parent / NEW


@pytest.fixture
def new(raw_new, tmp_path):
    """The same, and the raw one is preprocessed with the first one's plans."""
    with pytest.raises(CILError, match="not preprocessed with them yet"):
        plan(DATASET, schedule_file(tmp_path))
    (raw_new / "dataset_fingerprint.json").write_text("{}")
    preprocess(raw_new, MOVED)
    return raw_new


def change_dataset_json(tmp_path, **changed):
    file = tmp_path / "nnunet" / "raw" / NEW / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


# --- plans ----------------------------------------------------------------------------------------------------


def test_the_first_plans_are_moved_and_the_commands_that_are_left_are_told(raw_new, toy, tmp_path, capsys):
    schedule = schedule_file(tmp_path)
    assert main(["plan", "17", str(schedule)]) == 1
    told = capsys.readouterr()
    assert "   spacing: 1 x 1 x 1 mm, the model's 1 x 1 x 1 mm" in told.out
    assert "  nnUNetv2_extract_fingerprint -d 18 --verify_dataset_integrity\n" in told.err
    assert f"  nnUNetv2_preprocess -d 18 -c 3d_fullres -plans_name {MOVED}\n" in told.err
    moved, base = (json.loads(f.read_text()) for f in (raw_new / f"{MOVED}.json", toy / "nnUNetPlans.json"))
    assert (moved["dataset_name"], moved["plans_name"]) == (NEW, MOVED)
    assert moved["configurations"]["3d_fullres"].pop("data_identifier") == f"{MOVED}_3d_fullres"
    base["configurations"]["3d_fullres"].pop("data_identifier")
    assert moved["configurations"]["3d_fullres"] == base["configurations"]["3d_fullres"]
    assert json.loads((raw_new / "dataset.json").read_text())["labels"] == NEW_LABELS
    assert not list(toy.glob("*_step*.json"))


def test_each_steps_plans_lie_with_its_data_set(new, toy, tmp_path):
    schedule = schedule_file(tmp_path, BACK)
    steps = plan(17, schedule)
    assert [s.file for s in steps] == [
        toy / "nnUNetPlans_toy_step0.json",
        new / f"{MOVED}_toy_step1.json",
        toy / "nnUNetPlans_toy_step2.json",
    ]
    for step in steps:
        written = json.loads(step.file.read_text())
        assert (written["dataset_name"], written["plans_name"]) == (step.dataset, step.plans_name)
        assert read_step_plan(written, json.loads((step.file.parent / "dataset.json").read_text())) == step.plan
    assert written["configurations"]["3d_fullres"]["data_identifier"] == "nnUNetPlans_3d_fullres"
    one, two = steps[1].plan, steps[2].plan
    assert one.previous == PreviousModel(dataset=DATASET, plans="nnUNetPlans_toy_step0")
    assert two.previous == PreviousModel(dataset=NEW, plans=f"{MOVED}_toy_step1")
    assert one.labels == {"background": 0, "liver": 1, "spleen": 2, "kidney": 3}
    assert one.training_label_map == {2: 3}
    assert one.evaluation_label_map == {3: 1, 2: 3}  # liver is there, too, and hidden; spleen is not
    assert two.training_label_map == {4: 4}
    assert not any(s.written for s in plan(17, schedule))


def test_one_data_set_is_planned_as_ever(toy, tmp_path):
    """Digests that were written before a step could name its data set."""
    expected = {
        "shared": "05346ff87e14965bff225fa7ba9c40452e523654f19a9de1c8a893c04ee96589",
        "disjoint": "69d97bcf6afacdb47a750f6b8873c935d6b6228cf6a55cddab011bd433e4350b",
    }
    for cases, digest in expected.items():
        for dataset in ({}, {"dataset": "17"}, {"dataset": DATASET}):
            steps = [{"classes": c, **dataset} for c in (["kidney"], ["liver", "cyst"], ["spleen"])]
            plans = plan("17", schedule_file(tmp_path, steps, cases=cases), first_trainer=PGCD)
            assert json.loads(plans[1].file.read_text())["cil"]["digest"] == digest
    assert [f.name for f in toy.parent.iterdir()] == [DATASET]


def test_cases_are_dealt_out_among_the_steps_of_a_data_set(new, tmp_path, monkeypatch):
    steps = [s.plan for s in plan(17, schedule_file(tmp_path, BACK, cases="disjoint"))]
    assert [len(s.cases) for s in steps] == [3, 6, 3]
    assert sorted(steps[0].cases + steps[2].cases) == [f"case_{i}" for i in range(6)]
    assert steps[1].earlier_cases == ((),)
    assert steps[2].earlier_cases == (steps[0].cases, ())
    few = {DATASET: preprocessed_data.scan_labels, NEW: lambda *_: {"new_0": {1, 2, 3}}}
    monkeypatch.setattr(preprocessed_data, "scan_labels", lambda folder, *rest: few[folder.name](folder, *rest))
    two = [STEPS[0], STEPS[1], {"classes": ["cyst"], "dataset": NEW}]
    with pytest.raises(CILError, match=f"deals cases out to 2 steps, but there are only 1 cases in {NEW}"):
        plan(17, schedule_file(tmp_path, two, name="other", cases="disjoint"))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([STEPS[1], STEPS[0]], f"step 0 of toy learns from {NEW}, but the command names {DATASET}. Call it with {NEW}"),
        ([STEPS[0], {"classes": ["kidney"], "dataset": 19}], "step 1 of toy: There is no data set '19' in .*convert"),
        ([STEPS[0], {"classes": ["spleeen"], "dataset": 18}], f"step 1 of toy names 'spleeen', .* label of {NEW}"),
        ([{"classes": ["liver"]}, {"classes": ["spleen"], "dataset": NEW}], f"'spleen', which is not a label of {NEW}"),
    ],
)
def test_data_sets_and_classes_that_do_not_go_together_are_refused(raw_new, tmp_path, steps, message):
    with pytest.raises(CILError, match=message):
        plan(17, schedule_file(tmp_path, steps))
    assert not raw_new.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"file_ending": ".mha"}, rf"The files of {NEW} end in .mha, those of {DATASET} in .nii.gz"),
        ({"channel_names": {"0": "MR", "1": "T2"}}, rf"{NEW} does not fit the plans of {DATASET}: .*has 2 \(MR, T2\)"),
        (
            {"channel_names": {"0": "CT"}},
            rf"{NEW} does not look like {DATASET}.*CT, but .* MR.*'nnunet_cil plan .*--force",
        ),
        ({"labels": NEW_LABELS | {"whole": [1, 2]}}, "'whole' of the data set is a region"),
    ],
)
def test_data_sets_that_do_not_fit_are_refused_before_the_long_work(
    raw_new, toy, tmp_path, monkeypatch, changed, message
):
    change_dataset_json(tmp_path, **changed)
    monkeypatch.setattr(preprocessing, "call", lambda *_: pytest.fail("the long work began"))
    shutil.rmtree(toy / "nnUNetPlans_3d_fullres")
    schedule = schedule_file(tmp_path)
    for start in (
        lambda: plan(17, schedule),
        lambda: running.run(
            Experiment(dataset="17", configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)),
            TrainingOptions(device="cpu"),
            CPU,
        ),
    ):
        with pytest.raises((CILError, NotImplementedError), match=message):
            start()
    assert not raw_new.exists()


def test_what_blocks_is_forced_once(raw_new, tmp_path):
    shutil.rmtree(tmp_path / "nnunet" / "raw" / NEW)
    make_raw(tmp_path / "nnunet", NEW, NEW_LABELS, channel="CT", spacing=4.0)
    schedule = schedule_file(tmp_path)
    with pytest.raises(CILError, match="does not look like"):
        plan(17, schedule)
    with pytest.raises(CILError, match="not preprocessed with them yet"):
        plan(17, schedule, force=True)
    with pytest.raises(CILError, match="not preprocessed with them yet"):
        plan(17, schedule)


def test_what_other_plans_have_preprocessed_is_not_taken(new, toy, tmp_path):
    schedule = schedule_file(tmp_path)
    base = json.loads((toy / "nnUNetPlans.json").read_text())
    base["configurations"]["3d_fullres"]["spacing"] = [1.0, 1.0, 1.5]
    (toy / "nnUNetPlans.json").write_text(json.dumps(base))
    with pytest.raises(
        CILError, match=rf"{MOVED}_3d_fullres holds .*{MOVED}.json; other spacing\). Remove that folder"
    ):
        plan(17, schedule)


def test_a_class_that_some_cases_do_not_label_is_refused(new, tmp_path):
    file = new / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labelled_classes": {"new_3": ["liver"]}}))
    with pytest.raises(CILError, match=r"step 1 of toy learns 'kidney', .* case 'new_3' does not label it.*extend"):
        plan(17, schedule_file(tmp_path))


# --- training ---------------------------------------------------------------------------------------------------


def predict_in_process(arguments, _environment, _log, _num_cases):
    """nnUNetv2_predict, without a process of its own."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    option = dict(zip(arguments[::2], arguments[1::2], strict=False))
    model = Path(os.environ["nnUNet_results"]) / option["-d"] / f"{option['-tr']}__{option['-p']}__{option['-c']}"
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(model), (int(option["-f"]),))
    predictor.predict_from_files_sequential(option["-i"], option["-o"], False, True, None)


def test_a_sequence_over_two_data_sets_is_trained_and_scored_end_to_end(new, tmp_path, monkeypatch, capsys):
    """With nnU-Net's own trainer and predictor, in this process. The first data set has test cases, the other has not."""
    schedule = schedule_file(tmp_path)
    for step in plan(17, schedule):
        trainer = train(PGCD, step.plans_name, dataset=step.dataset)
        trainer.perform_actual_validation()
        summary = json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())
        assert sorted(summary["mean"]) == [["1", "2"], ["1", "3"]][step.plan.step]
    results = tmp_path / "nnunet" / "results"
    assert sorted(p.name for p in results.glob("*/*/fold_0")) == ["fold_0", "fold_0"]
    state = read_checkpoint(Path(trainer.output_folder) / "checkpoint_final.pth")["cil"]
    assert state["classes"] == ["liver", "spleen", "kidney"]
    assert [r["dataset"] for r in state["lineage"]] == [DATASET, NEW]
    assert state["lineage"][1]["previous_sha256"] is not None
    assert state["prototypes"]["counts"].shape == (4,)
    assert main(["status", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD]) == 0
    assert capsys.readouterr().out.count("| finished |") == 2

    monkeypatch.setattr(predicting, "predict", predict_in_process)
    raw = tmp_path / "nnunet" / "raw" / DATASET
    shutil.copytree(raw / "imagesTr", raw / "imagesTs")
    shutil.copytree(raw / "labelsTr", raw / "labelsTs")
    validation = json.loads((new / "splits_final.json").read_text())[0]["val"]
    found = evaluate(
        Experiment(dataset="17", configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)), CPU
    )
    with (found.folder / "per_case.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {f"{DATASET}/case_{i}" for i in range(6)}, {f"{NEW}/{case}" for case in validation}
    for step, expected in (
        ("0", {"liver": names[0] | names[1], "spleen": names[0]}),
        ("1", {"liver": names[0] | names[1], "spleen": names[0], "kidney": names[0] | names[1]}),
    ):
        cases = {c: {r["case"] for r in rows if r["class"] == c and r["step"] == step} for c in ORGANS}
        assert {c: found for c, found in cases.items() if found} == expected
    assert f"toy on {DATASET}, {NEW}, 3d_fullres" in (found.folder / "report.html").read_text()


@pytest.mark.slow
def test_run_over_two_data_sets_with_nnunets_own_commands(raw_new, tmp_path, capsys):
    """From a raw second data set to tables; a second call trains nothing."""
    schedule = schedule_file(tmp_path)
    out = tmp_path / "out"
    command = ["run", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD, "-device", "cpu", "-o", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "nnUNetv2_extract_fingerprint -d 18" in said
    assert "2 trainings, 2 to do" in said
    assert main(command) == 0
    assert "2 trainings, 0 to do" in capsys.readouterr().out
    assert json.loads((out / "results.json").read_text())["cases"] == f"{DATASET}: validation, {NEW}: validation"


# --- run ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def commands(raw_new, tmp_path, monkeypatch):
    """A schedule over two data sets, and the list of commands that are called, on stand-ins that leave what is looked for."""
    called = []

    def call(command, arguments, *_):
        called.append([command, *arguments])
        if command == "nnUNetv2_extract_fingerprint":
            (raw_new / "dataset_fingerprint.json").write_text("{}")
        elif command == "nnUNetv2_preprocess":
            preprocess(raw_new, MOVED)

    def run_training(arguments, *_):
        called.append(["nnUNetv2_train", *arguments])
        option = dict(zip(arguments[3:-1:2], arguments[4::2], strict=False))
        name = f"{option['-tr']}__{option['-p']}__{arguments[1]}"
        finish_training(Path(os.environ["nnUNet_results"]) / arguments[0] / name / f"fold_{arguments[2]}")

    monkeypatch.setattr(preprocessing, "call", call)
    monkeypatch.setattr(running, "train", run_training)
    monkeypatch.setattr(running, "evaluate", lambda *_, **__: called.append(["evaluate"]))
    return Experiment(
        dataset="17",
        configuration="3d_fullres",
        folds=(0,),
        schedule_name=schedule_file(tmp_path, BACK),
        trainers=(PGCD, MIB),
    ), called


def test_run_preprocesses_each_data_set_and_trains_each_step_on_its_own(commands):
    experiment, called = commands
    running.run(experiment, TrainingOptions(device="cpu"), CPU)
    short = [(c[0].removeprefix("nnUNetv2_"), *c[1:2], *c[4:8:2]) for c in called]
    assert [c[0] for c in short[:2]] == ["extract_fingerprint", "preprocess"]
    assert called[1][1:7] == ["-d", "18", "-c", "3d_fullres", "-plans_name", MOVED]
    assert [(c[1], c[5], c[7]) for c in called[2:-1]] == [
        (DATASET, PGCD, "nnUNetPlans_toy_step0"),
        (NEW, PGCD, f"{MOVED}_toy_step1"),
        (DATASET, PGCD, "nnUNetPlans_toy_step2"),
        (NEW, MIB, f"{MOVED}_toy_step1"),
        (DATASET, MIB, "nnUNetPlans_toy_step2"),
    ]
    assert called[-1] == ["evaluate"]
    called.clear()
    running.run(experiment, TrainingOptions(device="cpu"), CPU)
    assert called == [["evaluate"]]


def test_dry_run_and_jobs_know_each_steps_data_set(commands, capsys):
    experiment, _ = commands
    running.run(experiment, TrainingOptions(device="cpu", stop_after=0), CPU)
    capsys.readouterr()
    arguments = ["17", "3d_fullres", "0", str(experiment.schedule_name), "-tr", PGCD]
    assert main(["status", *arguments]) == 0
    table = [[cell.strip() for cell in line.split("|")[1:6]] for line in capsys.readouterr().out.splitlines()]
    assert table[0] == ["fold", "step", "data set", "trainer", "state"]
    assert [row[1:3] + row[4:] for row in table[2:]] == [
        ["0", DATASET, "finished"],
        ["1", NEW, "missing"],
        ["2", DATASET, "missing"],
    ]
    assert main(["run", *arguments, "--dry-run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in lines[:-1]] == [NEW, DATASET]
    jobs = job_graph(experiment, TrainingOptions(device="cpu"), CPU)
    assert [job.after for job in jobs[:2]] == [(), (jobs[0].name,)]
    assert jobs[0].name == f"{PGCD}__{MOVED}_toy_step1__3d_fullres_fold0"


def test_methods_that_need_old_data_are_refused_before_anything_is_done(commands, raw_new):
    experiment, called = commands
    joint = Experiment(
        dataset="17",
        configuration="3d_fullres",
        folds=(0,),
        schedule_name=experiment.schedule_name,
        trainers=(PGCD, "nnUNetTrainerJoint"),
    )
    for start in (running.run, job_graph):
        with pytest.raises(CILError, match=f"nnUNetTrainerJoint needs the data .* toy learns from {DATASET}, {NEW}"):
            start(joint, TrainingOptions(device="cpu"), CPU)
    assert not called
    assert not raw_new.exists()


# --- evaluate -------------------------------------------------------------------------------------------------------


@pytest.fixture
def scored(new, tmp_path, monkeypatch):
    """Models that look trained, two test cases in each data set, and a prediction that loses the liver of the second."""
    schedule = schedule_file(tmp_path)
    root = tmp_path / "nnunet"
    for step in plan(17, schedule):
        model = root / "results" / step.dataset / f"{PGCD}__{step.plans_name}__3d_fullres"
        (model / "fold_0").mkdir(parents=True)
        content = {"network_weights": {}, "init_args": step.plans_name, "logging": {"train_losses": [1.0]}}
        torch.save(content, model / "fold_0" / "checkpoint_final.pth")
        (model / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz", "labels": step.plan.labels}))
    for name, labels in ((DATASET, LABELS), (NEW, NEW_LABELS)):
        numbers = np.array([0, *(labels.get(organ, 0) for organ in ORGANS)], dtype=np.uint8)
        for folder in ("imagesTs", "labelsTs"):
            (root / "raw" / name / folder).mkdir()
        for i in range(2):
            image, segmentation = toy_volume(50 + i)
            sitk.WriteImage(sitk.GetImageFromArray(image), str(root / "raw" / name / "imagesTs" / f"t{i}_0000.nii.gz"))
            truth = sitk.GetImageFromArray(numbers[segmentation])
            sitk.WriteImage(truth, str(root / "raw" / name / "labelsTs" / f"t{i}.nii.gz"))
    calls = []

    def predict(arguments, _environment, log, _num_cases):
        option = dict(zip(arguments[::2], arguments[1::2], strict=False))
        calls.append((option["-d"], Path(option["-o"]).name, log.name))
        for i in range(2):
            found = toy_volume(50 + i)[1]
            found[found > (3 if "step1" in option["-p"] else 2)] = 0  # organ n is channel n
            if NEW in option["-i"] and "step1" in option["-p"]:
                found[found == 1] = 0
            sitk.WriteImage(sitk.GetImageFromArray(found), str(Path(option["-o"]) / f"t{i}.nii.gz"))

    monkeypatch.setattr(predicting, "predict", predict)
    return Experiment(
        dataset="17", configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)
    ), calls


def test_a_class_is_scored_on_the_cases_of_every_data_set_that_labels_it(scored):
    experiment, calls = scored
    found = evaluate(experiment, CPU)
    name = f"{PGCD}_step{{}}_fold0_{{}}.txt"
    assert calls == [
        (DATASET, DATASET, name.format(0, DATASET)),
        (DATASET, NEW, name.format(0, NEW)),
        (NEW, DATASET, name.format(1, DATASET)),
        (NEW, NEW, name.format(1, NEW)),
    ]
    content = json.loads((found.folder / "results.json").read_text())
    (dice,) = content["trainers"][PGCD]["dice"]
    assert dice["classes"] == [{"liver": 1, "spleen": 1}, {"liver": 0.5, "spleen": 1, "kidney": 1}]
    assert dice["forgetting"] == pytest.approx(0.25)
    assert (content["dataset"], content["cases"]) == (f"{DATASET}, {NEW}", f"{DATASET}: labelsTs, {NEW}: labelsTs")
    page = (found.folder / "report.html").read_text()
    assert [c.split()[:2] for c in content["commands"][:4]] == [
        ["nnunet_cil", "plan"],
        ["nnUNetv2_extract_fingerprint", "-d"],
        ["nnUNetv2_preprocess", "-d"],
        ["nnunet_cil", "plan"],
    ]
    assert f"nnUNetv2_train {NEW} 3d_fullres 0 -tr {PGCD} -p {MOVED}_toy_step1 -device cpu" in page
    assert f"The worst case of PGCD: {NEW}/t0" in page
    assert evaluated(experiment, CPU) == found
    assert evaluate(experiment, CPU) == found
    assert len(calls) == 4


def test_where_there_are_no_test_cases_the_validation_cases_are_predicted(scored, new, tmp_path, monkeypatch):
    experiment, _ = scored
    monkeypatch.setattr(whole, "_write_pictures", lambda *_: None)
    shutil.rmtree(tmp_path / "nnunet" / "raw" / NEW / "labelsTs")
    with pytest.raises(CILError, match=rf"{NEW} has no cases to score on: neither imagesTs .* of fold 0 in"):
        evaluate(experiment, CPU)
    (new / "splits_final.json").write_text(json.dumps([{"train": [], "val": ["new_1", "new_4"]}]))
    images = []

    def predict(arguments, *_):
        option = dict(zip(arguments[::2], arguments[1::2], strict=False))
        images.append(sorted(f.name for f in Path(option["-i"]).iterdir()))
        for name in images[-1]:
            found = sitk.GetImageFromArray(np.zeros((20, 22, 24), np.uint8))
            sitk.WriteImage(found, str(Path(option["-o"]) / name.replace("_0000", "")))

    monkeypatch.setattr(predicting, "predict", predict)
    found = evaluate(experiment, CPU)
    assert images[1] == images[3] == ["new_1_0000.nii.gz", "new_4_0000.nii.gz"]
    assert f"{NEW}/new_4,kidney" in (found.folder / "per_case.csv").read_text()


def test_validation_cases_of_every_data_set_are_predicted_where_they_are_asked_for(scored, new, monkeypatch):
    experiment, _ = scored
    monkeypatch.setattr(whole, "_write_pictures", lambda *_: None)
    (new / "splits_final.json").write_text(json.dumps([{"train": [], "val": ["new_1", "new_4"]}]))
    images = []

    def predict(arguments, *_):
        option = dict(zip(arguments[::2], arguments[1::2], strict=False))
        images.append(sorted(f.name for f in Path(option["-i"]).iterdir()))
        for name in images[-1]:
            found = sitk.GetImageFromArray(np.zeros((20, 22, 24), np.uint8))
            sitk.WriteImage(found, str(Path(option["-o"]) / name.replace("_0000", "")))

    monkeypatch.setattr(predicting, "predict", predict)
    found = evaluate(experiment, EvaluationOptions(device="cpu", cases="validation"))
    assert images == [["case_4_0000.nii.gz", "case_5_0000.nii.gz"], ["new_1_0000.nii.gz", "new_4_0000.nii.gz"]] * 2
    assert found.folder.name.endswith("_validation")
    content = json.loads((found.folder / "results.json").read_text())
    assert content["cases"] == f"{DATASET}: validation, {NEW}: validation"


def test_cases_of_the_users_own_are_refused(scored, tmp_path):
    with pytest.raises(CILError, match=f"-i and -l are for one data set, but the schedule has {DATASET}, {NEW}"):
        evaluate(scored[0], EvaluationOptions(images=tmp_path, labels=tmp_path))


def test_what_could_not_be_scored_is_not_trained(commands, tmp_path):
    experiment, called = commands
    folds = Experiment(
        dataset="17",
        configuration="3d_fullres",
        folds=("all",),
        schedule_name=experiment.schedule_name,
        trainers=(PGCD,),
    )
    for start in (running.run, running.remaining_commands, job_graph):
        with pytest.raises(CILError, match="-i and -l are for one data set"):
            start(experiment, TrainingOptions(), EvaluationOptions(images=tmp_path, labels=tmp_path))
        with pytest.raises(CILError, match=f"{DATASET} has no cases to score on: .* fold all leaves no"):
            start(folds, TrainingOptions(), CPU)
    assert not called
