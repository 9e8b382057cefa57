"""nnU-Net's -pretrained_weights, and the model that a step continues from."""

from pathlib import Path

import pytest
import torch
from toy import checkpoint, make_trainer, plan_toy, train

from nnunet_cil.errors import CILError

PGCD = "nnUNetTrainerPGCD"


def pretrained(trainer, file):
    """Loads weights as ``nnUNetv2_train -pretrained_weights`` does, before the training."""
    from nnunetv2.run.run_training import maybe_load_checkpoint

    maybe_load_checkpoint(trainer, False, False, str(file))
    return trainer


@pytest.fixture
def weights(toy, tmp_path):
    """Returns a checkpoint of the toy's network with weights drawn at random."""
    from nnunet_cil.host.networks import plain_network

    trainer = make_trainer(PGCD, plan_toy(tmp_path)[0])
    network = plain_network(trainer.plans_manager.plans, trainer.dataset_json, "3d_fullres").to_empty(device="cpu")
    torch.manual_seed(7)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    torch.save({"network_weights": network.state_dict()}, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_step_0_begins_with_pretrained_weights(toy, tmp_path, weights):
    trainer = pretrained(make_trainer(PGCD, "nnUNetPlans_toy_step0"), weights)
    trainer.on_train_start()
    drawn = torch.load(weights)["network_weights"]
    for name, tensor in trainer.bare_network.state_dict().items():
        assert torch.equal(tensor, drawn[name]) != ("seg_layers" in name), name


def test_a_later_step_refuses_pretrained_weights_before_it_begins(toy, tmp_path, weights):
    first = train(PGCD, "nnUNetPlans_toy_step0")
    for file in (weights, Path(first.output_folder) / "checkpoint_final.pth"):
        trainer = pretrained(make_trainer(PGCD, "nnUNetPlans_toy_step1"), file)
        with pytest.raises(
            CILError, match=r"-pretrained_weights is for step 0: step 1 of toy starts from .*Leave it out"
        ):
            trainer.on_train_start()
        assert not (Path(trainer.output_folder_base) / "plans.json").exists()
    trainer = make_trainer(PGCD, "nnUNetPlans_toy_step1")
    trainer.on_train_start()
    assert trainer.teacher is not None
    assert checkpoint(first)["network_weights"].keys() == trainer.bare_network.state_dict().keys()
