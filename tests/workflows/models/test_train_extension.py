"""nnunet_cil extend --train: checks, preprocesses, trains, compares, reports, exports; and goes on after a kill."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import make_dataset, make_raw, make_trainer, preprocess, toy_volume, write_scores
from toy_models import make_plain_model, own_copy, write

from nnunet_cil.cli import main
from nnunet_cil.model_changes import ModelChanges
from nnunet_cil.workflows.compare import compare as comparing
from nnunet_cil.workflows.evaluate import predict as predicting
from nnunet_cil.workflows.evaluate.pictures import write_training_curves
from nnunet_cil.workflows.models import extend as planning
from nnunet_cil.workflows.models import extension_report
from nnunet_cil.workflows.run import run as running

NEW, PLANS = "Dataset018_New", "nnUNetPlansFrom017_kidney_step1"
PGCD = "nnUNetTrainerPGCD"
KNOWN = {"background": 0, "liver": 1, "spleen": 2}


@pytest.fixture(scope="module")
def _plain(tmp_path_factory):
    """A model of plain nnU-Net with two folds that knows liver and spleen, and a raw data set with a kidney; made once."""
    root = tmp_path_factory.mktemp("extension") / "nnunet"
    make_dataset(root, KNOWN, change_labels=lambda labels: np.where(labels <= 2, labels, 0).astype(np.uint8))
    make_raw(root, NEW, {"background": 0, "kidney": 1})
    return root, make_plain_model(root)


class Machine:
    """nnU-Net's commands, without processes of their own; each call is noted, and those that are named are killed."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.kills: list[str] = []
        self.epochs_after: list[int] = []

    def note(self, call: str) -> None:
        self.calls.append(call)
        if call in self.kills:
            self.kills.remove(call)
            raise KeyboardInterrupt

    def preprocess(self, dataset, configuration, plans_name, _logs):
        pre = Path(planning.nnunet_folder("nnUNet_preprocessed")) / dataset
        if not (pre / "gt_segmentations").is_dir():
            self.note("preprocess")
            preprocess(pre, plans_name, (configuration,))
            (pre / "dataset_fingerprint.json").write_text("{}")

    def train(self, arguments, _environment, _log, _num_epochs, epochs_after):
        dataset, _, fold, *options = arguments
        self.epochs_after.append(epochs_after)
        assert options[:4] == ["-tr", PGCD, "-p", PLANS]
        goes_on = "--c" in options
        if not goes_on:
            self.note(f"train {fold}")
        else:
            self.note(f"go on with {fold}")
        trainer = make_trainer(PGCD, PLANS, fold=int(fold), dataset=dataset)
        if f"epoch of {fold}" in self.kills:
            trainer.on_train_start()
            trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
            self.note(f"epoch of {fold}")
        trainer.run_training()
        folder = Path(trainer.output_folder)
        for case in trainer.do_split()[1]:  # the final validation: spleen of case new_0 is lost, the kidney is found
            labels = toy_volume(50 + int(case.removeprefix("new_")))[1]
            labels[labels == 4] = 0
            if case == trainer.do_split()[1][0]:
                labels[labels == 2] = 0
            (folder / "validation").mkdir(exist_ok=True)
            write(labels, folder / "validation" / f"{case}.nii.gz")
        write_scores(folder, {"3": {"Dice": 0.75}})

    def predict(self, arguments, _environment, _log, _num_cases):
        output, images = (Path(arguments[arguments.index(option) + 1]) for option in ("-o", "-i"))
        self.note(f"predict {output.parents[1].name}")
        for image in sorted(images.iterdir()):
            case = image.name.split("_0000")[0]
            labels = toy_volume(50 + int(case.removeprefix("new_")))[1]
            write(np.where(labels <= 2, labels, 0), output / f"{case}.nii.gz")


@pytest.fixture
def machine(_plain, tmp_path, monkeypatch):
    machine = Machine()
    machine.model = own_copy(*_plain, tmp_path, monkeypatch)
    monkeypatch.setattr(planning, "preprocess", machine.preprocess)
    monkeypatch.setattr(running, "train", machine.train)
    monkeypatch.setattr(predicting, "predict", machine.predict)
    monkeypatch.setattr(comparing, "draw_cases", lambda *_: [])  # slow
    monkeypatch.setattr(extension_report, "write_training_curves", lambda *_: [])
    return machine


SHORT = ["--training", "num_epochs=1", "num_iterations_per_epoch=1", "num_val_iterations_per_epoch=1"]


def extend(machine, *options, export=None):
    to = [] if export is None else ["--export", str(export)]
    return main(["extend", str(machine.model), "18", *SHORT, "--train", "-device", "cpu", *to, *options])


