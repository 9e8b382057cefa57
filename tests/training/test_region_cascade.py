"""A cascade of regions: its network sees the painted regions of the stage before, which change with each step."""

from pathlib import Path

import numpy as np
import torch
from toy import DATASET, make_dataset, make_trainer, plan_toy, set_environment, train
from toy_cascade import CASCADE, FOLDS, make_cascade, write_stage_fold

PGCD = "nnUNetTrainerPGCD"
LABELS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "cyst": 4, "edge": [3]}
SHORT = {"num_epochs": 1, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1, "mirror_axes": []}


def write_stage(plans_name, painted):
    """Leaves what the low-resolution models of all folds leave, with labels painted by a table."""
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    cascade = make_trainer(PGCD, plans_name, configuration=CASCADE)
    cascade._lock.release()
    folder = Path(cascade.folder_with_segs_from_previous_stage)
    folder.mkdir(parents=True, exist_ok=True)
    data = infer_dataset_class(cascade.preprocessed_dataset_folder)(cascade.preprocessed_dataset_folder)
    for case in data.identifiers:
        labels = np.asarray(data.load_case(case)[1][0]).astype(np.int16).clip(min=0)
        data.save_seg(np.array(painted, dtype=np.uint8)[labels], str(folder / case))
    for fold, cases in enumerate(FOLDS):
        write_stage_fold(folder.parents[1] / f"fold_{fold}", cascade.step_plan.model_classes, cases)


def one_hot(labels, numbers):
    return torch.stack([labels == n for n in numbers], 1).float()


def test_a_step_begins_where_the_teacher_is_whatever_the_stage_before_says_of_new_regions(tmp_path, monkeypatch):
    """Where it painted the whole it now paints the core: to the teacher this is the whole, and so it is to the student."""
    root = tmp_path / "nnunet"
    make_dataset(root, LABELS, configurations=("3d_fullres",), regions_class_order=[1, 2, 4, 3])
    set_environment(monkeypatch, root)
    make_cascade(root / "preprocessed" / DATASET)
    names = plan_toy(tmp_path, [["whole", "edge"], ["core", "cyst"]], training=SHORT)
    write_stage(names[0], [0, 1, 1, 3, 0])
    train(PGCD, names[0], configuration=CASCADE)
    write_stage(names[1], [0, 1, 2, 3, 4])
    trainer = make_trainer(PGCD, names[1], configuration=CASCADE)
    trainer.on_train_start()
    assert trainer.num_input_channels == 1 + 4
    image, now = torch.randn(2, 1, 16, 16, 16), torch.randint(0, 5, (2, 16, 16, 16))
    before = torch.tensor([0, 1, 1, 3, 0])[now]
    inputs = torch.cat([image, one_hot(now, (1, 2, 3, 4))], 1)
    as_before = torch.cat([image, one_hot(before, (1, 2, 3, 4))], 1)
    trainer.set_deep_supervision_enabled(False)
    with torch.no_grad():
        student = trainer.network.eval()(inputs)
        teacher, teacher_before = (trainer.teacher(x).logits for x in (inputs, as_before))
    old = list(trainer.step_plan.old_channels)
    assert old == [0, 3]
    torch.testing.assert_close(student[:, old], teacher, atol=1e-6, rtol=0)
    torch.testing.assert_close(teacher, teacher_before, atol=1e-6, rtol=0)
    trainer.set_deep_supervision_enabled(True)
    batch = next(trainer.dataloader_train)
    assert batch["data"].shape[1] == 5
    assert np.isfinite(trainer.train_step(batch)["loss"])
