"""Volumes of tens of voxels, preprocessed by nnU-Net itself, and trainers that finish in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.predicted_from import PredictedFrom
from nnunet_cil.training.batch import Batch
from nnunet_cil.training.hyperparameters import Settings
from nnunet_cil.training.methods.pgcd_base import PGCDLoss
from nnunet_cil.training.step_loss import LossSetup

ORGANS = ("liver", "spleen", "kidney", "cyst")
DATASET = "Dataset017_Toy"
NUM_CASES = 6


def toy_volume(seed: int, organs: int = len(ORGANS)) -> tuple[np.ndarray, np.ndarray]:
    """Draws an image and labels 1..organs: boxes of different intensity, on noise."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 0.1, (20, 22, 24)).astype(np.float32)
    labels = np.zeros(image.shape, dtype=np.uint8)
    corners = [(2, 2, 2), (2, 12, 2), (11, 2, 12), (11, 12, 12)]
    for organ in range(organs):
        z, y, x = (c + int(o) for c, o in zip(corners[organ], rng.integers(0, 2, 3), strict=True))
        box = (slice(z, z + 6), slice(y, y + 6), slice(x, x + 6))
        labels[box] = organ + 1
        image[box] += 1 + organ
    return image, labels


def base_plans(*, architecture: str = "PlainConvUNet", name: str = "nnUNetPlans") -> dict:
    """Returns plans as nnU-Net writes them, with a tiny network."""

    def network(dim: int) -> dict:
        convs = "n_conv_per_stage" if architecture == "PlainConvUNet" else "n_blocks_per_stage"
        module = "unet"
        return {
            "network_class_name": f"dynamic_network_architectures.architectures.{module}.{architecture}",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [4, 8, 8],
                "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
                "kernel_sizes": [[3] * dim] * 3,
                "strides": [[1] * dim, [2] * dim, [2] * dim],
                convs: [1, 1, 1],
                "n_conv_per_stage_decoder": [1, 1],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }

    def configuration(dim: int, identifier: str) -> dict:
        resample = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
        return {
            "data_identifier": identifier,
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [16] * dim,
            "median_image_size_in_voxels": [20.0, 22.0, 24.0][-dim:],
            "spacing": [1.0] * dim,
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": resample,
            "resampling_fn_seg_kwargs": {**resample, "is_seg": True},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": resample,
            "batch_dice": False,
            "architecture": network(dim),
        }

    return {
        "dataset_name": DATASET,
        "plans_name": name,
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [20, 22, 24],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": configuration(2, "nnUNetPlans_2d"),
            "3d_lowres": {**configuration(3, "nnUNetPlans_3d_fullres"), "next_stage": "3d_cascade_fullres"},
            "3d_fullres": configuration(3, "nnUNetPlans_3d_fullres"),
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "max": 5.0,
                "mean": 1.0,
                "median": 1.0,
                "min": -1.0,
                "percentile_00_5": 0.0,
                "percentile_99_5": 4.0,
                "std": 1.0,
            }
        },
    }


def set_norm(preprocessed: Path, kind: str) -> None:
    """Gives the networks of the plans a normalisation of another kind: "InstanceNorm" or "BatchNorm"."""
    file = preprocessed / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    for dim, configuration in ((2, "2d"), (3, "3d_fullres"), (3, "3d_lowres")):
        kwargs = plans["configurations"][configuration]["architecture"]["arch_kwargs"]
        kwargs["norm_op"] = f"torch.nn.modules.{kind.lower()}.{kind}{dim}d"
    file.write_text(json.dumps(plans))


def make_dataset(
    root: Path,
    labels: dict[str, int],
    *,
    ignore_slices: int = 0,
    architecture: str = "PlainConvUNet",
    change_labels=lambda labels: labels,
    configurations=("2d", "3d_fullres"),
    **extra,
) -> Path:
    """Writes nnUNet_raw and nnUNet_preprocessed under ``root``; returns the preprocessed data set's folder."""
    raw, pre = root / "raw" / DATASET, root / "preprocessed" / DATASET
    for folder in (raw / "imagesTr", raw / "labelsTr", pre, root / "results"):
        folder.mkdir(parents=True)
    dataset_json = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": NUM_CASES, "file_ending": ".nii.gz"}
    dataset_json |= extra
    plans = base_plans(architecture=architecture)
    for i in range(NUM_CASES):
        image, segmentation = toy_volume(i)
        if ignore_slices:
            segmentation[-ignore_slices:] = labels["ignore"]
        for array, file in (
            (image, raw / "imagesTr" / f"case_{i}_0000.nii.gz"),
            (change_labels(segmentation), raw / "labelsTr" / f"case_{i}.nii.gz"),
        ):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(file))
    for folder in (raw, pre):
        (folder / "dataset.json").write_text(json.dumps(dataset_json))
    (pre / "nnUNetPlans.json").write_text(json.dumps(plans))
    (pre / "dataset_fingerprint.json").write_text("{}")
    cases = [f"case_{i}" for i in range(NUM_CASES)]
    (pre / "splits_final.json").write_text(
        json.dumps([{"train": cases[:4], "val": cases[4:]}, {"train": cases[2:], "val": cases[:2]}])
    )
    preprocess(pre, "nnUNetPlans", configurations)
    return pre