def test_one_command_killed_three_times_ends_with_the_exported_model(machine, tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setattr(extension_report, "write_training_curves", write_training_curves)
    caplog.set_level(logging.INFO, logger="nnunet_cil")
    machine.kills = ["preprocess", "epoch of 1", "predict fold_1"]
    statuses = [extend(machine, export=tmp_path / "out") for _ in range(4)]
    assert statuses == [130, 130, 130, 0]
    assert machine.calls == [
        "preprocess",
        *("preprocess", "train 0", "train 1", "epoch of 1"),
        *("go on with 1", "predict fold_0", "predict fold_1"),
        "predict fold_1",
    ]
    assert machine.epochs_after == [1, 0, 0]
    assert "goes on where it stopped" in capsys.readouterr().err
    assert "2 trainings, 1 to do" in caplog.text

    new = tmp_path / "nnunet" / "results" / NEW / f"{PGCD}__{PLANS}__3d_fullres"
    output = tmp_path / "nnunet" / "results" / NEW / "evaluation" / new.name
    found = json.loads((output / "comparison.json").read_text())
    rows = {row["class"]: row for row in found["classes"]}
    assert found["num_cases"] == 3  # of both folds
    assert (rows["liver"]["dice"], rows["spleen"]["dice"], rows["spleen"]["num_vanished"]) == (
        1.0,
        pytest.approx(1 / 3),
        2,
    )
    assert not rows["kidney"]["is_shared"]
    assert [(r["class"], r["dice_a"], r["dice_b"]) for r in found["reference"]] == [("kidney", None, 1.0)]
    report = (output / "report.html").read_text()
    assert "kidney: Dice 0.750 (folds 0, 1, validation cases)" in report
    assert "Mean Dice of the two: 0.667" in report
    assert "Loss terms as weighted in the loss" in report
    curves = (output / "figures" / "training.svg").read_text()
    assert all(f"PGCD, fold {fold}" in curves for fold in (0, 1))

    exported = tmp_path / "out" / NEW / f"nnUNetTrainer__{PLANS}__3d_fullres"
    for card in (new / "fold_1" / "MODEL_CARD.md", exported / "fold_1" / "MODEL_CARD.md"):
        text = card.read_text()
        assert "## What changed in the classes of before" in text
        assert "| spleen | 0.000 |" in text
        assert "on the validation cases (1)" in text
        assert "new_" not in text  # names of cases may be patients'
    assert ModelChanges.read(new / "fold_0").classes[0].name == "spleen"

    calls = len(machine.calls)
    assert extend(machine, export=tmp_path / "out") == 0
    assert len(machine.calls) == calls
    assert f"Exported: {exported}" in capsys.readouterr().out


def test_a_dry_run_prints_the_commands_that_are_left_and_trains_nothing(machine, capsys):
    assert extend(machine, "--dry-run", "-f", "1", export="out.zip") == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("nnUNetv2"))
    assert machine.calls == []
    assert lines[start].startswith("nnUNetv2_extract_fingerprint -d 18")
    assert lines[-2] == f"nnUNetv2_train {NEW} 3d_fullres 1 -tr {PGCD} -p {PLANS} -device cpu"
    assert lines[-1].startswith(f"nnunet_cil extend {machine.model} 18 -tr {PGCD} -f 1 --training num_epochs=1")
    assert lines[-1].endswith("--train -device cpu --export out.zip")


def test_probabilities_that_a_finished_training_did_not_keep_are_asked_of_another_validation(machine, capsys):
    assert extend(machine, "-f", "1") == 0
    capsys.readouterr()
    assert extend(machine, "-f", "1", "--npz", "--dry-run") == 0
    *_, validation, last = capsys.readouterr().out.splitlines()
    assert validation == f"nnUNetv2_train {NEW} 3d_fullres 1 -tr {PGCD} -p {PLANS} -device cpu --npz --val"
    assert last.endswith("--train -device cpu --npz")
    (fold,) = Path(planning.nnunet_folder("nnUNet_results")).glob(f"{NEW}/{PGCD}__*/fold_1/validation")
    for file in fold.glob("*.nii.gz"):
        file.with_name(file.name.replace(".nii.gz", ".npz")).touch()
    assert extend(machine, "-f", "1", "--npz", "--dry-run") == 0
    assert "nnUNetv2_train" not in capsys.readouterr().out


def test_what_lies_where_the_model_is_exported_to_is_found_before_the_training(machine, tmp_path, capsys):
    (tmp_path / "out.zip").write_bytes(b"x")
    assert extend(machine, export=tmp_path / "out.zip") == 1
    assert "out.zip is there already. Remove it, or choose another place" in capsys.readouterr().err
    assert machine.calls == []


@pytest.mark.parametrize(
    ("place", "message"), [("text.txt/deeper", "text.txt/deeper is no folder"), ("/proc/x", "(/proc/x")]
)
def test_a_place_that_takes_no_export_is_found_before_the_training(machine, tmp_path, capsys, place, message):
    (tmp_path / "text.txt").write_text("mine")
    assert extend(machine, export=tmp_path / place) == 1
    assert message in capsys.readouterr().err
    assert machine.calls == []


def test_a_place_for_the_export_is_tried_and_left_as_it_was(machine, tmp_path):
    assert extend(machine, "--dry-run", export=tmp_path / "a" / "b") == 0
    assert not (tmp_path / "a").exists()


