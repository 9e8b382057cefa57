"""Cascades: a network that sees the previous stage's classes, and grows with them."""

import os
import shutil
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle
from toy import DATASET, ORGANS, checkpoint, make_trainer, plan_toy, seed_epochs, set_environment, train
from toy_cascade import CASCADE, CASES, LOW, make_cascade, write_stage, write_stage_fold

from nnunet_cil.errors import CILError
from nnunet_cil.networks.inputs import shared_part
from nnunet_cil.workflows.models.export import export

PGCD, EWC, EWF, MIB = (f"nnUNetTrainer{name}" for name in ("PGCD", "EWC", "EWF", "MiB"))
STEPS = [ORGANS[2:], ORGANS[:2]]
"""The data set's numbers are not the channels."""
SHORT = {"num_epochs": 1, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1, "mirror_axes": []}


@pytest.fixture(scope="module")
def first_step(_toy_root, tmp_path_factory):
    """A data set with a cascade whose first step is trained, and the stage before its second step."""
    root = tmp_path_factory.mktemp("cascade")
    shutil.copytree(_toy_root, root / "nnunet")
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root / "nnunet")
        make_cascade(root / "nnunet" / "preprocessed" / DATASET)
        names = plan_toy(root, STEPS, first_trainer=PGCD, training=SHORT)
        write_stage(PGCD, names[0])
        first = train(PGCD, names[0], configuration=CASCADE)
        for name in (PGCD, EWC, EWF, MIB):
            write_stage(name, names[1])
    return root, names, checkpoint(first)


@pytest.fixture
def names(first_step, tmp_path, monkeypatch):
    root, names, _ = first_step
    shutil.copytree(root / "nnunet", tmp_path / "nnunet")
    set_environment(monkeypatch, tmp_path / "nnunet")
    return names


@pytest.fixture
def first_weights(first_step):
    return first_step[2]["network_weights"]


def started(name, plans_name, **more):
    trainer = make_trainer(name, plans_name, configuration=CASCADE, **more)
    trainer.on_train_start()
    return trainer


def grown(trainer, old):
    """Returns the names of the student's first convolution."""
    new = trainer.bare_network.state_dict()
    return [name for name in new if "seg_layers" not in name and new[name].shape != old[name].shape]


def test_a_step_starts_from_the_previous_weights_and_inputs_of_weight_0(names, first_weights):
    trainer = started(MIB, names[1])
    new = trainer.bare_network.state_dict()
    assert [tuple(new[name].shape[:2]) for name in grown(trainer, first_weights)[:1]] == [(4, 1 + 4)]
    for name, tensor in first_weights.items():
        if "seg_layers" not in name:
            assert torch.equal(shared_part(new[name], tensor), tensor), name
    for name in grown(trainer, first_weights):
        assert not new[name][:, 1 + 2 :].any()
    images = torch.randn(1, 5, 16, 16, 16)
    with torch.no_grad():
        student = trainer.network(images)[0].softmax(1)
        teacher = trainer.teacher(images).logits.softmax(1)
        others = trainer.teacher(torch.cat([images[:, :3], torch.randn(1, 2, 16, 16, 16)], 1)).logits.softmax(1)
    assert torch.equal(teacher, others)  # which does not see the new classes
    assert torch.allclose(student[:, 1:3], teacher[:, 1:], atol=1e-6)
    for c in (0, 3, 4):
        assert torch.allclose(student[:, c], teacher[:, 0] / 3, atol=1e-6)


def test_new_channels_may_be_imprinted_from_what_the_teacher_sees(names, first_weights):
    trainer = make_trainer(MIB, names[1], configuration=CASCADE)
    trainer.new_class_start = "imprinted"
    trainer.on_train_start()
    new = trainer.bare_network.state_dict()
    for name in grown(trainer, first_weights):
        assert not new[name][:, 1 + 2 :].any()
    rows = new["decoder.seg_layers.1.weight"]
    assert torch.equal(rows[1:3], first_weights["decoder.seg_layers.1.weight"][1:])
    assert not torch.equal(rows[3], rows[4])


