"""nnU-Net's own tools on the models of a step: their numbers are ours, whatever the order of learning."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.evaluation.evaluate_predictions import load_summary_json
from toy import DATASET, LABELS, write_schedule
from toy_models import PGCD, write

from nnunet_cil.cli.main import main
from nnunet_cil.errors import CILError
from nnunet_cil.workflows.evaluate.evaluate import evaluate
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.plan.plan import plan
from nnunet_cil.workflows.tools.compared_models import refuse_partial_labels

ORDERS = {"as in the data set": (["liver"], ["spleen"]), "reversed": (["kidney"], ["liver"])}


def arguments(plans, *, configurations=("3d_fullres", "2d"), trainer=PGCD):
    return ["17", "-c", *configurations, "-tr", trainer, "-p", plans, "-f", "0", "1"]


def our_dice(tmp_path, configuration):
    """Returns (case, class) -> Dice of the last step's model, as ``evaluate`` has it, over both folds."""
    experiment = Experiment(
        dataset=DATASET,
        configuration=configuration,
        folds=(0, 1),
        schedule_name=str(tmp_path / "toy.json"),
        trainers=(PGCD,),
    )
    found = evaluate(experiment, EvaluationOptions(cases="validation", output=tmp_path / configuration, device="cpu"))
    with (found.folder / "per_case.csv").open() as file:
        return {(r["case"], r["class"]): float(r["dice"]) for r in csv.DictReader(file) if r["step"] == "1"}


def their_dice(summary, classes):
    """Returns (case, class) -> Dice out of nnU-Net's summary, whose numbers are the order of ``classes``."""
    content = load_summary_json(str(summary))
    return {
        (Path(case["prediction_file"]).name.removesuffix(".nii.gz"), classes[number - 1]): scores["Dice"]
        for case in content["metric_per_case"]
        for number, scores in case["metrics"].items()
    }


@pytest.mark.parametrize("order", ORDERS)
def test_cross_validation_ensemble_and_postprocessing_have_our_numbers(models, nnunet, tmp_path, order, capsys):
    steps = ORDERS[order]
    classes, plans = [name for step in steps for name in step], models(steps)[1]
    assert main(["nnunet", "find_best_configuration", *arguments(plans), "-np", "1"]) == 0
    results = tmp_path / "nnunet" / "results" / DATASET
    assert (results / "cil_references").exists() == (order == "reversed")
    for configuration in ("3d_fullres", "2d"):
        merged = results / f"{PGCD}__{plans}__{configuration}" / "crossval_results_folds_0_1"
        ours, theirs = our_dice(tmp_path, configuration), their_dice(merged / "summary.json", classes)
        assert theirs == pytest.approx(ours, abs=1e-6)
        assert len(set(ours.values())) > 2
        mean = np.mean([np.mean([ours[case, name] for case, own in ours if own == name]) for name in classes])
        found = load_summary_json(str(merged / "summary.json"))["foreground_mean"]["Dice"]
        assert found == pytest.approx(mean, abs=1e-6)
    (ensemble,) = (results / "ensembles").iterdir()
    assert their_dice(ensemble / "summary.json", classes) == pytest.approx(our_dice(tmp_path, "2d"), abs=1e-6)
    information = json.loads((results / "inference_information.json").read_text())
    best = information["best_model_or_ensemble"]
    assert best["selected_model_or_models"] == [
        {"configuration": "3d_fullres", "trainer": PGCD, "plans_identifier": plans}
    ]
    assert best["result_on_crossval_post_pp"] > best["result_on_crossval_pre_pp"]
    source = Path(best["postprocessing_file"]).parent
    applied = [
        "-i",
        str(source),
        "-o",
        str(tmp_path / "applied"),
        "-pp_pkl_file",
        best["postprocessing_file"],
        "-np",
        "1",
    ]
    nnunet("nnUNetv2_apply_postprocessing", applied)
    for name in ("case_0", "case_4"):
        before, after = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(f / f"{name}.nii.gz"))) for f in (source, tmp_path / "applied")
        )
        assert before[-1, -1, -2:].tolist() == [2, 1]
        assert after[-1, -1, -2:].tolist() == [0, 0]
        assert (before != after).sum() == 2


