"""benchmarks/separate_models.py: a network a step, from one initial model, merged by name."""

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import compare
import numpy as np
import pytest
import scores
import separate_models
import SimpleITK as sitk
import study
import torch
from toy import DATASET, LABELS, ORGANS, checkpoint, make_trainer, seed_epochs, toy_volume, write_schedule, write_scores

from nnunet_cil.host import commands
from nnunet_cil.networks.architectures import is_head

STEPS = (ORGANS[:2], ORGANS[:1:-1])  # liver, spleen; then cyst, kidney
PLANS = ("nnUNetPlans_toy_step0", "nnUNetPlans_toy_step1_alone")


def test_a_later_label_map_wins():
    first, second = np.array([0, 1, 2, 2, 5]), np.array([1, 1, 0, 2, 0])
    assert separate_models.merged([(first, {1: 4, 2: 3}), (second, {1: 7})]).tolist() == [7, 7, 3, 3, 0]
    assert separate_models.merged([(second, {1: 7}), (first, {1: 4, 2: 3})]).tolist() == [7, 4, 3, 3, 0]


@pytest.fixture
def setting(toy, monkeypatch):
    """One test case, and nnU-Net's commands in this process. The second network takes the liver for a cyst."""
    raw = Path(os.environ["nnUNet_raw"]) / DATASET
    for part, array in zip(("imagesTs/test_0_0000", "labelsTs/test_0"), toy_volume(90), strict=True):
        file = raw / f"{part}.nii.gz"
        file.parent.mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(array), str(file))
    trained, predicted = [], []

    def call(command, arguments, *_):
        from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

        option = dict(pairwise(arguments))
        plans = option["-p"]
        if command == "nnUNetv2_train":
            trainer = make_trainer(option["-tr"], plans)
            trainer.initialize()
            if "-pretrained_weights" in option:
                load_pretrained_weights(trainer.network, option["-pretrained_weights"])
            start = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
            trained.append((trainer, start, plans))
            seed_epochs(trainer)
            trainer.run_training()
            write_scores(Path(trainer.output_folder), {"1": {"Dice": 1.0}})  # the final validation
            return
        predicted.append(plans)
        names = {organ: organ for organ in ORGANS} | ({"liver": "cyst"} if plans == PLANS[1] else {})
        channels = json.loads(next(results.glob(f"*__{plans}__*/dataset.json")).read_text())["labels"]
        table = np.array([0, *(channels.get(names[organ], 0) for organ in ORGANS)], np.uint8)
        Path(option["-o"]).mkdir(parents=True, exist_ok=True)
        for file in (f for f in Path(option["-i"]).iterdir() if f.name.endswith("_0000.nii.gz")):
            name = file.name.replace("_0000", "")
            reference = next(f / name for f in (raw / "labelsTs", raw / "labelsTr") if (f / name).is_file())
            labels = table[sitk.GetArrayFromImage(sitk.ReadImage(str(reference)))]
            sitk.WriteImage(sitk.GetImageFromArray(labels), str(Path(option["-o"]) / name))

    results = Path(os.environ["nnUNet_results"]) / DATASET
    monkeypatch.setattr(commands, "call", call)
    return trained, predicted


