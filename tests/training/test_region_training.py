"""Steps of regions from end to end, on tiny volumes: the core of an organ is learnt before the whole of it."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from toy import (
    DATASET,
    checkpoint,
    make_dataset,
    make_raw,
    make_trainer,
    plan_toy,
    preprocess,
    seed_epochs,
    set_environment,
    toy_volume,
    train,
)

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.lineage import validation_dice
from nnunet_cil.training.checkpoints import read_checkpoint
from nnunet_cil.training.data import OLD_CLASSES
from nnunet_cil.training.previous_step import read_previous_step
from nnunet_cil.workflows.evaluate.cases import Case
from nnunet_cil.workflows.evaluate.predict import Prediction
from nnunet_cil.workflows.evaluate.score import score_cases
from nnunet_cil.workflows.models.export import export
from nnunet_cil.workflows.models.extend import ExtendOptions, plan_extension
from nnunet_cil.workflows.models.trained_model import read_model

PGCD = "nnUNetTrainerPGCD"
LABELS = {"background": 0, "whole": [1, 2, 3], "core": [3, 2], "cyst": 4, "edge": [3], "ignore": 5}
ORDER = [1, 2, 4, 3]
"""Whole is painted first, though the core is learnt first."""
STEPS = ["core"], ["whole", "cyst"]
MODEL = f"results/{DATASET}/{PGCD}__nnUNetPlans_toy_step1__3d_fullres"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """nnU-Net's folders with two trained steps, the last one validated."""
    root = tmp_path_factory.mktemp("regions") / "nnunet"
    make_dataset(root, LABELS, ignore_slices=2, configurations=("3d_fullres",), regions_class_order=ORDER)
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root)
        for name in plan_toy(root.parent, STEPS):
            trainer = train(PGCD, name)
        trainer.perform_actual_validation()
    return root


@pytest.fixture
def root(trained, tmp_path, monkeypatch):
    """A copy of these folders."""
    shutil.copytree(trained, tmp_path / "nnunet")
    set_environment(monkeypatch, tmp_path / "nnunet")
    return tmp_path / "nnunet"


def test_the_model_tells_nnunet_its_regions_in_the_order_of_its_channels(trained):
    content = json.loads((trained / MODEL / "dataset.json").read_text())
    assert list(content["labels"]) == ["background", "whole", "core", "cyst", "ignore"]
    assert content["labels"] == {"background": 0, "whole": [1, 2, 3], "core": [3, 2], "cyst": [4, 4], "ignore": 5}
    assert content["regions_class_order"] == [1, 2, 4]
    stored = read_checkpoint(trained / MODEL / "fold_0/checkpoint_final.pth")["cil"]
    assert stored["classes"] == ["whole", "core", "cyst"]
    assert len(stored["prototypes"]["counts"]) == 6
    assert (stored["prototypes"]["counts"] > 0).all()


def test_old_channels_of_the_student_start_as_the_teachers(root):
    trainer = make_trainer(PGCD, "nnUNetPlans_toy_step1")
    shutil.rmtree(trainer.output_folder)
    trainer = make_trainer(PGCD, "nnUNetPlans_toy_step1")
    trainer.on_train_start()
    assert trainer.new_class_start == "fresh", "PGCD's own start needs the background; the record says what was done"
    images = torch.randn(1, 1, 16, 16, 16)
    trainer.set_deep_supervision_enabled(False)
    student = trainer.network.eval()(images)
    assert student.shape[1] == 3
    torch.testing.assert_close(student[:, 1:2], trainer.teacher(images).logits, atol=1e-6, rtol=0)
    locations = trainer.dataloader_train.data_loader._data.load_case("case_0")[3]["class_locations"]
    assert {(1, 2, 3), 4, OLD_CLASSES} <= locations.keys(), "of the shown regions, and of the teacher's"
    assert not locations.keys() & {(3, 2), (3,)}, "no location of a hidden region"


