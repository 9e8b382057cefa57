"""The previous step's checkpoint: every way in which it can be wrong, and the sentence that says so."""

from pathlib import Path

import pytest
import torch
from toy import DATASET, ORGANS, base_plans, make_trainer, train, write_schedule

from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.training.checkpoints import read_checkpoint
from nnunet_cil.workflows.plan.plan import plan

PGCD = "nnUNetTrainerPGCD"


@pytest.fixture
def trained(toy, tmp_path):
    """Trains step 0; returns its checkpoint and the plans name of step 1."""
    names = [s.plans_name for s in plan(DATASET, write_schedule(tmp_path, [ORGANS[:2], ORGANS[2:]]))]
    trainer = train(PGCD, names[0])
    return Path(trainer.output_folder) / "checkpoint_final.pth", names[1]


def refused(plans_name, message, **kwargs):
    """Checks that the step refuses to start with the message, before data are loaded, and writes no checkpoint."""
    trainer = make_trainer(PGCD, plans_name, **kwargs)
    with pytest.raises(CILError, match=message):
        trainer.run_training()
    assert trainer.dataloader_train is None
    assert not list(Path(trainer.output_folder).glob("checkpoint_*"))


def test_nnunets_checkpoint_is_read_without_running_code(trained):
    file, _ = trained
    safe, unsafe = read_checkpoint(file), torch.load(file, weights_only=False)
    assert safe.keys() == unsafe.keys()
    assert safe["init_args"]["device"] == torch.device("cpu")
    assert safe["_best_ema"] == unsafe["_best_ema"]


def test_previous_step_not_trained_names_the_command(toy, tmp_path):
    names = [s.plans_name for s in plan(DATASET, write_schedule(tmp_path, [ORGANS[:2], ORGANS[2:]]))]
    refused(
        names[1],
        r"has to be trained first: .*checkpoint_final.pth is missing. Run 'nnUNetv2_train Dataset017_Toy "
        "3d_fullres 0 -tr nnUNetTrainerPGCD -p nnUNetPlans_toy_step0 -device cpu'",
    )


def test_wrong_fold_names_the_trained_ones(trained):
    refused(trained[1], r"trained first \(only fold_0 is trained\)", fold=1)


def test_unfinished_previous_step_is_to_be_continued(trained):
    file, name = trained
    file.rename(file.with_name("checkpoint_latest.pth"))
    refused(name, "training is not finished: .* Finish it with 'nnUNetv2_train .* --c'")


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_truncated_checkpoint(trained, size):
    file, name = trained
    before = file.read_bytes()[:size]
    file.write_bytes(before)
    refused(name, "cannot be read; it is truncated or not a checkpoint")
    assert file.read_bytes() == before


class Evil:
    def __reduce__(self):
        return (eval, ("open('pwned', 'w')",))


def test_checkpoint_that_carries_code(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, name = trained
    content = torch.load(file, weights_only=False)
    torch.save({**content, "extra": Evil()}, file)
    refused(name, "is refused: loading it would run code from the file .*eval")
    assert not (tmp_path / "pwned").exists()


def test_file_that_is_no_nnunet_checkpoint(trained):
    file, name = trained
    torch.save({"weights": torch.zeros(1)}, file)
    refused(name, "is not a checkpoint of nnU-Net: it has no 'network_weights'")


def test_other_classes(trained):
    file, name = trained
    content = torch.load(file, weights_only=False)
    content["init_args"]["dataset_json"]["labels"] = {"background": 0, "heart": 1, "lung": 2}
    torch.save(content, file)
    refused(name, r"knows the classes \['heart', 'lung'\], but the step continues from \['liver', 'spleen'\]")


def test_other_architecture(trained):
    file, name = trained
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = base_plans()
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [6, 8, 8]
    manager = PlansManager(plans)
    other = nnUNetTrainer.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 1, 3, True)
    content = torch.load(file, weights_only=False)
    torch.save({**content, "network_weights": other.state_dict()}, file)
    refused(name, r"has another architecture than this step's plans: 'decoder\..*' is \(6.*\) there and \(4.*\) here")
    del content["network_weights"]["decoder.stages.0.convs.0.conv.bias"]
    torch.save(content, file)
    refused(name, r"'decoder.stages.0.convs.0.conv.bias' is None there")