def test_plain_nnunet_compares_other_classes_where_the_order_is_another(models, nnunet, tmp_path):
    plans, folder = models(ORDERS["reversed"])[1], tmp_path / "plain"
    what = ["17", "-c", "3d_fullres", "-tr", PGCD, "-p", plans, "-f", "0", "1"]
    nnunet("nnUNetv2_accumulate_crossval_results", [*what, "-o", str(folder)])
    wrong = their_dice(folder / "summary.json", ["kidney", "liver"])
    assert main(["nnunet", "accumulate_crossval_results", *what, "-o", str(tmp_path / "right")]) == 0
    right = their_dice(tmp_path / "right" / "summary.json", ["kidney", "liver"])
    assert right == pytest.approx(our_dice(tmp_path, "3d_fullres"), abs=1e-6)
    assert max(wrong.values()) < 0.1 < min(right.values())


def write_cases(folder, numbers):
    """Writes labels of two cases with the toy's liver and kidney under other numbers; returns the folder."""
    folder.mkdir()
    for case in range(2):
        labels = np.zeros((8, 8, 8), np.uint8)
        labels[:4, :4, : 3 + case] = numbers.get("liver", 0)
        labels[4:, 4:, : 5 + case] = numbers.get("kidney", 0)
        write(labels, folder / f"t{case}.nii.gz")
    return folder


def evaluated(folders, *more):
    """Runs evaluate_folder; returns class number -> mean Dice."""
    references, predictions, model = folders
    files = ["-djfile", str(model / "dataset.json"), "-pfile", str(model / "plans.json")]
    status = main(["nnunet", "evaluate_folder", str(references), str(predictions), *files, "-np", "1", *map(str, more)])
    if status:
        return status
    return {
        number: scores["Dice"] for number, scores in load_summary_json(f"{predictions}/summary.json")["mean"].items()
    }


@pytest.fixture
def folders(models, tmp_path):
    """Returns references in the data set's numbers, equal predictions in those of the model, and the model's folder."""
    plans = models(ORDERS["reversed"], configurations=("3d_fullres",))[1]
    references = write_cases(tmp_path / "references", LABELS)
    predictions = write_cases(tmp_path / "predictions", {"kidney": 1, "liver": 2})
    return references, predictions, tmp_path / "nnunet" / "results" / DATASET / f"{PGCD}__{plans}__3d_fullres"


def test_a_folder_is_evaluated_by_name(folders, nnunet):
    assert evaluated(folders) == {1: 1, 2: 1}


def test_references_of_another_data_set_are_evaluated_by_its_own_numbers(folders, nnunet, tmp_path, capsys):
    (tmp_path / "other.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "MR"},
                "labels": {"background": 0, "bone": 1, "kidney": 2},
                "file_ending": ".nii.gz",
            }
        )
    )
    other = write_cases(tmp_path / "other", {"liver": 1, "kidney": 2})
    assert evaluated((other, *folders[1:]), "-labels_json", tmp_path / "other.json") == {1: 1}
    assert "Note: the references do not label 'liver'; nnU-Net scores the others." in capsys.readouterr().out


@pytest.mark.parametrize(("liver", "status"), [([1, 2], 0), ([1, 3], 1)])
def test_references_of_regions_are_taken_where_these_do_not_overlap(folders, nnunet, tmp_path, capsys, liver, status):
    labels = {"background": 0, "liver": liver, "kidney": 3}
    content = {"channel_names": {"0": "MR"}, "labels": labels, "regions_class_order": [1, 3], "file_ending": ".nii.gz"}
    (tmp_path / "regions.json").write_text(json.dumps(content))
    other = write_cases(tmp_path / "regions", {"liver": 1, "kidney": 3})
    found = evaluated((other, *folders[1:]), "-labels_json", tmp_path / "regions.json")
    assert found == (1 if status else {1: 1, 2: 1})
    assert ("label 3 is both kidney and liver" in capsys.readouterr().err) == bool(status)


def test_postprocessing_is_determined_by_name(folders, nnunet, capsys):
    references, predictions, model = folders
    for name in ("plans.json", "dataset.json"):
        (predictions / name).write_bytes((model / name).read_bytes())
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(predictions / "t0.nii.gz")))
    labels[0, -1, -1] = 2
    write(labels, predictions / "t0.nii.gz")
    assert (
        main(["nnunet", "determine_postprocessing", "-i", str(predictions), "-ref", str(references), "-np", "1"]) == 0
    )
    found = json.loads((predictions / "postprocessing.json").read_text())
    assert [kwargs["labels_or_regions"] for kwargs in found["postprocessing_kwargs"]] == [[1, 2]]
    assert found["input_folder"]["foreground_mean"]["Dice"] < found["postprocessed"]["foreground_mean"]["Dice"] == 1