def test_plain_nnunet_predicts_the_data_sets_numbers_of_the_seen_regions(root):
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(str(root / MODEL), (0,))
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(root / "raw" / DATASET / "imagesTr/case_4_0000.nii.gz")))
    spacing = {"spacing": [1.0] * 3}
    found, probs = predictor.predict_single_npy_array(image[None], spacing, None, None, True)
    expected = np.zeros(image.shape)
    for own, number in zip(probs, (1, 2, 4), strict=True):  # whole, core, cyst
        expected[own > 0.5] = number
    assert np.array_equal(found, expected)
    core, whole = probs[1] > 0.5, probs[0] > 0.5
    assert not (found[core] == 1).any(), "the whole does not cover the core, which was learnt first"
    assert set(np.unique(found)) <= {0, 1, 2, 4}
    assert whole.any()


def test_scores_are_nnunets(root):
    folder = root / MODEL / "fold_0/validation"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["mean"].keys() == {"(1, 2, 3)", "(3, 2)", "(4, 4)"}
    plan = read_model(root / MODEL).step
    predictions = [
        Prediction(case=case, file=folder / f"{case.name}.nii.gz")
        for case in cases_of(plan, root / "preprocessed" / DATASET / "gt_segmentations")
    ]
    with ThreadPoolExecutor(1) as pool:
        rows = score_cases(predictions, plan.labels, 2.0, pool, SimpleITKIO())
    assert len(rows) == 6
    for name, key in {"whole": "(1, 2, 3)", "core": "(3, 2)", "cyst": "(4, 4)"}.items():
        dice = [row["dice"] for row in rows if row["class"] == name]
        assert np.nanmean(dice) == pytest.approx(summary["mean"][key]["Dice"], abs=1e-6)
    dice = validation_dice(folder.parent, json.loads((root / MODEL / "dataset.json").read_text())["labels"])
    assert dice == {name: summary["mean"][str(plan.labels[name])]["Dice"] for name in ("whole", "core", "cyst")}


def cases_of(plan, references):
    return [
        Case(
            name=name,
            reference=references / f"{name}.nii.gz",
            image=references / "none.nii.gz",
            labels=plan.dataset_labels,
            classes=plan.evaluated_classes,
        )
        for name in ("case_4", "case_5")
    ]


def test_a_step_learns_nothing_from_hidden_regions(root, tmp_path):
    """The rest of the whole is erased, and parts of the core change places: the same model, prototypes and best epoch."""
    import blosc2
    from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle

    folder = root / "preprocessed" / DATASET / "nnUNetPlans_3d_fullres"
    plan_toy(root.parent, [["whole"], ["core", "cyst"]], name="leak")
    train(PGCD, "nnUNetPlans_leak_step0")

    def run(results):
        trainer = make_trainer(PGCD, "nnUNetPlans_leak_step1")
        seed_epochs(trainer)
        torch.manual_seed(1)
        trainer.output_folder = str(results)
        results.mkdir()
        trainer.run_training()
        return trainer

    found = run(tmp_path / "full")
    for file in folder.glob("*_seg.b2nd"):
        seg = blosc2.open(str(file))[:]
        file.unlink()
        assert {1, 2, 3, 4, 5} <= set(np.unique(seg))
        changed = np.array([0, 0, 3, 2, 4, 5, -1], dtype=seg.dtype)[seg]
        blosc2.asarray(changed, urlpath=str(file))
    for file in folder.glob("*.pkl"):
        properties = load_pickle(str(file))
        assert {(1, 2, 3), (3, 2), 4, (3,)} <= properties["class_locations"].keys()
        properties["class_locations"] |= {(1, 2, 3): [], (3,): []}
        write_pickle(properties, str(file))
    again = run(tmp_path / "changed")
    for (key, x), y in zip(found.network.state_dict().items(), again.network.state_dict().values(), strict=True):
        assert torch.equal(x, y), key
    assert torch.equal(found.prototypes.prototypes, again.prototypes.prototypes)
    assert found.stray_free == again.stray_free
    for key in ("ema_fg_dice", "train_losses", "val_losses"):
        assert np.array_equal(*(t.logger.get_value(key, None) for t in (found, again)), equal_nan=True)


