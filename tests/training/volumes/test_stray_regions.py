"""Stray regions: which they are, how labels tell that a class has none, and what a step does with that."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import DATASET, ORGANS, make_trainer, plan_toy, teacher_segments, train

from nnunet_cil.training.methods.pgcd import nnUNetTrainerPGCD
from nnunet_cil.training.volumes.stray_regions import cases_with_strays, is_stray_free, stray_regions
from nnunet_cil.training.volumes.teacher_volumes import TeacherVolumes

PGCD, FINETUNE = "nnUNetTrainerPGCD", "nnUNetTrainerFineTune"


def regions_by_hand(mask):
    """Returns sets of voxels that touch, corners included, by filling from one voxel after the other."""
    left = {tuple(int(i) for i in v) for v in np.argwhere(mask)}
    regions = []
    while left:
        region, border = set(), {left.pop()}
        while border:
            region |= border
            border = {v for v in left if any(max(abs(a - b) for a, b in zip(v, w, strict=True)) == 1 for w in border)}
            left -= border
        regions.append(region)
    return regions


@pytest.mark.parametrize("shape", [(9, 8, 7), (1, 40, 40)])
def test_regions_smaller_than_half_of_the_largest_are_strays(shape):
    generator = np.random.default_rng(0)
    for density in (0.05, 0.1):
        labels = generator.choice([-1, 0, 1, 2, 4], p=[0.1, 0.9 - 3 * density, *[density] * 3], size=shape)
        expected = np.zeros(shape, dtype=bool)
        for channel in (1, 4):
            regions = regions_by_hand(labels == channel)
            for region in regions:
                if 2 * len(region) < max(map(len, regions)):
                    expected[tuple(np.array(sorted(region)).T)] = True
        assert expected.any()
        assert (~expected & (labels > 0)).any()
        assert np.array_equal(stray_regions(labels.astype(np.int16), [1, 3, 4, 9]), expected)
    assert not stray_regions(np.zeros(shape, dtype=np.int16), [1]).any()


def test_labels_tell_whether_a_class_has_strays():
    def case(*lengths):
        """Draws class 2 in rows of these lengths, and class 1 in one voxel."""
        labels = np.zeros((2 * len(lengths), 1, 300), dtype=np.int16)
        for i, length in enumerate(lengths):
            labels[2 * i, 0, :length] = 2
        labels[-1, 0, 0] = 1
        return labels

    found = cases_with_strays([case(10), case(10, 5), case(10, 4), case(299, 2), case(3)], [1, 2, 3])
    # 5 of 10 is no stray; 2 of 301 voxels are a small error of the labels
    assert found.tolist() == [[0, 5], [1, 5], [0, 0]]
    assert is_stray_free(0, 1)
    assert is_stray_free(1, 20)
    assert not is_stray_free(1, 19)
    assert not is_stray_free(0, 0)


def test_a_stray_becomes_what_the_teacher_thinks_next(tmp_path):
    """Has class 1 in six voxels, and apart from them in one that may be class 2, one that may be background, and three."""
    logits = torch.zeros(3, 1, 1, 20)
    for begin, end in ((0, 6), (8, 9), (11, 12), (14, 17)):
        logits[1, ..., begin:end] = 2
    logits[2, ..., 8] = 1

    def segmented(folder, stray_free):
        return teacher_segments(folder, logits, stray_free=stray_free)["a"].ravel().tolist()

    before = [1] * 6 + [0, 0, 1, 0, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0]
    assert segmented(tmp_path / "kept", [2]) == before
    assert segmented(tmp_path / "dropped", [1, 2]) == [1] * 6 + [0, 0, 2, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]


@pytest.fixture
def crumbs(toy):
    """Adds to the toy data, in every case, a crumb of the liver far from it."""
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / DATASET / "nnUNetPlans_3d_fullres"
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    dataset = infer_dataset_class(str(preprocessed))(str(preprocessed))
    for case in dataset.identifiers:
        data, labels, _, properties = dataset.load_case(case)
        data, labels = np.asarray(data[:]), np.asarray(labels[:])
        free = np.argwhere(labels[0] == 0)
        distance = np.abs(free[:, None] - np.argwhere(labels[0] == 1)[None]).max(2).min(1)
        far = np.abs(free - free[distance.argmax()]).max(1) <= 1
        labels[(0, *free[far].T)] = 1
        for file in preprocessed.glob(f"{case}*"):
            file.unlink()
        dataset.save_case(data, labels, properties, str(preprocessed / case))


@pytest.mark.slow
def test_classes_without_strays_travel_from_step_to_step_and_none_where_nobody_knows(toy, crumbs, tmp_path):
    def stray_free(trainer):
        file = Path(trainer.output_folder) / "checkpoint_final.pth"
        return torch.load(file, weights_only=False)["cil"]["stray_free"], file

    names = plan_toy(tmp_path, [ORGANS[:2], ORGANS[2:]], first_trainer=PGCD)
    found, file = stray_free(train(PGCD, names[0]))
    assert found == ["spleen"]
    asked = []
    write = TeacherVolumes.write

    def spy(self, dataset, predictor, labelled_channels_in, stray_free, **more):
        asked.append(list(stray_free))
        write(self, dataset, predictor, labelled_channels_in, stray_free, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TeacherVolumes, "write", spy)
        assert stray_free(train(PGCD, names[1]))[0] == ["spleen", "kidney", "cyst"]
        assert asked.pop() == [2]
        assert stray_free(train(FINETUNE, names[1]))[0] == ["spleen", "kidney", "cyst"]
        patch.setattr(nnUNetTrainerPGCD, "drop_strays", False)
        train(PGCD, names[1])
        assert asked.pop() == []

        resumed = make_trainer(PGCD, names[0], resume=True)
        resumed.load_checkpoint(str(file))
        assert resumed.stray_free == ("spleen",)
        old = torch.load(file, weights_only=False)
        del old["cil"]["stray_free"]
        torch.save(old, file)
        assert stray_free(train(PGCD, names[1]))[0] == ["kidney", "cyst"]
        assert asked.pop() == []
        resumed.load_checkpoint(str(file))
        assert resumed.stray_free == ()