def preprocess(pre: Path, plans_name: str, configurations=("3d_fullres",)) -> None:
    """Preprocesses a raw data set as nnUNetv2_preprocess does, in this process."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    raw = pre.parents[1] / "raw" / pre.name
    manager = PlansManager(str(pre / f"{plans_name}.json"))
    dataset_json = json.loads((pre / "dataset.json").read_text())
    (pre / "gt_segmentations").mkdir(exist_ok=True)
    for name in configurations:
        configuration = manager.get_configuration(name)
        folder = pre / configuration.data_identifier
        folder.mkdir()
        for labels in sorted((raw / "labelsTr").iterdir()):
            case = labels.name.removesuffix(".nii.gz")
            (pre / "gt_segmentations" / labels.name).write_bytes(labels.read_bytes())
            DefaultPreprocessor(verbose=False).run_case_save(
                str(folder / case),
                [str(raw / "imagesTr" / f"{case}_0000.nii.gz")],
                str(labels),
                manager,
                configuration,
                dataset_json,
            )


def make_raw(root, name, labels, *, num_cases=6, channel="MR", spacing=1.0, **extra):
    """Writes a raw data set with the toy's organs under other numbers, and only these; returns its folder."""
    folder = root / "raw" / name
    numbers = np.zeros(len(ORGANS) + 1, dtype=np.uint8)
    for organ, number in labels.items():
        if organ in ORGANS:
            numbers[ORGANS.index(organ) + 1] = number
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for i in range(num_cases):
        image, segmentation = toy_volume(50 + i)
        for array, file in (
            (image, f"imagesTr/new_{i}_0000.nii.gz"),
            (numbers[segmentation], f"labelsTr/new_{i}.nii.gz"),
        ):
            picture = sitk.GetImageFromArray(array)
            picture.SetSpacing([spacing] * 3)
            sitk.WriteImage(picture, str(folder / file))
    content = {"channel_names": {"0": channel}, "labels": labels, "numTraining": num_cases, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content | extra))
    return folder


