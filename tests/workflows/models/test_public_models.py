"""Models as they are published: TotalSegmentator's folders after its download, nnU-Net's archives, plans of each version.

The layouts are those of the public releases; the networks are tiny, and no published weights are used.
"""

import copy
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from toy import SHORT, base_plans, make_raw, preprocess, set_environment, train

from nnunet_cil.errors import CILError
from nnunet_cil.host.networks import plain_network
from nnunet_cil.workflows.models.export import export
from nnunet_cil.workflows.models.extend import plan_extension
from nnunet_cil.workflows.models.extension import ExtendOptions
from nnunet_cil.workflows.models.info import describe
from nnunet_cil.workflows.models.trained_model import read_model

ORGANS = ("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas")
"""The first of part 1's 24 classes."""
PARTS = {
    "Dataset291_TotalSegmentator_part1_organs_1559subj": 24,
    "Dataset292_TotalSegmentator_part2_vertebrae_1532subj": 26,
    "Dataset293_TotalSegmentator_part3_cardiac_1559subj": 18,
    "Dataset294_TotalSegmentator_part4_muscles_1559subj": 23,
    "Dataset295_TotalSegmentator_part5_ribs_1559subj": 26,
    "Dataset297_TotalSegmentator_total_3mm_1559subj": 117,
}
NO_MIRRORING, LONG = "nnUNetTrainerNoMirroring", "nnUNetTrainer_4000epochs_NoMirroring"
UNKNOWN = "nnUNetTrainer_2000epochs_OurHospital"
"""A trainer class that is not installed."""
NEW = "Dataset021_Cyst"


def early(configuration):
    """A configuration as nnU-Net 2.0 to 2.3 described its network."""
    arguments = configuration.pop("architecture")["arch_kwargs"]
    blocks = "n_blocks_per_stage" in arguments
    return configuration | {
        "UNet_class_name": "ResidualEncoderUNet" if blocks else "PlainConvUNet",
        "UNet_base_num_features": arguments["features_per_stage"][0],
        "n_conv_per_stage_encoder": arguments["n_blocks_per_stage" if blocks else "n_conv_per_stage"],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [2] * len(configuration["patch_size"]),
        "pool_op_kernel_sizes": arguments["strides"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
        "unet_max_num_features": max(arguments["features_per_stage"]),
    }


def plans_of(dataset, *, name="nnUNetPlans", version="2.0", spacing=1.0, architecture="PlainConvUNet", **changed):
    """Plans of a version of nnU-Net, with a tiny network."""
    plans = copy.deepcopy(base_plans(architecture=architecture, name=name)) | {"dataset_name": dataset} | changed
    for key, configuration in plans["configurations"].items():
        if "architecture" not in configuration:
            continue
        if version == "2.0":
            configuration = early(configuration)
        scheme = {"normalization_schemes": ["CTNormalization"], "spacing": [spacing] * len(configuration["patch_size"])}
        plans["configurations"][key] = {**configuration, **scheme, "data_identifier": f"{name}_{key}"}
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    if version == "2.0 beta":
        plans["foreground_intensity_properties_by_modality"] = plans.pop("foreground_intensity_properties_per_channel")
    return plans


def publish(folder, plans, labels, trainer=NO_MIRRORING, *, folds=(0,), mirrored=None, **dataset_json):
    """Writes a model folder as nnU-Net trained it, without the files that are taken out before it is published."""
    described = {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": 1559,
        "file_ending": ".nii.gz",
    } | dataset_json
    model = folder / f"{trainer}__{plans['plans_name']}__3d_fullres"
    torch.manual_seed(0)
    network = plain_network(plans, described, "3d_fullres").state_dict()
    weights = {key: torch.randn(tensor.shape) * 0.1 for key, tensor in network.items()}
    for fold in folds:
        (model / f"fold_{fold}").mkdir(parents=True)
        content = {
            "network_weights": weights,
            "optimizer_state": {"state": {}, "param_groups": []},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.8)], "lrs": [0.01], "epoch_end_timestamps": [1.0]},
            "_best_ema": np.float64(0.8),
            "current_epoch": 4000,
            "init_args": {
                **{"plans": plans, "configuration": "3d_fullres", "fold": fold, "unpack_dataset": True},
                **{"dataset_json": described, "device": torch.device("cuda")},
            },
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": mirrored,
        }
        torch.save(content, model / f"fold_{fold}" / "checkpoint_final.pth")
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(described))
    (model / "dataset_fingerprint.json").write_text("{}")
    return model


def classes(number):
    names = [*ORGANS, *(f"organ_{i}" for i in range(number))][:number]
    return {"background": 0, **{name: i for i, name in enumerate(names, start=1)}}