def test_what_no_numbers_make_right_is_refused_before_anything_is_written(folders, nnunet, capsys, tmp_path):
    references, predictions, model = folders
    before = sorted(tmp_path.rglob("*"))
    strange = references / "t1.nii.gz"
    content = strange.read_bytes()
    strange.unlink()
    assert evaluated(folders) == 1
    assert "lacks the references 't1.nii.gz'. Restore them." in capsys.readouterr().err
    strange.write_bytes(content)
    (predictions / "t0.nii.gz").rename(tmp_path / "t0.nii.gz")
    assert evaluated(folders) == 1
    assert "lacks 't0.nii.gz'. Predict them, or add --chill." in capsys.readouterr().err
    (tmp_path / "t0.nii.gz").rename(predictions / "t0.nii.gz")
    data_set = tmp_path / "nnunet" / "preprocessed" / DATASET / "dataset.json"
    files = ["-djfile", str(data_set), "-pfile", str(model / "plans.json")]
    assert main(["nnunet", "evaluate_folder", str(references), str(predictions), *files]) == 1
    assert "does not number the classes as the predictions do" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_models_that_number_their_classes_differently_are_not_compared(models, nnunet, capsys, tmp_path):
    names = [models(ORDERS["reversed"])[1], models([["liver"], ["kidney"]], name="other")[1]]
    both = ["17", "-c", "2d", "-tr", PGCD, "-p", *names, "-f", "0", "1"]
    assert main(["nnunet", "find_best_configuration", *both]) == 1
    assert "numbers its classes kidney, liver, but" in capsys.readouterr().err
    results = tmp_path / "nnunet" / "results" / DATASET
    folders = [str(results / f"{PGCD}__{name}__2d") for name in names]
    assert main(["nnunet", "ensemble", "-i", *folders, "-o", str(tmp_path / "merged")]) == 1
    assert "nnU-Net averages by number" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()
    assert not (results / "ensembles").exists()


def test_an_ensemble_without_probabilities_or_of_other_cases_is_refused(nnunet, tmp_path, capsys):
    folders = [write_cases(tmp_path / name, {"liver": 1}) for name in "ab"]
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
    for folder in folders:
        (folder / "dataset.json").write_text(json.dumps(content))
    command = ["nnunet", "ensemble", "-i", *map(str, folders), "-o", str(tmp_path / "merged")]
    assert main(command) == 1
    assert f"{folders[0]} holds no probabilities (CASE.npz)" in capsys.readouterr().err
    for folder, cases in zip(folders, (("t0", "t1"), ("t0",)), strict=True):
        for case in cases:
            np.savez(folder / f"{case}.npz", probabilities=np.zeros((2, 8, 8, 8), np.float32))
    assert main(command) == 1
    told = f"{folders[1]} holds no probabilities of 't1', which another folder has. Predict again with --save_probabilities."
    assert told in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_a_fold_without_validation_or_probabilities_is_named_with_the_command_that_makes_them(
    models, nnunet, capsys, tmp_path
):
    plans = models(ORDERS["reversed"])[1]
    fold = tmp_path / "nnunet" / "results" / DATASET / f"{PGCD}__{plans}__2d" / "fold_1"
    (fold / "validation" / "case_1.npz").unlink()
    command = f"nnUNetv2_train {DATASET} 2d 1 -tr {PGCD} -p {plans} --val --npz"
    assert main(["nnunet", "find_best_configuration", *arguments(plans)]) == 1
    assert f"no probabilities of 'case_1', which ensembles need. Run '{command}', or" in capsys.readouterr().err
    (fold / "validation" / "predicted_from.json").unlink()
    assert main(["nnunet", "find_best_configuration", *arguments(plans)]) == 1
    assert f"Run '{command}'." in capsys.readouterr().err
    assert main(["nnunet", "find_best_configuration", *arguments(plans, trainer="nnUNetTrainerMiB")]) == 1
    assert "Train it in all folds, or name the models with -tr, -c and -p." in capsys.readouterr().err


def test_labels_that_do_not_show_every_class_in_every_case_are_refused(toy, tmp_path):
    step = plan(DATASET, write_schedule(tmp_path, ORDERS["reversed"]))[1].plan
    refuse_partial_labels(step, DATASET)
    for changed, what in (
        ({"labelled": {"case_0": ("liver",)}}, "the labels of 1 cases do not show all of them"),
        ({"dataset_labels": {"background": 0, "liver": 1}}, "Dataset017_Toy has no labels of 'kidney'"),
    ):
        with pytest.raises(CILError, match=f"{what}. Score with 'nnunet_cil evaluate'"):
            refuse_partial_labels(replace(step, **changed), DATASET)