def test_patches_carry_the_previous_stage_as_inputs_and_the_teachers_volume_as_target(names):
    trainer = started(PGCD, names[1])
    assert trainer.volumes is not None
    carried, new = 0, 0
    for _ in range(4):
        batch = next(trainer.dataloader_train)
        images, target = batch["data"], batch["target"][0]
        assert images.shape[1:] == (5, 16, 16, 16)
        assert set(images[:, 1:].unique().tolist()) <= {0.0, 1.0}
        assert target.shape[1] == 2
        assert set(target[:, 0].unique().tolist()) <= {0, 3, 4}
        assert set(target[:, 1].unique().tolist()) <= {0, 1, 2}
        own, step = trainer._batch_context(batch).__enter__()
        assert own["target"][0].shape[1] == 1
        assert torch.equal(step.volume_classes, target[:, 1].long())
        carried, new = carried + images[:, 1:3].sum(), new + (target[:, 0] > 0).sum()
    assert carried > 0
    assert new > 0
    for _ in range(4):  # without augmentation
        batch = next(trainer.dataloader_val)
        images, target = batch["data"], batch["target"][0]
        assert target.shape[1] == 1
        for c in (3, 4):
            assert torch.equal(images[:, c] == 1, target[:, 0] == c)


def test_a_pass_and_the_teacher_see_the_previous_stage(names, first_weights):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer = make_trainer(PGCD, names[1], configuration=CASCADE)
    trainer.drop_strays = False
    trainer.on_train_start()
    for tile in trainer.training_pass().tiles():
        assert tile.images.shape[1] == 5
        assert torch.equal(tile.images[:, 3:].argmax(1)[tile.labels > 0], tile.labels[tile.labels > 0] - 3)
        assert not tile.images[:, 3:].sum(1)[tile.labels == 0].any()
    previous = Path(trainer.output_folder_base).with_name(f"{PGCD}__{names[0]}__{CASCADE}")
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False, tile_step_size=0.75)
    predictor.initialize_from_trained_model_folder(str(previous), (0,), "checkpoint_final.pth")
    for case in trainer.do_split()[0][:2]:
        dataset = trainer.training_pass().open_cases([case])
        data, _, stage, _ = dataset.load_case(case)
        one_hot = np.stack([stage[:] == c for c in (1, 2)])
        image = torch.from_numpy(np.concatenate([data[:], one_hot]).astype(np.float32))
        expected = predictor.predict_logits_from_preprocessed_data(image).argmax(0).numpy()
        assert np.array_equal(np.asarray(trainer.volumes.load_case(dataset, case)[2][:]), expected)


def test_ewc_and_ewf_reach_into_the_old_part_of_the_grown_convolution(names, first_weights):
    ewc = train(EWC, names[1], configuration=CASCADE)
    name = grown(ewc, first_weights)[0]
    assert ewc.method_state["importances"][name].shape == ewc.bare_network.state_dict()[name].shape
    assert ewc.method_state["importances"][name][:, 3:].any()

    ewf, trained = make_trainer(EWF, names[1], configuration=CASCADE), {}
    fuse = ewf.finish_step

    def finish_step():
        trained.update({name: tensor.clone() for name, tensor in ewf.bare_network.state_dict().items()})
        fuse()

    ewf.finish_step = finish_step
    ewf.run_training()
    fused, share = ewf.bare_network.state_dict()[name], np.sqrt(2 / 5)
    expected = (1 - share) * first_weights[name] + share * trained[name][:, :3]
    assert torch.allclose(fused[:, :3], expected, atol=1e-6)
    assert torch.equal(fused[:, 3:], trained[name][:, 3:])
    assert fused[:, 3:].any()


def erase_hidden_labels(preprocessed, shown):
    """Leaves the labels ``shown`` in the preprocessed cases, and their locations."""
    for file in sorted(preprocessed.glob("*_seg.b2nd")):
        labels = blosc2.open(str(file))[:]
        file.unlink()
        blosc2.asarray(np.where(np.isin(labels, shown), labels, np.minimum(labels, 0)), urlpath=str(file))
    for file in sorted(preprocessed.glob("*.pkl")):
        properties = load_pickle(str(file))
        locations = properties["class_locations"].items()
        properties["class_locations"] = {k: v if k in shown else [] for k, v in locations}
        write_pickle(properties, str(file))


def test_neither_an_interruption_nor_hidden_labels_change_a_training(names, tmp_path):
    whole = train(PGCD, names[1], configuration=CASCADE)
    found = checkpoint(whole)
    model, fold = Path(whole.output_folder_base), Path(whole.output_folder)
    assert found["cil"]["lineage"][-1]["previous_stage"].keys() == {"0", "1", "2"}
    assert found["network_weights"][grown(whole, whole.teacher.network.state_dict())[0]].shape[1] == 5
    shutil.copytree(model, model.with_name("whole"))
    shutil.rmtree(fold)
    part = make_trainer(PGCD, names[1], configuration=CASCADE)
    seed_epochs(part)
    torch.manual_seed(0)
    part.on_train_start()
    part.current_epoch = -1  # none is over
    part.save_checkpoint(str(fold / "checkpoint_latest.pth"))
    erase_hidden_labels(tmp_path / "nnunet" / "preprocessed" / DATASET / "nnUNetPlans_3d_fullres", (1, 2))
    again = make_trainer(PGCD, names[1], configuration=CASCADE, resume=True)
    again.load_checkpoint(str(fold / "checkpoint_latest.pth"))
    seed_epochs(again)
    again.run_training()
    for name, tensor in checkpoint(again)["network_weights"].items():
        assert torch.equal(tensor, found["network_weights"][name]), name