def test_an_interrupted_training_ends_where_an_undisturbed_one_ends(root):
    shutil.rmtree(root / MODEL)
    expected = checkpoint(train(PGCD, "nnUNetPlans_toy_step1"))
    shutil.rmtree(root / MODEL)
    interrupted = make_trainer(PGCD, "nnUNetPlans_toy_step1")
    seed_epochs(interrupted)
    interrupted.save_every = 1
    end = interrupted.on_epoch_end

    def stop_after_one():
        end()
        raise KeyboardInterrupt

    interrupted.on_epoch_end = stop_after_one
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run_training()
    resumed = make_trainer(PGCD, "nnUNetPlans_toy_step1", resume=True)
    resumed.load_checkpoint(f"{resumed.output_folder}/checkpoint_latest.pth")
    seed_epochs(resumed)
    resumed.run_training()
    found = checkpoint(resumed)
    for key, tensor in expected["network_weights"].items():
        assert torch.equal(tensor, found["network_weights"][key]), key
    assert torch.equal(expected["cil"]["prototypes"]["prototypes"], found["cil"]["prototypes"]["prototypes"])


def test_an_exported_model_and_info_know_the_regions(root, tmp_path, capsys):
    exported = export(root / MODEL, tmp_path / "out")
    content = json.loads((exported / "dataset.json").read_text())
    assert list(content["labels"]) == ["background", "whole", "core", "cyst", "ignore"]
    assert content["regions_class_order"] == [1, 2, 4]
    for model in (root / MODEL, exported):
        assert main(["info", str(model)]) == 0
        text = capsys.readouterr().out
        rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in text.splitlines() if line.startswith("|")]
        for row in (["1", "whole", "1, 2, 3", "1"], ["2", "core", "3, 2", "0"], ["4", "cyst", "4", "1"]):
            assert row in rows, text
    assert "outside of whole" in describe_prototypes(root, capsys)
    card = (root / MODEL / "fold_0/MODEL_CARD.md").read_text()
    assert all(name in card for name in ("whole", "core", "cyst"))


def describe_prototypes(root, capsys):
    main(["info", str(root / MODEL)])
    return capsys.readouterr().out


def test_a_model_of_regions_is_extended_with_numbers_of_its_own(root, monkeypatch):
    from nnunet_cil.workflows.models import extend as workflow
    from nnunet_cil.workflows.models.extend import ExtendOptions, extend

    labels = {"background": 0, "rim": [1, 2], "spot": 2}
    make_raw(root, "Dataset018_New", {"background": 0, "liver": 1, "kidney": 2})
    file = root / "raw/Dataset018_New/dataset.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "labels": labels, "regions_class_order": [1, 2]}))
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    monkeypatch.setattr(workflow, "check_preprocessed_labels", lambda *_: None)
    plan = extend(root / MODEL, 18, ExtendOptions(classes=("spot", "rim"))).plan
    assert plan.labels == {
        "background": 0,
        "whole": (1, 2, 3),
        "core": (3, 2),
        "cyst": (4, 4),
        "rim": (5, 6),
        "spot": (6, 6),
    }
    assert plan.regions_class_order == (1, 2, 4, 5, 6)
    assert plan.channel_order == (0, 1, 2, 3, 4)
    assert plan.teacher_classes == ("whole", "core", "cyst")
    previous = root / MODEL / "fold_0/checkpoint_final.pth"
    weights = read_checkpoint(previous)["network_weights"]
    assert read_previous_step(previous, plan, weights).state.classes == plan.teacher_classes


