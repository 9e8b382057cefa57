"""nnU-Net's own tools on models of regions: their numbers are those of a slow count, whatever the order of learning."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.evaluation.evaluate_predictions import load_summary_json
from toy import DATASET, dataset_json, write_schedule, write_scores
from toy_models import PGCD, write, write_model

from nnunet_cil.cli.main import main
from nnunet_cil.workflows.plan.plan import plan

FOLDS = {0: ("case_4", "case_5"), 1: ("case_0", "case_1")}
CONFIGURATIONS = ("3d_fullres", "2d")
LABELS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "cyst": 4}
ORDER = [1, 2, 4]
OWN_LABELS = {"background": 0, "cyst": (8, 8, 14), "whole": (9, 10, 11, 12, 13), "core": (10, 12, 13)}
"""A model that knew the regions by other numbers before it learnt from this data set, and paints the cyst first."""

MODELS = {
    "learnt in the data set's order": ((["whole"], ["core", "cyst"]), {}),
    "the core learnt first": ((["core"], ["cyst", "whole"]), {}),
    "numbers of its own": (
        (["core"], ["cyst", "whole"]),
        {"labels": OWN_LABELS, "regions_class_order": (8, 9, 10), "label_offset": 10},
    ),
}


def read(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def painted(masks, step):
    """Paints a mask for each region, in the order of the channels."""
    found = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for name, number in zip(step.model_classes, step.regions_class_order, strict=True):
        found[masks[name]] = number
    return found


def masks_of(toy, case, step, shift):
    """Returns region -> its mask, each moved by another distance, with a stray voxel."""
    truth, found = read(toy / "gt_segmentations" / f"{case}.nii.gz"), {}
    for number, name in enumerate(("whole", "core", "cyst")):
        found[name] = np.roll(np.isin(truth, LABELS[name]), shift + (number > 0), axis=0)
        found[name][-1, -1, -1 - number] = True
    return {name: found[name] for name in step.model_classes}


def counted_dice(toy, folder, step):
    """Returns region -> mean Dice over the cases of both folds, counted voxel by voxel from the files."""
    found = {}
    for name in step.model_classes:
        of_cases = []
        for case in (case for cases in FOLDS.values() for case in cases):
            one = np.isin(read(toy / "gt_segmentations" / f"{case}.nii.gz"), LABELS[name])
            other = np.isin(read(folder / f"{case}.nii.gz"), step.labels[name])
            of_cases.append(2 * (one & other).sum() / (one.sum() + other.sum()))
        found[name] = np.mean(of_cases)
    return found


def their_dice(summary, step):
    means = load_summary_json(str(summary))["mean"]
    return {name: means[step.labels[name]]["Dice"] for name in step.model_classes}


@pytest.fixture
def model(toy, tmp_path, request):
    """Leaves the validated models of a last step in both folds; returns the step and the name of its plans."""
    steps, changed = MODELS[request.param]
    for folder in (toy, tmp_path / "nnunet" / "raw" / DATASET):
        file = folder / "dataset.json"
        regions = {"labels": LABELS, "regions_class_order": ORDER}
        file.write_text(json.dumps(json.loads(file.read_text()) | regions))
    planned = plan(DATASET, write_schedule(tmp_path, steps))[1]
    step = replace(planned.plan, **changed)
    planned.file.write_text(json.dumps(json.loads(planned.file.read_text()) | {"cil": step.to_json()}))
    for configuration in CONFIGURATIONS:
        folder = tmp_path / "nnunet" / "results" / DATASET / f"{PGCD}__{planned.plans_name}__{configuration}"
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_text(json.dumps(dataset_json({}) | step.model_labels))
        (folder / "plans.json").write_text(planned.file.read_text())
        for fold, cases in FOLDS.items():
            own = folder / f"fold_{fold}"
            (own / "validation").mkdir(parents=True)
            write_model(own / "checkpoint_final.pth", json.loads(planned.file.read_text()))
            for case in cases:
                write_case(own / "validation", toy, case, step, CONFIGURATIONS.index(configuration))
            write_scores(own, {})
    return step, planned.plans_name


def write_case(folder, toy, case, step, shift):
    """Leaves labels and probabilities; both configurations must agree for an ensemble to have a voxel."""
    masks = masks_of(toy, case, step, shift)
    write(painted(masks, step), folder / f"{case}.nii.gz")
    probabilities = np.stack([masks[name] for name in step.model_classes]) * (0.6 + 0.1 * shift)
    np.savez(folder / f"{case}.npz", probabilities=probabilities.astype(np.float32))
    stuff = {"spacing": (1.0,) * 3, "origin": (0.0,) * 3, "direction": tuple(np.eye(3).ravel())}
    (folder / f"{case}.pkl").write_bytes(pickle.dumps({"sitk_stuff": stuff}))


@pytest.mark.parametrize("model", MODELS, indirect=True)
def test_cross_validation_ensemble_and_postprocessing_have_the_counted_numbers(model, toy, nnunet, tmp_path):
    step, plans = model
    what = ["17", "-c", *CONFIGURATIONS, "-tr", PGCD, "-p", plans, "-f", "0", "1", "-np", "1"]
    assert main(["nnunet", "find_best_configuration", *what]) == 0
    results, dice = tmp_path / "nnunet" / "results" / DATASET, {}
    assert (results / "cil_references").exists() == (step.label_offset > 0)
    for configuration in CONFIGURATIONS:
        merged = results / f"{PGCD}__{plans}__{configuration}" / "crossval_results_folds_0_1"
        dice[configuration] = their_dice(merged / "summary.json", step)
        assert dice[configuration] == pytest.approx(counted_dice(toy, merged, step), abs=1e-6)
    assert min(dice["3d_fullres"].values()) > 0.4
    assert len({round(d, 6) for own in dice.values() for d in own.values()}) == 6
    (ensemble,) = (results / "ensembles").iterdir()
    for case in FOLDS[0]:
        one, other = (masks_of(toy, case, step, shift) for shift in (0, 1))
        agreed = {name: one[name] & other[name] for name in one}
        assert np.array_equal(read(ensemble / f"{case}.nii.gz"), painted(agreed, step))
    assert their_dice(ensemble / "summary.json", step) == pytest.approx(counted_dice(toy, ensemble, step), abs=1e-6)

    best = json.loads((results / "inference_information.json").read_text())["best_model_or_ensemble"]
    assert best["selected_model_or_models"][0]["configuration"] == "3d_fullres"
    source, applied = Path(best["postprocessing_file"]).parent, tmp_path / "applied"
    how = ["-pp_pkl_file", best["postprocessing_file"], "-np", "1"]
    nnunet("nnUNetv2_apply_postprocessing", ["-i", str(source), "-o", str(applied), *how])
    before, after = (np.mean(list(counted_dice(toy, folder, step).values())) for folder in (source, applied))
    assert best["result_on_crossval_pre_pp"] == pytest.approx(before, abs=1e-6)
    assert best["result_on_crossval_post_pp"] == pytest.approx(after, abs=1e-6)
    assert after > before


def evaluated(references, predictions, model, *more):
    """Runs evaluate_folder; returns its status, or region -> mean Dice."""
    files = ["-djfile", str(model / "dataset.json"), "-pfile", str(model / "plans.json"), "-np", "1", *map(str, more)]
    if status := main(["nnunet", "evaluate_folder", str(references), str(predictions), *files]):
        return status
    return {
        key: scores["Dice"] for key, scores in json.loads((predictions / "summary.json").read_text())["mean"].items()
    }


@pytest.fixture
def folders(model, toy, tmp_path):
    """Returns the data set's references of two cases, predictions of these, and the model's folder."""
    plans = model[1]
    folder = tmp_path / "nnunet" / "results" / DATASET / f"{PGCD}__{plans}__3d_fullres"
    (tmp_path / "references").mkdir()
    for case in FOLDS[0]:
        file = toy / "gt_segmentations" / f"{case}.nii.gz"
        (tmp_path / "references" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "references", folder / "fold_0" / "validation", folder


def counted(folders, step, names):
    """Returns region -> mean Dice over the predictions, counted from the files."""
    references, predictions, _ = folders
    found = {}
    for name in names:
        pairs = [
            (np.isin(read(f), LABELS[name]), np.isin(read(predictions / f.name), step.labels[name]))
            for f in references.iterdir()
        ]
        found[str(step.labels[name])] = np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])
    return found


@pytest.mark.parametrize("model", list(MODELS)[1:], indirect=True)
def test_a_folder_is_evaluated_by_the_names_of_its_regions(model, folders, nnunet, tmp_path, capsys):
    step = model[0]
    assert evaluated(*folders) == pytest.approx(counted(folders, step, step.model_classes), abs=1e-6)
    assert (folders[1] / "cil_references").exists() == (step.label_offset > 0)

    table = np.array([0, 5, 7, 6, 3], np.uint8)  # other numbers, and no name for the cyst, which has one of the whole's
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folders[0].iterdir():
        write(table[read(file)], moved / file.name)
    labels = tmp_path / "labels.json"
    labels.write_text(
        json.dumps(
            dataset_json({"background": 0, "core": [6, 7], "whole": [5, 6, 7], "other": 3})
            | {"regions_class_order": [6, 5, 3]}
        )
    )
    found = evaluated(moved, *folders[1:], "-labels_json", labels)
    assert found == pytest.approx(counted(folders, step, ("whole", "core")), abs=1e-6)
    assert "the references do not label 'cyst'; nnU-Net scores the others" in capsys.readouterr().out


@pytest.mark.parametrize("model", list(MODELS)[1:2], indirect=True)
def test_regions_that_no_number_of_the_model_stands_for_are_refused(model, folders, nnunet, tmp_path, capsys):
    labels = tmp_path / "labels.json"
    content = dataset_json({"background": 0, "whole": [1, 2], "core": [2, 3], "cyst": 4})
    labels.write_text(json.dumps(content | {"regions_class_order": ORDER}))
    assert evaluated(*folders, "-labels_json", labels) == 1
    assert (
        "label 3 belongs to core and to no other region, for which the model has no number" in capsys.readouterr().err
    )
    assert not (folders[1] / "cil_references").exists()


@pytest.mark.parametrize("model", list(MODELS)[1:2], indirect=True)
def test_regions_in_other_channels_are_not_averaged(model, folders, nnunet, tmp_path, capsys):
    content = json.loads((folders[2] / "dataset.json").read_text())
    moved = {name: content["labels"][name] for name in ("background", "core", "whole", "cyst")}
    others = {
        "same": content,
        "channels": content | {"labels": moved, "regions_class_order": [2, 1, 4]},
        "painted": content | {"regions_class_order": [1, 3, 4]},
    }
    for name, own in others.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.json").write_text(json.dumps(own))
    for name in ("channels", "painted"):
        assert (
            main(["nnunet", "ensemble", "-i", str(tmp_path / "same"), str(tmp_path / name), "-o", str(tmp_path / "o")])
            == 1
        )
        assert "nnU-Net averages by number" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