def test_jobs_of_slurm_are_the_folds_and_behind_them_what_comes_after(machine, tmp_path):
    from nnunet_cil.errors import CILError
    from nnunet_cil.workflows.models.extension import ExtendOptions
    from nnunet_cil.workflows.models.train_extension import TrainedExtension, extension_jobs
    from nnunet_cil.workflows.run.options import TrainingOptions

    asked = TrainedExtension(
        model_folder=machine.model, dataset="18", options=ExtendOptions(), training=TrainingOptions(device="cpu")
    )
    with pytest.raises(
        CILError, match=r"Dataset018_New is not preprocessed yet\. Run 'nnunet_cil extend .* 18 -tr .*PGCD'"
    ):
        extension_jobs(asked, finishes=True)
    machine.preprocess(NEW, "3d_fullres", PLANS, None)
    jobs = extension_jobs(asked, finishes=True)
    assert [job.after for job in jobs] == [(), (), (jobs[0].name, jobs[1].name)]
    assert jobs[2].command.endswith("--train -device cpu")
    assert len(extension_jobs(asked, finishes=False)) == 2


@pytest.mark.parametrize(
    "option",
    [["--export", "out"], ["-device", "cpu"], ["--npz"], ["--dry-run"], ["-num_gpus", "2"], ["--launcher", "local"]],
)
def test_options_of_the_training_are_refused_without_it(machine, capsys, option):
    assert main(["extend", str(machine.model), "18", *option]) == 1
    assert f"{option[0]} is for extend --train. Add --train, or leave it out." in capsys.readouterr().err


def test_a_trusted_package_is_trusted_until_the_comparison_and_the_export(machine, tmp_path, monkeypatch):
    code = (
        "from dynamic_network_architectures.architectures.unet import PlainConvUNet\nclass Net(PlainConvUNet): pass\n"
    )
    (tmp_path / "hospital_networks.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    plans = json.loads((machine.model / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "hospital_networks.Net"
    (machine.model / "plans.json").write_text(json.dumps(plans))
    trusting = ["-f", "0", "--trust-package", "hospital_networks"]
    assert extend(machine, *trusting, export=tmp_path / "out") == 0
    page = next((tmp_path / "nnunet" / "results" / NEW / "evaluation").rglob("comparison.html"))
    assert "--trust-package hospital_networks" in page.read_text()


def test_a_case_that_two_folds_validate_counts_in_each_fold_once(machine, tmp_path, monkeypatch):
    def preprocessed(dataset, *others):
        machine.preprocess(dataset, *others)
        split = [
            {"train": ["new_2", "new_3"], "val": ["new_0", "new_1"]},
            {"train": ["new_1", "new_3"], "val": ["new_0"]},
        ]
        (tmp_path / "nnunet" / "preprocessed" / dataset / "splits_final.json").write_text(json.dumps(split))

    monkeypatch.setattr(planning, "preprocess", preprocessed)
    assert extend(machine) == 0
    new = tmp_path / "nnunet" / "results" / NEW / f"{PGCD}__{PLANS}__3d_fullres"
    changes = [ModelChanges.read(new / f"fold_{fold}") for fold in (0, 1)]
    assert [change.num_cases for change in changes] == [2, 1]
    content = json.loads((new.parent / "evaluation" / new.name / "comparison.json").read_text())
    assert sorted(case["case"] for case in content["cases"]) == ["new_0", "new_0 in fold 1", "new_1"]


def changed(file):
    torch.save({**torch.load(file, weights_only=False), "current_epoch": 77}, file)


def test_another_checkpoint_has_no_comparison_and_another_old_model_is_refused(machine, tmp_path, capsys):
    assert extend(machine, "-f", "0") == 0
    fold = tmp_path / "nnunet" / "results" / NEW / f"{PGCD}__{PLANS}__3d_fullres" / "fold_0"
    assert ModelChanges.read(fold) is not None
    changed(fold / "checkpoint_final.pth")
    assert ModelChanges.read(fold) is None
    changed(machine.model / "fold_0" / "checkpoint_final.pth")
    assert extend(machine, "-f", "0") == 1
    assert "has changed since" in capsys.readouterr().err


def test_advice_names_the_labels_that_each_way_needs_and_writes_nothing(machine, tmp_path, capsys):
    def files():
        return sorted(tmp_path.rglob("*"))

    before = files()
    assert main(["extend", str(machine.model), "18", "--advise", "--training", "num_epochs=250"]) == 0
    out = capsys.readouterr().out
    assert "kidney in 6 images" in out
    assert "liver, spleen and kidney, in the old images and in these 6" in out
    assert "| 0.35 " in out  # 250 epochs of 1.4
    assert "does not label liver, spleen. Extend, unless" in out
    assert files() == before
    assert machine.calls == []
    assert main(["extend", str(machine.model), "18", "--advise", "--training", "num_epochs=ten"]) == 1
    assert "'num_epochs'" in capsys.readouterr().err
    assert main(["extend", str(machine.model), "18", "--advise", "--train"]) == 1
    assert "--advise trains nothing" in capsys.readouterr().err


def test_a_fold_that_is_named_twice_is_refused_before_anything_begins(machine, capsys):
    assert extend(machine, "-f", "0", "0") == 1
    assert "The fold 0 is named twice" in capsys.readouterr().err
    assert not machine.calls
