"""Makes a data set of boxes on noise, preprocessed by nnU-Net, with plans as nnU-Net makes them: no download needed."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

DATASET = "Dataset999_Synthetic"
PLANS = "nnUNetPlans"
SCHEDULE = "synthetic"
NUM_CASES = 3
KINDS = ("3d", "2d", "resenc")
WIDTHS = {2: (32, 64, 128, 256, 512, 512, 512, 512), 3: (32, 64, 128, 256, 320, 320)}
"""nnU-Net's features of each stage."""
RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6)
"""nnU-Net's blocks of each stage of a residual encoder."""


def class_names(num_classes: int) -> list[str]:
    """Returns names of labels 1, 2, ..."""
    return [f"class_{c}" for c in range(1, num_classes + 1)]


def configuration_name(kind: str) -> str:
    """Returns nnU-Net's name of the configuration."""
    return "2d" if kind == "2d" else "3d_fullres"


def volume(seed: int, shape: Sequence[int], num_classes: int, *, flat: bool) -> tuple[Any, Any]:
    """Makes an image and labels 1..num_classes: a box each, on a grid.

    Args:
        seed: of the noise.
        shape: of both.
        num_classes: how many boxes.
        flat: let the boxes run through all slices, so that every slice shows every class.
    """
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 0.1, shape).astype(np.float32)
    labels = np.zeros(shape, dtype=np.uint8)
    axes = 2 if flat else 3
    per_axis = math.ceil(round(num_classes ** (1 / axes), 6))
    cells = [size // per_axis for size in shape[-axes:]]
    if min(cells) < 2:
        raise SystemExit(f"{num_classes} boxes do not fit into a volume of {shape}. Use a larger --patch.")
    for index in range(num_classes):
        place = np.unravel_index(index, [per_axis] * axes)
        box = tuple(slice(p * c, p * c + max(1, c * 2 // 3)) for p, c in zip(place, cells, strict=True))
        labels[(..., *box)] = index + 1
        image[(..., *box)] += 1 + index / num_classes
    return image, labels


def num_stages(patch: Sequence[int]) -> int:
    """Returns how many stages nnU-Net plans: it halves while at least 4 voxels are left along every axis."""
    stages = 1 + min(int(math.log2(p / 4)) for p in patch)
    if any(p % 2 ** (stages - 1) for p in patch):
        raise SystemExit(f"A patch of {tuple(patch)} cannot be halved {stages - 1} times. Choose multiples.")
    return stages


def architecture(kind: str, patch: Sequence[int], features: Sequence[int] | None) -> dict[str, Any]:
    """Returns the network of nnU-Net's plans: plain, or with a residual encoder."""
    dim = len(patch)
    features = list(features or WIDTHS[dim][: num_stages(patch)])
    stages = len(features)
    residual = kind == "resenc"
    blocks = {"n_blocks_per_stage": list(RESIDUAL_BLOCKS[:stages])} if residual else {"n_conv_per_stage": [2] * stages}
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": features,
            "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
            "kernel_sizes": [[3] * dim] * stages,
            "strides": [[1] * dim, *[[2] * dim] * (stages - 1)],
            **blocks,
            "n_conv_per_stage_decoder": [1 if residual else 2] * (stages - 1),
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


def base_plans(
    kind: str, patch: Sequence[int], batch: int, features: Sequence[int] | None, shape: Sequence[int]
) -> dict[str, Any]:
    """Returns plans as nnU-Net writes them, with one configuration."""
    resample = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_synthetic",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": batch,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [float(s) for s in shape[-len(patch) :]],
        "spacing": [1.0] * len(patch),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resample,
        "resampling_fn_seg_kwargs": {**resample, "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resample,
        "batch_dice": len(patch) == 2,
        "architecture": architecture(kind, patch, features),
    }
    return {
        "dataset_name": DATASET,
        "plans_name": PLANS,
        "original_median_spacing_after_transp": [1.0] * 3,
        "original_median_shape_after_transp": list(shape),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {configuration_name(kind): configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {"mean": 1.0, "std": 1.0}},
    }


def volume_shape(patch: Sequence[int]) -> tuple[int, ...]:
    """Returns a size half as large again as the patch, of 8 slices where that is 2D."""
    grown = tuple(p * 3 // 2 for p in patch)
    return grown if len(grown) == 3 else (8, *grown)


def make_dataset(
    root: Path, kind: str, num_classes: int, patch: Sequence[int], batch: int, features: Sequence[int] | None = None
) -> None:
    """Fills nnUNet_raw, nnUNet_preprocessed and nnUNet_results under ``root``, in this process."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    raw, preprocessed = root / "raw" / DATASET, root / "preprocessed" / DATASET
    labels = {"background": 0, **{name: c for c, name in enumerate(class_names(num_classes), start=1)}}
    dataset_json = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": NUM_CASES, "file_ending": ".nii"}
    shape = volume_shape(patch)
    plans = base_plans(kind, patch, batch, features, shape)
    cases = [f"case_{i}" for i in range(NUM_CASES)]
    contents = {
        "dataset.json": dataset_json,
        f"{PLANS}.json": plans,
        "dataset_fingerprint.json": {},
        "splits_final.json": [{"train": cases[1:], "val": cases[:1]}],
    }
    configuration = PlansManager(plans).get_configuration(configuration_name(kind))
    target = preprocessed / configuration.data_identifier
    references = preprocessed / "gt_segmentations"
    for folder in (raw, target, references, root / "results"):
        folder.mkdir(parents=True)
    for name, content in contents.items():
        (preprocessed / name).write_text(json.dumps(content))
    for seed, case in enumerate(cases):
        files = [raw / f"{case}_0000.nii", raw / f"{case}.nii"]
        for array, file in zip(volume(seed, shape, num_classes, flat=len(patch) == 2), files, strict=True):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(file))
        shutil.copy(files[1], references)
        DefaultPreprocessor(verbose=False).run_case_save(
            str(target / case), [str(files[0])], str(files[1]), PlansManager(plans), configuration, dataset_json
        )


def plan_steps(root: Path, num_classes: int) -> list[str]:
    """Plans two steps, the second of one class; both after a PGCD trainer's step 0. Returns the names of the plans."""
    from nnunet_cil.workflows.plan.plan import plan

    names = class_names(num_classes)
    schedule = root / f"{SCHEDULE}.json"
    schedule.write_text(json.dumps({"name": SCHEDULE, "steps": [{"classes": names[:-1]}, {"classes": names[-1:]}]}))
    return [step.plans_name for step in plan(DATASET, schedule, first_trainer="nnUNetTrainerPGCD")]


def make_trainer(name: str, plans_name: str, kind: str, device: str) -> Any:
    """Returns a trainer as nnUNetv2_train makes it."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    return get_trainer_from_args(DATASET, configuration_name(kind), 0, name, plans_name, device=torch.device(device))


def untrained_step_0(plans_name: str, kind: str, device: str) -> None:
    """Writes a step-0 checkpoint of the right shape; its weights do not matter to the cost."""
    import torch

    from nnunet_cil.networks.features import num_features
    from nnunet_cil.networks.prototype_bank import PrototypeBank

    trainer = make_trainer("nnUNetTrainerPGCD", plans_name, kind, device)
    trainer.initialize()
    num_classes = 1 + len(trainer.step_plan.seen_classes)
    prototypes = torch.randn(num_classes, num_features(trainer.bare_network))
    trainer.prototypes = PrototypeBank(prototypes, torch.ones(num_classes)).to(trainer.device)
    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")


def environment(root: Path) -> dict[str, str]:
    """Returns nnU-Net's environment variables for a data set under ``root``."""
    from nnunet_cil.shipped import trainers_folder

    return {
        "nnUNet_raw": str(root / "raw"),
        "nnUNet_preprocessed": str(root / "preprocessed"),
        "nnUNet_results": str(root / "results"),
        "nnUNet_extTrainer": str(trainers_folder()),
    }