def set_environment(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    for variable, folder in (("raw", "raw"), ("preprocessed", "preprocessed"), ("results", "results")):
        monkeypatch.setenv(f"nnUNet_{variable}", str(root / folder))
    from nnunet_cil.shipped import trainers_folder

    monkeypatch.setenv("nnUNet_extTrainer", str(trainers_folder()))


LABELS = {"background": 0, **{organ: i for i, organ in enumerate(ORGANS, start=1)}}


SHORT = {"num_epochs": 2, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 1, "mirror_axes": []}


def write_schedule(folder: Path, steps, name: str = "toy", **extra) -> Path:
    """Writes a schedule, by default of a training that takes a second. A step is its classes, or as in the file."""
    file = folder / f"{name}.json"
    complete = [s if isinstance(s, dict) else {"classes": list(s)} for s in steps]
    content = {"name": name, "steps": complete, "training": SHORT, **extra}
    file.write_text(json.dumps(content))
    return file


def make_trainer(
    name: str,
    plans_name: str,
    *,
    configuration: str = "3d_fullres",
    fold: int = 0,
    resume: bool = False,
    dataset: str = DATASET,
):
    """Makes the trainer as nnUNetv2_train does."""
    from nnunetv2.run.run_training import get_trainer_from_args

    return get_trainer_from_args(dataset, configuration, fold, name, plans_name, resume, torch.device("cpu"))


def make_setup(
    num_old=1,
    ignore_label=None,
    scale_weights=(1.0,),
    *,
    batch_dice=True,
    ddp=False,
    refined=(),
    iteration=0,
    **settings,
):
    """Makes a LossSetup; ``settings`` are values of hyper-parameters."""
    return LossSetup(
        num_old=num_old,
        ignore_label=ignore_label,
        scale_weights=scale_weights,
        batch_dice=batch_dice,
        ddp=ddp,
        refined=refined,
        iteration=iteration,
        settings=Settings(**{"distillation_interval": 1, "old_dice_weight": 0.0, **settings}),
    )


def make_batch(teacher=None, features=None, **others):
    """Makes a Batch from tensors: ``teacher`` a TeacherOutput, ``features`` the student's."""
    return Batch(torch.zeros(1), teacher=lambda _images: teacher, features=lambda: features, **others)


def called(loss, logits, targets, batch=None):
    """Returns the total of a loss, called as a training step calls it."""
    with loss.on(make_batch() if batch is None else batch):
        return loss(logits, targets)


PGCD_SETTINGS = {
    "old_dice_weight": 1.0,
    "pgcd_weight": 10.0,
    "pgcd_beta": 3.0,
    "pgcd_merge": True,
    "absent_weight": 2.5,
    "pgcd_weighting": "prototypes",
    "dapd_weight": 1.0,
    "similarity_temperature": 0.1,
    "background_momentum": 0.9,
    "min_voxels": 1,
}
"""Nearly the trainer's, with a faster background."""


def make_pgcd_loss(bank: PrototypeBank, *layout, **changed) -> PGCDLoss:
    """Makes PGCD's loss; ``layout`` as for ``make_setup``, ``changed`` overrides ``PGCD_SETTINGS``."""
    return PGCDLoss(make_setup(*layout, **{**PGCD_SETTINGS, **changed}), bank=bank)


def seed_epochs(trainer, seed: int = 0) -> None:
    """Makes a training reproducible, also across an interruption: every epoch starts from its own seed."""
    original = trainer.on_epoch_start

    def on_epoch_start() -> None:
        torch.manual_seed(seed + trainer.current_epoch)
        np.random.seed(seed + trainer.current_epoch)
        original()

    trainer.on_epoch_start = on_epoch_start


def train(name: str, plans_name: str, **kwargs):
    """Trains with per-epoch seeds, in this process, without the final validation."""
    trainer = make_trainer(name, plans_name, **kwargs)
    seed_epochs(trainer)
    torch.manual_seed(0)
    trainer.run_training()
    return trainer


def plan_toy(tmp_path: Path, steps=(ORGANS[:2], ORGANS[2:]), first_trainer=None, **extra) -> list[str]:
    """Plans a schedule of the toy data set; returns the names of the steps' plans."""
    from nnunet_cil.workflows.plan.plan import plan

    schedule = write_schedule(tmp_path, steps, **extra)
    return [s.plans_name for s in plan(DATASET, schedule, first_trainer=first_trainer)]


def checkpoint(trainer, name: str = "final") -> dict:
    return torch.load(f"{trainer.output_folder}/checkpoint_{name}.pth", weights_only=False)


def teacher_segments(
    folder: Path,
    logits: torch.Tensor,
    labelled_channels_in=lambda _case: (),
    stray_free=(),
    segmented=None,
) -> dict:
    """Returns what ``TeacherVolumes`` writes for cases a and b, with a teacher that puts out ``logits``, (K, *spatial)."""
    from nnunet_cil.training.passes import Ranks
    from nnunet_cil.training.volumes.teacher_volumes import TeacherVolumes

    folder.mkdir(parents=True)
    for case in "ab":
        np.savez(folder.with_name(f"{case}.npz"), data=case)
    dataset = SimpleNamespace(
        source_folder=folder.parent,
        identifiers=["a", "b"],
        load_case=lambda _case: (np.zeros((1, *logits.shape[1:])), None, None, {}),
        folder_with_segs_from_previous_stage=None,
        save_seg=lambda segmentation, name: np.savez(f"{name}.npz", seg=segmentation),
    )
    predictor = SimpleNamespace(predict_sliding_window_return_logits=lambda _image: logits.clone())
    ranks = Ranks(rank=0, size=1)
    cases = SimpleNamespace(cases=dataset.identifiers, dataset=lambda: dataset, ranks=ranks, previous_labels=())
    more = {} if segmented is None else {"segmented": segmented}
    TeacherVolumes(folder).write(cases, predictor, labelled_channels_in, stray_free, **more)
    files = {file.stem: file for file in folder.rglob("*.npz")}
    assert sorted(files) == ["a", "b"]
    return {case: np.load(file)["seg"] for case, file in files.items()}


def finish_training(fold: Path) -> None:
    """Writes what a finished nnUNetv2_train leaves, as far as ``run`` reads it."""
    write_checkpoint(fold / "checkpoint_final.pth", "x")
    write_scores(fold, {str(c): {"Dice": c / 10} for c in range(1, 5)})


def write_scores(fold: Path, means: dict) -> None:
    """Writes what the final validation of the checkpoint that is there leaves; the predictions are there."""
    folder = fold / "validation"
    folder.mkdir(exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"mean": means}))
    files = [file for file in folder.iterdir() if file.name != "predicted_from.json"]
    PredictedFrom.by(fold / "checkpoint_final.pth").write(folder, files)


def write_checkpoint(file: Path, content: str) -> None:
    """Writes a file that passes for a checkpoint, with nothing else in it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"network_weights": {}, "init_args": init_args({"plans_name": content})}, file)


def init_args(plans: dict) -> dict:
    """Returns what nnU-Net's checkpoint says of its training."""
    return {"plans": plans, "configuration": "3d_fullres", "fold": 0, "dataset_json": dataset_json(LABELS)}


def dataset_json(labels: dict[str, int]) -> dict:
    """Returns the least that a dataset.json of the toy's images holds."""
    return {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz"}
