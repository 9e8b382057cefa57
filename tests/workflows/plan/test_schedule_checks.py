"""A schedule that was edited after it was planned."""

from dataclasses import replace

import pytest
from toy import DATASET, ORGANS, SHORT, write_schedule
from toy_models import ORDER, PGCD, run

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.schedule import load_schedule
from nnunet_cil.step_plans import plan_steps
from nnunet_cil.workflows.plan.plan import plan
from nnunet_cil.workflows.plan.schedule_checks import other_settings, refuse_other_schedule

A, B, C = "left lung", "heart", "aorta"
DATA = ("Dataset101_Chest", "Dataset101_Chest")


@pytest.fixture
def planned(tmp_path):
    """Steps of two and one class, planned."""
    schedule = load_schedule(write_schedule(tmp_path, [[A, B], [C]], name="chest"))
    labels = {"background": 0, A: 1, B: 2, C: 3}
    return plan_steps(schedule, DATA, [{"labels": labels}] * 2, ["plans_0", "plans_1"], [None, None])


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([[A], [B, C]], "step 0 learns left lung, in the plans left lung, heart"),
        ([[B, A], [C]], "step 0 learns heart, left lung, in the plans left lung, heart"),
        ([[A, B], ["Aorta"]], "step 1 learns Aorta, in the plans aorta"),
        ([[A, B], [C, "trachea"]], "step 1 learns aorta, trachea, in the plans aorta"),
        ([[A, B]], "it has 1 steps, the plans 2"),
        ([[A, B], [C], ["trachea"]], "it has 3 steps, the plans 2"),
    ],
)
def test_other_classes_are_refused_with_the_first_difference(tmp_path, planned, steps, told):
    edited = load_schedule(write_schedule(tmp_path, steps, name="chest"))
    for step in range(min(2, len(steps))):
        with pytest.raises(CILError, match=f"schedule chest is not the one that was planned: {told}. Mend it."):
            refuse_other_schedule(edited, DATA * 2, planned[step], step, "Mend it.")


def test_cases_data_sets_and_plans_of_another_step_are_refused(tmp_path, planned):
    same = load_schedule(write_schedule(tmp_path, [[A, B], [C]], name="chest"))
    refuse_other_schedule(same, DATA, planned[1], 1, "")
    with pytest.raises(CILError, match="its 'cases' are disjoint, in the plans shared"):
        refuse_other_schedule(replace(same, cases="disjoint"), DATA, planned[0], 0, "")
    with pytest.raises(CILError, match="step 0 learns from Dataset102_CT, in the plans from Dataset101_Chest"):
        refuse_other_schedule(same, ("Dataset102_CT", DATA[1]), planned[1], 1, "")
    with pytest.raises(CILError, match="the plans of step 0 are those of step 1 of chest"):
        refuse_other_schedule(same, DATA, planned[1], 0, "")
    with pytest.raises(CILError, match="the plans of step 1 are those of step 1 of chest"):
        refuse_other_schedule(replace(same, name="thorax"), DATA, planned[1], 1, "")


def test_other_settings_are_told_and_change_nothing(tmp_path, planned):
    training = {k: v for k, v in SHORT.items() if k != "mirror_axes"} | {"num_epochs": 30}
    steps = [[A, B], {"classes": [C], "hyperparameters": {"pgcd_weight": 2}}]
    edited = load_schedule(write_schedule(tmp_path, steps, name="chest", training=training))
    changed = "num_epochs 30 (in the plans 2), mirror_axes not set (in the plans [])"
    assert other_settings(edited, planned) == [
        f"step 0: {changed}",
        f"step 1: {changed}, pgcd_weight 2 (in the plans not set)",
    ]


EDITED = {
    "a class moved": (ORGANS[2:3] + ORGANS[1:2], ORGANS[:1]),
    "reordered": ORDER[::-1],
    "one step less": ORDER[:1],
    "one step more": (*ORDER, ORGANS[3:]),
    "renamed": (("kidney",), ("Liver",)),
}


@pytest.mark.parametrize("edit", EDITED)
def test_an_edited_schedule_gives_no_other_numbers_from_the_same_models(trained, tmp_path, capsys, edit):
    root, _, calls = trained
    file = write_schedule(tmp_path, EDITED[edit])
    before = sorted(root.rglob("*"))
    for command in (["status"], ["evaluate"], ["run", "--dry-run"]):
        assert main([*command[:1], "17", "3d_fullres", "0", str(file), "-tr", PGCD, *command[1:]]) == 1
        told = capsys.readouterr().err
        assert "not the one that was planned" in told or "is not a label of" in told or "would change, but" in told, (
            told
        )
    assert sorted(root.rglob("*")) == before
    assert not calls


def test_another_name_is_a_remedy_and_so_is_the_old_content(trained, tmp_path, capsys):
    _, schedule, _ = trained
    content = schedule.read_text()
    write_schedule(tmp_path, ORDER[::-1])
    command = ["17", "3d_fullres", "0", str(schedule), "-tr", PGCD]
    with pytest.raises(
        CILError, match=rf"another 'name' and run 'nnunet_cil plan {DATASET} \S+toy.json -p nnUNetPlans'\."
    ):
        run(schedule)
    schedule.write_text(schedule.read_text().replace('"toy"', '"toy2"'))
    assert main(["plan", DATASET, str(schedule), "-p", "nnUNetPlans"]) == 0
    assert main(["status", *command]) == 0
    assert capsys.readouterr().out.count("missing") == 2
    schedule.write_text(content)
    assert main(["status", *command]) == 0
    assert "missing" not in capsys.readouterr().out


def test_settings_that_changed_are_remarked_where_models_are_scored(trained, tmp_path, capsys):
    _, schedule, _ = trained
    write_schedule(tmp_path, ORDER, training={**SHORT, "initial_lr": 0.5})
    assert main(["status", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD]) == 0
    assert (
        "settings of toy have changed since it was planned; step 1: initial_lr 0.5 (in the plans not set)"
        in capsys.readouterr().out
    )
    run(schedule)


def test_plans_that_were_lost_are_not_written_otherwise_below_a_trained_model(trained, tmp_path):
    root, schedule, _ = trained
    files = sorted((root / "preprocessed" / DATASET).glob("nnUNetPlans_toy_step*.json"))
    for file, model in zip(files, sorted((root / "results" / DATASET).glob(f"{PGCD}__*")), strict=True):
        file.rename(model / "plans.json")
    write_schedule(tmp_path, ORDER[::-1])
    with pytest.raises(
        CILError, match=r"nnUNetPlans_toy_step0' would change, but .*Restore the schedule or give it another"
    ):
        plan(17, schedule)
    write_schedule(tmp_path, ORDER)
    assert [step.written for step in plan(17, schedule)] == [True, True]