@pytest.mark.slow
def test_each_step_gets_a_network_from_the_initial_model_and_the_merged_ones_are_scored(setting, tmp_path, monkeypatch):
    trained, predicted = setting
    schedule = write_schedule(tmp_path, STEPS, cases="disjoint", hyperparameters={"new_class_start": "balanced"})
    file = tmp_path / "scores.csv"
    arguments = ["separate_models.py", "17", str(schedule), "--folds", "0", "-o", str(file), "-p", "nnUNetPlans"]
    monkeypatch.setattr(sys, "argv", arguments)
    separate_models.main()
    monkeypatch.setattr(study.Study, "nnunet_cil_run", lambda *_: None)  # slow
    first_table = scores.read_rows(file)
    marked = [{**row, "dice": "0.25"} if row["step"] == "0" and row["cases"] == "test" else row for row in first_table]
    scores.write_rows(file, [row for row in marked if (row["step"], row["cases"]) != ("0", "validation")])
    separate_models.main()  # all is there, but step 0's validation cases in the table
    assert scores.read_rows(file) == marked
    scores.write_rows(file, first_table)
    assert [plans for *_, plans in trained] == list(PLANS)
    assert predicted == [*PLANS, *PLANS]  # test, validation

    (first, _, _), (second, start, _) = trained
    initial, alone = checkpoint(first)["network_weights"], checkpoint(second)
    for name, tensor in start.items():
        assert is_head(name) or torch.equal(tensor, initial[name]), name
    labels = {"background": 0, "cyst": 1, "kidney": 2}
    assert alone["init_args"]["dataset_json"]["labels"] == labels
    assert second.target_label_map == {LABELS["cyst"]: 1, LABELS["kidney"]: 2}
    cases = [set(trainer.do_split()[0]) for trainer in (first, second)]
    assert cases[0]
    assert cases[1]
    assert cases[0].isdisjoint(cases[1])
    assert second.num_epochs == first.num_epochs

    rows = scores.read_rows(file)
    models = {(row["method"], row["step"], row["trainer"], row["plans"]) for row in rows}
    trainers = [type(trainer).__name__ for trainer in (first, second)]
    assert models == {("", "0", trainers[0], PLANS[0]), ("Separate", "1", trainers[1], PLANS[1])}
    assert {(row["setting"], row["class"], row["dataset"]) for row in rows if row["step"] == "0"} == {
        ("", name, DATASET) for name in STEPS[0]
    }
    assert {row["case"] for row in rows if row["cases"] == "validation"} == {"case_4", "case_5"}
    study_table = compare.Study.read(str(schedule), [file], "test", []).complete()
    assert study_table.methods == ["Separate(new_over_old)", "Separate(old_over_new)"]
    for which in ("test", "validation"):
        found = scores.read_scores(file, which)
        assert list(found) == ["Separate(new_over_old)_step1", "Separate(old_over_new)_step1", "step0"]
        new, old, initial_model = (scores.mean_dice(folds[0]) for folds in found.values())
        assert initial_model == dict.fromkeys(STEPS[0], 1.0)
        assert old == dict.fromkeys(ORGANS, 1.0)
        assert (new["liver"], new["spleen"], new["kidney"]) == (0, 1, 1)
        assert 0 < new["cyst"] < 1
    costs = json.loads((tmp_path / "scores_costs.json").read_text())
    assert sorted(costs) == ["Separate(new_over_old)", "Separate(old_over_new)"]
    for of_rule in costs.values():
        cost = of_rule["0"]
        assert cost["num_parameters"] == 2 * sum(p.numel() for p in first.network.parameters())
        assert all(seconds > 0 for seconds in [*cost["training_seconds"], cost["prediction_seconds"]])

    record = next(Path(os.environ["nnUNet_results"]).rglob("initial_model.json"))
    record.write_text(json.dumps({"sha256": "of another"}))
    with pytest.raises(SystemExit, match=r"was trained from another .*checkpoint_final\.pth\. Restore that"):
        separate_models.main()


def test_regions_are_refused_before_anything_is_trained(toy, tmp_path, monkeypatch):
    file = toy / "dataset.json"
    regions = {"background": 0, "liver": [1, 3], "spleen": 2, "kidney": 3, "cyst": 4}
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "labels": regions, "regions_class_order": [1, 2, 3, 4]})
    )
    monkeypatch.setattr(commands, "call", lambda *_: pytest.fail("a command of nnU-Net was started"))
    arguments = ["17", str(write_schedule(tmp_path, STEPS)), "-o", str(tmp_path / "scores.csv"), "-p", "nnUNetPlans"]
    monkeypatch.setattr(sys, "argv", ["separate_models.py", *arguments])
    with pytest.raises(
        SystemExit, match=rf"{DATASET}, from which toy learns, are regions: .* data set without regions"
    ):
        separate_models.main()