def test_an_exported_cascade_is_one_of_plain_nnunet(names, tmp_path):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    model = stage(names, step=0).with_name(f"{PGCD}__{names[0]}__{CASCADE}")
    plain = export(model, tmp_path / "plain")
    assert plain.name == f"nnUNetTrainer__{names[0]}__{CASCADE}"
    images, found = torch.randn(1 + 2, 16, 16, 16), []
    for folder in (model, plain):
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
        predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
        found.append(predictor.predict_logits_from_preprocessed_data(images))
    assert torch.equal(*found)


def stage(names, trainer=PGCD, step=1):
    return Path(os.environ["nnUNet_results"]) / DATASET / f"{trainer}__{names[step]}__{LOW}"


@pytest.mark.parametrize("what", ["nothing", "no record", "retrained", "another step's file", "another trainer's"])
def test_a_cascade_says_what_to_train_first(names, what):
    folder = stage(names)
    predictions = folder / "predicted_next_stage" / CASCADE
    ending = f"nnUNetv2_train {DATASET} {LOW} 1 -tr {PGCD} -p {names[1]} -device cpu"
    if what == "nothing":
        shutil.rmtree(folder)
        expected = (
            rf"of .case_0., .case_1., .case_2..* no prediction .*\n  {ending.replace(' 1 ', ' 0 ')}\n  {ending}\n"
        )
    elif what == "no record":
        shutil.rmtree(folder / "fold_1" / "predicted_next_stage")
        expected = rf"of 'case_2', 'case_3' there is no prediction .*\n  {ending} --val\n"
    elif what == "retrained":
        content = torch.load(folder / "fold_1" / "checkpoint_final.pth", weights_only=False)
        torch.save({**content, "current_epoch": 3}, folder / "fold_1" / "checkpoint_final.pth")
        expected = rf"of 'case_2', 'case_3' there is no prediction .*\n  {ending} --val\n"
    elif what == "another step's file":
        other = stage(names, step=0) / "predicted_next_stage" / CASCADE
        shutil.copyfile(other / "case_3.b2nd", predictions / "case_3.b2nd")
        expected = rf"of 'case_3' there is no prediction .*\n  {ending} --val\n"
    else:
        shutil.rmtree(folder)
        shutil.copytree(stage(names, MIB), folder)
        expected = (
            rf"fold_0/checkpoint_final.pth is not the model of this step .*: it is of {MIB}, {names[1]}, fold 0. Remove"
        )
    with pytest.raises(CILError, match=expected):
        make_trainer(PGCD, names[1], configuration=CASCADE).on_train_start()


def test_a_case_that_no_fold_validates_has_no_previous_stage(names, tmp_path):
    file = tmp_path / "nnunet" / "preprocessed" / DATASET / "splits_final.json"
    file.write_text(file.read_text().replace('"val": ["case_2", "case_3"]', '"val": ["case_2"]'))
    with pytest.raises(CILError, match=r"No fold of splits_final.json validates 'case_3', .* Add it to a fold's 'val'"):
        make_trainer(PGCD, names[1], configuration=CASCADE).on_train_start()


def test_a_begun_cascade_does_not_go_on_with_other_predictions(names):
    trainer = started(PGCD, names[1])
    file = f"{trainer.output_folder}/checkpoint_latest.pth"
    trainer.save_checkpoint(file)
    write_stage_fold(stage(names) / "fold_2", trainer.step_plan.seen_classes, CASES[4:], current_epoch=7)
    again = make_trainer(PGCD, names[1], configuration=CASCADE, resume=True)
    again.load_checkpoint(file)
    with pytest.raises(CILError, match=f"The {LOW} models of this step have changed since the training in .* began"):
        again.on_train_start()


def test_hidden_classes_are_in_no_input(names):
    """The first step's stage knows two classes; the data set labels four."""
    trainer = started(PGCD, names[0])
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        images = next(loader)["data"]
        assert images.shape[1] == 1 + 2
    for tile in trainer.training_pass().tiles():
        assert torch.equal(tile.images[:, 1:].sum(1) > 0, tile.labels > 0)
