"""nnunet_cil plan: what it writes, and what it refuses before it writes anything."""

import json
import logging
import math
import re
import shutil

import pytest
from toy import DATASET, ORGANS, write_schedule

from nnunet_cil.errors import CILError
from nnunet_cil.schedule import load_schedule
from nnunet_cil.step_plans import PreviousModel, read_step_plan
from nnunet_cil.workflows.plan import preprocessed_data
from nnunet_cil.workflows.plan.plan import plan, write_step_plans

STEPS = [["kidney"], ["liver", "cyst"], ["spleen"]]


def snapshot(folder):
    return {p.name: p.read_bytes() for p in folder.glob("*.json")}


def test_a_cascade_is_named_with_the_stage_before_it(toy, tmp_path):
    (step,) = plan(DATASET, write_schedule(tmp_path, (ORGANS,)))
    assert step.cascades == {"3d_cascade_fullres": "3d_lowres"}


def test_each_step_gets_plans_that_share_the_preprocessed_folder(toy, tmp_path):
    base = json.loads((toy / "nnUNetPlans.json").read_text())
    steps = plan("17", write_schedule(tmp_path, STEPS))
    assert [s.plans_name for s in steps] == [f"nnUNetPlans_toy_step{i}" for i in range(3)]
    for step in steps:
        written = json.loads(step.file.read_text())
        assert written["plans_name"] == step.plans_name
        assert read_step_plan(written, json.loads((toy / "dataset.json").read_text())) == step.plan
        assert written["configurations"] == base["configurations"]
    last = steps[2].plan
    assert last.labels == {"background": 0, "kidney": 1, "liver": 2, "cyst": 3, "spleen": 4}
    assert last.target_labels(last.target_classes) == {2: 4}
    assert last.evaluation_label_map == {3: 1, 1: 2, 4: 3, 2: 4}
    assert last.num_old_channels == 4
    assert last.previous == PreviousModel(dataset=DATASET, plans="nnUNetPlans_toy_step1")
    assert steps[0].plan.previous is None


def test_a_second_call_changes_nothing(toy, tmp_path):
    schedule = write_schedule(tmp_path, STEPS)
    plan("17", schedule)
    before = snapshot(toy)
    assert not any(s.written for s in plan("17", schedule))
    assert snapshot(toy) == before


def test_shared_step_0_is_named_in_step_1_only(toy, tmp_path):
    steps = plan(DATASET, write_schedule(tmp_path, STEPS), first_trainer="nnUNetTrainerPGCD")
    assert [s.plan.previous and s.plan.previous.trainer for s in steps] == [None, "nnUNetTrainerPGCD", None]


@pytest.mark.parametrize(
    ("steps", "extra", "message"),
    [
        ([["liver"], ["kindey"]], {}, r"step 1 of toy names 'kindey', which is not a label .* \(did you mean 'kidney'"),
        ([[c] for c in [*ORGANS, "x"]], {}, "step 4 of toy names 'x'"),
    ],
)
def test_unknown_classes_are_refused(toy, tmp_path, steps, extra, message):
    before = snapshot(toy)
    with pytest.raises(CILError, match=message):
        plan(DATASET, write_schedule(tmp_path, steps, **extra))
    assert snapshot(toy) == before


def test_fewer_cases_than_steps_are_refused(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(preprocessed_data, "scan_labels", lambda *_: {"2d": {"a": {0, 1, 2, 3, 4}}})
    with pytest.raises(CILError, match="deals cases out to 4 steps, but there are only 1 cases"):
        plan(DATASET, write_schedule(tmp_path, [[o] for o in ORGANS], cases="disjoint"))


def test_disjoint_cases_are_dealt_out_evenly_and_always_alike(toy, tmp_path):
    schedule = write_schedule(tmp_path, [["liver"], ["kidney"]], cases="disjoint")
    hands = [s.plan.cases for s in plan(DATASET, schedule)]
    assert [len(h) for h in hands] == [3, 3]
    assert sorted(hands[0] + hands[1]) == [f"case_{i}" for i in range(6)]
    assert [s.plan.cases for s in plan(DATASET, schedule)] == hands


def test_disjoint_cases_are_dealt_out_within_each_fold(toy, tmp_path):
    """splits_final.json of the toy data set: case_4, case_5 validate fold 0, case_0, case_1 fold 1."""
    hands = [
        set(s.plan.cases) for s in plan(DATASET, write_schedule(tmp_path, [["liver"], ["cyst"]], cases="disjoint"))
    ]
    for validation in ({"case_4", "case_5"}, {"case_0", "case_1"}):
        assert [len(hand & validation) for hand in hands] == [1, 1]


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ("nnUNetTrainerPGDC", "does not find the trainer 'nnUNetTrainerPGDC'"),
        ("nnUNetTrainer", "knows nothing of steps"),
        ("nnUNet_Primus_M_Trainer", "knows nothing of steps"),
    ],
)
def test_a_step_0_of_another_trainer_is_refused(toy, tmp_path, trainer, message):
    with pytest.raises(CILError, match=message):
        plan(DATASET, write_schedule(tmp_path, STEPS), first_trainer=trainer)


