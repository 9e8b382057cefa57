"""Schedules whose steps learn from different data sets: planned."""

import json
import shutil

import pytest
from toy import (
    DATASET,
    make_raw,
)
from toy_sequence import BACK, CPU, MOVED, NEW, NEW_LABELS, PGCD, STEPS, schedule_file

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.host import preprocess as preprocessing
from nnunet_cil.step_plans import PreviousModel, read_step_plan
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.plan import preprocessed_data
from nnunet_cil.workflows.plan.plan import plan
from nnunet_cil.workflows.run import run as running
from nnunet_cil.workflows.run.options import TrainingOptions


def change_dataset_json(tmp_path, **changed):
    file = tmp_path / "nnunet" / "raw" / NEW / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


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
    assert one.target_labels(one.target_classes) == {2: 3}
    assert one.evaluation_label_map == {3: 1, 2: 3}  # liver is there, too, and hidden; spleen is not
    assert two.target_labels(two.target_classes) == {4: 4}
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
    few = {DATASET: preprocessed_data.scan_labels, NEW: lambda *_: {"3d_fullres": {"new_0": {1, 2, 3}}}}
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
        ({"labels": NEW_LABELS | {"whole": [1, 2]}}, "has regions, but no 'regions_class_order'"),
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
