"""The toy data set with a low resolution and a cascade behind it, as nnU-Net's integration tests make them by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from toy import DATASET, ORGANS, init_args, make_trainer, preprocess
from toy_records import RECORD

from nnunet_cil.next_stage import StageFold
from nnunet_cil.predicted_from import PredictedFrom
from nnunet_cil.training.state import StepState

CASCADE, LOW = "3d_cascade_fullres", "3d_lowres"
CASES = [f"case_{i}" for i in range(6)]
FOLDS = (CASES[:2], CASES[2:4], CASES[4:])
"""The validation cases of each fold."""


def make_cascade(toy: Path) -> Path:
    """Preprocesses the toy data set at half the resolution, and gives it three folds that validate every case."""
    file = toy / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"][LOW] |= {
        "data_identifier": f"nnUNetPlans_{LOW}",
        "spacing": [2.0] * 3,
        "patch_size": [8] * 3,
        "median_image_size_in_voxels": [10.0, 11.0, 12.0],
    }
    file.write_text(json.dumps(plans))
    folds = [{"train": [c for c in CASES if c not in own], "val": own} for own in FOLDS]
    (toy / "splits_final.json").write_text(json.dumps(folds))
    preprocess(toy, "nnUNetPlans", (LOW,))
    return toy


def write_stage(trainer: str, plans_name: str, dataset: str = DATASET) -> Path:
    """Leaves what the low-resolution models of all folds leave: the labels of the seen classes, in the model's numbers.

    Returns their folder.
    """
    cascade = make_trainer(trainer, plans_name, configuration=CASCADE, dataset=dataset)
    cascade._lock.release()
    folder = Path(cascade.folder_with_segs_from_previous_stage)
    folder.mkdir(parents=True, exist_ok=True)
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    data = infer_dataset_class(cascade.preprocessed_dataset_folder)(cascade.preprocessed_dataset_folder)
    numbers = np.zeros(len(ORGANS) + 2, dtype=np.uint8)
    for organ in cascade.step_plan.seen_classes:
        numbers[ORGANS.index(organ) + 1] = cascade.step_plan.labels[organ]
    for case in data.identifiers:
        labels = np.asarray(data.load_case(case)[1][0]).astype(np.int16).clip(min=0)
        data.save_seg(numbers[labels], str(folder / case))
    for fold, cases in enumerate(FOLDS):
        write_stage_fold(folder.parents[1] / f"fold_{fold}", cascade.step_plan.seen_classes, cases)
    return folder.parents[1]


def write_stage_fold(folder: Path, classes, cases, **changed) -> None:
    """Leaves a checkpoint, and the record of its predictions for the cascade."""
    trainer, plans, configuration = folder.parent.name.split("__")
    own = {"trainer": trainer, "plans": plans, "configuration": configuration}
    record = replace(RECORD, fold=folder.name.removeprefix("fold_"), **own)
    folder.mkdir(exist_ok=True)
    state = StepState(classes=tuple(classes), lineage=(record,))
    content = {"network_weights": {}, "init_args": init_args({"plans_name": plans}), **state.to_checkpoint(), **changed}
    torch.save(content, folder / "checkpoint_final.pth")
    by = PredictedFrom.by(folder / "checkpoint_final.pth")
    StageFold(folder=folder, stage=CASCADE).write_record(by, cases)