def test_a_trainer_of_ours_that_is_not_found_is_a_matter_of_the_variable(toy, tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer")
    with pytest.raises(
        CILError, match=r"is nnunet_cil's. Run 'export nnUNet_extTrainer=\"\$\(nnunet_cil trainers\)\"'"
    ):
        plan(DATASET, write_schedule(tmp_path, STEPS), first_trainer="nnUNetTrainerPGCD")


def test_a_hyperparameter_that_no_trainer_has_is_logged(toy, tmp_path, caplog):
    caplog.set_level(logging.INFO, "nnunet_cil")
    plan(DATASET, write_schedule(tmp_path, STEPS, hyperparameters={"pgcd_wieght": 2, "mib_weight": 1}))
    note, numbers = caplog.messages
    assert numbers.endswith("call it with 'nnunet_cil nnunet' in place of 'nnUNetv2_'.")
    assert "no trainer of nnunet_cil has the hyper-parameter 'pgcd_wieght' (did you mean 'pgcd_weight'?)" in note


NUMBER, START = "number from 0 to 1000000000", "must be one of 'fresh', 'balanced', 'apart', 'imprinted'"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *(("mib_weight", value, NUMBER) for value in ("ten", math.nan, math.inf, -1, [1], None, True, {"a": 1})),
        ("lwf_weight", "100", f"'100', but must be a {NUMBER}"),
        ("old_class_sampling", "no", "'no', but must be true or false"),
        ("new_class_start", "Fresh", START),
        ("new_class_start", ["fresh"], START),
        ("replay_cases", 2.5, "must be a whole number from 1 to 1000000"),
        ("distillation_interval", False, "must be a whole number from 1 to"),
        (
            "prototype_refresh",
            0.25,
            "fixes it: nnUNetTrainerPGCD renews prototypes by half, nnUNetTrainerPGCDPaper does not.",
        ),
        ("new_class_noise", 0, "fixes it: new_class_start is 'apart' with noise, 'balanced' without. Remove it."),
        ("pgcd_beta", math.nan, "fixes it: a trainer of your own may set another. Remove it."),
        ("min_voxels", True, "but every trainer fixes it: "),
    ],
)
def test_a_value_that_no_trainer_takes_is_refused_before_anything_is_written(toy, tmp_path, name, value, message):
    steps = [{"classes": list(STEPS[0])}, {"classes": list(STEPS[1]), "hyperparameters": {name: value}}]
    schedule, before = write_schedule(tmp_path, steps), snapshot(toy)
    with pytest.raises(CILError, match=rf"{schedule}, step 1: the hyper-parameter '{name}' is .*{re.escape(message)}"):
        plan(DATASET, schedule)
    assert snapshot(toy) == before


def test_values_that_a_trainer_takes_and_names_of_ones_own_are_planned(toy, tmp_path):
    """DAPD's weight is fixed in most trainers, strays in some, and prototype_refresh in all, at two values."""
    own = {"dapd_weight": 0.7, "drop_strays": 0, "prototype_refresh": 0, "pgcd_merge": True, "my_weight": "three"}
    plan(DATASET, write_schedule(tmp_path, STEPS, hyperparameters=own))