def total_segmentator(results, dataset, trainer=NO_MIRRORING, **changed):
    """A part of TotalSegmentator 2, as it lies in ``~/.totalsegmentator/nnunet/results``."""
    plans = plans_of(dataset, spacing=1.5, image_reader_writer="NibabelIOWithReorient", **changed)
    described = {
        **{
            "name": "TotalSegmentator",
            "description": "Segmentation of TotalSegmentator classes",
            "licence": "Apache 2.0",
        },
        **{"release": "2.0", "overwrite_image_reader_writer": "NibabelIOWithReorient"},
    }
    return publish(results / dataset, plans, classes(PARTS.get(dataset, 24)), trainer, **described)


@pytest.fixture
def results(tmp_path):
    return tmp_path / "home" / ".totalsegmentator" / "nnunet" / "results"


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A data set with one organ of one's own; extensions are planned."""
    make_raw(tmp_path / "nnunet", NEW, {"background": 0, "cyst": 1}, channel="CT", spacing=1.5)
    for folder in ("preprocessed", "results"):
        (tmp_path / "nnunet" / folder).mkdir()
    set_environment(monkeypatch, tmp_path / "nnunet")
    return lambda model: plan_extension(model, 21, ExtendOptions(force=True))


def predicts_with_plain_nnunet(model):
    """The network that nnU-Net's predictor builds from a model folder, and the axes that it mirrors."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), verbose=False)
    predictor.initialize_from_trained_model_folder(str(model), use_folds=None)
    return predictor


def check_all(model, planned, tmp_path, *, mirror_axes):
    """Info, export and extend; plain nnU-Net predicts with what was exported."""
    found = read_model(model)
    assert f"trainer {found.trainer}, configuration 3d_fullres" in describe(model)
    extension = planned(model)
    content = json.loads(extension.file.read_text())
    assert extension.plan.steps == (found.classes, ("cyst",))
    assert content["cil"]["previous"]["folder"] == str(model)
    assert content["configurations"]["3d_fullres"]["spacing"] == found.settings["spacing"]
    assert content["image_reader_writer"] == found.plans["image_reader_writer"]
    assert content["cil"]["training"].get("mirror_axes") == mirror_axes
    exported = export(model, tmp_path / "exported")
    assert exported.name.startswith("nnUNetTrainer__")
    predictor = predicts_with_plain_nnunet(exported)
    assert len(predictor.list_of_parameters) == len(found.folds)
    assert predictor.allowed_mirroring_axes == (found.mirror_axes or None)
    return found, extension


@pytest.mark.parametrize(
    ("dataset", "trainer"),
    [
        ("Dataset291_TotalSegmentator_part1_organs_1559subj", NO_MIRRORING),
        ("Dataset292_TotalSegmentator_part2_vertebrae_1532subj", NO_MIRRORING),
        ("Dataset297_TotalSegmentator_total_3mm_1559subj", LONG),
        ("Dataset295_TotalSegmentator_part5_ribs_1559subj", UNKNOWN),
    ],
)
def test_a_part_of_totalsegmentator_is_read_extended_and_exported(results, planned, tmp_path, dataset, trainer):
    model = total_segmentator(results, dataset, trainer)
    found, extension = check_all(model, planned, tmp_path, mirror_axes=[])
    assert len(found.classes) == PARTS[dataset]
    assert found.trainer == trainer
    assert extension.plans_name == f"nnUNetPlansFrom{dataset[7:10]}_cyst_step1"


VERSIONS = {
    "2.0 beta, two channels of properties": {"version": "2.0 beta"},
    "2.0": {"version": "2.0"},
    "2.0, residual encoder": {"version": "2.0", "architecture": "ResidualEncoderUNet"},
    "2.5": {"version": "2.5"},
    "2.5, ResEnc L": {"version": "2.5", "architecture": "ResidualEncoderUNet", "name": "nnUNetResEncUNetLPlans"},
}


@pytest.mark.parametrize("which", VERSIONS)
def test_plans_of_every_version_of_nnunet_are_read_extended_and_exported(planned, tmp_path, which):
    dataset = "Dataset220_KiTS2023"
    plans = plans_of(dataset, **VERSIONS[which])
    labels = {"background": 0, "kidney": 1, "tumor": 2}
    model = publish(tmp_path / dataset, plans, labels, "nnUNetTrainer", folds=range(3), mirrored=(0, 1, 2))
    (model / "crossval_results_folds_0_1_2").mkdir()
    (model / "crossval_results_folds_0_1_2" / "postprocessing.json").write_text("{}")
    _, extension = check_all(model, planned, tmp_path, mirror_axes=None)
    assert extension.folds == ("0", "1", "2")


def test_a_dataset_json_that_says_modality_is_read(planned, tmp_path):
    plans = plans_of("Dataset220_KiTS2023")
    model = publish(tmp_path / "m", plans, classes(2), "nnUNetTrainer")
    described = json.loads((model / "dataset.json").read_text())
    described["modality"] = described.pop("channel_names")
    (model / "dataset.json").write_text(json.dumps(described))
    assert planned(model).plan.steps[1] == ("cyst",)


@pytest.mark.slow
def test_an_organ_is_added_to_a_trainer_that_is_not_installed_and_plain_nnunet_predicts(results, tmp_path, monkeypatch):
    """Trains a step for two epochs; the export is predicted with by nnU-Net alone, without the plug-in's trainers."""
    root = tmp_path / "nnunet"
    raw = make_raw(root, NEW, {"background": 0, "cyst": 1}, channel="CT", spacing=1.5)
    for folder in ("preprocessed", "results"):
        (root / folder).mkdir()
    set_environment(monkeypatch, root)
    model = total_segmentator(results, "Dataset291_TotalSegmentator_part1_organs_1559subj", UNKNOWN)
    training = {name: value for name, value in SHORT.items() if name != "mirror_axes"}
    extension = plan_extension(model, 21, ExtendOptions(force=True, training=training))
    preprocess(root / "preprocessed" / NEW, extension.plans_name)
    (root / "preprocessed" / NEW / "dataset_fingerprint.json").write_text("{}")
    trained = train("nnUNetTrainerPGCD", extension.plans_name, dataset=NEW)
    assert trained.inference_allowed_mirroring_axes in (None, (), [])
    exported = export(Path(trained.output_folder_base), tmp_path / "exported")
    monkeypatch.delenv("nnUNet_extTrainer")
    predictor = predicts_with_plain_nnunet(exported)
    images = [[str(raw / "imagesTr" / "new_0_0000.nii.gz")]]
    predictor.predict_from_files_sequential(images, [str(tmp_path / "new_0")], overwrite=True)
    predicted = sitk.ReadImage(str(tmp_path / "new_0.nii.gz"))
    assert predicted.GetSize() == (24, 22, 20)
    labels = json.loads((exported / "dataset.json").read_text())["labels"]
    assert labels == {**classes(24), "cyst": 25}
    lineage = json.loads((exported / "dataset.json").read_text())["nnunet_cil"]["lineage"]["fold_0"]
    assert [record["trainer"] for record in lineage] == [UNKNOWN, "nnUNetTrainerPGCD"]


