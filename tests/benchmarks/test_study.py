"""benchmarks/study.py: each model once, all from one step 0, scored by name."""

import json
import os
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scores
import SimpleITK as sitk
import study
import study_tables
from toy import DATASET, LABELS, ORGANS, make_trainer, seed_epochs, toy_volume, write_schedule

from nnunet_cil.host import commands

pytestmark = pytest.mark.slow

STEPS = (ORGANS[:2], ORGANS[:1:-1])  # the second step numbers its organs the other way round
PGCD, FINETUNE = "nnUNetTrainerPGCD", "nnUNetTrainerFineTune"


@pytest.fixture
def setting(toy, tmp_path, monkeypatch):
    """Two test cases, and nnU-Net's commands in this process; a prediction is the reference without the liver."""
    raw = Path(os.environ["nnUNet_raw"]) / DATASET
    for part in ("imagesTs", "labelsTs"):
        (raw / part).mkdir()
    for i in range(2):
        image, labels = (sitk.GetImageFromArray(array) for array in toy_volume(90 + i))
        sitk.WriteImage(image, str(raw / "imagesTs" / f"test_{i}_0000.nii.gz"))
        sitk.WriteImage(labels, str(raw / "labelsTs" / f"test_{i}.nii.gz"))
    trained = []

    def call(command, arguments, *_):
        option = dict(pairwise(arguments))
        trainer, plans = option["-tr"], option["-p"]
        if command == "nnUNetv2_train":
            how = {"--c", "--val"}.intersection(arguments)
            trained.append((trainer, plans, *how))
            here = make_trainer(trainer, plans)
            seed_epochs(here)
            if how:
                here.load_checkpoint(f"{here.output_folder}/checkpoint_final.pth")
            if how != {"--val"}:
                here.run_training()
            here.perform_actual_validation()
            return
        assert command == "nnUNetv2_predict"
        model = Path(os.environ["nnUNet_results"]) / DATASET / f"{trainer}__{plans}__3d_fullres"
        channels = json.loads((model / "dataset.json").read_text())["labels"]
        table = np.zeros(len(LABELS), dtype=np.uint8)
        for name in set(channels) - {"background", "liver"}:
            table[LABELS[name]] = channels[name]
        for file in (raw / "labelsTs").iterdir():
            labels = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
            sitk.WriteImage(sitk.GetImageFromArray(table[labels]), str(Path(option["-o"]) / file.name))

    monkeypatch.setattr(commands, "call", call)
    file = tmp_path / "scores.csv"

    def run(schedule, *more):
        arguments = ["study.py", "17", str(schedule), "--folds", "0", "-o", str(file), "-p", "nnUNetPlans", *more]
        monkeypatch.setattr(sys, "argv", arguments)
        study.main()
        monkeypatch.setattr(sys, "argv", ["study_tables.py", str(schedule), "--results", str(file)])
        study_tables.main()
        return trained

    return run, file


def test_methods_share_a_step_0_that_can_be_carried_elsewhere(setting, tmp_path, capsys):
    run, file = setting
    schedule = write_schedule(tmp_path, STEPS)
    first, second = "nnUNetPlans_toy_step0", "nnUNetPlans_toy_step1"
    assert run(schedule, "--methods", "FineTune") == [(PGCD, first), (FINETUNE, second)]
    assert "| FineTune_step1 | 0.000 | 1.000 | 1.000 | 1.000 | 0.500 | 1.000 | 0.750 | 1 |" in capsys.readouterr().out
    assert len(run(schedule, "--methods", "FineTune", "--cases", "test")) == 2

    models = Path(os.environ["nnUNet_results"]) / DATASET
    own = models / f"{PGCD}__{first}__3d_fullres"
    for model in list(models.iterdir()):  # another machine
        model.rename(tmp_path / model.name)
    kept = tmp_path / own.name
    shutil.copytree(kept, own)
    assert run(schedule, "--methods", "PGCD", "--cases", "test")[2:] == [(PGCD, second)]
    costs = json.loads(scores.costs_file(file).read_text())
    assert sorted(costs) == ["FineTune", "PGCD"]
    assert all(
        cost["0"]["prediction_seconds"] > 0 and len(cost["0"]["training_seconds"]) == 2 for cost in costs.values()
    )
    assert {
        float(r["hd95_mm"])
        for r in scores.read_rows(file)
        if (r["cases"], r["class"], r["step"]) == ("test", "kidney", "1")
    } == {0.0}
    found = scores.read_scores(file, "test")
    assert sorted(found) == ["FineTune_step1", "PGCD_step1", "step0"]
    assert list(found["PGCD_step1"][0]["spleen"]) == ["test_0", "test_1"]

    shutil.rmtree(own / "fold_0" / "validation")  # the checkpoint alone
    assert run(schedule, "--methods", "PGCD", "--cases", "test")[3:] == [(PGCD, first, "--val")]
    checkpoint = Path("fold_0") / "checkpoint_final.pth"
    assert (kept / checkpoint).read_bytes() == (own / checkpoint).read_bytes()


