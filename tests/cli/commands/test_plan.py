"""``nnunet_cil plan``: what it prints."""

from toy import DATASET, ORGANS, write_schedule

from nnunet_cil.cli import main


def test_plan_prints_the_training_commands(toy, tmp_path, capsys):
    schedule = write_schedule(tmp_path, [ORGANS[:2], ORGANS[2:]])
    assert main(["plan", "17", str(schedule), "--step0-trainer", "nnUNetTrainerFineTune"]) == 0
    out = capsys.readouterr().out
    assert "step 0: liver, spleen  (written: " in out
    assert "nnUNetv2_train 17 3d_fullres 0 -tr nnUNetTrainerFineTune -p nnUNetPlans_toy_step0" in out
    assert "nnUNetv2_train 17 3d_fullres 0 -tr nnUNetTrainerFineTune -p nnUNetPlans_toy_step1" in out
    assert main(["plan", DATASET, str(schedule)]) == 0
    again = capsys.readouterr().out
    assert "(unchanged: " in again
    assert "(written: " not in again
    assert f"nnUNetv2_train {DATASET} 3d_fullres 0 -tr nnUNetTrainerFineTune -p nnUNetPlans_toy_step0" in again
