"""nnU-Net's export in blocks of classes against nnU-Net's own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from toy import DATASET, LABELS, make_dataset, plan_toy, set_environment, train

from nnunet_cil.files import read_json
from nnunet_cil.host.folders import nnunet_folder
from nnunet_cil.host.reading.images import read_labels
from nnunet_cil.training.class_blocks import arg_max_in_blocks, in_blocks


@pytest.mark.parametrize("block", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_the_largest_of_all_classes_is_found_and_of_equal_ones_the_first(block, kind):
    logits = np.random.default_rng(0).integers(0, 4, (7, 5, 4, 3)).astype(np.float32)
    found = arg_max_in_blocks(lambda part: part * 2, kind(logits), block)
    assert np.array_equal(found, logits.argmax(0))
    assert found.dtype == np.uint16


def test_no_more_classes_than_a_block_are_resampled_at_a_time():
    seen = []
    arg_max_in_blocks(lambda part: seen.append(len(part)) or part, np.zeros((118, 2, 2, 2)), 8)
    assert max(seen) == 8
    assert sum(seen) == 118


@pytest.mark.parametrize("num_classes", [3, 19])
def test_nnunet_exports_the_same_label_map(tmp_path, monkeypatch, num_classes):
    set_environment(monkeypatch, tmp_path)
    make_dataset(tmp_path, LABELS)
    folder = nnunet_folder("nnUNet_preprocessed") / DATASET
    plans = PlansManager(read_json(folder / "nnUNetPlans.json", ""))
    configuration = plans.get_configuration("3d_fullres")
    names = ["background", *(f"class_{c}" for c in range(1, num_classes))]
    content = {"labels": {name: c for c, name in enumerate(names)}, "file_ending": ".nii.gz"}
    logits = torch.randn(num_classes, 10, 11, 12, generator=torch.Generator().manual_seed(0))
    shape = (20, 22, 24)
    properties = {
        "spacing": [1.0, 1.0, 1.0],
        "shape_after_cropping_and_before_resampling": shape,
        "shape_before_cropping": (22, 24, 26),
        "bbox_used_for_cropping": [[1, 21], [1, 23], [1, 25]],
        "sitk_stuff": {"spacing": (1.0, 1.0, 1.0), "origin": (0.0, 0.0, 0.0), "direction": tuple(np.eye(3).ravel())},
    }
    reader = plans.image_reader_writer_class()
    found = []
    for name, managers in {"own": (plans, configuration), "blocks": in_blocks(plans, configuration)}.items():
        export_prediction_from_logits(
            logits.clone(), properties, managers[1], managers[0], content, str(tmp_path / name), num_threads_torch=1
        )
        found.append(read_labels(Path(tmp_path / f"{name}.nii.gz"), reader).array)
    assert np.array_equal(*found)
    assert len(np.unique(found[0])) > 2


def test_a_steps_validation_predicts_the_same_in_blocks(toy, tmp_path, monkeypatch):
    import nnunet_cil.training.final_validation as module

    names = plan_toy(tmp_path)
    trainer = train("nnUNetTrainerFineTune", names[0])
    used, found = [], []
    monkeypatch.setattr(module, "in_blocks", lambda *managers: used.append(1) or in_blocks(*managers))
    for saves_probabilities in (False, True):
        trainer.perform_actual_validation(saves_probabilities)
        files = sorted((Path(trainer.output_folder) / "validation").glob("*.nii.gz"))
        found.append([read_labels(file, trainer.plans_manager.image_reader_writer_class()).array for file in files])
    assert used == [1]
    assert len(found[0]) == len(trainer.do_split()[1])
    assert all(np.array_equal(*pair) for pair in zip(*found, strict=True))
    assert type(trainer.plans_manager) is PlansManager
