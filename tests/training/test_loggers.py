"""Tests what nnU-Net's loggers get beside nnU-Net's own values: Weights & Biases itself, and a stand-in that records it."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from nnunetv2.training.logging import nnunet_logger
from toy import ORGANS, checkpoint, make_trainer, plan_toy, seed_epochs, train

PGCD = "nnUNetTrainerPGCD"


class Run:
    """Records what a W&B run is told; the folder that it leaves is the one by which nnU-Net finds it again."""

    def __init__(self, folder, number, *, resume):
        self.step, self.rows, self.summary, self.settings = (1 if resume == "allow" else 0), [], {}, {}
        self.config = SimpleNamespace(update=lambda values: self.settings.update(json.loads(json.dumps(values))))
        (folder / "wandb" / "latest-run").mkdir(parents=True, exist_ok=True)
        (folder / "wandb" / "latest-run" / f"run-{number}.wandb").touch()

    def log(self, values, step):
        self.rows += [(name, step, value) for name, value in values.items()]

    def epochs(self, name):
        return [step for own, step, _ in self.rows if own == name]


@pytest.fixture
def runs(monkeypatch):
    """Stands in for the package wandb in offline mode; returns the runs that were begun."""
    begun = []

    def init(*, project, dir, id, mode, resume):
        assert (mode, project) == ("offline", "steps")
        assert id == (None if resume == "never" else f"{len(begun) - 1}")
        begun.append(Run(Path(dir), len(begun), resume=resume))
        return begun[-1]

    monkeypatch.setattr(nnunet_logger, "wandb", SimpleNamespace(init=init))
    for name, value in {"enabled": "1", "mode": "offline", "project": "steps"}.items():
        monkeypatch.setenv(f"nnUNet_wandb_{name}", value)
    return begun


def stop_in_epoch(trainer, epoch):
    original = trainer.on_epoch_start

    def on_epoch_start():
        original()
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt

    trainer.on_epoch_start = on_epoch_start


@pytest.fixture
def drawn(monkeypatch):
    """Leaves plots out; returns how many epochs nnU-Net would draw in each progress.png: as many as its shortest list has."""
    epochs = []

    def plot(logger, _folder):
        epochs.append(min(map(len, logger.my_fantastic_logging.values())))

    monkeypatch.setattr(nnunet_logger.LocalLogger, "plot_progress_png", plot)
    return epochs


def test_every_logger_gets_the_terms_and_both_dice_of_every_epoch_also_after_a_resume(toy, tmp_path, runs, drawn):
    training = {"num_epochs": 2, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1, "save_every": 1}
    names = plan_toy(tmp_path, cases="disjoint", training=training, hyperparameters={"teacher_volumes": False})
    train(PGCD, names[0])
    begun = make_trainer(PGCD, names[1])
    stop_in_epoch(begun, 1)
    with pytest.raises(KeyboardInterrupt):
        begun.run_training()
    resumed = make_trainer(PGCD, names[1], resume=True)
    resumed.load_checkpoint(f"{resumed.output_folder}/checkpoint_latest.pth")
    seed_epochs(resumed)
    resumed.run_training()
    first, interrupted, last = runs
    logged = checkpoint(resumed)["logging"]
    assert not first.epochs("old_class_agreement")
    own = {name for name in logged if name.startswith("loss_")} | {"old_class_agreement", "new_class_dice"}
    assert {"loss_segmentation", "loss_pgcd"} < own
    for name in own:
        assert interrupted.epochs(name) == [0]
        assert last.epochs(name) == [1]
        assert len(logged[name]) == 2
        (value,) = (value for own, _, value in last.rows if own == name)
        assert value == pytest.approx(logged[name][1], nan_ok=True)
    assert drawn == [1, 2, 1, 2]
    old = [d for d in logged["dice_per_class_or_region"][1][:2] if not math.isnan(d)]
    assert logged["old_class_agreement"][1] == pytest.approx(sum(old) / len(old))


def test_a_run_of_weights_and_biases_without_network_holds_the_terms(toy, tmp_path, drawn, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs wandb")
    for name, value in {"enabled": "1", "mode": "offline", "project": "steps"}.items():
        monkeypatch.setenv(f"nnUNet_wandb_{name}", value)
    monkeypatch.setenv("WANDB_SILENT", "true")
    names = plan_toy(tmp_path, hyperparameters={"teacher_volumes": False})
    train(PGCD, names[0])
    wandb.finish()  # in a process of its own, a training ends its run by its own end
    folder = Path(train(PGCD, names[1]).output_folder)
    wandb.finish()
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    stored = file.read_bytes()
    for name in ("train_losses", "loss_segmentation", "loss_pgcd", "old_class_agreement", "new_class_dice"):
        assert name.encode() in stored
    assert b"case_" not in stored


def test_no_logger_is_told_the_name_of_a_case(toy, tmp_path, runs):
    names = plan_toy(tmp_path, cases="disjoint")
    trainer = make_trainer(PGCD, names[1])
    assert trainer.step_plan.cases is not None
    assert trainer.plans_manager.plans["cil"]["cases"] == list(trainer.step_plan.cases)
    (run,) = runs
    assert "case_" not in json.dumps(run.settings)
    assert run.settings["plans"]["plans_name"] == names[1]
    assert run.settings["step"]["steps"] == [list(ORGANS[:2]), list(ORGANS[2:])]