def test_the_steps_of_a_trained_model_keep_what_no_trainer_takes_any_more(toy, tmp_path):
    steps = [{"classes": list(s), "hyperparameters": {"min_voxels": 7}} for s in STEPS]
    schedule = write_schedule(tmp_path, steps)
    planned = write_step_plans(DATASET, load_schedule(schedule))
    for step in planned:
        with pytest.raises(
            CILError, match=f"step {step.plan.step}: the hyper-parameter 'min_voxels' is 7, but every trainer fixes it"
        ):
            plan(DATASET, schedule)
        model = tmp_path / "nnunet/results" / DATASET / f"nnUNetTrainerMine__{step.plans_name}__3d_fullres"
        (model / "fold_1").mkdir(parents=True)
        (model / "fold_1/checkpoint_latest.pth").write_bytes(b"")
    assert not any(step.written for step in plan(DATASET, schedule))

    steps[1]["hyperparameters"] = {"min_voxels": 7, "old_dice_weight": -2}  # what it has not begun with is told first
    with pytest.raises(CILError, match="step 1: the hyper-parameter 'old_dice_weight' is -2, but must be"):
        plan(DATASET, write_schedule(tmp_path, steps))
    steps[1]["hyperparameters"] = {"min_voxels": 7, "old_dice_weight": 2}
    kept = r'Step 1 keeps "hyperparameters": \{"min_voxels": 7\}, not \{.old_dice_weight.: 2\}'
    with pytest.raises(CILError, match=kept):
        plan(DATASET, write_schedule(tmp_path, steps))


def rewrite_segmentation(folder, case, change):
    import blosc2

    file = folder / "nnUNetPlans_2d" / f"{case}_seg.b2nd"
    seg = blosc2.open(str(file))[:]
    file.unlink()
    blosc2.asarray(change(seg), urlpath=str(file))


def test_a_label_value_that_dataset_json_does_not_list_is_refused(toy, tmp_path):
    def add_seven(seg):
        seg = seg.copy()
        seg[0, 0, 0, 0] = 7
        return seg

    rewrite_segmentation(toy, "case_3", add_seven)
    with pytest.raises(CILError, match=r"Case 'case_3' holds the label value 7, which dataset.json"):
        plan(DATASET, write_schedule(tmp_path, STEPS))


def test_a_class_that_no_case_has_is_refused(toy, tmp_path):
    for i in range(6):
        rewrite_segmentation(toy, f"case_{i}", lambda seg: seg * (seg != 4))
    with pytest.raises(CILError, match=r"step 1 of toy learns 'cyst' \(label 4\), but none of its 6 cases"):
        plan(DATASET, write_schedule(tmp_path, STEPS))


def test_plans_that_a_training_used_are_not_changed(toy, tmp_path, monkeypatch):
    plan(DATASET, write_schedule(tmp_path, STEPS))
    used = tmp_path / "nnunet/results" / DATASET / "nnUNetTrainerPGCD__nnUNetPlans_toy_step1__3d_fullres/fold_0"
    used.mkdir(parents=True)
    (used / "checkpoint_best.pth").write_bytes(b"")
    before = snapshot(toy)
    plan(DATASET, write_schedule(tmp_path, STEPS))
    with pytest.raises(
        CILError, match="'nnUNetPlans_toy_step1' would change, but nnUNetTrainerPGCD__nnUNetPlans_toy_step1__3d"
    ):
        plan(DATASET, write_schedule(tmp_path, STEPS[::-1]))
    monkeypatch.delenv("nnUNet_results")  # who trained with them cannot be seen
    with pytest.raises(CILError, match="nnUNet_results is not set"):
        plan(DATASET, write_schedule(tmp_path, STEPS[::-1]))
    assert snapshot(toy) == before


@pytest.mark.parametrize("ending", ["_seg.b2nd", ".pkl"])
@pytest.mark.parametrize("is_missing", [True, False])
def test_a_preprocessed_case_that_is_missing_or_damaged_is_named(toy, tmp_path, ending, is_missing):
    file = toy / "nnUNetPlans_2d" / f"case_3{ending}"
    content = file.read_bytes()
    file.unlink()
    if not is_missing:
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        CILError, match=r"Case 'case_3' in .* is incomplete .*nnUNetv2_preprocess -d 17 -c 2d -plans_name nnUNetPlans'"
    ):
        plan(DATASET, write_schedule(tmp_path, STEPS))


def test_only_what_is_preprocessed_can_be_trained(toy, tmp_path):
    shutil.rmtree(toy / "nnUNetPlans_3d_fullres")
    assert plan("17", write_schedule(tmp_path, STEPS))[0].configurations == ("2d",)


