"""The teacher's segmentations of whole training volumes: what they are, how patches carry them, what survives a kill."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy import DATASET, ORGANS, make_trainer, plan_toy, seed_epochs, teacher_segments, train

from nnunet_cil.errors import CILError
from nnunet_cil.host.folders import nnunet_folder
from nnunet_cil.training.volumes.store import FOLDER
from nnunet_cil.training.volumes.teacher_volumes import NOT_SEGMENTED, segment_volumes

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


def make_pseudo_labels(name):
    """Makes another trainer with PGCD's volumes: without strays."""
    trainer = make_trainer(PSEUDO, name)
    trainer.drop_strays = True
    return trainer


def volume(trainer, case):
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, [case])
    return np.asarray(trainer.volumes.load_case(dataset, case)[2][:])


@pytest.mark.parametrize("name", [PGCD, PSEUDO])
def test_they_are_what_nnunet_predicts_with_the_previous_model(names, name):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer = started(make_trainer(name, names[1]))
    previous = Path(trainer.output_folder_base).with_name(f"{PGCD}__{names[0]}__3d_fullres")
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False, tile_step_size=0.75)
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
            moved = np.where(labels > 0, labels + 10, 0).astype(np.int16)
            dataset.save_seg(moved, str(volumes._folders[case] / case))
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


def volumes_root():
    return nnunet_folder("nnUNet_preprocessed") / DATASET / FOLDER


def test_they_go_when_the_training_is_over_and_none_are_made_when_not_asked_for(names, tmp_path):
    train(PGCD, names[1])
    assert not volumes_root().exists()
    other = plan_toy(tmp_path, [ORGANS[2:], ORGANS[:2]], PGCD, name="off", hyperparameters={"teacher_volumes": 0})
    train(PGCD, other[0])
    without = started(make_trainer(PGCD, other[1]))
    assert without.volumes is None
    assert next(without.dataloader_train)["target"][0].shape[1] == 1


def test_what_a_training_killed_after_its_last_checkpoint_leaves_goes_with_its_validation(names):
    trainer = started(make_trainer(PGCD, names[1]))
    trainer._release_volumes = lambda: None
    trainer.on_train_end()
    assert volumes_root().exists()
    del trainer._release_volumes
    trainer.perform_actual_validation()
    assert not volumes_root().exists()


def test_what_is_there_is_taken_over_by_a_resumed_training_and_by_another_trainer(names):
    first = started(make_trainer(PGCD, names[1]))
    first.save_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
    kept, lost, half, *_ = first.do_split()[0]
    marked, expected = np.full_like(volume(first, kept), 1), volume(first, lost)
    first.dataset_class.save_seg(marked, str(first.volumes._folders[kept] / kept))
    next(file for file in first.volumes._folders[lost].iterdir() if file.suffix != ".json").unlink()
    first.volumes._confidences(half).unlink()

    resumed = make_trainer(PGCD, names[1], resume=True)
    resumed.load_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
    started(resumed)
    assert np.array_equal(volume(resumed, kept), marked)
    assert np.array_equal(volume(resumed, lost), expected)
    assert len(resumed.volumes.confidences(half)) == 3
    other = started(make_pseudo_labels(names[1]))
    assert np.array_equal(volume(other, kept), marked)
    other._release_volumes()
    assert kept in resumed.volumes  # which the first training needs still
    resumed.on_train_end()
    assert not volumes_root().exists()


def test_another_teacher_another_image_and_other_shown_labels_make_other_volumes(names):
    first = started(make_trainer(PGCD, names[1]))
    case, *others = first.do_split()[0]
    folders = {c: first.volumes._folders[c] for c in (case, *others)}
    marked = np.full_like(volume(first, case), 1)
    first.dataset_class.save_seg(marked, str(folders[case] / case))

    image = Path(first.preprocessed_dataset_folder) / f"{case}.b2nd"
    data = np.asarray(first.dataset_class(str(image.parent), [case]).load_case(case)[0][:]).copy()
    data[0, 0, 0, 0] += 1
    first.dataset_class.save_seg(data, str(image.with_suffix("")))
    again = started(make_pseudo_labels(names[1]))
    assert again.volumes._folders[case] != folders[case]
    assert all(again.volumes._folders[c] == folders[c] for c in others)
    assert not np.array_equal(volume(again, case), marked)

    shown = make_pseudo_labels(names[1])
    shown.labelled_channels_in = lambda c: (1,) if c == others[0] else ()
    started(shown)
    assert shown.volumes._folders[others[0]] != folders[others[0]]
    assert 1 not in volume(shown, others[0])

    anew = make_trainer(PGCD, names[0])
    seed_epochs(anew, seed=1)
    anew.run_training()
    retrained = started(make_trainer(PGCD, names[1]))
    assert retrained.volumes.folder != first.volumes.folder


def test_stray_regions_and_the_configuration_are_part_of_the_recipe(names):
    trainer = started(make_trainer(PGCD, names[1]))
    trainer.max_pass_cases = 1
    previous = trainer._read_previous()
    own = previous.state.stray_free
    others = ORGANS[2:3] if len(own) != 1 else ()
    folders = [segment_volumes(trainer, trainer.teacher, previous, dropped).folder for dropped in (own, others)]
    trainer.configuration_manager.configuration["patch_size"] = [16, 16, 8]
    folders.append(segment_volumes(trainer, trainer.teacher, previous, own).folder)
    assert folders[0] == trainer.volumes.folder
    assert len(set(folders)) == 3


def test_a_disk_without_room_is_told_before_anything_is_segmented(names, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(free=100))
    with pytest.raises(CILError, match=r"GB free, but about .* are needed\. Make room, or set nnUNet_preprocessed"):
        started(make_trainer(PGCD, names[1]))


def test_what_labels_show_the_teacher_is_not_asked(tmp_path):
    logits = torch.tensor([0.0, 3.0, 2.0]).view(3, 1, 1, 1).expand(3, 2, 2, 2)
    found = teacher_segments(tmp_path / "v", logits, lambda case: (1, 3) if case == "a" else ())
    assert {case: np.unique(segmentation).tolist() for case, segmentation in found.items()} == {"a": [2], "b": [1]}
