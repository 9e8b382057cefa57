"""Two steps from raw data to the report, in each format that nnU-Net reads in another way than NIfTI."""

import csv
import json
import math
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from skimage import io
from toy import DATASET, LABELS, ORGANS, base_plans, set_environment, toy_volume, train, write_schedule

from nnunet_cil.cli import main
from nnunet_cil.nnunet_files import FINAL_CHECKPOINT
from nnunet_cil.predicted_from import PredictedFrom
from nnunet_cil.workflows.evaluate import predict as predicting

TRAINER = "nnUNetTrainerPGCD"
STEPS = ({"classes": ["kidney", "liver"]}, {"classes": ["cyst", "spleen"]})
"""Not in the order of the labels."""

ONCE = {"num_epochs": 1, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1, "mirror_axes": []}
CASES = [f"c{i}" for i in range(6)]
TOLERANCE = 3.0


def write_plane(folder, name, image, labels):
    """Colours, and all organs in one plane."""
    colours = np.clip(60 * (np.maximum(image[4], image[14]) + 1), 0, 255).astype(np.uint8)
    io.imsave(folder[0] / f"{name}_0000.png", np.stack([colours, 255 - colours, colours // 2], axis=-1))
    io.imsave(folder[1] / f"{name}.png", np.maximum(labels[4], labels[14]), check_contrast=False)


def write_tiff(folder, name, image, labels):
    for directory, file, array in zip(folder, (f"{name}_0000.tif", f"{name}.tif"), (image, labels), strict=True):
        tifffile.imwrite(directory / file, array, photometric="minisblack")
        (directory / f"{name}.json").write_text(json.dumps({"spacing": [4, 1.5, 1.5]}))


def write_sheared(folder, name, image, labels):
    affine = np.diag([-1.2, -1.2, 3.0, 1.0])
    affine[:3, 2] += 0.1, -0.05, 0
    for directory, file, array in zip(folder, (f"{name}_0000.nii.gz", f"{name}.nii.gz"), (image, labels), strict=True):
        nibabel.save(nibabel.Nifti1Image(array.T, affine), directory / file)


def write_nrrd(folder, name, image, labels):
    for directory, file, array in zip(folder, (f"{name}_0000.nrrd", f"{name}.nrrd"), (image, labels), strict=True):
        picture = sitk.GetImageFromArray(array)
        picture.SetSpacing((0.7, 0.7, 2.5))
        picture.SetOrigin((12.0, -40.0, 7.0))
        sitk.WriteImage(picture, str(directory / file))


FORMATS = {
    "png": SimpleNamespace(
        write=write_plane, ending=".png", reader="NaturalImage2DIO", channels=3, spacing=(999, 1, 1), unit="voxels"
    ),
    "tif": SimpleNamespace(
        write=write_tiff, ending=".tif", reader="Tiff3DIO", channels=1, spacing=(4.0, 1.5, 1.5), unit="mm"
    ),
    "sheared": SimpleNamespace(
        write=write_sheared, ending=".nii.gz", reader="NibabelIO", channels=1, spacing=(3.0020826, 1.2, 1.2), unit="mm"
    ),
    "nrrd": SimpleNamespace(
        write=write_nrrd, ending=".nrrd", reader="SimpleITKIO", channels=1, spacing=(2.5, 0.7, 0.7), unit="mm"
    ),
}


def make_raw(raw, form):
    for part, seeds in (("Tr", range(6)), ("Ts", range(50, 52))):
        folders = raw / f"images{part}", raw / f"labels{part}"
        for folder in folders:
            folder.mkdir(parents=True)
        for i, seed in enumerate(seeds):
            form.write(folders, f"{'c' if part == 'Tr' else 't'}{i}", *toy_volume(seed))
    content = {
        "channel_names": {str(c): f"channel {c}" for c in range(form.channels)},
        "labels": LABELS,
        "numTraining": 6,
        "file_ending": form.ending,
        **({"overwrite_image_reader_writer": form.reader} if form.ending == ".tif" else {}),
    }
    (raw / "dataset.json").write_text(json.dumps(content))


def preprocess(root, form, configuration):
    """Leaves what nnUNetv2_plan_and_preprocess leaves, with a tiny network."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    raw, pre = root / "raw" / DATASET, root / "preprocessed" / DATASET
    plans = base_plans()
    properties = plans["foreground_intensity_properties_per_channel"]["0"]
    plans |= {
        "image_reader_writer": form.reader,
        "original_median_spacing_after_transp": list(form.spacing),
        "foreground_intensity_properties_per_channel": {str(c): properties for c in range(form.channels)},
    }
    settings = plans["configurations"][configuration]
    plans["configurations"] = {configuration: settings}
    settings["spacing"] = list(form.spacing)[-len(settings["spacing"]) :]
    settings["normalization_schemes"] *= form.channels
    settings["use_mask_for_norm"] *= form.channels
    (pre / "gt_segmentations").mkdir(parents=True)
    shutil.copy(raw / "dataset.json", pre)
    (pre / "nnUNetPlans.json").write_text(json.dumps(plans))
    (pre / "dataset_fingerprint.json").write_text("{}")
    (pre / "splits_final.json").write_text(json.dumps([{"train": CASES[:4], "val": CASES[4:]}]))
    manager = PlansManager(str(pre / "nnUNetPlans.json"))
    target = pre / settings["data_identifier"]
    target.mkdir()
    content = json.loads((raw / "dataset.json").read_text())
    for case, files in get_filenames_of_train_images_and_targets(str(raw)).items():
        shutil.copy(files["label"], pre / "gt_segmentations")  # as nnU-Net does: without a TIFF's spacing
        DefaultPreprocessor(verbose=False).run_case_save(
            str(target / case),
            files["images"],
            files["label"],
            manager,
            manager.get_configuration(configuration),
            content,
        )


@pytest.fixture
def in_this_process(monkeypatch):
    """Lets nnU-Net predict in this process."""

    def predict(arguments, _environment, _log, _number):
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.file_path_utilities import get_output_folder

        option = dict(zip(arguments[::2], arguments[1::2], strict=False))
        predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
        model = get_output_folder(option["-d"], option["-tr"], option["-p"], option["-c"])
        predictor.initialize_from_trained_model_folder(model, (0,), "checkpoint_final.pth")
        predictor.predict_from_files_sequential(option["-i"], option["-o"])

    monkeypatch.setattr(predicting, "predict", predict)


def monai_scores(prediction, reference, spacing):
    """Returns HD95, ASD and surface Dice as MONAI has them."""
    pair = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
    options = {"include_background": True, "spacing": list(spacing)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "hd95_mm": float(compute_hausdorff_distance(*pair, percentile=95, **options)),
            "asd_mm": float(compute_average_surface_distance(*pair, symmetric=True, **options)),
            "nsd": float(compute_surface_dice(*pair, class_thresholds=[TOLERANCE], **options)),
        }


def evaluated(schedule, configuration, output, *more):
    words = [
        DATASET,
        configuration,
        "0",
        str(schedule),
        "-tr",
        TRAINER,
        "-device",
        "cpu",
        "--tolerance",
        str(TOLERANCE),
    ]
    assert main(["evaluate", *words, "-o", str(output), *more]) == 0
    with (output / "per_case.csv").open() as file:
        return list(csv.DictReader(file))


def compare(rows, predictions, references, form, labels):
    """Compares a model's rows with nnU-Net's summary of its predictions, and with MONAI; returns how many distances there are.

    Args:
        labels: of the model, name -> channel.
    """
    reader = recursive_find_reader_writer_by_name(form.reader)()
    numbered = predictions.parent / f"{predictions.name}_references"  # in the model's numbers, for nnU-Net
    numbered.mkdir()
    table = np.zeros(9, dtype=int)
    table[[LABELS[name] for name in labels]] = list(labels.values())
    for file in sorted({f"{row['case']}{form.ending}" for row in rows}):
        array, properties = reader.read_seg(str(references / file))
        reader.write_seg(table[array[0].astype(int)], str(numbered / file), properties)
    channels = [n for n in labels.values() if n]
    summary = compute_metrics_on_folder(str(numbered), str(predictions), None, reader, form.ending, channels, None, 1)
    theirs = {
        Path(c["prediction_file"]).name.removesuffix(form.ending): c["metrics"] for c in summary["metric_per_case"]
    }
    num_distances = 0
    for row in rows:
        channel = labels[row["class"]]
        assert float(row["dice"]) == pytest.approx(theirs[row["case"]][channel]["Dice"], nan_ok=True)
        assert row["unit"] == form.unit
        masks = [
            reader.read_seg(str(f / f"{row['case']}{form.ending}"))[0][0] == channel for f in (predictions, numbered)
        ]
        is_plane = len(masks[0]) == 1
        if math.isnan(float(row["hd95_mm"])):
            assert not all(mask.any() for mask in masks)
            continue
        expected = monai_scores(*(mask[0] if is_plane else mask for mask in masks), form.spacing[is_plane:])
        assert {name: float(row[name]) for name in expected} == pytest.approx(expected, rel=1e-5)
        num_distances += 1
    return num_distances


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_two_steps_are_trained_and_scored_as_nnunet_and_monai_score_them(
    tmp_path, monkeypatch, in_this_process, caplog, request, form
):
    configuration = "2d" if form.ending == ".png" else "3d_fullres"
    for folder in ("raw", "preprocessed", "results"):
        (tmp_path / folder).mkdir()
    set_environment(monkeypatch, tmp_path)
    make_raw(tmp_path / "raw" / DATASET, form)
    preprocess(tmp_path, form, configuration)
    schedule = write_schedule(tmp_path, STEPS, training=ONCE)
    assert main(["plan", DATASET, str(schedule)]) == 0
    models = []
    for step in range(2):
        trainer = train(TRAINER, f"nnUNetPlans_toy_step{step}", configuration=configuration)
        trainer.perform_actual_validation()
        models.append(Path(trainer.output_folder))
    if form.ending == ".tif":  # in the model's numbers, for nnU-Net's validation
        beside = json.loads((models[1] / "validation_labels" / "gt_segmentations" / "c4.json").read_text())
        assert beside == {"spacing": list(form.spacing)}
    labels = [json.loads((model.parent / "dataset.json").read_text())["labels"] for model in models]
    (raw, pre) = (tmp_path / folder / DATASET for folder in ("raw", "preprocessed"))

    rows = evaluated(schedule, configuration, tmp_path / "test")
    assert {row["case"] for row in rows} == {"t0", "t1"}
    for step in range(2):
        predictions = tmp_path / "test" / "predictions" / f"{TRAINER}_step{step}_fold0"
        compare([r for r in rows if r["step"] == str(step)], predictions, raw / "labelsTs", form, labels[step])

    validation = models[1] / "validation"
    own = json.loads((validation / "summary.json").read_text())["mean"]
    reader = recursive_find_reader_writer_by_name(form.reader)()
    rows = evaluated(schedule, configuration, tmp_path / "before", "--cases", "validation")
    for name in ORGANS:
        dice = [float(row["dice"]) for row in rows if (row["step"], row["class"]) == ("1", name)]
        assert np.nanmean(dice) == pytest.approx(own[str(labels[1][name])]["Dice"])

    table = np.zeros(9, dtype=int)  # predictions that are nearly right, so that every class has distances
    table[[LABELS[name] for name in labels[1]]] = list(labels[1].values())
    for case in CASES[4:]:
        reference = reader.read_seg(str(raw / "labelsTr" / f"{case}{form.ending}"))[0][0]
        _, properties = reader.read_seg(str(validation / f"{case}{form.ending}"))
        moved = np.roll(table[reference.astype(int)], (1, 2), axis=(-3 if len(reference) > 1 else -2, -1))
        reader.write_seg(moved, str(validation / f"{case}{form.ending}"), properties)
    predictions = [validation / f"{case}{form.ending}" for case in CASES[4:]]  # as if they had been predicted
    PredictedFrom.by(models[1] / FINAL_CHECKPOINT).write(validation, [validation / "summary.json", *predictions])
    request.getfixturevalue("with_pictures")
    rows = evaluated(schedule, configuration, tmp_path / "after", "--cases", "validation")
    own_rows = [row for row in rows if row["step"] == "1"]
    assert compare(own_rows, validation, pre / "gt_segmentations", form, labels[1]) == 2 * len(ORGANS)
    text = (tmp_path / "after" / "report.html").read_text(encoding="utf-8")
    assert f"HD95 {form.unit}" in text
    assert f"NSD at 3 {form.unit}" in text