def test_a_data_set_that_is_not_preprocessed_is_refused(toy, tmp_path):
    with pytest.raises(CILError, match=r"no preprocessed data set '18'.*nnUNetv2_plan_and_preprocess -d 18"):
        plan("18", write_schedule(tmp_path, STEPS))
    with pytest.raises(
        CILError, match=r"no preprocessed data set 'Dataset018_New'.*nnUNetv2_plan_and_preprocess -d 18'"
    ):
        plan("Dataset018_New", write_schedule(tmp_path, STEPS))
    with pytest.raises(CILError, match=r"'Liver' names no data set of nnU-Net\. Give its ID, or .* DatasetXXX_NAME"):
        plan("Liver", write_schedule(tmp_path, STEPS))
    with pytest.raises(CILError, match=r"no plans 'nnUNetPlan' \(did you mean 'nnUNetPlans'\?\)"):
        plan("17", write_schedule(tmp_path, STEPS), base_plans="nnUNetPlan")
    with pytest.raises(CILError, match=r"nnUNetResEncUNetMPlans\.json is missing. .* -d 17 -pl nnUNetPlannerResEncM'"):
        plan("17", write_schedule(tmp_path, STEPS), base_plans="nnUNetResEncUNetMPlans")
    for name in ("nnUNetPlans_2d", "nnUNetPlans_3d_fullres"):
        shutil.rmtree(toy / name)
    with pytest.raises(CILError, match="No configuration of Dataset017_Toy is preprocessed yet"):
        plan("17", write_schedule(tmp_path, STEPS))


def test_plans_of_a_step_are_no_base(toy, tmp_path):
    plan("17", write_schedule(tmp_path, STEPS))
    with pytest.raises(CILError, match="itself the plans of a step"):
        plan("17", write_schedule(tmp_path, STEPS, name="other"), base_plans="nnUNetPlans_toy_step0")


def test_missing_environment_variable_is_named(toy, tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed")
    with pytest.raises(CILError, match="nnUNet_preprocessed is not set"):
        plan("17", write_schedule(tmp_path, STEPS))


def test_edited_block_and_changed_data_set_are_refused(toy, tmp_path):
    step = plan("17", write_schedule(tmp_path, STEPS))[1]
    dataset = json.loads((toy / "dataset.json").read_text())
    edited = json.loads(step.file.read_text())
    edited["cil"]["training"]["num_epochs"] = 1000
    with pytest.raises(CILError, match="'nnUNetPlans_toy_step1' was edited by hand"):
        read_step_plan(edited, dataset)
    newer = json.loads(step.file.read_text())
    newer["cil"]["schema_version"] = 2
    with pytest.raises(CILError, match="schema version 2"):
        read_step_plan(newer, dataset)
    with pytest.raises(CILError, match="were written for a data set with the labels"):
        read_step_plan(json.loads(step.file.read_text()), {**dataset, "labels": {"background": 0, "heart": 1}})


@pytest.mark.parametrize("name", ["my[1]Plans", "my Plans ü", "[!a]*"])
def test_used_plans_are_kept_whatever_their_name(toy, tmp_path, name):
    content = json.loads((toy / "nnUNetPlans.json").read_text())
    (toy / f"{name}.json").write_text(json.dumps({**content, "plans_name": name}))
    step = plan(DATASET, write_schedule(tmp_path, (ORGANS[:2], ORGANS[2:])), base_plans=name)[0]
    fold = toy.parents[1] / "results" / DATASET / f"nnUNetTrainerPGCD__{step.plans_name}__3d_fullres" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_final.pth").touch()
    before = step.file.read_bytes()
    with pytest.raises(CILError, match="trained"):
        plan(DATASET, write_schedule(tmp_path, (ORGANS[:1], ORGANS[1:])), base_plans=name)
    assert step.file.read_bytes() == before


def test_plans_whose_name_would_split_that_of_a_model_are_refused(toy, tmp_path):
    content = json.loads((toy / "nnUNetPlans.json").read_text())
    (toy / "my__Plans.json").write_text(json.dumps({**content, "plans_name": "my__Plans"}))
    with pytest.raises(CILError, match=r"'__' stands between .* Rename .*my__Plans\.json, and its 'plans_name'"):
        plan(DATASET, write_schedule(tmp_path, (ORGANS,)), base_plans="my__Plans")
    assert not list(toy.glob("*_step*"))
