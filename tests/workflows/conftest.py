"""Fixtures of the workflows."""

import json
from pathlib import Path

import numpy as np
import pytest
from toy import DATASET, dataset_json, make_raw, preprocess, toy_volume, write_schedule
from toy_models import ORDER, PGCD, write, write_model
from toy_sequence import MOVED, NEW, NEW_LABELS, schedule_file

from nnunet_cil.errors import CILError
from nnunet_cil.workflows.evaluate import predict as predicting
from nnunet_cil.workflows.plan.plan import plan


@pytest.fixture
def trained(toy, tmp_path, monkeypatch):
    """Two steps that look trained, three test cases, and a stand-in for nnU-Net's prediction that forgets the kidney."""
    schedule = write_schedule(tmp_path, ORDER)
    steps = plan(DATASET, schedule)
    root = toy.parents[1]
    for step in steps:
        model = root / "results" / DATASET / f"{PGCD}__{step.plans_name}__3d_fullres"
        (model / "fold_0").mkdir(parents=True)
        write_model(model / "fold_0" / "checkpoint_final.pth", step.plans_name)
        (model / "dataset.json").write_text(json.dumps(dataset_json(step.plan.labels)))
    for folder in ("imagesTs", "labelsTs"):
        (root / "raw" / DATASET / folder).mkdir()
    for i in range(3):
        image, labels = toy_volume(50 + i)
        write(image, root / "raw" / DATASET / "imagesTs" / f"t{i}_0000.nii.gz")
        write(labels, root / "raw" / DATASET / "labelsTs" / f"t{i}.nii.gz")
    calls = []

    def predict(arguments, _environment, _log, _num_cases):
        calls.append(arguments)
        option = dict(zip(arguments[::2], arguments[1::2], strict=False))
        for i in range(3):
            labels = toy_volume(50 + i)[1]
            found = (labels == 3) * 1
            if option["-p"].endswith("step1"):
                found = (labels == 1) * 2
                found[labels == 3] = np.arange((labels == 3).sum()) % 2  # half of the kidney
            write(found, Path(option["-o"]) / f"t{i}.nii.gz")

    monkeypatch.setattr(predicting, "predict", predict)
    return root, schedule, calls


@pytest.fixture
def raw_new(toy, tmp_path):
    """The toy data set, preprocessed, and a raw one with other numbers. The latter's folder in nnUNet_preprocessed."""
    make_raw(tmp_path / "nnunet", NEW, NEW_LABELS)
    return toy.parent / NEW


@pytest.fixture
def new(raw_new, tmp_path):
    """The same, and the raw one is preprocessed with the first one's plans."""
    with pytest.raises(CILError, match="not preprocessed with them yet"):
        plan(DATASET, schedule_file(tmp_path))
    (raw_new / "dataset_fingerprint.json").write_text("{}")
    preprocess(raw_new, MOVED)
    return raw_new