def test_a_setting_that_starts_late_continues_from_its_parents_models(setting, tmp_path, monkeypatch):
    run, file = setting
    trainers = tmp_path / "trainers"
    trainers.mkdir()
    (trainers / "late.py").write_text(
        "from nnunet_cil.training.methods.mib import nnUNetTrainerMiB\n\n\n"
        "class nnUNetTrainerMiB_late(nnUNetTrainerMiB):\n    mib_weight = 30.0\n    from_step = 2\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", f"{os.environ['nnUNet_extTrainer']}{os.pathsep}{trainers}")
    schedule = write_schedule(tmp_path, (ORGANS[:2], ORGANS[2:3], ORGANS[3:]))
    trained = run(schedule, "--methods", "MiB_late", "--cases", "validation")
    mib = "nnUNetTrainerMiB"
    assert trained == [(t, f"nnUNetPlans_toy_step{i}") for i, t in enumerate((PGCD, mib, f"{mib}_late"))]
    assert sorted(scores.read_scores(file, "validation")) == ["MiB(mib_weight=30,from_step=2)_step2", "step0"]
    assert not scores.read_scores(file, "test")


def test_a_table_of_another_data_set_is_left_as_it_is(tmp_path):
    file = tmp_path / "scores.csv"
    row = dict.fromkeys(scores.COLUMNS, "") | {"method": "MiB", "step": "1", "fold": "0", "cases": "test", "case": "a"}
    here = study.Study(experiment=None, device="cpu", results=file)
    here.add([row, {**row, "fold": "1", "case": "b"}])
    here.add([{**row, "dice": "0.5"}])
    assert [(r["fold"], r["dice"]) for r in scores.read_rows(file)] == [("0", "0.5"), ("1", "")]
    before = file.read_bytes()
    with pytest.raises(SystemExit, match="MiB_step1 of another plan or data set"):
        here.add([{**row, "dataset": "Dataset018_Other"}])
    assert file.read_bytes() == before


def test_scores_of_another_initial_model_are_refused(tmp_path):
    """First before anything is trained: its model is not there. Then by what it scores."""
    file = tmp_path / "scores.csv"
    row = dict.fromkeys(scores.COLUMNS, "") | {
        "step": "0",
        "fold": "2",
        "cases": "validation",
        "case": "a",
        "dice": "0.8",
    }
    experiment = SimpleNamespace(folds=(1, 2), read=None)
    here = study.Study(experiment=experiment, device="cpu", results=file)
    here.check_initial_models()
    here.add([row, {**row, "case": "b", "dice": ""}])
    here.add([{**row, "dice": "0.80000000001"}, {**row, "case": "c"}, {**row, "fold": "1", "dice": "0.2"}])
    before = file.read_bytes()
    for other in ({"dice": "0.79"}, {"dice": ""}, {"case": "c", "dice": "0.1"}):
        with pytest.raises(SystemExit, match=f"scores of another initial model: fold 2, case {other.get('case', 'a')}"):
            here.add([{**row, **other}, {**row, "step": "1", "method": "MiB"}])
    assert file.read_bytes() == before


def test_a_fold_whose_initial_model_is_gone_is_refused_before_training(setting, tmp_path):
    run, file = setting
    schedule = write_schedule(tmp_path, STEPS)
    assert run(schedule, "--methods", "FineTune", "--cases", "validation")
    models = Path(os.environ["nnUNet_results"]) / DATASET
    (models / f"{PGCD}__nnUNetPlans_toy_step0__3d_fullres" / "fold_0" / "checkpoint_final.pth").unlink()
    before = file.read_bytes()
    with pytest.raises(SystemExit, match=r"scores of fold 0, whose initial model is not in nnUNet_results"):
        run(schedule, "--methods", "PGCD", "--cases", "validation")
    assert file.read_bytes() == before


def test_differences_compare_a_fold_with_itself_alone(tmp_path, monkeypatch, capsys):
    schedule = write_schedule(tmp_path, STEPS)

    file, rows = tmp_path / "scores.csv", []

    def score(method, fold, old, new):
        model = {"method": method, "setting": "", "step": "1", "fold": str(fold)}
        rows.extend(
            {**model, "cases": cases, "class": name, "case": str(i), "dice": str(value)}
            for cases in ("validation", "test")
            for names, value in zip(STEPS, (old, new), strict=True)
            for name in names
            for i in range(6)
        )

    def show(reference):
        scores.write_rows(file, rows)
        arguments = ["study_tables.py", str(schedule), "--results", str(file), "--against", reference]
        monkeypatch.setattr(sys, "argv", arguments)
        study_tables.main()
        return capsys.readouterr().out

    score("PGCD", 1, 1.0, 1.0)  # a fold that MiB lacks
    score("PGCD", 2, 0.75, 0.25)
    score("PGCD", 3, 0.5, 0.5)
    score("MiB", 0, 0.5, 0.75)  # one that PGCD lacks
    score("MiB", 2, 0.25, 0.5)
    score("MiB", 3, 0.5, 0.25)
    score("LwF", 0, 0.5, 0.75)  # nothing to compare
    *_, differences = show("PGCD").split("less that of PGCD")
    # two folds: a t interval, 12.706 times the standard error of 0.25; where both folds have the same difference it has no width
    assert differences.strip().splitlines()[2:] == [
        "| MiB_step1 | -0.500, +0.000 [-3.427 to +2.927] | +0.250, -0.250 [-3.177 to +3.177] | "
        "-0.125, -0.125 [-0.125 to -0.125] | 2, 3 |"
    ]
    validation = {2: {"liver": {"case_0": 0.5, "case_1": 0.25}}, 3: {"liver": {"case_2": 1.0, "case_3": 0.0}}}
    assert len({row["case"] for row in study_tables.case_rows(validation)}) == 4
    with pytest.raises(SystemExit, match="has no PCGD, but LwF, MiB, PGCD"):
        show("PCGD")