# --- what is given instead of a model's folder --------------------------------------------------------------


def refused(model, *parts):
    """Every command names what to give instead."""
    for call in (read_model, describe, lambda m: export(m, m.parent / "o")):
        with pytest.raises(CILError) as error:
            call(model)
        for part in parts:
            assert str(part) in str(error.value)


def test_the_folder_above_a_model_names_the_model(results):
    model = total_segmentator(results, "Dataset291_TotalSegmentator_part1_organs_1559subj")
    refused(model.parent, f"Give the model's own folder, {model}.")
    doubled = results / "again" / model.parent.name / model.parent.name
    shutil.move(model.parent, doubled)
    refused(doubled.parent, f"Give the model's own folder, {doubled / model.name}.")


def test_two_models_of_one_configuration_are_both_named(results):
    """TotalSegmentator 3 has a larger and a smaller model in each data set."""
    dataset = "Dataset831_TotalSegmentator_part1_organs_1830subj"
    models = [total_segmentator(results, dataset, name=name) for name in ("nnUNetPlans", "nnUNetResEncUNetLPlans_8")]
    refused(models[0].parent, "holds 2 models", *(model.name for model in models))
    assert read_model(models[1]).classes


def test_the_folder_of_all_parts_names_some(results):
    for dataset in list(PARTS)[:2]:
        total_segmentator(results, dataset)
    refused(results, "holds 2 models", "Dataset292_TotalSegmentator_part2_vertebrae_1532subj")


def test_an_archive_is_to_be_unpacked(results, tmp_path):
    model = total_segmentator(results, "Dataset291_TotalSegmentator_part1_organs_1559subj")
    archive = tmp_path / "Dataset291_TotalSegmentator_part1_organs_1559subj.zip"
    with zipfile.ZipFile(archive, "w") as content:
        for file in model.rglob("*.json"):
            content.write(file, file.relative_to(results))
    refused(archive, f"{archive} is an archive", f"nnUNetv2_install_pretrained_model_from_zip {archive}")


def test_models_of_nnunet_1_are_still_told_apart(tmp_path):
    model = (
        tmp_path / "Task251_TotalSegmentator_part1_organs_1139subj" / "nnUNetTrainerV2_ep4000_nomirror__nnUNetPlansv2.1"
    )
    (model / "fold_0").mkdir(parents=True)
    (model / "plans.pkl").touch()
    (model / "fold_0" / "model_final_checkpoint.model.pkl").touch()
    with pytest.raises(CILError, match="is a model of nnU-Net v1"):
        read_model(model)
