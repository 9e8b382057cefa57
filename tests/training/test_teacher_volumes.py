"""The teacher's segmentations of whole training volumes: what they are, how patches carry them, what survives a kill."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toy import ORGANS, make_trainer, plan_toy, seed_epochs, teacher_segments, train

from nnunet_cil.training.teacher_volumes import NOT_SEGMENTED

PGCD, PSEUDO = "nnUNetTrainerPGCD", "nnUNetTrainerPseudoLabel"


def started(trainer):
    """Returns a training that is about to enter its first epoch."""
    seed_epochs(trainer)
    trainer.on_train_start()
    return trainer


@pytest.fixture
def names(toy, tmp_path):
    names = plan_toy(
        tmp_path, [ORGANS[2:], ORGANS[:2]], first_trainer=PGCD
    )  # the data set's numbers are not the channels
    train(PGCD, names[0])
    return names


def volume(trainer, case):
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, [case])
    return np.asarray(trainer.volumes.load_case(dataset, case)[2][:])


@pytest.mark.parametrize("name", [PGCD, PSEUDO])
def test_they_are_what_nnunet_predicts_with_the_previous_model(names, name):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer = started(make_trainer(name, names[1]))
    previous = Path(trainer.output_folder_base).with_name(f"{PGCD}__{names[0]}__3d_fullres")
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(str(previous), (0,), "checkpoint_final.pth")
    found = set()
    for case in trainer.do_split()[0]:
        image = trainer.dataset_class(trainer.preprocessed_dataset_folder, [case]).load_case(case)[0][:]
        logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(image))
        assert np.array_equal(volume(trainer, case), logits.argmax(0).numpy())
        found |= set(np.unique(volume(trainer, case)))
    assert len(found) > 1


def test_patches_carry_them_through_the_augmentation(names):
    trainer = make_trainer(PGCD, names[1])
    segment = trainer._segment_volumes

    def truth(*known):
        """Writes the data set's own labels, moved by 10, in place of the teacher's."""
        volumes = segment(*known)
        for case in trainer.do_split()[0]:
            dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, [case])
            labels = np.asarray(dataset.load_case(case)[1][0]).astype(np.int16)
            dataset.save_seg(np.where(labels > 0, labels + 10, 0).astype(np.int16), str(volumes.folder / case))
        return volumes

    trainer._segment_volumes = truth
    started(trainer)
    own, hidden = 0, 0
    for _ in range(8):
        target = next(trainer.dataloader_train)["target"][0]
        labels, carried = target[:, 0], target[:, 1]
        assert torch.equal(carried[labels > 0], labels[labels > 0] - 2 + 10)  # channels 3, 4 are the labels 1, 2
        assert set(carried[labels == 0].unique().tolist()) <= {0, 13, 14}
        own, hidden = own + (labels > 0).sum().item(), hidden + (carried > 12).sum().item()
    assert own > 0
    assert hidden > 0
    assert next(trainer.dataloader_val)["target"][0].shape[1] == 1


def test_the_loss_gets_them_and_the_teachers_argmax_in_cases_that_were_not_segmented(names):
    trainer = make_trainer(PGCD, names[1])
    trainer.max_pass_cases = 2
    started(trainer)
    terms, seen = trainer.loss.terms, []

    def spy(logits, targets, batch):
        assert all(t.shape[1] == 1 for t in targets)
        seen.append((batch.volume_classes.clone(), batch.teacher.logits.argmax(1)))
        return terms(logits, targets, batch)

    trainer.loss.terms = spy
    known = set()
    for _ in range(12):
        batch = next(trainer.dataloader_train)
        trainer.train_step(batch)
        classes, on_patch = seen.pop()
        for key, carried, found, predicted in zip(
            batch["keys"], batch["target"][0][:, 1].long(), classes, on_patch, strict=True
        ):
            is_known = key in trainer.volumes
            assert (NOT_SEGMENTED in carried) != is_known
            inside = carried > 0
            assert torch.equal(found[inside], (carried if is_known else predicted)[inside])
            known.add(is_known)
    assert known == {True, False}


def test_they_go_when_the_training_is_over_and_none_are_made_when_not_asked_for(names, tmp_path):
    trainer = train(PGCD, names[1])
    assert not (Path(trainer.output_folder) / "teacher_volumes").exists()
    assert trainer.volumes is None
    left = Path(trainer.output_folder) / "teacher_volumes"  # by a training killed after its last checkpoint
    left.mkdir()
    trainer.perform_actual_validation()
    assert not left.exists()
    other = plan_toy(tmp_path, [ORGANS[2:], ORGANS[:2]], PGCD, name="off", hyperparameters={"teacher_volumes": 0})
    train(PGCD, other[0])
    without = started(make_trainer(PGCD, other[1]))
    assert without.volumes is None
    assert next(without.dataloader_train)["target"][0].shape[1] == 1


def test_what_is_killed_goes_on_and_a_new_training_begins_anew(names):
    first = started(make_trainer(PGCD, names[1]))
    first.save_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
    cases = first.do_split()[0]
    kept = volume(first, cases[0])
    marked = np.full_like(kept, 1)
    first.dataset_class.save_seg(marked, str(first.volumes.folder / cases[0]))
    next(first.volumes.folder.glob(f"{cases[1]}.*")).unlink()
    (first.volumes.folder / "unfinished_1").mkdir()
    (first.volumes.folder / "unfinished_1" / f"{cases[1]}.b2nd").write_bytes(b"half")

    resumed = make_trainer(PGCD, names[1], resume=True)
    resumed.load_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
    started(resumed)
    assert np.array_equal(volume(resumed, cases[0]), marked)
    assert np.array_equal(volume(resumed, cases[1]), volume(first, cases[1]))
    anew = started(make_trainer(PGCD, names[1]))
    assert np.array_equal(volume(anew, cases[0]), kept)


def test_what_labels_show_the_teacher_is_not_asked(tmp_path):
    logits = torch.tensor([0.0, 3.0, 2.0]).view(3, 1, 1, 1).expand(3, 2, 2, 2)
    found = teacher_segments(tmp_path / "v", logits, lambda case: (1, 3) if case == "a" else ())
    assert {case: np.unique(segmentation).tolist() for case, segmentation in found.items()} == {"a": [2], "b": [1]}