def test_prototypes_of_an_unfinished_training(trained):
    """Happens where checkpoint_best.pth of a later step was renamed: its prototypes are those of the step before."""
    file, name = trained
    content = torch.load(file, weights_only=False)
    for key, rows in content["cil"]["prototypes"].items():
        content["cil"]["prototypes"][key] = rows[:2]
    torch.save(content, file)
    refused(
        name,
        r"checkpoint_final.pth has prototypes of 1 classes, but knows 2: it was saved before its training was over",
    )


@pytest.mark.parametrize("name", ["nnUNetTrainerJoint", "nnUNetTrainerReplay"])
def test_old_data_that_are_not_there(toy, tmp_path, name):
    """The last step was learnt on this data set, but one before it on another."""
    steps = plan(DATASET, write_schedule(tmp_path, [ORGANS[:2], ORGANS[2:]]), first_trainer=name)
    file = Path(train(name, steps[0].plans_name).output_folder) / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    content["cil"]["lineage"][0]["dataset"] = "Dataset018_Spleen"
    torch.save(content, file)
    with pytest.raises(
        CILError, match=f"{name} needs the data of the earlier steps, .* Dataset018_Spleen, not on {DATASET}"
    ):
        make_trainer(name, steps[1].plans_name).on_train_start()


def test_wrong_number_of_channels(trained):
    file, name = trained
    content = torch.load(file, weights_only=False)
    for key, tensor in content["network_weights"].items():
        if "seg_layers" in key:
            content["network_weights"][key] = tensor[:2]
    torch.save(content, file)
    refused(name, "puts out 2 channels, but its 2 classes and the background need 3")


def test_previous_model_that_changed_since_the_step_began(trained):
    file, name = trained
    trainer = train(PGCD, name)
    content = torch.load(file, weights_only=False)
    torch.save({**content, "note": "trained again"}, file)
    resumed = make_trainer(PGCD, name, resume=True)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    resumed.is_trained = False  # as if interrupted
    with pytest.raises(CILError, match="has changed since this training began"):
        resumed.run_training()


def test_finished_step_is_not_trained_on(trained):
    trainer = train(PGCD, trained[1])
    resumed = make_trainer(PGCD, trained[1], resume=True)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    resumed.num_epochs += 2
    with pytest.raises(CILError, match=r"is finished after 2 epochs, and 4 are asked for"):
        resumed.run_training()


def test_checkpoint_of_another_step_is_not_continued(trained):
    file, name = trained
    trainer = make_trainer(PGCD, name)
    with pytest.raises(CILError, match=r"is not one of this step: it knows \['liver', 'spleen'\]"):
        trainer.load_checkpoint(str(file))


def test_model_without_prototypes_gets_the_teachers(trained):
    """Happens with any foreign nnU-Net model."""
    file, name = trained
    content = torch.load(file, weights_only=False)
    del content["cil"]
    torch.save(content, file)
    trainer = make_trainer(PGCD, name)
    trainer.prototype_confidence = 0.0
    trainer.on_train_start()
    trainer.network.eval()
    expected = set()
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, trainer.do_split()[0])
    for case in dataset.identifiers:
        image = torch.from_numpy(dataset.load_case(case)[0][:])[None, :, :16, :16, :16]
        expected |= set(trainer.teacher(image).logits.argmax(1).unique().tolist())
    assert expected
    assert expected <= set(torch.nonzero(trainer.prototypes.known).flatten().tolist())


def test_checkpoints_are_moved_into_place_whole(trained, monkeypatch):
    """A save that dies in the middle leaves the last good checkpoint."""
    file, _ = trained
    trainer = make_trainer(PGCD, "nnUNetPlans_toy_step0", resume=True)
    trainer.load_checkpoint(str(file))
    before = file_sha256(file)
    real_write = Path.write_bytes

    def die_half_way(target, content):
        real_write(target, content[:999])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", die_half_way)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_checkpoint(str(file))
    assert file_sha256(file) == before


def test_a_finished_step_does_not_need_its_teacher_any_more(trained):
    """nnUNetv2_train --c on a finished training only validates again; the next step knows the checkpoint by its hash."""
    file, name = trained
    trainer = train(PGCD, name)
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    before = file_sha256(final)
    file.unlink()
    resumed = make_trainer(PGCD, name, resume=True)
    resumed.load_checkpoint(str(final))
    resumed.run_training()
    assert file_sha256(final) == before