@pytest.mark.parametrize(
    ("dataset", "classes", "painted"),
    [
        ("Dataset018_New", ("spot", "rim"), {"whole": 1, "core": 2, "cyst": 4, "rim": 5, "spot": 6}),
        (DATASET, ("edge",), {"whole": 1, "core": 2, "cyst": 4, "edge": 3}),
    ],
)
def test_an_extended_model_trains_and_plain_nnunet_paints_the_numbers_of_its_regions(
    root, tmp_path, monkeypatch, dataset, classes, painted
):
    make_raw(root, "Dataset018_New", {"background": 0, "liver": 1, "kidney": 2})
    file = root / "raw/Dataset018_New/dataset.json"
    regions = {"labels": {"background": 0, "rim": [1, 2], "spot": 2}, "regions_class_order": [1, 2]}
    file.write_text(json.dumps({**json.loads(file.read_text()), **regions}))
    plain = export(root / MODEL, tmp_path / "plain")
    short = {"num_epochs": 1, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 1}
    found = plan_extension(plain, dataset, ExtendOptions(classes=classes, training=short))
    if dataset != DATASET:
        preprocess(found.file.parent, found.plans_name)
        (found.file.parent / "dataset_fingerprint.json").write_text("{}")
    trainer = train(PGCD, found.plans_name, dataset=dataset)
    trainer.perform_actual_validation()
    labels, folder = found.plan.labels, Path(trainer.output_folder) / "validation"
    scores = json.loads((folder / "summary.json").read_text())["mean"]
    own = regions["labels"] if dataset != DATASET else LABELS
    assert scores.keys() == {str(labels[name]) for name in painted if name in own}
    references = root / "preprocessed" / dataset / "gt_segmentations"
    for name in (name for name in painted if name in own):
        dice = [slow_dice(references / f.name, own[name], f, labels[name]) for f in sorted(folder.glob("*.nii.gz"))]
        assert np.nanmean(dice) == pytest.approx(scores[str(labels[name])]["Dice"], abs=1e-6)

    exported = export(Path(trainer.output_folder_base), tmp_path / "out")
    for name in ("nnUNet_extTrainer", "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(str(exported), (0,))
    image = toy_volume(70)[0]
    numbers, probabilities = predictor.predict_single_npy_array(image[None], {"spacing": [1.0] * 3}, None, None, True)
    expected = np.zeros(image.shape)
    for channel, number in zip(probabilities, painted.values(), strict=True):
        expected[channel > 0.5] = number
    assert np.array_equal(numbers, expected)
    assert list(labels)[1 : 1 + len(painted)] == list(painted)


def slow_dice(reference, numbers, prediction, own_numbers):
    """Returns the Dice of one region, whose numbers differ in the two files, outside of what is to be ignored."""
    truth, found = (sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in (reference, prediction))
    valid = truth != LABELS["ignore"]
    one, other = np.isin(truth, numbers) & valid, np.isin(found, own_numbers) & valid
    total = one.sum() + other.sum()
    return np.nan if total == 0 else 2 * (one & other).sum() / total


def test_methods_and_options_that_need_the_background_are_refused_before_any_work(root):
    for name, reason in {"MiB": "merges classes into the background", "PLOP": "fills the background"}.items():
        with pytest.raises(CILError, match=f"nnUNetTrainer{name} {reason}.*has regions, without a channel for it. Use"):
            make_trainer(f"nnUNetTrainer{name}", "nnUNetPlans_toy_step0")
    for start in ("balanced", "apart", "imprinted"):
        names = plan_toy(root.parent, STEPS, name=f"s-{start}", hyperparameters={"new_class_start": start})
        with pytest.raises(
            CILError, match=f"sets new_class_start to '{start}', a start from the background.*Remove it"
        ):
            make_trainer(PGCD, names[1])


def test_inspect_measures_every_region(root, tmp_path, capsys):
    assert main(["inspect", "17", "-o", str(tmp_path / "page.html")]) == 0
    text = capsys.readouterr().out
    for name, numbers in (("whole", "1, 2, 3"), ("core", "3, 2"), ("edge", "3")):
        assert any(name in line and numbers in line for line in text.splitlines()), text
