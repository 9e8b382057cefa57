"""Checks what every trainer that the door shows has in common."""

import importlib.util
import shutil

import numpy as np
import pytest
import torch
from toy import ORGANS, checkpoint, make_trainer, plan_toy, seed_epochs, train

from nnunet_cil.shipped import trainers_folder

PGCD = "nnUNetTrainerPGCD"


def shown_trainers():
    spec = importlib.util.spec_from_file_location("door", trainers_folder() / "nnunet_cil_trainers.py")
    door = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(door)
    return sorted(set(door.__all__) - {"nnUNetTrainerCIL"})


TRAINERS = shown_trainers()
BLIND = sorted(set(TRAINERS) - {"nnUNetTrainerJoint", "nnUNetTrainerReplay"})
"""The trainers that may see no old label; the other two are there to see some."""


OPTIONS = {
    "nnUNetTrainerMiB": {"new_class_start": "imprinted", "old_class_sampling": True, "old_dice_weight": 1},
    "nnUNetTrainerLwF": {"new_class_start": "imprinted", "teacher_volumes": True, "old_class_sampling": True},
}
"""Sets what some trainers are given beside their defaults, so that every pass and option is there once."""


def assert_equal(one, other):
    """Compares states of a method: tensors in dictionaries."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    else:
        assert torch.equal(one, other)


def undated(content):
    """Returns the records without what differs from training to training: the date, and the key of the cases' hashes."""
    return [
        {**record, "date": "", "case_hashes": [len(record["case_hashes"][part]) for part in ("training", "validation")]}
        for record in content["cil"]["lineage"]
    ]


@pytest.mark.parametrize("trainer_name", BLIND)
def test_hidden_labels_change_nothing(toy, tmp_path, trainer_name):
    """Erased hidden labels, same seed: batches, weights, prototypes and scores are bit-identical."""
    import blosc2

    names = plan_toy(tmp_path, [ORGANS[:1], ORGANS[2:3], ORGANS[3:]], hyperparameters=OPTIONS.get(trainer_name, {}))
    train(trainer_name, names[0])

    def run(results):
        trainer = make_trainer(trainer_name, names[1])
        torch.manual_seed(1)
        np.random.seed(1)
        trainer.output_folder = str(results)
        results.mkdir()
        trainer.run_training()
        torch.manual_seed(2)
        np.random.seed(2)
        return trainer, [next(trainer.dataloader_train) for _ in range(4)]

    full, full_batches = run(tmp_path / "full")
    for folder in ("nnUNetPlans_3d_fullres",):
        for file in sorted((toy / folder).glob("*_seg.b2nd")):
            seg = blosc2.open(str(file))[:]
            file.unlink()
            assert {1, 2, 4} <= set(np.unique(seg))
            blosc2.asarray(np.where(seg == 3, seg, np.minimum(seg, 0)), urlpath=str(file))
        for file in sorted((toy / folder).glob("*.pkl")):
            from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle

            properties = load_pickle(str(file))
            properties["class_locations"] = {k: v if k == 3 else [] for k, v in properties["class_locations"].items()}
            write_pickle(properties, str(file))
    erased, erased_batches = run(tmp_path / "erased")

    for a, b in zip(full_batches, erased_batches, strict=True):
        assert torch.equal(a["data"], b["data"])
        assert all(torch.equal(x, y) for x, y in zip(a["target"], b["target"], strict=True))
        assert {int(v) for v in a["target"][0][:, 0].unique()} <= {0, 2}
    assert any(2 in batch["target"][0][:, 0] for batch in full_batches)
    for (key, x), y in zip(full.network.state_dict().items(), erased.network.state_dict().values(), strict=True):
        assert torch.equal(x, y), key
    assert torch.equal(full.prototypes.prototypes, erased.prototypes.prototypes)
    assert full.stray_free == erased.stray_free != ()
    assert_equal(full.method_state, erased.method_state)
    for key in ("ema_fg_dice", "train_losses", "val_losses"):
        assert np.array_equal(full.logger.get_value(key, None), erased.logger.get_value(key, None), equal_nan=True)


@pytest.mark.parametrize("trainer_name", TRAINERS)
def test_an_interrupted_training_ends_where_an_undisturbed_one_ends(toy, tmp_path, trainer_name, monkeypatch):
    """Continues from another trainer's step 0, which all share. MiB asks its teacher in iterations 0 and 3, of 0 to 5.

    Defaults that have changed between the two, as an update of the plug-in does it, change nothing.
    """
    names = plan_toy(
        tmp_path,
        first_trainer=PGCD,
        hyperparameters={"distillation_interval": 3} if trainer_name == "nnUNetTrainerMiB" else {},
        training={"num_epochs": 3, "num_iterations_per_epoch": 2, "save_every": 1, "num_val_iterations_per_epoch": 1},
    )
    train(PGCD, names[0])
    undisturbed = train(trainer_name, names[1])
    expected = checkpoint(undisturbed)

    interrupted = make_trainer(trainer_name, names[1])
    seed_epochs(interrupted)
    end = interrupted.on_epoch_end

    def stop_after_two() -> None:
        end()
        if interrupted.current_epoch == 2:
            raise KeyboardInterrupt

    interrupted.on_epoch_end = stop_after_two
    shutil.rmtree(undisturbed.output_folder)
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run_training()
    if trainer_name == PGCD:
        others = {"pgcd_weight": 20.0, "pgcd_weighting": "teacher", "pgcd_merge": True, "old_class_sampling": False}
        for parameter, other in others.items():
            monkeypatch.setattr(type(interrupted), parameter, other)
    resumed = make_trainer(trainer_name, names[1], resume=True)
    resumed.load_checkpoint(f"{resumed.output_folder}/checkpoint_latest.pth")
    assert resumed.current_epoch == 2
    seed_epochs(resumed)
    resumed.run_training()
    found = checkpoint(resumed)
    for key, tensor in expected["network_weights"].items():
        assert torch.equal(tensor, found["network_weights"][key]), key
    assert torch.equal(expected["cil"]["prototypes"]["prototypes"], found["cil"]["prototypes"]["prototypes"])
    assert expected["current_epoch"] == found["current_epoch"] == 3
    assert undated(expected) == undated(found)
    assert len(found["cil"]["prototypes"]["counts"]) == 5
    logging = found["logging"]
    terms = [v for k, v in logging.items() if k.startswith("loss_")]
    assert sum(t[2] for t in terms) == pytest.approx(logging["train_losses"][2], rel=1e-4)
    assert_equal(expected["cil"]["method_state"], found["cil"]["method_state"])
    momentum = [[s["momentum_buffer"] for s in c["optimizer_state"]["state"].values()] for c in (expected, found)]
    assert all(torch.equal(a, b) for a, b in zip(*momentum, strict=True))
