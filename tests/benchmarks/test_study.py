"""benchmarks/study.py: each model once, all from one step 0, scored by name."""

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scores
import SimpleITK as sitk
import study
import study_tables
from toy import DATASET, LABELS, ORGANS, make_trainer, seed_epochs, toy_volume, write_schedule

from nnunet_cil.cli import main as cli

pytestmark = pytest.mark.slow

STEPS = (ORGANS[:2], ORGANS[:1:-1])  # the second step numbers its organs the other way round
PGCD, FINETUNE = "nnUNetTrainerPGCD", "nnUNetTrainerFineTune"


@pytest.fixture
def setting(toy, tmp_path, monkeypatch):
    """Two test cases, and the commands in this process; a prediction is the truth without the liver."""
    raw = Path(os.environ["nnUNet_raw"]) / DATASET
    for part in ("imagesTs", "labelsTs"):
        (raw / part).mkdir()
    for i in range(2):
        sitk.WriteImage(sitk.GetImageFromArray(toy_volume(90 + i)[1]), str(raw / "labelsTs" / f"test_{i}.nii.gz"))
    trained = []

    def call(command, *arguments):
        if command == "nnunet_cil":
            assert cli(list(arguments)) in (None, 0)
            return
        option = dict(pairwise(arguments))
        trainer, plans = option["-tr"], option["-p"]
        if command == "nnUNetv2_train":
            trained.append((trainer, plans, "--c" in arguments))
            here = make_trainer(trainer, plans, resume="--c" in arguments)
            seed_epochs(here)
            if "--c" in arguments:
                here.load_checkpoint(f"{here.output_folder}/checkpoint_final.pth")
            here.run_training()
            here.perform_actual_validation()
            return
        output = Path(option["-o"])
        channels = json.loads((output.parents[1] / "dataset.json").read_text())["labels"]
        table = np.zeros(len(LABELS), dtype=np.uint8)
        for name in set(channels) - {"background", "liver"}:
            table[LABELS[name]] = channels[name]
        output.mkdir(exist_ok=True)
        for file in (raw / "labelsTs").iterdir():
            labels = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
            sitk.WriteImage(sitk.GetImageFromArray(table[labels]), str(output / file.name))

    monkeypatch.setattr(study, "call", call)
    schedule = write_schedule(tmp_path, STEPS)

    def run(*more):
        kept = ["--results", str(tmp_path / "scores.csv"), "--step0", str(tmp_path / "step0"), "-p", "nnUNetPlans"]
        arguments = ["study.py", "17", str(schedule), "--folds", "0", "-device", "cpu", *kept, *more]
        monkeypatch.setattr(sys, "argv", arguments)
        study.main()
        monkeypatch.setattr(sys, "argv", ["study_tables.py", str(schedule), *kept[:2]])
        study_tables.main()
        return [tuple(t) for t in trained]

    return run, trained, tmp_path


def test_methods_share_a_step_0_that_can_be_carried_elsewhere(setting, capsys):
    run, trained, folder = setting
    first, second = "nnUNetPlans_toy_step0", "nnUNetPlans_toy_step1"
    assert run("--methods", "FineTune") == [(PGCD, first, False), (FINETUNE, second, False)]
    assert "| FineTune_step1 | 0.000 | 1.000 | 1.000 | 1.000 | 0.500 | 1.000 | 0.750 | 1 |" in capsys.readouterr().out
    assert run("--methods", "FineTune") == trained[:2]

    kept = folder / "step0" / "fold_0.pth"
    models = Path(os.environ["nnUNet_results"]) / DATASET
    own = models / f"{PGCD}__{first}__3d_fullres"
    assert kept.read_bytes() == (own / "fold_0" / "checkpoint_final.pth").read_bytes()
    for model in list(models.iterdir()):  # another machine, with the scores or without
        model.rename(folder / model.name)
    assert run("--methods", "PGCD")[2:] == [(PGCD, second, False)]
    file = folder / "scores.csv"
    scores.write_rows(file, [row for row in scores.read_rows(file) if row["step"] != "0"])
    assert run("--methods", "PGCD")[3:] == [(PGCD, first, True)]
    assert kept.read_bytes() == (own / "fold_0" / "checkpoint_final.pth").read_bytes()


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
    p = 2 / 2**6  # all six test cases on one side; where the folds' mean differs in no case, 1
    assert differences.strip().splitlines()[2:] == [
        f"| MiB_step1 | -0.500, +0.000 ({p:.3f}) | +0.250, -0.250 (1.000) | -0.125, -0.125 ({p:.3f}) | 2, 3 |"
    ]
    validation = {2: {"liver": {"case_0": 0.5, "case_1": 0.25}}, 3: {"liver": {"case_2": 1.0, "case_3": 0.0}}}
    assert len({row["case"] for row in study_tables.case_rows(validation)}) == 4
    with pytest.raises(SystemExit, match="has no PCGD, but LwF, MiB, PGCD"):
        show("PCGD")
