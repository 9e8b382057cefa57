"""Training steps from end to end, on tiny volumes."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import (
    DATASET,
    LABELS,
    ORGANS,
    checkpoint,
    make_dataset,
    make_trainer,
    plan_toy,
    set_environment,
    train,
    write_schedule,
)

from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.files import write_json
from nnunet_cil.locks import fold_lock
from nnunet_cil.networks.heads import widen_heads
from nnunet_cil.owners import current_owner, start_of
from nnunet_cil.schedule import load_schedule
from nnunet_cil.training import base, epoch_logs
from nnunet_cil.training.data import OLD_CLASSES
from nnunet_cil.training.methods.ewc import nnUNetTrainerEWC
from nnunet_cil.training.methods.finetune import nnUNetTrainerFineTune
from nnunet_cil.training.methods.joint import nnUNetTrainerJoint
from nnunet_cil.training.methods.pgcd import nnUNetTrainerPGCD
from nnunet_cil.training.methods.plop import nnUNetTrainerPLOP
from nnunet_cil.training.methods.pseudo_label import nnUNetTrainerPseudoLabel
from nnunet_cil.training.methods.replay import nnUNetTrainerReplay
from nnunet_cil.training.progress import plot_terms
from nnunet_cil.workflows.plan.plan import plan, write_step_plans

PGCD = "nnUNetTrainerPGCD"


def test_three_steps_end_in_a_plain_nnunet_model_that_knows_every_class(toy, tmp_path):
    names = plan_toy(tmp_path, [ORGANS[:2], ORGANS[2:3], ORGANS[3:]])
    for name in names:
        trainer = train(PGCD, name)
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    model = trainer.output_folder_base
    with open(f"{model}/dataset.json") as f:
        assert json.load(f)["labels"] == {"background": 0, "liver": 1, "spleen": 2, "kidney": 3, "cyst": 4}
    plans = PlansManager(f"{model}/plans.json")
    network = nnUNetTrainer.build_network_architecture(plans, plans.get_configuration("3d_fullres"), 1, 5, False)
    network.load_state_dict(checkpoint(trainer)["network_weights"], strict=True)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(model, (0,))
    logits = predictor.predict_logits_from_preprocessed_data(torch.zeros(1, 16, 16, 16))
    assert logits.shape == (5, 16, 16, 16)


def test_step_0_is_nnunets_own_loss(toy, tmp_path):
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

    trainer = make_trainer(PGCD, plan_toy(tmp_path)[0])
    trainer.initialize()
    assert type(trainer.loss) is DeepSupervisionWrapper
    assert trainer.label_manager.num_segmentation_heads == 3


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (PGCD, {"new_class_start": "balanced"}),
        ("nnUNetTrainerMiB", {}),
        ("nnUNetTrainerLwF", {"new_class_start": "balanced"}),
    ],
)
def test_a_step_starts_from_the_previous_weights_with_the_background_split_evenly(toy, tmp_path, name, settings):
    names = plan_toy(tmp_path, first_trainer=PGCD, hyperparameters=settings)
    first = checkpoint(train(PGCD, names[0]))["network_weights"]
    trainer = make_trainer(name, names[1])
    trainer.on_train_start()
    second = trainer.network.state_dict()
    for key, tensor in first.items():
        if "seg_layers" not in key:
            assert torch.equal(second[key], tensor), key
    images = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        student = [x.softmax(1) for x in trainer.network(images)]
        teacher = trainer.teacher(images).logits.softmax(1)
    assert torch.allclose(student[0][:, 1:3], teacher[:, 1:], atol=1e-6)
    for c in (0, 3, 4):
        assert torch.allclose(student[0][:, c], teacher[:, 0] / 3, atol=1e-6)


@pytest.mark.parametrize("name", [PGCD, "nnUNetTrainerMiB", "nnUNetTrainerFineTune"])
def test_every_trainer_may_let_new_classes_start_apart_from_the_background(toy, tmp_path, name):
    names = plan_toy(tmp_path, first_trainer=PGCD, hyperparameters={"new_class_start": "apart"})
    teacher = train(PGCD, names[0])
    first = checkpoint(teacher)["network_weights"]
    seed = int(file_sha256(Path(teacher.output_folder) / "checkpoint_final.pth")[:8], 16)
    expected = widen_heads(first, 2, noise=1.0, seed=seed)
    starts = []
    for _ in range(2):
        trainer = make_trainer(name, names[1])
        trainer.on_train_start()
        starts.append({k: v.clone() for k, v in trainer.network.state_dict().items()})
    for key, tensor in starts[0].items():
        assert torch.equal(tensor, starts[1][key]), key  # as on another rank
        assert torch.equal(tensor, expected[key]), key
        if "seg_layers" not in key:
            assert torch.equal(tensor, first[key]), key
    rows = starts[0]["decoder.seg_layers.1.weight"]
    assert torch.equal(rows[:3], first["decoder.seg_layers.1.weight"])
    assert not torch.equal(rows[3], rows[0])
    assert not torch.equal(rows[3], rows[4])


def test_pgcd_lets_new_classes_start_apart_unless_told_otherwise(toy, tmp_path):
    names = plan_toy(tmp_path)
    train(PGCD, names[0])
    trainer = make_trainer(PGCD, names[1])
    trainer.on_train_start()
    rows = trainer.network.state_dict()["decoder.seg_layers.1.weight"]
    assert not torch.equal(rows[3], rows[0])


def test_teacher_never_trains_and_is_no_part_of_the_student(toy, tmp_path):
    names = plan_toy(tmp_path)
    first = checkpoint(train(PGCD, names[0]))["network_weights"]
    trainer = train(PGCD, names[1])
    for key, tensor in trainer.teacher.network.state_dict().items():
        assert torch.equal(tensor, first[key]), key
    assert not trainer.teacher.network.training
    owned = {id(p) for p in trainer.network.parameters()} | {
        id(p) for group in trainer.optimizer.param_groups for p in group["params"]
    }
    assert not owned & {id(p) for p in trainer.teacher.network.parameters()}
    assert not any(k.startswith(("teacher", "module")) for k in checkpoint(trainer)["network_weights"])


def test_prototypes_are_masked_means_of_the_final_features_by_label(toy, tmp_path):
    """Against a slow loop over whole cases; the patch is as large as the padded case, so one tile is one case."""
    names = plan_toy(tmp_path)
    plans = json.loads((toy / f"{names[0]}.json").read_text())
    plans["configurations"]["3d_fullres"]["patch_size"] = [32, 32, 32]
    (toy / f"{names[0]}.json").write_text(json.dumps(plans))
    trainer = train(PGCD, names[0])
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    values = {0: [], 1: [], 2: []}
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, trainer.do_split()[0])
    for case in dataset.identifiers:
        data, seg, _, _ = dataset.load_case(case)
        pads = [(32 - n) // 2 for n in data.shape[1:]]
        image = np.zeros((1, 1, 32, 32, 32), dtype=np.float32)
        inside = tuple(slice(p, p + n) for p, n in zip(pads, data.shape[1:], strict=True))
        image[(0, 0, *inside)] = data[0]
        with torch.no_grad(), trainer.features.reading():
            predicted = trainer.network(torch.from_numpy(image)).argmax(1)[0][inside].numpy()
            features = trainer.features.take()[0][(slice(None), *inside)].numpy()
        labels = np.where(seg[0] <= 2, np.maximum(seg[0], 0), 0)
        for c in (0, 1, 2):
            mask = (labels == c) & ((c > 0) | (predicted == 0))
            values[c].append(features[:, mask])
    for c in (0, 1, 2):
        everything = np.concatenate(values[c], axis=1)
        assert np.allclose(trainer.prototypes.prototypes[c], everything.mean(1), atol=1e-4), c
        assert trainer.prototypes.counts[c] == everything.shape[1]


def test_prototypes_travel_from_step_to_step(toy, tmp_path):
    names = plan_toy(tmp_path)
    first = checkpoint(train(PGCD + "Paper", names[0]))["cil"]["prototypes"]
    second = checkpoint(train(PGCD + "Paper", names[1]))["cil"]["prototypes"]
    assert first["prototypes"].shape == (3, 4)
    assert second["prototypes"].shape == (5, 4)
    assert torch.equal(first["prototypes"][1:], second["prototypes"][1:3])
    assert not torch.equal(first["prototypes"][0], second["prototypes"][0])
    assert (second["counts"] > 0).all()


def seen_in_volume(trainer, tile):
    """Returns the teacher's segmentation of a tile's part of its case; 0 in the padding."""
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, [tile.case])
    volume = torch.from_numpy(np.asarray(trainer.volumes.load_case(dataset, tile.case)[2][:]).astype(np.int64))
    seen = torch.zeros_like(tile.labels)
    for voxel in np.ndindex(*seen.shape[1:]):
        place = tuple(v + c for v, c in zip(voxel, tile.corner, strict=True))
        if all(0 <= p < n for p, n in zip(place, volume.shape, strict=True)):
            seen[0][voxel] = volume[place]
    return seen


@pytest.mark.parametrize(("name", "sampled", "volumes"), [(PGCD, 1, 1), (PGCD, 0, 1), ("nnUNetTrainerEWC", 1, 0)])
def test_old_classes_are_sampled_where_the_teacher_sees_them(toy, tmp_path, monkeypatch, name, sampled, volumes):
    monkeypatch.setattr(base, "absent_classes", lambda *_: {})  # the tiny teacher finds little
    options = {"old_class_sampling": sampled, "teacher_volumes": volumes}
    names = plan_toy(tmp_path, first_trainer=PGCD, hyperparameters=options)
    train(PGCD, names[0])
    trainer = make_trainer(name, names[1])
    trainer.on_train_start()
    assert (trainer.volumes is not None) == volumes
    training, validation = trainer.get_tr_and_val_datasets()
    assert OLD_CLASSES not in validation.load_case(validation.identifiers[0])[3]["class_locations"]
    found = {case: training.load_case(case)[3]["class_locations"] for case in training.identifiers}
    if not sampled:
        assert all(set(locations) == {3, 4} for locations in found.values())
        return
    num_rows = 0
    for tile in trainer.training_pass().tiles():
        predicted = trainer.teacher(tile.images).logits.argmax(1)
        if volumes:
            predicted = seen_in_volume(trainer, tile)
        for c, *position in found[tile.case].get(OLD_CLASSES, []):
            voxel = tuple(p - corner for p, corner in zip(position, tile.corner, strict=True))
            inside = all(0 <= v < n for v, n in zip(voxel, predicted.shape[1:], strict=True))
            if inside and tile.valid[0][voxel]:
                assert predicted[0][voxel] == c
                assert tile.labels[0][voxel] == 0
                num_rows += 1
    assert num_rows == sum(len(locations.get(OLD_CLASSES, ())) for locations in found.values()) > 0

    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    resumed = make_trainer(name, names[1], resume=True)
    resumed.load_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    resumed.on_train_start()
    assert resumed.old_locations.keys() == trainer.old_locations.keys()
    assert all(np.array_equal(rows, trainer.old_locations[case]) for case, rows in resumed.old_locations.items())


@pytest.mark.parametrize(
    ("configuration", "architecture", "deep"),
    [
        ("2d", "PlainConvUNet", True),
        ("2d", "PlainConvUNet", False),
        ("3d_fullres", "PlainConvUNet", False),
        ("3d_lowres", "PlainConvUNet", True),
        ("3d_fullres", "ResidualEncoderUNet", True),
    ],
)
def test_every_configuration_learns_two_steps(tmp_path, monkeypatch, configuration, architecture, deep):
    make_dataset(tmp_path / "n", LABELS, architecture=architecture)
    set_environment(monkeypatch, tmp_path / "n")
    training = {
        "num_epochs": 1,
        "num_iterations_per_epoch": 2,
        "num_val_iterations_per_epoch": 1,
        "enable_deep_supervision": deep,
    }
    names = plan_toy(tmp_path, training=training)
    for name in names:
        trainer = train(PGCD, name, configuration=configuration)
    assert trainer.prototypes.counts[1:].min() > 0
    assert all(math.isfinite(v) for v in trainer.logger.get_value("train_losses", None))


def test_an_ignore_label_follows_the_last_channel_in_every_step(tmp_path, monkeypatch):
    labels = {**LABELS, "ignore": 5}
    make_dataset(tmp_path / "n", labels, ignore_slices=4)
    set_environment(monkeypatch, tmp_path / "n")
    names = plan_toy(tmp_path)
    for name in names:
        trainer = train(PGCD, name)
    assert trainer.label_manager.ignore_label == 5
    first = make_trainer(PGCD, names[0])
    assert first.step_plan.labels == {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}
    first.initialize()
    first.dataloader_train, _ = first.get_dataloaders()
    seen = set()
    for _ in range(8):
        seen |= {int(v) for v in next(first.dataloader_train)["target"][0].unique()}
    assert seen == {0, 1, 2, 3}


def test_training_overrides_and_hyperparameters_act(toy, tmp_path):
    training = {
        "num_epochs": 3,
        "num_iterations_per_epoch": 1,
        "num_val_iterations_per_epoch": 2,
        "initial_lr": 0.005,
        "mirror_axes": [0, 2],
        "save_every": 7,
        "weight_decay": 0.0,
        "oversample_foreground_percent": 1.0,
        "optimizer": "AdamW",
    }
    names = plan_toy(tmp_path, training=training, hyperparameters={"pgcd_weight": 2})
    trainer = make_trainer(PGCD, names[0])
    for key, value in training.items():
        if key not in ("mirror_axes", "optimizer"):
            assert getattr(trainer, key) == value
    assert trainer.pgcd_weight == 2.0
    trainer.initialize()
    assert type(trainer.optimizer) is torch.optim.AdamW
    assert trainer.optimizer.param_groups[0]["lr"] == 0.005
    assert trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3] == (0, 2)
    assert trainer.inference_allowed_mirroring_axes == (0, 2)
    flat = make_trainer(PGCD, names[0], configuration="2d")
    flat.initialize()
    assert flat.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3] == (1,)


def test_each_loss_term_is_logged_and_plotted_every_epoch(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(epoch_logs, "plot_terms", plot_terms)
    names = plan_toy(tmp_path)
    train(PGCD, names[0])
    trainer = train(PGCD, names[1])
    logging = checkpoint(trainer)["logging"]
    terms = [logging[f"loss_{name}"] for name in ("segmentation", "old_dice", "pgcd", "dapd")]
    assert all(len(t) == 2 for t in terms)
    for epoch in range(2):
        assert sum(t[epoch] for t in terms) == pytest.approx(logging["train_losses"][epoch], rel=1e-4)
    with open(trainer.log_file) as f:
        assert "train_loss terms: dapd" in f.read()
    assert (Path(trainer.output_folder) / "progress_loss_terms.png").stat().st_size > 1000


def test_the_teacher_of_a_lazy_distillation_runs_in_every_third_iteration_of_the_whole_training(toy, tmp_path):
    training = {"num_epochs": 2, "num_iterations_per_epoch": 4, "num_val_iterations_per_epoch": 1}
    names = plan_toy(tmp_path, training=training, hyperparameters={"distillation_interval": 3})
    train(PGCD, names[0])
    trainer = make_trainer(PGCD, names[1])
    step, asked = trainer.train_step, []

    def noted(batch):
        trainer.teacher.on_batch = lambda images: (
            asked.append(len(losses)) or type(trainer.teacher).on_batch(trainer.teacher, images)
        )
        losses.append(step(batch)["loss"])
        del trainer.teacher.on_batch
        return {"loss": losses[-1]}

    losses = []
    trainer.train_step = noted
    trainer.run_training()
    assert asked == [0, 3, 6]
    logging = checkpoint(trainer)["logging"]
    for epoch in range(2):
        total = sum(logging[f"loss_{name}"][epoch] for name in ("segmentation", "old_dice", "pgcd", "dapd"))
        assert total == pytest.approx(np.mean(losses[4 * epoch : 4 * epoch + 4]), rel=1e-4)


def test_a_lazy_distillation_without_the_teachers_volumes_is_refused_where_the_dice_asks_the_teacher():
    lazy = {"distillation_interval": 2, "teacher_volumes": False}
    with pytest.raises(CILError, match="Schedule x: distillation_interval 2 saves nothing without teacher_volumes"):
        nnUNetTrainerPGCD.check_hyperparameters(lazy, "Schedule x")
    nnUNetTrainerPGCD.check_hyperparameters({**lazy, "old_dice_weight": 0}, "Schedule x")


@pytest.mark.parametrize(
    "trainer",
    [
        nnUNetTrainerPLOP,
        nnUNetTrainerPseudoLabel,
        nnUNetTrainerEWC,
        nnUNetTrainerFineTune,
        nnUNetTrainerJoint,
        nnUNetTrainerReplay,
    ],
)
def test_a_lazy_distillation_is_refused_where_it_has_no_meaning(trainer):
    with pytest.raises(CILError, match=f"'distillation_interval', which {trainer.__name__} fixes at 1"):
        trainer.check_hyperparameters({"distillation_interval": 2}, "Schedule x")


def test_online_score_of_old_classes_is_taken_against_the_teacher(toy, tmp_path):
    names = plan_toy(
        tmp_path,
        training={"num_epochs": 1, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1, "initial_lr": 0.0},
    )
    train(PGCD, names[0])
    trainer = make_trainer(PGCD, names[1])
    trainer.on_train_start()
    trainer.network.eval()
    batch = next(trainer.dataloader_val)
    teacher = trainer.teacher(batch["data"]).logits.argmax(1, keepdim=True)
    target = torch.where(batch["target"][0] == 0, teacher.short(), batch["target"][0])
    with torch.no_grad():
        predicted = trainer.network(batch["data"])[0].argmax(1, keepdim=True)
        outputs = trainer.validation_step(batch)
    for c in range(1, 5):
        assert outputs["tp_hard"][c - 1] == ((predicted == c) & (target == c)).sum()
        assert outputs["fn_hard"][c - 1] == ((predicted != c) & (target == c)).sum()


def test_disjoint_cases_are_all_that_a_step_sees(toy, tmp_path):
    schedule = write_schedule(tmp_path, [ORGANS[:2], ORGANS[2:]], cases="disjoint")
    steps = plan(DATASET, schedule)
    seen = [set(s.plan.cases) for s in steps]
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == 6
    trainer = make_trainer(PGCD, steps[0].plans_name)
    assert set(trainer.do_split()[0]) <= seen[0]


def test_regions_that_the_plans_do_not_know_are_refused(toy, tmp_path):
    names = plan_toy(tmp_path)
    dataset = json.loads((toy / "dataset.json").read_text())
    dataset |= {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]}
    (toy / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(CILError, match="were written for a data set with the labels"):
        make_trainer(PGCD, names[0])


def test_unknown_hyperparameter_is_refused_with_the_nearest(toy, tmp_path):
    names = plan_toy(tmp_path, hyperparameters={"pgcd_wieght": 2})
    with pytest.raises(
        CILError, match=r"'pgcd_wieght', which nnUNetTrainerPGCD does not have \(did you mean 'pgcd_weight'"
    ):
        make_trainer(PGCD, names[0])


@pytest.mark.parametrize(("ablation", "weight"), [("PGCDOnly", "dapd_weight"), ("DAPDOnly", "pgcd_weight")])
def test_an_ablation_cannot_be_given_back_what_it_lacks(toy, tmp_path, ablation, weight):
    names = plan_toy(tmp_path, hyperparameters={weight: 20})
    name = f"nnUNetTrainer{ablation}"
    with pytest.raises(
        CILError, match=rf"{weight!r}, which {name} fixes at 0\.0: it is the ablation of this term\. Remove it"
    ):
        make_trainer(name, names[0])
    assert make_trainer("nnUNetTrainerPGCDPaper", names[0]).step_plan.hyperparameters == {weight: 20}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("old_dice_weight", -0.1, "must be a number from 0 to 1000000000"),
        ("pgcd_weight", -1, "must be a number from 0 to 1000000000"),
        ("distillation_interval", 1.5, "must be a whole number from 1 to 1000000"),
        ("new_class_start", "imprint", r"one of 'fresh', 'balanced', 'apart', 'imprinted' \(did you mean 'imprinted'"),
        (
            "min_voxels",
            20,
            r"'min_voxels', which nnUNetTrainerPGCD fixes at 10: a trainer of your own may set another\. Remove",
        ),
        (
            "similarity_temperature",
            0.3,
            r"which nnUNetTrainerPGCD fixes at 0\.1: 0\.03 and 0\.3 hardly differ\. Remove it",
        ),
        (
            "drop_strays",
            False,
            r"which nnUNetTrainerPGCD fixes at True: nnUNetTrainerPGCDPaper may keep them\. Remove it",
        ),
        ("dapd_weight", 1, r"fixes at 0\.1: nnUNetTrainerPGCDOnly has none, and nnUNetTrainerPGCDPaper may set"),
        ("old_dice_weight", float("nan"), "to nan, but it must be a finite number from 0"),
        ("pgcd_weight", "1", "to '1', but it must be a number"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(toy, tmp_path, name, value, message):
    schedule = load_schedule(write_schedule(tmp_path, [ORGANS], hyperparameters={name: value}))
    (step,) = write_step_plans(DATASET, schedule)  # plan refuses some itself
    with pytest.raises(CILError, match=message):
        make_trainer(PGCD, step.plans_name)


def test_plain_plans_are_refused(toy):
    with pytest.raises(CILError, match="say nothing about a step"):
        make_trainer(PGCD, "nnUNetPlans")


def test_student_features_are_read_through_torch_compile(toy, tmp_path):
    names = plan_toy(tmp_path)
    train(PGCD, names[0])
    trainer = make_trainer(PGCD, names[1])
    trainer.initialize()
    trainer.network = torch.compile(trainer.network, backend="aot_eager")
    seeds = (torch.manual_seed, np.random.seed)
    trainer.on_train_start()
    for seed in seeds:
        seed(0)
    batch = next(trainer.dataloader_train)
    loss = trainer.train_step(batch)["loss"]
    plain = make_trainer(PGCD, names[1])
    plain.on_train_start()
    assert plain.train_step(batch)["loss"] == pytest.approx(loss, rel=1e-5)
    for (key, a), b in zip(plain.network.state_dict().items(), trainer.bare_network.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), key


def test_a_fold_that_another_process_trains_is_refused_and_nothing_is_written_there(toy, tmp_path):
    (name,) = plan_toy(tmp_path, [ORGANS])
    folder = toy.parents[1] / "results" / DATASET / f"{PGCD}__{name}__3d_fullres" / "fold_0"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        owner = replace(current_owner(), pid=process.pid, start=start_of(process.pid))
        lock = {
            "process": owner.token,
            "host": "here",
            "since": "today",
            "command": f"nnUNetv2_train 17 3d_fullres 0 -tr {PGCD}",
        }
        write_json(folder / ".in_use.json", lock)
        with pytest.raises(
            CILError, match=rf"fold_0 is in use by process {process.pid} on here since today \(nnUNetv2_train 17"
        ):
            make_trainer(PGCD, name)
        assert [f.name for f in folder.iterdir()] == [".in_use.json"]
    trained = train(PGCD, name)
    assert trained.is_trained
    assert fold_lock(folder).holder() is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer.perform_actual_validation", lambda *_: None
        )
        trained.perform_actual_validation()
    assert not (folder / ".in_use.json").exists()
